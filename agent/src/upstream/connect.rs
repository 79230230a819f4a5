//! Opening a connection: TCP to the first address that answers, then TLS.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::identity::nameless;
use heddle_node::sockets;
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::cluster::server_name;
use super::{Sent, UpstreamError};
use crate::exchange::Reason;
use crate::net::{Io, Socket};

/// What a connection is made for: one with another TLS identity is never used instead.
#[derive(Debug, Clone)]
pub(super) struct TlsIdentity {
    pub(super) config: Arc<ClientConfig>,
    /// Host whose certificate is expected; `None` where it is the identity in the certificate that is judged.
    pub(super) name: Option<Rc<str>>,
}

impl TlsIdentity {
    /// Whether a connection made for `a` may serve `b`.
    pub(super) fn fits(a: Option<&TlsIdentity>, config: Option<&Arc<ClientConfig>>, name: Option<&str>) -> bool {
        match (a, config) {
            (None, None) => true,
            (Some(a), Some(config)) => Arc::ptr_eq(&a.config, config) && a.name.as_deref() == name,
            _ => false,
        }
    }
}

fn failed(reason: Reason, detail: impl Into<std::borrow::Cow<'static, str>>) -> UpstreamError {
    UpstreamError::new(reason, Sent::Nothing, detail)
}

/// Connects within `limit` (zero is no limit). Where a name has several addresses, each gets its share of the time that is left.
pub(super) async fn connect(
    first: SocketAddr,
    others: &[SocketAddr],
    tls: Option<&TlsIdentity>,
    limit: Duration,
    now: Instant,
) -> Result<Io, UpstreamError> {
    let end = after(now, limit);
    let tcp = connect_tcp(first, others, end, now).await?;
    // small writes must not wait for acknowledgements; where that cannot be set the connection works all the same
    let _ = tcp.set_nodelay(true);
    let Some(tls) = tls else {
        return Ok(Io::tcp(tcp));
    };
    let name = match tls.name.as_deref() {
        None => nameless(),
        Some(name) => server_name(name)
            .ok_or_else(|| failed(Reason::UpstreamTls, format!("`{name}` is no server name; set tls.sni of the upstream")))?,
    };
    match timeout_at(end, TlsConnector::from(tls.config.clone()).connect(name, Socket::from(tcp))).await {
        Ok(Ok(stream)) => Ok(Io::ClientTls(Box::new(stream))),
        Ok(Err(error)) => Err(refused(first, &error)),
        Err(_) => Err(failed(Reason::UpstreamTimeout, "TLS handshake took too long")),
    }
}

/// Why there is no TLS with an endpoint: what its certificate says of it, or anything else.
fn refused(endpoint: SocketAddr, error: &std::io::Error) -> UpstreamError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(why))) => {
            failed(Reason::PeerIdentity, format!("{endpoint}: {}", why.0))
        }
        _ => failed(Reason::UpstreamTls, format!("TLS with {endpoint}: {error}")),
    }
}

/// The end of a step that may take `limit`; zero is no limit.
pub(super) fn after(start: Instant, limit: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(86_400);
    start + if limit.is_zero() { FAR } else { limit.min(FAR) }
}

async fn connect_tcp(first: SocketAddr, others: &[SocketAddr], end: Instant, now: Instant) -> Result<TcpStream, UpstreamError> {
    let mut last = None;
    let share = (end - now) / (1 + others.len() as u32);
    for (nth, address) in std::iter::once(&first).chain(others).enumerate() {
        let until = now + share * (nth as u32 + 1);
        match timeout_at(until, sockets::connect(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(failed(Reason::UpstreamConnect, format!("connect to {address}: {error}"))),
            Err(_) => last = Some(failed(Reason::UpstreamTimeout, format!("connect to {address}: no answer in time"))),
        }
    }
    Err(last.unwrap_or_else(|| failed(Reason::UpstreamConnect, "no address")))
}
