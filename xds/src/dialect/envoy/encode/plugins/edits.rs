//! Plugins that edit header fields and paths. They know no filter: Envoy's routes do it themselves.

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use serde_json::{Value, json};

use super::super::re2;
use super::super::route::Draft;
use super::super::wire::{formatted, header, whole};
use super::{Applied, Config, only, plain, text};

/// Fields that are set.
pub(super) fn edits(headers: &Config, into: &mut Vec<base::HeaderValueOption>) -> Applied {
    for (name, value) in headers {
        into.push(header(name, &value_of(name, value)?, false));
    }
    Ok(())
}

fn value_of(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) if !text.contains('$') => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("headers.{name}: only plain texts have a counterpart in Envoy")),
    }
}

/// `headers` of the rewriting plugins: `set`, `add` and `remove`, or a map that sets.
fn rewritten(config: &Config, add: &mut Vec<base::HeaderValueOption>, remove: &mut Vec<String>) -> Applied {
    let Some(headers) = config.get("headers").and_then(Value::as_object) else { return Ok(()) };
    let verbs = ["set", "add", "remove"];
    if !headers.keys().any(|name| verbs.contains(&name.as_str()) && !headers[name].is_string()) {
        return edits(headers, add);
    }
    only(headers, &verbs).map_err(|reason| format!("headers.{reason}"))?;
    if let Some(set) = headers.get("set").and_then(Value::as_object) {
        edits(set, add)?;
    }
    match headers.get("add") {
        Some(Value::Object(fields)) => {
            for (name, value) in fields {
                add.push(header(name, &value_of(name, value)?, true));
            }
        }
        Some(Value::Array(lines)) => {
            for line in lines.iter().filter_map(Value::as_str) {
                let (name, value) = line.split_once(':').ok_or("headers.add: expected `name: value`")?;
                add.push(header(name.trim(), &value_of(name, &json!(value.trim()))?, true));
            }
        }
        _ => {}
    }
    remove.extend(
        headers.get("remove").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned),
    );
    Ok(())
}

pub(super) fn rewrite(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["uri", "regex_uri", "host", "headers"])?;
    if let Some(uri) = plain(config, "uri")? {
        if uri.contains('?') {
            return Err("uri: a query has no counterpart in Envoy".to_owned());
        }
        draft.action.regex_rewrite = Some(substitution("^/.*$", uri.replace('\\', "\\\\")));
    } else if let Some(pairs) = config.get("regex_uri").and_then(Value::as_array) {
        let [Value::String(pattern), Value::String(replacement)] = &pairs[..] else {
            return Err("regex_uri: several pairs have no counterpart in Envoy".to_owned());
        };
        if !pattern.starts_with('^') {
            return Err("regex_uri: only patterns that begin with ^ have a counterpart in Envoy".to_owned());
        }
        re2::accept(pattern)?;
        draft.action.regex_rewrite = Some(substitution(pattern, groups(replacement)?));
    }
    if let Some(host) = plain(config, "host")? {
        draft.action.host_rewrite_specifier = Some(wire::route_action::HostRewriteSpecifier::HostRewriteLiteral(host.to_owned()));
    }
    rewritten(config, &mut draft.route.request_headers_to_add, &mut draft.route.request_headers_to_remove)
}

fn substitution(pattern: &str, substitution: String) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(whole(pattern)), substitution }
}

/// `$1` as Envoy writes it.
fn groups(replacement: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = replacement.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('$', Some(digit)) if digit.is_ascii_digit() => out.push('\\'),
            ('$', _) => return Err("regex_uri: variables have no counterpart in Envoy".to_owned()),
            ('\\', _) => out.push_str("\\\\"),
            (c, _) => out.push(c),
        }
    }
    Ok(out)
}

/// `request-id`: the client's own, or a random one.
pub(super) fn request_id(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["header_name", "include_in_response", "algorithm"])?;
    if !matches!(text(config, "algorithm"), None | Some("uuid")) {
        return Err("algorithm: Envoy makes random UUIDs only".to_owned());
    }
    let name = text(config, "header_name").unwrap_or("X-Request-Id").to_ascii_lowercase();
    let mut made = formatted(&name, "%UNIQUE_ID%");
    made.append_action = base::header_value_option::HeaderAppendAction::AddIfAbsent.into();
    draft.route.request_headers_to_add.push(made);
    if config.get("include_in_response").and_then(Value::as_bool) != Some(false) {
        draft.route.response_headers_to_add.push(formatted(&name, &format!("%REQ({name})%")));
    }
    Ok(())
}

pub(super) fn answers(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["headers"])?;
    rewritten(config, &mut draft.route.response_headers_to_add, &mut draft.route.response_headers_to_remove)
}

/// Fields that the plugin `headers` sets in every answer: name of the field, and the setting that has its value.
const TEXTS: [(&str, &str); 6] = [
    ("x-frame-options", "custom_frame_options_value"),
    ("x-xss-protection", "custom_browser_xss_value"),
    ("content-security-policy", "content_security_policy"),
    ("content-security-policy-report-only", "content_security_policy_report_only"),
    ("referrer-policy", "referrer_policy"),
    ("permissions-policy", "permissions_policy"),
];
/// Those whose value is always the same, with the setting that has them set.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("x-frame-options", "frame_deny", "DENY"),
    ("x-content-type-options", "content_type_nosniff", "nosniff"),
    ("x-xss-protection", "browser_xss_filter", "1; mode=block"),
];

pub(super) fn headers(config: &Config, draft: &mut Draft) -> Applied {
    let maps = ["custom_request_headers", "custom_response_headers"];
    let known = maps.into_iter().chain(TEXTS.map(|(_, setting)| setting)).chain(SWITCHES.map(|(_, setting, _)| setting));
    only(config, &known.collect::<Vec<_>>())?;
    let route = &mut draft.route;
    let parts = [
        (maps[0], &mut route.request_headers_to_add, &mut route.request_headers_to_remove),
        (maps[1], &mut route.response_headers_to_add, &mut route.response_headers_to_remove),
    ];
    for (map, add, remove) in parts {
        for (name, value) in config.get(map).and_then(Value::as_object).into_iter().flatten() {
            match value.as_str() {
                Some("") => remove.push(name.clone()),
                _ if name.eq_ignore_ascii_case("host") => return Err(format!("{map}.{name} has no counterpart in Envoy")),
                _ => add.push(header(name, &value_of(name, value)?, false)),
            }
        }
    }
    let written = |setting: &str| config.get(setting).and_then(Value::as_str).filter(|text| !text.is_empty());
    for (name, setting) in TEXTS {
        if let Some(text) = written(setting) {
            route.response_headers_to_add.push(header(name, text, false));
        }
    }
    for (name, setting, value) in SWITCHES {
        let is_on = config.get(setting).and_then(Value::as_bool) == Some(true);
        let other = TEXTS.into_iter().any(|(field, setting)| field == name && written(setting).is_some());
        if is_on && !other {
            route.response_headers_to_add.push(header(name, value, false));
        }
    }
    Ok(())
}
