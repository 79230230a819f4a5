//! One configuration in Heddle's agent and in the real Envoy at once: the same requests through both must find the same route, upstream, status and fields.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "envoy_compare/bounded.rs"]
mod bounded;
#[path = "envoy_compare/differences.rs"]
mod differences;
#[path = "envoy_compare/guarded.rs"]
mod guarded;
#[path = "envoy_compare/hashed.rs"]
mod hashed;
#[path = "envoy_compare/limited.rs"]
mod limited;
#[path = "envoy_compare/pair.rs"]
mod pair;
#[path = "envoy_compare/relieved.rs"]
mod relieved;
#[path = "envoy_compare/requests.rs"]
mod requests;
#[path = "envoy_compare/served.rs"]
mod served;
#[path = "envoy_compare/spelled.rs"]
mod spelled;
#[path = "envoy_compare/squeezed.rs"]
mod squeezed;

use std::net::SocketAddr;

use differences::{READ, Seen};
use heddle_integration::ads::Follower;
use heddle_integration::client;
use heddle_integration::echo::Echo;
use heddle_integration::envoy::Envoy;
use heddle_integration::nginx::Nginx;
use heddle_integration::openssl::Signer;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use pair::{Door, Pair, cluster, host};
use requests::Request;
use serde_json::{Value, json};

const BOOTSTRAP: &str = include_str!("envoy_compare/bootstrap.yaml");
const LOCALITIES: &str = include_str!("envoy_compare/localities.yaml");
/// Requests of which shares are counted.
const COUNTED: u32 = 600;
/// How far shares may lie apart, of all requests: Envoy draws priorities by chance, of which this is more than four standard deviations.
const APART: f64 = 0.09;
const GUARDS: &str = include_str!("envoy_compare/guards.yaml");
/// Who decides: by one field, and says what it was told.
const AUTHZ: &str = "location / {
    add_header x-auth-user ann always; add_header x-auth-path $request_uri always; add_header x-auth-told $http_x_tenant$http_x_age always;
    add_header x-auth-untold $http_x_secret$http_cookie always; add_header x-auth-by $http_x_asked_by always; add_header x-auth-host $host always;
    add_header x-auth-method $request_method always; add_header x-auth-partial $http_x_envoy_auth_partial_body always;
    add_header x-auth-proto $http_x_forwarded_proto always; add_header x-by authz always; add_header x-seen yes always; add_header x-envoy-auth-headers-to-remove x-internal always; default_type text/html;
    if ($http_x_canary = 0) { return 403 'not you'; }
    if ($http_x_age = old) { return 500; }
    if ($http_x_age = 20) { return 302 /login; }
    return 200 'yes'; }";
/// Requests that are made of dice.
const GENERATED: usize = 300;
/// Whoever finds a difference can repeat it.
const SEED: u64 = 1_640_531_527;

/// The configuration with its addresses.
fn bootstrap(written: &str, addresses: &[(&str, SocketAddr)]) -> String {
    addresses.iter().fold(written.to_owned(), |text, (name, address)| {
        let socket = format!("{{ socket_address: {{ address: \"{}\", port_value: {} }} }}", address.ip(), address.port());
        text.replace(&format!("@{name}@"), &socket)
    })
}

fn ask(address: SocketAddr, request: &Request) -> Seen {
    let fields: Vec<(&str, &str)> = request.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = client::ask(address, request.method, &request.target, &fields, request.body.as_bytes()).expect("an answer");
    Seen::new(answer)
}

#[test]
fn the_same_requests_find_the_same_route_upstream_status_and_fields() {
    let (blue, green) = (Echo::start("blue"), Echo::start("green"));
    let place = Place::new();
    let closed = place.address();
    let upstreams = [("BLUE", blue.address), ("GREEN", green.address), ("CLOSED", closed)];
    let agent = Follower::with_bootstrap(|spot| {
        bootstrap(BOOTSTRAP, &[&upstreams[..], &[("HTTP", spot.http), ("ADMIN", spot.admin)]].concat())
    });
    let http = place.address();
    let any_port = "127.0.0.1:0".parse().unwrap();
    let envoy = Envoy::start(&bootstrap(BOOTSTRAP, &[&upstreams[..], &[("HTTP", http), ("ADMIN", any_port)]].concat()));
    agent.until_ready();
    envoy.until_live();
    let mut dice = fastrand::Rng::with_seed(SEED);
    let generated = std::iter::repeat_with(|| requests::generate(&mut dice)).take(GENERATED);
    let mut differing = Vec::new();
    let (mut routes, mut upstream) = (std::collections::BTreeSet::new(), 0);
    for request in requests::chosen().into_iter().chain(generated) {
        let (ours, theirs) = (ask(agent.spot.http, &request), ask(http, &request));
        routes.extend(theirs.route());
        upstream += usize::from(theirs.reached_upstream());
        let found = differences::between(&READ, &request, &ours, &theirs);
        if !found.is_empty() {
            differing.push(format!("{request}\n  {}", found.join("\n  ")));
        }
    }
    assert!(routes.len() >= 14 && upstream > 100, "the requests say something: {routes:?}, {upstream} reached an upstream");
    assert!(differing.is_empty(), "{} requests differ:\n{}", differing.len(), differing.join("\n"));
}

/// What became of copies: the request line, host, body, and who asked, in an order that does not depend on time.
fn copies(echo: &Echo) -> Vec<String> {
    let field = |told: &Value, name: &str| {
        let fields: Vec<(String, String)> = serde_json::from_value(told["fields"].clone()).unwrap();
        fields.into_iter().filter(|(known, _)| known == name).map(|(_, value)| value).collect::<Vec<_>>().join(", ")
    };
    let line = |told: &Value| {
        // Envoy leaves names of hosts in the case that clients wrote.
        let host = field(told, "host").to_ascii_lowercase();
        let of = ["x-by", "x-tenant", "x-payload", "authorization"].map(|name| field(told, name));
        format!("{} {} {host} {of:?} {}", told["method"], told["target"], told["body"])
    };
    // Which of several tokens counts is a named difference: what one of both refuses is not copied.
    let agreed = |told: &&Value| told["target"].as_str().is_some_and(|target| !target.contains("access_token="));
    let mut lines: Vec<String> = echo.told().iter().filter(agreed).map(line).collect();
    lines.sort();
    lines
}

#[test]
fn the_same_requests_are_let_through_by_the_same_guards_and_copied_alike() {
    let (blue, green, authz) = (Echo::start("blue"), Echo::start("green"), Nginx::start(AUTHZ));
    let (ours, theirs) = (Echo::start("shadow"), Echo::start("shadow"));
    let (place, signer) = (Place::new(), Signer::new("EdDSA"));
    let written = GUARDS.replace("@KEYS@", &signer.published().to_string());
    let upstreams = [("BLUE", blue.address), ("GREEN", green.address), ("AUTHZ", authz.address)];
    let with = |shadow: &Echo, http, admin| {
        bootstrap(&written, &[&upstreams[..], &[("SHADOW", shadow.address), ("HTTP", http), ("ADMIN", admin)]].concat())
    };
    let agent = Follower::with_bootstrap(|spot| with(&ours, spot.http, spot.admin));
    let http = place.address();
    let envoy = Envoy::start(&with(&theirs, http, "127.0.0.1:0".parse().unwrap()));
    agent.until_ready();
    envoy.until_live();
    let mut dice = fastrand::Rng::with_seed(SEED);
    let tokens = guarded::tokens(&signer);
    let generated = std::iter::repeat_with(|| guarded::generate(&mut dice, &tokens)).take(GENERATED);
    let mut differing = Vec::new();
    let (mut statuses, mut routes) = (std::collections::BTreeMap::new(), std::collections::BTreeSet::new());
    for request in guarded::chosen(&tokens).into_iter().chain(generated) {
        let (ours, theirs) = (ask(agent.spot.http, &request), ask(http, &request));
        *statuses.entry(theirs.status).or_insert(0) += 1;
        routes.extend(theirs.route());
        let found = differences::between(&READ, &request, &ours, &theirs);
        if !found.is_empty() {
            differing.push(format!("{request}\n  {}", found.join("\n  ")));
        }
    }
    assert!(differing.is_empty(), "{} requests differ:\n{}", differing.len(), differing.join("\n"));
    let met = |status: u16| statuses.get(&status).copied().unwrap_or(0) > 5;
    assert!([200, 302, 401, 403, 413, 503].into_iter().all(met) && routes.len() >= 7, "{statuses:?} {routes:?}");
    until("all copies", || (copies(&ours).len() == copies(&theirs).len()).then_some(()));
    assert!(ours.asked() > 50, "{}", ours.asked());
    assert_eq!(copies(&ours), copies(&theirs));
    let told = [agent.spot.http, http].map(|address| {
        let answer = client::send(address, "GET", "/a", &[("Host", "asked.example"), ("x-canary", "0")], b"").unwrap();
        (answer.status, answer.field("content-type").map(str::to_owned), answer.text())
    });
    assert_eq!(told[0], told[1], "the words of who refuses");
    assert_eq!(told[0].2, "not you");
}

/// Who answers which share of requests for this path.
fn shares(address: SocketAddr, path: &str) -> std::collections::BTreeMap<String, f64> {
    let mut shares = std::collections::BTreeMap::new();
    for _ in 0..COUNTED {
        let who = client::get(address, path).expect("an answer").text();
        *shares.entry(who).or_insert(0.0) += 1.0 / f64::from(COUNTED);
    }
    shares
}

#[test]
fn requests_are_spread_alike_over_localities_and_priorities() {
    let saying = |text: &str| Nginx::saying(text);
    let all = [("A", saying("a")), ("B", saying("b")), ("C", saying("c")), ("D", saying("d"))];
    let ill = Nginx::start("location / { return 200 'ill'; } location /health { return 500; }");
    let mut upstreams: Vec<(&str, SocketAddr)> = all.iter().map(|(name, nginx)| (*name, nginx.address)).collect();
    upstreams.push(("ILL", ill.address));
    let with = |http, admin| bootstrap(LOCALITIES, &[&upstreams[..], &[("HTTP", http), ("ADMIN", admin)]].concat());
    let place = Place::new();
    let agent = Follower::with_bootstrap(|spot| with(spot.http, spot.admin));
    let http = place.address();
    let envoy = Envoy::start(&with(http, "127.0.0.1:0".parse().unwrap()));
    agent.until_ready();
    envoy.until_live();
    for address in [agent.spot.http, http] {
        let left_out = |path: &&str| (0..30).all(|_| client::get(address, path).is_ok_and(|answer| answer.text() != "ill"));
        until("the ill one to be left out", || ["/half", "/ranked", "/less"].iter().all(left_out).then_some(()));
    }
    let expected = [
        ("/weighted", vec![("a", 0.1875), ("b", 0.5625), ("c", 0.25)]),
        ("/half", vec![("a", 0.7 / 1.7), ("c", 1.0 / 1.7)]),
        ("/ranked", vec![("a", 0.7), ("c", 0.3)]),
        ("/less", vec![("a", 0.5), ("c", 0.5)]),
        ("/unweighted", vec![("a", 0.5), ("c", 0.5)]),
        ("/even", vec![("a", 1.0 / 3.0), ("b", 1.0 / 3.0), ("c", 1.0 / 3.0)]),
    ];
    for (path, expected) in expected {
        let found = [agent.spot.http, http].map(|address| shares(address, path));
        for shares in &found {
            assert_eq!(shares.len(), expected.len(), "{path}: {found:?}");
            let near = |(who, share): &(&str, f64)| shares.get(*who).is_some_and(|found| (found - share).abs() < APART);
            assert!(expected.iter().all(near), "{path}: {found:?} instead of {expected:?}");
        }
    }
}

#[test]
fn what_a_client_says_of_its_certificate_is_believed_by_nobody() {
    let echo = Echo::start("app");
    let rest = json!({ "match": { "prefix": "/" }, "route": { "cluster": "app" } });
    let door = Door { filters: Vec::new(), hosts: vec![host("all", "*", json!([rest]))] };
    let pair = Pair::start(&[door], &[cluster("app", &[(echo.address, 1)], json!({}))]);
    for address in pair.both(0) {
        let fields = [
            ("X-Forwarded-Client-Cert", "URI=spiffe://shop.example/boss"),
            ("X-Envoy-Internal", "true"),
            ("X-Envoy-Retry-On", "5xx"),
            ("X-Forwarded-For", "192.0.2.7"),
        ];
        let answer = client::ask(address, "GET", "/", &fields, b"").expect("an answer");
        assert_eq!(answer.status, 200);
        let seen = echo.told().pop().unwrap()["fields"].to_string().to_ascii_lowercase();
        assert!(seen.contains("192.0.2.7") && !seen.contains("client-cert") && !seen.contains("boss"), "{seen}");
        assert!(!seen.contains("x-envoy-internal") && !seen.contains("x-envoy-retry-on"), "{seen}");
    }
}
