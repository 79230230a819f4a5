//! One stream: request, service, answer. It knows no other stream.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Code, RecvStream};
use heddle_node::clock;
use http::Request;

use super::super::counters::Count;
use super::super::guard::{Caught, catch_poll, refusal};
use super::super::site::{Link, Worker};
use super::body::{Respond, StreamBody};
use super::request::{Accepted, Refusal, accept};
use super::respond::{informational, respond};
use crate::exchange::{Call, Interim, InterimQueue, Reason, Response, Service};
use crate::http::h1::BodyLength;
use crate::http::{Body, Method, RequestHead};
use crate::net::Deadline;

/// What sending a response needs to know of its request.
pub(super) struct Asked {
    pub(super) is_head: bool,
    /// The receiving half of an extended CONNECT.
    pub(super) tunnel: Option<RecvStream>,
    pub(super) received: Rc<Cell<u64>>,
}

/// Serves one stream to its end. Dropping it resets the stream.
pub(super) async fn serve<S: Service>(
    worker: Rc<Worker<S>>,
    link: Link,
    request: Request<RecvStream>,
    mut send: SendResponse<Bytes>,
) {
    let (parts, recv) = request.into_parts();
    let accepted = match accept(&parts, recv.is_end_stream(), &link.site.head_limits) {
        Ok(accepted) => accepted,
        Err(Refusal::Malformed) => {
            worker.counters.add(Count::RequestsRefused);
            worker.service.refused(&link.info, &RequestHead::default(), Reason::BadRequest);
            send.send_reset(Code::PROTOCOL_ERROR);
            return;
        }
        Err(Refusal::Answer(reason)) => return refuse(&worker, &link, &RequestHead::default(), reason, send).await,
    };
    drop(parts);
    let length = accepted.length.map_or(BodyLength::Empty, BodyLength::Known);
    if let Some(reason) = refusal(&link, &accepted.head, length) {
        return refuse(&worker, &link, &accepted.head, reason, send).await;
    }
    let respond_to: Respond = Rc::new(RefCell::new(send));
    let (call, asked, interim) = prepare(&link, accepted, recv, &respond_to);
    if let Some(response) = run(&worker, &link, call, &interim, &respond_to).await {
        respond(&worker, &link, &respond_to, response, asked).await;
    }
}

fn prepare(link: &Link, accepted: Accepted, recv: RecvStream, respond_to: &Respond) -> (Call, Asked, Rc<InterimQueue>) {
    let limits = link.site.limits();
    let received = Rc::new(Cell::new(0));
    let is_head = accepted.head.method == Method::Head;
    let (body, tunnel) = if accepted.tunnels {
        (Body::Empty, Some(recv))
    } else if recv.is_end_stream() {
        (Body::Empty, None)
    } else {
        let body = StreamBody {
            recv,
            length: accepted.length,
            limit: limits.max_body_bytes,
            max_trailers: link.site.head_limits.max_fields,
            received: received.clone(),
            expecting: accepted.expects_continue.then(|| respond_to.clone()),
            reading: Deadline::none(),
            timeout: limits.body_timeout,
            data_ended: false,
        };
        (Body::Stream(Box::new(body)), None)
    };
    let queue = Rc::new(InterimQueue::default());
    let call = Call {
        head: accepted.head,
        body,
        wants_upgrade: accepted.tunnels,
        interim: Interim::to(&queue),
        started: clock::now(),
        started_ms: clock::unix_ms(),
    };
    (call, Asked { is_head, tunnel, received }, queue)
}

/// Runs the service; `None` when the client has reset the stream.
async fn run<S: Service>(
    worker: &Worker<S>,
    link: &Link,
    call: Call,
    interim: &InterimQueue,
    send: &Respond,
) -> Option<Response> {
    let running = async { worker.service.call(&link.info, call).await };
    let mut running = std::pin::pin!(running);
    std::future::poll_fn(|cx| {
        match catch_poll(|| running.as_mut().poll(cx)) {
            Caught::Polled(Poll::Ready(response)) => {
                // Hints that came with the final head still go before it.
                while let Some(head) = interim.take() {
                    let _ = send.borrow_mut().send_informational(informational(&head));
                }
                return Poll::Ready(Some(response));
            }
            Caught::Polled(Poll::Pending) => {}
            Caught::Panic => {
                worker.counters.add(Count::Panics);
                return Poll::Ready(Some(Response::of(Reason::Internal)));
            }
        }
        let mut send = send.borrow_mut();
        while let Poll::Ready(head) = interim.poll_next(cx) {
            // Fails only when the stream is gone, which is told below.
            let _ = send.send_informational(informational(&head));
        }
        send.poll_reset(cx).map(|_| None)
    })
    .await
}

async fn refuse<S: Service>(worker: &Worker<S>, link: &Link, head: &RequestHead, reason: Reason, send: SendResponse<Bytes>) {
    worker.counters.add(Count::RequestsRefused);
    worker.service.refused(&link.info, head, reason);
    let mut response = Response::of(reason);
    if link.site.listener.expose_reason {
        response.head.fields.append("x-heddle-reason", reason.flag());
    }
    let asked = Asked { is_head: head.method == Method::Head, tunnel: None, received: Rc::default() };
    respond(worker, link, &Rc::new(RefCell::new(send)), response, asked).await;
}
