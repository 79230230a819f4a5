//! Tables of user resources that are accepted, and of those that are refused with the words that clients know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_xds::catalog::{Catalog, ConfigFault, Descriptor, Place, PluginKind};
use serde_json::{Value, json};

use super::resources::{Checkers, HashOnKind};
use super::{Fault, ResourceKind, UserResource, parse, validate};

/// Knows `key-auth` and `limit-count`; the latter wants a `count`.
struct Two([Descriptor; 2]);

fn catalog() -> Two {
    let plain = |name, kind| Descriptor {
        name,
        priority: 1,
        version: "0.1",
        kind,
        unique_consumer_field: None,
        encrypt_fields: &[],
        prefer_route: false,
    };
    Two([plain("key-auth", PluginKind::Auth), plain("limit-count", PluginKind::Plain)])
}

impl Catalog for Two {
    fn descriptors(&self) -> &[Descriptor] {
        &self.0
    }

    fn schema(&self, _: &str, _: Place) -> Option<Value> {
        None
    }

    fn check(&self, name: &str, place: Place, config: &Value) -> Result<(), Vec<ConfigFault>> {
        let needed = match (name, place) {
            ("key-auth", Place::Consumer) => "key",
            ("limit-count", Place::Route) => "count",
            _ => return Ok(()),
        };
        match config.get(needed) {
            Some(_) => Ok(()),
            None => Err(vec![ConfigFault { path: String::new(), message: format!("property \"{needed}\" is required") }]),
        }
    }
}

fn faults(kind: ResourceKind, value: Value) -> Vec<Fault> {
    validate(kind, "1", &value, &catalog()).err().unwrap_or_default()
}

fn policy(rule: Value) -> Value {
    json!({"action": "deny", "rules": [rule]})
}

fn route(extra: Value) -> Value {
    let mut value = json!({"uri": "/a", "plugins": {}});
    for (name, field) in extra.as_object().unwrap() {
        value[name] = field.clone();
    }
    value
}

#[test]
fn a_full_route_is_read() {
    let value = json!({
        "id": 1, "name": "r", "desc": "d", "labels": {"env": "prod"}, "uris": ["/a", "/b/*", "/c/:id/d", "*"], "hosts": ["*.x.com", "y"],
        "remote_addrs": ["10.0.0.0/8", "::1"], "methods": ["GET", "PURGE"], "priority": -5, "vars": [["arg_a", "==", "b"]],
        "plugins": {"limit-count": {"count": 2}}, "plugin_config_id": "pc", "service_id": 7, "upstream_id": "u1",
        "timeout": {"connect": 0.5, "send": 1, "read": 2}, "enable_websocket": true, "status": 0, "create_time": 1, "update_time": 2
    });
    let Ok(UserResource::Route(route)) = validate(ResourceKind::Route, "1", &value, &catalog()) else { panic!("refused") };
    assert_eq!(route.service_id.unwrap().as_str(), "7");
    assert_eq!((route.priority, route.status, route.uris.unwrap().len()), (-5, 0, 4));
}

#[test]
fn defaults_are_those_of_the_reference() {
    let value = json!({"nodes": {"a:80": 1}, "keepalive_pool": {}, "checks": {"active": {}, "passive": {}}});
    let Ok(UserResource::Upstream(up)) = parse(ResourceKind::Upstream, "1", &value) else { panic!("refused") };
    assert_eq!((up.balancer.as_str(), up.scheme.as_str(), up.hash_on), ("roundrobin", "http", HashOnKind::Vars));
    let pool = up.keepalive_pool.unwrap();
    assert_eq!((pool.size, pool.idle_timeout, pool.requests, pool.max_age), (320, 60.0, 1000, 0.0));
    let checks = up.checks.unwrap();
    let (active, passive) = (checks.active.unwrap(), checks.passive.unwrap());
    assert_eq!((active.concurrency, active.healthy.successes, active.unhealthy.timeouts), (10, 2, 3));
    assert_eq!((passive.healthy.http_statuses.len(), passive.unhealthy.timeouts), (19, 7));
    assert_eq!(active.checkers, Checkers::Some(3));
    let checkers = |value: Value| {
        let upstream = json!({"nodes": {"a:80": 1}, "checks": {"active": {"checkers": value}}});
        parse(ResourceKind::Upstream, "1", &upstream).is_ok()
    };
    assert!(checkers(json!("all")) && checkers(json!(64)));
    assert!(!checkers(json!(0)) && !checkers(json!(65)) && !checkers(json!("some")));
}

#[test]
fn routes_are_refused_in_the_words_that_clients_know() {
    let table = [
        (json!({"uri": 5}), "invalid configuration: property \"uri\" validation failed: wrong type: expected string, got number"),
        (
            json!({"uris": ["/b"]}),
            "invalid configuration: allOf 1 failed: value should match only one schema, but matches both schemas 1 and 2",
        ),
        (json!({"host": "a", "hosts": ["b"]}), "invalid configuration: allOf 2 failed: value should match only one schema"),
        (
            json!({"methods": ["GET", "GET"]}),
            "invalid configuration: property \"methods\" validation failed: expected unique items but items 1 and 2 are equal",
        ),
        (
            json!({"methods": ["GOT"]}),
            "invalid configuration: property \"methods\" validation failed: failed to validate item 1: matches none of the enum values",
        ),
        (json!({"color": 1}), "invalid configuration: additional properties forbidden, found color"),
        (json!({"id": "a b"}), "invalid configuration: property \"id\" validation failed: object matches none of the required"),
        (json!({"host": "a/b"}), "invalid configuration: property \"host\" validation failed: failed to match pattern"),
        (json!({"uri": "a"}), "invalid configuration: property \"uri\" validation failed: expected a path that starts with /"),
        (
            json!({"remote_addr": "10.0.0.300"}),
            "invalid configuration: property \"remote_addr\" validation failed: object matches none of the required",
        ),
        (json!({"vars": ["a", "==", 1]}), "failed to validate the 'vars' expression: rule should be wrapped inside brackets"),
        (
            json!({"filter_func": "function(vars) return true end"}),
            "invalid configuration: property \"filter_func\" validation failed: is not supported: Heddle runs no Lua",
        ),
        (
            json!({"timeout": {"connect": 0, "send": 1, "read": 1}}),
            "invalid configuration: property \"timeout\" validation failed: property \"connect\" validation failed: expected 0 to be strictly greater than 0",
        ),
        (json!({"plugins": {"nope": {}}}), "unknown plugin [nope]"),
        (
            json!({"plugins": {"limit-count": {}}}),
            "failed to check the configuration of plugin limit-count err: property \"count\" is required",
        ),
        (
            json!({"plugins": {"limit-count": {"count": 1, "_meta": {"pre_function": "x"}}}}),
            "failed to check the configuration of plugin limit-count err: property \"_meta\" validation failed: pre_function is not supported",
        ),
        (
            json!({"upstream": {}}),
            "invalid configuration: property \"upstream\" validation failed: value should match only one schema, but matches none",
        ),
        (json!({"status": 2}), "invalid configuration: property \"status\" validation failed: matches none of the enum values"),
    ];
    for (extra, expected) in table {
        let found: Vec<_> = faults(ResourceKind::Route, route(extra.clone())).iter().map(Fault::wording).collect();
        assert!(found.first().is_some_and(|text| text.starts_with(expected)), "{extra}: {found:?}");
    }
    let wordless = faults(ResourceKind::Route, json!({"plugins": {}}));
    assert!(
        wordless[0]
            .wording()
            .starts_with("invalid configuration: allOf 1 failed: value should match only one schema, but matches none")
    );
    assert!(faults(ResourceKind::Route, json!({"uri": "/a"}))[0].message.contains("expected one of plugins, upstream"));
}

#[test]
fn every_fault_is_reported_at_once() {
    let value = json!({"uri": "x", "color": 1, "methods": ["GOT"], "plugins": {"nope": {}, "limit-count": {}}, "priority": 1.5});
    let paths: Vec<_> = faults(ResourceKind::Route, value).into_iter().map(|f| f.path).collect();
    for expected in ["", "methods[0]", "priority", "plugins.nope", "plugins.limit-count"] {
        assert!(paths.iter().any(|p| p == expected), "{expected}: {paths:?}");
    }
}

#[test]
fn a_disabled_plugin_may_be_wrong_but_not_unknown() {
    let off = json!({"_meta": {"disable": true}});
    assert_eq!(faults(ResourceKind::Route, route(json!({"plugins": {"limit-count": off}}))), []);
    assert_eq!(faults(ResourceKind::Route, route(json!({"plugins": {"nope": off}})))[0].message, "unknown plugin [nope]");
}

#[test]
fn upstreams_are_refused_with_reasons() {
    let table = [
        (json!({}), "value should match only one schema, but matches none"),
        (json!({"nodes": {"a": 1}, "service_name": "x", "discovery_type": "dns"}), "matches both schemas"),
        (json!({"nodes": {"a": -1}}), "expected -1 to be at least 0"),
        (json!({"nodes": [{"host": "a", "port": 70000, "weight": 1}]}), "expected 70000 to be at most 65535"),
        (json!({"nodes": [{"host": "a"}]}), "property \"weight\" is required"),
        (json!({"nodes": {"::1:80": 1}}), "must stand in brackets"),
        (json!({"nodes": {"a b:80": 1}}), "expected an IP address or a DNS name"),
        (json!({"nodes": {"a": 1}, "type": "chash"}), "missing key"),
        (json!({"nodes": {"a": 1}, "type": "chash", "hash_on": "header", "key": "a b"}), "failed to match pattern"),
        (json!({"nodes": {"a": 1}, "type": "magic"}), "unknown balancer magic"),
        (json!({"nodes": {"a": 1}, "scheme": "kafka"}), "comes later"),
        (json!({"service_name": "x", "discovery_type": "nacos"}), "comes later"),
        (json!({"service_name": "a b", "discovery_type": "consul"}), "a service in Consul"),
        (json!({"service_name": "a", "discovery_type": "consul", "discovery_args": {"tag": "x"}}), "tag"),
        (json!({"nodes": {"a": 1}, "pass_host": "rewrite"}), "`upstream_host` can't be empty when `pass_host` is `rewrite`"),
        (json!({"nodes": {"a": 1}, "checks": {"passive": {}}}), "object matches none of the required"),
        (json!({"nodes": {"a": 1}, "checks": {"active": {"req_headers": ["x"]}}}), "expected \"Name: value\""),
        (json!({"nodes": {"a": 1}, "tls": {"client_cert_id": "c", "client_key": "k".repeat(64)}}), "client_cert_id"),
        (json!({"nodes": {"a": 1}, "panic_threshold": 101}), "expected 101 to be at most 100"),
        (json!({"nodes": {"a": 1}, "slow_start": "soon"}), "object matches none of the required"),
        (json!({"nodes": {"a": 1}, "locality": {"overprovisioning": 99}}), "expected 99 to be at least 100"),
        (json!({"nodes": {"a": 1}, "locality": {"failover": [""]}}), "string too short"),
    ];
    for (value, expected) in table {
        let found = faults(ResourceKind::Upstream, value.clone());
        assert!(found.iter().any(|f| f.message.contains(expected)), "{value}: {found:?}");
    }
    let good = json!({"service_name": "a.b:80", "discovery_type": "dns", "type": "chash", "key": "arg_x", "slow_start": "30s",
        "circuit_breaker": {"max_requests": 5}, "locality": {"mode": "strict", "failover": ["eu-1b"]}, "load_from": "fleet", "tls": {"verify": true, "sni": "x", "ca": "my-ca"}});
    assert_eq!(faults(ResourceKind::Upstream, good), []);
}

fn pair(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn certificates_must_match_their_keys() {
    let ((cert, key), (_, other)) = (pair("a.test"), pair("b.test"));
    let check = |value: Value| faults(ResourceKind::Ssl, value);
    assert_eq!(check(json!({"sni": "a.test", "cert": cert, "key": key, "certs": [cert], "keys": [key]})), []);
    assert_eq!(check(json!({"type": "client", "cert": cert, "key": key})), []);
    let quoted = check(json!({"sni": "a", "cert": cert, "key": key.repeat(500)}));
    assert!(quoted.iter().all(|f| !f.message.contains("PRIVATE KEY")), "{quoted:?}");
    assert_eq!(check(json!({"sni": "a", "cert": "$secret://vault/1/a/cert", "key": "$env://KEY"})), []);
    for (value, expected) in [
        (json!({"sni": "a", "cert": cert, "key": other}), "failed to match cert and key"),
        (json!({"sni": "a", "cert": "x".repeat(200), "key": key}), "failed to parse cert"),
        (json!({"sni": "a", "cert": cert, "key": "x".repeat(200)}), "failed to parse key"),
        (json!({"sni": "a", "cert": "short", "key": key}), "object matches none of the required"),
        (json!({"cert": cert, "key": key}), "value should match only one schema, but matches none"),
        (json!({"sni": "a", "cert": cert, "key": key, "certs": [cert]}), "mismatched number of certs and keys"),
        (json!({"sni": "a", "cert": cert, "key": key, "ssl_protocols": ["TLSv1.1"]}), "RFC 8996"),
        (json!({"sni": "a", "cert": cert, "key": key, "client": {"ca": "y".repeat(200)}}), "failed to validate client_cert"),
    ] {
        let found = check(value);
        assert!(found.iter().any(|f| f.message.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn the_other_kinds_have_their_rules() {
    let table = [
        (ResourceKind::Consumer, json!({"username": "a b"}), "failed to match pattern"),
        (ResourceKind::Consumer, json!({}), "property \"username\" is required"),
        (ResourceKind::Consumer, json!({"username": "2"}), "wrong username"),
        (
            ResourceKind::Consumer,
            json!({"username": "1", "plugins": {"key-auth": {}}}),
            "plugin key-auth err: property \"key\" is required",
        ),
        (ResourceKind::Credential, json!({"plugins": {"limit-count": {"count": 1}}}), "only supports auth type plugins"),
        (ResourceKind::Credential, json!({"plugins": {"key-auth": {"key": "a"}, "limit-count": {"count": 1}}}), "at most 1"),
        (ResourceKind::GlobalRule, json!({}), "property \"plugins\" is required"),
        (ResourceKind::PluginConfig, json!({"plugins": {"a": 1}}), "wrong type: expected object, got number"),
        (ResourceKind::ConsumerGroup, json!({"plugins": {}, "x": 1}), "additional properties forbidden, found x"),
        (ResourceKind::PluginMetadata, json!({}), "invalid plugin name"),
        (ResourceKind::Secret, json!({}), "invalid secret manager"),
        (ResourceKind::Listener, json!({"address": "nowhere"}), "expected an address with port"),
        (ResourceKind::Listener, json!({"address": "0.0.0.0:80", "limits": {"header_timeout": 0}}), "expected a time above 0"),
        (
            ResourceKind::Listener,
            json!({"address": "0.0.0.0:80", "limits": {"max_header_bytes": "1TiB"}}),
            "object matches none of the required",
        ),
        (ResourceKind::Listener, json!({"address": "0.0.0.0:80", "forwarded": {"trusted": ["x"]}}), "invalid ip address: x"),
        (ResourceKind::MeshService, json!({"namespace": "A"}), "expected 1 to 63 lower-case letters"),
        (ResourceKind::MeshService, json!({"name": "a.b"}), "expected 1 to 63 lower-case letters"),
        (ResourceKind::MeshService, json!({"type": "best"}), "unknown balancer best"),
        (ResourceKind::MeshService, json!({"type": "chash", "hash_on": "consumer"}), "consumers are known to gateways only"),
        (ResourceKind::MeshService, json!({"protocol": "smtp"}), "smtp"),
        (ResourceKind::MeshService, json!({"addresses": ["10.0.0.0/8"]}), "expected an IP address of one host or service"),
        (ResourceKind::MeshService, json!({"addresses": ["127.0.0.1"]}), "expected an IP address of one host or service"),
        (ResourceKind::MeshService, json!({"addresses": ["::ffff:127.0.0.1"]}), "expected an IP address of one host or service"),
        (ResourceKind::MeshService, json!({"addresses": ["fe80::1%eth0"]}), "expected an IP address of one host or service"),
        (ResourceKind::MeshService, json!({"addresses": ["fe80::1"]}), "means another host on every link"),
        (ResourceKind::MeshService, json!({"addresses": ["10.0.0.1", "::ffff:10.0.0.1"]}), "10.0.0.1 stands there twice"),
        (ResourceKind::MeshService, json!({"ports": [80, {"port": 80, "protocol": "grpc"}]}), "port 80 stands there twice"),
        (ResourceKind::MeshService, json!({"ports": [{"port": 80, "protocol": "smtp"}]}), "smtp"),
        (ResourceKind::MeshService, json!({"split": [{"service": "a/b/c"}]}), "expected a service"),
        (ResourceKind::MeshService, json!({"split": [{"subset": {"version": "a b"}}]}), "pattern"),
        (ResourceKind::MeshService, json!({"split": [{"subset": {"v,1": "2"}}]}), "expected at most 4 labels"),
        (ResourceKind::MeshService, json!({"split": [{"service": "a", "match": ["x"]}]}), "wrapped inside brackets"),
        (ResourceKind::MeshService, json!({"split": vec![json!({"service": "a"}); 21]}), "at most 20 entries"),
        (ResourceKind::MeshService, json!({"plugins": {"failover": {"upstream_id": "u"}}}), "use split to lead to services"),
        (
            ResourceKind::MeshService,
            json!({"plugins": {"proxy-mirror": {"upstream_id": "u"}}}),
            "use split to lead to services, mirror to copy to one",
        ),
        (ResourceKind::MeshService, json!({"inbound_plugins": {"failover": {"upstream_id": "u"}}}), "names upstreams"),
        (ResourceKind::MeshService, json!({"inbound_plugins": {"limit-count": {}}}), "property \"count\" is required"),
        (ResourceKind::MeshService, json!({"inbound_plugins": {"none": {}}}), "unknown plugin [none]"),
        (
            ResourceKind::MeshService,
            json!({"protocol": "tcp", "inbound_plugins": {"limit-count": {"count": 1}}}),
            "no plugins can run",
        ),
        (ResourceKind::MeshService, json!({"mirror": {}}), "expected a service or a subset"),
        (ResourceKind::MeshService, json!({"mirror": {"service": "a/b/c"}}), "expected a service"),
        (ResourceKind::MeshService, json!({"mirror": {"service": "a", "subset": {"v,1": "2"}}}), "expected at most 4 labels"),
        (
            ResourceKind::MeshService,
            json!({"mirror": {"service": "a"}, "plugins": {"proxy-mirror": {"host": "http://b"}}}),
            "expected either mirror or plugins.proxy-mirror",
        ),
        (ResourceKind::MeshService, json!({"plugins": {"limit-count": {}}}), "property \"count\" is required"),
        (ResourceKind::AuthorizationPolicy, json!({}), "property \"action\" is required"),
        (ResourceKind::AuthorizationPolicy, policy(json!({"from": [{}]})), "leave out `from` where anybody is meant"),
        (ResourceKind::AuthorizationPolicy, policy(json!({"from": [{"identities": ["A b"]}]})), "expected a service"),
        (ResourceKind::AuthorizationPolicy, policy(json!({"from": [{"cidrs": ["x"]}]})), "invalid ip address: x"),
        (ResourceKind::AuthorizationPolicy, policy(json!({"to": [{"paths": ["/a*b"]}]})), "a * only at the end"),
        (ResourceKind::AuthorizationPolicy, policy(json!({"to": [{"hosts": ["a.*"]}]})), "a * only at the start"),
        (ResourceKind::AuthorizationPolicy, policy(json!({"to": [{"methods": ["G T"]}]})), "expected a method"),
        (ResourceKind::AuthorizationPolicy, policy(json!({"to": [{"headers": {"a b": "1"}}]})), "the name of a header field"),
        (ResourceKind::AuthorizationPolicy, policy(json!({"to": [{"headers": {"a": "*1"}}]})), "a * stands at the end"),
        (ResourceKind::AuthorizationPolicy, policy(json!({"to": [{"ports": [0]}]})), "0"),
        (ResourceKind::PeerAuthentication, json!({}), "it says nothing as it is"),
        (ResourceKind::PeerAuthentication, json!({"mode": "lax"}), "lax"),
        (ResourceKind::PeerAuthentication, json!({"mode": "strict", "namespace": "A"}), "expected 1 to 63 lower-case letters"),
        (ResourceKind::PeerAuthentication, json!({"service": "a", "ports": {"080": "strict"}}), "1 to 65535, got \"080\""),
        (ResourceKind::PeerAuthentication, json!({"service": "a", "ports": {"80": "lax"}}), "lax"),
        (ResourceKind::PeerAuthentication, json!({"ports": {"80": "strict"}}), "say service too"),
    ];
    for (kind, value, expected) in table {
        let found = faults(kind, value.clone());
        assert!(found.iter().any(|f| f.message.contains(expected)), "{kind:?} {value}: {found:?}");
    }
    let good = [
        (
            ResourceKind::Consumer,
            "jack@file",
            json!({"username": "jack", "plugins": {"key-auth": {"key": "k"}, "limit-count": {"count": 1}}}),
        ),
        (ResourceKind::Credential, "jack/credentials/c", json!({"plugins": {"key-auth": {"key": "k"}}})),
        (ResourceKind::PluginMetadata, "limit-count", json!({"id": "limit-count", "anything": 1, "update_time": 2})),
        (ResourceKind::Secret, "vault/1", json!({"uri": "http://v:8200", "prefix": "kv", "token": "$env://T"})),
        (
            ResourceKind::Listener,
            "l",
            json!({"address": "[::]:9080", "proxy_protocol": {"trusted": ["10.0.0.0/8"]}, "limits": {"max_headers": 5}}),
        ),
        (
            ResourceKind::MeshService,
            "web",
            json!({"inbound_plugins": {"limit-count": {"count": 1}}, "mirror": {"subset": {"version": "v2"}, "sample_ratio": 0.5}}),
        ),
        (ResourceKind::MeshService, "api", json!({"plugins": {"limit-count": {"count": 1}}})),
        (ResourceKind::MeshService, "web@file", json!({"checks": {"passive": {}}, "slow_start": "10s"})),
        (
            ResourceKind::MeshService,
            "shop.web",
            json!({"name": "web", "namespace": "shop", "split": [{"service": "web-v2", "weight": 0}, {"subset": {"version": "v2"}}]}),
        ),
        (ResourceKind::AuthorizationPolicy, "nobody", json!({"action": "allow"})),
        (
            ResourceKind::AuthorizationPolicy,
            "p",
            policy(json!({"from": [{"identities": ["*"]}], "to": [{"paths": ["*"], "hosts": ["*.a"], "ports": [80]}]})),
        ),
        (ResourceKind::Upstream, "u", json!({"discovery_type": "mesh", "service_name": "shop/web"})),
    ];
    for (kind, id, value) in good {
        assert_eq!(validate(kind, id, &value, &catalog()).err(), None, "{kind:?} {id}");
    }
    for (id, value) in [("gcp/1", json!({"auth_file": "/x"})), ("aws/1", json!({"access_key_id": "a", "secret_access_key": "b"}))]
    {
        let refused = validate(ResourceKind::Secret, id, &value, &catalog()).err().unwrap();
        assert!(refused.iter().any(|fault| fault.message.contains("not supported")), "{id}: {refused:?}");
    }
}

mod any_value {
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[ -~é]{0,12}".prop_map(Value::from),
        ];
        let names =
            prop::sample::select(vec!["uri", "nodes", "host", "plugins", "vars", "checks", "id", "limits", "address", "x.y"]);
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::vec((names.clone(), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn gets_an_answer(value in json()) {
            for kind in ResourceKind::ALL {
                for fault in validate(kind, "vault/1", &value, &catalog()).err().unwrap_or_default() {
                    prop_assert!(!fault.wording().is_empty());
                }
            }
        }
    }
}
