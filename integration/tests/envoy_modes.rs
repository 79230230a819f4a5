//! Real Envoys in a mesh whose owners let callers in clear in, or want them: as those who are called and as those who call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use heddle_integration::client::{self, raw};
use heddle_integration::envoy::Way;
use heddle_integration::load::Load;
use heddle_integration::mesh::{Mesh, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::{Process, until};
use heddle_integration::python;
use heddle_integration::raw::{Raw, read_head};
use serde_json::{Value, json};

/// An application that tells who called it.
fn telling() -> Nginx {
    Nginx::start("location / { return 200 'called by [$http_x_forwarded_client_cert]'; }")
}

/// What a caller is told who has no identity and lies about that.
fn in_clear(at: SocketAddr) -> String {
    let lies = "X-Forwarded-Client-Cert: URI=spiffe://story.example/ns/default/svc/boss\r\n";
    raw(at, format!("GET /hello HTTP/1.1\r\nHost: api\r\n{lies}Connection: close\r\n\r\n").as_bytes())
}

fn mode(mesh: &Mesh, mode: &str) {
    mesh.control.put("/peer_authentications/api", json!({ "service": "api", "mode": mode }));
}

fn until_told(at: SocketAddr, what: &str) {
    until(what, || client::get(at, "/hello").ok().filter(|answer| answer.text().contains(what)));
}

#[test]
fn an_envoy_lets_callers_in_clear_in_while_its_owner_says_so_and_its_policies_judge_them() {
    for way in [Way::DeltaAds, Way::SotwAds] {
        let mesh = Mesh::start("");
        let app = telling();
        let api = mesh.envoy_sidecar(way, "api", Some(app.address), &[]);
        let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
        let envoy = mesh.envoy_sidecar(way, "other", None, &["api"]);
        for at in [web.outbound[0], envoy.outbound[0]] {
            until_told(at, "called by [By=spiffe://");
        }
        assert_eq!(in_clear(api.inbound), "", "by default members alone are let in");

        let load = Load::start(web.outbound[0], "/hello", 2);
        mode(&mesh, "permissive");
        let told = until("an answer in clear", || Some(in_clear(api.inbound)).filter(|told| told.contains("called by")));
        assert!(told.contains("called by []"), "nobody says who he is without proving it: {told}");
        for (at, name) in [(web.outbound[0], "web"), (envoy.outbound[0], "other")] {
            until_told(at, &format!("URI=spiffe://story.example/ns/default/svc/{name}"));
        }
        let handshake =
            Command::new("curl").args(["-sk", "-m", "10", &format!("https://{}/hello", api.inbound)]).output().unwrap();
        assert!(!handshake.status.success() && handshake.stdout.is_empty(), "a handshake must be a member's: {handshake:?}");

        // A policy that names identities means nobody who has none.
        let members = json!({ "service": "api", "action": "allow", "rules": [
            { "from": [ { "identities": ["web", "other"] } ] }, { "to": [ { "paths": ["/open"] } ] },
        ] });
        mesh.policy("api", members);
        until("a refusal", || in_clear(api.inbound).starts_with("HTTP/1.1 403").then_some(()));
        assert!(raw(api.inbound, b"GET /open HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 200"));
        assert_eq!(client::get(envoy.outbound[0], "/hello").unwrap().status, 200);

        mode(&mesh, "strict");
        until("nobody in clear", || in_clear(api.inbound).is_empty().then_some(()));
        let tally = load.stop();
        assert!(tally.failures.is_empty() && tally.requests > 0, "members notice nothing: {:#?}", tally.failures);
    }
}

#[test]
fn no_spelling_of_who_calls_gets_past_an_envoy() {
    let mesh = Mesh::start("");
    // It says what it was asked, as it came.
    let app = Raw::start(|stream| {
        while let head = read_head(stream)
            && !head.is_empty()
        {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        }
    });
    let api = mesh.envoy_sidecar(Way::DeltaAds, "api", Some(app.address), &[]);
    mode(&mesh, "permissive");
    until("the Envoy", || TcpStream::connect(api.inbound).ok());
    until("an answer in clear", || in_clear(api.inbound).contains("GET /hello").then_some(()));
    for nth in 0..8 {
        let sign = |bit: u8| if nth & bit == 0 { '-' } else { '_' };
        let name = format!("X{}Forwarded{}Client{}Cert", sign(1), sign(2), sign(4));
        let asked = format!("GET /hello HTTP/1.1\r\nHost: api\r\n{name}: URI=boss\r\nX-Other: here\r\nConnection: close\r\n\r\n");
        let told = raw(api.inbound, asked.as_bytes());
        assert!(told.contains("here") && !told.contains("boss"), "{name}: {told}");
    }
}

#[test]
fn a_service_behind_an_envoy_is_called_in_clear_as_long_as_its_owner_says_so_and_no_request_fails() {
    for way in [Way::DeltaAds, Way::SotwAds] {
        let mesh = Mesh::start("");
        let app = telling();
        let api = mesh.envoy_sidecar(way, "api", Some(app.address), &[]);
        let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
        let envoy = mesh.envoy_sidecar(way, "other", None, &["api"]);
        let callers = [web.outbound[0], envoy.outbound[0]];
        callers.iter().for_each(|at| until_told(*at, "called by [By=spiffe://"));
        let loads = callers.map(|at| Load::start(at, "/hello", 2));
        // Who calls and who is called do not hear of it in the same moment.
        mode(&mesh, "permissive");
        until("an answer in clear", || in_clear(api.inbound).contains("called by []").then_some(()));
        mode(&mesh, "disable");
        callers.iter().for_each(|at| until_told(*at, "called by []"));
        assert!(in_clear(api.inbound).contains("called by []"), "{}", in_clear(api.inbound));
        mode(&mesh, "permissive");
        callers.iter().for_each(|at| until_told(*at, "called by [By=spiffe://"));
        assert_eq!(mesh.control.admin("DELETE", "/peer_authentications/api", Value::Null).status, 200);
        until("nobody in clear", || in_clear(api.inbound).is_empty().then_some(()));
        for load in loads {
            let tally = load.stop();
            assert!(tally.failures.is_empty() && tally.requests > 0, "{:#?}", tally.failures);
        }
    }
}

#[test]
fn an_envoy_calls_a_service_in_clear_whatever_it_speaks() {
    for way in [Way::DeltaAds, Way::SotwAds] {
        let mesh = Mesh::start("");
        let app = telling();
        let address = mesh.control.place.address();
        let mut command = python::script("server.py");
        command.arg(address.to_string());
        let server = Process::start(command, mesh.control.place.path("server.log"));
        until("the server", || server.output().contains("serving").then_some(()));
        mesh.control.put("/peer_authentications/all", json!({ "mode": "disable" }));
        let plain = mesh.sidecar(&Service::http("plain", app.address));
        let echo = mesh.sidecar(&Service { protocol: "grpc", ..Service::http("echo", address) });
        let caller = mesh.envoy_sidecar(way, "web", None, &["plain", "echo"]);
        until_told(caller.outbound[0], "called by []");
        let call = |kind: &str| {
            let output = python::script("client.py").args([kind, &caller.outbound[1].to_string()]).output().unwrap();
            serde_json::from_slice::<Value>(&output.stdout)
                .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
        };
        until("the service", || (call("unary_error")["length"] == 100_000).then_some(()));
        assert_eq!(call("talk"), json!({ "heard": 50, "last": "-94", "rest": 0, "code": "OK" }));
        for node in [&plain, &echo] {
            assert!(node.metrics().contains("heddle_mesh_plaintext_connections_total{port="), "{}", node.metrics());
        }
    }
}
