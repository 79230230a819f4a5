//! What the schema of an upstream cannot say.

use serde_json::{Map, Value};

use super::super::resources::{Active, HashOnKind, PassHostKind, Upstream, UpstreamTls};
use super::super::shape::NO_ALTERNATIVE;
use super::super::{DEFAULT_NAMESPACE, Fault, ServiceId};
use super::{both, neither, ssl};

/// Exactly one of `nodes` and `service_name` with `discovery_type`; at most one way to give a client certificate.
pub(super) fn alternatives(map: &Map<String, Value>, path: &str, faults: &mut Vec<Fault>) {
    let nodes = map.contains_key("nodes");
    let discovery = (map.contains_key("service_name"), map.contains_key("discovery_type"));
    match (nodes, discovery) {
        (true, (false, false)) | (false, (true, true)) => {}
        (true, _) => faults.push(both(path, "nodes", "service_name with discovery_type")),
        (false, _) => faults.push(neither(path, "nodes", "service_name with discovery_type")),
    }
    if let Some(checks) = map.get("checks").and_then(Value::as_object)
        && !checks.contains_key("active")
    {
        let message = format!("{NO_ALTERNATIVE}: expected active (passive alone would never find a node recovered)");
        faults.push(Fault::new(join(path, "checks"), message).literally(NO_ALTERNATIVE));
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Meaning; `at` is the path of the upstream with its dot, or empty.
pub(super) fn check(upstream: &Upstream, at: &str, faults: &mut Vec<Fault>) {
    let mut fault = |field: &str, message: String| faults.push(Fault::new(format!("{at}{field}"), message));
    if let scheme @ ("tcp" | "tls" | "udp" | "kafka") = upstream.scheme.as_str() {
        fault(
            "scheme",
            format!(
                "scheme {scheme} is not supported yet: it comes later, with TCP and UDP proxying (expected http, https, grpc or grpcs)"
            ),
        );
    }
    match upstream.discovery_type.as_deref() {
        None | Some("dns") => {}
        Some("mesh") => {
            let service = upstream.service_name.as_deref().unwrap_or_default();
            if ServiceId::parse_called(service, DEFAULT_NAMESPACE).is_none() {
                fault(
                    "service_name",
                    format!(
                        "expected a service of the mesh, \"web\", \"shop/web\" or, with a port, \"shop/web:9090\", got \"{service}\""
                    ),
                );
            }
        }
        Some("consul") => {
            let service = upstream.service_name.as_deref().unwrap_or_default();
            if service.chars().any(|c| c.is_control() || c.is_whitespace()) {
                fault("service_name", format!("expected the name of a service in Consul, got \"{service}\""));
            }
        }
        Some(other) => {
            let message = format!("discovery type {other} is not supported yet: it comes later (expected dns, mesh or consul)");
            fault("discovery_type", message);
        }
    }
    if !matches!(upstream.balancer.as_str(), "roundrobin" | "chash" | "maglev" | "least_conn" | "ewma") {
        fault("type", format!("unknown balancer {} (expected roundrobin, chash, maglev, least_conn or ewma)", upstream.balancer));
    }
    if upstream.pass_host == PassHostKind::Rewrite && upstream.upstream_host.is_none() {
        faults.push(Fault::whole(format!("{at}upstream_host"), "`upstream_host` can't be empty when `pass_host` is `rewrite`"));
    }
    if let Some(why) = hash_key(upstream) {
        faults.push(Fault::whole(format!("{at}key"), why));
    }
    nodes(upstream, at, faults);
    if let Some(tls) = &upstream.tls {
        check_tls(tls, at, faults);
    }
    if let Some(active) = upstream.checks.as_ref().and_then(|checks| checks.active.as_ref()) {
        probe(active, at, faults);
    }
}

/// Variables that may feed a hash ring, besides `arg_*` and friends.
const HASH_VARIABLES: [&str; 12] = [
    "uri",
    "server_name",
    "server_addr",
    "request_uri",
    "remote_port",
    "remote_addr",
    "query_string",
    "host",
    "hostname",
    "mqtt_client_id",
    "request_method",
    "scheme",
];

fn hash_key(upstream: &Upstream) -> Option<String> {
    if !upstream.hashes() || upstream.hash_on == HashOnKind::Consumer {
        return None;
    }
    let Some(key) = upstream.key.as_deref().filter(|key| !key.is_empty()) else { return Some("missing key".to_owned()) };
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let prefixed = |text: &str| {
        ["arg_", "http_", "cookie_", "uri_param_"].into_iter().any(|p| text.strip_prefix(p).is_some_and(|rest| !rest.is_empty()))
    };
    let wrong = match upstream.hash_on {
        HashOnKind::Vars if HASH_VARIABLES.contains(&key) || prefixed(key) => return None,
        HashOnKind::Vars => format!("a variable to hash on ({}, arg_*, http_*, cookie_*)", HASH_VARIABLES.join(", ")),
        HashOnKind::Header | HashOnKind::Cookie if plain(key) => return None,
        HashOnKind::Header | HashOnKind::Cookie => "a name of letters, digits, - and _".to_owned(),
        HashOnKind::VarsCombinations if key.contains('$') => return None,
        HashOnKind::VarsCombinations => "a template with variables such as $host$uri".to_owned(),
        HashOnKind::Consumer => return None,
    };
    Some(format!("invalid configuration: failed to match pattern with \"{key}\": expected {wrong}"))
}

pub(super) fn nodes(upstream: &Upstream, at: &str, faults: &mut Vec<Fault>) {
    let Some(nodes) = &upstream.nodes else { return };
    for (index, node) in nodes.0.iter().enumerate() {
        if node.host.parse::<std::net::IpAddr>().is_err() && !is_dns_name(&node.host) {
            let message = format!("expected an IP address or a DNS name, got \"{}\"", node.host);
            faults.push(Fault::new(format!("{at}nodes[{index}].host"), message));
        }
    }
}

/// Letters, digits, `-`, `_` and dots; labels of 1 to 63 bytes.
fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

fn check_tls(tls: &UpstreamTls, at: &str, faults: &mut Vec<Fault>) {
    let path = format!("{at}tls");
    let pair = (tls.client_cert.as_deref(), tls.client_key.as_deref());
    if tls.client_cert_id.is_some() && pair != (None, None) {
        faults.push(both(&path, "client_cert_id", "client_cert with client_key"));
    }
    match pair {
        (Some(cert), Some(key)) => {
            if let Err(why) = ssl::pair(cert, key) {
                faults.push(Fault::new(format!("{path}.client_cert"), why));
            }
        }
        (None, None) => {}
        _ => {
            faults.push(Fault::new(path.clone(), "property \"client_cert\" and property \"client_key\" are only valid together"))
        }
    }
    if let Some(ca) = tls.ca.as_deref().filter(|ca| ca.contains("-----BEGIN"))
        && let Err(why) = ssl::chain(ca)
    {
        faults.push(Fault::new(format!("{path}.ca"), why));
    }
}

fn probe(active: &Active, at: &str, faults: &mut Vec<Fault>) {
    let path = format!("{at}checks.active");
    for (index, line) in active.req_headers.iter().enumerate() {
        let valid = line.split_once(':').is_some_and(|(name, value)| {
            http::HeaderName::from_bytes(name.trim().as_bytes()).is_ok() && http::HeaderValue::from_str(value.trim()).is_ok()
        });
        if !valid {
            faults.push(Fault::new(format!("{path}.req_headers[{index}]"), format!("expected \"Name: value\", got \"{line}\"")));
        }
    }
    if http::Method::from_bytes(active.http_method.as_bytes()).is_err() {
        faults.push(Fault::new(format!("{path}.http_method"), format!("expected a method, got \"{}\"", active.http_method)));
    }
    if !active.http_path.starts_with('/') || active.http_path.bytes().any(|b| b <= b' ') {
        faults.push(Fault::new(
            format!("{path}.http_path"),
            format!("expected a path that starts with / and has no blanks, got \"{}\"", active.http_path),
        ));
    }
}
