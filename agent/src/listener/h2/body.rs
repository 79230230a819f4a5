//! The request body of a stream. What is not pulled stays with the client: its window opens only with the pulling.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use heddle_node::clock;

use super::wire::Wire;
use crate::http::h1::is_trailer_allowed;
use crate::http::h2::connection::StreamKey;
use crate::http::h2::message::write_continue;
use crate::http::{BodyError, BodySource, Frame};
use crate::net::Deadline;

/// The request body of a stream. It may outlive its stream; then it has been aborted.
pub(super) struct StreamBody {
    pub(super) wire: Rc<Wire>,
    pub(super) key: StreamKey,
    /// Most bytes, 0 for any.
    pub(super) limit: u64,
    /// Bytes so far, told to the ending.
    pub(super) received: Rc<Cell<u64>>,
    /// Whether the client waits for `100 Continue`.
    pub(super) expecting: bool,
    pub(super) reading: Deadline,
    pub(super) timeout: Duration,
    /// What the client had taken of the answer when the waiting began.
    pub(super) answered: u64,
}

impl BodySource for StreamBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self.poll_inner(cx) {
            Poll::Ready(frame) => {
                self.reading.clear();
                Poll::Ready(frame)
            }
            Poll::Pending => self.poll_stalled(cx).map(|()| Some(Err(BodyError::Timeout))),
        }
    }

    fn remaining(&self) -> Option<u64> {
        self.wire.with(|machine| machine.remaining(self.key))
    }
}

impl StreamBody {
    /// Ready when neither direction has moved for as long as a body is waited for: who listens to an answer that goes on may say nothing for long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let answered = self.wire.with(|machine| machine.framed(self.key));
            if !self.reading.is_set() {
                self.answered = answered;
                self.reading.set(clock::now() + self.timeout);
            }
            ready!(self.reading.poll_passed(cx));
            if answered == self.answered {
                return Poll::Ready(());
            }
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let frame = self.wire.with(|machine| {
            let polled = machine.poll_frame(self.key, cx);
            if polled.is_pending() && std::mem::take(&mut self.expecting) {
                // Fails when the final response has begun or the stream is gone; the body tells the latter.
                let _ = machine.send_head(self.key, false, write_continue);
            }
            polled
        });
        frame.map(|frame| match frame {
            Some(Ok(Frame::Data(bytes))) => {
                self.received.set(self.received.get() + bytes.len() as u64);
                match self.limit > 0 && self.received.get() > self.limit {
                    true => Some(Err(BodyError::TooLarge(self.limit))),
                    false => Some(Ok(Frame::Data(bytes))),
                }
            }
            Some(Ok(Frame::Trailers(mut fields))) => {
                fields.retain(|field| is_trailer_allowed(field.id, field.name));
                (!fields.is_empty()).then_some(Ok(Frame::Trailers(fields)))
            }
            Some(Err(_)) => Some(Err(BodyError::Aborted)),
            None => None,
        })
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.wire.with(|machine| machine.discard(self.key));
    }
}
