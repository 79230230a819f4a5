//! A gateway of ours, Envoys and agents on Envoy's types ask the same service by gRPC, under one configuration: what it hears and what clients hear is the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::BTreeMap;

use heddle_integration::ads::Follower;
use heddle_integration::certificates::Authority;
use heddle_integration::client::{self, Answer, Conversation};
use heddle_integration::echo::{self, Echo};
use heddle_integration::envoy::{Envoy, Way, both, everywhere};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::judge::Judge;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// A story for a gateway of ours, for Envoys, and for agents that ask for Envoy's types.
fn all_kinds(story: impl Fn(&Heddle)) {
    everywhere(&story);
    for dialect in ["envoy", "envoy-sotw"] {
        let heddle = Heddle::control_plane(Setup::default());
        let _agent = Follower::follow(heddle.xds, dialect);
        story(&heddle);
        let nodes = heddle.admin("GET", "/nodes", Value::Null).json();
        assert_eq!(nodes[0]["nacks"], json!([]), "{dialect}: {nodes}");
    }
}

/// A route that asks `upstream`, with the status that tells that it does.
fn asks(heddle: &Heddle, web: &Echo, (id, upstream): (&str, &str), more: Value) {
    let mut config =
        json!({ "protocol": "grpc", "upstream_id": upstream, "timeout": 60_000, "headers_to_add": { "x-by": "100% edge" } });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let nodes = json!({ web.address.to_string(): 1 });
    let route = json!({ "uri": format!("/{id}/*"), "plugins": { "ext-authz": config }, "upstream": { "nodes": nodes } });
    heddle.put(&format!("/routes/{id}"), route);
}

/// Whom the routes ask: somebody, and nobody.
fn judges(heddle: &Heddle, judge: &Judge, place: &Place) {
    for (id, address) in [("judge", judge.address), ("nobody", place.address())] {
        heddle.put(&format!("/upstreams/{id}"), json!({ "scheme": "grpc", "nodes": { address.to_string(): 1 } }));
    }
}

const CASES: [&str; 9] = ["", "edit", "refuse", "typed", "moved", "unsaid", "bare", "unable", "fail"];
/// What the client is told, and what the upstream is.
const ANSWERED: [&str; 8] = ["content-type", "location", "x-why", "x-seen", "x-absent", "x-lost", "x-set", "x-upstream"];
const TOLD: [&str; 7] = ["x-user", "x-group", "x-new", "x-tenant", "x-secret", "x-multi", "x-envoy-auth-failure-mode-allowed"];

fn seen(answer: &Answer) -> Value {
    // What nobody was asked about each says in its own words.
    if answer.status == 413 {
        return json!({ "status": 413 });
    }
    let cookies: Vec<&str> =
        answer.fields.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value.as_str()).collect();
    let fields: BTreeMap<&str, Option<&str>> = ANSWERED.iter().map(|name| (*name, answer.field(name))).collect();
    let told = echo::asked(&answer.body).map(|told| {
        let field = |name: &str| {
            let all = told["fields"].as_array().unwrap().iter();
            all.filter(|pair| pair[0] == name).map(|pair| pair[1].to_string()).collect::<Vec<_>>()
        };
        json!([told["method"], told["target"], told["body"], TOLD.map(field)])
    });
    let body = if told.is_some() { String::new() } else { answer.text() };
    json!({ "status": answer.status, "fields": fields, "cookies": cookies, "told": told, "body": body })
}

/// Of a body that it is not told Envoy does not say the length either; of what came in clear it says an empty session.
fn read(mut asked: Value) -> Value {
    let http = asked["request"]["http"].as_object_mut().unwrap();
    if !http.contains_key("body") && !http.contains_key("raw_body") {
        http.remove("size");
    }
    let asked_of = asked.as_object_mut().unwrap();
    if asked_of.get("tls_session") == Some(&json!({})) {
        asked_of.remove("tls_session");
    }
    asked
}

fn ask(heddle: &Heddle, target: &str, case: &str, body: &[u8]) -> Answer {
    let fields = [
        ("Host", "asked.example"),
        ("x-case", case),
        ("x-group", "a"),
        ("x-tenant", "t"),
        ("x-secret", "s"),
        ("x-untold", "u"),
        ("x-multi", "1"),
        ("x-multi", "2"),
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Real-IP", "203.0.113.9"),
        ("Forwarded", "for=203.0.113.9"),
        ("Content-Type", "text/plain"),
    ];
    client::send(heddle.http, "POST", target, &fields, body).expect("an answer")
}

#[test]
fn who_decides_by_grpc_is_asked_and_heard_alike_by_all_who_serve_a_route() {
    let all: RefCell<Vec<(Vec<Value>, Vec<Value>)>> = RefCell::default();
    all_kinds(|heddle| {
        let (place, web) = (Place::new(), Echo::start("web"));
        let judge = Judge::new(&place, "judge");
        judges(heddle, &judge, &place);
        let of = |id: &str, upstream: &str, more: Value| asks(heddle, &web, (id, upstream), more);
        of("usual", "judge", json!({ "authority": "judge.example", "context_extensions": { "tier": "gold" } }));
        of("whole", "judge", json!({ "with_request_body": { "max_request_bytes": 20 } }));
        let bytes = json!({ "max_request_bytes": 20, "allow_partial_message": true, "pack_as_bytes": true });
        of(
            "part",
            "judge",
            json!({ "with_request_body": bytes, "failure_mode_allow": true, "failure_mode_allow_header_add": true }),
        );
        let names = json!({ "allowed_headers": ["x-.*", ":path", "Content-Type"], "disallowed_headers": ["X-UnTold"], "status_on_error": 503,
            "include_tls_session": true, "include_peer_certificate": true });
        of("named", "judge", names);
        of("hasty", "judge", json!({ "timeout": 300 }));
        of("closed", "nobody", json!({}));
        of("told", "nobody", json!({ "status_on_error": 502 }));
        of("open", "nobody", json!({ "failure_mode_allow": true, "failure_mode_allow_header_add": true }));
        let ready = [("usual", 200), ("whole", 200), ("part", 200), ("named", 200), ("hasty", 200)];
        for (id, status) in ready.into_iter().chain([("told", 502), ("open", 200)]) {
            heddle.until_status(&format!("/{id}/ready"), status);
        }
        let before = judge.asked().len();
        let mut answers = Vec::new();
        let mut hear = |target: &str, case: &str, body: &[u8]| answers.push(seen(&ask(heddle, target, case, body)));
        for id in ["usual", "whole", "part", "named"] {
            CASES.iter().for_each(|case| hear(&format!("/{id}/a?a=3&b=1&gone=2&b=4"), case, "k=ä".as_bytes()));
        }
        for id in ["usual", "whole", "part", "closed", "told", "open"] {
            hear(&format!("/{id}/b"), "", &[b'x'; 30]);
        }
        hear("/hasty/c", "slow", b"");
        let statuses: Vec<u64> = answers[answers.len() - 7..].iter().filter_map(|answer| answer["status"].as_u64()).collect();
        assert_eq!(statuses, [200, 413, 200, 403, 502, 200, 403]);
        let told = std::fs::read_to_string(&judge.log).unwrap();
        assert!(!told.contains("203.0.113.9"), "what clients say of who they are is not told: {told}");
        all.borrow_mut().push((answers, judge.asked().split_off(before).into_iter().map(read).collect()));
    });
    let all = all.into_inner();
    let (answers, asked) = &all[0];
    assert_eq!(asked.iter().filter(|asked| asked["context_extensions"] == json!({ "tier": "gold" })).count(), CASES.len() + 1);
    assert!(asked.iter().all(|asked| asked["metadata"] == "100% edge"));
    for (other, heard) in &all[1..] {
        let pairs = |one: &[Value], other: &[Value]| one.iter().cloned().zip(other.iter().cloned()).collect::<Vec<_>>();
        let apart: Vec<_> =
            pairs(answers, other).into_iter().chain(pairs(asked, heard)).filter(|(ours, theirs)| ours != theirs).collect();
        assert_eq!((apart, other.len(), heard.len()), (Vec::new(), answers.len(), asked.len()));
    }
}

#[test]
fn who_decides_is_called_over_tls_and_has_to_be_whom_the_upstream_says() {
    let (place, web, authority) = (Place::new(), Echo::start("web"), Authority::new());
    let judge = Judge::sealed(&place, "sealed", &authority.issue(&["judge.example"]));
    all_kinds(|heddle| {
        let before = judge.asked().len();
        for (id, roots) in [("known", &authority), ("strange", &Authority::new())] {
            let tls = json!({ "verify": true, "ca": roots.pem(), "sni": "judge.example" });
            let nodes = json!({ judge.address.to_string(): 1 });
            heddle.put(&format!("/upstreams/{id}"), json!({ "scheme": "grpcs", "nodes": nodes, "tls": tls }));
            asks(heddle, &web, (id, id), json!({ "status_on_error": if id == "known" { 403 } else { 503 } }));
        }
        heddle.until_status("/known/a", 200);
        heddle.until_status("/strange/a", 503);
        assert_eq!(ask(heddle, "/known/a", "refuse", b"").status, 401);
        assert!(judge.asked().len() > before + 1);
    });
}

#[test]
fn a_connection_that_stands_passes_by_nobody_who_decides_by_grpc() {
    let (place, web) = (Place::new(), Echo::start("web"));
    let judge = Judge::new(&place, "judge");
    both(|heddle, _| {
        judges(heddle, &judge, &place);
        for (id, more) in [("usual", json!({})), ("open", json!({ "failure_mode_allow": true }))] {
            heddle.route(id, &format!("/{id}/*"), web.address);
            heddle.until_status(&format!("/{id}/a"), 200);
            let request = format!("GET /{id}/a HTTP/1.1\r\nHost: a\r\nx-case: refuse\r\n\r\n");
            let mut old = Conversation::open(heddle.http);
            assert_eq!(old.ask(&request).status, 200, "nothing guards it yet");
            asks(heddle, &web, (id, "judge"), more);
            let refused = || client::send(heddle.http, "GET", &format!("/{id}/a"), &[("x-case", "refuse")], b"");
            until("it to be asked", || refused().ok().filter(|answer| answer.status == 401));
            let told = old.ask(&request).status;
            assert!([401, 403].contains(&told), "{id}: {told}");
        }
    });
}

#[test]
fn a_service_that_takes_no_call_withholds_the_routes_that_ask_it() {
    let heddle = Heddle::control_plane(Setup::default());
    let _envoy = Envoy::follow(heddle.xds, "envoy-1", Way::DeltaAds);
    let web = Echo::start("web");
    heddle.put("/upstreams/plain", json!({ "nodes": { web.address.to_string(): 1 } }));
    asks(&heddle, &web, ("guarded", "plain"), json!({ "failure_mode_allow": true }));
    let reason = |part: &str| {
        until(part, || {
            let nodes = heddle.admin("GET", "/nodes", Value::Null).json();
            let withheld = nodes[0]["withheld"].as_array()?.iter().find(|one| one["resource"] == "guarded")?["reason"].clone();
            withheld.as_str().filter(|reason| reason.contains(part)).map(str::to_owned)
        })
    };
    let told = reason("speaks no gRPC");
    assert_eq!(told, "plugin ext-authz: upstream upstreams/plain speaks no gRPC, expected `grpc` or `grpcs` as its scheme");
    heddle.until_status("/guarded/a", 404);
    let checks = json!({ "active": { "type": "https" } });
    heddle.put("/upstreams/plain", json!({ "scheme": "grpc", "nodes": { web.address.to_string(): 1 }, "checks": checks }));
    assert!(
        reason("which is withheld").starts_with("asks upstream upstreams/plain"),
        "who passes without an answer was never asked"
    );
    heddle.put("/upstreams/plain", json!({ "scheme": "grpc", "nodes": { web.address.to_string(): 1 } }));
    heddle.until_status("/guarded/a", 200);
}
