//! All connections of one worker, and requests over them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use heddle_node::clock;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::connect::{TlsIdentity, after, connect};
use super::h1::{self, Conn, Rest};
use super::host::{Books, Host, Slot};
use super::target::{Local, Picked, Target};
use super::tunnel::Upgraded;
use super::{Edition, OutgoingRequest, Sent, UpstreamError, UpstreamResponse, h2};
use crate::exchange::{Interim, Reason};
use crate::health::Finding;
use crate::http::{Body, BodyError};
use crate::net::Rewind;

/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// All connections of one worker.
#[derive(Default)]
pub struct Pools {
    clusters: RefCell<HashMap<u64, Rc<Local>, foldhash::fast::RandomState>>,
}

/// A try whose response is still coming; ends it in the books.
pub(super) struct Work {
    picked: Picked,
}

/// A connection for a try.
pub(super) struct Ready<C> {
    pub(super) conn: C,
    pub(super) connect: Duration,
    pub(super) reused: bool,
}

impl Pools {
    /// No connections.
    pub fn new() -> Rc<Pools> {
        Rc::default()
    }

    /// The edition as this worker sees it now. Connections are the same for all editions of a cluster.
    pub fn target(&self, edition: &Edition) -> Target {
        let mut clusters = self.clusters.borrow_mut();
        let local = clusters.entry(edition.id).or_insert_with(|| Local::new(edition.cluster())).clone();
        Target::new(local, edition)
    }

    /// Closes idle connections in time, for ever; one task per worker runs it.
    pub async fn keep_tidy(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sweep(clock::now());
        }
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.clusters.borrow_mut().retain(|_, local| local.sweep(now));
    }

    /// Sends a request to the endpoint that was picked and waits for the response head.
    ///
    /// A `body` at hand stays there, so that the request may be tried again. One that is pulled is taken, but given back with an error when nothing was pulled
    /// of it; an error of [`Sent::Nothing`] always leaves `body` whole. Interim responses go to `interim`. Dropping the future ends
    /// the try, which began at `start`. A pooled connection that turns out to be dead before it brought a byte is replaced by a new one where that is safe.
    pub async fn send(
        &self,
        picked: Picked,
        request: &OutgoingRequest<'_>,
        body: &mut Body,
        interim: &Interim,
        start: Instant,
    ) -> Result<UpstreamResponse, UpstreamError> {
        let streamed = matches!(body, Body::Stream(_));
        let spec = picked.spec();
        // A sidecar takes either in clear, and there is no gRPC in HTTP/1.
        let sent = if spec.speaks_h2() || spec.config.in_clear && request.head.needs_http2() {
            h2::send(picked, request, body, interim, start).await
        } else {
            send_h1(picked, request, body, interim, start).await
        };
        sent.map_err(|(picked, mut error)| {
            if streamed && !matches!(body, Body::Stream(_)) {
                error.sent = error.sent.max(Sent::Partial);
            }
            picked.failed(&error);
            error
        })
    }
}

/// A failed try goes back into the books with its error.
pub(super) type Outcome = Result<UpstreamResponse, (Picked, UpstreamError)>;

async fn send_h1(picked: Picked, request: &OutgoingRequest<'_>, body: &mut Body, interim: &Interim, start: Instant) -> Outcome {
    let mut fresh = false;
    loop {
        let ready = match checkout(&picked, request, fresh, start).await {
            Ok(ready) => ready,
            Err(error) => return Err((picked, error)),
        };
        let streamed = matches!(body, Body::Stream(_));
        match h1::try_once(ready.conn, request, body, interim, ready.reused.then_some(start)).await {
            Ok(answered) => return Ok(picked.answered(answered, request, ready.connect, ready.reused, start)),
            Err(mut failed) => {
                failed.error.broke = failed.silent && !ready.reused;
                let whole = !streamed || matches!(body, Body::Stream(_));
                let again = ready.reused && failed.silent;
                // Where a policy says what is sent again, that a connection had rested is no reason to do it oftener.
                let idempotent = request.head.method.is_idempotent() && !picked.spec().config.is_of_envoy();
                if again && failed.error.may_retry(idempotent, whole) {
                    fresh = true;
                    continue;
                }
                return Err((picked, failed.error));
            }
        }
    }
}

/// A pooled connection, or a new one where there is none or `fresh` is asked for.
async fn checkout(
    picked: &Picked,
    request: &OutgoingRequest<'_>,
    fresh: bool,
    start: Instant,
) -> Result<Ready<Box<Conn>>, UpstreamError> {
    let host = picked.host();
    let (tls, name) = picked.tls(request.host)?;
    let limits = &picked.spec().config.keepalive;
    loop {
        if !fresh && let Some(conn) = host.take_idle(tls, name, limits, start) {
            host.shard.reused.inc();
            return Ok(Ready { conn, connect: Duration::ZERO, reused: true });
        }
        let breakers = &picked.spec().config.breakers;
        if breakers.max_connections.is_none_or(|most| host.books.connections.get() < most) {
            break;
        }
        if host.drop_idle() {
            continue;
        }
        wait_for_slot(host, breakers.max_pending, after(start, request.timeouts.connect)).await?;
    }
    let slot = Slot::take(host);
    let identity = tls.map(|config| TlsIdentity { config: config.clone(), name: name.map(Rc::from) });
    let fallbacks = host.fallbacks.borrow().clone();
    let began = clock::now();
    let io = connect(host.core.address, &fallbacks, identity.as_ref(), request.timeouts.connect, began).await?;
    Ok(Ready { conn: Conn::new(io, identity, slot, began), connect: clock::now() - began, reused: false })
}

/// Waits until a connection comes back or is closed.
pub(super) async fn wait_for_slot(host: &Rc<Host>, most: Option<u32>, until: Instant) -> Result<(), UpstreamError> {
    struct Waiting<'a>(&'a Books);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
        }
    }
    let overflow = |detail: &'static str| {
        host.shard.overflows.inc();
        UpstreamError::new(Reason::Overflow, Sent::Nothing, detail)
    };
    if most.is_some_and(|most| host.books.waiting.get() >= most) {
        return Err(overflow("breakers.max_connections and max_pending are reached"));
    }
    host.books.waiting.set(host.books.waiting.get() + 1);
    let _waiting = Waiting(&host.books);
    let waited = timeout_at(until, host.books.freed.notified()).await;
    waited.map_err(|_| overflow("breakers.max_connections is reached and no connection became free in time"))
}

impl Picked {
    /// TLS configuration and the server name that is expected by requests to `host`.
    pub(super) fn tls<'a>(&'a self, host: &'a str) -> Result<(Option<&'a Arc<ClientConfig>>, Option<&'a str>), UpstreamError> {
        match &self.spec().tls {
            None => Ok((None, None)),
            Some(Ok(config)) if self.spec().is_mesh() => Ok((Some(config), None)),
            Some(Ok(config)) => Ok((Some(config), Some(self.spec().config.tls.sni.as_deref().unwrap_or(host)))),
            Some(Err(wrong)) => Err(UpstreamError::new(Reason::UpstreamTls, Sent::Nothing, wrong.to_string())),
        }
    }

    fn answered(
        self,
        answered: h1::Answered,
        request: &OutgoingRequest<'_>,
        connect: Duration,
        reused: bool,
        start: Instant,
    ) -> UpstreamResponse {
        let h1::Answered { head, conn, rest } = answered;
        let now = clock::now();
        let header = self.head_came(head.status, start, now);
        let work = Work { picked: self };
        let (body, upgraded): (Body, Option<Box<dyn crate::exchange::Tunnel>>) = match rest {
            Rest::Done(body, reusable) => {
                work.complete(reusable.then_some((conn, now)));
                (body, None)
            }
            Rest::Stream(stream) => (Body::Stream(Box::new(h1::H1Body::new(stream, conn, work, request.timeouts))), None),
            Rest::Upgraded => {
                let (io, ahead, slot) = conn.into_parts();
                (Body::Empty, Some(Box::new(Upgraded { io: Rewind::new(io, ahead), _guard: (slot, work) })))
            }
        };
        UpstreamResponse { head, body, upgraded, connect, header, reused }
    }

    /// Notes a response head and says how long it took.
    pub(super) fn head_came(&self, status: u16, start: Instant, now: Instant) -> Duration {
        let took = now.saturating_duration_since(start);
        self.observe(took, now);
        self.report(Finding::Status(status), now);
        if status < 500 {
            self.host().shard.answered.inc()
        } else {
            self.host().shard.answered_5xx.inc()
        }
        took
    }

    pub(super) fn failed(&self, error: &UpstreamError) {
        let shard = &self.host().shard;
        if error.reason == Reason::PeerIdentity {
            shard.identity_refused.inc();
        }
        let finding = match error.reason {
            Reason::PeerIdentity | Reason::UpstreamConnect | Reason::UpstreamTls => {
                shard.connect_failures.inc();
                Finding::Broken
            }
            Reason::UpstreamReset | Reason::UpstreamProtocol | Reason::UpstreamHttp2 => {
                shard.resets.inc();
                Finding::Broken
            }
            Reason::UpstreamTimeout => {
                shard.timeouts.inc();
                Finding::TimedOut
            }
            // the client's or our own doing
            _ => return,
        };
        self.report(finding, clock::now());
    }
}

impl Work {
    pub(super) fn new(picked: Picked) -> Work {
        Work { picked }
    }

    /// The exchange is over; a clean connection serves the next one.
    pub(super) fn complete(self, conn: Option<(Box<Conn>, Instant)>) {
        if let Some((conn, now)) = conn {
            self.picked.host().put_idle(conn, &self.picked.spec().config.keepalive, now);
        }
    }

    /// The body broke off.
    pub(super) fn broke(self, error: &BodyError) {
        let (finding, count) = match error {
            BodyError::Request(_) => return,
            BodyError::Timeout => (Finding::TimedOut, &self.picked.host().shard.timeouts),
            _ => (Finding::Broken, &self.picked.host().shard.resets),
        };
        count.inc();
        self.picked.report(finding, clock::now());
    }
}
