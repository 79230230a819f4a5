//! Listeners for bytes: real clients of Redis and of TLS through a gateway, by server name, over endpoints that fail, until the listener goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use heddle_integration::certificates::{Authority, Pair};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::process::{PATIENCE, until};
use heddle_integration::raw::Raw;
use heddle_integration::redis::Redis;
use serde_json::{Value, json};

/// A gateway, and where its listener for bytes is.
struct Story {
    heddle: Heddle,
    tcp: SocketAddr,
}

impl Story {
    fn new(listener: Value) -> Story {
        let heddle = Heddle::run();
        let tcp = heddle.place.address();
        let story = Story { heddle, tcp };
        story.listen(listener);
        story
    }

    fn listen(&self, listener: Value) {
        let mut whole = json!({ "address": self.tcp.to_string(), "protocol": "tcp" });
        whole.as_object_mut().unwrap().extend(listener.as_object().unwrap().clone());
        self.heddle.put("/listeners/bytes", whole);
        until("the listener", || TcpStream::connect(self.tcp).ok());
    }

    fn connect(&self) -> TcpStream {
        self.try_connect().unwrap()
    }

    /// Of one that is broken off at once the client may hear while it still connects.
    fn try_connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.tcp, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// The value of a series of the metrics page.
    fn count(&self, series: &str) -> u64 {
        let page = self.heddle.metrics();
        page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0)
    }
}

/// What redis-cli prints.
fn redis_cli(address: SocketAddr, arguments: &[&str]) -> String {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let output = Command::new("redis-cli").args(["-h", &ip, "-p", &port]).args(arguments).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)).trim().to_owned()
}

/// What `openssl s_client` gets for a PING to the Redis of this server name; it must like the certificate.
fn tls_ping(address: SocketAddr, name: &str, authority: &str) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &address.to_string(), "-servername", name, "-verify_hostname", name])
        .args(["-verify_return_error", "-CAfile", authority])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    // Who is refused does not hear it any more.
    let _ = input.write_all(b"PING\r\nQUIT\r\n");
    let output = client.wait_with_output().unwrap();
    drop(input);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn redis_is_reached_through_a_listener_for_bytes_whatever_becomes_of_single_nodes() {
    let redis = Redis::start();
    let story = Story::new(json!({ "upstream": { "nodes": { redis.address.to_string(): 1 } } }));
    assert_eq!(redis_cli(story.tcp, &["set", "greeting", "hello"]), "OK");
    assert_eq!(redis_cli(story.tcp, &["get", "greeting"]), "hello");
    let long = "x".repeat(300_000);
    assert_eq!(redis_cli(story.tcp, &["eval", "return redis.call('set', 'long', string.rep('x', 300000))", "0"]), "OK");
    assert_eq!(redis_cli(story.tcp, &["get", "long"]), long);

    let gone = story.heddle.place.address();
    story.heddle.put("/upstreams/cache", json!({ "nodes": { redis.address.to_string(): 1, gone.to_string(): 1 } }));
    story.listen(json!({ "upstream_id": "cache" }));
    story.heddle.until_effective();
    for _ in 0..6 {
        assert_eq!(redis_cli(story.tcp, &["get", "greeting"]), "hello");
    }
    assert!(story.count("heddle_tcp_retries_total{listener=\"bytes\"}") > 0, "{}", story.heddle.metrics());
    assert!(story.count("heddle_tcp_connections_total{listener=\"bytes\"}") >= 9);
    assert!(story.count("heddle_tcp_bytes_total{listener=\"bytes\",direction=\"out\"}") > 300_000);
    until("all connections to be counted out", || {
        (story.count("heddle_tcp_connections_open{listener=\"bytes\"}") == 0).then_some(())
    });
    let logged = || {
        story
            .heddle
            .process
            .output()
            .lines()
            .any(|line| line.contains("\"listener\":\"bytes\"") && line.contains("\"status\":200"))
    };
    until("the access log", || logged().then_some(()));
}

#[test]
fn a_direction_that_ends_is_told_and_a_connection_that_breaks_off_does_not_look_complete() {
    let backend = Raw::start(|stream| {
        let _ = stream.write_all(b"welcome\n");
        let mut all = Vec::new();
        let mut first = [0; 5];
        if stream.read_exact(&mut first).is_ok() && &first == b"break" {
            // More that is not read makes closing a reset.
            let _ = stream.peek(&mut [0; 1]);
            return;
        }
        if stream.read_to_end(&mut all).is_ok() {
            let _ = stream.write_all(format!("{} bytes", first.len() + all.len()).as_bytes());
        }
    });
    let story = Story::new(json!({ "upstream": { "nodes": { backend.address.to_string(): 1 } } }));
    let mut client = story.connect();
    let mut greeting = [0; 8];
    client.read_exact(&mut greeting).expect("the server may speak first");
    assert_eq!(&greeting, b"welcome\n");
    client.write_all(&[b'x'; 100_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "100000 bytes");

    let mut broken = story.connect();
    broken.read_exact(&mut greeting).unwrap();
    broken.write_all(b"break, and more that nobody reads").unwrap();
    let reset = broken.read(&mut greeting).map_err(|error| error.kind());
    assert_eq!(reset, Err(std::io::ErrorKind::ConnectionReset), "what came is not all there was to come");

    let closed = story.heddle.place.address();
    story.listen(json!({ "upstream": { "nodes": { closed.to_string(): 1 } } }));
    story.heddle.until_effective();
    let ended = story.try_connect().and_then(|mut lost| lost.read(&mut [0; 1]));
    assert!(!matches!(ended, Ok(1..)), "nobody is there: {ended:?}");
    until("the reason", || {
        (story.count("heddle_tcp_reasons_total{listener=\"bytes\",reason=\"upstream_connect\"}") > 0).then_some(())
    });
}

#[test]
fn server_names_lead_through_tls_or_end_it() {
    let authority = Authority::new();
    let (inner, outer) = (authority.issue(&["own.example"]), authority.issue(&["front.example", "a.wide.example"]));
    let (own, plain) = (Redis::over_tls(&inner), Redis::start());
    let story = Story::new(json!({ "limits": { "handshake_timeout": "2s" }, "routes": [
            { "server_names": ["own.example"], "upstream": { "nodes": { own.address.to_string(): 1 } } },
            { "server_names": ["front.example", "*.wide.example"], "tls": "terminate", "upstream": { "nodes": { plain.address.to_string(): 1 } } },
        ] }));
    let Pair { certificate, key } = outer;
    story.heddle.put("/ssls/front", json!({ "snis": ["front.example", "*.wide.example"], "cert": certificate, "key": key }));
    story.heddle.until_effective();
    let roots = story.heddle.place.write("ca.pem", &authority.pem()).display().to_string();
    for name in ["own.example", "front.example", "a.wide.example"] {
        assert!(tls_ping(story.tcp, name, &roots).starts_with("+PONG"), "{name}");
    }
    assert_eq!(tls_ping(story.tcp, "other.example", &roots), "", "no route has this name");
    let mut clear = story.connect();
    clear.write_all(b"PING\r\n").unwrap();
    let mut nothing = [0; 1];
    assert!(!matches!(clear.read(&mut nothing), Ok(1..)), "no route takes clients without TLS");
    assert_eq!(redis_cli(story.tcp, &["--tls", "--sni", "front.example", "--cacert", &roots, "ping"]), "PONG");
}

#[test]
fn connections_are_shared_out_and_bounded_and_outlive_their_listener_for_a_while() {
    let say = |word: &'static str| {
        Raw::start(move |stream| {
            let _ = stream.write_all(word.as_bytes());
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            let _ = stream.write_all(b"bye");
        })
    };
    let (blue, green) = (say("blue"), say("gren"));
    let setup = Setup { agent: ", drain_timeout: 20s".to_owned(), ..Setup::default() };
    let heddle = Heddle::run_with(setup);
    for (id, address) in [("blue", blue.address), ("green", green.address)] {
        heddle.put(&format!("/upstreams/{id}"), json!({ "nodes": { address.to_string(): 1 } }));
    }
    let tcp = heddle.place.address();
    let story = Story { heddle, tcp };
    let shares = json!([{ "upstream_id": "blue", "weight": 3 }, { "upstream_id": "green" }]);
    story.listen(json!({ "limits": { "idle_timeout": "10s", "max_connections": 3 }, "routes": [{ "upstreams": shares }] }));
    let word = |stream: &mut TcpStream| {
        let mut word = [0; 4];
        stream.read_exact(&mut word).map(|()| String::from_utf8_lossy(&word).into_owned())
    };
    let words: Vec<String> = (0..60).map(|_| until("a place", || word(&mut story.try_connect().ok()?).ok())).collect();
    let blues = words.iter().filter(|word| *word == "blue").count();
    assert!((30..=57).contains(&blues), "three of four go to blue: {blues} of 60");
    until("all of them to be gone", || (story.count("heddle_tcp_connections_open{listener=\"bytes\"}") == 0).then_some(()));
    let mut held: Vec<TcpStream> = (0..3).map(|_| story.connect()).collect();
    held.iter_mut().for_each(|stream| drop(word(stream).unwrap()));
    let fourth = story.try_connect().and_then(|mut fourth| word(&mut fourth));
    assert!(fourth.is_err(), "the fourth has no place");
    assert_eq!(story.heddle.admin("DELETE", "/upstreams/blue", Value::Null).status, 400, "it is still used");
    assert_eq!(story.heddle.admin("DELETE", "/listeners/bytes", Value::Null).status, 200);
    until("the socket to be closed", || TcpStream::connect(story.tcp).err());
    let mut last = held.remove(0);
    last.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    last.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye", "what was open goes on");
}

#[test]
fn mistakes_in_a_listener_for_bytes_are_told_by_field() {
    let heddle = Heddle::run();
    for (listener, told) in [
        (json!({ "protocol": "tcp" }), "expected exactly one of upstream, upstream_id and routes"),
        (json!({ "protocol": "tcp", "upstream_id": "none" }), "failed to fetch upstream info by upstream id [none]"),
        (json!({ "protocol": "tcp", "routes": [{ "upstream_id": "none" }] }), "upstream id [none]"),
        (json!({ "protocol": "tcp", "upstream": { "nodes": { "127.0.0.1:1": 1 } }, "expose_reason": true }), "expose_reason"),
        (json!({ "upstream_id": "none" }), "is for `protocol: tcp`"),
    ] {
        let mut whole = json!({ "address": heddle.place.address().to_string() });
        whole.as_object_mut().unwrap().extend(listener.as_object().unwrap().clone());
        let answer = heddle.admin("PUT", "/listeners/bytes", whole);
        assert!(answer.status == 400 && answer.text().contains(told), "{told}: {} {}", answer.status, answer.text());
    }
}
