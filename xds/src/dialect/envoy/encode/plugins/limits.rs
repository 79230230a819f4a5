//! Plugins that bound how much comes. Envoy counts in buckets that fill evenly, each process for itself.

use std::time::Duration;

use heddle_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use heddle_proto::envoy::config::route::v3::rate_limit::Action;
use heddle_proto::envoy::config::route::v3::rate_limit::action::{ActionSpecifier, RemoteAddress};
use heddle_proto::envoy::config::route::v3::{HeaderMatcher, RateLimit};
use heddle_proto::envoy::extensions::common::ratelimit::v3 as common;
use heddle_proto::envoy::extensions::filters::http::buffer::v3::{Buffer, BufferPerRoute, buffer_per_route};
use heddle_proto::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort};
use heddle_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use heddle_proto::envoy::r#type::v3 as kinds;
use serde_json::Value;

use super::super::Reader;
use super::super::route::Draft;
use super::super::wire::{LONGEST, always, any, percent, span};
use super::{Applied, BUFFER, Config, LIMIT_COUNT, LIMIT_REQ, SIZE, only, text};

/// Clients that are counted one by one at once; the one that was not heard of for longest is forgotten.
const CLIENTS: u32 = 10_000;
/// Parts of a second in which rates with fractions are told.
const PARTS: f64 = 1000.0;

/// `limit-count`: a bucket of the size of a window, which fills in its time.
pub(super) fn windows(config: &Config, draft: &mut Draft) -> Applied {
    let known = [
        "count",
        "time_window",
        "window_type",
        "key",
        "key_type",
        "rejected_code",
        "show_limit_quota_header",
        "policy",
        "allow_degradation",
    ];
    only(config, &known)?;
    local(config)?;
    let number = |field: &str| config.get(field).and_then(Value::as_u64).filter(|number| *number > 0);
    let (Some(count), Some(window)) = (number("count"), number("time_window")) else {
        return Err("count and time_window: only numbers have a counterpart in Envoy".to_owned());
    };
    let count = u32::try_from(count).map_err(|_| format!("count: {count} is more than Envoy counts"))?;
    let window = Duration::from_secs(window);
    if window > LONGEST {
        return Err("time_window: Envoy knows a hundred years at most".to_owned());
    }
    let bucket = kinds::TokenBucket { max_tokens: count, tokens_per_fill: Some(count), fill_interval: span(window) };
    limited(config, bucket, (503, tells(config)), (LIMIT_COUNT, draft))
}

/// Whether the fields that tell what is left are to have other names than Envoy's.
pub(super) fn are_renamed(config: &Config, metadata: &Config) -> bool {
    let usual = [
        ("limit_header", "x-ratelimit-limit"),
        ("remaining_header", "x-ratelimit-remaining"),
        ("reset_header", "x-ratelimit-reset"),
    ];
    let is_other = |(field, usual): (&str, &str)| {
        metadata.get(field).is_some_and(|name| !name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(usual)))
    };
    tells(config) && usual.into_iter().any(is_other)
}

/// Whether answers tell what is left.
fn tells(config: &Config) -> bool {
    config.get("show_limit_quota_header").and_then(Value::as_bool) != Some(false)
}

/// `limit-req`: a token bucket is one already, and a leaky one that holds nobody up is one with room for one more.
pub(super) fn buckets(config: &Config, draft: &mut Draft) -> Applied {
    let known =
        ["rate", "burst", "average", "period", "key", "key_type", "nodelay", "rejected_code", "policy", "allow_degradation"];
    only(config, &known)?;
    local(config)?;
    let number = |field: &str| config.get(field).and_then(Value::as_f64);
    let (most, per_second, status) = match (number("rate"), number("average")) {
        (Some(_), _) if config.get("nodelay").and_then(Value::as_bool) != Some(true) => {
            return Err("nodelay: Envoy holds nobody up, so only true has a counterpart".to_owned());
        }
        (Some(rate), _) => (number("burst").unwrap_or_default() + 1.0, rate, 503),
        (_, Some(average)) => (number("burst").unwrap_or(1.0).max(1.0), average / number("period").unwrap_or(1.0), 429),
        _ => return Err("expected rate or average".to_owned()),
    };
    let parts = (per_second * PARTS).round();
    if !(1.0..=f64::from(u32::MAX)).contains(&parts) || most > f64::from(u32::MAX) {
        return Err("such a rate has no counterpart in Envoy".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds that were asked for above")]
    let bucket = kinds::TokenBucket {
        max_tokens: most.floor() as u32,
        tokens_per_fill: Some(parts as u32),
        fill_interval: span(Duration::from_secs(PARTS as u64)),
    };
    limited(config, bucket, (status, false), (LIMIT_REQ, draft))
}

/// Counters of the fleet are not Envoy's.
fn local(config: &Config) -> Applied {
    match text(config, "policy") {
        None | Some("local") => Ok(()),
        Some(policy) => Err(format!("policy: Envoy counts for itself, not by `{policy}`")),
    }
}

/// A bucket for all requests of the route, or one for each client.
fn limited(
    config: &Config,
    bucket: kinds::TokenBucket,
    (status, tells): (u64, bool),
    (name, draft): (&str, &mut Draft),
) -> Applied {
    let code = config.get("rejected_code").and_then(Value::as_u64).unwrap_or(status);
    let code =
        i32::try_from(code).ok().and_then(|code| kinds::StatusCode::try_from(code).ok()).filter(|code| (*code as i32) >= 400);
    let Some(code) = code else { return Err("rejected_code: Envoy refuses with a status of 400 to 511 only".to_owned()) };
    let each = match (text(config, "key_type").unwrap_or("var"), text(config, "key").unwrap_or("remote_addr")) {
        ("constant", _) => false,
        ("var", "remote_addr") | ("var_combination", "$remote_addr") => true,
        (_, key) => return Err(format!("key: Envoy counts by remote_addr or all together, not by `{key}`")),
    };
    let entry = common::rate_limit_descriptor::Entry { key: "remote_address".to_owned(), ..Default::default() };
    let of_client = common::LocalRateLimitDescriptor { entries: vec![entry], token_bucket: Some(bucket) };
    let by_client = Action { action_specifier: Some(ActionSpecifier::RemoteAddress(RemoteAddress {})) };
    let limit = LocalRateLimit {
        stat_prefix: "limit".to_owned(),
        status: Some(kinds::HttpStatus { code: code.into() }),
        token_bucket: Some(bucket),
        filter_enabled: Some(always()),
        filter_enforced: Some(always()),
        descriptors: if each { vec![of_client] } else { Vec::new() },
        rate_limits: if each { vec![RateLimit { actions: vec![by_client], ..Default::default() }] } else { Vec::new() },
        always_consume_default_token_bucket: Some(!each),
        max_dynamic_descriptors: each.then_some(CLIENTS),
        rate_limited_as_resource_exhausted: code == kinds::StatusCode::TooManyRequests,
        enable_x_ratelimit_headers: if tells {
            common::XRateLimitHeadersRfcVersion::DraftVersion03.into()
        } else {
            common::XRateLimitHeadersRfcVersion::Off.into()
        },
        ..Default::default()
    };
    draft.filters.extend(any(&limit).map(|limit| (name.to_owned(), limit)));
    Ok(())
}

/// `client-control`: Envoy holds a body until it is whole to know that it is not too long.
pub(super) fn size(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["max_body_size"])?;
    match config.get("max_body_size").and_then(Value::as_u64) {
        None | Some(0) => Ok(()),
        Some(most) => buffered(most, draft),
    }
}

/// `buffering` of requests.
pub(super) fn held(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["request", "max_request_body_bytes", "response"])?;
    if config.get("response").and_then(Value::as_bool) != Some(false) {
        return Err("response: Envoy holds no answers, so only false has a counterpart".to_owned());
    }
    buffered(config.get("max_request_body_bytes").and_then(Value::as_u64).unwrap_or(64 << 20), draft)
}

/// Bodies are held up to so many bytes, and refused with 413 above; the lower of two bounds counts.
fn buffered(most: u64, draft: &mut Draft) -> Applied {
    let most = u32::try_from(most).map_err(|_| format!("{most} bytes are more than Envoy holds"))?;
    let most = draft.held.map_or(most, |before| before.min(most));
    draft.held = Some(most);
    let buffer = Buffer { max_request_bytes: Some(most) };
    let per_route = BufferPerRoute { r#override: Some(buffer_per_route::Override::Buffer(buffer)) };
    draft.filters.extend(any(&per_route).map(|config| (BUFFER.to_owned(), config)));
    // Our agents count every body.
    if draft.reader == Reader::Envoy {
        draft.filters.extend(any(&longer_than(most)).map(|config| (SIZE.to_owned(), config)));
    }
    Ok(())
}

/// 413 for every request that says that it is longer.
fn longer_than(most: u32) -> HttpFault {
    let longer = kinds::Int64Range { start: i64::from(most) + 1, end: i64::MAX };
    let says = HeaderMatcher {
        name: "content-length".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::RangeMatch(longer)),
        ..Default::default()
    };
    let abort = FaultAbort { percentage: Some(percent(100)), error_type: Some(fault_abort::ErrorType::HttpStatus(413)) };
    HttpFault { headers: vec![says], abort: Some(abort), ..Default::default() }
}
