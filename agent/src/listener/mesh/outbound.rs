//! One connection of the application beside this node, until it is known where it goes and what it speaks. Then its protocol serves it.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use heddle_node::clock::{self, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::admission::SourceSeat;
use super::super::connection::{Arrival, Counted, Newcomer, Shared, canonical, detect};
use super::super::counters::Count;
use super::super::site::{Link, Site, Worker};
use super::super::{h1, h2};
use super::detect::{First, Spoken, first};
use super::entry::{Entry, Leads};
use super::{proxied, raw};
use crate::exchange::{ConnectionInfo, Destination, Door, Reading, Service, Tunnel};
use crate::http::Greeting;
use crate::http::digits::AddressText;
use crate::http::h1::HeadLimits;
use crate::net::{Io, Rewind, Socket, original_destination};

/// Most bytes of one read while it is not known what is spoken.
const ROOM: usize = 4 * 1024;
/// Room in which the first bytes of a connection are awaited: a connection that nobody uses yet costs no more.
const FIRST: usize = 64;
/// Longest beginning of a request in which its host is looked for.
const MAX_HEAD: usize = 32 * 1024;
/// What a client of the proxy is told whose tunnel begins (RFC 9110 section 9.3.6).
const BEGUN: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// What is spoken, with the stream.
enum Way {
    H1(Io, BytesMut),
    H2(Io),
    Raw(Io, Option<Box<dyn Tunnel>>),
}

/// A connection that can be served.
struct Came {
    link: Link,
    way: Way,
    /// When the first head must have come.
    until: Instant,
    _source: Option<SourceSeat>,
}

/// Serves a connection to its end.
pub(in super::super) async fn serve<S: Service>(worker: Rc<Worker<S>>, shared: Shared, newcomer: Newcomer, leads: Leads) {
    worker.counters.add(Count::Accepted);
    let _counted = Counted(worker.counters.clone());
    let Newcomer { stream, peer, site, seat: _seat } = newcomer;
    let arrival = Arrival { counters: &worker.counters, shared: &shared, site };
    let until = clock::now() + arrival.site.limits().handshake_timeout;
    let gate = Gate { arrival, service: &worker.service, peer: canonical(peer), until };
    let Some(Came { link, way, until, _source }) = Box::pin(gate.receive(stream, &leads)).await else { return };
    match way {
        Way::H2(io) => Box::pin(h2::serve(&worker, &link, io, until)).await,
        Way::H1(io, first) => h1::serve(&*worker, &link, io, first, until).await,
        Way::Raw(io, far) => raw::serve(&worker, &link, io, far).await,
    }
}

/// What is needed until it is known what is spoken and where it goes.
struct Gate<'a, S> {
    arrival: Arrival<'a>,
    service: &'a S,
    peer: SocketAddr,
    until: Instant,
}

impl<S: Service> Gate<'_, S> {
    async fn receive(mut self, stream: TcpStream, leads: &Leads) -> Option<Came> {
        let site = self.arrival.site.clone();
        let bound = self.arrival.shared.admission.address(&site.listener.name, site.listener.address);
        let source = self.arrival.admit_source(self.peer.ip())?;
        let (destination, local) = match leads {
            Leads::To(service, port) => (Destination::Service(service.clone(), *port), canonical(stream.local_addr().ok()?)),
            Leads::ByHost => (Destination::Host, canonical(stream.local_addr().ok()?)),
            Leads::Captured { .. } => {
                let original = original_destination(&stream).ok()?;
                if original.port() == bound.port() {
                    // It was not captured: passing it on would lead here again.
                    self.arrival.counters.add(Count::RefusedListener);
                    return None;
                }
                (Destination::Captured(original), original)
            }
        };
        let (mut destination, mut reading) = self.service.reading(&destination).await;
        let mut stream = Rewind::new(stream.into(), Bytes::new());
        if destination == Destination::Host
            && let Some(within) = self.enter(&mut stream).await?
        {
            (destination, reading) = within;
        }
        let way = match reading {
            Reading::Http => {
                // Of a proxy the first byte was waited for already.
                if destination != Destination::Host {
                    self.begins(&mut stream).await?;
                }
                self.http(stream).await?
            }
            Reading::Bytes => Way::Raw(Io::Plain(stream), None),
            Reading::First => self.by_first(stream, &destination, local.port()).await?,
        };
        let until = clock::now() + site.limits().header_timeout;
        Some(Came { link: self.link(destination, local), way, until, _source: source })
    }

    /// Whether a client of the proxy asks for a tunnel to a service that may speak HTTP, as those do that speak HTTP/2 in clear: then it begins at once, and what
    /// comes within is read as if the service had been called without the proxy. `None` when nothing comes.
    async fn enter(&mut self, stream: &mut Rewind<Socket>) -> Option<Option<(Destination, Reading)>> {
        let limits = self.arrival.site.limits().clone();
        self.begins(stream).await?;
        let until = clock::now() + limits.header_timeout;
        let mut input = BytesMut::with_capacity(ROOM);
        let heads = HeadLimits::edge(&limits);
        let asked = self.arrival.in_time(until, pin!(proxied::connect(stream, &mut input, heads))).await?.ok()?;
        let within = match &asked {
            Some(asked) => self.service.within(&asked.authority).await,
            None => None,
        };
        let (Some(asked), Some(within)) = (asked, within.filter(|(_, reading)| *reading != Reading::Bytes)) else {
            stream.unread(&input);
            return Some(None);
        };
        self.arrival.in_time(until, pin!(stream.write_all(BEGUN))).await?.ok()?;
        stream.unread(&input[asked.length..]);
        self.until = clock::now() + limits.handshake_timeout;
        Some(Some(within))
    }

    /// Waits for the first byte: clients that keep connections ready open some before they have anything to ask, and wait on them as between two requests. `None`
    /// when none comes in time.
    async fn begins(&self, stream: &mut Rewind<Socket>) -> Option<()> {
        let patience = clock::now() + self.arrival.site.limits().idle_timeout;
        let mut first = [0; FIRST];
        let read = self.arrival.in_time(patience, pin!(stream.read(&mut first))).await?.ok().filter(|read| *read > 0)?;
        stream.unread(&first[..read]);
        Some(())
    }

    async fn http(&self, mut stream: Rewind<Socket>) -> Option<Way> {
        let until = clock::now() + self.arrival.site.limits().header_timeout;
        let (first, is_h2) = self.arrival.in_time(until, pin!(detect(&mut stream))).await?.ok()?;
        Some(if is_h2 { Way::H2(Io::Plain(stream)) } else { Way::H1(Io::Plain(stream), first) })
    }

    /// By what comes first, from whichever side; the other side is called as long as nothing has come.
    async fn by_first(&mut self, mut stream: Rewind<Socket>, destination: &Destination, port: u16) -> Option<Way> {
        let mut input = BytesMut::with_capacity(ROOM);
        if let Some(Ok(0) | Err(_)) = stream.read_buf(&mut input).now_or_never() {
            return None;
        }
        let mut found = First::new(input);
        let mut far = None;
        match Spoken::of(&found.client) {
            Some(spoken) => found.spoken = spoken,
            None => far = self.both(&mut stream, destination, &mut found).await?,
        }
        self.service.detected(port, found.spoken.as_str());
        let is_http = match (found.spoken, destination) {
            // The authority of HTTP/2 cannot be seen without answering: only requests to addresses of services are looked into.
            (Spoken::Http1, Destination::Captured(_)) => self.leads(&mut stream, &mut found.client).await,
            (Spoken::Http1, _) | (Spoken::Http2, Destination::Service(..) | Destination::Host) => true,
            _ => false,
        };
        stream.unread(&found.client);
        if is_http { self.http(stream).await } else { Some(Way::Raw(Io::Plain(stream), far)) }
    }

    /// Waits for the first byte of either side, and gives the connection to the other side where there is one that serves for bytes.
    async fn both(
        &mut self,
        stream: &mut Rewind<Socket>,
        destination: &Destination,
        found: &mut First,
    ) -> Option<Option<Box<dyn Tunnel>>> {
        let limits = self.arrival.site.limits().clone();
        if let Some(mut io) = self.service.dial(destination).await {
            // A client may connect long before it says something; what it says then is looked into all the same.
            let patience = clock::now() + limits.idle_timeout;
            self.arrival.in_time(patience, pin!(first(stream, &mut io, found))).await?;
            self.until = clock::now() + limits.handshake_timeout;
            let said = std::mem::take(&mut found.server).freeze();
            let is_lost = found.spoken == Spoken::ServerFirst && said.is_empty();
            if !(is_lost && matches!(destination, Destination::Service(..))) {
                if found.spoken == Spoken::ServerFirst && Greeting::of(&said).version().is_some() {
                    found.spoken = Spoken::Http2;
                }
                return Some(Some(Box::new(Rewind::new(io, said))));
            }
            // The sidecar before the application may have heard just now that it speaks HTTP, and lets no bytes through from now on.
            if let Some(io) = self.service.dial(destination).await {
                return Some(Some(io));
            }
            self.until = clock::now() + limits.idle_timeout;
        }
        // Whoever speaks HTTP is told that nobody is there.
        while Spoken::of(&found.client).is_none() {
            self.read(stream, &mut found.client).await?;
        }
        found.spoken = Spoken::of(&found.client)?;
        Some(None)
    }

    /// Whether the host of the first request is that of a service.
    async fn leads(&self, stream: &mut Rewind<Socket>, input: &mut BytesMut) -> bool {
        loop {
            match host(input) {
                Host::Named(authority) => return self.service.leads(&authority).await,
                Host::Nobody => return false,
                Host::More => {}
            }
            if self.read(stream, input).await.is_none() {
                return false;
            }
        }
    }

    /// Reads more; `None` when nothing comes in time.
    async fn read(&self, stream: &mut Rewind<Socket>, input: &mut BytesMut) -> Option<()> {
        input.reserve(ROOM);
        match self.arrival.in_time(self.until, pin!(stream.read_buf(input))).await? {
            Ok(read) if read > 0 => Some(()),
            _ => None,
        }
    }

    fn link(&self, destination: Destination, local: SocketAddr) -> Link {
        let site = &self.arrival.site;
        let is_proxy = destination == Destination::Host;
        let info = ConnectionInfo {
            id: self.arrival.shared.admission.next_id(),
            listener: site.listener.name.clone(),
            peer: self.peer,
            peer_text: AddressText::of(self.peer),
            transport_peer: self.peer,
            local,
            tls: None,
            door: Door::Outbound(destination),
            inner: false,
        };
        let mut own = Site::new(site.listener.clone(), Entry::Gateway, site.drain.clone());
        own.head_limits.connect = is_proxy;
        Link { site: Rc::new(own), info: Rc::new(info), identity: None }
    }
}

/// What the beginning of a request of HTTP/1 says of its host.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    Named(String),
    /// It names none.
    Nobody,
    /// More must come.
    More,
}

/// Looks for `Host` in a beginning. What is ambiguous is for the codec to refuse; here it is only found out who is to read it.
fn host(input: &[u8]) -> Host {
    let mut lines = input.split_inclusive(|byte| *byte == b'\n').skip(1);
    loop {
        match lines.next() {
            Some(line) if line.ends_with(b"\n") => {
                let line = line.trim_ascii();
                if line.is_empty() {
                    return Host::Nobody;
                }
                let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
                let (name, value) = line.split_at(colon);
                if name.eq_ignore_ascii_case(b"host") {
                    let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
                    return std::str::from_utf8(value).map_or(Host::Nobody, |value| Host::Named(value.to_owned()));
                }
            }
            _ if input.len() >= MAX_HEAD => return Host::Nobody,
            _ => return Host::More,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_host_is_found_as_soon_as_it_has_come() {
        let named = |text: &str| Host::Named(text.to_owned());
        for (input, expected) in [
            ("GET / HTTP/1.1\r\nHost: api.shop\r\n", named("api.shop")),
            ("GET / HTTP/1.1\r\nA: b\r\nhOST:api:80 \r\n\r\n", named("api:80")),
            ("GET / HTTP/1.1\r\nHost: api", Host::More),
            ("GET / HTTP/1.1\r\n", Host::More),
            ("GET / HTTP/1.1\r\nA: b\r\n\r\nHost: body\r\n", Host::Nobody),
            ("", Host::More),
        ] {
            assert_eq!(host(input.as_bytes()), expected, "{input:?}");
        }
        assert_eq!(host(&vec![b'a'; MAX_HEAD]), Host::Nobody);
    }

    proptest! {
        #[test]
        fn more_bytes_change_no_answer(input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b':'), Just(b'h'), any::<u8>()], 0..200)) {
            let mut said = Host::More;
            for end in 0..=input.len() {
                let now = host(&input[..end]);
                prop_assert!(said == Host::More || said == now);
                said = now;
            }
        }
    }
}
