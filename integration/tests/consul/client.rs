//! The client against a real Consul: what it watches, what it says, how it gets over resets, lost leaders and wrong tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_integration::certificates::Authority;
use heddle_integration::consul::Consul as Server;
use heddle_integration::process::PATIENCE;
use heddle_node::config::Secret;
use heddle_node::consul::{
    CheckStatus, Consul, ConsulSettings, ConsulTls, HealthQuery, Instance, IntentionAction, Registration, Scope, Standing,
    TtlCheck, Watch,
};
use serde_json::{Value, json};

fn dice() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

fn client(server: &Server) -> Consul {
    Consul::new(ConsulSettings { token: server.token.clone().map(Secret::new), ..ConsulSettings::at(server.uri()) }).unwrap()
}

fn of(service: &str) -> HealthQuery {
    HealthQuery { service: service.into(), ..HealthQuery::default() }
}

fn run<T>(story: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story)
}

/// Looks until what is watched is as expected; failures in between are borne.
async fn until<T: std::fmt::Debug>(watch: &mut Watch<T>, what: &str, expected: impl Fn(&T) -> bool) -> (T, bool) {
    let mut reset = false;
    let look = async {
        loop {
            if let Ok(seen) = watch.next().await {
                reset |= seen.reset;
                if expected(&seen.value) {
                    return seen.value;
                }
            }
        }
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(value) => (value, reset),
        Err(_) => panic!("still waiting for {what}"),
    }
}

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| instance.id.as_str()).collect()
}

#[test]
fn instances_are_watched_with_weights_zones_tags_and_health() {
    let server = Server::start();
    run(async {
        let consul = client(&server);
        let mut all = consul.health(&of("web"), dice());
        let mut passing = consul.health(&HealthQuery { only_passing: true, ..of("web") }, dice());
        let mut tagged = consul
            .health(&HealthQuery { tags: vec!["v2".into(), "blue".into()], near: Some("_agent".into()), ..of("web") }, dice());
        assert_eq!(all.next().await.unwrap().value, [], "nobody yet, which is an answer");
        let more =
            json!({ "Tags": ["v2", "blue"], "Meta": { "zone": "a", "build": "7" }, "Weights": { "Passing": 10, "Warning": 3 } });
        server.register("web", "w1", "10.0.0.1:80".parse().unwrap(), &more);
        let (seen, _) = until(&mut all, "the first instance", |found| found.len() == 1).await;
        let one = &seen[0];
        assert_eq!(
            (one.address.as_str(), one.port, one.zone.as_str(), one.weight(), one.standing),
            ("10.0.0.1", 80, "a", 10, Standing::Passing)
        );
        assert_eq!(
            (&one.tags[..], one.meta["build"].as_str(), one.datacenter.as_str()),
            (&["v2".to_owned(), "blue".to_owned()][..], "7", "dc1")
        );
        server.register("web", "w2", "10.0.0.2:80".parse().unwrap(), &json!({ "Tags": ["v2"] }));
        server.check("w1", "warning");
        let warned = |found: &Vec<Instance>| found.iter().any(|one| one.standing == Standing::Warning && one.weight() == 3);
        until(&mut all, "the warning", |found| found.len() == 2 && warned(found)).await;
        let (left, _) = until(&mut passing, "the passing one", |found| found.len() == 1).await;
        assert_eq!(ids(&left), ["w2"]);
        server.check("w2", "critical");
        until(&mut all, "the critical one", |found| found.iter().any(|one| one.id == "w2" && one.standing == Standing::Critical))
            .await;
        let (both, _) = until(&mut tagged, "the one with both tags", |found| found.len() == 1).await;
        assert_eq!(ids(&both), ["w1"]);
        server.deregister("w1");
        until(&mut tagged, "emptiness", Vec::is_empty).await;
        let mut names = consul.services(&Scope::default(), dice());
        let (names, _) = until(&mut names, "the names", |names| names.contains_key("web")).await;
        assert_eq!(names["web"], ["v2"]);
        let elsewhere = HealthQuery { scope: Scope { datacenter: Some("moon".into()), namespace: None }, ..of("web") };
        let told = consul.health(&elsewhere, dice()).next().await.unwrap_err().to_string();
        assert!(told.contains("No path to datacenter"), "{told}");
    });
}

#[test]
fn prepared_queries_keys_and_intentions_are_read() {
    let server = Server::start();
    run(async {
        let consul = client(&server);
        server.register("web", "w1", "10.0.0.1:80".parse().unwrap(), &json!({}));
        let query = json!({ "Name": "nearest-web", "Service": { "Service": "web", "OnlyPassing": true } });
        assert_eq!(server.ask("POST", "/v1/query", &query).unwrap().status, 200);
        assert_eq!(ids(&consul.prepared("nearest-web", &Scope::default(), Some("_agent")).await.unwrap()), ["w1"]);
        assert!(consul.prepared("nobody", &Scope::default(), None).await.unwrap_err().to_string().contains("404"));
        let mut keys = consul.keys("heddle/", &Scope::default(), dice());
        assert_eq!(keys.next().await.unwrap().value, []);
        server.key("heddle/routes/a%20b", "{\"uri\": \"/ä\"}");
        let (seen, _) = until(&mut keys, "the key", |keys| keys.len() == 1).await;
        assert_eq!(
            (seen[0].key.as_str(), String::from_utf8_lossy(&seen[0].value).into_owned()),
            ("heddle/routes/a b", "{\"uri\": \"/ä\"}".to_owned())
        );
        assert_eq!(server.ask("DELETE", "/v1/kv/heddle/?recurse", &Value::Null).unwrap().status, 200);
        until(&mut keys, "no key", Vec::is_empty).await;
        let mut all = consul.intentions(&Scope::default(), dice());
        for (from, to, action) in [("web", "db", "allow"), ("*", "db", "deny"), ("web", "cache", "allow")] {
            let body = json!({ "SourceName": from, "DestinationName": to, "SourceType": "consul", "Action": action });
            assert_eq!(server.ask("POST", "/v1/connect/intentions", &body).unwrap().status, 200);
        }
        until(&mut all, "all intentions", |found| found.len() == 3).await;
        let found = consul.intentions_to("db", &Scope::default()).await.unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        let first = found.iter().max_by_key(|intention| intention.precedence).unwrap();
        assert_eq!((first.source_name.as_str(), first.action), ("web", Some(IntentionAction::Allow)));
        assert_eq!(first, &found[0], "the one that goes first is first");
    });
}

#[test]
fn a_service_registers_keeps_its_check_alive_and_leaves() {
    let server = Server::start();
    run(async {
        let consul = client(&server);
        let who = consul.agent_self().await.unwrap();
        assert_eq!((who.datacenter.as_str(), who.version.as_str(), who.server), ("dc1", "1.8.7", true));
        let check = TtlCheck {
            id: "web-1:heddle".into(),
            name: "Heddle".into(),
            ttl: Duration::from_secs(2),
            reap_after: Some(Duration::from_secs(60)),
            initial: CheckStatus::Critical,
        };
        let service = Registration {
            id: "web-1".into(),
            name: "web".into(),
            address: Some("10.1.1.1".into()),
            port: 8080,
            tags: vec!["v1".into()],
            meta: BTreeMap::from([("zone".into(), "b".into())]),
            weights: Some((4, 2)),
            ttl_checks: vec![check.clone()],
            checks: Vec::new(),
        };
        assert!(!consul.update_ttl(&check.id, CheckStatus::Passing, "early").await.unwrap(), "the agent does not know it yet");
        consul.register(&service).await.unwrap();
        let mut watch = consul.health(&of("web"), dice());
        let (seen, _) = until(&mut watch, "the critical instance", |found| found.len() == 1).await;
        assert_eq!((seen[0].standing, seen[0].zone.as_str(), seen[0].weight_passing), (Standing::Critical, "b", 4));
        assert!(consul.update_ttl(&check.id, CheckStatus::Passing, "all is well").await.unwrap());
        until(&mut watch, "it to pass", |found| found[0].standing == Standing::Passing).await;
        until(&mut watch, "silence to make it critical", |found| found[0].standing == Standing::Critical).await;
        server.put("/v1/agent/service/maintenance/web-1?enable=true", &Value::Null);
        until(&mut watch, "its maintenance", |found| found[0].standing == Standing::Maintenance).await;
        consul.deregister("web-1").await.unwrap();
        until(&mut watch, "it to be gone", Vec::is_empty).await;
        consul.deregister("web-1").await.unwrap();
    });
}

#[test]
fn a_consul_that_begins_anew_is_noticed_at_once() {
    let mut server = Server::start();
    for id in ["w1", "w2", "w3"] {
        server.register("web", id, "10.0.0.1:80".parse().unwrap(), &json!({}));
    }
    for round in 0..40 {
        server.key("filler", &round.to_string());
    }
    server.register("web", "w4", "10.0.0.4:80".parse().unwrap(), &json!({}));
    run(async {
        let consul = client(&server);
        let mut watch = consul.health(&of("web"), dice());
        until(&mut watch, "four", |found| found.len() == 4).await;
        server.process.kill();
        let told = watch.next().await.unwrap_err().to_string();
        assert!(told.contains(&server.uri()) && told.contains("is the agent running"), "{told}");
        server.start_again();
        server.register("web", "w9", "10.0.0.9:80".parse().unwrap(), &json!({}));
        let (seen, reset) = until(&mut watch, "the one of the new life", |found| ids(found) == ["w9"]).await;
        assert!(reset, "{seen:?}");
    });
}

#[test]
fn the_leader_of_a_cluster_may_die() {
    let mut servers = Server::cluster();
    run(async {
        let addresses = servers.iter().map(Server::uri).collect();
        let consul = Consul::new(ConsulSettings { addresses, ..ConsulSettings::default() }).unwrap();
        servers[0].register("web", "w1", "10.0.0.1:80".parse().unwrap(), &json!({}));
        let mut watch = consul.health(&of("web"), dice());
        until(&mut watch, "one", |found| found.len() == 1).await;
        let leader = servers.iter().position(Server::is_leader).unwrap();
        servers[leader].process.kill();
        let other = &servers[(leader + 1) % 3];
        heddle_integration::process::until("a new leader", || {
            servers.iter().enumerate().any(|(at, one)| at != leader && one.is_leader()).then_some(())
        });
        other.register("web", "w2", "10.0.0.2:80".parse().unwrap(), &json!({}));
        let (_, reset) = until(&mut watch, "two", |found| found.len() == 2).await;
        assert!(!reset, "another leader goes on where the old one was");
    });
}

#[test]
fn acls_are_told_clearly() {
    let mut server = Server::with(json!({ "acl": { "enabled": true, "default_policy": "deny" } }));
    let bootstrapped = heddle_integration::process::until("the ACLs to be ready", || {
        server.ask("PUT", "/v1/acl/bootstrap", &Value::Null).ok().filter(|answer| answer.status == 200)
    });
    server.token = bootstrapped.json()["SecretID"].as_str().map(str::to_owned);
    server.register("web", "w1", "10.0.0.1:80".parse().unwrap(), &json!({}));
    run(async {
        let mut good = client(&server).health(&of("web"), dice());
        until(&mut good, "one", |found| found.len() == 1).await;
        server.token = Some("00000000-0000-0000-0000-000000000001".into());
        let told = client(&server).health(&of("web"), dice()).next().await.unwrap_err();
        assert!(told.is_denied(), "{told}");
        for part in ["ACL not found", "token", "service:read", &server.uri()] {
            assert!(told.to_string().contains(part), "{part} is not in {told}");
        }
    });
}

#[test]
fn tls_with_its_own_roots() {
    let authority = Authority::new();
    let pair = authority.issue(&["server.dc1.consul"]);
    let place = heddle_integration::place::Place::new();
    let [certificate, key, ca] = [("cert.pem", &pair.certificate), ("key.pem", &pair.key), ("ca.pem", &authority.pem())]
        .map(|(name, text)| place.write(name, text));
    let https = place.address();
    let server = Server::with(json!({ "ports": { "https": https.port() }, "cert_file": certificate, "key_file": key }));
    let address = format!("https://{}:{}", server.place.ip, https.port());
    run(async {
        let with = |tls: ConsulTls| Consul::new(ConsulSettings { tls, ..ConsulSettings::at(&address) }).unwrap();
        let named =
            ConsulTls { ca_file: Some(ca.clone()), server_name: Some("server.dc1.consul".into()), ..ConsulTls::default() };
        assert_eq!(with(named.clone()).agent_self().await.unwrap().datacenter, "dc1");
        let unnamed = ConsulTls { server_name: None, ..named };
        assert!(with(unnamed).agent_self().await.unwrap_err().to_string().contains("certificate"));
        assert!(with(ConsulTls { verify: false, ..ConsulTls::default() }).agent_self().await.is_ok());
    });
}
