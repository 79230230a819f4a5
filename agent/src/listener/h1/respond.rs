//! Sending one response: its framing is decided here, and nothing that contradicts it leaves. It knows no requests but the one it answers.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use heddle_node::clock;

use super::super::counters::Count;
use super::super::guard::{Caught, catch_poll};
use super::super::length::{Length, is_bodiless, response_length};
use super::super::{guard::body_reason, mesh::opaque, tunnel};
use super::wire::{Gone, Wire};
use super::{After, Connection, Facts};
use crate::exchange::{Reason, Response, Sent, Service, Tunnel};
use crate::http::h1::{Persistence, WireLength, write_chunk_start, write_last_chunk, write_response_head};
use crate::http::{Body, BodyError, Fields, Frame, Heard, ResponseHead, Version};
use crate::net::{Io, Rewind};

/// A response body on its way.
struct Pump {
    body: Body,
    framing: WireLength,
    /// Whether the body has been pulled to its end.
    ended: bool,
    sent: u64,
}

impl<S: Service> Connection<'_, S> {
    /// Sends a response. The buffers of the request head go back to the worker.
    pub(super) async fn respond(&mut self, mut response: Response, facts: Facts) -> After {
        let ending = response.ending.take();
        let tunnel = response.upgrade.take().filter(|_| facts.upgrades && matches!(response.head.status, 101 | 200..=299));
        let (after, sent) = match tunnel {
            Some(tunnel) => self.upgrade(&response.head, (tunnel, response.doubt)).await,
            None if response.head.status < 200 => {
                // A final response must not look like an interim one; only a tunnel makes 101 final.
                self.send(Response { close: true, ..Response::of(Reason::Internal) }, facts).await
            }
            None => self.send(response, facts).await,
        };
        if let Some(head) = ending.and_then(|ending| ending.ended(sent)) {
            self.worker.spare.take_back_head(head);
        }
        after
    }

    async fn upgrade(&mut self, head: &ResponseHead, (tunnel, doubt): (Box<dyn Tunnel>, Option<Arc<Heard>>)) -> (After, Sent) {
        // After CONNECT there is nothing to upgrade (RFC 9110 section 9.3.6).
        let (persistence, tunnel) = match head.status {
            101 => (Persistence::Upgrade, tunnel),
            _ => (Persistence::Default, opaque(tunnel, doubt)),
        };
        write_response_head(self.wire.borrow_mut().out.gathered(), head, WireLength::Absent, persistence, None);
        if std::future::poll_fn(|cx| self.wire.borrow_mut().poll_send(cx)).await.is_err() {
            return (After::Abort, Sent { reason: Reason::ClientClosed, ..Sent::default() });
        }
        let (near, early) = {
            let mut wire = self.wire.borrow_mut();
            (std::mem::replace(&mut wire.io, Io::other(tokio::io::empty())), wire.input.split().freeze())
        };
        (
            After::Close,
            tunnel::join(Rewind::new(near, early), tunnel, self.link.site.limits().idle_timeout, None, &self.worker.spare).await,
        )
    }

    async fn send(&mut self, response: Response, facts: Facts) -> (After, Sent) {
        let Response { head, body, close, .. } = response;
        let framing = decide_framing(&head, &body, facts);
        let mut pump = Pump { ended: is_bodiless(&head, facts.is_head), body, framing, sent: 0 };
        let keeps =
            facts.persists && !close && !self.link.site.drain.has_begun() && (pump.ended || framing != WireLength::Absent);
        let mut persists = None;
        let result = std::future::poll_fn(|cx| {
            if persists.is_none() {
                let mut wire = self.wire.borrow_mut();
                let going_on = keeps && wire.can_go_on(cx);
                wire.awaits_continue = false;
                persists = Some(going_on);
                self.write_head(&mut wire, &head, framing, facts, going_on);
            }
            self.poll_pump(cx, &mut pump)
        })
        .await;
        let received = self.wire.borrow().decoder.received();
        let sent = Sent { sent: pump.sent, received, reason: result.err().unwrap_or(Reason::None) };
        // The body is dropped before the next request: its upstream work ends here.
        drop(pump);
        let after = match (result, persists) {
            (Err(reason), _) if reason == Reason::ClientClosed || framing == WireLength::Absent => After::Abort,
            (Err(_), _) => self.break_off().await,
            (Ok(()), Some(true)) => self.next().await,
            (Ok(()), _) => After::Close,
        };
        (after, sent)
    }

    fn write_head(&self, wire: &mut Wire, head: &ResponseHead, framing: WireLength, facts: Facts, going_on: bool) {
        let persistence = match (going_on, facts.version) {
            (false, _) => Persistence::Close,
            (true, Version::Http10) => Persistence::KeepAlive,
            (true, _) => Persistence::Default,
        };
        let date = self.worker.dates.at(self.worker.wall.unix_ms(clock::now()) / 1000);
        write_response_head(wire.out.gathered(), head, framing, persistence, Some(&date));
    }

    /// Moves the body to the client until its end.
    fn poll_pump(&self, cx: &mut Context<'_>, pump: &mut Pump) -> Poll<Result<(), Reason>> {
        loop {
            let mut waits = false;
            while !pump.ended && self.wire.borrow().out.has_room() {
                let frame = match catch_poll(|| pump.body.poll_frame(cx)) {
                    Caught::Polled(Poll::Ready(frame)) => frame,
                    Caught::Polled(Poll::Pending) => {
                        waits = true;
                        break;
                    }
                    Caught::Panic => {
                        self.worker.counters.add(Count::Panics);
                        return Poll::Ready(Err(Reason::Internal));
                    }
                };
                let mut wire = self.wire.borrow_mut();
                wire.answer_goes_on();
                pump.take(frame, &mut wire)?;
            }
            let mut wire = self.wire.borrow_mut();
            match ready!(wire.poll_send(cx)) {
                Ok(()) => {}
                Err(gone) => {
                    if gone == Gone::Stalled {
                        self.worker.counters.add(Count::TimedOut);
                    }
                    return Poll::Ready(Err(Reason::ClientClosed));
                }
            }
            if pump.ended {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return wire.poll_gone(cx).map(|_| Err(Reason::ClientClosed));
            }
        }
    }

    /// The body broke off: what there is of it goes out, and the client sees by its framing that it is not all.
    async fn break_off(&mut self) -> After {
        match std::future::poll_fn(|cx| self.wire.borrow_mut().poll_send(cx)).await {
            Ok(()) => After::Close,
            Err(_) => After::Abort,
        }
    }

    /// Gets ready for the next request: what is left of this one's body is thrown away.
    async fn next(&mut self) -> After {
        // Whoever still holds the body has lost it.
        self.wire.borrow_mut().turn += 1;
        let done = std::future::poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            if wire.decoder.is_done() { Poll::Ready(true) } else { wire.poll_discard(cx) }
        })
        .await;
        if done { After::Next } else { After::Close }
    }
}

impl Pump {
    /// Takes what the body gave. An error breaks the connection off.
    fn take(&mut self, frame: Option<Result<Frame, BodyError>>, wire: &mut Wire) -> Result<(), Reason> {
        match frame {
            Some(Ok(Frame::Data(bytes))) => self.take_data(bytes, wire),
            Some(Ok(Frame::Trailers(fields))) => self.end(Some(&*fields), wire),
            None => self.end(None, wire),
            Some(Err(error)) => Err(body_reason(&error)),
        }
    }

    fn take_data(&mut self, bytes: Bytes, wire: &mut Wire) -> Result<(), Reason> {
        self.sent += bytes.len() as u64;
        match self.framing {
            _ if bytes.is_empty() => {}
            WireLength::Chunked => {
                write_chunk_start(wire.out.gathered(), bytes.len());
                wire.out.push(bytes, b"\r\n");
            }
            // More than was announced would be read as the next response.
            WireLength::Known(length) if self.sent > length => return Err(Reason::UpstreamProtocol),
            _ => wire.out.push(bytes, b""),
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&Fields>, wire: &mut Wire) -> Result<(), Reason> {
        self.ended = true;
        match self.framing {
            WireLength::Chunked => write_last_chunk(wire.out.gathered(), trailers),
            WireLength::Known(length) if self.sent < length => return Err(Reason::UpstreamReset),
            _ => {}
        }
        Ok(())
    }
}

/// How the client finds the end of the response (RFC 9112 section 6).
fn decide_framing(head: &ResponseHead, body: &Body, facts: Facts) -> WireLength {
    match response_length(head, body, facts.is_head) {
        Length::None => WireLength::Absent,
        Length::AsStated => WireLength::AsStated,
        // Of a body that may have trailers only its length as stated is known, and behind a length there is no room for them.
        Length::Known(_) if facts.takes_trailers && facts.version == Version::Http11 && body.remaining().is_none() => {
            WireLength::Chunked
        }
        Length::Known(bytes) => WireLength::Known(bytes),
        Length::Open if facts.version == Version::Http11 => WireLength::Chunked,
        Length::Open => WireLength::Absent,
    }
}
