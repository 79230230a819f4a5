//! When a request is sent again. It knows no route.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::piece::Deed;
use super::super::read::{Fault, Fields, Read};
use super::matching::{self, Text};

/// Every method: Envoy sends again whatever it was, where nobody says which.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
/// Bytes of a body that are kept to be sent again, as Envoy's default of a connection's buffer.
const MAX_BODY: u64 = 1024 * 1024;
/// Seconds of rest before the second try, as Envoy's default.
const REST: f64 = 0.025;
/// A budget that bounds nothing: Envoy has none here, and `retry_budget` of the cluster bounds all.
const NO_BUDGET: u32 = 1000;
/// The longest time for all tries that our plugin counts; where more is said, each try has it for itself.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How often a request is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Retry {
    /// As our plugin; `None` where nothing is ever sent again.
    pub(crate) plugin: Option<Value>,
    /// How long each try may take, where it is said.
    pub(crate) each: Option<Duration>,
}

/// Reads a `RetryPolicy`.
pub(crate) fn read(fields: &mut Fields<'_>) -> Read<Retry> {
    let (mut statuses, mut network, mut unseen, mut listed) = (Vec::new(), false, false, false);
    let mut calls = Vec::new();
    for condition in fields.text("retry_on")?.unwrap_or_default().split(',').map(str::trim).filter(|one| !one.is_empty()) {
        match condition {
            "5xx" => {
                statuses.push(json!("500-599"));
                network = true;
            }
            "gateway-error" => {
                statuses.push(json!("502-504"));
                network = true;
            }
            "retriable-4xx" => statuses.push(json!(409)),
            "reset" => network = true,
            "connect-failure" | "refused-stream" | "reset-before-request" | "http3-post-connect-failure" => unseen = true,
            "retriable-status-codes" => listed = true,
            "cancelled" | "deadline-exceeded" | "internal" | "resource-exhausted" | "unavailable" => {
                calls.push(Value::from(condition.to_ascii_uppercase().replace('-', "_")));
            }
            other => return Err(Fault::new("retry_on", format!("{other} is not supported"))),
        }
    }
    let codes = fields.values("retriable_status_codes", |code| {
        let code = code.as_u64().filter(|code| (200..600).contains(code));
        code.ok_or_else(|| Fault::new("", "expected a status from 200 to 599"))
    })?;
    statuses.extend(codes.into_iter().filter(|_| listed).map(Value::from));
    elsewhere(fields)?;
    // Ours begins anew with each part of an answer, as that of silence does there; the other one bounds the whole of a try.
    let limits = [fields.duration("per_try_timeout")?, fields.duration("per_try_idle_timeout")?];
    let each = limits.into_iter().flatten().filter(|each| !each.is_zero()).min();
    fields.refuse("retriable_headers", "is not supported: use retriable_status_codes")?;
    let methods = methods(fields)?;
    fields.refuse("rate_limited_retry_back_off", "is not supported")?;
    fields.refuse("retry_options_predicates", "is not supported")?;
    let (first, longest) = fields
        .message("retry_back_off", |rest| Ok((rest.duration("base_interval")?, rest.duration("max_interval")?)))?
        .unwrap_or_default();
    let first = first.map_or(REST, |first| first.as_secs_f64());
    let longest = longest.map_or(first * 10.0, |longest| longest.as_secs_f64());
    let tries = fields.small("num_retries")?.unwrap_or(1);
    if tries == 0 || (statuses.is_empty() && calls.is_empty() && !network && !unseen) {
        return Ok(Retry { plugin: None, each });
    }
    if tries > 19 {
        return Err(Fault::new("num_retries", "expected at most 19"));
    }
    let plugin = json!({
        "attempts": tries + 1, "statuses": statuses, "on_network_error": network, "on_unseen": unseen, "methods": methods, "max_body_size": MAX_BODY,
        "initial_interval": first.min(60.0), "max_interval": longest.min(60.0), "budget_percent": NO_BUDGET,
    });
    Ok(Retry { plugin: Some(said(plugin, calls)), each })
}

/// With the statuses of gRPC, where there are any.
fn said(mut plugin: Value, calls: Vec<Value>) -> Value {
    if !calls.is_empty() {
        plugin["grpc_statuses"] = calls.into();
    }
    plugin
}

/// How an endpoint is chosen for another try: one that was not tried yet, of whatever priority, always.
fn elsewhere(fields: &mut Fields<'_>) -> Read<()> {
    fields.list("retry_host_predicate", |predicate| only(predicate, "envoy.retry_host_predicates.previous_hosts"))?;
    fields.message("retry_priority", |priority| only(priority, "envoy.retry_priorities.previous_priorities"))?;
    fields.ignore(&["host_selection_retry_max_attempts"]);
    Ok(())
}

/// An extension, of which this one is known.
fn only(extension: &mut Fields<'_>, known: &str) -> Read<()> {
    let name = extension.name("name")?;
    if *name != *known {
        return Err(Fault::new("name", format!("{name} is not supported")));
    }
    extension.ignore(&["typed_config"]);
    Ok(())
}

/// Bounds all tries of a route together, as its own limit does in Envoy: when it is over, nothing is sent again.
pub(crate) fn all_tries_within(plugins: &mut Deed, limit: Duration) {
    for (_, retry) in plugins.iter_mut().filter(|(name, _)| *name == "retry" && limit <= LONGEST) {
        retry["total_timeout"] = limit.as_secs_f64().into();
    }
}

/// Methods of requests that are sent again, where header matchers name some, any of which suffices.
fn methods(fields: &mut Fields<'_>) -> Read<Vec<String>> {
    let one = |text: &str| (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase())).then(|| text.to_owned());
    let several = |pattern: &str| -> Option<Vec<String>> {
        pattern.strip_prefix("^(?:")?.strip_suffix(")$")?.split('|').map(one).collect()
    };
    let named = fields.list("retriable_request_headers", |matcher| {
        if *matcher.name("name")? != *":method" {
            return Err(Fault::new("name", "expected :method: other fields say nothing of what may be sent again"));
        }
        let found = match matcher.required("string_match", matching::string)? {
            Text::Exact(method) => one(&method).map(|method| vec![method]),
            Text::Pattern(pattern, false) => several(&pattern),
            Text::Pattern(_, true) => None,
        };
        let expected = "expected methods: exact, or safe_regex such as `GET|PUT`; prefix, suffix, contains and ignore_case are not supported here";
        found.ok_or_else(|| Fault::new("string_match", expected))
    })?;
    Ok(if named.is_empty() { METHODS.map(str::to_owned).to_vec() } else { named.concat() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::super::read::message;
    use super::*;

    fn plugin(policy: &Value) -> Value {
        message(policy, read).unwrap().plugin.unwrap()
    }

    #[test]
    fn what_an_endpoint_may_have_seen_is_sent_again_only_where_that_is_said() {
        for (retry_on, network) in [
            ("connect-failure,refused-stream", false),
            ("reset", true),
            ("5xx", true),
            ("gateway-error", true),
            ("reset-before-request", false),
        ] {
            let plugin = plugin(&json!({"retry_on": retry_on}));
            assert_eq!(plugin["on_network_error"], json!(network), "{retry_on}");
            assert_eq!(plugin["on_unseen"], json!(!network), "{retry_on}");
        }
    }

    #[test]
    fn a_call_is_sent_again_after_what_it_says_of_itself() {
        let calls = plugin(&json!({"retry_on": "unavailable, deadline-exceeded", "num_retries": 3}));
        assert_eq!((&calls["grpc_statuses"], &calls["attempts"]), (&json!(["UNAVAILABLE", "DEADLINE_EXCEEDED"]), &json!(4)));
        assert_eq!((&calls["on_network_error"], &calls["statuses"]), (&json!(false), &json!([])));
        assert_eq!(plugin(&json!({"retry_on": "5xx"})).get("grpc_statuses"), None);
        let unknown = message(&json!({"retry_on": "aborted"}), read).unwrap_err();
        assert_eq!(unknown.field, "retry_on");
    }

    #[test]
    fn the_shorter_limit_of_a_try_counts() {
        let each = |more: Value| message(&more, read).unwrap().each.map(|each| each.as_secs());
        assert_eq!(each(json!({"per_try_timeout": "3s", "per_try_idle_timeout": "2s"})), Some(2));
        assert_eq!(each(json!({"per_try_timeout": "0s", "per_try_idle_timeout": "4s"})), Some(4));
        assert_eq!((each(json!({"per_try_timeout": "3s"})), each(json!({}))), (Some(3), None));
    }

    #[test]
    fn the_limit_of_a_route_is_that_of_all_tries() {
        let bounded = |seconds: u64| {
            let mut plugins: Deed = vec![("headers", json!({})), ("retry", json!({"attempts": 2}))];
            all_tries_within(&mut plugins, Duration::from_millis(seconds * 1000 + 500));
            assert_eq!(plugins[0].1, json!({}));
            plugins[1].1["total_timeout"].clone()
        };
        assert_eq!((bounded(1), bounded(24 * 3600)), (json!(1.5), Value::Null));
    }

    #[test]
    fn methods_may_be_named() {
        let named = |matcher: Value| {
            let policy = json!({"retry_on": "reset", "retriable_request_headers": [matcher]});
            message(&policy, read).map(|retry| retry.plugin.unwrap()["methods"].clone())
        };
        let text = |name: &str, matcher: Value| json!({"name": name, "string_match": matcher});
        assert_eq!(named(text(":method", json!({"exact": "PUT"}))).unwrap(), json!(["PUT"]));
        assert_eq!(named(text(":method", json!({"safe_regex": {"regex": "GET|PUT"}}))).unwrap(), json!(["GET", "PUT"]));
        assert_eq!(named(text("x-a", json!({"exact": "1"}))).unwrap_err().field, "retriable_request_headers[0].name");
        let any = text(":method", json!({"safe_regex": {"regex": "P.*"}}));
        assert_eq!(named(any).unwrap_err().field, "retriable_request_headers[0].string_match");
    }
}
