//! A connection whose bytes nobody looks into: its route is found by its server name, TLS ends here or passes, and it is joined to where the route leads. It
//! knows no upstream.

mod choose;

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use heddle_node::clock::{self, Instant};
use heddle_xds::model::TcpRoute;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::admission::SourceSeat;
use super::connection::{Arrival, Entered};
use super::counters::Count;
use super::mesh::raw;
use super::site::{Link, Worker};
use super::tls::Speaks;
use crate::exchange::{Door, Service};
use crate::net::{Io, Rewind, Socket};
use choose::{Opening, choose, must_look};

/// Most bytes of one read while the server name is not known.
const ROOM: usize = 4 * 1024;

/// A connection whose route is known.
struct Came {
    link: Link,
    io: Io,
    _source: Option<SourceSeat>,
}

/// Serves a connection to its end.
pub(super) async fn serve<S: Service>(worker: &Rc<Worker<S>>, arrival: Arrival<'_>, stream: TcpStream, peer: SocketAddr) {
    // What a handshake needs is large, and needed for a moment only.
    let Some(Came { link, io, _source }) = Box::pin(receive(arrival, stream, peer)).await else { return };
    raw::serve(worker, &link, io, None).await;
}

async fn receive(arrival: Arrival<'_>, stream: TcpStream, peer: SocketAddr) -> Option<Came> {
    let until = clock::now() + arrival.site.limits().handshake_timeout;
    let Entered { mut stream, ends, source } = arrival.enter(stream, peer, until).await?;
    let listener = arrival.site.listener.clone();
    let route = if must_look(&listener.tcp) {
        let opening = look(&arrival, &mut stream, until).await?;
        choose(&listener.tcp, &opening)
    } else {
        listener.tcp.first()
    };
    let (io, tls) = match route {
        Some(route) if route.terminate => {
            let accepted = arrival.shake_hands(stream, until, Speaks::Bytes).await?;
            // A certificate may be left out for some paths only, and there are no paths here. And who may ask for any name must not get around a certificate that
            // another name demands.
            if accepted.info.client_required_unless.is_some() || (takes_any_name(route) && !accepted.identity.demands_all()) {
                arrival.counters.add(Count::TlsFailed);
                return None;
            }
            (Io::ServerTls(accepted.stream), Some((accepted.info, accepted.identity)))
        }
        _ => (Io::Plain(stream), None),
    };
    let door = Door::Bytes(route.map(Arc::<TcpRoute>::clone));
    let link = arrival.link(tls, ends, peer, door);
    Some(Came { link, io, _source: source })
}

/// Whether clients choose the server name, and with it the certificate, themselves.
fn takes_any_name(route: &TcpRoute) -> bool {
    route.server_names.is_empty() || route.server_names.iter().any(|name| name.starts_with('*'))
}

/// What the connection begins with; what was read of it is put back. `None` when nothing comes in time.
async fn look(arrival: &Arrival<'_>, stream: &mut Rewind<Socket>, until: Instant) -> Option<Opening> {
    let mut input = BytesMut::with_capacity(ROOM);
    loop {
        match Opening::of(&input) {
            Opening::More => {
                input.reserve(ROOM);
                match arrival.in_time(until, pin!(stream.read_buf(&mut input))).await? {
                    Ok(read) if read > 0 => {}
                    _ => return None,
                }
            }
            known => {
                stream.unread(&input);
                return Some(known);
            }
        }
    }
}
