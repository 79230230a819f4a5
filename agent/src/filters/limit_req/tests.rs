//! Tests of `limit-req`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, filter_in, passes};
use super::super::{Filter, Flow, Keep};
use crate::exchange::testing::request;

/// Asks a filter on paused time and says what came of it and after how many milliseconds.
async fn ask(filter: &Arc<dyn Filter>, fields: &[(&str, &str)]) -> (Flow, u128) {
    let mut x = request("GET", "h", "/p", fields);
    let started = clock::now();
    let mut flow = filter.access(&mut x);
    while let Flow::Wait(future) = flow {
        flow = future.await(&mut x);
    }
    (flow, started.elapsed().as_millis())
}

fn paused<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::time::pause();
        story.await
    })
}

/// Statuses (0 for passed) and delays of requests that come all at once.
fn at_once(config: &Value, count: usize) -> Vec<(u16, u128)> {
    paused(async {
        let filter = filter("limit-req", config);
        let asked = (0..count).map(|_| ask(&filter, &[]));
        let told = futures_util::future::join_all(asked).await;
        let status = |flow: Flow| if passes(flow) { 0 } else { 503 };
        told.into_iter().map(|(flow, took)| (status(flow), took)).collect()
    })
}

#[test]
fn what_comes_too_fast_waits_and_then_is_refused() {
    let told = at_once(&json!({"rate": 10, "burst": 2, "key": "remote_addr"}), 4);
    assert_eq!(told.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [0, 0, 0, 503]);
    assert_eq!(told[0].1, 0);
    assert!((100..=102).contains(&told[1].1) && (200..=202).contains(&told[2].1), "{told:?}");
}

#[test]
fn nodelay_lets_the_burst_pass_at_once() {
    let told = at_once(&json!({"rate": 0.5, "burst": 2, "nodelay": true, "key": "remote_addr"}), 4);
    assert_eq!(told, [(0, 0), (0, 0), (0, 0), (503, 0)]);
}

#[test]
fn refusals_say_what_they_are_told_to() {
    paused(async {
        let plain = filter("limit-req", &json!({"rate": 1, "burst": 0, "key": "remote_addr"}));
        assert!(passes(ask(&plain, &[]).await.0));
        let refusal = answer(ask(&plain, &[]).await.0);
        assert_eq!((refusal.head.status, refusal.body.len(), refusal.head.fields.get("retry-after")), (503, 0, None));
        let told = json!({"rate": 1, "burst": 0, "key": "remote_addr", "rejected_code": 429, "rejected_msg": "slow down"});
        let told = filter("limit-req", &told);
        assert!(passes(ask(&told, &[]).await.0));
        let refusal = answer(ask(&told, &[]).await.0);
        assert_eq!((refusal.head.status, &refusal.body[..]), (429, &b"{\"error_msg\":\"slow down\"}\n"[..]));
        let plain =
            filter("limit-req", &json!({"rate": 1, "burst": 0, "key": "x", "key_type": "constant", "rejected_body": "later"}));
        assert!(passes(ask(&plain, &[]).await.0));
        let refusal = answer(ask(&plain, &[]).await.0);
        assert_eq!((refusal.head.fields.get_str("content-type"), &refusal.body[..]), (Some("text/plain"), &b"later"[..]));
    });
}

#[test]
fn responses_tell_what_is_left() {
    paused(async {
        let told = json!({"rate": 0.1, "burst": 1, "nodelay": true, "key": "remote_addr", "show_limit_quota_header": true});
        let filter = filter("limit-req", &told);
        let quota = |x: &mut crate::exchange::Exchange| {
            let mut head = crate::http::ResponseHead::default();
            filter.response_head(x, &mut head);
            ["limit", "remaining", "reset"].map(|name| head.fields.get_str(&format!("x-ratelimit-{name}")).unwrap().to_owned())
        };
        for (passed, left) in [(true, ["2", "1", "0"]), (true, ["2", "0", "10"]), (false, ["2", "0", "10"])] {
            let mut x = request("GET", "h", "/p", &[]);
            assert_eq!(passes(filter.access(&mut x)), passed);
            assert_eq!(quota(&mut x), left);
        }
    });
}

#[test]
fn each_key_has_its_pace() {
    paused(async {
        let of = |key: &str, kind: &str| filter("limit-req", &json!({"rate": 1, "burst": 0, "key": key, "key_type": kind}));
        for (key, kind, same) in [("http_x_u", "var", false), ("$http_x_u!", "var_combination", false), ("x", "constant", true)] {
            let filter = of(key, kind);
            assert!(passes(ask(&filter, &[("X-U", "a")]).await.0));
            assert_eq!(passes(ask(&filter, &[("X-U", "b")]).await.0), !same, "{kind}");
            assert!(!passes(ask(&filter, &[("X-U", "a")]).await.0));
        }
    });
}

#[test]
fn a_token_bucket_refuses_as_traefik_does() {
    paused(async {
        let filter = filter("limit-req", &json!({"average": 60, "period": 60, "burst": 2}));
        assert!(passes(ask(&filter, &[]).await.0) && passes(ask(&filter, &[]).await.0));
        let refusal = answer(ask(&filter, &[]).await.0);
        let told = |name: &str| refusal.head.fields.get_str(name).map(str::to_owned);
        assert_eq!(
            (refusal.head.status, told("retry-after"), told("x-retry-in")),
            (429, Some("1".into()), Some("0.500s".into()))
        );
        tokio::time::advance(Duration::from_millis(700)).await;
        let (flow, took) = ask(&filter, &[]).await;
        assert!(passes(flow) && (300..=302).contains(&took), "{took}");
    });
}

#[test]
fn an_address_of_the_chain_of_proxies_may_be_the_key() {
    paused(async {
        let filter = filter("limit-req", &json!({"rate": 1, "burst": 0, "ip_strategy": {"depth": 2}}));
        let behind = |chain: &'static str| {
            let mut x = request("GET", "h", "/", &[("X-Forwarded-For", chain)]);
            x.remote = ([198, 51, 100, 1], 0).into();
            passes(filter.access(&mut x))
        };
        assert!(behind("1.1.1.1, 2.2.2.2") && behind("3.3.3.3, 2.2.2.2"));
        assert!(!behind("9.9.9.9, 1.1.1.1, 4.4.4.4"));
    });
}

#[test]
fn who_waits_is_bounded_and_degradation_lets_the_others_pass() {
    for (degrades, others) in [(false, (503, 0)), (true, (0, 0))] {
        let config = json!({"rate": 1000, "burst": 20_000, "key": "remote_addr", "allow_degradation": degrades});
        let told = at_once(&config, 10_004);
        assert_eq!(told.last(), Some(&others));
        assert_eq!(told.iter().filter(|(_, took)| *took > 0).count(), 10_000);
    }
}

#[test]
fn a_client_that_goes_away_waits_no_more() {
    paused(async {
        let filter = filter("limit-req", &json!({"rate": 1, "burst": 1, "key": "remote_addr"}));
        assert!(passes(ask(&filter, &[]).await.0));
        let mut x = request("GET", "h", "/", &[]);
        assert!(matches!(filter.access(&mut x), Flow::Wait(_)), "and is dropped");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(passes(ask(&filter, &[]).await.0));
    });
}

#[test]
fn the_pace_outlives_a_change_that_does_not_concern_it_and_is_exact_over_threads() {
    let keep = Keep::default();
    let of = |config: Value| filter_in("limit-req", &config, None, &keep);
    let first = of(json!({"rate": 0.001, "burst": 99, "nodelay": true, "key": "remote_addr"}));
    let count = || (0..100).filter(|_| passes(first.access(&mut request("GET", "h", "/", &[])))).count();
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 100);
    let one = |filter: &Arc<dyn Filter>| passes(filter.access(&mut request("GET", "h", "/", &[])));
    assert!(!one(&of(json!({"rate": 0.001, "burst": 99, "nodelay": true, "key": "remote_addr", "rejected_code": 429}))));
    assert!(one(&of(json!({"rate": 0.002, "burst": 99, "nodelay": true, "key": "remote_addr"}))));
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({}), ""),
        (json!({"rate": 1, "key": "a"}), ""),
        (json!({"rate": 1, "burst": 1}), ""),
        (json!({"rate": 1, "burst": 1, "key": "a", "average": 1}), ""),
        (json!({"rate": 0, "burst": 1, "key": "a"}), "rate"),
        (json!({"rate": 1, "burst": -1, "key": "a"}), "burst"),
        (json!({"rate": 1, "burst": 1, "key": ""}), "key"),
        (json!({"rate": 1, "burst": 1, "key": "a", "key_type": "x"}), "key_type"),
        (json!({"rate": 1, "burst": 1, "key": "a", "rejected_code": 600}), "rejected_code"),
        (json!({"rate": 1, "burst": 1, "key": "a", "rejected_msg": ""}), "rejected_msg"),
        (json!({"rate": 1, "burst": 1, "key": "a", "policy": "redis"}), ""),
        (json!({"rate": 1, "burst": 1, "key": "a", "policy": "redis-cluster"}), "policy"),
        (json!({"rate": 1, "burst": 1, "key": "a", "policy": "gossip"}), "policy"),
        (
            json!({"rate": 1, "burst": 1, "key": "a", "policy": "redis", "redis_host": "a", "show_limit_quota_header": true}),
            "show_limit_quota_header",
        ),
        (json!({"average": 0}), "average"),
        (json!({"average": 1, "period": 0}), "period"),
        (json!({"average": 1, "nodelay": true}), "nodelay"),
        (json!({"average": 1, "ip_strategy": {"excluded_ips": ["x"]}}), "ip_strategy.excluded_ips[0]"),
        (json!({"average": 1, "ip_strategy": {"ipv6_subnet": 129}}), "ip_strategy.ipv6_subnet"),
    ] {
        assert_eq!(faults("limit-req", &config), [path], "{config}");
    }
}
