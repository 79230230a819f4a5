//! An extended CONNECT stream (RFC 8441) as a byte stream. It knows nothing of what the bytes mean.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Held;
use crate::http::Frame;
use crate::http::h2::connection::Lost;

/// Most bytes that are taken at once.
const PIECE: usize = 16 * 1024;

/// A stream whose heads have been exchanged.
pub(super) struct StreamTunnel<'a> {
    pub(super) held: &'a Held,
    pub(super) rest: Bytes,
}

fn broken(lost: Lost) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, format!("the stream ended with {}", lost.code))
}

impl AsyncRead for StreamTunnel<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.held.with(|machine, key| machine.poll_frame(key, cx))) {
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

impl AsyncWrite for StreamTunnel<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.held.with(|machine, key| {
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
        Poll::Ready(self.held.with(|machine, key| machine.send_data(key, Bytes::new(), true)).map_err(broken))
    }
}
