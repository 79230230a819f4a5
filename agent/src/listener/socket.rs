//! Opening sockets to listen on. It accepts nothing.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::TcpListener;

use crate::net::set_transparent;

/// Connections that wait to be accepted; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A socket of this worker's own on an address that all workers share. IPv6 addresses take IPv6 only, so that the same port may be open for
/// IPv4 beside it. A transparent one takes connections to any address that the kernel hands over to it.
pub(super) fn listen(address: SocketAddr, is_transparent: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if is_transparent {
        set_transparent(&socket, address.ip())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Whom it accepts inherits this.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
