//! From plugin configurations of the model to chains, and from chains to merged chains. It runs nothing.

use std::cmp::Reverse;
use std::sync::Arc;

use heddle_xds::catalog::{ConfigFault, PluginKind};
use heddle_xds::model::{GlobalRule, PluginConf};
use serde_json::Value;

use super::super::keep::{Layer, Source};
use super::super::{BuildContext, Filter, Keep, Meta, Phases, Plugin, registry};
use super::Chain;
use super::step::{ErrorBody, Step};
use crate::exchange::content;
use crate::outbound::Outbound;
use crate::secrets::References;
use crate::secrets::reference::{self, is_reference};

/// What compiling needs besides the configurations.
pub struct Parts<'a> {
    /// `plugin_metadata/<name>` by plugin name.
    pub metadata: &'a dyn Fn(&str) -> Option<&'a Value>,
    /// Run-time state that outlives a change of tables.
    pub keep: &'a Keep,
    /// Other services that must be asked over HTTP.
    pub outbound: &'a Outbound,
    /// What references to secrets stand for.
    pub references: &'a References,
}

impl Chain {
    /// Compiles the plugins of a route. One bad configuration fails the whole, because running without, say, an authentication
    /// plugin would open what was closed.
    ///
    /// # Errors
    /// All faults, with paths such as `plugins.cors.max_age`.
    pub fn compile(plugins: &[PluginConf], parts: &Parts<'_>) -> Result<Chain, Vec<ConfigFault>> {
        Self::compile_of(Layer::Route, plugins, parts)
    }

    /// Compiles the plugins of a consumer.
    ///
    /// # Errors
    /// As [`Chain::compile`].
    pub fn of_consumer(plugins: &[PluginConf], parts: &Parts<'_>) -> Result<Chain, Vec<ConfigFault>> {
        Self::compile_of(Layer::Consumer, plugins, parts)
    }

    fn compile_of(layer: Layer, plugins: &[PluginConf], parts: &Parts<'_>) -> Result<Chain, Vec<ConfigFault>> {
        let mut steps = Vec::with_capacity(plugins.len());
        let mut off = Vec::new();
        let mut faults = Vec::new();
        for plugin in plugins {
            match step(layer, plugin, parts) {
                Ok(Some(step)) => steps.push(Arc::new(step)),
                Ok(None) => off.push(plugin.name.clone()),
                Err(found) => faults.extend(found.into_iter().map(|fault| under_plugin(&plugin.name, fault))),
            }
        }
        if faults.is_empty() { Ok(Chain::of_steps(steps, off, &[])) } else { Err(faults) }
    }

    /// Fuses the plugins of all global rules into one chain. Of a plugin that occurs twice only the one of the rule with the lower id is used; the
    /// other is told as a fault beside the chain.
    ///
    /// # Errors
    /// All faults of the configurations, as [`Chain::compile`].
    pub fn fuse(rules: &[&GlobalRule], parts: &Parts<'_>) -> Result<(Chain, Vec<ConfigFault>), Vec<ConfigFault>> {
        let mut rules = rules.to_vec();
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        let mut plugins: Vec<PluginConf> = Vec::new();
        let mut doubles = Vec::new();
        for plugin in rules.iter().flat_map(|rule| &rule.plugins) {
            match plugins.iter().find(|other| other.name == plugin.name) {
                None => plugins.push(plugin.clone()),
                Some(first) => {
                    let message = format!("enabled by {} already; the one of {} is not used", first.origin.0, plugin.origin.0);
                    doubles.push(under_plugin(&plugin.name, ConfigFault { path: String::new(), message }));
                }
            }
        }
        Ok((Chain::compile_of(Layer::Global, &plugins, parts)?, doubles))
    }

    /// This route's chain once a consumer is known: the consumer's plugins replace those of the same name, and one that the consumer has
    /// switched off is off. Run [`Chain::rewrite_added`] of the result, then its later phases.
    #[must_use]
    pub fn with_consumer(&self, consumer: &Chain) -> Chain {
        let replaced = |step: &&Arc<Step>| !consumer.has_plugin(&step.name) && !consumer.off.contains(&step.name);
        let steps = self.steps.iter().filter(replaced).chain(&consumer.steps).cloned().collect();
        Chain::of_steps(steps, self.off.clone(), &consumer.steps)
    }

    /// This global chain for the requests of a route: plugins that leave the place to the route's own (`prometheus`) are left out where the
    /// route has them enabled. The same chain comes back when nothing changes.
    #[must_use]
    pub fn yielding_to(self: &Arc<Chain>, route: &Chain) -> Arc<Chain> {
        let yields = |step: &Arc<Step>| step.prefer_route && route.has_plugin(&step.name);
        if !self.steps.iter().any(yields) {
            return self.clone();
        }
        let steps = self.steps.iter().filter(|step| !yields(step)).cloned().collect();
        Arc::new(Chain::of_steps(steps, self.off.clone(), &[]))
    }

    pub(super) fn of_steps(mut steps: Vec<Arc<Step>>, off: Vec<Arc<str>>, added: &[Arc<Step>]) -> Chain {
        // Names settle what priorities leave open, so that the order never depends on the order in a map.
        steps.sort_by(|a, b| (Reverse(a.priority), &a.name).cmp(&(Reverse(b.priority), &b.name)));
        let of = |phase: Phases| steps.iter().filter(|step| step.filter.phases().has(phase)).cloned().collect::<Box<[_]>>();
        let phases = Phases::ALL.map(of);
        let is_added = |step: &&Arc<Step>| !step.auth && added.iter().any(|other| Arc::ptr_eq(other, step));
        let added = phases[Phases::REWRITE.number()].iter().filter(is_added);
        let wants_content = steps.iter().any(|step| step.wants_content);
        Chain { added: added.cloned().collect(), phases, off, steps, wants_content }
    }
}

/// The step of one configuration, `None` when it is switched off.
fn step(layer: Layer, plugin: &PluginConf, parts: &Parts<'_>) -> Result<Option<Step>, Vec<ConfigFault>> {
    let known = registry::find(&plugin.name).ok_or_else(|| vec![registry::unknown(&plugin.name)])?;
    let meta = Meta::of(&plugin.config)?;
    if meta.disable {
        return Ok(None);
    }
    let (filter, own) = filter(layer, known, plugin, parts)?;
    Ok(Some(Step {
        name: plugin.name.clone(),
        priority: meta.priority.unwrap_or(known.descriptor.priority),
        origin: plugin.origin.clone(),
        filter,
        own,
        condition: meta.condition(),
        error_body: meta.error_response.as_ref().map(ErrorBody::new),
        prefer_route: known.descriptor.prefer_route,
        auth: known.descriptor.kind == PluginKind::Auth,
        wants_content: content::is_mentioned(&plugin.config),
    }))
}

/// The filter of one configuration: the one that serves other places with an equal one, or one that is compiled now; and whether it is for this place alone.
fn filter(
    layer: Layer,
    known: &Plugin,
    plugin: &PluginConf,
    parts: &Parts<'_>,
) -> Result<(Arc<dyn Filter>, bool), Vec<ConfigFault>> {
    let (config, metadata) = (parts.references.resolved(&plugin.config).0, (parts.metadata)(&plugin.name));
    let source = Source::of(layer, &plugin.name, &config, metadata);
    if let Some(filter) = source.as_ref().and_then(|source| parts.keep.filter(source)) {
        return Ok((filter, false));
    }
    let context = BuildContext::new(&plugin.origin.0, metadata, parts.keep, parts.outbound);
    let filter = (known.build)(&config, &context)
        .map_err(|faults| faults.into_iter().map(|fault| silenced(fault, &plugin.config, &config)).collect::<Vec<_>>())?;
    let Some(source) = source.filter(|_| !context.is_own()) else { return Ok((filter, true)) };
    parts.keep.share(source, &filter);
    Ok((filter, false))
}

/// The fault without what references stand for, since faults are logged and shown: `written` has the references, `read` what they stand for.
fn silenced(fault: ConfigFault, written: &Value, read: &Value) -> ConfigFault {
    let mut told = reference::at(written, &fault.path).filter(|text| is_reference(text));
    reference::beside(written, read, &mut |text, secret| {
        let quoted = format!("{secret:?}");
        let shown = !secret.is_empty() && (fault.message.contains(secret) || fault.message.contains(quoted.trim_matches('"')));
        told = told.or(shown.then_some(text));
    });
    match told {
        Some(text) => ConfigFault { message: format!("what {text} stands for is not known, or not valid here"), ..fault },
        None => fault,
    }
}

fn under_plugin(name: &str, fault: ConfigFault) -> ConfigFault {
    let path = if fault.path.is_empty() { format!("plugins.{name}") } else { format!("plugins.{name}.{}", fault.path) };
    ConfigFault { path, ..fault }
}
