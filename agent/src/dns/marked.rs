//! Sockets for questions to name servers, which carry the mark of the process like all others that lead out. It knows no questions.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use heddle_node::sockets;
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioTime};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long a connection to a name server may take to open, unless said otherwise.
const CONNECT: Duration = Duration::from_secs(5);

/// The runtime, as the resolver sees it.
#[derive(Clone, Default)]
pub(super) struct Marked(TokioHandle);

type Opening<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

impl RuntimeProvider for Marked {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.0.clone()
    }

    /// The resolver never says which address of ours to take.
    fn connect_tcp(&self, server: SocketAddr, _own: Option<SocketAddr>, wait: Option<Duration>) -> Opening<Self::Tcp> {
        Box::pin(async move {
            let stream = timeout(wait.unwrap_or(CONNECT), sockets::connect(server)).await??;
            stream.set_nodelay(true)?;
            Ok(AsyncIoTokioAsStd(stream))
        })
    }

    fn bind_udp(&self, own: SocketAddr, _server: SocketAddr) -> Opening<UdpSocket> {
        Box::pin(sockets::datagrams(own))
    }
}
