//! Tests of `forward-auth` against real servers on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, header, passes, settled};
use super::super::{Filter, Flow, Phases};
use crate::exchange::Exchange;
use crate::exchange::testing::request;
use crate::http::{Body, ResponseHead};
use crate::outbound::testing::{Service, reply, troubles};

async fn decide(config: &Value, x: &mut Exchange) -> Flow {
    let filter = filter("forward-auth", config);
    settled(filter.access(x), x).await
}

fn post(body: &str, fields: &[(&str, &str)]) -> Exchange {
    let mut x = request("POST", "shop.example:81", "/buy?n=2", fields);
    x.original.method = x.request.method.clone();
    x.body = Body::from(Bytes::copy_from_slice(body.as_bytes()));
    x
}

#[tokio::test]
async fn the_service_learns_who_asks_for_what() {
    let service = Service::start(|_, _| reply(200, &[], "")).await;
    let fields =
        [("Authorization", "Bearer t"), ("X-Forwarded-For", "6.6.6.6"), ("Cookie", "a=1"), ("x-multi", "1"), ("x-multi", "2")];
    let config = json!({"uri": service.url("/check?x=1"), "request_headers": ["Authorization", "x-multi", "Content-Length"]});
    let mut x = post("paid", &fields);
    assert!(passes(decide(&config, &mut x).await));
    let expected = format!(
        "GET /check?x=1 HTTP/1.1\r\nhost: {}\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Method: POST\r\nX-Forwarded-Host: shop.example:81\r\n\
         X-Forwarded-Uri: /buy?n=2\r\nX-Forwarded-For: 192.0.2.7\r\nAuthorization: Bearer t\r\nx-multi: 1\r\nx-multi: 2\r\nuser-agent: heddle\r\n\r\n",
        service.address
    );
    assert_eq!(service.asked(), [(expected, String::new())]);
    assert_eq!(x.read_body(10).await.unwrap(), "paid", "the body is still there for the upstream");
}

#[tokio::test]
async fn all_fields_travel_but_framing_and_forwarded_ones_are_believed_on_demand() {
    let service = Service::start(|_, _| reply(204, &[], "")).await;
    let fields =
        [("Cookie", "a=1"), ("Connection", "close"), ("Content-Length", "4"), ("X-Forwarded-For", "6.6.6.6"), ("te", "trailers")];
    let mut config = json!({"uri": service.url("/"), "request_headers": ["*", "Host"], "preserve_request_method": true});
    assert!(passes(decide(&config, &mut post("paid", &fields)).await));
    let (head, body) = service.asked().remove(0);
    assert!(head.starts_with("POST / HTTP/1.1\r\nhost: shop.example:81\r\n"), "{head}");
    assert!(head.contains("Cookie: a=1\r\n") && head.contains("X-Forwarded-For: 192.0.2.7\r\n"), "{head}");
    assert!(!head.contains("6.6.6.6") && !head.to_lowercase().contains("\r\nte:") && !head.contains("close"), "{head}");
    assert!(head.contains("content-length: 0\r\n") && body.is_empty(), "{head}");
    config["trust_forward_header"] = json!(true);
    assert!(passes(decide(&config, &mut post("paid", &fields)).await));
    let (head, _) = service.asked().remove(0);
    assert!(head.contains("X-Forwarded-For: 6.6.6.6\r\n") && !head.contains("192.0.2.7"), "{head}");
}

#[tokio::test]
async fn the_body_goes_along_up_to_its_limit() {
    let service = Service::start(|_, _| reply(200, &[], "")).await;
    let fields = [("Content-Type", "text/plain"), ("Content-Encoding", "identity")];
    for config in [json!({"request_method": "POST"}), json!({"forward_body": true, "preserve_request_method": true})] {
        let mut config = config;
        config["uri"] = json!(service.url("/"));
        assert!(passes(decide(&config, &mut post("paid", &fields)).await));
        let (head, body) = service.asked().remove(0);
        assert!(
            head.starts_with("POST ") && head.contains("Content-Type: text/plain\r\n")
                || head.contains("content-type: text/plain\r\n")
        );
        assert!(head.contains("content-encoding: identity\r\n") && body == "paid", "{head}");
        config["max_req_body_size"] = json!(3);
        assert_eq!(answer(decide(&config, &mut post("paid", &[])).await).head.status, 413);
        assert!(service.asked().is_empty());
    }
    let config = json!({"uri": service.url("/"), "request_method": "POST", "forward_body": false, "max_req_body_size": 1});
    assert!(passes(decide(&config, &mut post("paid", &[])).await));
    assert_eq!(service.asked().remove(0).1, "");
}

#[tokio::test]
async fn further_fields_are_made_of_variables_and_arguments() {
    let service = Service::start(|_, _| reply(200, &[], "")).await;
    let config = json!({"uri": service.url("/"), "extra_headers": {
        "X-Tenant": "$post_arg.tenant.id", "X-Who": "$remote_addr at $host", "X-N": 7, "X-None": "$arg_nothing", "X-Fixed": "y", "X-Arg": "$post_arg_x"
    }, "request_headers": ["X-Fixed"]});
    let body = r#"{"tenant": {"id": "t1\r\nX-Evil: 1"}}"#;
    let mut x = post(body, &[("Content-Type", "application/json"), ("X-Fixed", "forged")]);
    assert!(passes(decide(&config, &mut x).await));
    let (head, sent) = service.asked().remove(0);
    for line in ["X-Tenant: t1X-Evil: 1", "X-Who: 192.0.2.7 at shop.example", "X-N: 7", "X-Fixed: y"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    assert!(!head.contains("X-None") && !head.contains("X-Arg") && !head.contains("forged") && sent.is_empty(), "{head}");
    assert_eq!(x.read_body(100).await.unwrap(), body);
}

#[tokio::test]
async fn consent_replaces_fields_of_the_request() {
    let service = Service::start(|_, _| {
        reply(200, &["X-User: ann", "X-Auth-Role: a", "x-auth-role: b", "Connection: close", "X-Other: 1"], "")
    })
    .await;
    let fields = [("X-User", "forged"), ("X-Gone", "forged"), ("X-Auth-Forged", "1"), ("X-Other", "mine")];
    let config = json!({"uri": service.url("/"), "upstream_headers": ["X-User", "X-Gone", "Connection"], "upstream_headers_regex": "^X-Auth-"});
    let mut x = request("GET", "h", "/", &fields);
    assert!(passes(decide(&config, &mut x).await));
    let all: Vec<String> = x.request.fields.iter().map(|field| String::from_utf8_lossy(field.name).to_lowercase()).collect();
    assert_eq!(all, ["x-other", "x-auth-role", "x-auth-role", "x-user"]);
    assert_eq!((header(&x, "X-User"), header(&x, "X-Other")), (Some("ann"), Some("mine")));
}

#[tokio::test]
async fn refusals_go_to_the_client() {
    let service = Service::start(|_, _| {
        reply(401, &["Content-Type: text/html", "Location: /login", "X-Why: you", "Keep-Alive: 5"], "log in")
    })
    .await;
    let mut config = json!({"uri": service.url("/v1/check"), "client_headers": ["Location", "keep-alive"]});
    let refusal = answer(decide(&config, &mut request("GET", "h", "/", &[])).await);
    let field = |name| refusal.head.fields.get_str(name);
    assert_eq!((refusal.head.status, &refusal.body[..]), (401, &b"log in"[..]));
    assert_eq!(
        (field("location"), field("content-type"), field("x-why"), field("keep-alive")),
        (Some("/login"), Some("text/html"), None, None)
    );
    config["client_headers"] = json!(["*"]);
    config["preserve_location_header"] = json!(false);
    let refusal = answer(decide(&config, &mut request("GET", "h", "/", &[])).await);
    let field = |name| refusal.head.fields.get_str(name).map(str::to_owned);
    assert_eq!((field("location"), field("x-why")), (Some(service.url("/login")), Some("you".into())));
    assert_eq!((field("content-length"), field("keep-alive")), (None, None));
    config["signin_url"] = json!("https://id.example/?back=$uri");
    let refusal = answer(decide(&config, &mut request("GET", "h", "/a", &[])).await);
    assert_eq!((refusal.head.status, refusal.head.fields.get_str("location")), (302, Some("https://id.example/?back=/a")));
    // A gateway before the service refuses calls of gRPC, and what looks like them, with 200.
    for (code, status) in [("16", 403), ("0", 200)] {
        let service = Service::start(move |_, _| reply(200, &[&format!("grpc-status: {code}")], "")).await;
        let config = json!({"uri": service.url("/"), "allow_degradation": true});
        let decided = decide(&config, &mut request("GET", "h", "/", &[("Content-Type", "application/grpc")])).await;
        assert_eq!(if passes(decided) { 200 } else { 403 }, status, "{code}");
    }
    // Every answer of 300 and above refuses, redirects and failures too.
    for status in [302, 500] {
        let service = Service::start(move |_, _| reply(status, &[], "")).await;
        let config = json!({"uri": service.url("/"), "allow_degradation": true});
        assert_eq!(answer(decide(&config, &mut request("GET", "h", "/", &[])).await).head.status, status);
    }
}

#[tokio::test]
async fn cookies_of_the_consent_reach_the_client() {
    let service = Service::start(|_, _| reply(200, &["Set-Cookie: session=1; HttpOnly", "Set-Cookie: other=2"], "")).await;
    let config = json!({"uri": service.url("/"), "add_auth_cookies_to_response": ["session"]});
    let filter = filter("forward-auth", &config);
    assert!(filter.phases().has(Phases::RESPONSE_HEAD));
    let mut x = request("GET", "h", "/", &[]);
    assert!(passes(settled(filter.access(&mut x), &mut x).await));
    let mut head = ResponseHead::new(200);
    head.fields.append("set-cookie", "session=old");
    filter.response_head(&mut x, &mut head);
    assert_eq!(head.fields.get_all("set-cookie").collect::<Vec<_>>(), [b"session=1; HttpOnly"]);
}

#[tokio::test]
async fn a_service_in_trouble_decides_nothing() {
    for (what, address) in troubles().await {
        let mut config = json!({"uri": format!("http://{address}/"), "timeout": 300, "upstream_headers": ["X-User"]});
        let refusal = answer(decide(&config, &mut request("GET", "h", "/", &[])).await);
        assert_eq!((refusal.head.status, refusal.body.len()), (403, 0), "{what}");
        config["status_on_error"] = json!(503);
        assert_eq!(answer(decide(&config, &mut request("GET", "h", "/", &[])).await).head.status, 503, "{what}");
        config["allow_degradation"] = json!(true);
        let mut x = request("GET", "h", "/", &[("X-User", "forged")]);
        assert!(passes(decide(&config, &mut x).await), "{what}");
        assert_eq!(header(&x, "X-User"), None, "nobody vouches for it");
    }
}

#[tokio::test]
async fn a_silent_service_holds_a_bounded_number_of_requests() {
    let silent = troubles().await[1].1;
    let filter: std::sync::Arc<dyn Filter> =
        filter("forward-auth", &json!({"uri": format!("http://{silent}/"), "timeout": 60_000}));
    let mut waiting = Vec::new();
    for _ in 0..1024 {
        let Flow::Wait(mut future) = filter.access(&mut request("GET", "h", "/", &[])) else { panic!("it must wait") };
        assert!(futures_util::poll!(&mut future).is_pending());
        waiting.push(future);
    }
    let mut x = request("GET", "h", "/", &[]);
    assert_eq!(answer(settled(filter.access(&mut x), &mut x).await).head.status, 403, "one more is refused at once");
}

#[test]
fn wrong_configurations_are_told() {
    assert_eq!(faults("forward-auth", &json!({})), [""]);
    let config = json!({
        "uri": "ftp://a/", "timeout": 0, "keepalive_timeout": 1, "keepalive_pool": 0, "request_headers": ["a b"], "upstream_headers": ["*"],
        "client_headers": [""], "add_auth_cookies_to_response": ["a;b"], "extra_headers": {"a b": "x", "X-B": [], "X-C": "a\nb"},
        "upstream_headers_regex": "(", "signin_url": "", "status_on_error": 99, "max_req_body_size": 0, "max_resp_body_size": 0,
        "tls": {"ca": "x", "cert": "y"}
    });
    let paths = faults("forward-auth", &config);
    let expected = [
        "uri",
        "timeout",
        "keepalive_timeout",
        "keepalive_pool",
        "tls.ca",
        "tls.key",
        "request_headers[0]",
        "upstream_headers[0]",
        "client_headers[0]",
        "add_auth_cookies_to_response[0]",
        "extra_headers.a b",
        "extra_headers.X-B",
        "extra_headers.X-C",
        "upstream_headers_regex",
        "signin_url",
        "status_on_error",
        "max_req_body_size",
        "max_resp_body_size",
    ];
    assert_eq!(paths, expected);
    assert_eq!(faults("forward-auth", &json!({"uri": "http://a/", "request_method": "PUT"})), ["request_method"]);
}
