//! The messages of xDS as plain values, the same for both ends. It knows no stream; protobuf stays in `wire.rs`.

mod nack;
pub(crate) mod names;
pub(crate) mod seeds;
mod station;
mod types;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Instance, Kind};
use crate::snapshot::{NodeScope, SIDECAR};

pub use nack::{NackLine, nack_text, parse_nack, shortened};
pub use names::Names;
pub use seeds::Advice;
pub use station::Station;
pub use types::Types;
pub use wire::BadRequest;

/// Names in one request. Far above the resources of one kind; bounds what one client makes the server remember.
pub const MAX_NAMES: usize = 100_000;
/// Bytes of one request: the versions of 100,000 resources fit.
pub const MAX_REQUEST: usize = 16 * 1024 * 1024;
/// Bytes of one response. Delta stays far below it; state of the world cannot be split.
pub const MAX_RESPONSE: usize = 64 * 1024 * 1024;
/// The name that stands for every resource of a kind.
pub const WILDCARD: &str = "*";

/// The two ways to speak xDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// Only what changed.
    Delta,
    /// State of the world: everything of a kind, whenever one thing changed.
    Sotw,
}

impl Dialect {
    /// `delta` or `sotw`.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::Delta => "delta",
            Dialect::Sotw => "sotw",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who opens a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeInfo {
    /// Id, role and zone.
    pub scope: NodeScope,
    /// Version of the program, for people.
    pub version: Arc<str>,
    /// The instance of a service beside which it stands.
    pub instance: Option<Instance>,
    /// What a proxy of others says of its place; nothing of an agent of ours.
    pub station: Station,
}

impl NodeInfo {
    /// Whether what it is given is no other's: it is of others, and a member of the mesh.
    #[must_use]
    pub fn is_apart(&self, types: Types) -> bool {
        types != Types::Heddle && (self.station.identity || *self.scope.role == *SIDECAR)
    }
}

/// One resource on its way, encoded.
#[derive(Clone, PartialEq, Eq)]
pub struct RawResource {
    /// Name; empty in state of the world, where only the body says it.
    pub name: Arc<str>,
    /// Version; empty in state of the world.
    pub version: Arc<str>,
    /// Type of the body; a receiver checks that it is the expected one.
    pub type_url: Arc<str>,
    /// Encoded resource.
    pub body: Bytes,
}

impl fmt::Debug for RawResource {
    /// Without the body: key material never reaches a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RawResource { name, version, type_url, body } = self;
        write!(f, "RawResource({type_url} {name:?} at {version:?}, {} bytes)", body.len())
    }
}

/// Delta, client to server: change of subscription, ACK (nonce) or NACK (nonce and error), or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaRequest {
    /// Kind that it is about.
    pub kind: Kind,
    /// Names asked for from now on.
    pub subscribe: Vec<Arc<str>>,
    /// Names no longer asked for.
    pub unsubscribe: Vec<Arc<str>>,
    /// What the client holds; only looked at on the first request of a kind on a stream.
    pub initial: BTreeMap<Arc<str>, Arc<str>>,
    /// Nonce of the response that is answered, empty for none.
    pub nonce: Arc<str>,
    /// Why that response was refused, in whole or in part.
    pub error: Option<String>,
}

impl DeltaRequest {
    /// A request that says nothing yet.
    pub fn new(kind: Kind) -> DeltaRequest {
        DeltaRequest {
            kind,
            subscribe: Vec::new(),
            unsubscribe: Vec::new(),
            initial: BTreeMap::new(),
            nonce: "".into(),
            error: None,
        }
    }
}

/// Delta, server to client: what was set and removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaResponse {
    /// Kind that it is about.
    pub kind: Kind,
    /// Position of the server, for people.
    pub version: Arc<str>,
    /// To be given back in ACK or NACK.
    pub nonce: Arc<str>,
    /// New or changed.
    pub resources: Vec<RawResource>,
    /// Gone, or asked for and not there.
    pub removed: Vec<Arc<str>>,
}

/// State of the world, client to server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SotwRequest {
    /// Kind that it is about.
    pub kind: Kind,
    /// Version that the client holds; the previous one with a NACK.
    pub version: Arc<str>,
    /// All names asked for.
    pub names: Names,
    /// Nonce of the response that is answered, empty for none.
    pub nonce: Arc<str>,
    /// Why that response was refused, in whole or in part.
    pub error: Option<String>,
}

/// State of the world, server to client: everything asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SotwResponse {
    /// Kind that it is about.
    pub kind: Kind,
    /// Version of the whole.
    pub version: Arc<str>,
    /// To be given back in ACK or NACK.
    pub nonce: Arc<str>,
    /// Everything that was asked for and is there.
    pub resources: Vec<RawResource>,
}

/// Behind the version of a delta response, or the nonce of a state-of-the-world response, that more of the same view follows. The public protocol leaves both
/// to the server: that version is for people to read, and a nonce is given back as it is.
const MORE: char = '+';

/// The version or nonce of a response that more of the same view follows.
#[must_use]
pub fn more_follows(said: &str) -> Arc<str> {
    format!("{said}{MORE}").into()
}

/// The version or nonce that a response says, and whether more of the same view follows it.
#[must_use]
pub fn is_followed(said: &str) -> (&str, bool) {
    said.strip_suffix(MORE).map_or((said, false), |said| (said, true))
}
