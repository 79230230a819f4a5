//! A bucket of tokens that each node fills by itself: `local_ratelimit` as our plugin that does the same. It knows no other filter.

use serde_json::{Value, json};

use super::super::piece::Deed;
use super::super::read::{Fault, Fields, Read};
use super::super::route::headers::literal;
use super::filters::{always, status};

/// The plugin.
pub(crate) const PLUGIN: &str = "limit-req";
/// What a refused client reads, as Envoy says it.
const REFUSED: &str = "local_rate_limited";

/// Reads the filter; nothing where it enforces nothing.
pub(super) fn filter(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    // How many buckets there are at once is bounded by the node; what `stage` and `vh_rate_limits` tune are limits of routes, which are refused. Calls of gRPC that
    // are too many are told RESOURCE_EXHAUSTED in any case.
    fields.ignore(&["stat_prefix", "stage", "vh_rate_limits", "max_dynamic_descriptors"]);
    fields.refuse("response_headers_to_add", "is not supported: put it on routes")?;
    fields.refuse("request_headers_to_add_when_not_enforced", "is not supported")?;
    for name in ["local_rate_limit_per_downstream_connection", "local_cluster_rate_limit"] {
        fields.refuse(name, "is not supported: a bucket is for all connections of a node")?;
    }
    let refused = fields.message("status", |fields| status(fields, 400, 429))?.unwrap_or(429);
    if refused != 429 {
        fields.refuse("rate_limited_as_resource_exhausted", "is not supported beside another status than 429")?;
    }
    fields.ignore(&["rate_limited_as_resource_exhausted"]);
    let on = always(fields, "filter_enabled")? & always(fields, "filter_enforced")?;
    let tells =
        fields.choice("enable_x_ratelimit_headers", &[("OFF", 0, false), ("DRAFT_VERSION_03", 1, true)])?.unwrap_or(false);
    let of_all = fields.message("token_bucket", bucket)?;
    let of_clients = by_client(fields)?;
    if on && of_all.is_none() {
        return Err(Fault::new("token_bucket", "is missing"));
    }
    let (key, found) = match of_clients {
        Some(found) => (json!({"key": "remote_addr", "key_type": "var"}), Some(found)),
        None => (json!({"key": "listener", "key_type": "constant"}), of_all),
    };
    let Some((rate, burst)) = found.filter(|_| on) else { return Ok(None) };
    // Nobody waits: a full bucket lets so many through at once, and is filled evenly.
    let mut config = json!({"rate": rate, "burst": burst, "nodelay": true, "rejected_code": refused, "rejected_body": REFUSED});
    for (name, value) in key.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    if tells {
        config["show_limit_quota_header"] = true.into();
    }
    Ok(Some(vec![(PLUGIN, config)]))
}

/// Reads a `TokenBucket`: requests in a second, and how many more than one may come at once.
fn bucket(bucket: &mut Fields<'_>) -> Read<(f64, u32)> {
    let most = bucket.small("max_tokens")?.filter(|most| *most > 0);
    let most = most.ok_or_else(|| Fault::new("max_tokens", "expected a number above 0"))?;
    let fill = bucket.small("tokens_per_fill")?.unwrap_or(1);
    if fill == 0 {
        return Err(Fault::new("tokens_per_fill", "expected a number above 0"));
    }
    let every = bucket.duration("fill_interval")?.filter(|every| !every.is_zero());
    let every = every.ok_or_else(|| Fault::new("fill_interval", "expected a time above 0"))?.as_secs_f64();
    Ok((f64::from(fill) / every, most - 1))
}

/// The bucket that each client has, where descriptors give it one: the one way in which they are understood.
fn by_client(fields: &mut Fields<'_>) -> Read<Option<(f64, u32)>> {
    const ONLY: &str =
        "expected one, of the entry remote_address without a value: requests are counted by client or all together";
    let both = fields.flag("always_consume_default_token_bucket")?.unwrap_or(true);
    let limits = fields.list("rate_limits", |limit| {
        let actions = limit.list("actions", |action| action.required("remote_address", |_| Ok(())))?;
        if actions.len() == 1 { Ok(()) } else { Err(Fault::new("actions", "expected remote_address alone")) }
    })?;
    let mut buckets = fields.list("descriptors", |descriptor| {
        let entries = descriptor.list("entries", |entry| {
            let key = entry.name("key")?;
            let value = entry.text("value")?;
            if *key == *"remote_address" && value.is_none() { Ok(()) } else { Err(Fault::new("key", ONLY)) }
        })?;
        if entries.len() != 1 {
            return Err(Fault::new("entries", ONLY));
        }
        descriptor.required("token_bucket", bucket)
    })?;
    match (buckets.len(), limits.len()) {
        (0, 0) => return Ok(None),
        (1, 1) => {}
        (1, _) => return Err(Fault::new("rate_limits", "expected one, with the action remote_address")),
        _ => return Err(Fault::new("descriptors", ONLY)),
    }
    if both {
        let reason = "expected false beside descriptors: a client draws from its own bucket alone";
        return Err(Fault::new("always_consume_default_token_bucket", reason));
    }
    Ok(buckets.pop())
}

/// Where a virtual host says it, all of its routes draw from one bucket, or from one for each client.
pub(crate) fn together(deed: &mut Deed, host: &str) {
    for (_, config) in deed.iter_mut().filter(|(name, _)| *name == PLUGIN) {
        if config["key_type"] == "var" {
            config["key"] = Value::from(format!("{SHARED}{} ${{remote_addr}}", literal(host)));
            config["key_type"] = Value::from("var_combination");
        } else {
            config["key"] = Value::from(format!("{SHARED}{host}"));
        }
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

    /// Each client has a bucket.
    fn by_clients() -> Value {
        let mut limit = limit();
        limit["descriptors"] = json!([{
            "entries": [{"key": "remote_address"}],
            "token_bucket": {"max_tokens": 3, "tokens_per_fill": 3, "fill_interval": "60s"},
        }]);
        limit["rate_limits"] = json!([{"actions": [{"remote_address": {}}]}]);
        limit["always_consume_default_token_bucket"] = json!(false);
        limit["max_dynamic_descriptors"] = json!(10_000);
        limit["enable_x_ratelimit_headers"] = json!("DRAFT_VERSION_03");
        limit
    }

    #[test]
    fn each_client_may_have_a_bucket() {
        let config = json!({"rate": 0.05, "burst": 2, "nodelay": true, "key": "remote_addr", "key_type": "var",
            "rejected_code": 429, "rejected_body": "local_rate_limited", "show_limit_quota_header": true});
        let mut found = message(&by_clients(), filter).unwrap().unwrap();
        assert_eq!(found, vec![(PLUGIN, config)]);
        together(&mut found, "a$b");
        let (_, config) = &found[0];
        let (key, kind) = (json!("virtual host a\\$b ${remote_addr}"), json!("var_combination"));
        assert_eq!((&config["key"], &config["key_type"]), (&key, &kind), "all routes of a virtual host draw from the same ones");
        assert!(is_shared(PLUGIN, config));
    }

    #[test]
    fn other_descriptors_are_refused_by_their_place() {
        let refused = |at: &str, value: Value| {
            let mut limit = by_clients();
            *limit.pointer_mut(at).unwrap() = value;
            message(&limit, filter).unwrap_err().field
        };
        assert_eq!(refused("/always_consume_default_token_bucket", Value::Null), "always_consume_default_token_bucket");
        assert_eq!(refused("/descriptors/0/entries/0", json!({"key": "path"})), "descriptors[0].entries[0].key");
        let one_client = json!({"key": "remote_address", "value": "10.0.0.1"});
        assert_eq!(refused("/descriptors/0/entries/0", one_client), "descriptors[0].entries[0].key");
        assert_eq!(refused("/descriptors/0/entries", json!([])), "descriptors[0].entries");
        assert_eq!(refused("/descriptors", json!([])), "descriptors");
        let twice = json!([{"actions": [{"remote_address": {}}]}, {"actions": [{"remote_address": {}}]}]);
        assert_eq!(refused("/rate_limits", twice), "rate_limits");
        let other = json!([{"actions": [{"generic_key": {"descriptor_value": "a"}}]}]);
        assert!(refused("/rate_limits", other).starts_with("rate_limits[0].actions[0]"));
    }

    #[test]
    fn what_a_bucket_cannot_do_is_refused_by_its_place() {
        let refused = |field: &str, value: Value| {
            let mut limit = limit();
            limit[field] = value;
            message(&limit, filter).unwrap_err().field
        };
        let mut other = limit();
        (other["status"], other["rate_limited_as_resource_exhausted"]) = (json!({"code": 503}), json!(true));
        assert_eq!(message(&other, filter).unwrap_err().field, "rate_limited_as_resource_exhausted");
        other["status"] = json!({"code": 429});
        assert!(message(&other, filter).is_ok());
        let each = "local_rate_limit_per_downstream_connection";
        assert_eq!(refused(each, json!(true)), each);
        assert_eq!(refused("enable_x_ratelimit_headers", json!(7)), "enable_x_ratelimit_headers");
        assert_eq!(refused("token_bucket", json!({"fill_interval": "1s"})), "token_bucket.max_tokens");
        assert_eq!(refused("token_bucket", Value::Null), "token_bucket");
    }
}
