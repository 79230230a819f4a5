//! What goes out: heads at once, content as the peer's windows allow, one frame of each stream in its turn. It reads nothing.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::Connection;
use super::stream::{End, Lost, Stream, wait, wake};
use super::table::StreamKey;
use crate::http::Fields;
use crate::http::h2::frame::{MAX_STREAM, begin_block, write_data_header};
use crate::http::h2::hpack::Encoder;
use crate::http::h2::message::write_trailers;

/// Content of a stream that waits for windows; its user brings no more then.
const ROOM: usize = 64 * 1024;
/// Longest DATA frame, whatever the peer takes: one stream must not hold the others up.
const MAX_DATA: usize = 64 * 1024;
/// Content that goes out at once when nobody else waits.
const DIRECT_MAX: usize = 4096;

impl Connection {
    /// Opens a stream with a head that `encode` writes; the answer is `bodiless` when the request is HEAD. `None` when the connection takes no
    /// more streams, now or ever.
    pub fn open(&mut self, end: bool, bodiless: bool, encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Option<StreamKey> {
        let most = self.peer.max_concurrent_streams.map_or(usize::MAX, |most| most as usize);
        if self.is_going() || self.next_own > MAX_STREAM || self.streams.open_count() >= most {
            return None;
        }
        let (ours, theirs) = (i64::from(self.config.stream_window), i64::from(self.peer.initial_window_size));
        let key = self.streams.open(self.next_own, ours, theirs);
        self.next_own += 2;
        if let Some(stream) = self.streams.get_mut(key) {
            stream.incoming.bodiless = bodiless;
        }
        // It is there: it was just opened.
        let _ = self.send_head(key, end, encode);
        Some(key)
    }

    /// Says of a stream that was opened just now that its request is a CONNECT.
    pub fn connects(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.incoming.connects = true;
        }
    }

    /// Sends a head, or an interim one, that `encode` writes.
    pub fn send_head(&mut self, key: StreamKey, end: bool, encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Result<(), Lost> {
        self.alive(key)?;
        let out = self.out.gathered();
        let block = begin_block(out, key.id());
        encode(self.codec.encoder(), out);
        block.finish(out, end, self.peer.max_frame_size);
        if end {
            self.ended(key);
        }
        Ok(())
    }

    /// Sends content; `end` when it is the last. Ask [`Connection::poll_room`] before.
    pub fn send_data(&mut self, key: StreamKey, bytes: Bytes, end: bool) -> Result<(), Lost> {
        self.alive(key)?;
        let most = self.peer.max_frame_size.min(DIRECT_MAX as u32) as usize;
        let Some(stream) = self.streams.get_mut(key) else { return Err(Lost::STALE) };
        let outgoing = &mut stream.outgoing;
        let (len, window) = (bytes.len(), outgoing.window.min(self.send_window).max(0) as usize);
        let first = outgoing.queue.is_empty() && !outgoing.in_line;
        if first && (len == 0 || (len <= most.min(window) && self.line.is_empty() && self.out.has_room())) {
            if len == 0 && !end {
                return Ok(());
            }
            outgoing.window -= len as i64;
            outgoing.framed += len as u64;
            self.send_window -= len as i64;
            write_data_header(self.out.gathered(), key.id(), len, end);
            self.out.gathered().extend_from_slice(&bytes);
            self.glitches.data_sent();
            if end {
                self.ended(key);
            }
            return Ok(());
        }
        if len > 0 {
            outgoing.queue.push_back(bytes);
            outgoing.queued += len;
        }
        if end {
            outgoing.end = End::Data;
        }
        self.stand_in_line(key);
        Ok(())
    }

    /// Sends trailers, which end the message.
    pub fn send_trailers(&mut self, key: StreamKey, trailers: Box<Fields>) -> Result<(), Lost> {
        self.alive(key)?;
        let Some(stream) = self.streams.get_mut(key) else { return Err(Lost::STALE) };
        if stream.outgoing.queue.is_empty() {
            return self.send_head(key, true, |encoder, out| write_trailers(encoder, out, &trailers));
        }
        stream.outgoing.end = End::Trailers(trailers);
        Ok(())
    }

    /// Ready when content can be brought.
    pub fn poll_room(&mut self, key: StreamKey, cx: &Context<'_>) -> Poll<Result<(), Lost>> {
        self.alive(key)?;
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(Lost::STALE)) };
        if stream.outgoing.queued < ROOM {
            return Poll::Ready(Ok(()));
        }
        wait(&mut stream.outgoing.waker, cx);
        Poll::Pending
    }

    /// Ready when everything up to the end has been framed.
    pub fn poll_flushed(&mut self, key: StreamKey, cx: &Context<'_>) -> Poll<Result<(), Lost>> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Err(Lost::STALE)) };
        if let Some(lost) = stream.lost {
            return Poll::Ready(Err(lost));
        }
        if matches!(stream.outgoing.end, End::Done) {
            return Poll::Ready(Ok(()));
        }
        wait(&mut stream.outgoing.waker, cx);
        Poll::Pending
    }

    /// Whether everything up to the end has been framed.
    pub fn is_flushed(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_some_and(|stream| matches!(stream.outgoing.end, End::Done))
    }

    /// Ready when the stream has ended early.
    pub fn poll_lost(&mut self, key: StreamKey, cx: &Context<'_>) -> Poll<Lost> {
        let Some(stream) = self.streams.get_mut(key) else { return Poll::Ready(Lost::STALE) };
        match stream.lost {
            Some(lost) => Poll::Ready(lost),
            None => {
                wait(&mut stream.outgoing.waker, cx);
                Poll::Pending
            }
        }
    }

    /// Whether the stream has ended early.
    pub fn is_lost(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_none_or(|stream| stream.lost.is_some())
    }

    /// Content of this stream that has been framed: grows as long as the peer takes some.
    pub fn framed(&self, key: StreamKey) -> u64 {
        self.streams.get(key).map_or(0, |stream| stream.outgoing.framed)
    }

    fn alive(&self, key: StreamKey) -> Result<(), Lost> {
        match self.streams.get(key) {
            Some(Stream { lost: None, outgoing, .. }) if !matches!(outgoing.end, End::Done) => Ok(()),
            Some(Stream { lost: Some(lost), .. }) => Err(*lost),
            _ => Err(Lost::STALE),
        }
    }

    /// Our direction of a stream has ended.
    fn ended(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.outgoing.end = End::Done;
            self.streams.settle(key);
        }
    }

    /// Lets a stream send in its turn, when it has something to send and its own window allows it.
    pub(super) fn stand_in_line(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let outgoing = &mut stream.outgoing;
        if !outgoing.in_line && !outgoing.queue.is_empty() && outgoing.window > 0 {
            outgoing.in_line = true;
            self.line.push_back(key);
        }
    }

    /// Whether so much can be sent that there is nothing to be gained by waiting for more.
    pub fn is_full(&self) -> bool {
        if self.line.is_empty() {
            return !self.out.has_room();
        }
        let ready = |key: &StreamKey| self.streams.get(*key).map_or(0, |stream| stream.outgoing.ready());
        let streams: usize = self.line.iter().map(ready).sum();
        !self.out.has_room_for(streams.min(self.send_window.max(0) as usize))
    }

    /// Frames what waits, as far as windows and the room for output go.
    pub fn fill(&mut self) {
        while self.out.has_room() && self.send_window > 0 {
            let Some(key) = self.line.pop_front() else { return };
            self.frame_of(key);
        }
    }

    /// Frames the next content of the stream whose turn it is.
    fn frame_of(&mut self, key: StreamKey) {
        let most = MAX_DATA.min(self.peer.max_frame_size as usize);
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.lost.is_none()) else { return };
        let outgoing = &mut stream.outgoing;
        outgoing.in_line = false;
        let window = outgoing.window.min(self.send_window).max(0) as usize;
        let Some(piece) = outgoing.queue.front_mut().filter(|_| window > 0) else { return };
        let len = piece.len().min(window).min(most);
        let bytes = piece.split_to(len);
        if piece.is_empty() {
            outgoing.queue.pop_front();
        }
        outgoing.window -= len as i64;
        outgoing.framed += len as u64;
        outgoing.queued -= len;
        self.send_window -= len as i64;
        let drained = outgoing.queue.is_empty();
        let last = drained && matches!(outgoing.end, End::Data);
        // Its user sees that the peer takes some, and may bring more.
        wake(&mut outgoing.waker);
        let trailers = match &mut outgoing.end {
            End::Trailers(trailers) if drained => Some(std::mem::take(trailers)),
            _ => None,
        };
        write_data_header(self.out.gathered(), key.id(), len, last);
        self.out.push(bytes);
        self.glitches.data_sent();
        if last {
            self.ended(key);
        } else if let Some(trailers) = trailers {
            // It is there: it was just looked at.
            let _ = self.send_head(key, true, |encoder, out| write_trailers(encoder, out, &trailers));
        } else {
            self.stand_in_line(key);
        }
    }
}
