//! The real Envoy as an edge on Heddle's control plane: certificates by SDS, TLS and HTTP/2 to endpoints, checks, limits and hashing are taken and used.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use heddle_integration::certificates::{Authority, Pair};
use heddle_integration::client;
use heddle_integration::envoy::{Envoy, both};
use heddle_integration::envoy_mesh::{in_clear, over_mutual_tls};
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_integration::python;
use serde_json::{Value, json};

fn upstream(heddle: &Heddle, nodes: &[SocketAddr], more: Value) {
    let nodes: serde_json::Map<String, Value> = nodes.iter().map(|node| (node.to_string(), json!(1))).collect();
    let mut upstream = json!({ "nodes": nodes });
    upstream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    heddle.put("/upstreams/u", upstream);
}

fn route(heddle: &Heddle) {
    heddle.put("/routes/r", json!({ "uri": "/*", "upstream_id": "u" }));
}

/// curl over TLS to this name: what it was answered, or why not.
fn curl(heddle: &Heddle, authority: &Authority, name: &str, own: Option<&Pair>) -> Result<String, String> {
    let place = Place::new();
    let (port, ip) = (heddle.https.port(), heddle.https.ip());
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "--resolve", &format!("{name}:{port}:{ip}"), "--cacert"]);
    command.arg(place.write("ca.pem", &authority.pem()));
    if let Some(pair) = own {
        command.arg("--cert").arg(place.write("own.crt", &pair.certificate));
        command.arg("--key").arg(place.write("own.key", &pair.key));
    }
    let output = command.args(["-w", "%{http_version}"]).arg(format!("https://{name}:{port}/")).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The serial number of the certificate that this name is shown.
fn serial(heddle: &Heddle, name: &str) -> String {
    let shell = format!(
        "openssl s_client -connect {} -servername {name} </dev/null 2>/dev/null | openssl x509 -noout -serial",
        heddle.https
    );
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn shows_certificates(heddle: &mut Heddle, envoy: &Envoy) {
    let (nginx, authority, clients) = (Nginx::saying("up"), Authority::new(), Authority::new());
    let show = |more: Value| {
        let pair = authority.issue(&["one.example"]);
        let mut ssl = json!({ "snis": ["one.example"], "cert": pair.certificate, "key": pair.key });
        ssl.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        heddle.put("/ssls/one", ssl);
    };
    upstream(heddle, &[nginx.address], json!({}));
    route(heddle);
    show(json!({}));
    until("TLS to one.example", || curl(heddle, &authority, "one.example", None).ok().filter(|told| told == "up2"));
    assert!(curl(heddle, &authority, "two.example", None).is_err(), "there is no such certificate");
    let before = serial(heddle, "one.example");
    let updates = envoy.stat("listener_manager.lds.update_success");
    show(json!({}));
    until("the new certificate", || Some(serial(heddle, "one.example")).filter(|serial| *serial != before && !serial.is_empty()));
    assert_eq!(envoy.stat("listener_manager.lds.update_success"), updates, "by SDS alone, so that no connection ends");
    show(json!({ "client": { "ca": clients.pem() } }));
    until("the demand", || curl(heddle, &authority, "one.example", None).err());
    let own = clients.issue(&["client"]);
    until("a client with a certificate", || curl(heddle, &authority, "one.example", Some(&own)).ok());
    let strange = authority.issue(&["client"]);
    assert!(curl(heddle, &authority, "one.example", Some(&strange)).is_err(), "of another authority");
}

#[test]
fn certificates_are_shown_by_name_rotated_on_the_wire_and_demanded_of_clients() {
    in_clear(shows_certificates);
}

#[test]
fn certificates_are_shown_by_name_rotated_on_the_wire_and_demanded_of_clients_over_mutual_tls() {
    over_mutual_tls(shows_certificates);
}

/// An nginx that speaks TLS with this certificate, and its address.
fn secure(pair: &Pair, text: &str) -> (Nginx, SocketAddr) {
    let place = Place::new();
    let address = place.address();
    let (certificate, key) = (place.write("own.crt", &pair.certificate), place.write("own.key", &pair.key));
    let server = format!(
        "listen {address} ssl; ssl_certificate {}; ssl_certificate_key {}; location / {{ return 200 '{text} $ssl_server_name'; }}",
        certificate.display(),
        key.display()
    );
    let nginx = Nginx::start(&server);
    (nginx, address)
}

#[test]
fn endpoints_are_reached_over_tls_when_their_certificate_is_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (_good, good) = secure(&authority.issue(&["inside.example"]), "good");
    let (_strange, strange) = secure(&other.issue(&["inside.example"]), "strange");
    let (_wrong, wrong) = secure(&authority.issue(&["outside.example"]), "wrong");
    both(|heddle, _| {
        let tls = |verify: bool| json!({ "scheme": "https", "retries": 0, "tls": { "verify": verify, "ca": authority.pem(), "sni": "inside.example" } });
        upstream(heddle, &[good], tls(true));
        route(heddle);
        assert_eq!(heddle.until_status("/", 200).text(), "good inside.example");
        upstream(heddle, &[strange], tls(true));
        heddle.until_status("/", 503);
        upstream(heddle, &[wrong], tls(true));
        heddle.put(
            "/routes/next",
            json!({ "uri": "/next", "upstream_id": "u", "plugins": { "response-rewrite": { "headers": { "x-seen": "yes" } } } }),
        );
        until("the next revision", || client::get(heddle.http, "/next").ok().filter(|answer| answer.field("x-seen").is_some()));
        assert_eq!(heddle.get("/").status, 503, "the right authority, but another name");
        upstream(heddle, &[wrong], tls(false));
        assert_eq!(heddle.until_status("/", 200).text(), "wrong inside.example");
    });
}

#[test]
fn calls_of_grpc_pass_by_http_2() {
    let place = Place::new();
    let address = place.address();
    let mut command = python::script("server.py");
    command.arg(address.to_string());
    let server = Process::start(command, place.path("server.log"));
    until("the server", || server.output().contains("serving").then_some(()));
    both(|heddle, _| {
        upstream(heddle, &[address], json!({ "scheme": "grpc" }));
        route(heddle);
        heddle.put("/routes/there", json!({ "uri": "/there", "plugins": { "redirect": { "uri": "/here", "ret_code": 302 } } }));
        heddle.until_status("/there", 302);
        let told = python::script("client.py").args(["unary", &heddle.http.to_string()]).output().unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!((&told["length"], &told["trailers"]["x-trailer"]), (&json!(100_000), &json!("last")), "{told}");
    });
}

#[test]
fn endpoints_that_fail_probes_or_traffic_are_left_out() {
    let good = Nginx::saying("good");
    let ill = Nginx::start("location / { return 200 'ill'; } location /health { return 500; }");
    let broken = Nginx::start("location / { return 500 'broken'; } location /health { return 200; }");
    let thresholds = json!({ "interval": 1, "http_failures": 1, "http_statuses": [500] });
    both(|heddle, envoy| {
        let healthy = json!({ "interval": 1, "successes": 1 });
        let active = json!({ "http_path": "/health", "timeout": 2, "healthy": healthy, "unhealthy": thresholds });
        upstream(heddle, &[good.address, ill.address], json!({ "checks": { "active": active } }));
        route(heddle);
        heddle.until_status("/", 200);
        let all_good = || (0..20).all(|_| heddle.get("/").text() == "good").then_some(());
        until("the probe to fail", all_good);
        assert!(envoy.page("/clusters").text().contains("/failed_active_hc"));
        let passive = json!({ "unhealthy": { "http_failures": 1, "http_statuses": [500] } });
        let checks = json!({ "active": active, "passive": passive });
        upstream(heddle, &[good.address, broken.address], json!({ "retries": 0, "checks": checks }));
        until("the broken one to be left out", || {
            heddle.get("/");
            envoy.page("/clusters").text().contains("/failed_outlier_check").then_some(())
        });
        until("nothing but the good one", all_good);
    });
}

#[test]
fn requests_beyond_the_limit_are_refused_and_those_of_one_key_go_to_one_endpoint() {
    let fast = Nginx::saying("fast");
    let all = ["one", "two", "three"].map(Nginx::saying);
    both(|heddle, envoy| {
        upstream(heddle, &[fast.address], json!({ "circuit_breaker": { "max_requests": 7, "max_pending": 3 } }));
        route(heddle);
        heddle.until_status("/fast", 200);
        let page = envoy.page("/clusters").text();
        assert!(page.contains("upstreams/u::default_priority::max_requests::7"), "{page}");
        assert!(page.contains("upstreams/u::default_priority::max_pending_requests::3"), "{page}");
        let nodes = all.each_ref().map(|nginx| nginx.address);
        upstream(heddle, &nodes, json!({ "type": "chash", "hash_on": "header", "key": "x-who" }));
        let all_said = |text: &str| ["one", "two", "three"].contains(&text);
        let ask = |who: &str| client::send(heddle.http, "GET", "/", &[("x-who", who)], b"").unwrap().text();
        until("cluster and routes to hash", || {
            let first = ask("anybody");
            (all_said(&first) && (0..20).all(|_| ask("anybody") == first)).then_some(())
        });
        let mut seen = BTreeSet::new();
        for who in 0..30 {
            let who = who.to_string();
            let first = ask(&who);
            assert!((0..5).all(|_| ask(&who) == first), "always the same for {who}");
            seen.insert(first);
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    });
}
