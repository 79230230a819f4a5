//! Where a captured connection was going before the capture's rules turned it to this process, and the socket options that this takes. It knows
//! nothing of the rules themselves.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Where the client of an accepted connection wanted to go.
///
/// Rules that redirect (NAT) leave it in the kernel's connection tracking (`SO_ORIGINAL_DST`); with TPROXY, and without any capture, it is the local
/// address of the connection. A destination whose port is that of the very listener was therefore not captured: whoever goes there ends here again.
///
/// # Errors
/// The connection has gone already.
pub fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = canonical(stream.local_addr()?);
    let socket = SockRef::from(stream);
    let tracked = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // An error says that the kernel does not track this connection: nobody has turned it then.
    Ok(tracked.ok().and_then(|address| address.as_socket()).map_or(local, canonical))
}

/// Makes a socket that is not bound yet take connections to any address, as TPROXY hands them over (`IP_TRANSPARENT`, `IPV6_TRANSPARENT`).
///
/// # Errors
/// The process lacks `CAP_NET_ADMIN`; the message says so.
pub fn set_transparent(socket: &impl AsFd, address: IpAddr) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let set = if address.is_ipv4() { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) };
    set.map_err(|error| explained(&error, "a transparent socket (capture mode tproxy)"))
}

/// Whether this host has IPv6.
pub fn has_ipv6() -> bool {
    std::net::UdpSocket::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn explained(error: &io::Error, what: &str) -> io::Error {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => ": this needs root or CAP_NET_ADMIN",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{what} cannot be had: {error}{remedy}"))
}

/// IPv4 that came in by an IPv6 socket is IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use socket2::{Domain, Protocol, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;

    async fn accepted(address: &str) -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        let bound = listener.local_addr().unwrap();
        let near = TcpStream::connect(bound).await.unwrap();
        (listener.accept().await.unwrap().0, near, bound)
    }

    #[tokio::test]
    async fn a_connection_that_nobody_turned_goes_where_it_arrived() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (far, _near, bound) = accepted(address).await;
            assert_eq!(original_destination(&far).unwrap(), bound);
        }
    }

    #[tokio::test]
    async fn ipv4_by_a_socket_of_both_families_is_ipv4() {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_only_v6(false).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(1).unwrap();
        let listener = TcpListener::from_std(socket.into()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _near = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        assert_eq!(original_destination(&far).unwrap(), SocketAddr::from(([127, 0, 0, 1], port)));
    }

    #[tokio::test]
    async fn a_socket_is_transparent_or_it_is_said_what_that_needs() {
        for (domain, address) in [(Domain::IPV4, "127.0.0.1"), (Domain::IPV6, "::1")] {
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
            if let Err(error) = set_transparent(&socket, address.parse().unwrap()) {
                assert!(error.to_string().ends_with("this needs root or CAP_NET_ADMIN"), "{error}");
            }
        }
    }
}
