//! The data plane: one node's listeners, pipeline, filters, balancing and upstreams, driven by tables that come over xDS. It never sees the control plane.

pub mod admin;
pub mod app;
pub mod balance;
pub mod dns;
pub mod exchange;
pub mod feed;
pub mod filters;
pub mod health;
pub mod http;
pub mod listener;
pub mod net;
pub mod observe;
pub mod pipeline;
pub mod route;
pub mod settings;
pub mod tables;
pub mod upstream;
