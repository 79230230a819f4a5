//! Upstreams at run time: clusters of endpoints, connections to them, and requests over these connections. It knows no routes and no filters.
//!
//! [`Clusters`] (one per node, control runtime) keeps a [`Cluster`] for every upstream: names are resolved, endpoints probed, lists rebuilt there. What each
//! revision of the configuration makes of it is an [`Edition`], for the tables of that revision.
//! [`Pools`] (one per worker) shows an edition as a [`Target`], which picks endpoints, and sends requests over connections that it keeps. What a worker learns
//! goes back to the cluster as health and counters.

mod cluster;
mod connect;
mod drops;
mod error;
mod h1;
mod h2;
mod host;
mod message;
mod outside;
mod pools;
mod stats;
mod target;
#[cfg(test)]
pub(crate) mod tests;
mod tunnel;

pub use cluster::{Cluster, Clusters, Context, Edition, EndpointCore, EndpointReport, EndpointView, HealthEvent, News, Spec};
pub use error::{Sent, UpstreamError};
pub use message::{OutgoingRequest, UpstreamResponse};
pub use outside::Outside;
pub use pools::Pools;
pub use stats::Shard;
pub use target::{EndpointHandle, Picked, Seen, Target};
pub use tunnel::Dial;
