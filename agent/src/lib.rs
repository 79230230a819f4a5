//! The data plane: one node's listeners, pipeline, filters, balancing and upstreams, driven by tables that come over xDS. It never sees the control plane.

pub mod exchange;
pub mod filters;
pub mod http;
