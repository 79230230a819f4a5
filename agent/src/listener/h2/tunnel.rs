//! An extended CONNECT stream (RFC 8441) as a byte stream. It knows nothing of what the bytes mean.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both halves of a stream.
pub(super) struct StreamTunnel {
    pub(super) recv: RecvStream,
    pub(super) send: SendStream<Bytes>,
    pub(super) held: Bytes,
}

impl AsyncRead for StreamTunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.held.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    // Cannot fail: just these bytes were received and not yet released.
                    let _ = self.recv.flow_control().release_capacity(bytes.len());
                    self.held = bytes;
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..len]);
        self.held.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamTunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(buf.len());
        loop {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(0)) => {}
                Some(Ok(room)) => {
                    let len = room.min(buf.len());
                    self.send.send_data(Bytes::copy_from_slice(&buf[..len]), false).map_err(io::Error::other)?;
                    return Poll::Ready(Ok(len));
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}

impl StreamTunnel {
    /// Breaks it off.
    pub(super) fn reset(&mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }
}
