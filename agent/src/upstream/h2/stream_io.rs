//! A CONNECT stream as a byte stream. It knows nothing of what the bytes mean.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::Stream;
use crate::http::Frame;
use crate::http::h2::connection::Lost;

/// Most bytes that are taken at once.
const PIECE: usize = 16 * 1024;

/// A stream whose heads have been exchanged. Dropping it before both directions have ended resets it with CANCEL.
pub(in crate::upstream) struct StreamIo<G> {
    stream: Stream,
    rest: Bytes,
    /// Ends the accounting of the tunnel when it is dropped.
    _guard: G,
}

impl<G> StreamIo<G> {
    pub(super) fn new(stream: Stream, guard: G) -> StreamIo<G> {
        StreamIo { stream, rest: Bytes::new(), _guard: guard }
    }
}

fn broken(lost: Lost) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, format!("the stream ended with {}", lost.code))
}

impl<G: Unpin> AsyncRead for StreamIo<G> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.stream.with(|machine, key| machine.poll_frame(key, cx))) {
                Some(Ok(Frame::Data(bytes))) => self.rest = bytes,
                // Trailers mean nothing to a tunnel; the end follows.
                Some(Ok(Frame::Trailers(_))) => {}
                Some(Err(lost)) => return Poll::Ready(Err(broken(lost))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..len]);
        self.rest.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<G: Unpin> AsyncWrite for StreamIo<G> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.with(|machine, key| {
            ready!(machine.poll_room(key, cx)).map_err(broken)?;
            let len = buf.len().min(PIECE);
            machine.send_data(key, Bytes::copy_from_slice(&buf[..len]), false).map_err(broken)?;
            Poll::Ready(Ok(len))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.with(|machine, key| machine.send_data(key, Bytes::new(), true)).map_err(broken))
    }
}
