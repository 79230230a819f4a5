//! Sending one response on a stream, as fast as the client's windows open. It knows no other stream.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason as Code, SendStream};
use heddle_node::clock;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::super::counters::Count;
use super::super::guard::{Caught, body_reason, catch_poll};
use super::super::length::{Length, is_bodiless, response_length};
use super::super::site::{Link, Worker};
use super::super::tunnel::join;
use super::body::Respond;
use super::stream::Asked;
use super::tunnel::StreamTunnel;
use crate::exchange::{Reason, Response, Sent, Service, Tunnel};
use crate::http::h1::is_trailer_allowed;
use crate::http::{Body, Fields, Frame, Name, ResponseHead};
use crate::net::Deadline;

/// Sends a response to its end and tells its ending.
pub(super) async fn respond<S: Service>(
    worker: &Worker<S>,
    link: &Link,
    send: &Respond,
    mut response: Response,
    mut asked: Asked,
) {
    let ending = response.ending.take();
    let received = asked.received.clone();
    let tunnel = response.upgrade.take().filter(|_| matches!(response.head.status, 101 | 200..=299));
    let mut sent = match (tunnel, asked.tunnel.take()) {
        (Some(far), Some(recv)) => tunnelled(worker, link, send, &response.head, far, recv).await,
        _ => plain(worker, link, send, response, asked.is_head).await,
    };
    sent.received += received.get();
    if let Some(ending) = ending {
        // Heads of streams are not used again: many live at a time.
        let _ = ending.ended(sent);
    }
}

async fn tunnelled<S: Service>(
    worker: &Worker<S>,
    link: &Link,
    send: &Respond,
    head: &ResponseHead,
    far: Box<dyn Tunnel>,
    recv: h2::RecvStream,
) -> Sent {
    // HTTP/2 knows no 101 (RFC 8441 section 5).
    let head = ResponseHead { status: if head.status == 101 { 200 } else { head.status }, fields: head.fields.clone() };
    let head = final_head(&head, Length::Open, worker);
    let stream = send.borrow_mut().send_response(head, false);
    let Ok(stream) = stream else { return Sent { reason: Reason::ClientClosed, ..Sent::default() } };
    let mut near = StreamTunnel { recv, send: stream, held: Bytes::new() };
    let sent = join(&mut near, far, link.site.limits().idle_timeout).await;
    if sent.reason != Reason::None {
        near.reset();
    }
    sent
}

async fn plain<S: Service>(worker: &Worker<S>, link: &Link, send: &Respond, response: Response, is_head: bool) -> Sent {
    let Response { mut head, mut body, .. } = response;
    if head.status < 200 {
        // A final response must not look like an interim one.
        let internal = Response::of(Reason::Internal);
        (head, body) = (internal.head, internal.body);
    }
    let length = response_length(&head, &body, is_head);
    let ended = is_bodiless(&head, is_head) || body.is_empty();
    let stream = send.borrow_mut().send_response(final_head(&head, length, worker), ended);
    let Ok(stream) = stream else { return Sent { reason: Reason::ClientClosed, ..Sent::default() } };
    if ended {
        return Sent::default();
    }
    let mut pump = Pump {
        stream,
        body,
        announced: if let Length::Known(bytes) = length { Some(bytes) } else { None },
        piece: Bytes::new(),
        sent: 0,
        ended: false,
        sending: Deadline::none(),
        timeout: link.site.limits().send_timeout,
    };
    let result = std::future::poll_fn(|cx| match catch_poll(|| pump.poll(cx)) {
        Caught::Polled(polled) => polled,
        Caught::Panic => {
            worker.counters.add(Count::Panics);
            Poll::Ready(Err(Failed { reason: Reason::Internal, code: Code::INTERNAL_ERROR }))
        }
    })
    .await;
    if let Err(failed) = result {
        if failed.code == Code::CANCEL {
            worker.counters.add(Count::TimedOut);
        }
        pump.stream.send_reset(failed.code);
    }
    Sent { sent: pump.sent, received: 0, reason: result.err().map_or(Reason::None, |failed| failed.reason) }
}

/// A response body on its way.
struct Pump {
    stream: SendStream<Bytes>,
    body: Body,
    announced: Option<u64>,
    piece: Bytes,
    sent: u64,
    ended: bool,
    sending: Deadline,
    timeout: Duration,
}

/// Why a response was not sent to its end.
#[derive(Debug, Clone, Copy)]
struct Failed {
    reason: Reason,
    code: Code,
}

const GONE: Failed = Failed { reason: Reason::ClientClosed, code: Code::NO_ERROR };
const STALLED: Failed = Failed { reason: Reason::ClientClosed, code: Code::CANCEL };

impl Pump {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        loop {
            if !self.piece.is_empty() {
                ready!(self.poll_piece(cx))?;
                continue;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            match self.body.poll_frame(cx) {
                Poll::Pending => return self.stream.poll_reset(cx).map(|_| Err(GONE)),
                Poll::Ready(Some(Ok(Frame::Data(bytes)))) => {
                    self.sent += bytes.len() as u64;
                    if self.announced.is_some_and(|announced| self.sent > announced) {
                        return Poll::Ready(Err(Failed { reason: Reason::UpstreamProtocol, code: Code::INTERNAL_ERROR }));
                    }
                    self.piece = bytes;
                }
                Poll::Ready(Some(Ok(Frame::Trailers(fields)))) => return Poll::Ready(self.end(Some(&*fields))),
                Poll::Ready(None) => return Poll::Ready(self.end(None)),
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(Failed { reason: body_reason(&error), code: Code::INTERNAL_ERROR }));
                }
            }
        }
    }

    /// Hands the piece over as the client's windows open. One whose window stays shut is reset: it holds memory for nothing.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        while !self.piece.is_empty() {
            self.stream.reserve_capacity(self.piece.len());
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(0))) => {}
                Poll::Ready(Some(Ok(room))) => {
                    self.sending.clear();
                    let part = self.piece.split_to(room.min(self.piece.len()));
                    let whole = self.piece.is_empty() && self.announced == Some(self.sent) && self.body.is_empty();
                    self.stream.send_data(part, whole).map_err(|_| GONE)?;
                    self.ended = whole;
                }
                Poll::Ready(_) => return Poll::Ready(Err(GONE)),
                Poll::Pending => {
                    if self.stream.poll_reset(cx).is_ready() {
                        return Poll::Ready(Err(GONE));
                    }
                    self.sending.set_once(|| clock::now() + self.timeout);
                    return self.sending.poll_passed(cx).map(|()| Err(STALLED));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, trailers: Option<&Fields>) -> Result<(), Failed> {
        if self.announced.is_some_and(|announced| self.sent < announced) {
            return Err(Failed { reason: Reason::UpstreamReset, code: Code::INTERNAL_ERROR });
        }
        let done = match trailers {
            Some(fields) => self.stream.send_trailers(map_of(fields, is_trailer_allowed)),
            None => self.stream.send_data(Bytes::new(), true),
        };
        done.map_err(|_| GONE)
    }
}

/// An interim head as the library takes it.
pub(super) fn informational(head: &ResponseHead) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::PROCESSING);
    *response.headers_mut() = map_of(&head.fields, |id, _| id != Name::ContentLength && !id.is_hop_by_hop());
    response
}

fn final_head<S>(head: &ResponseHead, length: Length, worker: &Worker<S>) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut fields = map_of(&head.fields, |id, _| {
        (length == Length::AsStated || id != Name::ContentLength) && (!id.is_hop_by_hop() || id == Name::ProxyAuthenticate)
    });
    if let Length::Known(bytes) = length {
        fields.insert(http::header::CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    if !fields.contains_key(http::header::DATE)
        && let Ok(date) = HeaderValue::from_bytes(&worker.dates.at(clock::unix_ms() / 1000))
    {
        fields.insert(http::header::DATE, date);
    }
    *response.headers_mut() = fields;
    response
}

/// Fields as the library takes them; one that is no valid field is left out.
fn map_of(fields: &Fields, keep: impl Fn(Name, &[u8]) -> bool) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len() + 2);
    for field in fields.iter().filter(|field| keep(field.id, field.name)) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value)) {
            map.append(name, value);
        }
    }
    map
}
