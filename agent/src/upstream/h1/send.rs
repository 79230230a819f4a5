//! Writing a request: the head, then its body as it comes, under back-pressure from the endpoint.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::conn::{Conn, Step};
use crate::http::h1::{Persistence, WireLength, write_chunk_start, write_last_chunk, write_request_head};
use crate::http::{Body, BodyError, Frame, Method};
use crate::upstream::OutgoingRequest;

/// Content up to this size is copied behind its head or chunk line, so that it goes out in one plain write.
const COPY_BELOW: usize = 16 * 1024;

/// Why a request could not be written to its end.
#[derive(Debug)]
pub(super) enum SendError {
    /// The endpoint does not take it; what it has answered says more.
    Refused,
    /// The client does not bring it.
    Body(BodyError),
}

/// A request on its way out. Its bytes at hand are `conn.out`, then `chunk`, then `tail`.
pub(super) struct Sender {
    body: Body,
    length: WireLength,
    /// Content that the head announced and that has not come yet.
    left: u64,
    at: usize,
    chunk: Bytes,
    tail: &'static [u8],
    ended: bool,
    pulled: bool,
    /// Bytes written so far.
    pub(super) written: u64,
    /// What it waited for when it was polled last.
    pub(super) step: Step,
}

impl Sender {
    /// Writes the head into `conn.out`. A body at hand is copied, so that it can be sent again; one that is pulled is taken away from `body`.
    pub(super) fn start(conn: &mut Conn, request: &OutgoingRequest<'_>, body: &mut Body) -> Sender {
        let length = wire_length(&request.head.method, body);
        let persistence = if request.upgrade { Persistence::Upgrade } else { Persistence::Default };
        conn.out.clear();
        write_request_head(&mut conn.out, request.head, request.host, length, persistence);
        let mut sender = Sender {
            body: Body::Empty,
            length,
            left: if let WireLength::Known(bytes) = length { bytes } else { 0 },
            at: 0,
            chunk: Bytes::new(),
            tail: &[],
            ended: true,
            pulled: false,
            written: 0,
            step: Step::Send,
        };
        match body {
            Body::Empty => {}
            Body::Full(bytes) => {
                sender.left = 0;
                if bytes.len() <= COPY_BELOW {
                    conn.out.extend_from_slice(bytes);
                } else {
                    sender.chunk = bytes.clone();
                }
            }
            Body::Stream(_) => {
                sender.body = std::mem::take(body);
                sender.ended = false;
            }
        }
        sender
    }

    /// Sends on; ready when all of the request is out.
    pub(super) fn poll(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        loop {
            while self.has_bytes(conn) {
                self.step = Step::Send;
                match self.poll_write(conn, cx) {
                    Poll::Ready(Ok(written)) => {
                        self.written += written as u64;
                        conn.deadline.clear();
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(SendError::Refused)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.ended {
                self.step = Step::Send;
                return Pin::new(&mut conn.io).poll_flush(cx).map_err(|_| SendError::Refused);
            }
            let frame = match self.body.poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    // TLS may still hold back what was written
                    let flushed = Pin::new(&mut conn.io).poll_flush(cx).is_ready();
                    self.step = if flushed { Step::Client } else { Step::Send };
                    return Poll::Pending;
                }
            };
            self.pulled = true;
            conn.out.clear();
            self.at = 0;
            if let Err(error) = self.take(&mut conn.out, frame) {
                return Poll::Ready(Err(SendError::Body(error)));
            }
        }
    }

    /// Gives the body back when nothing was pulled of it, so that the request may be tried again.
    pub(super) fn give_back(self, body: &mut Body) {
        if !self.pulled && matches!(self.body, Body::Stream(_)) {
            *body = self.body;
        }
    }

    fn take(&mut self, out: &mut Vec<u8>, frame: Option<Result<Frame, BodyError>>) -> Result<(), BodyError> {
        let chunked = self.length == WireLength::Chunked;
        match frame.transpose()? {
            Some(Frame::Data(bytes)) if chunked => {
                write_chunk_start(out, bytes.len());
                if bytes.len() <= COPY_BELOW {
                    out.extend_from_slice(&bytes);
                    out.extend_from_slice(b"\r\n");
                } else {
                    (self.chunk, self.tail) = (bytes, b"\r\n");
                }
            }
            Some(Frame::Data(bytes)) => {
                self.left = self.left.checked_sub(bytes.len() as u64).ok_or(BodyError::Malformed("longer than announced"))?;
                self.chunk = bytes;
            }
            Some(Frame::Trailers(trailers)) => {
                self.ended = true;
                if chunked {
                    write_last_chunk(out, Some(&*trailers));
                }
            }
            None => {
                self.ended = true;
                if chunked {
                    write_last_chunk(out, None);
                }
            }
        }
        if self.ended && self.left > 0 { Err(BodyError::Aborted) } else { Ok(()) }
    }

    fn has_bytes(&self, conn: &Conn) -> bool {
        self.at < conn.out.len() || !self.chunk.is_empty() || !self.tail.is_empty()
    }

    fn poll_write(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let first = &conn.out[self.at..];
        let polled = if self.chunk.is_empty() && self.tail.is_empty() {
            Pin::new(&mut conn.io).poll_write(cx, first)
        } else {
            let slices = [IoSlice::new(first), IoSlice::new(&self.chunk), IoSlice::new(self.tail)];
            Pin::new(&mut conn.io).poll_write_vectored(cx, &slices)
        };
        let Poll::Ready(written) = polled? else { return Poll::Pending };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let head = written.min(conn.out.len() - self.at);
        self.at += head;
        let content = (written - head).min(self.chunk.len());
        self.chunk.advance(content);
        self.tail = &self.tail[(written - head - content).min(self.tail.len())..];
        Poll::Ready(Ok(written))
    }
}

/// Framing of a request body. Methods that usually carry content say so when they carry none (RFC 9110 section 8.6).
fn wire_length(method: &Method, body: &Body) -> WireLength {
    match (body, body.remaining()) {
        (Body::Empty, _) => match method {
            Method::Post | Method::Put | Method::Patch => WireLength::Known(0),
            _ => WireLength::Absent,
        },
        (_, Some(bytes)) => WireLength::Known(bytes),
        (_, None) => WireLength::Chunked,
    }
}
