//! Plugins that say where requests go, and their copies. They know no filter.

use std::sync::Arc;
use std::time::Duration;

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::route::v3::route_action::RequestMirrorPolicy;
use heddle_proto::envoy::r#type::v3 as kinds;
use kinds::fractional_percent::DenominatorType;
use serde_json::Value;

use super::super::route::{Before, Draft, Instead};
use super::{Applied, Config, only, text};
use crate::model::{Balancer, CircuitBreakers, Discovery, PassHost, Scheme, Upstream, UpstreamTls, ZonePolicy};

/// What names of clusters for copies begin with; no upstream is called so.
pub(in super::super) const MIRROR: &str = "mirror/";
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
            let conditions = condition.get("vars").cloned().into_iter().collect();
            draft.before.push(Before { conditions, what: Instead::Shares(shares.clone()) });
        }
    }
    Ok(())
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
    draft.action.request_mirror_policies.push(RequestMirrorPolicy {
        cluster: name.to_string(),
        runtime_fraction: Some(base::RuntimeFractionalPercent { default_value: Some(value), ..Default::default() }),
        disable_shadow_host_suffix_append: true,
        ..Default::default()
    });
    draft.copies.insert(name.clone(), copies(&name, scheme, host, (verify, most)));
    Ok(())
}

/// Where copies go, as an upstream that nobody wrote.
fn copies(name: &Arc<str>, scheme: Scheme, host: &str, (verify, most): (bool, u64)) -> Upstream {
    Upstream {
        name: name.clone(),
        label: name.clone(),
        balancer: Balancer::RoundRobin,
        scheme,
        pass_host: PassHost::Pass,
        retries: Some(0),
        retry_timeout: Duration::ZERO,
        timeouts: Default::default(),
        keepalive: Default::default(),
        tls: UpstreamTls { verify, sni: Some(host.rsplit_once(':').map_or(host, |(host, _)| host).into()), ..Default::default() },
        checks: Default::default(),
        breakers: CircuitBreakers { max_requests: Some(u32::try_from(most).unwrap_or(u32::MAX)), ..Default::default() },
        discovery: Some(Discovery::Dns(host.into())),
        slow_start: Duration::ZERO,
        panic_threshold: 0,
        mesh: None,
        locality: ZonePolicy::default(),
        fleet_load: false,
    }
}
