//! The data plane: one node's listeners, pipeline, filters, balancing and upstreams, driven by tables that come over xDS. It never sees the control plane.

mod admin;
pub mod app;
mod authorize;
pub mod balance;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod dns;
pub mod exchange;
mod feed;
pub mod filters;
mod health;
mod http;
pub mod identity;
mod listener;
mod mesh_dns;
mod net;
pub mod observe;
pub mod outbound;
mod pipeline;
mod registration;
pub mod route;
pub mod secrets;
pub mod settings;
mod tables;
mod upstream;

pub use net::{original_destination, set_transparent};
