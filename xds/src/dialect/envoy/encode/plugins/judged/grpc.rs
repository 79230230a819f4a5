//! `ext-authz` by gRPC: Envoy's `ext_authz`, which asks the same question. It knows no route.
//!
//! Whom to ask, for how long and with which body the route says, so that the usual question changes no listener. What Envoy reads from the listener alone
//! (what is told of fields and certificates, what becomes of requests that nobody decides on) stands in a filter of its own there. Behind each such filter
//! another one notes that it let the request pass, which RBAC demands: a connection that began before the filter was there is refused.

use std::sync::Arc;
use std::time::Duration;

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::route::v3::FilterConfig;
use heddle_proto::envoy::extensions::filters::http::ext_authz::v3 as wire;
use heddle_proto::envoy::extensions::filters::http::set_metadata::v3 as notes;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use heddle_proto::envoy::r#type::matcher::v3 as matcher;
use heddle_proto::envoy::r#type::v3 as kinds;
use prost::Message;
use serde_json::Value;
use wire::check_settings::ServiceOverride;
use wire::ext_authz::Services;

use super::super::super::re2;
use super::super::super::route::Draft;
use super::super::super::wire::{any, exact, header, regex, span, text_matcher};
use super::super::{Applied, Config, asking, filter, only, text};
use super::{FORBIDDEN, MOST_FIELD, STAYING, said, status};
use crate::dialect::envoy::encode::Reader;
use crate::model::{PassHost, PluginConf, Upstream};
use crate::snapshot::version_of;

/// The plugin.
const PLUGIN: &str = "ext-authz";
/// The filter of the usual question; what names of all such filters begin with.
pub(in super::super) const EXT_AUTHZ: &str = "heddle.ext-authz";
/// What stands behind the name of a filter in that of the one that notes that it let a request pass.
const PASSED: &str = "/passed";
/// Where that is noted, by the name of the filter.
const NOTES: &str = "heddle.passed";
const YES: &str = "yes";
/// What stands before the id of an upstream in the name that the control plane gives it.
const SHARED: &str = "upstreams/";
/// Longest name of a host (RFC 1035 section 2.3.4).
const LONGEST_AUTHORITY: usize = 253;
/// What clients say of who they are, which whoever decides would believe; where a request comes from it is told beside its fields.
const UNTOLD: [&str; 6] =
    ["forwarded", "x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-real-ip"];
/// What names of fields begin with by which Envoys talk with each other.
const OWN: &str = "x-envoy-";
/// Fields of a call that are not for others to say.
const OF_CALLS: [&str; 3] = ["content-length", "content-type", "user-agent"];

/// The upstream that a plugin asks.
pub(in super::super::super) fn asked(plugin: &PluginConf) -> Option<&str> {
    (&*plugin.name == PLUGIN).then(|| plugin.config.get("upstream_id")?.as_str()).flatten()
}

/// Whether Envoy asks this upstream as our agents do.
pub(in super::super::super) fn askable(name: &str, upstream: Option<&Upstream>) -> Applied {
    let told = |why: &str| Err(format!("plugin {PLUGIN}: upstream {name} {why}"));
    match upstream {
        None => told("is none of those that it is given"),
        Some(upstream) if !upstream.scheme.is_h2() && upstream.mesh.is_none() => {
            told("speaks no gRPC, expected `grpc` or `grpcs` as its scheme")
        }
        Some(upstream) if upstream.pass_host != PassHost::Pass => {
            told("has a pass_host, and Envoy names whom it asks by `authority` of the plugin alone")
        }
        Some(_) => Ok(()),
    }
}

/// The filters of every listener: where no route says whom to ask, nobody consents.
pub(in super::super) fn standing() -> [HttpFilter; 2] {
    let nobody = calling(&format!("{}nobody", asking::ASKED), "nobody");
    both(EXT_AUTHZ, wire::ExtAuthz { services: Some(Services::GrpcService(nobody)), ..usual() })
}

/// A filter, and the one behind it that notes that it let a request pass.
fn both(name: &str, asks: wire::ExtAuthz) -> [HttpFilter; 2] {
    let yes = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(YES.to_owned())) };
    let value = prost_types::Struct { fields: [(name.to_owned(), yes)].into() };
    let note = notes::Metadata { metadata_namespace: NOTES.to_owned(), value: Some(value) };
    [filter(name, &asks, true), filter(&format!("{name}{PASSED}"), &notes::Config { metadata: vec![note] }, true)]
}

/// What the filter says where the plugin says nothing that only listeners can say.
fn usual() -> wire::ExtAuthz {
    let untold =
        UNTOLD.into_iter().map(exact).chain([text_matcher(matcher::string_matcher::MatchPattern::Prefix(OWN.to_owned()))]);
    wire::ExtAuthz {
        transport_api_version: base::ApiVersion::V3.into(),
        status_on_error: Some(kinds::HttpStatus { code: FORBIDDEN }),
        disallowed_headers: Some(matcher::ListStringMatcher { patterns: untold.collect() }),
        ..Default::default()
    }
}

/// `ext-authz`.
pub(in super::super) fn ask(config: &Config, draft: &mut Draft) -> Applied {
    known(config)?;
    let upstream: Arc<str> = text(config, "upstream_id").ok_or("upstream_id: names nobody to ask")?.into();
    let service = service(&upstream, config)?;
    let body = body(config)?;
    let of_listener = of_listener(config, body)?;
    let mut settings = wire::CheckSettings { context_extensions: context(config), ..Default::default() };
    let name = if of_listener == usual() {
        settings.with_request_body = body;
        settings.service_override = Some(ServiceOverride::GrpcService(service));
        EXT_AUTHZ.to_owned()
    } else {
        // Whom it asks stands there as well: an Envoy that does not hear it from routes would ask nobody, and may let pass whom nobody refuses.
        let asks = wire::ExtAuthz { services: Some(Services::GrpcService(service)), with_request_body: body, ..of_listener };
        let name = format!("{EXT_AUTHZ}.{}", version_of(&asks.encode_to_vec()));
        draft.further.extend(both(&name, asks).map(|filter| (filter.name.clone(), filter)));
        name
    };
    draft.asked.insert(upstream);
    if draft.reader == Reader::Envoy {
        let on = FilterConfig { config: Some(Default::default()), ..Default::default() };
        draft.filters.extend(any(&on).map(|on| (format!("{name}{PASSED}"), on)));
        draft.demands.push(said(NOTES, &name, YES));
    }
    let per_route = wire::ExtAuthzPerRoute { r#override: Some(wire::ext_authz_per_route::Override::CheckSettings(settings)) };
    draft.filters.extend(any(&per_route).map(|config| (name, config)));
    Ok(())
}

/// Whether all of it has a counterpart.
fn known(config: &Config) -> Applied {
    if text(config, "protocol") != Some("grpc") {
        return Err("protocol: Envoys ask by `grpc`; by HTTP they do so for forward-auth".to_owned());
    }
    let question =
        ["upstream_id", "protocol", "authority", "context_extensions", "timeout", "headers_to_add", "with_request_body"];
    let told = ["include_peer_certificate", "include_tls_session", "allowed_headers", "disallowed_headers"];
    let unanswered = ["allowed_upstream_headers", "failure_mode_allow", "failure_mode_allow_header_add", "status_on_error"];
    // By gRPC nothing is said in these.
    let by_http =
        ["path_prefix", "allowed_upstream_headers_to_append", "allowed_client_headers", "allowed_client_headers_on_success"];
    only(config, &[&question[..], &told[..], &unanswered[..], &by_http[..]].concat())?;
    if is_on(config, "failure_mode_allow") && texts(config, "allowed_upstream_headers").next().is_some() {
        return Err("allowed_upstream_headers: Envoy leaves what clients say in them where nobody decides".to_owned());
    }
    Ok(())
}

/// What only a filter in the listener can say.
fn of_listener(config: &Config, body: Option<wire::BufferSettings>) -> Result<wire::ExtAuthz, String> {
    let mut filter = wire::ExtAuthz {
        failure_mode_allow: is_on(config, "failure_mode_allow"),
        failure_mode_allow_header_add: is_on(config, "failure_mode_allow") && is_on(config, "failure_mode_allow_header_add"),
        status_on_error: Some(kinds::HttpStatus { code: status(config)? }),
        include_peer_certificate: is_on(config, "include_peer_certificate"),
        include_tls_session: is_on(config, "include_tls_session"),
        // Envoy does not ask routes whether bodies are told as bytes.
        with_request_body: body.filter(|body| body.pack_as_bytes),
        ..usual()
    };
    let allowed = names(config, "allowed_headers")?;
    filter.allowed_headers = (!allowed.is_empty()).then_some(matcher::ListStringMatcher { patterns: allowed });
    if let Some(untold) = &mut filter.disallowed_headers {
        untold.patterns.extend(names(config, "disallowed_headers")?);
    }
    Ok(filter)
}

/// The service, and how it is called.
fn service(upstream: &str, config: &Config) -> Result<base::GrpcService, String> {
    let authority = text(config, "authority").map_or_else(|| authority_of(upstream), str::to_owned);
    let mut initial_metadata = Vec::new();
    for (name, value) in config.get("headers_to_add").and_then(Value::as_object).into_iter().flatten() {
        let name = name.to_ascii_lowercase();
        let value = value.as_str().unwrap_or_default();
        if STAYING.contains(&name.as_str()) || OF_CALLS.contains(&name.as_str()) || name.starts_with("grpc-") {
            return Err(format!("headers_to_add.{name}: Envoy says it itself"));
        }
        if value.contains('$') {
            return Err(format!("headers_to_add.{name}: variables have no counterpart in Envoy"));
        }
        let made = header(&name, value, false).header.unwrap_or_default();
        if made.key.len().max(made.value.len()) > MOST_FIELD {
            return Err(format!("headers_to_add.{name}: Envoy takes no more than {MOST_FIELD} bytes"));
        }
        initial_metadata.push(made);
    }
    let limit = config.get("timeout").and_then(Value::as_u64).unwrap_or(3_000);
    Ok(base::GrpcService { timeout: span(Duration::from_millis(limit)), initial_metadata, ..calling(upstream, &authority) })
}

fn calling(cluster: &str, authority: &str) -> base::GrpcService {
    let target = base::grpc_service::EnvoyGrpc { cluster_name: cluster.to_owned(), authority: authority.to_owned() };
    base::GrpcService { target_specifier: Some(base::grpc_service::TargetSpecifier::EnvoyGrpc(target)), ..Default::default() }
}

/// The authority of calls to an upstream where nobody says one, as our agents make it: its name, in which `-` stands for what no host has.
fn authority_of(upstream: &str) -> String {
    let name = upstream.strip_prefix(SHARED).unwrap_or(upstream);
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte));
    if name.len() <= LONGEST_AUTHORITY && name.split('.').all(is_label) {
        return name.to_owned();
    }
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    name.chars().map(letter).take(LONGEST_AUTHORITY).collect()
}

fn context(config: &Config) -> std::collections::BTreeMap<String, String> {
    let told = config.get("context_extensions").and_then(Value::as_object).into_iter().flatten();
    told.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// How much of the body is told.
fn body(config: &Config) -> Result<Option<wire::BufferSettings>, String> {
    let Some(body) = config.get("with_request_body").and_then(Value::as_object) else { return Ok(None) };
    let told = |reason| format!("with_request_body.{reason}");
    only(body, &["max_request_bytes", "allow_partial_message", "pack_as_bytes"]).map_err(told)?;
    let most = body.get("max_request_bytes").and_then(Value::as_u64).and_then(|most| u32::try_from(most).ok());
    Ok(Some(wire::BufferSettings {
        max_request_bytes: most.filter(|most| *most > 0).ok_or_else(|| told("max_request_bytes is missing".to_owned()))?,
        allow_partial_message: is_on(body, "allow_partial_message"),
        pack_as_bytes: is_on(body, "pack_as_bytes"),
    }))
}

/// Names of fields by patterns, each of which covers the whole name in any case.
fn names(config: &Config, field: &str) -> Result<Vec<matcher::StringMatcher>, String> {
    let plain = |pattern: &str| pattern.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let one = |pattern: &str| match plain(pattern) {
        true => Ok(exact(&pattern.to_ascii_lowercase())),
        false => re2::accept(pattern).map(|()| regex(&format!("(?i:{pattern})"))).map_err(|reason| format!("{field}: {reason}")),
    };
    texts(config, field).map(one).collect()
}

fn texts<'a>(config: &'a Config, field: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    config.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn is_on(config: &Config, field: &str) -> bool {
    config.get(field).and_then(Value::as_bool) == Some(true)
}
