//! An HTTP/1 connection with what it keeps between requests.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use heddle_node::clock;
use heddle_xds::model::{KeepalivePool, Timeouts};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use crate::http::h1::HeadLimits;
use crate::net::{Deadline, Io};
use crate::upstream::connect::TlsIdentity;
use crate::upstream::host::Slot;

/// Bounds on response heads and trailers: what nginx's default buffers (8 x 8 KiB) would take.
pub(super) const HEAD_LIMITS: HeadLimits = HeadLimits {
    max_bytes: 64 * 1024,
    max_field: 32 * 1024,
    max_fields: 256,
    max_target: 0,
    connect: false,
    any_authority: false,
};
/// Most bytes of chunk extensions in one response.
pub(super) const MAX_CHUNK_EXTENSIONS: u32 = 16 * 1024;
/// Room made for one read: a usual answer comes whole, and a connection at rest holds no more.
pub(super) const READ_ROOM: usize = 16 * 1024;

/// Longest step; keeps the sum with a point in time in range.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// So much before a server closes a connection at rest it is used no more: what a request needs to get there, and what the server's clock began earlier than ours.
const MARGIN: Duration = Duration::from_secs(1);

/// Room made for one read of a long body: fewer system calls, and still what bounds the memory of a response to a slow client.
pub(super) const BODY_ROOM: usize = 64 * 1024;

/// An HTTP/1 connection.
pub(in crate::upstream) struct Conn {
    pub(super) io: Io,
    /// Bytes read and not yet used; empty while it rests.
    pub(super) input: BytesMut,
    /// Heads and chunk framing on their way out; kept for its room.
    pub(super) out: Vec<u8>,
    pub(super) deadline: Deadline,
    pub(in crate::upstream) identity: Option<TlsIdentity>,
    /// When it was opened.
    born: Instant,
    /// Requests served.
    pub(in crate::upstream) served: u32,
    idle_since: Option<Instant>,
    /// How long the server lets it rest, less what a request needs to get there; `FOR_EVER` where it does not say.
    kept: Duration,
    slot: Slot,
}

impl Conn {
    pub(in crate::upstream) fn new(io: Io, identity: Option<TlsIdentity>, slot: Slot, born: Instant) -> Box<Conn> {
        Box::new(Conn {
            io,
            input: BytesMut::new(),
            out: Vec::new(),
            deadline: Deadline::default(),
            identity,
            born,
            served: 0,
            idle_since: None,
            kept: FOR_EVER,
            slot,
        })
    }

    /// Whether it must not be used: closed by the peer, or with bytes that belong to no request.
    pub(in crate::upstream) fn is_stale(&mut self) -> bool {
        if !self.input.is_empty() {
            return true;
        }
        // costs no system call while nothing has come
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut cx, &mut ReadBuf::new(&mut [0])).is_ready()
    }

    /// Takes down how many seconds the server lets the connection rest, when it has said so: a request that comes as it closes is lost, and perhaps must not be sent again.
    pub(super) fn is_kept_for(&mut self, seconds: Option<u32>) {
        if let Some(seconds) = seconds {
            let said = Duration::from_secs(seconds.into()).min(FOR_EVER);
            self.kept = said - MARGIN.min(said / 2);
        }
    }

    /// Whether the server is about to close it, as it has said.
    pub(in crate::upstream) fn is_overdue(&self, now: Instant) -> bool {
        self.rested(now) >= self.kept
    }

    /// Whether it gets no further requests: it has served enough, or for long enough.
    pub(in crate::upstream) fn is_spent(&self, limits: &KeepalivePool, now: Instant) -> bool {
        limits.requests > 0 && self.served >= limits.requests || limits.is_old(now.saturating_duration_since(self.born))
    }

    /// Begins to rest.
    pub(in crate::upstream) fn rest(&mut self, now: Instant) {
        self.idle_since = Some(now);
        self.deadline.clear();
        self.out.clear();
        // one huge head must not be paid for as long as the connection lives
        self.out.shrink_to(READ_ROOM);
        if self.input.capacity() > 2 * READ_ROOM {
            self.input = BytesMut::new();
        }
    }

    /// The socket, what was read too far, and the place in the count of connections.
    pub(in crate::upstream) fn into_parts(self) -> (Io, bytes::Bytes, Slot) {
        (self.io, self.input.freeze(), self.slot)
    }

    /// How long it has rested.
    pub(in crate::upstream) fn rested(&self, now: Instant) -> Duration {
        self.idle_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Reads once, as much as there is `room` for. 0 is the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<std::io::Result<usize>> {
        if self.input.capacity() - self.input.len() < room / 4 {
            self.input.reserve(room);
        }
        self.io.poll_fill(cx, &mut self.input)
    }

    /// Whether an exchange made no progress in time. `sending` is true while the endpoint does not take what we write; while `waiting` for
    /// the client nothing can be late. `now` is given where the caller knows it.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>, step: Step, timeouts: &Timeouts, now: Option<Instant>) -> bool {
        if step == Step::Client {
            self.deadline.clear();
            return false;
        }
        let limit = if step == Step::Send { timeouts.send } else { timeouts.read };
        is_late_since(&mut self.deadline, limit, cx, now)
    }
}

/// What an exchange waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The endpoint must take bytes.
    Send,
    /// The client must bring more of its body.
    Client,
    /// The endpoint must answer.
    Read,
}

/// Whether nothing has moved for `limit` (zero is for ever); whoever makes progress clears the deadline.
pub(in crate::upstream) fn is_late(deadline: &mut Deadline, limit: Duration, cx: &mut Context<'_>) -> bool {
    is_late_since(deadline, limit, cx, None)
}

/// The same where the caller may know what time it is.
fn is_late_since(deadline: &mut Deadline, limit: Duration, cx: &mut Context<'_>, now: Option<Instant>) -> bool {
    if limit.is_zero() {
        return false;
    }
    deadline.set_once(|| now.unwrap_or_else(clock::now) + limit.min(FOR_EVER));
    deadline.poll_passed(cx).is_ready()
}
