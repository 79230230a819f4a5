//! The doors of a sidecar: what comes in from the mesh, over mutual TLS or in clear where that is permitted. It hands over requests and tunnels like any
//! other listener and knows neither policies nor upstreams.

pub(super) mod detect;
mod entry;
mod hello;
pub(super) mod inbound;
pub(super) mod outbound;
mod proxied;
pub(super) mod raw;
#[cfg(test)]
mod tests;
mod warden;
mod wary;

pub use entry::{Entry, Inbound, Leads, Wanted};
pub(super) use wary::opaque;
