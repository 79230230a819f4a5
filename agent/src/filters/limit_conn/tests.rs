//! Tests of `limit-conn`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, filter_in, passes};
use super::super::{Filter, Flow, Keep};
use crate::exchange::Exchange;
use crate::exchange::testing::{get, request};

fn paused<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::time::pause();
        story.await
    })
}

/// Asks a filter to the end and gives back the exchange, which holds the place, with how many milliseconds it took.
async fn ask(filter: &Arc<dyn Filter>, fields: &[(&str, &str)]) -> (Flow, Exchange, u128) {
    let mut x = request("GET", "h", "/p", fields);
    let started = clock::now();
    let mut flow = filter.access(&mut x);
    while let Flow::Wait(future) = flow {
        flow = future.await(&mut x);
    }
    (flow, x, started.elapsed().as_millis())
}

fn plain(conn: u64, burst: u64) -> Value {
    json!({"conn": conn, "burst": burst, "default_conn_delay": 0.1, "key": "remote_addr"})
}

#[test]
fn what_is_under_way_counts_until_it_ends() {
    let filter = filter("limit-conn", &plain(2, 0));
    let (mut a, mut b, mut c) = (get("h", "/"), get("h", "/"), get("h", "/"));
    assert!(passes(filter.access(&mut a)) && passes(filter.access(&mut b)));
    let refusal = answer(filter.access(&mut c));
    assert_eq!((refusal.head.status, refusal.body.len()), (503, 0));
    drop(c);
    assert!(!passes(filter.access(&mut get("h", "/"))), "a refused one held no place");
    drop(a);
    let mut d = get("h", "/");
    assert!(passes(filter.access(&mut d)));
    assert!(!passes(filter.access(&mut get("h", "/"))));
}

#[test]
fn what_is_beyond_waits_longer_the_more_there_are() {
    paused(async {
        let mut config = plain(1, 2);
        config["only_use_default_delay"] = json!(true);
        let filter = filter("limit-conn", &config);
        let mut held = Vec::new();
        for expected in [0, 100, 200] {
            let (flow, x, took) = ask(&filter, &[]).await;
            assert!(passes(flow) && (expected..=expected + 2).contains(&took), "{took}");
            held.push(x);
        }
        assert!(!passes(ask(&filter, &[]).await.0));
        held.clear();
        assert_eq!(ask(&filter, &[]).await.2, 0);
    });
}

#[test]
fn experience_says_how_long_the_next_one_waits() {
    paused(async {
        let filter = filter("limit-conn", &plain(1, 1));
        let (_, first, _) = ask(&filter, &[]).await;
        tokio::time::advance(Duration::from_millis(300)).await;
        drop(first);
        let (_, _first, _) = ask(&filter, &[]).await;
        let took = ask(&filter, &[]).await.2;
        assert!((200..=202).contains(&took), "the mean of 100 and 300, not {took}");
    });
}

#[test]
fn a_client_that_goes_away_while_it_waits_holds_no_place() {
    paused(async {
        let filter = filter("limit-conn", &plain(1, 1));
        let (_, first, _) = ask(&filter, &[]).await;
        let mut waiting = get("h", "/");
        assert!(matches!(filter.access(&mut waiting), Flow::Wait(_)));
        assert!(!passes(filter.access(&mut get("h", "/"))));
        drop(waiting);
        drop(first);
        assert_eq!(ask(&filter, &[]).await.2, 0);
    });
}

#[test]
fn refusals_say_what_they_are_told_to() {
    let mut config = plain(1, 0);
    config["rejected_code"] = json!(429);
    config["rejected_msg"] = json!("too many");
    let filter = filter("limit-conn", &config);
    let mut first = get("h", "/");
    assert!(passes(filter.access(&mut first)));
    let refusal = answer(filter.access(&mut get("h", "/")));
    assert_eq!((refusal.head.status, &refusal.body[..]), (429, &b"{\"error_msg\":\"too many\"}\n"[..]));
}

#[test]
fn keys_keep_requests_apart() {
    for (key, kind, same) in [("http_x_u", "var", false), ("$http_x_u!", "var_combination", false), ("x", "constant", true)] {
        let config = json!({"conn": 1, "burst": 0, "default_conn_delay": 1, "key": key, "key_type": kind});
        let filter = filter("limit-conn", &config);
        let (mut a, mut b) = (request("GET", "h", "/", &[("X-U", "a")]), request("GET", "h", "/", &[("X-U", "b")]));
        assert!(passes(filter.access(&mut a)));
        assert_eq!(passes(filter.access(&mut b)), !same, "{kind}");
    }
    let chained = filter("limit-conn", &json!({"conn": 1, "burst": 0, "default_conn_delay": 1, "ip_strategy": {"depth": 1}}));
    let behind = |address: &str| {
        let mut x = request("GET", "h", "/", &[("X-Forwarded-For", address)]);
        x.remote = ([198, 51, 100, 1], 0).into();
        x
    };
    let (mut a, mut b) = (behind("1.1.1.1"), behind("2.2.2.2"));
    assert!(passes(chained.access(&mut a)) && passes(chained.access(&mut b)));
    assert!(!passes(chained.access(&mut behind("1.1.1.1"))));
}

#[test]
fn all_rules_must_hold_and_what_one_refuses_no_other_counts() {
    let rules = json!([{"conn": 2, "burst": 0, "key": "all"}, {"conn": 1, "burst": 0, "key": "$http_x_u"}]);
    let filter = filter("limit-conn", &json!({"default_conn_delay": 1, "rules": rules}));
    let of = |user: &str| request("GET", "h", "/", &[("X-U", user)]);
    let (mut a, mut again, mut b) = (of("a"), of("a"), of("b"));
    assert!(passes(filter.access(&mut a)));
    assert!(!passes(filter.access(&mut again)), "the rule of the user");
    assert!(passes(filter.access(&mut b)), "the refused one has left the rule of all");
    assert!(!passes(filter.access(&mut get("h", "/"))), "the rule of all, though there is no user");
    drop(a);
    assert!(passes(filter.access(&mut get("h", "/"))));
}

#[test]
fn two_filters_of_one_request_each_hold_their_place() {
    let (one, two) = (filter("limit-conn", &plain(1, 0)), filter("limit-conn", &plain(1, 0)));
    let mut x = get("h", "/");
    assert!(passes(one.access(&mut x)) && passes(two.access(&mut x)));
    for filter in [&one, &two] {
        assert!(!passes(filter.access(&mut get("h", "/"))));
    }
    drop(x);
    for filter in [&one, &two] {
        assert!(passes(filter.access(&mut get("h", "/"))));
    }
}

#[test]
fn who_waits_is_bounded_and_degradation_lets_the_others_pass() {
    for degrades in [false, true] {
        let mut config = plain(1, 20_000);
        config["allow_degradation"] = json!(degrades);
        let filter = filter("limit-conn", &config);
        let mut held: Vec<_> = (0..10_001).map(|_| get("h", "/")).collect();
        let flows: Vec<_> = held.iter_mut().map(|x| filter.access(x)).collect();
        assert_eq!(flows.iter().filter(|flow| matches!(flow, Flow::Wait(_))).count(), 10_000);
        assert_eq!(passes(filter.access(&mut get("h", "/"))), degrades);
    }
}

#[test]
fn places_are_counted_exactly_over_threads_and_outlive_what_does_not_concern_them() {
    let keep = Keep::default();
    let filter = filter_in("limit-conn", &plain(100, 0), None, &keep);
    let (entered, leave) = (std::sync::Barrier::new(4), std::sync::Barrier::new(5));
    let mut config = plain(100, 0);
    config["rejected_code"] = json!(429);
    let changed = filter_in("limit-conn", &config, None, &keep);
    std::thread::scope(|scope| {
        let hold = || {
            let mut held: Vec<_> = (0..50).map(|_| get("h", "/")).collect();
            let passed = held.iter_mut().map(|x| filter.access(x)).filter(|flow| matches!(flow, Flow::Continue)).count();
            entered.wait();
            leave.wait();
            passed
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(hold)).collect();
        leave.wait();
        let passed: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(passed, 100);
    });
    let mut first = get("h", "/");
    assert!(passes(filter.access(&mut first)), "all are gone");
    let mut held: Vec<_> = (0..100).map(|_| get("h", "/")).collect();
    assert_eq!(held.iter_mut().map(|x| changed.access(x)).filter(|flow| matches!(flow, Flow::Continue)).count(), 99);
}

#[test]
fn mistakes_are_refused() {
    let with = |field: &str, value: Value| {
        let mut config = plain(1, 1);
        config[field] = value;
        config
    };
    for (config, path) in [
        (json!({"default_conn_delay": 1, "key": "a"}), ""),
        (json!({"conn": 1, "default_conn_delay": 1, "key": "a"}), ""),
        (json!({"conn": 1, "burst": 0, "default_conn_delay": 1}), ""),
        (json!({"conn": 1, "burst": 0, "key": "a"}), ""),
        (with("rules", json!([{"conn": 1, "burst": 1, "key": "a"}])), ""),
        (with("conn", json!(0)), "conn"),
        (with("burst", json!(-1)), "burst"),
        (with("default_conn_delay", json!(0)), "default_conn_delay"),
        (with("default_conn_delay", json!(1e9)), "default_conn_delay"),
        (with("key", json!("")), "key"),
        (with("key_type", json!("x")), "key_type"),
        (with("rejected_code", json!(600)), "rejected_code"),
        (with("rejected_msg", json!("")), "rejected_msg"),
        (with("policy", json!("redis")), ""),
        (with("policy", json!("redis-cluster")), "policy"),
        (with("policy", json!("gossip")), "policy"),
        (json!({"default_conn_delay": 1, "rules": []}), "rules"),
        (json!({"default_conn_delay": 1, "rules": [{"conn": 0, "burst": 1, "key": "a"}]}), "rules[0].conn"),
        (json!({"default_conn_delay": 1, "rules": [{"conn": 1, "burst": 1, "key": ""}]}), "rules[0].key"),
    ] {
        assert_eq!(faults("limit-conn", &config), [path], "{config}");
    }
}
