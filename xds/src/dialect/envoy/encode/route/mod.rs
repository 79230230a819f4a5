//! Routes: what is done with the requests that match, encoded once for each host, and what a snapshot says of all of them. It knows no other route.

pub(super) mod tries;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use heddle_proto::envoy::config::rbac::v3::Principal;
use heddle_proto::envoy::config::route::v3 as wire;
use prost_types::Any;
use wire::route::Action;
use wire::route_action::hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter};
use wire::route_action::{ClusterSpecifier, HashPolicy, HostRewriteSpecifier, UpgradeConfig};

use super::hosts::{Host, Order, Place, Retries};
use super::matching::Condition;
use super::plugins::{Extra, Filters, Metadata};
use super::wire::span;
use super::{Reader, bytes, matching, pattern, plugins, weights};
use crate::catalog::EDITORS;
use crate::model::{Balancer, Consumer, HashOn, Kind, PassHost, PluginConf, Resource, Route, Timeouts, Upstream};
use crate::snapshot::{NodeScope, SnapshotSource, Versioned, View};

/// Tries after the first where nobody said how many: our agents try each endpoint once, which Envoy does not count.
pub(super) const RETRIES: u32 = 4;

/// A route in all of its places, and the upstreams that it leads to.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) places: Vec<Place>,
    pub(super) upstreams: BTreeSet<Arc<str>>,
    /// What listeners have to know for it.
    pub(super) further: Filters,
    /// Where copies of its requests go.
    pub(super) copies: BTreeMap<Arc<str>, Extra>,
    /// Upstreams that filters ask.
    pub(super) asked: BTreeSet<Arc<str>>,
}

/// What becomes of requests, put together by the plugins of a route.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// For whom it is.
    pub(super) reader: Reader,
    /// Edits of header fields, and the like.
    pub(super) route: wire::Route,
    /// Where requests go.
    pub(super) action: wire::RouteAction,
    /// How long each step of a try may take, where there is an upstream.
    pub(super) timeouts: Option<Timeouts>,
    /// What is done before that with requests that match these conditions too.
    pub(super) before: Vec<Before>,
    /// Requests are answered.
    pub(super) answer: Option<Action>,
    /// Requests are answered before anything else is looked at.
    pub(super) aborted: bool,
    /// Filters, by name, with what they do here.
    pub(super) filters: BTreeMap<String, Any>,
    /// Filters whose configuration stands in the listener.
    pub(super) further: Filters,
    /// What is demanded of clients.
    pub(super) demands: Vec<Principal>,
    /// Who may be a client, each by a demand of its own, where it matters.
    pub(super) identified: BTreeMap<String, Principal>,
    /// Fields that clients may not say themselves.
    pub(super) disowned: BTreeSet<String>,
    /// All consumers there are.
    pub(super) consumers: Arc<[Consumer]>,
    /// What is said of plugins wherever they are used.
    pub(super) metadata: Arc<Metadata>,
    /// Bytes of a body that are held.
    pub(super) held: Option<u32>,
    /// Where copies go.
    pub(super) copies: BTreeMap<Arc<str>, Extra>,
    /// Upstreams that filters ask.
    pub(super) asked: BTreeSet<Arc<str>>,
    /// Shares of clusters; an entry without one is the route's own.
    pub(super) shares: Vec<(Option<Arc<str>>, u32)>,
}

/// A part of the requests of a route.
#[derive(Debug)]
pub(super) struct Before {
    /// Conditions, all of which must hold.
    pub(super) conditions: Vec<Condition>,
    /// What is done.
    pub(super) what: Instead,
}

/// What is done with a part of the requests.
#[derive(Debug)]
pub(super) enum Instead {
    /// An answer, or another URI.
    Answer(Box<Action>),
    /// Other shares.
    Shares(Vec<(Option<Arc<str>>, u32)>),
}

impl Draft {
    /// Adds the plugins of a route, and those that are for all.
    pub(super) fn plug(&mut self, route: &Route, everywhere: &[PluginConf]) -> Result<(), String> {
        let both = |plugin: &&PluginConf| plugins::has_effect(plugin) && route.plugins.iter().any(|own| own.name == plugin.name);
        if let Some(plugin) = everywhere.iter().find(both) {
            // Agents run both; one filter of Envoy's has one configuration.
            return Err(format!("plugin {} is that of a global rule and of the route at once", plugin.name));
        }
        for (plugin, whose) in in_turn(&route.plugins, everywhere) {
            plugins::apply(plugin, self).map_err(|reason| format!("plugin {}{whose}: {reason}", plugin.name))?;
        }
        plugins::finish(self)
    }
}

/// The plugins of a route and those that are for all, with words that tell the latter. Those that edit fields come last and in the order of our agents, which run
/// global rules first, then by priority: the last one decides what a field is set to. An answer of a plugin is made before any of them sees it.
fn in_turn<'p>(own: &'p [PluginConf], everywhere: &'p [PluginConf]) -> Vec<(&'p PluginConf, &'static str)> {
    let own = own.iter().map(|plugin| (true, plugin, ""));
    let mut plugins: Vec<_> = own.chain(everywhere.iter().map(|plugin| (false, plugin, " of a global rule"))).collect();
    plugins.sort_by_key(|(is_own, plugin, _)| {
        let priority = EDITORS.iter().find(|(name, _)| *name == &*plugin.name).map(|(_, priority)| *priority);
        priority.map(|priority| (*is_own, Reverse(priority)))
    });
    plugins.into_iter().map(|(_, plugin, whose)| (plugin, whose)).collect()
}

/// Encodes a route with what is said of all routes, or says what of it Envoy lacks.
pub(super) fn encode<'a>(
    (reader, route): (Reader, &Route),
    (everywhere, consumers, metadata): (&[PluginConf], &Arc<[Consumer]>, &Arc<Metadata>),
    find: &dyn Fn(&str) -> Option<&'a Upstream>,
) -> Result<Encoded, String> {
    let upstream = route.upstream.as_ref().and_then(|upstream| find(&upstream.name));
    let timeouts = upstream.map(|upstream| route.timeouts.unwrap_or(upstream.timeouts));
    let (consumers, metadata) = (consumers.clone(), metadata.clone());
    let mut draft = Draft { reader, action: action(route, upstream)?, timeouts, consumers, metadata, ..Draft::default() };
    draft.plug(route, everywhere)?;
    draft.asked.iter().try_for_each(|name| plugins::askable(name, find(name)))?;
    let own = route.upstream.as_ref().map(|upstream| upstream.name.clone());
    let mut upstreams: BTreeSet<Arc<str>> = own.iter().chain(&draft.asked).cloned().collect();
    let mut actions = Vec::new();
    for before in std::mem::take(&mut draft.before) {
        let action = match before.what {
            Instead::Answer(action) => *action,
            Instead::Shares(shares) => Action::Route(shared(&draft.action, &shares, own.as_ref(), &mut upstreams)?),
        };
        actions.push((before.conditions, action));
    }
    let last = match draft.answer.take() {
        Some(answer) => answer,
        None => Action::Route(shared(&draft.action, &draft.shares, own.as_ref(), &mut upstreams)?),
    };
    actions.push((Vec::new(), last));
    let places = places(route, &draft, &actions, |_| Ok(()))?;
    Ok(Encoded { places, upstreams, further: draft.further, copies: draft.copies, asked: draft.asked })
}

/// What stands in the place of a route that is withheld: an answer with this status, so that its requests do not go to a wider route, which may lack what
/// guards them. Nothing, where its conditions cannot be asked; hosts that Envoy cannot tell apart leave a gap at the others.
pub(super) fn gap(route: &Route, status: u32, check: impl Fn(&mut wire::RouteMatch) -> Result<(), String>) -> Vec<Place> {
    let answer = Action::DirectResponse(wire::DirectResponseAction { status, ..Default::default() });
    let mut known = route.clone();
    known.matches.hosts.retain(|host| Host::read(host).is_ok());
    if known.matches.hosts.is_empty() && !route.matches.hosts.is_empty() {
        return Vec::new();
    }
    places(&known, &Draft::default(), &[(Vec::new(), answer)], check).unwrap_or_default()
}

/// Every host and path of a route with each of its actions, as far as nothing stands against its conditions, which who reads them may bring into another form.
pub(super) fn places(
    route: &Route,
    draft: &Draft,
    actions: &[(Vec<Condition>, Action)],
    check: impl Fn(&mut wire::RouteMatch) -> Result<(), String>,
) -> Result<Vec<Place>, String> {
    let hosts: Vec<Host> = route.matches.hosts.iter().map(|host| Host::read(host)).collect::<Result<_, _>>()?;
    let hosts = if hosts.is_empty() { vec![Host::Any] } else { hosts };
    let mut places = Vec::new();
    for uri in &route.matches.uris {
        let (path, rank) = pattern::read(uri);
        for (part, (conditions, action)) in actions.iter().enumerate() {
            let mut matches = matching::encode(route, &path)?;
            for condition in conditions {
                condition.add(&mut matches)?;
            }
            check(&mut matches)?;
            let encoded = wire::Route {
                name: route.id.to_string(),
                r#match: Some(matches),
                action: Some(action.clone()),
                typed_per_filter_config: draft.filters.clone(),
                ..draft.route.clone()
            };
            let (body, retries) = (bytes(&encoded), retries(&encoded));
            for host in &hosts {
                let order = Order {
                    rank,
                    priority: Reverse(route.priority),
                    length: Reverse(uri.len()),
                    created: route.created,
                    id: route.id.clone(),
                    part,
                };
                places.push(Place { host: host.clone(), order, body: body.clone(), retries: retries.clone() });
            }
        }
    }
    Ok(places)
}

/// What a route says of further tries, apart from the rest of it.
pub(super) fn retries(route: &wire::Route) -> Retries {
    let Some(Action::Route(action)) = &route.action else { return Retries::Any };
    let Some(policy) = &action.retry_policy else { return Retries::Unsaid };
    let action = Action::Route(wire::RouteAction { retry_policy: None, ..action.clone() });
    Retries::Said { policy: bytes(policy), rest: bytes(&wire::Route { action: Some(action), ..route.clone() }) }
}

/// How requests go to the upstream of a route.
fn action(route: &Route, upstream: Option<&Upstream>) -> Result<wire::RouteAction, String> {
    let websocket = UpgradeConfig { upgrade_type: "websocket".to_owned(), enabled: Some(true), ..Default::default() };
    let mut action = wire::RouteAction {
        // The whole answer may take as long as it likes, as long as something comes.
        timeout: span(Duration::ZERO),
        upgrade_configs: if route.enable_websocket { vec![websocket] } else { Vec::new() },
        ..Default::default()
    };
    let Some(upstream) = upstream else { return Ok(action) };
    let timeouts = route.timeouts.unwrap_or(upstream.timeouts);
    tries::of_unseen(upstream.retries.unwrap_or(RETRIES), timeouts, &mut action);
    action.host_rewrite_specifier = match &upstream.pass_host {
        PassHost::Pass => None,
        PassHost::Node => Some(HostRewriteSpecifier::AutoHostRewrite(true)),
        PassHost::Rewrite(host) => Some(HostRewriteSpecifier::HostRewriteLiteral(host.to_string())),
    };
    if let Balancer::ConsistentHash(on, _) = &upstream.balancer {
        let client = PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true });
        // Who brings no key is known by the address.
        let policies = [(hashed(on)?, true), (client, false)];
        let policy = |(specifier, terminal)| HashPolicy { policy_specifier: Some(specifier), terminal };
        action.hash_policy = policies.into_iter().map(policy).collect();
    }
    Ok(action)
}

/// What the endpoint is chosen by.
fn hashed(on: &HashOn) -> Result<PolicySpecifier, String> {
    let header = |name: String| PolicySpecifier::Header(Header { header_name: name, ..Default::default() });
    let cookie = |name: &str| PolicySpecifier::Cookie(Cookie { name: name.to_owned(), ..Default::default() });
    let unnamed = match on {
        HashOn::Header(name) | HashOn::Cookie(name) => name.is_empty(),
        HashOn::Var(name) => matches!(&**name, "arg_" | "http_" | "cookie_"),
        _ => false,
    };
    if unnamed {
        return Err("balancer: Envoy hashes nothing without a name".to_owned());
    }
    match on {
        HashOn::Header(name) => Ok(header(name.to_ascii_lowercase())),
        HashOn::Cookie(name) => Ok(cookie(name)),
        HashOn::Var(name) => match &**name {
            "remote_addr" => Ok(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })),
            "request_uri" => Ok(header(":path".to_owned())),
            "host" => Ok(header(":authority".to_owned())),
            name => match (name.strip_prefix("arg_"), name.strip_prefix("http_"), name.strip_prefix("cookie_")) {
                (Some(name), ..) => Ok(PolicySpecifier::QueryParameter(QueryParameter { name: name.to_owned() })),
                (_, Some(name), _) => Ok(header(name.replace('_', "-"))),
                (.., Some(name)) => Ok(cookie(name)),
                _ => Err(format!("balancer: Envoy hashes no variable `{name}`")),
            },
        },
        HashOn::Consumer => Err("balancer: Envoy knows no consumers to hash".to_owned()),
        HashOn::VarsCombination(_) => Err("balancer: Envoy hashes no combination of variables".to_owned()),
    }
}

/// The action with its cluster, or with several by weight.
pub(super) fn shared(
    action: &wire::RouteAction,
    shares: &[(Option<Arc<str>>, u32)],
    own: Option<&Arc<str>>,
    upstreams: &mut BTreeSet<Arc<str>>,
) -> Result<wire::RouteAction, String> {
    let none = || "has no upstream, and Envoy lacks what answers".to_owned();
    let named = |share: &Option<Arc<str>>| share.as_ref().or(own).cloned().ok_or_else(none);
    let specifier = match shares.iter().filter(|(_, weight)| *weight > 0).collect::<Vec<_>>()[..] {
        [] => ClusterSpecifier::Cluster(own.ok_or_else(none)?.to_string()),
        [(name, _)] => {
            let name = named(name)?;
            upstreams.insert(name.clone());
            ClusterSpecifier::Cluster(name.to_string())
        }
        ref several => {
            let mut clusters = Vec::new();
            for (name, weight) in several {
                let name = named(name)?;
                upstreams.insert(name.clone());
                clusters.push(wire::weighted_cluster::ClusterWeight {
                    name: name.to_string(),
                    weight: Some(*weight),
                    ..Default::default()
                });
            }
            weights::fit(&mut clusters.iter_mut().filter_map(|cluster| cluster.weight.as_mut()).collect::<Vec<_>>());
            ClusterSpecifier::WeightedClusters(wire::WeightedCluster { clusters, ..Default::default() })
        }
    };
    Ok(wire::RouteAction { cluster_specifier: Some(specifier), ..action.clone() })
}

/// Plugins of every route. Of one that several rules have, that of the rule with the lowest id counts, as at our agents.
pub(super) fn everywhere(view: &View) -> Vec<PluginConf> {
    let found = view.list(Kind::GlobalRule, &NodeScope::default());
    let rule = |found: &'_ Arc<Versioned>| match &found.resource {
        Resource::GlobalRule(rule) => Some(rule.clone()),
        _ => None,
    };
    let mut rules: Vec<_> = found.iter().filter_map(rule).collect();
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    let mut plugins: Vec<PluginConf> = Vec::new();
    for plugin in rules.into_iter().flat_map(|rule| rule.plugins) {
        if plugins.iter().all(|other| other.name != plugin.name) {
            plugins.push(plugin);
        }
    }
    plugins
}

/// All consumers.
pub(super) fn consumers(view: &View) -> Arc<[Consumer]> {
    let consumer = |found: &Arc<Versioned>| match &found.resource {
        Resource::Consumer(consumer) => Some(consumer.clone()),
        _ => None,
    };
    view.list(Kind::Consumer, &NodeScope::default()).iter().filter_map(consumer).collect()
}

/// What is said of plugins wherever they are used.
pub(super) fn metadata(view: &View) -> Arc<Metadata> {
    let metadata = |found: &Arc<Versioned>| match &found.resource {
        Resource::PluginMetadata(metadata) => Some((metadata.plugin.clone(), metadata.config.clone())),
        _ => None,
    };
    Arc::new(view.list(Kind::PluginMetadata, &NodeScope::default()).iter().filter_map(metadata).collect())
}

/// The routes on which one of these plugins runs.
pub(super) fn using(view: &View, plugins: &BTreeSet<Arc<str>>) -> Vec<Arc<str>> {
    let uses = |own: &[PluginConf]| own.iter().any(|plugin| plugins.contains(&plugin.name));
    let all = uses(&everywhere(view));
    let (_, routes) = view.all(Kind::Route);
    let used = |found: &Versioned| matches!(&found.resource, Resource::Route(route) if all || uses(&route.plugins));
    routes.iter().filter(|(_, found)| used(found)).map(|(name, _)| name.clone()).collect()
}
