//! Conditions of a route besides host and path, as Envoy's matchers. It knows no action.

use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::r#type::matcher::v3::StringMatcher;
use serde_json::Value;

use super::super::syntax::says_something;
use super::pattern::{Path, escape};
use super::re2;
use super::wire::{ANY, exact, regex, whole};
use crate::model::Route;
use wire::header_matcher::HeaderMatchSpecifier;
use wire::query_parameter_matcher::QueryParameterMatchSpecifier;
use wire::route_match::PathSpecifier;

/// The host that a request is for.
const AUTHORITY: &str = ":authority";
/// The dot of the root and a port behind a host, of which our agents' `host` has nothing.
const PORT: &str = r"\.?(?::[0-9]*)?";
/// Most bytes of the name of a parameter that Envoy looks for.
const MOST_NAME: usize = 1_024;

/// The match of a route with one of its paths, or what of it Envoy cannot ask.
pub(super) fn encode(route: &Route, path: &Path) -> Result<wire::RouteMatch, String> {
    let path = match path {
        Path::Exact(path) => PathSpecifier::Path(path.clone()),
        Path::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        Path::Regex(pattern) => {
            re2::fits(pattern).map_err(|reason| format!("uris: {reason}"))?;
            PathSpecifier::SafeRegex(whole(pattern))
        }
    };
    let mut matches = wire::RouteMatch { path_specifier: Some(path), ..Default::default() };
    if !route.matches.remote_addrs.is_empty() {
        return Err("remote_addrs: Envoy chooses no route by the address of the client".to_owned());
    }
    if let [one] = &route.matches.methods[..] {
        matches.headers.push(header(":method", exact(one)));
    } else if !route.matches.methods.is_empty() {
        let all: Vec<String> = route.matches.methods.iter().map(|method| escape(method)).collect();
        matches.headers.push(header(":method", regex(&all.join("|"))));
    }
    if let Some(vars) = &route.matches.vars {
        conditions(vars, &mut matches).map_err(|reason| format!("vars: {reason}"))?;
    }
    Ok(matches)
}

/// What a part of the requests of a route has in common.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    /// What an expression says.
    Vars(Value),
    /// The host as the client wrote it, with its port, in which this pattern of ours is found.
    Written(&'static str),
}

impl Condition {
    /// Adds it to those that must hold.
    pub(super) fn add(&self, into: &mut wire::RouteMatch) -> Result<(), String> {
        match self {
            Condition::Vars(vars) => conditions(vars, into),
            Condition::Written(pattern) => {
                into.headers.push(header(AUTHORITY, regex(&format!("(?s){ANY}(?:{pattern}){ANY}"))));
                Ok(())
            }
        }
    }
}

/// A field whose value matches.
pub(super) fn header(name: &str, value: StringMatcher) -> wire::HeaderMatcher {
    wire::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(value)),
        ..Default::default()
    }
}

/// Adds the conditions of an expression, all of which must hold.
fn conditions(vars: &Value, into: &mut wire::RouteMatch) -> Result<(), String> {
    let Some(items) = vars.as_array() else { return Err("expected a list of conditions".to_owned()) };
    for item in items {
        match item {
            Value::String(word) if word == "AND" => {}
            Value::String(word) => return Err(format!("`{word}` of conditions has no counterpart")),
            Value::Array(parts) => condition(parts, into)?,
            other => return Err(format!("expected a condition, found {other}")),
        }
    }
    Ok(())
}

fn condition(parts: &[Value], into: &mut wire::RouteMatch) -> Result<(), String> {
    let (name, not, operator, value) = match parts {
        [Value::String(name), Value::String(operator), value] => (name, false, operator, value),
        [Value::String(name), Value::String(not), Value::String(operator), value] if not == "!" => (name, true, operator, value),
        _ => return Err("only conditions of name, operator and value have a counterpart".to_owned()),
    };
    let of_name = if name == "host" { of_host } else { matcher };
    let (not, matcher) = of_name(operator, value).map(|(inverted, matcher)| (not != inverted, matcher))?;
    if let Some(name) = name.strip_prefix("arg_") {
        if name.is_empty() || name.len() > MOST_NAME || name.contains(char::is_control) {
            return Err(format!("Envoy looks for no parameter `{name}` of the query"));
        }
        if not {
            return Err(format!("a parameter of the query that must not match (`arg_{name}`) has no counterpart"));
        }
        into.query_parameters.push(wire::QueryParameterMatcher {
            name: name.to_owned(),
            query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(matcher)),
        });
        return Ok(());
    }
    let field = match name.as_str() {
        "request_method" => ":method".to_owned(),
        "host" => AUTHORITY.to_owned(),
        "scheme" => ":scheme".to_owned(),
        name => match name.strip_prefix("http_") {
            Some(name) if name.is_empty() || name.starts_with(':') || name.contains(char::is_control) => {
                return Err(format!("Envoy looks for no field `{name}`"));
            }
            // Envoy takes a missing field for an empty one, or for none that matches, whether that is inverted or not; at our agents it is neither.
            Some(_) if not && may_be_empty(operator, value) => {
                return Err(format!("Envoy tells no missing `{name}` from an empty one, which this must not match"));
            }
            Some(name) => name.replace('_', "-"),
            None => return Err(format!("variable `{name}` has no counterpart")),
        },
    };
    into.headers.push(wire::HeaderMatcher { invert_match: not, treat_missing_header_as_empty: not, ..header(&field, matcher) });
    Ok(())
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("value {other} has no counterpart")),
    }
}

/// Whether an empty text is, or may be, one that a value is about.
fn may_be_empty(operator: &str, value: &Value) -> bool {
    let is_empty = |value: &Value| value.as_str().is_some_and(str::is_empty);
    match operator {
        "~~" | "~*" => value.as_str().is_some_and(|pattern| !says_something(pattern)),
        "in" | "IN" => value.as_array().is_some_and(|values| values.iter().any(is_empty)),
        _ => is_empty(value),
    }
}

/// What one of several values is matched by.
fn one_of(value: &Value, one: impl Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let values = value.as_array().filter(|values| !values.is_empty()).ok_or("expected a list of values, and one at least")?;
    let values: Vec<String> = values.iter().map(|value| one(&text(value)?)).collect::<Result<_, _>>()?;
    let pattern = values.join("|");
    // Envoy takes no pattern that is empty, as that of an empty text would be.
    let pattern = if pattern.is_empty() { "(?:)".to_owned() } else { pattern };
    re2::fits(&pattern).map(|()| pattern)
}

/// The same for a host, which our agents compare in small letters and without port, and Envoy as the client wrote it.
fn of_host(operator: &str, value: &Value) -> Result<(bool, StringMatcher), String> {
    let named = |name: &str| {
        let is_plain = |c: char| c.is_ascii_graphic() && !c.is_ascii_uppercase();
        let is_address = name.starts_with('[') && name.ends_with(']');
        match name.chars().all(is_plain) && !name.ends_with('.') && (is_address || !name.contains(':')) && !name.is_empty() {
            true => Ok(escape(name)),
            false => Err(format!("no host is `{name}`: it has small letters, no port and no dot at its end")),
        }
    };
    let is = |hosts: String| regex(&format!("(?i)(?:{hosts}){PORT}"));
    Ok(match operator {
        "==" => (false, is(named(&text(value)?)?)),
        "~=" => (true, is(named(&text(value)?)?)),
        "in" | "IN" => (false, is(one_of(value, named)?)),
        "~~" | "~*" => {
            let pattern = text(value)?;
            re2::accept(&pattern)?;
            // Large letters of a pattern that looks at neither case are those that it finds.
            let small = if operator == "~*" { pattern.to_ascii_lowercase() } else { pattern.clone() };
            let (true, Some(found)) = (small == pattern || !pattern.contains('\\'), re2::without_port(&small)) else {
                return Err(format!("host: pattern `{pattern}`: Envoy sees hosts as clients write them, with their ports"));
            };
            (false, regex(&format!("(?is)(?:\\[[0-9a-f:.]*|[^:]*)(?:{found}){ANY}")))
        }
        other => return Err(format!("operator `{other}` has no counterpart")),
    })
}

/// Whether the matcher is to be inverted, and the matcher.
fn matcher(operator: &str, value: &Value) -> Result<(bool, StringMatcher), String> {
    let pattern = |value: &Value| text(value).and_then(|pattern| re2::accept(&pattern).map(|()| pattern));
    Ok(match operator {
        "==" => (false, exact(&text(value)?)),
        "~=" => (true, exact(&text(value)?)),
        "~~" => (false, regex(&format!("(?s){ANY}(?:{}){ANY}", pattern(value)?))),
        "~*" => (false, regex(&format!("(?is){ANY}(?:{}){ANY}", pattern(value)?))),
        "in" | "IN" => (false, regex(&one_of(value, |value| Ok(escape(value)))?)),
        other => return Err(format!("operator `{other}` has no counterpart")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use heddle_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    use serde_json::json;

    use super::*;

    fn asked(vars: &Value) -> Result<wire::RouteMatch, String> {
        let mut matches = wire::RouteMatch::default();
        conditions(vars, &mut matches).map(|()| matches)
    }

    /// Whether a host as a client writes it is one that the condition is about, as RE2 matches.
    fn fits(condition: &Value, host: &str) -> bool {
        let field = asked(&json!([condition])).unwrap().headers.remove(0);
        assert_eq!(field.name, AUTHORITY);
        let Some(HeaderMatchSpecifier::StringMatch(matcher)) = field.header_match_specifier else { panic!() };
        let Some(MatchPattern::SafeRegex(pattern)) = matcher.match_pattern else { panic!() };
        let pattern = format!("^(?:{})$", pattern.regex.replace(r"\C", "."));
        regex::Regex::new(&pattern).unwrap().is_match(host) != field.invert_match
    }

    #[test]
    fn hosts_are_compared_without_case_and_port() {
        let written = ["vh.example", "VH.Example", "vh.example:9081", "vh.example.", "vh.example.:80", "vh.example:"];
        let others = ["vh.example.org", "avh.example", "vhxexample", "x:80"];
        for condition in [
            json!(["host", "==", "vh.example"]),
            json!(["host", "in", ["other", "vh.example"]]),
            json!(["host", "~~", "^vh\\.example$"]),
            json!(["host", "~~", "^vh\\.exam.*e$"]),
            json!(["host", "~*", "^VH[.]example$"]),
        ] {
            assert!(written.iter().all(|host| fits(&condition, host)), "{condition}");
            assert!(!others.iter().any(|host| fits(&condition, host)), "{condition}");
        }
        assert!(!fits(&json!(["host", "~=", "vh.example"]), "VH.example:80") && fits(&json!(["host", "~=", "vh.example"]), "b"));
        assert!(!fits(&json!(["host", "~~", "80"]), "a:80"), "which is no part of the host");
        assert!(fits(&json!(["host", "==", "[::1]"]), "[::1]:80") && fits(&json!(["host", "~~", "1"]), "[::1]:80"));
        for never in [json!(["host", "==", "VH.example"]), json!(["host", "in", ["a:80"]]), json!(["host", "~~", "[^a]"])] {
            assert!(asked(&json!([never])).is_err(), "{never}");
        }
    }

    #[test]
    fn what_envoy_takes_no_table_with_is_withheld() {
        for vars in [
            json!([["http_", "==", "a"]]),
            json!([["arg_", "==", "a"]]),
            json!([[format!("arg_{}", "a".repeat(1025)), "==", "a"]]),
            json!([["http_a", "in", []]]),
            json!([["arg_a", "in", (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>()]]),
        ] {
            assert!(asked(&vars).is_err(), "{vars}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_told_from_an_empty_one_or_not_asked_about() {
        for vars in [
            json!(["http_x", "~=", ""]),
            json!(["http_x", "!", "==", ""]),
            json!(["http_x", "!", "~~", "^(guest)?$"]),
            json!(["http_x", "!", "~*", "a*"]),
            json!(["http_x", "!", "in", ["", "a"]]),
        ] {
            let why = asked(&json!([vars])).unwrap_err();
            assert!(why.contains("`http_x`"), "with `x` missing it holds at our agents: {why}");
        }
        for vars in [
            json!(["http_x", "~=", "a"]),
            json!(["http_x", "!", "~~", "^guest$"]),
            json!(["http_x", "!", "in", ["a", 1]]),
            json!(["http_x", "==", ""]),
            json!(["http_x", "!", "~=", ""]),
            json!(["http_x", "~~", "^(guest)?$"]),
            json!(["request_method", "!", "~~", "^(GET)?$"]),
        ] {
            assert!(asked(&json!([vars])).is_ok(), "{vars}");
        }
    }

    #[test]
    fn large_patterns_say_how_large_they_may_be() {
        let names = ["alexander", "benjamin", "catherine", "dominique", "elizabeth", "frederick", "gabriella", "henrietta"];
        let said = |vars: Value| {
            let matcher = asked(&vars).unwrap().query_parameters.remove(0).query_parameter_match_specifier;
            let Some(QueryParameterMatchSpecifier::StringMatch(matcher)) = matcher else { panic!() };
            let Some(MatchPattern::SafeRegex(pattern)) = matcher.match_pattern else { panic!() };
            pattern.engine_type.is_some()
        };
        assert!(said(json!([["arg_user", "in", names]])));
        assert!(!said(json!([["arg_user", "in", ["a", "b"]]])), "Envoy warns of the field");
    }
}
