//! Another service that decides: `ext_authz` as our plugin that does the same. It knows no other filter.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::piece::{Deed, Override};
use super::super::read::{Fault, Fields, Read};
use super::super::route::headers::{changed, template};
use super::super::route::matching::{self, Text, escaped};
use super::filters::status;

/// The plugin.
const PLUGIN: &str = "ext-authz";
/// What is said of a service by gRPC, and goes with it where a route names another one.
const OF_SERVICE: [&str; 2] = ["authority", "headers_to_add"];
/// How long an answer by gRPC may take where nothing is said.
const PATIENCE: Duration = Duration::from_millis(200);
/// Longest time that our plugin waits, in milliseconds.
const LONGEST: u128 = 60_000;
/// Most bytes of a body that our plugin holds.
const MAX_BODY: u32 = 64 << 20;

/// Reads the filter.
pub(super) fn filter(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    fields.ignore(&["transport_api_version", "stat_prefix"]);
    fields.refuse("clear_route_cache", "is not supported: the route of a request stays")?;
    let mut config = Map::new();
    let by_grpc = fields.message("grpc_service", |service| grpc(service, &mut config))?.is_some();
    let by_http = fields.message("http_service", |service| http(service, &mut config))?.is_some();
    if by_grpc == by_http {
        return Err(Fault::new("grpc_service", "expected exactly one of grpc_service and http_service"));
    }
    // By HTTP nothing is told of certificates and names.
    for name in ["include_peer_certificate", "include_tls_session"] {
        if fields.is_on(name)? && by_grpc {
            config.insert(name.to_owned(), true.into());
        }
    }
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
        let mut changes = Map::new();
        let mut context = Map::new();
        for (name, value) in settings.map("context_extensions")? {
            let text = value.as_str().ok_or_else(|| Fault::new(format!("context_extensions[{name}]"), "expected a text"))?;
            context.insert(name.clone(), text.into());
        }
        if !context.is_empty() {
            changes.insert("context_extensions".to_owned(), context.into());
        }
        let body = settings.message("with_request_body", buffer)?;
        let told = match (settings.is_on("disable_request_body_buffering")?, body) {
            (true, None) => Some(Value::Null),
            (false, body) => body,
            (true, Some(_)) => return Err(Fault::new("with_request_body", "excludes disable_request_body_buffering")),
        };
        changes.extend(told.map(|told| ("with_request_body".to_owned(), told)));
        settings.refuse("http_service", "is not supported on routes")?;
        let mut service = Map::from_iter(OF_SERVICE.map(|name| (name.to_owned(), Value::Null)));
        if settings.message("grpc_service", |fields| grpc(fields, &mut service))?.is_some() {
            changes.extend(service);
        }
        Ok(changes.into())
    })?;
    Ok(Override::But(changes))
}

/// Milliseconds that an answer may take.
fn timeout(limit: Duration) -> Read<Value> {
    let limit = limit.as_millis();
    if !(1..=LONGEST).contains(&limit) {
        return Err(Fault::new("timeout", format!("expected 1 to {LONGEST} milliseconds")));
    }
    Ok(json!(limit as u64))
}

fn grpc(service: &mut Fields<'_>, config: &mut Map<String, Value>) -> Read<()> {
    service.refuse("google_grpc", "is not supported: use envoy_grpc")?;
    config.insert("protocol".to_owned(), "grpc".into());
    service.required("envoy_grpc", |target| {
        config.insert("upstream_id".to_owned(), json!(&*target.name("cluster_name")?));
        config.extend(target.text("authority")?.map(|authority| ("authority".to_owned(), json!(authority))));
        Ok(())
    })?;
    config.insert("timeout".to_owned(), timeout(service.duration("timeout")?.unwrap_or(PATIENCE))?);
    added(service, "initial_metadata", config)
}

/// Fields that are added to a question.
fn added(fields: &mut Fields<'_>, name: &str, config: &mut Map<String, Value>) -> Read<()> {
    let mut added = Map::new();
    fields.list(name, |header| {
        let value = header.text("value")?.unwrap_or_default();
        let value = template(value).map_err(|reason| Fault::new("value", reason))?;
        let key = header.name("key")?.to_string();
        changed(&key).map_err(|reason| Fault::new("key", reason))?;
        added.insert(key, value.into());
        Ok(())
    })?;
    if !added.is_empty() {
        config.insert("headers_to_add".to_owned(), added.into());
    }
    Ok(())
}

fn http(service: &mut Fields<'_>, config: &mut Map<String, Value>) -> Read<()> {
    service.required("server_uri", |uri| {
        // Who is asked is the cluster; the host that it is told is that of the request.
        uri.ignore(&["uri"]);
        config.insert("upstream_id".to_owned(), json!(&*uri.name("cluster")?));
        let limit = uri.duration("timeout")?.ok_or_else(|| Fault::new("timeout", "is missing"))?;
        config.insert("timeout".to_owned(), timeout(limit)?);
        Ok(())
    })?;
    config.extend(service.text("path_prefix")?.map(|prefix| ("path_prefix".to_owned(), json!(prefix))));
    service.message("authorization_request", |request| {
        config.extend(request.message("allowed_headers", names)?.map(|names| ("allowed_headers".to_owned(), names)));
        added(request, "headers_to_add", config)
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
    let flags = ["allow_partial_message", "pack_as_bytes"].map(|name| fields.is_on(name).map(|on| (name, on)));
    let most = fields.small("max_request_bytes")?.filter(|most| (1..=MAX_BODY).contains(most));
    let most = most.ok_or_else(|| Fault::new("max_request_bytes", format!("expected 1 to {MAX_BODY}")))?;
    let mut told = json!({"max_request_bytes": most});
    for flag in flags {
        let (name, on) = flag?;
        if on {
            told[name] = true.into();
        }
    }
    Ok(told)
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
    fn by_grpc_the_cluster_is_called() {
        let call = json!({"grpc_service": {"envoy_grpc": {"cluster_name": "authz"}}, "include_peer_certificate": true,
            "with_request_body": {"max_request_bytes": 9, "pack_as_bytes": true, "allow_partial_message": true}});
        let config = json!({
            "protocol": "grpc", "upstream_id": "authz", "timeout": 200, "include_peer_certificate": true,
            "failure_mode_allow": false, "failure_mode_allow_header_add": false, "status_on_error": 403,
            "with_request_body": {"max_request_bytes": 9, "pack_as_bytes": true, "allow_partial_message": true},
        });
        assert_eq!(message(&call, filter).unwrap().unwrap(), vec![(PLUGIN, config)]);
        let more = json!({"grpc_service": {"envoy_grpc": {"cluster_name": "a", "authority": "h"}, "timeout": "1s",
            "initial_metadata": [{"key": "x-by", "value": "me"}]}});
        let config = message(&more, filter).unwrap().unwrap().remove(0).1;
        assert_eq!(
            (&config["authority"], &config["timeout"], &config["headers_to_add"]),
            (&json!("h"), &json!(1000), &json!({"x-by": "me"}))
        );
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_its_place() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut value = service();
            change(&mut value);
            message(&value, filter).unwrap_err().field
        };
        assert_eq!(refused(&|value| value["grpc_service"] = json!({"envoy_grpc": {"cluster_name": "a"}})), "grpc_service");
        let google = json!({"grpc_service": {"google_grpc": {"target_uri": "a"}}});
        assert_eq!(message(&google, filter).unwrap_err().field, "grpc_service.google_grpc");
        assert_eq!(refused(&|value| value["clear_route_cache"] = json!(true)), "clear_route_cache");
        assert_eq!(
            refused(&|value| value["with_request_body"]["max_request_bytes"] = json!(0)),
            "with_request_body.max_request_bytes"
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
        let told = json!({"check_settings": {"context_extensions": {"a": "b"}, "with_request_body": {"max_request_bytes": 5}}});
        let changes = json!({"context_extensions": {"a": "b"}, "with_request_body": {"max_request_bytes": 5}});
        assert_eq!(of(told), Ok(Override::But(changes)));
    }

    #[test]
    fn routes_ask_another_service_with_all_that_is_said_of_it() {
        let of = |service: Value| message(&json!({"check_settings": service}), per_route);
        let plain = json!({"grpc_service": {"envoy_grpc": {"cluster_name": "other"}}});
        let changes =
            json!({"protocol": "grpc", "upstream_id": "other", "timeout": 200, "authority": null, "headers_to_add": null});
        assert_eq!(of(plain), Ok(Override::But(changes)), "nothing of the other one stays");
        let named = json!({"grpc_service": {"envoy_grpc": {"cluster_name": "other", "authority": "h"}, "timeout": "1s",
            "initial_metadata": [{"key": "x-by", "value": "me"}]}});
        let changes = json!({"protocol": "grpc", "upstream_id": "other", "timeout": 1000, "authority": "h", "headers_to_add": {"x-by": "me"}});
        assert_eq!(of(named), Ok(Override::But(changes)));
        let by_http = json!({"http_service": {"server_uri": {"uri": "http://a", "cluster": "a", "timeout": "1s"}}});
        assert_eq!(of(by_http).unwrap_err().field, "check_settings.http_service");
    }
}
