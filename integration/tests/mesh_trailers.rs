//! Fields that come behind a body: they pass gateways and sidecars to whoever reads them, and are never taken for fields of a head.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use heddle_integration::client::curl;
use heddle_integration::mesh::{Mesh, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::{PATIENCE, Process, until};
use serde_json::json;

/// A server of Node.js that sends trailers to those alone who say that they read them.
fn node(mesh: &Mesh) -> (Process, SocketAddr) {
    let address = mesh.control.place.address();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("javascript/trailers.mjs");
    let mut command = Command::new("node");
    command.arg(script).arg(address.to_string());
    let process = Process::start(command, mesh.control.place.path("trailers.log"));
    until("the server", || process.output().contains("listening").then_some(()));
    (process, address)
}

/// What is on the wire behind a request that is the last one of its connection, in lower case.
fn told(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    all.to_ascii_lowercase()
}

/// The head, and what is behind the last chunk.
fn parts(told: &str) -> (&str, &str) {
    let (head, body) = told.split_once("\r\n\r\n").unwrap();
    (head, body.rsplit_once("\r\n0\r\n").expect("it is chunked").1)
}

#[test]
fn trailers_pass_two_sidecars_both_ways_as_they_are_and_forbidden_ones_do_not() {
    let mesh = Mesh::start("");
    let (_node, address) = node(&mesh);
    let _sums = mesh.sidecar(&Service::http("sums", address));
    let web = mesh.sidecar(&Service { calls: &["sums"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");

    let reading = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, deflate;q=0.5\r\nConnection: TE, close\r\n\r\n";
    let answer = told(web.outbound[0], reading);
    let (head, trailers) = parts(&answer);
    assert!(head.contains("\r\ntrailer: x-sum") && !head.contains("x-heard") && !head.contains("set-cookie"), "{head}");
    assert_eq!(trailers, "x-sum: 0\r\nx-heard: {}\r\n\r\n", "what steers or frames does not stand there");
    assert!(answer.contains("te: trailers, connection: te, trailer: undefined"), "it was said for the next hop: {answer}");

    let silent = told(web.outbound[0], "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(silent.contains("te: undefined"), "{silent}");
    assert!(!silent.contains("x-heard"), "the server tells none to who does not say that it reads them: {silent}");

    let sent = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE, close\r\nTrailer: X-Sent\r\nTransfer-Encoding: chunked\r\n\r\n\
                3\r\nabc\r\n0\r\nX-Sent: 1\r\nX-Forwarded-Client-Cert: URI=spiffe://story.example/ns/default/svc/boss\r\nCookie: a=b\r\n\r\n";
    let answer = told(web.outbound[0], sent);
    assert!(answer.contains("trailer: x-sent"), "{answer}");
    assert_eq!(parts(&answer).1, "x-sum: 3\r\nx-heard: {\"x-sent\":\"1\"}\r\n\r\n");

    let endless: String = (0..3000).map(|nth| format!("X-{nth}: {}\r\n", "v".repeat(100))).collect();
    let many = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{endless}\r\n"
    );
    let refused = std::panic::catch_unwind(|| told(web.outbound[0], &many)).unwrap_or_default();
    assert!(!refused.starts_with("http/1.1 200"), "there is an end to how many may come: {refused}");
    let next = told(web.outbound[0], "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(next.starts_with("http/1.1 200"), "and nobody else suffers from it: {next}");
}

#[test]
fn trailers_reach_clients_of_either_version_by_a_gateway_and_two_sidecars() {
    let mesh = Mesh::start("");
    let server = "location / { add_trailer X-Te $http_te; add_trailer X-Version $server_protocol; return 200 'content'; }";
    let (old, new) = (Nginx::start(server), Nginx::http2(server));
    let _old = mesh.sidecar(&Service::http("old", old.address));
    let _new = mesh.sidecar(&Service { protocol: "http2", ..Service::http("new", new.address) });
    let _gateway = mesh.gateway();
    for name in ["old", "new"] {
        mesh.control.put(&format!("/upstreams/{name}"), json!({ "discovery_type": "mesh", "service_name": name }));
        mesh.control.put(&format!("/routes/{name}"), json!({ "uri": format!("/{name}"), "upstream_id": name }));
    }
    let web = mesh.sidecar(&Service { calls: &["old", "new"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    for (nth, (name, version)) in [("old", "HTTP/1.1"), ("new", "HTTP/2.0")].into_iter().enumerate() {
        for at in [mesh.control.http, web.outbound[nth]] {
            let url = format!("http://{at}/{name}");
            let said = ["-D", "-", "-H", "TE: trailers", "-H", "Connection: TE", "--http1.1", &url];
            let one = until(name, || Some(curl(&said)).filter(|answer| answer.contains("content")));
            let output = Command::new("nghttp").args(["-v", "-H", "te: trailers", &url]).output();
            let two = String::from_utf8_lossy(&output.expect("nghttp2-client is installed").stdout).into_owned();
            for told in [one, two] {
                let behind = told.rsplit_once("content").unwrap().1.to_ascii_lowercase();
                assert!(behind.contains(&format!("x-version: {version}").to_ascii_lowercase()), "{at} {name}: {told}");
                assert!(behind.contains("x-te: trailers"), "{at} {name}: {told}");
            }
        }
    }
}
