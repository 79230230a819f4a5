//! What a client sees when an upstream fails: the right status, soon, and a reason for the operator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use heddle_integration::client::{self, Answer};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::{PATIENCE, until};
use heddle_integration::raw::{Raw, read_head};
use serde_json::{Value, json};

/// An address where nobody listens.
fn dead() -> SocketAddr {
    let listener = TcpListener::bind((Place::new().ip, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// A gateway with this upstream behind `/`, which tells its reasons.
fn with(upstream: Value) -> Heddle {
    let heddle = Heddle::run_with(Setup { listener: ", expose_reason: true".into(), ..Setup::default() });
    heddle.put("/routes/all", json!({ "uri": "/*", "upstream": upstream }));
    until("the route", || {
        let dump = client::get(heddle.agent, "/config_dump").unwrap().text();
        dump.contains("\"all\"").then_some(())
    });
    heddle
}

fn expect(answer: &Answer, status: u16, reason: &str) {
    let told = answer.field("x-heddle-reason").unwrap_or("-");
    assert_eq!((answer.status, told), (status, reason), "{}", answer.text());
    assert!(answer.json()["error_msg"].is_string());
}

#[test]
fn a_dead_endpoint_is_502() {
    let heddle = with(json!({ "nodes": { dead().to_string(): 1 } }));
    expect(&heddle.get("/"), 502, "upstream_connect");
}

#[test]
fn an_endpoint_that_answers_nonsense_is_502() {
    let raw = Raw::saying("what?\r\n\r\n");
    let heddle = with(json!({ "nodes": { raw.address.to_string(): 1 } }));
    expect(&heddle.get("/"), 502, "upstream_protocol");
}

#[test]
fn an_endpoint_that_hangs_up_is_502() {
    let raw = Raw::start(|stream| drop(read_head(stream)));
    let heddle = with(json!({ "nodes": { raw.address.to_string(): 1 } }));
    expect(&heddle.get("/"), 502, "upstream_reset");
}

#[test]
fn an_endpoint_that_is_silent_is_504_in_time() {
    let raw = Raw::start(|stream| while !read_head(stream).is_empty() {});
    let timeout = json!({ "connect": 1, "send": 1, "read": 0.3 });
    let heddle = with(json!({ "nodes": { raw.address.to_string(): 1 }, "timeout": timeout }));
    let start = Instant::now();
    expect(&heddle.get("/"), 504, "upstream_timeout");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_upstream_without_endpoints_is_503() {
    let heddle = with(json!({ "nodes": {} }));
    expect(&heddle.get("/"), 503, "no_endpoint");
}

#[test]
fn a_name_that_nobody_knows_is_502() {
    let heddle = with(json!({ "nodes": { "nobody.invalid:80": 1 } }));
    expect(&heddle.get("/"), 502, "upstream_dns");
}

#[test]
fn a_dead_endpoint_beside_a_living_one_is_not_noticed() {
    let nginx = Nginx::saying("alive");
    let heddle = with(json!({ "nodes": { dead().to_string(): 1, nginx.address.to_string(): 1 } }));
    (0..50).for_each(|_| assert_eq!(heddle.get("/").text(), "alive"));
    let posted = client::send(heddle.http, "POST", "/", &[], b"nothing was sent to the dead one").unwrap();
    assert_eq!(posted.text(), "alive");
}

#[test]
fn a_post_that_may_have_been_seen_is_not_sent_twice() {
    let (seen, count) = mpsc::channel();
    let serve = move |stream: &mut TcpStream| {
        if read_head(stream).starts_with("POST") {
            seen.send(()).unwrap();
        }
    };
    let (one, two) = (Raw::start(serve.clone()), Raw::start(serve));
    let heddle = with(json!({ "nodes": { one.address.to_string(): 1, two.address.to_string(): 1 } }));
    expect(&client::send(heddle.http, "POST", "/", &[], b"buy").unwrap(), 502, "upstream_reset");
    assert_eq!(count.try_iter().count(), 1);
    expect(&heddle.get("/"), 502, "upstream_reset");
}

#[test]
fn a_client_that_leaves_ends_the_work_upstream() {
    let (left, noticed) = mpsc::channel();
    let raw = Raw::start(move |stream| {
        read_head(stream);
        let _ = left.send(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    });
    let heddle = with(json!({ "nodes": { raw.address.to_string(): 1 } }));
    let mut client = TcpStream::connect_timeout(&heddle.http, PATIENCE).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    until("the request upstream", || {
        heddle.metrics().lines().any(|line| line.starts_with("heddle_http_requests_in_flight 1")).then_some(())
    });
    drop(client);
    assert!(noticed.recv_timeout(PATIENCE).unwrap(), "the connection to the upstream is closed");
    until("the reason in the metrics", || {
        heddle.metrics().contains("heddle_http_reasons_total{reason=\"client_closed\"} 1").then_some(())
    });
}

#[test]
fn an_answer_that_breaks_off_is_not_passed_as_whole() {
    let raw = Raw::start(|stream| {
        read_head(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let heddle = with(json!({ "nodes": { raw.address.to_string(): 1 } }));
    let answer = client::raw(heddle.http, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.ends_with("half") || answer.is_empty(), "{answer}");
}

#[test]
fn failing_endpoints_are_left_out_and_come_back() {
    let (good, bad) = (
        Nginx::saying("good"),
        Nginx::start("location = / { return 200 'up'; } location / { return 500; } location /heal { return 200 'healed'; }"),
    );
    let checks = json!({
        "active": { "http_path": "/heal", "healthy": { "interval": 1, "successes": 1 }, "unhealthy": { "interval": 1, "http_failures": 1 } },
        "passive": { "unhealthy": { "http_statuses": [500], "http_failures": 2 }, "healthy": { "successes": 1 } }
    });
    let nodes = json!({ good.address.to_string(): 1, bad.address.to_string(): 1 });
    let heddle = with(json!({ "nodes": nodes, "checks": checks }));
    let up = |value: &str| format!("endpoint=\"{}\"}} {value}", bad.address);
    until("the bad endpoint to be left out", || {
        heddle.get("/x");
        heddle
            .metrics()
            .lines()
            .any(|line| line.starts_with("heddle_upstream_endpoint_up") && line.contains(&up("0")))
            .then_some(())
    });
    until("the endpoint to come back by its probe", || {
        heddle
            .metrics()
            .lines()
            .any(|line| line.starts_with("heddle_upstream_endpoint_up") && line.contains(&up("1")))
            .then_some(())
    });
}
