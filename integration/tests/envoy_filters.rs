//! The real Envoy does what plugins ask for with filters of its own, and answers in the place of routes that it cannot serve.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::client::{self, Answer};
use heddle_integration::envoy::{Envoy, Way, both, everywhere};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

fn route(heddle: &Heddle, id: &str, nginx: &Nginx, plugins: Value) {
    let upstream = json!({ "nodes": { nginx.address.to_string(): 1 } });
    heddle.put(&format!("/routes/{id}"), json!({ "uri": format!("/{id}/*"), "plugins": plugins, "upstream": upstream }));
}

fn ask(heddle: &Heddle, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    client::send(heddle.http, method, target, fields, body).expect("Envoy answers")
}

#[test]
fn limits_guards_and_bodies_are_bounded_by_filters() {
    let nginx = Nginx::saying("up");
    both(|heddle, _| {
        let limit = json!({ "count": 3, "time_window": 3600, "rejected_code": 429 });
        route(heddle, "counted", &nginx, json!({ "limit-count": limit }));
        let req = json!({ "rate": 0.001, "burst": 1, "nodelay": true, "key": "x", "key_type": "constant", "rejected_code": 429 });
        route(heddle, "paced", &nginx, json!({ "limit-req": req }));
        let agents = json!({ "denylist": ["(?i)bot"], "bypass_missing": true });
        route(heddle, "guarded", &nginx, json!({ "ua-restriction": agents, "ip-restriction": { "blacklist": ["10.0.0.0/8"] } }));
        route(heddle, "small", &nginx, json!({ "client-control": { "max_body_size": 100 } }));
        heddle.until_status("/guarded/a", 200);
        heddle.until_status("/small/a", 200);
        let told: Vec<u16> = until("the limit", || {
            let told: Vec<u16> = (0..6).map(|_| heddle.get("/counted/a").status).collect();
            (!told.contains(&404)).then_some(told)
        });
        assert_eq!(told.iter().filter(|status| **status == 200).count(), 3, "{told:?}");
        assert!(told[3..].iter().all(|status| *status == 429), "{told:?}");
        let told: Vec<u16> = (0..4).map(|_| heddle.get("/paced/a").status).collect();
        assert_eq!(told, [200, 200, 429, 429]);
        assert_eq!(ask(heddle, "GET", "/guarded/a", &[("user-agent", "a Bot")], b"").status, 403);
        assert_eq!(ask(heddle, "GET", "/guarded/a", &[("user-agent", "curl")], b"").status, 200);
        for hidden in [&b"\xff bot"[..], b"b\xc3\xa9 Bot \xff", b"\xff"] {
            let head = [b"GET /guarded/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: ", hidden, b"\r\n\r\n"].concat();
            assert!(
                client::raw(heddle.http, &head).starts_with("HTTP/1.1 403"),
                "a byte that no pattern sees hides nothing: {hidden:?}"
            );
        }
        assert_eq!(ask(heddle, "POST", "/small/a", &[], &[b'x'; 100]).status, 200);
        assert_eq!(ask(heddle, "POST", "/small/a", &[], &[b'x'; 101]).status, 413);
    });
}

#[test]
fn what_another_site_makes_a_browser_send_is_refused_by_its_origin() {
    let nginx = Nginx::saying("up");
    everywhere(|heddle| {
        route(heddle, "changed", &nginx, json!({ "csrf": { "by_origin": { "additional": ["^app\\.example(:\\d+)?$"] } } }));
        heddle.until_status("/changed/a", 200);
        let own = format!("http://{}", heddle.http);
        let said = |method: &str, fields: &[(&str, &str)]| ask(heddle, method, "/changed/a", fields, b"x").status;
        let refused = ask(heddle, "POST", "/changed/a", &[], b"x");
        assert_eq!((refused.status, refused.text()), (403, "Invalid origin".to_owned()));
        let page = format!("{own}/form?x");
        let cases: [(&[(&str, &str)], u16); 7] = [
            (&[("origin", &own)], 200),
            (&[("referer", &page)], 200),
            (&[("origin", "https://app.example")], 200),
            (&[("origin", "https://app.example:8443")], 200),
            (&[("origin", "https://app.example.evil.example")], 403),
            (&[("origin", "null"), ("referer", &page)], 403),
            (&[("origin", "https://evil.example"), ("referer", &page)], 403),
        ];
        for (fields, status) in cases {
            for method in ["POST", "PUT", "PATCH", "DELETE"] {
                assert_eq!(said(method, fields), status, "{method} {fields:?}");
            }
        }
        assert_eq!(said("GET", &[("origin", "https://evil.example")]), 200);
    });
}

#[test]
fn answers_are_compressed_and_edited_and_requests_copied() {
    let text = "all work and no play ".repeat(50);
    let nginx = Nginx::start(&format!("default_type text/html; location / {{ return 200 '{text}'; }}"));
    let mirror = Nginx::start("location / { return 204; }");
    both(|heddle, envoy| {
        let set = json!({ "custom_response_headers": { "x-seen": "yes" }, "frame_deny": true });
        route(heddle, "zipped", &nginx, json!({ "gzip": { "comp_level": 6 }, "headers": set }));
        route(heddle, "copied", &nginx, json!({ "proxy-mirror": { "host": format!("http://{}", mirror.address) } }));
        let zipped = until("a compressed answer", || {
            let answer = client::send(heddle.http, "GET", "/zipped/a", &[("accept-encoding", "gzip")], b"").ok()?;
            (answer.field("content-encoding") == Some("gzip")).then_some(answer)
        });
        assert!(zipped.body.len() < text.len() / 4);
        assert_eq!((zipped.field("x-seen"), zipped.field("x-frame-options")), (Some("yes"), Some("DENY")));
        assert_eq!(ask(heddle, "GET", "/zipped/a", &[], b"").text(), text, "who does not ask for it gets it as it is");
        heddle.until_status("/copied/a", 200);
        let copied = |line: &str| line.starts_with("mirror/") && line.contains("::rq_success::") && !line.ends_with("::0");
        until("the copy", || {
            heddle.get("/copied/a");
            envoy.page("/clusters").text().lines().any(copied).then_some(())
        });
    });
}

#[test]
fn a_gateway_and_envoy_compress_number_and_restrict_alike() {
    let nginx = Nginx::start(&format!(
        "default_type text/html; location / {{ return 200 '$http_x_request_id'; }} location /zipped/ {{ return 200 '{}'; }}",
        "all work and no play ".repeat(50)
    ));
    everywhere(|heddle| {
        route(heddle, "zipped", &nginx, json!({ "zstd": {}, "brotli": { "comp_level": 4 }, "gzip": {} }));
        route(heddle, "numbered", &nginx, json!({ "request-id": {} }));
        let pages = json!({ "whitelist": ["shop.example", "*.shop.example"] });
        route(heddle, "shop", &nginx, json!({ "referer-restriction": pages }));
        route(
            heddle,
            "elsewhere",
            &nginx,
            json!({ "referer-restriction": { "blacklist": ["bad.example"], "bypass_missing": true } }),
        );
        let coded = |accepted: &str| {
            let answer = ask(heddle, "GET", "/zipped/a", &[("accept-encoding", accepted)], b"");
            answer.field("content-encoding").unwrap_or_default().to_owned()
        };
        until("compressed answers", || (coded("br") == "br").then_some(()));
        let told = ["zstd, br, gzip", "gzip;q=0.5, br", "gzip", "identity", "gzip, br;q=0.5"].map(coded);
        assert_eq!(told, ["zstd", "br", "gzip", "", "gzip"]);
        let number = |fields: &[(&str, &str)]| {
            let answer = ask(heddle, "GET", "/numbered/a", fields, b"");
            (answer.text(), answer.field("x-request-id").unwrap_or_default().to_owned())
        };
        until("a number", || (number(&[]).1.len() == 36).then_some(()));
        let (one, other) = (number(&[]), number(&[]));
        assert!(one.0 == one.1 && one != other, "the same to both sides, another one each time: {one:?} {other:?}");
        assert_eq!(number(&[("x-request-id", "mine")]), ("mine".to_owned(), "mine".to_owned()));
        heddle.until_status("/elsewhere/a", 200);
        until("the shop to be closed", || (heddle.get("/shop/a").status == 403).then_some(()));
        for (referer, shop, elsewhere) in [
            ("http://shop.example/a", 200, 200),
            ("https://www.SHOP.example:8443", 200, 200),
            ("https://shop.example.evil", 403, 200),
            ("https://shop.example@evil", 403, 200),
            ("http://bad.example./?x", 403, 403),
            ("http://[::1]:80/", 403, 200),
            ("shop.example", 403, 200),
        ] {
            let told = ["/shop/a", "/elsewhere/a"].map(|target| ask(heddle, "GET", target, &[("referer", referer)], b"").status);
            assert_eq!(told, [shop, elsewhere], "{referer}");
        }
    });
}

/// Where a client is sent that names this host, without the port that `https` has anyway: Envoy writes it where the client named another one.
fn sent_to(heddle: &Heddle, method: &str, host: &str) -> (u16, String) {
    let answer = client::ask(heddle.http, method, "/secure/a?b=c", &[("host", host)], b"").expect("an answer");
    let location = answer.field("location").unwrap_or_default();
    (answer.status, location.replace(":443/", "/"))
}

#[test]
fn a_gateway_and_envoy_send_clients_that_came_in_clear_to_the_same_place() {
    let nginx = Nginx::saying("up");
    let hosts = [
        ("shop.example", "shop.example"),
        ("shop.example:80", "shop.example"),
        ("shop.example:8080", "shop.example"),
        ("shop.example:443", "shop.example"),
        ("shop.example:8", "shop.example"),
        ("shop.example:180", "shop.example"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[2001:db8::80]", "[2001:db8::80]"),
        ("[2001:db8::1]:80", "[2001:db8::1]"),
        ("[2001:db8::1]:8080", "[2001:db8::1]"),
    ];
    everywhere(|heddle| {
        route(heddle, "secure", &nginx, json!({ "redirect": { "http_to_https": true } }));
        let lead = |port: &str| {
            let first = format!("https://shop.example{port}/secure/a?b=c");
            until("the port", || (sent_to(heddle, "GET", "shop.example") == (301, first.clone())).then_some(()));
            for (host, name) in hosts {
                let there = format!("https://{name}{port}/secure/a?b=c");
                assert_eq!(sent_to(heddle, "GET", host), (301, there.clone()), "{host}");
                assert_eq!(sent_to(heddle, "POST", host), (308, there), "{host}");
            }
        };
        heddle.until_status("/secure/a", 301);
        lead("");
        let answer = ask(heddle, "GET", "/secure/a", &[("host", "shop.example")], b"");
        assert_eq!(answer.field("location"), Some("https://shop.example/secure/a"), "nobody writes a port that need not be said");
        heddle.put("/plugin_metadata/redirect", json!({ "https_port": 9443 }));
        lead(":9443");
        assert_eq!(heddle.admin("DELETE", "/plugin_metadata/redirect", Value::Null).status, 200);
        lead("");
    });
}

#[test]
fn what_metadata_says_and_envoy_cannot_do_withholds_the_routes_that_it_changes() {
    let nginx = Nginx::saying("up");
    both(|heddle, _| {
        let limit = json!({ "count": 1000, "time_window": 3600 });
        route(heddle, "told", &nginx, json!({ "limit-count": limit }));
        let mut quiet = limit.clone();
        quiet["show_limit_quota_header"] = json!(false);
        route(heddle, "quiet", &nginx, json!({ "limit-count": quiet }));
        assert_eq!(heddle.until_status("/told/a", 200).field("x-ratelimit-limit"), Some("1000"));
        heddle.until_status("/quiet/a", 200);
        heddle.put("/plugin_metadata/limit-count", json!({ "limit_header": "X-Shop-Limit" }));
        heddle.until_status("/told/a", 404);
        assert_eq!(heddle.get("/quiet/a").status, 200, "what tells nothing is told by no other name");
        let reason = "plugin limit-count: plugin_metadata of limit-count is not translated for Envoys";
        let node = heddle.admin("GET", "/nodes", Value::Null).json()[0].clone();
        let named = |one: &Value| one["resource"] == "told" && one["reason"] == reason;
        assert!(node["withheld"].as_array().unwrap().iter().any(named), "{node}");
        assert_eq!(heddle.admin("DELETE", "/plugin_metadata/limit-count", Value::Null).status, 200);
        heddle.until_status("/told/a", 200);
    });
}

#[test]
fn a_gateway_and_envoy_try_again_what_the_plugin_lists() {
    let (good, bad) = (Nginx::saying("good"), Nginx::start("location / { return 503 'bad'; }"));
    everywhere(|heddle| {
        let nodes = json!({ good.address.to_string(): 1, bad.address.to_string(): 1 });
        let listed = json!({ "retry": { "attempts": 6, "statuses": [503], "budget_percent": 1000, "budget_burst": 10000 } });
        heddle.put("/upstreams/u", json!({ "nodes": nodes, "retries": 0, "circuit_breaker": { "retry_budget_percent": 100 } }));
        heddle.put("/routes/listed", json!({ "uri": "/listed", "upstream_id": "u", "plugins": listed }));
        heddle.put("/routes/plain", json!({ "uri": "/plain", "upstream_id": "u" }));
        heddle.until_status("/plain", 503);
        heddle.until_status("/listed", 200);
        assert!((0..20).all(|_| heddle.get("/listed").text() == "good"));
        let posts = (0..20).filter(|_| ask(heddle, "POST", "/listed", &[], b"").status == 503).count();
        assert!(posts > 0, "what may do something twice is not sent twice");
    });
}

#[test]
fn in_the_place_of_what_envoy_lacks_stands_an_answer_that_no_wider_route_takes() {
    let nginx = Nginx::saying("up");
    for (more, status) in [("", 404), (", withheld: unavailable", 503)] {
        let heddle = Heddle::control_plane(Setup { xds: more.to_owned(), ..Setup::default() });
        let _envoy = Envoy::follow(heddle.xds, "envoy-1", Way::DeltaAds);
        heddle.route("all", "/*", nginx.address);
        route(&heddle, "inner", &nginx, json!({ "hmac-auth": {} }));
        heddle.until_status("/a", 200);
        heddle.until_status("/inner/a", status);
        let node = heddle.admin("GET", "/nodes", Value::Null).json()[0].clone();
        assert_eq!(node["withheld"][0]["resource"], "inner", "{node}");
    }
}
