//! Sending a request body, no faster than the endpoint takes it.

use std::task::{Context, Poll, ready};

use super::session::Stream;
use crate::http::h2::frame::ErrorCode;
use crate::http::{Body, BodyError, Frame};

/// A request body on its way.
pub(super) struct Sender {
    body: Body,
    /// Content that was handed over.
    handed: u64,
    /// Whether all was handed over.
    ended: bool,
    pulled: bool,
    /// Whether it waits for the client rather than for the endpoint.
    pub(super) starved: bool,
}

/// Why a body could not be sent to its end.
#[derive(Debug)]
pub(super) enum SendError {
    /// The endpoint reset the stream, or the connection is gone; its response says more.
    Stream,
    /// The client does not bring it.
    Body(BodyError),
}

impl Sender {
    /// A sender of this body; `None` when there is nothing to send.
    pub(super) fn new(body: Body) -> Option<Sender> {
        (!body.is_empty()).then_some(Sender { body, handed: 0, ended: false, pulled: false, starved: false })
    }

    /// Sends on; ready when the end of the body is on its way.
    pub(super) fn poll(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.starved = false;
        while !self.ended {
            if ready!(stream.with(|machine, key| machine.poll_room(key, cx))).is_err() {
                return Poll::Ready(Err(SendError::Stream));
            }
            let frame = self.body.poll_frame(cx);
            self.pulled |= frame.is_ready();
            let handed = match frame {
                Poll::Pending => {
                    self.starved = stream.with(|machine, key| machine.framed(key)) == self.handed;
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(Frame::Data(bytes)))) => {
                    self.handed += bytes.len() as u64;
                    self.ended = self.body.is_empty();
                    stream.with(|machine, key| machine.send_data(key, bytes, self.ended))
                }
                Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                    self.ended = true;
                    stream.with(|machine, key| machine.send_trailers(key, trailers))
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    stream.with(|machine, key| machine.send_data(key, bytes::Bytes::new(), true))
                }
                Poll::Ready(Some(Err(error))) => {
                    stream.with(|machine, key| machine.reset(key, ErrorCode::CANCEL));
                    return Poll::Ready(Err(SendError::Body(error)));
                }
            };
            if handed.is_err() {
                return Poll::Ready(Err(SendError::Stream));
            }
        }
        stream.with(|machine, key| machine.poll_flushed(key, cx)).map_err(|_| SendError::Stream)
    }

    /// Gives the body back when nothing was pulled of it, so that the request may be tried again.
    pub(super) fn give_back(self, body: &mut Body) {
        if !self.pulled && matches!(self.body, Body::Stream(_)) {
            *body = self.body;
        }
    }
}
