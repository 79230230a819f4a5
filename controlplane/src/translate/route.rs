//! A route with its service and plugin_config merged in. Matching is the agent's; only what must match is written down here.

use std::sync::Arc;

use heddle_xds::model::{PluginConf, Resource, Route, RouteMatch, UpstreamRef};
use serde::Deserialize;
use serde_json::Value;

use super::context::{Context, Unit};
use super::{plugins, read, upstream};
use crate::model::{Key, ResourceKind, Timeout, network};
use crate::state::Stored;

/// Why a route has the upstream that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chosen {
    /// Written on the route itself.
    RouteInline,
    /// The `upstream_id` of the route.
    RouteReference,
    /// Written on its service.
    ServiceInline,
    /// The `upstream_id` of its service.
    ServiceReference,
    /// Something that the route needs does not exist: a request must not pass without it.
    Missing(Key),
}

/// The parts of a route, put together, with a record of the choices made.
pub(super) struct Merged {
    /// Plugins that apply.
    pub(super) plugins: Vec<PluginConf>,
    /// Plugins that a stronger resource hides.
    pub(super) hidden: Vec<PluginConf>,
    /// Name of its upstream.
    pub(super) upstream: Option<Arc<str>>,
    /// Why it is that one.
    pub(super) chosen: Option<Chosen>,
    /// Id of the service merged in, empty when none.
    pub(super) service_id: Arc<str>,
    /// Upstreams written inside.
    pub(super) owned: Vec<Resource>,
}

struct Service<'a> {
    key: Key,
    value: &'a Value,
    plugins: Arc<[PluginConf]>,
}

/// Translates one route. One that is switched off, or that cannot be read to match anything, has nothing on the data plane.
pub(super) fn unit(context: &mut Context<'_>, key: &Key, stored: &Stored) -> Unit {
    let value = &stored.value;
    if read::number(value, "status") == Some(0) {
        return Unit::default();
    }
    let merged = merged(context, key, stored);
    let service_key = Key { kind: ResourceKind::Service, id: merged.service_id.clone() };
    let service = context.state.get(&service_key).map(|stored| &stored.value);
    let Some(matches) = matches(value, service) else { return Unit::default() };
    let inherited = |field: &str| value.get(field).or_else(|| service?.get(field));
    let mut resources = merged.owned;
    resources.push(Resource::Route(Route {
        id: key.id.clone(),
        name: read::shared(value, "name").unwrap_or_default(),
        service_id: merged.service_id,
        service_name: service.and_then(|service| read::shared(service, "name")).unwrap_or_default(),
        matches,
        priority: read::number(value, "priority").unwrap_or(0),
        created: stored.created,
        plugins: merged.plugins,
        upstream: merged.upstream.map(|name| UpstreamRef { name }),
        timeouts: inherited("timeout")
            .and_then(|value| Timeout::deserialize(value).ok())
            .map(|written| upstream::timeouts(&written)),
        enable_websocket: inherited("enable_websocket").and_then(Value::as_bool).unwrap_or(false),
        max_duration: None,
    }));
    Unit { resources, ..Unit::default() }
}

/// Merges service and plugin_config into a route and chooses its upstream.
pub(super) fn merged(context: &mut Context<'_>, key: &Key, stored: &Stored) -> Merged {
    let value = &stored.value;
    let mut missing = None;
    let service = service_of(context, key, value, &mut missing);
    let (own, mut owned) = plugins::of(context, key, value);
    let config = plugin_config_of(context, key, value, &mut missing);
    let weaker = [&config[..], service.as_ref().map_or(&[][..], |service| &service.plugins)];
    let plugins = weaker.iter().fold(own, |merged, list| plugins::merge(merged, list));
    let applies = |plugin: &PluginConf| plugins.iter().any(|other| other.name == plugin.name && other.origin == plugin.origin);
    let hidden = weaker.iter().copied().flatten().filter(|plugin| !applies(plugin)).cloned().collect();
    let choice = choose(context, key, value, service.as_ref(), missing, &mut owned);
    let (chosen, upstream) = choice.map_or((None, None), |(chosen, name)| (Some(chosen), Some(name.into())));
    let service_id = service.map_or_else(Arc::default, |service| service.key.id);
    Merged { plugins, hidden, upstream, chosen, service_id, owned }
}

fn service_of<'a>(context: &mut Context<'a>, key: &Key, value: &Value, missing: &mut Option<Key>) -> Option<Service<'a>> {
    let id = read::reference(value, "service_id")?;
    let Some((key, stored)) = context.read(ResourceKind::Service, &id, key) else {
        *missing = Some(Key::new(ResourceKind::Service, id));
        return None;
    };
    let plugins = context.plugins_of(&key, stored);
    Some(Service { key, value: &stored.value, plugins })
}

fn plugin_config_of(context: &mut Context<'_>, key: &Key, value: &Value, missing: &mut Option<Key>) -> Arc<[PluginConf]> {
    let Some(id) = read::reference(value, "plugin_config_id") else { return Arc::default() };
    let Some((key, stored)) = context.read(ResourceKind::PluginConfig, &id, key) else {
        *missing = Some(Key::new(ResourceKind::PluginConfig, id));
        return Arc::default();
    };
    context.plugins_of(&key, stored)
}

/// The upstream by rank: inline of the route, `upstream_id` of the route, inline of the service, `upstream_id` of the service.
/// A service or plugin_config that does not exist outranks them all: its plugins may be what guards the route, so nothing
/// passes until it is there, and the name that no upstream has makes the agent answer 503.
fn choose(
    context: &mut Context<'_>,
    key: &Key,
    value: &Value,
    service: Option<&Service<'_>>,
    missing: Option<Key>,
    owned: &mut Vec<Resource>,
) -> Option<(Chosen, String)> {
    if let Some(missing) = missing {
        let name = missing.to_string();
        return Some((Chosen::Missing(missing), name));
    }
    if let Some(inline) = value.get("upstream").filter(|inline| inline.is_object()) {
        let name = key.to_string();
        owned.extend(upstream::translate(context, key, &name, &name, inline));
        return Some((Chosen::RouteInline, name));
    }
    if let Some(id) = read::reference(value, "upstream_id") {
        return Some((Chosen::RouteReference, upstream::name_of(&context.name(ResourceKind::Upstream, &id, key))));
    }
    let service = service?;
    if service.value.get("upstream").is_some_and(Value::is_object) {
        return Some((Chosen::ServiceInline, service.key.to_string()));
    }
    let id = read::reference(service.value, "upstream_id")?;
    let key = context.name(ResourceKind::Upstream, &id, &service.key);
    Some((Chosen::ServiceReference, upstream::name_of(&key)))
}

/// What a request must look like. `None` when a condition cannot be read: a route must never match more than was written.
fn matches(value: &Value, service: Option<&Value>) -> Option<RouteMatch> {
    let uris: Vec<Arc<str>> = read::one_or_many(value, "uri", "uris").into_iter().map(Arc::from).collect();
    let mut hosts = read::one_or_many(value, "host", "hosts");
    if hosts.is_empty() {
        hosts = service.map_or_else(Vec::new, |service| read::one_or_many(service, "host", "hosts"));
    }
    let addresses = read::one_or_many(value, "remote_addr", "remote_addrs");
    let remote_addrs = addresses.into_iter().map(network).collect::<Result<Vec<_>, _>>().ok()?;
    let vars = value.get("vars").filter(|vars| vars.as_array().is_some_and(|list| !list.is_empty()));
    (!uris.is_empty()).then(|| RouteMatch {
        uris,
        hosts: hosts.into_iter().map(|host| host.to_ascii_lowercase().into()).collect(),
        methods: read::texts(value, "methods").into_iter().map(|method| method.to_ascii_uppercase().into()).collect(),
        remote_addrs,
        vars: vars.cloned().map(Arc::new),
    })
}
