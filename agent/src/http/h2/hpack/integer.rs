//! Integers and strings (RFC 7541 sections 5.1 and 5.2), bounded while they are read. It knows no representations.

use std::ops::Range;

use super::huffman;
use crate::http::h2::frame::{ErrorCode, Violation};

/// Octets after the first beyond which an integer is refused: 28 bits are more than any block has.
const MAX_MORE: u32 = 4;

pub(super) const fn broken(detail: &'static str) -> Violation {
    Violation::connection(ErrorCode::COMPRESSION_ERROR, detail)
}

/// A block that is read.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// Where the octets of a string are.
pub(super) enum Text<'a> {
    /// As it came.
    Plain(&'a [u8]),
    /// Unpacked, in the scratch buffer.
    Unpacked(Range<usize>),
}

impl<'a> Text<'a> {
    pub(super) fn of<'s>(&'s self, scratch: &'s [u8]) -> &'s [u8] {
        match self {
            Text::Plain(bytes) => bytes,
            Text::Unpacked(range) => &scratch[range.clone()],
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(block: &'a [u8]) -> Reader<'a> {
        Reader { rest: block }
    }

    /// The octet that begins the next representation.
    pub(super) fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn octet(&mut self) -> Result<u8, Violation> {
        self.next().ok_or(broken("a field block ends within a field"))
    }

    /// An integer whose first octet has been taken already, with a prefix of `bits`.
    pub(super) fn integer(&mut self, first: u8, bits: u32) -> Result<usize, Violation> {
        let mask = (1u8 << bits) - 1;
        let start = first & mask;
        if start < mask { Ok(usize::from(start)) } else { self.long_integer(usize::from(mask)) }
    }

    fn long_integer(&mut self, start: usize) -> Result<usize, Violation> {
        let mut value = start;
        for place in 0..MAX_MORE {
            let octet = self.octet()?;
            value += usize::from(octet & 0x7f) << (7 * place);
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(broken("an integer is too large"))
    }

    /// A string; what is packed is unpacked behind what `scratch` holds.
    pub(super) fn string(&mut self, scratch: &mut Vec<u8>) -> Result<Text<'a>, Violation> {
        let first = self.octet()?;
        let len = self.integer(first, 7)?;
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Err(broken("a string is longer than its block"));
        };
        self.rest = rest;
        if first & 0x80 == 0 {
            return Ok(Text::Plain(bytes));
        }
        let start = scratch.len();
        if !huffman::decode(bytes, scratch) {
            return Err(broken("a string is packed wrongly"));
        }
        Ok(Text::Unpacked(start..scratch.len()))
    }
}

/// Appends an integer with a prefix of `bits` below the bits of `first`.
#[inline]
pub(super) fn write_integer(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let mask = (1usize << bits) - 1;
    out.push(first | value.min(mask) as u8);
    if value >= mask {
        write_rest(out, value - mask);
    }
}

fn write_rest(out: &mut Vec<u8>, mut rest: usize) {
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a string, packed where that is shorter.
pub(super) fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    let at = out.len();
    // The length of most strings takes one octet.
    out.push(0);
    if !huffman::encode(text, out) {
        out.truncate(at);
        write_integer(out, 0, 7, text.len());
        out.extend_from_slice(text);
        return;
    }
    let len = out.len() - at - 1;
    if len < 0x7f {
        out[at] = 0x80 | len as u8;
        return;
    }
    let packed = out.split_off(at + 1);
    out.truncate(at);
    write_integer(out, 0x80, 7, len);
    out.extend_from_slice(&packed);
}
