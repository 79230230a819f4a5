//! Upstreams whose nodes Consul knows: traffic follows it within half a second, and goes on when it is away.

use std::collections::BTreeSet;
use std::time::Duration;

use heddle_integration::churn::{churn, everywhere, gateway, known};
use heddle_integration::client;
use heddle_integration::consul::Consul;
use heddle_integration::heddle::{Heddle, KEY, Setup};
use heddle_integration::process::until;
use serde_json::{Value, json};

/// How long the usual story changes things; `cargo run --example consul` does it for a minute.
const LASTING: Duration = Duration::from_secs(15);

fn at(ip: &str, port: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::new(ip.parse().unwrap(), port)
}

fn metrics(heddle: &Heddle) -> String {
    client::send(heddle.admin, "GET", "/apisix/admin/metrics", &[("X-API-KEY", KEY)], b"").unwrap().text()
}

/// Waits until exactly these answer.
fn answering(heddle: &Heddle, path: &str, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|ip| (*ip).to_owned()).collect();
    let seen =
        || (0..16).filter_map(|_| client::get(heddle.http, path).ok()).map(|answer| answer.text()).collect::<BTreeSet<_>>();
    until(&format!("{expected:?} to answer {path}"), || (seen() == expected).then_some(()));
}

#[test]
fn two_thousand_instances_change_fifty_times_a_second() {
    let report = churn(LASTING);
    assert!(report.wrong.is_empty(), "wrong at the end: {:?}", report.wrong);
    assert!(report.latencies.len() > 20, "{} were measured", report.latencies.len());
    let p99 = report.percentile(99);
    assert!(p99 < Duration::from_millis(500), "p99 from Consul to traffic: {p99:?}, p50 {:?}", report.percentile(50));
}

#[test]
fn services_without_a_query_of_their_own_are_followed_too() {
    let (consul, port) = (Consul::start(), everywhere());
    let names: Vec<String> = (0..24).map(|number| format!("s{number}")).collect();
    for name in &names {
        consul.register(name, name, at("127.137.0.1", port), &Value::Null);
    }
    let routes = names.iter().map(
        |name| json!({ "id": name, "uri": format!("/{name}"), "upstream": { "discovery_type": "consul", "service_name": name } }),
    );
    let path = consul.place.write("resources.json", &json!({ "routes": routes.collect::<Vec<_>>() }).to_string());
    let more = format!(
        "providers: {{ consul: {{ address: \"{}\", max_queries: 2 }}, file: {{ path: \"{}\" }} }}\n",
        consul.uri(),
        path.display()
    );
    let heddle = Heddle::run_with(Setup { more, ..Setup::default() });
    for name in &names {
        answering(&heddle, &format!("/{name}"), &["127.137.0.1"]);
    }
    for name in &names {
        consul.register(name, name, at("127.137.0.2", port), &Value::Null);
        answering(&heddle, &format!("/{name}"), &["127.137.0.2"]);
    }
    let (last, other) = (&names[23], &names[22]);
    consul.check(last, "critical");
    heddle.put("/routes/passing", json!({ "uri": "/passing", "upstream": { "discovery_type": "consul", "service_name": other, "discovery_args": { "only_passing": true } } }));
    answering(&heddle, "/passing", &["127.137.0.2"]);
    consul.check(other, "critical");
    heddle.until_status("/passing", 503);
    consul.deregister(last);
    heddle.until_status(&format!("/{last}"), 503);
    assert!(heddle.process.output().contains("more services are watched in Consul"), "{}", heddle.process.output());
}

#[test]
fn traffic_follows_health_weights_and_tags() {
    let (consul, port) = (Consul::start(), everywhere());
    consul.register("web", "w1", at("127.132.0.1", port), &json!({ "Tags": ["v1"] }));
    consul.register("web", "w2", at("127.132.0.2", port), &json!({ "Tags": ["v2"], "Weights": { "Passing": 1, "Warning": 0 } }));
    let heddle = gateway(&consul, &["web".to_owned()]);
    let upstream = |args: Value| json!({ "discovery_type": "consul", "service_name": "web", "discovery_args": args });
    heddle.put("/routes/v2", json!({ "uri": "/v2", "upstream": upstream(json!({ "tags": ["v2"], "only_passing": true })) }));
    answering(&heddle, "/web", &["127.132.0.1", "127.132.0.2"]);
    answering(&heddle, "/v2", &["127.132.0.2"]);
    consul.check("w2", "warning");
    answering(&heddle, "/web", &["127.132.0.1"]);
    heddle.until_status("/v2", 503);
    consul.check("w2", "passing");
    answering(&heddle, "/web", &["127.132.0.1", "127.132.0.2"]);
    assert_eq!(heddle.admin("GET", "/discovery/services", Value::Null).json().as_array().unwrap().len(), 2);
    assert_eq!(heddle.admin("DELETE", "/routes/v2", Value::Null).status, 200);
    until("the second watcher to end", || {
        (heddle.admin("GET", "/discovery/services", Value::Null).json().as_array().unwrap().len() == 1).then_some(())
    });
}

#[test]
fn a_consul_that_is_away_changes_nothing_even_over_a_restart() {
    let (mut consul, port) = (Consul::start(), everywhere());
    consul.register("web", "w1", at("127.133.0.1", port), &json!({}));
    let mut heddle = gateway(&consul, &["web".to_owned()]);
    answering(&heddle, "/web", &["127.133.0.1"]);
    assert!(metrics(&heddle).contains("heddle_discovery_endpoints{service=\"web\"} 1"));
    until("it to be written down", || {
        let shown = heddle.admin("GET", "/discovery/services", Value::Null).json();
        (shown[0]["written"] == true).then_some(())
    });
    consul.process.kill();
    until("the age to be shown", || {
        let text = metrics(&heddle);
        let age = text
            .lines()
            .find_map(|line| line.strip_prefix("heddle_discovery_stale_seconds{service=\"web\"} "))?
            .parse::<u64>()
            .ok()?;
        (age > 0).then_some(())
    });
    let shown = heddle.admin("GET", "/discovery/services", Value::Null).json();
    assert!(shown[0]["fault"].as_str().unwrap().contains(&consul.uri()), "{shown}");
    assert_eq!(heddle.get("/web").text(), "127.133.0.1");
    heddle.restart();
    answering(&heddle, "/web", &["127.133.0.1"]);
    consul.start_again();
    consul.register("web", "w9", at("127.133.0.9", port), &json!({}));
    answering(&heddle, "/web", &["127.133.0.9"]);
}

#[test]
fn a_consul_that_begins_anew_empties_nothing() {
    // One that has run for long has counted far, and a new one begins at about ten; a young one has hardly come further.
    for changes in [50, 0] {
        let (mut consul, port) = (Consul::start(), everywhere());
        consul.register("web", "w1", at("127.134.0.1", port), &json!({}));
        let heddle = gateway(&consul, &["web".to_owned(), "other".to_owned()]);
        answering(&heddle, "/web", &["127.134.0.1"]);
        for change in 0..changes {
            consul.register("web", "w1", at("127.134.0.1", port), &json!({ "Meta": { "change": change.to_string() } }));
        }
        consul.register("web", "w1", at("127.134.0.3", port), &json!({}));
        answering(&heddle, "/web", &["127.134.0.3"]);
        consul.restart();
        let doubted = || {
            let shown = heddle.admin("GET", "/discovery/services", Value::Null).json();
            let faults = shown.as_array().unwrap().iter().filter_map(|one| one["fault"].as_str());
            faults.filter(|fault| fault.contains("begun anew")).count() == 1
        };
        until("the doubt to be told", || doubted().then_some(()));
        assert_eq!(heddle.get("/web").text(), "127.134.0.3");
        // What others register says nothing of this one.
        for change in 0..10 {
            consul.register("other", "o1", at("127.134.0.4", port), &json!({ "Meta": { "change": change.to_string() } }));
        }
        answering(&heddle, "/other", &["127.134.0.4"]);
        assert!(doubted(), "after {changes} changes");
        assert_eq!(heddle.get("/web").text(), "127.134.0.3");
        consul.register("web", "w2", at("127.134.0.2", port), &json!({}));
        answering(&heddle, "/web", &["127.134.0.2"]);
        consul.deregister("w2");
        heddle.until_status("/web", 503);
        assert_eq!(known(&heddle)["web"], BTreeSet::new(), "who has gone for a reason is gone");
    }
}

#[test]
fn the_leader_dies_under_traffic() {
    let (mut servers, port) = (Consul::cluster(), everywhere());
    servers[0].register("web", "w1", at("127.135.0.1", port), &json!({}));
    let addresses: Vec<String> = servers.iter().map(|one| format!("\"{}\"", one.uri())).collect();
    let more = format!("providers: {{ consul: {{ addresses: [{}] }} }}\n", addresses.join(", "));
    let heddle = Heddle::run_with(Setup { more, ..Setup::default() });
    heddle.put("/routes/web", json!({ "uri": "/web", "upstream": { "discovery_type": "consul", "service_name": "web" } }));
    answering(&heddle, "/web", &["127.135.0.1"]);
    let leader = servers.iter().position(Consul::is_leader).unwrap();
    servers[leader].process.kill();
    let alive = || servers.iter().enumerate().filter(|(number, _)| *number != leader).map(|(_, one)| one);
    until("a new leader", || {
        assert_eq!(heddle.get("/web").status, 200);
        alive().find(|one| one.is_leader()).map(|_| ())
    });
    alive().next().unwrap().register("web", "w1", at("127.135.0.2", port), &json!({}));
    answering(&heddle, "/web", &["127.135.0.2"]);
}

#[test]
fn a_wrong_token_is_told_and_a_right_one_works() {
    let mut consul = Consul::with(json!({ "acl": { "enabled": true, "default_policy": "deny" } }));
    let bootstrapped = until("the ACLs to be ready", || {
        consul.ask("PUT", "/v1/acl/bootstrap", &Value::Null).ok().filter(|answer| answer.status == 200)
    });
    consul.token = bootstrapped.json()["SecretID"].as_str().map(str::to_owned);
    let port = everywhere();
    consul.register("web", "w1", at("127.136.0.1", port), &json!({}));
    let token = consul.place.write("token", "00000000-0000-0000-0000-000000000001\n");
    let more = format!("providers: {{ consul: {{ address: \"{}\", token_file: \"{}\" }} }}\n", consul.uri(), token.display());
    let heddle = Heddle::run_with(Setup { more, ..Setup::default() });
    heddle.put("/routes/web", json!({ "uri": "/web", "upstream": { "discovery_type": "consul", "service_name": "web" } }));
    let fault = until("the fault", || {
        let shown = heddle.admin("GET", "/discovery/services", Value::Null).json();
        shown[0]["fault"].as_str().map(str::to_owned)
    });
    assert!(fault.contains("ACL not found") && fault.contains("token_file") && fault.contains("service:read"), "{fault}");
    until("the log to tell it", || heddle.process.output().contains("ACL not found").then_some(()));
    consul.place.write("token", consul.token.as_deref().unwrap());
    answering(&heddle, "/web", &["127.136.0.1"]);
}
