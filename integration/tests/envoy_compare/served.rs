//! One configuration of Heddle's in Heddle's own gateway, and in Envoys that follow a control plane with it: the same requests find the same.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use heddle_integration::client;
use heddle_integration::echo::Echo;
use heddle_integration::envoy::both;
use heddle_integration::heddle::Heddle;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use serde_json::{Map, Value, json};

use super::differences::{self, SERVED, Seen};
use super::requests::{Request, request};
use super::{SEED, ask, copies};

/// Requests that are made of dice.
const GENERATED: usize = 400;
/// Requests of which shares are counted, and how far those may lie from what is said: more than five standard deviations.
const COUNTED: u32 = 200;
const APART: f64 = 0.18;

const METHODS: [&str; 7] = ["GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD"];
const HOSTS: [&str; 10] = [
    "shop.example",
    "shop.example",
    "SHOP.example:80",
    "a.shop.example",
    "a.b.shop.example",
    "any.example",
    "other.example",
    "other.example",
    "other.example",
    "OTHER.example:80",
];
const PATHS: [&str; 40] = [
    "/",
    "/x/y",
    "/x/y/",
    "/x/",
    "/x/z?a=b",
    "/x",
    "/x/a%2Fb",
    "/x/%79",
    "/x/../m",
    "//x//y",
    "/p/1/z",
    "/p//z",
    "/p/1/2/z",
    "/m",
    "/q",
    "/q?k=v",
    "/q?k=v2&k=v",
    "/q?K=v",
    "/fixed/a?b=c",
    "/new/a/b?c=d",
    "/new/",
    "/edited/a",
    "/there",
    "/there?x=y",
    "/secure/a?b=c",
    "/else/a",
    "/split/a",
    "/listed/a",
    "/open/a",
    "/patterns/a",
    "/tea/x",
    "/late/x",
    "/named/x",
    "/node/x",
    "/rewritten/x",
    "/kept/x",
    "/closed/x",
    "/copied/x?y",
    "/both/x",
    "/..",
];
const FIELDS: [(&str, &str); 20] = [
    ("x-can", "1"),
    ("x-can", "2"),
    ("x-t", "gold"),
    ("x-t", "a"),
    ("x-t", "zz"),
    ("X-N", "7"),
    ("x-n", "8"),
    ("x-b", "1"),
    ("x-secret", "s"),
    ("x-add", "0"),
    ("x-set", "0"),
    ("x-out", "mine"),
    ("x-want-status", "201"),
    ("x-want-status", "404"),
    ("x-want-status", "503"),
    ("Origin", "http://a.example"),
    ("Origin", "http://evil.example"),
    ("Origin", "http://x.test.com"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-for", "10.1.2.3"),
];

/// Where requests may go.
struct Upstreams {
    named: [(&'static str, Echo); 3],
    closed: SocketAddr,
}

fn nodes(address: SocketAddr) -> Value {
    json!({ "nodes": { address.to_string(): 1 } })
}

/// Routes that are told apart by what requests say.
fn chosen() -> Vec<(&'static str, &'static str, Value)> {
    let shop = |more: Value| with(json!({ "host": "shop.example" }), more);
    let asks =
        |upstream: &str, priority: i32, vars: Value| shop(json!({ "upstream_id": upstream, "priority": priority, "vars": vars }));
    vec![
        ("any", "/*", json!({ "host": "any.example" })),
        ("host", "/*", shop(json!({}))),
        ("wide", "/*", json!({ "hosts": ["*.shop.example"], "upstream_id": "b" })),
        ("exact", "/x/y", shop(json!({ "upstream_id": "c" }))),
        ("prefix", "/x/*", shop(json!({ "upstream_id": "b" }))),
        ("first", "/x/*", asks("c", 10, json!([["http_x_can", "==", "1"]]))),
        ("part", "/p/:id/z", shop(json!({ "upstream_id": "b" }))),
        ("methods", "/m", shop(json!({ "upstream_id": "b", "methods": ["POST", "PUT"] }))),
        ("query", "/q", asks("b", 0, json!([["arg_k", "==", "v"], ["http_x_t", "~~", "^go"]]))),
        ("one-of", "/q", asks("c", 5, json!([["http_x_t", "in", ["a", "b"]]]))),
        ("not", "/q", asks("c", -5, json!([["http_x_t", "!", "~~", "z"]]))),
        ("other", "/q", asks("b", -6, json!([["http_x_n", "~=", "7"]]))),
    ]
}

/// Routes of which plugins make something else.
fn plugged(copies: SocketAddr) -> Vec<(&'static str, &'static str, Value)> {
    let rewritten = json!({ "uri": "/fixed", "host": "inner.example",
        "headers": { "set": { "x-set": "1" }, "add": { "x-add": "2" }, "remove": ["x-secret"] } });
    let listed = json!({ "allow_origins": "http://a.example,http://b.example", "allow_methods": "GET,POST", "allow_headers": "x-a",
        "expose_headers": "x-e", "max_age": 60, "allow_credential": true });
    let patterns = json!({ "allow_origins": "http://a.example,http://b.example", "allow_origins_by_regex": [".*\\.test\\.com$"],
        "allow_methods": "GET", "allow_headers": "x" });
    let only_b = json!({ "rules": [{ "match": [{ "vars": [["http_x_b", "==", "1"]] }], "weighted_upstreams": [{ "upstream_id": "b", "weight": 1 }] }] });
    let mostly_b = json!({ "rules": [{ "weighted_upstreams": [{ "upstream_id": "b", "weight": 3 }, { "weight": 1 }] }] });
    let tea = json!({ "abort": { "http_status": 418, "body": "tea", "headers": { "x-f": "1" } } });
    vec![
        ("fixed", "/fixed/*", json!({ "proxy-rewrite": rewritten })),
        ("new", "/new/*", json!({ "proxy-rewrite": { "regex_uri": ["^/new/(.*)", "/newer/$1"] } })),
        ("edited", "/edited/*", json!({ "response-rewrite": { "headers": { "set": { "x-out": "1" }, "remove": ["server"] } } })),
        ("there", "/there", json!({ "redirect": { "uri": "/here", "ret_code": 302 } })),
        ("secure", "/secure/*", json!({ "redirect": { "http_to_https": true } })),
        ("else", "/else/*", json!({ "redirect": { "uri": "https://else.example/x", "ret_code": 308 } })),
        ("split", "/split/*", json!({ "traffic-split": only_b })),
        ("shares", "/shares/*", json!({ "traffic-split": mostly_b })),
        ("listed", "/listed/*", json!({ "cors": listed })),
        ("open", "/open/*", json!({ "cors": {} })),
        ("patterns", "/patterns/*", json!({ "cors": patterns })),
        ("tea", "/tea/*", json!({ "fault-injection": tea.clone() })),
        ("both", "/both/*", json!({ "fault-injection": tea, "redirect": { "http_to_https": true } })),
        ("half", "/half/*", json!({ "fault-injection": { "abort": { "http_status": 503, "percentage": 50 } } })),
        ("late", "/late/*", json!({ "fault-injection": { "delay": { "duration": 0.02 } } })),
        ("slow", "/slow/*", json!({ "fault-injection": { "delay": { "duration": 0.4 } } })),
        ("kept", "/kept/*", json!({ "ip-restriction": { "blacklist": ["127.0.0.0/8"] } })),
        ("copied", "/copied/*", json!({ "proxy-mirror": { "host": format!("http://{copies}") } })),
    ]
}

/// Puts everything; copies go where nobody else's do.
fn configure(heddle: &Heddle, upstreams: &Upstreams, copies: SocketAddr) {
    for (name, echo) in &upstreams.named {
        heddle.put(&format!("/upstreams/{name}"), nodes(echo.address));
    }
    let [(_, a), (_, b), _] = &upstreams.named;
    heddle.put("/upstreams/named", json!({ "discovery_type": "dns", "service_name": format!("localhost:{}", b.address.port()) }));
    heddle.put("/upstreams/closed", with(nodes(upstreams.closed), json!({ "retries": 0 })));
    heddle.put("/upstreams/node", with(nodes(a.address), json!({ "pass_host": "node" })));
    heddle.put("/upstreams/rewritten", with(nodes(a.address), json!({ "pass_host": "rewrite", "upstream_host": "up.example" })));
    let put = |id: &str, uri: &str, plugins: &Value, more: Value| {
        // Whoever answers says by which route.
        let mut set = json!({ "x-route": id });
        let mut plugins = with(json!({}), plugins.clone());
        set = with(set, plugins["response-rewrite"]["headers"]["set"].clone());
        let mut rewrite = with(json!({}), plugins["response-rewrite"]["headers"].clone());
        rewrite["set"] = set;
        plugins["response-rewrite"] = json!({ "headers": rewrite });
        heddle.put(&format!("/routes/{id}"), with(json!({ "uri": uri, "upstream_id": "a", "plugins": plugins }), more));
    };
    for (id, uri, more) in chosen() {
        put(id, uri, &Value::Null, more);
    }
    for (id, uri, plugins) in plugged(copies) {
        put(id, uri, &plugins, Value::Null);
    }
    for upstream in ["named", "closed", "node", "rewritten"] {
        put(upstream, &format!("/{upstream}/*"), &Value::Null, json!({ "upstream_id": upstream }));
    }
    heddle.put("/routes/last", json!({ "uri": "/last", "upstream_id": "a" }));
    // On all workers, of which each takes a change by itself.
    until("the last change", || (0..16).all(|_| get(heddle, "/last").is_some_and(|answer| answer.status == 200)).then_some(()));
}

fn get(heddle: &Heddle, path: &str) -> Option<client::Answer> {
    client::ask(heddle.http, "GET", path, &[], b"").ok()
}

fn with(mut value: Value, more: Value) -> Value {
    value.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_else(Map::new));
    value
}

/// Every path and field once, preflights, and what dice make of them.
fn requests() -> Vec<Request> {
    let mut all: Vec<Request> = Vec::new();
    for path in PATHS {
        all.extend(["shop.example", "other.example"].map(|host| request("GET", host, path, &[], "")));
    }
    for path in ["/listed/a", "/open/a", "/patterns/a"] {
        for origin in ["http://a.example", "http://evil.example", "http://x.test.com"] {
            let fields =
                [("Origin", origin), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "x-a")];
            all.push(request("OPTIONS", "other.example", path, &fields, ""));
        }
    }
    all.extend(["GET", "POST", "PUT", "DELETE"].map(|method| {
        let body = if matches!(method, "POST" | "PUT") { "k=v" } else { "" };
        request(method, "other.example", "/copied/a?b=c", &[("x-tenant", "a")], body)
    }));
    let mut dice = fastrand::Rng::with_seed(SEED);
    all.extend(std::iter::repeat_with(|| generate(&mut dice)).take(GENERATED));
    all
}

fn generate(dice: &mut fastrand::Rng) -> Request {
    let (method, host, path) =
        (METHODS[dice.usize(..METHODS.len())], HOSTS[dice.usize(..HOSTS.len())], PATHS[dice.usize(..PATHS.len())]);
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for _ in 0..dice.usize(..4) {
        let field = FIELDS[dice.usize(..FIELDS.len())];
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(field.0)) {
            fields.push(field);
        }
    }
    let body = if matches!(method, "POST" | "PUT") { "k=v&".repeat(dice.usize(..40)) } else { String::new() };
    request(method, host, path, &fields, &body)
}

/// Which share of requests for this path gives an answer like this.
fn share(heddle: &Heddle, path: &str, like: impl Fn(&client::Answer) -> bool) -> f64 {
    let found = (0..COUNTED).filter(|_| get(heddle, path).is_some_and(|answer| like(&answer))).count();
    found as f64 / f64::from(COUNTED)
}

/// What chance and time decide.
fn spreads_and_waits(heddle: &Heddle) {
    let to_b = share(heddle, "/shares/a", |answer| answer.field("x-upstream") == Some("b"));
    assert!((to_b - 0.75).abs() < APART, "{to_b}");
    let broken = share(heddle, "/half/a", |answer| answer.status == 503);
    assert!((broken - 0.5).abs() < APART, "{broken}");
    let start = Instant::now();
    assert_eq!(get(heddle, "/slow/a").expect("an answer").status, 200);
    // Envoy's timers may be early by the time that a turn of its loop takes.
    assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
}

#[test]
fn a_gateway_and_envoys_with_the_same_resources_answer_the_same() {
    let named = ["a", "b", "c"].map(|name| (name, Echo::start(name)));
    let upstreams = Upstreams { named, closed: Place::new().address() };
    let (gateway, copied) = (Heddle::run(), Echo::start("copies"));
    configure(&gateway, &upstreams, copied.address);
    spreads_and_waits(&gateway);
    let ours: Vec<(Request, Seen)> = requests()
        .into_iter()
        .map(|request| {
            let seen = ask(gateway.http, &request);
            (request, seen)
        })
        .collect();
    let due = ours.iter().filter(|(_, seen)| seen.route().as_deref() == Some("copied")).count();
    until("our copies", || (copies(&copied).len() == due).then_some(()));
    both(|heddle, _| {
        let theirs_copied = Echo::start("copies");
        configure(heddle, &upstreams, theirs_copied.address);
        spreads_and_waits(heddle);
        let (mut differing, mut routes, mut reached) = (Vec::new(), std::collections::BTreeSet::new(), 0);
        for (request, ours) in &ours {
            let theirs = ask(heddle.http, request);
            routes.extend(theirs.route());
            reached += usize::from(theirs.reached_upstream());
            let found = differences::between(&SERVED, request, ours, &theirs);
            if !found.is_empty() {
                differing.push(format!("{request}\n  {}", found.join("\n  ")));
            }
        }
        assert!(differing.is_empty(), "{} requests differ:\n{}", differing.len(), differing.join("\n"));
        assert!(routes.len() >= 25 && reached > 200, "the requests say something: {routes:?}, {reached} reached an upstream");
        until("their copies", || (copies(&theirs_copied).len() == due).then_some(()));
        assert_eq!(copies(&copied), copies(&theirs_copied));
    });
}
