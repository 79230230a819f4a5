//! Each field of Envoy's messages by itself: it is taken, and the table of `docs/envoy.md` says so, or it is refused by its name. None is lost in silence.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use heddle_proto::shape::{Field, FieldKind, find};
use heddle_xds::dialect::envoy::decode::decode;
use heddle_xds::dialect::envoy::kind::EnvoyKind;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/envoy.md");
/// Fields that the table names in other words.
const IN_OTHER_WORDS: [(&str, &str); 8] = [
    ("per_connection_buffer_limit_bytes", "buffers and socket options of connections"),
    ("upstream_connection_options", "buffers and socket options of connections"),
    ("dns_refresh_rate", "how often names are asked for"),
    ("dns_failure_refresh_rate", "how often names are asked for"),
    ("respect_dns_ttl", "how often names are asked for"),
    ("dns_jitter", "how often names are asked for"),
    ("dns_lookup_family", "how often names are asked for"),
    ("typed_dns_resolver_config", "how often names are asked for"),
];

/// Where the page says what is taken of a message.
#[derive(Clone, Copy)]
enum Place {
    /// The table under this heading, but for what it lists as refused.
    Table(&'static str),
    /// The row of this filter and the sentences about it, up to what they list as refused.
    Filter(&'static str),
}

impl Place {
    fn text(self) -> String {
        match self {
            Place::Table(heading) => {
                let lines = section(heading).lines().filter(|line| !line.starts_with("| refused"));
                lines.collect::<Vec<_>>().join("\n")
            }
            Place::Filter(name) => {
                let all = section("Filters");
                let row = all.lines().filter(|line| line.starts_with(&format!("| `{name}`")));
                let begins = format!("Of `{name}`");
                let about = all.split(&begins).skip(1).map(|rest| rest.split("\n\n").next().unwrap());
                let taken = about.map(|text| text.split("Refused").next().unwrap());
                row.chain(taken).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

fn section(heading: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("the page has no {heading}"));
    rest.split("\n## ").next().unwrap()
}

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

/// A kind of resource that is right, where in it a message stands, which one, and where the page speaks of it.
type Spot = (EnvoyKind, Value, &'static str, &'static str, Place);

fn places() -> Vec<Spot> {
    [resources(), filters(), on_routes()].concat()
}

fn resources() -> Vec<Spot> {
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
    let (door, bytes, manages) = (Place::Table("Listener"), Place::Table("TcpProxy"), Place::Table("HttpConnectionManager"));
    let (routes, clusters) = (Place::Table("RouteConfiguration"), Place::Table("Cluster and ClusterLoadAssignment"));
    vec![
        (EnvoyKind::Listener, http(), "", "envoy.config.listener.v3.Listener", door),
        (EnvoyKind::Listener, http(), "/filter_chains/0", "envoy.config.listener.v3.FilterChain", door),
        (EnvoyKind::Listener, http(), at, manager, manages),
        (EnvoyKind::Listener, listener(proxy, json!({"cluster": "c"})), at, proxy, bytes),
        (EnvoyKind::Routes, route(), "", "envoy.config.route.v3.RouteConfiguration", routes),
        (EnvoyKind::Routes, route(), "/virtual_hosts/0", "envoy.config.route.v3.VirtualHost", routes),
        (EnvoyKind::Routes, route(), "/virtual_hosts/0/routes/0", "envoy.config.route.v3.Route", routes),
        (EnvoyKind::Routes, route(), "/virtual_hosts/0/routes/0/match", "envoy.config.route.v3.RouteMatch", routes),
        (EnvoyKind::Routes, route(), "/virtual_hosts/0/routes/0/route", "envoy.config.route.v3.RouteAction", routes),
        (EnvoyKind::Routes, redirect(), "/virtual_hosts/0/routes/0/redirect", "envoy.config.route.v3.RedirectAction", routes),
        (EnvoyKind::Cluster, cluster(), "", "envoy.config.cluster.v3.Cluster", clusters),
        (EnvoyKind::Cluster, cluster(), "/common_http_protocol_options", "envoy.config.core.v3.HttpProtocolOptions", clusters),
        (EnvoyKind::Endpoints, assignment(), "", "envoy.config.endpoint.v3.ClusterLoadAssignment", clusters),
        (EnvoyKind::Endpoints, assignment(), "/policy", "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy", clusters),
        (EnvoyKind::Endpoints, assignment(), "/endpoints/0", "envoy.config.endpoint.v3.LocalityLbEndpoints", clusters),
    ]
}

fn filters() -> Vec<Spot> {
    let filter = |kind: &str, mut config: Value| {
        config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"));
        json!({"name": "f", "typed_config": config})
    };
    let uri = json!({"uri": "http://a", "cluster": "a", "timeout": "1s"});
    let service = json!({"server_uri": uri, "authorization_request": {}, "authorization_response": {}});
    let authz =
        || filter("ext_authz.v3.ExtAuthz", json!({"http_service": service, "with_request_body": {"max_request_bytes": 9}}));
    let call = || filter("ext_authz.v3.ExtAuthz", json!({"grpc_service": {"envoy_grpc": {"cluster_name": "a"}}}));
    let keys = json!({"inline_string": "{\"keys\": []}"});
    let authn = || {
        let providers =
            json!({"p": {"local_jwks": keys, "from_headers": [{"name": "a"}]}, "q": {"remote_jwks": {"http_uri": uri}}});
        let rules = json!([{"match": {"prefix": "/"}}]);
        filter("jwt_authn.v3.JwtAuthentication", json!({"providers": providers, "rules": rules}))
    };
    let of = |kind: &str| filter(kind, json!({}));
    let (asks, tokens) = (Place::Filter("ext_authz"), Place::Filter("jwt_authn"));
    let one = |value: Value, at, message, place| (EnvoyKind::Extension, value, at, message, place);
    vec![
        one(authz(), "/typed_config", "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", asks),
        one(authz(), "/typed_config/http_service", "envoy.extensions.filters.http.ext_authz.v3.HttpService", asks),
        one(
            authz(),
            "/typed_config/http_service/authorization_request",
            "envoy.extensions.filters.http.ext_authz.v3.AuthorizationRequest",
            asks,
        ),
        one(
            authz(),
            "/typed_config/http_service/authorization_response",
            "envoy.extensions.filters.http.ext_authz.v3.AuthorizationResponse",
            asks,
        ),
        one(authz(), "/typed_config/with_request_body", "envoy.extensions.filters.http.ext_authz.v3.BufferSettings", asks),
        one(call(), "/typed_config/grpc_service", "envoy.config.core.v3.GrpcService", asks),
        one(call(), "/typed_config/grpc_service/envoy_grpc", "envoy.config.core.v3.GrpcService.EnvoyGrpc", asks),
        one(authn(), "/typed_config", "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", tokens),
        one(authn(), "/typed_config/providers/p", "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider", tokens),
        one(authn(), "/typed_config/providers/p/from_headers/0", "envoy.extensions.filters.http.jwt_authn.v3.JwtHeader", tokens),
        one(authn(), "/typed_config/providers/q/remote_jwks", "envoy.extensions.filters.http.jwt_authn.v3.RemoteJwks", tokens),
        one(authn(), "/typed_config/rules/0", "envoy.extensions.filters.http.jwt_authn.v3.RequirementRule", tokens),
        one(of("rbac.v3.RBAC"), "/typed_config", "envoy.extensions.filters.http.rbac.v3.RBAC", Place::Filter("rbac")),
        one(of("csrf.v3.CsrfPolicy"), "/typed_config", "envoy.extensions.filters.http.csrf.v3.CsrfPolicy", Place::Filter("csrf")),
    ]
}

fn on_routes() -> Vec<Spot> {
    let says = |kind: &str, mut config: Value| {
        config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"));
        let filters = json!({"f": config});
        table(&json!({"match": {"prefix": "/"}, "route": {"cluster": "c"}, "typed_per_filter_config": filters}))
    };
    let copied = json!({"cluster": "c", "request_mirror_policies": [{"cluster": "m"}]});
    let mirrors = || table(&json!({"match": {"prefix": "/"}, "route": copied}));
    let authz = "ext_authz.v3.ExtAuthzPerRoute";
    let settings = || says(authz, json!({"check_settings": {}}));
    let at = "/virtual_hosts/0/routes/0/typed_per_filter_config/f";
    let policy = "envoy.config.route.v3.RouteAction.RequestMirrorPolicy";
    let first = "/virtual_hosts/0/routes/0/route/request_mirror_policies/0";
    let one = |value: Value, at, message, place| (EnvoyKind::Routes, value, at, message, place);
    let (asks, tokens) = (Place::Filter("ext_authz"), Place::Filter("jwt_authn"));
    vec![
        one(says(authz, json!({"disabled": true})), at, "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", asks),
        one(
            settings(),
            "/virtual_hosts/0/routes/0/typed_per_filter_config/f/check_settings",
            "envoy.extensions.filters.http.ext_authz.v3.CheckSettings",
            asks,
        ),
        one(
            says("jwt_authn.v3.PerRouteConfig", json!({"disabled": true})),
            at,
            "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
            tokens,
        ),
        one(mirrors(), first, policy, Place::Table("RouteConfiguration")),
    ]
}

/// Whether a field is named, by itself or in a path.
fn is_said(text: &str, name: &str) -> bool {
    text.split('`').skip(1).step_by(2).any(|words| words.split('.').any(|part| part == name))
}

#[test]
fn no_field_is_lost_in_silence() {
    let (mut wrong, mut taken, mut refused) = (Vec::new(), 0, 0);
    for (kind, base, at, message, place) in places() {
        let said = place.text();
        decode(kind, &base).unwrap_or_else(|fault| panic!("{message}: {fault:?}"));
        let shape = find(message).unwrap_or_else(|| panic!("no shape of {message}"));
        for field in shape.fields {
            let mut value = base.clone();
            let there = value.pointer_mut(at).unwrap().as_object_mut().unwrap();
            if there.contains_key(field.name) {
                continue;
            }
            there.insert(field.name.to_owned(), sample(field));
            let words = IN_OTHER_WORDS.iter().find(|(name, _)| *name == field.name).map(|(_, words)| *words);
            match decode(kind, &value) {
                Ok(_) if is_said(&said, field.name) || words.is_some_and(|words| said.contains(words)) => taken += 1,
                Ok(_) => wrong.push(format!("{message}: {} is taken, which the table does not say", field.name)),
                Err(fault) if format!("{} {}", fault.field, fault.reason).contains(field.name) => refused += 1,
                Err(fault) => wrong.push(format!("{message}: {} is refused without its name: {fault:?}", field.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} fields\n{}", wrong.len(), wrong.join("\n"));
    assert!(taken > 50 && refused > 100, "{taken} are taken, {refused} refused");
}
