//! One stream: what has come and was not pulled, what waits to go out, and both of its windows. It knows no other stream and no frames.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;

use crate::http::h2::frame::ErrorCode;
use crate::http::{Fields, ResponseHead};

/// Content up to this is copied and joined, so that a small piece does not keep a read buffer and many small pieces are few.
pub(super) const JOIN_MAX: usize = 4096;
/// Joined content from which a new piece is begun.
const JOINED_MAX: usize = 16 * 1024;

/// Why a stream ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// What the one who ended it said.
    pub code: ErrorCode,
    /// Who it was.
    pub by: By,
}

impl Lost {
    /// The stream has ended and its place is free, or our direction of it has ended: there is nothing more to do with it.
    pub(super) const STALE: Lost = Lost { code: ErrorCode::STREAM_CLOSED, by: By::Us };
}

/// Who ended a stream, or its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The peer reset it.
    Peer,
    /// We did, for what the peer did, or because its user wanted it.
    Us,
    /// The connection ended.
    Connection,
    /// The peer has not looked at it and will not (RFC 9113 section 8.7): it may be tried again elsewhere.
    Untouched,
}

/// Something of a message that has come.
#[derive(Debug)]
pub(super) enum Item {
    Head(Box<ResponseHead>),
    Data(Bytes),
    Trailers(Box<Fields>),
}

/// The direction towards us.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// Bytes that the peer may still send.
    pub(super) window: i64,
    /// Bytes that were pulled and not yet given back.
    pub(super) owed: u32,
    /// Content that was announced and has not come.
    pub(super) expected: Option<u64>,
    pub(super) queue: VecDeque<Item>,
    /// Content in the queue.
    pub(super) queued: usize,
    /// Whether the final head has come (of a response; a request begins with it).
    pub(super) headed: bool,
    /// Whether a response brings no content, whatever its head says.
    pub(super) bodiless: bool,
    /// Whether the request is a CONNECT.
    pub(super) connects: bool,
    /// Interim heads so far.
    pub(super) interims: u32,
    /// Whether the peer has sent all.
    pub(super) ended: bool,
    /// Whether nobody wants it.
    pub(super) unwanted: bool,
    pub(super) waker: Option<Waker>,
}

/// How the direction towards the peer ends.
#[derive(Debug, Default)]
pub(super) enum End {
    /// It goes on.
    #[default]
    Open,
    /// With what is queued.
    Data,
    /// With trailers behind what is queued.
    Trailers(Box<Fields>),
    /// It has ended: everything was framed.
    Done,
}

/// The direction towards the peer.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Bytes that the peer takes; less than 0 when its settings took some back (RFC 9113 section 6.9.2).
    pub(super) window: i64,
    pub(super) queue: VecDeque<Bytes>,
    pub(super) queued: usize,
    pub(super) end: End,
    /// Whether it stands in the line of those that can send.
    pub(super) in_line: bool,
    /// Content framed so far.
    pub(super) framed: u64,
    pub(super) waker: Option<Waker>,
}

/// A stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Its number; 0 is a free place.
    pub(super) id: u32,
    /// Whether its user still has it.
    pub(super) held: bool,
    /// Whether it is among the open ones of the table.
    pub(super) counted: bool,
    pub(super) lost: Option<Lost>,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
}

impl Stream {
    /// Whether it has ended on the wire.
    pub(super) fn is_closed(&self) -> bool {
        self.lost.is_some() || (self.incoming.ended && matches!(self.outgoing.end, End::Done))
    }

    /// Makes it a free place. Queues keep their room for the next stream.
    pub(super) fn clear(&mut self) {
        let Stream { id, held, counted, lost, incoming, outgoing } = self;
        (*id, *held, *counted, *lost) = (0, false, false, None);
        incoming.clear();
        outgoing.clear();
    }

    /// Wakes whoever waits for something of it.
    pub(super) fn wake(&mut self) {
        wake(&mut self.incoming.waker);
        wake(&mut self.outgoing.waker);
    }
}

impl Outgoing {
    /// Bytes that can be sent by its own window.
    pub(super) fn ready(&self) -> usize {
        self.queued.min(self.window.max(0) as usize)
    }

    fn clear(&mut self) {
        let Outgoing { window, queue, queued, end, in_line, framed, waker } = self;
        (*window, *queued, *end, *in_line, *framed, *waker) = (0, 0, End::Open, false, 0, None);
        queue.clear();
    }
}

impl Incoming {
    fn clear(&mut self) {
        let Incoming { window, owed, expected, queue, queued, headed, bodiless, connects, interims, ended, unwanted, waker } =
            self;
        (*window, *owed, *expected, *queued, *interims, *waker) = (0, 0, None, 0, 0, None);
        (*headed, *bodiless, *connects, *ended, *unwanted) = (false, false, false, false, false);
        queue.clear();
    }

    /// Takes content in as it lies.
    pub(super) fn push(&mut self, content: Bytes) {
        self.queued += content.len();
        self.queue.push_back(Item::Data(content));
    }

    /// Takes a little content in.
    pub(super) fn push_copy(&mut self, content: &[u8]) {
        self.queued += content.len();
        // A piece that was joined before is ours alone and can grow.
        let small = matches!(self.queue.back(), Some(Item::Data(last)) if last.len() + content.len() <= JOINED_MAX);
        if small && let Some(Item::Data(last)) = self.queue.pop_back() {
            match last.try_into_mut() {
                Ok(mut joined) => {
                    joined.extend_from_slice(content);
                    self.queue.push_back(Item::Data(joined.freeze()));
                    return;
                }
                Err(last) => self.queue.push_back(Item::Data(last)),
            }
        }
        self.queue.push_back(Item::Data(Bytes::copy_from_slice(content)));
    }
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Remembers whom to wake.
pub(super) fn wait(waker: &mut Option<Waker>, cx: &std::task::Context<'_>) {
    if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_pieces_become_few() {
        let mut incoming = Incoming::default();
        let buffer = Bytes::from(vec![b'x'; 100_000]);
        for at in 0..50_000 {
            incoming.push_copy(&buffer[at..=at]);
        }
        incoming.push(buffer.slice(..5000));
        incoming.push_copy(&buffer[..1]);
        assert_eq!((incoming.queue.len(), incoming.queued), (6, 55_001));
    }
}
