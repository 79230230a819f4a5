//! One try on one HTTP/2 stream, up to the response head.

use std::task::{Context, Poll};

use bytes::Bytes;
use heddle_node::clock;
use heddle_xds::model::Timeouts;
use tokio::time::Instant;

use super::body::H2Body;
use super::send::{SendError, Sender};
use super::session::{Checkout, Lease, MAX_CLOSING, Stream, checkout, no_more};
use crate::exchange::{Interim, Reason};
use crate::http::h2::message::{WireLength, check_request, write_request};
use crate::http::{Body, Method, ResponseHead};
use crate::upstream::h1::is_late;
use crate::upstream::pools::{Outcome, Work};
use crate::upstream::target::Picked;
use crate::upstream::{OutgoingRequest, Sent, UpstreamError, UpstreamResponse};

struct Try<'a> {
    stream: Stream,
    sender: Option<Sender>,
    /// The stream takes no more of the request; its answer says why.
    broken: bool,
    sent: Sent,
    timeouts: Timeouts,
    interim: &'a Interim,
}

/// Sends a request and waits for the response head.
pub(in crate::upstream) async fn send(
    picked: Picked,
    request: &OutgoingRequest<'_>,
    body: &mut Body,
    interim: &Interim,
    start: Instant,
) -> Outcome {
    if let Err(detail) = check_request(request.head, request.host) {
        return Err((picked, UpstreamError::new(Reason::BadRequest, Sent::Nothing, detail)));
    }
    let tls = picked.spec().is_mesh() || picked.spec().config.scheme.is_tls();
    if request.upgrade {
        return Box::pin(super::connect::upgrade(picked, request, tls, start)).await;
    }
    let mut closing = 0;
    loop {
        let (lease, connect, reused) = match checkout(&picked, &Checkout::of(request), start).await {
            Ok(ready) => ready,
            Err(error) => return Err((picked, error)),
        };
        let Some(stream) = open(lease, request, tls, body) else {
            closing += 1;
            if closing < MAX_CLOSING {
                continue;
            }
            return Err((picked, no_more()));
        };
        let sender = Sender::new(take(body));
        let sent = if sender.is_some() { Sent::Partial } else { Sent::All };
        let mut this = Try { stream, sender, broken: false, sent, timeouts: request.timeouts, interim };
        return match std::future::poll_fn(|cx| this.poll(cx)).await {
            Ok(head) => {
                let header = picked.head_came(head.outcome(), start, clock::now());
                let sender = this.sender.filter(|_| !this.broken);
                let body = finish(this.stream, sender, Work::new(picked), request);
                Ok(UpstreamResponse { head, body, upgraded: None, connect, header, reused })
            }
            Err(error) => {
                if let Some(sender) = this.sender {
                    sender.give_back(body);
                }
                Err((picked, error))
            }
        };
    }
}

/// Opens the stream with the head of the request.
fn open(lease: Lease, request: &OutgoingRequest<'_>, tls: bool, body: &Body) -> Option<Stream> {
    let length = body.remaining().filter(|bytes| *bytes > 0).map_or(WireLength::Absent, WireLength::Known);
    lease.open(body.is_empty(), request.head.method == Method::Head, |encoder, out| {
        write_request(encoder, out, request.head, request.host, tls, length);
    })
}

/// A body at hand stays with the caller for another try, one that is pulled is taken.
fn take(body: &mut Body) -> Body {
    match body {
        Body::Empty => Body::Empty,
        Body::Full(bytes) => Body::Full(bytes.clone()),
        Body::Stream(_) => std::mem::take(body),
    }
}

/// The body of a response whose head has come; what came with the head need not be pulled.
pub(super) fn finish(stream: Stream, sender: Option<Sender>, work: Work, request: &OutgoingRequest<'_>) -> Body {
    let whole = stream.with(|machine, key| match machine.remaining(key) {
        Some(0) => Some(Bytes::new()),
        _ => machine.take_whole(key),
    });
    match whole {
        Some(whole) => {
            work.complete(None);
            Body::from(whole)
        }
        None => Body::Stream(Box::new(H2Body::new(stream, sender, work, request))),
    }
}

impl Try<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, UpstreamError>> {
        if let Some(sender) = self.sender.as_mut().filter(|_| !self.broken) {
            match sender.poll(&self.stream, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.sender = None;
                    self.sent = Sent::All;
                    self.stream.deadline.clear();
                }
                Poll::Ready(Err(SendError::Body(error))) => {
                    return Poll::Ready(Err(self.fail(Reason::of_request_body(&error), "request body")));
                }
                Poll::Ready(Err(SendError::Stream)) => self.broken = true,
            }
        }
        loop {
            match self.stream.with(|machine, key| machine.poll_head(key, cx)) {
                Poll::Ready(Ok(head)) if head.status >= 200 => {
                    self.stream.deadline.clear();
                    return Poll::Ready(Ok(head));
                }
                Poll::Ready(Ok(interim)) => {
                    self.stream.deadline.clear();
                    self.interim.send(interim);
                }
                Poll::Ready(Err(lost)) => return Poll::Ready(Err(self.stream.error(lost, self.sent))),
                Poll::Pending => break,
            }
        }
        let starved = !self.broken && self.sender.as_ref().is_some_and(|sender| sender.starved);
        if starved {
            self.stream.deadline.clear();
            return Poll::Pending;
        }
        let limit = if self.sender.is_some() { self.timeouts.send } else { self.timeouts.read };
        if is_late(&mut self.stream.deadline, limit, cx) {
            return Poll::Ready(Err(self.fail(Reason::UpstreamTimeout, "no answer in time")));
        }
        Poll::Pending
    }

    fn fail(&self, reason: Reason, detail: &'static str) -> UpstreamError {
        UpstreamError::new(reason, self.sent, detail)
    }
}
