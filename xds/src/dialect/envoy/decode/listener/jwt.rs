//! Signed tokens: `jwt_authn` as our plugin that does the same. It knows no other filter.

use serde_json::{Value, json};

use super::super::piece::Deed;
use super::super::read::{Fault, Fields, Read, message};

/// Reads the filter.
pub(super) fn filter(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    for name in ["filter_state_rules", "requirement_map", "bypass_cors_preflight", "strip_failure_response"] {
        fields.refuse(name, "is not supported")?;
    }
    let mut providers = Vec::new();
    for (name, value) in fields.map("providers")? {
        let provider = message(value, provider).map_err(|fault| fault.inside(&format!("providers[{name}]")))?;
        providers.push((name, provider));
    }
    let rules = fields.list("rules", |rule| {
        let all = rule.required("match", |matches| Ok(matches.text("prefix")? == Some("/")))?;
        rule.refuse("requirement_name", "is not supported: use requires")?;
        let provider = rule.message("requires", |requires| requires.name("provider_name"))?;
        if all {
            Ok(provider)
        } else {
            Err(Fault::new("match", "expected the prefix `/`: rules are for all requests of the listener"))
        }
    })?;
    match rules.as_slice() {
        [] | [None] => Ok(None),
        [Some(wanted)] => match providers.into_iter().find(|(name, _)| ***name == **wanted) {
            Some((_, config)) => Ok(Some(vec![("jwt-auth", config)])),
            None => Err(Fault::new("rules[0].requires.provider_name", format!("there is no provider {wanted}"))),
        },
        _ => Err(Fault::new("rules", "more than one rule is not supported")),
    }
}

fn provider(fields: &mut Fields<'_>) -> Read<Value> {
    fields.ignore(&[
        "cache_duration",
        "jwt_cache_config",
        "payload_in_metadata",
        "header_in_metadata",
        "failed_status_in_metadata",
        "require_expiration",
    ]);
    for name in [
        "from_headers",
        "from_params",
        "from_cookies",
        "forward_payload_header",
        "claim_to_headers",
        "subjects",
        "max_lifetime",
        "clear_route_cache",
        "local_jwks",
        "normalize_payload_in_metadata",
    ] {
        fields.refuse(name, "is not supported")?;
    }
    let url = fields.required("remote_jwks", |jwks| {
        jwks.ignore(&["async_fetch", "retry_policy", "cache_duration"]);
        jwks.required("http_uri", |uri| {
            uri.ignore(&["cluster", "timeout"]);
            uri.name("uri")
        })
    })?;
    let keep = fields.is_on("forward")?;
    let skew = fields.small("clock_skew_seconds")?.unwrap_or(60);
    let mut config = json!({"jwks_url": &*url, "consumer_required": false, "query": "access_token", "hide_credentials": !keep, "clock_skew": skew});
    if let Some(issuer) = fields.text("issuer")? {
        config["issuers"] = json!([issuer]);
    }
    let audiences = fields.texts("audiences")?;
    if !audiences.is_empty() {
        config["audiences"] = json!(audiences);
    }
    Ok(config)
}
