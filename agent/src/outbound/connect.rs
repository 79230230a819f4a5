//! Opening a connection to a server to ask: its addresses, TCP to the first that answers, then TLS. It keeps none.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use heddle_node::sockets;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::lane::{self, Lane};
use super::message::CallError;
use super::remote::Core;
use crate::net::Socket;

/// A byte stream to a server, in clear or over TLS.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Most addresses that one call tries: with more, each would get too little of its time.
const MAX_ADDRESSES: usize = 4;

/// Opens a connection before `end`.
pub(super) async fn connect(core: &Core, lane: &Lane, end: Instant, now: Instant) -> Result<Box<dyn Wire>, CallError> {
    let mut addresses = addresses(core, lane).await?;
    spread(&mut addresses, lane.next_turn());
    addresses.truncate(MAX_ADDRESSES);
    let tcp = connect_tcp(&addresses, core.port, end, now).await?;
    // Small writes must not wait for acknowledgements; where that cannot be set the connection works all the same.
    let _ = tcp.set_nodelay(true);
    let socket = Socket::from(tcp);
    match &core.tls {
        None => Ok(Box::new(socket)),
        Some((config, name)) => {
            let stream = TlsConnector::from(config.clone()).connect(name.clone(), socket).await;
            stream.map(|stream| Box::new(stream) as Box<dyn Wire>).map_err(|error| CallError::Tls(error.to_string()))
        }
    }
}

/// Addresses of the server. When its name cannot be looked up now, the last ones hold on.
async fn addresses(core: &Core, lane: &Lane) -> Result<Vec<IpAddr>, CallError> {
    if let Ok(literal) = core.host.parse() {
        return Ok(vec![literal]);
    }
    let resolver = lane::resolver(&core.outbound.shared)?;
    match resolver.addresses(&core.host).await {
        Ok(resolved) => {
            lane.remember(&resolved.answer.addresses);
            Ok(resolved.answer.addresses)
        }
        Err(error) => lane.remembered().ok_or_else(|| CallError::Dns(error.to_string())),
    }
}

/// Puts another IPv4 address first each time; IPv6 addresses stay behind them.
fn spread(addresses: &mut [IpAddr], turn: usize) {
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    let spread = if v4 > 0 { &mut addresses[..v4] } else { addresses };
    if !spread.is_empty() {
        let by = turn % spread.len();
        spread.rotate_left(by);
    }
}

/// The first address that answers, each within its share of the time that is left.
async fn connect_tcp(addresses: &[IpAddr], port: u16, end: Instant, now: Instant) -> Result<TcpStream, CallError> {
    let share: Duration = end.saturating_duration_since(now) / addresses.len().max(1) as u32;
    let mut last = CallError::Connect("no address".to_owned());
    for (nth, ip) in addresses.iter().enumerate() {
        let address = SocketAddr::new(*ip, port);
        match timeout_at(now + share * (nth as u32 + 1), sockets::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = CallError::Connect(format!("connect to {address}: {error}")),
            Err(_) => last = CallError::Connect(format!("connect to {address}: no answer in time")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_take_turns_and_ipv6_comes_last() {
        let all: Vec<IpAddr> = ["10.0.0.1", "10.0.0.2", "::1"].iter().map(|ip| ip.parse().unwrap()).collect();
        let turn = |turn| {
            let mut addresses = all.clone();
            spread(&mut addresses, turn);
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(turn(0), ["10.0.0.1", "10.0.0.2", "::1"]);
        assert_eq!(turn(1), ["10.0.0.2", "10.0.0.1", "::1"]);
        spread(&mut [], 3);
    }
}
