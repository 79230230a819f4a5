//! Frames appended to what is to be sent. It knows no stream states and no windows; the caller keeps them.

use super::ErrorCode;
use super::header::{FrameHeader, HEADER_LEN, Kind, flags};
use super::settings::{ENTRY_LEN, Setting};

/// Writes settings.
pub fn write_settings(out: &mut Vec<u8>, settings: &[(Setting, u32)]) {
    header(out, settings.len() * ENTRY_LEN, Kind::Settings, 0, 0);
    for (name, value) in settings {
        out.extend_from_slice(&(*name as u16).to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Writes that the peer's settings were taken in.
pub fn write_settings_ack(out: &mut Vec<u8>) {
    header(out, 0, Kind::Settings, flags::ACK, 0);
}

/// Writes a ping, or with `ack` the answer to one.
pub fn write_ping(out: &mut Vec<u8>, ack: bool, opaque: [u8; 8]) {
    header(out, opaque.len(), Kind::Ping, if ack { flags::ACK } else { 0 }, 0);
    out.extend_from_slice(&opaque);
}

/// Writes that streams beyond `last` are not looked at.
pub fn write_goaway(out: &mut Vec<u8>, last: u32, code: ErrorCode, debug: &[u8]) {
    header(out, 8 + debug.len(), Kind::GoAway, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug);
}

/// Writes that a stream ends early.
pub fn write_reset(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    header(out, 4, Kind::Reset, 0, stream);
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Writes that a window opens by `increment`, which is not 0; `stream` 0 is the connection.
pub fn write_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    debug_assert!(increment > 0);
    header(out, 4, Kind::WindowUpdate, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// Writes what stands before `len` octets of content; the content itself follows from where it lies.
pub fn write_data_header(out: &mut Vec<u8>, stream: u32, len: usize, end_stream: bool) {
    header(out, len, Kind::Data, if end_stream { flags::END_STREAM } else { 0 }, stream);
}

/// A field block whose header stands already and whose length is not known yet.
#[derive(Debug)]
#[must_use = "a block that is not finished has the wrong length"]
pub struct OpenBlock {
    at: usize,
    stream: u32,
}

/// Begins the field block of a stream; append it to `out` and then finish it. So a block is encoded to where it is sent from.
pub fn begin_block(out: &mut Vec<u8>, stream: u32) -> OpenBlock {
    let at = out.len();
    header(out, 0, Kind::Headers, 0, stream);
    OpenBlock { at, stream }
}

impl OpenBlock {
    /// Ends the block: a HEADERS frame and, where it is longer than one frame of the peer may be, CONTINUATION frames behind it.
    pub fn finish(self, out: &mut Vec<u8>, end_stream: bool, max_frame_size: u32) {
        let start = self.at + HEADER_LEN;
        debug_assert!(out.len() >= start);
        let (len, most) = (out.len() - start, max_frame_size as usize);
        let end = if end_stream { flags::END_STREAM } else { 0 };
        let first = len.min(most);
        let last_flag = |last: bool| if last { flags::END_HEADERS } else { 0 };
        let head = frame(first, Kind::Headers, end | last_flag(first == len), self.stream);
        out[self.at..start].copy_from_slice(&head.octets());
        if first == len {
            return;
        }
        // Rare: blocks are smaller than the smallest limit but for the largest of cookies.
        let rest = out.split_off(start + first);
        let mut pieces = rest.chunks(most).peekable();
        while let Some(piece) = pieces.next() {
            frame(piece.len(), Kind::Continuation, last_flag(pieces.peek().is_none()), self.stream).write(out);
            out.extend_from_slice(piece);
        }
    }
}

const fn frame(len: usize, kind: Kind, flags: u8, stream: u32) -> FrameHeader {
    FrameHeader { length: len as u32, kind: kind as u8, flags, stream }
}

fn header(out: &mut Vec<u8>, len: usize, kind: Kind, flags: u8, stream: u32) {
    frame(len, kind, flags, stream).write(out);
}
