//! Bytes to and from the application that nobody looks into: connecting, and ending what policies do not allow any more. The copying is the listener's.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use heddle_node::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::futures::OwnedNotified;
use tokio::time::timeout;

use super::super::http::{Pipeline, Served, refuse};
use super::super::worker::Worker;
use crate::authorize::{Called, Caller};
use crate::exchange::{Answer, Attempt, ConnectionInfo, Door, EndpointName, Exchange, Reason, Tunnel};
use crate::http::{Body, ResponseHead};
use crate::tables::Application;

/// How long connecting to the application may take: it is on this machine.
const CONNECT: Duration = Duration::from_secs(5);

impl Pipeline {
    /// Opens a tunnel to this port of the application; `far` is its far end where there is one already.
    pub(super) async fn tunnel_to(
        &self,
        x: &mut Exchange,
        application: &Application,
        port: u16,
        far: Option<Box<dyn Tunnel>>,
    ) -> Result<Served, Box<Answer>> {
        // A captured connection goes where it wanted to go.
        let address = if port == application.address.port() { application.address } else { x.connection.local };
        let began = clock::now();
        let connected = match far {
            Some(far) => Ok(far),
            None => connect(address).await,
        };
        x.attempts.push(Attempt {
            endpoint: EndpointName::new(address.ip().to_string().into(), address),
            status: None,
            connect: clock::now().saturating_duration_since(began),
            header: None,
            total: None,
            failure: connected.as_ref().err().copied(),
        });
        let far = connected.map_err(refuse)?;
        let (worker, connection) = (self.worker.clone(), x.connection.clone());
        let watched = Watched { far, judging: Box::pin(worker.judging_anew()), worker, connection };
        Ok(Served { head: ResponseHead::new(200), body: Body::Empty, upgrade: Some(Box::new(watched)), reason: Reason::None })
    }
}

pub(super) async fn connect(address: SocketAddr) -> Result<Box<dyn Tunnel>, Reason> {
    match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Small writes must not wait; where that cannot be set the connection works all the same.
            let _ = stream.set_nodelay(true);
            Ok(Box::new(stream))
        }
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "the application cannot be reached");
            Err(Reason::UpstreamConnect)
        }
        Err(_) => Err(Reason::UpstreamTimeout),
    }
}

/// The far end of a tunnel, which ends when policies do not allow it any more.
struct Watched {
    far: Box<dyn Tunnel>,
    judging: Pin<Box<OwnedNotified>>,
    worker: Rc<Worker>,
    connection: Rc<ConnectionInfo>,
}

impl Watched {
    /// Fails once the caller may call no more; otherwise the task is woken when that may have changed.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.judging.as_mut().poll(cx).is_ready() {
            self.judging = Box::pin(self.worker.judging_anew());
            let Door::Inbound { peer, port, .. } = &self.connection.door else { continue };
            let caller = Caller { peer: peer.as_deref(), address: self.connection.transport_peer.ip() };
            if !self.worker.view().tables.authorization.still_allows(&caller, &Called { port: *port, request: None }) {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "no policy allows this any more"));
            }
        }
        Ok(())
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.far).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.far).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.far).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.far.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.far).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.far).poll_shutdown(cx)
    }
}
