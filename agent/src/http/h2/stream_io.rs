//! A stream whose heads have been exchanged as a stream of bytes, the same for both sides. It knows nothing of what the bytes mean.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, Lost, StreamKey};
use super::wire::Wire;
use crate::http::Frame;

/// Most bytes that are taken at once.
const PIECE: usize = 16 * 1024;

/// The bytes of a stream, for as long as its keeper has it: whoever drops this drops the keeper.
#[derive(Debug)]
pub struct StreamIo<K> {
    wire: Rc<Wire>,
    key: StreamKey,
    rest: Bytes,
    /// Whether our direction has ended; what was said before may wait for the peer still.
    ended: bool,
    _keeper: K,
}

impl<K> StreamIo<K> {
    /// The bytes of the stream `key` of a connection, which `keeper` lets go of.
    pub fn new(wire: Rc<Wire>, key: StreamKey, keeper: K) -> StreamIo<K> {
        StreamIo { wire, key, rest: Bytes::new(), ended: false, _keeper: keeper }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Connection, StreamKey) -> T) -> T {
        self.wire.with(|machine| act(machine, self.key))
    }
}

fn broken(lost: Lost) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, format!("the stream ended with {}", lost.code))
}

impl<K: Unpin> AsyncRead for StreamIo<K> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.with(|machine, key| machine.poll_frame(key, cx))) {
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

impl<K: Unpin> AsyncWrite for StreamIo<K> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|machine, key| {
            ready!(machine.poll_room(key, cx)).map_err(broken)?;
            let len = buf.len().min(PIECE);
            machine.send_data(key, Bytes::copy_from_slice(&buf[..len]), false).map_err(broken)?;
            Poll::Ready(Ok(len))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.with(|machine, key| machine.send_data(key, Bytes::new(), true)).map_err(broken)?;
            self.ended = true;
        }
        // Whoever lets go of the stream before all of it is on its way takes back what is not.
        self.with(|machine, key| machine.poll_flushed(key, cx)).map_err(broken)
    }
}
