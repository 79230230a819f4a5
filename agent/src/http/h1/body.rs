//! Bodies as they lie on the wire: counted, chunked, or until the connection ends. It takes bytes from a buffer and gives pieces of it.

use bytes::{Bytes, BytesMut};

use super::chunked::Chunked;
use super::{BodyLength, HeadLimits};
use crate::http::{BodyError, Fields};

/// Takes a body from a buffer.
#[derive(Debug)]
pub struct BodyDecoder {
    kind: Kind,
    received: u64,
    limit: u64,
}

#[derive(Debug)]
enum Kind {
    Done,
    Known(u64),
    Chunked(Box<Chunked>),
    UntilClose,
}

/// What a buffer held.
#[derive(Debug)]
pub enum Step {
    /// Content, not empty.
    Data(Bytes),
    /// Trailers; the end follows.
    Trailers(Box<Fields>),
    /// The body has ended; what is left in the buffer belongs to the next message.
    End,
    /// More bytes are needed.
    More,
}

impl BodyDecoder {
    /// A decoder of a body with this framing. `limit` is the most bytes of content, 0 for any; `extensions` the most bytes of chunk extensions.
    pub fn new(length: BodyLength, limits: &HeadLimits, limit: u64, extensions: u32) -> BodyDecoder {
        let kind = match length {
            BodyLength::Empty => Kind::Done,
            BodyLength::Known(bytes) => Kind::Known(bytes),
            BodyLength::Chunked => Kind::Chunked(Box::new(Chunked::new(*limits, extensions))),
            BodyLength::UntilClose => Kind::UntilClose,
        };
        BodyDecoder { kind, received: 0, limit }
    }

    /// The next piece that `input` holds.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Step, BodyError> {
        let step = match &mut self.kind {
            Kind::Done => return Ok(Step::End),
            Kind::Known(left) => {
                let piece = take(input, *left);
                *left -= piece.len() as u64;
                if *left == 0 {
                    self.kind = Kind::Done;
                }
                if piece.is_empty() { Step::More } else { Step::Data(piece) }
            }
            Kind::Chunked(chunked) => {
                let room = if self.limit == 0 { u64::MAX } else { self.limit - self.received.min(self.limit) };
                if let Some(bytes) = chunked.open()
                    && bytes > room
                {
                    return Err(BodyError::TooLarge(self.limit));
                }
                let step = chunked.decode(input)?;
                if matches!(step, Step::End) {
                    self.kind = Kind::Done;
                }
                step
            }
            Kind::UntilClose if input.is_empty() => Step::More,
            Kind::UntilClose => Step::Data(input.split().freeze()),
        };
        if let Step::Data(piece) = &step {
            self.received += piece.len() as u64;
            if self.limit > 0 && self.received > self.limit {
                return Err(BodyError::TooLarge(self.limit));
            }
        }
        Ok(step)
    }

    /// The connection ended: fine only for a body that is ended by it.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.kind {
            Kind::Done | Kind::UntilClose => {
                self.kind = Kind::Done;
                Ok(())
            }
            _ => Err(BodyError::Aborted),
        }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.kind, Kind::Done)
    }

    /// Bytes of content still to come when that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.kind {
            Kind::Done => Some(0),
            Kind::Known(left) => Some(left),
            _ => None,
        }
    }

    /// Counts content that was taken from the buffer without the decoder.
    pub fn note_received(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// Bytes of content given so far.
    pub fn received(&self) -> u64 {
        self.received
    }
}

/// At most `most` bytes from the front.
pub(super) fn take(input: &mut BytesMut, most: u64) -> Bytes {
    let len = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    input.split_to(len).freeze()
}
