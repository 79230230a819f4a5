//! Tests of `real-ip`.

use serde_json::{Value, json};

use super::super::testing::{faults, filter, passes};
use crate::exchange::Variable;
use crate::exchange::testing::{get, request};

/// The address of the client and that of the connection, as variables tell them.
fn seen(config: &Value, target: &str, fields: &[(&str, &str)]) -> [String; 4] {
    let mut x = request("GET", "h", target, fields);
    assert!(passes(filter("real-ip", config).rewrite(&mut x)));
    ["remote_addr", "remote_port", "realip_remote_addr", "realip_remote_port"]
        .map(|name| Variable::new(name).get(&x).unwrap_or_default().into_owned())
}

fn client(config: &Value, target: &str, fields: &[(&str, &str)]) -> String {
    let [address, port, peer, peer_port] = seen(config, target, fields);
    assert_eq!((peer.as_str(), peer_port.as_str()), ("192.0.2.7", "4711"), "the connection stays what it is");
    format!("{address} {port}")
}

#[test]
fn a_variable_says_who_the_client_is() {
    let arg = json!({"source": "arg_realip"});
    for (target, expected) in [
        ("/?realip=203.0.113.9", "203.0.113.9 0"),
        ("/?realip=203.0.113.9:80", "203.0.113.9 80"),
        ("/?realip=[2001:db8::1]:80", "2001:db8::1 80"),
        ("/?realip=2001:db8::1", "2001:db8::1 0"),
        ("/?realip=nobody", "192.0.2.7 4711"),
        ("/?realip=1.2.3.4:99999", "192.0.2.7 4711"),
        ("/?realip=", "192.0.2.7 4711"),
        ("/", "192.0.2.7 4711"),
    ] {
        assert_eq!(client(&arg, target, &[]), expected, "{target}");
    }
    assert_eq!(client(&json!({"source": "http_x_real_ip"}), "/", &[("X-Real-IP", "203.0.113.9")]), "203.0.113.9 0");
}

#[test]
fn only_those_are_believed_who_are_trusted() {
    let config = |trusted: &[&str]| json!({"source": "arg_realip", "trusted_addresses": trusted});
    assert_eq!(client(&config(&["192.0.2.0/24"]), "/?realip=1.2.3.4", &[]), "1.2.3.4 0");
    assert_eq!(client(&config(&["127.0.0.1", "::1"]), "/?realip=1.2.3.4", &[]), "192.0.2.7 4711");
}

#[test]
fn of_many_hops_the_last_counts_or_the_last_that_is_not_trusted() {
    let config = |recursive: bool| json!({"source": "http_x_forwarded_for", "recursive": recursive, "trusted_addresses": ["192.0.2.0/24", "10.0.0.0/8"]});
    for (fields, last, untrusted) in [
        (&["203.0.113.9"][..], "203.0.113.9", "203.0.113.9"),
        (&["6.6.6.6, 203.0.113.9, 10.0.0.1"], "10.0.0.1", "203.0.113.9"),
        (&["203.0.113.9", "10.0.0.2,10.0.0.1"], "10.0.0.1", "203.0.113.9"),
        (&["10.0.0.2, 10.0.0.1"], "10.0.0.1", "10.0.0.2"),
        (&["6.6.6.6, junk, 10.0.0.1"], "10.0.0.1", "10.0.0.1"),
        (&["6.6.6.6, junk"], "192.0.2.7", "192.0.2.7"),
        (&[], "192.0.2.7", "192.0.2.7"),
    ] {
        let fields: Vec<_> = fields.iter().map(|value| ("X-Forwarded-For", *value)).collect();
        for (recursive, expected) in [(false, last), (true, untrusted)] {
            let found = client(&config(recursive), "/", &fields);
            assert_eq!(found.split(' ').next(), Some(expected), "{fields:?} {recursive}");
        }
    }
    let everybody = json!({"source": "http_x_forwarded_for", "recursive": true});
    assert_eq!(client(&everybody, "/", &[("X-Forwarded-For", "1.1.1.1, 2.2.2.2")]), "2.2.2.2 0");
}

#[test]
fn what_comes_later_sees_the_client() {
    let mut x = get("h", "/?realip=203.0.113.9");
    assert!(passes(filter("real-ip", &json!({"source": "arg_realip"})).rewrite(&mut x)));
    assert!(passes(filter("ip-restriction", &json!({"whitelist": ["203.0.113.9"]})).access(&mut x)));
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("real-ip", &json!({})), [""]);
    assert_eq!(faults("real-ip", &json!({"source": "", "trusted_addresses": []})), ["source", "trusted_addresses"]);
    assert_eq!(faults("real-ip", &json!({"source": "arg_x", "trusted_addresses": ["::1", "a"]})), ["trusted_addresses[1]"]);
}
