//! What of an upstream all workers share: its endpoints with their health and counters, kept up to date off the request path. It opens no connections for
//! requests.

mod evidence;
mod expand;
mod keeper;
mod locality;
mod registry;
mod report;
mod sharing;
mod state;
pub(super) mod stats;
mod tls;
mod view;

pub use registry::Clusters;
pub use report::EndpointReport;
pub use state::{Cluster, Context, HealthEvent, Spec};
pub use stats::Shard;
pub(super) use tls::server_name;
pub use view::{EndpointCore, EndpointView};
