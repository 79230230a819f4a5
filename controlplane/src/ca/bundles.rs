//! The roots that nodes get: of our own trust domain and of those that we are federated with, with a version that follows from the content. It knows no node.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use heddle_node::hex;
use heddle_node::identity::Bundles;

/// Bytes of the hash that is the version.
const VERSION_BYTES: usize = 16;

/// Bundles and their version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// Hash of the content: equal on every control plane and after every restart.
    pub version: Arc<str>,
    /// Who is trusted.
    pub bundles: Bundles,
}

impl Trusted {
    /// Gives bundles their version.
    pub fn new(bundles: Bundles) -> Arc<Trusted> {
        let mut context = Context::new(&SHA256);
        let mut part = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        part(bundles.own_domain().map(|domain| domain.as_str()).unwrap_or_default().as_bytes());
        for bundle in bundles.iter() {
            part(bundle.domain().as_str().as_bytes());
            part(&(bundle.roots().len() as u64).to_be_bytes());
            bundle.roots().iter().for_each(|root| part(root));
        }
        let hash = context.finish();
        let version = hex::encode(&hash.as_ref()[..VERSION_BYTES]).into();
        Arc::new(Trusted { version, bundles })
    }
}
