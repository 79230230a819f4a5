//! Tests of `ua-restriction`.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, passes};
use crate::exchange::testing::request;

fn lets_pass(config: &Value, agents: &[&str]) -> bool {
    let fields: Vec<_> = agents.iter().map(|agent| ("User-Agent", *agent)).collect();
    passes(filter("ua-restriction", config).access(&mut request("GET", "h", "/", &fields)))
}

#[test]
fn a_list_of_patterns_lets_in_or_keeps_out() {
    let allow = json!({"allowlist": ["^good-bot/[0-9]+", "Firefox"]});
    for (agents, expected) in [
        (&["good-bot/1.0"][..], true),
        (&["Mozilla/5.0 Firefox/130"], true),
        (&["a good-bot/1"], false),
        (&["GOOD-BOT/1"], false),
        (&["Firefox", "curl"], false),
        (&[""], false),
        (&[], false),
    ] {
        assert_eq!(lets_pass(&allow, agents), expected, "{agents:?}");
    }
    let deny = json!({"denylist": ["(Twitterspider)/(\\d+)\\.(\\d+)", "(?i)curl"]});
    for (agents, expected) in [
        (&["Twitterspider/2.0"][..], false),
        (&["CURL/8"], false),
        (&["Firefox"], true),
        (&["Firefox", "curl/8"], false),
        (&[], false),
    ] {
        assert_eq!(lets_pass(&deny, agents), expected, "{agents:?}");
    }
}

#[test]
fn those_without_a_name_pass_on_demand() {
    assert!(lets_pass(&json!({"allowlist": ["x"], "bypass_missing": true}), &[]));
    assert!(lets_pass(&json!({"denylist": ["x"], "bypass_missing": true}), &[]));
    assert!(!lets_pass(&json!({"denylist": ["x"], "bypass_missing": true}), &["x"]));
}

#[test]
fn the_refusal_reads_as_it_should() {
    for (config, expected) in [
        (json!({"denylist": ["x"]}), "{\"message\":\"Not allowed\"}\n"),
        (json!({"denylist": ["x"], "message": "go \"away\""}), "{\"message\":\"go \\\"away\\\"\"}\n"),
    ] {
        let refusal = answer(filter("ua-restriction", &config).access(&mut request("GET", "h", "/", &[("user-agent", "x")])));
        assert_eq!((refusal.head.status, std::str::from_utf8(&refusal.body).unwrap()), (403, expected));
    }
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("ua-restriction", &json!({})), [""]);
    assert_eq!(faults("ua-restriction", &json!({"allowlist": ["a"], "denylist": ["a"]})), [""]);
    assert_eq!(faults("ua-restriction", &json!({"allowlist": []})), ["allowlist"]);
    assert_eq!(faults("ua-restriction", &json!({"denylist": ["a", "", "("]})), ["denylist[1]", "denylist[2]"]);
    assert_eq!(faults("ua-restriction", &json!({"denylist": ["(?=a)"], "message": ""})), ["denylist[0]", "message"]);
}
