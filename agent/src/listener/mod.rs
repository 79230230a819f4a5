//! Accepting clients: sockets, TLS, protocols and their bounds. It hands requests to a [`Service`] and knows neither routes nor upstreams.
//!
//! [`Service`]: crate::exchange::Service

mod admission;
mod connection;
mod counters;
mod guard;
mod h1;
mod h2;
#[cfg(test)]
mod harness;
mod length;
mod mesh;
mod open;
mod site;
mod socket;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;
mod tunnel;

pub use connection::Shared;
pub use counters::{Count, Counters};
pub use mesh::{Entry, Inbound, Leads, Wanted};
pub use open::{ListenFault, Listeners};
pub use site::Worker;
pub use tls::{CertificateFault, CertificateStore, SharedCertificates};
