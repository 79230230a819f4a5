//! What tests of this room share: a service made of a closure, and connections without sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use heddle_node::clock::{self, Instant};
use heddle_xds::model::{EdgeLimits, ForwardedTrust, Listener, ListenerProtocol, PathPolicy, ProxyProtocol, ServerHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{JoinHandle, LocalSet};

use super::site::{Drain, Link, Site, Worker};
use super::{Count, Entry, ListenFault, Listeners, Shared, Wanted};
use crate::exchange::{Call, ConnectionInfo, Reason, Response, Service};
use crate::http::digits::AddressText;
use crate::http::{Body, BodyError, BodySource, Frame, RequestHead, ResponseHead};
use crate::net::Io;

pub(super) type Answering = Pin<Box<dyn Future<Output = Response>>>;

/// A service made of a closure; it keeps what was refused.
pub(super) struct Fake {
    answer: Box<dyn Fn(Rc<ConnectionInfo>, Call) -> Answering>,
    pub(super) refused: Rc<RefCell<Vec<Reason>>>,
    /// What the configuration says of each listener, before anybody is woken for it.
    pub(super) newest: RefCell<Option<Arc<Listener>>>,
}

impl Fake {
    pub(super) fn new<F: Future<Output = Response> + 'static>(answer: impl Fn(Call) -> F + 'static) -> Fake {
        Fake { answer: Box::new(move |_, call| Box::pin(answer(call))), refused: Rc::default(), newest: RefCell::default() }
    }

    /// Answers with what `tell` says of the connection.
    pub(super) fn telling(tell: impl Fn(&ConnectionInfo) -> String + 'static) -> Fake {
        Fake {
            answer: Box::new(move |info, _| {
                let said = tell(&info);
                Box::pin(async move { text(200, said) })
            }),
            refused: Rc::default(),
            newest: RefCell::default(),
        }
    }

    /// Answers with method, authority, path and the body.
    pub(super) fn echo() -> Fake {
        Fake::new(|call: Call| async move {
            let start = format!("{} {}{} ", call.head.method, call.head.authority, call.head.target());
            match call.body.collect(1 << 20).await {
                Ok(body) => text(200, [start.as_bytes(), &body].concat()),
                Err(error) => text(400, error.to_string()),
            }
        })
    }

    /// Answers at once with `events` of them, one every `every`, while the client may say more.
    pub(super) fn watched(events: u32, every: Duration) -> Fake {
        Fake::new(move |call: Call| async move {
            let next = Box::pin(tokio::time::sleep(every));
            let body = Body::Stream(Box::new(Watch { request: call.body, next, every, left: events }));
            Response { head: ResponseHead::new(200), body, ..Response::default() }
        })
    }
}

/// An answer that goes on while its request is waited for.
struct Watch {
    request: Body,
    next: Pin<Box<tokio::time::Sleep>>,
    every: Duration,
    left: u32,
}

impl BodySource for Watch {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Poll::Ready(Some(Err(error))) = self.request.poll_frame(cx) {
            return Poll::Ready(Some(Err(BodyError::Request(Box::new(error)))));
        }
        if self.left == 0 {
            return Poll::Pending;
        }
        ready!(self.next.as_mut().poll(cx));
        self.next = Box::pin(tokio::time::sleep(self.every));
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::Data(Bytes::from_static(b"event")))))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

impl Service for Fake {
    fn call(&self, info: &Rc<ConnectionInfo>, call: Call) -> impl Future<Output = Response> {
        (self.answer)(info.clone(), call)
    }
    fn listener(&self, _: &str) -> Option<Arc<Listener>> {
        self.newest.borrow().clone()
    }
    fn refused(&self, _: &Rc<ConnectionInfo>, _: &RequestHead, reason: Reason) {
        self.refused.borrow_mut().push(reason);
    }
}

pub(super) fn text(status: u16, body: impl Into<Vec<u8>>) -> Response {
    Response { head: ResponseHead::new(status), body: Body::from(Bytes::from(body.into())), ..Response::default() }
}

pub(super) fn listener(limits: EdgeLimits) -> Listener {
    Listener {
        name: "test".into(),
        address: "127.0.0.1:0".parse().unwrap(),
        protocol: ListenerProtocol::Http,
        proxy_protocol: ProxyProtocol::Off,
        forwarded: ForwardedTrust::default(),
        limits,
        paths: PathPolicy::default(),
        server_header: ServerHeader::default(),
        expose_reason: true,
        nodes: Vec::new(),
        tcp: Vec::new(),
    }
}

pub(super) fn link(limits: EdgeLimits) -> Link {
    let info = ConnectionInfo {
        id: 1,
        listener: "test".into(),
        peer: "192.0.2.1:1000".parse().unwrap(),
        peer_text: AddressText::of("192.0.2.1:1000".parse().unwrap()),
        transport_peer: "192.0.2.1:1000".parse().unwrap(),
        local: "192.0.2.2:80".parse().unwrap(),
        tls: None,
        door: crate::exchange::Door::Gateway,
        inner: false,
    };
    let site = Rc::new(Site::new(Arc::new(listener(limits)), Entry::Gateway, Rc::new(Drain::default())));
    Link { site, info: Rc::new(info), identity: None }
}

/// A client of a connection that is being served.
pub(super) struct Client {
    pub(super) stream: DuplexStream,
    pub(super) served: JoinHandle<()>,
    pub(super) worker: Rc<Worker<Fake>>,
    pub(super) drain: Rc<Drain>,
    pub(super) refused: Rc<RefCell<Vec<Reason>>>,
}

fn serve(fake: Fake, limits: EdgeLimits, protocol: impl AsyncFnOnce(Rc<Worker<Fake>>, Link, Io, Instant) + 'static) -> Client {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let refused = fake.refused.clone();
    let worker = Rc::new(Worker::new(fake, Arc::default()));
    let link = link(limits);
    let drain = link.site.drain.clone();
    let until = clock::now() + link.site.limits().header_timeout;
    let of_task = worker.clone();
    let served = tokio::task::spawn_local(async move { protocol(of_task, link, Io::other(far), until).await });
    Client { stream: near, served, worker, drain, refused }
}

/// Serves HTTP/2 in a task of the local set.
pub(super) fn serve_h2(fake: Fake, limits: EdgeLimits) -> Client {
    serve(fake, limits, async |worker, link, io, until| super::h2::serve(&worker, &link, io, until).await)
}

/// Serves HTTP/1 in a task of the local set.
pub(super) fn serve_h1(fake: Fake, limits: EdgeLimits) -> Client {
    serve(fake, limits, async |worker, link, io, until| super::h1::serve(&*worker, &link, io, BytesMut::new(), until).await)
}

/// What is left of a client when its stream has been taken.
pub(super) struct Rest {
    pub(super) served: JoinHandle<()>,
    pub(super) worker: Rc<Worker<Fake>>,
    pub(super) drain: Rc<Drain>,
}

impl Client {
    pub(super) fn split(self) -> (DuplexStream, Rest) {
        (self.stream, Rest { served: self.served, worker: self.worker, drain: self.drain })
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// What comes until `end` does.
    pub(super) async fn until(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        while !all.ends_with(end.as_bytes()) {
            let Ok(byte) = self.stream.read_u8().await else { panic!("closed after {:?}", String::from_utf8_lossy(&all)) };
            all.push(byte);
        }
        without_date(&all)
    }

    /// All that comes.
    pub(super) async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        // A connection that breaks off ends what can be read, too.
        let _ = self.stream.read_to_end(&mut all).await;
        without_date(&all)
    }
}

fn without_date(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

/// The listeners of a worker, on real sockets.
pub(super) struct House {
    pub(super) listeners: Listeners<Fake>,
    pub(super) worker: Rc<Worker<Fake>>,
    pub(super) shared: Shared,
    first: Option<Listener>,
}

impl House {
    pub(super) fn new(fake: Fake) -> House {
        let worker = Rc::new(Worker::new(fake, Arc::default()));
        let shared = Shared::default();
        House { listeners: Listeners::new(worker.clone(), shared.clone(), Duration::from_secs(2)), worker, shared, first: None }
    }

    pub(super) fn want(&mut self, wanted: &[Listener]) -> Vec<ListenFault> {
        self.first = wanted.first().cloned().or(self.first.take());
        let wanted: Vec<Wanted> = wanted.iter().cloned().map(|listener| Wanted::gateway(Arc::new(listener))).collect();
        self.listeners.reconcile(&wanted)
    }

    /// Where the first listener that was wanted accepts.
    pub(super) fn address(&self) -> SocketAddr {
        let first = self.first.as_ref().expect("a listener is wanted first");
        self.shared.admission.address(&first.name, first.address)
    }

    pub(super) fn count(&self, count: Count) -> u64 {
        self.worker.counters.get(count)
    }
}

/// A story on real sockets.
pub(super) fn in_house<'a>(fake: Fake, story: impl AsyncFnOnce(House) + 'a) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(async move { LocalSet::new().run_until(async { story(House::new(fake)).await }).await })
}
