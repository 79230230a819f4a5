//! Applications that have not said what they speak, called by clients that have not heard of it either: over HTTP/2 in clear, by the proxy, and in bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use heddle_integration::client;
use heddle_integration::greeter::{GREETING, echoes, greeted};
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::{PATIENCE, Process, until};
use heddle_integration::python;
use serde_json::{Value, json};

/// Who has called, as applications are told.
const CALLER: &str = "URI=spiffe://story.example/ns/default/svc/web";

/// A sidecar before an application that has not said what it speaks.
fn silent(mesh: &Mesh, name: &str, address: SocketAddr) -> Node {
    mesh.sidecar(&Service { protocol: "auto", ..Service::http(name, address) })
}

/// nginx that says how it was asked and by whom.
fn telling(how: fn(&str) -> Nginx) -> Nginx {
    how("location / { return 200 'asked in $server_protocol by $http_x_forwarded_client_cert'; }")
}

/// haproxy, which takes a connection for HTTP/1 or HTTP/2 as it begins.
fn speaking_both(mesh: &Mesh) -> (Process, SocketAddr) {
    let place = &mesh.control.place;
    let address = place.address();
    let text = format!(
        "defaults\n mode http\n timeout client 30s\n timeout server 30s\n timeout connect 5s\nfrontend both\n bind {address}\n \
         http-request return status 200 content-type text/plain lf-string \"asked in HTTP/%[req.ver] by %[req.hdr(x-forwarded-client-cert)]\"\n"
    );
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(place.write("haproxy.cfg", &text));
    let process = Process::start(command, place.path("haproxy.log"));
    until("haproxy", || TcpStream::connect(address).ok());
    (process, address)
}

/// What the real curl is answered over HTTP/2 in clear, where that is a success.
fn over_http2(arguments: &[&str]) -> Option<String> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--max-time", "20", "--http2-prior-knowledge", "-w", "; HTTP/%{http_version}"]);
    let output = curl.args(arguments).output().expect("curl is installed");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What came of one kind of call of gRPC's own client; `proxy` is where its environment sends it.
fn calls(kind: &str, target: &str, proxy: &str) -> Value {
    let mut command = python::script("client.py");
    command.env("grpc_proxy", proxy).env("no_grpc_proxy", "").args([kind, target]);
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!({ "error": String::from_utf8_lossy(&output.stderr) }))
}

fn grpc_server(mesh: &Mesh) -> (Process, SocketAddr) {
    let address = mesh.control.place.address();
    let mut command = python::script("server.py");
    command.arg(address.to_string());
    let server = Process::start(command, mesh.control.place.path("server.log"));
    until("the server", || server.output().contains("serving").then_some(()));
    (server, address)
}

#[test]
fn clients_that_speak_http2_in_clear_reach_applications_of_any_version_on_each_way() {
    let mesh = Mesh::start("");
    let (plain, modern, both) = (telling(Nginx::start), telling(Nginx::http2), speaking_both(&mesh));
    let services = [("plain", plain.address, "HTTP/1.1"), ("modern", modern.address, "HTTP/2.0"), ("both", both.1, "HTTP/1.1")];
    let sidecars = services.map(|(name, address, _)| silent(&mesh, name, address));
    let proxy = mesh.control.place.address();
    let outbound = format!(", http_proxy: \"{proxy}\"");
    let calls = services.map(|(name, ..)| name);
    let web = mesh.sidecar(&Service { calls: &calls, outbound: &outbound, ..Service::http("web", mesh.control.place.address()) });
    for (nth, (name, address, version)) in services.into_iter().enumerate() {
        let listener = format!("http://{}/", web.outbound[nth]);
        let (named, host) = (format!("http://{name}.default.mesh/"), format!("Host: {name}.default.mesh"));
        let (proxied, at_proxy) = (format!("http://{proxy}"), format!("http://{proxy}/"));
        // A listener of its own; a tunnel of the proxy, which is how clients of proxies speak HTTP/2 in clear; the proxy spoken to as the service.
        let ways: [&[&str]; 3] = [&[&listener], &["--proxytunnel", "--proxy", &proxied, &named], &["-H", &host, &at_proxy]];
        for way in ways {
            let told = until(name, || over_http2(way));
            assert!(told.starts_with(&format!("asked in {version} by ")) && told.ends_with("; HTTP/2"), "{way:?}: {told}");
            assert!(told.contains(CALLER), "{way:?}: {told}");
        }
        let several = Command::new("nghttp").args(["-m", "20", &listener]).output().expect("nghttp2-client is installed");
        let told = String::from_utf8_lossy(&several.stdout).into_owned();
        assert_eq!(told.matches(&format!("asked in {version} by ")).count(), 20, "on one connection: {told}");
        // What speaks HTTP/1 at the same listener, and by a tunnel, gets the same.
        assert!(client::get(web.outbound[nth], "/").unwrap().text().starts_with(&format!("asked in {version} ")));
        let within = client::curl(&["--proxytunnel", "--proxy", &proxied, &named]);
        assert!(within.starts_with(&format!("asked in {version} ")), "{within}");

        let label = if version == "HTTP/2.0" { "http2" } else { "http1" };
        let counted = format!("heddle_mesh_protocol_detected_total{{port=\"{}\",protocol=\"{label}\"}} 1\n", address.port());
        assert!(sidecars[nth].metrics().contains(&counted), "found out once: {}", sidecars[nth].metrics());
        let port = web.outbound[nth].port();
        for protocol in ["http1", "http2"] {
            let counted = format!("heddle_mesh_outbound_protocol_detected_total{{port=\"{port}\",protocol=\"{protocol}\"}}");
            assert!(web.metrics().contains(&counted), "{protocol}: {}", web.metrics());
        }
    }
}

#[test]
fn grpc_reaches_a_server_that_has_not_said_what_it_speaks_and_servers_of_bytes_beside_it() {
    let mesh = Mesh::start("");
    let (_server, address) = grpc_server(&mesh);
    let mail = heddle_integration::greeter::greeter();
    let said = format!(", ports: [ {{ port: 25, address: \"{mail}\", protocol: auto }} ]");
    let echo = mesh.sidecar(&Service { protocol: "auto", said: &said, ..Service::http("echo", address) });
    let proxy = mesh.control.place.address();
    let outbound = format!(", http_proxy: \"{proxy}\"");
    let called = ["echo", "echo, port: 25"];
    let web =
        mesh.sidecar(&Service { calls: &called, outbound: &outbound, ..Service::http("web", mesh.control.place.address()) });
    let (listener, proxied) = (web.outbound[0].to_string(), format!("http://{proxy}"));
    for (target, proxy) in [(listener.as_str(), ""), ("dns:///echo.default.mesh:80", proxied.as_str())] {
        until(target, || (calls("unary_error", target, proxy)["length"] == 100_000).then_some(()));
        assert_eq!(calls("unary", target, proxy)["trailers"], json!({ "x-trailer": "last", "x-data-bin": "00ff" }), "{target}");
        assert_eq!(calls("talk", target, proxy), json!({ "heard": 50, "last": "-94", "rest": 0, "code": "OK" }), "{target}");
        assert_eq!(calls("fail", target, proxy)["code"], "FAILED_PRECONDITION", "{target}");
        echoes(&mut greeted(web.outbound[1]), b"EHLO a\r\n");
    }
    let counted = format!("heddle_mesh_protocol_detected_total{{port=\"{}\",protocol=\"grpc\"}} 1\n", address.port());
    assert!(echo.metrics().contains(&counted), "{}", echo.metrics());
}

/// A server that says again what it hears and, where it greets, speaks first; counts its connections.
fn echoing(greets: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, came) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = came.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || {
                let (mut from, mut to) = (stream.try_clone()?, stream);
                if greets {
                    to.write_all(GREETING)?;
                }
                std::io::copy(&mut from, &mut to)?;
                to.shutdown(std::net::Shutdown::Write)
            });
        }
    });
    (address, came)
}

#[test]
fn bytes_arrive_as_they_were_sent_however_they_begin_and_are_cut() {
    let mesh = Mesh::start("");
    let ((echo, _), (mail, letters)) = (echoing(false), echoing(true));
    let (_echo, _mail) = (silent(&mesh, "echo", echo), silent(&mesh, "mail", mail));
    let web = mesh.sidecar(&Service { calls: &["echo", "mail"], ..Service::http("web", mesh.control.place.address()) });
    drop(greeted(web.outbound[1]));
    let mut dice = fastrand::Rng::with_seed(7);
    let beginnings: [&[u8]; 7] =
        [b"", b"\x00", b"GET key\r\n", b"PRI * HTTP/2.0\r\n\r\nXX", b"EHLO a\r\n", b"POST ", b"\x16\x03\x01 no hello"];
    for (nth, beginning) in beginnings.into_iter().enumerate() {
        let mut sent = beginning.to_vec();
        sent.extend((0..200_000).map(|_| dice.u8(..)));
        if nth == 0 {
            sent[0] = 0xff;
        }
        for greets in [false, true] {
            let mut stream = TcpStream::connect(web.outbound[usize::from(greets)]).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut writer, bytes, cuts) =
                (stream.try_clone().unwrap(), sent.clone(), [1 + dice.usize(..9), 1 + dice.usize(..9)]);
            let writing = std::thread::spawn(move || {
                let (first, rest) = bytes.split_at(cuts[0]);
                let (second, rest) = rest.split_at(cuts[1]);
                [first, second, rest].into_iter().for_each(|piece| writer.write_all(piece).unwrap());
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            writing.join().unwrap();
            let expected = if greets { [GREETING, &sent].concat() } else { sent.clone() };
            assert!(heard == expected, "{beginning:?}: {} of {} bytes", heard.len(), expected.len());
        }
    }
    // Whoever speaks first, the server was called once for each connection: nobody was called only to find out.
    let before = letters.load(Ordering::Relaxed);
    for _ in 0..5 {
        echoes(&mut greeted(web.outbound[1]), b"NOOP\r\n");
    }
    assert_eq!(letters.load(Ordering::Relaxed) - before, 5);
}

#[test]
fn a_websocket_that_an_application_answers_like_any_request_does_not_begin() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("no chat here");
    let _api = silent(&mesh, "api", app.address);
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    assert_eq!(mesh.until_reached(&web, "/").text(), "no chat here");
    let asked = "GET / HTTP/1.1\r\nHost: api\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = client::Conversation::open(web.outbound[0]).ask(asked);
    assert_eq!(answer.status, 501, "{answer:?}");
    assert_eq!(mesh.until_reached(&web, "/").text(), "no chat here");
}

#[test]
fn many_requests_at_once_on_few_connections_are_all_answered() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let _api = silent(&mesh, "api", app.address);
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    // More than one turn of a task has room for: what waits for its turn must not be forgotten.
    let url = format!("http://{}/", web.outbound[0]);
    for (connections, streams) in [("10", "20"), ("4", "100"), ("4", "100")] {
        let arguments = ["-n", "3000", "-c", connections, "-m", streams, "-T", "20", "-N", "20", &url];
        let output = Command::new("h2load").args(arguments).output().expect("nghttp2-client is installed");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("3000 done, 3000 succeeded, 0 failed"), "{said}");
    }
}
