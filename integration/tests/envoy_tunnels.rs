//! Bytes that nobody looks into between real Envoys and agents of ours in one mesh, in both directions and from a gateway, and who may send them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use heddle_integration::envoy::Way;
use heddle_integration::mesh::{Mesh, Service};
use heddle_integration::process::{PATIENCE, until};
use heddle_integration::raw::Raw;
use heddle_integration::redis::Redis;
use serde_json::{Value, json};

/// Everything that is said to these bytes, up to the end of it; nothing where a connection breaks off at once.
fn say(at: SocketAddr, bytes: &[u8], ends: bool) -> String {
    let Ok(mut stream) = TcpStream::connect_timeout(&at, PATIENCE) else { return "nobody listens".to_owned() };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut part) {
        all.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn ping(at: SocketAddr) -> String {
    say(at, b"PING\r\nQUIT\r\n", false)
}

const PONG: &str = "+PONG\r\n+OK\r\n";

fn until_pong(what: &str, at: SocketAddr) {
    until(what, || (ping(at) == PONG).then_some(()));
}

#[test]
fn bytes_pass_between_envoys_and_agents_whoever_speaks_first() {
    for way in [Way::DeltaAds, Way::SotwAds] {
        let mesh = Mesh::start("");
        let redis = Redis::start();
        let mail = Raw::start(|stream| {
            let _ = stream.write_all(b"welcome ");
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).is_ok() {
                let _ = stream.write_all(format!("{} bytes", all.len()).as_bytes());
            }
        });
        let _cache = mesh.envoy_sidecar_of(way, ("cache", "tcp"), Some(redis.address), &[]);
        let _mail = mesh.envoy_sidecar_of(way, ("mail", "tcp"), Some(mail.address), &[]);
        let tcp = |name, address| Service { protocol: "tcp", ..Service::http(name, address) };
        let _store = mesh.sidecar(&tcp("store", redis.address));
        let _post = mesh.sidecar(&tcp("post", mail.address));
        let web = mesh.sidecar(&Service { calls: &["cache", "mail"], ..Service::http("web", mesh.control.place.address()) });
        let cron = mesh.envoy_sidecar(way, "cron", None, &["cache", "mail", "store", "post"]);
        for (what, caller, cache, mail) in [
            ("an agent to Envoys", &web.outbound, 0, 1),
            ("an Envoy to Envoys", &cron.outbound, 0, 1),
            ("an Envoy to agents", &cron.outbound, 2, 3),
        ] {
            until_pong(what, caller[cache]);
            until(what, || (say(caller[mail], b"", true) == "welcome 0 bytes").then_some(()));
            assert_eq!(say(caller[mail], &[b'x'; 300_000], true), "welcome 300000 bytes", "{what}");
        }
        let nodes = mesh.control.admin("GET", "/nodes", Value::Null).json();
        assert!(
            nodes.as_array().unwrap().iter().all(|node| node["nacks"] == json!([]) && node["withheld"] == json!([])),
            "{nodes}"
        );
    }
}

#[test]
fn policies_decide_who_may_send_bytes_to_an_envoy_and_what_speaks_of_requests_allows_none() {
    let mesh = Mesh::start("");
    let redis = Redis::start();
    let _cache = mesh.envoy_sidecar_of(Way::DeltaAds, ("cache", "tcp"), Some(redis.address), &[]);
    let web = mesh.sidecar(&Service { calls: &["cache"], ..Service::http("web", mesh.control.place.address()) });
    let cron = mesh.envoy_sidecar(Way::DeltaAds, "cron", None, &["cache"]);
    let (web, cron) = (web.outbound[0], cron.outbound[0]);
    until_pong("the service", web);
    until_pong("the service", cron);
    let closed = |what: &str, at: SocketAddr| until(what, || ping(at).is_empty().then_some(()));
    let allow = |rule: Value| json!({ "service": "cache", "action": "allow", "rules": [rule] });
    mesh.policy("who", allow(json!({ "from": [{ "identities": ["web"] }] })));
    closed("the refusal of another", cron);
    assert_eq!(ping(web), PONG);
    mesh.policy("who", allow(json!({ "to": [{ "methods": ["CONNECT"] }] })));
    closed("a rule for requests, which allows no bytes", web);
    mesh.policy("who", allow(json!({ "to": [{ "ports": [redis.address.port()] }] })));
    until_pong("the port", web);
    mesh.policy("paths", json!({ "service": "cache", "action": "deny", "rules": [{ "from": [{ "identities": ["cron"] }], "to": [{ "paths": ["/admin/*"] }] }] }));
    closed("what is denied might be in the bytes", cron);
    assert_eq!(ping(web), PONG);
}

#[test]
fn an_envoy_as_gateway_leads_bytes_into_the_mesh() {
    let mesh = Mesh::start("");
    let redis = Redis::start();
    let _store = mesh.sidecar(&Service { protocol: "tcp", ..Service::http("store", redis.address) });
    let _cache = mesh.envoy_sidecar_of(Way::DeltaAds, ("cache", "tcp"), Some(redis.address), &[]);
    let _gateway = mesh.envoy_gateway(Way::DeltaAds);
    for service in ["store", "cache"] {
        let at = mesh.control.place.address();
        let upstream = json!({ "discovery_type": "mesh", "service_name": service });
        let listener = json!({ "address": at.to_string(), "protocol": "tcp", "upstream": upstream });
        mesh.control.put(&format!("/listeners/{service}"), listener);
        until_pong(service, at);
    }
}
