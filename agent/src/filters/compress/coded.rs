//! A body on its way through a coder: as much at a time as is there, and nothing held back while the source pauses. It knows no coding.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::http::{Body, BodyError, BodySource, Frame};

/// Bytes that go through the coder at a time, so that no body holds its worker up for long.
const SLICE: usize = 32 * 1024;
/// Coded bytes that are worth handing on.
const ENOUGH: usize = 8 * 1024;
/// Most bytes taken in without anything handed on.
const PATIENCE: usize = 512 * 1024;
/// Room that a coder is given at least.
const ROOM: usize = 4 * 1024;

/// Why a coder gave up.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::filters) struct CoderError;

/// Compresses one body; what it gives is appended to `out`.
pub(in crate::filters) trait Coder {
    /// Takes content in; may give nothing for now.
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), CoderError>;
    /// Gives all that was taken in.
    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), CoderError>;
    /// Gives the end; the last call.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CoderError>;
}

/// Makes sure that there is room to write to; says how much.
pub(in crate::filters) fn spare(out: &mut Vec<u8>) -> usize {
    if out.capacity() == out.len() {
        out.reserve(ROOM);
    }
    out.capacity() - out.len()
}

/// The coded body. One that is short and at hand is coded at once, so that its length is known.
pub(super) fn coded(body: Body, mut coder: Box<dyn Coder>) -> Body {
    match body {
        Body::Full(bytes) if bytes.len() <= SLICE => {
            let mut out = Vec::with_capacity(bytes.len() / 2 + 64);
            match coder.push(&bytes, &mut out).and_then(|()| coder.finish(&mut out)) {
                Ok(()) => Body::from(Bytes::from(out)),
                Err(CoderError) => Body::Stream(Box::new(Broken)),
            }
        }
        body => Body::Stream(Box::new(Coded {
            body,
            coder,
            rest: Bytes::new(),
            out: Vec::new(),
            taken: 0,
            ended: false,
            trailers: None,
        })),
    }
}

const BROKEN: BodyError = BodyError::Malformed("the content could not be compressed");

/// The body of a coder that gave up at once.
struct Broken;

impl BodySource for Broken {
    fn poll_frame(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        Poll::Ready(Some(Err(BROKEN)))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

/// What a source gives when it is asked for its next frame.
type Pulled = Poll<Option<Result<Frame, BodyError>>>;

struct Coded {
    body: Body,
    coder: Box<dyn Coder>,
    /// What was pulled and has not gone through the coder.
    rest: Bytes,
    out: Vec<u8>,
    /// Bytes that went into the coder since it was flushed.
    taken: usize,
    ended: bool,
    trailers: Option<Frame>,
}

impl Coded {
    /// What is to be handed on now, `None` when there is nothing.
    fn hand_on(&mut self) -> Option<Frame> {
        (!self.out.is_empty()).then(|| Frame::Data(Bytes::from(std::mem::take(&mut self.out))))
    }

    /// Puts the next slice through the coder; whether something should be handed on.
    fn advance(&mut self) -> Result<bool, CoderError> {
        let slice = self.rest.split_to(self.rest.len().min(SLICE));
        self.coder.push(&slice, &mut self.out)?;
        self.taken += slice.len();
        if self.taken >= PATIENCE {
            self.flush()?;
        }
        Ok(self.out.len() >= ENOUGH || self.taken == 0)
    }

    fn flush(&mut self) -> Result<(), CoderError> {
        self.taken = 0;
        self.coder.flush(&mut self.out)
    }

    /// Looks for more content. `Ok(None)` means that there may be something to hand on or to put through the coder.
    fn pull(&mut self, cx: &mut Context<'_>) -> Result<Option<Pulled>, CoderError> {
        match self.body.poll_frame(cx) {
            Poll::Ready(Some(Ok(Frame::Data(bytes)))) => {
                self.rest = bytes;
                return Ok(None);
            }
            Poll::Ready(Some(Ok(trailers @ Frame::Trailers(_)))) => {
                self.trailers = Some(trailers);
                return Ok(None);
            }
            Poll::Ready(Some(Err(error))) => return Ok(Some(Poll::Ready(Some(Err(error))))),
            Poll::Ready(None) => {
                self.ended = true;
                self.coder.finish(&mut self.out)?;
            }
            Poll::Pending if self.taken > 0 => self.flush()?,
            Poll::Pending if self.out.is_empty() => return Ok(Some(Poll::Pending)),
            Poll::Pending => {}
        }
        Ok(self.hand_on().map(|frame| Poll::Ready(Some(Ok(frame)))))
    }
}

impl BodySource for Coded {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            if !self.rest.is_empty() {
                match self.advance() {
                    Ok(false) => {}
                    Ok(true) => match self.hand_on() {
                        Some(frame) => return Poll::Ready(Some(Ok(frame))),
                        None => continue,
                    },
                    Err(CoderError) => return Poll::Ready(Some(Err(BROKEN))),
                }
            } else if self.ended {
                return Poll::Ready(self.trailers.take().map(Ok));
            } else {
                match self.pull(cx) {
                    Ok(None) => {}
                    Ok(Some(poll)) => return poll,
                    Err(CoderError) => return Poll::Ready(Some(Err(BROKEN))),
                }
            }
        }
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}
