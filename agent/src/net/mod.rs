//! Sockets as both sides use them: one stream type in clear and over TLS, deadlines that cost nothing while they hold, the PROXY protocol.
//! It knows no HTTP.

mod deadline;
mod io;
pub mod proxy;
mod socket;

pub use deadline::Deadline;
pub use io::{Io, Rewind};
pub use socket::Socket;
