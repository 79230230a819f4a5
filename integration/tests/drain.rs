//! How a node goes away: it says so first, finishes what was begun, and ends with 0.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use heddle_integration::client;
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::{PATIENCE, Process, until};

/// An upstream that needs about two seconds for its answer: 64 KiB at 32 KiB per second.
fn slow() -> Nginx {
    let nginx =
        Nginx::start("location / { return 200 'ok'; } location /slow { limit_rate 32k; root .; try_files /slow.bin =404; }");
    nginx.write("slow.bin", &"s".repeat(SLOW));
    nginx
}

const SLOW: usize = 96 * 1024;

fn heddle(agent: &str) -> Heddle {
    Heddle::run_with(Setup { agent: agent.to_owned(), ..Setup::default() })
}

/// Begins a slow request and returns once its head has arrived.
fn begin(address: SocketAddr) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: test.example\r\n\r\n").unwrap();
    let mut piece = [0; 1024];
    let read = stream.read(&mut piece).unwrap();
    assert!(piece.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&piece[..read]));
    (stream, piece[..read].to_vec())
}

/// Reads to the end and gives the length of the body.
fn finish((mut stream, mut bytes): (TcpStream, Vec<u8>)) -> usize {
    let _ = stream.read_to_end(&mut bytes);
    client::parse(&bytes).body.len()
}

#[test]
fn requests_in_flight_are_finished_and_the_exit_code_is_0() {
    let nginx = slow();
    let mut heddle = heddle(", drain_timeout: 20s");
    heddle.route("slow", "/*", nginx.address);
    heddle.until_status("/", 200);
    let begun: Vec<_> = (0..8).map(|_| begin(heddle.http)).collect();
    heddle.process.signal("TERM");
    for one in begun {
        assert_eq!(finish(one), SLOW);
    }
    let status = heddle.process.wait();
    assert_eq!(status.code(), Some(0), "{}", heddle.process.output());
}

#[test]
fn http_2_requests_in_flight_are_finished_too() {
    let nginx = slow();
    let mut heddle = heddle(", drain_timeout: 20s");
    heddle.route("slow", "/*", nginx.address);
    heddle.until_status("/", 200);
    let mut command = Command::new("curl");
    let url = format!("http://{}/slow", heddle.http);
    command.args(["-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", &url]);
    let mut curl = Process::start(command, heddle.place.path("curl.log"));
    until("the request", || heddle.metrics().contains("heddle_http_requests_in_flight 1").then_some(()));
    heddle.process.signal("TERM");
    curl.wait();
    assert_eq!(curl.output(), format!("200 {SLOW}"));
    assert_eq!(heddle.process.wait().code(), Some(0));
}

#[test]
fn ready_says_draining_before_new_connections_are_refused() {
    let nginx = slow();
    let mut heddle = heddle(", drain_timeout: 20s, drain_delay: 1s");
    heddle.route("slow", "/*", nginx.address);
    heddle.until_status("/", 200);
    let begun = begin(heddle.http);
    heddle.process.signal("TERM");
    until("/ready to say draining", || {
        client::get(heddle.agent, "/ready").ok().filter(|answer| answer.status == 503 && answer.text().contains("draining"))
    });
    assert_eq!(heddle.get("/").status, 200, "new connections are still served while balancers get to know");
    until("new connections to be refused", || client::get(heddle.http, "/").err());
    assert!(client::get(heddle.agent, "/ready").unwrap().text().contains("draining"));
    assert_eq!(finish(begun), SLOW);
    assert_eq!(heddle.process.wait().code(), Some(0));
}

#[test]
fn an_idle_connection_does_not_hold_the_drain_up() {
    let nginx = slow();
    let mut heddle = heddle(", drain_timeout: 20s");
    heddle.route("slow", "/*", nginx.address);
    heddle.until_status("/", 200);
    let mut idle = TcpStream::connect(heddle.http).unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n").unwrap();
    let mut piece = [0; 1024];
    assert!(idle.read(&mut piece).unwrap() > 0);
    let silent = TcpStream::connect(heddle.http).unwrap();
    let start = Instant::now();
    heddle.process.signal("TERM");
    assert_eq!(heddle.process.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    drop(silent);
}

#[test]
fn the_deadline_cuts_what_is_not_done() {
    let nginx = slow();
    let mut heddle = heddle(", drain_timeout: 300ms");
    heddle.route("slow", "/*", nginx.address);
    heddle.until_status("/", 200);
    let begun = begin(heddle.http);
    heddle.process.signal("TERM");
    assert!(finish(begun) < SLOW, "the deadline is shorter than the answer");
    assert_eq!(heddle.process.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let nginx = slow();
    let mut heddle = heddle(", drain_timeout: 60s");
    heddle.route("slow", "/*", nginx.address);
    heddle.until_status("/", 200);
    let begun = begin(heddle.http);
    heddle.process.signal("TERM");
    until("/ready to say draining", || {
        client::get(heddle.agent, "/ready").ok().filter(|answer| answer.text().contains("draining"))
    });
    heddle.process.signal("TERM");
    assert!(finish(begun) < SLOW, "what was in flight is cut");
    heddle.process.wait();
}

#[test]
fn drain_over_http_is_the_same_as_a_signal() {
    let nginx = slow();
    let mut heddle = heddle(", drain_timeout: 20s");
    heddle.route("slow", "/*", nginx.address);
    heddle.until_status("/", 200);
    let begun = begin(heddle.http);
    assert_eq!(client::send(heddle.agent, "POST", "/drain", &[("Host", "localhost")], b"").unwrap().status, 202);
    assert_eq!(finish(begun), SLOW);
    assert_eq!(heddle.process.wait().code(), Some(0));
}

#[test]
fn what_comes_in_can_be_closed_alone() {
    let nginx = slow();
    let mut heddle = heddle(", drain_timeout: 20s");
    heddle.route("slow", "/*", nginx.address);
    heddle.until_status("/", 200);
    let begun = begin(heddle.http);
    let agent = heddle.agent;
    let asked = std::thread::spawn(move || client::send(agent, "POST", "/drain?inbound", &[("Host", "localhost")], b"").unwrap());
    until("new connections to be refused", || client::get(heddle.http, "/").err());
    if asked.is_finished() {
        panic!("a request is in flight, and yet: {:?}", asked.join().map(|answer| (answer.status, answer.text())));
    }
    assert_eq!(finish(begun), SLOW);
    assert_eq!(asked.join().unwrap().status, 200);
    assert_eq!(client::send(agent, "POST", "/drain?inbound", &[("Host", "localhost")], b"").unwrap().status, 200, "again");
    assert!(client::get(agent, "/ready").unwrap().text().contains("draining"));
    assert!(heddle.process.is_running(), "what goes out may go on");
    heddle.process.signal("TERM");
    assert_eq!(heddle.process.wait().code(), Some(0));
}
