//! Stories of HTTP/2 connections: with a real client where it can, with raw frames where it would not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::SendRequest;
use heddle_node::clock;
use heddle_xds::model::EdgeLimits;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

use super::super::counters::Count;
use super::super::harness::{Client, Fake, serve_h2, text};
use crate::exchange::{Call, Reason, Response};
use crate::http::{Body, ResponseHead};

async fn with<T>(fake: Fake, limits: EdgeLimits, story: impl AsyncFnOnce(Client) -> T) -> T {
    LocalSet::new().run_until(async { story(serve_h2(fake, limits)).await }).await
}

async fn story<T>(fake: Fake, story: impl AsyncFnOnce(Client) -> T) -> T {
    with(fake, EdgeLimits::default(), story).await
}

/// A real client on the stream.
async fn connect(client: Client) -> (SendRequest<Bytes>, super::super::harness::Rest) {
    let (stream, rest) = client.split();
    let (send, connection) = h2::client::Builder::new().enable_push(false).handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        // The story ends when it wants; the connection breaks then.
        let _ = connection.await;
    });
    (send.ready().await.unwrap(), rest)
}

fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://A.example{path}")).body(()).unwrap()
}

async fn body(response: http::Response<h2::RecvStream>) -> String {
    let (mut stream, mut all) = (response.into_body(), Vec::new());
    while let Some(bytes) = stream.data().await {
        let bytes = bytes.unwrap();
        stream.flow_control().release_capacity(bytes.len()).unwrap();
        all.extend_from_slice(&bytes);
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test(start_paused = true)]
async fn requests_with_and_without_bodies_are_answered() {
    story(Fake::echo(), async |client| {
        let (mut send, rest) = connect(client).await;
        let (first, _) = send.send_request(get("/1?q"), true).unwrap();
        let (second, mut upload) = send.send_request(Request::post("http://a/2").body(()).unwrap(), false).unwrap();
        upload.send_data("abc".into(), false).unwrap();
        upload.send_data("def".into(), true).unwrap();
        let first = first.await.unwrap();
        assert_eq!((first.status().as_u16(), first.headers()["content-length"].to_str().unwrap()), (200, "18"));
        assert!(first.headers().contains_key("date"));
        assert_eq!(body(first).await, "GET a.example/1?q ");
        assert_eq!(body(second.await.unwrap()).await, "POST a/2 abcdef");
        assert_eq!(rest.worker.counters.get(Count::Http2Requests), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_waits_for_windows_and_arrives() {
    story(Fake::new(|_| async { text(200, vec![b'x'; 1 << 20]) }), async |client| {
        let (mut send, _rest) = connect(client).await;
        let (response, _) = send.send_request(get("/"), true).unwrap();
        assert_eq!(body(response.await.unwrap()).await.len(), 1 << 20);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_window_stays_shut_is_reset() {
    let limits = EdgeLimits { send_timeout: Duration::from_secs(30), ..EdgeLimits::default() };
    with(Fake::new(|_| async { text(200, vec![b'x'; 1 << 20]) }), limits, async |client| {
        let (mut send, rest) = connect(client).await;
        let start = clock::now();
        let (response, _) = send.send_request(get("/"), true).unwrap();
        let mut stream = response.await.unwrap().into_body();
        let error = loop {
            if let Err(error) = stream.data().await.unwrap() {
                break error;
            }
        };
        assert_eq!((error.reason(), (clock::now() - start).as_secs()), (Some(h2::Reason::CANCEL), 30));
        assert_eq!(rest.worker.counters.get(Count::TimedOut), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_listens_to_an_answer_that_goes_on_may_say_nothing_for_long() {
    let limits = EdgeLimits { body_timeout: Duration::from_secs(60), ..EdgeLimits::default() };
    for (events, lasts) in [(0, 60), (5, 240)] {
        with(Fake::watched(events, Duration::from_secs(40)), limits.clone(), async |client| {
            let (mut send, _rest) = connect(client).await;
            let start = clock::now();
            let (response, _open) = send.send_request(Request::post("http://a/watch").body(()).unwrap(), false).unwrap();
            let mut stream = response.await.unwrap().into_body();
            let mut heard = 0;
            while let Some(Ok(_)) = stream.data().await {
                heard += 1;
            }
            let took = (clock::now() - start).as_secs();
            // What moved meanwhile is looked at when the time has passed: it ends within twice of it.
            assert!(heard == events && (lasts..=lasts + 60).contains(&took), "{heard} events in {took} s");
        })
        .await;
    }
}

/// Says when it is dropped.
struct Dropped(Rc<Cell<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_stream_ends_its_work_and_no_other() {
    let dropped = Rc::new(Cell::new(false));
    let of_service = dropped.clone();
    let fake = Fake::new(move |call: Call| {
        let guard = (call.head.path == "/slow").then(|| Dropped(of_service.clone()));
        async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            drop(guard);
            text(200, "ok")
        }
    });
    story(fake, async |client| {
        let (mut send, _rest) = connect(client).await;
        let (slow, mut reset) = send.send_request(get("/slow"), true).unwrap();
        let (other, _) = send.send_request(get("/other"), true).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        reset.send_reset(h2::Reason::CANCEL);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(dropped.get());
        assert!(slow.await.is_err());
        assert_eq!(body(other.await.unwrap()).await, "ok");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn draining_says_goaway_and_lets_streams_end() {
    let fake = Fake::new(|_| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        text(200, "done")
    });
    story(fake, async |client| {
        let (mut send, rest) = connect(client).await;
        let (response, _) = send.send_request(get("/"), true).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        rest.drain.begin();
        assert_eq!(body(response.await.unwrap()).await, "done");
        rest.served.await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    story(Fake::echo(), async |client| {
        let (_send, rest) = connect(client).await;
        let start = clock::now();
        rest.served.await.unwrap();
        assert_eq!((clock::now() - start).as_secs(), 75);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_extended_connect_is_a_tunnel() {
    let fake = Fake::new(|call: Call| async move {
        assert_eq!((call.wants_upgrade, call.head.protocol.as_deref()), (true, Some("websocket")));
        let (near, mut far) = tokio::io::duplex(100);
        tokio::task::spawn_local(async move {
            let mut all = String::new();
            far.read_to_string(&mut all).await.unwrap();
            far.write_all(format!("got {all}").as_bytes()).await.unwrap();
        });
        Response { head: ResponseHead::new(101), upgrade: Some(Box::new(near)), ..Response::default() }
    });
    story(fake, async |client| {
        let (mut send, _rest) = connect(client).await;
        // The server's settings allow it; they must have come.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let request = Request::connect("http://a/chat").extension(h2::ext::Protocol::from_static("websocket")).body(()).unwrap();
        let (response, mut upload) = send.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        upload.send_data("hello".into(), true).unwrap();
        assert_eq!(body(response).await, "got hello");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_resets_nothing_but_its_own_request() {
    let fake =
        Fake::new(|call: Call| async move { if call.head.path == "/bad" { panic!("on purpose") } else { text(200, "ok") } });
    story(fake, async |client| {
        let (mut send, _rest) = connect(client).await;
        let (bad, _) = send.send_request(get("/bad"), true).unwrap();
        let (good, _) = send.send_request(get("/good"), true).unwrap();
        assert_eq!((bad.await.unwrap().status().as_u16(), good.await.unwrap().status().as_u16()), (500, 200));
        let mut call = get("/bad");
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let (told, _) = send.send_request(call, true).unwrap();
        let told = told.await.unwrap();
        assert_eq!(
            (told.status().as_u16(), &told.headers()["grpc-status"]),
            (200, &"2".parse().unwrap()),
            "clients of gRPC read nothing else"
        );
    })
    .await;
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literal fields without indexing and without Huffman coding.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

const PSEUDO: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/p"), (":authority", "a")];

const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Frames of the server until it closes or falls silent: kind, flags, stream, payload.
async fn frames(client: &mut Client) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let silent = Duration::from_secs(2);
    let mut length = [0; 3];
    while let Ok(Ok(_)) = tokio::time::timeout(silent, client.stream.read_exact(&mut length)).await {
        let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
        let (kind, flags) = (client.stream.read_u8().await.unwrap(), client.stream.read_u8().await.unwrap());
        let stream = client.stream.read_u32().await.unwrap();
        let mut payload = vec![0; length];
        client.stream.read_exact(&mut payload).await.unwrap();
        all.push((kind, flags, stream, payload));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn what_http_1_would_read_otherwise_is_reset_or_refused() {
    let with = |more: &[(&'static str, &'static str)]| [&PSEUDO[..], more].concat();
    let replaced = |name: &str, value: &'static str| {
        PSEUDO.map(|(other, old)| if other == name { (other, value) } else { (other, old) }).to_vec()
    };
    let cases: Vec<Vec<(&str, &str)>> = vec![
        with(&[("transfer-encoding", "chunked")]),
        with(&[("connection", "close")]),
        with(&[("upgrade", "h2c")]),
        with(&[("keep-alive", "x")]),
        with(&[("proxy-connection", "x")]),
        with(&[("te", "gzip")]),
        with(&[("content-length", "5")]),
        with(&[("content-length", "0"), ("content-length", "0")]),
        with(&[("content-length", "+0")]),
        with(&[("content-length", "0, 0")]),
        with(&[("x", "a\r\nb: c")]),
        with(&[("x", "a\0")]),
        with(&[("x\r\ny", "a")]),
        with(&[("x y", "a")]),
        with(&[("x:", "a")]),
        with(&[("X", "a")]),
        with(&[("", "a")]),
        with(&[(":path", "/q")]),
        with(&[("x", "a"), (":extra", "b")]),
        with(&[("host", "b")]),
        with(&[("host", "a"), ("host", "a")]),
        with(&[("expect", "it")]),
        replaced(":path", "p"),
        replaced(":path", ""),
        replaced(":path", "*"),
        replaced(":path", "/a b"),
        replaced(":path", "/a\r\nb"),
        replaced(":path", "/\u{e9}"),
        replaced(":method", "GET /x HTTP/1.1\r\nHost: b\r\n\r\nGET"),
        replaced(":method", ""),
        replaced(":method", "CONNECT"),
        replaced(":authority", "u@a"),
        replaced(":authority", "a,b"),
        replaced(":authority", "a b"),
        replaced(":authority", "a:b"),
        replaced(":authority", ""),
        PSEUDO[..3].to_vec(),
        PSEUDO[1..].to_vec(),
        [&[("x", "a")], &PSEUDO[..]].concat(),
    ];
    for fields in cases {
        story(Fake::echo(), async |mut client| {
            client.send([START, &frame(1, 5, 1, &block(&fields))].concat()).await;
            let all = frames(&mut client).await;
            let reset = all.iter().any(|(kind, _, stream, _)| *kind == 3 && *stream == 1);
            let closed = all.iter().any(|(kind, ..)| *kind == 7);
            // The first byte of an answer's block names a status of the static table: 0x8c is 400.
            let refused = all.iter().any(|(kind, _, _, payload)| *kind == 1 && payload.first() != Some(&0x88));
            assert!(reset || closed || refused, "{fields:?} gives {all:?}");
            assert!(
                !all.iter().any(|(kind, _, _, payload)| *kind == 1 && payload.first() == Some(&0x88)),
                "{fields:?} was served"
            );
        })
        .await;
    }
    story(Fake::echo(), async |mut client| {
        client.send([START, &frame(1, 5, 1, &block(&PSEUDO))].concat()).await;
        let all = frames(&mut client).await;
        assert!(all.iter().any(|(kind, _, _, payload)| *kind == 1 && payload.first() == Some(&0x88)), "{all:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn data_must_be_as_long_as_announced() {
    let fields = [&PSEUDO[..], &[("content-length", "5")]].concat();
    for data in ["abc", "abcdefg"] {
        story(Fake::echo(), async |mut client| {
            client.send([START, &frame(1, 4, 1, &block(&fields)), &frame(0, 1, 1, data.as_bytes())].concat()).await;
            let all = frames(&mut client).await;
            assert!(all.iter().any(|(kind, _, stream, _)| *kind == 3 && *stream == 1), "{data} gives {all:?}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn cookie_crumbs_are_joined_and_counted() {
    let fake = || {
        Fake::new(|call: Call| async move {
            let cookies: Vec<_> =
                call.head.fields.get_all("cookie").map(|value| String::from_utf8_lossy(value).into_owned()).collect();
            text(200, cookies.join("|"))
        })
    };
    story(fake(), async |mut client| {
        let fields = [&PSEUDO[..], &[("cookie", "a=b"), ("cookie", "c=d")]].concat();
        client.send([START, &frame(1, 5, 1, &block(&fields))].concat()).await;
        let all = frames(&mut client).await;
        assert!(all.iter().any(|(kind, _, _, payload)| *kind == 0 && payload == b"a=b; c=d"), "{all:?}");
    })
    .await;
    story(fake(), async |mut client| {
        let fields = [&PSEUDO[..], &[("cookie", "a=b"); 101]].concat();
        client.send([START, &frame(1, 5, 1, &block(&fields))].concat()).await;
        frames(&mut client).await;
        assert_eq!(*client.refused.borrow(), [Reason::HeadersTooLarge]);
    })
    .await;
}

/// Whether a flood got the connection closed with ENHANCE_YOUR_CALM (or, where the library sees it first, another error).
async fn is_killed(flood: Vec<u8>) -> bool {
    with(Fake::echo(), EdgeLimits::default(), async |mut client| {
        // The server may close before it has read all.
        let _ = client.stream.write_all(&[START, &flood].concat()).await;
        let all = frames(&mut client).await;
        let told =
            all.iter().any(|(kind, _, _, payload)| *kind == 7 && payload.get(4..8).is_some_and(|code| code != [0, 0, 0, 0]));
        let counted = client.worker.counters.get(Count::GlitchKills) + client.worker.counters.get(Count::Http2Errors);
        told && counted == 1
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn floods_are_killed_and_counted() {
    let open = |stream: u32| frame(1, 5, stream, &block(&PSEUDO));
    let open_body = frame(1, 4, 1, &block(&PSEUDO));
    let floods: Vec<(&str, Vec<u8>)> = vec![
        ("rapid reset", (0..300).flat_map(|n| [open(2 * n + 1), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()).collect()),
        ("ping", frame(6, 0, 0, &[0; 8]).repeat(300)),
        ("settings", frame(4, 0, 0, &[]).repeat(300)),
        ("priority", frame(2, 0, 1, &[0, 0, 0, 3, 0]).repeat(300)),
        ("unknown", frame(0x42, 0, 0, &[]).repeat(300)),
        ("empty data", [open_body.clone(), frame(0, 0, 1, &[]).repeat(300)].concat()),
        ("window update", frame(8, 0, 0, &[0, 0, 0, 1]).repeat(600)),
        ("continuation", [frame(1, 0, 1, &block(&PSEUDO)), frame(9, 0, 1, &[]).repeat(300)].concat()),
        (
            "resets provoked from us",
            (0..300)
                .flat_map(|n| [frame(1, 4, 2 * n + 1, &block(&PSEUDO)), frame(8, 0, 2 * n + 1, &[0, 0, 0, 0])].concat())
                .collect(),
        ),
    ];
    for (name, flood) in floods {
        assert!(is_killed(flood).await, "{name}");
    }
    let calm = [open(1), frame(6, 0, 0, &[0; 8]).repeat(50), frame(8, 0, 0, &[0, 0, 0, 1]).repeat(100)].concat();
    assert!(!is_killed(calm).await);
}

#[tokio::test(start_paused = true)]
async fn a_header_block_must_end_in_time() {
    story(Fake::echo(), async |mut client| {
        let start = clock::now();
        client.send([START, &frame(1, 0, 1, &block(&PSEUDO))].concat()).await;
        (&mut client.served).await.unwrap();
        assert_eq!((clock::now() - start).as_secs(), 10);
    })
    .await;
    story(Fake::echo(), async |mut client| {
        let start = clock::now();
        client.send(&START[..20]).await;
        (&mut client.served).await.unwrap();
        assert_eq!((clock::now() - start).as_secs(), 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_hears_the_answer_and_no_reset_when_the_request_ends_soon() {
    let refusing = || Fake::new(|_| async { text(403, "no") });
    let asked = [START, &frame(1, 4, 1, &block(&PSEUDO))].concat();
    let of_stream = |all: Vec<(u8, u8, u32, Vec<u8>)>| -> Vec<(u8, Vec<u8>)> {
        all.into_iter()
            .filter(|(.., stream, _)| *stream == 1)
            .map(|(kind, flags, _, payload)| (kind, [vec![flags & 1], payload].concat()))
            .collect()
    };
    story(refusing(), async |mut client| {
        client.send(asked.clone()).await;
        // The rest was under way when the answer came.
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.send([frame(0, 0, 1, b"under way"), frame(0, 1, 1, b"the end")].concat()).await;
        let all = of_stream(frames(&mut client).await);
        let [(1, _), (0, said)] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(said, b"\x01no", "the answer ends the stream");
    })
    .await;
    // Whoever was answered well would send on until its window has gone, and then wait: it is told at once that nobody hears it.
    story(Fake::new(|_| async { text(200, "ok") }), async |mut client| {
        let start = clock::now();
        client.send(asked.clone()).await;
        let all = of_stream(frames(&mut client).await);
        let [(1, _), (0, _), (3, code)] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((code, (clock::now() - start).as_secs()), (&vec![0; 5], 2));
    })
    .await;
    // Whoever never ends it is reset without blame, behind the answer.
    story(refusing(), async |mut client| {
        let start = clock::now();
        client.send(asked.clone()).await;
        let mut ahead = [0; 1];
        let all = of_stream(frames(&mut client).await);
        let [(1, _), (0, _), (3, code)] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(code, &[0; 5]);
        // The silence by which the frames have ended is two seconds.
        assert_eq!((clock::now() - start).as_secs(), 3);
        assert!(client.stream.read(&mut ahead).now_or_never().is_none(), "the connection goes on");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_never_ends_refused_requests_has_no_more_places_than_others_and_holds_no_drain_up() {
    let limits = EdgeLimits { max_streams: 2, ..EdgeLimits::default() };
    with(Fake::new(|_| async { text(403, "no") }), limits, async |mut client| {
        let post = |stream| frame(1, 4, stream, &block(&PSEUDO));
        let resets = |all: &[(u8, u8, u32, Vec<u8>)]| -> Vec<(u32, u8)> {
            all.iter().filter(|(kind, ..)| *kind == 3).map(|(_, _, stream, code)| (*stream, code[3])).collect()
        };
        client.send([START, &post(1), &post(3), &post(5)].concat()).await;
        let (refused, no_error) = (7, 0);
        assert_eq!(resets(&frames(&mut client).await), [(5, refused), (1, no_error), (3, no_error)]);
        // The client takes one back itself: its place is free at once. The other one is all that a drain waits for.
        client.send([post(7), post(9), frame(3, 0, 7, &[0, 0, 0, 8]), post(11)].concat()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let start = clock::now();
        client.drain.begin();
        client.send(frame(6, 1, 0, b"farewell")).await;
        let all = frames(&mut client).await;
        let took = clock::now() - start;
        let answers: Vec<u32> =
            all.iter().filter(|(kind, flags, ..)| *kind == 0 && flags & 1 == 1).map(|frame| frame.2).collect();
        assert!(answers.contains(&9) && answers.contains(&11), "{all:?}");
        assert_eq!(resets(&all), [(9, no_error), (11, no_error)]);
        assert!(took < Duration::from_millis(1100), "{took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_pulled_stays_with_the_client() {
    let fake = Fake::new(|call: Call| async move {
        let Body::Stream(body) = call.body else { panic!("a stream") };
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(body);
        text(200, "")
    });
    story(fake, async |client| {
        let (mut send, _rest) = connect(client).await;
        let (response, mut upload) = send.send_request(Request::post("http://a/").body(()).unwrap(), false).unwrap();
        upload.send_data(vec![b'x'; 1 << 20].into(), false).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        upload.reserve_capacity((1 << 20) + 1);
        assert_eq!(upload.capacity(), 0);
        assert_eq!(response.await.unwrap().status(), 200);
    })
    .await;
}
