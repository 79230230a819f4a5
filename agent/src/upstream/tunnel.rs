//! Tunnels: a connection that has left HTTP, and opaque bytes to an application behind a peer of the mesh.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use heddle_node::clock;
use heddle_xds::model::Timeouts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::target::{EndpointHandle, Seen, Target};
use super::{Pools, Sent, UpstreamError, h2};
use crate::balance::Tried;
use crate::exchange::{Reason, Tunnel};
use crate::net::{Io, Rewind};

/// A tunnel that stands.
pub struct OpenTunnel {
    /// The application's side of it. Shutting it down ends our direction only; dropping it cuts both.
    pub io: Box<dyn Tunnel>,
    /// The endpoint behind whose sidecar the application is.
    pub endpoint: EndpointHandle,
    /// Time spent connecting; zero when a connection was there already.
    pub connect: Duration,
}

impl Pools {
    /// Opens a tunnel to `authority` (`service.namespace:port`) by one of the peers of `target`. As long as none stands no byte of the client has been sent, so
    /// that any failure of a peer leads to the next one, as often as the upstream retries. `key` is for consistent hashing.
    ///
    /// # Errors
    /// That of the last peer.
    pub async fn tunnel(
        &self,
        target: &Target,
        authority: &str,
        timeouts: &Timeouts,
        key: Option<u64>,
        dice: &mut fastrand::Rng,
    ) -> Result<OpenTunnel, UpstreamError> {
        let config = target.config();
        if config.mesh.is_none() {
            return Err(UpstreamError::new(Reason::NotImplemented, Sent::Nothing, "tunnels lead to peers of the mesh only"));
        }
        let others = target.view().endpoints.len().saturating_sub(1);
        let tries = config.retries.map_or(others, |retries| retries as usize) + 1;
        let (mut tried, mut last) = (Tried::new(), None);
        loop {
            let start = clock::now();
            let picked = match target.pick(key, &tried, Seen::Never, dice, start) {
                Ok(picked) => picked,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            tried.push(picked.id());
            let endpoint = picked.endpoint().clone();
            let (picked, error) = match h2::connect(picked, authority, timeouts, start).await {
                Ok(h2::Opened { io, connect }) => return Ok(OpenTunnel { io, endpoint, connect }),
                Err(failed) => failed,
            };
            picked.failed(&error);
            tracing::debug!(endpoint = %endpoint.address, %error, "a peer opens no tunnel");
            if tried.len() >= tries || !error.may_retry(false, true) {
                return Err(error);
            }
            last = Some(error);
        }
    }
}

/// A connection that has left HTTP: bytes read too far come first.
pub(super) struct Upgraded<G> {
    pub(super) io: Rewind<Io>,
    /// Ends the accounting of the request when the tunnel is dropped.
    pub(super) _guard: G,
}

impl<G: Unpin> AsyncRead for Upgraded<G> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<G: Unpin> AsyncWrite for Upgraded<G> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
