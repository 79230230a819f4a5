//! Tests of `opa` against real servers on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::Flow;
use super::super::testing::{answer, faults, filter, header, passes, settled};
use crate::exchange::testing::{NOW_MS, at, consumer, request};
use crate::exchange::{ConsumerInfo, Directory, Exchange, RouteInfo, Routed};
use crate::outbound::testing::{Service, reply, troubles};

async fn decide(config: &Value, x: &mut Exchange) -> Flow {
    let filter = filter("opa", config);
    settled(filter.access(x), x).await
}

async fn decided_by(decision: Value, more: Value, x: &mut Exchange) -> Flow {
    let body = json!({ "result": decision }).to_string();
    let service = Service::start(move |_, _| reply(200, &[], &body)).await;
    let mut config = more;
    config["host"] = json!(service.url("/"));
    config["policy"] = json!("p");
    decide(&config, x).await
}

struct OneRoute(RouteInfo);

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

impl Directory for OneRoute {
    fn find_credential(&self, _: &str, _: &[u8]) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn consumer(&self, _: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn route(&self, _: u32) -> Option<&dyn Routed> {
        Some(self)
    }
}

#[tokio::test]
async fn the_policy_learns_what_is_asked_and_by_whom() {
    let service = Service::start(|_, _| reply(200, &[], r#"{"result": {"allow": true}}"#)).await;
    let info =
        RouteInfo { id: "r1".into(), service_id: "s1".into(), name: "buy".into(), service: "shop".into(), uri: "/buy".into() };
    let fields = [("X-A", "1"), ("x-a", "2"), ("User-Agent", "curl")];
    let mut x = at(NOW_MS, "POST", "shop.example:81", "/buy?n=a+b&n=2&flag", &fields, Rc::new(OneRoute(info)));
    x.route = Some(0);
    x.consumer = Some(Arc::new(consumer("jack")));
    let mut config = json!({"host": service.url(""), "policy": "/http/authz/"});
    assert!(passes(decide(&config, &mut x).await));
    let (head, body) = service.asked().remove(0);
    assert!(
        head.starts_with("POST /v1/data/http/authz HTTP/1.1\r\n") && head.contains("content-type: application/json\r\n"),
        "{head}"
    );
    let mut expected = json!({"input": {
        "type": "http",
        "request": {
            "scheme": "http", "method": "POST", "host": "shop.example", "port": 9080, "path": "/buy",
            "headers": {"host": "shop.example:81", "x-a": ["1", "2"], "user-agent": "curl"}, "query": {"n": ["a b", "2"], "flag": true}
        },
        "var": {"server_addr": "192.0.2.1", "server_port": "9080", "remote_addr": "192.0.2.7", "remote_port": "4711", "timestamp": NOW_MS / 1000}
    }});
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    for with in ["with_route", "with_service", "with_consumer"] {
        config[with] = json!(true);
    }
    assert!(passes(decide(&config, &mut x).await));
    expected["input"]["route"] = json!({"id": "r1", "name": "buy", "uri": "/buy", "service_id": "s1"});
    expected["input"]["service"] = json!({"id": "s1", "name": "shop"});
    expected["input"]["consumer"] =
        json!({"username": "jack", "group_id": "staff", "credential_id": "c1", "custom_id": "42", "labels": {"custom_id": "42"}});
    assert_eq!(serde_json::from_str::<Value>(&service.asked()[0].1).unwrap(), expected);
    let mut nobody = request("GET", "h", "/", &[]);
    assert!(passes(decide(&config, &mut nobody).await));
    let told: Value = serde_json::from_str(&service.asked()[0].1).unwrap();
    assert_eq!(
        (&told["input"]["consumer"], &told["input"]["service"], &told["input"]["route"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn refusals_are_as_the_policy_wants_them() {
    let mut x = request("GET", "h", "/", &[]);
    let plain = answer(decided_by(json!({"allow": false}), json!({}), &mut x).await);
    assert_eq!((plain.head.status, plain.body.len()), (403, 0));
    let decision = json!({"allow": false, "status_code": 302, "reason": "go there", "headers": {"Location": "/login", "content-length": "9"}});
    let full = answer(decided_by(decision, json!({}), &mut x).await);
    let field = |name| full.head.fields.get_str(name);
    assert_eq!((full.head.status, &full.body[..], field("location")), (302, &b"go there"[..], Some("/login")));
    assert_eq!((field("content-type"), field("content-length")), (Some("text/plain; charset=utf-8"), None));
    let object = answer(decided_by(json!({"reason": {"code": 5}}), json!({}), &mut x).await);
    assert_eq!((&object.body[..], object.head.fields.get_str("content-type")), (&br#"{"code":5}"#[..], Some("application/json")));
}

#[tokio::test]
async fn consent_may_send_fields_upstream() {
    let mut x = request("GET", "h", "/", &[("X-User", "forged"), ("X-Role", "forged"), ("X-Free", "mine")]);
    let decision = json!({"allow": true, "headers": {"x-user": "ann", "X-Free": "theirs", "X-Unlisted": "1"}});
    let flow = decided_by(decision, json!({"send_headers_upstream": ["X-User", "X-Role"]}), &mut x).await;
    assert!(passes(flow));
    assert_eq!((header(&x, "x-user"), header(&x, "x-role")), (Some("ann"), None));
    assert_eq!((header(&x, "x-free"), header(&x, "x-unlisted")), (Some("mine"), None));
}

#[tokio::test]
async fn a_server_in_trouble_decides_nothing() {
    let mut all = troubles().await;
    let failing = Service::start(|_, _| reply(500, &[], "{}")).await;
    all.push(("failing", failing.address));
    for (what, address) in all {
        let mut config =
            json!({"host": format!("http://{address}"), "policy": "p", "timeout": 300, "send_headers_upstream": ["X-User"]});
        assert_eq!(answer(decide(&config, &mut request("GET", "h", "/", &[])).await).head.status, 403, "{what}");
        config["status_on_error"] = json!(502);
        assert_eq!(answer(decide(&config, &mut request("GET", "h", "/", &[])).await).head.status, 502, "{what}");
        config["allow_degradation"] = json!(true);
        let mut x = request("GET", "h", "/", &[("X-User", "forged")]);
        assert!(passes(decide(&config, &mut x).await), "{what}");
        assert_eq!(header(&x, "X-User"), None);
    }
}

#[tokio::test]
async fn an_answer_that_is_no_decision_opens_nothing() {
    for body in ["", "nonsense", "{}", r#"{"result": true}"#, r#"{"result": "allow"}"#] {
        let service = Service::start(move |_, _| reply(200, &[], body)).await;
        let config = json!({"host": service.url(""), "policy": "p", "allow_degradation": true});
        assert_eq!(answer(decide(&config, &mut request("GET", "h", "/", &[])).await).head.status, 503, "{body}");
    }
}

#[test]
fn wrong_configurations_are_told() {
    assert_eq!(faults("opa", &json!({})), [""]);
    let config = json!({
        "host": "opa:8181", "policy": "a b", "timeout": 60_001, "keepalive_timeout": 999, "keepalive_pool": 0, "send_headers_upstream": [],
        "status_on_error": 600, "tls": {"key": "x"}
    });
    let expected = [
        "host",
        "timeout",
        "keepalive_timeout",
        "keepalive_pool",
        "tls.cert",
        "policy",
        "send_headers_upstream",
        "status_on_error",
    ];
    assert_eq!(faults("opa", &config), expected);
    let config = json!({"host": "http://a", "policy": "/", "send_headers_upstream": ["*"]});
    assert_eq!(faults("opa", &config), ["policy", "send_headers_upstream[0]"]);
}
