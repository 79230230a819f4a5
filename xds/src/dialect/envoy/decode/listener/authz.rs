//! Another service that decides: `ext_authz` as our plugin that does the same. It knows no other filter.

use serde_json::{Map, Value, json};

use super::super::piece::{Deed, Override};
use super::super::read::{Fault, Fields, Read};
use super::super::route::headers::template;
use super::super::route::matching::{self, Text, escaped};
use super::filters::status;

/// The plugin.
const PLUGIN: &str = "ext-authz";
/// Longest time that our plugin waits, in milliseconds.
const LONGEST: u128 = 60_000;
/// Most bytes of a body that our plugin holds.
const MAX_BODY: u32 = 64 << 20;

/// Reads the filter.
pub(super) fn filter(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    // By HTTP nothing is told of certificates and of versions of messages.
    fields.ignore(&["transport_api_version", "stat_prefix", "include_peer_certificate", "include_tls_session"]);
    fields.refuse("grpc_service", "asking over gRPC is not supported: use http_service")?;
    fields.refuse("clear_route_cache", "is not supported: the route of a request stays")?;
    let mut config = Map::new();
    fields.required("http_service", |service| http(service, &mut config))?;
    for name in ["failure_mode_allow", "failure_mode_allow_header_add"] {
        config.insert(name.to_owned(), fields.is_on(name)?.into());
    }
    let said = fields.message("status_on_error", |fields| status(fields, 200, 403))?;
    config.insert("status_on_error".to_owned(), said.unwrap_or(403).into());
    if let Some(names) = fields.message("allowed_headers", names)? {
        if config.contains_key("allowed_headers") {
            return Err(Fault::new("allowed_headers", "excludes http_service.authorization_request.allowed_headers"));
        }
        config.insert("allowed_headers".to_owned(), names);
    }
    config.extend(fields.message("disallowed_headers", names)?.map(|names| ("disallowed_headers".to_owned(), names)));
    config.extend(fields.message("with_request_body", buffer)?.map(|body| ("with_request_body".to_owned(), body)));
    Ok(Some(vec![(PLUGIN, config.into())]))
}

/// Reads what a route says of it.
pub(super) fn per_route(fields: &mut Fields<'_>) -> Read<Override> {
    if fields.is_on("disabled")? {
        return Ok(Override::Off);
    }
    let changes = fields.required("check_settings", |settings| {
        if settings.map("context_extensions")?.next().is_some() {
            return Err(Fault::new("context_extensions", "is not supported: it is told over gRPC alone"));
        }
        let body = settings.message("with_request_body", buffer)?;
        match (settings.is_on("disable_request_body_buffering")?, body) {
            (true, None) => Ok(json!({"with_request_body": null})),
            (false, Some(body)) => Ok(json!({"with_request_body": body})),
            (false, None) => Ok(json!({})),
            (true, Some(_)) => Err(Fault::new("with_request_body", "excludes disable_request_body_buffering")),
        }
    })?;
    Ok(Override::But(changes))
}

fn http(service: &mut Fields<'_>, config: &mut Map<String, Value>) -> Read<()> {
    service.required("server_uri", |uri| {
        // Who is asked is the cluster; the host that it is told is that of the request.
        uri.ignore(&["uri"]);
        config.insert("upstream_id".to_owned(), json!(&*uri.name("cluster")?));
        let limit = uri.duration("timeout")?.ok_or_else(|| Fault::new("timeout", "is missing"))?.as_millis();
        if !(1..=LONGEST).contains(&limit) {
            return Err(Fault::new("timeout", format!("expected 1 to {LONGEST} milliseconds")));
        }
        config.insert("timeout".to_owned(), json!(limit as u64));
        Ok(())
    })?;
    config.extend(service.text("path_prefix")?.map(|prefix| ("path_prefix".to_owned(), json!(prefix))));
    service.message("authorization_request", |request| {
        config.extend(request.message("allowed_headers", names)?.map(|names| ("allowed_headers".to_owned(), names)));
        let mut added = Map::new();
        request.list("headers_to_add", |header| {
            let value = header.text("value")?.unwrap_or_default();
            let value = template(value).map_err(|reason| Fault::new("value", reason))?;
            added.insert(header.name("key")?.to_string(), value.into());
            Ok(())
        })?;
        if !added.is_empty() {
            config.insert("headers_to_add".to_owned(), added.into());
        }
        Ok(())
    })?;
    service.message("authorization_response", |response| {
        for name in [
            "allowed_upstream_headers",
            "allowed_upstream_headers_to_append",
            "allowed_client_headers",
            "allowed_client_headers_on_success",
        ] {
            config.extend(response.message(name, names)?.map(|names| (name.to_owned(), names)));
        }
        response.refuse("dynamic_metadata_from_headers", "is not supported")
    })?;
    Ok(())
}

/// Reads a `ListStringMatcher` of names of fields, as patterns that cover whole names.
fn names(fields: &mut Fields<'_>) -> Read<Value> {
    let patterns = fields.list("patterns", matching::string)?;
    if patterns.is_empty() {
        return Err(Fault::new("patterns", "must not be empty"));
    }
    let whole = |text: &Text| match text {
        Text::Exact(name) => escaped(name),
        Text::Pattern(pattern, _) => format!(".*(?:{pattern}).*"),
    };
    Ok(patterns.iter().map(whole).collect())
}

/// Reads `BufferSettings`.
fn buffer(fields: &mut Fields<'_>) -> Read<Value> {
    fields.refuse("allow_partial_message", "is not supported: a body is told whole or refused with 413")?;
    // By HTTP a body is always told as it is.
    fields.ignore(&["pack_as_bytes"]);
    let most = fields.small("max_request_bytes")?.filter(|most| (1..=MAX_BODY).contains(most));
    let most = most.ok_or_else(|| Fault::new("max_request_bytes", format!("expected 1 to {MAX_BODY}")))?;
    Ok(json!({"max_request_bytes": most}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::super::read::message;
    use super::*;

    fn service() -> Value {
        json!({"http_service": {
            "server_uri": {"uri": "http://authz", "cluster": "authz", "timeout": "0.25s"}, "path_prefix": "/check",
            "authorization_request": {
                "allowed_headers": {"patterns": [{"exact": "Cookie"}, {"prefix": "x-a"}]},
                "headers_to_add": [{"key": "x-by", "value": "%REQ(:METHOD)%"}],
            },
            "authorization_response": {"allowed_upstream_headers": {"patterns": [{"safe_regex": {"regex": "x-u.*"}}]}},
        }, "failure_mode_allow": true, "status_on_error": {"code": 503}, "with_request_body": {"max_request_bytes": 100}})
    }

    #[test]
    fn the_service_is_asked_as_it_is_meant() {
        let deed = message(&service(), filter).unwrap().unwrap();
        let config = json!({
            "upstream_id": "authz", "timeout": 250, "path_prefix": "/check", "allowed_headers": ["Cookie", ".*(?:^x\\-a).*"],
            "headers_to_add": {"x-by": "${method}"}, "allowed_upstream_headers": [".*(?:^(?:x-u.*)$).*"],
            "failure_mode_allow": true, "failure_mode_allow_header_add": false, "status_on_error": 503,
            "with_request_body": {"max_request_bytes": 100},
        });
        assert_eq!(deed, vec![(PLUGIN, config)]);
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_its_place() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut value = service();
            change(&mut value);
            message(&value, filter).unwrap_err().field
        };
        assert_eq!(refused(&|value| value["grpc_service"] = json!({"envoy_grpc": {"cluster_name": "a"}})), "grpc_service");
        assert_eq!(refused(&|value| value["clear_route_cache"] = json!(true)), "clear_route_cache");
        assert_eq!(
            refused(&|value| value["with_request_body"]["allow_partial_message"] = json!(true)),
            "with_request_body.allow_partial_message"
        );
        assert_eq!(
            refused(&|value| value["http_service"]["server_uri"]["timeout"] = json!("90s")),
            "http_service.server_uri.timeout"
        );
        assert_eq!(refused(&|value| value["allowed_headers"] = json!({"patterns": [{"exact": "a"}]})), "allowed_headers");
        assert_eq!(refused(&|value| value["filter_enabled_metadata"] = json!({"filter": "x"})), "filter_enabled_metadata");
    }

    #[test]
    fn routes_switch_it_off_or_change_what_is_told() {
        let of = |value: Value| message(&value, per_route);
        assert_eq!(of(json!({"disabled": true})), Ok(Override::Off));
        let unbuffered = json!({"check_settings": {"disable_request_body_buffering": true}});
        assert_eq!(of(unbuffered), Ok(Override::But(json!({"with_request_body": null}))));
        let told = json!({"check_settings": {"context_extensions": {"a": "b"}}});
        assert_eq!(of(told).unwrap_err().field, "check_settings.context_extensions");
    }
}
