//! Answers `heddle explain`: the control plane's own translation, matched by the agent's own route table. Only the binary sees both.

mod places;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use heddle_agent::exchange::imagined::{EmptyDirectory, Imagined};
use heddle_agent::exchange::path;
use heddle_agent::route::{CompiledRoute, RouteTable, Why};
use heddle_controlplane::grpc::{ExplainedPlugin, ExplainedUpstream, Explainer, Explanation, Question};
use heddle_controlplane::mesh::Directory;
use heddle_controlplane::state::State;
use heddle_controlplane::translate::{PluginStep, Translator, everywhere, provenance};
use heddle_node::clock;
use heddle_xds::catalog::{Catalog, PluginKind};
use heddle_xds::model::{PathPolicy, Resource, Route, Upstream};

/// Explains with the plugins of this catalog.
pub struct Explain {
    catalog: Arc<dyn Catalog>,
}

impl Explain {
    /// Explains with the plugins of this catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Explain {
        Explain { catalog }
    }
}

impl Explainer for Explain {
    fn explain(&self, state: &State, directory: &Directory, question: &Question) -> Result<Explanation, String> {
        let (authority, target) = split(question)?;
        let mut translator = Translator::new(self.catalog.clone());
        translator.rebuild(state, directory);
        let table = RouteTable::build(translator.resources().filter_map(compile).collect());
        let fields: Vec<(&str, &str)> = question.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let remote = SocketAddr::new(question.remote, 0);
        let imagined =
            Imagined { method: &question.method, authority: &authority, target: &target, fields: &fields, remote, local: remote };
        let x = imagined.exchange(clock::now(), clock::unix_ms(), Rc::new(EmptyDirectory));
        let verdicts = table.explain(&x, question.max_reasons.saturating_add(1));
        let taken = verdicts.first().filter(|verdict| verdict.why == Why::Taken).map(|verdict| verdict.route.id.clone());
        let others: Vec<(Arc<str>, String)> = verdicts
            .iter()
            .filter(|verdict| verdict.why != Why::Taken)
            .map(|verdict| (verdict.route.id.clone(), verdict.why.to_string()))
            .take(question.max_reasons)
            .collect();
        let known = table.len() - usize::from(taken.is_some());
        let explanation = Explanation { left_out: known.saturating_sub(others.len()) as u64, others, ..Explanation::default() };
        match taken {
            Some(id) => self.chosen(state, &translator, &id, question, explanation),
            None => {
                let why = format!("none of {} routes takes it: it would be answered with 404", table.len());
                Ok(with_plugins(everywhere(state, &*self.catalog), Explanation { why, ..explanation }))
            }
        }
    }
}

impl Explain {
    fn chosen(
        &self,
        state: &State,
        translator: &Translator,
        id: &Arc<str>,
        question: &Question,
        explanation: Explanation,
    ) -> Result<Explanation, String> {
        let route = translator.resources().find_map(|resource| match resource {
            Resource::Route(route) if route.id == *id => Some(route),
            _ => None,
        });
        let consumer = question.consumer.as_deref();
        let provenance = provenance(state, &*self.catalog, id, consumer)?;
        let upstream =
            route.and_then(|route| route.upstream.as_ref()).and_then(|reference| explain_upstream(translator, &reference.name));
        let reason = provenance
            .as_ref()
            .and_then(|provenance| provenance.upstream.as_ref())
            .map(|choice| format!("; upstream: {}", choice.reason));
        let pattern = route.map(|route| route.matches.uris.join(", ")).unwrap_or_default();
        let why = format!("its path {pattern} is the closest match whose conditions hold{}", reason.unwrap_or_default());
        let steps = provenance.map(|provenance| provenance.plugins).unwrap_or_default();
        let explanation = Explanation { route: Some(id.clone()), why, upstream, ..explanation };
        let mut explanation = with_plugins(steps, explanation);
        explanation.notes.extend(self.note(&explanation.plugins, consumer));
        explanation
            .notes
            .extend(explanation.upstream.iter().flat_map(|upstream| places::notes(translator, state, &upstream.name)));
        Ok(explanation)
    }

    /// What is left open by naming no consumer, or in vain by naming one.
    fn note(&self, running: &[ExplainedPlugin], consumer: Option<&str>) -> Option<String> {
        let identifies = |plugin: &ExplainedPlugin| {
            self.catalog.descriptor(&plugin.name).is_some_and(|descriptor| descriptor.kind == PluginKind::Auth)
        };
        match (consumer, running.iter().any(identifies)) {
            (None, true) => {
                Some("consumers may bring more plugins and hide some of these: `--consumer NAME` shows the chain of one".into())
            }
            (Some(name), false) => {
                Some(format!("no plugin here identifies consumers: {name} would not be known, and what it brings would not run"))
            }
            _ => None,
        }
    }
}

fn with_plugins(steps: Vec<PluginStep>, explanation: Explanation) -> Explanation {
    let (running, silent): (Vec<PluginStep>, Vec<PluginStep>) = steps.into_iter().partition(PluginStep::runs);
    let told = |steps: Vec<PluginStep>| steps.into_iter().map(explained).collect();
    Explanation { plugins: told(running), silent: told(silent), ..explanation }
}

fn explained(step: PluginStep) -> ExplainedPlugin {
    ExplainedPlugin {
        config: Arc::unwrap_or_clone(step.config),
        name: step.name,
        origin: step.origin,
        priority: step.priority,
        condition: step.condition,
        after_authentication: step.after_authentication,
        disabled: step.disabled,
        hidden_by: step.hidden_by,
    }
}

/// Authority and normalised target of the question's URL.
fn split(question: &Question) -> Result<(String, String), String> {
    let host = question.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.clone());
    let (authority, target) = match question.url.split_once("://") {
        Some((_, rest)) => {
            let (authority, path) =
                rest.split_once('/').map_or((rest, String::new()), |(authority, path)| (authority, path.to_owned()));
            (authority.to_owned(), format!("/{path}"))
        }
        None => ("localhost".to_owned(), question.url.clone()),
    };
    if !target.starts_with('/') {
        return Err(format!("expected `http://host/path` or `/path`, found `{}`", question.url));
    }
    let (raw, query) = target.split_once('?').map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
    let normal = path::normalise(raw, &PathPolicy::default())
        .map_err(|reason| format!("the path `{raw}` would be refused with {} ({})", reason.status(), reason.flag()))?
        .unwrap_or_else(|| raw.to_owned());
    let target = query.map_or(normal.clone(), |query| format!("{normal}?{query}"));
    Ok((host.unwrap_or(authority).to_ascii_lowercase(), target))
}

fn compile(resource: &Resource) -> Option<Arc<CompiledRoute<()>>> {
    let Resource::Route(route) = resource else { return None };
    compiled(route)
}

fn compiled(route: &Route) -> Option<Arc<CompiledRoute<()>>> {
    CompiledRoute::compile(route, ()).ok().map(Arc::new)
}

fn explain_upstream(translator: &Translator, name: &str) -> Option<ExplainedUpstream> {
    let mut found = ExplainedUpstream { name: name.into(), ..ExplainedUpstream::default() };
    let mut exists = false;
    for resource in translator.resources() {
        match resource {
            Resource::Upstream(upstream) if &*upstream.name == name => {
                exists = true;
                (found.balancer, found.scheme) = (balancer(upstream), format!("{:?}", upstream.scheme).to_ascii_lowercase());
            }
            Resource::Endpoints(endpoints) if &*endpoints.upstream == name => {
                found.endpoints = endpoints
                    .endpoints
                    .iter()
                    .map(|one| (format!("{}:{}", one.host, one.port), one.weight, one.priority))
                    .collect();
            }
            _ => {}
        }
    }
    exists.then_some(found)
}

fn balancer(upstream: &Upstream) -> String {
    use heddle_xds::model::{Balancer, HashTable};
    match upstream.balancer {
        Balancer::RoundRobin => "roundrobin".into(),
        Balancer::ConsistentHash(_, HashTable::Ring(_)) => "chash".into(),
        Balancer::ConsistentHash(_, HashTable::Maglev { .. }) => "maglev".into(),
        Balancer::LeastConn => "least_conn".into(),
        Balancer::Ewma => "ewma".into(),
    }
}
