//! Frames as they lie on the wire (RFC 9113 sections 4 and 6): read where they lie, written behind what is to be sent. It knows no stream states.

mod code;
mod header;
mod parse;
mod settings;
#[cfg(test)]
mod tests;
mod violation;
mod write;

pub use code::ErrorCode;
pub use header::{FrameHeader, HEADER_LEN, Kind, MAX_STREAM, flags};
pub use parse::Frame;
pub use settings::{DEFAULT_FRAME_SIZE, DEFAULT_TABLE_SIZE, DEFAULT_WINDOW, MAX_WINDOW, Role, Setting, Settings};
pub use violation::{Scope, Violation};
pub use write::{
    begin_block, write_data_header, write_goaway, write_ping, write_reset, write_settings, write_settings_ack,
    write_window_update,
};

/// What a client says first on every connection (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
