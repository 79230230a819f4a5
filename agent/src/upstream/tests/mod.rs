//! Tests against real loopback servers, each written where it is used.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clusters;
mod editions;
mod health;
mod http1;
mod http2;
mod mesh;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use heddle_xds::model::{self, Scheme, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::stats::Totals;
use super::*;
use crate::exchange::Interim;
use crate::http::{Body, BodyError, BodySource, Fields, Frame, Method, RequestHead};

/// Runs a test on one thread.
fn run<F: Future<Output = ()>>(test: F) {
    run_on(test, false);
}

/// Runs a test on one thread, with time that jumps to the next timer whenever a socket has to be waited for. Only for what ends by a timer.
fn run_paused<F: Future<Output = ()>>(test: F) {
    run_on(test, true);
}

fn run_on<F: Future<Output = ()>>(test: F, paused: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

pub(crate) fn config(edit: impl FnOnce(&mut model::Upstream)) -> Arc<model::Upstream> {
    let mut upstream = model::Upstream { label: "u".into(), retries: None, ..model::Upstream::new("upstreams/u") };
    edit(&mut upstream);
    Arc::new(upstream)
}

fn node(address: SocketAddr) -> model::Endpoint {
    model::Endpoint {
        host: address.ip().to_string().into(),
        port: address.port(),
        weight: 1,
        priority: 0,
        zone: "".into(),
        ..model::Endpoint::default()
    }
}

fn cluster(addresses: &[SocketAddr], edit: impl FnOnce(&mut model::Upstream)) -> Arc<Edition> {
    let nodes: Vec<_> = addresses.iter().copied().map(node).collect();
    Edition::first(Arc::default(), config(edit), &nodes.into(), &|_| None, heddle_node::clock::now())
}

/// A server that runs `script` for each connection, which is told its number.
async fn server<F: Future<Output = ()> + 'static>(script: impl Fn(TcpStream, usize) -> F + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        for nth in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(script(stream, nth));
        }
    });
    address
}

/// Reads up to the end of a head and gives it.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A server that answers the n-th request of each connection with the n-th text, then closes.
async fn canned(answers: &'static [&'static str]) -> SocketAddr {
    server(move |mut stream, _| async move {
        for answer in answers {
            if read_head(&mut stream).await.is_empty() {
                return;
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

fn head(method: Method, path: &str) -> RequestHead {
    RequestHead { method, path: path.into(), authority: "client.example".into(), ..RequestHead::default() }
}

/// One try with a body.
async fn send(
    pools: &Rc<Pools>,
    cluster: &Arc<Edition>,
    head: &RequestHead,
    mut body: Body,
) -> Result<UpstreamResponse, UpstreamError> {
    send_body(pools, cluster, head, &mut body).await
}

/// One try with a body that may come back.
async fn send_body(
    pools: &Rc<Pools>,
    cluster: &Arc<Edition>,
    head: &RequestHead,
    body: &mut Body,
) -> Result<UpstreamResponse, UpstreamError> {
    let target = pools.target(cluster);
    let picked = target.pick(None, &[], Seen::Never, &mut fastrand::Rng::with_seed(1), heddle_node::clock::now())?;
    let timeouts = target.config().timeouts;
    let request = OutgoingRequest { head, host: "up.example", upgrade: false, timeouts };
    pools.send(picked, &request, body, &Interim::none(), heddle_node::clock::now()).await
}

async fn get(pools: &Rc<Pools>, cluster: &Arc<Edition>) -> Result<UpstreamResponse, UpstreamError> {
    send(pools, cluster, &head(Method::Get, "/"), Body::Empty).await
}

fn totals(cluster: &Cluster) -> Totals {
    cluster.report()[0].totals
}

/// The far end of a request body: what is put in comes out of the body. Dropping it without `finish` is a client that leaves.
struct Tap(tokio::sync::mpsc::Sender<Option<Frame>>);

struct Piped {
    frames: tokio::sync::mpsc::Receiver<Option<Frame>>,
    remaining: Option<u64>,
    ended: bool,
}

fn pipe(remaining: Option<u64>) -> (Tap, Body) {
    let (sender, frames) = tokio::sync::mpsc::channel(1);
    (Tap(sender), Body::Stream(Box::new(Piped { frames, remaining, ended: false })))
}

impl Tap {
    async fn data(&mut self, bytes: &[u8]) {
        self.0
            .send(Some(Frame::Data(Bytes::copy_from_slice(bytes))))
            .await
            .unwrap_or_else(|_| panic!("the body is not read any more"));
    }

    async fn finish(self, trailers: Option<Fields>) {
        if let Some(trailers) = trailers {
            let _ = self.0.send(Some(Frame::Trailers(Box::new(trailers)))).await;
        }
        let _ = self.0.send(None).await;
    }
}

impl BodySource for Piped {
    fn poll_frame(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.frames.poll_recv(cx).map(|frame| match frame {
            Some(Some(frame)) => Some(Ok(frame)),
            Some(None) => {
                self.ended = true;
                None
            }
            None => Some(Err(BodyError::Aborted)),
        })
    }

    fn remaining(&self) -> Option<u64> {
        self.remaining
    }
}
