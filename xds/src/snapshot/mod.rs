//! What nodes should know: versioned, encoded resources, and who may see which. It knows no stream and no protocol.
//!
//! ```
//! use heddle_xds::model::{Kind, Resource, Secret, SecretBody};
//! use heddle_xds::snapshot::{Change, NodeScope, SnapshotSource, SnapshotStore};
//!
//! let store = SnapshotStore::new();
//! let roots = Resource::Secret(Secret { name: "roots".into(), body: SecretBody::Roots("pem".into()) });
//! assert!(store.apply(vec![Change::Set(roots.clone())]));
//! assert!(!store.apply(vec![Change::Set(roots)]), "the same again is no change");
//! let scope = NodeScope::default();
//! assert_eq!(store.list(Kind::Secret, &scope).len(), 1);
//! ```

mod history;
mod store;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_128;

use crate::codec;
use crate::model::{Kind, MESH_PREFIX, Resource};

pub use history::History;
pub use store::{Change, SnapshotStore};
pub use view::{Kindred, View};

/// A resource, encoded once, with the version that follows from its content.
#[derive(Clone, PartialEq)]
pub struct Versioned {
    /// Hash of `body`: the same content has the same version on every control plane and after every restart.
    pub version: Arc<str>,
    /// The encoded resource.
    pub body: Bytes,
    /// The resource.
    pub resource: Resource,
    /// How it came to be, where it holds several of the user's resources.
    pub history: Option<Arc<History>>,
}

impl Versioned {
    /// Encodes and versions a resource.
    pub fn new(resource: Resource) -> Versioned {
        let body = codec::encode_body(&resource);
        Versioned { version: version_of(&body), body, resource, history: None }
    }

    /// What `resource` stands for in another dialect, encoded and versioned: who sees the one sees the other.
    pub fn encoded(resource: Resource, body: Bytes) -> Versioned {
        Versioned { version: version_of(&body), body, resource, history: None }
    }
}

impl fmt::Debug for Versioned {
    /// Without the body: key material never reaches a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versioned").field("version", &self.version).field("resource", &self.resource).finish_non_exhaustive()
    }
}

/// The version of encoded bytes: 128 bits of XXH3, in hexadecimal.
pub fn version_of(body: &[u8]) -> Arc<str> {
    written(hash_of(body))
}

/// What [`version_of`] writes down.
pub(crate) fn hash_of(body: &[u8]) -> u128 {
    xxh3_128(body)
}

/// A version as it goes over the wire.
pub(crate) fn written(hash: u128) -> Arc<str> {
    format!("{hash:032x}").into()
}

/// Who asks: decides what it may see.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct NodeScope {
    /// Node id.
    pub id: Arc<str>,
    /// What the node is, for example `gateway`; empty when unknown.
    pub role: Arc<str>,
    /// Zone, empty when unknown.
    pub zone: Arc<str>,
    /// Namespace of the service beside which it stands, empty for none.
    pub namespace: Arc<str>,
    /// That service, empty for none.
    pub service: Arc<str>,
    /// It looks at what was made for it, or for such as it, alone: it may see all of that.
    pub alone: bool,
    /// There was no place for its zone among those that are told apart: zones make no difference to what it is given.
    pub zoneless: bool,
    /// It is an agent of ours that asks for the types of others: it is given of them what agents of ours know.
    pub translates: bool,
}

/// The role of a node that stands beside one service of the mesh.
pub const SIDECAR: &str = "sidecar";

impl NodeScope {
    /// Whether a resource is meant for this node. Listeners may name their nodes. What only the mesh needs is for sidecars, and they need nothing else;
    /// policies and modes are for the sidecars of the services that they are about, and what runs for their requests for theirs.
    pub fn sees(&self, resource: &Resource) -> bool {
        if self.alone {
            return true;
        }
        let is_sidecar = &*self.role == SIDECAR;
        match resource {
            Resource::Listener(listener) => !is_sidecar && (listener.nodes.is_empty() || listener.nodes.contains(&self.id)),
            Resource::MeshService(_) => is_sidecar,
            Resource::MeshInbound(inbound) => {
                is_sidecar && inbound.service.split_once('/') == Some((&*self.namespace, &*self.service))
            }
            Resource::AuthorizationPolicy(policy) => is_sidecar && self.is_of(&policy.namespace, policy.service.as_deref()),
            Resource::PeerAuthentication(peers) => is_sidecar && self.is_of(&peers.namespace, peers.service.as_deref()),
            Resource::Endpoints(endpoints) => is_sidecar == endpoints.upstream.starts_with(MESH_PREFIX),
            Resource::PluginMetadata(_) => true,
            _ => !is_sidecar,
        }
    }

    /// Whether it stands beside this service, or one of this namespace.
    fn is_of(&self, namespace: &str, service: Option<&str>) -> bool {
        service.is_none_or(|service| *service == *self.service) && *namespace == *self.namespace
    }
}

/// What changed after a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Position up to which this tells everything.
    pub position: u64,
    /// What was set or removed, possibly more than once; `None` when too much happened: look at everything again.
    pub names: Option<Vec<(Kind, Arc<str>)>>,
}

/// What the discovery server reads. All methods are quick and never wait.
pub trait SnapshotSource: Send + Sync {
    /// One resource, when it exists and the node may see it.
    fn get(&self, kind: Kind, name: &str, scope: &NodeScope) -> Option<Arc<Versioned>>;
    /// All resources of a kind, whoever may see them, and the position at which it is so.
    fn all(&self, kind: Kind) -> (u64, Kindred);
    /// Grows with every change. A reader takes it before it reads resources, so that it misses nothing.
    fn position(&self) -> u64;

    /// Whether nothing is said of a resource: it is not there, and who has it keeps it.
    fn is_untold(&self, _kind: Kind, _name: &str) -> bool {
        false
    }

    /// Whether there is such a resource of a kind.
    fn leaves(&self, _kind: Kind) -> bool {
        false
    }

    /// All resources of a kind that the node may see, by name.
    fn list(&self, kind: Kind, scope: &NodeScope) -> Vec<Arc<Versioned>> {
        self.all(kind)
            .1
            .iter()
            .map(|(_, versioned)| versioned)
            .filter(|versioned| scope.sees(&versioned.resource))
            .cloned()
            .collect()
    }
}

/// What the discovery server follows: a source that changes. All methods are quick and never wait.
pub trait SnapshotFeed: SnapshotSource + 'static {
    /// Everything as it is now.
    fn view(&self) -> Arc<View>;
    /// What changed after position `after`, up to position `to`.
    fn changed_between(&self, after: u64, to: u64) -> Changes;
    /// Wakes when the position grows; holds the newest position.
    fn watch(&self) -> watch::Receiver<u64>;
}
