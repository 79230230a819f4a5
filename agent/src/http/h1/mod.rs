//! The HTTP/1 codec (RFC 9112) of both sides, over bytes alone: one strict reading of every message, or a fault. It knows no sockets and no time.
//!
//! What is ambiguous is refused, never mended: line ends are CRLF, a framing field stands once, a length is digits, a transfer coding is `chunked`.

mod body;
mod chunked;
mod date;
mod encode;
mod facts;
mod lines;
mod request;
mod response;
mod target;
#[cfg(test)]
mod tests;

use heddle_xds::model::EdgeLimits;

pub use body::{BodyDecoder, Step};
pub use date::{DateCache, http_date};
pub use encode::{Persistence, WireLength, write_chunk_start, write_last_chunk, write_request_head, write_response_head};
pub use lines::is_trailer_allowed;
pub use request::{ParsedRequest, RequestParser};
pub use response::{ParsedResponse, RequestKind, ResponseParser};
pub use target::is_authority;

/// Bounds on a message head and on its trailers, each counted alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// All bytes of the head.
    pub max_bytes: usize,
    /// One field line.
    pub max_field: usize,
    /// Number of fields.
    pub max_fields: usize,
    /// Request target.
    pub max_target: usize,
    /// Whether CONNECT is let in that names an authority alone (RFC 9112 section 3.2.3, RFC 9113 section 8.5).
    pub connect: bool,
    /// Whether an authority may be any text, as where all that is served is on a socket with a path (gRPC's C core names that); over HTTP/2 only.
    pub any_authority: bool,
}

impl HeadLimits {
    /// Those of a listener.
    pub fn edge(limits: &EdgeLimits) -> HeadLimits {
        HeadLimits {
            max_bytes: limits.max_header_bytes as usize,
            max_field: (limits.max_field_bytes as usize).min(u16::MAX as usize),
            max_fields: limits.max_headers as usize,
            max_target: limits.max_uri_bytes as usize,
            connect: false,
            any_authority: false,
        }
    }
}

/// Why a head is refused. Each fault has one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Malformed or ambiguous: 400.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The request target is longer than allowed: 414.
    #[error("the request target is too long")]
    TargetTooLong,
    /// The head is longer, or has more fields, than allowed: 431.
    #[error("the head is too large")]
    TooLarge,
    /// Not HTTP/1.0 or HTTP/1.1: 505.
    #[error("the protocol version is not spoken")]
    Version,
    /// A method that is never forwarded: 405.
    #[error("the method is not forwarded: {0}")]
    Method(&'static str),
    /// An expectation other than `100-continue`: 417.
    #[error("unknown expectation")]
    Expectation,
}

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyLength {
    /// No body, or one of no bytes.
    #[default]
    Empty,
    /// This many bytes, not zero.
    Known(u64),
    /// Chunked coding.
    Chunked,
    /// Responses only: all until the connection ends.
    UntilClose,
}
