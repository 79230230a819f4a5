//! Plugins as the filters of Envoy that do the same. One that has no counterpart, or is configured in a way that has none, says so. It knows no host.

use std::collections::BTreeMap;

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::rbac::v3 as rbac;
use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::extensions::filters::common::fault::v3 as common;
use heddle_proto::envoy::extensions::filters::http::cors::v3::{Cors, CorsPolicy};
use heddle_proto::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use heddle_proto::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};
use heddle_proto::envoy::extensions::filters::http::router::v3::Router;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use heddle_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use ipnet::IpNet;
use prost::{Message, Name};
use serde_json::{Map, Value, json};
use wire::route::Action;

use super::route::{Before, Draft, Instead};
use super::wire::{any, exact, header, network, percent, regex, span, whole};
use crate::model::PluginConf;

const FAULT: &str = "envoy.filters.http.fault";
const CORS: &str = "envoy.filters.http.cors";
const RBAC: &str = "envoy.filters.http.rbac";
const ROUTER: &str = "envoy.filters.http.router";

/// The filters of every listener in the order of our plugins. All but the last one do nothing but for routes that say what.
pub(super) fn chain() -> Vec<manager::HttpFilter> {
    vec![
        filter(FAULT, &HttpFault::default(), true),
        filter(CORS, &Cors::default(), true),
        filter(RBAC, &Rbac::default(), true),
        filter(ROUTER, &Router { suppress_envoy_headers: true, ..Default::default() }, false),
    ]
}

fn filter<M: Message + Name>(name: &str, config: &M, disabled: bool) -> manager::HttpFilter {
    manager::HttpFilter {
        name: name.to_owned(),
        config_type: any(config).map(manager::http_filter::ConfigType::TypedConfig),
        disabled,
        ..Default::default()
    }
}

type Config = Map<String, Value>;
type Applied = Result<(), String>;

/// Adds what a plugin does.
pub(super) fn apply(plugin: &PluginConf, draft: &mut Draft) -> Applied {
    let empty = Map::new();
    let config = plugin.config.as_object().unwrap_or(&empty);
    if let Some(meta) = config.get("_meta").and_then(Value::as_object) {
        if meta.get("disable").and_then(Value::as_bool) == Some(true) {
            return Ok(());
        }
        if let Some(field) = meta.keys().find(|field| *field != "disable") {
            return Err(format!("_meta.{field} has no counterpart in Envoy"));
        }
    }
    match &*plugin.name {
        "cors" => cors(config, draft),
        "fault-injection" => fault(config, draft),
        "ip-restriction" => addresses(config, draft),
        "redirect" => redirect(config, draft),
        "proxy-rewrite" => rewrite(config, draft),
        "response-rewrite" => answers(config, draft),
        "traffic-split" => split(config, draft),
        // What it counts, Envoy counts by itself.
        "prometheus" => Ok(()),
        _ => Err("Envoy has no counterpart".to_owned()),
    }
}

/// Refuses what is configured beyond these fields.
fn only(config: &Config, fields: &[&str]) -> Applied {
    let beyond = config.keys().find(|field| *field != "_meta" && !fields.contains(&field.as_str()));
    beyond.map_or(Ok(()), |field| Err(format!("{field} has no counterpart in Envoy")))
}

fn text<'a>(config: &'a Config, field: &str) -> Option<&'a str> {
    config.get(field).and_then(Value::as_str)
}

/// A text in which nothing stands for something else.
fn plain<'a>(config: &'a Config, field: &str) -> Result<Option<&'a str>, String> {
    match text(config, field) {
        Some(text) if text.contains('$') => Err(format!("{field}: variables have no counterpart in Envoy")),
        other => Ok(other),
    }
}

fn cors(config: &Config, draft: &mut Draft) -> Applied {
    only(
        config,
        &[
            "allow_origins",
            "allow_methods",
            "allow_headers",
            "expose_headers",
            "max_age",
            "allow_credential",
            "allow_origins_by_regex",
        ],
    )?;
    let origins = text(config, "allow_origins").unwrap_or("*");
    let patterns = config.get("allow_origins_by_regex").and_then(Value::as_array);
    let origins = match (patterns, origins) {
        (Some(patterns), _) => {
            patterns.iter().filter_map(Value::as_str).map(|one| regex(&format!("(?s).*(?:{one}).*"))).collect()
        }
        (None, "*" | "**") => vec![regex(".*")],
        (None, list) => list.split(',').map(|origin| exact(origin.trim())).collect(),
    };
    let list = |field: &str, default: &str| match text(config, field).unwrap_or(default) {
        "**" => "*".to_owned(),
        list => list.to_owned(),
    };
    let policy = CorsPolicy {
        allow_origin_string_match: origins,
        allow_methods: list("allow_methods", "*"),
        allow_headers: list("allow_headers", "*"),
        expose_headers: list("expose_headers", ""),
        max_age: config.get("max_age").and_then(Value::as_i64).unwrap_or(5).to_string(),
        allow_credentials: config.get("allow_credential").and_then(Value::as_bool),
        ..Default::default()
    };
    draft.filters.extend(any(&policy).map(|policy| (CORS.to_owned(), policy)));
    Ok(())
}

fn fault(config: &Config, draft: &mut Draft) -> Applied {
    let empty = Map::new();
    let part = |field: &str| config.get(field).and_then(Value::as_object);
    let share = |part: &Config| part.get("percentage").and_then(Value::as_u64).and_then(|share| u32::try_from(share).ok());
    let mut fault = HttpFault::default();
    if let Some(delay) = part("delay") {
        only(delay, &["duration", "percentage"]).map_err(|reason| format!("delay.{reason}"))?;
        let seconds = delay.get("duration").and_then(Value::as_f64).unwrap_or_default();
        let length = std::time::Duration::try_from_secs_f64(seconds).map_err(|error| format!("delay.duration: {error}"))?;
        fault.delay = (!length.is_zero()).then(|| common::FaultDelay {
            percentage: Some(percent(share(delay).unwrap_or(100))),
            fault_delay_secifier: Some(common::fault_delay::FaultDelaySecifier::FixedDelay(span(length).unwrap_or_default())),
        });
    }
    if let Some(abort) = part("abort") {
        only(abort, &["http_status", "body", "headers", "percentage"]).map_err(|reason| format!("abort.{reason}"))?;
        let status =
            abort.get("http_status").and_then(Value::as_u64).and_then(|status| u32::try_from(status).ok()).unwrap_or(500);
        let headers = abort.get("headers").and_then(Value::as_object).unwrap_or(&empty);
        let body = plain(abort, "body")?.unwrap_or_default();
        match share(abort) {
            None | Some(100) => draft.answer = Some(answer(status, body)),
            Some(share) if body.is_empty() && headers.is_empty() => {
                fault.abort = Some(FaultAbort {
                    percentage: Some(percent(share)),
                    error_type: Some(
                        heddle_proto::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType::HttpStatus(status),
                    ),
                });
            }
            Some(_) => return Err("abort: an answer to a part of the requests has neither body nor headers in Envoy".to_owned()),
        }
        edits(headers, &mut draft.route.response_headers_to_add)?;
    }
    draft.filters.extend(any(&fault).map(|fault| (FAULT.to_owned(), fault)));
    Ok(())
}

fn answer(status: u32, body: &str) -> Action {
    let body = (!body.is_empty())
        .then(|| base::DataSource { specifier: Some(base::data_source::Specifier::InlineString(body.to_owned())) });
    Action::DirectResponse(wire::DirectResponseAction { status, body })
}

/// Fields that are set.
fn edits(headers: &Config, into: &mut Vec<base::HeaderValueOption>) -> Applied {
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

fn addresses(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["whitelist", "blacklist"])?;
    let (field, action) = if config.contains_key("whitelist") {
        ("whitelist", rbac::rbac::Action::Allow)
    } else {
        ("blacklist", rbac::rbac::Action::Deny)
    };
    let mut principals = Vec::new();
    for text in config.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let net: IpNet = match (text.parse(), text.parse::<std::net::IpAddr>()) {
            (Ok(net), _) => net,
            (_, Ok(ip)) => IpNet::from(ip),
            _ => return Err(format!("{field}: `{text}` is no address")),
        };
        principals.push(rbac::Principal { identifier: Some(rbac::principal::Identifier::RemoteIp(network(&net))) });
    }
    let any_request = rbac::Permission { rule: Some(rbac::permission::Rule::Any(true)) };
    let policy = rbac::Policy { permissions: vec![any_request], principals };
    let rules = rbac::Rbac { action: action.into(), policies: BTreeMap::from([("addresses".to_owned(), policy)]) };
    let per_route = RbacPerRoute { rbac: Some(Rbac { rules: Some(rules), ..Default::default() }) };
    draft.filters.extend(any(&per_route).map(|config| (RBAC.to_owned(), config)));
    Ok(())
}

fn redirect(config: &Config, draft: &mut Draft) -> Applied {
    if config.get("http_to_https").and_then(Value::as_bool) == Some(true) {
        only(config, &["http_to_https", "ret_code"])?;
        let to_https = |code: wire::redirect_action::RedirectResponseCode| {
            let scheme = wire::redirect_action::SchemeRewriteSpecifier::HttpsRedirect(true);
            let action =
                wire::RedirectAction { response_code: code.into(), scheme_rewrite_specifier: Some(scheme), ..Default::default() };
            Instead::Answer(Box::new(Action::Redirect(action)))
        };
        let clear = json!(["http_x_forwarded_proto", "==", "http"]);
        let reading = json!(["request_method", "in", ["GET", "HEAD"]]);
        use wire::redirect_action::RedirectResponseCode::{MovedPermanently, PermanentRedirect};
        draft.before.push(Before { conditions: vec![json!([clear, reading])], what: to_https(MovedPermanently) });
        draft.before.push(Before { conditions: vec![json!([clear])], what: to_https(PermanentRedirect) });
        return Ok(());
    }
    only(config, &["uri", "ret_code"])?;
    let Some(uri) = plain(config, "uri")? else {
        return Err("only uri and http_to_https have a counterpart in Envoy".to_owned());
    };
    let status = config.get("ret_code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok()).unwrap_or(302);
    draft.answer = Some(answer(status, ""));
    draft.route.response_headers_to_add.push(header("location", uri, false));
    Ok(())
}

fn rewrite(config: &Config, draft: &mut Draft) -> Applied {
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

fn answers(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["headers"])?;
    rewritten(config, &mut draft.route.response_headers_to_add, &mut draft.route.response_headers_to_remove)
}

fn split(config: &Config, draft: &mut Draft) -> Applied {
    for rule in config.get("rules").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object) {
        only(rule, &["match", "weighted_upstreams"])?;
        let mut shares = Vec::new();
        for entry in rule.get("weighted_upstreams").and_then(Value::as_array).into_iter().flatten() {
            let weight = entry.get("weight").and_then(Value::as_u64).unwrap_or(1);
            let weight = u32::try_from(weight).map_err(|_| "a weight is too large".to_owned())?;
            shares.push((entry.get("upstream_id").and_then(Value::as_str).map(Into::into), weight));
        }
        let conditions = rule.get("match").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if conditions.is_empty() {
            draft.shares = shares;
            return Ok(());
        }
        // One of them suffices, so each has a route of its own.
        for condition in conditions {
            let conditions = condition.get("vars").cloned().into_iter().collect();
            draft.before.push(Before { conditions, what: Instead::Shares(shares.clone()) });
        }
    }
    Ok(())
}
