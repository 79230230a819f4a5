//! Conversations with a control plane of Envoy's, as values: what goes live when, what is asked for, what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod verdicts;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::client::{Holdings, TypedUpdate};
use crate::codec::InvalidResource;
use crate::dialect::envoy::decode::decode;
use crate::dialect::envoy::decode::tests::{any, assignment, eds_cluster, encode, listener, routes};
use crate::model::{DropOverload, Kind, Resource};
use crate::protocol::Dialect;

struct Talk {
    follower: Follower,
    dialect: Dialect,
    now: Instant,
    turn: u32,
}

/// What became of a response: what changed, what was said.
struct Outcome {
    updates: Vec<TypedUpdate>,
    says: Vec<Says>,
    verdict: Says,
}

impl Outcome {
    fn names(&self, kind: Kind) -> Vec<String> {
        let of = self.updates.iter().filter(|update| update.kind == kind);
        of.flat_map(|update| &update.set).map(|set| set.name.to_string()).collect()
    }

    fn asked(&self, kind: EnvoyKind) -> Vec<String> {
        let of = self.says.iter().filter(|says| says.kind == Some(kind));
        of.flat_map(|says| says.subscribe.iter().chain(&says.names)).map(ToString::to_string).collect()
    }
}

impl Talk {
    fn new(dialect: Dialect) -> Talk {
        let now = heddle_node::clock::now();
        let whole = BTreeSet::from([EnvoyKind::Cluster, EnvoyKind::Listener]);
        let mut follower = Follower::new(dialect, whole, &[], now).map_err(|_| ()).unwrap();
        let hello: Vec<_> = follower.hello().into_iter().filter_map(|says| says.kind).collect();
        assert_eq!(hello, [EnvoyKind::Cluster, EnvoyKind::Listener]);
        Talk { follower, dialect, now, turn: 0 }
    }

    fn told(&mut self, kind: EnvoyKind, resources: &[Value], removed: &[&str]) -> Told {
        self.turn += 1;
        let raw = |value: &Value| {
            let body = encode(kind.message(), value);
            let name = value["name"].as_str().or(value["cluster_name"].as_str()).unwrap();
            let delta = self.dialect == Dialect::Delta;
            Raw {
                name: if delta { name.into() } else { "".into() },
                version: if delta { crate::snapshot::version_of(&body) } else { "".into() },
                type_url: kind.type_url(),
                body: body.into(),
            }
        };
        let turn: Arc<str> = self.turn.to_string().into();
        Told {
            kind,
            version: turn.clone(),
            nonce: turn,
            resources: resources.iter().map(raw).collect(),
            removed: removed.iter().map(|name| Arc::from(*name)).collect(),
        }
    }

    fn hears(&mut self, kind: EnvoyKind, resources: &[Value]) -> Outcome {
        self.judged(kind, resources, &[], &[])
    }

    fn judged(&mut self, kind: EnvoyKind, resources: &[Value], removed: &[&str], rejected: &[InvalidResource]) -> Outcome {
        let told = self.told(kind, resources, removed);
        let open = self.follower.receive(told, self.now);
        let mut updates = self.follower.world().step(self.now);
        let (verdict, undone) = self.follower.settle(open, rejected, self.now);
        updates.extend(undone);
        let says = self.follower.asks();
        updates.extend(self.follower.world().step(self.now));
        Outcome { updates, says, verdict }
    }
}

#[test]
fn a_listener_opens_when_all_that_it_leads_to_is_there() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let mut talk = Talk::new(dialect);
        let listeners = talk.hears(EnvoyKind::Listener, &[listener("l", None)]);
        assert!(listeners.updates.is_empty(), "no routes yet, and no clusters");
        assert_eq!(listeners.asked(EnvoyKind::Routes), ["l-routes"]);
        let clusters = talk.hears(EnvoyKind::Cluster, &[eds_cluster("c")]);
        assert!(clusters.updates.is_empty(), "no endpoints yet");
        assert_eq!(clusters.asked(EnvoyKind::Endpoints), ["c"]);
        let table = talk.hears(EnvoyKind::Routes, &[routes("l-routes", "c")]);
        assert!(table.updates.is_empty(), "the cluster is not warm");
        let last = talk.hears(EnvoyKind::Endpoints, &[assignment("c", 1)]);
        assert_eq!(last.names(Kind::Listener), ["l"]);
        assert_eq!(last.names(Kind::Upstream), ["c"]);
        assert_eq!(last.names(Kind::Endpoints), ["c"]);
        assert_eq!(last.names(Kind::Route), ["l/all:open0/0"], "it fits every request, so that nothing else answers");
        let kinds: Vec<Kind> = last.updates.iter().map(|update| update.kind).collect();
        assert!(kinds.is_sorted(), "what is referred to comes first: {kinds:?}");
        assert!(talk.follower.is_synced());
        let again = talk.hears(EnvoyKind::Endpoints, &[assignment("c", 2)]);
        assert_eq!(again.updates.len(), 1, "one change is one change");
        assert_eq!((&again.verdict.error, again.names(Kind::Endpoints)), (&None, vec!["c".to_owned()]));
    }
}

#[test]
fn nobody_waits_longer_than_an_envoy_would() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[eds_cluster("c")]);
    talk.hears(EnvoyKind::Listener, &[listener("l", Some(routes("r", "c")))]);
    let wake = talk.follower.world().wake().unwrap();
    assert_eq!(wake, talk.now + Duration::from_secs(15));
    assert!(talk.follower.world().step(wake - Duration::from_millis(1)).is_empty());
    let updates = talk.follower.world().step(wake);
    assert!(updates.iter().any(|update| update.kind == Kind::Listener));
    assert_eq!(talk.follower.world().wake(), None);
}

#[test]
fn what_does_not_exist_is_waited_for_no_longer() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[eds_cluster("c")]);
    let gone = talk.judged(EnvoyKind::Endpoints, &[], &["c"], &[]);
    assert_eq!(gone.names(Kind::Upstream), ["c"]);
}

#[test]
fn a_changed_cluster_stays_as_it_was_until_the_new_one_is_warm() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[eds_cluster("c")]);
    talk.hears(EnvoyKind::Endpoints, &[assignment("c", 1)]);
    let mut moved = eds_cluster("c");
    moved["eds_cluster_config"]["service_name"] = "elsewhere".into();
    let changed = talk.hears(EnvoyKind::Cluster, &[moved]);
    assert!(changed.updates.is_empty());
    assert_eq!(changed.asked(EnvoyKind::Endpoints), ["elsewhere"]);
    let warm = talk.hears(EnvoyKind::Endpoints, &[assignment("elsewhere", 2)]);
    assert_eq!(warm.names(Kind::Endpoints), ["c"]);
}

#[test]
fn what_is_dropped_changes_with_the_endpoints() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let mut talk = Talk::new(dialect);
        talk.hears(EnvoyKind::Cluster, &[eds_cluster("c")]);
        for (numerator, denominator, millionths) in [(3, 0, 30_000), (3, 1, 300), (3, 2, 3), (100, 0, 1_000_000), (0, 0, 0)] {
            let mut assignment = assignment("c", 1);
            let share = json!({"numerator": numerator, "denominator": denominator});
            assignment["policy"] = json!({"drop_overloads": [{"category": "lb", "drop_percentage": share}]});
            let outcome = talk.hears(EnvoyKind::Endpoints, &[assignment]);
            let drops = outcome.updates.iter().flat_map(|update| &update.set).find_map(|set| match &set.resource {
                Resource::Upstream(upstream) => Some(upstream.drops.clone()),
                _ => None,
            });
            assert_eq!(drops.unwrap(), [DropOverload { category: "lb".into(), millionths }]);
        }
        let mut much = assignment("c", 1);
        much["policy"] = json!({"drop_overloads": [{"category": "lb", "drop_percentage": {"numerator": 101}}]});
        let error = talk.hears(EnvoyKind::Endpoints, &[much]).verdict.error.unwrap();
        assert!(error.contains("policy.drop_overloads[0].drop_percentage: expected 100 percent at most"), "{error}");
    }
}

/// The upstream `c` as it became live.
fn live(outcome: &Outcome) -> std::sync::Arc<crate::model::Upstream> {
    let found = outcome.updates.iter().flat_map(|update| &update.set).find_map(|set| match &set.resource {
        Resource::Upstream(upstream) => Some(upstream.clone()),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn endpoints_say_as_whom_they_are_probed_and_how_much_of_a_priority_stands() {
    let mut talk = Talk::new(Dialect::Delta);
    let mut cluster = eds_cluster("c");
    cluster["health_checks"] = json!([{
        "timeout": "1s", "interval": "5s", "unhealthy_threshold": 3, "healthy_threshold": 2, "http_health_check": {"path": "/up"},
    }]);
    talk.hears(EnvoyKind::Cluster, &[cluster]);
    for (host, expected) in [(None, Some("c")), (Some("127.0.0.1:1"), None), (Some("up.example"), Some("up.example"))] {
        let mut assignment = assignment("c", 1);
        if let Some(host) = host {
            assignment["endpoints"][0]["lb_endpoints"][0]["endpoint"]["health_check_config"] = json!({"hostname": host});
        }
        assignment["policy"] = json!({"weighted_priority_health": host.is_some()});
        let upstream = live(&talk.hears(EnvoyKind::Endpoints, &[assignment]));
        assert_eq!(upstream.checks.active.as_ref().unwrap().host.as_deref(), expected);
        assert_eq!(upstream.locality.spread.as_ref().unwrap().health_by_weight, host.is_some());
    }
}

#[test]
fn several_buckets_of_a_route_are_several_bounds() {
    let bucket = |most: u32| {
        let all = json!({"default_value": {"numerator": 100}});
        let bucket = json!({"max_tokens": most, "fill_interval": "1s"});
        let limit = json!({"stat_prefix": "x", "token_bucket": bucket, "filter_enabled": all, "filter_enforced": all});
        any("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", limit)
    };
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    for (buckets, expected) in [([3, 5], vec![2, 4]), ([3, 3], vec![2])] {
        let mut table = routes("r", "c");
        table["virtual_hosts"][0]["routes"][0]["typed_per_filter_config"] =
            json!({"a": bucket(buckets[0]), "b": bucket(buckets[1])});
        let mut door = listener("l", Some(table));
        let filters = &mut door["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
        let router = filters[0].take();
        let off = any("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", json!({"stat_prefix": "x"}));
        let filter = |name: &str| json!({"name": name, "typed_config": off, "disabled": true});
        *filters = json!([filter("a"), filter("b"), router]);
        let outcome = talk.hears(EnvoyKind::Listener, &[door]);
        assert_eq!(outcome.verdict.error, None);
        let found = outcome.updates.iter().flat_map(|update| &update.set).find_map(|set| match &set.resource {
            Resource::Route(route) => Some(route.plugins.clone()),
            _ => None,
        });
        let bursts: Vec<u64> = found.unwrap().iter().filter_map(|plugin| plugin.config["burst"].as_u64()).collect();
        assert_eq!(bursts, expected);
    }
}

#[test]
fn a_bad_resource_is_refused_singly_and_the_rest_goes_live() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let mut talk = Talk::new(dialect);
        let mut bad = eds_cluster("bad");
        bad["lb_subset_config"] = json!({});
        bad.as_object_mut().unwrap().remove("lb_subset_config");
        bad["lb_policy"] = json!(6);
        let mut good = eds_cluster("good");
        good["type"] = json!(0);
        good.as_object_mut().unwrap().remove("eds_cluster_config");
        let outcome = talk.hears(EnvoyKind::Cluster, &[bad, good]);
        assert_eq!(outcome.names(Kind::Upstream), ["good"]);
        let error = outcome.verdict.error.unwrap();
        assert!(error.starts_with("Cluster bad: lb_policy: 6 is not supported"), "{error}");
        assert_eq!(outcome.verdict.version.as_ref(), "", "a refused response is no version that is held");
    }
}

#[test]
fn what_the_consumer_refuses_is_undone_and_blamed_on_where_it_comes_from() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    talk.hears(EnvoyKind::Listener, &[listener("l", None)]);
    talk.hears(EnvoyKind::Routes, &[routes("l-routes", "c")]);
    let mut worse = routes("l-routes", "c");
    worse["virtual_hosts"][0]["routes"][0]["match"] = json!({"safe_regex": {"regex": "/x+y"}});
    let fault = InvalidResource {
        kind: Kind::Route,
        name: "l/all:open0/0".into(),
        field: "vars".to_owned(),
        reason: "linear time".to_owned(),
    };
    let outcome = talk.judged(EnvoyKind::Routes, &[worse], &[], &[fault]);
    let error = outcome.verdict.error.clone().unwrap();
    assert!(error.starts_with("RouteConfiguration l-routes: Route l/all:open0/0: vars: linear time"), "{error}");
    let told: Vec<String> = outcome.names(Kind::Route).into_iter().filter(|name| name == "l/all:open0/0").collect();
    assert_eq!(told.len(), 2, "the old routes are told again");
}

#[test]
fn what_cannot_be_read_is_refused_by_the_name_that_it_has() {
    let mut talk = Talk::new(Dialect::Sotw);
    let mut told = talk.told(EnvoyKind::Cluster, &[eds_cluster("good"), eds_cluster("bad")], &[]);
    told.resources[1].body = [&told.resources[1].body[..], &[0x0f]].concat().into();
    let open = talk.follower.receive(told, talk.now);
    let error = talk.follower.settle(open, &[], talk.now).0.error.unwrap();
    assert!(error.starts_with("Cluster bad: is not a valid protobuf message"), "{error}");
}

fn refused_route(name: &str) -> InvalidResource {
    InvalidResource { kind: Kind::Route, name: name.into(), field: "plugins".to_owned(), reason: "no".to_owned() }
}

fn removed(updates: &[TypedUpdate], kind: Kind) -> usize {
    updates.iter().filter(|update| update.kind == kind).map(|update| update.removed.len()).sum()
}

/// Half of a table would be open where the other half keeps out.
#[test]
fn what_the_consumer_refuses_a_part_of_is_withdrawn_as_a_whole_where_nobody_is_answered() {
    let now = heddle_node::clock::now();
    let guarded = |name: &str| {
        let mut table = routes(name, "c");
        let guard = json!({"match": {"prefix": "/admin"}, "direct_response": {"status": 403}});
        table["virtual_hosts"][0]["routes"].as_array_mut().unwrap().insert(0, guard);
        table
    };
    let piece = decode(EnvoyKind::Listener, &listener("mine", Some(guarded("t")))).unwrap();
    let mut follower = Follower::new(Dialect::Delta, BTreeSet::new(), &[piece], now).map_err(|_| ()).unwrap();
    let made = follower.world().step(now);
    let count = made.iter().filter(|update| update.kind == Kind::Route).map(|update| update.set.len()).sum::<usize>();
    assert!(count > 1 && follower.is_whole());
    let undone = follower.withdraw(&[refused_route("mine/all:open0/0"), refused_route("mine/all:open0/1")], now);
    assert_eq!((removed(&undone, Kind::Route), removed(&undone, Kind::Listener)), (count, 1));
    assert!(!follower.is_whole(), "nobody is told that all is well");

    // A listener of a control plane that was answered for before its clusters were there.
    let mut talk = Talk::new(Dialect::Delta);
    let early = talk.hears(EnvoyKind::Listener, &[listener("l", Some(guarded("t")))]);
    assert!(early.verdict.error.is_none() && early.names(Kind::Route).is_empty());
    let late = talk.judged(EnvoyKind::Cluster, &[], &[], &[refused_route("l/all:open0/0")]);
    assert_eq!((removed(&late.updates, Kind::Route), removed(&late.updates, Kind::Listener)), (count, 1));
    assert!(late.verdict.error.is_none() && talk.follower.is_whole());

    // A listener is refused for what it does with a table that was taken before.
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    let mut second = listener("b", None);
    second["address"]["socket_address"]["port_value"] = json!(10001);
    let manager = &mut second["filter_chains"][0]["filters"][0]["typed_config"];
    manager["rds"]["route_config_name"] = json!("a-routes");
    talk.hears(EnvoyKind::Listener, &[listener("a", None)]);
    talk.hears(EnvoyKind::Routes, &[guarded("a-routes")]);
    let outcome = talk.judged(EnvoyKind::Listener, &[second], &[], &[refused_route("b/all:open0/0")]);
    let gone = outcome.updates.iter().flat_map(|update| &update.removed);
    assert!(gone.clone().count() > count && gone.into_iter().all(|name| name.starts_with('b')), "the other one stays");
    assert!(outcome.verdict.error.unwrap().starts_with("Listener b: Route b/all:open0/0: plugins"));
}

#[test]
fn clusters_that_are_gone_are_removed_and_their_endpoints_no_longer_asked_for() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let mut talk = Talk::new(dialect);
        talk.hears(EnvoyKind::Cluster, &[eds_cluster("a"), eds_cluster("b")]);
        talk.hears(EnvoyKind::Endpoints, &[assignment("a", 1), assignment("b", 2)]);
        let (rest, removed): (&[Value], &[&str]) = match dialect {
            Dialect::Delta => (&[], &["b"]),
            Dialect::Sotw => (&[eds_cluster("a")], &[]),
        };
        let outcome = talk.judged(EnvoyKind::Cluster, rest, removed, &[]);
        let removed: Vec<(Kind, String)> =
            outcome.updates.iter().flat_map(|update| update.removed.iter().map(|name| (update.kind, name.to_string()))).collect();
        assert_eq!(removed, [(Kind::Upstream, "b".to_owned()), (Kind::Endpoints, "b".to_owned())]);
        let says = outcome.says.iter().find(|says| says.kind == Some(EnvoyKind::Endpoints)).unwrap();
        match dialect {
            Dialect::Delta => assert_eq!(says.unsubscribe.as_slice(), [Arc::from("b")]),
            Dialect::Sotw => assert_eq!(says.names.as_slice(), [Arc::from("a")]),
        }
    }
}

#[test]
fn a_new_stream_says_what_is_held() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[eds_cluster("c")]);
    talk.hears(EnvoyKind::Endpoints, &[assignment("c", 1)]);
    talk.follower.lost();
    let hello = talk.follower.hello();
    let of = |kind| hello.iter().find(|says| says.kind == Some(kind)).unwrap();
    assert!(of(EnvoyKind::Cluster).initial.contains_key("c") && of(EnvoyKind::Cluster).subscribe.is_empty());
    assert!(of(EnvoyKind::Endpoints).initial.contains_key("c"));
    assert_eq!(of(EnvoyKind::Endpoints).subscribe.as_slice(), [Arc::from("c")]);
    let mut talk = Talk::new(Dialect::Sotw);
    talk.hears(EnvoyKind::Cluster, &[]);
    talk.follower.lost();
    assert_eq!(talk.follower.hello()[0].version.as_ref(), "1");
}

#[test]
fn a_bootstrap_stays_whatever_a_control_plane_says() {
    let now = heddle_node::clock::now();
    let mut fixed = eds_cluster("mine");
    fixed["type"] = json!(0);
    fixed.as_object_mut().unwrap().remove("eds_cluster_config");
    let piece = decode(EnvoyKind::Cluster, &fixed).unwrap();
    let whole = BTreeSet::from([EnvoyKind::Cluster]);
    let follower = Follower::new(Dialect::Sotw, whole, &[piece], now).map_err(|_| ()).unwrap();
    let mut talk = Talk { follower, dialect: Dialect::Sotw, now, turn: 0 };
    let first = talk.hears(EnvoyKind::Cluster, &[eds_cluster("mine"), eds_cluster("other")]);
    assert!(first.verdict.error.unwrap().starts_with("Cluster mine: name: is that of a resource of the bootstrap"));
    let second = talk.hears(EnvoyKind::Cluster, &[]);
    assert!(second.updates.iter().all(|update| update.removed.is_empty()), "only what the control plane said is taken away");
}

#[test]
fn ways_in_which_routes_use_a_cluster_are_upstreams_of_their_own() {
    let mut talk = Talk::new(Dialect::Delta);
    let mut cluster = eds_cluster("c");
    cluster["lb_policy"] = json!(5);
    talk.hears(EnvoyKind::Cluster, &[cluster]);
    talk.hears(EnvoyKind::Endpoints, &[assignment("c", 1)]);
    let mut table = routes("r", "c");
    table["virtual_hosts"][0]["routes"][0]["route"]["hash_policy"] = json!([{"cookie": {"name": "sid"}}]);
    let outcome = talk.hears(EnvoyKind::Listener, &[listener("l", Some(table))]);
    assert_eq!(outcome.names(Kind::Upstream), ["c#cookie:sid"]);
    let route = outcome.updates.iter().flat_map(|update| &update.set).find_map(|set| match &set.resource {
        Resource::Route(route) => Some(route.clone()),
        _ => None,
    });
    assert_eq!(&*route.unwrap().upstream.unwrap().name, "c#cookie:sid");
}

#[test]
fn the_limit_of_a_route_bounds_its_tries_together_and_that_of_a_try_each_of_them() {
    let composed = |more: Value| {
        let mut talk = Talk::new(Dialect::Delta);
        talk.hears(EnvoyKind::Cluster, &[eds_cluster("c")]);
        talk.hears(EnvoyKind::Endpoints, &[assignment("c", 1)]);
        let mut table = routes("r", "c");
        table["virtual_hosts"][0]["routes"][0]["route"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let outcome = talk.hears(EnvoyKind::Listener, &[listener("l", Some(table))]);
        let route = outcome.updates.iter().flat_map(|update| &update.set).find_map(|set| match &set.resource {
            Resource::Route(route) => Some(route.clone()),
            _ => None,
        });
        let route = route.unwrap();
        let retry = route.plugins.iter().find(|plugin| &*plugin.name == "retry");
        (route.timeouts.unwrap().read.as_secs_f64(), retry.and_then(|retry| retry.config["total_timeout"].as_f64()))
    };
    let policy = |more: Value| {
        let mut policy = json!({"retry_on": "5xx", "num_retries": 3});
        policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        policy
    };
    let (plain, each) = (policy(json!({})), policy(json!({"per_try_timeout": "1s"})));
    assert_eq!(composed(json!({"retry_policy": plain})), (15.0, Some(15.0)), "what Envoy takes where nothing is said");
    assert_eq!(composed(json!({"timeout": "1s", "retry_policy": plain})), (1.0, Some(1.0)));
    assert_eq!(composed(json!({"timeout": "1.5s", "retry_policy": each})), (1.0, Some(1.5)));
    assert_eq!(composed(json!({"timeout": "0.5s", "retry_policy": each})), (0.5, Some(0.5)));
    assert_eq!(composed(json!({"timeout": "0s", "idle_timeout": "40s", "retry_policy": each})), (1.0, Some(40.0)));
    let (read, total) = composed(json!({"timeout": "0s", "idle_timeout": "0s", "retry_policy": plain}));
    assert!(read > 86_400.0 && total.is_none(), "nothing limits them: {read} {total:?}");
    assert_eq!(composed(json!({"timeout": "2s"})), (2.0, None));
}

/// Of `timeout` Envoy knows nothing where the other one stands, whatever that says.
#[test]
fn the_limit_of_a_whole_exchange_goes_to_the_route_and_replaces_the_other_one() {
    let composed = |more: Value| {
        let mut talk = Talk::new(Dialect::Delta);
        talk.hears(EnvoyKind::Cluster, &[eds_cluster("c")]);
        talk.hears(EnvoyKind::Endpoints, &[assignment("c", 1)]);
        let mut table = routes("r", "c");
        table["virtual_hosts"][0]["routes"][0]["route"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let outcome = talk.hears(EnvoyKind::Listener, &[listener("l", Some(table))]);
        let route = outcome.updates.iter().flat_map(|update| &update.set).find_map(|set| match &set.resource {
            Resource::Route(route) => Some(route.clone()),
            _ => None,
        });
        let route = route.unwrap();
        (route.max_duration.map(|limit| limit.as_millis()), route.timeouts.unwrap().read.as_secs_f64())
    };
    let idle = json!({"timeout": "1s", "idle_timeout": "40s"});
    let with = |limit: Value| {
        let mut said = idle.clone();
        said["max_stream_duration"] = limit;
        composed(said)
    };
    assert_eq!(composed(idle.clone()), (None, 1.0));
    assert_eq!(with(json!({"max_stream_duration": "1.5s"})), (Some(1500), 40.0));
    assert_eq!(with(json!({"max_stream_duration": "0s"})), (None, 40.0));
    assert_eq!(with(json!({})), (None, 40.0));
    assert_eq!(with(json!({"max_stream_duration": "300000000s"})), (None, 40.0), "no exchange lasts so long");
}

/// The plugins of each route, in the order in which they run, by the id of the route.
fn plugins(outcome: &Outcome) -> Vec<(String, Vec<(String, i64)>)> {
    let routes = outcome.updates.iter().flat_map(|update| &update.set).filter_map(|set| match &set.resource {
        Resource::Route(route) => Some(route),
        _ => None,
    });
    let of = |route: &crate::model::Route| {
        let place = |plugin: &crate::model::PluginConf| plugin.config["_meta"]["priority"].as_i64().unwrap_or(0);
        let mut plugins: Vec<(String, i64)> =
            route.plugins.iter().map(|plugin| (plugin.name.to_string(), place(plugin))).filter(|(_, place)| *place > 0).collect();
        plugins.sort_by_key(|(_, place)| -place);
        plugins
    };
    routes.map(|route| (route.id.to_string(), of(route))).collect()
}

#[test]
fn filters_keep_their_order_and_see_what_no_route_fits() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    let mut table = routes("r", "c");
    table["virtual_hosts"][0]["domains"] = json!(["shop.example"]);
    table["virtual_hosts"][0]["routes"][0]["match"] = json!({"prefix": "/shop"});
    let mut door = listener("l", Some(table));
    let filter = |name: &str, message: &str, config: Value| json!({"name": name, "typed_config": any(&format!("envoy.extensions.filters.http.{message}"), config)});
    let everybody = json!({"p": {"permissions": [{"any": true}], "principals": [{"any": true}]}});
    let abort = json!({"abort": {"http_status": 503, "percentage": {"numerator": 100}}});
    let filters = &mut door["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    let router = filters[0].take();
    *filters = json!([
        filter("health", "health_check.v3.HealthCheck", json!({"pass_through_mode": false})),
        filter("who", "rbac.v3.RBAC", json!({"rules": {"action": 1, "policies": everybody}})),
        filter("fault", "fault.v3.HTTPFault", abort),
        router
    ]);
    let outcome = talk.hears(EnvoyKind::Listener, &[door]);
    assert_eq!(outcome.verdict.error, None);
    let expected = |last: Option<&str>| {
        let filters = [19_998, 19_996, 19_994].map(|place| ("fault-injection".to_owned(), place));
        filters.into_iter().chain(last.map(|last| (last.to_owned(), 1))).collect::<Vec<_>>()
    };
    let found = plugins(&outcome);
    let of = |id: &str| found.iter().find(|(found, _)| found == id).map(|(_, plugins)| plugins.clone());
    assert_eq!(of("l/all/0"), Some(expected(None)), "{found:?}");
    assert_eq!(of("l/all/1"), Some(expected(Some("mocking"))), "none of the routes of a virtual host fits");
    assert_eq!(of("l/:none"), Some(expected(Some("mocking"))), "no virtual host fits");
}

#[test]
fn what_answers_where_no_route_fits_is_there_only_where_it_can_be_reached() {
    let host = |name: &str, domain: &str, matches: Value| json!({"name": name, "domains": [domain], "routes": [{"match": matches, "direct_response": {"status": 204}}]});
    let mut table = routes("r", "c");
    table["virtual_hosts"] = json!([
        host("all", "all.example", json!({"prefix": "/"})),
        host("some", "some.example", json!({"prefix": "/", "headers": [{"name": "x-a", "present_match": true}]})),
        host("below", "below.example", json!({"prefix": "/a"})),
        host("exact", "exact.example", json!({"path": "/"})),
    ]);
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    let told = talk.hears(EnvoyKind::Listener, &[listener("l", Some(table))]);
    let expected = ["all/0", "some/0", "some/1", "below/0", "below/1", "exact/0", "exact/1", ":none"].map(|id| format!("l/{id}"));
    assert_eq!(told.names(Kind::Route), expected);
}

#[test]
fn virtual_hosts_of_one_name_are_kept_apart() {
    let host = |domain: &str, status: u32| json!({"name": "x", "domains": [domain], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": status}}]});
    let table = |hosts: Value| {
        let mut table = routes("l-routes", "c");
        table["virtual_hosts"] = hosts;
        table
    };
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    talk.hears(EnvoyKind::Listener, &[listener("l", None)]);
    let both = talk.hears(EnvoyKind::Routes, &[table(json!([host("a.example", 201), host("b.example", 202)]))]);
    assert_eq!(both.names(Kind::Route), ["l/x/0", "l/x#2/0", "l/:none"]);
    let second = talk.hears(EnvoyKind::Routes, &[table(json!([host("b.example", 202)]))]);
    let removed: Vec<&str> = second.updates.iter().flat_map(|update| &update.removed).map(|name| &**name).collect();
    assert_eq!((second.names(Kind::Route), removed), (vec!["l/x/0".to_owned()], vec!["l/x#2/0"]));
}

#[test]
fn what_filters_do_is_written_down_once_for_all_routes() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    let many: Vec<Value> =
        (0..50).map(|number| json!({"match": {"path": format!("/{number}")}, "direct_response": {"status": 204}})).collect();
    let mut table = routes("r", "c");
    table["virtual_hosts"][0]["routes"] = many.into();
    let mut door = listener("l", Some(table));
    let filters = &mut door["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    let router = filters[0].take();
    let rules: Vec<Value> =
        (0..64).map(|number| json!({"match": {"prefix": format!("/{number}/")}, "requires": {"provider_name": "p"}})).collect();
    let providers = json!({"p": {"local_jwks": {"inline_string": "{\"keys\": [{\"kty\": \"EC\"}]}"}}});
    let authn =
        any("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", json!({"providers": providers, "rules": rules}));
    *filters = json!([{"name": "jwt", "typed_config": authn}, router]);
    let outcome = talk.hears(EnvoyKind::Listener, &[door]);
    assert_eq!(outcome.verdict.error, None);
    let configs: Vec<Arc<Value>> = outcome
        .updates
        .iter()
        .flat_map(|update| &update.set)
        .filter_map(|set| if let Resource::Route(route) = &set.resource { Some(route) } else { None })
        .flat_map(|route| &route.plugins)
        .filter(|plugin| &*plugin.name == "workflow")
        .map(|plugin| plugin.config.clone())
        .collect();
    assert!(configs.len() > 50 && configs.iter().all(|config| Arc::ptr_eq(config, &configs[0])), "{}", configs.len());
    assert_eq!(configs[0]["rules"].as_array().unwrap().len(), 64, "and each rule once");
}

#[test]
fn what_ecds_says_of_a_filter_is_waited_for_and_may_change() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let mut talk = Talk::new(dialect);
        talk.hears(EnvoyKind::Cluster, &[]);
        let mut door = listener("l", Some(routes("r", "c")));
        let filters = &mut door["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
        let router = filters[0].take();
        let source = json!({"ads": {}, "resource_api_version": 2});
        *filters = json!([{"name": "who", "config_discovery": {"config_source": source, "type_urls": ["x"]}}, router]);
        let waits = talk.hears(EnvoyKind::Listener, &[door]);
        assert!(waits.updates.is_empty(), "nothing is let in that the filter might refuse");
        assert_eq!(waits.asked(EnvoyKind::Extension), ["who"]);
        let rbac = |action: u8| {
            let rbac = "envoy.extensions.filters.http.rbac.v3.RBAC";
            let everybody = json!({"p": {"permissions": [{"any": true}], "principals": [{"any": true}]}});
            json!({"name": "who", "typed_config": any(rbac, json!({"rules": {"action": action, "policies": everybody}}))})
        };
        let there = talk.hears(EnvoyKind::Extension, &[rbac(1)]);
        assert_eq!(there.names(Kind::Listener), ["l"]);
        assert_eq!(plugins(&there)[0].1, [("fault-injection".to_owned(), 19_998)]);
        let changed = talk.hears(EnvoyKind::Extension, &[rbac(2)]);
        assert_eq!((changed.names(Kind::Listener), plugins(&changed)[0].1.len()), (Vec::new(), 0), "only routes change");
        let unusable = InvalidResource {
            kind: Kind::Route,
            name: changed.names(Kind::Route)[0].as_str().into(),
            field: "plugins.fault-injection.abort".into(),
            reason: "odd".into(),
        };
        let blamed = talk.judged(EnvoyKind::Extension, &[rbac(1)], &[], &[unusable]).verdict.error.unwrap();
        assert_eq!(blamed, "TypedExtensionConfig who: typed_config: as plugins.fault-injection.abort: odd");
        let other = json!({"name": "who", "typed_config": any("envoy.extensions.filters.http.lua.v3.Lua", json!({}))});
        let refused = talk.hears(EnvoyKind::Extension, &[other]).verdict.error.unwrap();
        assert!(refused.starts_with("TypedExtensionConfig who: typed_config.@type: lua.v3.Lua"), "{refused}");
    }
}

#[test]
fn clients_are_sent_nowhere_with_a_port_where_hosts_lose_theirs() {
    let mut stripping = listener("l", None);
    stripping["filter_chains"][0]["filters"][0]["typed_config"]["strip_any_host_port"] = json!(true);
    for (open, expected) in [(stripping, "https://${host}${uri}"), (listener("l", None), "https://${host_leaving_http}${uri}")] {
        let mut table = routes("l-routes", "c");
        table["virtual_hosts"][0]["routes"] = json!([{"match": {"prefix": "/"}, "redirect": {"https_redirect": true}}]);
        let mut talk = Talk::new(Dialect::Delta);
        talk.hears(EnvoyKind::Cluster, &[]);
        talk.hears(EnvoyKind::Listener, &[open]);
        let outcome = talk.hears(EnvoyKind::Routes, &[table]);
        let uris: Vec<String> = outcome
            .updates
            .iter()
            .flat_map(|update| &update.set)
            .filter_map(|set| match &set.resource {
                Resource::Route(route) => route.plugins.iter().find(|plugin| &*plugin.name == "redirect"),
                _ => None,
            })
            .map(|plugin| plugin.config["uri"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(uris, [expected]);
    }
}

#[test]
fn guards_ask_for_hosts_without_a_port_where_hosts_lose_theirs() {
    let matches = json!([{"name": ":authority", "string_match": {"exact": "a.example"}}]);
    let permission = json!({"header": {"name": ":authority", "string_match": {"suffix": ".example"}}});
    let policy = json!({"permissions": [permission], "principals": [{"any": true}]});
    let rbac = json!({"name": "rbac", "typed_config": any("envoy.extensions.filters.http.rbac.v3.RBAC",
        json!({"rules": {"action": 1, "policies": {"p": policy}}}))});
    for (strips, variable) in [(true, "host"), (false, "authority")] {
        let mut open = listener("l", None);
        let manager = &mut open["filter_chains"][0]["filters"][0]["typed_config"];
        manager["strip_matching_host_port"] = json!(strips);
        manager["http_filters"].as_array_mut().unwrap().insert(0, rbac.clone());
        let mut table = routes("l-routes", "c");
        table["virtual_hosts"][0]["routes"][0]["match"]["headers"] = matches.clone();
        let mut talk = Talk::new(Dialect::Delta);
        talk.hears(EnvoyKind::Cluster, &[]);
        talk.hears(EnvoyKind::Listener, &[open]);
        let outcome = talk.hears(EnvoyKind::Routes, &[table]);
        let set = outcome.updates.iter().flat_map(|update| &update.set);
        let routes: Vec<&crate::model::Route> = set
            .filter_map(|set| match &set.resource {
                Resource::Route(route) if route.upstream.is_some() => Some(route),
                _ => None,
            })
            .collect();
        let asked = routes[0].matches.vars.as_ref().unwrap().to_string();
        assert!(asked.contains(&json!([variable, "==", "a.example"]).to_string()), "{asked}");
        let guard = routes[0].plugins.iter().find(|plugin| &*plugin.name == "fault-injection").unwrap().config.to_string();
        assert!(guard.contains(&json!([variable, "~*", "\\.example$"]).to_string()), "{guard}");
    }
}

/// A listener at this port, which answers by itself.
fn door(name: &str, port: u16) -> Value {
    let mut door = listener(name, Some(routes("r", "c")));
    door["address"]["socket_address"]["port_value"] = port.into();
    door
}

#[test]
fn one_address_is_for_one_listener_and_is_free_when_that_goes() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let mut talk = Talk::new(dialect);
        talk.hears(EnvoyKind::Cluster, &[]);
        let both = talk.hears(EnvoyKind::Listener, &[door("a", 1), door("b", 1), door("c", 2)]);
        assert_eq!(both.names(Kind::Listener), ["a", "c"]);
        let error = both.verdict.error.unwrap();
        assert_eq!(
            error,
            "Listener b: address: 127.0.0.1:1 is the address of the listener a, and one address is for one listener"
        );
        let delta = dialect == Dialect::Delta;
        let (set, removed): (&[Value], &[&str]) =
            if delta { (&[door("b", 1)], &["a"]) } else { (&[door("b", 1), door("c", 2)], &[]) };
        let moved = talk.judged(EnvoyKind::Listener, set, removed, &[]);
        assert_eq!((&moved.verdict.error, moved.names(Kind::Listener)), (&None, vec!["b".to_owned()]), "who had it goes");
        // One that waits for its routes has its address already.
        let mut waits = listener("w", None);
        waits["address"]["socket_address"]["port_value"] = 3.into();
        let all = [door("b", 1), door("c", 2), waits, door("x", 3)];
        let error = talk.hears(EnvoyKind::Listener, &all).verdict.error.unwrap();
        assert!(error.starts_with("Listener x: address: "), "{error}");
    }
}

/// The listeners that changed, each with its port.
fn opened(outcome: &Outcome) -> Vec<(String, u16)> {
    let sets = outcome.updates.iter().flat_map(|update| &update.set);
    let listeners = sets.filter_map(|set| if let Resource::Listener(listener) = &set.resource { Some(listener) } else { None });
    listeners.map(|listener| (listener.name.to_string(), listener.address.port())).collect()
}

#[test]
fn an_address_that_one_leaves_is_for_the_next_in_whatever_order_it_is_told() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let mut talk = Talk::new(dialect);
        talk.hears(EnvoyKind::Cluster, &[]);
        talk.hears(EnvoyKind::Listener, &[door("a", 1)]);
        let moved = talk.hears(EnvoyKind::Listener, &[door("b", 1), door("a", 2)]);
        assert_eq!((&moved.verdict.error, opened(&moved)), (&None, vec![("a".to_owned(), 2), ("b".to_owned(), 1)]));
        let back = talk.hears(EnvoyKind::Listener, &[door("b", 3), door("a", 1)]);
        assert_eq!((&back.verdict.error, opened(&back)), (&None, vec![("a".to_owned(), 1), ("b".to_owned(), 3)]));
        // Where the first one cannot be used where it goes, it stays, and who came in its place does not get it.
        let fault = InvalidResource { kind: Kind::Listener, name: "a".into(), field: "f".into(), reason: "odd".into() };
        let kept = talk.judged(EnvoyKind::Listener, &[door("c", 1), door("a", 4), door("b", 3)], &[], &[fault]);
        let error = kept.verdict.error.unwrap();
        assert_eq!(
            error.lines().collect::<Vec<_>>(),
            [
                "Listener a: Listener a: f: odd",
                "Listener c: address: 127.0.0.1:1 is the address of the listener a, and one address is for one listener"
            ]
        );
    }
}

#[test]
fn who_was_refused_an_address_gets_it_when_it_is_free_though_nobody_tells_of_it_again() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    talk.hears(EnvoyKind::Listener, &[door("a", 1), door("c", 2)]);
    for name in ["b", "d"] {
        assert!(
            talk.hears(EnvoyKind::Listener, &[door(name, 1)]).verdict.error.unwrap().starts_with(&format!("Listener {name}: "))
        );
    }
    let silent = talk.hears(EnvoyKind::Listener, &[door("c", 3)]);
    assert_eq!((&silent.verdict.error, opened(&silent)), (&None, vec![("c".to_owned(), 3)]), "it is refused once");
    let gone = talk.judged(EnvoyKind::Listener, &[], &["a"], &[]);
    assert_eq!((&gone.verdict.error, opened(&gone)), (&None, vec![("b".to_owned(), 1)]));
    assert!(gone.updates.iter().any(|update| update.kind == Kind::Listener && update.removed == ["a".into()]));
    talk.judged(EnvoyKind::Listener, &[], &["d"], &[]);
    assert_eq!(opened(&talk.judged(EnvoyKind::Listener, &[], &["b"], &[])), [], "what is gone by itself does not come");
    let held = talk.follower.hello().into_iter().find(|says| says.kind == Some(EnvoyKind::Listener)).unwrap();
    assert_eq!(
        held.initial.keys().map(|name| &**name).collect::<Vec<_>>(),
        ["c"],
        "of the others it is not said that they are here"
    );
}

#[test]
fn an_address_is_taken_over_when_who_had_it_has_left() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    talk.hears(EnvoyKind::Listener, &[door("a", 1)]);
    let mut leaves = listener("a", None);
    leaves["address"]["socket_address"]["port_value"] = 2.into();
    let waits = talk.hears(EnvoyKind::Listener, &[leaves, door("b", 1)]);
    assert_eq!((&waits.verdict.error, opened(&waits)), (&None, vec![]), "a stays where it is until its routes are there");
    let wake = talk.follower.world().wake().unwrap();
    assert!(wake > talk.now, "nothing is to be done before");
    let table = talk.hears(EnvoyKind::Routes, &[routes("a-routes", "c")]);
    assert_eq!(opened(&table), [("a".to_owned(), 2), ("b".to_owned(), 1)], "both at once");
}

#[test]
fn what_was_on_disk_of_a_bootstrap_stands_for_as_long_as_that_says_it() {
    let now = heddle_node::clock::now();
    let whole = BTreeSet::from([EnvoyKind::Cluster, EnvoyKind::Listener]);
    let node = |doors: &[Value]| {
        let statics: Vec<_> = doors.iter().map(|door| decode(EnvoyKind::Listener, door).unwrap()).collect();
        Follower::new(Dialect::Delta, whole.clone(), &statics, now).map_err(|_| ()).unwrap()
    };
    let kept = |doors: &[Value], disk: &Holdings| {
        let mut disk = disk.clone();
        node(doors).world().sift(&mut disk);
        let names = |kind: Kind| disk.list(kind).map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        (names(Kind::Listener), names(Kind::Route).len())
    };
    let mut before = node(&[door("a", 1), door("b", 2)]);
    before.hello();
    let mut talk = Talk { follower: before, dialect: Dialect::Delta, now, turn: 0 };
    talk.hears(EnvoyKind::Cluster, &[]);
    talk.hears(EnvoyKind::Listener, &[door("told", 3)]);
    let mut disk = Holdings::default();
    talk.follower.world().take_encoded().into_iter().for_each(|(kind, name, held)| disk.insert(kind, name, held));
    let all = |names: &[&str]| (names.iter().map(ToString::to_string).collect::<Vec<_>>(), names.len());
    assert_eq!(kept(&[door("a", 1), door("b", 2)], &disk), all(&["a", "b", "told"]), "nothing has changed");
    assert_eq!(kept(&[door("a", 1)], &disk), all(&["a", "told"]), "its routes go with it");
    assert_eq!(kept(&[door("a", 1), door("b", 4)], &disk), all(&["a", "told"]), "another address");
    let mut narrower = door("b", 2);
    narrower["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["domains"] =
        json!(["b.example"]);
    assert_eq!(kept(&[narrower], &disk), all(&["told"]), "other routes");
    assert_eq!(kept(&[], &disk), all(&["told"]));
}

#[test]
fn what_was_on_disk_of_a_listener_stays_while_its_newest_version_is_refused() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[eds_cluster("c")]);
    talk.hears(EnvoyKind::Endpoints, &[assignment("c", 1)]);
    let mut sent = door("a", 1);
    sent["filter_chains"][0]["filters"][0]["typed_config"]["route_config"] = routes("r", "c");
    talk.hears(EnvoyKind::Listener, &[sent, door("b", 2)]);
    let mut disk = Holdings::default();
    talk.follower.world().take_encoded().into_iter().for_each(|(kind, name, held)| disk.insert(kind, name, held));

    let mut bad = door("a", 1);
    bad["transparent"] = json!(true);
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let mut talk = Talk::new(dialect);
        talk.hears(EnvoyKind::Cluster, &[]);
        assert!(talk.hears(EnvoyKind::Listener, &[bad.clone()]).verdict.error.is_some());
        let kept = kept::of(talk.follower.unusable(), &disk);
        let names = |kind: Kind| kept.iter().filter(|(of, _)| *of == kind).map(|(_, name)| name.to_string()).collect::<Vec<_>>();
        assert_eq!((names(Kind::Listener), names(Kind::Upstream)), (vec!["a".to_owned()], vec!["c".to_owned()]));
        assert!(!names(Kind::Route).is_empty() && names(Kind::Route).iter().all(|name| name.starts_with("a/")));
        let gone = match dialect {
            Dialect::Delta => talk.judged(EnvoyKind::Listener, &[], &["a"], &[]),
            Dialect::Sotw => talk.hears(EnvoyKind::Listener, &[]),
        };
        assert!(gone.verdict.error.is_none() && kept::of(talk.follower.unusable(), &disk).is_empty());
        talk.hears(EnvoyKind::Listener, &[bad.clone()]);
        talk.hears(EnvoyKind::Listener, &[door("a", 1)]);
        assert!(talk.follower.unusable().is_empty(), "one that can be used is there");
    }
}

#[test]
fn key_material_of_no_use_is_refused_with_what_holds_it() {
    let material = |text: &str| json!({"inline_string": text});
    let pair = json!({"certificate_chain": material("C"), "private_key": material("K")});
    let tls = |kind: &str, context: Value| json!({"name": "tls", "typed_config": any(&format!("envoy.extensions.transport_sockets.tls.v3.{kind}"), json!({"common_tls_context": context}))});
    let mut talk = Talk::new(Dialect::Delta);
    let mut cluster = eds_cluster("c");
    cluster["transport_socket"] = tls("UpstreamTlsContext", json!({"validation_context": {"trusted_ca": material("R")}}));
    let mut shows = door("l", 1);
    shows["filter_chains"][0]["transport_socket"] = tls("DownstreamTlsContext", json!({"tls_certificates": [pair]}));
    let secret = json!({"name": "s", "validation_context": {"trusted_ca": material("R")}});
    let context = "transport_socket.typed_config.common_tls_context";
    for (kind, resource, field) in [
        (EnvoyKind::Cluster, cluster, format!("Cluster c: {context}.validation_context.trusted_ca: ")),
        (EnvoyKind::Listener, shows, format!("Listener l: filter_chains[0].{context}.tls_certificates[0].certificate_chain: ")),
        (EnvoyKind::Secret, secret, "Secret s: validation_context.trusted_ca: ".to_owned()),
    ] {
        let outcome = talk.hears(kind, &[resource]);
        let error = outcome.verdict.error.clone().unwrap();
        assert!(error.starts_with(&field) && outcome.updates.is_empty(), "{error}");
    }
}

/// The filters of the second chain were skipped: the first one has a longer name, though none that says more about this one.
#[test]
fn a_name_goes_by_the_filters_of_the_chain_that_says_most_about_it() {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[eds_cluster("c")]);
    talk.hears(EnvoyKind::Endpoints, &[assignment("c", 1)]);
    let mut door = listener("l", Some(routes("r", "c")));
    let chain = |names: Value| {
        let mut chain = door["filter_chains"][0].clone();
        chain["filter_chain_match"] = json!({"server_names": names});
        chain
    };
    door["filter_chains"] = json!([chain(json!(["*.b.example", "very-long.other.example"])), chain(json!(["a.b.example"]))]);
    let live = talk.hears(EnvoyKind::Listener, &[door]);
    let of = |name: &str| {
        let all = live.updates.iter().flat_map(|update| &update.set).filter_map(|set| match &set.resource {
            Resource::Route(route) => Some(route),
            _ => None,
        });
        let fits = all.filter(|route| hosts::tests::holds(route.matches.vars.as_ref().unwrap(), Some(name)));
        fits.map(|route| route.id.split('/').nth(1).unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    for (name, chain) in [("a.b.example", "1"), ("c.b.example", "0"), ("very-long.other.example", "0")] {
        assert_eq!(of(name), BTreeSet::from([chain.to_owned()]), "{name}");
    }
}
