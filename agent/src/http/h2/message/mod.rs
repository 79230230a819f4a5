//! Field blocks as messages and back, straight between the wire and our own heads (RFC 9113 section 8). It knows no streams.
//!
//! A block is read to its end whatever it says, since the tables of both ends must agree; its first fault decides what becomes of the message.

mod read;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod write;

use super::frame::Violation;
use super::hpack::Decoder;
use crate::http::h1::Fault;

pub use request::read_request;
pub use response::{read_response, read_trailers};
pub use write::{
    check_request, write_connect, write_continue, write_extended_connect, write_interim, write_request, write_response,
    write_trailers,
};

/// Why a block is no message that can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockFault {
    /// The tables of the two ends differ from here on: the connection ends.
    #[error("{0}")]
    Compression(Violation),
    /// Malformed (section 8.1.1): the stream is reset.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Well formed, and refused with the status of the fault.
    #[error("{0}")]
    Refused(Fault),
}

impl From<Violation> for BlockFault {
    fn from(violation: Violation) -> BlockFault {
        BlockFault::Compression(violation)
    }
}

/// What else the head of a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestFacts {
    /// Announced length of the content in bytes.
    pub length: Option<u64>,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
}

/// `content-length` that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireLength {
    /// None.
    Absent,
    /// The head's own stays, since no content follows (HEAD, 304).
    AsStated,
    /// This many bytes.
    Known(u64),
}

/// Reads a block that nobody wants, for the sake of the tables.
pub fn skip(decoder: &mut Decoder, block: &[u8]) -> Result<(), BlockFault> {
    Ok(decoder.decode(block, |_| {})?)
}
