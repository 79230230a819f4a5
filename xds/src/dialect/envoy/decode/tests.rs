//! Configurations as Envoys have them, read from JSON and from the wire, and what is refused in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use heddle_proto::shape::{FieldKind, find};
use proptest::prelude::*;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Value, json};

use super::piece::{Addresses, Path, Routes};
use super::*;
use crate::model::{Balancer, CheckKind, HashOn, ListenerProtocol, Scheme};

/// A message on the wire, from its JSON; enumerations are numbers in it.
pub(crate) fn encode(name: &str, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(known) = name.strip_prefix("google.protobuf.") {
        well_known(known, value, &mut out);
        return out;
    }
    let shape = find(name).unwrap_or_else(|| panic!("no shape of {name}"));
    for (field, value) in value.as_object().unwrap().iter().filter(|(field, _)| *field != read::TYPE) {
        let field = shape.fields.iter().find(|known| known.name == field).unwrap_or_else(|| panic!("{name} has no {field}"));
        match value {
            Value::Array(items) => items.iter().for_each(|item| encode_one(field.number, field.kind, item, &mut out)),
            Value::Object(entries) if matches!(field.kind, FieldKind::Map(_)) => {
                let FieldKind::Map(entry) = field.kind else { unreachable!() };
                for (key, value) in entries {
                    let entry = encode(entry, &json!({"key": key, "value": value}));
                    bytes_of(field.number, &entry, &mut out);
                }
            }
            value => encode_one(field.number, field.kind, value, &mut out),
        }
    }
    out
}

fn bytes_of(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend(bytes);
}

fn encode_one(number: u32, kind: FieldKind, value: &Value, out: &mut Vec<u8>) {
    match kind {
        FieldKind::Text => bytes_of(number, value.as_str().unwrap().as_bytes(), out),
        FieldKind::Bytes => bytes_of(number, &read::bytes(value.as_str().unwrap()).unwrap(), out),
        FieldKind::Message(name) => bytes_of(number, &encode(name, value), out),
        FieldKind::Float => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.extend(value.as_f64().unwrap().to_le_bytes());
        }
        FieldKind::Bool => {
            encode_key(number, WireType::Varint, out);
            encode_varint(u64::from(value.as_bool().unwrap()), out);
        }
        _ => {
            encode_key(number, WireType::Varint, out);
            encode_varint(value.as_i64().unwrap().cast_unsigned(), out);
        }
    }
}

fn well_known(name: &str, value: &Value, out: &mut Vec<u8>) {
    match name {
        "Any" => {
            let url = value[read::TYPE].as_str().unwrap();
            bytes_of(1, url.as_bytes(), out);
            bytes_of(2, &encode(url.rsplit('/').next().unwrap(), value), out);
        }
        "Duration" => {
            let seconds: f64 = value.as_str().unwrap().trim_end_matches('s').parse().unwrap();
            encode_one(1, FieldKind::Signed, &json!(seconds as i64), out);
            encode_one(2, FieldKind::Signed, &json!((seconds.fract() * 1e9).round() as i64), out);
        }
        "BoolValue" => encode_one(1, FieldKind::Bool, value, out),
        "UInt32Value" => encode_one(1, FieldKind::Unsigned, value, out),
        "DoubleValue" => encode_one(1, FieldKind::Float, value, out),
        other => panic!("no encoding of {other}"),
    }
}

/// The piece, the same from JSON and from the wire.
fn both(kind: EnvoyKind, value: &Value) -> Piece {
    let from_json = decode(kind, value).unwrap_or_else(|fault| panic!("{fault:?}"));
    let tree = wire::tree(kind.message(), &encode(kind.message(), value)).unwrap();
    let from_wire = decode(kind, &tree).unwrap_or_else(|fault| panic!("over the wire: {fault:?}"));
    assert_eq!(from_json, from_wire);
    assert_eq!(name_of(kind, &tree).as_ref(), Some(from_json.name()));
    from_json
}

pub(crate) fn any(kind: &str, mut value: Value) -> Value {
    value[read::TYPE] = format!("type.googleapis.com/{kind}").into();
    value
}

pub(crate) fn eds_cluster(name: &str) -> Value {
    json!({
        "name": name, "type": 3, "connect_timeout": "0.25s", "lb_policy": 1,
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": 2}},
    })
}

pub(crate) fn assignment(name: &str, port: u16) -> Value {
    json!({"cluster_name": name, "endpoints": [{"locality": {"zone": "z1"}, "priority": 1, "lb_endpoints": [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}, "load_balancing_weight": 3}]}]})
}

pub(crate) fn routes(name: &str, cluster: &str) -> Value {
    json!({"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}]})
}

/// A listener whose routes are asked for, or stand in it.
pub(crate) fn listener(name: &str, table: Option<Value>) -> Value {
    let mut manager = json!({
        "stat_prefix": "in",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({}))}],
    });
    match table {
        Some(table) => manager["route_config"] = table,
        None => {
            manager["rds"] =
                json!({"route_config_name": format!("{name}-routes"), "config_source": {"ads": {}, "resource_api_version": 2}})
        }
    }
    json!({
        "name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": 10000}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": any("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", manager)}]}],
    })
}

#[test]
fn a_cluster_with_all_that_a_cluster_may_have() {
    let mut value = eds_cluster("c");
    value["eds_cluster_config"]["service_name"] = "svc".into();
    value["health_checks"] = json!([{
        "timeout": "1s", "interval": "5s", "unhealthy_threshold": 3, "healthy_threshold": 2,
        "http_health_check": {
            "path": "/up", "host": "h", "expected_statuses": [{"start": 200, "end": 202}],
            "request_headers_to_add": [{"header": {"key": "x-load", "value": "50%%"}}],
        },
    }]);
    value["outlier_detection"] = json!({"consecutive_5xx": 7});
    value["circuit_breakers"] = json!({"thresholds": [{"max_connections": 10, "max_requests": 20}]});
    value["transport_socket"] = json!({"name": "tls", "typed_config": any("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", json!({
        "sni": "c.example",
        "common_tls_context": {
            "validation_context": {"trusted_ca": {"inline_string": "ROOTS"}},
            "tls_certificate_sds_secret_configs": [{"name": "client", "sds_config": {"ads": {}}}],
        },
    }))});
    let options = json!({"explicit_http_config": {"http2_protocol_options": {}}});
    value["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": any("envoy.extensions.upstreams.http.v3.HttpProtocolOptions", options)});
    let Piece::Cluster(cluster) = both(EnvoyKind::Cluster, &value) else { panic!("no cluster") };
    let upstream = &cluster.upstream;
    assert_eq!((upstream.scheme, &upstream.balancer, upstream.retries), (Scheme::Grpcs, &Balancer::LeastConn, Some(0)));
    assert_eq!(upstream.timeouts.connect, Duration::from_millis(250));
    assert_eq!(cluster.addresses, Addresses::Asked("svc".into()));
    assert_eq!(
        (upstream.tls.verify, upstream.tls.sni.as_deref(), upstream.tls.client_cert.as_deref()),
        (true, Some("c.example"), Some("client"))
    );
    assert_eq!((cluster.secrets.len(), &*cluster.asks_secrets[0]), (1, "client"));
    let active = upstream.checks.active.as_ref().unwrap();
    assert_eq!(active.headers.as_slice(), [("x-load".into(), "50%".into())]);
    assert_eq!(
        (active.kind, &*active.path, active.thresholds.healthy_statuses.as_slice()),
        (CheckKind::Http, "/up", &[200, 201][..])
    );
    assert_eq!(upstream.checks.passive.as_ref().unwrap().thresholds.http_failures, 7);
    assert_eq!((upstream.breakers.max_connections, upstream.breakers.max_requests), (Some(10), Some(20)));
}

#[test]
fn limits_of_connections_are_those_of_each_endpoint() {
    let limits = |breakers: Value| {
        let mut value = eds_cluster("c");
        value["circuit_breakers"] = breakers;
        let Piece::Cluster(cluster) = both(EnvoyKind::Cluster, &value) else { panic!("no cluster") };
        let breakers = cluster.upstream.breakers;
        (breakers.max_connections, breakers.max_pending, breakers.max_requests)
    };
    let none = u32::MAX;
    let lifted = json!({"max_connections": none, "max_pending_requests": none, "max_requests": none});
    assert_eq!(limits(json!({"thresholds": [lifted]})), (None, None, None));
    let each = json!([{"max_connections": 7}, {"priority": 1, "max_connections": 3}]);
    assert_eq!(limits(json!({"thresholds": [lifted], "per_host_thresholds": each})), (Some(7), None, None));
    assert_eq!(limits(json!({"thresholds": [{"max_connections": 5}], "per_host_thresholds": each})).0, Some(5));
    // Envoy lets one connection be made in any case.
    assert_eq!(limits(json!({"thresholds": [{"max_connections": 0}]})).0, Some(1));
    assert_eq!(limits(json!({"thresholds": [lifted], "per_host_thresholds": [{"max_connections": 0}]})).0, Some(1));
    assert_eq!(limits(json!({"thresholds": [{"max_requests": 0, "max_pending_requests": 0}]})), (None, Some(0), Some(0)));
    let mut value = eds_cluster("c");
    value["circuit_breakers"] = json!({"per_host_thresholds": [{"max_requests": 1}]});
    let fault = decode(EnvoyKind::Cluster, &value).unwrap_err();
    assert_eq!(fault.field, "circuit_breakers.per_host_thresholds[0].max_requests");
}

#[test]
fn endpoints_keep_their_weight_priority_and_zone() {
    let Piece::Endpoints(found) = both(EnvoyKind::Endpoints, &assignment("svc", 8080)) else { panic!("no endpoints") };
    let endpoint = &found.endpoints[0];
    assert_eq!((endpoint.port, endpoint.weight, endpoint.priority, &*endpoint.zone), (8080, 3, -1, "z1"));
}

#[test]
fn routes_say_what_to_match_and_where_to_go() {
    let value = json!({"name": "r", "request_headers_to_add": [{"header": {"key": "x-edge", "value": "%REQ(x-id)%"}, "append_action": 2}], "virtual_hosts": [{
        "name": "v", "domains": ["Shop.example", "*.shop.example"],
        "routes": [
            {"name": "split", "match": {"prefix": "/cart", "headers": [
                {"name": ":method", "string_match": {"exact": "POST"}}, {"name": "x-tier", "string_match": {"prefix": "go"}, "invert_match": true}]},
             "route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 90}, {"name": "b", "weight": 10}]}, "timeout": "3s",
                "prefix_rewrite": "/basket", "retry_policy": {"retry_on": "5xx,connect-failure", "num_retries": 2},
                "hash_policy": [{"header": {"header_name": "x-user"}}]}},
            {"match": {"path": "/old"}, "redirect": {"host_redirect": "new.example", "https_redirect": true, "response_code": 4}},
            {"match": {"safe_regex": {"regex": "/n/[0-9]+"}}, "direct_response": {"status": 418, "body": {"inline_string": "$tea"}}},
        ],
    }]});
    let Piece::Routes(table) = both(EnvoyKind::Routes, &value) else { panic!("no routes") };
    let [split, old, number] = table.hosts[0].routes.as_slice() else { panic!("{table:?}") };
    assert_eq!(table.hosts[0].domains.iter().map(|domain| &**domain).collect::<Vec<_>>(), ["shop.example", "*.shop.example"]);
    assert_eq!((&split.path, split.methods[0].as_ref(), split.targets.len()), (&Path::Prefix("/cart".into()), "POST", 2));
    assert_eq!(split.conditions, [json!(["field_x-tier", "~=", null]), json!(["field_x-tier", "!", "~~", "^go"])]);
    assert_eq!((split.timeout, &split.hash), (Some(Duration::from_secs(3)), &Some(HashOn::Header("x-user".into()))));
    let plugin = |route: &piece::Route, name: &str| route.plugins.iter().find(|(known, _)| *known == name).unwrap().1.clone();
    assert_eq!(plugin(split, "retry")["attempts"], 3);
    assert_eq!(
        plugin(split, "proxy-rewrite"),
        json!({"regex_uri": ["^/cart", "/basket"], "headers": {"set": {"x-edge": "${field_x-id}"}}})
    );
    assert_eq!(plugin(old, "redirect")["uri"], "https://new.example${uri}");
    assert_eq!(plugin(old, "redirect")["ret_code"], 308);
    assert_eq!(number.path, Path::Pattern("^(?:/n/[0-9]+)$".into()));
    assert_eq!(plugin(number, "mocking")["response_example"], "\\$tea");
}

#[test]
fn a_listener_asks_for_its_routes_or_has_them() {
    let Piece::Listener(door) = both(EnvoyKind::Listener, &listener("l", None)) else { panic!("no listener") };
    assert_eq!(door.chains[0].http().unwrap().routes, Routes::Asked("l-routes".into(), source::PATIENCE));
    assert_eq!((door.listener.protocol, door.listener.address.port()), (ListenerProtocol::Http, 10000));
    let mut value = listener("l", Some(routes("r", "c")));
    let tls = json!({"common_tls_context": {"tls_certificates": [{"certificate_chain": {"inline_string": "C"}, "private_key": {"inline_string": "K"}}]}});
    value["filter_chains"][0]["transport_socket"] =
        json!({"name": "tls", "typed_config": any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", tls)});
    value["filter_chains"][0]["filter_chain_match"] = json!({"server_names": ["A.example"]});
    let Piece::Listener(door) = both(EnvoyKind::Listener, &value) else { panic!("no listener") };
    assert_eq!(door.listener.protocol, ListenerProtocol::Https);
    let certificate = door.chains[0].certificate.as_ref().unwrap();
    assert_eq!((&*certificate.snis[0], &*certificate.secrets[0]), ("a.example", "listener/l/a.example/certificate/0"));
}

#[test]
fn a_listener_passes_bytes_to_clusters_by_server_name() {
    let proxy = |config: Value| json!([{"name": "proxy", "typed_config": any("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", config)}]);
    let shares = json!({"clusters": [{"name": "a", "weight": 3}, {"name": "b", "weight": 1}]});
    let mut value = listener("l", None);
    value["filter_chains"] = json!([
        {"filter_chain_match": {"server_names": ["Db.example"]}, "filters": proxy(json!({"stat_prefix": "x", "cluster": "db", "max_connect_attempts": 3, "idle_timeout": "0s"}))},
        {"filters": proxy(json!({"stat_prefix": "x", "weighted_clusters": shares, "hash_policy": [{"source_ip": {}}]}))},
    ]);
    let Piece::Listener(door) = both(EnvoyKind::Listener, &value) else { panic!("no listener") };
    assert_eq!(door.listener.protocol, ListenerProtocol::Tcp);
    let piece::Does::Tcp(first) = &door.chains[0].does else { panic!("no bytes") };
    assert_eq!(
        (&*door.chains[0].names[0], first.attempts, first.idle.is_zero(), first.by_source),
        ("db.example", 3, true, false)
    );
    let piece::Does::Tcp(second) = &door.chains[1].does else { panic!("no bytes") };
    assert_eq!((second.targets.len(), second.targets[0].weight, second.attempts, second.by_source), (2, 3, 1, true));
    assert_eq!(second.idle.as_secs(), 3600);
    value["filter_chains"][0]["filter_chain_match"] = json!({});
    let fault = decode(EnvoyKind::Listener, &value).unwrap_err();
    assert_eq!((fault.field.as_str(), fault.reason.as_str()), ("filter_chains", "more than one chain fits every server name"));
    value["filter_chains"][0] = listener("l", None)["filter_chains"][0].clone();
    assert!(decode(EnvoyKind::Listener, &value).unwrap_err().reason.contains("on one listener"));
    value["filter_chains"][1]["filters"] = proxy(json!({"cluster": "a", "tunneling_config": {"hostname": "h"}}));
    let fault = decode(EnvoyKind::Listener, &value).unwrap_err();
    assert_eq!(fault.field, "filter_chains[1].filters[0].typed_config.tunneling_config");
    let aged = |age: &str| json!({"filter_chain_match": {"server_names": [format!("a{age}")]}, "filters": proxy(json!({"cluster": "a", "max_downstream_connection_duration": age}))});
    value["filter_chains"] = json!([aged("7s"), aged("7.0s")]);
    let Piece::Listener(door) = both(EnvoyKind::Listener, &value) else { panic!("no listener") };
    assert_eq!(door.listener.limits.max_connection_duration.as_secs(), 7);
    value["filter_chains"][1] = aged("8s");
    let fault = decode(EnvoyKind::Listener, &value).unwrap_err();
    assert_eq!(fault.field, "filter_chains");
    assert!(fault.reason.starts_with("max_downstream_connection_duration"), "{}", fault.reason);
}

#[test]
fn what_a_listener_shows_and_demands_is_for_it_alone() {
    let material = |text: &str| json!({"inline_string": text});
    let pair = json!({"certificate_chain": material("C"), "private_key": material("K")});
    let context = json!({"common_tls_context": {"tls_certificates": [pair]}});
    let socket = any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", context);
    let mut value = listener("l", None);
    value["filter_chains"][0]["transport_socket"] = json!({"name": "tls", "typed_config": socket});
    let mut named = value["filter_chains"][0].clone();
    named["filter_chain_match"] = json!({"server_names": ["a.t", "*.b.t"]});
    value["filter_chains"].as_array_mut().unwrap().push(named);
    let Piece::Listener(door) = both(EnvoyKind::Listener, &value) else { panic!("no listener") };
    let shown: Vec<_> = door.chains.iter().map(|chain| chain.certificate.clone().unwrap()).collect();
    assert!(shown.iter().all(|certificate| certificate.listeners == [Arc::from("l")]), "{shown:?}");
    assert_eq!((&*shown[0].id, &*shown[1].id), ("listener/l/*", "listener/l/*.b.t,a.t"));
    let mut twice = value["filter_chains"][1].clone();
    twice["filter_chain_match"] = json!({"server_names": ["*.b.t"], "transport_protocol": "tls"});
    value["filter_chains"].as_array_mut().unwrap().push(twice);
    let fault = decode(EnvoyKind::Listener, &value).unwrap_err();
    assert_eq!((&*fault.field, &*fault.reason), ("filter_chains", "more than one chain with TLS fits *.b.t"));
}

#[test]
fn a_certificate_is_the_same_wherever_its_chain_stands_and_that_of_no_other_chain() {
    let material = |text: &str| json!({"inline_string": text});
    let pair = json!({"certificate_chain": material("C"), "private_key": material("K")});
    let chain = |names: &[&str]| {
        let socket = any(
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            json!({"common_tls_context": {"tls_certificates": [pair]}}),
        );
        let mut chain = listener("l", None)["filter_chains"][0].clone();
        chain["filter_chain_match"] = json!({"server_names": names});
        chain["transport_socket"] = json!({"name": "tls", "typed_config": socket});
        chain
    };
    let ids = |listener_name: &str, chains: &[Value]| {
        let mut value = listener(listener_name, None);
        value["filter_chains"] = json!(chains);
        let Piece::Listener(door) = both(EnvoyKind::Listener, &value) else { panic!("no listener") };
        let certificate = |chain: &piece::Chain| chain.certificate.clone().unwrap();
        door.chains.iter().map(certificate).map(|certificate| certificate.id.to_string()).collect::<Vec<_>>()
    };
    let open = ids("l", &[chain(&["open.t"])]);
    assert_eq!(ids("l", &[chain(&["strict.t"]), chain(&["open.t"])])[1..], open);
    assert_eq!(ids("l", &[chain(&["a.t", "*.b.t"])]), ids("l", &[chain(&["*.B.t", "a.t"])]));
    let many: Vec<String> = (0..100).map(|number| format!("{number}.t")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut all = ids("l", &[chain(&[]), chain(&["a.t"]), chain(&["b.t"]), chain(&["a.t,b.t"]), chain(&["x/y"]), chain(&many)]);
    all.extend(ids("l/x", &[chain(&["y"]), chain(&[])]));
    all.extend(ids("l", &[chain(&["a.t", "b.t"])]));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    assert!(all.iter().all(|id| id.len() < 150), "{all:?}");
}

#[test]
fn a_default_chain_takes_what_no_other_fits_whatever_it_says() {
    let mut value = listener("l", None);
    let chain = |name: &str| {
        let mut chain = listener("l", None)["filter_chains"][0].clone();
        chain["filter_chain_match"] = json!({"server_names": [name]});
        chain
    };
    value["filter_chains"] = json!([chain("*.t")]);
    value["default_filter_chain"] = chain("a.t");
    let Piece::Listener(door) = both(EnvoyKind::Listener, &value) else { panic!("no listener") };
    assert!(door.chains[1].is_default && door.chains[1].names.is_empty(), "a.t is for the first one");
}

#[test]
fn chains_that_no_client_could_use_as_they_say_are_refused() {
    let material = |text: &str| json!({"inline_string": text});
    let pair = json!({"certificate_chain": material("C"), "private_key": material("K")});
    let of = |change: &dyn Fn(&mut Value)| {
        let mut value = listener("l", None);
        let params = json!({"tls_minimum_protocol_version": 4});
        let common = json!({"tls_certificates": [pair], "tls_params": params});
        let socket = any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", json!({"common_tls_context": common}));
        value["filter_chains"][0]["transport_socket"] = json!({"name": "tls", "typed_config": socket});
        both(EnvoyKind::Listener, &value);
        change(&mut value);
        decode(EnvoyKind::Listener, &value).unwrap_err()
    };
    let chain = "filter_chains[0]";
    let common = "transport_socket.typed_config.common_tls_context";
    let params = |value: &mut Value, params: Value| {
        value["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]["tls_params"] = params;
    };
    let fault = of(&|value| params(value, json!({"tls_minimum_protocol_version": 4, "tls_maximum_protocol_version": 3})));
    assert_eq!(fault.field, format!("{chain}.{common}.tls_params.tls_minimum_protocol_version"));
    let matched = |value: &mut Value, told: Value| value["filter_chains"][0]["filter_chain_match"] = told;
    let fault = of(&|value| matched(value, json!({"transport_protocol": "raw_buffer"})));
    assert_eq!(fault.field, format!("{chain}.filter_chain_match.transport_protocol"));
    let fault = of(&|value| matched(value, json!({"transport_protocol": "raw_buffer", "server_names": ["a.t"]})));
    assert_eq!(fault.field, format!("{chain}.filter_chain_match.server_names"));
}

/// What is refused, where, and a word of the reason.
#[test]
fn what_cannot_be_done_is_refused_by_type_and_field() {
    let cluster = |change: fn(&mut Value)| {
        let mut value = eds_cluster("c");
        change(&mut value);
        decode(EnvoyKind::Cluster, &value).unwrap_err()
    };
    let cases = [
        (cluster(|v| v["lb_policy"] = json!("CLUSTER_PROVIDED")), "lb_policy", "ROUND_ROBIN"),
        (cluster(|v| v["lb_subset_config"] = json!({"fallback_policy": 1})), "lb_subset_config", "not supported"),
        (cluster(|v| v["eds_cluster_config"]["eds_config"] = json!({"path": "/x"})), "eds_cluster_config.eds_config.path", "ads"),
        (
            cluster(|v| v["transport_socket"] = json!({"typed_config": {"@type": "x/envoy.Alts"}})),
            "transport_socket.typed_config.@type",
            "envoy.Alts",
        ),
        (
            cluster(|v| v["health_checks"] = json!([{"timeout": "1s", "interval": "1s", "grpc_health_check": {}}])),
            "health_checks[0].grpc_health_check",
            "http_health_check",
        ),
    ];
    for (fault, field, reason) in cases {
        assert_eq!(fault.field, field, "{fault:?}");
        assert!(fault.reason.contains(reason), "{fault:?}");
    }
    let route = |change: fn(&mut Value)| {
        let mut value = routes("r", "c");
        change(&mut value["virtual_hosts"][0]["routes"][0]);
        decode(EnvoyKind::Routes, &value).unwrap_err().field
    };
    assert_eq!(route(|r| r["route"]["cluster_header"] = json!("x")), "virtual_hosts[0].routes[0].route.cluster_header");
    assert_eq!(
        route(|r| r["route"]["internal_redirect_policy"] = json!({})),
        "virtual_hosts[0].routes[0].route.internal_redirect_policy"
    );
    assert_eq!(
        route(|r| r["match"]["runtime_fraction"] = json!({"default_value": {"numerator": 5}})),
        "virtual_hosts[0].routes[0].match.runtime_fraction"
    );
    assert_eq!(
        route(|r| r["match"]["headers"] = json!([{"name": "x-a", "string_match": {"safe_regex": {"regex": "[a&&b]"}}}])),
        "virtual_hosts[0].routes[0].match.headers[0].string_match.safe_regex.regex"
    );
    assert_eq!(route(|r| r["nonsense"] = json!(1)), "virtual_hosts[0].routes[0].nonsense");
    let mut value = listener("l", None);
    let manager = &mut value["filter_chains"][0]["filters"][0]["typed_config"];
    manager["http_filters"][0]["typed_config"] = any("envoy.extensions.filters.http.wasm.v3.Wasm", json!({"config": {}}));
    let fault = decode(EnvoyKind::Listener, &value).unwrap_err();
    assert!(fault.field.ends_with("http_filters[0].typed_config.@type") && fault.reason.contains("wasm.v3.Wasm"), "{fault:?}");
    value["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]["disabled"] = json!(true);
    decode(EnvoyKind::Listener, &value).expect("what is switched off harms nobody");
}

#[test]
fn probes_and_questions_are_sent_where_they_belong() {
    for (name, value, field) in
        [("x-a", "v", None), ("Host", "v", Some("key")), (":path", "v", Some("key")), ("x-a", "v\r\nx-b: 1", Some("value"))]
    {
        let mut cluster = eds_cluster("c");
        let probe = json!({"path": "/", "request_headers_to_add": [{"header": {"key": name, "value": value}}]});
        let check = json!({"timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": probe});
        cluster["health_checks"] = json!([check]);
        let place = |field: &str| format!("health_checks[0].http_health_check.request_headers_to_add[0].header.{field}");
        assert_eq!(decode(EnvoyKind::Cluster, &cluster).err().map(|fault| fault.field), field.map(place));
        cluster["health_checks"][0]["http_health_check"]["request_headers_to_add"][0]["header"] =
            json!({"key": "x-a", "value": "%HOSTNAME%"});
        assert!(decode(EnvoyKind::Cluster, &cluster).is_err(), "nobody would say it");
        let asked = json!({"http_service": {
            "server_uri": {"uri": "http://a", "cluster": "a", "timeout": "1s"},
            "authorization_request": {"headers_to_add": [{"key": name, "value": value}]},
        }});
        let mut door = listener("l", None);
        let filters = &mut door["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
        let router = filters[0].take();
        *filters =
            json!([{"name": "a", "typed_config": any("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", asked)}, router]);
        let place = |field: &str| format!("authorization_request.headers_to_add[0].{field}");
        let refused = decode(EnvoyKind::Listener, &door).err().map(|fault| fault.field);
        assert_eq!(refused.is_some(), field.is_some(), "{refused:?}");
        assert!(field.map(place).is_none_or(|place| refused.is_some_and(|field| field.ends_with(&place))));
    }
}

#[test]
fn mutations_change_neither_the_host_nor_what_is_no_field() {
    let set = |name: &str| json!({"append": {"header": {"key": name, "value": "v"}, "append_action": 2}});
    for side in ["request_mutations", "response_mutations"] {
        let refused = |mutation: Value| {
            let mutations = json!({"mutations": {side: [set("x-a"), mutation]}});
            let config = any("envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute", mutations);
            let mut value = routes("r", "c");
            value["virtual_hosts"][0]["routes"][0]["typed_per_filter_config"] = json!({"m": config});
            decode(EnvoyKind::Routes, &value).err().map(|fault| fault.field)
        };
        let place = |rest: &str| {
            let place = "virtual_hosts[0].routes[0].typed_per_filter_config[m].mutations";
            Some(format!("{place}.{side}[1].{rest}"))
        };
        for name in ["host", "Host", ":path", ":authority", ":status"] {
            assert_eq!(refused(set(name)), place("append.header.key"), "{name}");
            assert_eq!(refused(json!({"remove": name})), place("remove"), "{name}");
        }
        assert_eq!((refused(set("x-host")), refused(json!({"remove": "x-host"}))), (None, None));
    }
}

/// Found only when routes are compiled, they would leave half a table.
#[test]
fn edits_that_cannot_be_made_are_refused_where_they_stand() {
    let route = |change: fn(&mut Value)| {
        let mut value = routes("r", "c");
        change(&mut value["virtual_hosts"][0]["routes"][0]);
        decode(EnvoyKind::Routes, &value).unwrap_err().field
    };
    type Change = fn(&mut Value);
    let edits: [(Change, &str); 8] = [
        (|r| r["request_headers_to_remove"] = json!(["x-a", ":path"]), "request_headers_to_remove[1]"),
        (|r| r["response_headers_to_remove"] = json!(["Host"]), "response_headers_to_remove[0]"),
        (|r| r["request_headers_to_remove"] = json!(["x a"]), "request_headers_to_remove[0]"),
        (
            |r| r["request_headers_to_add"] = json!([{"header": {"key": "x a", "value": "v"}}]),
            "request_headers_to_add[0].header.key",
        ),
        (
            |r| r["request_headers_to_add"] = json!([{"header": {"key": "x-a", "value": "v\r\nx-b: 1"}}]),
            "request_headers_to_add[0].header.value",
        ),
        (
            |r| r["response_headers_to_add"] = json!([{"header": {"key": ":status", "value": "1"}}]),
            "response_headers_to_add[0].header.key",
        ),
        (|r| r["route"]["host_rewrite_literal"] = json!("a b"), "route.host_rewrite_literal"),
        (|r| r["route"]["prefix_rewrite"] = json!("/a\n"), "route.prefix_rewrite"),
    ];
    for (change, field) in edits {
        assert_eq!(route(change), format!("virtual_hosts[0].routes[0].{field}"));
    }
    assert_eq!(route(|r| r["match"] = json!({"path": "api"})), "virtual_hosts[0].routes[0].match.path");
    let below = "virtual_hosts[0].routes[0].match.path_separated_prefix";
    assert_eq!(route(|r| r["match"] = json!({"path_separated_prefix": "/a/"})), below);
    assert_eq!(route(|r| r["match"] = json!({"path_separated_prefix": "/a?b"})), below);
    assert_eq!(
        route(|r| *r = json!({"match": {"prefix": "/"}, "redirect": {"https_redirect": true, "scheme_redirect": "http"}})),
        "virtual_hosts[0].routes[0].redirect.scheme_redirect"
    );
    let pattern = |r: &mut Value| r["match"] = json!({"safe_regex": {"regex": "/%c3.*"}});
    assert_eq!(route(pattern), "virtual_hosts[0].routes[0].match.safe_regex.regex");
    let mut value = routes("r", "c");
    let route_of = &mut value["virtual_hosts"][0]["routes"][0];
    route_of["match"]["case_sensitive"] = json!(false);
    route_of["route"]["prefix_rewrite"] = json!("/b");
    assert!(decode(EnvoyKind::Routes, &value).unwrap_err().reason.contains("case_sensitive"));
}

/// Envoy takes them, and sends messages that say something else than they are.
#[test]
fn fields_that_frame_a_message_or_speak_to_one_hop_are_not_added() {
    type Place = fn(&mut Value) -> &mut Value;
    let refused = |value: &Value, kind| decode(kind, value).unwrap_err();
    let names = [
        "content-length",
        "Transfer-Encoding",
        "connection",
        "Keep-Alive",
        "proxy-connection",
        "Upgrade",
        "expect",
        "http2-settings",
    ];
    for name in names {
        let edit = json!([{"header": {"key": name, "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]);
        for list in ["request_headers_to_add", "response_headers_to_add"] {
            let places: [(Place, &str); 3] = [
                (|all| all, ""),
                (|all| &mut all["virtual_hosts"][0], "virtual_hosts[0]."),
                (|all| &mut all["virtual_hosts"][0]["routes"][0], "virtual_hosts[0].routes[0]."),
            ];
            for (place, at) in places {
                let mut value = routes("r", "c");
                place(&mut value)[list] = edit.clone();
                let fault = refused(&value, EnvoyKind::Routes);
                assert_eq!(fault.field, format!("{at}{list}[0].header.key"));
                assert!(fault.reason.starts_with(name), "{fault:?}");
            }
        }
        for list in ["request_mutations", "response_mutations"] {
            let mut value = listener("l", None);
            let mutations = json!({"mutations": {list: [{"append": edit[0].clone()}]}});
            value["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]["typed_config"] =
                any("envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", mutations);
            let fault = refused(&value, EnvoyKind::Listener);
            assert!(fault.field.ends_with(&format!("mutations.{list}[0].append.header.key")), "{fault:?}");
        }
        let mut value = routes("r", "c");
        value["request_headers_to_remove"] = json!([name]);
        decode(EnvoyKind::Routes, &value).expect("what speaks to one hop is taken off in any case");
    }
}

#[test]
fn paths_are_matched_as_requests_have_them() {
    let read = |matched: Value| {
        let mut value = routes("r", "c");
        value["virtual_hosts"][0]["routes"][0]["match"] = matched;
        let Piece::Routes(table) = both(EnvoyKind::Routes, &value) else { panic!("no routes") };
        table.hosts[0].routes[0].path.clone()
    };
    assert_eq!(read(json!({"prefix": "/caf%c3%a9"})), Path::Prefix("/caf%C3%A9".into()));
    assert_eq!(read(json!({"path": "/a|b"})), Path::Exact("/a%7Cb".into()));
    assert_eq!(read(json!({"path_separated_prefix": "/%7eme"})), Path::Below("/~me".into()));
}

#[test]
fn a_field_that_the_schema_does_not_have_is_refused_by_its_number() {
    let mut bytes = encode(EnvoyKind::Cluster.message(), &eds_cluster("c"));
    encode_one(999, FieldKind::Unsigned, &json!(1), &mut bytes);
    let tree = wire::tree(EnvoyKind::Cluster.message(), &bytes).unwrap();
    assert!(decode(EnvoyKind::Cluster, &tree).unwrap_err().reason.contains("999"));
}

fn json_tree() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "name",
        "type",
        "address",
        "socket_address",
        "filter_chains",
        "filters",
        "typed_config",
        "@type",
        "virtual_hosts",
        "domains",
        "routes",
        "match",
        "prefix",
        "route",
        "cluster",
        "endpoints",
        "lb_endpoints",
        "cluster_name",
        "connect_timeout",
        "load_assignment",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        proptest::arbitrary::any::<bool>().prop_map(Value::from),
        (-5i64..70_000).prop_map(Value::from),
        "[a-z/*.%$]{0,6}".prop_map(Value::from),
        Just(json!("1s")),
        Just(json!("type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager")),
    ];
    leaf.prop_recursive(6, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_tree_makes_the_readers_panic(tree in json_tree()) {
        for kind in EnvoyKind::ALL {
            _ = decode(kind, &tree);
        }
        _ = bootstrap::read(&tree);
    }

    #[test]
    fn no_bytes_make_the_wire_panic(bytes in prop::collection::vec(proptest::arbitrary::any::<u8>(), 0..200)) {
        for kind in EnvoyKind::ALL {
            _ = wire::tree(kind.message(), &bytes).map(|tree| decode(kind, &tree));
        }
    }
}

#[test]
fn what_clients_say_of_their_way_is_asked_as_it_is_told_on() {
    let table = |fields: Value, redirect: Value| {
        let one = json!({"match": {"prefix": "/", "headers": fields}, "redirect": redirect});
        json!({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [one]}]})
    };
    let is = |name: &str, text: &str| json!({"name": name, "string_match": {"exact": text}});
    let asked =
        json!([is("X-Forwarded-Proto", "http"), is(":scheme", "http"), {"name": "x-forwarded-for", "present_match": true}]);
    let Piece::Routes(routes) = both(EnvoyKind::Routes, &table(asked, json!({"https_redirect": true}))) else {
        panic!("no routes")
    };
    let clear = json!(["forwarded_proto", "==", "http"]);
    assert_eq!(routes.hosts[0].routes[0].conditions, [clear.clone(), clear, json!(["forwarded_for", "~=", null])]);
    let uri = |redirect: Value| {
        let Ok(Piece::Routes(routes)) = decode(EnvoyKind::Routes, &table(json!([]), redirect)) else { panic!("no routes") };
        routes.hosts[0].routes[0].plugins[0].1["uri"].clone()
    };
    assert_eq!(uri(json!({"https_redirect": true})), "https://${host_leaving_http}${uri}");
    assert_eq!(uri(json!({"scheme_redirect": "http"})), "http://${host_leaving_https}${uri}");
    assert_eq!(uri(json!({"path_redirect": "/x"})), "${forwarded_proto}://${http_host}/x");
    assert_eq!(uri(json!({"https_redirect": true, "port_redirect": 443})), "https://${host}:443${uri}");
}

#[test]
fn calls_of_grpc_are_those_that_envoy_knows() {
    let mut table = routes("r", "c");
    table["virtual_hosts"][0]["routes"][0]["match"]["grpc"] = json!({});
    let Piece::Routes(routes) = both(EnvoyKind::Routes, &table) else { panic!("no routes") };
    let [variable, operator, pattern] = &routes.hosts[0].routes[0].conditions[0].as_array().unwrap()[..] else { panic!() };
    assert_eq!((variable, operator), (&json!("field_content-type"), &json!("~~")), "a field `content_type` is another one");
    let known = regex::Regex::new(pattern.as_str().unwrap()).unwrap();
    assert!(["application/grpc", "application/grpc+proto"].iter().all(|kind| known.is_match(kind)));
    for other in ["application/grpc;x", "application/grpc; charset=utf-8", "application/grpc-web", "application/grpcx"] {
        assert!(!known.is_match(other), "{other}");
    }
}

#[test]
fn what_envoy_says_itself_or_takes_from_clients_is_refused_by_name() {
    let table = |matcher: Value| {
        let one = json!({"match": {"prefix": "/", "headers": [matcher]}, "direct_response": {"status": 200}});
        json!({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [one]}]})
    };
    for name in
        ["x-request-id", "X-Forwarded-Client-Cert", "x-envoy-external-address", "x-envoy-internal", "X-Envoy-Original-Path"]
    {
        let fault = decode(EnvoyKind::Routes, &table(json!({"name": name, "present_match": true}))).unwrap_err();
        assert_eq!(fault.field, "virtual_hosts[0].routes[0].match.headers[0].name");
        assert!(fault.reason.starts_with(&format!("{} is not supported: ", name.to_ascii_lowercase())), "{fault:?}");
    }
    // Envoy, too, sees what the client has said.
    for name in ["x-envoy-attempt-count", "x-envoy-peer-metadata", "x-forwarded-host"] {
        both(EnvoyKind::Routes, &table(json!({"name": name, "present_match": true})));
    }
    let mut told = table(json!({"name": "x-a"}));
    let set = |value: &str| json!([{"header": {"key": "x-a", "value": value}}]);
    told["request_headers_to_add"] = set("%REQ(x-request-id)%");
    both(EnvoyKind::Routes, &told);
    told["request_headers_to_add"] = set("%REQ(x-envoy-external-address)%");
    assert!(decode(EnvoyKind::Routes, &told).unwrap_err().reason.contains("x-envoy-external-address"));
    told["request_headers_to_add"] = json!([]);
    told["internal_only_headers"] = json!(["x-user"]);
    assert_eq!(decode(EnvoyKind::Routes, &told).unwrap_err().field, "internal_only_headers");
}
