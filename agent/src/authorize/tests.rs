//! Stories of who may call whom.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_xds::model::{PolicyHeader, PolicyOperation, PolicyRule, PolicySource};
use proptest::prelude::*;

use super::*;

const WEB: &str = "spiffe://corp.example/ns/shop/svc/web";
const BATCH: &str = "spiffe://corp.example/ns/batch/svc/nightly";
const STRANGER: &str = "spiffe://else.example/ns/shop/svc/web";

fn policy(id: &str, action: PolicyAction, rules: Vec<PolicyRule>) -> AuthorizationPolicy {
    AuthorizationPolicy { id: id.into(), namespace: "shop".into(), service: Some("api".into()), action, dry_run: false, rules }
}

fn dry(policy: AuthorizationPolicy) -> AuthorizationPolicy {
    AuthorizationPolicy { dry_run: true, ..policy }
}

fn rule(from: PolicySource, to: PolicyOperation) -> PolicyRule {
    let to = if to == PolicyOperation::default() { vec![] } else { vec![to] };
    PolicyRule { from: vec![from], to }
}

fn ids(ids: &[&str]) -> PolicySource {
    PolicySource { identities: texts(ids), ..PolicySource::default() }
}

fn texts(texts: &[&str]) -> Vec<Arc<str>> {
    texts.iter().map(|text| Arc::from(*text)).collect()
}

fn compile(policies: &[AuthorizationPolicy]) -> Policies {
    Policies::compile(policies, Some("corp.example"), &Policies::default())
}

fn by(peer: Option<&str>) -> Caller<'_> {
    Caller { peer, address: [10, 1, 2, 3].into() }
}

/// `GET /v1/items` at `api.shop:8080` with `x-team: blue`.
fn get<'a>(path: &'a str, fields: &'a Fields) -> Called<'a> {
    Called { port: 8080, request: Some(RequestFacts { method: "GET", path, host: "API.shop:8080", fields }) }
}

fn fields() -> Fields {
    let mut fields = Fields::new();
    fields.append("X-Team", "blue");
    fields
}

const BYTES: Called<'static> = Called { port: 5432, request: None };

fn allows(policies: &Policies, caller: Option<&str>, called: &Called<'_>) -> bool {
    matches!(policies.judge(&by(caller), called), Verdict::Allowed { .. })
}

#[test]
fn without_policies_everything_is_allowed() {
    let policies = Policies::default();
    assert!(policies.is_empty() && allows(&policies, None, &BYTES));
}

#[test]
fn an_allowing_policy_lets_only_its_friends_in() {
    let fields = fields();
    let policies = compile(&[policy("friends", PolicyAction::Allow, vec![rule(ids(&[WEB]), PolicyOperation::default())])]);
    assert!(allows(&policies, Some(WEB), &get("/v1", &fields)));
    assert!(allows(&policies, Some(WEB), &BYTES));
    assert!(!allows(&policies, Some(STRANGER), &get("/v1", &fields)), "the same name in another trust domain is somebody else");
    let refused = policies.judge(&by(None), &get("/v1", &fields));
    assert_eq!(refused, Verdict::Refused(Refusal { policy: "friends".into(), rule: None }));
}

#[test]
fn an_allowing_policy_without_rules_is_a_default_deny() {
    let policies = compile(&[policy("closed", PolicyAction::Allow, vec![])]);
    assert!(!allows(&policies, Some(WEB), &BYTES));
}

#[test]
fn a_denying_policy_wins_and_is_named_with_its_rule() {
    let fields = fields();
    let admin = PolicyOperation { paths: texts(&["/admin", "/admin/*"]), ..PolicyOperation::default() };
    let policies = compile(&[
        policy("all", PolicyAction::Allow, vec![PolicyRule::default()]),
        policy("no-admin", PolicyAction::Deny, vec![rule(ids(&[BATCH]), admin.clone()), rule(ids(&[WEB]), admin)]),
    ]);
    let refused = policies.judge(&by(Some(WEB)), &get("/admin/keys", &fields));
    assert_eq!(refused, Verdict::Refused(Refusal { policy: "no-admin".into(), rule: Some(1) }));
    assert!(allows(&policies, Some(WEB), &get("/administrator", &fields)));
    assert!(!allows(&policies, Some(WEB), &BYTES), "in what is not looked into may be what is denied");
    assert!(allows(&policies, Some(STRANGER), &BYTES), "but not by those whom it is denied");
}

#[test]
fn namespaces_are_those_of_our_trust_domain() {
    let source = PolicySource { namespaces: texts(&["shop"]), ..PolicySource::default() };
    let policies = [policy("ns", PolicyAction::Allow, vec![rule(source, PolicyOperation::default())])];
    assert!(allows(&compile(&policies), Some(WEB), &BYTES));
    assert!(!allows(&compile(&policies), Some(BATCH), &BYTES));
    assert!(!allows(&compile(&policies), Some(STRANGER), &BYTES));
    let early = Policies::compile(&policies, None, &Policies::default());
    assert!(!allows(&early, Some(WEB), &BYTES), "before the trust domain is known nobody is of a namespace");
}

#[test]
fn who_has_proven_nothing_is_not_let_in_by_an_exclusion_and_is_caught_by_one() {
    let others = PolicySource { not_identities: texts(&[BATCH]), ..PolicySource::default() };
    let but_batch = rule(others, PolicyOperation::default());
    let allow = compile(&[policy("a", PolicyAction::Allow, vec![but_batch.clone()])]);
    assert!(allows(&allow, Some(WEB), &BYTES) && !allows(&allow, Some(BATCH), &BYTES) && !allows(&allow, None, &BYTES));
    let deny = compile(&[policy("d", PolicyAction::Deny, vec![but_batch])]);
    assert!(!allows(&deny, Some(WEB), &BYTES) && allows(&deny, Some(BATCH), &BYTES) && !allows(&deny, None, &BYTES));
}

#[test]
fn everything_that_a_request_says_can_be_asked_for() {
    let fields = fields();
    let matching = PolicyOperation {
        methods: texts(&["GET"]),
        paths: texts(&["/v1/*"]),
        hosts: texts(&["*.shop"]),
        ports: vec![8080],
        headers: vec![PolicyHeader { name: "x-team".into(), values: texts(&["red", "bl*"]) }],
        ..PolicyOperation::default()
    };
    let judge = |operation: PolicyOperation, path: &str| {
        let policies = compile(&[policy("p", PolicyAction::Allow, vec![rule(ids(&["spiffe://corp.example/*"]), operation)])]);
        allows(&policies, Some(WEB), &get(path, &fields))
    };
    assert!(judge(matching.clone(), "/v1/items"));
    assert!(!judge(matching.clone(), "/v2/items"));
    assert!(!judge(PolicyOperation { methods: texts(&["POST"]), ..matching.clone() }, "/v1/items"));
    assert!(!judge(PolicyOperation { hosts: texts(&["api.else"]), ..matching.clone() }, "/v1/items"));
    assert!(!judge(PolicyOperation { ports: vec![80], ..matching.clone() }, "/v1/items"));
    assert!(!judge(PolicyOperation { not_methods: texts(&["GET"]), ..matching.clone() }, "/v1/items"));
    assert!(!judge(PolicyOperation { not_paths: texts(&["/v1/items"]), ..matching.clone() }, "/v1/items"));
    let absent = vec![PolicyHeader { name: "x-none".into(), values: vec![] }];
    assert!(!judge(PolicyOperation { headers: absent, ..matching }, "/v1/items"));
}

#[test]
fn a_service_is_one_host_with_the_ending_of_the_mesh_and_without_it() {
    let fields = fields();
    let allowed = |pattern: &str, host: &'static str| {
        let operation = PolicyOperation { hosts: texts(&[pattern]), ..PolicyOperation::default() };
        let policies = compile(&[policy("p", PolicyAction::Allow, vec![rule(PolicySource::default(), operation)])]);
        let request = RequestFacts { method: "GET", path: "/", host, fields: &fields };
        allows(&policies, Some(WEB), &Called { port: 8080, request: Some(request) })
    };
    for pattern in ["api.shop", "api.shop.mesh", "API.shop.Mesh", "*.shop", "*.shop.mesh"] {
        for host in ["api.shop", "api.shop.mesh", "API.SHOP.MESH:8080"] {
            assert!(allowed(pattern, host), "{pattern} {host}");
        }
        assert!(!allowed(pattern, "api.else.mesh") && !allowed(pattern, "api.shopmesh"), "{pattern}");
    }
    assert!(allowed("*.mesh", "api.shop.mesh") && !allowed("*.mesh", "api.shop"));
}

#[test]
fn a_path_is_one_however_a_policy_writes_it() {
    let fields = fields();
    let judge = |paths: &[&str], asked: &str| {
        let to = PolicyOperation { paths: texts(paths), ..PolicyOperation::default() };
        let policies = compile(&[policy("p", PolicyAction::Deny, vec![rule(PolicySource::default(), to)])]);
        allows(&policies, Some(WEB), &get(asked, &fields))
    };
    for (written, asked) in [
        ("/caf\u{e9}", "/caf%C3%A9"),
        ("/caf%c3%a9/*", "/caf%C3%A9/x"),
        ("/a|b/*", "/a%7Cb/x"),
        ("/a%7eb", "/a~b"),
        ("/a b", "/a%20b"),
    ] {
        assert!(!judge(&[written], asked), "{written} is {asked}");
        assert!(judge(&[written], "/else"));
    }
}

#[test]
fn networks_are_those_of_the_socket() {
    let source = |cidr: &str| PolicySource { cidrs: vec![cidr.parse().unwrap()], ..PolicySource::default() };
    let judge = |cidr| {
        let policies = compile(&[policy("p", PolicyAction::Allow, vec![rule(source(cidr), PolicyOperation::default())])]);
        let mapped = Caller { peer: None, address: "::ffff:10.1.2.3".parse().unwrap() };
        allows(&policies, None, &BYTES) && policies.still_allows(&mapped, &BYTES)
    };
    assert!(judge("10.0.0.0/8") && !judge("10.2.0.0/16"));
}

#[test]
fn a_dry_run_decides_nothing_and_tells_what_it_would() {
    let policies = compile(&[
        policy("friends", PolicyAction::Allow, vec![rule(ids(&[WEB, BATCH]), PolicyOperation::default())]),
        dry(policy("fewer", PolicyAction::Deny, vec![rule(ids(&[BATCH]), PolicyOperation::default())])),
    ]);
    let told = Refusal { policy: "fewer".into(), rule: Some(0) };
    assert_eq!(policies.judge(&by(Some(BATCH)), &BYTES), Verdict::Allowed { would_refuse: Some(told) });
    assert_eq!(policies.judge(&by(Some(WEB)), &BYTES), Verdict::Allowed { would_refuse: None });
    let only_dry = compile(&[dry(policy("closed", PolicyAction::Allow, vec![]))]);
    let told = Refusal { policy: "closed".into(), rule: None };
    assert_eq!(only_dry.judge(&by(None), &BYTES), Verdict::Allowed { would_refuse: Some(told) });
    let report = only_dry.report();
    assert_eq!((report[0].refused, report[0].would_refuse), (0, 1));
}

#[test]
fn counters_go_on_over_changes() {
    let first = compile(&[policy("p", PolicyAction::Allow, vec![])]);
    first.judge(&by(None), &BYTES);
    let second = Policies::compile(&[policy("p", PolicyAction::Deny, vec![PolicyRule::default()])], None, &first);
    second.judge(&by(None), &BYTES);
    assert_eq!(second.report()[0].refused, 2);
}

proptest! {
    /// Adding a policy that denies never lets anybody in who was refused, and a dry run changes nothing.
    #[test]
    fn denying_more_allows_no_more(peer in prop::option::of(prop::sample::select(vec![WEB, BATCH, STRANGER])), ids in prop::collection::vec(prop::sample::select(vec![WEB, BATCH, "spiffe://*", "*"]), 0..3), allow: bool, dry_too: bool) {
        let base = if allow { vec![policy("a", PolicyAction::Allow, vec![rule(super::tests::ids(&[WEB]), PolicyOperation::default())])] } else { vec![] };
        let mut more = base.clone();
        let added = policy("d", PolicyAction::Deny, vec![rule(super::tests::ids(&ids), PolicyOperation::default())]);
        more.push(if dry_too { dry(added) } else { added });
        let (before, after) = (allows(&compile(&base), peer, &BYTES), allows(&compile(&more), peer, &BYTES));
        prop_assert!(before || !after);
        prop_assert!(!dry_too || before == after);
    }
}
