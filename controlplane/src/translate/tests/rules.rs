//! The rules of merging and choosing, one by one.

use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{
    Balancer, CheckKind, EdgeLimits, HashOn, HashTable, Kind, ListenerProtocol, PassHost, PluginConf, ProxyProtocol, Resource,
    Scheme, ServerHeader, TlsVersion, Upstream,
};
use heddle_xds::snapshot::Change;
use serde_json::json;

use super::{World, names};

fn origins(plugins: &[PluginConf]) -> Vec<String> {
    plugins.iter().map(|plugin| format!("{} {}", plugin.name, plugin.origin.0)).collect()
}

#[test]
fn plugins_are_merged_by_whole_configuration() {
    let world = World::of(&[
        ("services/s1", json!({"plugins": {"cors": {"a": 1}, "limit-count": {"a": 1}, "fault-injection": {"a": 1}}})),
        ("plugin_configs/p1", json!({"plugins": {"limit-count": {"b": 2}, "cors": {"b": 2}}})),
        ("routes/r1", json!({"uri": "/", "service_id": "s1", "plugin_config_id": "p1", "plugins": {"cors": {"c": 3}}})),
    ]);
    let plugins = &world.route("r1").plugins;
    assert_eq!(origins(plugins), ["cors route/r1", "limit-count plugin_config/p1", "fault-injection service/s1"]);
    assert_eq!(*plugins[1].config, json!({"b": 2}));
}

#[test]
fn upstreams_are_chosen_by_rank() {
    let inline = json!({"nodes": {"127.0.0.1:1": 1}});
    let mut world = World::of(&[
        ("upstreams/u1", inline.clone()),
        ("services/both", json!({"upstream": inline, "upstream_id": "u1"})),
        ("services/by-id", json!({"upstream_id": "u1"})),
        ("routes/a", json!({"uri": "/", "upstream": inline, "upstream_id": "u1", "service_id": "both"})),
        ("routes/b", json!({"uri": "/", "upstream_id": "u1", "service_id": "both"})),
        ("routes/c", json!({"uri": "/", "service_id": "both"})),
        ("routes/d", json!({"uri": "/", "service_id": "by-id"})),
        ("routes/e", json!({"uri": "/", "plugins": {}})),
    ]);
    let chosen: Vec<&str> = ["a", "b", "c", "d", "e"].into_iter().map(|id| world.upstream_of(id)).collect();
    assert_eq!(chosen, ["routes/a", "upstreams/u1", "services/both", "upstreams/u1", ""]);
    for name in ["routes/a", "upstreams/u1", "services/both"] {
        assert_eq!(world.endpoints(name), ["127.0.0.1:1*1^0"]);
    }
    assert_eq!(&*world.upstream("upstreams/u1").label, "u1");
    assert_eq!(
        names(&world.put("routes/a", json!({"uri": "/", "upstream_id": "u1"}))),
        ["Route a", "-Endpoints routes/a", "-Upstream routes/a"]
    );
}

#[test]
fn what_is_missing_answers_503_and_lets_nothing_pass() {
    let mut world = World::of(&[
        ("routes/a", json!({"uri": "/", "upstream_id": "gone"})),
        ("routes/b", json!({"uri": "/", "service_id": "gone", "upstream": {"nodes": {"h:1": 1}}})),
        ("routes/c", json!({"uri": "/", "plugin_config_id": 7, "plugins": {}})),
        ("consumers/jack", json!({"username": "jack", "group_id": "gone", "plugins": {"key-auth": {"key": "k"}}})),
    ]);
    let missing: Vec<&str> = ["a", "b", "c"].into_iter().map(|id| world.upstream_of(id)).collect();
    assert_eq!(missing, ["upstreams/gone", "services/gone", "plugin_configs/7"]);
    assert!(missing.iter().all(|name| world.get(Kind::Upstream, name).is_none()));
    assert!(world.get(Kind::Consumer, "jack").is_none());
    assert_eq!(names(&world.put("plugin_configs/7", json!({"plugins": {"cors": {}}}))), ["Route c"]);
    assert_eq!(names(&world.put("services/gone", json!({}))), ["Upstream routes/b", "Endpoints routes/b", "Route b"]);
    assert_eq!(names(&world.put("consumer_groups/gone", json!({"plugins": {}}))), ["Consumer jack"]);
}

#[test]
fn routes_take_from_their_service_what_they_do_not_say() {
    let world = World::of(&[
        ("services/s1", json!({"name": "svc", "hosts": ["A.Example.com"], "enable_websocket": true})),
        (
            "routes/a",
            json!({"uris": ["/a", "/b/*"], "methods": ["GET"], "remote_addr": "10.0.0.1", "service_id": "s1", "priority": 5,
            "vars": [["arg_x", "==", "1"]], "timeout": {"connect": 0.5, "send": 2, "read": 3}, "name": "n"}),
        ),
        (
            "routes/b",
            json!({"uri": "/", "host": "B.example.com", "remote_addrs": ["::1", "10.0.0.0/8"], "service_id": "s1",
            "enable_websocket": false, "vars": []}),
        ),
    ]);
    let a = world.route("a");
    assert_eq!((&*a.service_id, &*a.service_name, &*a.name, a.priority), ("s1", "svc", "n", 5));
    assert_eq!(a.matches.hosts, ["a.example.com".into()]);
    assert_eq!(a.matches.uris.len(), 2);
    assert_eq!(a.matches.remote_addrs, ["10.0.0.1/32".parse().unwrap()]);
    assert!(a.enable_websocket && a.matches.vars.is_some());
    assert_eq!(a.timeouts.unwrap().connect, Duration::from_millis(500));
    let b = world.route("b");
    assert_eq!(b.matches.hosts, ["b.example.com".into()]);
    assert!(!b.enable_websocket && b.matches.vars.is_none() && b.timeouts.is_none());
    assert_eq!((a.created, b.created), (2, 3));
}

#[test]
fn a_route_that_is_off_or_cannot_be_read_is_left_out() {
    let mut world = World::of(&[
        ("routes/off", json!({"uri": "/", "status": 0, "upstream": {"nodes": {"h:1": 1}}})),
        ("routes/unreadable", json!({"uri": "/", "remote_addrs": ["10.0.0.1", "nonsense"], "upstream_id": "u"})),
    ]);
    assert!(world.held.is_empty());
    let on = json!({"uri": "/", "status": 1, "upstream": {"nodes": {"h:1": 1}}});
    assert_eq!(names(&world.put("routes/off", on)), ["Upstream routes/off", "Endpoints routes/off", "Route off"]);
    assert_eq!(names(&world.delete("routes/off")), ["-Route off", "-Endpoints routes/off", "-Upstream routes/off"]);
}

#[test]
fn names_mean_the_own_provider_first() {
    let mut world = World::of(&[
        ("upstreams/u1", json!({"nodes": {"store:1": 1}})),
        ("routes/r1@file", json!({"uri": "/", "upstream_id": "u1"})),
    ]);
    assert_eq!(world.upstream_of("r1@file"), "upstreams/u1");
    let changes = world.put("upstreams/u1@file", json!({"nodes": {"file:1": 1}}));
    assert_eq!(names(&changes), ["Upstream upstreams/u1@file", "Endpoints upstreams/u1@file", "Route r1@file"]);
    assert_eq!(world.upstream_of("r1@file"), "upstreams/u1@file");
    world.delete("upstreams/u1@file");
    assert_eq!(world.upstream_of("r1@file"), "upstreams/u1");
}

#[test]
fn a_change_costs_what_depends_on_it() {
    let mut world = World::of(&[
        ("upstreams/u1", json!({"nodes": {"h:1": 1}})),
        ("services/s1", json!({"upstream_id": "u1"})),
        ("routes/a", json!({"uri": "/a", "service_id": "s1"})),
        ("routes/b", json!({"uri": "/b", "upstream_id": "u1"})),
    ]);
    assert_eq!(names(&world.put("upstreams/u1", json!({"nodes": {"h:2": 1}}))), ["Endpoints upstreams/u1"]);
    assert_eq!(names(&world.put("services/s1", json!({"upstream_id": "u1", "plugins": {"cors": {}}}))), ["Route a"]);
    assert_eq!(names(&world.put("routes/b", json!({"uri": "/b", "upstream_id": "u1", "desc": "words"}))), [""; 0]);
}

#[test]
fn upstreams_have_the_defaults_of_apisix() {
    let world = World::of(&[
        ("upstreams/map", json!({"nodes": {"a.example": 1, "[::1]": 2, "[fe80::1]:81": 3, "b:82": 0}, "scheme": "grpcs"})),
        (
            "upstreams/list",
            json!({"nodes": [{"host": "[::1]", "weight": 1, "priority": -1}, {"host": "b", "port": 82, "weight": 9}],
            "type": "chash", "hash_on": "header", "key": "http_x_user", "pass_host": "rewrite", "upstream_host": "x.example",
            "retries": 2, "retry_timeout": 1.5, "keepalive_pool": {"size": 5, "max_age": 1.5},
            "checks": {"active": {"type": "tcp", "unhealthy": {"interval": 3, "tcp_failures": 1}, "req_headers": ["A: b"], "checkers": 2}, "passive": {}}}),
        ),
        ("upstreams/dns", json!({"discovery_type": "dns", "service_name": "x.example:90", "checks": {"passive": {}}})),
    ]);
    assert_eq!(world.endpoints("upstreams/map"), ["a.example:443*1^0", "::1:443*2^0", "fe80::1:81*3^0", "b:82*0^0"]);
    assert_eq!(world.endpoints("upstreams/list"), ["::1:80*1^-1", "b:82*9^0"]);
    let map = world.upstream("upstreams/map");
    assert_eq!(
        (map.scheme, &map.balancer, &map.pass_host, map.retries),
        (Scheme::Grpcs, &Balancer::RoundRobin, &PassHost::Pass, None)
    );
    assert_eq!((map.keepalive.size, map.timeouts.read, map.tls.verify), (320, Duration::from_secs(60), false));
    let list = world.upstream("upstreams/list");
    assert_eq!(list.balancer, Balancer::ConsistentHash(HashOn::Header("x_user".into()), HashTable::RING));
    assert_eq!((&list.pass_host, list.retries), (&PassHost::Rewrite("x.example".into()), Some(2)));
    assert_eq!((list.keepalive.size, list.keepalive.requests, list.keepalive.max_age), (5, 1000, Duration::from_millis(1500)));
    let active = list.checks.active.as_ref().unwrap();
    assert_eq!((active.kind, active.thresholds.tcp_failures, active.thresholds.timeouts), (CheckKind::Tcp, 1, 3));
    assert_eq!((active.healthy_interval, active.unhealthy_interval), (Duration::from_secs(1), Duration::from_secs(3)));
    assert_eq!((active.headers.as_slice(), active.checkers), ([("A".into(), "b".into())].as_slice(), 2));
    assert_eq!(list.checks.passive.as_ref().unwrap().thresholds.timeouts, 7);
    let dns = world.upstream("upstreams/dns");
    assert!(dns.discovery.is_some() && dns.checks.passive.is_none());
}

#[test]
fn traffic_split_names_whole_upstreams() {
    let split = json!({"traffic-split": {"rules": [{"match": [], "weighted_upstreams": [
        {"upstream": {"nodes": {"h:1": 1}}, "weight": 1}, {"upstream_id": 7, "weight": 2}, {"weight": 3}]}]}});
    let mut world = World::of(&[
        ("upstreams/7@file", json!({"nodes": {"h:2": 1}})),
        ("services/s1@file", json!({"plugins": split})),
        ("routes/r1@file", json!({"uri": "/", "service_id": "s1"})),
        ("global_rules/g1", json!({"plugins": split})),
    ]);
    let entries = &world.route("r1@file").plugins[0].config["rules"][0]["weighted_upstreams"];
    let expected = json!([
        {"weight": 1, "upstream_id": "services/s1@file/traffic-split/0"}, {"upstream_id": "upstreams/7@file", "weight": 2}, {"weight": 3}]);
    assert_eq!(*entries, expected);
    assert_eq!(world.endpoints("services/s1@file/traffic-split/0"), ["h:1*1^0"]);
    assert_eq!(world.endpoints("global_rules/g1/traffic-split/0"), ["h:1*1^0"]);
    assert_eq!(names(&world.put("upstreams/7@file", json!({"nodes": {"h:3": 1}}))), ["Endpoints upstreams/7@file"]);
    assert_eq!(names(&world.delete("upstreams/7@file")).first().unwrap(), "Route r1@file");
}

#[test]
fn consumers_have_their_group_and_credentials() {
    let mut world = World::of(&[
        ("consumer_groups/g1", json!({"plugins": {"cors": {"g": 1}, "limit-count": {"g": 1}}})),
        (
            "consumers/jack",
            json!({"username": "jack", "group_id": "g1", "labels": {"custom_id": "9"},
            "plugins": {"key-auth": {"key": "a"}, "cors": {"c": 1}}}),
        ),
        ("consumers/jack/credentials/c1", json!({"plugins": {"key-auth": {"key": "b"}}})),
        ("consumers/jack@file/credentials/c9", json!({})),
    ]);
    let jack = world.consumer("jack");
    assert_eq!(origins(&jack.plugins), ["cors consumer/jack", "limit-count consumer_group/g1"]);
    assert_eq!((&*jack.group_id, &*jack.labels["custom_id"]), ("g1", "9"));
    let keys: Vec<_> = jack.credentials.iter().map(|c| (&*c.id, &*c.plugin, c.config["key"].as_str().unwrap())).collect();
    assert_eq!(keys, [("", "key-auth", "a"), ("c1", "key-auth", "b")]);
    assert_eq!(names(&world.delete("consumers/jack/credentials/c1")), ["Consumer jack"]);
    assert_eq!(world.consumer("jack").credentials.len(), 1);
    assert_eq!(names(&world.put("consumer_groups/g1", json!({"plugins": {}}))), ["Consumer jack"]);
}

#[test]
fn metadata_of_the_store_outranks_that_of_a_provider() {
    let mut world = World::of(&[("plugin_metadata/cors@file", json!({"id": "cors", "a": 1, "update_time": 3}))]);
    let config = |world: &World| match world.get(Kind::PluginMetadata, "cors") {
        Some(Resource::PluginMetadata(metadata)) => (*metadata.config).clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(config(&world), json!({"a": 1}));
    world.put("plugin_metadata/cors", json!({"a": 2}));
    assert_eq!(config(&world), json!({"a": 2}));
    assert_eq!(names(&world.delete("plugin_metadata/cors@file")), [""; 0]);
    assert_eq!(names(&world.delete("plugin_metadata/cors")), ["-PluginMetadata cors"]);
}

#[test]
fn certificates_bring_their_secrets() {
    let world = World::of(&[
        (
            "ssls/a",
            json!({"snis": ["A.example.com.", "*.b.example"], "cert": "C0", "key": "K0", "certs": ["C1"], "keys": ["K1"],
            "client": {"ca": "ROOT", "depth": 3}, "ssl_protocols": ["TLSv1.1", "TLSv1.3"]}),
        ),
        ("ssls/c", json!({"type": "client", "cert": "C", "key": "K"})),
        ("ssls/off", json!({"sni": "x", "cert": "C", "key": "K", "status": 0})),
        ("upstreams/by-id", json!({"scheme": "https", "nodes": {}, "tls": {"client_cert_id": "c", "verify": true, "ca": "a"}})),
        ("upstreams/inline", json!({"scheme": "https", "nodes": {}, "tls": {"client_cert": "C", "client_key": "K", "sni": "s"}})),
    ]);
    let Some(Resource::Certificate(certificate)) = world.get(Kind::Certificate, "a") else { panic!("no certificate") };
    assert_eq!(certificate.snis, ["a.example.com".into(), "*.b.example".into()]);
    assert_eq!(certificate.secrets, ["ssls/a/0".into(), "ssls/a/1".into()]);
    assert_eq!((certificate.min_version, certificate.max_version), (TlsVersion::V1_3, TlsVersion::V1_3));
    let client = certificate.client.as_ref().unwrap();
    assert_eq!((&*client.ca, client.depth), ("ssls/a/ca", 3));
    assert!(world.get(Kind::Certificate, "c").is_none() && world.get(Kind::Certificate, "off").is_none());
    let secrets: Vec<&str> = world.held.keys().filter(|(kind, _)| *kind == Kind::Secret).map(|(_, name)| &**name).collect();
    let expected = ["ssls/a/0", "ssls/a/1", "ssls/a/ca", "ssls/c/0", "upstreams/by-id/ca", "upstreams/inline/client"];
    assert_eq!(secrets, expected);
    let tls = &world.upstream("upstreams/by-id").tls;
    assert_eq!((tls.client_cert.as_deref(), tls.ca.as_deref(), tls.verify), (Some("ssls/c/0"), Some("upstreams/by-id/ca"), true));
    assert_eq!(world.upstream("upstreams/inline").tls.client_cert.as_deref(), Some("upstreams/inline/client"));
}

#[test]
fn listeners_have_their_defaults() {
    let world = World::of(&[
        ("listeners/edge", json!({"address": "[::]:9080"})),
        (
            "listeners/tls",
            json!({"address": "0.0.0.0:9443", "protocol": "https", "proxy_protocol": {"trusted": ["10.0.0.0/8"]},
            "limits": {"max_headers": 7}, "server_header": {"server": "", "via": "gw"}, "nodes": ["gw-1"], "expose_reason": true}),
        ),
    ]);
    let get = |name| match world.get(Kind::Listener, name) {
        Some(Resource::Listener(listener)) => listener,
        other => panic!("{other:?}"),
    };
    let edge = get("edge");
    assert_eq!((edge.address.port(), edge.protocol, &edge.proxy_protocol), (9080, ListenerProtocol::Http, &ProxyProtocol::Off));
    assert_eq!((&edge.limits, &edge.server_header), (&EdgeLimits::default(), &ServerHeader::default()));
    let tls = get("tls");
    assert_eq!(tls.proxy_protocol, ProxyProtocol::Required(vec!["10.0.0.0/8".parse().unwrap()]));
    assert_eq!((tls.limits.max_headers, &tls.server_header.server, tls.server_header.via.as_deref()), (7, &None, Some("gw")));
    assert_eq!((&*tls.nodes, tls.expose_reason), (&["gw-1".into()][..], true));
}

#[test]
fn a_tcp_listener_leads_to_upstreams_by_server_name() {
    let world = World::of(&[
        ("upstreams/db", json!({"nodes": {"127.0.0.1:5432": 1}})),
        ("listeners/plain", json!({"address": "0.0.0.0:5432", "protocol": "tcp", "upstream_id": "db"})),
        (
            "listeners/named",
            json!({"address": "0.0.0.0:5433", "protocol": "tcp", "limits": {"idle_timeout": "8h"}, "routes": [
                {"server_names": ["DB.example.org"], "tls": "terminate", "upstreams": [{"upstream_id": "db", "weight": 3}, {"upstream_id": "later"}]},
                {"upstream": {"nodes": {"127.0.0.1:1": 1}}, "connect_attempts": 2},
            ]}),
        ),
    ]);
    let get = |name| match world.get(Kind::Listener, name) {
        Some(Resource::Listener(listener)) => listener,
        other => panic!("{other:?}"),
    };
    let plain = get("plain");
    assert_eq!((plain.protocol, plain.tcp.len(), plain.tcp[0].terminate), (ListenerProtocol::Tcp, 1, false));
    assert_eq!((&*plain.tcp[0].upstreams[0].upstream, plain.tcp[0].idle_timeout.as_secs()), ("upstreams/db", 3600));
    let named = get("named");
    let shares: Vec<_> = named.tcp[0].upstreams.iter().map(|share| (&*share.upstream, share.weight)).collect();
    assert_eq!(shares, [("upstreams/db", 3), ("upstreams/later", 1)]);
    assert_eq!((&*named.tcp[0].server_names, named.tcp[0].terminate), (&["db.example.org".into()][..], true));
    let inline = &named.tcp[1];
    assert_eq!((&*inline.upstreams[0].upstream, inline.connect_attempts), ("listeners/named/1", Some(2)));
    assert_eq!((inline.idle_timeout.as_secs(), named.tcp.len()), (8 * 3600, 2));
    assert!(world.get(Kind::Endpoints, "listeners/named/1").is_some());
}

#[test]
fn what_cannot_be_read_is_not_there() {
    let world = World::of(&[
        ("upstreams/u1", json!({"nodes": {"::1:80": 1}})),
        ("ssls/a", json!({"sni": "x", "cert": "C"})),
        ("listeners/l", json!({"address": "nowhere"})),
        ("routes/r", json!({"uri": "/", "upstream_id": "u1"})),
    ]);
    assert_eq!(world.held.len(), 1);
    assert_eq!(world.upstream_of("r"), "upstreams/u1");
}

#[test]
fn what_one_owner_gives_up_and_another_takes_over_at_once_is_there() {
    let (a, b) = (Resource::Upstream(Arc::new(Upstream::new("a"))), Resource::Upstream(Arc::new(Upstream::new("b"))));
    let remove = |name: &str| Change::Remove(Kind::Upstream, name.into());
    let ordered = crate::translate::in_order(vec![remove("a"), Change::Set(a), remove("c"), Change::Set(b)]);
    let gone: Vec<_> = ordered.iter().filter(|change| matches!(change, Change::Remove(..))).collect();
    assert_eq!((ordered.len(), format!("{gone:?}")), (3, format!("{:?}", [&remove("c")])));
}
