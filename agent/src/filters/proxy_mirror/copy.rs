//! The copy of one request: gathered while the request goes its way, sent when both its head and its body are there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::exchange::{ConnectionInfo, Directory, Dispatched, Inner};
use crate::http::{Body, BodyError, BodySource, Frame, RequestHead};
use crate::outbound::{Call, CallError, Remote};

/// Most bytes that are read of a mirror's answer before it is given up.
pub(super) const MAX_ANSWER: u64 = 256 << 10;

/// Where copies go.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Server(Remote),
    Upstream(Arc<Named>),
}

/// An upstream of this node.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: Arc<str>,
    pub(super) timeout: Duration,
    /// Copies under way at once.
    pub(super) most: usize,
}

/// A copy that lacks its body.
pub(super) enum Errand {
    /// To a server.
    Call(Call),
    /// To an upstream.
    Inner { directory: Rc<dyn Directory>, connection: Rc<ConnectionInfo>, head: Box<RequestHead> },
}

/// What has become of copies.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Answered, whatever the answer.
    pub(super) sent: AtomicU64,
    /// Not connected, not answered, or not in time.
    pub(super) failed: AtomicU64,
    /// Too many were under way.
    pub(super) dropped: AtomicU64,
    /// The body was longer than may be copied.
    pub(super) too_large: AtomicU64,
    /// Bytes of bodies that are still coming and are held for their copies.
    gathered: AtomicU64,
    /// Copies under way to an upstream; a server counts them itself.
    under_way: AtomicUsize,
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The copy of one request.
pub(super) struct Copy {
    target: Target,
    pub(super) counts: Arc<Counts>,
    limit: u64,
    /// Most bytes that all copies of this configuration gather: many bodies that come slowly must not fill the memory.
    room: u64,
    /// The head, once it is known that the request goes upstream.
    errand: RefCell<Option<Errand>>,
    pieces: RefCell<Vec<Bytes>>,
    size: Cell<u64>,
    state: Cell<State>,
}

/// What is known of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Coming,
    Whole,
    /// Nothing will be sent any more.
    Over,
}

/// A body that is looked at while it passes.
struct Tee {
    body: Body,
    copy: Rc<Copy>,
}

impl Copy {
    /// A copy of a request with this body, through which the body passes from now on.
    pub(super) fn of(body: &mut Body, wants_body: bool, limit: u64, room: u64, target: Target, counts: Arc<Counts>) -> Rc<Copy> {
        let held = match body {
            _ if !wants_body => Some(Bytes::new()),
            Body::Empty => Some(Bytes::new()),
            Body::Full(bytes) => Some(bytes.clone()),
            Body::Stream(_) => None,
        };
        let too_long = wants_body && body.remaining().is_some_and(|bytes| bytes > limit);
        let copy = Rc::new(Copy {
            target,
            counts,
            limit,
            room,
            errand: RefCell::default(),
            pieces: RefCell::default(),
            size: Cell::new(0),
            state: Cell::new(State::Coming),
        });
        match held {
            _ if too_long => copy.too_large(),
            Some(bytes) => {
                copy.pieces.borrow_mut().push(bytes);
                copy.state.set(State::Whole);
            }
            None => *body = Body::Stream(Box::new(Tee { body: std::mem::take(body), copy: copy.clone() })),
        }
        copy
    }

    /// Takes the head; the copy is sent when the body is there.
    pub(super) fn head(&self, errand: Errand) {
        self.errand.replace(Some(errand));
        self.send_if_whole();
    }

    /// Whether the head is there already: of a request that is tried again.
    pub(super) fn has_head(&self) -> bool {
        self.errand.borrow().is_some() || self.state.get() == State::Over
    }

    fn piece(&self, piece: &Bytes) {
        if self.state.get() != State::Coming {
            return;
        }
        let length = piece.len() as u64;
        let all = self.counts.gathered.fetch_add(length, Ordering::Relaxed) + length;
        self.size.set(self.size.get() + length);
        if self.size.get() > self.limit {
            self.too_large();
        } else if all > self.room {
            count(&self.counts.dropped);
            self.give_up();
        } else {
            // A slice of a larger buffer would hold all of that.
            self.pieces.borrow_mut().push(Bytes::copy_from_slice(piece));
        }
    }

    fn give_up(&self) {
        self.state.set(State::Over);
        self.pieces.take();
        self.counts.gathered.fetch_sub(self.size.take(), Ordering::Relaxed);
    }

    fn end(&self) {
        if self.state.get() == State::Coming {
            self.state.set(State::Whole);
            self.send_if_whole();
        }
    }

    fn too_large(&self) {
        count(&self.counts.too_large);
        self.give_up();
    }

    fn send_if_whole(&self) {
        if self.state.get() != State::Whole {
            return;
        }
        let Some(errand) = self.errand.take() else { return };
        self.state.set(State::Over);
        let (body, counts) = (joined(self.pieces.take()), self.counts.clone());
        match (&self.target, errand) {
            (Target::Server(remote), Errand::Call(call)) => to_server(remote.clone(), Call { body, ..call }, counts),
            (Target::Upstream(named), Errand::Inner { directory, connection, head }) => {
                let upstream = Some(named.name.clone());
                let answer = || directory.dispatch(connection, Inner { head, body, limit: MAX_ANSWER, upstream });
                to_upstream(named, answer, counts);
            }
            (Target::Server(_), Errand::Inner { .. }) | (Target::Upstream(_), Errand::Call(_)) => {}
        }
    }
}

fn to_server(remote: Remote, call: Call, counts: Arc<Counts>) {
    tokio::task::spawn_local(async move {
        match remote.send(call).await {
            // An answer that is too long for us to read was one all the same.
            Ok(_) | Err(CallError::TooLarge(_)) => count(&counts.sent),
            Err(CallError::Busy(_)) => count(&counts.dropped),
            Err(error) => {
                tracing::debug!(mirror = ?remote, %error, "a copy has failed");
                count(&counts.failed);
            }
        }
    });
}

fn to_upstream(named: &Arc<Named>, answer: impl FnOnce() -> Dispatched, counts: Arc<Counts>) {
    let Some(seat) = Seat::taken(&counts, named.most) else { return count(&counts.dropped) };
    let (answer, named) = (answer(), named.clone());
    tokio::task::spawn_local(async move {
        match tokio::time::timeout(named.timeout, answer).await {
            Ok(Ok(_)) => count(&seat.0.sent),
            Ok(Err(reason)) => {
                tracing::debug!(upstream = %named.name, reason = reason.flag(), "a copy has failed");
                count(&seat.0.failed);
            }
            Err(_) => count(&seat.0.failed),
        }
    });
}

/// A place among the copies that are under way.
struct Seat(Arc<Counts>);

impl Seat {
    /// A place, where fewer than `most` are taken.
    fn taken(counts: &Arc<Counts>, most: usize) -> Option<Seat> {
        let seat = Seat(counts.clone());
        // The place is given back when there was none, too.
        (counts.under_way.fetch_add(1, Ordering::Relaxed) < most).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    all.freeze()
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.counts.gathered.fetch_sub(self.size.take(), Ordering::Relaxed);
    }
}

impl BodySource for Tee {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let polled = self.body.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(Frame::Data(piece)))) => {
                self.copy.piece(piece);
                // Who sends a body of known length may not ask for its end.
                if self.body.remaining() == Some(0) {
                    self.copy.end();
                }
            }
            Poll::Ready(Some(Ok(Frame::Trailers(_))) | None) => self.copy.end(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn remaining(&self) -> Option<u64> {
        self.body.remaining()
    }
}
