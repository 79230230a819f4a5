//! Tests of variables.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::time::Duration;

use super::super::testing::{consumer, get, request};
use heddle_node::telemetry::RequestTrace;

use super::super::{Attempt, ConsumerInfo, Directory, EndpointName, RouteInfo, Routed};
use super::*;

fn text(name: &str, x: &Exchange) -> Option<String> {
    Variable::new(name).get(x).map(Cow::into_owned)
}

#[test]
fn the_target_is_the_clients_even_after_a_rewrite() {
    let mut x = get("A.example:8080", "/a/b?x=1&y=%20&x=2&flag");
    x.original.path = x.request.path.clone();
    x.original.query = x.request.query.clone();
    x.request.path = "/new".into();
    x.request.query = None;
    for (name, expected) in [
        ("uri", "/a/b"),
        ("args", "x=1&y=%20&x=2&flag"),
        ("request_uri", "/a/b?x=1&y=%20&x=2&flag"),
        ("is_args", "?"),
        ("arg_x", "1"),
        ("arg_y", "%20"),
        ("arg_flag", ""),
        ("upstream_uri", "/new"),
        ("host", "a.example"),
        ("http_host", "a.example:8080"),
        ("request_port", "8080"),
        ("remote_addr", "192.0.2.7"),
        ("remote_port", "4711"),
        ("server_port", "9080"),
        ("scheme", "http"),
        ("request_method", "GET"),
        ("request_line", "GET /a/b?x=1&y=%20&x=2&flag HTTP/1.1"),
        ("msec", "1700000000.000"),
        ("time_iso8601", "2023-11-14T22:13:20+00:00"),
    ] {
        assert_eq!(text(name, &x).as_deref(), Some(expected), "{name}");
    }
    for absent in ["arg_z", "status", "upstream_addr", "consumer_name", "ssl_protocol", "nonsense", "trace_id"] {
        assert_eq!(text(absent, &x), None, "{absent}");
    }
}

#[test]
fn a_host_is_asked_about_as_routes_are_found_by_it() {
    for (named, expected) in [
        ("A.example", "a.example"),
        ("a.example.", "a.example"),
        ("a.example:81", "a.example:81"),
        ("A.Example.:81", "a.example:81"),
        ("a.example:", "a.example"),
        ("[::1]", "[::1]"),
        ("[::1]:81", "[::1]:81"),
    ] {
        let mut x = get("h", "/");
        x.request.authority = named.to_ascii_lowercase();
        assert_eq!(text("authority", &x).as_deref(), Some(expected), "{named}");
    }
    assert_eq!(text("requested_server_name", &get("h", "/")).as_deref(), Some(""), "who names no server names the empty one");
}

#[test]
fn headers_fold_case_and_dashes_and_join_repeats() {
    let fields = [("X-My-Tag", "1"), ("x_my_tag", "2"), ("Cookie", "a=1; B=2"), ("cookie", "c=3"), ("Content-Type", "text/x")];
    let x = request("GET", "h", "/", &fields);
    assert_eq!(text("http_x_my_tag", &x).as_deref(), Some("1, 2"));
    assert_eq!(text("http_cookie", &x).as_deref(), Some("a=1; B=2; c=3"));
    assert_eq!(text("http_content_type", &x).as_deref(), Some("text/x"));
    assert_eq!(text("cookie_B", &x).as_deref(), Some("2"));
    assert_eq!(text("cookie_b", &x), None);
    assert_eq!(text("cookie_c", &x).as_deref(), Some("3"));
    assert!(Variable::new("http_x_my_tag").any(&x, |value| value == "2"));
}

#[test]
fn clients_are_believed_about_themselves_through_trusted_proxies_alone() {
    let fields = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-For", "198.51.100.9"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-for", ""),
    ];
    let mut x = request("GET", "A.example:80", "/", &fields);
    let told =
        |x: &Exchange| ["forwarded_proto", "forwarded_for", "host_leaving_http", "host_leaving_https"].map(|name| text(name, x));
    let some = |texts: [&str; 4]| texts.map(|text| Some(text.to_owned()));
    assert_eq!(told(&x), some(["http", "198.51.100.9,10.0.0.1,192.0.2.7", "a.example", "a.example:80"]), "said by anybody");
    x.trusted = true;
    assert_eq!(told(&x), some(["https", "198.51.100.9,10.0.0.1", "a.example:80", "a.example:80"]), "said by a proxy of ours");
    x.request.authority = "a.example:443".into();
    assert_eq!(text("host_leaving_https", &x).as_deref(), Some("a.example"));
    // Schemes are case-insensitive (RFC 3986 section 3.1).
    for (said, scheme) in [("HTTPS", "https"), ("Wss", "https"), ("HTTP", "http"), ("Ws", "http"), ("ftp", "http")] {
        x.request.fields.set("x-forwarded-proto", said);
        assert_eq!(text("forwarded_proto", &x).as_deref(), Some(scheme), "{said}");
    }
    x.request.fields = Fields::new();
    assert_eq!((text("forwarded_proto", &x).as_deref(), text("forwarded_for", &x)), (Some("http"), None));
}

#[test]
fn fields_are_found_as_they_are_spelled_and_each_for_itself() {
    let fields = [("x-role", "user"), ("X_Role", "admin"), ("X-Role", "guest"), ("cookie", "a=1"), ("cookie", "b=2")];
    let mut x = request("GET", "a.example", "/", &fields);
    let any = |name: &str, wanted: &str, x: &Exchange| Variable::new(name).any(x, |value| value == wanted);
    assert_eq!(text("field_x-role", &x).as_deref(), Some("user"), "the first");
    assert!(any("field_x-role", "guest", &x) && !any("field_x-role", "admin", &x) && any("field_x_role", "admin", &x));
    assert_eq!(text("field_x-none", &x), None);
    x.request.fields.append("Authorization", "w");
    x.request.fields.append("authorization", "v");
    assert!(any("field_authorization", "w,v", &x) && !any("field_authorization", "v", &x), "one line, as Envoy has it");
    assert!(any("field_cookie", "b=2", &x) && !any("field_cookie", "a=1; b=2", &x));
    x.request.version = crate::http::Version::Http2;
    assert!(any("field_cookie", "a=1; b=2", &x) && !any("field_cookie", "b=2", &x), "the crumbs of one cookie");
    assert_eq!(text("field_cookie", &x).as_deref(), Some("a=1; b=2"));
}

/// A directory of one route.
struct OneRoute(RouteInfo);

impl Directory for OneRoute {
    fn find_credential(&self, _plugin: &str, _value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn consumer(&self, _username: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn route(&self, number: u32) -> Option<&dyn Routed> {
        (number == 0).then_some(self as &dyn Routed)
    }
}

impl Routed for OneRoute {
    fn id(&self) -> &[u8] {
        self.0.id.as_bytes()
    }

    fn service_id(&self) -> &str {
        &self.0.service_id
    }

    fn info(&self) -> &RouteInfo {
        &self.0
    }
}

#[test]
fn identity_answer_and_tries_are_found() {
    let mut x = get("h", "/");
    x.consumer = Some(Arc::new(consumer("jack")));
    x.directory = Rc::new(OneRoute(RouteInfo { id: "r1".into(), ..RouteInfo::default() }));
    x.route = Some(0);
    x.params.push(("id".into(), "7".into()));
    x.answer.status = 201;
    x.answer.took = Duration::from_millis(1_250);
    let (trace_id, span_id) = (1u128.to_be_bytes(), 2u64.to_be_bytes());
    x.trace = Some(Box::new(RequestTrace { trace_id, span_id, parent_id: None, sampled: true, state: None }));
    let failed = Attempt {
        endpoint: EndpointName::new("a".into(), ([10, 0, 0, 1], 80).into()),
        status: None,
        outcome: None,
        connect: Duration::from_millis(3),
        header: None,
        total: None,
        failure: None,
        broke: false,
    };
    x.attempts.push(failed.clone());
    x.attempts.push(Attempt { status: Some(200), outcome: Some(503), total: Some(Duration::from_millis(7)), ..failed });
    for (name, expected) in [
        ("consumer_name", "jack"),
        ("consumer_group_id", "staff"),
        ("route_id", "r1"),
        ("uri_param_id", "7"),
        ("status", "201"),
        ("request_time", "1.250"),
        ("upstream_addr", "10.0.0.1:80, 10.0.0.1:80"),
        ("upstream_status", "502, 200"),
        ("upstream_response_time", "-, 0.007"),
        ("balancer_ip", "10.0.0.1"),
        ("opentelemetry_context_traceparent", "00-00000000000000000000000000000001-0000000000000002-01"),
    ] {
        assert_eq!(text(name, &x).as_deref(), Some(expected), "{name}");
    }
    assert_eq!(text("route_name", &x), None);
}

#[test]
fn sent_fields_and_request_id_come_from_their_slots() {
    let mut x = request("GET", "h", "/", &[("X-Request-Id", "from-client")]);
    assert_eq!(text("request_id", &x).as_deref(), Some("from-client"));
    x.put(REQUEST_ID, String::from("made"));
    assert_eq!(text("request_id", &x).as_deref(), Some("made"));
    let mut fields = Fields::new();
    fields.append("X-Out", "1");
    x.put(SENT_FIELDS, fields);
    assert_eq!(text("sent_http_x_out", &x).as_deref(), Some("1"));
}

#[test]
fn dates_are_right_around_leap_days() {
    let mut x = get("h", "/");
    for (ms, expected) in [
        (0, "1970-01-01T00:00:00+00:00"),
        (951_782_399_000, "2000-02-28T23:59:59+00:00"),
        (951_782_400_000, "2000-02-29T00:00:00+00:00"),
        (1_735_689_599_999, "2024-12-31T23:59:59+00:00"),
    ] {
        x.started_ms = ms;
        assert_eq!(text("time_iso8601", &x).as_deref(), Some(expected));
    }
}

proptest::proptest! {
    #[test]
    fn arguments_are_the_pairs_between_ampersands(query in "[ab=&é]{0,16}", name in "[ab]{1,2}") {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let expected: Vec<_> = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).collect();
        proptest::prop_assert_eq!(query_args(&query, &name).collect::<Vec<_>>(), expected);
    }
}
