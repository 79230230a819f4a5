//! One stream type for clear and TLS connections, with bytes that can be put back. It knows no protocol above.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use super::Socket;

/// Any other byte stream that carries a connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A stream of which some bytes were read already and put back.
#[derive(Debug)]
pub struct Rewind<T> {
    back: Bytes,
    inner: T,
}

impl<T> Rewind<T> {
    /// `inner` with `back` to be read first.
    pub fn new(inner: T, back: Bytes) -> Rewind<T> {
        Rewind { back, inner }
    }

    /// Puts bytes back, to be read first.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.back = if self.back.is_empty() { Bytes::copy_from_slice(bytes) } else { Bytes::from([bytes, &self.back].concat()) };
    }

    /// The stream below; bytes put back are not in it.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewind<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.back.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let len = self.back.len().min(buf.remaining());
        buf.put_slice(&self.back.split_to(len));
        if self.back.is_empty() {
            self.back = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewind<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A connection's byte stream.
pub enum Io {
    /// In clear.
    Plain(Rewind<Socket>),
    /// TLS, we are the server.
    ServerTls(Box<server::TlsStream<Rewind<Socket>>>),
    /// TLS, we are the client.
    ClientTls(Box<client::TlsStream<Socket>>),
    /// Anything else, for example a stream inside another connection.
    Other(Box<dyn Stream>),
}

impl Io {
    /// A clear TCP connection.
    pub fn tcp(stream: TcpStream) -> Io {
        Io::Plain(Rewind::new(stream.into(), Bytes::new()))
    }

    /// Any other stream.
    pub fn other(stream: impl Stream + 'static) -> Io {
        Io::Other(Box::new(stream))
    }

    /// The socket below, when there is one.
    pub fn socket(&self) -> Option<&TcpStream> {
        match self {
            Io::Plain(stream) => Some(stream.get_ref().get_ref()),
            Io::ServerTls(stream) => Some(stream.get_ref().0.get_ref().get_ref()),
            Io::ClientTls(stream) => Some(stream.get_ref().0.get_ref()),
            Io::Other(_) => None,
        }
    }

    /// Makes closing send a reset, so that the peer cannot take what it got for complete.
    pub fn reset_on_close(&self) {
        if let Some(socket) = self.socket() {
            // Fails only for a socket that is gone, and then there is nothing to reset.
            let _ = socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Reads behind what `buf` holds; room must have been reserved. 0 at the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        debug_assert!(buf.capacity() > buf.len());
        // This future keeps no state of its own, so that dropping it when pending loses nothing.
        let read = std::pin::pin!(self.read_buf(buf));
        std::future::Future::poll(read, cx)
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $then:expr) => {
        match $self.get_mut() {
            Io::Plain($stream) => $then,
            Io::ServerTls($stream) => $then,
            Io::ClientTls($stream) => $then,
            Io::Other($stream) => $then,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::ServerTls(stream) => stream.is_write_vectored(),
            Io::ClientTls(stream) => stream.is_write_vectored(),
            Io::Other(stream) => stream.is_write_vectored(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
