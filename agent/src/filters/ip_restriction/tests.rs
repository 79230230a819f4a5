//! Tests of `ip-restriction`.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::super::testing::{answer, faults, filter, passes};
use crate::exchange::ranges::Ranges;
use crate::exchange::testing::{get, request};

fn from(ip: &str) -> crate::exchange::Exchange {
    let mut x = get("h", "/");
    x.remote.set_ip(ip.parse().unwrap());
    x
}

#[test]
fn a_whitelist_lets_only_its_own_through() {
    let filter = filter("ip-restriction", &json!({"whitelist": ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]}));
    for ip in ["10.1.2.3", "192.0.2.7", "::ffff:10.0.0.1", "2001:db8::1"] {
        assert!(passes(filter.access(&mut from(ip))), "{ip}");
    }
    let refusal = answer(filter.access(&mut from("192.0.2.8")));
    assert_eq!(refusal.head.status, 403);
    assert_eq!(refusal.body, "{\"message\":\"Your IP address is not allowed\"}\n");
}

#[test]
fn a_blacklist_refuses_with_its_own_message_and_code() {
    let filter = filter("ip-restriction", &json!({"blacklist": ["192.0.2.0/24"], "message": "go", "response_code": 404}));
    let refusal = answer(filter.access(&mut from("192.0.2.7")));
    assert_eq!((refusal.head.status, &refusal.body[..]), (404, &b"{\"message\":\"go\"}\n"[..]));
    assert!(passes(filter.access(&mut from("::1"))));
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("ip-restriction", &json!({})), [""]);
    assert_eq!(faults("ip-restriction", &json!({"whitelist": ["10.0.0.1"], "blacklist": ["::1"]})), [""]);
    assert_eq!(faults("ip-restriction", &json!({"whitelist": ["10.0.0.1", "10.0.0.0/33"]})), ["whitelist[1]"]);
    assert_eq!(faults("ip-restriction", &json!({"blacklist": []})), ["blacklist"]);
    assert_eq!(
        faults("ip-restriction", &json!({"blacklist": ["::1"], "message": "", "response_code": 600})),
        ["message", "response_code"]
    );
}

#[test]
fn behind_proxies_another_address_counts() {
    let lets_pass = |list: &str, strategy: serde_json::Value, forwarded: &str| {
        let filter = filter("ip-restriction", &json!({list: ["10.0.0.0/8"], "ip_strategy": strategy, "response_code": 401}));
        passes(filter.access(&mut request("GET", "h", "/", &[("X-Forwarded-For", forwarded)])))
    };
    assert!(lets_pass("whitelist", json!({"depth": 2}), "10.0.0.1, 192.0.2.1"));
    assert!(!lets_pass("whitelist", json!({"depth": 1}), "10.0.0.1, 192.0.2.1"));
    assert!(lets_pass("whitelist", json!({"excluded_ips": ["192.0.2.1"]}), "10.0.0.1, 192.0.2.1"));
    assert!(!lets_pass("blacklist", json!({"depth": 2}), "10.0.0.1, 192.0.2.1"));
    for list in ["whitelist", "blacklist"] {
        assert!(!lets_pass(list, json!({"depth": 3}), "10.0.0.1, 192.0.2.1"), "{list}: nobody stands there");
    }
    let config = json!({"whitelist": ["::1"], "ip_strategy": {"depth": 1, "excluded_ips": ["x"], "ipv6_subnet": 129}});
    assert_eq!(faults("ip-restriction", &config), ["ip_strategy", "ip_strategy.excluded_ips[0]", "ip_strategy.ipv6_subnet"]);
}

proptest! {
    #[test]
    fn ranges_agree_with_the_list(nets in prop::collection::vec((0u32..64, 26u8..=32), 0..8), ip in 0u32..64) {
        let nets: Vec<ipnet::IpNet> = nets.into_iter()
            .map(|(ip, length)| ipnet::Ipv4Net::new(ip.into(), length).unwrap().into())
            .collect();
        let ip = std::net::IpAddr::V4(ip.into());
        prop_assert_eq!(Ranges::new(nets.clone()).contains(ip), nets.iter().any(|net| net.contains(&ip)));
    }
}
