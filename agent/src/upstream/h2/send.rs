//! Sending a request body in DATA frames, no faster than the endpoint's windows open.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;

use super::convert;
use crate::http::{Body, BodyError, Frame};

/// Most bytes for which room is asked at once.
const PIECE: usize = 64 * 1024;

/// A request body on its way.
pub(super) struct Sender {
    stream: SendStream<Bytes>,
    body: Body,
    chunk: Bytes,
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
    pub(super) fn new(stream: SendStream<Bytes>, body: Body) -> Sender {
        Sender { stream, body, chunk: Bytes::new(), pulled: false, starved: false }
    }

    /// Sends on; ready at the end of the body.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        loop {
            self.starved = false;
            if !self.chunk.is_empty() {
                match self.poll_chunk(cx) {
                    Poll::Ready(Ok(())) => continue,
                    other => return other,
                }
            }
            let frame = self.body.poll_frame(cx);
            self.pulled |= frame.is_ready();
            match frame {
                Poll::Pending => {
                    self.starved = true;
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(Frame::Data(bytes)))) => self.chunk = bytes,
                Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                    let mut map = HeaderMap::new();
                    convert::fields(&trailers, &mut map);
                    return Poll::Ready(self.stream.send_trailers(map).map_err(|_| SendError::Stream));
                }
                Poll::Ready(None) => {
                    return Poll::Ready(self.stream.send_data(Bytes::new(), true).map_err(|_| SendError::Stream));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(SendError::Body(error)));
                }
            }
        }
    }

    /// Gives the body back when nothing was pulled of it, so that the request may be tried again.
    pub(super) fn give_back(self, body: &mut Body) {
        if !self.pulled && matches!(self.body, Body::Stream(_)) {
            *body = self.body;
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if self.stream.capacity() == 0 {
            self.stream.reserve_capacity(self.chunk.len().min(PIECE));
            match self.stream.poll_capacity(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Err(SendError::Stream)),
            }
        }
        let room = self.stream.capacity().min(self.chunk.len());
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        let piece = self.chunk.split_to(room);
        Poll::Ready(self.stream.send_data(piece, false).map_err(|_| SendError::Stream))
    }
}
