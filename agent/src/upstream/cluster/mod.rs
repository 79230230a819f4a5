//! What of an upstream all workers share: its endpoints with their health and counters, kept up to date off the request path. It opens no connections for
//! requests.

mod edition;
mod evidence;
mod expand;
mod keeper;
mod locality;
mod registry;
mod report;
mod sharing;
mod state;
mod tls;
mod view;

pub use edition::{Edition, News};
pub use registry::Clusters;
pub use report::EndpointReport;
pub use state::{Cluster, Context, HealthEvent, Spec};
pub(super) use tls::server_name;
pub use view::{EndpointCore, EndpointView};
