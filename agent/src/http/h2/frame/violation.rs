//! What a peer did that it must not, and how far that reaches (RFC 9113 section 5.4). It knows no frames.

use super::ErrorCode;

/// How far a violation reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The connection ends with GOAWAY (section 5.4.1).
    Connection,
    /// This stream is reset, the others go on (section 5.4.2).
    Stream(u32),
}

/// What a peer did that it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Violation {
    /// What is said to the peer.
    pub code: ErrorCode,
    /// How far it reaches.
    pub scope: Scope,
    /// What it was, for logs and debug data.
    pub detail: &'static str,
}

impl Violation {
    /// One that ends the connection.
    pub const fn connection(code: ErrorCode, detail: &'static str) -> Violation {
        Violation { code, scope: Scope::Connection, detail }
    }

    /// One that resets a stream.
    pub const fn stream(stream: u32, code: ErrorCode, detail: &'static str) -> Violation {
        Violation { code, scope: Scope::Stream(stream), detail }
    }

    pub(super) const fn protocol(detail: &'static str) -> Violation {
        Violation::connection(ErrorCode::PROTOCOL_ERROR, detail)
    }

    pub(super) const fn size(detail: &'static str) -> Violation {
        Violation::connection(ErrorCode::FRAME_SIZE_ERROR, detail)
    }
}
