//! What the schema of a route cannot say.

use super::super::resources::Route;
use super::super::{Fault, addr, expr};
use super::{NO_LUA, both, neither, upstream};

/// Exactly one of uri and uris, at most one of each other pair, and something to do.
pub(super) fn alternatives(has: &dyn Fn(&str) -> bool, faults: &mut Vec<Fault>) {
    match (has("uri"), has("uris")) {
        (false, false) => faults.push(Fault::new("", format!("allOf 1 failed: {}", neither("uri", "uris")))),
        (true, true) => faults.push(Fault::new("", format!("allOf 1 failed: {}", both("uri", "uris")))),
        _ => {}
    }
    for (number, one, other) in [(2, "host", "hosts"), (3, "remote_addr", "remote_addrs")] {
        if has(one) && has(other) {
            faults.push(Fault::new("", format!("allOf {number} failed: {}", both(one, other))));
        }
    }
    let does = ["plugins", "upstream", "upstream_id", "service_id", "plugin_config_id", "script", "script_id"];
    if !does.into_iter().any(has) {
        let message = "allOf 4 failed: object matches none of the required: expected one of plugins, upstream, upstream_id, service_id or plugin_config_id";
        faults.push(Fault::new("", message));
    }
}

/// Meaning: patterns, addresses, expression, inline upstream; and no Lua.
pub(super) fn check(route: &Route, faults: &mut Vec<Fault>) {
    for (field, given) in [
        ("filter_func", route.filter_func.is_some()),
        ("script", route.script.is_some()),
        ("script_id", route.script_id.is_some()),
    ] {
        if given {
            faults.push(Fault::new(field, NO_LUA));
        }
    }
    if let Some(pattern) = &route.uri {
        uri(pattern, "uri", faults);
    }
    for (index, pattern) in route.uris.iter().flatten().enumerate() {
        uri(pattern, &format!("uris[{index}]"), faults);
    }
    if let Some(text) = &route.remote_addr {
        address(text, "remote_addr", faults);
    }
    for (index, text) in route.remote_addrs.iter().flatten().enumerate() {
        address(text, &format!("remote_addrs[{index}]"), faults);
    }
    if let Some(why) = route.vars.as_ref().and_then(|vars| expr::check(vars).err()) {
        faults.push(Fault::whole("vars", format!("failed to validate the 'vars' expression: {why}")));
    }
    if let Some(inline) = &route.upstream {
        upstream::check(inline, "upstream.", faults);
    }
}

fn address(text: &str, path: &str, faults: &mut Vec<Fault>) {
    if let Err(why) = addr::network(text) {
        faults.push(Fault::new(path, why));
    }
}

/// A path pattern: `*`, or a path from the root whose parameters have names.
fn uri(pattern: &str, path: &str, faults: &mut Vec<Fault>) {
    let mut fault = |message: String| faults.push(Fault::new(path, message));
    if !pattern.starts_with('/') && !pattern.starts_with('*') {
        fault(format!("expected a path that starts with / (or *), got \"{pattern}\""));
    }
    if pattern.bytes().any(|b| b.is_ascii_control()) {
        fault("expected no control characters in a path".to_owned());
    }
    if pattern.split('/').any(|segment| segment == ":") {
        fault(format!("expected a name after : in \"{pattern}\""));
    }
}
