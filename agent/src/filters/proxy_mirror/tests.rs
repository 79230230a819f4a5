//! Tests of `proxy-mirror`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::super::Filter;
use super::super::testing::{faults, filter, passes};
use crate::exchange::testing::request;
use crate::exchange::{ConnectionInfo, ConsumerInfo, Directory, Dispatched, Exchange, Inner};
use crate::http::{Body, BodyError, BodySource, Frame, ResponseHead};

/// A mirror that tells what comes, and answers when `answers`.
async fn mirror(answers: bool) -> (SocketAddr, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = unbounded_channel();
    tokio::task::spawn_local(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let mut one = [0; 1024];
            while !is_whole(&bytes) {
                match stream.read(&mut one).await {
                    Ok(read) if read > 0 => bytes.extend_from_slice(&one[..read]),
                    _ => break,
                }
            }
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
            if answers {
                let _ = stream.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            } else {
                open.push(stream);
            }
        }
    });
    (address, received)
}

fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(20);
    tokio::task::LocalSet::new().block_on(&runtime, async { tokio::time::timeout(limit, test).await.unwrap() });
}

fn mirroring(address: SocketAddr, more: Value) -> Arc<dyn Filter> {
    let mut config = json!({"host": format!("http://{address}")});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    filter("proxy-mirror", &config)
}

/// Takes a request through the filter as the pipeline does, and reads its body as an upstream would.
async fn go(filter: &Arc<dyn Filter>, mut x: Exchange, body: Body) -> Exchange {
    x.body = body;
    assert!(passes(filter.access(&mut x)));
    let mut body = std::mem::take(&mut x.body);
    assert!(passes(filter.before_proxy(&mut x)));
    while let Some(Ok(_)) = body.frame().await {}
    assert!(passes(filter.before_proxy(&mut x)), "a second try");
    x
}

async fn counted(filter: &Arc<dyn Filter>, event: &str, count: u64) {
    while filter.counters().iter().find(|(name, _)| *name == event).unwrap().1 < count {
        tokio::task::yield_now().await;
    }
}

struct Pieces(VecDeque<&'static str>, bool);

impl BodySource for Pieces {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::Data(Bytes::from_static(piece.as_bytes())))))
    }

    fn remaining(&self) -> Option<u64> {
        self.1.then(|| self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

fn pieces(pieces: &[&'static str], length_known: bool) -> Body {
    Body::Stream(Box::new(Pieces(pieces.iter().copied().collect(), length_known)))
}

#[test]
fn copies_are_like_the_requests_that_go_upstream() {
    run(async {
        let (address, mut mirrored) = mirror(true).await;
        let filter = mirroring(address, json!({}));
        go(&filter, request("GET", "h.example", "/a?b=c", &[("X-A", "1")]), Body::Empty).await;
        let copy = mirrored.recv().await.unwrap();
        assert!(copy.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{copy}");
        let lower = copy.to_ascii_lowercase();
        assert!(lower.contains("\r\nhost: h.example\r\n") && lower.contains("\r\nx-a: 1\r\n"), "{copy}");
        for body in [pieces(&["ab", "cd"], true), pieces(&["ab", "cd"], false), Body::from(Bytes::from_static(b"abcd"))] {
            go(&filter, request("POST", "h", "/", &[]), body).await;
            let copy = mirrored.recv().await.unwrap();
            assert!(copy.starts_with("POST / HTTP/1.1\r\n") && copy.ends_with("\r\n\r\nabcd"), "{copy}");
        }
        counted(&filter, "sent", 4).await;
        assert_eq!(filter.counters(), [("sent", 4), ("failed", 0), ("dropped", 0), ("too_large", 0)]);
        assert!(mirrored.try_recv().is_err(), "each request once");
    });
}

#[test]
fn paths_stand_instead_or_before() {
    run(async {
        let (address, mut mirrored) = mirror(true).await;
        for (more, expected) in [
            (json!({"path": "/m"}), "GET /m?b=c "),
            (json!({"path": "/m", "path_concat_mode": "prefix"}), "GET /m/a?b=c "),
            (json!({"path": "/m/", "path_concat_mode": "prefix"}), "GET /m/a?b=c "),
        ] {
            go(&mirroring(address, more), request("GET", "h", "/a?b=c", &[]), Body::Empty).await;
            let copy = mirrored.recv().await.unwrap();
            assert!(copy.starts_with(expected), "{copy}");
        }
        let mut x = request("GET", "h", "/", &[]);
        x.host_override = Some("inner".into());
        go(&mirroring(address, json!({})), x, Body::Empty).await;
        assert!(mirrored.recv().await.unwrap().to_ascii_lowercase().contains("host: inner\r\n"));
    });
}

#[test]
fn bodies_may_stay_behind_and_long_ones_are_not_copied() {
    run(async {
        let (address, mut mirrored) = mirror(true).await;
        let without = mirroring(address, json!({"mirror_body": false, "max_body_size": 1}));
        go(&without, request("POST", "h", "/", &[]), pieces(&["ab"], true)).await;
        let copy = mirrored.recv().await.unwrap();
        assert!(copy.ends_with("\r\n\r\n"), "{copy}");
        let short = mirroring(address, json!({"max_body_size": 3}));
        for body in [pieces(&["ab", "cd"], true), pieces(&["ab", "cd"], false), Body::from(Bytes::from_static(b"abcd"))] {
            go(&short, request("POST", "h", "/", &[]), body).await;
        }
        go(&short, request("POST", "h", "/last", &[]), pieces(&["ab", "c"], false)).await;
        assert!(mirrored.recv().await.unwrap().starts_with("POST /last "));
        counted(&short, "too_large", 3).await;
    });
}

#[test]
fn many_bodies_that_come_slowly_fill_no_memory() {
    run(async {
        let (address, mut mirrored) = mirror(true).await;
        let filter = mirroring(address, json!({"max_body_size": 4, "max_in_flight": 2}));
        let mut slow = Vec::new();
        for _ in 0..5 {
            let mut x = request("POST", "h", "/slow", &[]);
            x.body = pieces(&["abc", "d"], false);
            assert!(passes(filter.access(&mut x)) && passes(filter.before_proxy(&mut x)));
            assert!(x.body.frame().await.is_some());
            slow.push(x);
        }
        counted(&filter, "dropped", 3).await;
        slow.truncate(2);
        for mut x in slow {
            while x.body.frame().await.is_some() {}
            assert!(mirrored.recv().await.unwrap().ends_with("abcd"), "what there was room for is whole");
        }
        go(&filter, request("POST", "h", "/last", &[]), pieces(&["ab", "cd"], false)).await;
        assert!(mirrored.recv().await.unwrap().starts_with("POST /last "), "the room comes back");
    });
}

#[test]
fn requests_that_go_nowhere_are_not_copied() {
    run(async {
        let (address, mut mirrored) = mirror(true).await;
        let filter = mirroring(address, json!({}));
        let mut refused = request("GET", "h", "/refused", &[]);
        assert!(passes(filter.access(&mut refused)));
        let mut broken = request("POST", "h", "/broken", &[]);
        broken.body = pieces(&["ab", "cd"], true);
        assert!(passes(filter.access(&mut broken)));
        assert!(passes(filter.before_proxy(&mut broken)));
        assert!(broken.body.frame().await.is_some());
        drop(broken);
        let tunnel = request("GET", "h", "/tunnel", &[("Upgrade", "websocket")]);
        go(&filter, tunnel, Body::Empty).await;
        go(&filter, request("GET", "h", "/whole", &[]), Body::Empty).await;
        assert!(mirrored.recv().await.unwrap().starts_with("GET /whole "));
    });
}

#[test]
fn slow_and_dead_mirrors_lose_copies() {
    run(async {
        let (address, mut mirrored) = mirror(false).await;
        let slow = mirroring(address, json!({"max_in_flight": 1, "timeout": 0.2}));
        go(&slow, request("GET", "h", "/1", &[]), Body::Empty).await;
        mirrored.recv().await.unwrap();
        go(&slow, request("GET", "h", "/2", &[]), Body::Empty).await;
        counted(&slow, "dropped", 1).await;
        counted(&slow, "failed", 1).await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let dead = mirroring(closed, json!({}));
        go(&dead, request("GET", "h", "/", &[]), Body::Empty).await;
        counted(&dead, "failed", 1).await;
    });
}

#[test]
fn a_share_of_requests_is_copied() {
    let filter = filter("proxy-mirror", &json!({"host": "http://127.0.0.1:1", "sample_ratio": 0.3}));
    let mut chosen = 0;
    for seed in 0..1000 {
        let mut x = request("GET", "h", "/", &[]);
        x.dice = fastrand::Rng::with_seed(seed);
        assert!(passes(filter.access(&mut x)));
        chosen += u32::from(x.slot::<super::filter::Copies>("proxy-mirror").is_some());
    }
    assert!((230..370).contains(&chosen), "{chosen}");
}

/// A directory that keeps what is sent to upstreams, and answers it or not.
#[derive(Default)]
struct Upstreams {
    seen: std::cell::RefCell<Vec<(String, String, Bytes)>>,
    silent: bool,
}

impl Directory for Upstreams {
    fn find_credential(&self, _: &str, _: &[u8]) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn consumer(&self, _: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn dispatch(&self, _: Rc<ConnectionInfo>, inner: Inner) -> Dispatched {
        let head = format!("{} {}{}", inner.head.method, inner.head.authority, inner.head.target());
        assert!(!inner.head.fields.contains_known(crate::http::Name::ContentLength));
        self.seen.borrow_mut().push((inner.upstream.unwrap().to_string(), head, inner.body));
        if self.silent {
            Box::pin(std::future::pending())
        } else {
            Box::pin(std::future::ready(Ok((ResponseHead::new(500), Bytes::new()))))
        }
    }
}

#[test]
fn upstreams_of_this_node_get_copies_like_any_request() {
    run(async {
        let config = json!({"upstream_id": "mesh/shop/web", "path": "/v2", "path_concat_mode": "prefix", "max_in_flight": 1, "timeout": 0.2});
        let mirror = filter("proxy-mirror", &config);
        let at = |directory: &Rc<Upstreams>| {
            let fields = [("Content-Length", "4")];
            crate::exchange::testing::at(1, "POST", "h.example", "/a?b=c", &fields, directory.clone())
        };
        let quick = Rc::new(Upstreams::default());
        go(&mirror, at(&quick), pieces(&["ab", "cd"], true)).await;
        counted(&mirror, "sent", 1).await;
        let expected = ("mesh/shop/web".to_owned(), "POST h.example/v2/a?b=c".to_owned(), Bytes::from_static(b"abcd"));
        assert_eq!(*quick.seen.borrow(), [expected]);
        let slow = Rc::new(Upstreams { silent: true, ..Upstreams::default() });
        go(&mirror, at(&slow), Body::Empty).await;
        go(&mirror, at(&slow), Body::Empty).await;
        counted(&mirror, "dropped", 1).await;
        counted(&mirror, "failed", 1).await;
        assert_eq!(slow.seen.borrow().len(), 1, "no more than may be under way");
        go(&mirror, at(&quick), Body::Empty).await;
        counted(&mirror, "sent", 2).await;
    });
}

#[test]
fn mistakes_are_refused() {
    for (more, path) in [
        (json!({"host": "127.0.0.1:80"}), "host"),
        (json!({"host": "grpc://h:80"}), "host"),
        (json!({"host": "http://h/path"}), "host"),
        (json!({"host": "http://h/"}), "host"),
        (json!({"upstream_id": "u"}), ""),
        (json!({"path": "x"}), "path"),
        (json!({"path": "/x?y"}), "path"),
        (json!({"path_concat_mode": "suffix"}), "path_concat_mode"),
        (json!({"sample_ratio": 0}), "sample_ratio"),
        (json!({"sample_ratio": 1.1}), "sample_ratio"),
        (json!({"max_body_size": 67_108_865}), "max_body_size"),
        (json!({"timeout": 0}), "timeout"),
        (json!({"max_in_flight": 0}), "max_in_flight"),
    ] {
        let mut config = json!({"host": "http://h"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(faults("proxy-mirror", &config), [path], "{config}");
    }
    for (config, path) in [
        (json!({}), ""),
        (json!({"upstream_id": true}), "upstream_id"),
        (json!({"upstream": 1}), "upstream"),
        (json!({"upstream_id": "a", "upstream": {}}), ""),
    ] {
        assert_eq!(faults("proxy-mirror", &config), [path], "{config}");
    }
}
