//! When a request is sent again. It knows no route.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::read::{Fault, Fields, Read};

/// Every method: Envoy sends again whatever it was.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
/// Bytes of a body that are kept to be sent again, as Envoy's default of a connection's buffer.
const MAX_BODY: u64 = 1024 * 1024;
/// Seconds of rest before the second try, as Envoy's default.
const REST: f64 = 0.025;
/// A budget that bounds nothing: Envoy has none here, and `retry_budget` of the cluster bounds all.
const NO_BUDGET: u32 = 1000;

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
    let (mut statuses, mut network, mut listed) = (Vec::new(), false, false);
    for condition in fields.text("retry_on")?.unwrap_or_default().split(',').map(str::trim).filter(|one| !one.is_empty()) {
        match condition {
            "5xx" => {
                statuses.push(json!("500-599"));
                network = true;
            }
            "gateway-error" => statuses.push(json!("502-504")),
            "retriable-4xx" => statuses.push(json!(409)),
            "connect-failure" | "reset" | "refused-stream" | "reset-before-request" | "http3-post-connect-failure" => {
                network = true
            }
            "retriable-status-codes" => listed = true,
            other => return Err(Fault::new("retry_on", format!("{other} is not supported"))),
        }
    }
    let codes = fields.values("retriable_status_codes", |code| {
        let code = code.as_u64().filter(|code| (200..600).contains(code));
        code.ok_or_else(|| Fault::new("", "expected a status from 200 to 599"))
    })?;
    statuses.extend(codes.into_iter().filter(|_| listed).map(Value::from));
    // How an endpoint is chosen for another try: one that was not tried yet, always.
    fields.list("retry_host_predicate", |predicate| match &*predicate.name("name")? {
        "envoy.retry_host_predicates.previous_hosts" => {
            predicate.ignore(&["typed_config"]);
            Ok(())
        }
        other => Err(Fault::new("name", format!("{other} is not supported"))),
    })?;
    fields.ignore(&["host_selection_retry_max_attempts"]);
    fields.refuse("retry_priority", "is not supported")?;
    let each = fields.duration("per_try_timeout")?.filter(|each| !each.is_zero());
    fields.refuse("per_try_idle_timeout", "is not supported: use per_try_timeout")?;
    fields.refuse("retriable_headers", "is not supported: use retriable_status_codes")?;
    fields.refuse("retriable_request_headers", "is not supported")?;
    fields.refuse("rate_limited_retry_back_off", "is not supported")?;
    fields.refuse("retry_options_predicates", "is not supported")?;
    let (first, longest) = fields
        .message("retry_back_off", |rest| Ok((rest.duration("base_interval")?, rest.duration("max_interval")?)))?
        .unwrap_or_default();
    let first = first.map_or(REST, |first| first.as_secs_f64());
    let longest = longest.map_or(first * 10.0, |longest| longest.as_secs_f64());
    let tries = fields.small("num_retries")?.unwrap_or(1);
    if tries == 0 || (statuses.is_empty() && !network) {
        return Ok(Retry { plugin: None, each });
    }
    if tries > 19 {
        return Err(Fault::new("num_retries", "expected at most 19"));
    }
    let plugin = json!({
        "attempts": tries + 1, "statuses": statuses, "on_network_error": network, "methods": METHODS, "max_body_size": MAX_BODY,
        "initial_interval": first.min(60.0), "max_interval": longest.min(60.0), "budget_percent": NO_BUDGET,
    });
    Ok(Retry { plugin: Some(plugin), each })
}
