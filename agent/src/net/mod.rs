//! Sockets as both sides use them: one stream type in clear and over TLS, deadlines that cost nothing while they hold, the PROXY protocol.
//! It knows no HTTP.

mod client_tls;
mod deadline;
mod io;
mod mesh;
mod origin;
pub mod proxy;
mod socket;

pub use client_tls::{KeyPair, SystemRoots, client_config, key_pair_of_pem, roots_of_pem, server_name};
pub use deadline::Deadline;
pub use io::{Io, Rewind};
pub use mesh::{CALLER_ALPN, INBOUND_ALPN, MESH_ALPN};
pub use origin::{has_ipv6, original_destination, set_transparent};
pub use socket::Socket;
