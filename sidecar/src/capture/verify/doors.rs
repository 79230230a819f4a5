//! Doors of our own where those of the agent will be, as long as it is not there: what is captured arrives at them. It does not know who called.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::WORD;
use super::question::{MOST, Question};

/// A handful of attempts, and what an application sends meanwhile.
const BACKLOG: i32 = 64;

/// A place to arrive at.
#[derive(Debug)]
pub(super) enum Door<T> {
    /// Nobody listened there; now we do.
    Own(T),
    /// Somebody does.
    Taken,
}

/// For connections; `transparent` as TPROXY hands them over.
pub(super) fn tcp(at: SocketAddr, transparent: bool) -> Result<Door<TcpListener>, String> {
    let open = || {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
        // What is left of connections that are over is in nobody's way; who listens is.
        socket.set_reuse_address(true)?;
        match (at, transparent) {
            (SocketAddr::V4(_), true) => socket.set_ip_transparent_v4(true)?,
            (SocketAddr::V6(_), true) => socket.set_ip_transparent_v6(true)?,
            _ => {}
        }
        prepared(&socket, at)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    opened(open(), at)
}

/// For datagrams.
pub(super) fn udp(at: SocketAddr) -> Result<Door<UdpSocket>, String> {
    let open = || {
        let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
        prepared(&socket, at)?;
        UdpSocket::from_std(socket.into())
    };
    opened(open(), at)
}

fn prepared(socket: &Socket, at: SocketAddr) -> io::Result<()> {
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())
}

fn opened<T>(result: io::Result<T>, at: SocketAddr) -> Result<Door<T>, String> {
    match result {
        Ok(door) => Ok(Door::Own(door)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Door::Taken),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(format!("no door can be opened at {at} to see it arrive ({error}): this needs root or CAP_NET_ADMIN"))
        }
        Err(error) => Err(format!("no door can be opened at {at} to see it arrive: {error}")),
    }
}

/// Lets a socket be reset when it is closed, so that no port waits for what may still come.
pub(super) fn leave_nothing(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// A connection that has arrived; it stays open as long as this is kept.
#[derive(Debug)]
pub(super) struct Arrived {
    _stream: TcpStream,
    /// Where it was going, as an agent would see it.
    pub(super) wanted: SocketAddr,
}

/// Takes the connection of this caller, says the word and hears it back. All others are closed.
pub(super) async fn receive(listener: &TcpListener, caller: SocketAddr) -> io::Result<Arrived> {
    loop {
        let (mut stream, peer) = listener.accept().await?;
        leave_nothing(&stream)?;
        if peer == caller {
            stream.write_all(WORD).await?;
            stream.read_exact(&mut [0; WORD.len()]).await?;
            return Ok(Arrived { wanted: wanted(&stream)?, _stream: stream });
        }
    }
}

/// Where the caller was going: what the kernel remembers of an address that it has translated, otherwise the address itself.
fn wanted(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    let socket = SockRef::from(stream);
    let tracked = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    Ok(tracked
        .ok()
        .and_then(|address| address.as_socket())
        .map_or(local, |address| SocketAddr::new(address.ip(), address.port())))
}

/// Answers this question, as often as it comes, as an agent would.
pub(super) async fn answer(door: &UdpSocket, question: &Question, seen: &mut bool) -> Infallible {
    let mut room = [0; MOST];
    loop {
        // An error belongs to an earlier answer that nobody took.
        let Ok((read, from)) = door.recv_from(&mut room).await else { continue };
        if room[..read] == *question.bytes() {
            *seen = true;
            door.send_to(&question.answer(), from).await.ok();
        }
    }
}
