//! The chunked transfer coding (RFC 9112 section 7.1), read as strictly as it can be: whoever writes it otherwise wants to be misread.

use bytes::{Buf, BytesMut};

use super::body::{Step, take};
use super::lines::{CRLF, Cursor, take_trailer};
use super::{Fault, HeadLimits};
use crate::http::{BodyError, Fields};

/// Most digits of a chunk size.
const MAX_DIGITS: u8 = 16;

/// A chunked body on its way.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    limits: HeadLimits,
    /// Extension bytes that may still come.
    extensions: u32,
    trailers: Fields,
    cursor: Cursor,
    trailer_lines: usize,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { digits: u8, value: u64 },
    Extension { value: u64, quote: Quote },
    SizeEnd { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// Where in a quoted string of an extension: one that is not closed at the end of its line is read over the line by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    Outside,
    Inside,
    Escape,
}

impl Quote {
    fn behind(self, byte: u8) -> Quote {
        match (self, byte) {
            (Quote::Outside, b'"') => Quote::Inside,
            (Quote::Inside, b'"') => Quote::Outside,
            (Quote::Inside, b'\\') => Quote::Escape,
            (Quote::Escape, _) => Quote::Inside,
            (quote, _) => quote,
        }
    }
}

const START: State = State::Size { digits: 0, value: 0 };

impl Chunked {
    pub(super) fn new(limits: HeadLimits, extensions: u32) -> Chunked {
        Chunked {
            state: START,
            limits,
            extensions,
            trailers: Fields::new(),
            cursor: Cursor::default(),
            trailer_lines: 0,
            trailer_bytes: 0,
        }
    }

    /// Bytes left of the chunk that is open.
    pub(super) fn open(&self) -> Option<u64> {
        match self.state {
            State::Data { left } => Some(left),
            _ => None,
        }
    }

    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Step, BodyError> {
        loop {
            match self.state {
                State::Data { .. } if input.is_empty() => return Ok(Step::More),
                State::Data { left } => {
                    let piece = take(input, left);
                    let left = left - piece.len() as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    return Ok(Step::Data(piece));
                }
                State::Trailers => return self.decode_trailers(input),
                State::Done => return Ok(Step::End),
                state => {
                    let Some(&byte) = input.first() else { return Ok(Step::More) };
                    input.advance(1);
                    self.state = self.next(state, byte)?;
                    // The size is judged by the caller before its data is taken.
                    if matches!(self.state, State::Data { .. }) && input.is_empty() {
                        return Ok(Step::More);
                    }
                }
            }
        }
    }

    /// The state behind one byte of framing.
    fn next(&mut self, state: State, byte: u8) -> Result<State, BodyError> {
        Ok(match (state, byte) {
            (State::Size { digits, value }, byte) if byte.is_ascii_hexdigit() => {
                if digits == MAX_DIGITS {
                    return Err(BodyError::Malformed("chunk size too long"));
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                State::Size { digits: digits + 1, value: value << 4 | u64::from(digit) }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BodyError::Malformed("chunk size")),
            (State::Size { value, .. } | State::Extension { value, quote: Quote::Outside }, b'\r') => State::SizeEnd { value },
            (State::Size { value, .. }, b';') => self.extension(value, Quote::Outside)?,
            (State::Size { .. }, _) => return Err(BodyError::Malformed("chunk size")),
            (State::Extension { value, quote }, b'\t' | b' '..=b'~') => self.extension(value, quote.behind(byte))?,
            (State::Extension { .. }, _) => return Err(BodyError::Malformed("chunk extension")),
            (State::SizeEnd { value: 0 }, b'\n') => State::Trailers,
            (State::SizeEnd { value }, b'\n') => State::Data { left: value },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => START,
            _ => return Err(BodyError::Malformed("chunk end")),
        })
    }

    fn extension(&mut self, value: u64, quote: Quote) -> Result<State, BodyError> {
        match self.extensions.checked_sub(1) {
            Some(left) => self.extensions = left,
            None => return Err(BodyError::Malformed("chunk extensions too long")),
        }
        Ok(State::Extension { value, quote })
    }

    fn decode_trailers(&mut self, input: &mut BytesMut) -> Result<Step, BodyError> {
        loop {
            let Some(line) = self.cursor.line(input).map_err(malformed)? else {
                let long = self.trailer_bytes + input.len() >= self.limits.max_bytes;
                return if long { Err(BodyError::Malformed("trailers too large")) } else { Ok(Step::More) };
            };
            let ended = line.len() == CRLF;
            self.trailer_bytes += line.len();
            if self.trailer_bytes > self.limits.max_bytes {
                return Err(BodyError::Malformed("trailers too large"));
            }
            if !ended {
                take_trailer(line, self.trailer_lines, &self.limits, &mut self.trailers).map_err(malformed)?;
                self.trailer_lines += 1;
            }
            input.advance(self.cursor.at);
            self.cursor = Cursor::default();
            if ended {
                self.state = State::Done;
                let trailers = std::mem::take(&mut self.trailers);
                return Ok(if trailers.is_empty() { Step::End } else { Step::Trailers(Box::new(trailers)) });
            }
        }
    }
}

fn malformed(fault: Fault) -> BodyError {
    match fault {
        Fault::Malformed(what) => BodyError::Malformed(what),
        _ => BodyError::Malformed("trailers too large"),
    }
}
