//! What users of streams take: heads, content and trailers in their order. Taking content opens the peer's windows, so that what nobody takes
//! stays with the peer.

use std::task::{Context, Poll};

use super::Connection;
use super::stream::{Item, Lost, wait};
use super::table::StreamKey;
use bytes::Bytes;

use crate::http::h2::frame::write_window_update;
use crate::http::{Frame, ResponseHead};

impl Connection {
    /// The next head of a response; interim ones come first.
    pub fn poll_head(&mut self, key: StreamKey, cx: &Context<'_>) -> Poll<Result<ResponseHead, Lost>> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(Lost::STALE)) };
        if let Some(Item::Head(_)) = stream.incoming.queue.front()
            && let Some(Item::Head(head)) = stream.incoming.queue.pop_front()
        {
            return Poll::Ready(Ok(*head));
        }
        if let Some(lost) = stream.lost {
            return Poll::Ready(Err(lost));
        }
        wait(&mut stream.incoming.waker, cx);
        Poll::Pending
    }

    /// The next piece of the message behind its head; `None` behind the last one.
    pub fn poll_frame(&mut self, key: StreamKey, cx: &Context<'_>) -> Poll<Option<Result<Frame, Lost>>> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Some(Err(Lost::STALE))) };
        match stream.incoming.queue.pop_front() {
            Some(Item::Data(bytes)) => {
                stream.incoming.queued -= bytes.len();
                self.give_back(key, bytes.len() as u32);
                Poll::Ready(Some(Ok(Frame::Data(bytes))))
            }
            Some(Item::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::Trailers(trailers)))),
            // Heads are taken before content.
            Some(Item::Head(_)) => Poll::Ready(Some(Err(Lost::STALE))),
            None => match stream.lost {
                Some(lost) => Poll::Ready(Some(Err(lost))),
                // Some was thrown away: an end would make what is left of it look whole.
                None if stream.incoming.unwanted => Poll::Ready(Some(Err(Lost::STALE))),
                None if stream.incoming.ended => Poll::Ready(None),
                None => {
                    wait(&mut stream.incoming.waker, cx);
                    Poll::Pending
                }
            },
        }
    }

    /// Content that is still to be pulled, when that is known: it was announced, or all has come. Not 0 before the end: trailers may follow. Where they have
    /// come nothing is known, as what has a length has no room for them in HTTP/1.
    pub fn remaining(&self, key: StreamKey) -> Option<u64> {
        let incoming = &self.streams.get(key).filter(|stream| !stream.incoming.unwanted)?.incoming;
        if incoming.ended && incoming.queue.is_empty() {
            return Some(0);
        }
        if incoming.ended && matches!(incoming.queue.back(), Some(Item::Trailers(_))) {
            return None;
        }
        let to_come = if incoming.ended { 0 } else { incoming.expected? };
        Some(incoming.queued as u64 + to_come).filter(|bytes| *bytes > 0)
    }

    /// The whole content, when it has come in one piece: nothing of it need be pulled then.
    pub fn take_whole(&mut self, key: StreamKey) -> Option<Bytes> {
        let incoming = &mut self.streams.get_mut(key)?.incoming;
        if !incoming.ended || incoming.queue.len() != 1 || !matches!(incoming.queue.front(), Some(Item::Data(_))) {
            return None;
        }
        let Some(Item::Data(bytes)) = incoming.queue.pop_front() else { return None };
        incoming.queued = 0;
        self.give_back_to_all(bytes.len() as u32);
        Some(bytes)
    }

    /// Throws away what has come and will come: nobody wants it.
    pub fn discard(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.incoming.unwanted = true;
        stream.incoming.queue.clear();
        let dropped = std::mem::take(&mut stream.incoming.queued);
        self.give_back_to_all(dropped as u32);
    }

    /// Ready when the peer has said all, or its stream has ended early. What it says until then is thrown away, and no more than its window allows.
    pub fn poll_heard(&mut self, key: StreamKey, cx: &Context<'_>) -> Poll<()> {
        self.discard(key);
        match self.streams.get_mut(key).filter(|stream| !stream.incoming.ended && stream.lost.is_none()) {
            Some(stream) => {
                wait(&mut stream.incoming.waker, cx);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// Opens the windows again by what was pulled from a stream.
    pub(super) fn give_back(&mut self, key: StreamKey, bytes: u32) {
        if let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.incoming.ended && stream.lost.is_none()) {
            let incoming = &mut stream.incoming;
            incoming.owed += bytes;
            if incoming.owed >= self.config.stream_window / 2 {
                let owed = std::mem::take(&mut incoming.owed);
                incoming.window += i64::from(owed);
                write_window_update(self.out.gathered(), key.id(), owed);
            }
        }
        self.give_back_to_all(bytes);
    }

    /// Opens the window of the connection again.
    pub(super) fn give_back_to_all(&mut self, bytes: u32) {
        self.owed += bytes;
        if self.owed >= self.config.connection_window / 2 {
            let owed = std::mem::take(&mut self.owed);
            self.window += i64::from(owed);
            write_window_update(self.out.gathered(), 0, owed);
        }
    }
}
