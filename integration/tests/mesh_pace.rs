//! How soon a mesh hears of what has changed: instances that come, drain and die, and policies that end what is running. The exact times of the registry are told with a
//! clock of its own beside it (`controlplane/src/mesh/tests.rs`); here is the whole way, over sockets and processes.
//!
//! Each way is gone several times and the fastest counts: a machine that is busy with other stories can make any one of them late, but what waits for a timer or a
//! batch of more than a second is late each time. Of what polls now and then some are in time by chance; that nothing polls is shown by the tests with a clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heddle_integration::app::App;
use heddle_integration::client::{self, Conversation};
use heddle_integration::greeter::{echoes, greeted, greeter};
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::process::{PATIENCE, until};
use heddle_integration::raw::{Raw, read_head};
use serde_json::{Value, json};

/// How often each way is gone.
const ROUNDS: usize = 3;
/// What is promised.
const SECOND: Duration = Duration::from_secs(1);
/// How long an instance stays whose stream has ended without a word.
const GRACE: Duration = Duration::from_secs(1);

/// How an instance stands with the control plane; nothing when it is not there.
fn standing(mesh: &Mesh, node: &str) -> Option<String> {
    let listed = mesh.control.admin("GET", "/mesh/instances", Value::Null).json();
    let own = listed.as_array().expect("a list").iter().find(|instance| instance["node"] == node)?;
    Some(own["state"].as_str().expect("a state").to_owned())
}

/// Whether a caller holds this instance for an endpoint.
fn knows(caller: &Node, instance: &Node) -> bool {
    client::get(caller.admin, "/endpoints").unwrap().text().contains(&instance.inbound.to_string())
}

fn fastest(what: &str, times: &[Duration], bound: Duration) {
    let least = times.iter().min().expect("some rounds");
    assert!(*least < bound, "{what}: expected less than {bound:?}, took {times:?}");
}

#[test]
fn an_instance_is_called_within_a_second_of_its_registration_and_gone_at_once_when_it_drains_or_dies() {
    let mesh = Mesh::start("");
    let (stays, comes) = (App::saying("stays"), App::saying("comes"));
    let _stays = mesh.sidecar(&Service::http("api", stays.address));
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    let (mut joined, mut drained, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..2 * ROUNDS {
        let id = format!("api-{round}");
        let mut node = mesh.begin_sidecar(&id, &Service::http("api", comes.address));
        let before = comes.count("GET /new");
        until("it to be registered", || standing(&mesh, &id).filter(|state| state == "live"));
        let registered = Instant::now();
        until("it to be called", || {
            assert_eq!(client::get(web.outbound[0], "/new").unwrap().status, 200);
            (comes.count("GET /new") > before).then_some(())
        });
        joined.push(registered.elapsed());

        let ended = Instant::now();
        let killed = round % 2 == 1;
        if killed {
            node.process.kill()
        } else {
            node.process.signal("TERM")
        }
        until("its caller to forget it", || {
            assert_eq!(client::get(web.outbound[0], "/").unwrap().status, 200, "nobody else notices");
            (!knows(&web, &node)).then_some(())
        });
        if killed { &mut lost } else { &mut drained }.push(ended.elapsed());
        // The next one is not to be taken for another that is lost in the same moment.
        until("the control plane to forget it", || standing(&mesh, &id).is_none().then_some(()));
    }
    fastest("from registration to the first request", &joined, SECOND);
    fastest("from SIGTERM to no endpoint", &drained, SECOND);
    fastest("from SIGKILL to no endpoint", &lost, GRACE + SECOND);
}

/// A server of HTTP whose answers last: a WebSocket that says again what it hears, and a stream that never ends.
fn lasting() -> Raw {
    Raw::start(|stream| {
        loop {
            let head = read_head(stream);
            let answer = match head.split(' ').nth(1) {
                None => return,
                Some("/socket") => "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                Some("/stream") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmore\r\n",
                Some(_) => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
            if head.contains("/socket") {
                let mut from = stream.try_clone().expect("a socket");
                let _ = std::io::copy(&mut from, stream);
                return;
            }
        }
    })
}

/// Asks for something that lasts, and waits for the beginning of it: `end` is the end of that.
fn begun(address: SocketAddr, request: &str, end: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let (mut said, mut one) = (Vec::new(), [0]);
    while !said.ends_with(end.as_bytes()) {
        assert_eq!(stream.read(&mut one).unwrap(), 1, "closed after {}", String::from_utf8_lossy(&said));
        said.push(one[0]);
    }
    assert!(said.starts_with(b"HTTP/1.1 101") || said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
    stream
}

/// When somebody else ends it.
fn end_of(mut stream: TcpStream) -> JoinHandle<Instant> {
    std::thread::spawn(move || {
        let mut rest = [0; 64];
        loop {
            match stream.read(&mut rest) {
                Ok(1..) => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    panic!("it never ends")
                }
                Ok(0) | Err(_) => return Instant::now(),
            }
        }
    })
}

/// When a connection that is kept has its first refusal.
fn refusal_of(mut kept: Conversation) -> JoinHandle<Instant> {
    std::thread::spawn(move || {
        until("the refusal", || {
            let answer = kept.ask("GET /kept HTTP/1.1\r\nHost: chat\r\n\r\n");
            assert!(matches!(answer.status, 200 | 403), "{answer:?}");
            (answer.status == 403).then(Instant::now)
        })
    })
}

#[test]
fn a_policy_ends_within_a_second_what_is_running_on_connections_that_were_there_before_it() {
    let mesh = Mesh::start("");
    let (mail, chat) = (greeter(), lasting());
    let _mail = mesh.sidecar(&Service { protocol: "tcp", ..Service::http("mail", mail) });
    let _chat = mesh.sidecar(&Service::http("chat", chat.address));
    let web = mesh.sidecar(&Service { calls: &["chat", "mail"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    const KINDS: [&str; 4] = ["an open tunnel", "an open WebSocket", "an answer that streams", "a kept connection"];
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let mut tunnel = greeted(web.outbound[1]);
        echoes(&mut tunnel, b"EHLO a\r\n");
        let upgrade = "GET /socket HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut socket = begun(web.outbound[0], upgrade, "\r\n\r\n");
        echoes(&mut socket, b"hello");
        let stream = begun(web.outbound[0], "GET /stream HTTP/1.1\r\nHost: chat\r\n\r\n", "more");
        let mut kept = Conversation::open(web.outbound[0]);
        assert_eq!(kept.ask("GET /kept HTTP/1.1\r\nHost: chat\r\n\r\n").status, 200);

        let ends = [end_of(tunnel), end_of(socket), end_of(stream), refusal_of(kept)];
        mesh.policy("web", json!({ "action": "deny", "rules": [ { "from": [ { "identities": ["web"] } ] } ] }));
        let written = Instant::now();
        for (times, end) in times.iter_mut().zip(ends) {
            times.push(end.join().unwrap().saturating_duration_since(written));
        }
        assert_eq!(client::get(web.outbound[0], "/").unwrap().status, 403, "nor does anything new begin");
        assert_eq!(mesh.control.admin("DELETE", "/authorization_policies/web", Value::Null).status, 200);
        mesh.until_reached(&web, "/");
    }
    for (kind, times) in KINDS.into_iter().zip(times) {
        fastest(kind, &times, SECOND);
    }
}
