//! Stories of HTTP/1 connections: raw bytes in, raw bytes out, time as fast as it is needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use heddle_xds::model::EdgeLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

use super::super::counters::Count;
use super::super::harness::{Client, Fake, serve_h1, text};
use crate::exchange::{Call, Ending, Reason, Response, Sent};
use crate::http::{Body, BodyError, BodySource, Fields, Frame, RequestHead, ResponseHead};
use heddle_node::clock;

async fn with<T>(fake: Fake, limits: EdgeLimits, story: impl AsyncFnOnce(Client) -> T) -> T {
    LocalSet::new().run_until(async { story(serve_h1(fake, limits)).await }).await
}

async fn story<T>(fake: Fake, story: impl AsyncFnOnce(Client) -> T) -> T {
    with(fake, EdgeLimits::default(), story).await
}

/// Frames one after the other; `None` waits for ever.
struct Frames(std::vec::IntoIter<Option<Result<Frame, BodyError>>>);

impl BodySource for Frames {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self.0.next() {
            Some(Some(frame)) => Poll::Ready(Some(frame)),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
    fn remaining(&self) -> Option<u64> {
        None
    }
}

fn data(text: &'static str) -> Option<Result<Frame, BodyError>> {
    Some(Ok(Frame::Data(Bytes::from_static(text.as_bytes()))))
}

fn streamed(length: Option<&str>, frames: impl Fn() -> Vec<Option<Result<Frame, BodyError>>> + 'static) -> Fake {
    let length = length.map(str::to_owned);
    Fake::new(move |_| {
        let mut head = ResponseHead::new(200);
        length.iter().for_each(|length| head.fields.append("content-length", length));
        let body = Body::Stream(Box::new(Frames(frames().into_iter())));
        async move { Response { head, body, ..Response::default() } }
    })
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nGET a/x ";
const OK_CLOSE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nGET a/x ";

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_one_request_after_the_other() {
    story(Fake::echo(), async |mut client| {
        for _ in 0..3 {
            client.send(GET).await;
            assert_eq!(client.until("/x ").await, OK.replace("9", "8"));
        }
        assert_eq!(client.worker.counters.get(Count::Http1Requests), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    story(Fake::echo(), async |mut client| {
        client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let all = client.rest().await;
        let bodies: Vec<_> = all.split("HTTP/1.1 200 OK\r\n").filter_map(|answer| answer.split("\r\n\r\n").nth(1)).collect();
        assert_eq!(bodies, ["GET a/1 ", "POST a/2 abc", "GET a/3 "]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bodies_come_in_any_pieces_and_trailers_with_them() {
    story(Fake::echo(), async |mut client| {
        let request =
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nA: b\r\n\r\n";
        for piece in request.as_bytes().chunks(3) {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        assert!(client.until("POST a/ abcde").await.starts_with("HTTP/1.1 200"));
        client.send(GET).await;
        client.until("GET a/x ").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_ambiguous_is_refused_and_closed() {
    for (request, expected, reason) in [
        ("GET / HTTP/1.1\nHost: a\n\n", "400", Reason::BadRequest),
        ("GET / HTTP/1.1\r\n\r\n", "400", Reason::BadRequest),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400", Reason::BadRequest),
        ("\u{16}\u{3}\u{1}", "400", Reason::BadRequest),
        ("GET / HTTP/3.0\r\n\r\n", "505", Reason::VersionNotSupported),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "405", Reason::MethodNotAllowed),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: it\r\n\r\n", "417", Reason::ExpectationFailed),
    ] {
        story(Fake::echo(), async |mut client| {
            client.send(format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let answer = client.rest().await;
            assert_eq!((status(&answer), answer.matches("HTTP/1.1 ").count()), (expected, 1), "{request:?} gives {answer:?}");
            assert!(answer.contains("connection: close\r\n") && answer.contains("x-heddle-reason: "));
            assert_eq!(*client.refused.borrow(), [reason]);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_chunk_ends_the_connection_behind_the_answer() {
    story(Fake::echo(), async |mut client| {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n").await;
        client.send(GET).await;
        let answer = client.rest().await;
        assert_eq!((status(&answer), answer.matches("HTTP/1.1 ").count()), ("400", 1));
        assert!(answer.contains("connection: close"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn limits_have_their_statuses() {
    let limits = EdgeLimits { max_uri_bytes: 100, max_header_bytes: 1000, max_body_bytes: 10, ..EdgeLimits::default() };
    for (request, expected) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(200)), "414"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2000)), "431"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n".to_owned(), "413"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nB\r\n".to_owned(), "400"),
    ] {
        with(Fake::echo(), limits.clone(), async |mut client| {
            client.send(request).await;
            assert_eq!(status(&client.rest().await), expected);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_heads_silent_clients_and_stalled_bodies_are_cut() {
    let limits = EdgeLimits {
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        body_timeout: Duration::from_secs(60),
        ..EdgeLimits::default()
    };
    for (sent, expected, seconds) in [
        ("", "", 10),
        ("GET / HT", "408", 10),
        (GET, "200", 75),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", "400", 60),
    ] {
        with(Fake::echo(), limits.clone(), async |mut client| {
            let start = clock::now();
            client.send(sent).await;
            let answer = client.rest().await;
            assert_eq!((status(&answer), (clock::now() - start).as_secs()), (expected, seconds), "{sent:?}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_listens_to_an_answer_that_goes_on_may_say_nothing_for_long() {
    let limits = EdgeLimits { body_timeout: Duration::from_secs(60), ..EdgeLimits::default() };
    for (events, lasts) in [(0, 60), (5, 260)] {
        with(Fake::watched(events, Duration::from_secs(40)), limits.clone(), async |mut client| {
            let start = clock::now();
            client.send("POST /watch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let answer = client.rest().await;
            let took = (clock::now() - start).as_secs();
            assert_eq!((answer.matches("event").count(), took), (events as usize, lasts), "{answer}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_dribbled_byte_by_byte_has_no_more_time_than_another() {
    story(Fake::echo(), async |mut client| {
        let start = clock::now();
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyy" {
            if client.stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(status(&client.rest().await), "408");
        assert!((clock::now() - start).as_secs() < 60);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn continue_is_sent_when_the_body_is_wanted_and_only_then() {
    let expect = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    story(Fake::echo(), async |mut client| {
        client.send(expect).await;
        assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("abc").await;
        client.until("POST a/ abc").await;
    })
    .await;
    story(Fake::new(|_| async { text(403, "no") }), async |mut client| {
        client.send(expect).await;
        assert_eq!(client.rest().await, "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unread_body_is_thrown_away_when_short_and_closes_when_long() {
    let refuse = || Fake::new(|_| async { text(403, "no") });
    story(refuse(), async |mut client| {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").await;
        assert!(!client.until("\r\n\r\nno").await.contains("close"));
        client.send(format!("abc{GET}")).await;
        assert!(client.until("\r\n\r\nno").await.starts_with("HTTP/1.1 403"));
    })
    .await;
    story(refuse(), async |mut client| {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\nabc").await;
        assert!(client.rest().await.contains("connection: close"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn responses_are_framed_by_what_is_known_of_them() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    story(streamed(None, || vec![data("ab"), data("c")]), async |mut client| {
        client.send(GET).await;
        assert_eq!(client.until("0\r\n\r\n").await, chunked);
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(client.rest().await, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc");
    })
    .await;
    story(streamed(Some("3"), || vec![data("ab"), data("c")]), async |mut client| {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(client.until("abc").await, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nabc");
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.rest().await, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\n");
    })
    .await;
    let trailers = || {
        let mut fields = Fields::new();
        fields.append("x-sum", "1");
        vec![data("a"), Some(Ok(Frame::Trailers(Box::new(fields))))]
    };
    story(streamed(None, trailers), async |mut client| {
        client.send(GET).await;
        assert!(client.until("0\r\nx-sum: 1\r\n\r\n").await.contains("1\r\na\r\n"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_or_lies_breaks_the_connection() {
    let broken: [(_, fn() -> Vec<_>); 3] = [
        (None, || vec![data("ab"), Some(Err(BodyError::Aborted)), data("c")]),
        (Some("5"), || vec![data("ab")]),
        (Some("2"), || vec![data("ab"), data("cd")]),
    ];
    for (length, frames) in broken {
        story(streamed(length, frames), async |mut client| {
            client.send(format!("{GET}{GET}")).await;
            let answer = client.rest().await;
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer:?}");
            assert!(
                !answer.ends_with("0\r\n\r\n") && answer.ends_with(if length.is_some() { "ab" } else { "ab\r\n" }),
                "{answer:?}"
            );
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_is_cut() {
    let limits = EdgeLimits { send_timeout: Duration::from_secs(30), ..EdgeLimits::default() };
    let big = Fake::new(|_| async { text(200, vec![b'x'; 1 << 20]) });
    with(big, limits, async |mut client| {
        client.send(GET).await;
        let start = clock::now();
        (&mut client.served).await.unwrap();
        assert_eq!((clock::now() - start).as_secs(), 30);
        assert_eq!(client.worker.counters.get(Count::TimedOut), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn interim_responses_travel_at_once_and_never_to_http_1_0() {
    let hinting = || {
        Fake::new(|call: Call| async move {
            let mut hint = ResponseHead::new(103);
            hint.fields.append("link", "</a>");
            call.interim.send(hint);
            tokio::time::sleep(Duration::from_secs(5)).await;
            text(200, "x")
        })
    };
    story(hinting(), async |mut client| {
        let start = clock::now();
        client.send(GET).await;
        assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        assert_eq!((clock::now() - start).as_secs(), 0);
        client.until("\r\n\r\nx").await;
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        assert!(client.rest().await.starts_with("HTTP/1.1 200"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_comes_with_its_answer_still_goes_before_it() {
    let fake = Fake::new(|call: Call| async move {
        call.interim.send(ResponseHead::new(103));
        text(200, "x")
    });
    story(fake, async |mut client| {
        client.send(GET).await;
        let answer = client.until("\r\n\r\nx").await;
        assert!(answer.starts_with("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_still_held_behind_its_answer_is_dead() {
    let held = Rc::new(std::cell::RefCell::new(None));
    let of_service = held.clone();
    let fake = Fake::new(move |call: Call| {
        if !call.body.is_empty() {
            *of_service.borrow_mut() = Some(call.body);
        }
        async { text(200, "/x ") }
    });
    story(fake, async |mut client| {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
        client.until("/x ").await;
        client.send(format!("cde{GET}")).await;
        client.until("/x ").await;
        let mut body = held.take().unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap_err(), BodyError::Aborted);
    })
    .await;
}

/// Says when it is dropped.
struct Dropped(Rc<Cell<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

fn waiting(dropped: &Rc<Cell<bool>>, seconds: u64) -> Fake {
    let dropped = dropped.clone();
    Fake::new(move |_| {
        let guard = Dropped(dropped.clone());
        async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            drop(guard);
            text(200, "done")
        }
    })
}

#[tokio::test(start_paused = true)]
async fn work_ends_with_its_client_but_a_half_closed_one_is_answered() {
    let dropped = Rc::new(Cell::new(false));
    story(waiting(&dropped, 100), async |mut client| {
        client.send(GET).await;
        let start = clock::now();
        drop(client.stream);
        client.served.await.unwrap();
        assert!(dropped.get() && (clock::now() - start).as_secs() < 5);
    })
    .await;
    story(waiting(&dropped, 1), async |mut client| {
        client.send(GET).await;
        client.stream.shutdown().await.unwrap();
        assert!(client.rest().await.ends_with("\r\n\r\ndone"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_a_tunnel_with_half_close() {
    let upgrading = Fake::new(|call: Call| async move {
        assert!(call.wants_upgrade);
        let (near, mut far) = tokio::io::duplex(100);
        tokio::task::spawn_local(async move {
            let mut all = String::new();
            far.read_to_string(&mut all).await.unwrap();
            far.write_all(format!("got {all}").as_bytes()).await.unwrap();
        });
        let mut head = ResponseHead::new(101);
        head.fields.append("upgrade", "websocket");
        Response { head, upgrade: Some(Box::new(near)), ..Response::default() }
    });
    story(upgrading, async |mut client| {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nearly ").await;
        assert_eq!(
            client.until("\r\n\r\n").await,
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
        );
        client.send("late").await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "got early late");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_101_without_a_tunnel_is_never_sent() {
    story(Fake::new(|_| async { text(101, "") }), async |mut client| {
        client.send(GET).await;
        assert_eq!(status(&client.rest().await), "500");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn draining_closes_idle_connections_and_says_so_to_busy_ones() {
    story(waiting(&Rc::default(), 5), async |mut client| {
        client.send(GET).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.drain.begin();
        assert!(client.rest().await.contains("connection: close\r\n\r\ndone"));
    })
    .await;
    story(Fake::echo(), async |mut client| {
        client.send(GET).await;
        client.until("/x ").await;
        let start = clock::now();
        client.drain.begin();
        assert_eq!(client.rest().await, "");
        assert_eq!((clock::now() - start).as_secs(), 1);
    })
    .await;
    story(Fake::echo(), async |mut client| {
        client.send(GET).await;
        client.until("/x ").await;
        client.drain.begin();
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.send(GET).await;
        assert_eq!(client.rest().await, OK_CLOSE.replace("9", "8"), "a request on its way is not lost");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_as_many_requests_as_it_may() {
    let limits = EdgeLimits { max_requests_per_connection: 2, ..EdgeLimits::default() };
    with(Fake::echo(), limits, async |mut client| {
        client.send(format!("{GET}{GET}{GET}")).await;
        assert_eq!(client.rest().await, format!("{OK}{OK_CLOSE}").replace("9", "8"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_becomes_as_old_as_it_may() {
    let limits = EdgeLimits { max_connection_duration: Duration::from_secs(5), ..EdgeLimits::default() };
    with(Fake::echo(), limits.clone(), async |mut client| {
        client.send(GET).await;
        client.until("/x ").await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        client.send(GET).await;
        let start = clock::now();
        assert_eq!(client.rest().await, OK.replace("9", "8"), "one more in time, and then nothing");
        assert_eq!((clock::now() - start).as_secs(), 1, "it does not rest longer");
    })
    .await;
    let slow = Fake::new(|_| async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        text(200, "late")
    });
    with(slow, limits, async |mut client| {
        client.send(GET).await;
        assert!(client.rest().await.ends_with("late"), "what is under way is not broken off");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_request_with_500_and_its_connection() {
    let panicking = Fake::new(|_| async { panic!("on purpose") });
    story(panicking, async |mut client| {
        client.send(GET).await;
        assert_eq!(status(&client.rest().await), "500");
        assert_eq!(client.worker.counters.get(Count::Panics), 1);
        client.served.await.unwrap();
    })
    .await;
    let panicking = Fake::new(|_| async { panic!("on purpose") });
    story(panicking, async |mut client| {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc+proto\r\ncontent-length: 0\r\n\r\n").await;
        let told = client.rest().await;
        assert!(status(&told) == "200" && told.contains("grpc-status: 2\r\n"), "{told}");
    })
    .await;
}

/// Keeps what it was told and gives a head back.
struct Told(Rc<Cell<Option<Sent>>>);

impl Ending for Told {
    fn ended(self: Box<Self>, sent: Sent) -> Option<Box<RequestHead>> {
        self.0.set(Some(sent));
        Some(Box::new(RequestHead { path: "/old".to_owned(), ..RequestHead::default() }))
    }
}

#[tokio::test(start_paused = true)]
async fn the_ending_is_told_what_was_moved() {
    let told = Rc::new(Cell::new(None));
    let of_service = told.clone();
    let fake = Fake::new(move |call: Call| {
        let ending = Told(of_service.clone());
        async move {
            let body = call.body.collect(100).await.unwrap();
            Response { ending: Some(Box::new(ending)), ..text(200, [call.head.path.as_bytes(), &body].concat()) }
        }
    });
    story(fake, async |mut client| {
        for _ in 0..2 {
            client.send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
            client.until("\r\n\r\n/pabc").await;
            assert_eq!(told.take(), Some(Sent { sent: 5, received: 3, reason: Reason::None }));
        }
    })
    .await;
}
