//! Serving one HTTP/2 connection: its bytes, its streams, its drain and its bounds. It knows neither routes nor upstreams.
//!
//! One task serves a connection and all of its streams: it reads what has come, polls the streams that were called for, and sends what all of
//! them have to say in one write.

mod body;
mod places;
mod respond;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use heddle_node::clock::{self, Instant};
use tokio::sync::futures::OwnedNotified;
use tokio::time::timeout;

use self::places::{Desk, Places};
use self::stream::Arrived;
use self::wire::Wire;
use super::counters::Count;
use super::h1::close;
use super::site::{Link, Worker};
use crate::exchange::{InterimQueue, Reason, Service};
use crate::http::RequestHead;
use crate::http::h2::connection::{Config, Connection, Event};
use crate::http::h2::frame::{DEFAULT_FRAME_SIZE, ErrorCode, Violation};
use crate::http::h2::send::poll_send;
use crate::net::{Deadline, Io};

/// Bytes of a stream that a client may send before they are pulled.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes that wait for the client beyond which nothing more is read from it: it would only call forth more.
const BACKLOG_MAX: usize = 256 * 1024;
/// Rounds after which other connections get their turn.
const ROUNDS: usize = 16;
/// A connection without streams gives its buffers back after this.
const RESTING: Duration = Duration::from_secs(1);
/// Queues of interim responses that are kept.
const SPARE_QUEUES: usize = 16;
/// How long the last words of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the streams of a connection share.
struct Shared<S> {
    worker: Rc<Worker<S>>,
    link: Link,
    wire: Rc<Wire>,
    /// For interim responses of the next requests.
    queues: RefCell<Vec<Rc<InterimQueue>>>,
}

impl<S> Shared<S> {
    /// Keeps a queue for another request, unless somebody may still put something in for this one.
    fn keep(&self, queue: Rc<InterimQueue>) {
        let mut queues = self.queues.borrow_mut();
        if queues.len() < SPARE_QUEUES && Rc::strong_count(&queue) == 1 {
            queue.clear();
            queues.push(queue);
        }
    }
}

/// One connection being served.
struct Serving<S, F> {
    shared: Rc<Shared<S>>,
    wire: Rc<Wire>,
    io: Io,
    input: BytesMut,
    places: Places<Arrived, F>,
    /// When the client's preface and settings must have come.
    until: Instant,
    patience: Deadline,
    idle_since: Option<Instant>,
    /// From then on the connection is too old for further requests.
    aged_at: Option<Instant>,
    sending: Deadline,
    drained: Pin<Box<OwnedNotified>>,
    served: u32,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All was said, or the client has gone.
    Done,
    Broken(Violation),
    TimedOut,
    /// The client never said what HTTP/2 begins with.
    Unheard,
}

/// Serves a connection to its end; its preface and settings must have come `until` then.
pub(super) async fn serve<S: Service>(worker: &Rc<Worker<S>>, link: &Link, io: Io, until: Instant) {
    let limits = link.site.limits();
    let config = Config {
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        max_frame_size: DEFAULT_FRAME_SIZE,
        max_streams: limits.max_streams,
        heads: link.site.head_limits,
        glitch_budget: limits.glitch_budget,
    };
    let wire = Rc::new(Wire::new(Connection::server(config)));
    let shared = Rc::new(Shared { worker: worker.clone(), link: link.clone(), wire: wire.clone(), queues: RefCell::default() });
    let open = {
        let shared = shared.clone();
        move |desk| stream::serve_all(shared.clone(), desk)
    };
    let mut serving = Serving {
        shared,
        wire,
        io,
        input: BytesMut::new(),
        places: Places::new(config.max_places()),
        until,
        patience: Deadline::none(),
        idle_since: None,
        aged_at: link.site.aged_at(),
        sending: Deadline::none(),
        drained: Box::pin(link.site.drain.begins()),
        served: 0,
    };
    let end = std::future::poll_fn(|cx| serving.poll(cx, &open)).await;
    serving.finish(end).await;
}

impl<S: Service, F: Future<Output = ()>> Serving<S, F> {
    fn poll(&mut self, cx: &mut Context<'_>, open: &impl Fn(Rc<Desk<Arrived>>) -> F) -> Poll<End> {
        if !self.wire.with(|machine| machine.is_leaving()) && self.must_leave(cx) {
            self.wire.with(Connection::leave);
        }
        for _ in 0..ROUNDS {
            self.wire.work(cx.waker());
            self.places.work(cx);
            let ended = self.round(cx, open);
            self.wire.rest();
            if self.places.rest() | ended.is_some() {
                return ended.map_or_else(|| self.poll_patience(cx), Poll::Ready);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn must_leave(&mut self, cx: &mut Context<'_>) -> bool {
        let limits = self.shared.link.site.limits();
        let spent = limits.max_requests_per_connection > 0 && self.served >= limits.max_requests_per_connection;
        spent || self.is_aged() || self.shared.link.site.drain.has_begun() || self.drained.as_mut().poll(cx).is_ready()
    }

    fn is_aged(&self) -> bool {
        self.aged_at.is_some_and(|at| clock::now() >= at)
    }

    /// Reads, lets the streams work, and sends.
    fn round(&mut self, cx: &mut Context<'_>, open: &impl Fn(Rc<Desk<Arrived>>) -> F) -> Option<End> {
        let ended = self.read(cx, open);
        if ended.is_some() {
            return ended;
        }
        self.work(cx);
        match self.write(cx) {
            Poll::Ready(Err(end)) => Some(end),
            Poll::Ready(Ok(())) if self.places.is_empty() && self.wire.with(|machine| machine.is_finished()) => Some(End::Done),
            _ => None,
        }
    }

    /// Lets the streams work. Long content is sent as soon as one of them has it, while it is in the processor's cache.
    fn work(&mut self, cx: &mut Context<'_>) {
        let (wire, io, sending) = (&self.wire, &mut self.io, &mut self.sending);
        let mut taken = true;
        self.places.poll_rung(|| {
            if taken && wire.with(|machine| machine.is_full()) {
                // Whatever stops it stops the write behind this, too.
                taken = wire.with(|machine| poll_send(machine, io, cx, || sending.clear())).is_ready();
            }
        });
    }

    /// Reads all that has come.
    fn read(&mut self, cx: &mut Context<'_>, open: &impl Fn(Rc<Desk<Arrived>>) -> F) -> Option<End> {
        let spare = self.shared.worker.spare.clone();
        while self.wire.with(|machine| machine.output().len()) < BACKLOG_MAX {
            spare.make_room(&mut self.input);
            match self.io.poll_fill(cx, &mut self.input) {
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(_) => return Some(End::Done),
                Poll::Pending => break,
            }
            let now = clock::now();
            loop {
                match self.wire.with(|machine| machine.receive(&mut self.input, now)) {
                    Ok(None) => break,
                    Ok(Some(event)) => self.take(event, now, open),
                    Err(violation) => return Some(End::Broken(violation)),
                }
            }
        }
        // What waits for the client's next bytes needs no buffer.
        spare.take_back(&mut self.input);
        None
    }

    fn take(&mut self, event: Event, now: Instant, open: &impl Fn(Rc<Desk<Arrived>>) -> F) {
        let shared = &self.shared;
        let (request, fault) = match event {
            Event::Request(request) => (request, None),
            Event::Refused(request, fault) => (request, Some(fault)),
            Event::Malformed => {
                shared.worker.counters.add(Count::RequestsRefused);
                shared.worker.service.refused(&shared.link.info, &RequestHead::default(), Reason::BadRequest);
                return;
            }
            Event::Pong | Event::GoAway(_) => return,
        };
        self.served = self.served.saturating_add(1);
        shared.worker.counters.add(Count::Http2Requests);
        self.places.put(request.key.slot(), Arrived { request, fault, at: now }, open);
    }

    /// Sends all that there is to say, as far as client and socket take it.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let io = &mut self.io;
        let polled = self.wire.with(|machine| poll_send(machine, io, cx, || self.sending.clear()));
        match polled {
            Poll::Ready(Ok(())) => {
                self.sending.clear();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(End::Done)),
            Poll::Pending => {
                let timeout = self.shared.link.site.limits().send_timeout;
                self.sending.set_once(|| clock::now() + timeout);
                self.sending.poll_passed(cx).map(|()| Err(End::TimedOut))
            }
        }
    }

    /// A field block must be completed soon, and a connection without streams is not kept for ever.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let shared = self.shared.clone();
        let limits = shared.link.site.limits();
        let (greeted, block_since) = self.wire.with(|machine| (machine.is_greeted(), machine.block_since()));
        if !greeted {
            self.patience.set(self.until);
            return self.patience.poll_passed(cx).map(|()| End::Unheard);
        }
        if let Some(since) = block_since {
            self.patience.set(since + limits.header_timeout);
            return self.patience.poll_passed(cx).map(|()| End::TimedOut);
        }
        if !self.places.is_empty() {
            self.idle_since = None;
            let Some(at) = self.aged_at.filter(|_| !self.wire.with(|machine| machine.is_leaving())) else {
                self.patience.clear();
                return Poll::Pending;
            };
            // Streams may last for long: who opens them should hear at once that this is no place for more.
            self.patience.set(at);
            if self.patience.poll_passed(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        if self.idle_since.is_none() {
            self.patience.clear();
        }
        let since = *self.idle_since.get_or_insert_with(clock::now);
        self.patience.set_once(|| since + RESTING.min(limits.idle_timeout));
        if self.patience.poll_passed(cx).is_pending() {
            return Poll::Pending;
        }
        self.slim();
        if clock::now() < since + limits.idle_timeout {
            let idle_until = since + limits.idle_timeout;
            let aged_at = self.aged_at.filter(|_| !self.is_aged());
            self.patience.set(aged_at.map_or(idle_until, |at| at.min(idle_until)));
        } else if self.wire.with(|machine| machine.is_leaving()) {
            return Poll::Ready(End::TimedOut);
        } else {
            self.idle_since = None;
            self.wire.with(Connection::leave);
        }
        // The new deadline needs its timer, and the goodbye goes out with the next look.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives back what an idle connection does not need.
    fn slim(&mut self) {
        self.wire.with(Connection::slim);
        self.places.slim();
        self.shared.queues.take();
    }

    async fn finish(mut self, end: End) {
        let counters = &self.shared.worker.counters;
        let (code, detail) = match end {
            End::Done => (ErrorCode::NO_ERROR, ""),
            End::Broken(violation) => {
                let calm = violation.code == ErrorCode::ENHANCE_YOUR_CALM;
                counters.add(if calm { Count::GlitchKills } else { Count::Http2Errors });
                (violation.code, violation.detail)
            }
            End::TimedOut => {
                counters.add(Count::TimedOut);
                (ErrorCode::ENHANCE_YOUR_CALM, "")
            }
            End::Unheard => {
                counters.add(Count::Http2Errors);
                return;
            }
        };
        // Streams end with their connection, and upstream work with them; those that are answering tell how far they came.
        self.wire.with(|machine| if code == ErrorCode::NO_ERROR { machine.close() } else { machine.shut(code, detail) });
        self.places.poll_rung(|| ());
        self.places.clear();
        let last_words = std::future::poll_fn(|cx| {
            let io = &mut self.io;
            self.wire.with(|machine| poll_send(machine, io, cx, || self.sending.clear()))
        });
        // Late clients are cut.
        if matches!(timeout(FAREWELL, last_words).await, Ok(Ok(()))) {
            close(&mut self.io, matches!(end, End::Broken(_)), &self.shared.worker.spare).await;
        }
    }
}
