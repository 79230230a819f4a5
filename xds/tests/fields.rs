//! Each field of Envoy's messages by itself: it is taken, and the table of `docs/envoy.md` says so, or it is refused by its name. None is lost in silence.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use heddle_proto::shape::{Field, FieldKind, find};
use heddle_xds::dialect::envoy::decode::decode;
use heddle_xds::dialect::envoy::kind::EnvoyKind;
use serde_json::{Value, json};

const TABLE: &str = include_str!("../../docs/envoy.md");
/// Fields that the table names in other words.
const IN_OTHER_WORDS: [(&str, &str); 7] = [
    ("upstream_connection_options", "buffers and socket options of connections"),
    ("dns_refresh_rate", "how often names are asked for"),
    ("dns_failure_refresh_rate", "how often names are asked for"),
    ("respect_dns_ttl", "how often names are asked for"),
    ("dns_jitter", "how often names are asked for"),
    ("dns_lookup_family", "how often names are asked for"),
    ("typed_dns_resolver_config", "how often names are asked for"),
];

/// A value of a field that says something.
fn sample(field: &Field) -> Value {
    let one = match field.kind {
        FieldKind::Bool => json!(true),
        FieldKind::Float => json!(1.5),
        FieldKind::Text => json!("x"),
        FieldKind::Bytes => json!("eA=="),
        FieldKind::Message(name) => match name.strip_prefix("google.protobuf.") {
            Some("BoolValue") => json!(true),
            Some("UInt32Value" | "UInt64Value" | "DoubleValue") => json!(7),
            Some("Duration") => json!("7s"),
            Some("Any") => json!({"@type": "type.googleapis.com/nobody.knows.It"}),
            _ => json!({}),
        },
        FieldKind::Map(_) => return json!({"x": {"@type": "type.googleapis.com/nobody.knows.It"}}),
        _ => json!(9),
    };
    if field.repeated { json!([one]) } else { one }
}

fn listener(filter: &str, config: Value) -> Value {
    let mut config = config;
    config["@type"] = json!(format!("type.googleapis.com/{filter}"));
    json!({
        "name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 10000}},
        "filter_chains": [{"filters": [{"name": "f", "typed_config": config}]}],
    })
}

fn table(route: &Value) -> Value {
    json!({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]})
}

/// A kind of resource that is right, where in it a message stands, and which one.
fn places() -> Vec<(EnvoyKind, Value, &'static str, &'static str)> {
    let manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let proxy = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let http =
        || listener(manager, json!({"route_config": table(&json!({"match": {"prefix": "/"}, "route": {"cluster": "c"}}))}));
    let route = || table(&json!({"match": {"prefix": "/"}, "route": {"cluster": "c"}}));
    let redirect = || table(&json!({"match": {"prefix": "/"}, "redirect": {}}));
    let at = "/filter_chains/0/filters/0/typed_config";
    let cluster = || json!({"name": "c", "common_lb_config": {}, "common_http_protocol_options": {}});
    let endpoint = json!({"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}}}});
    let assignment = || json!({"cluster_name": "c", "policy": {}, "endpoints": [{"lb_endpoints": [endpoint]}]});
    let filter = |kind: &str, mut config: Value| {
        config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"));
        json!({"name": "f", "typed_config": config})
    };
    let uri = json!({"uri": "http://a", "cluster": "a", "timeout": "1s"});
    let authz = || filter("ext_authz.v3.ExtAuthz", json!({"http_service": {"server_uri": uri}}));
    let keys = json!({"inline_string": "{\"keys\": []}"});
    let authn = || filter("jwt_authn.v3.JwtAuthentication", json!({"providers": {"p": {"local_jwks": keys}}}));
    let of = |kind: &str| filter(kind, json!({}));
    vec![
        (EnvoyKind::Listener, http(), "", "envoy.config.listener.v3.Listener"),
        (EnvoyKind::Listener, http(), "/filter_chains/0", "envoy.config.listener.v3.FilterChain"),
        (EnvoyKind::Listener, http(), at, manager),
        (EnvoyKind::Listener, listener(proxy, json!({"cluster": "c"})), at, proxy),
        (EnvoyKind::Routes, route(), "", "envoy.config.route.v3.RouteConfiguration"),
        (EnvoyKind::Routes, route(), "/virtual_hosts/0", "envoy.config.route.v3.VirtualHost"),
        (EnvoyKind::Routes, route(), "/virtual_hosts/0/routes/0", "envoy.config.route.v3.Route"),
        (EnvoyKind::Routes, route(), "/virtual_hosts/0/routes/0/match", "envoy.config.route.v3.RouteMatch"),
        (EnvoyKind::Routes, route(), "/virtual_hosts/0/routes/0/route", "envoy.config.route.v3.RouteAction"),
        (EnvoyKind::Routes, redirect(), "/virtual_hosts/0/routes/0/redirect", "envoy.config.route.v3.RedirectAction"),
        (EnvoyKind::Cluster, cluster(), "", "envoy.config.cluster.v3.Cluster"),
        (EnvoyKind::Cluster, cluster(), "/common_http_protocol_options", "envoy.config.core.v3.HttpProtocolOptions"),
        (EnvoyKind::Endpoints, assignment(), "", "envoy.config.endpoint.v3.ClusterLoadAssignment"),
        (EnvoyKind::Endpoints, assignment(), "/policy", "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy"),
        (EnvoyKind::Endpoints, assignment(), "/endpoints/0", "envoy.config.endpoint.v3.LocalityLbEndpoints"),
        (EnvoyKind::Extension, authz(), "/typed_config", "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"),
        (EnvoyKind::Extension, authz(), "/typed_config/http_service", "envoy.extensions.filters.http.ext_authz.v3.HttpService"),
        (EnvoyKind::Extension, authn(), "/typed_config", "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"),
        (EnvoyKind::Extension, authn(), "/typed_config/providers/p", "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider"),
        (EnvoyKind::Extension, of("rbac.v3.RBAC"), "/typed_config", "envoy.extensions.filters.http.rbac.v3.RBAC"),
        (EnvoyKind::Extension, of("csrf.v3.CsrfPolicy"), "/typed_config", "envoy.extensions.filters.http.csrf.v3.CsrfPolicy"),
    ]
}

#[test]
fn no_field_is_lost_in_silence() {
    let (mut wrong, mut taken, mut refused) = (Vec::new(), 0, 0);
    for (kind, base, place, message) in places() {
        decode(kind, &base).unwrap_or_else(|fault| panic!("{message}: {fault:?}"));
        let shape = find(message).unwrap_or_else(|| panic!("no shape of {message}"));
        for field in shape.fields {
            let mut value = base.clone();
            let there = value.pointer_mut(place).unwrap().as_object_mut().unwrap();
            if there.contains_key(field.name) {
                continue;
            }
            there.insert(field.name.to_owned(), sample(field));
            let words = IN_OTHER_WORDS.iter().find(|(name, _)| *name == field.name).map(|(_, words)| *words);
            match decode(kind, &value) {
                Ok(_) if TABLE.contains(&format!("`{}`", field.name)) || words.is_some_and(|words| TABLE.contains(words)) => {
                    taken += 1
                }
                Ok(_) => wrong.push(format!("{message}: {} is taken, which the table does not say", field.name)),
                Err(fault) if format!("{} {}", fault.field, fault.reason).contains(field.name) => refused += 1,
                Err(fault) => wrong.push(format!("{message}: {} is refused without its name: {fault:?}", field.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} fields\n{}", wrong.len(), wrong.join("\n"));
    assert!(taken > 50 && refused > 100, "{taken} are taken, {refused} refused");
}
