//! One connection to the application beside which this node stands, until it is known what it speaks and who calls. Then its protocol serves it.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use heddle_node::clock::{self, Instant};
use heddle_node::identity::{Refused, Rejection, peer_of};
use heddle_node::sockets;
use heddle_xds::model::{MeshProtocol, PeerMode};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::super::admission::SourceSeat;
use super::super::connection::{Arrival, Counted, Newcomer, Shared, canonical, detect};
use super::super::counters::Count;
use super::super::site::{Drain, Link, Site, Worker};
use super::super::{h1, h2, tls};
use super::detect::{First, Spoken, first};
use super::entry::{Entry, Inbound};
use super::hello::Hello;
use super::{raw, warden};
use crate::exchange::{ConnectionInfo, Door, Service, TlsInfo, Tunnel};
use crate::http::digits::AddressText;
use crate::http::{Greeting, Version};
use crate::net::{Io, MESH_ALPN, Rewind, Socket, original_destination};

/// How long connecting to the application may take: it is on this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// Most bytes of one read while it is not known what is spoken.
const ROOM: usize = 4 * 1024;

/// A connection to the application that was made before it was known whether it is needed.
type Dialed = Option<Box<dyn Tunnel>>;

/// What is spoken, with the stream.
enum Way {
    H1(Io, BytesMut),
    H2(Io),
    Raw(Io, Dialed),
}

/// A connection whose protocol and caller are known.
struct Came {
    link: Link,
    way: Way,
    /// When the first head must have come.
    until: Instant,
    _source: Option<SourceSeat>,
}

/// Serves a connection to its end.
pub(in super::super) async fn serve<S: Service>(
    worker: Rc<Worker<S>>,
    shared: Shared,
    newcomer: Newcomer,
    inbound: Arc<Inbound>,
) {
    worker.counters.add(Count::Accepted);
    let _counted = Counted(worker.counters.clone());
    let Newcomer { stream, peer, site, seat: _seat } = newcomer;
    let arrival = Arrival { counters: &worker.counters, shared: &shared, site: site.clone() };
    let gate = Gate { arrival, inbound: &inbound, peer: canonical(peer), until: clock::now() + site.limits().handshake_timeout };
    // What a handshake needs is large, and needed for a moment only.
    let Some(Came { link, way, until, _source }) = Box::pin(gate.receive(stream)).await else { return };
    let serving = async {
        match way {
            Way::H2(io) => Box::pin(h2::serve(&worker, &link, io, until)).await,
            Way::H1(io, first) => h1::serve(&*worker, &link, io, first, until).await,
            Way::Raw(io, far) => raw::serve(&worker, &link, io, far).await,
        }
    };
    warden::watch(&inbound, &site.drain, &link, serving).await;
}

/// What is needed until it is known what is spoken and who calls.
struct Gate<'a> {
    arrival: Arrival<'a>,
    inbound: &'a Inbound,
    peer: SocketAddr,
    until: Instant,
}

/// Who calls, and what was made of the stream.
struct Known {
    way: Way,
    tls: Option<TlsInfo>,
    peer: Option<Arc<str>>,
}

impl Known {
    fn in_clear(way: Way) -> Known {
        Known { way, tls: None, peer: None }
    }
}

impl Gate<'_> {
    async fn receive(mut self, stream: TcpStream) -> Option<Came> {
        let local = original_destination(&stream).ok()?;
        let site = self.arrival.site.clone();
        let bound = self.arrival.shared.admission.address(&site.listener.name, site.listener.address);
        // Who was captured wanted to go to a port of the application; who calls us means the application.
        let (port, mode) = if local.port() == bound.port() {
            (self.inbound.first_port(), self.inbound.mode_at_door())
        } else {
            (local.port(), self.inbound.mode(local.port()))
        };
        let source = self.arrival.admit_source(self.peer.ip())?;
        let stream = Rewind::new(stream.into(), Bytes::new());
        let known = match mode {
            PeerMode::Strict => self.strict(stream, port).await?,
            mode => self.sort(stream, local, port, mode).await?,
        };
        if known.peer.is_none() {
            self.inbound.stats.plaintext(port, self.peer.ip(), clock::unix_ms());
        }
        let until = clock::now() + site.limits().header_timeout;
        let Known { way, tls, peer } = known;
        Some(Came { link: self.link(tls, peer, local, port), way, until, _source: source })
    }

    /// Members of the mesh only.
    async fn strict(&self, mut stream: Rewind<Socket>, port: u16) -> Option<Known> {
        let mut input = BytesMut::with_capacity(ROOM);
        self.read(&mut stream, &mut input).await?;
        stream.unread(&input);
        if Hello::of(&input) == Hello::Clear {
            self.arrival.counters.add(Count::TlsFailed);
            self.tell_of("plaintext", format!("a caller in clear at port {port}: {}", self.inbound.strict_by(port)));
            if self.refuse("plaintext") {
                let client = self.peer;
                tracing::warn!(%client, port, "a caller in clear is refused: strict mutual TLS; let it call through the mesh, or set permissive");
            }
            return None;
        }
        self.shake_hands(stream).await
    }

    /// Members of the mesh and callers in clear, told apart by what they say first. Where only callers in clear are meant (`disable`), members are those that have not
    /// heard of it yet: so nobody fails while a mode changes.
    async fn sort(&mut self, mut stream: Rewind<Socket>, local: SocketAddr, port: u16, mode: PeerMode) -> Option<Known> {
        let mut protocol = self.inbound.spoken_at(port);
        let mut input = BytesMut::with_capacity(ROOM);
        let mut dialed: Dialed = None;
        // Mostly it is there already: then nobody needs to find out whether the application speaks first.
        if let Some(Ok(0) | Err(_)) = stream.read_buf(&mut input).now_or_never() {
            return None;
        }
        let opaque = self.inbound.may_be_opaque(port);
        if opaque && input.is_empty() {
            let mut far = self.dial(local, port).await?;
            let mut found = First::new(input);
            // A caller may connect long before it says something; what it says then is looked into all the same.
            let limits = self.arrival.site.limits();
            let patience = clock::now() + limits.idle_timeout;
            self.arrival.in_time(patience, pin!(first(&mut stream, &mut far, &mut found))).await?;
            self.until = clock::now() + limits.handshake_timeout;
            input = found.client;
            if found.spoken == Spoken::Other && input.is_empty() {
                return Some(Known::in_clear(Way::Raw(Io::Plain(stream), Some(Box::new(far)))));
            }
            let greets = found.spoken == Spoken::ServerFirst;
            let greeting = Greeting::of(&found.server).version().filter(|_| greets && protocol == MeshProtocol::Auto);
            if let Some(version) = greeting {
                // It speaks HTTP: its requests are read, on a connection of their own.
                self.note(protocol, port, if version == Version::Http2 { Spoken::Http2 } else { Spoken::Http1 });
                self.inbound.greets(port, version);
                protocol = self.inbound.spoken_at(port);
            } else if greets {
                self.note(protocol, port, Spoken::ServerFirst);
                stream.unread(&input);
                return Some(Known::in_clear(Way::Raw(
                    Io::Plain(stream),
                    Some(Box::new(Rewind::new(far, found.server.freeze()))),
                )));
            } else {
                dialed = Some(Box::new(far));
            }
        }
        loop {
            match Hello::of(&input) {
                Hello::More => self.read(&mut stream, &mut input).await?,
                Hello::Clear => break,
                Hello::Foreign if opaque || mode == PeerMode::Disable => break,
                Hello::Mesh | Hello::Foreign => {
                    stream.unread(&input);
                    return self.shake_hands(stream).await;
                }
            }
        }
        self.clear(stream, input, port, protocol, dialed).await.map(Known::in_clear)
    }

    /// What a caller in clear speaks.
    async fn clear(
        &self,
        mut stream: Rewind<Socket>,
        mut input: BytesMut,
        port: u16,
        protocol: MeshProtocol,
        dialed: Dialed,
    ) -> Option<Way> {
        let spoken = match protocol {
            MeshProtocol::Tcp => Spoken::Other,
            MeshProtocol::Auto => {
                let spoken = loop {
                    match Spoken::of(&input) {
                        Some(spoken) => break spoken,
                        // A request line that never ends is none.
                        None if self.read(&mut stream, &mut input).await.is_none() => break Spoken::Other,
                        None => {}
                    }
                };
                self.note(protocol, port, spoken);
                spoken
            }
            _ => Spoken::Http1,
        };
        stream.unread(&input);
        Some(match spoken {
            Spoken::Http1 | Spoken::Http2 => {
                let (first, is_h2) = self.arrival.in_time(self.until, pin!(detect(&mut stream))).await?.ok()?;
                if is_h2 { Way::H2(Io::Plain(stream)) } else { Way::H1(Io::Plain(stream), first) }
            }
            _ => Way::Raw(Io::Plain(stream), dialed),
        })
    }

    fn note(&self, protocol: MeshProtocol, port: u16, spoken: Spoken) {
        if protocol == MeshProtocol::Auto {
            self.inbound.stats.detected(port, spoken.as_str());
        }
    }

    /// Keeps a refusal for the audit of the control plane.
    fn tell_of(&self, reason: &'static str, detail: String) {
        let (at_ms, peer) = (clock::unix_ms(), Some(self.peer.ip()));
        self.inbound.identity.refusals().note(Refused { at_ms, reason, peer, subject: String::new(), detail, count: 1 });
    }

    /// Counts a refusal; whether it is to be told.
    fn refuse(&self, why: &'static str) -> bool {
        self.inbound.stats.refused(why, clock::unix_ms())
    }

    /// Reads more; `None` when nothing comes in time.
    async fn read(&self, stream: &mut Rewind<Socket>, input: &mut BytesMut) -> Option<()> {
        input.reserve(ROOM);
        match self.arrival.in_time(self.until, pin!(stream.read_buf(input))).await? {
            Ok(read) if read > 0 => Some(()),
            _ => None,
        }
    }

    async fn dial(&self, local: SocketAddr, port: u16) -> Option<TcpStream> {
        let address = self.inbound.address_at(port, local);
        let connecting = sockets::connect(address);
        let connected = self.arrival.in_time(clock::now() + CONNECT, pin!(connecting)).await?;
        let failed = |error: &io::Error| {
            if self.refuse("application") {
                tracing::warn!(%address, %error, "the application cannot be reached; look whether service.address is right and it runs");
            }
        };
        let stream = connected.inspect_err(failed).ok()?;
        // Small writes must not wait; where that cannot be set the connection works all the same.
        let _ = stream.set_nodelay(true);
        Some(stream)
    }

    async fn shake_hands(&self, stream: Rewind<Socket>) -> Option<Known> {
        let accepting = TlsAcceptor::from(self.inbound.tls.clone()).accept(stream);
        let accepted = self.arrival.in_time(self.until, pin!(accepting)).await;
        let refused = |error: &dyn std::fmt::Display| {
            self.arrival.counters.add(Count::TlsFailed);
            if self.refuse("handshake") {
                let client = self.peer;
                tracing::warn!(%client, %error, "a caller is refused: it has not proven that it is a member of the mesh");
            }
        };
        let Some(accepted) = accepted else {
            refused(&"the handshake took too long");
            return None;
        };
        let judged = |error: &io::Error| {
            if let Some(rejection) = Rejection::of(error) {
                self.inbound.identity.note_refused(Some(self.peer.ip()), rejection);
            }
            refused(error);
        };
        let stream = accepted.inspect_err(judged).ok()?;
        let session = stream.get_ref().1;
        // The handshake has verified the chain, so that there is an id in it.
        let peer = session.peer_certificates().and_then(peer_of)?;
        self.arrival.counters.add(Count::TlsDone);
        let is_h2 = session.alpn_protocol().is_some_and(|name| name == MESH_ALPN || name == b"h2");
        let tls = tls::facts(session, session.server_name().map(Arc::from));
        let io = Io::ServerTls(Box::new(stream));
        let way = if is_h2 { Way::H2(io) } else { Way::H1(io, BytesMut::new()) };
        Some(Known { way, tls: Some(tls), peer: Some(peer.as_str().into()) })
    }

    /// The place of the connection, with a drain of its own: single connections end before their listener does.
    fn link(&self, tls: Option<TlsInfo>, peer: Option<Arc<str>>, local: SocketAddr, port: u16) -> Link {
        let site = &self.arrival.site;
        let mut own = Site::new(site.listener.clone(), Entry::Gateway, Rc::<Drain>::default());
        own.head_limits.connect = peer.is_some();
        let forwarded =
            self.inbound.settings.forward_client_cert.then(|| self.forwarded(tls.as_ref()?, peer.as_deref()?)).flatten();
        let info = ConnectionInfo {
            id: self.arrival.shared.admission.next_id(),
            listener: site.listener.name.clone(),
            peer: self.peer,
            peer_text: AddressText::of(self.peer),
            transport_peer: self.peer,
            local,
            tls,
            door: Door::Inbound { peer, port, forwarded },
            inner: false,
        };
        Link { site: Rc::new(own), info: Rc::new(info), identity: None }
    }

    /// What the application is told of the caller, as an Envoy tells it.
    fn forwarded(&self, tls: &TlsInfo, peer: &str) -> Option<Arc<str>> {
        let hash = &tls.client.as_ref()?.fingerprint;
        let own = self.inbound.identity.svid()?;
        Some(format!("By={};Hash={hash};URI={peer}", own.id()).into())
    }
}
