//! HTTP/2 connections to one endpoint: shared while they have streams to spare, another one is opened when they have not.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use heddle_node::clock;
use heddle_xds::model::{KeepalivePool, Timeouts};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::drive::drive;
use super::trust::{Trust, Vouched};
use crate::exchange::Reason;
use crate::http::h1::HeadLimits;
use crate::http::h2::connection::{By, Config, Connection, Lost, StreamKey};
use crate::http::h2::frame::{DEFAULT_FRAME_SIZE, Violation};
use crate::http::h2::hpack::Encoder;
use crate::http::h2::stream_io::StreamIo;
use crate::http::h2::wire::Wire;
use crate::net::{Deadline, Io, MESH_ALPN};
use crate::upstream::connect::{TlsIdentity, after, connect};
use crate::upstream::host::Slot;
use crate::upstream::pools::wait_for_slot;
use crate::upstream::target::Picked;
use crate::upstream::{OutgoingRequest, Sent, UpstreamError};

/// Most requests at once on one connection, whatever the endpoint allows: one TCP connection is one congestion window.
const MAX_STREAMS: usize = 100;
/// Connections that turn out to be closing before a stream was opened, beyond which one stops looking for a better one.
pub(super) const MAX_CLOSING: u32 = 3;
const CONFIG: Config = Config {
    // Bounds what a response may have in flight towards a slow client.
    stream_window: 256 * 1024,
    connection_window: 1024 * 1024,
    max_frame_size: DEFAULT_FRAME_SIZE,
    // Pushed streams, which are switched off.
    max_streams: 0,
    heads: HeadLimits {
        max_bytes: 64 * 1024,
        max_field: 32 * 1024,
        max_fields: 256,
        max_target: 0,
        connect: false,
        any_authority: false,
    },
    // An endpoint may refuse many of our requests; what it can make us do beyond that is bounded by its own work.
    glitch_budget: 100_000,
};

/// HTTP/2 connections to one endpoint.
#[derive(Default)]
pub(in crate::upstream) struct Sessions {
    open: RefCell<Vec<Rc<Session>>>,
    connecting: Cell<bool>,
    connected: Notify,
    /// How often connecting has failed, and how the last time: those who waited for it fail with it rather than one after the other.
    failures: Cell<u64>,
    failure: RefCell<Option<UpstreamError>>,
}

/// One HTTP/2 connection.
pub(super) struct Session {
    wire: Rc<Wire>,
    identity: Option<TlsIdentity>,
    streams: Cell<usize>,
    served: Cell<u32>,
    born: Instant,
    closed: Cell<bool>,
    /// Told when the endpoint's settings have come, and when none will come any more.
    greeted: Notify,
    idle_since: Cell<Option<Instant>>,
    /// What the endpoint did wrong, when the connection ended for that.
    blamed: Cell<Option<Violation>>,
    /// Whether the connection ended because the endpoint did not take our certificate.
    unwelcome: Cell<bool>,
    /// What it rests on, in the mesh.
    vouched: Option<Vouched>,
    /// Deadlines of streams that have ended: their timers are used again.
    spare: RefCell<Vec<Deadline>>,
}

/// A place for one request on a session.
pub(super) struct Lease(Rc<Session>);

/// One stream of a session while it lives; dropping it resets what has not ended.
pub(super) struct Stream {
    lease: Lease,
    key: StreamKey,
    /// When the endpoint must have made progress.
    pub(super) deadline: Deadline,
}

impl Lease {
    fn begin(session: Rc<Session>) -> Lease {
        session.streams.set(session.streams.get() + 1);
        session.served.set(session.served.get().saturating_add(1));
        session.idle_since.set(None);
        Lease(session)
    }

    /// Opens a stream with a head that `encode` writes; `bodiless` is whether the request is HEAD. `None` when the connection takes no more requests.
    pub(super) fn open(self, end: bool, bodiless: bool, encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Option<Stream> {
        let Some(key) = self.0.wire.with(|machine| machine.open(end, bodiless, encode)) else {
            self.0.close();
            return None;
        };
        let deadline = self.0.spare.borrow_mut().pop().unwrap_or_default();
        Some(Stream { lease: self, key, deadline })
    }
}

impl Lease {
    /// Whether the endpoint lets one ask to leave HTTP on a stream (RFC 8441 section 3), which its settings say.
    ///
    /// # Errors
    /// They do not come in time, or not at all.
    pub(super) async fn takes_upgrades(&self, until: Instant) -> Result<bool, UpstreamError> {
        let Lease(session) = self;
        loop {
            let greeted = session.greeted.notified();
            if session.wire.with(|machine| machine.is_greeted()) {
                return Ok(session.wire.with(|machine| machine.peer().enable_connect_protocol));
            }
            if session.closed.get() {
                return Err(session.ended(Sent::Nothing));
            }
            let late = || {
                UpstreamError::new(
                    Reason::UpstreamTimeout,
                    Sent::Nothing,
                    "HTTP/2: the endpoint does not say its settings in time",
                )
            };
            timeout_at(until, greeted).await.map_err(|_| late())?;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        if self.0.streams.get() == 0 {
            self.0.idle_since.set(Some(clock::now()));
        }
    }
}

impl Stream {
    /// Lets `act` have the connection and the stream.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Connection, StreamKey) -> T) -> T {
        self.lease.0.wire.with(|machine| act(machine, self.key))
    }

    /// The stream as bytes, once its heads have been exchanged; `guard` goes with it. Dropping it before both directions have ended resets it with CANCEL.
    pub(super) fn into_io<G>(self, guard: G) -> StreamIo<(Stream, G)> {
        StreamIo::new(self.lease.0.wire.clone(), self.key, (self, guard))
    }

    /// What the early end of the stream means. One that was not looked at may be tried again (RFC 9113 section 8.7).
    pub(super) fn error(&self, lost: Lost, sent: Sent) -> UpstreamError {
        let error = |reason, sent, detail: String| UpstreamError::new(reason, sent, detail);
        match lost.by {
            By::Untouched => error(Reason::UpstreamReset, Sent::Nothing, "HTTP/2: the endpoint took no more requests".into()),
            By::Peer => error(Reason::UpstreamReset, sent, format!("HTTP/2: the endpoint reset the stream: {}", lost.code)),
            By::Us => error(Reason::UpstreamProtocol, sent, format!("HTTP/2: {} of the endpoint", lost.code)),
            By::Connection => self.lease.0.ended(sent),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let session = &self.lease.0;
        session.wire.with(|machine| machine.release(self.key));
        self.deadline.clear();
        session.spare.borrow_mut().push(std::mem::take(&mut self.deadline));
    }
}

/// Clears the mark of a connection under way, also when the one who opens it is cancelled.
struct Connecting<'a>(&'a Sessions);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.connected.notify_waiters();
    }
}

impl Sessions {
    /// Lets go of connections that are closed, spent, or idle for too long. Requests under way keep theirs until they end.
    /// In the mesh those are spent that are old, or whose peer is trusted no more.
    pub(in crate::upstream) fn sweep(&self, limits: &KeepalivePool, trust: Option<&Trust<'_>>, retired: bool, now: Instant) {
        let gone: Vec<Rc<Session>> = {
            let mut open = self.open.borrow_mut();
            let late =
                |s: &Session| s.idle_since.get().is_some_and(|at| now.saturating_duration_since(at) >= limits.idle_timeout);
            let over = |s: &Session| s.vouched.as_ref().zip(trust).is_some_and(|(vouched, trust)| vouched.is_over(trust, now));
            open.extract_if(.., |s| retired || s.closed.get() || s.is_spent(limits) || late(s) || over(s)).collect()
        };
        drop(gone);
    }

    fn free(&self, picked: &Picked, wanted: &Checkout<'_>) -> Result<Option<Lease>, UpstreamError> {
        let (tls, name) = picked.tls(wanted.host)?;
        let limits = &picked.spec().config.keepalive;
        let fits = |s: &&Rc<Session>| {
            let spare = !s.closed.get() && !s.is_spent(limits) && s.streams.get() < s.most();
            spare && TlsIdentity::fits(s.identity.as_ref(), tls, name)
        };
        let open = self.open.borrow();
        Ok(open.iter().find(fits).cloned().map(Lease::begin))
    }
}

impl Session {
    fn is_spent(&self, limits: &KeepalivePool) -> bool {
        if !limits.max_age.is_zero() && limits.is_old(clock::now().saturating_duration_since(self.born)) {
            return true;
        }
        // In the mesh it is age that counts: a handshake costs more than thousands of requests.
        self.vouched.is_none() && limits.requests > 0 && self.served.get() >= limits.requests
    }

    /// Most requests at once.
    fn most(&self) -> usize {
        let most = self.wire.with(|machine| machine.peer().max_concurrent_streams);
        most.map_or(MAX_STREAMS, |most| MAX_STREAMS.min(most as usize))
    }

    /// Takes no further requests.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.greeted.notify_waiters();
    }

    /// Notes that the endpoint's settings have come.
    pub(super) fn greet(&self) {
        self.greeted.notify_waiters();
    }

    /// Notes that the endpoint did not take our certificate: it has looked at nothing that we have sent.
    pub(super) fn turn_away(&self) {
        self.unwelcome.set(true);
    }

    /// What it means for a request that the connection has ended.
    fn ended(&self, sent: Sent) -> UpstreamError {
        if self.unwelcome.get() {
            let detail = "the endpoint did not take our certificate; see its log and the bundles on both sides";
            return UpstreamError::new(Reason::UpstreamTls, Sent::Nothing, detail);
        }
        let error = match self.blamed.get() {
            Some(violation) => UpstreamError::new(Reason::UpstreamProtocol, sent, format!("HTTP/2: {violation}")),
            None => UpstreamError::new(Reason::UpstreamReset, sent, "HTTP/2: the connection ended"),
        };
        UpstreamError { broke: true, ..error }
    }

    /// Notes what the endpoint did wrong.
    pub(super) fn blame(&self, violation: Violation) {
        self.blamed.set(Some(violation));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Nobody can use the connection any more: it says goodbye.
        self.wire.ring();
    }
}

/// One connection after the other has turned out to be closing.
pub(super) fn no_more() -> UpstreamError {
    UpstreamError::new(Reason::UpstreamReset, Sent::Nothing, "HTTP/2: connections take no more requests")
}

/// What a place on a connection is wanted for.
#[derive(Clone, Copy)]
pub(super) struct Checkout<'a> {
    /// The host of the request, for those whose certificate is for a name.
    pub(super) host: &'a str,
    pub(super) timeouts: &'a Timeouts,
}

impl<'a> Checkout<'a> {
    pub(super) fn of(request: &'a OutgoingRequest<'_>) -> Checkout<'a> {
        Checkout { host: request.host, timeouts: &request.timeouts }
    }
}

/// A place on a connection that has one to spare, or on a new one; with the time that connecting took and whether the connection is an old one.
pub(super) async fn checkout(
    picked: &Picked,
    wanted: &Checkout<'_>,
    start: Instant,
) -> Result<(Lease, Duration, bool), UpstreamError> {
    let sessions = &picked.host().sessions;
    let until = after(start, wanted.timeouts.connect);
    let mut waited = false;
    loop {
        if let Some(stream) = sessions.free(picked, wanted)? {
            if !waited {
                picked.host().shard.reused.inc();
            }
            return Ok((stream, Duration::ZERO, !waited));
        }
        if sessions.connecting.get() {
            let failures = sessions.failures.get();
            waited = true;
            let late = || UpstreamError::new(Reason::UpstreamTimeout, Sent::Nothing, "no connection in time");
            timeout_at(until, sessions.connected.notified()).await.map_err(|_| late())?;
            if sessions.failures.get() != failures
                && let Some(error) = sessions.failure.borrow().clone()
            {
                return Err(error);
            }
            continue;
        }
        let breakers = &picked.spec().config.breakers;
        if breakers.max_connections.is_none_or(|most| picked.host().books.connections.get() < most) {
            return open(picked, wanted).await;
        }
        // streams that end are not announced; a session that closes is
        wait_for_slot(picked.host(), breakers.max_pending, until).await?;
    }
}

async fn open(picked: &Picked, wanted: &Checkout<'_>) -> Result<(Lease, Duration, bool), UpstreamError> {
    let sessions = &picked.host().sessions;
    sessions.connecting.set(true);
    let connecting = Connecting(sessions);
    let began = clock::now();
    let opened = handshake(picked, wanted, began).await;
    let result = match opened {
        Ok(session) => {
            sessions.open.borrow_mut().push(session.clone());
            sessions.failure.take();
            Ok((Lease::begin(session), clock::now() - began, false))
        }
        Err(error) => {
            let known = sessions.failure.borrow().as_ref().is_some_and(|known| known.reason == error.reason);
            if error.reason == Reason::PeerIdentity && !known {
                tracing::warn!(upstream = %picked.cluster().name, why = %error.detail, "an endpoint in the mesh is not who it should be");
            }
            sessions.failures.set(sessions.failures.get() + 1);
            sessions.failure.replace(Some(error.clone()));
            Err(error)
        }
    };
    drop(connecting);
    result
}

async fn handshake(picked: &Picked, wanted: &Checkout<'_>, began: Instant) -> Result<Rc<Session>, UpstreamError> {
    let host = picked.host();
    let (tls, name) = picked.tls(wanted.host)?;
    // Counted before the handshake reads the bundles: a change meanwhile is looked at again.
    let trust = picked.spec().is_mesh().then(|| Trust::now(picked.cluster().identity()));
    if trust.is_some() && picked.cluster().identity().svid().is_none() {
        let detail = "this node has no identity yet: it waits for its control plane to sign one";
        return Err(UpstreamError::new(Reason::NoIdentity, Sent::Nothing, detail));
    }
    let slot = Slot::take(host);
    let identity = tls.map(|config| TlsIdentity { config: config.clone(), name: name.map(Rc::from) });
    let fallbacks = host.fallbacks.borrow().clone();
    let io = connect(host.core.address, &fallbacks, identity.as_ref(), wanted.timeouts.connect, began).await?;
    if let Io::ClientTls(stream) = &io
        && !matches!(stream.get_ref().1.alpn_protocol(), Some(b"h2" | MESH_ALPN))
    {
        let detail = "the endpoint does not speak HTTP/2 over TLS (ALPN h2); use scheme https for HTTP/1.1";
        return Err(UpstreamError::new(Reason::UpstreamTls, Sent::Nothing, detail));
    }
    let vouched = match (&io, &trust) {
        (Io::ClientTls(stream), Some(trust)) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            Some(Vouched::new(chain, trust, clock::unix_ms() ^ host.core.id.rotate_left(32), began))
        }
        _ => None,
    };
    let session = Rc::new(Session {
        wire: Rc::new(Wire::new(Connection::client(CONFIG))),
        identity,
        streams: Cell::new(0),
        served: Cell::new(0),
        born: clock::now(),
        closed: Cell::new(false),
        greeted: Notify::new(),
        idle_since: Cell::new(None),
        blamed: Cell::new(None),
        unwelcome: Cell::new(false),
        vouched,
        spare: RefCell::default(),
    });
    tokio::task::spawn_local(drive(session.wire.clone(), Rc::downgrade(&session), io, slot));
    Ok(session)
}
