//! Tunnels: a connection that has left HTTP, and opaque bytes to an endpoint or to an application behind a peer of the mesh.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use heddle_node::clock;
use heddle_xds::model::Timeouts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::connect::{TlsIdentity, connect};
use super::host::Slot;
use super::pools::Work;
use super::target::{EndpointHandle, Picked, Seen, Target};
use super::{Pools, Sent, UpstreamError, h2};
use crate::balance::Tried;
use crate::exchange::{Reason, Tunnel};
use crate::health::Finding;
use crate::net::{Io, Rewind};

/// A tunnel that stands.
pub struct OpenTunnel {
    /// The application's side of it. Shutting it down ends our direction only; dropping it cuts both.
    pub io: Box<dyn Tunnel>,
    /// The endpoint behind whose sidecar the application is, or the application itself.
    pub endpoint: EndpointHandle,
    /// Time spent connecting; zero when a connection was there already.
    pub connect: Duration,
}

/// How a tunnel is opened.
pub struct Dial<'a> {
    /// What a peer of the mesh is asked for (`service.namespace:port`); says nothing to other endpoints.
    pub authority: &'a str,
    /// How long it may take.
    pub timeouts: &'a Timeouts,
    /// For consistent hashing.
    pub key: Option<u64>,
    /// How many endpoints are tried at most; `None` is what the upstream says of retries.
    pub attempts: Option<u32>,
    /// Hears of endpoints to which there was no way.
    pub failed: Option<&'a mut Failed<'a>>,
}

/// Hears of an endpoint to which there was no way, why, and how long it took to find out.
pub type Failed<'a> = dyn FnMut(&EndpointHandle, &UpstreamError, Duration) + 'a;

impl<'a> Dial<'a> {
    /// To this authority, as the upstream says.
    pub fn to(authority: &'a str, timeouts: &'a Timeouts) -> Dial<'a> {
        Dial { authority, timeouts, key: None, attempts: None, failed: None }
    }
}

impl Pools {
    /// Opens a tunnel by one of the endpoints of `target`: to an application behind a peer of the mesh, or to the endpoint itself. As long as none stands no
    /// byte of the client has been sent, so that any failure of an endpoint leads to the next one.
    ///
    /// # Errors
    /// That of the last endpoint.
    pub async fn tunnel(
        &self,
        target: &Target,
        mut dial: Dial<'_>,
        dice: &mut fastrand::Rng,
    ) -> Result<OpenTunnel, UpstreamError> {
        let config = target.config();
        let others = target.view().endpoints.len().saturating_sub(1);
        let as_upstream = config.retries.map_or(others, |retries| retries as usize) + 1;
        let tries = dial.attempts.map_or(as_upstream, |attempts| attempts as usize);
        let (mut tried, mut last) = (Tried::new(), None);
        loop {
            let start = clock::now();
            let picked = match target.pick(dial.key, &tried, Seen::Never, dice, start) {
                Ok(picked) => picked,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            tried.push(picked.id());
            let endpoint = picked.endpoint().clone();
            let opened = if config.mesh.is_some() {
                h2::connect(picked, dial.authority, dial.timeouts, start).await
            } else {
                direct(picked, dial.timeouts, start).await
            };
            let (picked, error) = match opened {
                Ok(h2::Opened { io, connect }) => return Ok(OpenTunnel { io, endpoint, connect }),
                Err(failed) => failed,
            };
            picked.failed(&error);
            tracing::debug!(endpoint = %endpoint.address, %error, "an endpoint opens no tunnel");
            if let Some(failed) = &mut dial.failed {
                failed(&endpoint, &error, clock::now().saturating_duration_since(start));
            }
            if tried.len() >= tries || !error.may_retry(false, true) {
                return Err(error);
            }
            last = Some(error);
        }
    }
}

/// A connection to an endpoint for nobody else's bytes, over TLS where the upstream says so. It counts as long as it lives.
async fn direct(picked: Picked, timeouts: &Timeouts, start: Instant) -> Result<h2::Opened, (Picked, UpstreamError)> {
    match reach(&picked, timeouts, start).await {
        Ok((io, slot)) => {
            let now = clock::now();
            picked.observe(now.saturating_duration_since(start), now);
            picked.report(Finding::Connected, now);
            let io = Upgraded { io: Rewind::new(io, bytes::Bytes::new()), _guard: (slot, Work::new(picked)) };
            Ok(h2::Opened { io: Box::new(io), connect: now.saturating_duration_since(start) })
        }
        Err(error) => Err((picked, error)),
    }
}

async fn reach(picked: &Picked, timeouts: &Timeouts, start: Instant) -> Result<(Io, Slot), UpstreamError> {
    let host = picked.host();
    let (tls, name) = picked.tls(&host.core.host)?;
    let identity = tls.map(|config| {
        // The protocol inside is nobody's choice here.
        let mut plain = (**config).clone();
        plain.alpn_protocols.clear();
        TlsIdentity { config: Arc::new(plain), name: name.map(Rc::from) }
    });
    let most = picked.spec().config.breakers.max_connections;
    if most.is_some_and(|most| host.books.connections.get() >= most) && !host.drop_idle() {
        host.shard.overflows.inc();
        return Err(UpstreamError::new(Reason::Overflow, Sent::Nothing, "breakers.max_connections is reached"));
    }
    let slot = Slot::take(host);
    let fallbacks = host.fallbacks.borrow().clone();
    let io = connect(host.core.address, &fallbacks, identity.as_ref(), timeouts.connect, start).await?;
    Ok((io, slot))
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
