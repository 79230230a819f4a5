//! Keys and their values. It knows nothing of what stands in them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::ConsulError;
use super::client::{Consul, decode};
use super::health::Nullable;
use super::query::{Query, Scope};
use super::watch::Watch;

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvPair {
    /// The whole key.
    pub key: String,
    /// Its bytes.
    pub value: Vec<u8>,
    /// The index of its last change.
    pub modified: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawPair {
    key: String,
    value: Option<String>,
    modify_index: u64,
}

impl Consul {
    /// Watches all keys that begin with `prefix`.
    #[must_use]
    pub fn keys(&self, prefix: &str, scope: &Scope, dice: fastrand::Rng) -> Watch<Vec<KvPair>> {
        let query = Query::new("/v1/kv").segments(prefix.trim_start_matches('/')).flag("recurse").scope(&self.scope(scope));
        Watch::alone(self, query, dice, |raw, address, query| {
            let found: Option<Nullable<Vec<RawPair>>> = decode(address, query, raw)?;
            found.into_iter().flat_map(|found| found.0).map(|pair| pair.read(address)).collect()
        })
    }
}

impl RawPair {
    fn read(self, address: &str) -> Result<KvPair, ConsulError> {
        let value = STANDARD.decode(self.value.unwrap_or_default());
        let value = value.map_err(|_| ConsulError::Malformed {
            address: address.to_owned(),
            path: format!("/v1/kv/{}", self.key),
            why: "the value is not base64".into(),
        })?;
        Ok(KvPair { key: self.key, value, modified: self.modify_index })
    }
}
