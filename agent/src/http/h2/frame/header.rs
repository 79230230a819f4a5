//! The nine octets before every payload (RFC 9113 section 4.1). It knows no payloads.

use super::Violation;

/// Octets of a frame header.
pub const HEADER_LEN: usize = 9;
/// Largest stream identifier (section 5.1.1).
pub const MAX_STREAM: u32 = (1 << 31) - 1;

/// Frame types (section 6). Others are ignored (section 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Section 6.1.
    Data = 0,
    /// Section 6.2.
    Headers = 1,
    /// Section 6.3.
    Priority = 2,
    /// Section 6.4.
    Reset = 3,
    /// Section 6.5.
    Settings = 4,
    /// Section 6.6.
    PushPromise = 5,
    /// Section 6.7.
    Ping = 6,
    /// Section 6.8.
    GoAway = 7,
    /// Section 6.9.
    WindowUpdate = 8,
    /// Section 6.10.
    Continuation = 9,
}

impl Kind {
    /// The type with this number.
    pub const fn find(number: u8) -> Option<Kind> {
        Some(match number {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::Reset,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => return None,
        })
    }
}

/// Flags of frames; which frame knows which says section 6.
pub mod flags {
    /// DATA and HEADERS: the last frame of its sender on the stream.
    pub const END_STREAM: u8 = 1;
    /// SETTINGS and PING: an answer.
    pub const ACK: u8 = 1;
    /// HEADERS and CONTINUATION: the field block is complete.
    pub const END_HEADERS: u8 = 4;
    /// DATA and HEADERS: padding follows.
    pub const PADDED: u8 = 8;
    /// HEADERS: a priority stands before the block. Read over (section 5.3.2).
    pub const PRIORITY: u8 = 32;
}

/// A frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Octets of the payload, below 2^24.
    pub length: u32,
    /// Type as it came; see [`Kind::find`].
    pub kind: u8,
    /// Flags as they came.
    pub flags: u8,
    /// Stream, 0 for the connection. The reserved bit is gone.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads a header.
    pub const fn parse(octets: &[u8; HEADER_LEN]) -> FrameHeader {
        let [a, b, c, kind, flags, d, e, f, g] = *octets;
        FrameHeader {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & MAX_STREAM,
        }
    }

    /// The header at the start of `bytes`, `None` while it is not complete.
    pub fn peek(bytes: &[u8]) -> Option<FrameHeader> {
        bytes.first_chunk().map(FrameHeader::parse)
    }

    /// Appends the header.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.octets());
    }

    /// The header as it goes onto the wire.
    pub const fn octets(&self) -> [u8; HEADER_LEN] {
        let ([_, a, b, c], [d, e, f, g]) = (self.length.to_be_bytes(), self.stream.to_be_bytes());
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// Octets of header and payload.
    pub const fn total(&self) -> usize {
        HEADER_LEN + self.length as usize
    }

    /// Refuses a payload that is longer than we have allowed (section 4.2), before any of it is awaited.
    pub const fn check_length(&self, max_frame_size: u32) -> Result<(), Violation> {
        if self.length > max_frame_size { Err(Violation::size("a frame is longer than allowed")) } else { Ok(()) }
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}
