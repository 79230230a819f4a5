//! Tests of `wolf-rbac` against a small wolf server on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use heddle_xds::catalog::{Catalog, Place};
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, header, passes, settled};
use super::super::{Flow, Registry, registry};
use crate::exchange::testing::{NOW_MS, at};
use crate::exchange::{ConsumerInfo, Directory, Exchange, Proof};
use crate::http::{Body, ResponseHead};
use crate::outbound::testing::{Service, reply, troubles};

struct Shop(Proof);

impl Directory for Shop {
    fn find_credential(&self, plugin: &str, value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        assert_eq!(plugin, "wolf-rbac");
        let consumer = ConsumerInfo::new("shop".into(), "".into(), "".into(), BTreeMap::new(), false);
        (value == b"shop").then(|| Arc::new(consumer.proven_by(Some(self.0.clone()))))
    }

    fn consumer(&self, _: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }
}

fn ask(server: &str, method: &str, target: &str, fields: &[(&str, &str)]) -> Exchange {
    let config = json!({"appid": "shop", "server": server, "header_prefix": "X-Wolf-"});
    assert_eq!(Registry::default().check("wolf-rbac", Place::Consumer, &config), Ok(()));
    let proof = registry::find("wolf-rbac").unwrap().credential.unwrap()(&config).unwrap();
    at(NOW_MS, method, "h", target, fields, Rc::new(Shop(proof)))
}

async fn decide(x: &mut Exchange) -> Flow {
    let filter = filter("wolf-rbac", &json!({"timeout": 300}));
    settled(filter.rewrite(x), x).await
}

fn told(flow: Flow) -> (u16, Value) {
    let answer = answer(flow);
    (answer.head.status, serde_json::from_slice(&answer.body).unwrap())
}

const ANN: &str = r#"{"ok": true, "data": {"userInfo": {"id": 7, "username": "ann", "nickname": "A n"}}}"#;

#[tokio::test]
async fn wolf_grants_and_everybody_learns_who_it_is() {
    let wolf = Service::start(|_, _| reply(200, &[], ANN)).await;
    let server = wolf.url("/base/");
    let token = "V1#shop#tok";
    for (target, fields) in [
        ("/buy?rbac_token=V1%23shop%23tok", &[][..]),
        ("/buy", &[("Authorization", token)]),
        ("/buy", &[("x-rbac-token", token)]),
        ("/buy", &[("Cookie", "a=1; x-rbac-token=V1#shop#tok")]),
    ] {
        let filter = filter("wolf-rbac", &json!({}));
        let mut x = ask(&server, "PUT", target, fields);
        x.request.fields.append("X-Wolf-UserId", "forged");
        assert!(passes(settled(filter.rewrite(&mut x), &mut x).await), "{target} {fields:?}");
        let (head, _) = wolf.asked().remove(0);
        let line = "GET /base/wolf/rbac/access_check?appID=shop&resName=%2Fbuy&action=PUT&clientIP=192%2E0%2E2%2E7 HTTP/1.1\r\n";
        assert!(head.starts_with(line) && head.contains("x-rbac-token: tok\r\n"), "{head}");
        assert_eq!(&*x.consumer.as_ref().unwrap().username, "shop");
        let user = |name: &str| header(&x, name).map(str::to_owned);
        let expected = (Some("7".to_owned()), Some("ann".to_owned()), Some("A%20n".to_owned()));
        assert_eq!((user("X-Wolf-UserId"), user("X-Wolf-Username"), user("X-Wolf-Nickname")), expected);
        let mut head = ResponseHead::new(200);
        filter.response_head(&mut x, &mut head);
        assert_eq!(head.fields.get_str("X-Wolf-Username"), Some("ann"));
    }
}

#[tokio::test]
async fn refusals_say_why() {
    let wolf = Service::start(|_, _| {
        reply(401, &[], r#"{"ok": false, "reason": "no permission", "data": {"userInfo": {"username": "ann"}}}"#)
    })
    .await;
    let server = wolf.url("/");
    let missing = json!({"message": "Missing rbac token in request"});
    assert_eq!(told(decide(&mut ask(&server, "GET", "/", &[])).await), (401, missing));
    let malformed = json!({"message": "invalid rbac token: parse failed"});
    assert_eq!(told(decide(&mut ask(&server, "GET", "/", &[("Authorization", "Basic x")])).await), (401, malformed));
    let unknown = json!({"message": "Invalid appid in rbac token"});
    assert_eq!(told(decide(&mut ask(&server, "GET", "/", &[("Authorization", "V1#other#t")])).await), (401, unknown));
    let mut x = ask(&server, "GET", "/", &[("Authorization", "V1#shop#t")]);
    let refused = json!({"message": "no permission", "username": "ann"});
    assert_eq!(told(decide(&mut x).await), (401, refused));
    assert!(x.consumer.is_none());
}

#[tokio::test]
async fn a_failing_wolf_is_asked_again_and_one_in_trouble_grants_nothing() {
    let flaky = std::sync::atomic::AtomicUsize::new(0);
    let wolf = Service::start(move |_, _| {
        if flaky.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 { reply(503, &[], "") } else { reply(200, &[], ANN) }
    })
    .await;
    assert!(passes(decide(&mut ask(&wolf.url("/"), "GET", "/", &[("Authorization", "V1#shop#t")])).await));
    let failing = Service::start(|_, _| reply(500, &[], "{}")).await;
    let refusal = told(decide(&mut ask(&failing.url("/"), "GET", "/", &[("Authorization", "V1#shop#t")])).await);
    assert_eq!(refusal, (500, json!({"message": "request to wolf-server failed, status:500"})));
    assert_eq!(failing.asked().len(), 3);
    for (what, address) in troubles().await {
        let server = format!("http://{address}/");
        let mut x = ask(&server, "GET", "/", &[("Authorization", "V1#shop#t")]);
        assert_eq!(answer(decide(&mut x).await).head.status, 500, "{what}");
        assert!(x.consumer.is_none());
        let login = [("Content-Type", "application/json")];
        let mut x = ask(&server, "POST", "/apisix/plugin/wolf-rbac/login", &login);
        x.body = Body::from(Bytes::from_static(br#"{"appid": "shop"}"#));
        assert_eq!(told(decide(&mut x).await), (500, json!({"message": "request to wolf-server failed!"})), "{what}");
    }
}

#[tokio::test]
async fn clients_log_in_and_change_their_password_here() {
    let wolf = Service::start(|head, _| {
        let body =
            if head.contains("login.rest") { r#"{"ok": true, "data": {"token": "tok", "userInfo": {"id": 7}}}"# } else { ANN };
        reply(200, &[], body)
    })
    .await;
    let server = wolf.url("/");
    let path = |name: &str| format!("/apisix/plugin/wolf-rbac/{name}");
    for (kind, body) in [
        ("application/json", r#"{"appid": "shop", "username": "ann", "password": "p w"}"#),
        ("application/x-www-form-urlencoded", "appid=shop&username=ann&password=p+w"),
    ] {
        let mut x = ask(&server, "POST", &path("login"), &[("Content-Type", kind)]);
        x.body = Body::from(Bytes::from_static(body.as_bytes()));
        assert_eq!(told(decide(&mut x).await), (200, json!({"rbac_token": "V1#shop#tok", "user_info": {"id": 7}})));
        let (head, sent) = wolf.asked().remove(0);
        assert!(head.starts_with("POST /wolf/rbac/login.rest "), "{head}");
        assert_eq!(serde_json::from_str::<Value>(&sent).unwrap(), json!({"appid": "shop", "username": "ann", "password": "p w"}));
    }
    let token = [("Authorization", "V1#shop#tok"), ("Content-Type", "application/json")];
    let mut x = ask(&server, "PUT", &path("change_pwd"), &token);
    x.body = Body::from(Bytes::from_static(br#"{"oldPassword": "a"}"#));
    assert_eq!(told(decide(&mut x).await), (200, json!({"message": "success to change password"})));
    assert!(wolf.asked()[0].0.starts_with("POST /wolf/rbac/change_pwd "));
    let mut x = ask(&server, "GET", &path("user_info"), &token);
    assert_eq!(told(decide(&mut x).await).1["user_info"]["username"], "ann");
    assert!(wolf.asked()[0].0.starts_with("GET /wolf/rbac/user_info "));
    for (body, status, message) in
        [("", 400, "invalid request"), ("{}", 400, "appid is missing"), (r#"{"appid": "x"}"#, 400, "appid not found")]
    {
        let mut x = ask(&server, "POST", &path("login"), &[("Content-Type", "application/json")]);
        x.body = Body::from(Bytes::from_static(body.as_bytes()));
        assert_eq!(told(decide(&mut x).await), (status, json!({ "message": message })));
    }
    assert_eq!(told(decide(&mut ask(&server, "GET", &path("user_info"), &[])).await).0, 401);
    let refusing = Service::start(|_, _| reply(200, &[], r#"{"ok": false, "reason": "ERR_PASSWORD_ERROR"}"#)).await;
    let mut x = ask(&refusing.url("/"), "POST", &path("login"), &[("Content-Type", "application/json")]);
    x.body = Body::from(Bytes::from_static(br#"{"appid": "shop"}"#));
    assert_eq!(told(decide(&mut x).await), (200, json!({"message": "request to wolf-server failed!"})));
}

#[test]
fn each_place_has_its_own_check() {
    assert_eq!(faults("wolf-rbac", &json!({"timeout": 0, "ssl_verify": 1})), ["ssl_verify"]);
    assert_eq!(faults("wolf-rbac", &json!({"timeout": 0})), ["timeout"]);
    let registry = Registry::default();
    let wrong = json!({"appid": "a#b", "server": "wolf", "header_prefix": "a b"});
    let found = registry.check("wolf-rbac", Place::Consumer, &wrong).unwrap_err();
    assert_eq!(found.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["appid", "server", "header_prefix"]);
    assert_eq!(registry.check("wolf-rbac", Place::Consumer, &json!({})), Ok(()));
    assert!(registry.check("wolf-rbac", Place::Metadata, &json!({})).is_err());
}
