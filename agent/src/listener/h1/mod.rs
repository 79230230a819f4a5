//! Serving one HTTP/1 connection: head, service, answer, and again. It knows neither routes nor upstreams.

mod body;
mod outbox;
mod respond;
mod spare;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use heddle_node::clock::{self, Instant};
use tokio::sync::futures::OwnedNotified;

use self::body::RequestBody;
pub use self::spare::Spare;
pub(super) use self::wire::close;
use self::wire::{Gone, Wire};
use super::counters::Count;
use super::guard::{Caught, catch_poll, fault_reason, refusal};
use super::site::{LEAVING, Link, Worker};
use crate::exchange::{Call, Interim, InterimQueue, Reason, Response, Service};
use crate::http::h1::{BodyDecoder, BodyLength, ParsedRequest, Persistence, RequestParser, WireLength, write_response_head};
use crate::http::{Body, Method, RequestHead, ResponseHead, Version, takes_trailers};
use crate::net::{Deadline, Io};

/// A connection on which nothing has come for this long is at rest: it gives up all that only a busy one needs.
const REST: Duration = Duration::from_millis(100);

/// One connection being served.
struct Connection<'a, S> {
    worker: &'a Worker<S>,
    link: &'a Link,
    wire: Rc<RefCell<Wire>>,
    interim: Rc<InterimQueue>,
    /// Idle and header time.
    patience: Deadline,
    /// When the next request must have begun.
    idle_until: Instant,
    drained: Pin<&'a mut OwnedNotified>,
    served: u32,
    /// From then on the connection is too old for another request.
    aged_at: Option<Instant>,
    leaving: bool,
}

/// What comes next on the connection.
enum Next {
    Request(ParsedRequest, Instant),
    /// Nothing for a while.
    Rest,
    /// Nothing, and nobody is to be told.
    Close,
    /// The client has gone.
    Gone,
    Refuse(Reason),
}

/// What of a request decides how its answer is framed.
#[derive(Clone, Copy)]
struct Facts {
    version: Version,
    is_head: bool,
    persists: bool,
    upgrades: bool,
    /// The client reads trailers.
    takes_trailers: bool,
}

/// How the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Next,
    /// Wait for a request that may be long in coming.
    Rest,
    /// Close; nobody waits for anything.
    Leave,
    /// Nothing: the client has gone.
    Gone,
    /// Close, reading on for a moment so that the answer arrives.
    Close,
    /// Break off: what was sent is not complete.
    Abort,
}

/// Serves a connection to its end. `first` was read already; the first head must have come `until` then.
pub(super) async fn serve<S: Service>(worker: &Worker<S>, link: &Link, io: Io, first: BytesMut, until: Instant) {
    let drained = std::pin::pin!(link.site.drain.begins());
    let wire = Rc::new(RefCell::new(Wire::new(io, first, &link.site, &worker.spare)));
    let (interim, patience) = (Rc::default(), Deadline::none());
    let (idle_until, aged_at) = (until, link.site.aged_at());
    let mut connection =
        Connection { worker, link, wire, interim, patience, idle_until, drained, served: 0, aged_at, leaving: false };
    let mut after = After::Rest;
    while after == After::Rest {
        // What a busy connection needs lies in a future of its own, which one at rest has not.
        after = match connection.rest().await {
            After::Next => Box::pin(connection.work()).await,
            other => other,
        };
    }
    Box::pin(connection.finish(after)).await;
}

impl<S: Service> Connection<'_, S> {
    /// Waits for the first byte of a request.
    async fn rest(&mut self) -> After {
        self.patience.set(self.idle_until);
        std::future::poll_fn(|cx| {
            if !self.wire.borrow().input.is_empty() {
                return Poll::Ready(After::Next);
            }
            if let Poll::Ready(filled) = self.wire.borrow_mut().poll_fill(cx) {
                return Poll::Ready(match filled {
                    Ok(0) => After::Leave,
                    Ok(_) => After::Next,
                    Err(_) => After::Gone,
                });
            }
            let drain = &self.link.site.drain;
            if !self.leaving && (drain.has_begun() || self.drained.as_mut().poll(cx).is_ready()) {
                // A request may be on its way: closing now would lose it.
                self.leaving = true;
                self.patience.set(clock::now() + LEAVING);
            }
            self.patience.poll_passed(cx).map(|()| {
                if !self.leaving {
                    self.worker.counters.add(Count::TimedOut);
                }
                After::Leave
            })
        })
        .await
    }

    /// Serves requests for as long as they follow each other.
    async fn work(&mut self) -> After {
        loop {
            let mut head = self.worker.spare.head();
            let after = match self.read_head(&mut head).await {
                Next::Request(parsed, started) => self.exchange(parsed, started, head).await,
                Next::Refuse(reason) => self.refuse(head, reason).await,
                ended => {
                    self.worker.spare.take_back_head(head);
                    match ended {
                        Next::Rest => After::Rest,
                        Next::Gone => After::Gone,
                        _ => After::Leave,
                    }
                }
            };
            if after != After::Next {
                return after;
            }
        }
    }

    async fn read_head(&mut self, head: &mut RequestHead) -> Next {
        let limits = self.link.site.limits();
        let mut parser = RequestParser::new(self.link.site.head_limits);
        let mut started = None;
        std::future::poll_fn(|cx| {
            let wire = &mut *self.wire.borrow_mut();
            loop {
                if !wire.input.is_empty() {
                    let started = *started.get_or_insert_with(|| {
                        let now = clock::now();
                        if self.served > 0 {
                            self.patience.set(now + limits.header_timeout);
                        }
                        now
                    });
                    match parser.advance(&wire.input, head) {
                        Ok(None) => {}
                        Ok(Some(parsed)) => {
                            wire.input.advance(parsed.consumed);
                            return Poll::Ready(Next::Request(parsed, started));
                        }
                        Err(fault) => return Poll::Ready(Next::Refuse(fault_reason(fault))),
                    }
                }
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(read)) if read > 0 => {}
                    Poll::Ready(Ok(_)) => return Poll::Ready(Next::Close),
                    Poll::Ready(Err(_)) => return Poll::Ready(Next::Gone),
                    Poll::Pending => break,
                }
            }
            wire.tuck();
            self.patience.poll_passed(cx).map(|()| {
                if wire.input.is_empty() {
                    return Next::Rest;
                }
                self.worker.counters.add(Count::TimedOut);
                Next::Refuse(Reason::RequestTimeout)
            })
        })
        .await
    }

    async fn exchange(&mut self, parsed: ParsedRequest, started: Instant, head: Box<RequestHead>) -> After {
        self.served = self.served.saturating_add(1);
        self.patience.clear();
        self.worker.counters.add(Count::Http1Requests);
        if let Some(reason) = refusal(self.link, &head, parsed.length) {
            return self.refuse(head, reason).await;
        }
        let limits = self.link.site.limits();
        let more = limits.max_requests_per_connection == 0 || self.served < limits.max_requests_per_connection;
        let more = more && self.aged_at.is_none_or(|at| started < at);
        let facts = Facts {
            version: head.version,
            is_head: head.method == Method::Head,
            persists: parsed.persists && more,
            upgrades: parsed.upgrades,
            takes_trailers: takes_trailers(&head.fields),
        };
        let call = Call {
            body: self.take_body(parsed),
            head,
            wants_upgrade: parsed.upgrades,
            interim: if facts.version == Version::Http11 { Interim::to(&self.interim) } else { Interim::none() },
            started,
            started_ms: self.worker.wall.unix_ms(started),
        };
        let response = match self.call(call).await {
            Ok(response) => response,
            Err(_) => return After::Abort,
        };
        let after = self.respond(response, facts).await;
        if after == After::Next {
            let now = clock::now();
            let idle_until = now + limits.idle_timeout;
            self.idle_until = self.aged_at.map_or(idle_until, |at| at.min(idle_until));
            self.patience.set(now + limits.idle_timeout.min(REST));
        }
        after
    }

    /// The body of the request whose head has just been read.
    fn take_body(&mut self, parsed: ParsedRequest) -> Body {
        self.interim.clear();
        let limits = self.link.site.limits();
        let mut wire = self.wire.borrow_mut();
        wire.turn += 1;
        wire.body_alive = false;
        wire.awaits_continue = false;
        let decoder = |length| {
            BodyDecoder::new(length, &self.link.site.head_limits, limits.max_body_bytes, limits.max_chunk_extension_bytes)
        };
        match parsed.length {
            BodyLength::Empty => {
                wire.decoder = decoder(BodyLength::Empty);
                Body::Empty
            }
            BodyLength::Known(bytes) if bytes <= wire.input.len() as u64 => {
                wire.decoder = decoder(BodyLength::Empty);
                wire.decoder.note_received(bytes);
                Body::Full(wire.input.split_to(bytes as usize).freeze())
            }
            length => {
                wire.decoder = decoder(length);
                wire.awaits_continue = parsed.expects_continue && wire.input.is_empty();
                drop(wire);
                Body::Stream(Box::new(RequestBody::new(&self.wire)))
            }
        }
    }

    /// Runs the service, sends interim responses and watches the client meanwhile.
    async fn call(&mut self, call: Call) -> Result<Response, Gone> {
        let calls_grpc = call.head.calls_grpc();
        let running = async { self.worker.service.call(&self.link.info, call).await };
        let mut running = std::pin::pin!(running);
        let (wire, interim) = (&self.wire, &self.interim);
        std::future::poll_fn(|cx| {
            match catch_poll(|| running.as_mut().poll(cx)) {
                Caught::Polled(Poll::Ready(response)) => {
                    // Hints that came with the final head still go before it.
                    let mut wire = wire.borrow_mut();
                    while wire.out.has_room()
                        && let Some(head) = interim.take()
                    {
                        write_interim(&mut wire, &head);
                    }
                    return Poll::Ready(Ok(response));
                }
                Caught::Polled(Poll::Pending) => {}
                Caught::Panic => {
                    self.worker.counters.add(Count::Panics);
                    return Poll::Ready(Ok(Response { close: true, ..Response::told(Reason::Internal, calls_grpc) }));
                }
            }
            let mut wire = wire.borrow_mut();
            while wire.out.has_room()
                && let Poll::Ready(head) = interim.poll_next(cx)
            {
                write_interim(&mut wire, &head);
            }
            if let Poll::Ready(Err(gone)) = wire.poll_send(cx) {
                return Poll::Ready(Err(gone));
            }
            wire.poll_gone(cx).map(Err)
        })
        .await
    }

    /// Answers a request that is not served, and closes.
    async fn refuse(&mut self, head: Box<RequestHead>, reason: Reason) -> After {
        self.worker.counters.add(Count::RequestsRefused);
        self.worker.service.refused(&self.link.info, &head, reason);
        let is_head = head.method == Method::Head;
        let facts = Facts { version: head.version, is_head, persists: false, upgrades: false, takes_trailers: false };
        let mut response = Response::told(reason, head.calls_grpc());
        if self.link.site.listener.expose_reason {
            response.head.fields.append("x-heddle-reason", reason.flag());
        }
        self.worker.spare.take_back_head(head);
        self.respond(response, facts).await
    }

    async fn finish(self, after: After) {
        // Bodies that the service still holds are dead from here on.
        let mut io = {
            let mut wire = self.wire.borrow_mut();
            wire.turn += 1;
            std::mem::replace(&mut wire.io, Io::other(tokio::io::empty()))
        };
        match after {
            After::Abort => io.reset_on_close(),
            After::Gone => {}
            _ => wire::close(&mut io, after == After::Close, &self.worker.spare).await,
        }
    }
}

fn write_interim(wire: &mut Wire, head: &ResponseHead) {
    write_response_head(wire.out.gathered(), head, WireLength::Absent, Persistence::Default, None);
}
