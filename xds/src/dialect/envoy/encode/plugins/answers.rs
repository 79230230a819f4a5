//! Plugins that answer requests, or tell browsers what they may do. They know no upstream.

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::extensions::filters::common::fault::v3 as common;
use heddle_proto::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use heddle_proto::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort};
use heddle_proto::envoy::r#type::matcher::v3::StringMatcher;
use serde_json::{Map, Value, json};
use wire::route::Action;

use super::super::Reader;
use super::super::fields::Edits;
use super::super::matching::Condition;
use super::super::re2;
use super::super::route::{Before, Draft, Instead};
use super::super::wire::{LONGEST, any, exact, header, percent, regex, span};
use super::edits::{edits, value_of};
use super::{Applied, CORS, Config, FAULT, GRPC_WEB, only, plain, text};

/// Most bytes of an answer that stands in a route.
const MOST_BODY: usize = 4_096;
/// The usual port of `https`.
const HTTPS: u32 = 443;
/// A host with a port that is not the usual one of clear text, which Envoy leaves out by itself.
const OTHER_PORT: &str = ":(?:[0-9]|[0-79][0-9]|8[1-9]|[0-9]{3,})$";

/// It stands in every listener, switched off. A configuration without a type switches it on.
pub(super) fn grpc_web(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["transparent", "cors_allow_headers"])?;
    if config.get("transparent").and_then(Value::as_bool) != Some(true) {
        return Err("transparent: Envoy lets pass what is no gRPC-Web, and keeps paths; only true has a counterpart".to_owned());
    }
    let on = wire::FilterConfig { config: Some(Default::default()), ..Default::default() };
    draft.filters.extend(any(&on).map(|config| (GRPC_WEB.to_owned(), config)));
    Ok(())
}

pub(super) fn cors(config: &Config, draft: &mut Draft) -> Applied {
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
            "only_preflights",
        ],
    )?;
    let patterns = config.get("allow_origins_by_regex").and_then(Value::as_array);
    let patterns: Vec<&str> = patterns.into_iter().flatten().filter_map(Value::as_str).collect();
    patterns.iter().copied().try_for_each(re2::accept)?;
    // Patterns take the place of the default, not of what was written.
    let written = text(config, "allow_origins").or(patterns.is_empty().then_some("*"));
    let mut origins: Vec<StringMatcher> = patterns.iter().map(|one| regex(&format!("(?s).*(?:{one}).*"))).collect();
    match written {
        Some("*" | "**") => origins.push(regex(".*")),
        Some(list) => origins.extend(list.split(',').map(|origin| exact(origin.trim()))),
        None => {}
    }
    if written != Some("*") && draft.reader != Reader::Grpc {
        // Answers depend on the origin that asks, which caches have to know; clients of gRPC are no browsers.
        Edits::of_answers(&mut draft.route).add(header("vary", "Origin", true));
    }
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
        forward_not_matching_preflights: Some(false),
        ..Default::default()
    };
    draft.filters.extend(any(&policy).map(|policy| (CORS.to_owned(), policy)));
    Ok(())
}

pub(super) fn fault(config: &Config, draft: &mut Draft) -> Applied {
    let empty = Map::new();
    let part = |field: &str| config.get(field).and_then(Value::as_object);
    let share = |part: &Config| part.get("percentage").and_then(Value::as_u64).and_then(|share| u32::try_from(share).ok());
    let mut fault = HttpFault::default();
    if let Some(delay) = part("delay") {
        only(delay, &["duration", "percentage"]).map_err(|reason| format!("delay.{reason}"))?;
        let seconds = delay.get("duration").and_then(Value::as_f64).unwrap_or_default();
        let length = std::time::Duration::try_from_secs_f64(seconds).map_err(|error| format!("delay.duration: {error}"))?;
        if length > LONGEST {
            return Err("delay.duration: Envoy waits for a hundred years at most".to_owned());
        }
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
        if body.len() > MOST_BODY {
            return Err(format!("abort.body: Envoy answers with {MOST_BODY} bytes at most"));
        }
        match share(abort) {
            None | Some(100) => {
                draft.answer = Some(answer(status, body));
                draft.aborted = true;
            }
            Some(share) if body.is_empty() && headers.is_empty() => {
                fault.abort = Some(FaultAbort {
                    percentage: Some(percent(share)),
                    error_type: Some(fault_abort::ErrorType::HttpStatus(status)),
                });
            }
            Some(_) => return Err("abort: an answer to a part of the requests has neither body nor headers in Envoy".to_owned()),
        }
        let mut fields = Edits::of_answers(&mut draft.route);
        edits(headers, &mut fields)?;
        if !body.is_empty() && !headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
            fields.set(header("content-type", "text/plain; charset=utf-8", false));
        }
    }
    draft.filters.extend(any(&fault).map(|fault| (FAULT.to_owned(), fault)));
    Ok(())
}

pub(super) fn redirect(config: &Config, draft: &mut Draft) -> Applied {
    if draft.aborted {
        return Ok(());
    }
    if config.get("http_to_https").and_then(Value::as_bool) == Some(true) {
        only(config, &["http_to_https", "ret_code"])?;
        return to_https(draft);
    }
    only(config, &["uri", "ret_code"])?;
    let Some(uri) = plain(config, "uri")? else {
        return Err("only uri and http_to_https have a counterpart in Envoy".to_owned());
    };
    let status = config.get("ret_code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok()).unwrap_or(302);
    draft.answer = Some(answer(status, ""));
    Edits::of_answers(&mut draft.route).set(header("location", &value_of("location", &json!(uri))?, false));
    Ok(())
}

/// Answers in the place of what came in clear. A port that the client named is the one of clear text, so that another one has to be said; where it named none,
/// the usual one need not be.
fn to_https(draft: &mut Draft) -> Applied {
    use wire::redirect_action::RedirectResponseCode::{MovedPermanently, PermanentRedirect};
    let clear = json!(["http_x_forwarded_proto", "==", "http"]);
    let reading = json!(["request_method", "in", ["GET", "HEAD"]]);
    let ports = match https_port(draft)? {
        HTTPS => vec![(Some(Condition::Written(OTHER_PORT)), HTTPS), (None, 0)],
        port => vec![(None, port)],
    };
    for (named, port_redirect) in ports {
        for (method, code) in [(Some(&reading), MovedPermanently), (None, PermanentRedirect)] {
            let vars: Vec<Value> = [Some(&clear), method].into_iter().flatten().cloned().collect();
            let conditions = [Some(Condition::Vars(vars.into())), named.clone()].into_iter().flatten().collect();
            let action = wire::RedirectAction {
                response_code: code.into(),
                scheme_rewrite_specifier: Some(wire::redirect_action::SchemeRewriteSpecifier::HttpsRedirect(true)),
                port_redirect,
                ..Default::default()
            };
            let what = Instead::Answer(Box::new(Action::Redirect(action)));
            draft.before.push(Before { conditions, what });
        }
    }
    Ok(())
}

/// The port to which `http_to_https` sends, which metadata says for all.
fn https_port(draft: &Draft) -> Result<u32, String> {
    match draft.metadata.get("redirect").and_then(|metadata| metadata.get("https_port")) {
        None | Some(Value::Null) => Ok(HTTPS),
        Some(port) => {
            let known = port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
            known.map(u32::from).ok_or_else(|| format!("https_port of plugin_metadata: Envoy needs a number, found {port}"))
        }
    }
}

pub(super) fn answer(status: u32, body: &str) -> Action {
    let body = (!body.is_empty())
        .then(|| base::DataSource { specifier: Some(base::data_source::Specifier::InlineString(body.to_owned())) });
    Action::DirectResponse(wire::DirectResponseAction { status, body })
}
