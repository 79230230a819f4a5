//! gRPC through the gateway with the real Python client and server: every kind of call, its status, its trailers and its end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use heddle_integration::certificates::Authority;
use heddle_integration::heddle::Heddle;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_integration::python;
use serde_json::{Value, json};

struct Story {
    heddle: Heddle,
    server: Process,
    address: SocketAddr,
}

impl Story {
    fn new() -> Story {
        let heddle = Heddle::run();
        let address = Place::new().address();
        let mut command = python::script("server.py");
        command.arg(address.to_string());
        let server = Process::start(command, heddle.place.path("server.log"));
        until("the server", || server.output().contains("serving").then_some(()));
        heddle.put(
            "/routes/grpc",
            json!({ "uri": "/story.Echo/*", "upstream": { "scheme": "grpc", "nodes": { address.to_string(): 1 } } }),
        );
        until("the route", || heddle.metrics().contains("heddle_tables_resources{kind=\"Route\"} 1").then_some(()));
        Story { heddle, server, address }
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = python::script("client.py");
        command.args(arguments);
        command
    }

    fn call(&self, kind: &str) -> Value {
        self.told(&mut self.client(&[kind, &self.heddle.http.to_string()]))
    }

    fn told(&self, command: &mut Command) -> Value {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn a_unary_call_keeps_its_metadata_and_trailers() {
    let told = Story::new().call("unary");
    assert_eq!((&told["length"], &told["initial"]["x-seen"]), (&json!(100_000), &json!("yes")), "{told}");
    assert_eq!(told["trailers"], json!({ "x-trailer": "last", "x-data-bin": "00ff" }), "{told}");
}

#[test]
fn a_stream_talks_both_ways_at_the_same_time() {
    assert_eq!(Story::new().call("talk"), json!({ "heard": 50, "last": "-94", "rest": 0, "code": "OK" }));
}

#[test]
fn statuses_arrive_as_the_server_sent_them() {
    let story = Story::new();
    let failed = story.call("fail");
    assert_eq!((&failed["code"], &failed["details"]), (&json!("FAILED_PRECONDITION"), &json!("not today: ä")));
    assert_eq!(failed["trailers"]["x-trailer"], "failed", "{failed}");
    assert_eq!(story.call("missing")["code"], "UNIMPLEMENTED");
}

#[test]
fn a_call_that_the_gateway_refuses_is_told_why() {
    let story = Story::new();
    let nodes = json!({ story.address.to_string(): 1 });
    let guarded =
        json!({ "uri": "/story.Echo/*", "plugins": { "key-auth": {} }, "upstream": { "scheme": "grpc", "nodes": nodes } });
    story.heddle.put("/routes/grpc", guarded);
    let refused = |code: &str| {
        let told = until(code, || Some(story.call("unary_error")).filter(|told| told["code"] == code));
        told["details"].as_str().unwrap().to_owned()
    };
    assert!(refused("UNAUTHENTICATED").contains("API key"));
    assert_eq!(story.heddle.admin("DELETE", "/routes/grpc", Value::Null).status, 200);
    assert_eq!(refused("UNIMPLEMENTED"), "404 Route Not Found");
}

#[test]
fn a_deadline_ends_the_call_on_both_sides() {
    let story = Story::new();
    assert_eq!(story.call("deadline")["code"], "DEADLINE_EXCEEDED");
    until("the server to notice", || story.server.output().contains("cancelled").then_some(()));
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_server() {
    let story = Story::new();
    let mut command = story.client(&["cancel", &story.heddle.http.to_string()]);
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    until("the call to arrive", || story.server.output().contains("hanging").then_some(()));
    client.stdin.take().unwrap().write_all(b"now\n").unwrap();
    until("the server to notice", || story.server.output().contains("cancelled").then_some(()));
    let lines: Vec<String> = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(client.wait().unwrap().success());
    assert_eq!(lines, ["calling", "{\"cancelled\": true}"]);
}

#[test]
fn grpc_over_tls_is_the_same() {
    let story = Story::new();
    let authority = Authority::new();
    let pair = authority.issue(&["grpc.example"]);
    story.heddle.put("/ssls/grpc", json!({ "snis": ["grpc.example"], "cert": pair.certificate, "key": pair.key }));
    until("the certificate", || story.heddle.metrics().contains("ssl=\"grpc\"").then_some(()));
    let ca = story.heddle.place.write("ca.pem", &authority.pem()).display().to_string();
    let told = story.told(&mut story.client(&["talk", &story.heddle.https.to_string(), &ca]));
    assert_eq!(told["code"], "OK");
}

#[test]
fn an_unreachable_server_is_unavailable() {
    let mut story = Story::new();
    story.server.kill();
    until("the server to be gone", || std::net::TcpStream::connect(story.address).err());
    assert_eq!(story.call("unary_error")["code"], "UNAVAILABLE");
}
