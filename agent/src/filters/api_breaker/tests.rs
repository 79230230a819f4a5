//! Tests of `api-breaker`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, filter_in, passes};
use super::super::{Filter, Keep};
use crate::exchange::testing::get;
use crate::exchange::{Attempt, EndpointName, Exchange, Reason};

fn paused<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::time::pause();
        story.await
    })
}

async fn later(seconds: f64) {
    tokio::time::advance(Duration::from_secs_f64(seconds)).await;
}

fn attempt(status: Result<u16, Reason>, ms: u64) -> Attempt {
    Attempt {
        endpoint: EndpointName::new("node".into(), ([192, 0, 2, 9], 80).into()),
        status: status.ok(),
        outcome: status.ok(),
        connect: Duration::ZERO,
        header: Some(Duration::from_millis(ms)),
        total: None,
        failure: status.err(),
        broke: false,
    }
}

/// Sends a request on to an upstream that does this; false when the breaker answers.
fn ask(filter: &Arc<dyn Filter>, target: &str, status: Result<u16, Reason>) -> bool {
    let mut x = get("h", target);
    let passes = passes(filter.access(&mut x));
    if passes {
        x.attempts.push(attempt(status, 5));
    }
    filter.log(&x);
    passes
}

#[test]
fn a_refusal_in_the_words_of_grpc_counts_as_what_it_means() {
    let counts = json!({"break_response_code": 502, "unhealthy": {"http_statuses": [503], "failures": 1}});
    for config in [counts, json!({"expression": "ResponseCodeRatio(503, 504, 0, 600) > 0.3"})] {
        paused(async {
            let filter = filter("api-breaker", &config);
            for outcome in [200, 503] {
                later(0.2).await;
                assert!(!opens(&filter), "{config}");
                let mut x = get("h", "/");
                x.attempts.push(Attempt { outcome: Some(outcome), ..attempt(Ok(200), 5) });
                filter.log(&x);
            }
            assert!(opens(&filter), "{config}");
        });
    }
}

fn opens(filter: &Arc<dyn Filter>) -> bool {
    !passes(filter.access(&mut get("h", "/")))
}

#[test]
fn failures_open_it_for_ever_longer() {
    paused(async {
        let filter = filter("api-breaker", &json!({"break_response_code": 502, "max_breaker_sec": 5}));
        for _ in 0..3 {
            assert!(ask(&filter, "/", Ok(500)));
        }
        assert!(opens(&filter));
        assert!(ask(&filter, "/other", Ok(200)), "another path");
        later(2.1).await;
        for _ in 0..3 {
            assert!(ask(&filter, "/", Ok(500)));
        }
        later(3.9).await;
        assert!(opens(&filter));
        later(0.2).await;
        for _ in 0..3 {
            assert!(ask(&filter, "/", Ok(500)));
        }
        later(5.1).await;
        assert!(!opens(&filter), "no longer than max_breaker_sec");
        for _ in 0..3 {
            assert!(ask(&filter, "/", Ok(200)));
        }
        assert!(ask(&filter, "/", Ok(500)) && ask(&filter, "/", Ok(500)) && !opens(&filter), "all is forgiven");
    });
}

#[test]
fn statuses_and_counts_are_the_users() {
    let filter = filter(
        "api-breaker",
        &json!({"break_response_code": 599, "unhealthy": {"http_statuses": [502, 504], "failures": 2}, "healthy": {"http_statuses": [201], "successes": 1}}),
    );
    for _ in 0..5 {
        assert!(ask(&filter, "/", Ok(500)) && ask(&filter, "/", Ok(200)));
    }
    assert!(ask(&filter, "/", Ok(504)) && ask(&filter, "/", Ok(201)), "one success forgives");
    assert!(ask(&filter, "/", Err(Reason::UpstreamConnect)) && ask(&filter, "/", Err(Reason::UpstreamTimeout)));
    assert_eq!(answer(filter.access(&mut get("h", "/"))).head.status, 599);
}

#[test]
fn what_the_upstream_did_not_do_does_not_count() {
    let filter =
        filter("api-breaker", &json!({"break_response_code": 502, "unhealthy": {"http_statuses": [500], "failures": 1}}));
    let mut x = get("h", "/");
    x.answer.status = 500;
    filter.log(&x);
    assert!(!opens(&filter));
    assert!(ask(&filter, "/", Err(Reason::ClientClosed)) && !opens(&filter));
}

#[test]
fn the_answer_has_fields_only_with_a_body() {
    let fields = json!([{"key": "Retry-After", "value": "5"}, {"key": "X-Host", "value": "$host"}]);
    let one = json!({"failures": 1});
    let with =
        json!({"break_response_code": 503, "break_response_body": "wait", "break_response_headers": fields, "unhealthy": one});
    let filter_with = filter("api-breaker", &with);
    assert!(ask(&filter_with, "/", Ok(500)));
    let told = answer(filter_with.access(&mut get("h", "/")));
    let field = |name: &str| told.head.fields.get_str(name).map(str::to_owned);
    assert_eq!((&told.body[..], field("retry-after"), field("x-host")), (&b"wait"[..], Some("5".into()), Some("h".into())));
    let without = filter("api-breaker", &json!({"break_response_code": 503, "break_response_headers": fields, "unhealthy": one}));
    assert!(ask(&without, "/", Ok(500)));
    let told = answer(without.access(&mut get("h", "/")));
    assert!(told.body.is_empty() && told.head.fields.is_empty());
}

#[test]
fn an_expression_opens_it_as_in_traefik() {
    paused(async {
        let config = json!({
            "expression": "ResponseCodeRatio(500, 600, 0, 600) > 0.5", "check_period": 0.001, "fallback_duration": 4, "recovery_duration": 2,
            "break_response_body": "open"
        });
        let filter = filter("api-breaker", &config);
        for status in [200, 500, 500] {
            assert!(ask(&filter, "/", Ok(status)));
            later(0.01).await;
        }
        let told = answer(filter.access(&mut get("h", "/any")));
        assert_eq!((told.head.status, &told.body[..]), (503, &b"open"[..]));
        later(3.95).await;
        assert!(opens(&filter));
        later(0.1).await;
        assert!(opens(&filter), "recovering begins with nothing");
        later(1.9).await;
        let passed = (0..100).filter(|_| ask(&filter, "/", Ok(200))).count();
        assert!((30..=50).contains(&passed), "{passed}");
        later(0.2).await;
        assert!((0..10).all(|_| ask(&filter, "/", Ok(200))));
    });
}

#[test]
fn slow_answers_open_it_too() {
    paused(async {
        let config = json!({"expression": "LatencyAtQuantileMS(50.0) > 100", "break_response_code": 429});
        let filter = filter("api-breaker", &config);
        let slow = |ms: u64| {
            let mut x: Exchange = get("h", "/");
            x.attempts.push(attempt(Ok(200), ms));
            filter.log(&x);
        };
        slow(20);
        later(0.2).await;
        slow(300);
        later(0.2).await;
        assert!(!opens(&filter));
        slow(300);
        assert_eq!(answer(filter.access(&mut get("h", "/"))).head.status, 429);
    });
}

#[test]
fn state_outlives_a_change_that_does_not_concern_it() {
    for config in
        [json!({"break_response_code": 502, "unhealthy": {"failures": 1}}), json!({"expression": "NetworkErrorRatio() > 0.1"})]
    {
        let keep = Keep::default();
        let first = filter_in("api-breaker", &config, None, &keep);
        for status in [Err(Reason::UpstreamConnect), Ok(500)] {
            ask(&first, "/", status);
        }
        let mut changed = config.clone();
        changed["break_response_code"] = json!(599);
        let second = filter_in("api-breaker", &changed, None, &keep);
        assert_eq!(answer(second.access(&mut get("h", "/"))).head.status, 599);
    }
}

#[test]
fn mistakes_are_refused() {
    let with = |field: &str, value: Value| {
        let mut config = json!({"break_response_code": 502});
        config[field] = value;
        config
    };
    for (config, path) in [
        (json!({}), ""),
        (with("break_response_code", json!(600)), "break_response_code"),
        (with("break_response_headers", json!([{"key": "a b", "value": "x"}])), "break_response_headers[0].key"),
        (with("break_response_headers", json!([{"key": "a", "value": ""}])), "break_response_headers[0].value"),
        (with("max_breaker_sec", json!(2)), "max_breaker_sec"),
        (with("unhealthy", json!({"http_statuses": [499]})), "unhealthy.http_statuses[0]"),
        (with("unhealthy", json!({"http_statuses": []})), "unhealthy.http_statuses"),
        (with("unhealthy", json!({"failures": 0})), "unhealthy.failures"),
        (with("healthy", json!({"http_statuses": [500]})), "healthy.http_statuses[0]"),
        (with("healthy", json!({"successes": 0})), "healthy.successes"),
        (with("expression", json!("Nope() > 1")), "expression"),
        (with("check_period", json!(0)), "check_period"),
        (with("fallback_duration", json!(0)), "fallback_duration"),
        (with("recovery_duration", json!(-1)), "recovery_duration"),
    ] {
        assert_eq!(faults("api-breaker", &config), [path], "{config}");
    }
}
