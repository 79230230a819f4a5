//! The seam between a connection and what answers its requests: listeners call it, the pipeline implements it. It knows neither.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use heddle_xds::model::Listener;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{ConnectionInfo, Destination, Reason};
use crate::http::{Body, Heard, Name, RequestHead, ResponseHead, grpc, reason_phrase};

/// Most bytes of a body that become the message of an answer of gRPC. Each may take three in the field, and clients bound their fields.
const MOST_WORDS: usize = 1024;

/// What answers requests; one per worker.
pub trait Service: 'static {
    /// Answers one request. It may return before the request body has been read, and may go on reading it while the response body is pulled.
    /// Dropping the future, or the returned body, means that the client is gone: upstream work ends with it.
    fn call(&self, connection: &Rc<ConnectionInfo>, call: Call) -> impl Future<Output = Response>;

    /// Answers a CONNECT that a listener has made for a connection whose bytes nobody looks into. `far` is the connection to where it leads, when that was
    /// made to find out who speaks first.
    fn tunnel(
        &self,
        connection: &Rc<ConnectionInfo>,
        call: Call,
        far: Option<Box<dyn Tunnel>>,
    ) -> impl Future<Output = Response> {
        drop(far);
        self.call(connection, call)
    }

    /// How a connection of the application beside this node is to be read, and where it goes as far as that is known before its first byte.
    fn reading(&self, destination: &Destination) -> impl Future<Output = (Destination, Reading)> {
        std::future::ready((destination.clone(), Reading::Http))
    }

    /// Whether this authority (host and optional port) names a service of the mesh.
    fn leads(&self, authority: &str) -> impl Future<Output = bool> {
        std::future::ready(!authority.is_empty())
    }

    /// Which service of the mesh a CONNECT to a proxy names by its authority, and how what comes within is to be read; `None` where it names none that can be
    /// called.
    fn within(&self, _authority: &str) -> impl Future<Output = Option<(Destination, Reading)>> {
        std::future::ready(None)
    }

    /// Connects to where opaque bytes of the application go, before it is known whether that is needed.
    fn dial(&self, destination: &Destination) -> impl Future<Output = Option<Box<dyn Tunnel>>> {
        std::future::ready((destination == &Destination::Host).then_some(None).flatten())
    }

    /// What the newest configuration says of a listener for which it speaks alone.
    fn listener(&self, _name: &str) -> Option<Arc<Listener>> {
        None
    }

    /// It was found out what a connection of the application speaks, by its first bytes; `port` is the one that it has called.
    fn detected(&self, _port: u16, _protocol: &'static str) {}

    /// A request was refused before it was complete enough to be served; for logs and counters. `head` holds what could be read of it.
    fn refused(&self, connection: &Rc<ConnectionInfo>, head: &RequestHead, reason: Reason);
}

/// How a connection is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As HTTP.
    Http,
    /// Not at all: its bytes go through as they are.
    Bytes,
    /// By what comes first, from whichever side.
    First,
}

/// One request as a connection hands it over.
pub struct Call {
    /// The validated head. Boxed, since it goes through many hands.
    pub head: Box<RequestHead>,
    /// The body. Pulling it makes the client send: `100 Continue` goes out, windows open.
    pub body: Body,
    /// Whether the client asks to leave HTTP (`Upgrade` with `Connection: upgrade` and HTTP/1.1, or an extended CONNECT): then
    /// [`Response::upgrade`] may be used.
    pub wants_upgrade: bool,
    /// Takes interim responses.
    pub interim: Interim,
    /// When the first byte of the request was read.
    pub started: Instant,
    /// The same in Unix milliseconds.
    pub started_ms: u64,
}

/// What is sent to the client.
#[derive(Default)]
pub struct Response {
    /// Final status and fields. The connection owns the framing: `Transfer-Encoding` and `Connection` are replaced; `Content-Length` is
    /// taken as the length of the body where its length is not known otherwise, and stays in answers to HEAD and in 304.
    pub head: ResponseHead,
    /// The body; not sent where a response has none (HEAD, 204, 304).
    pub body: Body,
    /// With status 101 (or 2xx to an extended CONNECT): the other side of the tunnel. `Connection: upgrade` is added to a 101.
    pub upgrade: Option<Box<dyn Tunnel>>,
    /// Nobody has said that what goes through the tunnel is bytes: where it is noted what the application turns out to speak.
    pub doubt: Option<Arc<Heard>>,
    /// Why the head is ours rather than the upstream's, for the counters of the connection.
    pub reason: Reason,
    /// Closes the connection behind this response.
    pub close: bool,
    /// Told exactly once how the sending ended.
    pub ending: Option<Box<dyn Ending>>,
}

/// Told how the sending of a response ended. One object per request, so that a log line needs no second allocation.
pub trait Ending {
    /// Called once. May give the buffers of the request head back for the next request of the connection.
    fn ended(self: Box<Self>, sent: Sent) -> Option<Box<RequestHead>>;
}

/// What became of a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Body bytes written to the client (tunnel bytes included).
    pub sent: u64,
    /// Body bytes read from the client (tunnel bytes included).
    pub received: u64,
    /// `Reason::None` when complete; `ClientClosed` when the client went away or stalled, `UpstreamReset` and others when the body broke off.
    pub reason: Reason,
}

/// The far side of an upgraded connection.
pub trait Tunnel: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Tunnel for T {}

/// Takes interim (1xx) responses of one request; they are sent at once when the client understands them.
#[derive(Clone, Default)]
pub struct Interim {
    queue: Option<Rc<InterimQueue>>,
}

/// Interim responses on their way to the client; the connection's end of [`Interim`].
#[derive(Default)]
pub struct InterimQueue {
    heads: RefCell<VecDeque<ResponseHead>>,
    waker: Cell<Option<Waker>>,
}

/// Most interim responses that wait for a slow client; more are dropped, since they are only hints.
const MAX_WAITING: usize = 8;

impl Interim {
    /// One whose interim responses go to `queue`.
    pub fn to(queue: &Rc<InterimQueue>) -> Interim {
        Interim { queue: Some(queue.clone()) }
    }

    /// One that drops what it takes (HTTP/1.0 knows no interim responses).
    pub fn none() -> Interim {
        Interim::default()
    }

    /// Sends an interim response, for example 103. `100 Continue` and 101 are the connection's own and are dropped here.
    pub fn send(&self, head: ResponseHead) {
        let Some(queue) = &self.queue else { return };
        if !(102..200).contains(&head.status) {
            return;
        }
        let mut heads = queue.heads.borrow_mut();
        if heads.len() < MAX_WAITING {
            heads.push_back(head);
        }
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

impl InterimQueue {
    /// The next one to send.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<ResponseHead> {
        match self.heads.borrow_mut().pop_front() {
            Some(head) => Poll::Ready(head),
            None => {
                self.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// The next one, if one waits.
    pub fn take(&self) -> Option<ResponseHead> {
        self.heads.borrow_mut().pop_front()
    }

    /// Forgets what waits; called before the next request.
    pub fn clear(&self) {
        self.heads.borrow_mut().clear();
        self.waker.set(None);
    }
}

impl Response {
    /// A response of ours for a reason, without an ending.
    pub fn of(reason: Reason) -> Response {
        let answer = super::Answer::of(reason);
        Response { head: answer.head, body: Body::from(answer.body), reason, ..Response::default() }
    }

    /// The same, in the words of gRPC where a call of it is answered.
    pub fn told(reason: Reason, calls_grpc: bool) -> Response {
        let mut response = Response::of(reason);
        if calls_grpc {
            response.tell_grpc();
        }
        response
    }

    /// Says a refusal or failure of ours in the words of gRPC, all of it in the head: clients of gRPC read no other answer, and no body of one. What was
    /// successful, or is the upstream's, stays.
    pub fn tell_grpc(&mut self) {
        if self.is_refusal() {
            let words = words(&self.head, &std::mem::take(&mut self.body));
            grpc::answer(&mut self.head, &words);
            if self.reason == Reason::UpstreamTimeout {
                grpc::tell_late(&mut self.head);
            }
        }
    }

    fn is_refusal(&self) -> bool {
        self.reason != Reason::None && self.head.status >= 400 && self.upgrade.is_none()
    }
}

/// What an answer says, in few words; that of its status where its body says nothing that could be read in a line.
fn words(head: &ResponseHead, body: &Body) -> Vec<u8> {
    let is_page = head.fields.get_known(Name::ContentType).is_some_and(|kind| kind.starts_with(b"text/html"));
    let Body::Full(bytes) = body else { return reason_phrase(head.status).into() };
    if is_page {
        return reason_phrase(head.status).into();
    }
    let beginning = &bytes[..bytes.len().min(MOST_WORDS)];
    let told: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(beginning).ok();
    let said = told.as_ref().and_then(|told| ["error_msg", "message"].into_iter().find_map(|name| told.get(name)?.as_str()));
    said.map_or_else(|| beginning.trim_ascii().to_vec(), |said| said.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::Answer;
    use super::*;

    #[test]
    fn clients_of_grpc_are_told_in_their_words_and_of_failures_alone() {
        let told = |answer: Answer| {
            let mut response =
                Response { head: answer.head, body: Body::from(answer.body), reason: answer.reason, ..Response::default() };
            response.tell_grpc();
            let said = |name: &str| response.head.fields.get_str(name).map(str::to_owned);
            (response.head.status, said("grpc-status"), said("grpc-message"), response.body.is_empty())
        };
        let text = |status, text| Answer::text(status, text, Reason::Plugin);
        let json = serde_json::json!({ "message": "Missing API key" });
        let mut page = text(503, "<h1>sorry</h1>");
        page.head.fields.set("content-type", "text/html; charset=utf-8");
        for (answer, code, message) in [
            (Answer::of(Reason::NoRoute), "12", "404 Route Not Found"),
            (Answer::of(Reason::Policy), "7", "403 Forbidden: refused by an authorization policy"),
            (Answer::json(401, &json, Reason::Plugin), "16", "Missing API key"),
            (text(429, "slow down\n"), "8", "slow down"),
            (Answer::empty(413, Reason::Plugin), "2", "Payload Too Large"),
            (Answer::empty(503, Reason::Answered), "14", "Service Unavailable"),
            (Answer::of(Reason::UpstreamTimeout), "4", "504 Gateway Timeout"),
            (Answer::of(Reason::UpstreamReset), "14", "502 Bad Gateway"),
            (Answer::empty(504, Reason::Plugin), "14", "Gateway Timeout"),
            (page, "14", "Service Unavailable"),
        ] {
            assert_eq!(told(answer), (200, Some(code.to_owned()), Some(message.to_owned()), true));
        }
        for answer in [Answer::text(200, "mocked", Reason::Answered), Answer::text(302, "there", Reason::Answered)] {
            assert_eq!(told(answer.clone()), (answer.head.status, None, None, false));
        }
        assert_eq!(told(Answer { reason: Reason::None, ..text(503, "the upstream's") }).0, 503);
    }

    #[test]
    fn only_real_interim_responses_pass_and_the_queue_is_bounded() {
        let queue = Rc::new(InterimQueue::default());
        let interim = Interim::to(&queue);
        for status in [100, 101, 200] {
            interim.send(ResponseHead::new(status));
        }
        assert!(queue.take().is_none());
        for _ in 0..MAX_WAITING + 3 {
            interim.send(ResponseHead::new(103));
        }
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), MAX_WAITING);
    }
}
