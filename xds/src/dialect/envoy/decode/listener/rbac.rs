//! Who may do what: `RBAC`, as a rule that refuses. It knows neither listeners nor routes.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::super::piece::Deed;
use super::super::read::{Fault, Fields, Read, message};
use super::super::route::matching::{self, Wanted, condition};

/// How deep conditions may be nested.
const MAX_DEPTH: u8 = 16;
/// What a refused client reads, as Envoy says it.
const DENIED: &str = "RBAC: access denied";

/// A plugin that answers at once, before routes change anything, for the requests for which this holds.
fn at_once(case: &Value, status: u32, body: &str) -> Deed {
    let headers = if body.is_empty() { json!({}) } else { json!({"content-type": "text/plain"}) };
    vec![("fault-injection", json!({"abort": {"http_status": status, "body": body, "headers": headers, "vars": [[case]]}}))]
}

/// Reads the filter; nothing where it enforces nothing.
pub(super) fn filter(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    // What shadow rules find is told in statistics alone.
    fields.ignore(&["shadow_rules", "shadow_matcher", "shadow_rules_stat_prefix", "rules_stat_prefix", "track_per_rule_stats"]);
    fields.refuse("matcher", "is not supported: use rules")?;
    Ok(fields.message("rules", rules)?.flatten())
}

/// Reads what a route says instead of the filter.
pub(super) fn per_route(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    Ok(fields.message("rbac", filter)?.flatten())
}

fn rules(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    let action = fields.choice("action", &[("ALLOW", 0, Some(true)), ("DENY", 1, Some(false)), ("LOG", 2, None)])?;
    fields.ignore(&["audit_logging_options"]);
    let mut policies = Vec::new();
    for (name, value) in fields.map("policies")? {
        policies.push(message(value, policy).map_err(|fault| fault.inside(&format!("policies[{name}]")))?);
    }
    let case = match (action.unwrap_or(Some(true)), policies.is_empty()) {
        (Some(true), false) => Some(group("!OR", policies)),
        // Nobody is allowed.
        (Some(true), true) => Some(anything()),
        (Some(false), false) => Some(group("OR", policies)),
        (Some(false), true) | (None, _) => None,
    };
    Ok(case.map(|case| at_once(&case, 403, DENIED)))
}

/// What always holds.
pub(super) fn anything() -> Value {
    json!(["method", "~=", null])
}

/// What never does.
fn nothing() -> Value {
    json!(["method", "==", null])
}

fn policy(fields: &mut Fields<'_>) -> Read<Value> {
    for name in ["condition", "checked_condition", "cel_config"] {
        fields.refuse(name, "is not supported: use permissions and principals")?;
    }
    let permissions = any_of(fields.list("permissions", |one| permission(one, 0))?, "permissions")?;
    let principals = any_of(fields.list("principals", |one| principal(one, 0))?, "principals")?;
    Ok(group("AND", vec![permissions, principals]))
}

fn any_of(conditions: Vec<Value>, field: &str) -> Read<Value> {
    if conditions.is_empty() {
        return Err(Fault::new(field, "must not be empty"));
    }
    Ok(group("OR", conditions))
}

/// A group of conditions, which our expressions have of two and more alone.
pub(super) fn group(word: &str, mut conditions: Vec<Value>) -> Value {
    match (conditions.pop(), conditions.is_empty(), word) {
        (Some(only), true, "AND" | "OR") => only,
        (Some(only), true, _) => json!(["!OR", only, nothing()]),
        (last, ..) => [json!(word)].into_iter().chain(conditions).chain(last).collect(),
    }
}

/// What both sides may say.
fn common(fields: &mut Fields<'_>, found: &mut Vec<Value>) -> Read<()> {
    if let Some(any) = fields.flag("any")? {
        found.push(if any { anything() } else { nothing() });
    }
    if let Some(wanted) = fields.message("header", matching::header)? {
        found.push(match wanted {
            Wanted::Method(method) => json!(["method", "==", method]),
            Wanted::Conditions(conditions) => group("AND", conditions),
        });
    }
    let path = |path: &mut Fields<'_>| path.required("path", matching::path);
    found.extend(fields.message("url_path", path)?.map(|text| condition("uri", &text)));
    for name in ["metadata", "sourced_metadata", "filter_state", "matcher", "uri_template"] {
        fields.refuse(name, "is not supported")?;
    }
    Ok(())
}

fn permission(fields: &mut Fields<'_>, depth: u8) -> Read<Value> {
    let mut found = Vec::new();
    common(fields, &mut found)?;
    let set = |rules: &mut Fields<'_>| nested(rules, "rules", depth, permission);
    found.extend(fields.message("and_rules", set)?.map(|rules| group("AND", rules)));
    found.extend(fields.message("or_rules", set)?.map(|rules| group("OR", rules)));
    found.extend(fields.message("not_rule", |rule| deeper(rule, depth, permission))?.map(|rule| group("!AND", vec![rule])));
    found.extend(fields.message("destination_ip", range)?.map(|net| json!(["server_addr", "ipmatch", [net]])));
    found.extend(fields.small("destination_port")?.filter(|port| *port > 0).map(|port| json!(["server_port", "==", port])));
    fields.refuse("destination_port_range", "is not supported: use destination_port")?;
    let name = fields.message("requested_server_name", matching::string)?;
    found.extend(name.map(|text| condition("requested_server_name", &text)));
    one(found)
}

fn principal(fields: &mut Fields<'_>, depth: u8) -> Read<Value> {
    let mut found = Vec::new();
    common(fields, &mut found)?;
    let set = |ids: &mut Fields<'_>| nested(ids, "ids", depth, principal);
    found.extend(fields.message("and_ids", set)?.map(|ids| group("AND", ids)));
    found.extend(fields.message("or_ids", set)?.map(|ids| group("OR", ids)));
    found.extend(fields.message("not_id", |id| deeper(id, depth, principal))?.map(|id| group("!AND", vec![id])));
    found.extend(fields.message("authenticated", authenticated)?);
    fields.refuse("mtls_authenticated", "judging clients by their certificate is not supported")?;
    fields.refuse("source_ip", "is deprecated: use direct_remote_ip or remote_ip")?;
    for (name, variable) in [("direct_remote_ip", "realip_remote_addr"), ("remote_ip", "remote_addr")] {
        found.extend(fields.message(name, range)?.map(|net| json!([variable, "ipmatch", [net]])));
    }
    one(found)
}

/// Whom the certificate of the client names; without a name, whoever speaks TLS.
fn authenticated(fields: &mut Fields<'_>) -> Read<Value> {
    let name = fields.message("principal_name", matching::string)?;
    Ok(name.map_or_else(|| json!(["https", "==", "on"]), |name| condition("ssl_client_principal", &name)))
}

fn nested(fields: &mut Fields<'_>, name: &str, depth: u8, read: fn(&mut Fields<'_>, u8) -> Read<Value>) -> Read<Vec<Value>> {
    let conditions = fields.list(name, |one| deeper(one, depth, read))?;
    if conditions.is_empty() { Err(Fault::new(name, "must not be empty")) } else { Ok(conditions) }
}

fn deeper(fields: &mut Fields<'_>, depth: u8, read: fn(&mut Fields<'_>, u8) -> Read<Value>) -> Read<Value> {
    if depth >= MAX_DEPTH {
        return Err(Fault::new("", format!("is nested more than {MAX_DEPTH} deep")));
    }
    read(fields, depth + 1)
}

fn one(mut found: Vec<Value>) -> Read<Value> {
    match found.pop() {
        Some(condition) if found.is_empty() => Ok(condition),
        _ => Err(Fault::new("", "expected exactly one condition")),
    }
}

/// Reads a `CidrRange`.
fn range(fields: &mut Fields<'_>) -> Read<String> {
    let address = fields.name("address_prefix")?;
    let wrong = || Fault::new("address_prefix", format!("expected an IP address, found {address:.100?}"));
    let ip: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
    let length = u8::try_from(fields.small("prefix_len")?.unwrap_or(0)).unwrap_or(u8::MAX);
    let net = IpNet::new(ip, length).map_err(|_| Fault::new("prefix_len", "is longer than the address"))?;
    Ok(net.trunc().to_string())
}

/// Reads a `HealthCheck` of the listener itself: those who ask whether the node is well are answered by it.
pub(super) fn health_check(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    let through = fields.is_on("pass_through_mode")?;
    fields.refuse("cache_time", "is not supported: answers of the upstream are not kept")?;
    fields.refuse("cluster_min_healthy_percentages", "is not supported")?;
    let mut conditions = Vec::new();
    for wanted in fields.list("headers", matching::header)? {
        match wanted {
            Wanted::Method(method) => conditions.push(json!(["method", "==", method])),
            Wanted::Conditions(more) => conditions.extend(more),
        }
    }
    if conditions.is_empty() {
        conditions.push(anything());
    }
    Ok((!through).then(|| at_once(&group("AND", conditions), 200, "")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn case(rbac: &Value) -> Option<Value> {
        let deed = message(rbac, filter).unwrap()?;
        let (name, config) = &deed[0];
        assert_eq!((*name, &config["abort"]["http_status"]), ("fault-injection", &json!(403)));
        Some(config["abort"]["vars"][0][0].clone())
    }

    /// Requests have their digits large and what has no place in a path encoded: a rule that looks for another spelling would let everything pass.
    #[test]
    fn paths_are_looked_for_as_requests_have_them() {
        let denied = |path: Value| {
            let policy = json!({"permissions": [{"url_path": {"path": path}}], "principals": [{"any": true}]});
            message(&json!({"rules": {"action": "DENY", "policies": {"p": policy}}}), filter)
        };
        for (path, condition) in [
            (json!({"exact": "/caf%c3%a9"}), json!(["uri", "==", "/caf%C3%A9"])),
            (json!({"prefix": "/caf%c3%a9"}), json!(["uri", "~~", "^/caf%C3%A9"])),
            (json!({"contains": "a|b"}), json!(["uri", "~~", "a%7Cb"])),
            (json!({"suffix": "/%7eme"}), json!(["uri", "~~", "/\\~me$"])),
        ] {
            let deed = denied(path).unwrap().unwrap();
            assert!(deed[0].1.to_string().contains(&condition.to_string()), "{condition} in {deed:?}");
        }
        let fault = denied(json!({"safe_regex": {"regex": "/caf%c3.*"}})).unwrap_err();
        assert!(fault.field.ends_with("url_path.path.safe_regex.regex") && fault.reason.contains("write %C3"), "{fault:?}");
        assert!(denied(json!({"safe_regex": {"regex": "/caf%C3.*"}})).is_ok());
    }

    /// Who names no server, or a host in capitals, must not get past a rule.
    #[test]
    fn names_are_looked_for_as_connections_and_requests_have_them() {
        for (permission, condition) in [
            (json!({"requested_server_name": {"exact": ""}}), json!(["requested_server_name", "==", ""])),
            (
                json!({"header": {"name": ":authority", "string_match": {"exact": "B.Example"}}}),
                json!(["authority", "==", "b.example"]),
            ),
            (
                json!({"header": {"name": "Host", "string_match": {"suffix": ".Example"}}}),
                json!(["authority", "~*", "\\.Example$"]),
            ),
        ] {
            let policy = json!({"permissions": [permission], "principals": [{"any": true}]});
            let deed = message(&json!({"rules": {"action": "DENY", "policies": {"p": policy}}}), filter).unwrap().unwrap();
            assert!(deed[0].1.to_string().contains(&condition.to_string()), "{condition} in {deed:?}");
        }
    }

    #[test]
    fn allowing_refuses_what_no_policy_fits_and_denying_what_one_does() {
        let policy = json!({
            "permissions": [{"and_rules": {"rules": [
                {"url_path": {"path": {"prefix": "/admin"}}},
                {"not_rule": {"header": {"name": ":method", "string_match": {"exact": "GET"}}}},
            ]}}],
            "principals": [{"remote_ip": {"address_prefix": "10.1.2.3", "prefix_len": 8}}, {"any": true}],
        });
        let holds = json!([
            "AND",
            ["AND", ["uri", "~~", "^/admin"], ["!OR", ["method", "==", "GET"], nothing()]],
            ["OR", ["remote_addr", "ipmatch", ["10.0.0.0/8"]], ["method", "~=", null]],
        ]);
        let of = |action: &str| case(&json!({"rules": {"action": action, "policies": {"p": policy}}}));
        assert_eq!(of("ALLOW"), Some(json!(["!OR", holds, nothing()])));
        assert_eq!(of("DENY"), Some(holds));
        assert_eq!(of("LOG"), None);
        assert_eq!(case(&json!({"rules": {}})), Some(anything()), "nobody is allowed");
        assert_eq!(case(&json!({"shadow_rules": {"action": "DENY"}})), None, "nothing is enforced");
    }

    #[test]
    fn clients_are_judged_by_whom_their_certificate_names() {
        let of = |authenticated: Value| {
            let policy = json!({"permissions": [{"any": true}], "principals": [{"authenticated": authenticated}]});
            case(&json!({"rules": {"action": "DENY", "policies": {"p": policy}}})).unwrap()[2].clone()
        };
        assert_eq!(
            of(json!({"principal_name": {"exact": "spiffe://a/b"}})),
            json!(["ssl_client_principal", "==", "spiffe://a/b"])
        );
        assert_eq!(of(json!({"principal_name": {"suffix": ".example"}})), json!(["ssl_client_principal", "~~", "\\.example$"]));
        assert_eq!(of(json!({})), json!(["https", "==", "on"]));
    }

    #[test]
    fn what_cannot_be_judged_is_refused_by_its_place() {
        let of = |permission: Value, principal: Value| {
            let rules = json!({"rules": {"policies": {"p": {"permissions": [permission], "principals": [principal]}}}});
            message(&rules, filter).unwrap_err().field
        };
        let any = json!({"any": true});
        let by_name = json!({"mtls_authenticated": {"any_validated_client_certificate": true}});
        assert_eq!(of(any.clone(), by_name), "rules.policies[p].principals[0].mtls_authenticated");
        assert_eq!(of(json!({"metadata": {"filter": "x"}}), any.clone()), "rules.policies[p].permissions[0].metadata");
        let long = json!({"destination_ip": {"address_prefix": "10.0.0.1", "prefix_len": 64}});
        assert_eq!(of(long, any.clone()), "rules.policies[p].permissions[0].destination_ip.prefix_len");
        let deep = (0..20).fold(any.clone(), |inner, _| json!({"not_rule": inner}));
        assert!(of(deep, any).ends_with("not_rule"));
    }

    #[test]
    fn the_node_answers_for_itself_where_health_is_asked() {
        let check = json!({"pass_through_mode": false, "headers": [{"name": ":path", "string_match": {"exact": "/healthz"}}]});
        let deed = message(&check, health_check).unwrap().unwrap();
        assert_eq!(deed[0].1["abort"]["vars"], json!([[["request_uri", "==", "/healthz"]]]));
        assert_eq!(message(&json!({"pass_through_mode": true}), health_check), Ok(None));
    }
}
