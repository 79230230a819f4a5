//! How upstreams are used by Envoys that follow us, as by our own gateways: limits of time, further tries, and who is given the next request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use heddle_integration::app::App;
use heddle_integration::client;
use heddle_integration::envoy::{both, everywhere};
use heddle_integration::heddle::Heddle;
use heddle_integration::load::Load;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// Where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn nodes(all: &[SocketAddr]) -> Value {
    all.iter().map(|node| (node.to_string(), json!(1))).collect::<serde_json::Map<String, Value>>().into()
}

#[test]
fn who_does_not_answer_in_time_is_not_waited_for() {
    let app = App::start();
    everywhere(|heddle| {
        let upstream = json!({ "nodes": nodes(&[app.address]), "timeout": { "connect": 1, "send": 1, "read": 1 } });
        heddle.put("/routes/r", json!({ "uri": "/*", "upstream": upstream }));
        heddle.until_status("/", 200);
        assert_eq!(heddle.get("/hold").status, 504);
        app.let_go();
        assert_eq!(heddle.get("/").status, 200);
        // A route says it for itself.
        let patient = json!({ "connect": 1, "send": 60, "read": 60 });
        let route = json!({ "uri": "/*", "upstream": upstream, "timeout": patient, "plugins": { "response-rewrite": { "headers": { "x-patient": "yes" } } } });
        heddle.put("/routes/r", route);
        until("the patient route", || heddle.get("/").field("x-patient").map(drop));
        let late = std::thread::scope(|scope| {
            let asked = scope.spawn(|| heddle.get("/hold"));
            std::thread::sleep(Duration::from_millis(1_500));
            app.let_go();
            asked.join().unwrap()
        });
        assert_eq!(late.status, 200, "a second is not enough for it");
    });
}

#[test]
fn an_endpoint_where_nobody_listens_costs_no_request() {
    let app = Nginx::saying("here");
    everywhere(|heddle| {
        let route = |retries: u32, mark: &str| {
            let upstream = json!({ "nodes": nodes(&[app.address, nobody()]), "retries": retries });
            let told = json!({ "response-rewrite": { "headers": { "x-mark": mark } } });
            heddle.put("/routes/r", json!({ "uri": "/*", "upstream": upstream, "plugins": told }));
            until(mark, || client::get(heddle.http, "/").ok().filter(|answer| answer.field("x-mark") == Some(mark)));
        };
        route(0, "once");
        let statuses = || (0..20).map(|_| heddle.get("/").status).collect::<Vec<_>>();
        assert!(statuses().iter().any(|status| *status >= 502), "without a further try it is felt");
        route(1, "again");
        assert_eq!(statuses(), [200; 20]);
    });
}

#[test]
fn routes_of_a_host_are_tried_again_as_each_of_them_says() {
    let app = Nginx::saying("here");
    everywhere(|heddle| {
        let route = |name: &str, retries: u32| {
            let upstream = json!({ "nodes": nodes(&[app.address, nobody()]), "retries": retries });
            heddle.put(&format!("/routes/{name}"), json!({ "uri": format!("/{name}"), "upstream": upstream }));
        };
        let status = |name: &str| client::get(heddle.http, &format!("/{name}")).map(|answer| answer.status).ok();
        let known = |name: &str| {
            until(name, || status(name).filter(|status| *status != 404));
        };
        let all_good = |name: &str| assert_eq!([(); 20].map(|()| status(name)), [Some(200); 20], "{name}");
        let again = [("one", 1), ("two", 1), ("twice", 2)];
        again.iter().for_each(|(name, retries)| route(name, *retries));
        again.iter().for_each(|(name, _)| known(name));
        again.iter().for_each(|(name, _)| all_good(name));
        // Beside one of which nothing is sent again, the others are tried as before.
        route("never", 0);
        known("never");
        assert!((0..20).any(|_| status("never") >= Some(502)), "without a further try it is felt");
        again.iter().for_each(|(name, _)| all_good(name));
    });
}

#[test]
fn a_retry_waits_for_each_try_as_long_as_for_one() {
    let app = App::start();
    everywhere(|heddle| {
        let timeout = json!({ "connect": 1, "send": 1, "read": 1 });
        let upstream =
            json!({ "nodes": nodes(&[app.address]), "timeout": timeout, "circuit_breaker": { "retry_budget_percent": 100 } });
        let plugins = json!({ "retry": { "attempts": 3, "budget_percent": 1000 } });
        heddle.put("/routes/r", json!({ "uri": "/*", "upstream": upstream, "plugins": plugins }));
        heddle.until_status("/", 200);
        for (method, tries) in [("GET", 3), ("POST", 1)] {
            let asked = format!("{method} /hold");
            let before = app.count(&asked);
            let answer = client::ask(heddle.http, method, "/hold", &[], b"").expect("an answer");
            assert_eq!(
                (answer.status, app.count(&asked) - before),
                (504, tries),
                "{method}: what may do something twice is sent once"
            );
        }
    });
}

#[test]
fn who_is_down_gets_nothing_where_an_upstream_says_so() {
    let app = App::start();
    everywhere(|heddle| {
        let route = |threshold: Option<u8>, mark: &str| {
            let active =
                json!({ "http_path": "/fail", "healthy": { "interval": 1 }, "unhealthy": { "interval": 1, "http_failures": 1 } });
            let mut upstream = json!({ "nodes": nodes(&[app.address]), "checks": { "active": active } });
            if let Some(threshold) = threshold {
                upstream["panic_threshold"] = json!(threshold);
            }
            heddle.put("/upstreams/u", upstream);
            heddle.put("/routes/r", json!({ "uri": format!("/{mark}"), "upstream_id": "u" }));
        };
        route(Some(0), "never");
        heddle.until_status("/never", 503);
        let before = app.count("GET /never");
        assert!((0..10).all(|_| heddle.get("/never").status == 503));
        assert_eq!(app.count("GET /never"), before);
        route(None, "usual");
        heddle.until_status("/usual", 200);
        assert!((0..10).all(|_| heddle.get("/usual").status == 200), "where nobody is up, all are tried");
    });
}

/// The share of requests that one of four gets that takes a tenth of a second for each, where the others take none.
fn share_of_the_slow_one(heddle: &Heddle, kind: &str) -> f64 {
    let (quick, slow) = (["one", "two", "three"].map(App::saying), App::taking("slow", Duration::from_millis(100)));
    let all: Vec<SocketAddr> = quick.iter().chain([&slow]).map(|app| app.address).collect();
    heddle.put("/upstreams/u", json!({ "nodes": nodes(&all), "type": kind }));
    heddle.put("/routes/r", json!({ "uri": format!("/{kind}"), "upstream_id": "u" }));
    let target = format!("/{kind}");
    heddle.until_status(&target, 200);
    let asked = format!("GET {target}");
    let count = |apps: &[App]| apps.iter().map(|app| app.count(&asked)).sum::<usize>();
    let load = Load::start(heddle.http, &target, 4);
    until("enough requests", || (count(&quick) + slow.count(&asked) > 400).then_some(()));
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    slow.count(&asked) as f64 / (count(&quick) + slow.count(&asked)) as f64
}

#[test]
fn who_is_slow_is_given_less_but_in_turns() {
    everywhere(|heddle| {
        for kind in ["least_conn", "ewma"] {
            let share = share_of_the_slow_one(heddle, kind);
            assert!(share < 0.17, "{kind}: {share}");
        }
        let share = share_of_the_slow_one(heddle, "roundrobin");
        assert!(share > 0.2, "in turns everybody gets the same: {share}");
    });
}

#[test]
fn an_envoy_is_told_which_balancer_it_has_to_be() {
    let app = Nginx::saying("here");
    both(|heddle, envoy| {
        let kinds = [
            ("roundrobin", "ROUND_ROBIN"),
            ("least_conn", "LEAST_REQUEST"),
            ("ewma", "LEAST_REQUEST"),
            ("chash", "RING_HASH"),
            ("maglev", "MAGLEV"),
        ];
        for (kind, _) in kinds {
            let mut upstream = json!({ "nodes": nodes(&[app.address]), "type": kind });
            if matches!(kind, "chash" | "maglev") {
                (upstream["hash_on"], upstream["key"]) = (json!("vars"), json!("remote_addr"));
            }
            heddle.put(&format!("/upstreams/{kind}"), upstream);
            heddle.put(&format!("/routes/{kind}"), json!({ "uri": format!("/{kind}"), "upstream_id": kind }));
        }
        envoy.until_live();
        kinds.iter().for_each(|(kind, _)| drop(heddle.until_status(&format!("/{kind}"), 200)));
        let dump: Value = serde_json::from_slice(&envoy.page("/config_dump?resource=dynamic_active_clusters").body).unwrap();
        let clusters = dump["configs"].as_array().expect("clusters");
        for (kind, policy) in kinds {
            let name = format!("upstreams/{kind}");
            let found = clusters.iter().map(|one| &one["cluster"]).find(|cluster| cluster["name"] == *name).expect("the cluster");
            // In turns is what Envoy does without a word.
            let told = found["lb_policy"].as_str().unwrap_or("ROUND_ROBIN");
            assert_eq!(told, policy, "{kind}: {found}");
        }
    });
}
