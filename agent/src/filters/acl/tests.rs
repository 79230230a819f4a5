//! Tests of `acl`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::identity::EXTERNAL_USER;
use super::super::testing::{answer, faults, filter, passes};
use crate::exchange::testing::get;
use crate::exchange::{ConsumerInfo, Exchange};

fn consumer(labels: &[(&str, &str)]) -> Exchange {
    let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let mut x = get("h", "/");
    x.consumer = Some(Arc::new(ConsumerInfo::new("jack".into(), "".into(), "".into(), labels, false)));
    x
}

fn external(user: Value) -> Exchange {
    let mut x = get("h", "/");
    x.put(EXTERNAL_USER, user);
    x
}

fn admits(config: &Value, mut x: Exchange) -> bool {
    passes(filter("acl", config).access(&mut x))
}

#[test]
fn labels_of_consumers_let_in_and_keep_out() {
    let allow = json!({"allow_labels": {"team": ["platform", "sales"], "role": ["admin"]}});
    for labels in [&[("team", "platform")][..], &[("role", "admin")], &[("team", "x, sales")], &[("team", "[\"x\",\"sales\"]")]] {
        assert!(admits(&allow, consumer(labels)), "{labels:?}");
    }
    for labels in [&[][..], &[("team", "x")], &[("other", "platform")], &[("team", "[sales")], &[("team", "sales2")]] {
        assert!(!admits(&allow, consumer(labels)), "{labels:?}");
    }
    let both = json!({"allow_labels": {"team": ["platform"]}, "deny_labels": {"role": ["guest"]}});
    assert!(admits(&both, consumer(&[("team", "platform")])));
    assert!(!admits(&both, consumer(&[("team", "platform"), ("role", "guest")])));
    assert!(admits(&json!({"deny_labels": {"role": ["guest"]}}), consumer(&[])));
}

#[test]
fn what_is_known_of_external_users_counts_as_a_label() {
    let told = json!({"allow_labels": {"groups": ["admin"]}});
    for groups in [json!(["x", "admin"]), json!("admin"), json!("x, admin"), json!("[\"admin\"]")] {
        assert!(admits(&told, external(json!({ "groups": groups }))), "{groups}");
    }
    for groups in [json!(["x"]), json!(5), json!(null), json!("administrator")] {
        assert!(!admits(&told, external(json!({ "groups": groups }))), "{groups}");
    }
    let with = |parser: &str, separator: Value| {
        json!({"allow_labels": {"role": ["a"]}, "external_user_label_field": "$.realm.roles", "external_user_label_field_key": "role",
               "external_user_label_field_parser": parser, "external_user_label_field_separator": separator})
    };
    let roles = |value: Value| external(json!({"realm": {"roles": value}}));
    assert!(admits(&with("segmented_text", json!("[|]")), roles(json!("b | a"))));
    assert!(!admits(&with("segmented_text", json!("[|]")), roles(json!(["a"]))));
    assert!(admits(&with("table", json!(null)), roles(json!(["a"]))) && !admits(&with("table", json!(null)), roles(json!("a"))));
    assert!(
        admits(&with("json", json!(null)), roles(json!("[\"a\"]"))) && !admits(&with("json", json!(null)), roles(json!("a")))
    );
    let each = json!({"deny_labels": {"orgs[*].id": ["evil"]}, "external_user_label_field": "orgs[*].id"});
    assert!(admits(&each, external(json!({"orgs": [{"id": "good"}]}))));
    assert!(!admits(&each, external(json!({"orgs": [{"id": "good"}, {"id": "evil"}]}))));
}

#[test]
fn refusals_have_status_and_message() {
    let refused = |config: Value, mut x: Exchange| {
        let refusal = answer(filter("acl", &config).access(&mut x));
        (refusal.head.status, String::from_utf8(refusal.body.to_vec()).unwrap())
    };
    let labels = json!({"team": ["x"]});
    let usual = (403, "{\"message\":\"The consumer is forbidden.\"}\n".to_owned());
    assert_eq!(refused(json!({"allow_labels": labels}), consumer(&[])), usual);
    let own = json!({"allow_labels": labels, "rejected_code": 404, "rejected_msg": "nothing here"});
    assert_eq!(refused(own.clone(), consumer(&[])), (404, "{\"message\":\"nothing here\"}\n".to_owned()));
    assert_eq!(refused(own, get("h", "/")), (401, "{\"message\":\"Missing authentication.\"}\n".to_owned()));
}

#[test]
fn wrong_configurations_are_refused() {
    assert_eq!(faults("acl", &json!({})), [""]);
    let config = json!({"allow_labels": {}, "deny_labels": {"a": []}, "external_user_label_field": "a..b",
                        "external_user_label_field_parser": "segmented_text", "rejected_code": 1});
    let expected =
        ["allow_labels", "deny_labels.a", "external_user_label_field", "external_user_label_field_separator", "rejected_code"];
    assert_eq!(faults("acl", &config), expected);
    let config = json!({"allow_labels": {"a": ["b"]}, "external_user_label_field_parser": "segmented_text", "external_user_label_field_separator": "("});
    assert_eq!(faults("acl", &config), ["external_user_label_field_separator"]);
    assert_eq!(
        faults("acl", &json!({"allow_labels": {"a": ["b"]}, "external_user_label_field_parser": "xml"})),
        ["external_user_label_field_parser"]
    );
}
