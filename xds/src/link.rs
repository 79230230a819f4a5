//! How a client reaches a control plane: over TCP, or within the process. It knows no service.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint};

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
    #[error("{address:?} is not host:port or http://host:port of a control plane")]
    Address {
        /// What was given.
        address: String,
    },
    /// No connection.
    #[error("cannot connect to the control plane at {address}: {source}")]
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
    Memory(mpsc::Sender<DuplexStream>),
}

impl Connector {
    /// Over TCP, to `host:port` or `http://host:port`.
    pub fn tcp(address: &str) -> Result<Connector, LinkError> {
        let uri = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
        let bad = || LinkError::Address { address: address.chars().take(200).collect() };
        let endpoint = Endpoint::from_shared(uri).map_err(|_| bad())?;
        if endpoint.uri().port().is_none() || endpoint.uri().scheme_str() != Some("http") {
            return Err(bad());
        }
        Ok(Connector { way: Way::Tcp, endpoint: tune(endpoint) })
    }

    /// A connection that stands. The same connector serves the discovery client and the admin client.
    pub async fn connect(&self) -> Result<Channel, LinkError> {
        let connected = match &self.way {
            Way::Tcp => self.endpoint.connect().await,
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
    type Item = io::Result<DuplexStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context).map(|connection| connection.map(Ok))
    }
}
