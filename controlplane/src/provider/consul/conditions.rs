//! From rules to what routes match by: hosts, paths and methods where a rule says them plainly, expressions for the rest. It knows no service.

use serde_json::{Map, Value, json};

use super::rule::Rule;

/// Alternatives of one rule that become routes of their own; more are one route with an expression, which is found less fast.
const MOST_ALTERNATIVES: usize = 16;

/// What the routes of a rule match by, as fields of routes; a request that matches one of them matches the rule.
///
/// # Errors
/// In words: a matcher is unknown or has the wrong arguments.
pub(super) fn routes(rule: &Rule) -> Result<Vec<Map<String, Value>>, String> {
    match rule {
        Rule::Or(alternatives) if alternatives.len() <= MOST_ALTERNATIVES && plain(rule, "").is_none() => {
            alternatives.iter().map(route).collect()
        }
        rule => Ok(vec![route(rule)?]),
    }
}

/// One route: of each of hosts, paths and methods the first plain condition, and an expression of all others.
fn route(rule: &Rule) -> Result<Map<String, Value>, String> {
    let conjuncts = match rule {
        Rule::And(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    let (mut fields, mut vars) = (Map::new(), Vec::new());
    for part in conjuncts {
        // Arguments are judged in any case.
        let condition = condition(part)?;
        let field = ["hosts", "uris", "methods"].into_iter().find_map(|field| Some((field, plain(part, field)?)));
        match field {
            Some((field, values)) if !fields.contains_key(field) => {
                fields.insert(field.to_owned(), values.into());
            }
            _ => vars.push(condition),
        }
    }
    fields.entry("uris").or_insert_with(|| json!(["/*"]));
    if !vars.is_empty() {
        fields.insert("vars".to_owned(), vars.into());
    }
    Ok(fields)
}

/// The values of a field that a condition stands for by itself, or all alternatives of one do; of any field for the empty name.
fn plain(rule: &Rule, field: &str) -> Option<Vec<String>> {
    match rule {
        Rule::Or(alternatives) if field.is_empty() => {
            ["hosts", "uris", "methods"].into_iter().find_map(|field| plain(rule, field)).filter(|_| alternatives.len() > 1)
        }
        Rule::Or(alternatives) => {
            let all: Option<Vec<Vec<String>>> = alternatives.iter().map(|one| plain(one, field)).collect();
            let mut all: Vec<String> = all?.into_iter().flatten().collect();
            let mut seen = std::collections::BTreeSet::new();
            all.retain(|one| seen.insert(one.clone()));
            Some(all)
        }
        Rule::Matcher(name, values) => {
            let literal = |path: &String| path.starts_with('/') && !path.contains(['*', ':']);
            let of: Vec<String> = match (name.as_str(), field) {
                ("Host", "hosts") => values.iter().map(|host| host.to_ascii_lowercase()).collect(),
                ("Method", "methods") => values.iter().map(|method| method.to_ascii_uppercase()).collect(),
                ("Path", "uris") if values.iter().all(literal) => values.clone(),
                ("PathPrefix", "uris") if values.iter().all(literal) => values.iter().map(|path| format!("{path}*")).collect(),
                _ => return None,
            };
            (!of.is_empty()).then_some(of)
        }
        Rule::And(_) | Rule::Not(_) => None,
    }
}

/// A condition of an expression.
fn condition(rule: &Rule) -> Result<Value, String> {
    match rule {
        Rule::Matcher(name, arguments) => matcher(name, arguments),
        Rule::And(all) => group("AND", all),
        Rule::Or(all) => group("OR", all),
        Rule::Not(inner) => match &**inner {
            Rule::And(all) => group("!AND", all),
            Rule::Or(all) => group("!OR", all),
            // Negations within negations are gone already.
            Rule::Not(inner) => condition(inner),
            Rule::Matcher(name, arguments) => Ok(negated(matcher(name, arguments)?)),
        },
    }
}

fn group(operator: &str, members: &[Rule]) -> Result<Value, String> {
    let members: Result<Vec<Value>, String> = members.iter().map(condition).collect();
    Ok(std::iter::once(Value::from(operator)).chain(members?).collect())
}

fn negated(condition: Value) -> Value {
    match condition {
        Value::Array(mut parts) => {
            match parts.first().and_then(Value::as_str) {
                Some("OR") => parts[0] = "!OR".into(),
                _ => parts.insert(1, "!".into()),
            }
            Value::Array(parts)
        }
        other => other,
    }
}

fn matcher(name: &str, arguments: &[String]) -> Result<Value, String> {
    let one_of = |variable: &str, operator: &str, value: &dyn Fn(&str) -> String| {
        let mut each: Vec<Value> = arguments.iter().map(|text| json!([variable, operator, value(text)])).collect();
        match each.len() {
            0 => Err(format!("{name} needs an argument")),
            1 => Ok(each.remove(0)),
            _ => Ok(std::iter::once(Value::from("OR")).chain(each).collect()),
        }
    };
    let as_is = |text: &str| text.to_owned();
    match name {
        "Host" => one_of("host", "==", &|text| text.to_ascii_lowercase()),
        "HostRegexp" => one_of("host", "~~", &as_is),
        "Path" => one_of("uri", "==", &as_is),
        "PathPrefix" => one_of("uri", "~~", &|text| format!("^{}", regex::escape(text))),
        "PathRegexp" => one_of("uri", "~~", &as_is),
        "Method" => one_of("request_method", "==", &|text| text.to_ascii_uppercase()),
        "ClientIP" if !arguments.is_empty() => Ok(json!(["remote_addr", "ipmatch", arguments])),
        "Header" | "HeaderRegexp" | "Query" | "QueryRegexp" => {
            let (prefix, key) = match arguments {
                [key, ..] if name.starts_with("Header") => ("http_", key.to_ascii_lowercase().replace('-', "_")),
                [key, ..] => ("arg_", key.clone()),
                [] => return Err(format!("{name} needs a name")),
            };
            let operator = if name.ends_with("Regexp") { "~~" } else { "==" };
            match arguments {
                [_, value] => Ok(json!([format!("{prefix}{key}"), operator, value])),
                [_] if name == "Query" => Ok(json!([format!("{prefix}{key}"), "~~", ""])),
                _ => Err(format!("{name} needs a name and a value")),
            }
        }
        "ClientIP" => Err("ClientIP needs an address or a network".to_owned()),
        _ => Err(format!(
            "unknown matcher {name}; expected Host, HostRegexp, Path, PathPrefix, PathRegexp, Method, Header, HeaderRegexp, Query, QueryRegexp or ClientIP"
        )),
    }
}
