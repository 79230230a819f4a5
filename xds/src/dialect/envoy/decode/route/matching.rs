//! What a request must look like, as our expressions write it. It knows no route.

use serde_json::{Value, json};

use super::super::super::syntax;
use super::super::program;
use super::super::read::{Fault, Fields, Read};
use crate::model::canonical_path;

/// A text that is looked for in a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    Exact(String),
    /// A regular expression, and whether case counts not.
    Pattern(String, bool),
}

/// Reads a `StringMatcher`.
pub(crate) fn string(fields: &mut Fields<'_>) -> Read<Text> {
    spelled(fields, str::to_owned, regex)
}

/// Reads a `StringMatcher` of paths, which are compared normalised.
pub(crate) fn path(fields: &mut Fields<'_>) -> Read<Text> {
    spelled(fields, canonical_path, path_regex)
}

fn spelled(fields: &mut Fields<'_>, spell: fn(&str) -> String, regex: fn(&mut Fields<'_>) -> Read<String>) -> Read<Text> {
    let any_case = fields.is_on("ignore_case")?;
    let mut found = Vec::new();
    if let Some(value) = fields.take("exact") {
        let text = spell(value.as_str().ok_or_else(|| Fault::new("exact", "expected a text"))?);
        found.push(if any_case { Text::Pattern(format!("^{}$", escaped(&text)), true) } else { Text::Exact(text) });
    }
    for (name, before, behind) in [("prefix", "^", ""), ("suffix", "", "$"), ("contains", "", "")] {
        if let Some(text) = fields.text(name)? {
            found.push(Text::Pattern(format!("{before}{}{behind}", escaped(&spell(text))), any_case));
        }
    }
    found.extend(fields.message("safe_regex", regex)?.map(|pattern| Text::Pattern(whole(&pattern), false)));
    fields.refuse("custom", "is not supported")?;
    one(found)
}

fn one(mut found: Vec<Text>) -> Read<Text> {
    match found.len() {
        1 => found.pop().ok_or_else(|| Fault::new("", "expected one pattern")),
        _ => Err(Fault::new("", "expected exactly one of exact, prefix, suffix, contains and safe_regex")),
    }
}

/// Reads a `RegexMatcher`: what it covers must be the whole text.
pub(crate) fn regex(fields: &mut Fields<'_>) -> Read<String> {
    let most = fields.message("google_re2", |engine| engine.small("max_program_size"))?.flatten();
    let pattern = fields.name("regex")?;
    program::check(&pattern, most).map_err(|reason| Fault::new("regex", reason))?;
    Ok(program::of_text(&pattern).into_owned())
}

/// Reads a `RegexMatcher` of paths. Of a byte that is percent-encoded Envoy compares the digits as the client wrote them; here they are large, so that a pattern
/// with small ones would match nothing, and what it denies would pass.
pub(crate) fn path_regex(fields: &mut Fields<'_>) -> Read<String> {
    let pattern = regex(fields)?;
    let small = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit) && digits.iter().any(u8::is_ascii_lowercase);
    match pattern.as_bytes().windows(3).find(|three| three[0] == b'%' && small(&three[1..])) {
        Some(three) => {
            let (found, wanted) =
                (String::from_utf8_lossy(three).into_owned(), String::from_utf8_lossy(three).to_ascii_uppercase());
            Err(Fault::new("regex", format!("paths are compared with large digits: write {wanted} instead of {found}")))
        }
        None => Ok(pattern),
    }
}

/// Whether a text is one that nothing is not.
fn says_something(text: &Text) -> bool {
    match text {
        Text::Exact(text) => !text.is_empty(),
        Text::Pattern(pattern, _) => syntax::says_something(pattern),
    }
}

/// A pattern that must cover the whole text, as Envoy matches.
pub(crate) fn whole(pattern: &str) -> String {
    format!("^(?:{pattern})$")
}

/// A text that means itself in a pattern.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_ascii()
            && !c.is_ascii_alphanumeric()
            && !matches!(c, '_' | '/' | ' ' | '"' | '\'' | ',' | ';' | ':' | '=' | '@' | '%' | '<' | '>' | '`' | '!')
            && !c.is_ascii_control()
        {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A condition on a variable: `[variable, operator, value]`.
pub(crate) fn condition(variable: &str, text: &Text) -> Value {
    match text {
        Text::Exact(text) => json!([variable, "==", text]),
        Text::Pattern(pattern, false) => json!([variable, "~~", pattern]),
        Text::Pattern(pattern, true) => json!([variable, "~*", pattern]),
    }
}

/// The same, the other way around.
fn negated(variable: &str, text: &Text) -> Value {
    match text {
        Text::Exact(text) => json!([variable, "~=", text]),
        Text::Pattern(pattern, false) => json!([variable, "!", "~~", pattern]),
        Text::Pattern(pattern, true) => json!([variable, "!", "~*", pattern]),
    }
}

fn present(variable: &str) -> Value {
    json!([variable, "~=", null])
}

fn absent(variable: &str) -> Value {
    json!([variable, "==", null])
}

/// Header fields that Envoy sets, or takes off what clients outside say, before it looks at a request: measured with 1.40.
const OWN: [&str; 23] = [
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-forwarded-client-cert",
];

/// What a header matcher wants.
pub(crate) enum Wanted {
    /// One method.
    Method(String),
    /// Conditions, all of which must hold.
    Conditions(Vec<Value>),
}

/// The host of a request with its port, as hosts are told apart: in small letters, and without a dot at the end. Where listeners strip ports it is `host` instead.
pub(crate) const AUTHORITY: &str = "authority";

/// Hosts are the same in capitals; whoever asks in other ones than a rule has must not get past it.
fn of_host(text: Text) -> Text {
    match text {
        Text::Exact(host) => Text::Exact(host.to_ascii_lowercase()),
        Text::Pattern(pattern, _) => Text::Pattern(pattern, true),
    }
}

/// Reads a `HeaderMatcher`.
pub(crate) fn header(fields: &mut Fields<'_>) -> Read<Wanted> {
    let name = fields.name("name")?;
    let variable = matched(&name).map_err(|reason| Fault::new("name", reason))?;
    let inverted = fields.is_on("invert_match")?;
    let empty_if_missing = fields.is_on("treat_missing_header_as_empty")?;
    let mut found: Vec<Text> = fields.message("string_match", string)?.into_iter().collect();
    for (old, before, behind) in
        [("exact_match", "^", "$"), ("prefix_match", "^", ""), ("suffix_match", "", "$"), ("contains_match", "", "")]
    {
        if let Some(text) = fields.text(old)? {
            let exact = old == "exact_match";
            found.push(if exact {
                Text::Exact(text.to_owned())
            } else {
                Text::Pattern(format!("{before}{}{behind}", escaped(text)), false)
            });
        }
    }
    found.extend(fields.message("safe_regex_match", regex)?.map(|pattern| Text::Pattern(whole(&pattern), false)));
    let range = fields.message("range_match", |range| {
        let bound = |value: Option<&Value>| match value {
            None => Ok(0),
            Some(value) => {
                value.as_i64().or_else(|| value.as_str()?.parse().ok()).ok_or_else(|| Fault::new("", "expected whole numbers"))
            }
        };
        Ok((bound(range.take("start"))?, bound(range.take("end"))?))
    })?;
    if variable == AUTHORITY {
        found = found.into_iter().map(of_host).collect();
    }
    let presence = fields.flag("present_match")?;
    if empty_if_missing && !matches!(&found[..], [text] if range.is_none() && says_something(text)) {
        return Err(Fault::new("treat_missing_header_as_empty", "is not supported but with a text that is not empty"));
    }
    let conditions = match (found.as_slice(), range, presence) {
        ([Text::Exact(method)], None, None) if &*name == ":method" && !inverted => return Ok(Wanted::Method(method.clone())),
        ([text], None, None) if inverted && empty_if_missing => vec![negated(&variable, text)],
        ([text], None, None) if inverted => vec![present(&variable), negated(&variable, text)],
        ([text], None, None) => vec![condition(&variable, text)],
        ([], Some((start, end)), None) if !inverted => vec![json!([&*variable, "between", [start, end]])],
        ([], None, said) if said.unwrap_or(true) != inverted => vec![present(&variable)],
        ([], None, _) => vec![absent(&variable)],
        ([], Some(_), None) => return Err(Fault::new("invert_match", "is not supported with range_match")),
        _ => return Err(Fault::new("", "expected exactly one way to match")),
    };
    Ok(Wanted::Conditions(conditions))
}

/// The variable of a header that is asked about.
fn matched(name: &str) -> Result<String, String> {
    if name.eq_ignore_ascii_case("x-request-id") {
        return Err(format!("{name} is not supported: Envoy asks about the id that it has made, which is made later here"));
    }
    match &*name.to_ascii_lowercase() {
        ":authority" | "host" => Ok(AUTHORITY.to_owned()),
        _ => variable(name),
    }
}

/// The variable of a header, pseudo headers of HTTP/2 included.
pub(crate) fn variable(name: &str) -> Result<String, String> {
    Ok(match &*name.to_ascii_lowercase() {
        ":method" => "method".to_owned(),
        ":authority" | "host" => "http_host".to_owned(),
        ":path" => "request_uri".to_owned(),
        // As the agent tells it upstream: clients are believed where they come by trusted proxies alone, as Envoy overwrites what they say before it looks.
        ":scheme" | "x-forwarded-proto" => "forwarded_proto".to_owned(),
        "x-forwarded-for" => "forwarded_for".to_owned(),
        name if name.starts_with(':') => return Err(format!("{name} is not supported")),
        name if OWN.contains(&name) => {
            return Err(format!("{name} is not supported: it is Envoy's own, and here it would be whatever a client says"));
        }
        name if super::headers::is_name(name).is_err() => {
            return Err(format!("expected the name of a header field, found {name:.100?}"));
        }
        // Each field of that name by itself, and none that is spelled otherwise.
        name => format!("field_{name}"),
    })
}

/// Reads a `QueryParameterMatcher`.
pub(crate) fn query(fields: &mut Fields<'_>) -> Read<Vec<Value>> {
    let variable = format!("arg_{}", fields.name("name")?);
    let text = fields.message("string_match", string)?;
    let presence = fields.flag("present_match")?;
    Ok(match (text, presence) {
        (Some(text), None) => vec![condition(&variable, &text)],
        (None, Some(false)) => vec![absent(&variable)],
        (None, _) => vec![present(&variable)],
        (Some(_), Some(_)) => return Err(Fault::new("", "expected exactly one way to match")),
    })
}

/// A share of requests, in percent; all when nothing is said.
pub(crate) fn percent(fields: &mut Fields<'_>) -> Read<f64> {
    let parts = fields
        .choice("denominator", &[("HUNDRED", 0, 1.0), ("TEN_THOUSAND", 1, 100.0), ("MILLION", 2, 10_000.0)])?
        .unwrap_or(1.0);
    let numerator = fields.small("numerator")?.unwrap_or(0);
    Ok((f64::from(numerator) / parts).min(100.0))
}

/// A share that a runtime may change; ours has none, so that the default counts.
pub(crate) fn runtime_percent(fields: &mut Fields<'_>) -> Read<f64> {
    fields.ignore(&["runtime_key"]);
    fields.required("default_value", percent)
}
