//! Request bodies that fail, and servers that answer early: the right one is blamed, and no byte of a body becomes a request.

use heddle_integration::attack::frames::{DATA, Fate, Frames, request};
use heddle_integration::attack::origin::{Origin, Reply};
use heddle_integration::client;
use heddle_integration::heddle::Setup;
use heddle_integration::process::until;
use serde_json::json;

use super::ground::{Ground, HOST, follow};

/// A gateway with tight limits on bodies, before an upstream that is ejected at its first failure.
fn tight() -> Ground {
    let listener =
        ", expose_reason: true, limits: { max_body_bytes: 100, body_timeout: 300ms, header_timeout: 300ms, idle_timeout: 2s }"
            .to_owned();
    let ground = Ground::with(Origin::start(), Setup { listener, ..Setup::default() });
    let passive = json!({ "unhealthy": { "tcp_failures": 1, "timeouts": 1, "http_failures": 1 }, "healthy": { "successes": 1 } });
    let active = json!({ "type": "tcp", "unhealthy": { "interval": 1, "tcp_failures": 200 }, "healthy": { "interval": 1, "successes": 200 } });
    let spare = Origin::start().address.to_string();
    ground.heddle.put(
        "/routes/body",
        json!({ "uri": "/body", "upstream": { "retries": 3, "nodes": { ground.origin.address.to_string(): 1, spare: 0 },
                "checks": { "active": active, "passive": passive } } }),
    );
    ground.heddle.until_status("/body", 200);
    ground
}

fn reason(ground: &Ground, send: &[u8], end: bool) -> (u16, String) {
    let mut raw = ground.plain.open();
    raw.send(send);
    if end {
        raw.socket.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let answer = raw.answer(false).unwrap_or_default();
    let reason = answer.field("x-heddle-reason").unwrap_or("").to_owned();
    assert!(raw.is_closed(), "the connection goes on behind a body that failed");
    (answer.status, reason)
}

#[test]
fn a_body_that_fails_is_the_clients_fault() {
    let ground = tight();
    let before = ground.origin.seen("/body").len();
    let head = format!("POST /body HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let announced = format!("POST /body HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 50\r\n\r\nhello");
    let large = format!("{head}40\r\n{}\r\n40\r\n{}\r\n0\r\n\r\n", "a".repeat(64), "a".repeat(64));
    let cases: [(&str, Vec<u8>, (u16, &str)); 5] = [
        ("too large", large.into_bytes(), (413, "body_too_large")),
        (
            "too large as announced",
            format!("POST /body HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 101\r\n\r\n").into_bytes(),
            (413, "body_too_large"),
        ),
        ("malformed", format!("{head}5\r\nhello\r\nxyz\r\n").into_bytes(), (400, "bad_request")),
        ("late", announced.clone().into_bytes(), (408, "request_timeout")),
        ("late chunk", format!("{head}5\r\nhello\r\n").into_bytes(), (408, "request_timeout")),
    ];
    for (name, send, (status, flag)) in cases {
        assert_eq!(reason(&ground, &send, false), (status, flag.to_owned()), "{name}");
    }
    let (status, _) = reason(&ground, announced.as_bytes(), true);
    assert!(matches!(status, 0 | 400 | 499), "a body that is cut off got {status}");
    assert_eq!(client::get(ground.heddle.http, "/body").unwrap().status, 200, "the endpoint was ejected");
    let seen = ground.origin.seen("/body");
    assert_eq!(seen[before..].iter().filter(|seen| !seen.aborted).count(), 1, "only the last request was whole");
    assert!(seen[before..].len() <= 6, "a body that failed was tried again: {}", seen.len() - before);
    ground.check(Vec::new());
}

#[test]
fn over_http2_too() {
    let ground = tight();
    for (name, pieces, expected) in [("too large", 3, Fate::Status(413)), ("late", 1, Fate::Status(408))] {
        let mut frames = Frames::open(&ground.plain);
        frames.headers(0, 1, &request("POST", "/body"));
        (0..pieces).for_each(|_| frames.send(DATA, 0, 1, &[b'a'; 50]));
        assert_eq!(frames.fate(1), expected, "{name}");
    }
    assert_eq!(client::get(ground.heddle.http, "/body").unwrap().status, 200, "the endpoint was ejected");
    ground.check(Vec::new());
}

#[test]
fn a_server_that_answers_early_leaves_no_body_behind() {
    let early = |seen: &heddle_integration::attack::origin::Seen| {
        let reply = Reply::ok();
        if seen.target().starts_with("/early") { reply.early() } else { reply }
    };
    let ground = Ground::with(Origin::answering(early), Setup::default());
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for rest in [0, 10] {
        let mut raw = ground.plain.open();
        let length = smuggled.len() + rest;
        raw.send(format!("POST /early HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n"));
        let Some(answer) = raw.answer(false) else { continue };
        assert!(matches!(answer.status, 200 | 502), "{}", answer.status);
        // What comes now is the body, however much it looks like a request.
        raw.send(format!("{smuggled}{}", "x".repeat(rest)));
        let _ = raw.rest_within(500);
    }
    assert!(ground.origin.seen("/smuggled").is_empty(), "a body became a request");
    ground.check(Vec::new());
}

#[test]
fn a_body_that_nobody_reads_is_not_read_as_a_request() {
    let ground = Ground::new();
    let upstream = json!({ "nodes": { ground.origin.address.to_string(): 1 } });
    let plugins = json!({ "fault-injection": { "abort": { "http_status": 403 } } });
    ground.heddle.put("/routes/no", json!({ "uri": "/no", "plugins": plugins, "upstream": upstream }));
    ground.heddle.until_status("/no", 403);
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for fields in
        [format!("Content-Length: {}", smuggled.len()), format!("Expect: 100-continue\r\nContent-Length: {}", smuggled.len())]
    {
        let mut raw = ground.plain.open();
        raw.send(format!("POST /no HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n\r\n"));
        let answer = raw.answer(false).unwrap();
        assert_eq!(answer.status, 403);
        raw.send(&smuggled);
        if answer.field("connection") == Some("close") {
            assert!(raw.is_closed());
        } else {
            follow(&mut raw, "/unread").unwrap();
        }
    }
    assert!(ground.origin.seen("/smuggled").is_empty());
    ground.check(Vec::new());
}

#[test]
fn trace_and_connect_are_not_forwarded() {
    let ground = Ground::new();
    for line in [format!("TRACE /t HTTP/1.1\r\nHost: {HOST}"), format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443")] {
        let mut raw = ground.plain.open();
        raw.send(format!("{line}\r\n\r\n"));
        let answer = raw.answer(false).unwrap();
        assert_eq!(answer.status, 405, "{line}");
        assert!(answer.field("allow").is_some_and(|allow| allow.contains("GET") && !allow.contains("TRACE")), "{line}");
    }
    until("the origin to stay untouched", || ground.origin.seen("/t").is_empty().then_some(()));
    ground.check(Vec::new());
}
