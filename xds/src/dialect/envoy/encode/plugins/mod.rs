//! Plugins as the filters of Envoy that do the same. One that has no counterpart, or is configured in a way that has none, says so. It knows no host.

mod answers;
mod asking;
mod compress;
mod edits;
mod guards;
mod identity;
mod judged;
mod keys;
mod limits;
mod paths;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use heddle_proto::envoy::config::common::mutation_rules::v3 as rules;
use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::extensions::filters::http::api_key_auth::v3::ApiKeyAuth;
use heddle_proto::envoy::extensions::filters::http::buffer::v3::Buffer;
use heddle_proto::envoy::extensions::filters::http::cors::v3::Cors;
use heddle_proto::envoy::extensions::filters::http::csrf::v3::CsrfPolicy;
use heddle_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use heddle_proto::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use heddle_proto::envoy::extensions::filters::http::header_mutation::v3::{HeaderMutation, HeaderMutationPerRoute, Mutations};
use heddle_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use heddle_proto::envoy::extensions::filters::http::lua::v3::Lua;
use heddle_proto::envoy::extensions::filters::http::rbac::v3::Rbac;
use heddle_proto::envoy::extensions::filters::http::router::v3::Router;
use heddle_proto::envoy::extensions::filters::http::upstream_codec::v3::UpstreamCodec;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use prost::{Message, Name};
use serde_json::{Map, Value};

use super::route::Draft;
use super::wire::{always, any};
use crate::model::PluginConf;

pub(super) const FAULT: &str = "envoy.filters.http.fault";
pub(super) const CORS: &str = "envoy.filters.http.cors";
pub(super) const ROUTER: &str = "envoy.filters.http.router";
const GRPC_WEB: &str = "envoy.filters.http.grpc_web";
const CSRF: &str = "envoy.filters.http.csrf";
const RBAC: &str = "envoy.filters.http.rbac";
const KEY_AUTH: &str = "envoy.filters.http.api_key_auth";
/// Takes fields out that clients may not say themselves.
const DISOWN: &str = "heddle.disown";
const BUFFER: &str = "envoy.filters.http.buffer";
/// Refuses what says that it is too long: what counts is not asked about a body that is whole with its first piece.
const SIZE: &str = "heddle.size";
/// Two of one type, so that a route may have both.
const LIMIT_COUNT: &str = "heddle.limit-count";
const LIMIT_REQ: &str = "heddle.limit-req";

pub(super) use asking::Extra;
pub(super) use identity::asks_consumers;
pub(super) use judged::grpc::{askable, asked};
use judged::{forward, grpc};

/// Whether a cluster stands beside those of upstreams.
pub(super) fn is_beside(cluster: &str) -> bool {
    cluster.starts_with(paths::MIRROR) || cluster.starts_with(asking::ASKED)
}

/// Filters that some routes need and whose configuration stands in the listener, by name.
pub(super) type Filters = BTreeMap<String, manager::HttpFilter>;

/// The filters of every listener in the order of our plugins: bodies that are bounded, who it is, who may, how much. All but the last one do nothing but for routes that say what.
///
/// A connection keeps the filters that it began with, whatever its routes say later. So what guards is always there, and where it cannot be (`jwt-auth`,
/// `forward-auth` with a status of its own, `ext-authz` that says more than routes can) a judge that is always there demands what only the filter can have said.
pub(super) fn chain(further: &Filters) -> Vec<manager::HttpFilter> {
    let limit = LocalRateLimit { stat_prefix: "limit".to_owned(), ..Default::default() };
    let most = Buffer { max_request_bytes: Some(u32::MAX) };
    let asks = [identity::JWT, grpc::EXT_AUTHZ, forward::FORWARD_AUTH];
    let named =
        |start: &'static str| further.iter().filter(move |(name, _)| name.starts_with(start)).map(|(_, filter)| filter.clone());
    let mut chain = vec![
        // Pages may read that a body was too long.
        filter(CORS, &Cors::default(), true),
        filter(SIZE, &HttpFault::default(), true),
        // It counts what passes it: what a filter before it keeps while it waits would come by in one piece, and uncounted.
        filter(BUFFER, &most, true),
        filter(FAULT, &HttpFault::default(), true),
        filter(CSRF, &CsrfPolicy { filter_enabled: Some(always()), ..Default::default() }, true),
        filter(GRPC_WEB, &GrpcWeb {}, true),
        filter(DISOWN, &HeaderMutation::default(), true),
        filter(KEY_AUTH, &ApiKeyAuth::default(), true),
    ];
    chain.extend(named(identity::JWT));
    chain.extend(grpc::standing());
    chain.extend(named(grpc::EXT_AUTHZ));
    chain.push(forward::asked(forward::FORWARD_AUTH, judged::FORBIDDEN));
    chain.extend(named(forward::FORWARD_AUTH));
    chain.extend([filter(RBAC, &Rbac::default(), true), filter(LIMIT_COUNT, &limit, true), filter(LIMIT_REQ, &limit, true)]);
    let others = further.iter().filter(|(name, _)| !asks.iter().any(|start| name.starts_with(start)));
    chain.extend(others.map(|(_, filter)| filter.clone()));
    chain.push(filter(ROUTER, &Router { suppress_envoy_headers: true, ..Default::default() }, false));
    chain
}

pub(super) fn filter<M: Message + Name>(name: &str, config: &M, disabled: bool) -> manager::HttpFilter {
    manager::HttpFilter {
        name: name.to_owned(),
        config_type: any(config).map(manager::http_filter::ConfigType::TypedConfig),
        disabled,
        ..Default::default()
    }
}

/// The filters of a cluster whose requests and answers a script edits.
pub(super) fn scripted(script: &str) -> [manager::HttpFilter; 2] {
    let source = base::DataSource { specifier: Some(base::data_source::Specifier::InlineString(script.to_owned())) };
    let script = Lua { default_source_code: Some(source) };
    [filter("envoy.filters.http.lua", &script, false), filter("envoy.filters.http.upstream_codec", &UpstreamCodec {}, false)]
}

/// What is said of plugins wherever they are used, by their names.
pub(super) type Metadata = BTreeMap<Arc<str>, Arc<Value>>;

type Config = Map<String, Value>;
type Applied = Result<(), String>;

/// Adds what all plugins of a route together do.
pub(super) fn finish(draft: &mut Draft) -> Applied {
    edits::finish(&draft.route)?;
    guards::finish(draft);
    if draft.aborted {
        draft.before.clear();
    }
    if draft.disowned.is_empty() {
        return Ok(());
    }
    let remove = |name: String| rules::HeaderMutation { action: Some(rules::header_mutation::Action::Remove(name)) };
    let request_mutations = std::mem::take(&mut draft.disowned).into_iter().map(remove).collect();
    let per_route = HeaderMutationPerRoute { mutations: Some(Mutations { request_mutations, ..Default::default() }) };
    draft.filters.extend(any(&per_route).map(|config| (DISOWN.to_owned(), config)));
    Ok(())
}

/// Adds what a plugin does.
pub(super) fn apply(plugin: &PluginConf, draft: &mut Draft) -> Applied {
    let empty = Map::new();
    let config = plugin.config.as_object().unwrap_or(&empty);
    if let Some(meta) = config.get("_meta").and_then(Value::as_object) {
        if meta.get("disable").and_then(Value::as_bool) == Some(true) {
            return Ok(());
        }
        if let Some(field) = meta.keys().find(|field| *field != "disable") {
            return Err(format!("_meta.{field} has no counterpart in Envoy"));
        }
    }
    does(&plugin.name, config, draft)?;
    if let Some(metadata) = draft.metadata.get(&plugin.name).and_then(|metadata| metadata.as_object())
        && is_changed_by(&plugin.name, config, metadata)
    {
        return Err(format!("plugin_metadata of {} is not translated for Envoys", plugin.name));
    }
    Ok(())
}

/// Whether its metadata changes what a plugin does, beyond what its translation heeds.
fn is_changed_by(plugin: &str, config: &Config, metadata: &Config) -> bool {
    match plugin {
        // The port is translated; lists of origins have no counterpart where a route names them.
        "redirect" | "cors" => false,
        "limit-count" => limits::are_renamed(config, metadata),
        _ => !metadata.is_empty(),
    }
}

/// Adds what a plugin of this name and configuration does.
fn does(name: &str, config: &Config, draft: &mut Draft) -> Applied {
    match name {
        "cors" => answers::cors(config, draft),
        "grpc-web" => answers::grpc_web(config, draft),
        "fault-injection" => answers::fault(config, draft),
        "redirect" => answers::redirect(config, draft),
        "ip-restriction" => guards::addresses(config, draft),
        "ua-restriction" => guards::programs(config, draft),
        // A rule must also hold for what a query hides behind percent signs, which Envoy matches as it stands.
        "uri-blocker" => Err("Envoy does not look behind the percent signs of a query".to_owned()),
        "key-auth" => identity::keys(config, draft),
        "jwt-auth" => identity::tokens(config, draft),
        "forward-auth" => forward::forward(config, draft),
        "ext-authz" => grpc::ask(config, draft),
        "limit-count" => limits::windows(config, draft),
        "limit-req" => limits::buckets(config, draft),
        "client-control" => limits::size(config, draft),
        "buffering" => limits::held(config, draft),
        "gzip" => compress::gzip(config, draft),
        "brotli" => compress::brotli(config, draft),
        "zstd" => compress::zstd(config, draft),
        "request-id" => edits::request_id(config, draft),
        "referer-restriction" => guards::referers(config, draft),
        "headers" => edits::headers(config, draft),
        "proxy-rewrite" => edits::rewrite(config, draft),
        "response-rewrite" => edits::answers(config, draft),
        "proxy-mirror" => paths::mirror(config, draft),
        "retry" => paths::retry(config, draft),
        "traffic-split" => paths::split(config, draft),
        // What it counts, Envoy counts by itself.
        "prometheus" => Ok(()),
        "csrf" => guards::origins(config, draft),
        "basic-auth" => {
            Err("Envoy's own filter knows passwords by their SHA-1 without salt alone: use key-auth or jwt-auth".to_owned())
        }
        _ => Err("Envoy has no counterpart".to_owned()),
    }
}

/// Whether it does something to requests: what is only counted, Envoy counts by itself.
pub(super) fn has_effect(plugin: &PluginConf) -> bool {
    &*plugin.name != "prometheus"
}

/// Refuses what is configured beyond these fields.
fn only(config: &Config, fields: &[&str]) -> Applied {
    let beyond = config.keys().find(|field| *field != "_meta" && !fields.contains(&field.as_str()));
    beyond.map_or(Ok(()), |field| Err(format!("{field} has no counterpart in Envoy")))
}

fn text<'a>(config: &'a Config, field: &str) -> Option<&'a str> {
    config.get(field).and_then(Value::as_str)
}

/// A text in which nothing stands for something else.
fn plain<'a>(config: &'a Config, field: &str) -> Result<Option<&'a str>, String> {
    match text(config, field) {
        Some(text) if text.contains('$') => Err(format!("{field}: variables have no counterpart in Envoy")),
        other => Ok(other),
    }
}
