//! Tests of `uri-blocker`.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, passes};
use crate::exchange::testing::get;

fn lets_pass(config: &Value, target: &str) -> bool {
    passes(filter("uri-blocker", config).rewrite(&mut get("h", target)))
}

#[test]
fn patterns_are_found_in_path_and_query() {
    let config = json!({"block_rules": ["root.exe", "root.m+", "^/admin/", r"x\?a=1$", "select.*from"]});
    for (target, expected) in [
        ("/root.exe?a=a", false),
        ("/a?f=root.mmm", false),
        ("/admin/x", false),
        ("/x/admin/x", true),
        ("/x?a=1", false),
        ("/x?a=12", true),
        ("/ROOT.EXE", true),
        ("/?q=select%20a%20from", false),
        ("/?q=%73elect%20a%20fro%6d", false),
        ("/?q=%zz", true),
        ("/", true),
    ] {
        assert_eq!(lets_pass(&config, target), expected, "{target}");
    }
    for target in ["/<script>", "/%3Cscript%3e", "/?a=<script>", "/?a=%3cscript>"] {
        assert!(!lets_pass(&json!({"block_rules": ["<script>"]}), target), "{target}");
    }
    assert!(!lets_pass(&json!({"block_rules": ["root.exe"], "case_insensitive": true}), "/ROOT.EXE"));
    assert!(lets_pass(&json!({"block_rules": []}), "/root.exe"));
}

#[test]
fn a_target_of_any_length_is_looked_at() {
    let config = json!({"block_rules": ["needle"]});
    assert!(!lets_pass(&config, &format!("/?{}needle", "a".repeat(10_000))));
    assert!(!lets_pass(&config, &format!("/?{}n%65edle", "a".repeat(10_000))));
}

#[test]
fn the_refusal_is_as_configured() {
    let told = json!({"block_rules": ["x"], "rejected_code": 501, "rejected_msg": "access is not allowed"});
    for (config, status, body) in
        [(json!({"block_rules": ["x"]}), 403, ""), (told, 501, "{\"error_msg\":\"access is not allowed\"}\n")]
    {
        let refusal = answer(filter("uri-blocker", &config).rewrite(&mut get("h", "/x")));
        assert_eq!((refusal.head.status, std::str::from_utf8(&refusal.body).unwrap()), (status, body));
    }
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("uri-blocker", &json!({})), [""]);
    assert_eq!(faults("uri-blocker", &json!({"block_rules": ["a", "(?<=a)"]})), ["block_rules[1]"]);
    let config = json!({"block_rules": [""], "rejected_code": 99, "rejected_msg": ""});
    assert_eq!(faults("uri-blocker", &config), ["block_rules[0]", "rejected_code", "rejected_msg"]);
}
