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
use crate::http::{Body, Heard, RequestHead, ResponseHead};

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
}

#[cfg(test)]
mod tests {
    use super::*;

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
