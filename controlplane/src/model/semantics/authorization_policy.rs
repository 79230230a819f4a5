//! What the schema of an authorization policy cannot say.

use super::super::mesh::{NAME_RULE, is_mesh_name};
use super::super::resources::{AuthorizationPolicy, Operation, Source};
use super::super::{Caller, Fault, network};

/// Names, callers, networks and patterns; and conditions that are none, which would say more than was meant.
pub(super) fn check(policy: &AuthorizationPolicy, faults: &mut Vec<Fault>) {
    let named = [("namespace", Some(&policy.namespace)), ("service", policy.service.as_ref())];
    for (field, name) in named.into_iter().filter_map(|(field, name)| name.map(|name| (field, name))) {
        if !is_mesh_name(name) {
            faults.push(Fault::new(field, format!("expected {NAME_RULE}, got \"{name}\"")));
        }
    }
    for (number, rule) in policy.rules.iter().enumerate() {
        for (index, source) in rule.from.iter().enumerate() {
            check_source(source, &policy.namespace, &format!("rules[{number}].from[{index}]"), faults);
        }
        for (index, operation) in rule.to.iter().enumerate() {
            check_operation(operation, &format!("rules[{number}].to[{index}]"), faults);
        }
    }
}

fn check_source(source: &Source, namespace: &str, at: &str, faults: &mut Vec<Fault>) {
    if *source == Source::default() {
        faults.push(Fault::new(at, "expected a condition; leave out `from` where anybody is meant"));
    }
    let mut each = |field: &str, items: &[String], check: &dyn Fn(&str) -> Result<(), String>| {
        for (index, item) in items.iter().enumerate() {
            if let Err(why) = check(item) {
                faults.push(Fault::new(format!("{at}.{field}[{index}]"), why));
            }
        }
    };
    let caller = |text: &str| Caller::parse(text, namespace).map(drop);
    let name = |text: &str| if is_mesh_name(text) { Ok(()) } else { Err(format!("expected {NAME_RULE}, got \"{text}\"")) };
    let cidr = |text: &str| network(text).map(drop);
    each("identities", &source.identities, &caller);
    each("not_identities", &source.not_identities, &caller);
    each("namespaces", &source.namespaces, &name);
    each("not_namespaces", &source.not_namespaces, &name);
    each("cidrs", &source.cidrs, &cidr);
    each("not_cidrs", &source.not_cidrs, &cidr);
}

fn check_operation(operation: &Operation, at: &str, faults: &mut Vec<Fault>) {
    if *operation == Operation::default() {
        faults.push(Fault::new(at, "expected a condition; leave out `to` where anything is meant"));
    }
    let mut each = |field: &str, items: &[String], check: fn(&str) -> Result<(), String>| {
        for (index, item) in items.iter().enumerate() {
            if let Err(why) = check(item) {
                faults.push(Fault::new(format!("{at}.{field}[{index}]"), why));
            }
        }
    };
    each("methods", &operation.methods, method);
    each("not_methods", &operation.not_methods, method);
    each("paths", &operation.paths, path);
    each("not_paths", &operation.not_paths, path);
    each("hosts", &operation.hosts, host);
    for (name, values) in &operation.headers {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            faults.push(Fault::new(
                format!("{at}.headers[\"{name}\"]"),
                format!("expected the name of a header field, got \"{name}\""),
            ));
        }
        if values.all().iter().any(|value| inner_star(value)) {
            faults.push(Fault::new(format!("{at}.headers[\"{name}\"]"), "a * stands at the end of a value or nowhere"));
        }
    }
}

/// Whether a `*` stands anywhere but at the end.
fn inner_star(text: &str) -> bool {
    text.strip_suffix('*').unwrap_or(text).contains('*')
}

fn method(text: &str) -> Result<(), String> {
    http::Method::from_bytes(text.as_bytes()).map(drop).map_err(|_| format!("expected a method such as GET, got \"{text}\""))
}

fn path(text: &str) -> Result<(), String> {
    let whole = text.starts_with('/') || text == "*";
    let plain = !text.bytes().any(|b| b <= b' ' || b == b'?' || b == b'#');
    if whole && plain && !inner_star(text) {
        return Ok(());
    }
    Err(format!("expected a path without query, such as /orders or /orders/* (a * only at the end), got \"{text}\""))
}

fn host(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix('*').unwrap_or(text);
    let plain = rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    if !text.is_empty() && plain {
        return Ok(());
    }
    Err(format!("expected a host such as api.example.com or *.example.com (a * only at the start), got \"{text}\""))
}
