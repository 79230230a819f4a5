//! One try on one HTTP/2 stream, up to the response head.

use std::task::{Context, Poll};

use h2::RecvStream;
use h2::client::ResponseFuture;
use heddle_xds::model::Timeouts;
use tokio::time::{Instant, timeout_at};

use super::body::H2Body;
use super::convert;
use super::send::{SendError, Sender};
use super::session::{Stream, checkout};
use crate::exchange::{Interim, Reason};
use crate::http::{Body, ResponseHead};
use crate::net::Deadline;
use crate::upstream::connect::after;
use crate::upstream::h1::is_late;
use crate::upstream::pools::{Outcome, Work};
use crate::upstream::target::Picked;
use crate::upstream::{OutgoingRequest, Sent, UpstreamError, UpstreamResponse};

/// Connections that turn out to be closing before the stream was opened, beyond which we stop looking for a better one.
const MAX_CLOSING: u32 = 3;

/// Most interim responses before the final one.
const MAX_INTERIM: u32 = 32;

struct Try<'a> {
    response: ResponseFuture,
    sender: Option<Sender>,
    /// The stream takes no more of the request; its answer says why.
    broken: bool,
    sent: Sent,
    deadline: Deadline,
    timeouts: Timeouts,
    interim: &'a Interim,
    interims: u32,
}

/// Sends a request and waits for the response head.
pub(in crate::upstream) async fn send(
    picked: Picked,
    request: &OutgoingRequest<'_>,
    body: &mut Body,
    interim: &Interim,
    start: Instant,
) -> Outcome {
    if request.upgrade {
        let detail = "an upgrade cannot be asked for over HTTP/2";
        return Err((picked, UpstreamError::new(Reason::NotImplemented, Sent::Nothing, detail)));
    }
    let head = match convert::request(request, picked.spec().config.scheme.is_tls(), body) {
        Ok(head) => head,
        Err(detail) => return Err((picked, UpstreamError::new(Reason::BadRequest, Sent::Nothing, detail))),
    };
    let mut closing = 0;
    loop {
        let (stream, connect, reused) = match checkout(&picked, request, start).await {
            Ok(ready) => ready,
            Err(error) => return Err((picked, error)),
        };
        let opened = match timeout_at(after(start, request.timeouts.connect), stream.requests().ready()).await {
            Ok(Ok(mut requests)) => requests.send_request(head.clone(), body.is_empty()),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                return Err((picked, UpstreamError::new(Reason::UpstreamTimeout, Sent::Nothing, "no stream was free in time")));
            }
        };
        let (response, out) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                stream.give_up();
                closing += 1;
                if closing < MAX_CLOSING {
                    continue;
                }
                return Err((picked, convert::error(&error, Sent::Nothing)));
            }
        };
        let sender = (!body.is_empty()).then(|| Sender::new(out, take(body)));
        let sent = if sender.is_some() { Sent::Partial } else { Sent::All };
        let deadline = Deadline::default();
        let mut this = Try { response, sender, broken: false, sent, deadline, timeouts: request.timeouts, interim, interims: 0 };
        return match std::future::poll_fn(|cx| this.poll(cx)).await {
            Ok((head, recv)) => {
                let header = picked.head_came(head.status, start, heddle_node::clock::now());
                let sender = this.sender.filter(|_| !this.broken);
                let body = finish(recv, sender, stream, Work::new(picked), request.timeouts);
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

/// A body at hand stays with the caller for another try, one that is pulled is taken.
fn take(body: &mut Body) -> Body {
    match body {
        Body::Empty => Body::Empty,
        Body::Full(bytes) => Body::Full(bytes.clone()),
        Body::Stream(_) => std::mem::take(body),
    }
}

fn finish(recv: RecvStream, sender: Option<Sender>, stream: Stream, work: Work, timeouts: Timeouts) -> Body {
    if recv.is_end_stream() {
        work.complete(None);
        return Body::Empty;
    }
    Body::Stream(Box::new(H2Body::new(recv, sender, stream, work, timeouts)))
}

impl Try<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(ResponseHead, RecvStream), UpstreamError>> {
        if let Some(sender) = self.sender.as_mut().filter(|_| !self.broken) {
            match sender.poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    self.sender = None;
                    self.sent = Sent::All;
                    self.deadline.clear();
                }
                Poll::Ready(Err(SendError::Body(error))) => {
                    return Poll::Ready(Err(self.fail(Reason::of_request_body(&error), "request body")));
                }
                Poll::Ready(Err(SendError::Stream)) => self.broken = true,
            }
        }
        while let Poll::Ready(Some(Ok(interim))) = self.response.poll_informational(cx) {
            self.deadline.clear();
            self.interims += 1;
            if self.interims > MAX_INTERIM {
                return Poll::Ready(Err(self.fail(Reason::UpstreamProtocol, "too many interim responses")));
            }
            self.interim.send(convert::response(interim.status(), interim.headers()));
        }
        if let Poll::Ready(answer) = std::pin::Pin::new(&mut self.response).poll(cx) {
            return Poll::Ready(match answer {
                Ok(answer) => {
                    let (parts, recv) = answer.into_parts();
                    Ok((convert::response(parts.status, &parts.headers), recv))
                }
                Err(error) => Err(convert::error(&error, self.sent)),
            });
        }
        let starved = !self.broken && self.sender.as_ref().is_some_and(|sender| sender.starved);
        if starved {
            self.deadline.clear();
            return Poll::Pending;
        }
        let limit = if self.sender.is_some() { self.timeouts.send } else { self.timeouts.read };
        if is_late(&mut self.deadline, limit, cx) {
            return Poll::Ready(Err(self.fail(Reason::UpstreamTimeout, "no answer in time")));
        }
        Poll::Pending
    }

    fn fail(&self, reason: Reason, detail: &'static str) -> UpstreamError {
        UpstreamError::new(reason, self.sent, detail)
    }
}
