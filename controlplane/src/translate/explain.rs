//! Where the parts of a route come from, for people: plugins in their order with their origin, the upstream and why. What matches a request is the agent's to say.

use std::collections::HashMap;
use std::sync::Arc;

use heddle_xds::catalog::Catalog;
use heddle_xds::model::{Endpoint, PluginConf, Resource};
use serde::Serialize;

use super::context::Context;
use super::route::{self, Chosen};
use super::{auth_plugins, upstream};
use crate::model::{Key, ResourceKind};
use crate::state::State;

/// What a route was put together from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Provenance {
    /// Id of the route.
    pub route_id: Arc<str>,
    /// Id of the service merged in, empty when none.
    pub service_id: Arc<str>,
    /// Whether it is on the data plane at all (`status` 1, and every condition readable).
    pub active: bool,
    /// Plugins in the order in which they run within a phase; hidden ones at the end.
    pub plugins: Vec<PluginStep>,
    /// Where requests go, `None` when plugins answer everything.
    pub upstream: Option<UpstreamChoice>,
}

/// One plugin of a route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginStep {
    /// Plugin name.
    pub name: Arc<str>,
    /// Who contributed it, for example `service/s1`.
    pub origin: Arc<str>,
    /// Higher runs first: `_meta.priority`, else the plugin's own.
    pub priority: i64,
    /// Switched off by `_meta.disable`.
    pub disabled: bool,
    /// The stronger resource whose configuration of the same plugin counts instead.
    pub hidden_by: Option<Arc<str>>,
}

/// The upstream of a route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpstreamChoice {
    /// Name of the upstream resource.
    pub name: Arc<str>,
    /// Why it is this one, in a few words.
    pub reason: String,
    /// Whether such an upstream exists; without it requests are answered with 503.
    pub exists: bool,
    /// Its listed addresses.
    pub endpoints: Vec<Endpoint>,
}

/// Tells where the parts of route `id` come from; `None` when there is no such route.
pub fn provenance(state: &State, catalog: &dyn Catalog, id: &str) -> Option<Provenance> {
    let key = Key::new(ResourceKind::Route, id);
    let stored = state.get(&key)?;
    let (units, auth) = (HashMap::new(), auth_plugins(catalog));
    let mut context = Context::new(state, &units, &auth);
    let active = !route::unit(&mut context, &key, stored).resources.is_empty();
    let mut merged = route::merged(&mut context, &key, stored);
    let step = |plugin: &PluginConf, hidden_by| step(catalog, plugin, hidden_by);
    let mut plugins: Vec<PluginStep> = merged.plugins.iter().map(|plugin| step(plugin, None)).collect();
    plugins.sort_by_key(|plugin| std::cmp::Reverse(plugin.priority));
    let stronger = |hidden: &PluginConf| merged.plugins.iter().find(|plugin| plugin.name == hidden.name);
    plugins.extend(merged.hidden.iter().map(|hidden| step(hidden, stronger(hidden).map(|plugin| plugin.origin.0.clone()))));
    let choice = merged.upstream.take().zip(merged.chosen.take());
    Some(Provenance {
        route_id: key.id.clone(),
        service_id: merged.service_id.clone(),
        active,
        plugins,
        upstream: choice.map(|(name, chosen)| upstream_choice(&mut context, &key, name, &chosen, &merged.owned)),
    })
}

fn step(catalog: &dyn Catalog, plugin: &PluginConf, hidden_by: Option<Arc<str>>) -> PluginStep {
    let meta = plugin.config.get("_meta");
    let own = || catalog.descriptor(&plugin.name).map_or(0, |descriptor| i64::from(descriptor.priority));
    PluginStep {
        name: plugin.name.clone(),
        origin: plugin.origin.0.clone(),
        priority: meta.and_then(|meta| meta.get("priority")?.as_i64()).unwrap_or_else(own),
        disabled: meta.and_then(|meta| meta.get("disable")?.as_bool()).unwrap_or(false),
        hidden_by,
    }
}

fn upstream_choice(
    context: &mut Context<'_>,
    route: &Key,
    name: Arc<str>,
    chosen: &Chosen,
    owned: &[Resource],
) -> UpstreamChoice {
    let shared = || {
        let (collection, id) = name.split_once('/')?;
        let key = Key::new(ResourceKind::from_plural(collection)?, id);
        let value = &context.state.get(&key)?.value;
        let inline = match key.kind {
            ResourceKind::Upstream => value,
            _ => value.get("upstream")?,
        };
        Some(upstream::translate(&mut Context::new(context.state, context.units, context.auth), &key, &name, &name, inline))
    };
    let reason = match chosen {
        Chosen::RouteInline => "written on the route".to_owned(),
        Chosen::RouteReference => "upstream_id of the route".to_owned(),
        Chosen::ServiceInline => "written on the service, the route has none".to_owned(),
        Chosen::ServiceReference => "upstream_id of the service, the route has none".to_owned(),
        Chosen::Missing(key) => format!("{key} does not exist, so {route} answers 503"),
    };
    let found = match chosen {
        Chosen::RouteInline => Some(owned.to_vec()),
        Chosen::Missing(_) => None,
        _ => shared(),
    };
    let endpoints = found.iter().flatten().find_map(|resource| match resource {
        Resource::Endpoints(endpoints) if endpoints.upstream == name => Some(endpoints.endpoints.clone()),
        _ => None,
    });
    UpstreamChoice { exists: endpoints.is_some(), endpoints: endpoints.unwrap_or_default(), name, reason }
}
