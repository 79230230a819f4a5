//! Sending one response on a stream, as fast as the client's windows open. It knows no other stream.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use heddle_node::clock;

use super::super::counters::Count;
use super::super::guard::{Caught, body_reason, catch_poll};
use super::super::length::{Length, is_bodiless, response_length};
use super::super::mesh::opaque;
use super::super::tunnel::join;
use super::Shared;
use super::stream::Asked;
use super::wire::Held;
use crate::exchange::{Reason, Response, Sent, Service, Tunnel};
use crate::http::h1::is_trailer_allowed;
use crate::http::h2::connection::{Lost, StreamKey};
use crate::http::h2::frame::ErrorCode;
use crate::http::h2::message::{self, WireLength};
use crate::http::h2::stream_io::StreamIo;
use crate::http::{Body, Frame, Heard, ResponseHead};
use crate::net::Deadline;

/// Sends a response to its end and tells its ending.
pub(super) async fn respond<S: Service>(shared: &Shared<S>, held: &Held, mut response: Response, asked: Asked) {
    let ending = response.ending.take();
    // What leads nowhere in the mesh says nothing of other hosts, of which one connection may have many.
    if response.close && response.reason == Reason::Misdirected {
        held.with(|machine, _| machine.leave());
    }
    let tunnel = response.upgrade.take().filter(|_| asked.tunnels && matches!(response.head.status, 101 | 200..=299));
    let mut sent = match tunnel {
        Some(far) => tunnelled(shared, held, response.head, (far, response.doubt)).await,
        None => plain(shared, held, response, asked.is_head).await,
    };
    sent.received += asked.received();
    if let Some(head) = ending.and_then(|ending| ending.ended(sent)) {
        held.recycle(head);
    }
}

async fn tunnelled<S: Service>(
    shared: &Shared<S>,
    held: &Held,
    mut head: ResponseHead,
    (far, doubt): (Box<dyn Tunnel>, Option<Arc<Heard>>),
) -> Sent {
    // What was upgraded is known; what comes by CONNECT is anything.
    let far = if head.status == 101 { far } else { opaque(far, doubt) };
    // HTTP/2 knows no 101 (RFC 8441 section 5).
    head.status = if head.status == 101 { 200 } else { head.status };
    if send_head(shared, held, &head, Length::Open, false).is_err() {
        return Sent { reason: Reason::ClientClosed, ..Sent::default() };
    }
    let near = StreamIo::new(held.wire.clone(), held.key, held);
    let sent = join(near, far, shared.link.site.limits().idle_timeout, None, &shared.worker.spare).await;
    if sent.reason != Reason::None {
        held.with(|machine, key| machine.reset(key, ErrorCode::CONNECT_ERROR));
    }
    sent
}

async fn plain<S: Service>(shared: &Shared<S>, held: &Held, response: Response, is_head: bool) -> Sent {
    let Response { mut head, mut body, .. } = response;
    if head.status < 200 {
        // A final response must not look like an interim one.
        let internal = Response::of(Reason::Internal);
        (head, body) = (internal.head, internal.body);
    }
    let length = response_length(&head, &body, is_head);
    let ended = is_bodiless(&head, is_head) || body.is_empty();
    let whole = if ended { None } else { take_whole(&mut body) };
    let sent = whole.as_ref().map_or(0, Bytes::len) as u64;
    let complete = ended || whole.is_some();
    match send_whole(shared, held, &head, length, ended, whole) {
        Err(_) => return Sent { reason: Reason::ClientClosed, ..Sent::default() },
        Ok(true) => return Sent { sent, ..Sent::default() },
        Ok(false) => {}
    }
    let mut pump = Pump {
        held,
        body,
        announced: if let Length::Known(bytes) = length { Some(bytes) } else { None },
        sent,
        ended: complete,
        stall: Stall { due: Deadline::none(), timeout: shared.link.site.limits().send_timeout, framed: 0 },
    };
    let result = std::future::poll_fn(|cx| match catch_poll(|| pump.poll(cx)) {
        Caught::Polled(polled) => polled,
        Caught::Panic => {
            shared.worker.counters.add(Count::Panics);
            Poll::Ready(Err(Failed { reason: Reason::Internal, code: ErrorCode::INTERNAL_ERROR }))
        }
    })
    .await;
    let sent = Sent { sent: pump.sent, received: 0, reason: result.err().map_or(Reason::None, |failed| failed.reason) };
    if let Err(failed) = result {
        if failed.code == ErrorCode::CANCEL {
            shared.worker.counters.add(Count::TimedOut);
        }
        held.with(|machine, key| machine.reset(key, failed.code));
    }
    sent
}

/// A response body on its way.
struct Pump<'a> {
    held: &'a Held,
    body: Body,
    announced: Option<u64>,
    sent: u64,
    /// Whether all has been handed over.
    ended: bool,
    stall: Stall,
}

/// Watches whether the client takes anything: a stream whose window stays shut holds memory for nothing.
struct Stall {
    due: Deadline,
    timeout: Duration,
    /// What it had taken when the watch began.
    framed: u64,
}

/// Why a response was not sent to its end.
#[derive(Debug, Clone, Copy)]
struct Failed {
    reason: Reason,
    code: ErrorCode,
}

const GONE: Failed = Failed { reason: Reason::ClientClosed, code: ErrorCode::NO_ERROR };
const STALLED: Failed = Failed { reason: Reason::ClientClosed, code: ErrorCode::CANCEL };

impl From<Lost> for Failed {
    fn from(_: Lost) -> Failed {
        GONE
    }
}

impl Pump<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        while !self.ended {
            if self.held.with(|machine, key| machine.poll_room(key, cx))?.is_pending() {
                return self.stall.poll(self.held, cx);
            }
            self.stall.due.clear();
            match self.body.poll_frame(cx) {
                Poll::Pending => return self.held.with(|machine, key| machine.poll_lost(key, cx)).map(|_| Err(GONE)),
                Poll::Ready(Some(Ok(Frame::Data(bytes)))) => self.take(bytes)?,
                Poll::Ready(Some(Ok(Frame::Trailers(mut fields)))) => {
                    fields.retain(|field| is_trailer_allowed(field.id, field.name));
                    self.check_whole()?;
                    self.ended = true;
                    self.held.with(|machine, key| match fields.is_empty() {
                        true => machine.send_data(key, Bytes::new(), true),
                        false => machine.send_trailers(key, fields),
                    })?;
                }
                Poll::Ready(None) => {
                    self.check_whole()?;
                    self.ended = true;
                    self.held.with(|machine, key| machine.send_data(key, Bytes::new(), true))?;
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(Failed { reason: body_reason(&error), code: ErrorCode::INTERNAL_ERROR }));
                }
            }
        }
        if self.held.with(|machine, key| machine.poll_flushed(key, cx))?.is_pending() {
            return self.stall.poll(self.held, cx);
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, bytes: Bytes) -> Result<(), Failed> {
        self.sent += bytes.len() as u64;
        if self.announced.is_some_and(|announced| self.sent > announced) {
            return Err(Failed { reason: Reason::UpstreamProtocol, code: ErrorCode::INTERNAL_ERROR });
        }
        // The end goes with the last piece where it is known to be that.
        self.ended = self.announced.is_none_or(|announced| self.sent == announced) && self.body.remaining() == Some(0);
        self.held.with(|machine, key| machine.send_data(key, bytes, self.ended))?;
        Ok(())
    }

    fn check_whole(&self) -> Result<(), Failed> {
        match self.announced {
            Some(announced) if self.sent < announced => {
                Err(Failed { reason: Reason::UpstreamReset, code: ErrorCode::INTERNAL_ERROR })
            }
            _ => Ok(()),
        }
    }
}

impl Stall {
    fn poll(&mut self, held: &Held, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        loop {
            let framed = held.with(|machine, key| machine.framed(key));
            if framed != self.framed {
                self.framed = framed;
                self.due.clear();
            }
            self.due.set_once(|| clock::now() + self.timeout);
            ready!(self.due.poll_passed(cx));
            if held.with(|machine, key| machine.framed(key)) == framed {
                return Poll::Ready(Err(STALLED));
            }
        }
    }
}

/// Sends an interim head; it is only a hint, so nobody is told when the stream is gone.
pub(super) fn write_interim(held: &Held, head: &ResponseHead) {
    let _ = held.with(|machine, key| machine.send_head(key, false, |encoder, out| message::write_interim(encoder, out, head)));
}

fn send_head<S>(shared: &Shared<S>, held: &Held, head: &ResponseHead, length: Length, end: bool) -> Result<(), Lost> {
    send_whole(shared, held, head, length, end, None).map(drop)
}

/// A body that is at hand.
fn take_whole(body: &mut Body) -> Option<Bytes> {
    let Body::Full(bytes) = body else { return None };
    let bytes = std::mem::take(bytes);
    *body = Body::Empty;
    Some(bytes)
}

/// Sends a head and, where it is at hand, the content that ends the message; whether everything up to the end has been framed.
fn send_whole<S>(
    shared: &Shared<S>,
    held: &Held,
    head: &ResponseHead,
    length: Length,
    end: bool,
    content: Option<Bytes>,
) -> Result<bool, Lost> {
    let date = shared.worker.dates.at(clock::unix_ms() / 1000);
    let length = match length {
        Length::None | Length::Open => WireLength::Absent,
        Length::AsStated => WireLength::AsStated,
        Length::Known(bytes) => WireLength::Known(bytes),
    };
    let send = |machine: &mut crate::http::h2::connection::Connection, key: StreamKey| {
        machine.send_head(key, end, |encoder, out| message::write_response(encoder, out, head, length, Some(&date[..])))?;
        if let Some(content) = content {
            machine.send_data(key, content, true)?;
        }
        Ok(machine.is_flushed(key))
    };
    held.with(send)
}
