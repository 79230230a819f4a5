//! A response body that is pulled from its stream, while the request body may still be on its way (gRPC streams both ways).

use std::task::{Context, Poll};

use heddle_xds::model::Timeouts;

use super::send::{SendError, Sender};
use super::session::Stream;
use crate::http::h2::connection::Lost;
use crate::http::{BodyError, BodySource, Frame, takes_trailers};
use crate::upstream::OutgoingRequest;
use crate::upstream::h1::is_late;
use crate::upstream::pools::Work;

/// A response body that is pulled. Dropping it before its end resets the stream with CANCEL.
pub(super) struct H2Body {
    stream: Stream,
    sender: Option<Sender>,
    /// Gone once the body has ended.
    work: Option<Work>,
    timeouts: Timeouts,
    /// Trailers were asked for: they may follow whatever length is announced.
    trailing: bool,
}

impl H2Body {
    pub(super) fn new(stream: Stream, sender: Option<Sender>, work: Work, request: &OutgoingRequest<'_>) -> H2Body {
        H2Body { stream, sender, work: Some(work), timeouts: request.timeouts, trailing: takes_trailers(&request.head.fields) }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(work) = self.work.take() {
            work.broke(&error);
        }
        Poll::Ready(Some(Err(error)))
    }

    fn finish(&mut self) {
        self.sender = None;
        if let Some(work) = self.work.take() {
            work.complete(None);
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Some(sender) = &mut self.sender else { return Ok(()) };
        match sender.poll(&self.stream, cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(SendError::Body(error))) => Err(BodyError::Request(Box::new(error))),
            // done, or the endpoint wants no more of it
            Poll::Ready(_) => {
                self.sender = None;
                self.stream.deadline.clear();
                Ok(())
            }
        }
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Lost>>> {
        let polled = self.stream.with(|machine, key| machine.poll_frame(key, cx));
        if polled.is_ready() {
            self.stream.deadline.clear();
        }
        polled
    }
}

impl BodySource for H2Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.work.is_none() {
            return Poll::Ready(None);
        }
        if let Err(error) = self.poll_send(cx) {
            return self.fail(error);
        }
        match self.poll_recv(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if matches!(frame, Frame::Trailers(_)) {
                    self.finish();
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(None) => {
                self.finish();
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(_))) => return self.fail(BodyError::Aborted),
            Poll::Pending => {}
        }
        if self.sender.as_ref().is_some_and(|sender| sender.starved) {
            self.stream.deadline.clear();
            return Poll::Pending;
        }
        let limit = if self.sender.is_some() { self.timeouts.send } else { self.timeouts.read };
        if is_late(&mut self.stream.deadline, limit, cx) { self.fail(BodyError::Timeout) } else { Poll::Pending }
    }

    fn remaining(&self) -> Option<u64> {
        let remaining = if self.work.is_none() { Some(0) } else { self.stream.with(|machine, key| machine.remaining(key)) };
        remaining.filter(|bytes| *bytes == 0 || !self.trailing)
    }
}
