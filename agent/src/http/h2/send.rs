//! Writing what a connection has to say into a stream of bytes, the same for both sides. It knows neither what that stream is nor how long it may take.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::connection::Connection;

/// Sends what waits and what the peer's windows allow; ready when all of it has gone. `went` is told whenever some of it has.
pub fn poll_send(
    machine: &mut Connection,
    io: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
    mut went: impl FnMut(),
) -> Poll<io::Result<()>> {
    loop {
        machine.fill();
        let out = machine.output();
        if out.is_empty() {
            return Pin::new(io).poll_flush(cx);
        }
        let written = match out.single() {
            Some(bytes) => Pin::new(&mut *io).poll_write(cx, bytes),
            None => Pin::new(&mut *io).poll_write_vectored(cx, &out.slices()),
        };
        let written = ready!(written)?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        out.advance(written);
        went();
    }
}
