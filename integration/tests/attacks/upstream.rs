//! Servers behind the gateway that lie, break off or say too much: 502, no reuse, and no other answer is touched.

use heddle_integration::attack::origin::{Origin, Reply, Seen};
use heddle_integration::heddle::Setup;
use serde_json::json;

use super::ground::{Ground, HOST, follow};

/// Answers of the origin by the last word of the path, and what the client gets; 0 is an answer that breaks off.
fn faults() -> Vec<(&'static str, u16, Vec<u8>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\nhello").into_bytes();
    let many: String = (0..400).map(|n| format!("X-{n}: y\r\n")).collect();
    vec![
        ("nothing", 502, Vec::new()),
        ("junk", 502, text("hello, this is no HTTP\r\n\r\n")),
        ("no-version", 502, text("200 OK\r\nContent-Length: 0\r\n\r\n")),
        ("http-2", 502, text("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n")),
        ("status-of-two-digits", 502, text("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n")),
        ("status-of-four-digits", 502, text("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n")),
        ("status-of-letters", 502, text("HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n")),
        ("status-0", 502, text("HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n")),
        ("status-999", 502, text("HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n")),
        ("blank-before-status", 502, text(" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
        ("bare-lf", 502, text("HTTP/1.1 200 OK\nContent-Length: 0\n\n")),
        ("nul", 502, head("X: y\0z\r\nContent-Length: 5\r\n")),
        ("cr", 502, head("X: y\rSet-Cookie: z\r\nContent-Length: 5\r\n")),
        ("fold", 502, head("X: y\r\n z\r\nContent-Length: 5\r\n")),
        ("blank-before-colon", 502, head("Content-Length : 5\r\n")),
        ("both-framings", 502, head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        ("two-lengths", 502, head("Content-Length: 5\r\nContent-Length: 6\r\n")),
        ("list-of-lengths", 502, head("Content-Length: 5, 5\r\n")),
        ("negative-length", 502, head("Content-Length: -5\r\n")),
        ("gzip-chunked", 502, head("Transfer-Encoding: gzip, chunked\r\n")),
        ("two-codings", 502, head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        ("coding-in-http-1.0", 502, text("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("many-fields", 502, head(&many)),
        ("large-field", 502, head(&format!("X: {}\r\n", "y".repeat(70_000)))),
        ("endless-line", 502, [b"HTTP/1.1 200 ".to_vec(), vec![b'x'; 100_000]].concat()),
        ("endless-hints", 502, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(1000).into_bytes()),
        (
            "hint-with-body",
            502,
            text("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ),
        (
            "switch-unasked",
            502,
            text("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ),
        ("half-a-head", 502, text("HTTP/1.1 200 OK\r\nContent-Le")),
        ("half-a-body", 0, text("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello")),
        ("half-a-chunk", 0, text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello")),
        ("no-last-chunk", 0, text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")),
        ("bad-chunk", 0, text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n")),
        ("chunk-with-lf", 0, text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n")),
    ]
}

fn answer(seen: &Seen) -> Reply {
    let name = seen.target().rsplit('/').next().unwrap_or("").to_owned();
    match faults().into_iter().find(|(fault, ..)| *fault == name) {
        Some((_, _, bytes)) => Reply::bytes(bytes).closing(),
        None => Reply::ok(),
    }
}

#[test]
fn a_broken_answer_is_a_bad_gateway_and_no_other() {
    let ground = Ground::with(Origin::answering(answer), Setup::default());
    let mut wrong = Vec::new();
    for (name, status, _) in faults() {
        let mut raw = ground.plain.open();
        raw.send(format!("GET /{name} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let got = raw.answer(false).map_or(0, |answer| answer.status);
        if got != status {
            wrong.push(format!("{name}: {got}"));
        }
        if status == 502 {
            wrong.extend(follow(&mut raw, "/behind").err().map(|why| format!("{name}: {why}")));
        }
    }
    ground.check(wrong);
}

/// What lies behind an answer, and the answer.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";
const LEAVINGS: &[(&str, &str)] = &[
    ("length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("zero", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("no-content", "HTTP/1.1 204 No Content\r\n\r\n"),
    ("no-content-with-length", "HTTP/1.1 204 No Content\r\nContent-Length: 60\r\n\r\n"),
    ("not-modified", "HTTP/1.1 304 Not Modified\r\nContent-Length: 60\r\n\r\n"),
];

fn leave(seen: &Seen) -> Reply {
    let target = seen.target();
    let found = LEAVINGS.iter().find(|(name, _)| target.ends_with(name));
    match found {
        Some((_, good)) if target.starts_with("/late/") => {
            Reply { pieces: vec![good.as_bytes().into(), POISON.as_bytes().into()], ..Reply::ok() }
        }
        Some((_, good)) => Reply::bytes(format!("{good}{POISON}")),
        None if seen.line.starts_with("HEAD") => {
            Reply::bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len()))
        }
        None => Reply::ok(),
    }
}

#[test]
fn what_lies_behind_an_answer_poisons_no_other() {
    let ground = Ground::with(Origin::answering(leave), Setup::default());
    for time in ["now", "late"] {
        for (name, _) in LEAVINGS {
            let mut raw = ground.plain.open();
            raw.send(format!("GET /{time}/{name} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
            let first = raw.answer(false).unwrap();
            assert!(matches!(first.status, 200 | 204 | 304), "{name}");
            if time == "late" {
                std::thread::park_timeout(std::time::Duration::from_millis(80));
            }
            // As many as would meet every pooled connection of every worker.
            for _ in 0..4 {
                raw.send(format!("GET /clean HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
                let next = raw.answer(false).unwrap();
                assert_eq!((next.status, next.text().as_str()), (200, "ok"), "behind {time}/{name}");
            }
        }
    }
    let mut raw = ground.plain.open();
    raw.send(format!("HEAD /head HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(raw.answer(true).unwrap().status, 200);
    follow(&mut raw, "/after-head").unwrap();
    ground.check(Vec::new());
}

#[test]
fn a_tunnel_begins_with_101_alone() {
    let ground = Ground::with(
        Origin::answering(|seen| match seen.target() {
            "/ws/no" => Reply::bytes("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"),
            "/ws/other" => {
                Reply::bytes("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").closing()
            }
            "/ws/yes" => {
                Reply::bytes("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\ntunnel")
                    .closing()
            }
            _ => Reply::ok(),
        }),
        Setup::default(),
    );
    let upstream = json!({ "nodes": { ground.origin.address.to_string(): 1 } });
    ground.heddle.put("/routes/ws", json!({ "uri": "/ws/*", "enable_websocket": true, "upstream": upstream }));
    let ask = |path: &str, protocol: &str| {
        let mut raw = ground.plain.open();
        let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aGVkZGxlLWhlZGRsZS1oZQ==\r\n\r\n{smuggled}"));
        let first = raw.answer(false).unwrap();
        (first.status, raw)
    };
    heddle_integration::process::until("the route", || (ask("/ws/yes", "websocket").0 == 101).then_some(()));
    let before = ground.origin.seen("/smuggled").len();
    let (_, mut tunnel) = ask("/ws/yes", "websocket");
    assert_eq!(tunnel.exactly(6).unwrap(), b"tunnel");
    assert_eq!(ground.origin.seen("/smuggled").len(), before, "inside the tunnel nothing is a request");
    // Without 101 what follows is the next request, read by the gateway itself.
    for (path, protocol, status) in
        [("/ws/no", "websocket", 426), ("/ws/other", "websocket", 502), ("/plain", "websocket", 200), ("/ws/x", "h2c", 200)]
    {
        let (got, mut raw) = ask(path, protocol);
        assert_eq!(got, status, "{path}");
        assert_eq!(raw.answer(false).map(|answer| answer.status), Some(200), "{path}");
    }
    assert_eq!(ground.origin.seen("/smuggled").len(), before + 4);
    ground.check(Vec::new());
}
