//! How streams and the connection end: resets, what comes behind them, and the two steps of a goodbye (RFC 9113 sections 5.4, 6.4 and 6.8).

use std::collections::VecDeque;

use heddle_node::clock::Instant;

use super::Connection;
use super::stream::{By, End, Lost};
use super::table::StreamKey;
use crate::http::h2::frame::{ErrorCode, MAX_STREAM, Role, Scope, Violation, write_goaway, write_ping, write_reset};

/// Streams that we have reset and whose frames may still be on their way.
const BURIED_MAX: usize = 128;
/// What the ping says whose answer shows that the peer has read our goodbye.
pub(super) const FAREWELL: [u8; 8] = *b"farewell";

/// How far our goodbye is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// Said without naming a stream: requests that are on their way are still served.
    Announced,
    /// Said with the last stream that is served.
    Said(u32),
}

/// Streams that we have reset, with what the peer may still send on them by their windows: a peer that keeps to the protocol sends no more.
#[derive(Debug, Default)]
pub(super) struct Buried(VecDeque<(u32, i64)>);

impl Buried {
    fn push(&mut self, stream: u32, window: i64) {
        if self.0.len() == BURIED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((stream, window));
    }

    pub(super) fn contains(&self, stream: u32) -> bool {
        self.0.iter().any(|(known, _)| *known == stream)
    }

    /// Takes content of a stream that we have reset off its window; `None` for others.
    pub(super) fn take(&mut self, stream: u32, bytes: u32) -> Option<bool> {
        let (_, window) = self.0.iter_mut().find(|(known, _)| *known == stream)?;
        *window -= i64::from(bytes);
        Some(*window >= 0)
    }
}

impl Connection {
    /// Ends a stream early, when it has not ended yet.
    pub fn reset(&mut self, key: StreamKey, code: ErrorCode) {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_closed()) else { return };
        self.buried.push(key.id(), stream.incoming.window);
        write_reset(self.out.gathered(), key.id(), code);
        self.lose(key, Lost { code, by: By::Us });
    }

    /// Lets go of a stream. One that has not ended is reset, without blame when we have said all that there was to say.
    pub fn release(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.held = false;
        stream.incoming.waker = None;
        stream.outgoing.waker = None;
        let answered = self.role == Role::Server && matches!(stream.outgoing.end, End::Done);
        self.discard(key);
        self.reset(key, if answered { ErrorCode::NO_ERROR } else { ErrorCode::CANCEL });
        self.streams.settle(key);
    }

    /// Marks a stream as ended early and throws away what waits in it.
    pub(super) fn lose(&mut self, key: StreamKey, lost: Lost) {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.lost.is_none()) else { return };
        stream.outgoing.queue.clear();
        stream.outgoing.queued = 0;
        if std::mem::take(&mut stream.outgoing.in_line) {
            self.line.retain(|waiting| *waiting != key);
        }
        stream.wake();
        if self.role == Role::Client && stream.incoming.ended {
            // Whoever has answered may lose interest in the request; the answer stays (RFC 9113 section 8.1).
            stream.outgoing.end = End::Done;
        } else {
            stream.lost = Some(lost);
            self.discard(key);
        }
        self.streams.settle(key);
    }

    /// Takes in what the peer did wrong with a stream; what ends the connection is given back.
    pub(super) fn contain(&mut self, violation: Violation, now: Instant) -> Result<(), Violation> {
        let Scope::Stream(stream) = violation.scope else { return Err(violation) };
        if self.is_untouched(stream) {
            return Err(Violation { scope: Scope::Connection, ..violation });
        }
        self.glitches.note(now);
        match self.streams.find(stream) {
            Some(key) => self.reset(key, violation.code),
            None if self.buried.contains(stream) => {}
            None => self.reject(stream, violation.code),
        }
        Ok(())
    }

    /// Resets a stream that has no place.
    pub(super) fn reject(&mut self, stream: u32, code: ErrorCode) {
        self.buried.push(stream, i64::from(self.config.stream_window));
        write_reset(self.out.gathered(), stream, code);
    }

    /// Whether nobody has opened this stream yet (RFC 9113 section 5.1, idle).
    pub(super) fn is_untouched(&self, stream: u32) -> bool {
        let ours = (stream % 2 == 1) == (self.role == Role::Client);
        if ours { stream >= self.next_own } else { stream > self.last_peer }
    }

    /// Says goodbye in two steps, so that requests on their way are still served: first without naming a stream, then, when the peer has
    /// shown that it knows, with the last one.
    pub fn leave(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Announced;
            write_goaway(self.out.gathered(), MAX_STREAM, ErrorCode::NO_ERROR, b"");
            write_ping(self.out.gathered(), false, FAREWELL);
        }
    }

    /// The peer knows that we leave.
    pub(super) fn left(&mut self) {
        if self.leaving == Leaving::Announced {
            self.leaving = Leaving::Said(self.last_peer);
            write_goaway(self.out.gathered(), self.last_peer, ErrorCode::NO_ERROR, b"");
        }
    }

    /// Whether we have begun to leave.
    pub fn is_leaving(&self) -> bool {
        self.leaving != Leaving::No
    }

    /// Whether either side has said goodbye, so that no further stream may be opened.
    pub fn is_going(&self) -> bool {
        self.is_leaving() || self.peer_last.is_some()
    }

    /// Whether goodbye has been said and all streams have ended.
    pub fn is_finished(&self) -> bool {
        (matches!(self.leaving, Leaving::Said(_)) || self.peer_last.is_some()) && self.streams.open_count() == 0
    }

    /// The last words of a connection that ends at once.
    pub fn shut(&mut self, code: ErrorCode, detail: &str) {
        write_goaway(self.out.gathered(), self.last_peer, code, detail.as_bytes());
        self.close();
    }

    /// The connection has ended: so have its streams.
    pub fn close(&mut self) {
        for key in self.streams.keys() {
            self.lose(key, Lost { code: ErrorCode::NO_ERROR, by: By::Connection });
        }
        self.line.clear();
    }

    /// The peer takes no streams beyond `last`: those of ours were not looked at.
    pub(super) fn peer_leaves(&mut self, last: u32) {
        self.peer_last = Some(self.peer_last.map_or(last, |before| before.min(last)));
        if self.role == Role::Client {
            for key in self.streams.keys().filter(|key| key.id() > last) {
                self.lose(key, Lost { code: ErrorCode::REFUSED_STREAM, by: By::Untouched });
            }
        }
    }
}
