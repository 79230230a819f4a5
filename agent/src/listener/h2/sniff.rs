//! Watching HTTP/2 frames go by, to count what only attackers send often. It changes no byte and knows no streams.
//!
//! The protocol library bounds memory; this bounds work: resets (CVE-2023-44487), resets provoked from us (CVE-2025-8671), control frames
//! (CVE-2019-9511 to 9518), CONTINUATION (CVE-2024-27316).

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use heddle_node::clock::{self, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{Deadline, Io};

/// Time over which suspicious frames are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Length of the client's preface.
const PREFACE: u64 = 24;
/// `WINDOW_UPDATE` frames that a client may send for each DATA frame it got, and before the first.
const UPDATES_PER_DATA: u64 = 10;
const FREE_UPDATES: u64 = 200;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a connection has been seen to do.
pub(super) struct Glitches {
    budget: u32,
    count: Cell<u32>,
    window: Cell<Option<Instant>>,
    exhausted: Cell<bool>,
    data_sent: Cell<u64>,
    updates: Cell<u64>,
    pings: Cell<u64>,
    block_since: Cell<Option<Instant>>,
}

impl Glitches {
    pub(super) fn new(budget: u32) -> Glitches {
        Glitches {
            budget,
            count: Cell::new(0),
            window: Cell::default(),
            exhausted: Cell::new(false),
            data_sent: Cell::new(0),
            updates: Cell::new(0),
            pings: Cell::new(0),
            block_since: Cell::default(),
        }
    }

    /// Whether the budget is used up.
    pub(super) fn exhausted(&self) -> bool {
        self.exhausted.get()
    }

    /// Since when a header block is not complete.
    pub(super) fn block_since(&self) -> Option<Instant> {
        self.block_since.get()
    }

    fn glitch(&self) {
        let now = clock::now();
        if self.window.get().is_none_or(|start| now - start > WINDOW) {
            self.window.set(Some(now));
            self.count.set(0);
        }
        self.count.set(self.count.get() + 1);
        if self.count.get() > self.budget {
            self.exhausted.set(true);
        }
    }

    fn received(&self, frame: Frame) {
        let suspicious = match frame.kind {
            DATA => frame.length == 0 && frame.flags & END_STREAM == 0,
            PRIORITY | RST_STREAM => true,
            SETTINGS => frame.flags & ACK == 0,
            // Bandwidth probes come with the data that they measure.
            PING if frame.flags & ACK == 0 => {
                self.pings.set(self.pings.get() + 1);
                self.pings.get() > self.data_sent.get()
            }
            WINDOW_UPDATE => {
                self.updates.set(self.updates.get() + 1);
                self.updates.get() > FREE_UPDATES + UPDATES_PER_DATA * self.data_sent.get()
            }
            CONTINUATION => true,
            kind => kind > CONTINUATION,
        };
        if matches!(frame.kind, HEADERS | CONTINUATION) {
            let open = frame.flags & END_HEADERS == 0;
            self.block_since.set(open.then(|| self.block_since.get().unwrap_or_else(clock::now)));
        }
        if suspicious {
            self.glitch();
        }
    }

    fn sent(&self, frame: Frame) {
        match frame.kind {
            DATA => self.data_sent.set(self.data_sent.get() + 1),
            // PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR: provoked by the client.
            RST_STREAM if matches!(frame.code, 1 | 3 | 5 | 6) => self.glitch(),
            _ => {}
        }
    }
}

/// A frame that has gone by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    /// Error code of `RST_STREAM`, 0 for others.
    code: u32,
}

/// Finds frames in a stream of bytes.
#[derive(Debug, Default)]
struct Scanner {
    header: [u8; 13],
    filled: usize,
    skip: u64,
}

impl Scanner {
    fn scan(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() as u64);
                self.skip -= skipped;
                bytes = &bytes[skipped as usize..];
                continue;
            }
            let needed = if self.filled >= 9 && self.header[3] == RST_STREAM { 13 } else { 9 };
            let taken = bytes.len().min(needed - self.filled);
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if let Some(frame) = self.complete() {
                self.filled = 0;
                found(frame);
            }
        }
    }

    fn complete(&mut self) -> Option<Frame> {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        let with_code = kind == RST_STREAM && length == 4;
        if self.filled < if with_code { 13 } else { 9 } {
            return None;
        }
        self.skip = if with_code { 0 } else { u64::from(length) };
        let code =
            if with_code { u32::from_be_bytes([self.header[9], self.header[10], self.header[11], self.header[12]]) } else { 0 };
        Some(Frame { length, kind, flags, code })
    }
}

/// A connection's stream, watched.
pub(super) struct Sniffed {
    io: Io,
    glitches: Rc<Glitches>,
    inbound: Scanner,
    outbound: RefCell<Scanner>,
    sending: Deadline,
    send_timeout: Duration,
}

impl Sniffed {
    pub(super) fn new(io: Io, glitches: Rc<Glitches>, send_timeout: Duration) -> Sniffed {
        let inbound = Scanner { skip: PREFACE, ..Scanner::default() };
        Sniffed { io, glitches, inbound, outbound: RefCell::default(), sending: Deadline::none(), send_timeout }
    }

    /// A peer that takes nothing for too long is gone.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.sending.clear();
            return polled;
        }
        self.sending.set_once(|| clock::now() + self.send_timeout);
        self.sending.poll_passed(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.glitches.exhausted() {
            // Nothing more is taken in; the connection finds out when this poll ends, so nobody needs to be woken.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        this.inbound.scan(&buf.filled()[before..], |frame| this.glitches.received(frame));
        polled
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.outbound.borrow_mut().scan(&buf[..written], |frame| self.glitches.sent(frame));
        }
        self.watch(cx, polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut written)) = polled {
            for buf in bufs {
                let part = written.min(buf.len());
                self.outbound.borrow_mut().scan(&buf[..part], |frame| self.glitches.sent(frame));
                written -= part;
            }
        }
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_come() {
        let bytes = [
            &[0, 0, 2, DATA, 1, 0, 0, 0, 1, 9, 9][..],
            &[0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, 8],
            &[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0],
        ]
        .concat();
        for step in 1..bytes.len() {
            let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
            bytes.chunks(step).for_each(|piece| scanner.scan(piece, |frame| seen.push((frame.kind, frame.length, frame.code))));
            assert_eq!(seen, [(DATA, 2, 0), (RST_STREAM, 4, 8), (SETTINGS, 0, 0)]);
        }
    }
}
