//! How clients reach a control plane, and how it receives them: over TCP, over TLS, over a socket of the machine, or within the process. It knows no
//! service, and nothing of whom TLS trusts.

mod crowd;
mod door;
mod linger;
mod named;
mod peer;
mod several;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use heddle_node::identity::{Expect, Identity, Rejection, nameless};
use heddle_node::sockets;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::DuplexStream;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint};

pub use door::{Connection, Incoming, Speaks, Turned, accept};
pub use linger::{Heard, Linger, Lingering};
pub use named::Named;
pub use peer::{Peer, PeerIdentity};

use several::{Beside, Several};

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that is silent this long is asked whether it is there, and given up after [`KEEPALIVE_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the answer may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes in each direction of a connection within the process.
const PIPE: usize = 256 * 1024;

/// Why a control plane could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Not an address.
    #[error(
        "{address:?} is not host:port, http://host:port or, where there is an identity, https://host:port of a control plane"
    )]
    Address {
        /// What was given.
        address: String,
    },
    /// Roots, certificate, key or name that TLS cannot work with.
    #[error("TLS to the control plane at {address}: {reason}")]
    Tls {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// No connection.
    #[error("cannot connect to the control plane at {address}: {}", cause(source))]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// A way to a control plane. Each connection is made anew.
#[derive(Debug, Clone)]
pub struct Connector {
    way: Way,
    endpoint: Endpoint,
}

#[derive(Debug, Clone)]
enum Way {
    Tcp,
    Tls(TlsWay),
    Unix(Arc<Path>),
    Memory(mpsc::Sender<DuplexStream>),
    Any(Arc<Several>),
    Beside(Arc<Beside>),
}

/// A way over TLS.
#[derive(Debug, Clone)]
struct TlsWay {
    host: Arc<str>,
    port: u16,
    config: Arc<ClientConfig>,
    /// The name that is sent and, without identities, must be proved.
    name: ServerName<'static>,
    /// Whose certificate is waited for.
    identity: Option<Identity>,
}

impl TlsWay {
    async fn open(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        if let Some(identity) = &self.identity {
            let mut changes = identity.changes();
            while identity.svid().is_none() {
                changes.changed().await.map_err(io::Error::other)?;
            }
        }
        let stream = sockets::connect_to(&self.host, self.port).await?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(TlsConnector::from(self.config).connect(self.name, stream).await?))
    }
}

impl Connector {
    /// Over TCP, to `host:port` or `http://host:port`.
    pub fn tcp(address: &str) -> Result<Connector, LinkError> {
        Ok(Connector { way: Way::Tcp, endpoint: tune(endpoint(address, "http")?) })
    }

    /// Over TLS, to `host:port` or `https://host:port`, as `identity`: each connection waits until there is one. The server must be whom `expect` says; its
    /// name does not count.
    pub fn tls(address: &str, identity: &Identity, expect: Expect) -> Result<Connector, LinkError> {
        Connector::over_tls(address, identity, expect, true)
    }

    /// The same for whoever has no identity yet and is about to get it; only the roots of `identity` count.
    pub fn joining(address: &str, identity: &Identity, expect: Expect) -> Result<Connector, LinkError> {
        Connector::over_tls(address, identity, expect, false)
    }

    fn over_tls(address: &str, identity: &Identity, expect: Expect, waits: bool) -> Result<Connector, LinkError> {
        let (endpoint, host, port) = over_tls(address)?;
        let config = identity.client_config(expect, &[b"h2"]);
        let way = TlsWay { host, port, config, name: nameless(), identity: waits.then(|| identity.clone()) };
        Ok(Connector { way: Way::Tls(way), endpoint: tune(endpoint) })
    }

    /// Over TLS, to `host:port` or `https://host:port`, whose certificate must be for a name and from roots that are told.
    pub fn named(address: &str, named: &Named) -> Result<Connector, LinkError> {
        let (endpoint, host, port) = over_tls(address)?;
        let failed = |reason| LinkError::Tls { address: address.to_owned(), reason };
        let (config, name) = named.client(&host).map_err(failed)?;
        let way = TlsWay { host, port, config, name, identity: None };
        Ok(Connector { way: Way::Tls(way), endpoint: tune(endpoint) })
    }

    /// To whichever of several control planes answers; each connection begins with another one.
    #[must_use]
    pub fn any(mut ways: Vec<Connector>, dice: fastrand::Rng) -> Connector {
        match ways.pop() {
            Some(only) if ways.is_empty() => only,
            last => {
                ways.extend(last);
                let endpoint = tune(Endpoint::from_static("http://any"));
                Connector { way: Way::Any(Arc::new(Several::new(ways, dice))), endpoint }
            }
        }
    }

    /// To the same control planes, for what goes beside another connection of this connector: it begins where that one went last, and moves nobody.
    #[must_use]
    pub fn beside(&self) -> Connector {
        match &self.way {
            Way::Any(several) => {
                Connector { way: Way::Beside(Arc::new(Beside::new(several.clone()))), endpoint: self.endpoint.clone() }
            }
            _ => self.clone(),
        }
    }

    /// Ready when the last connection of this connector, which was made [`Connector::beside`] another one, goes to another control plane than that one by now.
    pub async fn strayed(&self) {
        match &self.way {
            Way::Beside(beside) => beside.strayed().await,
            _ => std::future::pending().await,
        }
    }

    /// To a socket of this machine.
    #[must_use]
    pub fn unix(path: &Path) -> Connector {
        Connector { way: Way::Unix(path.into()), endpoint: tune(Endpoint::from_static("http://localhost")) }
    }

    /// A connection that stands. The same connector serves the discovery client and the admin client.
    pub async fn connect(&self) -> Result<Channel, LinkError> {
        let connected = match &self.way {
            Way::Any(several) => return several.connect().await,
            Way::Beside(beside) => return beside.connect().await,
            Way::Tcp => self.endpoint.connect_with_connector(tower::service_fn(in_clear)).await,
            Way::Tls(way) => {
                let way = way.clone();
                self.endpoint.connect_with_connector(tower::service_fn(move |_| way.clone().open())).await
            }
            Way::Unix(path) => {
                let path = path.clone();
                let open = move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                };
                self.endpoint.connect_with_connector(tower::service_fn(open)).await
            }
            Way::Memory(sender) => {
                let sender = sender.clone();
                let open = move |_| {
                    let sender = sender.clone();
                    async move {
                        let (ours, theirs) = tokio::io::duplex(PIPE);
                        let sent = sender.send(theirs).await;
                        sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused)).map(|()| TokioIo::new(ours))
                    }
                };
                self.endpoint.connect_with_connector(tower::service_fn(open)).await
            }
        };
        connected.map_err(|source| LinkError::Connect { address: self.endpoint.uri().to_string(), source })
    }
}

/// Opens a connection in clear; the port has been asked for when the address was read.
async fn in_clear(uri: tonic::codegen::http::Uri) -> io::Result<TokioIo<TcpStream>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = sockets::connect_to(host, uri.port_u16().unwrap_or_default()).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

fn bad(address: &str) -> LinkError {
    LinkError::Address { address: address.chars().take(200).collect() }
}

/// What an address means, if it has a port and, where it has a scheme, this one.
fn endpoint(address: &str, scheme: &str) -> Result<Endpoint, LinkError> {
    let uri = if address.contains("://") { address.to_owned() } else { format!("{scheme}://{address}") };
    let endpoint = Endpoint::from_shared(uri).map_err(|_| bad(address))?;
    let good = endpoint.uri().port().is_some() && endpoint.uri().scheme_str() == Some(scheme);
    if good { Ok(endpoint) } else { Err(bad(address)) }
}

/// What an address over TLS means: its host without brackets, and its port.
fn over_tls(address: &str) -> Result<(Endpoint, Arc<str>, u16), LinkError> {
    let endpoint = endpoint(address, "https")?;
    let (Some(host), Some(port)) = (endpoint.uri().host(), endpoint.uri().port_u16()) else { return Err(bad(address)) };
    let host = host.trim_start_matches('[').trim_end_matches(']').into();
    Ok((endpoint, host, port))
}

/// What lies at the bottom of an error: gRPC itself says "transport error" to everything.
fn cause(error: &tonic::transport::Error) -> String {
    if let Some(rejection) = Rejection::of(error) {
        return format!("its identity is refused: {rejection}");
    }
    let mut deepest: &dyn Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn tune(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// A way within the process: the connector for clients, and the connections that it makes, for a server's `serve_with_incoming`.
pub fn memory() -> (Connector, MemoryIncoming) {
    let (sender, receiver) = mpsc::channel(16);
    let endpoint = tune(Endpoint::from_static("http://in-process"));
    (Connector { way: Way::Memory(sender), endpoint }, MemoryIncoming { receiver })
}

/// Connections made by the connector of [`memory`].
#[derive(Debug)]
pub struct MemoryIncoming {
    receiver: mpsc::Receiver<DuplexStream>,
}

impl Stream for MemoryIncoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context).map(|connection| connection.map(|stream| Ok(Connection::memory(stream))))
    }
}
