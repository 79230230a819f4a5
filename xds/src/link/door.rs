//! The server's side of connections: accepts them, finds out whether they speak TLS, and says who is there. It knows no service.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use heddle_node::identity::{good_until, peer_of};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::crowd::{Crowd, Handshakes, Seat};
use super::peer::{Peer, PeerIdentity};

/// Until a handshake is done.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections between the door and the server.
const WAITING: usize = 64;
/// How long is waited when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);
/// The first byte of every TLS connection: a handshake record (RFC 8446, section 5.1). HTTP/2 in clear begins with a letter.
const TLS_RECORD: u8 = 0x16;

/// What a port speaks.
#[derive(Debug, Clone)]
pub enum Speaks {
    /// Cleartext.
    Clear,
    /// Cleartext and TLS, told apart by the first byte.
    Both(Arc<ServerConfig>),
    /// TLS.
    Tls(Arc<ServerConfig>),
}

/// A connection and who is at its other end.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
    /// When the certificate that it came with expires. Clients that would go on with it for ever (Envoy opens its next stream on it) have to connect anew.
    expires: Option<Pin<Box<Sleep>>>,
    /// Its place among those that are open; `None` within the process.
    _seat: Option<Seat>,
}

#[derive(Debug)]
enum Stream {
    Memory(DuplexStream),
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Of a part of this process.
    pub(super) fn memory(stream: DuplexStream) -> Connection {
        Connection { stream: Stream::Memory(stream), peer: Peer::Process, expires: None, _seat: None }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.expires.as_mut().is_some_and(|expires| expires.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the certificate of this connection has expired")));
        }
        match &mut self.stream {
            Stream::Memory(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Clear(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Memory(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Clear(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    /// The head of a frame goes with its content: each by itself would be a packet.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Memory(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Stream::Clear(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Memory(stream) => stream.is_write_vectored(),
            Stream::Clear(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Memory(stream) => Pin::new(stream).poll_flush(context),
            Stream::Clear(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Memory(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Clear(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Connections that have come in, for a server's `serve_with_incoming`.
#[derive(Debug)]
pub struct Incoming {
    receiver: mpsc::Receiver<io::Result<Connection>>,
}

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context)
    }
}

/// Hears of clients whose certificates were not accepted: from where, and why.
pub type Turned = Arc<dyn Fn(SocketAddr, String) + Send + Sync>;

/// Accepts connections on the present runtime until the drain begins or nobody takes them any more. A slow or broken handshake holds up nobody else; where
/// there are too many, of one address or of all, further ones are closed at once.
pub fn accept(listener: TcpListener, speaks: Speaks, turned: Turned, drain: DrainWatch) -> Incoming {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(run(listener, speaks, turned, sender, drain));
    Incoming { receiver }
}

async fn run(
    listener: TcpListener,
    speaks: Speaks,
    turned: Turned,
    sender: mpsc::Sender<io::Result<Connection>>,
    mut drain: DrainWatch,
) {
    let (crowd, mut handshakes) = (Crowd::default(), Handshakes::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.draining() => return,
            () = sender.closed() => return,
        };
        let stream = match accepted {
            Ok((stream, address)) => stream.set_nodelay(true).map(|()| (stream, address)),
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok((stream, address)) = stream else { continue };
        let seat = match crowd.seat(address.ip(), clock::now()) {
            Ok(seat) => seat,
            Err(refused) => {
                if refused.is_to_be_told {
                    tracing::warn!(%address, "connections are refused: {} are open from {}", refused.open, refused.of);
                }
                continue;
            }
        };
        let (speaks, turned, sender) = (speaks.clone(), turned.clone(), sender.clone());
        handshakes.begin(
            address.ip(),
            tokio::spawn(async move {
                match timeout(HANDSHAKE, greet(stream, address, &speaks, seat)).await {
                    // Nobody takes it any more when the server stops.
                    Ok(Ok(connection)) => drop(sender.send(Ok(connection)).await),
                    Ok(Err(error)) => {
                        tracing::debug!(%address, %error, "handshake failed");
                        if let Some(why) = distrust(&error) {
                            turned(address, why);
                        }
                    }
                    Err(_) => tracing::debug!(%address, "no handshake in time"),
                }
            }),
        );
    }
}

/// Why a certificate was not accepted, when that is what a handshake has failed for.
fn distrust(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(why) => Some(why.to_string()),
        _ => None,
    }
}

async fn greet(stream: TcpStream, address: SocketAddr, speaks: &Speaks, seat: Seat) -> io::Result<Connection> {
    let _seat = Some(seat);
    let config = match speaks {
        Speaks::Clear => None,
        Speaks::Tls(config) => Some(config),
        Speaks::Both(config) => {
            let mut first = [0];
            let read = stream.peek(&mut first).await?;
            (read == 1 && first[0] == TLS_RECORD).then_some(config)
        }
    };
    let Some(config) = config else {
        return Ok(Connection { stream: Stream::Clear(stream), peer: Peer::Clear(address), expires: None, _seat });
    };
    let stream = TlsAcceptor::from(config.clone()).accept(stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let identity = peer_of(&chain).zip(good_until(&chain));
    let identity = identity.map(|(id, good_until)| Arc::new(PeerIdentity { id, chain, good_until }));
    let left = identity.as_ref().map(|identity| identity.good_until.duration_since(clock::wall()).unwrap_or_default());
    let expires = left.map(|left| Box::pin(sleep(left)));
    Ok(Connection { stream: Stream::Tls(Box::new(stream)), peer: Peer::Tls { address, identity }, expires, _seat })
}
