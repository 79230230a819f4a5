//! One stream: request, service, answer, and the rest of the request. It knows no other stream.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use heddle_node::clock::{self, Instant};

use super::super::counters::Count;
use super::super::guard::{Caught, catch_poll, fault_reason, is_outdated, refusal};
use super::Shared;
use super::body::StreamBody;
use super::places::Desk;
use super::respond::{respond, write_interim};
use super::wire::Held;
use crate::exchange::{Call, Interim, InterimQueue, Reason, Response, Service};
use crate::http::h1::{BodyLength, Fault};
use crate::http::h2::connection::Request;
use crate::http::{Body, Method, RequestHead};
use crate::net::Deadline;

/// How long the rest of a request is waited for that was answered before its end. Whoever sends it in one go ends it within one round trip.
const LINGER: Duration = Duration::from_secs(1);

/// A request that has come.
pub(super) struct Arrived {
    pub(super) request: Request,
    /// Why it cannot be served.
    pub(super) fault: Option<Fault>,
    /// When it was read.
    pub(super) at: Instant,
}

/// What sending a response needs to know of its request.
pub(super) struct Asked {
    pub(super) is_head: bool,
    /// Whether this is a CONNECT, extended or plain.
    pub(super) tunnels: bool,
    /// Bytes of a request body that was at hand.
    pub(super) held: u64,
    /// Bytes so far of one that is pulled.
    pub(super) pulled: Option<Rc<Cell<u64>>>,
}

impl Asked {
    /// Bytes of the request body so far.
    pub(super) fn received(&self) -> u64 {
        self.held + self.pulled.as_ref().map_or(0, |bytes| bytes.get())
    }
}

/// Serves one stream after the other. Dropping it resets the stream that is being served.
pub(super) async fn serve_all<S: Service>(shared: Rc<Shared<S>>, desk: Rc<Desk<Arrived>>) {
    loop {
        let arrived = desk.next().await;
        serve(&shared, arrived).await;
    }
}

async fn serve<S: Service>(shared: &Shared<S>, arrived: Arrived) {
    let Arrived { request, fault, at } = arrived;
    let held = Held { wire: shared.wire.clone(), key: request.key };
    if held.with(|machine, key| machine.is_lost(key)) {
        // It was reset before anybody looked at it: no work is begun.
        return;
    }
    // Whoever is refused, or sent elsewhere, stops sending when it hears that, and so do calls of gRPC. Clients that were answered well send on, and some would do so
    // until their window has gone and then wait for ever: for them the reset is the word to stop.
    let (ended, grpc) = (request.ended, request.head.names_grpc());
    let mut stops = true;
    let length = request.facts.length.map_or(BodyLength::Empty, BodyLength::Known);
    let reason = match fault {
        Some(fault) => Some(fault_reason(fault)),
        None => refusal(&shared.link, &request.head, length),
    };
    if let Some(reason) = reason {
        refuse(shared, &held, &request.head, reason).await;
    } else {
        let queue = shared.queues.borrow_mut().pop().unwrap_or_default();
        let (call, asked) = prepare(shared, request, at, &queue);
        let response = run(shared, &held, call, &queue).await;
        shared.keep(queue);
        if let Some(response) = response {
            stops = grpc || response.head.status >= 300;
            respond(shared, &held, response, asked).await;
        }
    }
    if !ended && stops {
        linger(&held).await;
    }
}

/// Lets the client end a request of which nobody wants more. A reset right behind the answer (RFC 9113 section 8.1) is what some clients see first, when they
/// are about to send the rest, and look at the answer no more.
async fn linger(held: &Held) {
    let mut late = Deadline::none();
    std::future::poll_fn(|cx| {
        if held.with(|machine, key| machine.poll_heard(key, cx)).is_ready() {
            return Poll::Ready(());
        }
        late.set_once(|| clock::now() + LINGER);
        late.poll_passed(cx)
    })
    .await;
}

fn prepare<S>(shared: &Shared<S>, request: Request, at: Instant, queue: &Rc<InterimQueue>) -> (Call, Asked) {
    let limits = shared.link.site.limits();
    let Request { key, head, facts, ended } = request;
    let mut asked =
        Asked { is_head: head.method == Method::Head, tunnels: head.method == Method::Connect, held: 0, pulled: None };
    let whole = || shared.wire.with(|machine| machine.take_whole(key));
    let body = if asked.tunnels || ended {
        Body::Empty
    } else if limits.max_body_bytes == 0
        && let Some(bytes) = whole()
    {
        asked.held = bytes.len() as u64;
        Body::Full(bytes)
    } else {
        Body::Stream(Box::new(StreamBody {
            wire: shared.wire.clone(),
            key,
            limit: limits.max_body_bytes,
            received: asked.pulled.insert(Rc::default()).clone(),
            expecting: facts.expects_continue,
            reading: Deadline::none(),
            timeout: limits.body_timeout,
            answered: 0,
        }))
    };
    let call =
        Call { wants_upgrade: asked.tunnels, head, body, interim: Interim::to(queue), started: at, started_ms: clock::unix_ms() };
    (call, asked)
}

/// Runs the service; `None` when the client has reset the stream.
async fn run<S: Service>(shared: &Shared<S>, held: &Held, call: Call, interim: &InterimQueue) -> Option<Response> {
    let calls_grpc = call.head.calls_grpc();
    let running = async { shared.worker.service.call(&shared.link.info, call).await };
    let mut running = std::pin::pin!(running);
    std::future::poll_fn(|cx| {
        match catch_poll(|| running.as_mut().poll(cx)) {
            Caught::Polled(Poll::Ready(response)) => {
                // Hints that came with the final head still go before it.
                while let Some(head) = interim.take() {
                    write_interim(held, &head);
                }
                return Poll::Ready(Some(response));
            }
            Caught::Polled(Poll::Pending) => {}
            Caught::Panic => {
                shared.worker.counters.add(Count::Panics);
                return Poll::Ready(Some(Response::told(Reason::Internal, calls_grpc)));
            }
        }
        while let Poll::Ready(head) = interim.poll_next(cx) {
            write_interim(held, &head);
        }
        held.with(|machine, key| machine.poll_lost(key, cx)).map(|_| None)
    })
    .await
}

async fn refuse<S: Service>(shared: &Shared<S>, held: &Held, head: &RequestHead, reason: Reason) {
    shared.worker.counters.add(Count::RequestsRefused);
    shared.worker.service.refused(&shared.link.info, head, reason);
    // Its client hears that it must come anew; elsewhere its other hosts go on.
    let close = reason == Reason::Misdirected && is_outdated(&shared.link);
    let mut response = Response { close, ..Response::told(reason, head.calls_grpc()) };
    if shared.link.site.listener.expose_reason {
        response.head.fields.append("x-heddle-reason", reason.flag());
    }
    let asked = Asked { is_head: head.method == Method::Head, tunnels: false, held: 0, pulled: None };
    respond(shared, held, response, asked).await;
}
