//! Tests of chains: order, merging, conditions.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use heddle_xds::model::{GlobalRule, PluginConf, PluginOrigin};
use serde_json::{Value, json};

use super::super::testing::{OUTBOUND, REFERENCES, answer, settled};
use super::super::{Keep, WithBody};
use super::*;
use crate::exchange::testing::{get, request};
use crate::outbound::Outbound;
use crate::secrets::References;

fn conf(origin: &str, name: &str, config: Value) -> PluginConf {
    PluginConf { name: name.into(), config: Arc::new(config), origin: PluginOrigin(origin.into()) }
}

fn parts(keep: &Keep) -> Parts<'_> {
    Parts { metadata: &|_| None, keep, outbound: &OUTBOUND, references: &REFERENCES }
}

fn chain(plugins: &[(&str, Value)]) -> Chain {
    let plugins: Vec<_> = plugins.iter().map(|(name, config)| conf("route/r1", name, config.clone())).collect();
    Chain::compile(&plugins, &parts(&Keep::default())).unwrap()
}

fn order(chain: &Chain) -> Vec<&str> {
    chain.describe().map(|(name, _, _)| name).collect()
}

/// The result of a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("no filter of these tests waits"),
    }
}

/// Faults are logged by the agent, told to the control plane and shown by its API.
#[tokio::test]
async fn faults_never_tell_a_secret() {
    let environment = |name: &str| (name == "SECRET").then(|| "hunter2 \"(*".to_owned());
    let references = References::new(Arc::new(environment), "".into(), Outbound::default());
    let config = json!({"a": ["$env://SECRET"]});
    references.keep().unwrap().ready(crate::secrets::wanted(&config)).await;
    let keep = Keep::default();
    let parts = Parts { references: &references, ..parts(&keep) };
    let secret = "$env://SECRET";
    for (name, config, path) in [
        ("ip-restriction", json!({"whitelist": ["10.0.0.1", secret]}), "plugins.ip-restriction.whitelist[1]"),
        ("real-ip", json!({"source": "arg_ip", "trusted_addresses": [secret]}), "plugins.real-ip.trusted_addresses[0]"),
        ("proxy-rewrite", json!({"uri": secret}), "plugins.proxy-rewrite.uri"),
        ("uri-blocker", json!({"block_rules": [secret]}), "plugins.uri-blocker.block_rules[0]"),
        ("cors", json!({"allow_origins": secret}), "plugins.cors.allow_origins"),
        (
            "openid-connect",
            json!({"client_id": "a", "discovery": secret, "session": {"secret": "0123456789abcdef"}}),
            "plugins.openid-connect.discovery",
        ),
        ("ip-restriction", json!({"whitelist": ["$env://NONE"]}), "plugins.ip-restriction.whitelist[0]"),
    ] {
        let faults = Chain::compile(&[conf("route/r1", name, config)], &parts).unwrap_err();
        let hushed = faults.iter().any(|fault| fault.path == path && fault.message.contains("stands for"));
        let told = faults.iter().any(|fault| ["hunter2", "(*", "unresolved"].iter().any(|part| fault.message.contains(part)));
        assert!(hushed && !told, "{faults:?}");
    }
    let plain = Chain::compile(&[conf("route/r1", "ip-restriction", json!({"whitelist": ["x"]}))], &parts).unwrap_err();
    assert!(plain[0].message.contains("got \"x\""), "what is no secret is told");
}

#[test]
fn filters_run_by_priority_and_meta_changes_it() {
    let deny = json!({"blacklist": ["0.0.0.0/0"]});
    let chain = chain(&[
        ("prometheus", json!({})),
        ("ip-restriction", deny),
        ("request-id", json!({"_meta": {"priority": -1}})),
        ("key-auth", json!({"_meta": {"disable": true}})),
    ]);
    assert_eq!(order(&chain), ["ip-restriction", "prometheus", "request-id"]);
    assert!(chain.has(Phases::REWRITE) && chain.has(Phases::ACCESS) && !chain.has(Phases::LOG) && !chain.is_empty());
    let mut x = get("h", "/");
    assert!(now(chain.rewrite(&mut x)).is_none());
    assert!(x.request.fields.get("x-request-id").is_some());
    assert_eq!(now(chain.access(&mut x)).unwrap().head.status, 403);
    let mut head = ResponseHead::new(403);
    chain.response_head(&mut x, &mut head);
    assert!(head.fields.get("x-request-id").is_some());
    chain.log(&x);
}

#[test]
fn a_condition_is_evaluated_once_per_request() {
    let chain = chain(&[("request-id", json!({"_meta": {"filter": [["http_x_go", "==", "1"]]}}))]);
    let mut x = request("GET", "h", "/", &[("x-go", "1")]);
    assert!(now(chain.rewrite(&mut x)).is_none());
    x.request.fields.remove("x-go");
    let mut head = ResponseHead::new(200);
    chain.response_head(&mut x, &mut head);
    assert!(head.fields.get("x-request-id").is_some(), "the verdict of the first phase holds");

    let mut x = get("h", "/");
    assert!(now(chain.rewrite(&mut x)).is_none());
    assert!(x.request.fields.get("x-request-id").is_none());
}

#[test]
fn an_error_response_replaces_the_body_of_refusals() {
    for (body, expected, content_type) in
        [(json!("no"), "no", "text/plain; charset=utf-8"), (json!({"code": 7}), "{\"code\":7}", "application/json")]
    {
        let chain = chain(&[("ip-restriction", json!({"blacklist": ["0.0.0.0/0"], "_meta": {"error_response": body}}))]);
        let answer = now(chain.access(&mut get("h", "/"))).unwrap();
        assert_eq!(answer.body, expected);
        assert_eq!(answer.head.fields.get_all("content-type").collect::<Vec<_>>(), [content_type.as_bytes()]);
    }
}

#[test]
fn a_consumers_plugins_replace_the_routes() {
    let route =
        chain(&[("ip-restriction", json!({"blacklist": ["0.0.0.0/0"]})), ("key-auth", json!({})), ("prometheus", json!({}))]);
    let consumer = chain(&[
        ("ip-restriction", json!({"whitelist": ["0.0.0.0/0"]})),
        ("request-id", json!({})),
        ("key-auth", json!({})),
        ("prometheus", json!({"_meta": {"disable": true}})),
    ]);
    let merged = route.with_consumer(&consumer);
    assert_eq!(order(&merged), ["request-id", "ip-restriction", "key-auth"]);
    let mut x = get("h", "/");
    assert!(now(merged.rewrite_added(&mut x)).is_none(), "authentication does not run again");
    assert!(x.request.fields.get("x-request-id").is_some());
    assert!(now(merged.access(&mut x)).is_none());
    assert!(now(route.rewrite_added(&mut get("h", "/"))).is_none());
}

#[test]
fn global_rules_are_fused_and_yield_where_they_should() {
    let rule = |id: &str, plugins| GlobalRule { id: id.into(), plugins };
    let first = rule("a", vec![conf("global_rule/a", "prometheus", json!({})), conf("global_rule/a", "request-id", json!({}))]);
    let second = rule("b", vec![conf("global_rule/b", "prometheus", json!({"prefer_name": true}))]);
    let (global, doubles) = Chain::fuse(&[&second, &first], &parts(&Keep::default())).unwrap();
    let global = Arc::new(global);
    assert_eq!(
        global.describe().collect::<Vec<_>>(),
        [("request-id", 12015, "global_rule/a"), ("prometheus", 500, "global_rule/a")]
    );
    assert_eq!(doubles[0].path, "plugins.prometheus");
    assert!(doubles[0].message.contains("global_rule/b"));

    let with = chain(&[("prometheus", json!({}))]);
    assert_eq!(order(&global.yielding_to(&with)), ["request-id"]);
    assert!(Arc::ptr_eq(&global.yielding_to(&Chain::default()), &global));
}

#[test]
fn one_bad_configuration_fails_the_whole_and_all_faults_are_told() {
    let plugins = [
        conf("r", "request-id", json!({"x": 1})),
        conf("r", "nope", json!({})),
        conf("r", "key-auth", json!({"_meta": {"filter": [1]}})),
    ];
    let faults = Chain::compile(&plugins, &parts(&Keep::default())).unwrap_err();
    let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["plugins.request-id", "plugins.nope", "plugins.key-auth._meta.filter[0]"]);
}

/// Wants a body of at most three bytes, and puts another answer in the place of failures.
struct Greedy;

impl Filter for Greedy {
    fn phases(&self) -> Phases {
        Phases::ACCESS.and(Phases::AFTER_PROXY)
    }

    fn access(&self, _x: &mut Exchange) -> Flow {
        let then: WithBody = Box::new(|x, bytes| {
            assert_eq!(bytes, "abc");
            x.body = Body::from(Bytes::from_static(b"other"));
            Flow::Continue
        });
        Flow::Body { limit: 3, then }
    }

    fn after_proxy(&self, _x: &mut Exchange, head: &mut ResponseHead, body: &mut Body) -> Flow {
        match head.status {
            500.. => Flow::Wait(Box::pin(async {
                let resume: super::super::Resume =
                    Box::new(|_| Flow::Answer(Box::new(Answer::empty(418, crate::exchange::Reason::Answered))));
                resume
            })),
            _ => {
                *body = Body::Empty;
                Flow::Continue
            }
        }
    }
}

fn greedy() -> Chain {
    let (name, origin) = ("greedy".into(), PluginOrigin("route/r1".into()));
    let step = Step {
        auth: false,
        wants_content: false,
        name,
        origin,
        priority: 1,
        filter: Arc::new(Greedy),
        own: true,
        condition: None,
        error_body: None,
        prefer_route: false,
    };
    Chain::of_steps(vec![Arc::new(step)], Vec::new(), &[])
}

#[tokio::test]
async fn a_filter_gets_the_whole_body_and_may_replace_it() {
    let mut x = get("h", "/");
    x.body = Body::from(Bytes::from_static(b"abc"));
    assert!(greedy().access(&mut x).await.is_none());
    assert_eq!(x.read_body(9).await.unwrap(), "other");
    let refusal = greedy().access(&mut x).await.unwrap();
    assert_eq!(refusal.head.status, 413);
    let flow = Greedy.access(&mut x);
    assert_eq!(answer(settled(flow, &mut x).await).head.status, 413);
}

#[tokio::test]
async fn an_answer_may_be_replaced_after_waiting() {
    let (mut x, chain) = (get("h", "/"), greedy());
    let mut body = Body::from(Bytes::from_static(b"abc"));
    assert!(chain.after_proxy(&mut x, &mut ResponseHead::new(200), &mut body).await.is_none());
    assert!(body.is_empty());
    let replaced = chain.after_proxy(&mut x, &mut ResponseHead::new(503), &mut body).await.unwrap();
    assert_eq!(replaced.head.status, 418);
}

#[test]
fn a_body_that_a_condition_looks_at_is_kept_first() {
    let chain = chain(&[
        ("ip-restriction", json!({"blacklist": ["0.0.0.0/0"], "_meta": {"filter": [["post_arg_who", "==", "me"]]}})),
        ("request-id", json!({})),
    ]);
    assert!(chain.wants_content());
    let posted = |body: &'static str| {
        let mut x = request("POST", "h", "/", &[("Content-Type", "application/x-www-form-urlencoded")]);
        x.body = Body::from(bytes::Bytes::from_static(body.as_bytes()));
        x
    };
    let mut x = posted("who=me");
    assert!(now(chain.rewrite(&mut x)).is_none() && x.content().is_none(), "read by whom it concerns alone");
    assert_eq!(now(chain.access(&mut x)).unwrap().head.status, 403);
    assert_eq!(x.body.remaining(), Some(6));
    assert!(now(chain.access(&mut posted("who=you"))).is_none());
    let mut x = posted("");
    x.body = Body::from(bytes::Bytes::from(vec![b'a'; 2 << 20]));
    assert_eq!(now(chain.access(&mut x)).unwrap().head.status, 413);
    assert!(!Chain::default().wants_content());
}

/// The only filter of a chain.
fn single(chain: &Chain) -> &Arc<dyn Filter> {
    assert_eq!(chain.steps.len(), 1);
    &chain.steps[0].filter
}

/// The only filter of the chain of a route with this plugin.
fn compiled(origin: &str, name: &str, config: Value, parts: &Parts<'_>) -> Arc<dyn Filter> {
    single(&Chain::compile(&[conf(origin, name, config)], parts).unwrap()).clone()
}

#[test]
fn a_thousand_routes_with_one_configuration_share_its_filter() {
    let keep = Keep::default();
    for (name, config) in [
        ("request-validation", json!({"body_schema": {"type": "object", "required": ["a"]}, "rejected_code": 422})),
        ("uri-blocker", json!({"block_rules": ["^/internal/", "root\\.exe"]})),
    ] {
        let of = |number: u32| compiled(&format!("route/{number}"), name, config.clone(), &parts(&keep));
        let all: Vec<_> = (0..1_000).map(of).collect();
        assert!(all.iter().all(|filter| Arc::ptr_eq(filter, &all[0])), "{name}");
        let mut dressed = config.clone();
        dressed["_meta"] = json!({"priority": 7, "error_response": "no"});
        let chain = Chain::compile(&[conf("route/x", name, dressed)], &parts(&keep)).unwrap();
        assert!(Arc::ptr_eq(single(&chain), &all[0]) && chain.steps[0].priority == 7 && chain.steps[0].error_body.is_some());
        assert_eq!(keep.shared(), 1);
        drop((all, chain));
        keep.sweep();
        assert_eq!(keep.shared(), 0);
    }
}

#[test]
fn a_thousand_routes_share_many_rules_that_take_turns() {
    let keep = Keep::default();
    let demand = json!(["jwt-auth", {}]);
    let turns: Vec<Value> =
        (0..64).map(|number| json!({"case": [["uri", "~~", format!("^/part/{number}/")]], "actions": [demand]})).collect();
    let placed = |number: u32| json!({"rules": turns, "_meta": {"priority": 10_000 + number}});
    let of = |number: u32| compiled(&format!("route/{number}"), "workflow", placed(number), &parts(&keep));
    let all: Vec<_> = (0..1_000).map(of).collect();
    assert!(all.iter().all(|filter| Arc::ptr_eq(filter, &all[0])));
    assert_eq!(keep.shared(), 1, "each of the rules is compiled once");
    let flow = all[0].rewrite(&mut get("h", "/part/63/x"));
    assert_eq!(answer(flow).head.status, 401);
    assert!(matches!(all[0].rewrite(&mut get("h", "/part/64/x")), Flow::Continue));
}

#[test]
fn another_configuration_or_metadata_is_compiled_anew() {
    let keep = Keep::default();
    let (first, second) =
        (json!({"allow_origins": {"a": "https://a.example"}}), json!({"allow_origins": {"a": "https://b.example"}}));
    let config = json!({"allow_origins_by_metadata": ["a"]});
    let with = |metadata, config: &Value| {
        let metadata = |_: &str| Some(metadata);
        compiled("route/1", "cors", config.clone(), &Parts { metadata: &metadata, ..parts(&keep) })
    };
    let old = with(&first, &config);
    assert!(Arc::ptr_eq(&old, &with(&first, &config)));
    assert!(!Arc::ptr_eq(&old, &with(&second, &config)));
    assert!(!Arc::ptr_eq(&old, &with(&first, &json!({"allow_origins_by_metadata": ["a"], "max_age": 9}))));
}

#[test]
fn what_secrets_stand_for_counts_and_not_how_they_are_written() {
    let keep = Keep::default();
    let unknown = || References::new(Arc::new(|_: &str| None), "".into(), Outbound::default());
    // What is not known stands for a text that is another in each of them.
    let (before, after) = (unknown(), unknown());
    let with = |references| compiled("route/1", "csrf", json!({"key": "$env://KEY"}), &Parts { references, ..parts(&keep) });
    let old = with(&before);
    assert!(Arc::ptr_eq(&old, &with(&before)));
    assert!(!Arc::ptr_eq(&old, &with(&after)));
}

#[test]
fn what_belongs_to_one_place_is_not_shared() {
    let keep = Keep::default();
    let limit = json!({"count": 1, "time_window": 60, "key": "remote_addr", "rejected_code": 429});
    for (name, config) in [
        ("limit-count", limit.clone()),
        ("limit-req", json!({"rate": 1, "burst": 0, "key": "remote_addr"})),
        ("workflow", json!({"rules": [{"actions": [["limit-count", limit]]}]})),
        ("traffic-split", json!({"rules": [{"weighted_upstreams": [{"upstream_id": "a"}, {"weight": 1}]}]})),
    ] {
        let of = |origin| Chain::compile(&[conf(origin, name, config.clone())], &parts(&keep)).unwrap();
        let (one, other) = (of("route/1"), of("route/2"));
        assert!(!Arc::ptr_eq(single(&one), single(&other)), "{name}");
        if name != "traffic-split" {
            for chain in [&one, &other] {
                assert!(now(chain.access(&mut get("h", "/"))).is_none(), "{name}");
                assert!(now(chain.access(&mut get("h", "/"))).unwrap().head.status >= 429, "{name}");
            }
        }
    }
    assert_eq!(keep.shared(), 0);
    let returns = json!({"rules": [{"actions": [["return", {"code": 403}]]}]});
    let of = |origin| compiled(origin, "workflow", returns.clone(), &parts(&keep));
    let (one, other) = (of("route/1"), of("route/2"));
    assert!(Arc::ptr_eq(&one, &other), "without limits it is the same everywhere");
}

#[test]
fn what_runs_beside_each_other_for_one_request_is_not_shared() {
    let keep = Keep::default();
    let plugins = |origin| vec![conf(origin, "response-rewrite", json!({"body": "x", "vars": [["status", "==", 200]]}))];
    let route = Chain::compile(&plugins("route/1"), &parts(&keep)).unwrap();
    let consumer = Chain::of_consumer(&plugins("consumer/jack"), &parts(&keep)).unwrap();
    let rule = GlobalRule { id: "a".into(), plugins: plugins("global_rule/a") };
    let (global, _) = Chain::fuse(&[&rule], &parts(&keep)).unwrap();
    assert!(!Arc::ptr_eq(single(&route), single(&consumer)) && !Arc::ptr_eq(single(&route), single(&global)));
    assert!(!Arc::ptr_eq(single(&consumer), single(&global)));
    assert!(Arc::ptr_eq(single(&route), single(&Chain::compile(&plugins("route/2"), &parts(&keep)).unwrap())));
}
