//! Tests of `authz-casbin`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_xds::catalog::{Catalog, Place};
use serde_json::{Value, json};

use super::super::testing::{OUTBOUND, answer, faults, filter, filter_in, passes};
use super::super::{BuildContext, Keep, Registry, registry};
use super::policy::Policy;
use crate::exchange::testing::request;

const MODEL: &str = "
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = (g(r.sub, p.sub) || keyMatch(r.sub, p.sub)) && keyMatch(r.obj, p.obj) && keyMatch(r.act, p.act)
";

const POLICY: &str = "
p, *, /, GET
p, admin, *, *
g, alice, admin
";

fn texts() -> Value {
    json!({"model": MODEL, "policy": POLICY, "username": "X-User"})
}

fn asks(method: &str, path: &str, user: Option<&str>) -> bool {
    asks_of(&texts(), None, method, path, user)
}

fn asks_of(config: &Value, metadata: Option<&Value>, method: &str, path: &str, user: Option<&str>) -> bool {
    let fields: Vec<_> = user.iter().map(|user| ("x-user", *user)).collect();
    let mut x = request(method, "h", path, &fields);
    let flow = filter_in("authz-casbin", config, metadata, &Keep::default()).rewrite(&mut x);
    if passes_ref(&flow) {
        return true;
    }
    let denied = answer(flow);
    assert_eq!((denied.head.status, &denied.body[..]), (403, &b"{\"message\":\"Access Denied\"}\n"[..]));
    false
}

fn passes_ref(flow: &super::super::Flow) -> bool {
    matches!(flow, super::super::Flow::Continue)
}

#[test]
fn subject_path_and_method_decide() {
    assert!(asks("GET", "/", None) && asks("GET", "/", Some("bob")));
    assert!(!asks("GET", "/res", Some("bob")) && !asks("POST", "/", None));
    assert!(asks("GET", "/res", Some("alice")) && asks("DELETE", "/res", Some("admin")));
    assert!(!asks("GET", "/res", Some("")) && !asks("GET", "/res", None));
}

#[test]
fn models_come_from_files_and_metadata_too() {
    let folder = std::env::temp_dir().join(format!("heddle-casbin-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let [model, policy] = ["model.conf", "policy.csv"].map(|name| folder.join(name));
    std::fs::write(&model, MODEL).unwrap();
    std::fs::write(&policy, POLICY).unwrap();
    let files = json!({"model_path": model, "policy_path": policy, "username": "X-User"});
    assert!(asks_of(&files, None, "PUT", "/res", Some("alice")) && !asks_of(&files, None, "PUT", "/res", Some("bob")));
    let metadata = json!({"model": MODEL, "policy": POLICY});
    let bare = json!({"username": "X-User"});
    assert!(asks_of(&bare, Some(&metadata), "PUT", "/res", Some("alice")));
    assert!(!asks_of(&bare, Some(&metadata), "PUT", "/res", Some("bob")));
    let build = |config: &Value| {
        let keep = Keep::default();
        let context = BuildContext::new("route/r1", None, &keep, &OUTBOUND);
        (registry::find("authz-casbin").unwrap().build)(config, &context).err().unwrap().remove(0)
    };
    assert!(build(&bare).message.contains("plugin_metadata/authz-casbin"));
    std::fs::write(&policy, "p, alice\n").unwrap();
    assert_eq!(build(&files).path, "model_path", "rules of another length");
    std::fs::remove_dir_all(&folder).unwrap();
    let fault = build(&files);
    assert!(fault.path == "model_path" && fault.message.contains("host of the data plane"), "{fault:?}");
}

#[test]
fn wrong_texts_are_told_before_they_are_used() {
    let with = |model: &str, policy: &str| faults("authz-casbin", &json!({"model": model, "policy": policy, "username": "u"}));
    assert_eq!(with("nonsense", ""), ["model"]);
    assert_eq!(with(&MODEL.replace("r = sub, obj, act", "r = sub, obj"), POLICY), ["model"]);
    assert_eq!(with(&MODEL.replace("keyMatch(r.act", "nothing(r.act"), POLICY), ["model"]);
    assert_eq!(with(&MODEL.replace("(g(r.sub", "((g(r.sub"), POLICY), ["policy"]);
    assert_eq!(with(MODEL, "p, alice, /res"), ["model"]);
    assert_eq!(with(MODEL, &"p, a, b, c\n".repeat(1001)), ["policy"]);
    assert_eq!(with(&"#".repeat(70_000), ""), ["model"]);
    for call in ["eval (p.sub)", "keyGet2(r.obj, p.obj, p.act) == r.sub"] {
        assert_eq!(with(&MODEL.replace("m = ", &format!("m = {call} && ")), POLICY), ["model"], "{call}");
    }
    for half in
        [json!({"model": MODEL}), json!({"policy": POLICY}), json!({"model": MODEL, "policy": POLICY, "model_path": "/x"})]
    {
        let mut config = half;
        config["username"] = json!("u");
        assert_eq!(faults("authz-casbin", &config), [""], "{config}");
    }
    assert_eq!(faults("authz-casbin", &json!({"username": "a b"})), ["username"]);
    assert_eq!(faults("authz-casbin", &json!({})), [""]);
    let registry = Registry::default();
    assert!(registry.check("authz-casbin", Place::Metadata, &json!({"model": MODEL, "policy": POLICY})).is_ok());
    assert!(registry.check("authz-casbin", Place::Metadata, &json!({"model": "x", "policy": ""})).is_err());
    assert!(registry.check("authz-casbin", Place::Consumer, &json!({})).is_err());
}

#[test]
fn a_subject_that_is_no_text_may_nothing() {
    let filter = filter("authz-casbin", &texts());
    let mut x = request("GET", "h", "/", &[]);
    x.request.fields.append("X-User", b"\xff");
    assert!(!passes(filter.rewrite(&mut x)));
}

#[test]
fn a_pattern_that_is_none_denies_whatever_else_is_said() {
    let start = MODEL.find("[policy_effect]").unwrap();
    let model = format!(
        "{}[policy_effect]\ne = !some(where (p.eft == deny))\n[matchers]\nm = r.sub == p.sub && regexMatch(r.obj, p.obj)\n",
        MODEL[..start].replace("p = sub, obj, act", "p = sub, obj, act, eft")
    );
    let policy = Policy::compile(&model, "p, ann, (, GET, deny\np, bob, ^/secret, GET, deny\n").unwrap();
    assert!(policy.allows("ann", "/x", "GET").is_err());
    assert_eq!((policy.allows("bob", "/secret", "GET"), policy.allows("bob", "/x", "GET")), (Ok(false), Ok(true)));
    let policy = Policy::compile(MODEL, "p, a\u{e9}*, /\u{e9}*, GET").unwrap();
    assert_eq!(policy.allows("a\u{ea}", "/\u{ea}", "GET"), Ok(false), "no text is cut amid a character");
}

/// Prints what a request costs; run it alone to see: `cargo test -p heddle-agent --release -- --nocapture cost_of_rules`.
#[test]
fn the_cost_of_rules_is_bounded_by_their_number() {
    for (name, matcher) in [
        ("equal", "r.sub == p.sub && r.obj == p.obj && r.act == p.act"),
        ("keyMatch", "r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act"),
        ("all keyMatch2", "keyMatch2(r.obj, p.obj) && r.sub == p.sub"),
        ("all regexMatch", "regexMatch(r.obj, p.obj) && r.sub == p.sub"),
    ] {
        let start = MODEL.find("m = ").unwrap();
        let model = format!("{}m = {matcher}\n", &MODEL[..start]);
        let rules: String = (0..1000).map(|n| format!("p, user{n}, /res/{n}/x, GET\n")).collect();
        let policy = Policy::compile(&model, &rules).unwrap();
        let began = heddle_node::clock::now();
        assert_eq!(policy.allows("user999", "/res/999/x", "GET"), Ok(true));
        println!("{name}: {:?} for 1000 rules", heddle_node::clock::now() - began);
    }
}
