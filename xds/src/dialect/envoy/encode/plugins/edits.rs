//! Plugins that edit header fields and paths. They know no filter: Envoy's routes do it themselves.

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use serde_json::{Value, json};

use super::super::fields::Edits;
use super::super::re2;
use super::super::route::Draft;
use super::super::wire::{escaped, formatted, header, whole};
use super::{Applied, Config, only, plain, text};
use crate::model::canonical_path;

/// Most bytes of the name or the value of a field that Envoy makes.
pub(super) const MOST_FIELD: usize = 16_384;
/// Most fields that Envoy makes for a route, in requests and in answers each.
const MOST_FIELDS: usize = 1_000;
/// Fields that Envoy changes as it is told to, though they say where a message ends or what becomes of a connection, which our agents say themselves.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that are set.
pub(super) fn edits(headers: &Config, into: &mut Edits<'_>) -> Applied {
    for (name, value) in headers {
        into.set(edit(name, value, false)?);
    }
    Ok(())
}

/// A field that is set, or added.
fn edit(name: &str, value: &Value, add: bool) -> Result<base::HeaderValueOption, String> {
    changed(name).map_err(|reason| format!("headers.{name}: {reason}"))?;
    Ok(header(name, &value_of(name, value)?, add))
}

/// Whether Envoy changes a field of this name as our agents do. For others it would refuse the table of all routes.
pub(super) fn changed(name: &str) -> Applied {
    let small = name.to_ascii_lowercase();
    if small.is_empty() || small.len() > MOST_FIELD || small.starts_with(':') || small.contains(char::is_control) {
        return Err("Envoy changes no field of this name".to_owned());
    }
    match small.as_str() {
        "host" => Err("Envoy changes no Host by its fields: use host of proxy-rewrite, or pass_host".to_owned()),
        name if FRAMING.contains(&name) => Err("Envoy would change what says where a message or a connection ends".to_owned()),
        _ => Ok(()),
    }
}

pub(super) fn value_of(name: &str, value: &Value) -> Result<String, String> {
    let text = match value {
        Value::String(text) if !text.contains('$') => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return Err(format!("headers.{name}: only plain texts have a counterpart in Envoy")),
    };
    if escaped(&text).len() > MOST_FIELD || text.contains(|c: char| c.is_ascii_control() && c != '\t') {
        return Err(format!("headers.{name}: Envoy makes no values over {MOST_FIELD} bytes, and none with control characters"));
    }
    Ok(text)
}

/// Whether all edits of a route together are no more than Envoy makes.
pub(super) fn finish(route: &wire::Route) -> Applied {
    match [&route.request_headers_to_add, &route.response_headers_to_add].iter().any(|made| made.len() > MOST_FIELDS) {
        true => Err(format!("headers: Envoy makes {MOST_FIELDS} fields at most")),
        false => Ok(()),
    }
}

/// `headers` of the rewriting plugins: `add`, `set` and `remove`, which our agents do in this order, or a map that sets.
fn rewritten(config: &Config, into: &mut Edits<'_>) -> Applied {
    let Some(headers) = config.get("headers").and_then(Value::as_object) else { return Ok(()) };
    let verbs = ["set", "add", "remove"];
    if !headers.keys().any(|name| verbs.contains(&name.as_str()) && !headers[name].is_string()) {
        return edits(headers, into);
    }
    only(headers, &verbs).map_err(|reason| format!("headers.{reason}"))?;
    match headers.get("add") {
        Some(Value::Object(fields)) => {
            for (name, value) in fields {
                into.add(edit(name, value, true)?);
            }
        }
        Some(Value::Array(lines)) => {
            for line in lines.iter().filter_map(Value::as_str) {
                let (name, value) = line.split_once(':').ok_or("headers.add: expected `name: value`")?;
                into.add(edit(name.trim(), &json!(value), true)?);
            }
        }
        _ => {}
    }
    if let Some(set) = headers.get("set").and_then(Value::as_object) {
        edits(set, into)?;
    }
    for name in headers.get("remove").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        changed(name).map_err(|reason| format!("headers.remove.{name}: {reason}"))?;
        into.remove(name);
    }
    Ok(())
}

pub(super) fn rewrite(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["uri", "regex_uri", "host", "headers"])?;
    if let Some(uri) = plain(config, "uri")? {
        draft.action.regex_rewrite = Some(substitution("^/.*$", target(uri).map_err(|reason| format!("uri: {reason}"))?));
    } else if let Some(pairs) = config.get("regex_uri").and_then(Value::as_array) {
        let [Value::String(pattern), Value::String(replacement)] = &pairs[..] else {
            return Err("regex_uri: several pairs have no counterpart in Envoy".to_owned());
        };
        // Envoy replaces all that it finds, our agents the first one.
        if !re2::is_anchored(pattern) {
            return Err("regex_uri: only patterns that begin with ^ in all their parts have a counterpart in Envoy".to_owned());
        }
        re2::accept(pattern)?;
        let substituted = groups(replacement, re2::groups(pattern)).map_err(|reason| format!("regex_uri: {reason}"))?;
        draft.action.regex_rewrite = Some(substitution(pattern, substituted));
    }
    if let Some(host) = plain(config, "host")? {
        if host.len() > MOST_FIELD || host.contains(char::is_control) {
            return Err("host: Envoy makes no such Host".to_owned());
        }
        draft.action.host_rewrite_specifier = Some(wire::route_action::HostRewriteSpecifier::HostRewriteLiteral(host.to_owned()));
    }
    rewritten(config, &mut Edits::of_requests(&mut draft.route))
}

fn substitution(pattern: &str, substitution: String) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(whole(pattern)), substitution }
}

/// A path, or a part of one, as our agents write it. Envoy writes it as it stands, so that it must be in that form already.
fn target(path: &str) -> Result<String, String> {
    if path.contains('?') {
        return Err("a query has no counterpart in Envoy".to_owned());
    }
    let is_odd = |c: char| c.is_ascii() && !c.is_ascii_graphic() || matches!(c, '\\' | '#');
    let written = canonical_path(path);
    let is_dots = |segment: &str| matches!(segment.split([';', '%']).next(), Some("." | ".."));
    if path.contains(is_odd) || written.split('/').any(is_dots) {
        return Err("a blank, `\\`, `#` or a segment of dots has no counterpart in Envoy".to_owned());
    }
    // Our agents answer 400 in the place of such a path.
    let is_code = |code: &str| code.bytes().all(|digit| digit.is_ascii_hexdigit()) && code >= "20" && code != "7F";
    match written.split('%').skip(1).all(|rest| rest.get(..2).is_some_and(is_code)) {
        true => Ok(written),
        false => Err("a `%` that encodes no byte, or a control character, has no counterpart in Envoy".to_owned()),
    }
}

/// A replacement as Envoy writes it: `\1` for `$1` and `${1}`.
fn groups(replacement: &str, known: u32) -> Result<String, String> {
    let mut parts = replacement.split('$');
    let mut out = target(parts.next().unwrap_or_default())?;
    for part in parts {
        let (group, rest) = group(part).ok_or("variables have no counterpart in Envoy")?;
        let digit = group.parse().ok().filter(|digit| *digit < 10 && *digit <= known);
        let digit: u32 = digit.ok_or("Envoy knows the groups $0 to $9, as far as the pattern has them")?;
        out.push_str(&format!("\\{digit}{}", target(rest)?));
    }
    Ok(out)
}

/// The number of a group behind its `$`, and what follows. Our agents read a name as far as it goes: `$1_v2` is no group, but a variable of that name.
fn group(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = match text.strip_prefix('{') {
        Some(inner) => inner.split_once('}')?,
        None => text.split_at(text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())),
    };
    (!name.is_empty() && name.bytes().all(|digit| digit.is_ascii_digit())).then_some((name, rest))
}

/// `request-id`: the client's own, or a random one.
pub(super) fn request_id(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["header_name", "include_in_response", "algorithm"])?;
    if !matches!(text(config, "algorithm"), None | Some("uuid")) {
        return Err("algorithm: Envoy makes random UUIDs only".to_owned());
    }
    let name = text(config, "header_name").unwrap_or("X-Request-Id").to_ascii_lowercase();
    changed(&name).map_err(|reason| format!("header_name: {reason}"))?;
    let mut made = formatted(&name, "%UNIQUE_ID%");
    made.append_action = base::header_value_option::HeaderAppendAction::AddIfAbsent.into();
    Edits::of_requests(&mut draft.route).fill(made)?;
    if config.get("include_in_response").and_then(Value::as_bool) != Some(false) {
        Edits::of_answers(&mut draft.route).set(formatted(&name, &format!("%REQ({name})%")));
    }
    Ok(())
}

pub(super) fn answers(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["headers"])?;
    rewritten(config, &mut Edits::of_answers(&mut draft.route))
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
    // What browsers are told is set first, so that the fields of the map have the last word.
    told(config, &mut Edits::of_answers(&mut draft.route))?;
    custom(config, maps[0], &mut Edits::of_requests(&mut draft.route))?;
    custom(config, maps[1], &mut Edits::of_answers(&mut draft.route))
}

/// Fields by name; an empty value removes.
fn custom(config: &Config, map: &str, into: &mut Edits<'_>) -> Applied {
    let fields = || config.get(map).and_then(Value::as_object).into_iter().flatten();
    for (name, _) in fields() {
        changed(name).map_err(|reason| format!("{map}.{name}: {reason}"))?;
    }
    let removes = |value: &Value| value.as_str() == Some("");
    for (name, value) in fields().filter(|(_, value)| !removes(value)) {
        into.set(header(name, &value_of(name, value)?, false));
    }
    for (name, _) in fields().filter(|(_, value)| removes(value)) {
        into.remove(name);
    }
    Ok(())
}

/// What browsers are told that they may do with a page.
fn told(config: &Config, into: &mut Edits<'_>) -> Applied {
    let written = |setting: &str| config.get(setting).and_then(Value::as_str).filter(|text| !text.is_empty());
    for (name, setting) in TEXTS {
        if let Some(text) = written(setting) {
            into.set(header(name, &value_of(name, &json!(text))?, false));
        }
    }
    for (name, setting, value) in SWITCHES {
        let is_on = config.get(setting).and_then(Value::as_bool) == Some(true);
        let other = TEXTS.into_iter().any(|(field, setting)| field == name && written(setting).is_some());
        if is_on && !other {
            into.set(header(name, value, false));
        }
    }
    Ok(())
}
