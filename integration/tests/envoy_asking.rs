//! The real Envoy asks another service whether a request may pass, as a gateway of Heddle does: one story, told to both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::client::{self, Answer, Conversation};
use heddle_integration::envoy::{both, everywhere};
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// A service that consents to who says `sesame`, with what it was asked in a field; it answers 204, and 401 to others.
fn judge() -> Nginx {
    let told = "$request_method $request_uri $http_host|$http_x_forwarded_method $http_x_forwarded_proto://$http_x_forwarded_host$http_x_forwarded_uri \
                $http_x_forwarded_for|$http_authorization|$http_cookie|$http_x_fixed|$http_x_other|$http_x_envoy_internal";
    Nginx::start(&format!(
        "location /check {{ default_type text/html; add_header X-Told \"{told}\" always; add_header X-Why because always; add_header Location /login always; \
         add_header Set-Cookie session=1 always; if ($http_authorization != sesame) {{ return 401 'log in'; }} return 204; }} \
         location /paid {{ if ($content_length != 4) {{ return 402 $content_length; }} add_header X-Told \
         \"$request_method $content_type\"; return 200; }} \
         location /failed {{ add_header grpc-status 16 always; return 200; }} \
         location /broken {{ return 500 'oops'; }} location /moved {{ return 302 /elsewhere; }}"
    ))
}

/// An upstream that says what it was told.
fn teller() -> Nginx {
    Nginx::start("location / { return 200 '$http_x_told#$http_x_gone#$http_authorization'; }")
}

fn route(heddle: &Heddle, id: &str, upstream: &Nginx, plugins: Value) {
    let upstream = json!({ "nodes": { upstream.address.to_string(): 1 } });
    heddle.put(&format!("/routes/{id}"), json!({ "uri": format!("/{id}/*"), "plugins": plugins, "upstream": upstream }));
}

fn ask(heddle: &Heddle, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    client::send(heddle.http, method, target, fields, body).expect("an answer")
}

fn until_asked(heddle: &Heddle, target: &str, fields: &[(&str, &str)], status: u16) -> Answer {
    until(&format!("{target} to answer {status}"), || {
        client::send(heddle.http, "GET", target, fields, b"").ok().filter(|answer| answer.status == status)
    })
}

#[test]
fn who_may_pass_is_for_another_service_to_say() {
    let (judge, nginx) = (judge(), teller());
    everywhere(|heddle| {
        let config = json!({ "uri": format!("http://{}/check?x=1", judge.address), "request_headers": ["Authorization", "Cookie"],
            "extra_headers": { "X-Fixed": "100%" }, "upstream_headers": ["X-Told", "X-Gone"], "client_headers": ["X-Why"] });
        route(heddle, "guarded", &nginx, json!({ "forward-auth": config }));
        let good = ("Authorization", "sesame");
        until_asked(heddle, "/guarded/a", &[good], 200);
        let forged = [
            good,
            ("Host", "shop.example:99"),
            ("X-Told", "forged"),
            ("X-Gone", "forged"),
            ("Cookie", "a=b"),
            ("X-Fixed", "forged"),
            ("X-Other", "mine"),
            ("X-Forwarded-Uri", "/forged"),
            ("X-Forwarded-Method", "TRACE"),
        ];
        for (method, body) in [("GET", &b""[..]), ("POST", b"paid"), ("OPTIONS", b"")] {
            let told = ask(heddle, method, "/guarded/a?b=c", &forged, body);
            let asked = format!(
                "GET /check?x=1 {}|{method} http://shop.example:99/guarded/a?b=c 127.0.0.1|sesame|a=b|100%||",
                judge.address
            );
            assert_eq!((told.status, told.text()), (200, format!("{asked}##sesame")), "{method}");
            assert_eq!(told.field("set-cookie"), None);
        }
        let refused = ask(heddle, "GET", "/guarded/a", &[("Authorization", "guess")], b"");
        assert_eq!((refused.status, refused.text()), (401, "log in".to_owned()));
        let field = |name: &str| refused.field(name);
        assert_eq!((field("content-type"), field("x-why"), field("x-told")), (Some("text/html"), Some("because"), None));
        assert_eq!((field("location"), field("set-cookie")), (None, None), "what nobody listed is not shown");
    });
}

#[test]
fn methods_bodies_and_all_fields_go_along_where_they_are_wanted() {
    let (judge, nginx) = (judge(), teller());
    everywhere(|heddle| {
        let url = |path: &str| format!("http://{}{path}", judge.address);
        let all = json!({ "uri": url("/check"), "request_headers": ["*"], "client_headers": ["*"], "preserve_request_method": true,
            "upstream_headers": ["X-Told"] });
        route(heddle, "all", &nginx, json!({ "forward-auth": all }));
        let paid =
            json!({ "uri": url("/paid"), "request_method": "POST", "upstream_headers": ["X-Told"], "max_req_body_size": 10 });
        route(heddle, "paid", &nginx, json!({ "forward-auth": paid }));
        until_asked(heddle, "/all/a", &[("Authorization", "sesame")], 200);
        until_asked(heddle, "/paid/a", &[], 402);
        let told = ask(heddle, "PUT", "/all/a", &[("Authorization", "sesame"), ("X-Other", "mine")], b"x").text();
        assert!(told.starts_with(&format!("PUT /check {}|PUT http://", judge.address)), "{told}");
        assert!(told.contains("|sesame|||mine|"), "{told}");
        let refused = ask(heddle, "GET", "/all/a", &[], b"");
        assert_eq!(
            (refused.status, refused.field("location"), refused.field("set-cookie")),
            (401, Some("/login"), Some("session=1"))
        );
        let post = |body: &[u8]| ask(heddle, "POST", "/paid/a", &[("Content-Type", "text/plain")], body);
        let told = post(b"\xff\x00ab");
        assert_eq!((told.status, told.text()), (200, "POST text/plain##".to_owned()));
        assert_eq!((post(b"abc").status, post(b"0123456789a").status), (402, 413));
    });
}

#[test]
fn where_there_is_no_answer_nobody_passes() {
    let (judge, nginx) = (judge(), teller());
    let nobody = Place::new().address();
    everywhere(|heddle| {
        let asks = |more: Value| {
            let mut config = json!({ "uri": format!("http://{nobody}/") });
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "forward-auth": config })
        };
        route(heddle, "down", &nginx, asks(json!({})));
        route(heddle, "told", &nginx, asks(json!({ "status_on_error": 503 })));
        route(heddle, "broken", &nginx, asks(json!({ "uri": format!("http://{}/broken", judge.address) })));
        route(heddle, "failed", &nginx, asks(json!({ "uri": format!("http://{}/failed", judge.address) })));
        route(
            heddle,
            "moved",
            &nginx,
            asks(json!({ "uri": format!("http://{}/moved", judge.address), "client_headers": ["location"] })),
        );
        let moved = until_asked(heddle, "/moved/a", &[], 302);
        assert!(moved.field("location").is_some_and(|location| location.ends_with("/elsewhere")));
        until_asked(heddle, "/down/a", &[], 403);
        until_asked(heddle, "/failed/a", &[], 403);
        until_asked(heddle, "/told/a", &[], 503);
        // Envoy answers to itself in the words of gRPC, with 200, where a call finds nobody to ask.
        let call = [("Content-Type", "application/grpc"), ("TE", "trailers"), ("X-Told", "forged")];
        for path in ["/down/a", "/told/a"] {
            let told = ask(heddle, "POST", path, &call, b"");
            assert!(!told.text().contains('#'), "{path}: the upstream has answered {told:?}");
        }
        // Envoy takes a failure that is told for no answer.
        let broken = ask(heddle, "GET", "/broken/a", &[], b"");
        assert!([(500, "oops".to_owned()), (403, String::new())].contains(&(broken.status, broken.text())), "{broken:?}");
    });
}

#[test]
fn a_question_that_is_edited_turns_nobody_away() {
    let (judge, nginx) = (judge(), teller());
    everywhere(|heddle| {
        let good = ("Authorization", "sesame");
        let put = |fixed: &str| {
            let config = json!({ "uri": format!("http://{}/check", judge.address), "request_headers": ["authorization"],
                "extra_headers": { "X-Fixed": fixed }, "upstream_headers": ["X-Told"] });
            route(heddle, "edited", &nginx, json!({ "forward-auth": config }));
        };
        put("first");
        until_asked(heddle, "/edited/a", &[good], 200);
        for fixed in ["second", "third", "fourth"] {
            put(fixed);
            until("the service to be asked anew", || {
                let told = ask(heddle, "GET", "/edited/a", &[good], b"");
                assert_eq!(told.status, 200, "{fixed}: {}", told.text());
                told.text().contains(&format!("|{fixed}|")).then_some(())
            });
        }
    });
}

#[test]
fn a_connection_that_stands_passes_by_no_service_that_decides() {
    let (judge, nginx) = (judge(), teller());
    both(|heddle, _| {
        for (id, status) in [("usual", 403), ("own", 503)] {
            route(heddle, id, &nginx, json!({}));
            heddle.until_status(&format!("/{id}/a"), 200);
            let request = format!("GET /{id}/a HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut old = Conversation::open(heddle.http);
            assert_eq!(old.ask(&request).status, 200, "nothing guards it yet");
            let config = json!({ "uri": format!("http://{}/check", judge.address), "status_on_error": status });
            route(heddle, id, &nginx, json!({ "forward-auth": config }));
            heddle.until_status(&format!("/{id}/a"), 401);
            let told = old.ask(&request).status;
            assert!([401, 403].contains(&told), "{id}: {told}");
        }
    });
}
