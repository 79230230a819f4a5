//! One accepted connection until its protocol is known: PROXY header, TLS, detection. Then its protocol serves it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use heddle_node::clock::{self, Instant};
use heddle_xds::model::{ListenerProtocol, ProxyProtocol};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::admission::{Admission, Seat, SourceSeat};
use super::counters::{Count, Counters};
use super::site::{LEAVING, Link, Site, Worker};
use super::tls::{self, Identity, SharedCertificates, Speaks};
use super::{h1, h2, tcp};
use crate::exchange::{ConnectionInfo, Door, Service, TlsInfo};
use crate::http::digits::AddressText;
use crate::net::proxy::{self, Header};
use crate::net::{Io, Rewind, Socket};

/// Start of an HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the workers of a node share about their listeners.
#[derive(Clone, Default)]
pub struct Shared {
    /// Bounds over all workers.
    pub admission: Arc<Admission>,
    /// Certificates.
    pub certificates: SharedCertificates,
}

/// A connection that was just accepted.
pub(super) struct Newcomer {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) site: Rc<Site>,
    pub(super) seat: Seat,
}

/// Counts a connection's end, however it comes.
pub(super) struct Counted(pub(super) Arc<Counters>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(Count::Closed);
    }
}

/// A connection whose protocol is known.
struct Ready {
    io: Io,
    first: BytesMut,
    link: Link,
    is_h2: bool,
    /// When the first head must have come.
    until: Instant,
    _source: Option<SourceSeat>,
}

/// Somebody whose address is known, before anything of what they speak is.
pub(super) struct Entered {
    pub(super) stream: Rewind<Socket>,
    /// Where they come from, and where they went to.
    pub(super) ends: (SocketAddr, SocketAddr),
    pub(super) source: Option<SourceSeat>,
}

/// Serves a connection to its end.
pub(super) async fn serve<S: Service>(worker: Rc<Worker<S>>, shared: Shared, newcomer: Newcomer) {
    worker.counters.add(Count::Accepted);
    let _counted = Counted(worker.counters.clone());
    let _seat = newcomer.seat;
    let arrival = Arrival { counters: &worker.counters, shared: &shared, site: newcomer.site };
    if arrival.site.listener.protocol == ListenerProtocol::Tcp {
        return Box::pin(tcp::serve(&worker, arrival, newcomer.stream, newcomer.peer)).await;
    }
    // What a handshake needs is large, and needed for a moment only.
    let Some(ready) = Box::pin(arrival.prepare(newcomer.stream, newcomer.peer)).await else { return };
    if ready.is_h2 {
        Box::pin(h2::serve(&worker, &ready.link, ready.io, ready.until)).await;
    } else {
        h1::serve(&*worker, &ready.link, ready.io, ready.first, ready.until).await;
    }
}

/// What is needed until the protocol is known.
pub(super) struct Arrival<'a> {
    pub(super) counters: &'a Counters,
    pub(super) shared: &'a Shared,
    pub(super) site: Rc<Site>,
}

impl Arrival<'_> {
    /// Reads the PROXY header where one is demanded, and finds out who comes.
    pub(super) async fn enter(&self, stream: TcpStream, transport_peer: SocketAddr, until: Instant) -> Option<Entered> {
        let bound = self.site.listener.address;
        // Where only one address is bound it need not be asked for.
        let local = if bound.ip().is_unspecified() || bound.port() == 0 { stream.local_addr().ok()? } else { bound };
        let mut stream = Rewind::new(stream.into(), bytes::Bytes::new());
        let mut ends = (transport_peer, local);
        if let ProxyProtocol::Required(trusted) = &self.site.listener.proxy_protocol {
            let is_trusted = trusted.is_empty() || trusted.iter().any(|net| net.contains(&transport_peer.ip().to_canonical()));
            let header =
                if is_trusted { self.in_time(until, pin!(read_proxy(&mut stream))).await.and_then(Result::ok) } else { None };
            let Some(header) = header else {
                self.counters.add(Count::ProxyRefused);
                return None;
            };
            ends = header.addresses.unwrap_or(ends);
        }
        let source = self.admit_source(ends.0.ip())?;
        Some(Entered { stream, ends, source })
    }

    async fn prepare(self, stream: TcpStream, transport_peer: SocketAddr) -> Option<Ready> {
        let limits = self.site.limits().clone();
        let until = clock::now() + limits.handshake_timeout;
        let Entered { mut stream, ends, source } = self.enter(stream, transport_peer, until).await?;
        let (io, first, is_h2, tls, until) = match self.site.listener.protocol {
            ListenerProtocol::Https => {
                let accepted = self.shake_hands(stream, until, Speaks::Http).await?;
                let until = clock::now() + limits.header_timeout;
                (Io::ServerTls(accepted.stream), BytesMut::new(), accepted.is_h2, Some((accepted.info, accepted.identity)), until)
            }
            ListenerProtocol::Http | ListenerProtocol::Tcp => {
                let until = clock::now() + limits.header_timeout;
                let (first, is_h2) = self.in_time(until, pin!(detect(&mut stream))).await?.ok()?;
                (Io::Plain(stream), first, is_h2, None, until)
            }
        };
        let link = self.link(tls, ends, transport_peer, Door::Gateway);
        Some(Ready { io, first, link, is_h2, until, _source: source })
    }

    pub(super) fn link(
        self,
        tls: Option<(TlsInfo, Identity)>,
        (peer, local): (SocketAddr, SocketAddr),
        transport_peer: SocketAddr,
        door: Door,
    ) -> Link {
        let (tls, identity) = tls.unzip();
        let info = ConnectionInfo {
            id: self.shared.admission.next_id(),
            listener: self.site.listener.name.clone(),
            peer: canonical(peer),
            peer_text: AddressText::of(canonical(peer)),
            transport_peer: canonical(transport_peer),
            local: canonical(local),
            tls,
            door,
            inner: false,
        };
        Link { site: self.site, info: Rc::new(info), identity }
    }

    /// What comes of `work`; `None` when it is not done `until` then, or soon after the listener began to close.
    pub(super) async fn in_time<T>(&self, until: Instant, work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let drain = &self.site.drain;
        let leaving = async {
            let begins = drain.begins();
            if !drain.has_begun() {
                begins.await;
            }
            tokio::time::sleep(LEAVING).await;
        };
        tokio::select! {
            biased;
            done = timeout_at(until, work) => done.ok(),
            () = leaving => None,
        }
    }

    /// `None` when the source has its limit.
    pub(super) fn admit_source(&self, source: IpAddr) -> Option<Option<SourceSeat>> {
        let max = self.site.limits().max_connections_per_ip;
        if max == 0 {
            return Some(None);
        }
        let seat = self.shared.admission.source_seat(source, max);
        if seat.is_none() {
            self.counters.add(Count::RefusedSource);
        }
        seat.map(Some)
    }

    pub(super) async fn shake_hands(&self, stream: Rewind<Socket>, until: Instant, speaks: Speaks) -> Option<tls::Accepted> {
        let (certificates, listener) = (&self.shared.certificates, &self.site.listener.name);
        let accepted = self.in_time(until, pin!(tls::accept(stream, certificates, listener, speaks))).await;
        let accepted = accepted.and_then(Result::ok);
        self.counters.add(if accepted.is_some() { Count::TlsDone } else { Count::TlsFailed });
        accepted
    }
}

/// An IPv4 address, not one mapped into IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn read_proxy(stream: &mut Rewind<Socket>) -> io::Result<Header> {
    let mut input = BytesMut::with_capacity(256);
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(header) = proxy::parse(&input).map_err(io::Error::other)? {
            input.advance(header.consumed);
            stream.unread(&input);
            return Ok(header);
        }
    }
}

/// Reads until it is clear whether HTTP/2 is spoken. What was read is given to HTTP/1 and put back for HTTP/2.
pub(super) async fn detect(stream: &mut Rewind<Socket>) -> io::Result<(BytesMut, bool)> {
    let mut input = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if input.starts_with(PREFACE) {
            stream.unread(&input);
            return Ok((BytesMut::new(), true));
        }
        if !PREFACE.starts_with(&input) {
            return Ok((input, false));
        }
    }
}
