//! Error codes of resets and goodbyes (RFC 9113 section 7). It knows no frames.

use std::fmt;

/// Why a stream or a connection is ended. A code that nobody has named stays as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// Nothing went wrong.
    pub const NO_ERROR: ErrorCode = ErrorCode(0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: ErrorCode = ErrorCode(1);
    /// A fault of the one who says it.
    pub const INTERNAL_ERROR: ErrorCode = ErrorCode(2);
    /// The peer sent more than its windows allow.
    pub const FLOW_CONTROL_ERROR: ErrorCode = ErrorCode(3);
    /// A frame for a stream that has ended.
    pub const STREAM_CLOSED: ErrorCode = ErrorCode(5);
    /// A frame of a size that it cannot have.
    pub const FRAME_SIZE_ERROR: ErrorCode = ErrorCode(6);
    /// The stream has not been looked at; it may be tried again (section 8.7).
    pub const REFUSED_STREAM: ErrorCode = ErrorCode(7);
    /// Nobody wants the stream any more.
    pub const CANCEL: ErrorCode = ErrorCode(8);
    /// The state of the field compression is lost.
    pub const COMPRESSION_ERROR: ErrorCode = ErrorCode(9);
    /// The connection that CONNECT opened was reset.
    pub const CONNECT_ERROR: ErrorCode = ErrorCode(10);
    /// The peer asks for too much work.
    pub const ENHANCE_YOUR_CALM: ErrorCode = ErrorCode(11);

    /// Name as the RFC spells it, empty for a code that it does not name.
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "NO_ERROR",
            1 => "PROTOCOL_ERROR",
            2 => "INTERNAL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            8 => "CANCEL",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            12 => "INADEQUATE_SECURITY",
            13 => "HTTP_1_1_REQUIRED",
            _ => "",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "" => write!(f, "error code {}", self.0),
            name => f.write_str(name),
        }
    }
}
