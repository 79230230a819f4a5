//! Sockets that lead out. They carry the firewall mark of the process, where it has one, by which capture's rules let pass what the agent itself sends. It knows
//! nothing of what is said.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket, lookup_host};

/// The mark of this process, 0 for none. It is whose a packet is, as the user of the process is, and nobody would hand that through every floor.
static MARK: AtomicU32 = AtomicU32::new(0);

/// Marks what goes out by all sockets that are opened here from now on.
///
/// # Errors
/// The process lacks `CAP_NET_ADMIN`; the message says so.
pub fn mark_all(mark: u32) -> io::Result<()> {
    set_mark(&Socket::new(Domain::IPV4, Type::STREAM, None)?, mark)?;
    MARK.store(mark, Ordering::Relaxed);
    Ok(())
}

/// Marks what a socket sends from now on (`SO_MARK`), so that the capture's rules know it for the proxy's own and let it pass.
///
/// # Errors
/// The process lacks `CAP_NET_ADMIN`; the message says so.
pub fn set_mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    SockRef::from(socket).set_mark(mark).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => ": this needs root or CAP_NET_ADMIN",
            _ => "",
        };
        io::Error::new(error.kind(), format!("a firewall mark (capture.proxy_mark) cannot be had: {error}{remedy}"))
    })
}

/// Connects to an address.
///
/// # Errors
/// As of `connect(2)`.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let mark = MARK.load(Ordering::Relaxed);
    if mark == 0 {
        return TcpStream::connect(address).await;
    }
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    set_mark(&socket, mark)?;
    socket.connect(address).await
}

/// Connects to a host by its name: to the first of its addresses that answers.
///
/// # Errors
/// The name is unknown, or none of its addresses answers.
pub async fn connect_to(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in lookup_host((host, port)).await? {
        match connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A socket for datagrams, at this address of ours.
///
/// # Errors
/// As of `bind(2)`.
pub async fn datagrams(own: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(own).await?;
    match MARK.load(Ordering::Relaxed) {
        0 => {}
        mark => set_mark(&socket, mark)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// One test, since the mark is of the whole process.
    #[tokio::test]
    async fn what_goes_out_is_marked_once_the_process_has_a_mark() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let marks = || async {
            let by_name = connect_to("127.0.0.1", address.port()).await.unwrap();
            let (tcp, udp) = (connect(address).await.unwrap(), datagrams("127.0.0.1:0".parse().unwrap()).await.unwrap());
            [SockRef::from(&by_name).mark().unwrap(), SockRef::from(&tcp).mark().unwrap(), SockRef::from(&udp).mark().unwrap()]
        };
        assert_eq!(marks().await, [0; 3]);
        match mark_all(0x48) {
            Ok(()) => assert_eq!(marks().await, [0x48; 3]),
            Err(error) => {
                assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
                assert_eq!(marks().await, [0; 3], "nothing is half marked");
            }
        }
        assert!(connect_to("127.0.0.1", 1).await.is_err());
    }
}
