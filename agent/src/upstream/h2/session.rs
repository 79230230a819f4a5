//! HTTP/2 connections to one endpoint: shared while they have streams to spare, another one is opened when they have not.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use heddle_node::clock;
use heddle_xds::model::KeepalivePool;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::exchange::Reason;
use crate::net::Io;
use crate::upstream::connect::{TlsIdentity, after, connect};
use crate::upstream::host::Slot;
use crate::upstream::pools::wait_for_slot;
use crate::upstream::target::Picked;
use crate::upstream::{OutgoingRequest, Sent, UpstreamError};

/// Most requests at once on one connection, whatever the endpoint allows: one TCP connection is one congestion window.
const MAX_STREAMS: usize = 100;
/// Receive window of a stream, and of a connection: bounds what a response may have in flight towards a slow client.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of request bodies that one connection may hold in our memory.
const SEND_BUFFER: usize = 256 * 1024;
/// Most bytes of a response head.
const MAX_HEADERS: u32 = 64 * 1024;
/// A ping goes out this often while requests are under way; without its answer the connection is given up.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);

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
    requests: SendRequest<Bytes>,
    identity: Option<TlsIdentity>,
    streams: Cell<usize>,
    served: Cell<u32>,
    closed: Cell<bool>,
    idle_since: Cell<Option<Instant>>,
}

/// One stream of a session while it lives.
pub(super) struct Stream(Rc<Session>);

impl Stream {
    fn begin(session: Rc<Session>) -> Stream {
        session.streams.set(session.streams.get() + 1);
        session.served.set(session.served.get().saturating_add(1));
        session.idle_since.set(None);
        Stream(session)
    }

    /// The sender of requests.
    pub(super) fn requests(&self) -> SendRequest<Bytes> {
        self.0.requests.clone()
    }

    /// Takes no further requests on this connection.
    pub(super) fn give_up(&self) {
        self.0.closed.set(true);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        if self.0.streams.get() == 0 {
            self.0.idle_since.set(Some(clock::now()));
        }
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
    pub(in crate::upstream) fn sweep(&self, limits: &KeepalivePool, retired: bool, now: Instant) {
        let gone: Vec<Rc<Session>> = {
            let mut open = self.open.borrow_mut();
            let late =
                |s: &Session| s.idle_since.get().is_some_and(|at| now.saturating_duration_since(at) >= limits.idle_timeout);
            open.extract_if(.., |s| retired || s.closed.get() || s.is_spent(limits) || late(s)).collect()
        };
        drop(gone);
    }

    fn free(&self, picked: &Picked, request: &OutgoingRequest<'_>) -> Result<Option<Stream>, UpstreamError> {
        let (tls, name) = picked.tls(request)?;
        let limits = &picked.spec().config.keepalive;
        let fits = |s: &&Rc<Session>| {
            let most = s.requests.current_max_send_streams().min(MAX_STREAMS);
            !s.closed.get() && !s.is_spent(limits) && s.streams.get() < most && TlsIdentity::fits(s.identity.as_ref(), tls, name)
        };
        let open = self.open.borrow();
        Ok(open.iter().find(fits).cloned().map(Stream::begin))
    }
}

impl Session {
    fn is_spent(&self, limits: &KeepalivePool) -> bool {
        limits.requests > 0 && self.served.get() >= limits.requests
    }
}

/// A stream on a connection that has one to spare, or on a new one; with the time that connecting took and whether the connection is an old one.
pub(super) async fn checkout(
    picked: &Picked,
    request: &OutgoingRequest<'_>,
    start: Instant,
) -> Result<(Stream, Duration, bool), UpstreamError> {
    let sessions = &picked.host().sessions;
    let until = after(start, request.timeouts.connect);
    let mut waited = false;
    loop {
        if let Some(stream) = sessions.free(picked, request)? {
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
            return open(picked, request).await;
        }
        // streams that end are not announced; a session that closes is
        wait_for_slot(picked.host(), breakers.max_pending, until).await?;
    }
}

async fn open(picked: &Picked, request: &OutgoingRequest<'_>) -> Result<(Stream, Duration, bool), UpstreamError> {
    let sessions = &picked.host().sessions;
    sessions.connecting.set(true);
    let connecting = Connecting(sessions);
    let began = clock::now();
    let opened = handshake(picked, request, began).await;
    let result = match opened {
        Ok(session) => {
            sessions.open.borrow_mut().push(session.clone());
            Ok((Stream::begin(session), clock::now() - began, false))
        }
        Err(error) => {
            sessions.failures.set(sessions.failures.get() + 1);
            sessions.failure.replace(Some(error.clone()));
            Err(error)
        }
    };
    drop(connecting);
    result
}

async fn handshake(picked: &Picked, request: &OutgoingRequest<'_>, began: Instant) -> Result<Rc<Session>, UpstreamError> {
    let host = picked.host();
    let slot = Slot::take(host);
    let (tls, name) = picked.tls(request)?;
    let identity = tls.map(|config| TlsIdentity { config: config.clone(), name: name.into() });
    let fallbacks = host.fallbacks.borrow().clone();
    let io = connect(host.core.address, &fallbacks, identity.as_ref(), request.timeouts.connect, began).await?;
    if let Io::ClientTls(stream) = &io
        && stream.get_ref().1.alpn_protocol() != Some(b"h2")
    {
        let detail = "the endpoint does not speak HTTP/2 over TLS (ALPN h2); use scheme https for HTTP/1.1";
        return Err(UpstreamError::new(Reason::UpstreamTls, Sent::Nothing, detail));
    }
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADERS);
    let (requests, connection) = builder
        .handshake(io)
        .await
        .map_err(|error| UpstreamError::new(Reason::UpstreamReset, Sent::Nothing, format!("HTTP/2 preface: {error}")))?;
    let session = Rc::new(Session {
        requests,
        identity,
        streams: Cell::new(0),
        served: Cell::new(0),
        closed: Cell::new(false),
        idle_since: Cell::new(None),
    });
    tokio::task::spawn_local(drive(connection, Rc::downgrade(&session), slot));
    Ok(session)
}

/// Moves the frames of one connection until it ends: by GOAWAY, by a fault, for want of a pong, or because nobody uses it any more.
async fn drive(mut connection: Connection<Io, Bytes>, session: Weak<Session>, slot: Slot) {
    let pings = connection.ping_pong();
    let dead = async {
        match pings {
            Some(pings) => keep_alive(pings, &session).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "HTTP/2 connection to an endpoint ended");
            }
        }
        () = dead => tracing::debug!("HTTP/2 connection to an endpoint answers no pings"),
    }
    if let Some(session) = session.upgrade() {
        session.closed.set(true);
    }
    drop(slot);
}

async fn keep_alive(mut pings: PingPong, session: &Weak<Session>) {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        let busy = session.upgrade().is_some_and(|session| session.streams.get() > 0);
        if busy && !matches!(timeout(PONG_WITHIN, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}
