//! Tests of `ext-authz`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::Flow;
use super::super::testing::{answer, faults, filter, header, settled};
use super::wire;
use crate::exchange::{Answer, ConnectionInfo, ConsumerInfo, Directory, Dispatched, Exchange, Inner, Reason};
use crate::http::{Body, ResponseHead};

/// What was asked: who, and the request with its fields and body.
type Asked = (String, String, Vec<(String, String)>, Bytes);

/// Status, fields and body of an answer.
type Said = (u16, Vec<(&'static str, &'static str)>, Bytes);

/// An upstream that decides always the same.
#[derive(Default)]
struct Judge {
    asked: RefCell<Vec<Asked>>,
    /// Status, fields and body of its answer; none ever comes where there is none.
    says: Option<Said>,
    fails: bool,
}

impl Directory for Judge {
    fn find_credential(&self, _: &str, _: &[u8]) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn consumer(&self, _: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn dispatch(&self, _: Rc<ConnectionInfo>, inner: Inner) -> Dispatched {
        let fields = inner.head.fields.iter();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let fields = fields.map(|field| (text(field.name), text(field.value))).collect();
        let line = format!("{} {}{}", inner.head.method.as_str(), inner.head.authority, inner.head.target());
        self.asked.borrow_mut().push((inner.upstream.unwrap().to_string(), line, fields, inner.body));
        if self.fails {
            return Box::pin(std::future::ready(Err(Reason::NoUpstream)));
        }
        let Some((status, fields, body)) = &self.says else { return Box::pin(std::future::pending()) };
        let mut head = ResponseHead::new(*status);
        fields.iter().for_each(|(name, value)| head.fields.append(name, value));
        Box::pin(std::future::ready(Ok((head, body.clone()))))
    }
}

fn judge(status: u16, fields: &[(&'static str, &'static str)], body: &'static str) -> Rc<Judge> {
    saying(status, fields, Bytes::from_static(body.as_bytes()))
}

fn saying(status: u16, fields: &[(&'static str, &'static str)], body: Bytes) -> Rc<Judge> {
    Rc::new(Judge { says: Some((status, fields.to_vec(), body)), ..Judge::default() })
}

/// The request after the filter has looked at it, and the answer where there is one.
async fn go(config: Value, judge: &Rc<Judge>, body: &'static str) -> (Exchange, Option<Box<Answer>>) {
    let fields = [
        ("Authorization", "Basic YTpi"),
        ("Cookie", "a=b"),
        ("X-User", "forged"),
        ("X-Secret", "s"),
        ("X-Group", "a"),
        ("Connection", "close"),
    ];
    let mut x = crate::exchange::testing::at(1, "POST", "h.example", "/a?b=c", &fields, judge.clone());
    x.body = Body::from(Bytes::from_static(body.as_bytes()));
    let mut config = config;
    config["upstream_id"] = "judge".into();
    let filter = filter("ext-authz", &config);
    let flow = filter.rewrite(&mut x);
    let flow = settled(flow, &mut x).await;
    let refused = if matches!(flow, Flow::Continue) { None } else { Some(answer(flow)) };
    (x, refused)
}

#[tokio::test]
async fn who_decides_is_told_what_it_may_be_told() {
    let judge = judge(200, &[], "");
    let config = json!({
        "path_prefix": "/check", "allowed_headers": ["x-.*", "cookie"], "disallowed_headers": ["x-secret"],
        "headers_to_add": {"x-method": "${method}"}, "with_request_body": {"max_request_bytes": 10},
    });
    assert!(go(config.clone(), &judge, "k=v").await.1.is_none());
    let (who, line, fields, body) = judge.asked.borrow_mut().pop().unwrap();
    assert_eq!((&*who, &*line, &*body), ("judge", "POST h.example/check/a?b=c", b"k=v".as_slice()));
    let told = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!((told("authorization"), told("cookie"), told("x-user")), (Some("basic ytpi"), Some("a=b"), Some("forged")));
    assert_eq!((told("x-method"), told("x-envoy-auth-partial-body")), (Some("post"), Some("false")));
    assert_eq!((told("x-secret"), told("connection")), (None, None));
    let mut partly = config.clone();
    partly["with_request_body"]["allow_partial_message"] = true.into();
    let (x, passed) = go(partly, &judge, "far too long").await;
    let (_, _, fields, body) = judge.asked.borrow_mut().pop().unwrap();
    let told = fields.iter().find(|(known, _)| known == "x-envoy-auth-partial-body").map(|(_, value)| value.as_str());
    assert_eq!((passed.is_none(), told, &*body, x.body.remaining()), (true, Some("true"), &b"far too lo"[..], Some(12)));
    let (_, refused) = go(config, &judge, "far too long").await;
    assert_eq!((refused.unwrap().head.status, judge.asked.borrow().len()), (413, 0), "not asked for nothing");
}

#[tokio::test]
async fn nobody_forges_who_asks() {
    let judge = judge(200, &[], "");
    let forged =
        ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Client-Cert", "Forwarded", "X-Real-IP"];
    let fields: Vec<(&str, &str)> = forged.iter().map(|name| (*name, "forged")).collect();
    let mut x = crate::exchange::testing::at(1, "GET", "h", "/", &fields, judge.clone());
    let filter = filter("ext-authz", &json!({"upstream_id": "judge", "allowed_headers": [".*"]}));
    let flow = filter.rewrite(&mut x);
    assert!(matches!(settled(flow, &mut x).await, Flow::Continue));
    let (_, _, mut told, _) = judge.asked.borrow_mut().pop().unwrap();
    told.sort();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(told, [pair("x-forwarded-for", "192.0.2.7"), pair("x-forwarded-proto", "http")]);
}

/// Who decides by the first line would let in what the upstream reads in the second.
#[tokio::test]
async fn the_lines_of_a_field_are_told_as_one() {
    let fields = [
        ("X-Want", "200"),
        ("Cookie", "a=1"),
        ("Authorization", "one"),
        ("x-want", "403"),
        ("cookie", "b=2"),
        ("authorization", "two"),
        ("X_Want", "other"),
    ];
    for (config, cookie) in [(json!({"allowed_headers": ["x.want", "cookie"]}), "a=1; b=2"), (by_grpc(json!({})), "a=1; b=2")] {
        let by_grpc = config.get("protocol").is_some();
        let judge = saying(200, &[("grpc-status", "0")], wire::testing::answered(0, None));
        let mut config = config;
        config["upstream_id"] = "judge".into();
        let mut x = crate::exchange::testing::at(1, "GET", "h", "/", &fields, judge.clone());
        let flow = filter("ext-authz", &config).rewrite(&mut x);
        assert!(matches!(settled(flow, &mut x).await, Flow::Continue));
        let (_, _, told, body) = judge.asked.borrow_mut().pop().unwrap();
        let told = match by_grpc {
            true => wire::testing::asked(&body).request.unwrap().http.unwrap().headers.into_iter().collect(),
            false => told,
        };
        let lines = |name: &str| -> Vec<&str> {
            told.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
        };
        let seen = ["x-want", "cookie", "authorization", "x_want"].map(lines);
        assert_eq!(seen, [vec!["200,403"], vec![cookie], vec!["one,two"], vec!["other"]]);
        assert_eq!(x.request.fields.get_all("x-want").count(), 2, "the upstream is told what the client has sent");
    }
}

#[tokio::test]
async fn of_a_field_that_a_consent_sets_the_last_line_counts() {
    let said = [("X-User", "ann"), ("X-Group", "g"), ("x-user", "bob"), ("X-Group", "h")];
    let config = json!({"allowed_upstream_headers": ["x-user"], "allowed_upstream_headers_to_append": ["x-group"]});
    let (x, refused) = go(config, &judge(200, &said, ""), "").await;
    assert!(refused.is_none());
    let lines = |name| x.request.fields.get_all(name).collect::<Vec<_>>();
    assert_eq!((lines("x-user"), lines("x-group")), (vec![&b"bob"[..]], vec![&b"a,g,h"[..]]));
}

#[tokio::test]
async fn a_consent_changes_the_request_as_it_may() {
    let said = [
        ("X-User", "ann"),
        ("X-Group", "g"),
        ("X-Other", "o"),
        ("X-Envoy-Auth-Headers-To-Remove", "cookie, host"),
        ("X-Seen", "1"),
    ];
    let config = json!({
        "allowed_upstream_headers": ["x-user"], "allowed_upstream_headers_to_append": ["x-gr.*"], "allowed_client_headers_on_success": ["x-seen"],
    });
    let (mut x, refused) = go(config.clone(), &judge(200, &said, ""), "").await;
    assert!(refused.is_none());
    let seen = ["x-user", "x-group", "x-other", "cookie"].map(|name| header(&x, name));
    assert_eq!(seen, [Some("ann"), Some("a,g"), None, None]);
    let mut head = ResponseHead::new(200);
    let mut config = config;
    config["upstream_id"] = "judge".into();
    filter("ext-authz", &config).response_head(&mut x, &mut head);
    assert_eq!(head.fields.get_str("x-seen"), Some("1"));
}

#[tokio::test]
async fn a_refusal_goes_to_the_client() {
    let said = [("Location", "/login"), ("X-Why", "no"), ("Content-Type", "text/html"), ("Connection", "close")];
    let refuses = judge(302, &said, "<p>");
    let (_, all) = go(json!({}), &refuses, "").await;
    let all = all.unwrap();
    assert_eq!((all.head.status, &*all.body, all.head.fields.len()), (302, b"<p>".as_slice(), 3));
    let (_, some) = go(json!({"allowed_client_headers": ["x-none"]}), &refuses, "").await;
    let some = some.unwrap();
    let fields = ["location", "x-why", "content-type"].map(|name| some.head.fields.get_str(name));
    assert_eq!(fields, [Some("/login"), None, Some("text/plain")]);
    let call = go(json!({"failure_mode_allow": true}), &judge(200, &[("grpc-status", "14")], ""), "").await.1.unwrap();
    assert_eq!(call.head.status, 403, "a gateway before the service refuses calls of gRPC, and what looks like them, with 200");
    let other = go(json!({}), &judge(204, &[], ""), "").await.1.unwrap();
    assert_eq!(other.head.status, 204, "only 200 is a consent, and any other status is the client's, as at Envoy");
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_the_configuration_decides() {
    let gone = || Rc::new(Judge { fails: true, ..Judge::default() });
    for nobody in [judge(503, &[], ""), Rc::new(Judge::default()), gone()] {
        let (_, refused) = go(json!({"status_on_error": 503, "timeout": 100}), &nobody, "").await;
        assert_eq!(refused.unwrap().head.status, 503);
        let config =
            json!({"failure_mode_allow": true, "failure_mode_allow_header_add": true, "allowed_upstream_headers": ["x-user"]});
        let (x, refused) = go(config, &nobody, "").await;
        assert!(refused.is_none());
        assert_eq!((header(&x, "x-user"), header(&x, "x-envoy-auth-failure-mode-allowed")), (None, Some("true")));
    }
    let start = heddle_node::clock::now();
    let (_, refused) = go(json!({"timeout": 250}), &Rc::new(Judge::default()), "").await;
    assert_eq!((refused.unwrap().head.status, start.elapsed()), (403, Duration::from_millis(250)));
}

fn by_grpc(more: Value) -> Value {
    let mut config = json!({"protocol": "grpc", "timeout": 250});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

#[tokio::test]
async fn by_grpc_it_is_told_everything_but_what_clients_say_of_themselves() {
    let judge = saying(200, &[("grpc-status", "0")], wire::testing::answered(0, None));
    let config = by_grpc(json!({"context_extensions": {"tier": "gold"}, "with_request_body": {"max_request_bytes": 10},
        "headers_to_add": {"x-by": "${method}"}, "disallowed_headers": ["x-secret"], "authority": "authz.example"}));
    assert!(go(config, &judge, "k=\u{e4}").await.1.is_none());
    let (who, line, fields, body) = judge.asked.borrow_mut().pop().unwrap();
    assert_eq!((&*who, &*line), ("judge", "POST authz.example/envoy.service.auth.v3.Authorization/Check"));
    let told = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(
        [told("content-type"), told("grpc-timeout"), told("x-by")],
        [Some("application/grpc"), Some("250m"), Some("post")]
    );
    let asked = wire::testing::asked(&body);
    let http = asked.request.unwrap().http.unwrap();
    assert_eq!(
        [&*http.method, &*http.path, &*http.host, &*http.scheme, &*http.protocol],
        ["POST", "/a?b=c", "h.example", "http", "HTTP/1.1"]
    );
    assert_eq!((&*http.body, http.size, http.id.is_empty()), ("k=\u{e4}", 4, false));
    let header = |name: &str| http.headers.get(name).map(String::as_str);
    assert_eq!(
        [header(":authority"), header(":path"), header("x-user"), header("cookie")],
        [Some("h.example"), Some("/a?b=c"), Some("forged"), Some("a=b")]
    );
    assert_eq!(
        [header("x-envoy-auth-partial-body"), header("x-forwarded-for"), header("x-secret"), header("connection")],
        [Some("false"), Some("192.0.2.7"), None, None]
    );
    assert_eq!(asked.context_extensions.get("tier").map(String::as_str), Some("gold"));
    assert_eq!((asked.source.is_some(), asked.destination.is_some(), asked.tls_session.is_none()), (true, true, true));
    let bytes =
        by_grpc(json!({"with_request_body": {"max_request_bytes": 10, "pack_as_bytes": true}, "allowed_headers": ["x-user"]}));
    assert!(go(bytes, &judge, "k=v").await.1.is_none());
    let (_, _, _, body) = judge.asked.borrow_mut().pop().unwrap();
    let http = wire::testing::asked(&body).request.unwrap().http.unwrap();
    let names: Vec<&str> = http.headers.keys().map(String::as_str).collect();
    assert_eq!((http.raw_body.as_slice(), &*http.body, names), (&b"k=v"[..], "", vec!["x-envoy-auth-partial-body", "x-user"]));
}

#[tokio::test]
async fn by_grpc_a_consent_edits_the_request_and_the_answer() {
    let judge = saying(200, &[("grpc-status", "0")], wire::testing::consent());
    let (mut x, refused) = go(by_grpc(json!({})), &judge, "").await;
    assert!(refused.is_none());
    let of = ["x-user", "x-group", "x-new", "cookie", "bad name", "x-bad"].map(|name| header(&x, name));
    assert_eq!(of, [Some("ann"), Some("a,b"), None, None, None, None]);
    assert_eq!((&*x.request.path, x.request.query.as_deref()), ("/a", Some("b=d%20e&n=1")));
    let mut head = ResponseHead::new(200);
    for name in ["x-both", "x-over", "x-set"] {
        head.fields.append(name, "old");
    }
    let mut config = by_grpc(json!({}));
    config["upstream_id"] = "judge".into();
    filter("ext-authz", &config).response_head(&mut x, &mut head);
    let said = ["x-seen", "x-both", "x-over", "x-lost", "x-set"].map(|name| head.fields.get_str(name));
    assert_eq!(said, [Some("1"), Some("old"), Some("3"), None, Some("5")]);
}

#[tokio::test]
async fn by_grpc_names_of_the_query_are_compared_as_upstreams_read_them() {
    let after = |query: &str| {
        let said = wire::Allowed {
            query: vec![("who am".to_owned(), "ann".to_owned())],
            query_removed: vec!["admin".to_owned()],
            ..wire::Allowed::default()
        };
        let mut x = crate::exchange::testing::get("h", &format!("/?{query}"));
        super::grpc::consent(&mut x, said);
        x.request.query
    };
    assert_eq!(after("%61dmin=1&a=2&admi%6E&admin=3").as_deref(), Some("a=2&who%20am=ann"));
    assert_eq!(after("who+am=eve&b=1&who%20%61m=mal").as_deref(), Some("who%20am=ann&b=1"));
}

#[tokio::test]
async fn by_grpc_nobody_forges_what_a_consent_would_have_said() {
    let config = json!({"failure_mode_allow": true, "allowed_upstream_headers": ["x-user"]});
    let (x, refused) = go(by_grpc(config.clone()), &saying(200, &[("grpc-status", "14")], Bytes::new()), "").await;
    assert_eq!((refused.is_none(), header(&x, "x-user"), header(&x, "x-group")), (true, None, Some("a")));
    let consents = saying(200, &[("grpc-status", "0")], wire::testing::answered(0, None));
    assert_eq!(header(&go(by_grpc(config), &consents, "").await.0, "x-user"), Some("forged"), "the consent lets it be");
}

#[tokio::test]
async fn by_grpc_each_call_names_an_authority() {
    for (upstream, authority) in [
        ("upstreams/5", "5"),
        ("routes/1/ext-authz/0", "routes-1-ext-authz-0"),
        ("outbound|80||judge.example", "outbound-80--judge-example"),
        ("judge.example:9000", "judge.example:9000"),
        ("/", "-"),
        ("\u{e4}", "-"),
    ] {
        let judge = saying(200, &[("grpc-status", "0")], wire::testing::answered(0, None));
        let mut x = crate::exchange::testing::at(1, "GET", "h", "/", &[], judge.clone());
        let flow = filter("ext-authz", &by_grpc(json!({"upstream_id": upstream}))).rewrite(&mut x);
        assert!(matches!(settled(flow, &mut x).await, Flow::Continue));
        let (who, line, ..) = judge.asked.borrow_mut().pop().unwrap();
        assert_eq!((&*who, line), (upstream, format!("POST {authority}/envoy.service.auth.v3.Authorization/Check")));
        assert!(crate::http::h1::is_authority(authority.as_bytes()));
    }
}

#[tokio::test]
async fn by_grpc_a_refusal_goes_to_the_client_and_no_answer_is_none() {
    let ok = [("grpc-status", "0")];
    let (_, refused) =
        go(by_grpc(json!({"failure_mode_allow": true})), &saying(200, &ok, wire::testing::refusal(false, 401)), "").await;
    let refused = refused.unwrap();
    let cookies: Vec<&[u8]> = refused.head.fields.get_all("set-cookie").collect();
    assert_eq!((refused.head.status, cookies, &*refused.body), (401, vec![&b"a=1"[..], b"b=2"], &b"no"[..]));
    assert_eq!(refused.head.fields.get_str("content-type"), Some("text/plain"));
    for unsaid in [wire::testing::refusal(false, 0), wire::testing::refusal(false, 1000), wire::testing::answered(7, None)] {
        assert_eq!(go(by_grpc(json!({})), &saying(200, &ok, unsaid), "").await.1.unwrap().head.status, 403);
    }
    let unable = || saying(200, &ok, wire::testing::refusal(true, 502));
    assert_eq!(go(by_grpc(json!({})), &unable(), "").await.1.unwrap().head.status, 502);
    assert!(go(by_grpc(json!({"failure_mode_allow": true})), &unable(), "").await.1.is_none());
    let consent = wire::testing::answered(0, None);
    let framed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = consent.to_vec();
        change(&mut bytes);
        Bytes::from(bytes)
    };
    for (status, fields, body) in [
        (200, &[("grpc-status", "14")][..], consent.clone()),
        (200, &[], consent.clone()),
        (503, &ok, consent.clone()),
        (200, &ok, Bytes::new()),
        (200, &ok, framed(|bytes| bytes[0] = 1)),
        (200, &ok, framed(|bytes| bytes[4] += 1)),
        (200, &ok, framed(|bytes| bytes.push(0))),
        (200, &ok, framed(|bytes| bytes[5] = 0xff)),
    ] {
        let judge = saying(status, fields, body);
        assert_eq!(go(by_grpc(json!({"status_on_error": 503})), &judge, "").await.1.unwrap().head.status, 503, "{fields:?}");
        assert!(go(by_grpc(json!({"failure_mode_allow": true})), &judge, "").await.1.is_none());
    }
}

#[test]
fn mistakes_are_told() {
    let senseless = json!({"upstream_id": "u", "protocol": "grpc", "path_prefix": "/a", "allowed_client_headers": ["a"], "authority": "a..b"});
    assert_eq!(faults("ext-authz", &senseless), ["authority", "allowed_client_headers", "path_prefix"]);
    assert_eq!(faults("ext-authz", &json!({"upstream_id": "u", "protocol": "GRPC"})), ["protocol"]);
    let of = |mut config: Value| {
        if config.get("upstream_id").is_none() {
            config["upstream_id"] = "u".into();
        }
        faults("ext-authz", &config)
    };
    assert_eq!(of(json!({"upstream_id": ""})), ["upstream_id"]);
    assert_eq!(of(json!({"upstream_id": "u", "upstream": {}})), [""]);
    assert_eq!(
        of(json!({"path_prefix": "a", "timeout": 0, "status_on_error": 100})),
        ["path_prefix", "timeout", "status_on_error"]
    );
    assert_eq!(of(json!({"allowed_headers": ["a", "("]})), ["allowed_headers[1]"]);
    assert_eq!(of(json!({"headers_to_add": {"a b": "c", "d": 1}})), ["headers_to_add.a b", "headers_to_add.d"]);
    assert_eq!(of(json!({"headers_to_add": {"x": "${http_x_forwarded_for}"}})), ["headers_to_add.x"]);
    assert_eq!(of(json!({"with_request_body": {"max_request_bytes": 0}})), ["with_request_body.max_request_bytes"]);
}
