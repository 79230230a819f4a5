//! Clients that are slow on purpose: each wait ends, memory stays bounded, and others are served at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use heddle_integration::attack::frames::{END_HEADERS, END_STREAM, Fate, Frames, GOAWAY, HEADERS, block, request};
use heddle_integration::attack::origin::{Origin, Reply, Seen};
use heddle_integration::attack::raw::Raw;
use heddle_integration::client;
use heddle_integration::heddle::Setup;
use heddle_integration::process::until;

use super::ground::{Ground, HOST, metric};

fn hasty(origin: Origin) -> Ground {
    let listener = ", limits: { header_timeout: 400ms, idle_timeout: 400ms, body_timeout: 400ms, send_timeout: 1s }".to_owned();
    Ground::with(origin, Setup { listener, ..Setup::default() })
}

/// Sends a byte every 50 ms until the server has ended the connection, and says after how long.
fn drip(raw: &mut Raw, bytes: &[u8]) -> Duration {
    let began = Instant::now();
    for byte in bytes.iter().cycle() {
        raw.send([*byte]);
        if !raw.is_quiet(Duration::from_millis(50)) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the connection is still open");
    }
    began.elapsed()
}

#[test]
fn a_head_that_drips_has_a_deadline() {
    let ground = hasty(Origin::start());
    for start in ["", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut raw = ground.plain.open();
        raw.send(start);
        assert!(drip(&mut raw, b"a").as_millis() < 3000, "{start:?}");
    }
    let mut raw = ground.plain.open();
    raw.send(format!("GET /first HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(raw.answer(false).unwrap().status, 200);
    raw.send("G");
    assert!(drip(&mut raw, b"a").as_millis() < 3000, "the second head");
    ground.check(Vec::new());
}

#[test]
fn silence_ends() {
    let ground = hasty(Origin::start());
    let began = Instant::now();
    let mut idle = ground.plain.open();
    assert!(idle.is_closed(), "a connection that says nothing");
    let mut after = ground.plain.open();
    after.send(format!("GET /first HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(after.answer(false).unwrap().status, 200);
    assert!(after.is_closed(), "an idle connection");
    let mut frames = Frames::open(&ground.plain);
    frames.send(HEADERS, END_STREAM, 1, &block(&request("GET", "/never"))[..10]);
    while frames.receive().is_some_and(|(kind, ..)| kind != GOAWAY) {}
    let mut nothing = Frames::open(&ground.plain);
    while nothing.receive().is_some() {}
    assert!(began.elapsed() < Duration::from_secs(15));
    ground.check(Vec::new());
}

#[test]
fn who_reads_nothing_is_cut_and_holds_little() {
    const LARGE: usize = 64 << 20;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
    let whole: Arc<[u8]> = [head.as_bytes(), &vec![b'x'; LARGE]].concat().into();
    let large = move |seen: &Seen| match seen.target() {
        "/large" => Reply { pieces: vec![whole.clone()], ..Reply::ok() },
        _ => Reply::ok(),
    };
    let ground = hasty(Origin::answering(large));
    let before = memory(&ground);
    let mut held: Vec<Raw> = (0..20).map(|_| ground.plain.open()).collect();
    held.iter_mut().for_each(|raw| raw.send(format!("GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n")));
    let mut shut: Vec<Frames> = (0..5).map(|_| Frames::with_settings(&ground.plain, &[0, 4, 0, 0, 0, 1])).collect();
    for frames in &mut shut {
        (0..10)
            .for_each(|stream| frames.send(HEADERS, END_STREAM | END_HEADERS, stream * 2 + 1, &block(&request("GET", "/large"))));
    }
    std::thread::park_timeout(Duration::from_millis(700));
    let grown = memory(&ground).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB for 70 answers that nobody reads");
    assert_eq!(client::get(ground.heddle.http, "/others").unwrap().status, 200);
    for frames in &mut shut {
        assert!(matches!(frames.fate(1), Fate::Status(200)));
        assert!(matches!(frames.fate(1), Fate::Reset(_) | Fate::Closed | Fate::GoAway(_)), "a window that stays shut");
    }
    until("those who read nothing to be cut", || {
        metric(&ground.heddle.metrics(), "heddle_connections_total{event=\"timed_out\"}").filter(|cut| *cut >= 70.0)
    });
    for raw in &mut held {
        assert!(raw.rest().len() < LARGE, "an answer that nobody read came whole");
    }
}

/// Resident memory of the gateway in KiB.
fn memory(ground: &Ground) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", ground.heddle.process.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
