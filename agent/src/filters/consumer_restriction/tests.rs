//! Tests of `consumer-restriction`.

#![allow(clippy::unwrap_used)]

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, passes};
use crate::exchange::testing::{NOW_MS, at, consumer};
use crate::exchange::{ConsumerInfo, Directory, Exchange, RouteInfo, Routed};

struct Routes(RouteInfo);

impl Routed for Routes {
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

impl Directory for Routes {
    fn find_credential(&self, _plugin: &str, _value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        None
    }
    fn consumer(&self, _username: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }
    fn route(&self, _number: u32) -> Option<&dyn Routed> {
        Some(self)
    }
}

fn ask(who: Option<&str>, method: &str) -> Exchange {
    let routes = Routes(RouteInfo { id: "r1".into(), service_id: "s1".into(), ..RouteInfo::default() });
    let mut x = at(NOW_MS, method, "h", "/", &[], Rc::new(routes));
    x.route = Some(0);
    x.consumer = who.map(|name| Arc::new(consumer(name)));
    x
}

fn admits(config: &Value, who: &str, method: &str) -> bool {
    passes(filter("consumer-restriction", config).access(&mut ask(Some(who), method)))
}

fn refused(config: &Value, who: Option<&str>) -> (u16, String) {
    let refusal = answer(filter("consumer-restriction", config).access(&mut ask(who, "GET")));
    (refusal.head.status, String::from_utf8(refusal.body.to_vec()).unwrap())
}

#[test]
fn lists_let_in_and_keep_out() {
    let white = json!({"whitelist": ["jack", "rose"]});
    assert!(admits(&white, "jack", "GET") && admits(&white, "rose", "GET") && !admits(&white, "tom", "GET"));
    let black = json!({"blacklist": ["jack"]});
    assert!(!admits(&black, "jack", "GET") && admits(&black, "tom", "GET"));
    let both = json!({"blacklist": ["jack"], "whitelist": ["jack", "rose"]});
    assert!(!admits(&both, "jack", "GET") && admits(&both, "rose", "GET") && !admits(&both, "tom", "GET"));
}

#[test]
fn methods_are_allowed_one_by_one() {
    let methods = json!({"allowed_by_methods": [{"user": "jack", "methods": ["POST"]}, {"user": "jack", "methods": ["GET"]}]});
    assert!(admits(&methods, "jack", "POST") && !admits(&methods, "jack", "GET") && admits(&methods, "tom", "GET"));
    let with_white = json!({"whitelist": ["rose"], "allowed_by_methods": [{"user": "jack", "methods": ["POST", "PURGE"]}]});
    assert!(admits(&with_white, "rose", "GET") && admits(&with_white, "jack", "PURGE"));
    assert!(!admits(&with_white, "jack", "GET") && !admits(&with_white, "tom", "GET"));
}

#[test]
fn groups_services_and_routes_are_restricted_too() {
    for (kind, own) in [("consumer_group_id", "staff"), ("service_id", "s1"), ("route_id", "r1")] {
        assert!(admits(&json!({"type": kind, "whitelist": [own]}), "jack", "GET"), "{kind}");
        assert!(!admits(&json!({"type": kind, "blacklist": [own]}), "jack", "GET"), "{kind}");
    }
    let mut x = ask(None, "GET");
    x.route = None;
    assert_eq!(
        answer(filter("consumer-restriction", &json!({"type": "route_id", "whitelist": ["r1"]})).access(&mut x)).head.status,
        401
    );
}

#[test]
fn refusals_say_what_is_forbidden() {
    let message = |text: &str| format!("{{\"message\":\"{text}\"}}\n");
    let black = json!({"blacklist": ["jack"]});
    assert_eq!(refused(&black, Some("jack")), (403, message("The consumer_name is forbidden.")));
    let unknown = message("The request is rejected, please check the consumer_name for this request");
    assert_eq!(refused(&black, None), (401, unknown));
    let own = json!({"blacklist": ["jack"], "rejected_code": 418, "rejected_msg": "no tea"});
    assert_eq!(refused(&own, Some("jack")), (418, message("no tea")));
}

#[test]
fn wrong_configurations_are_refused() {
    assert_eq!(faults("consumer-restriction", &json!({})), [""]);
    assert_eq!(faults("consumer-restriction", &json!({"type": "x", "whitelist": ["a"]})), ["type"]);
    let config =
        json!({"whitelist": [], "blacklist": [], "allowed_by_methods": [{"user": "a", "methods": []}], "rejected_code": 100});
    assert_eq!(
        faults("consumer-restriction", &config),
        ["whitelist", "blacklist", "allowed_by_methods[0].methods", "rejected_code"]
    );
    assert_eq!(faults("consumer-restriction", &json!({"allowed_by_methods": []})), ["allowed_by_methods"]);
}
