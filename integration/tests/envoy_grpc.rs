//! One bootstrap with filters for gRPC and certificates in Heddle's agent and in the real Envoy at once: pages, judges and clients must hear the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use heddle_integration::ads::{self, Follower, any, socket};
use heddle_integration::certificates::Authority;
use heddle_integration::client::{self, Answer, curl};
use heddle_integration::echo::{self, Echo};
use heddle_integration::envoy::{Envoy, everywhere};
use heddle_integration::heddle::Heddle;
use heddle_integration::judge::{Judge, serving};
use heddle_integration::place::Place;
use heddle_integration::process::{PATIENCE, Process, until};
use heddle_integration::python;
use serde_json::{Value, json};

const HTTP: &str = "envoy.extensions.filters.http";

/// Heddle's agent and the real Envoy, and where each takes requests.
struct Both {
    agent: Follower,
    envoy: Envoy,
    theirs: SocketAddr,
}

impl Both {
    /// One bootstrap for both, but for who decides for whom: the filters, the routes and the clusters of a listener.
    fn start(secured: Option<Value>, of: impl Fn(bool) -> (Vec<Value>, Value, Vec<Value>)) -> Both {
        let place = Place::new();
        let bootstrap = |http: SocketAddr, admin: SocketAddr, ours: bool| {
            let (filters, host, clusters) = of(ours);
            let router = json!({ "name": "router", "typed_config": any(&format!("{HTTP}.router.v3.Router"), json!({})) });
            let filters: Vec<Value> = filters.into_iter().chain([router]).collect();
            let mut chain = json!({ "filters": [ads::manager(json!({
                "http_filters": filters, "route_config": { "name": "r", "virtual_hosts": [host] },
            }))] });
            if let Some(context) = &secured {
                chain["transport_socket"] = json!({ "name": "tls",
                    "typed_config": any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", context.clone()) });
            }
            json!({
                "node": { "id": "edge", "cluster": "edge" },
                "admin": { "address": socket(admin) },
                "static_resources": {
                    "listeners": [{ "name": "in", "address": socket(http), "filter_chains": [chain] }],
                    "clusters": clusters,
                },
            })
            .to_string()
        };
        let agent = Follower::with_bootstrap(|spot| bootstrap(spot.http, spot.admin, true));
        let theirs = place.address();
        let envoy = Envoy::start(&bootstrap(theirs, "127.0.0.1:0".parse().unwrap(), false));
        agent.until_ready();
        envoy.until_live();
        Both { agent, envoy, theirs }
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [self.agent.spot.http, self.theirs]
    }
}

fn cluster(name: &str, address: SocketAddr, http2: bool) -> Value {
    let mut cluster =
        json!({ "name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": ads::assignment(name, &[address]) });
    if http2 {
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let options_of = any(options, json!({ "explicit_http_config": { "http2_protocol_options": {} } }));
        cluster["typed_extension_protocol_options"] = json!({ options: options_of });
    }
    cluster
}

fn leads(prefix: &str, cluster: &str) -> Value {
    json!({ "match": { "prefix": prefix }, "route": { "cluster": cluster } })
}

/// A server of gRPC that echoes.
fn echoes(place: &Place) -> (Process, SocketAddr) {
    let address = place.address();
    let mut command = python::script("server.py");
    command.arg(address.to_string());
    (serving(command, place.path("server.log")), address)
}

/// A message of gRPC.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// Frames of gRPC-Web as the client of a page reads them: base64 may be padded anywhere.
fn frames(body: &[u8], text: bool) -> Vec<(u8, String)> {
    let groups = || body.chunks(4).flat_map(|group| STANDARD.decode(group).expect("groups of base64"));
    let body: Vec<u8> = if text { groups().collect() } else { body.to_vec() };
    let (mut rest, mut frames) = (&body[..], Vec::new());
    while let [kind, a, b, c, d, behind @ ..] = rest {
        let (frame, after) = behind.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        frames.push((*kind, String::from_utf8_lossy(frame).into_owned()));
        rest = after;
    }
    assert!(rest.is_empty(), "{rest:?}");
    frames
}

/// What a page sees of an answer.
fn seen(answer: &Answer, of: &[&str]) -> Value {
    let text = answer.field("content-type").is_some_and(|kind| kind.contains("grpc-web-text"));
    let web = answer.field("content-type").is_some_and(|kind| kind.contains("grpc-web"));
    let fields: Vec<Option<&str>> = of.iter().map(|name| answer.field(name)).collect();
    let body = if web { json!(frames(&answer.body, text)) } else { json!(answer.text()) };
    json!([answer.status, fields, body])
}

const SEEN: [&str; 8] = [
    "content-type",
    "grpc-status",
    "grpc-message",
    "x-seen",
    "x-trailer",
    "x-upstream",
    "access-control-allow-origin",
    "access-control-expose-headers",
];

fn pages(place: &Place, grpc: SocketAddr, web: SocketAddr) -> Both {
    let closed = place.address();
    let policy = json!({
        "allow_origin_string_match": [{ "exact": "http://page.example" }], "allow_methods": "POST",
        "allow_headers": "content-type,x-grpc-web", "expose_headers": "grpc-status,grpc-message",
    });
    let plain = |name: &str, kind: &str| json!({ "name": name, "typed_config": any(&format!("{HTTP}.{kind}"), json!({})) });
    Both::start(None, move |_| {
        let filters = vec![plain("cors", "cors.v3.Cors"), plain("web", "grpc_web.v3.GrpcWeb")];
        let refused = json!({ "match": { "prefix": "/refused" }, "direct_response": { "status": 403, "body": { "inline_string": "go \"away\" ä%" } } });
        let routes = vec![refused, leads("/closed", "closed"), leads("/web", "web"), leads("/", "grpc")];
        let policies = json!({ "cors": any(&format!("{HTTP}.cors.v3.CorsPolicy"), policy.clone()) });
        let host = json!({ "name": "all", "domains": ["*"], "routes": routes, "typed_per_filter_config": policies });
        (filters, host, vec![cluster("grpc", grpc, true), cluster("web", web, false), cluster("closed", closed, false)])
    })
}

#[test]
fn pages_call_services_of_grpc_through_both_alike() {
    let (place, web) = (Place::new(), Echo::start("web"));
    let (_server, grpc) = echoes(&place);
    let both = pages(&place, grpc, web.address);
    let (one, two) = (framed(b"abc"), [framed(b"abc"), framed(b"def")].concat());
    let text = |bytes: &[u8]| STANDARD.encode(bytes).into_bytes();
    let (binary, base64) = ("application/grpc-web", "application/grpc-web-text");
    let asks: Vec<(&str, &str, &str, Vec<u8>)> = vec![
        ("/story.Echo/Unary", binary, "*/*", one.clone()),
        ("/story.Echo/Unary", "application/grpc-web+proto", "application/grpc-web+proto", framed(&[b'x'; 100_000])),
        ("/story.Echo/Fail", binary, binary, one.clone()),
        ("/story.Echo/Nothing", binary, binary, one.clone()),
        ("/story.Echo/Talk", binary, binary, two.clone()),
        ("/story.Echo/Unary", base64, base64, text(&one)),
        ("/story.Echo/Unary", "application/grpc-web-text+proto", "*/*", text(&one)),
        ("/story.Echo/Talk", base64, "application/grpc-web-text+proto", text(&two)),
        ("/story.Echo/Fail", base64, base64, text(&one)),
        ("/refused", binary, binary, one.clone()),
        ("/refused", base64, base64, text(&one)),
        ("/web/a", binary, binary, one.clone()),
        ("/web/a", "application/json", "*/*", b"{}".to_vec()),
        ("/web/a", "application/grpc-web+json", "*/*", b"{}".to_vec()),
        ("/web/a", "application/grpc", "*/*", one.clone()),
    ];
    for (target, kind, accepts, body) in &asks {
        // Which answers tell what CORS allows is a named difference.
        let origin = if *target == "/refused" { "http://other.example" } else { "http://page.example" };
        let fields = [("Content-Type", *kind), ("Accept", *accepts), ("x-asked", "yes"), ("Origin", origin)];
        let answers = both.addresses().map(|address| client::send(address, "POST", target, &fields, body).unwrap());
        let [ours, theirs] = answers.each_ref().map(|answer| match target.starts_with("/web") {
            // What the upstream says that it was asked holds addresses.
            true => seen(&Answer { body: Vec::new(), ..answer.clone() }, &["content-type", "grpc-status", "x-upstream"]),
            false => seen(answer, &SEEN),
        });
        assert_eq!(ours, theirs, "{target} {kind} {accepts}");
    }
    let told = |number: usize| web.told()[number].clone();
    let field = |told: &Value, name: &str| {
        told["fields"].as_array().unwrap().iter().find(|pair| pair[0] == name).map(|pair| pair[1].clone())
    };
    for number in 0..web.told().len() / 2 {
        let (ours, theirs) = (told(number * 2), told(number * 2 + 1));
        for name in ["content-type", "grpc-accept-encoding", "accept"] {
            assert_eq!(field(&ours, name), field(&theirs, name), "{name} {ours}");
        }
        assert_eq!(ours["body"], theirs["body"]);
    }
    // What is said in our own words differs, and a closed port is 502 here.
    for body in [&b"AAAAAANhYm"[..], b"AAAAAANh!mM="] {
        let fields = [("Content-Type", base64), ("Accept", base64)];
        let answers = both.addresses().map(|address| client::send(address, "POST", "/story.Echo/Unary", &fields, body).unwrap());
        assert_eq!(
            answers.each_ref().map(|answer| (answer.status, answer.field("grpc-status").map(str::to_owned))),
            [(400, Some("13".to_owned())), (400, Some("13".to_owned()))]
        );
    }
    let answers =
        both.addresses().map(|address| client::send(address, "POST", "/closed", &[("Content-Type", binary)], &one).unwrap());
    assert_eq!(
        answers.each_ref().map(|answer| (answer.status, answer.field("grpc-status"))),
        [(502, Some("14")), (503, Some("14"))]
    );
    drop(both.envoy);
}

#[test]
fn a_gateway_and_envoys_that_follow_it_let_pages_call() {
    let place = Place::new();
    let (_server, grpc) = echoes(&place);
    everywhere(|heddle| {
        let upstream = json!({ "scheme": "grpc", "nodes": { grpc.to_string(): 1 } });
        let plugins = json!({ "grpc-web": { "transparent": true } });
        heddle.put("/routes/pages", json!({ "uri": "/story.Echo/*", "plugins": plugins, "upstream": upstream }));
        let ask = || {
            client::send(heddle.http, "POST", "/story.Echo/Unary", &[("Content-Type", "application/grpc-web")], &framed(b"abc"))
        };
        let answer = until("a call", || ask().ok().filter(|answer| answer.status == 200));
        let frames = frames(&answer.body, false);
        assert_eq!((frames.len(), frames[0].clone(), frames[1].0), (2, (0, "abc".to_owned()), 0x80), "{frames:?}");
        assert!(frames[1].1.contains("grpc-status:0\r\n"), "{frames:?}");
    });
}

/// Says something on a connection, and hears until these bytes have come.
fn until_heard(stream: &mut TcpStream, heard: &mut Vec<u8>, bytes: &[u8]) {
    let mut part = [0; 4096];
    while !heard.windows(bytes.len()).any(|window| window == bytes) {
        let read = stream.read(&mut part).expect("the answer goes on");
        assert!(read > 0, "ended after {}", String::from_utf8_lossy(heard));
        heard.extend_from_slice(&part[..read]);
    }
}

#[test]
fn each_message_of_a_stream_arrives_before_the_next_is_sent() {
    let (place, web) = (Place::new(), Echo::start("web"));
    let (_server, grpc) = echoes(&place);
    let both = pages(&place, grpc, web.address);
    for address in both.addresses() {
        for (kind, text) in [("application/grpc-web", false), ("application/grpc-web-text", true)] {
            let coded = |bytes: Vec<u8>| if text { STANDARD.encode(bytes).into_bytes() } else { bytes };
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let fields = format!("Content-Type: {kind}\r\nAccept: {kind}\r\nTransfer-Encoding: chunked\r\n");
            write!(stream, "POST /story.Echo/Talk HTTP/1.1\r\nHost: a\r\n{fields}\r\n").unwrap();
            let mut heard = Vec::new();
            for word in ["one", "two", "six"] {
                let piece = coded(framed(word.as_bytes()));
                stream.write_all(&[format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat()).unwrap();
                let back: String = word.chars().rev().collect();
                until_heard(&mut stream, &mut heard, &coded(framed(back.as_bytes())));
            }
            stream.write_all(b"0\r\n\r\n").unwrap();
            until_heard(&mut stream, &mut heard, b"\r\n0\r\n\r\n");
        }
    }
}

/// Names of clusters are no names of hosts.
const JUDGE: &str = "outbound|9000||judge.example";

fn authz(judge: SocketAddr, web: SocketAddr, more: &Value) -> (Vec<Value>, Value, Vec<Value>) {
    let mut config = json!({
        "transport_api_version": "V3",
        "grpc_service": { "envoy_grpc": { "cluster_name": JUDGE }, "timeout": "0.5s", "initial_metadata": [{ "key": "x-by", "value": "edge" }] },
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let kind = format!("{HTTP}.ext_authz.v3.ExtAuthz");
    let per_route = |settings: Value| json!({ "asks": any(&format!("{kind}PerRoute"), settings) });
    let mut told = leads("/told", "web");
    told["typed_per_filter_config"] = per_route(json!({ "check_settings": { "context_extensions": { "tier": "gold" } } }));
    let mut open = leads("/open", "web");
    open["typed_per_filter_config"] = per_route(json!({ "disabled": true }));
    let mut other = leads("/other", "web");
    let service = json!({ "envoy_grpc": { "cluster_name": JUDGE, "authority": "judge.example" }, "timeout": "60s",
        "initial_metadata": [{ "key": "x-by", "value": "other" }] });
    other["typed_per_filter_config"] = per_route(json!({ "check_settings": { "grpc_service": service } }));
    let host = json!({ "name": "all", "domains": ["*"], "routes": [told, open, other, leads("/", "web")] });
    let filters = vec![json!({ "name": "asks", "typed_config": any(&kind, config) })];
    (filters, host, vec![cluster(JUDGE, judge, true), cluster("web", web, false)])
}

#[test]
fn who_decides_by_grpc_is_asked_and_heard_alike() {
    let configurations = [
        json!({ "status_on_error": { "code": "ServiceUnavailable" }, "with_request_body": { "max_request_bytes": 20 },
            "disallowed_headers": { "patterns": [{ "exact": "x-untold" }] } }),
        json!({ "failure_mode_allow": true, "failure_mode_allow_header_add": true, "allowed_headers": { "patterns": [{ "prefix": "x-" }] },
            "with_request_body": { "max_request_bytes": 20, "pack_as_bytes": true, "allow_partial_message": true } }),
    ];
    for more in configurations {
        let (place, web) = (Place::new(), Echo::start("web"));
        let (for_us, for_them) = (Judge::new(&place, "ours"), Judge::new(&place, "theirs"));
        let both = Both::start(None, |ours| authz(if ours { for_us.address } else { for_them.address }, web.address, &more));
        let cases = ["", "edit", "refuse", "typed", "moved", "unsaid", "bare", "unable", "fail", "slow"];
        let targets = cases.map(|case| ("/a?a=3&b=1&gone=2&b=4", case)).into_iter();
        for (target, case) in targets.chain([("/told/x", ""), ("/other/x", ""), ("/open?a=1", "refuse"), ("/b?gone=1", "edit")]) {
            let fields = [
                ("Host", "asked.example"),
                ("x-case", case),
                ("x-group", "a"),
                ("x-tenant", "t"),
                ("x-secret", "s"),
                ("x-untold", "u"),
                ("x-multi", "1"),
                ("x-multi", "2"),
                ("Content-Type", "text/plain"),
            ];
            let answers =
                both.addresses().map(|address| client::send(address, "POST", target, &fields, "k=ä".as_bytes()).unwrap());
            let names = ["content-type", "location", "x-why", "x-seen", "x-absent", "x-lost", "x-set", "x-upstream"];
            let [ours, theirs] = answers.each_ref().map(|answer| {
                let cookies: Vec<&str> =
                    answer.fields.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value.as_str()).collect();
                let fields: BTreeMap<&str, Option<&str>> = names.iter().map(|name| (*name, answer.field(name))).collect();
                let told = echo::asked(&answer.body).map(|told| {
                    let field = |name: &str| {
                        let all = told["fields"].as_array().unwrap().iter();
                        all.filter(|pair| pair[0] == name).map(|pair| pair[1].to_string()).collect::<Vec<_>>()
                    };
                    let at_upstream = [
                        "x-user",
                        "x-group",
                        "x-new",
                        "x-tenant",
                        "x-secret",
                        "x-multi",
                        "x-envoy-auth-failure-mode-allowed",
                        "host",
                    ]
                    .map(field);
                    json!([told["method"], told["target"], told["body"], at_upstream])
                });
                let body = if told.is_some() { String::new() } else { answer.text() };
                json!({ "status": answer.status, "fields": fields, "cookies": cookies, "told": told, "body": body })
            });
            assert_eq!(ours, theirs, "{case:?} {target} {more}");
        }
        let large = both
            .addresses()
            .map(|address| client::send(address, "POST", "/a", &[("Host", "asked.example")], &[b'x'; 30]).unwrap().status);
        let partial = more["with_request_body"]["allow_partial_message"] == json!(true);
        assert_eq!(large, if partial { [200, 200] } else { [413, 413] });
        assert_eq!(
            web.told().iter().filter(|told| told["body"].as_str().unwrap().len() == 30).count(),
            if partial { 2 } else { 0 }
        );
        assert_eq!(for_us.asked(), for_them.asked());
        assert_eq!(for_us.asked().iter().filter(|asked| asked["metadata"] == "other").count(), 1, "a route says whom to ask");
        let expected = if partial { 14 } else { 13 };
        assert_eq!(for_us.asked().len(), expected, "an open route is not asked about, nor is what is too long to be told");
    }
}

#[test]
fn a_gateway_asks_by_grpc_whom_its_routes_name() {
    let (place, web, heddle) = (Place::new(), Echo::start("web"), Heddle::run());
    let judge = Judge::new(&place, "judge");
    let upstream = json!({ "scheme": "grpc", "nodes": { judge.address.to_string(): 1 } });
    heddle.put("/upstreams/judge", upstream.clone());
    let asking = [("named", json!({ "upstream_id": "judge" })), ("written", json!({ "upstream": upstream }))];
    for (id, who) in asking.clone() {
        let mut asks = json!({ "protocol": "grpc", "timeout": 60_000, "allowed_headers": ["x-case"] });
        asks.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
        let nodes = json!({ web.address.to_string(): 1 });
        let route = json!({ "uri": format!("/{id}"), "plugins": { "ext-authz": asks }, "upstream": { "nodes": nodes } });
        heddle.put(&format!("/routes/{id}"), route);
    }
    heddle.until_effective();
    for (id, _) in asking {
        let ask = |case: &str| client::send(heddle.http, "GET", &format!("/{id}"), &[("x-case", case)], b"").unwrap();
        assert_eq!((ask("").status, ask("refuse").status, ask("bare").status), (200, 401, 403), "{id}");
    }
    assert_eq!((judge.asked().len(), web.told().len()), (6, 2));
}

#[test]
fn a_route_for_one_service_lets_pages_call_no_other() {
    let (place, heddle) = (Place::new(), Heddle::run());
    let (_server, grpc) = echoes(&place);
    let upstream = json!({ "scheme": "grpc", "nodes": { grpc.to_string(): 1 } });
    for (id, uri) in [("all", "/pages/*"), ("one", "/some/shop.Orders/*")] {
        heddle.put(&format!("/routes/{id}"), json!({ "uri": uri, "plugins": { "grpc-web": {} }, "upstream": upstream }));
    }
    heddle.until_effective();
    let call = |target: &str| {
        let answer =
            client::send(heddle.http, "POST", target, &[("Content-Type", "application/grpc-web")], &framed(b"abc")).unwrap();
        let first = || frames(&answer.body, false).first().map(|(_, text)| text.clone());
        (answer.status, (answer.status == 200).then(first).flatten())
    };
    assert_eq!(call("/pages/story.Echo/Unary"), (200, Some("abc".to_owned())));
    assert_eq!(call("/some/shop.Orders/story.Echo/Unary").0, 400);
    assert_eq!(call("/pages/shop.Orders/story.Echo/Unary").0, 400);
    assert_eq!(call("/some/shop.Orders/Unary").0, 200, "its own methods are called, which this server has not");
}

#[test]
fn clients_are_let_in_by_whom_their_certificate_names() {
    let (place, web, authority) = (Place::new(), Echo::start("web"), Authority::new());
    let server = authority.issue(&["front.example"]);
    let inline = |text: &str| json!({ "inline_string": text });
    let context = json!({ "require_client_certificate": true, "common_tls_context": {
        "tls_certificates": [{ "certificate_chain": inline(&server.certificate), "private_key": inline(&server.key) }],
        "validation_context": { "trusted_ca": inline(&authority.pem()) },
    } });
    let policy = |path: &str, authenticated: Value| {
        json!({
            "permissions": [{ "url_path": { "path": { "exact": path } } }], "principals": [{ "authenticated": authenticated }],
        })
    };
    let named = |matcher: Value| json!({ "principal_name": matcher });
    let rules = json!({ "policies": {
        "uri": policy("/uri", named(json!({ "exact": "spiffe://a/web" }))),
        "second": policy("/second", named(json!({ "prefix": "https://other" }))),
        "dns": policy("/dns", named(json!({ "suffix": ".a.example" }))),
        "subject": policy("/subject", named(json!({ "safe_regex": { "regex": "CN=[a-z]+" } }))),
        "any": policy("/any", json!({})),
    } });
    let filter = json!({ "name": "who", "typed_config": any(&format!("{HTTP}.rbac.v3.RBAC"), json!({ "rules": rules })) });
    let host = json!({ "name": "all", "domains": ["*"], "routes": [leads("/", "web")] });
    let both = Both::start(Some(context), |_| (vec![filter.clone()], host.clone(), vec![cluster("web", web.address, false)]));
    let clients = [
        &["one.a.example", "spiffe://a/web", "https://other.example/x"][..],
        &["two.a.example"],
        &["spiffe://a/webs"],
        &["three"],
    ];
    let mut statuses = BTreeMap::new();
    for (number, names) in clients.iter().enumerate() {
        let pair = authority.issue(names);
        let [certificate, key] = [("pem", &pair.certificate), ("key", &pair.key)]
            .map(|(end, text)| place.write(&format!("{number}.{end}"), text).display().to_string());
        for path in ["/uri", "/second", "/dns", "/subject", "/any", "/else"] {
            let told = both.addresses().map(|address| {
                let url = format!("https://front.example:{}{path}", address.port());
                let resolve = format!("front.example:{}:{}", address.port(), address.ip());
                curl(&[
                    "-k",
                    "--resolve",
                    &resolve,
                    "--cert",
                    &certificate,
                    "--key",
                    &key,
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    &url,
                ])
            });
            assert_eq!(told[0], told[1], "{names:?} {path}");
            *statuses.entry(told[0].clone()).or_insert(0) += 1;
        }
    }
    assert_eq!((statuses.get("200"), statuses.get("403")), (Some(&9), Some(&15)), "{statuses:?}");
}
