//! Filters of HTTP, as plugins of ours that do the same. It knows neither listeners nor routes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::piece::{Asked, Deed, Extension, Filter, Override};
use super::super::read::{Fault, Fields, Read, TYPE, typed};
use super::super::route::headers::{added, changed, template};
use super::super::route::matching::{self, Wanted};
use super::super::source;
use super::{authz, compress, jwt, limit, origins, rbac};

const FOLDER: &str = "envoy.extensions.filters.http.";
/// The plugin that edits fields.
const EDITS: &str = "headers";

/// Reads an `HttpFilter`.
pub(crate) fn read(fields: &mut Fields<'_>) -> Read<Filter> {
    let name = fields.name("name")?;
    let disabled = fields.is_on("disabled")?;
    let optional = fields.is_on("is_optional")?;
    if let Some((asked, (does, named))) = fields.message("config_discovery", discovery)? {
        fields.refuse("typed_config", "excludes config_discovery")?;
        return Ok(Filter { name, does, named, asked: Some(asked), disabled });
    }
    let config = fields.take("typed_config").ok_or_else(|| Fault::new("typed_config", "is missing"))?;
    let kind = config.get(TYPE).and_then(Value::as_str).and_then(|url| url.rsplit('/').next()).unwrap_or_default();
    let known = kind.strip_prefix(FOLDER).is_some_and(|kind| KNOWN.contains(&kind));
    // One that is switched off does nothing until a route says what it does, and that is refused there by its own type.
    if (optional || disabled) && !known {
        return Ok(Filter { name, does: None, named: Arc::default(), asked: None, disabled });
    }
    let (does, named) = any_filter(config).map_err(|fault| fault.inside("typed_config"))?;
    Ok(Filter { name, does, named, asked: None, disabled })
}

/// What a filter does, and what it does where a route names it.
type Deeds = (Option<Deed>, Arc<BTreeMap<Arc<str>, Deed>>);

fn any_filter(config: &Value) -> Read<Deeds> {
    typed(config, |kind, fields| match kind.strip_prefix(FOLDER).unwrap_or(kind) {
        "jwt_authn.v3.JwtAuthentication" => jwt::filter(fields).map(|(does, named)| (does, Arc::new(named))),
        kind => filter(kind, fields).map(|does| (does, Arc::default())),
    })
}

/// Reads an `ExtensionConfigSource`: how ECDS is asked, and what is done until it has answered.
fn discovery(fields: &mut Fields<'_>) -> Read<(Asked, Deeds)> {
    // What is sent is refused by its own type, if it is not known.
    fields.ignore(&["type_urls"]);
    let patience = fields.required("config_source", source::read)?;
    let default = fields.take("default_config").map(any_filter).transpose().map_err(|fault| fault.inside("default_config"))?;
    let at_once = fields.is_on("apply_default_config_without_warming")?;
    Ok((Asked { patience, has_default: default.is_some(), at_once }, default.unwrap_or_default()))
}

/// Reads the `TypedExtensionConfig` of a filter.
pub(crate) fn extension(fields: &mut Fields<'_>) -> Read<Extension> {
    let name = fields.name("name")?;
    let config = fields.take("typed_config").ok_or_else(|| Fault::new("typed_config", "is missing"))?;
    let (does, named) = any_filter(config).map_err(|fault| fault.inside("typed_config"))?;
    Ok(Extension { name, does, named })
}

/// Types of filters that are known.
const KNOWN: [&str; 13] = [
    "router.v3.Router",
    "cors.v3.Cors",
    "fault.v3.HTTPFault",
    "header_mutation.v3.HeaderMutation",
    "buffer.v3.Buffer",
    "local_ratelimit.v3.LocalRateLimit",
    "jwt_authn.v3.JwtAuthentication",
    "compressor.v3.Compressor",
    "rbac.v3.RBAC",
    "health_check.v3.HealthCheck",
    "csrf.v3.CsrfPolicy",
    "ext_authz.v3.ExtAuthz",
    "grpc_web.v3.GrpcWeb",
];

fn filter(kind: &str, fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    match kind {
        "router.v3.Router" => router(fields).map(|()| None),
        // By itself it does nothing: policies are on routes.
        "cors.v3.Cors" => Ok(None),
        "fault.v3.HTTPFault" => fault(fields),
        "header_mutation.v3.HeaderMutation" => {
            fields.refuse(
                "most_specific_header_mutations_wins",
                "is not supported: a virtual host has the last word over its routes",
            )?;
            Ok(fields.message("mutations", mutations)?.flatten())
        }
        "buffer.v3.Buffer" => buffer(fields).map(Some),
        "local_ratelimit.v3.LocalRateLimit" => limit::filter(fields),
        "compressor.v3.Compressor" => compress::filter(fields).map(Some),
        "rbac.v3.RBAC" => rbac::filter(fields),
        "csrf.v3.CsrfPolicy" => origins::csrf(fields),
        "ext_authz.v3.ExtAuthz" => authz::filter(fields),
        "health_check.v3.HealthCheck" => rbac::health_check(fields),
        "grpc_web.v3.GrpcWeb" => Ok(Some(vec![("grpc-web", json!({"transparent": true}))])),
        other => Err(Fault::new("@type", format!("{other} is not supported"))),
    }
}

/// Reads `typed_per_filter_config` of a route or virtual host.
pub(crate) fn overrides(fields: &mut Fields<'_>) -> Read<Vec<(Arc<str>, Override)>> {
    let mut overrides = Vec::new();
    for (name, value) in fields.map("typed_per_filter_config")? {
        let place = |fault: Fault| fault.inside(&format!("typed_per_filter_config[{name}]"));
        overrides.push((Arc::from(name.as_str()), typed(value, per_route).map_err(place)?));
    }
    Ok(overrides)
}

/// A route switches a filter on that is off elsewhere.
fn as_in_the_listener() -> Override {
    Override::But(json!({}))
}

fn per_route(kind: &str, fields: &mut Fields<'_>) -> Read<Override> {
    if kind == "envoy.config.route.v3.FilterConfig" {
        let off = fields.is_on("disabled")?;
        fields.ignore(&["is_optional"]);
        let inner = match fields.take("config") {
            // Without a type it switches on what the listener has.
            Some(Value::Object(config)) if config.values().all(|value| value == "") => Some(Ok(as_in_the_listener())),
            config => config.map(|config| typed(config, per_route)),
        };
        let inner = inner.transpose().map_err(|fault| fault.inside("config"))?;
        return match (off, inner) {
            (true, _) => Ok(Override::Off),
            (false, Some(inner)) => Ok(inner),
            (false, None) => Err(Fault::new("config", "is missing")),
        };
    }
    let kind = kind.strip_prefix(FOLDER).unwrap_or(kind);
    let deed = match kind {
        "ext_authz.v3.ExtAuthzPerRoute" => return authz::per_route(fields),
        "jwt_authn.v3.PerRouteConfig" => return jwt::per_route(fields),
        "cors.v3.CorsPolicy" => origins::cors(fields)?,
        "csrf.v3.CsrfPolicy" => origins::csrf(fields)?,
        "fault.v3.HTTPFault" => fault(fields)?,
        "header_mutation.v3.HeaderMutationPerRoute" => fields.message("mutations", mutations)?.flatten(),
        "local_ratelimit.v3.LocalRateLimit" => limit::filter(fields)?,
        "rbac.v3.RBACPerRoute" => rbac::per_route(fields)?,
        "buffer.v3.BufferPerRoute" => {
            let off = fields.is_on("disabled")?;
            fields.message("buffer", buffer)?.filter(|_| !off)
        }
        "compressor.v3.CompressorPerRoute" => {
            let on = fields.message("overrides", |overrides| overrides.message("response_direction_config", |_| Ok(())))?;
            match (fields.is_on("disabled")?, on.flatten()) {
                (false, Some(())) => return Ok(as_in_the_listener()),
                (true, None) => None,
                _ => return Err(Fault::new("disabled", "expected true: what a compressor does is said in the listener")),
            }
        }
        other => return Err(Fault::new("@type", format!("{other} is not supported"))),
    };
    Ok(deed.map_or(Override::Off, Override::Does))
}

fn router(fields: &mut Fields<'_>) -> Read<()> {
    fields.ignore(&[
        "dynamic_stats",
        "start_child_span",
        "upstream_log",
        "upstream_log_options",
        "suppress_envoy_headers",
        "suppress_grpc_request_failure_code_stats",
        "respect_expected_rq_timeout",
    ]);
    fields.refuse("strict_check_headers", "is not supported")?;
    fields.refuse("upstream_http_filters", "is not supported: put filters before the router")
}

/// A share in whole percent.
fn whole_percent(percent: f64) -> Read<u32> {
    if percent.fract() == 0.0 && (0.0..=100.0).contains(&percent) {
        Ok(percent as u32)
    } else {
        Err(Fault::new("", "expected whole percents"))
    }
}

fn fault(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    fields.ignore(&[
        "delay_percent_runtime",
        "abort_percent_runtime",
        "delay_duration_runtime",
        "abort_http_status_runtime",
        "max_active_faults_runtime",
        "response_rate_limit_percent_runtime",
        "abort_grpc_status_runtime",
        "disable_downstream_cluster_stats",
        "filter_metadata",
    ]);
    for name in ["upstream_cluster", "downstream_nodes", "max_active_faults", "response_rate_limit"] {
        fields.refuse(name, "is not supported")?;
    }
    let mut conditions = Vec::new();
    for wanted in fields.list("headers", matching::header)? {
        match wanted {
            Wanted::Method(method) => conditions.push(json!(["method", "==", method])),
            Wanted::Conditions(more) => conditions.extend(more),
        }
    }
    let share = |fields: &mut Fields<'_>, deed: &mut Map<String, Value>| -> Read<bool> {
        let percent = fields.message("percentage", matching::percent)?.unwrap_or(0.0);
        deed.insert("percentage".to_owned(), whole_percent(percent).map_err(|fault| fault.inside("percentage"))?.into());
        if !conditions.is_empty() {
            deed.insert("vars".to_owned(), json!([conditions]));
        }
        Ok(percent > 0.0)
    };
    let mut config = Map::new();
    fields.message("delay", |delay| {
        delay.refuse("header_delay", "is not supported: use fixed_delay")?;
        delay.ignore(&["type"]);
        let duration = delay.duration("fixed_delay")?.unwrap_or(Duration::ZERO);
        let mut deed = Map::from_iter([("duration".to_owned(), json!(duration.as_secs_f64()))]);
        if share(delay, &mut deed)? {
            config.insert("delay".to_owned(), deed.into());
        }
        Ok(())
    })?;
    fields.message("abort", |abort| {
        abort.refuse("header_abort", "is not supported: use http_status")?;
        abort.refuse("grpc_status", "is not supported: use http_status")?;
        let status = abort
            .small("http_status")?
            .filter(|status| (200..600).contains(status))
            .ok_or_else(|| Fault::new("http_status", "expected 200 to 599"))?;
        let mut deed =
            Map::from_iter([("http_status".to_owned(), json!(status)), ("body".to_owned(), json!("fault filter abort"))]);
        deed.insert("headers".to_owned(), json!({"content-type": "text/plain"}));
        if share(abort, &mut deed)? {
            config.insert("abort".to_owned(), deed.into());
        }
        Ok(())
    })?;
    Ok((!config.is_empty()).then(|| vec![("fault-injection", config.into())]))
}

/// Edits of fields that a plugin of its own makes, beside those of routes: fields that are set, and fields that are removed.
fn mutations(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    let mut config = Map::new();
    for (name, ours) in [("request_mutations", "custom_request_headers"), ("response_mutations", "custom_response_headers")] {
        let edits = fields.list(name, |mutation| {
            mutation.refuse("remove_on_match", "is not supported: use remove")?;
            let removed = mutation.text("remove")?.map(|name| (name.to_owned(), Value::from("")));
            if let Some((name, _)) = &removed {
                changed(name).map_err(|reason| Fault::new("remove", reason))?;
            }
            let set = mutation.message("append", |option| {
                let overwrites = option.choice("append_action", &[("OVERWRITE_IF_EXISTS_OR_ADD", 2, ())])?.is_some();
                option.ignore(&["keep_empty_value"]);
                let header = option.required("header", |header| {
                    let value = header.text("value")?.unwrap_or_default();
                    let key = header.name("key")?.to_string();
                    added(&key).map_err(|reason| Fault::new("key", reason))?;
                    Ok((key, template(value).map_err(|reason| Fault::new("value", reason))?))
                })?;
                match (overwrites, header) {
                    (true, (name, value)) if !value.is_empty() => Ok((name, Value::from(value))),
                    (true, _) => Err(Fault::new("header.value", "must not be empty: use remove")),
                    (false, _) => Err(Fault::new(
                        "append_action",
                        "only OVERWRITE_IF_EXISTS_OR_ADD is supported here: put others on routes",
                    )),
                }
            })?;
            removed.or(set).ok_or_else(|| Fault::new("", "expected remove or append"))
        })?;
        if !edits.is_empty() {
            config.insert(ours.to_owned(), Map::from_iter(edits).into());
        }
    }
    fields.refuse("query_parameter_mutations", "is not supported")?;
    for name in ["request_trailers_mutations", "response_trailers_mutations"] {
        fields.refuse(name, "is not supported")?;
    }
    Ok((!config.is_empty()).then(|| vec![(EDITS, config.into())]))
}

/// Adds edits that are made behind others; the later ones of a field count.
pub(crate) fn edited_after(first: &mut Deed, then: &Deed) {
    let edits = |deed: &Deed| matches!(deed.as_slice(), [(EDITS, _)]);
    if !edits(first) || !edits(then) {
        return;
    }
    let parts = first.iter_mut().zip(then).filter_map(|((_, old), (_, new))| Some((old.as_object_mut()?, new.as_object()?)));
    for (old, new) in parts {
        for (what, changes) in new {
            match (old.get_mut(what).and_then(Value::as_object_mut), changes.as_object()) {
                (Some(old), Some(changes)) => {
                    old.retain(|name, _| !changes.keys().any(|changed| changed.eq_ignore_ascii_case(name)));
                    old.extend(changes.clone());
                }
                _ => drop(old.insert(what.clone(), changes.clone())),
            }
        }
    }
}

fn buffer(fields: &mut Fields<'_>) -> Read<Deed> {
    let most = fields
        .small("max_request_bytes")?
        .filter(|most| *most > 0)
        .ok_or_else(|| Fault::new("max_request_bytes", "is missing"))?;
    Ok(vec![("buffering", json!({"request": true, "max_request_body_bytes": most, "response": false}))])
}

/// Whether a share that a runtime may change is everything; nothing where it is not said.
pub(super) fn always(fields: &mut Fields<'_>, name: &str) -> Read<bool> {
    match fields.message(name, matching::runtime_percent)? {
        None => Ok(false),
        Some(0.0) => Ok(false),
        Some(100.0) => Ok(true),
        Some(_) => Err(Fault::new(name, "by chance is not supported: expected 0 or 100 percent")),
    }
}

/// Reads an `HttpStatus` from `least` up. The one enumeration of Envoy whose numbers are the statuses that they mean.
pub(super) fn status(fields: &mut Fields<'_>, least: u64, default: u64) -> Read<u64> {
    let found = match fields.take("code") {
        None => return Ok(default),
        Some(Value::String(name)) => {
            code(name).ok_or_else(|| Fault::new("code", format!("{name} is not supported: give its number")))?
        }
        Some(value) => value.as_u64().unwrap_or_default(),
    };
    match found {
        // None is said.
        0 => Ok(default),
        code if (least..600).contains(&code) => Ok(code),
        _ => Err(Fault::new("code", format!("expected {least} to 599"))),
    }
}

fn code(name: &str) -> Option<u64> {
    Some(match name {
        "Empty" => 0,
        "OK" => 200,
        "BadRequest" => 400,
        "Unauthorized" => 401,
        "NotFound" => 404,
        "InternalServerError" => 500,
        "BadGateway" => 502,
        "GatewayTimeout" => 504,
        "TooManyRequests" => 429,
        "ServiceUnavailable" => 503,
        "Forbidden" => 403,
        _ => return None,
    })
}
