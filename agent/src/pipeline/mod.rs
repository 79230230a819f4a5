//! The life of a request between a connection and an endpoint: `http` reads top to bottom as that life.

mod dispatch;
mod edit;
mod finish;
mod forward;
mod headers;
mod http;
mod mesh;
mod plan;
mod replay;
mod steered;
mod tcp;
mod view;
mod worker;

#[cfg(feature = "bench")]
pub use headers::{Forwarded, set_forwarded, strip_hop_by_hop};
pub use http::Pipeline;
pub use mesh::Callees;
#[cfg(feature = "bench")]
pub use plan::Plan;
#[cfg(feature = "bench")]
pub use view::View;
pub use worker::{Shared, Worker};
