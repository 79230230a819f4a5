//! Plugins that say where requests go, and their copies. They know no filter.

use std::sync::Arc;
use std::time::Duration;

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::r#type::v3 as kinds;
use kinds::fractional_percent::DenominatorType;
use serde_json::Value;

use super::super::Reader;
use super::super::matching::Condition;
use super::super::route::tries::{self, Seen};
use super::super::route::{Before, Draft, Instead};
use super::{Applied, Config, Extra, only, text};
use crate::model::{CircuitBreakers, Discovery, Scheme, Upstream, UpstreamTls};

/// What names of clusters for copies begin with; no upstream is called so.
pub(in super::super) const MIRROR: &str = "mirror/";
/// Methods of requests that may be sent twice (RFC 9110 section 9.2.2), where nobody names others.
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];
/// Copies under way at once where nobody said how many.
const COPIES: u64 = 64;

pub(super) fn split(config: &Config, draft: &mut Draft) -> Applied {
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
            let conditions = condition.get("vars").cloned().map(Condition::Vars).into_iter().collect();
            draft.before.push(Before { conditions, what: Instead::Shares(shares.clone()) });
        }
    }
    Ok(())
}

/// `retry`: the budget is that of the upstream, and what no endpoint has seen is tried again by the same rule.
pub(super) fn retry(config: &Config, draft: &mut Draft) -> Applied {
    let known =
        ["attempts", "initial_interval", "max_interval", "statuses", "on_network_error", "on_unseen", "methods", "max_body_size"];
    only(config, &[&known[..], &["grpc_statuses", "timeout", "total_timeout", "budget_percent", "budget_burst"]].concat())?;
    let seconds = |field: &str| config.get(field).and_then(Value::as_f64).filter(|span| *span > 0.0);
    if seconds("timeout").is_some() {
        return Err("timeout: Envoy begins a try however long those before it took".to_owned());
    }
    if seconds("total_timeout").is_some() {
        return Err("total_timeout: Envoy would bound the whole answer by it, not its beginning alone".to_owned());
    }
    let attempts = config.get("attempts").and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
    let mut statuses = Vec::new();
    for written in config.get("statuses").and_then(Value::as_array).into_iter().flatten() {
        statuses.extend(range(written).ok_or_else(|| format!("statuses: {written} is neither a status nor a range"))?);
    }
    let network = config.get("on_network_error").and_then(Value::as_bool) != Some(false);
    let written: Vec<&str> =
        config.get("methods").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let methods = if written.is_empty() { &IDEMPOTENT[..] } else { &written[..] };
    let first = seconds("initial_interval").and_then(|span| Duration::try_from_secs_f64(span).ok());
    let longest = seconds("max_interval").and_then(|span| Duration::try_from_secs_f64(span).ok());
    let rest = first.unwrap_or(tries::SHORTEST_REST).max(tries::SHORTEST_REST);
    let rests = (rest, longest.unwrap_or(rest.saturating_mul(2)).max(rest));
    let timeouts = draft.timeouts.unwrap_or_default();
    let seen = Seen { attempts, network, statuses, calls: calls(config)?, methods, rests, timeouts };
    if draft.reader == Reader::Grpc {
        return retried_calls(&seen, draft);
    }
    tries::of_seen(&seen, &mut draft.action);
    Ok(())
}

/// Every call is a POST, and one that lost its connection is UNAVAILABLE: where only one of both is a reason, clients of gRPC cannot tell.
fn retried_calls(seen: &Seen<'_>, draft: &mut Draft) -> Applied {
    if seen.calls.is_empty() || seen.attempts < 2 || !seen.methods.contains(&"POST") {
        return Ok(());
    }
    if !seen.network && seen.calls.iter().any(|call| call == "unavailable") {
        return Err(
            "on_network_error: to clients of gRPC a call that lost its connection is UNAVAILABLE, expected `true` beside it"
                .to_owned(),
        );
    }
    tries::of_calls(seen, &mut draft.action);
    Ok(())
}

/// Statuses of gRPC as Envoy calls them.
fn calls(config: &Config) -> Result<Vec<String>, String> {
    let written = config.get("grpc_statuses").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let known = |status: &str| match ["CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"]
        .contains(&status)
    {
        true => Ok(status.to_ascii_lowercase().replace('_', "-")),
        false => Err(format!(
            "grpc_statuses: expected CANCELLED, DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED or UNAVAILABLE, after which others try again, found `{status}`"
        )),
    };
    written.map(known).collect()
}

/// The statuses of `503` or `"500-504"`.
fn range(written: &Value) -> Option<std::ops::RangeInclusive<u32>> {
    let status = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
    match written {
        Value::Number(number) => status(&number.to_string()).map(|one| one..=one),
        Value::String(text) => match text.split_once('-') {
            Some((first, last)) => Some(status(first)?..=status(last)?),
            None => status(text).map(|one| one..=one),
        },
        _ => None,
    }
}

pub(super) fn mirror(config: &Config, draft: &mut Draft) -> Applied {
    // How long a copy may take and how long its body may be, Envoy does not ask.
    only(config, &["host", "sample_ratio", "max_in_flight", "ssl_verify", "max_body_size", "timeout"])?;
    let url = text(config, "host").unwrap_or_default();
    let (scheme, host) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(host), _) => (Scheme::Https, host),
        (_, Some(host)) => (Scheme::Http, host),
        _ => return Err(format!("host: expected http or https, found `{url}`")),
    };
    let verify = config.get("ssl_verify").and_then(Value::as_bool) != Some(false);
    let most = config.get("max_in_flight").and_then(Value::as_u64).unwrap_or(COPIES);
    let name: Arc<str> = format!("{MIRROR}{url}{}/{most}", if verify { "" } else { "/unverified" }).into();
    let share = config.get("sample_ratio").and_then(Value::as_f64).unwrap_or(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between zero and a million")]
    let numerator = (share.clamp(0.0, 1.0) * 1_000_000.0).round() as u32;
    let value = kinds::FractionalPercent { numerator, denominator: DenominatorType::Million.into() };
    draft.action.request_mirror_policies.push(wire::route_action::RequestMirrorPolicy {
        cluster: name.to_string(),
        runtime_fraction: Some(base::RuntimeFractionalPercent { default_value: Some(value), ..Default::default() }),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    });
    draft.copies.insert(name.clone(), Extra { upstream: copies(&name, scheme, host, (verify, most)), script: None });
    Ok(())
}

/// Where copies go, and what filters ask: an upstream that nobody wrote.
pub(super) fn copies(name: &Arc<str>, scheme: Scheme, host: &str, (verify, most): (bool, u64)) -> Upstream {
    Upstream {
        scheme,
        tls: UpstreamTls { verify, sni: Some(host.rsplit_once(':').map_or(host, |(host, _)| host).into()), ..Default::default() },
        breakers: CircuitBreakers { max_requests: Some(u32::try_from(most).unwrap_or(u32::MAX)), ..Default::default() },
        discovery: Some(Discovery::Dns(host.into())),
        ..Upstream::new(name.clone())
    }
}
