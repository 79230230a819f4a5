//! A bucket of tokens that each node fills by itself: `local_ratelimit` as our plugin that does the same. It knows no other filter.

use serde_json::{Value, json};

use super::super::piece::Deed;
use super::super::read::{Fault, Fields, Read};
use super::filters::{always, status};

/// The plugin.
pub(crate) const PLUGIN: &str = "limit-req";
/// What a refused client reads, as Envoy says it.
const REFUSED: &str = "local_rate_limited";

/// Reads the filter; nothing where it enforces nothing.
pub(super) fn filter(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    // What is said of descriptors has no meaning without any, and these are refused.
    fields.ignore(&["stat_prefix", "stage", "vh_rate_limits", "always_consume_default_token_bucket", "max_dynamic_descriptors"]);
    for name in ["descriptors", "rate_limits"] {
        fields.refuse(name, "is not supported: use token_bucket, which is for all requests")?;
    }
    fields.refuse("response_headers_to_add", "is not supported: put it on routes")?;
    fields.refuse("request_headers_to_add_when_not_enforced", "is not supported")?;
    fields.refuse("rate_limited_as_resource_exhausted", "is not supported: calls of gRPC are told UNAVAILABLE")?;
    fields.refuse("enable_x_ratelimit_headers", "is not supported: clients are not told what is left")?;
    for name in ["local_rate_limit_per_downstream_connection", "local_cluster_rate_limit"] {
        fields.refuse(name, "is not supported: a bucket is for all connections of a node")?;
    }
    let refused = fields.message("status", |fields| status(fields, 400, 429))?.unwrap_or(429);
    let on = always(fields, "filter_enabled")? & always(fields, "filter_enforced")?;
    let bucket = fields.message("token_bucket", |bucket| {
        let most = bucket.small("max_tokens")?.filter(|most| *most > 0);
        let most = most.ok_or_else(|| Fault::new("max_tokens", "expected a number above 0"))?;
        let fill = bucket.small("tokens_per_fill")?.unwrap_or(1);
        if fill == 0 {
            return Err(Fault::new("tokens_per_fill", "expected a number above 0"));
        }
        let every = bucket.duration("fill_interval")?.filter(|every| !every.is_zero());
        let every = every.ok_or_else(|| Fault::new("fill_interval", "expected a time above 0"))?.as_secs_f64();
        // Nobody waits: a full bucket lets `most` through at once, and is filled evenly.
        Ok(json!({
            "rate": f64::from(fill) / every, "burst": most - 1, "nodelay": true, "key": "listener", "key_type": "constant",
            "rejected_code": refused, "rejected_body": REFUSED,
        }))
    })?;
    if on && bucket.is_none() {
        return Err(Fault::new("token_bucket", "is missing"));
    }
    Ok(bucket.filter(|_| on).map(|bucket| vec![(PLUGIN, bucket)]))
}

/// Where a virtual host says it, all of its routes draw from one bucket.
pub(crate) fn together(deed: &mut Deed, host: &str) {
    for (_, config) in deed.iter_mut().filter(|(name, _)| *name == PLUGIN) {
        config["key"] = Value::from(format!("{SHARED}{host}"));
    }
}

/// What the key of a bucket begins with that several routes draw from.
const SHARED: &str = "virtual host ";

/// Whether routes draw from one bucket.
pub(crate) fn is_shared(plugin: &str, config: &Value) -> bool {
    plugin == PLUGIN && config["key"].as_str().is_some_and(|key| key.starts_with(SHARED))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::super::read::message;
    use super::*;

    fn limit() -> Value {
        let all = json!({"default_value": {"numerator": 100}});
        json!({"stat_prefix": "x", "token_bucket": {"max_tokens": 5, "tokens_per_fill": 2, "fill_interval": "4s"},
            "filter_enabled": all, "filter_enforced": all})
    }

    #[test]
    fn a_bucket_refuses_and_lets_nobody_wait() {
        let config = json!({"rate": 0.5, "burst": 4, "nodelay": true, "key": "listener", "key_type": "constant",
            "rejected_code": 429, "rejected_body": "local_rate_limited"});
        assert_eq!(message(&limit(), filter).unwrap().unwrap(), vec![(PLUGIN, config)]);
        let mut counted = limit();
        counted["filter_enforced"]["default_value"]["numerator"] = json!(0);
        assert_eq!(message(&counted, filter), Ok(None), "it is only counted");
    }

    #[test]
    fn what_a_bucket_cannot_do_is_refused_by_its_place() {
        let refused = |field: &str, value: Value| {
            let mut limit = limit();
            limit[field] = value;
            message(&limit, filter).unwrap_err().field
        };
        for field in ["rate_limited_as_resource_exhausted", "local_rate_limit_per_downstream_connection"] {
            assert_eq!(refused(field, json!(true)), field);
        }
        assert_eq!(refused("enable_x_ratelimit_headers", json!("DRAFT_VERSION_03")), "enable_x_ratelimit_headers");
        assert_eq!(refused("token_bucket", json!({"fill_interval": "1s"})), "token_bucket.max_tokens");
        assert_eq!(refused("token_bucket", Value::Null), "token_bucket");
    }
}
