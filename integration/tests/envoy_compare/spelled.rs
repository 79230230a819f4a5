//! Header fields that come several times, spelled otherwise, or from whoever a client says that it is: both data planes find the same routes, let in the same
//! clients and tell upstreams the same.

use std::net::SocketAddr;

use heddle_integration::ads::any;
use heddle_integration::client;
use heddle_integration::echo::Echo;
use serde_json::{Value, json};

use super::pair::{Door, Pair, cluster, host};

const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";

/// Status and, where an upstream was asked, what it was told of these fields.
fn told(address: SocketAddr, echo: &Echo, host: &str, fields: &[(&str, &str)]) -> (u16, Vec<String>) {
    let before = echo.told().len();
    let fields: Vec<(&str, &str)> = [("Host", host)].into_iter().chain(fields.iter().copied()).collect();
    let answer = client::ask(address, "GET", "/", &fields, b"").expect("an answer");
    let watched = |name: &str| ["x-role", "x_role", "x-user", "x-copy", "x-a"].contains(&name);
    let mut told = Vec::new();
    for heard in echo.told().into_iter().skip(before) {
        let pairs = heard["fields"].as_array().cloned().unwrap_or_default();
        let pair = |pair: &Value| Some((pair[0].as_str()?.to_ascii_lowercase(), pair[1].as_str()?.to_owned()));
        // What has no value is told by ours alone.
        let is_told = |(name, value): &(String, String)| watched(name) && !value.is_empty();
        told.extend(pairs.iter().filter_map(pair).filter(is_told).map(|(name, value)| format!("{name}: {value}")));
    }
    told.sort();
    (answer.status, told)
}

#[test]
fn fields_are_matched_line_by_line_and_under_their_very_names_and_the_nearest_hop_is_the_client() {
    let echo = Echo::start("app");
    let send = |more: Value| {
        let mut route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "app" } });
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        route
    };
    let matchers = [
        json!({ "name": "x-a", "string_match": { "exact": "abc" } }),
        json!({ "name": "x-a", "string_match": { "prefix": "b" } }),
        json!({ "name": "x-a", "string_match": { "exact": "abc" }, "invert_match": true }),
        json!({ "name": "x-a", "range_match": { "start": 1, "end": 5 } }),
        json!({ "name": "x-role", "string_match": { "exact": "admin" } }),
        json!({ "name": "x_role", "present_match": true }),
        json!({ "name": "authorization", "string_match": { "exact": "v" } }),
        json!({ "name": "authorization", "string_match": { "exact": "w,v" } }),
    ];
    let names: Vec<String> = (0..matchers.len()).map(|number| format!("m{number}.example")).collect();
    let by_field = |(number, matcher): (usize, &Value)| {
        let fits = send(json!({ "match": { "prefix": "/", "headers": [matcher] } }));
        host(&format!("m{number}"), &names[number], json!([fits]))
    };
    let mut hosts: Vec<Value> = matchers.iter().enumerate().map(by_field).collect();
    let value = |name: &str, value: &str| json!({ "header": { "key": name, "value": value } });
    let anew = json!({ "request_headers_to_remove": ["x-user"], "request_headers_to_add": [value("x-user", "edge"), value("x-copy", "%REQ(x-role)%")] });
    hosts.push(host("anew", "anew.example", json!([send(anew)])));
    hosts.push(host("open", "open.example", json!([send(json!({}))])));
    let client = json!({ "remote_ip": { "address_prefix": "9.9.9.9", "prefix_len": 32 } });
    let policies = json!({ "guests": { "permissions": [{ "header": { "name": ":authority", "string_match": { "exact": "open.example" } } }], "principals": [client] } });
    let refuses = any(RBAC, json!({ "rules": { "action": "DENY", "policies": policies } }));
    let door = Door { filters: vec![("clients".to_owned(), refuses)], hosts };
    let pair = Pair::start(&[door], &[cluster("app", &[(echo.address, 1)], json!({}))]);
    let lines: [&[(&str, &str)]; 14] = [
        &[],
        &[("x-a", "abc")],
        &[("x-a", "abc"), ("x-a", "x")],
        &[("x-a", "a"), ("x-a", "b")],
        &[("x-a", "a, b")],
        &[("x-a", "9"), ("x-a", "1")],
        &[("x-a", "0"), ("x-a", "9")],
        &[("x_role", "admin")],
        &[("authorization", "w"), ("authorization", "v")],
        &[("authorization", "v")],
        &[("x-role", "admin"), ("x_role", "user")],
        &[("x-role", "user"), ("x-role", "admin"), ("x-user", "evil")],
        &[("X-Forwarded-For", "9.9.9.9, 1.1.1.1")],
        &[("X-Forwarded-For", "1.1.1.1, 9.9.9.9")],
    ];
    let (mut let_in, mut refused) = (0, 0);
    for name in names.iter().map(String::as_str).chain(["anew.example", "open.example"]) {
        for fields in lines {
            let [ours, theirs] = pair.both(0).map(|address| told(address, &echo, name, fields));
            assert_eq!(ours, theirs, "{name} {fields:?}");
            *(if ours.0 == 200 { &mut let_in } else { &mut refused }) += 1;
        }
    }
    assert!(let_in > 20 && refused > 20, "{let_in} let in, {refused} refused");
}
