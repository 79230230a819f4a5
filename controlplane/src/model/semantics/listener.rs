//! What the schema of a listener cannot say.

use std::collections::HashSet;

use super::super::Fault;
use super::super::resources::{Forwarded, Limits, Listener, Paths, Protocol, ServerHeader, TcpRoute};
use super::upstream;

/// A head smaller than this serves no browser.
const SMALLEST_HEAD: u64 = 512;
/// Largest request head that may be allowed.
const LARGEST_HEAD: u64 = 16 << 20;

/// Limits that contradict each other or would let nobody in.
pub(super) fn check(listener: &Listener, faults: &mut Vec<Fault>) {
    let limits = &listener.limits;
    sizes(limits, faults);
    if listener.protocol == Protocol::Tcp {
        tcp(listener, faults);
    } else {
        for (name, is_there) in [
            ("upstream", listener.upstream.is_some()),
            ("upstream_id", listener.upstream_id.is_some()),
            ("tls", listener.tls.is_some()),
            ("routes", !listener.routes.is_empty()),
        ] {
            if is_there {
                faults.push(Fault::new(
                    name,
                    "is for `protocol: tcp`; requests go by `routes` resources, TLS is `protocol: https`",
                ));
            }
        }
    }
    for (name, span) in [
        ("header_timeout", limits.header_timeout),
        ("idle_timeout", limits.idle_timeout),
        ("body_timeout", limits.body_timeout),
        ("send_timeout", limits.send_timeout),
        ("handshake_timeout", limits.handshake_timeout),
    ] {
        if span.is_some_and(|span| span.0.is_zero()) {
            faults.push(Fault::new(
                format!("limits.{name}"),
                "expected a time above 0: a client that may stall forever holds memory forever",
            ));
        }
    }
}

fn sizes(limits: &Limits, faults: &mut Vec<Fault>) {
    for (name, size) in [
        ("max_header_bytes", limits.max_header_bytes),
        ("max_field_bytes", limits.max_field_bytes),
        ("max_uri_bytes", limits.max_uri_bytes),
    ] {
        if let Some(size) = size.filter(|size| !(SMALLEST_HEAD..=LARGEST_HEAD).contains(&size.0)) {
            faults.push(Fault::new(format!("limits.{name}"), format!("expected {SMALLEST_HEAD} bytes to 16MiB, got {}", size.0)));
        }
    }
}

/// What a listener for bytes must have, and what means nothing there.
fn tcp(listener: &Listener, faults: &mut Vec<Fault>) {
    let leads = [listener.upstream.is_some(), listener.upstream_id.is_some(), !listener.routes.is_empty()];
    if leads.into_iter().filter(|there| *there).count() != 1 {
        faults.push(Fault::new(
            "",
            "expected exactly one of upstream, upstream_id and routes: where connections of `protocol: tcp` go",
        ));
    }
    if listener.tls.is_some() && !listener.routes.is_empty() {
        faults.push(Fault::new("tls", "expected at each of the routes"));
    }
    let limits = &listener.limits;
    let of_bytes = Limits {
        handshake_timeout: limits.handshake_timeout,
        idle_timeout: limits.idle_timeout,
        max_connections: limits.max_connections,
        max_connections_per_ip: limits.max_connections_per_ip,
        max_connection_duration: limits.max_connection_duration,
        ..Limits::default()
    };
    for (name, is_there) in [
        ("forwarded", listener.forwarded != Forwarded::default()),
        ("paths", listener.paths != Paths::default()),
        ("server_header", listener.server_header != ServerHeader::default()),
        ("expose_reason", listener.expose_reason),
        ("limits", *limits != of_bytes),
    ] {
        if is_there {
            let known =
                "of limits handshake_timeout, idle_timeout, max_connection_duration, max_connections and max_connections_per_ip";
            faults.push(Fault::new(name, format!("is for HTTP and means nothing with `protocol: tcp`; expected {known}")));
        }
    }
    if let Some(inline) = &listener.upstream {
        upstream::check(inline, "upstream.", faults);
    }
    routes(&listener.routes, faults);
}

fn routes(routes: &[TcpRoute], faults: &mut Vec<Fault>) {
    let mut known = HashSet::new();
    for (at, route) in routes.iter().enumerate() {
        let place = format!("routes[{at}]");
        if route.server_names.is_empty() && !known.insert(String::new()) {
            faults.push(Fault::new(&place, "expected server_names: another route takes everybody already"));
        }
        for (number, name) in route.server_names.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            let inner = lower.strip_prefix("*.").unwrap_or(&lower);
            let place = format!("{place}.server_names[{number}]");
            if inner.is_empty()
                || inner.len() > 253
                || !inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
            {
                faults.push(Fault::new(
                    place,
                    format!("expected a name such as db.example.org or *.example.org, got \"{name:.300}\""),
                ));
            } else if !known.insert(lower) {
                faults.push(Fault::new(place, format!("{name} is there twice")));
            }
        }
        let leads = [route.upstream.is_some(), route.upstream_id.is_some(), !route.upstreams.is_empty()];
        if leads.into_iter().filter(|there| *there).count() != 1 {
            faults.push(Fault::new(&place, "expected exactly one of upstream, upstream_id and upstreams"));
        }
        if !route.upstreams.is_empty() && route.upstreams.iter().all(|share| share.weight == 0) {
            faults.push(Fault::new(format!("{place}.upstreams"), "expected one with a weight above 0"));
        }
        if let Some(inline) = &route.upstream {
            upstream::check(inline, &format!("{place}.upstream."), faults);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn faults(more: Value) -> Vec<String> {
        let mut value = json!({"address": "0.0.0.0:5432", "protocol": "tcp"});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let listener: Listener = serde_json::from_value(value).unwrap();
        let mut faults = Vec::new();
        check(&listener, &mut faults);
        faults.into_iter().map(|fault| fault.path).collect()
    }

    #[test]
    fn a_listener_for_bytes_says_where_they_go_and_nothing_about_requests() {
        assert!(faults(json!({"upstream_id": "db"})).is_empty());
        assert!(faults(json!({"upstream_id": "db", "limits": {"idle_timeout": "8h", "max_connections": 5}})).is_empty());
        assert_eq!(faults(json!({})), [""]);
        assert_eq!(faults(json!({"upstream_id": "db", "routes": [{"upstream_id": "db"}]})), [""]);
        assert_eq!(
            faults(json!({"upstream_id": "db", "expose_reason": true, "limits": {"max_headers": 9}})),
            ["expose_reason", "limits"]
        );
        assert_eq!(faults(json!({"protocol": "http", "upstream_id": "db", "tls": "terminate"})), ["upstream_id", "tls"]);
    }

    #[test]
    fn routes_are_told_apart_by_names_that_are_there_once() {
        let route = |names: &[&str]| json!({"server_names": names, "upstream_id": "db"});
        assert!(faults(json!({"routes": [route(&["a.org", "*.a.org"]), route(&[])]})).is_empty());
        assert_eq!(
            faults(json!({"routes": [route(&["a.org"]), route(&["A.org", "*", "x*.org"])]})),
            ["routes[1].server_names[0]", "routes[1].server_names[1]", "routes[1].server_names[2]"]
        );
        assert_eq!(faults(json!({"routes": [route(&[]), route(&[])]})), ["routes[1]"]);
        assert_eq!(faults(json!({"routes": [{"upstreams": [{"upstream_id": "a", "weight": 0}]}]})), ["routes[0].upstreams"]);
        assert_eq!(faults(json!({"routes": [{"upstreams": [{"upstream_id": "a"}], "upstream_id": "b"}]})), ["routes[0]"]);
    }
}
