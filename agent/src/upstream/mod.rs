//! Upstreams at run time: clusters of endpoints, connections to them, and requests over these connections. It knows no routes and no filters.
//!
//! [`Clusters`] (one per node, control runtime) keeps a [`Cluster`] for every upstream: names are resolved, endpoints probed, lists rebuilt there.
//! [`Pools`] (one per worker) picks an endpoint of a cluster, keeps connections and sends requests. What a worker learns goes back as health and counters.

mod cluster;
mod connect;
mod error;
mod expand;
mod h1;
mod h2;
mod host;
mod io;
mod message;
mod pools;
mod stats;
mod target;
#[cfg(test)]
mod tests;
mod timer;
mod tls;
mod view;

pub use cluster::{Cluster, Context, EndpointReport, HealthEvent, Spec};
pub use error::{Sent, UpstreamError};
pub use message::{OutgoingRequest, UpstreamResponse};
pub use pools::Pools;
pub use stats::{Shard, Stats, Totals};
pub use target::{Picked, Target};
pub use tls::{Secrets, TlsStore};
pub use view::{Endpoint, EndpointCore, EndpointView};
