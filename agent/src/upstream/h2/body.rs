//! A response body that is pulled from its stream, while the request body may still be on its way (gRPC streams both ways).

use std::task::{Context, Poll};

use h2::RecvStream;
use heddle_xds::model::Timeouts;

use super::convert;
use super::send::{SendError, Sender};
use super::session::Stream;
use crate::http::{BodyError, BodySource, Frame};
use crate::net::Deadline;
use crate::upstream::h1::is_late;
use crate::upstream::pools::Work;

/// A response body that is pulled. Dropping it before its end resets the stream with CANCEL.
pub(super) struct H2Body {
    recv: RecvStream,
    sender: Option<Sender>,
    /// Gone once the body has ended.
    work: Option<Work>,
    data_ended: bool,
    deadline: Deadline,
    timeouts: Timeouts,
    _stream: Stream,
}

impl H2Body {
    pub(super) fn new(recv: RecvStream, sender: Option<Sender>, stream: Stream, work: Work, timeouts: Timeouts) -> H2Body {
        H2Body { recv, sender, work: Some(work), data_ended: false, deadline: Deadline::default(), timeouts, _stream: stream }
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
        match sender.poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Err(SendError::Body(error))) => Err(BodyError::Request(Box::new(error))),
            // done, or the endpoint wants no more of it
            Poll::Ready(_) => {
                self.sender = None;
                self.deadline.clear();
                Ok(())
            }
        }
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, h2::Error>>> {
        while !self.data_ended {
            match self.recv.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(bytes))) => {
                    self.deadline.clear();
                    // what was pulled makes room for as much
                    if let Err(error) = self.recv.flow_control().release_capacity(bytes.len()) {
                        return Poll::Ready(Some(Err(error)));
                    }
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::Data(bytes))));
                    }
                }
                Poll::Ready(None) => self.data_ended = true,
            }
        }
        match self.recv.poll_trailers(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(Some(trailers))) => Poll::Ready(Some(Ok(Frame::Trailers(Box::new(convert::trailers(&trailers)))))),
            Poll::Ready(Ok(None)) => Poll::Ready(None),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
        }
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
            self.deadline.clear();
            return Poll::Pending;
        }
        let limit = if self.sender.is_some() { self.timeouts.send } else { self.timeouts.read };
        if is_late(&mut self.deadline, limit, cx) { self.fail(BodyError::Timeout) } else { Poll::Pending }
    }

    fn remaining(&self) -> Option<u64> {
        if self.recv.is_end_stream() { Some(0) } else { None }
    }
}
