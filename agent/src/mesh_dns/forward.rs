//! Questions for others: sent to the host's name servers as they came, answers given back as they come. It reads no more of them than their number.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use heddle_node::sockets;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one name server may take.
const LIMIT: Duration = Duration::from_secs(3);
/// Name servers that are asked, one after the other.
const MAX_SERVERS: usize = 3;
/// Longest answer over UDP.
const MAX_DATAGRAM: usize = 65_535;

/// Asks one server after the other until one answers.
pub(super) async fn forward(packet: &[u8], servers: &[SocketAddr], by_tcp: bool) -> Option<Vec<u8>> {
    for server in servers.iter().take(MAX_SERVERS) {
        let asked = async { if by_tcp { tcp(packet, *server).await } else { udp(packet, *server).await } };
        match timeout(LIMIT, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server does not answer"),
            Err(_) => tracing::debug!(%server, "a name server does not answer in time"),
        }
    }
    None
}

/// By a socket of its own, so that nobody who does not see the question can guess where its answer goes.
async fn udp(packet: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = sockets::datagrams(any).await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut answer = vec![0; MAX_DATAGRAM];
    loop {
        let read = socket.recv(&mut answer).await?;
        if answer.get(..2) == packet.get(..2) && read > 2 {
            answer.truncate(read);
            answer.shrink_to_fit();
            return Ok(answer);
        }
    }
}

async fn tcp(packet: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = sockets::connect(server).await?;
    write(&mut stream, packet).await?;
    read(&mut stream).await
}

/// Reads a message with its length in front (RFC 1035 section 4.2.2).
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message with its length in front.
pub(super) async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}
