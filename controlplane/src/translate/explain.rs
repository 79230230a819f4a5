//! Where the parts of a route come from, for people: plugins in their order with their origin, the upstream and why. What matches a request is the agent's to say.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use heddle_xds::catalog::Catalog;
use heddle_xds::model::{Endpoint, PluginConf, Resource};
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::route::{self, Chosen, Merged};
use super::{auth_plugins, consumer, plugins, read, upstream};
use crate::mesh::Directory;
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
    /// Plugins in the order in which they run within a phase: those of global rules, then those of the route and of the consumer; hidden ones at the
    /// end.
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
    /// Its configuration, secrets included.
    pub config: Arc<Value>,
    /// `_meta.filter`: it runs only for requests for which this holds.
    pub condition: Option<Value>,
    /// Only once the consumer is known: it brings this plugin, or hides it.
    pub after_authentication: bool,
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

impl PluginStep {
    /// Whether it runs at all.
    pub fn runs(&self) -> bool {
        !self.disabled && self.hidden_by.is_none()
    }
}

/// Tells where the parts of route `id` come from, for requests of `consumer` where one is named; `None` when there is no such route.
///
/// # Errors
/// The consumer does not exist, or is not on the data plane.
pub fn provenance(state: &State, catalog: &dyn Catalog, id: &str, consumer: Option<&str>) -> Result<Option<Provenance>, String> {
    let key = Key::new(ResourceKind::Route, id);
    let (units, auth) = (HashMap::new(), auth_plugins(catalog));
    let directory = Directory::default();
    let mut context = Context::new(state, &directory, &units, &auth);
    let brought = consumer.map(|name| brought(&mut context, name)).transpose()?;
    let Some(stored) = state.get(&key) else { return Ok(None) };
    let active = !route::unit(&mut context, &key, stored).resources.is_empty();
    let mut merged = route::merged(&mut context, &key, stored);
    let plugins = chain(&mut context, catalog, &merged, &brought.unwrap_or_default());
    let choice = merged.upstream.take().zip(merged.chosen.take());
    Ok(Some(Provenance {
        route_id: key.id.clone(),
        service_id: merged.service_id.clone(),
        active,
        plugins,
        upstream: choice.map(|(name, chosen)| upstream_choice(&mut context, &key, name, &chosen, &merged.owned)),
    }))
}

/// The plugins of global rules as they run where no route matches, in the order of [`Provenance::plugins`].
pub fn everywhere(state: &State, catalog: &dyn Catalog) -> Vec<PluginStep> {
    let (units, auth) = (HashMap::new(), auth_plugins(catalog));
    let directory = Directory::default();
    let (mut running, mut hidden) = (Vec::new(), Vec::new());
    global(&mut Context::new(state, &directory, &units, &auth), catalog, &[], &mut running, &mut hidden);
    running.append(&mut hidden);
    running
}

/// What a consumer brings: plugins that apply, and those of its group that its own ones hide.
#[derive(Default)]
struct Brought {
    plugins: Vec<PluginConf>,
    hidden: Vec<PluginConf>,
}

fn brought(context: &mut Context<'_>, name: &str) -> Result<Brought, String> {
    let of_name = |id: &Arc<str>| **id == *name || Key::new(ResourceKind::Consumer, id.clone()).local_id() == name;
    let found = context.state.list(ResourceKind::Consumer).find(|(id, _)| of_name(id));
    let (id, stored) =
        found.ok_or_else(|| format!("there is no consumer `{name}`; `heddle get consumers` lists those that exist"))?;
    let key = Key::new(ResourceKind::Consumer, id.clone());
    let unit = consumer::unit(context, &key, stored, &[]);
    let plugins = unit.resources.into_iter().find_map(|resource| match resource {
        Resource::Consumer(consumer) => Some(consumer.plugins),
        _ => None,
    });
    let plugins = plugins.ok_or_else(|| format!("{key} is not on the data plane: its consumer group does not exist"))?;
    let group = read::reference(&stored.value, "group_id").and_then(|id| context.read(ResourceKind::ConsumerGroup, &id, &key));
    let shared = group.map(|(key, stored)| context.plugins_of(&key, stored)).unwrap_or_default();
    let is_hidden = |one: &&PluginConf| plugins.iter().any(|own| own.name == one.name && own.origin != one.origin);
    Ok(Brought { hidden: shared.iter().filter(is_hidden).cloned().collect(), plugins })
}

/// All plugins that meet at a route, as [`Provenance::plugins`] has them; the agent's chains follow the same rules.
fn chain(context: &mut Context<'_>, catalog: &dyn Catalog, route: &Merged, consumer: &Brought) -> Vec<PluginStep> {
    let by = |others: &[PluginConf], name: &str| {
        let stronger = others.iter().find(|other| *other.name == *name);
        stronger.map(|stronger| stronger.origin.0.clone())
    };
    let own: Vec<PluginStep> = route.plugins.iter().map(|plugin| step(catalog, plugin, None)).collect();
    let (mut running, mut hidden) = (Vec::new(), Vec::new());
    global(context, catalog, &own, &mut running, &mut hidden);
    let mut rest = Vec::new();
    for step in own {
        match by(&consumer.plugins, &step.name) {
            Some(origin) => hidden.push(PluginStep { after_authentication: true, hidden_by: Some(origin), ..step }),
            None => rest.push(step),
        }
    }
    let late = |step| PluginStep { after_authentication: true, ..step };
    rest.extend(consumer.plugins.iter().map(|plugin| late(step(catalog, plugin, None))));
    running.extend(in_order(rest));
    hidden.extend(route.hidden.iter().map(|plugin| step(catalog, plugin, by(&route.plugins, &plugin.name))));
    hidden.extend(consumer.hidden.iter().map(|plugin| late(step(catalog, plugin, by(&consumer.plugins, &plugin.name)))));
    running.append(&mut hidden);
    running
}

/// The plugins of all global rules. Of a plugin that occurs twice only the one of the rule with the lower id counts, and one that leaves the place to
/// the route's own is hidden where the route has it enabled.
fn global(
    context: &mut Context<'_>,
    catalog: &dyn Catalog,
    own: &[PluginStep],
    running: &mut Vec<PluginStep>,
    hidden: &mut Vec<PluginStep>,
) {
    let state = context.state;
    let mut seen: Vec<PluginStep> = Vec::new();
    for (id, stored) in state.list(ResourceKind::GlobalRule) {
        for plugin in plugins::of(context, &Key::new(ResourceKind::GlobalRule, id.clone()), &stored.value).0 {
            match seen.iter().find(|first| first.name == plugin.name) {
                Some(first) => hidden.push(step(catalog, &plugin, Some(first.origin.clone()))),
                None => seen.push(step(catalog, &plugin, None)),
            }
        }
    }
    let yields = |name: &str| catalog.descriptor(name).is_some_and(|descriptor| descriptor.prefer_route);
    let mut rest = Vec::new();
    for step in seen {
        match own.iter().find(|own| own.name == step.name && !own.disabled && yields(&own.name)) {
            Some(stronger) => hidden.push(PluginStep { hidden_by: Some(stronger.origin.clone()), ..step }),
            None => rest.push(step),
        }
    }
    running.extend(in_order(rest));
}

/// By descending priority; names settle what priorities leave open.
fn in_order(mut steps: Vec<PluginStep>) -> Vec<PluginStep> {
    steps.sort_by(|a, b| (Reverse(a.priority), &a.name).cmp(&(Reverse(b.priority), &b.name)));
    steps
}

fn step(catalog: &dyn Catalog, plugin: &PluginConf, hidden_by: Option<Arc<str>>) -> PluginStep {
    let meta = plugin.config.get("_meta");
    let own = || catalog.descriptor(&plugin.name).map_or(0, |descriptor| i64::from(descriptor.priority));
    let always = |filter: &&Value| filter.is_null() || filter.as_array().is_some_and(Vec::is_empty);
    PluginStep {
        name: plugin.name.clone(),
        origin: plugin.origin.0.clone(),
        priority: meta.and_then(|meta| meta.get("priority")?.as_i64()).unwrap_or_else(own),
        config: plugin.config.clone(),
        condition: meta.and_then(|meta| meta.get("filter")).filter(|filter| !always(filter)).cloned(),
        after_authentication: false,
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
        Some(upstream::translate(
            &mut Context::new(context.state, context.directory, context.units, context.auth),
            &key,
            &name,
            &name,
            inline,
        ))
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
        Resource::Endpoints(endpoints) if endpoints.upstream == name => Some(endpoints.endpoints.to_vec()),
        _ => None,
    });
    UpstreamChoice { exists: endpoints.is_some(), endpoints: endpoints.unwrap_or_default(), name, reason }
}
