//! The Admin API as scripts written for APISIX use it, with curl, and what takes effect on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use heddle_integration::client;
use heddle_integration::heddle::{Heddle, KEY};
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// Runs a line of a shell script with `$admin`, `$gateway` and `$key`; its output.
fn shell(heddle: &Heddle, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .env("admin", format!("http://{}/apisix/admin", heddle.admin))
        .env("gateway", format!("http://{}", heddle.http))
        .env("key", KEY)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_getting_started_script_of_apisix_works() {
    let (nginx, heddle) = (Nginx::saying("hello"), Heddle::run());
    let put = r#"curl -sf "$admin/routes/1" -H "X-API-KEY: $key" -X PUT -d '{ "methods": ["GET"], "host": "example.com", "uri": "/anything/*",
        "upstream": { "type": "roundrobin", "nodes": { "NODE": 1 } } }'"#;
    let created: Value = serde_json::from_str(&shell(&heddle, &put.replace("NODE", &nginx.address.to_string()))).unwrap();
    assert_eq!((&created["key"], &created["value"]["id"]), (&json!("/apisix/routes/1"), &json!("1")), "{created:#}");
    let ask = || shell(&heddle, r#"curl -s "$gateway/anything/foo" -H 'Host: example.com'"#);
    until("the route", || (ask() == "hello").then_some(()));
    shell(
        &heddle,
        r#"curl -sf "$admin/upstreams/1" -X PUT -H "X-API-KEY: $key" -d '{ "type": "chash", "key": "remote_addr", "nodes": { "127.0.0.1:1980": 1 } }'"#,
    );
    shell(&heddle, r#"curl -sf "$admin/routes/1" -X PATCH -H "X-API-KEY: $key" -d '{ "upstream": null, "upstream_id": "1" }'"#);
    let got: Value = serde_json::from_str(&shell(&heddle, r#"curl -sf "$admin/routes/1" -H "X-API-KEY: $key""#)).unwrap();
    assert_eq!((&got["value"]["upstream_id"], &got["value"]["upstream"]), (&json!("1"), &Value::Null), "{got:#}");
    let refused = shell(&heddle, r#"curl -s -w '%{http_code}' "$admin/upstreams/1" -X DELETE -H "X-API-KEY: $key""#);
    assert!(refused.contains("can not delete this upstream") && refused.ends_with("400"), "{refused}");
    let deleted = shell(&heddle, r#"curl -sf "$admin/routes/1" -X DELETE -H "X-API-KEY: $key""#);
    assert_eq!(serde_json::from_str::<Value>(&deleted).unwrap(), json!({ "deleted": "1", "key": "/apisix/routes/1" }));
    until("the route to go", || ask().contains("404 Route Not Found").then_some(()));
}

#[test]
fn lists_have_pages_and_filters() {
    let heddle = Heddle::run();
    (0..25).for_each(|i| heddle.route(&format!("r{i}"), &format!("/r{i}"), Place::new().address()));
    let page = heddle.admin("GET", "/routes?page=2&page_size=10", Value::Null).json();
    assert_eq!((&page["total"], page["list"].as_array().unwrap().len()), (&json!(25), 10));
    let found = heddle.admin("GET", "/routes?uri=r7", Value::Null).json();
    assert_eq!(found["list"][0]["value"]["id"], "r7", "{found:#}");
    let posted = heddle.admin("POST", "/routes", json!({ "uri": "/posted", "plugins": {} }));
    assert_eq!(posted.status, 201, "{}", posted.text());
}

#[test]
fn what_is_not_valid_is_refused_whole_and_says_why() {
    let heddle = Heddle::run();
    for (body, word) in [
        (json!({ "uri": "/x", "colour": "red" }), "colour"),
        (json!({ "uri": "/x", "upstream_id": "nobody" }), "nobody"),
        (json!({ "uri": "/x", "plugins": { "no-such": {} } }), "no-such"),
        (json!({ "uri": "/x", "plugins": { "limit-count": { "count": "many" } } }), "limit-count"),
        (json!({ "uri": 7 }), "uri"),
        (json!({ "uri": "/x", "upstream": { "nodes": { "127.0.0.1:1": -1 } } }), "nodes"),
    ] {
        let answer = heddle.admin("PUT", "/routes/bad", body);
        assert_eq!(answer.status, 400);
        assert!(answer.json()["error_msg"].as_str().unwrap().contains(word), "{}", answer.text());
    }
    assert_eq!(heddle.admin("GET", "/routes/bad", Value::Null).status, 404);
}

#[test]
fn viewers_look_and_strangers_do_not() {
    let heddle = Heddle::run();
    let ask =
        |method: &str, key: &[(&str, &str)]| client::send(heddle.admin, method, "/apisix/admin/routes", key, b"").unwrap().status;
    assert_eq!(ask("GET", &[("X-API-KEY", "viewer-key")]), 200);
    assert_eq!(ask("POST", &[("X-API-KEY", "viewer-key")]), 401);
    assert_eq!(ask("GET", &[("X-API-KEY", "wrong")]), 401);
    assert_eq!(ask("GET", &[]), 401);
}

#[test]
fn the_second_of_two_writers_is_told() {
    let heddle = Heddle::run();
    heddle.route("r", "/r", Place::new().address());
    let index = heddle.admin("GET", "/routes/r", Value::Null).json()["modifiedIndex"].to_string();
    let write = |index: &str| {
        let fields = [("X-API-KEY", KEY), ("If-Match", index)];
        let body = json!({ "uri": "/r", "plugins": {} }).to_string();
        client::send(heddle.admin, "PUT", "/apisix/admin/routes/r", &fields, body.as_bytes()).unwrap().status
    };
    assert_eq!((write(&index), write(&index)), (200, 412));
}

#[test]
fn a_route_with_a_time_to_live_goes_by_itself() {
    let (nginx, heddle) = (Nginx::saying("here"), Heddle::run());
    let body = json!({ "uri": "/brief", "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
    assert_eq!(heddle.admin("PUT", "/routes/brief?ttl=1", body).status, 201);
    heddle.until_status("/brief", 200);
    heddle.until_status("/brief", 404);
}

#[test]
fn everything_is_there_after_a_kill_and_a_restart() {
    let nginx = Nginx::saying("kept");
    let mut heddle = Heddle::run();
    heddle.route("kept", "/kept", nginx.address);
    heddle.restart();
    assert_eq!(heddle.until_status("/kept", 200).text(), "kept");
}

#[test]
fn a_listener_whose_address_is_taken_is_told_and_opened_once_it_is_free() {
    let (nginx, mut other, heddle) = (Nginx::saying("on"), Nginx::saying("in the way"), Heddle::run());
    heddle.route("all", "/*", nginx.address);
    heddle.until_status("/", 200);
    heddle.put("/listeners/taken", json!({ "name": "taken", "address": other.address.to_string(), "protocol": "http" }));
    until("the fault in the log", || {
        heddle.process.output().contains(&format!("cannot listen on {}", other.address)).then_some(())
    });
    assert_eq!(heddle.get("/").text(), "on");
    other.process.kill();
    until("the listener", || client::get(other.address, "/").ok().filter(|answer| answer.text() == "on"));
}
