//! The request body of a stream. What is not pulled stays in the client: its window opens only with the pulling.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use heddle_node::clock;
use http::HeaderMap;

use crate::http::h1::is_trailer_allowed;
use crate::http::{BodyError, BodySource, Fields, Frame, Name};
use crate::net::Deadline;

/// The sending half of a stream until the final head; shared, since pulling the body may send `100 Continue`.
pub(super) type Respond = Rc<RefCell<SendResponse<Bytes>>>;

/// The request body of a stream.
pub(super) struct StreamBody {
    pub(super) recv: RecvStream,
    /// Announced length.
    pub(super) length: Option<u64>,
    /// Most bytes, 0 for any.
    pub(super) limit: u64,
    pub(super) max_trailers: usize,
    /// Bytes so far, told to the ending.
    pub(super) received: Rc<Cell<u64>>,
    /// Taken when the client waits for `100 Continue`.
    pub(super) expecting: Option<Respond>,
    pub(super) reading: Deadline,
    pub(super) timeout: Duration,
    pub(super) data_ended: bool,
}

impl BodySource for StreamBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(respond) = self.expecting.take() {
            let mut interim = http::Response::new(());
            *interim.status_mut() = http::StatusCode::CONTINUE;
            // Fails when the final response has begun or the stream is gone; the body tells the latter.
            let _ = respond.borrow_mut().send_informational(interim);
        }
        match self.poll_inner(cx) {
            Poll::Ready(frame) => {
                self.reading.clear();
                Poll::Ready(frame)
            }
            Poll::Pending => {
                self.reading.set_once(|| clock::now() + self.timeout);
                self.reading.poll_passed(cx).map(|()| Some(Err(BodyError::Timeout)))
            }
        }
    }

    fn remaining(&self) -> Option<u64> {
        if self.recv.is_end_stream() { Some(0) } else { self.length.map(|length| length.saturating_sub(self.received.get())) }
    }
}

impl StreamBody {
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        while !self.data_ended {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // Cannot fail: just these bytes were received and not yet released.
                    let _ = self.recv.flow_control().release_capacity(bytes.len());
                    self.received.set(self.received.get() + bytes.len() as u64);
                    if self.limit > 0 && self.received.get() > self.limit {
                        return Poll::Ready(Some(Err(BodyError::TooLarge(self.limit))));
                    }
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::Data(bytes))));
                    }
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(BodyError::Aborted))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.recv.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(self.take_trailers(&trailers)),
            Ok(None) => Poll::Ready(None),
            Err(_) => Poll::Ready(Some(Err(BodyError::Aborted))),
        }
    }

    fn take_trailers(&self, trailers: &HeaderMap) -> Option<Result<Frame, BodyError>> {
        if trailers.len() > self.max_trailers {
            return Some(Err(BodyError::Malformed("too many trailers")));
        }
        let mut fields = Fields::new();
        for (name, value) in trailers {
            let text = name.as_str().as_bytes();
            if is_trailer_allowed(Name::find(text), text) {
                fields.append(text, value.as_bytes());
            }
        }
        (!fields.is_empty()).then_some(Ok(Frame::Trailers(Box::new(fields))))
    }
}
