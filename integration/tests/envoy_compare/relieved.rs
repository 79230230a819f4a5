//! What relieves endpoints: requests that are dropped or not sent again, health that is obeyed, and connections that are given up when they are old. Both data planes do it to
//! the same requests and connections.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use heddle_integration::ads::any;
use heddle_integration::app::App;
use heddle_integration::client::{self, Answer};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

use super::pair::{Door, Pair, cluster, host};
use super::{APART, COUNTED};

/// A route for everything below `/NAME` to the cluster of that name.
fn route(name: &str) -> Value {
    json!({ "match": { "prefix": format!("/{name}") }, "route": { "cluster": name } })
}

/// The same endpoint, of which so many of ten thousand requests are dropped.
fn relieved(name: &str, nginx: &Nginx, share: u32) -> Value {
    let dropped = json!({ "category": "throttle", "drop_percentage": { "numerator": share, "denominator": "TEN_THOUSAND" } });
    let mut cluster = cluster(name, &[(nginx.address, 1)], json!({}));
    cluster["load_assignment"]["policy"] = json!({ "drop_overloads": [dropped] });
    cluster
}

fn pair(clusters: &[Value]) -> Pair {
    let routes: Vec<Value> = clusters.iter().map(|cluster| route(cluster["name"].as_str().unwrap())).collect();
    Pair::start(&[Door { filters: Vec::new(), hosts: vec![host("all", "*", json!(routes))] }], clusters)
}

fn ask(address: SocketAddr, target: &str) -> Answer {
    client::ask(address, "GET", target, &[], b"").expect("an answer")
}

/// How many of these requests were dropped; all others come through.
fn dropped(address: SocketAddr, target: &str, requests: u32) -> u32 {
    let status = |_: &u32| ask(address, target).status;
    let refused = (0..requests).filter(|number| match status(number) {
        200 => false,
        503 => true,
        other => panic!("{target}: {other}"),
    });
    u32::try_from(refused.count()).unwrap()
}

#[test]
fn what_is_late_is_sent_again_as_long_as_there_is_time_for_all_tries() {
    let app = App::start();
    let retry = |on: &str, count: u32, more: Value| {
        let mut policy = json!({ "retry_on": on, "num_retries": count });
        policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        policy
    };
    let listed = json!({ "per_try_timeout": "0.3s", "retriable_status_codes": [504] });
    let cases = [
        ("whole", "1s", retry("5xx", 3, json!({})), 1),
        ("cut", "1.5s", retry("5xx", 3, json!({ "per_try_timeout": "1s" })), 2),
        ("each", "10s", retry("gateway-error", 2, json!({ "per_try_timeout": "0.3s" })), 3),
        ("silent", "0s", retry("reset", 1, json!({ "per_try_idle_timeout": "0.3s" })), 2),
        ("listed", "10s", retry("retriable-status-codes,connect-failure", 3, listed), 1),
    ];
    let routes = cases.iter().map(|(name, limit, policy, _)| {
        let route = json!({ "cluster": "app", "timeout": limit, "retry_policy": policy });
        json!({ "match": { "prefix": format!("/{name}") }, "route": route })
    });
    let hosts = vec![host("all", "*", routes.collect())];
    let pair = Pair::start(&[Door { filters: Vec::new(), hosts }], &[cluster("app", &[(app.address, 1)], json!({}))]);
    for (who, address) in ["ours", "theirs"].into_iter().zip(pair.both(0)) {
        for (name, _, _, tries) in &cases {
            let target = format!("/{name}/hold/{who}");
            let answer = client::ask(address, "POST", &target, &[], b"an order").expect("an answer");
            assert_eq!((answer.status, app.count(&format!("POST {target}"))), (504, *tries), "{who}: {name}");
        }
    }
}

#[test]
fn who_is_down_is_used_only_where_health_may_be_ignored() {
    let app = App::start();
    let of = |name: &str, more: Value, status: Value| {
        let mut cluster = cluster(name, &[(app.address, 1)], more);
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["health_status"] = status;
        cluster
    };
    let never = json!({ "healthy_panic_threshold": { "value": 0 } });
    let probe = json!({ "timeout": "1s", "interval": "1s", "no_traffic_interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": { "path": "/fail" } });
    let clusters = [
        of("plain", json!({}), json!("UNHEALTHY")),
        of("told", json!({ "common_lb_config": never }), json!("UNHEALTHY")),
        of("probed", json!({ "common_lb_config": never, "health_checks": [probe] }), json!("UNKNOWN")),
    ];
    let pair = pair(&clusters);
    for address in pair.both(0) {
        assert_eq!((ask(address, "/plain").status, ask(address, "/told").status), (200, 503));
        until("the probes to tell", || (ask(address, "/probed").status == 503).then_some(()));
        assert!((0..10).all(|_| ask(address, "/probed").status == 503));
    }
    assert_eq!(app.count("GET /told"), 0, "who is down is asked nothing");
}

#[test]
fn the_same_share_of_requests_is_dropped_and_counted() {
    let nginx = Nginx::saying("up");
    let pair = pair(&[relieved("all", &nginx, 10_000), relieved("some", &nginx, 3_000), relieved("none", &nginx, 0)]);
    for address in pair.both(0) {
        assert_eq!((dropped(address, "/all", 20), dropped(address, "/none", 20)), (20, 0));
    }
    let [ours, theirs] = pair.both(0).map(|address| dropped(address, "/some", COUNTED));
    for (who, count) in [("ours", ours), ("theirs", theirs)] {
        assert!((f64::from(count) / f64::from(COUNTED) - 0.3).abs() < APART, "{who}: {count} of {COUNTED}");
    }
    let (agent, envoy) = &pair.runs;
    assert_eq!(envoy.stat("cluster.some.upstream_rq_503"), u64::from(theirs));
    let page = client::get(agent.spot.admin, "/metrics").unwrap().text();
    for (upstream, count) in [("some", ours), ("all", 20), ("none", 0)] {
        let line = format!("heddle_upstream_dropped_requests_total{{upstream=\"{upstream}\",category=\"throttle\"}} {count}\n");
        assert!(page.contains(&line), "{line}: {page}");
    }
}

/// The connections on which an endpoint has seen the requests of so many milliseconds.
fn connections(address: SocketAddr, target: &str, span: u64) -> BTreeSet<String> {
    let (begin, mut seen) = (Instant::now(), BTreeSet::new());
    while begin.elapsed() < Duration::from_millis(span) {
        seen.insert(ask(address, target).text());
    }
    seen
}

#[test]
fn connections_that_are_old_are_given_up_and_no_request_is_lost() {
    let nginx = Nginx::start("location / { return 200 '$connection'; }");
    let age = |seconds: &str| {
        let options = any(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            json!({
                "common_http_protocol_options": { "max_connection_duration": seconds },
                "explicit_http_config": { "http_protocol_options": {} },
            }),
        );
        json!({ "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options } })
    };
    let of = |name: &str, more: Value| cluster(name, &[(nginx.address, 1)], more);
    let pair = pair(&[of("young", age("0.5s")), of("old", age("600s")), of("forever", json!({}))]);
    for address in pair.both(0) {
        let young = connections(address, "/young", 2_600);
        assert!((3..=6).contains(&young.len()), "one each half second: {young:?}");
        assert_eq!(connections(address, "/old", 700).len(), 1);
        assert_eq!(connections(address, "/forever", 700).len(), 1);
    }
    // What rests is closed as well.
    let page = || client::get(pair.runs.0.spot.admin, "/metrics").unwrap().text();
    let line = format!("heddle_upstream_connections{{upstream=\"young\",endpoint=\"{}\"}} 0\n", nginx.address);
    until("the last connection to be closed", || page().contains(&line).then_some(()));
}
