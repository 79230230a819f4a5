//! What the schema of a route cannot say.

use super::super::resources::Route;
use super::super::shape::NO_ALTERNATIVE;
use super::super::{Fault, addr, expr};
use super::{NO_LUA, upstream};

/// Two conditions of which only one may stand; the first of APISIX's alternatives is that neither does.
const TWO_HOSTS: &str = "allOf 2 failed: value should match only one schema, but matches both schemas 2 and 3";
const TWO_ADDRS: &str = "allOf 3 failed: value should match only one schema, but matches both schemas 2 and 3";
const NO_URI: &str = "allOf 1 failed: value should match only one schema, but matches none";
const TWO_URIS: &str = "allOf 1 failed: value should match only one schema, but matches both schemas 1 and 2";

/// Exactly one of uri and uris, at most one of each other pair, and something to do.
pub(super) fn alternatives(has: &dyn Fn(&str) -> bool, faults: &mut Vec<Fault>) {
    let mut fault = |words: &'static str, more: &str| faults.push(Fault::new("", format!("{words}: {more}")).literally(words));
    match (has("uri"), has("uris")) {
        (false, false) => fault(NO_URI, "expected one of uri and uris"),
        (true, true) => fault(TWO_URIS, "expected only one of uri and uris"),
        _ => {}
    }
    if has("host") && has("hosts") {
        fault(TWO_HOSTS, "expected only one of host and hosts");
    }
    if has("remote_addr") && has("remote_addrs") {
        fault(TWO_ADDRS, "expected only one of remote_addr and remote_addrs");
    }
    let does = ["plugins", "upstream", "upstream_id", "service_id", "plugin_config_id", "script", "script_id"];
    if !does.into_iter().any(has) {
        fault(NO_ALTERNATIVE, "expected one of plugins, upstream, upstream_id, service_id or plugin_config_id");
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
        faults.push(Fault::new(path, why).literally(NO_ALTERNATIVE));
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
