//! Conditions of a route besides host and path, as Envoy's matchers. It knows no action.

use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::r#type::matcher::v3::StringMatcher;
use serde_json::Value;

use super::pattern::{Path, escape};
use super::re2;
use super::wire::{ANY, exact, regex, whole};
use crate::model::Route;
use wire::header_matcher::HeaderMatchSpecifier;
use wire::query_parameter_matcher::QueryParameterMatchSpecifier;
use wire::route_match::PathSpecifier;

/// The match of a route with one of its paths, or what of it Envoy cannot ask.
pub(super) fn encode(route: &Route, path: &Path) -> Result<wire::RouteMatch, String> {
    let path = match path {
        Path::Exact(path) => PathSpecifier::Path(path.clone()),
        Path::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        Path::Regex(pattern) => PathSpecifier::SafeRegex(whole(pattern)),
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

/// A field whose value matches.
pub(super) fn header(name: &str, value: StringMatcher) -> wire::HeaderMatcher {
    wire::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(value)),
        ..Default::default()
    }
}

/// Adds the conditions of an expression, all of which must hold.
pub(super) fn conditions(vars: &Value, into: &mut wire::RouteMatch) -> Result<(), String> {
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
    let (not, matcher) = matcher(operator, value).map(|(inverted, matcher)| (not != inverted, matcher))?;
    if let Some(name) = name.strip_prefix("arg_") {
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
        "host" => ":authority".to_owned(),
        "scheme" => ":scheme".to_owned(),
        name => match name.strip_prefix("http_") {
            Some(name) => name.replace('_', "-"),
            None => return Err(format!("variable `{name}` has no counterpart")),
        },
    };
    into.headers.push(wire::HeaderMatcher { invert_match: not, treat_missing_header_as_empty: not, ..header(&field, matcher) });
    Ok(())
}

/// Whether the matcher is to be inverted, and the matcher.
fn matcher(operator: &str, value: &Value) -> Result<(bool, StringMatcher), String> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("value {other} has no counterpart")),
    };
    let pattern = |value: &Value| text(value).and_then(|pattern| re2::accept(&pattern).map(|()| pattern));
    Ok(match operator {
        "==" => (false, exact(&text(value)?)),
        "~=" => (true, exact(&text(value)?)),
        "~~" => (false, regex(&format!("(?s){ANY}(?:{}){ANY}", pattern(value)?))),
        "~*" => (false, regex(&format!("(?is){ANY}(?:{}){ANY}", pattern(value)?))),
        "in" | "IN" => {
            let values = value.as_array().ok_or("expected a list of values")?;
            let values: Vec<String> = values.iter().map(text).collect::<Result<_, _>>()?;
            (false, regex(&values.iter().map(|value| escape(value)).collect::<Vec<_>>().join("|")))
        }
        other => return Err(format!("operator `{other}` has no counterpart")),
    })
}
