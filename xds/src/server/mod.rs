//! The discovery server: what each stream is owed, who is connected, and the gRPC service. It knows no user resource and no agent.
//!
//! The decisions are made by two machines without input or output ([`DeltaMachine`], [`SotwMachine`]); [`AdsService`] moves their
//! messages over gRPC. What nodes hold and refuse is read from the [`NodeRegistry`].
//!
//! Many nodes hear the same: all streams are shown the same view of the snapshot at the same time (`pace.rs`), only those whom a change
//! concerns are called to look (`stage.rs`), what a client has is shared by all that have the same (`sent.rs`), and a response that many
//! are to get is encoded once (`memo.rs`).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use heddle_xds::server::{AdsService, NodeRegistry, tuned};
//! use heddle_xds::snapshot::SnapshotStore;
//!
//! let snapshot = Arc::new(SnapshotStore::new());
//! let registry = Arc::new(NodeRegistry::new());
//! let (drain, watch) = heddle_node::drain::pair();
//! let ads = AdsService::new(snapshot.clone(), registry.clone(), watch.clone()).into_server();
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
//! let stop = async move { watch.clone().draining().await };
//! tuned().add_service(ads).serve_with_incoming_shutdown(incoming, stop).await?;
//! # drop(drain);
//! # Ok(())
//! # }
//! ```
//! Serve only once the snapshot is complete: what is not in it, agents that connect are told to remove.
//!
//! In one process, [`crate::link::memory`] gives the incoming connections instead of a socket.

mod body;
mod delta;
mod memo;
mod pace;
mod refused;
mod registry;
mod rollout;
mod sent;
mod service;
mod sotw;
mod stage;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

pub use delta::DeltaMachine;
pub use refused::{Nack, Stands};
pub use registry::{
    HeldNow, Inspected, InstanceEvent, InstanceFollower, KindView, LoadView, Loads, MAX_HELD_SHOWN, NodeRegistry, NodeView,
    Refusal, ResourceView, Standing,
};
pub use rollout::{GroupName, GroupView, HeldView, Rollouts};
pub use service::{AdsServer, AdsService, CDS, EDS, Elsewhere, Gate, LDS, LoadServer, RDS, SDS, Seeds, Tuned, TypeServer, tuned};
pub use sotw::SotwMachine;

use crate::model::Kind;
use crate::protocol::BadRequest;
use crate::snapshot::{Changes, SnapshotSource};

/// What both machines do: requests and changes go in, responses come out when there is room for them. Nothing is queued: a machine
/// remembers names, and builds a response from the newest snapshot when it is asked for one.
pub trait Machine: Send + 'static {
    /// What the client says.
    type Request: Send;
    /// What the client is told.
    type Response: Send;

    /// Takes a request. `now` is noted with what the client refuses. An error ends the stream: the client asks for more than one may.
    fn request(&mut self, request: Self::Request, source: &dyn SnapshotSource, now: SystemTime) -> Result<(), BadRequest>;
    /// Takes note of what changed.
    fn changes(&mut self, changes: Changes, source: &dyn SnapshotSource);
    /// Whether more changes may be noted: what was told of those before is answered as far as it must be. Until then the client is told of one state.
    fn is_free(&self) -> bool;
    /// The next response, when one is due.
    fn response(&mut self, source: &dyn SnapshotSource) -> Option<Self::Response>;
    /// What the client asks for of a kind: whether everything, and which names.
    fn asked(&self, kind: Kind) -> (bool, Vec<Arc<str>>);
    /// The position up to which changes were noted.
    fn position(&self) -> u64;
    /// Whether the client has answered to everything that it was sent and is owed nothing; endpoints, which change all the time, do not count.
    fn answered(&self) -> bool;
    /// What the client holds, by kind, for those that it asked for.
    fn held(&self) -> Vec<KindView>;
    /// What the client refuses.
    fn nacks(&self) -> Vec<Nack>;
    /// What is gone and stays at the client, since it refuses what would lead there no more.
    fn kept(&self) -> Vec<(Kind, Arc<str>)>;
    /// How the client stands to each resource that it asked for or was sent.
    fn resources(&self) -> Vec<ResourceView>;
    /// Clusters that the client has taken anew since this was asked last, and whose endpoints it does not ask for by this stream.
    fn taken(&mut self) -> Vec<Arc<str>> {
        Vec::new()
    }
    /// The client has taken these clusters by another stream, so that they wait for their endpoints.
    fn warm(&mut self, _clusters: Vec<Arc<str>>) {}
    /// How the client stands to what it asked for by this stream.
    fn stands(&self) -> Stands;
    /// How it stands to what it asked for by others.
    fn beside(&mut self, others: Stands);
}
