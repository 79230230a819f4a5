//! The discovery client: follows a control plane and hands typed updates to a consumer. It knows neither tables nor sockets of the data path.
//!
//! The decisions are made by two machines without input or output ([`DeltaClient`], [`SotwClient`]); [`run`] moves their messages
//! over gRPC, reconnects, and keeps the last good state on disk. The consumer answers every [`Batch`] with the resources that it
//! cannot use; those, and only those, are refused by name and are not recorded as held, so their last good version stays.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use heddle_xds::client::{Batch, ClientConfig, ClientStatus, run};
//! use heddle_xds::link::Connector;
//! use heddle_xds::protocol::NodeInfo;
//! use heddle_xds::snapshot::NodeScope;
//! use tokio::sync::{mpsc, watch};
//!
//! let scope = NodeScope { id: "gw-1".into(), role: "gateway".into(), zone: "eu-1a".into(), ..NodeScope::default() };
//! let node = NodeInfo { scope, version: env!("CARGO_PKG_VERSION").into(), ..NodeInfo::default() };
//! let config = ClientConfig::new(node, Connector::tcp("127.0.0.1:18000")?);
//! let (updates, mut batches) = mpsc::channel::<Batch>(1);
//! let (status, watched) = watch::channel(ClientStatus::default());
//! tokio::spawn(run(config, updates, status, fastrand::Rng::new()));
//! while let Some(batch) = batches.recv().await {
//!     for update in batch.updates() {
//!         println!("{}: {} set, {} removed", update.kind.as_str(), update.set.len(), update.removed.len());
//!     }
//!     batch.accept();
//! }
//! assert!(!watched.borrow().connected);
//! # Ok(())
//! # }
//! ```

mod backoff;
mod delta;
mod demand;
pub mod envoy;
mod holdings;
mod last_good;
mod shell;
mod sotw;
mod stream;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};

pub use backoff::backoff;
pub use delta::DeltaClient;
pub use demand::{Asked, Asks, Demand, Interest, Interests, Standing};
pub use holdings::{Held, Holdings};
pub use last_good::{LastGoodError, load, save};
pub use shell::run;
pub use sotw::SotwClient;

use crate::codec::InvalidResource;
use crate::link::Connector;
use crate::model::{Kind, Resource};
use crate::protocol::{Dialect, NodeInfo};

/// A resource that was set.
#[derive(Debug, Clone, PartialEq)]
pub struct SetResource {
    /// Its name.
    pub name: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// The resource.
    pub resource: Resource,
}

/// What changed of one kind, in the order in which it is to be applied: first `set`, then `removed`.
#[derive(Debug, Clone, PartialEq)]
pub struct TypedUpdate {
    /// The kind.
    pub kind: Kind,
    /// New or changed.
    pub set: Vec<SetResource>,
    /// Names that are gone.
    pub removed: Vec<Arc<str>>,
    /// What could not be decoded; refused already, here for logs and metrics.
    pub rejected: Vec<InvalidResource>,
}

/// Where a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From disk, at start: what was held when the agent ran last.
    LastGood,
    /// From the control plane.
    ControlPlane,
}

/// Updates that arrived together, dependencies first. Compile once, swap once, then answer.
#[derive(Debug)]
pub struct Batch {
    /// Where it comes from.
    pub origin: Origin,
    /// The updates, by the view of the control plane that they belong to; a kind may be there more than once.
    pub views: Vec<Vec<TypedUpdate>>,
    /// Nothing of it is to be used while a part of it is refused: the next batch says what instead. Until then what was in use stays, all of it.
    pub whole: bool,
    reply: oneshot::Sender<Vec<InvalidResource>>,
}

impl Batch {
    /// A batch, and where its verdict arrives.
    pub fn new(origin: Origin, views: Vec<Vec<TypedUpdate>>) -> (Batch, oneshot::Receiver<Vec<InvalidResource>>) {
        let (reply, verdict) = oneshot::channel();
        (Batch { origin, views, whole: false, reply }, verdict)
    }

    /// A batch of which nothing is used while a part of it is refused.
    pub fn whole(origin: Origin, views: Vec<Vec<TypedUpdate>>) -> (Batch, oneshot::Receiver<Vec<InvalidResource>>) {
        let (batch, verdict) = Batch::new(origin, views);
        (Batch { whole: true, ..batch }, verdict)
    }

    /// The updates of all views, in their order.
    pub fn updates(&self) -> impl Iterator<Item = &TypedUpdate> {
        self.views.iter().flatten()
    }

    /// Everything is in use.
    pub fn accept(self) {
        self.reject(Vec::new());
    }

    /// Everything is in use but these, whose previous versions stay in use; of one that is [whole](Batch::whole) nothing yet.
    pub fn reject(self, rejected: Vec<InvalidResource>) {
        // The client may be shutting down; then nobody waits for the answer.
        let _ = self.reply.send(rejected);
    }
}

/// How the client stands, for readiness and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientStatus {
    /// A stream to the control plane is open.
    pub connected: bool,
    /// On that stream was said that the instance beside the node takes requests.
    pub takes_requests: bool,
    /// When the control plane last said something.
    pub last_contact: Option<SystemTime>,
    /// Every kind that is asked for was answered by a control plane at least once since the start.
    pub synced: bool,
    /// What was on disk is in use, all of it that can be used; where a listener of it closed (Envoy's types), not before a control plane has said more.
    pub last_good: bool,
    /// Failed attempts since the last answer.
    pub failures: u32,
    /// Why the last stream ended, empty when none did.
    pub last_error: String,
    /// Resources refused since the start.
    pub rejected: u64,
    /// Views that had to be handed over in parts since the start.
    pub parted: u64,
    /// Position of the control plane that was followed last, empty before the first answer.
    pub version: Arc<str>,
}

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Who we are.
    pub node: NodeInfo,
    /// Whether the instance beside the node takes requests, when somebody follows that: said when a stream opens, and on an open stream whenever it changes.
    pub takes_requests: Option<watch::Receiver<bool>>,
    /// How to reach the control plane.
    pub connector: Connector,
    /// How to speak.
    pub dialect: Dialect,
    /// What to ask for.
    pub interests: Interests,
    /// The names of kinds that are asked for by name.
    pub demand: Demand,
    /// File that keeps what is held; `None` keeps nothing.
    pub last_good: Option<PathBuf>,
    /// The file is written this long after a change, at the latest.
    pub save_after: Duration,
    /// Told with whom to begin to gossip, whenever a control plane says so.
    pub gossip: Option<watch::Sender<Vec<String>>>,
    /// The cell in which this node gossips, whose members the control plane is to tell of.
    pub cell: Arc<str>,
    /// The control plane speaks Envoy's own types, or there is none and a bootstrap of Envoy's says everything.
    pub envoy: Option<envoy::EnvoySource>,
}

impl ClientConfig {
    /// Delta, everything asked for, nothing kept on disk.
    pub fn new(node: NodeInfo, connector: Connector) -> ClientConfig {
        ClientConfig {
            node,
            takes_requests: None,
            connector,
            dialect: Dialect::Delta,
            interests: Interests::default(),
            demand: Demand::default(),
            last_good: None,
            save_after: Duration::from_secs(1),
            gossip: None,
            cell: Arc::default(),
            envoy: None,
        }
    }

    /// Who we are, as it is now.
    pub(crate) fn node(&self) -> NodeInfo {
        let mut node = self.node.clone();
        if let (Some(instance), Some(takes_requests)) = (&mut node.instance, &self.takes_requests) {
            instance.draining = !*takes_requests.borrow();
        }
        node
    }
}

/// What both machines do: responses come in, typed updates go to the consumer, its verdict becomes ACK or NACK.
pub trait ClientMachine: Send + 'static {
    /// What the client says.
    type Request: Send;
    /// What the client is told.
    type Response: Send;
    /// A response that waits for the consumer's verdict.
    type Open: Send;

    /// The requests that open a stream: all that is wanted is asked for, and what is held is said.
    fn hello(&mut self) -> Vec<Self::Request>;
    /// Whether a response can be received before these are settled.
    fn joins(&self, open: &[Self::Open], response: &Self::Response) -> bool;
    /// Decodes a response, each resource singly.
    fn receive(&mut self, response: Self::Response) -> (TypedUpdate, Self::Open);
    /// Takes the consumer's verdict: records what is held now and makes the ACK, or the NACK that names each bad resource.
    fn settle(&mut self, open: Self::Open, rejected: &[InvalidResource]) -> Self::Request;
    /// Takes a change of what is asked for; says what to send on an open stream, and what is held no more.
    fn ask(&mut self, asks: Asks) -> (Option<Self::Request>, Vec<Arc<str>>);
    /// What is held.
    fn holdings(&self) -> &Holdings;
}
