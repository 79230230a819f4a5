//! HTTP/2 frames by hand (RFC 9113), with header blocks that no library would write (RFC 7541, literals alone).

use super::raw::{Door, Raw};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Payload of one frame.
const LARGEST: usize = 16 * 1024;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut out = vec![a, b, c, kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A header block of literals that are never indexed.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0x10);
        text(&mut out, name);
        text(&mut out, value);
    }
    out
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        out.push(text.len() as u8);
    } else {
        out.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            out.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(text);
}

/// The pseudo-header fields of a usual request.
pub fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a [u8], &'a [u8])> {
    vec![(b":method", method.as_bytes()), (b":scheme", b"http"), (b":authority", b"test.example"), (b":path", path.as_bytes())]
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Status(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
}

/// A connection whose preface and settings have been sent.
pub struct Frames {
    pub raw: Raw,
}

impl Frames {
    pub fn open(door: &Door) -> Frames {
        Frames::with_settings(door, &[])
    }

    pub fn with_settings(door: &Door, settings: &[u8]) -> Frames {
        let mut raw = door.open();
        raw.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, settings)].concat());
        Frames { raw }
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.raw.send(frame(kind, flags, stream, payload));
    }

    pub fn headers(&mut self, flags: u8, stream: u32, fields: &[(&[u8], &[u8])]) {
        let block = block(fields);
        let pieces: Vec<&[u8]> = block.chunks(LARGEST).collect();
        for (place, piece) in pieces.iter().enumerate() {
            let (kind, first) = if place == 0 { (HEADERS, flags) } else { (CONTINUATION, 0) };
            let last = if place + 1 == pieces.len() { END_HEADERS } else { 0 };
            self.send(kind, first | last, stream, piece);
        }
    }

    /// The next frame: kind, flags, stream, payload.
    pub fn receive(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head = self.raw.exactly(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some((head[3], head[4], stream, self.raw.exactly(length)?))
    }

    /// What becomes of `stream`; settings are acknowledged on the way.
    pub fn fate(&mut self, stream: u32) -> Fate {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        while let Some((kind, flags, on, payload)) = self.receive() {
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                HEADERS if on == stream => return Fate::Status(status(&payload)),
                RST_STREAM if on == stream => return Fate::Reset(number(&payload)),
                GOAWAY if number(&payload[4..8]) != 0 => return Fate::GoAway(number(&payload[4..8])),
                _ => {}
            }
        }
        Fate::Closed
    }
}

/// `:status` of a header block: always its first field.
fn status(block: &[u8]) -> u16 {
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        0x08 | 0x18 | 0x48 => {
            let (len, huffman) = (usize::from(block[1] & 0x7f), block[1] & 0x80 != 0);
            let text = &block[2..2 + len];
            if huffman { digits(text) } else { std::str::from_utf8(text).unwrap().parse().unwrap() }
        }
        other => panic!("the first field of an answer is no status: {other:#x}"),
    }
}

/// Three digits in the Huffman code of RFC 7541 appendix B: `0` to `2` have five bits from 0, the others six from 0x19.
fn digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |place| u16::from(byte >> place & 1)));
    (0..3).fold(0, |number, _| {
        let five = bits.by_ref().take(5).fold(0, |code, bit| code << 1 | bit);
        let digit = if five < 3 { five } else { (five << 1 | bits.next().unwrap()) - 0x19 + 3 };
        number * 10 + digit
    })
}
