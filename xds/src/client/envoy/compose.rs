//! From pieces of Envoy's configuration to resources of our model. It knows no stream and no time.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::clusters::{Uses, Variant};
use super::hosts::{self, has_port, is_open, names_of};
use super::order;
use super::parts::but;
use crate::dialect::envoy::decode::DecodeFault as Fault;
use crate::dialect::envoy::decode::piece::{
    Chain, Deed, Does, Door, Extension, Http, Mirror, Override, Path, Route, RouteTable, Routes, Target, TcpProxy, VirtualHost,
};
use crate::dialect::envoy::decode::{AUTHORITY, all_tries_within, answer, escaped, is_shared};
use crate::model::{self, HashOn, PluginConf, PluginOrigin, Resource, RouteMatch, TcpRoute, TcpShare, Timeouts, UpstreamRef};

/// Clusters that one route shares requests out to.
const MAX_TARGETS: usize = 20;
/// Longest time that a copy of a request may take.
const LONGEST_COPY: Duration = Duration::from_secs(3600);
/// Copies under way at once; as many requests a cluster takes in Envoy where nothing is said.
const COPIES: u32 = 1024;

/// What a listener names, where it is there.
pub(super) struct Shelf<'a> {
    /// Routes of a table.
    pub(super) table: &'a dyn Fn(&str) -> Option<Arc<RouteTable>>,
    /// What a filter does.
    pub(super) extension: &'a dyn Fn(&str) -> Option<Arc<Extension>>,
    /// How long a connection to a cluster may take.
    pub(super) connect: &'a dyn Fn(&str) -> Option<Duration>,
}

/// What a listener is here: itself, its certificates and key material, and its routes.
///
/// # Errors
/// Filters that cannot stand beside each other.
pub(super) fn listener(door: &Door, shelf: &Shelf<'_>) -> Result<(Vec<Resource>, Uses), Fault> {
    let mut resources: Vec<Resource> = door.secrets.iter().cloned().map(Resource::Secret).collect();
    let mut made = Made::default();
    let mut own = door.listener.clone();
    for (number, chain) in door.chains.iter().enumerate() {
        resources.extend(chain.certificate.clone().map(Resource::Certificate));
        let http = match &chain.does {
            Does::Http(http) => http,
            Does::Tcp(proxy) => {
                own.tcp.push(Arc::new(tcp_route(chain, proxy, &mut made.uses)));
                continue;
            }
        };
        let table = match &http.routes {
            Routes::Told(table) => Some(table.clone()),
            Routes::Asked(name, _) => (shelf.table)(name),
        };
        let Some(table) = table else { continue };
        let conditions = chain_conditions(door, chain);
        let place =
            if door.chains.len() > 1 { format!("{}/{number}", door.listener.name) } else { door.listener.name.to_string() };
        let place = Place::new(&door.listener.name, place, http, conditions, shelf)?;
        resources.extend(place.routes(&table, &mut made)?.into_iter().map(Resource::Route));
    }
    resources.push(Resource::Listener(own));
    Ok((resources, made.uses))
}

/// What a chain for bytes is here.
fn tcp_route(chain: &Chain, proxy: &TcpProxy, uses: &mut Uses) -> TcpRoute {
    let hash = proxy.by_source.then(|| HashOn::Var("remote_addr".into()));
    let variant = Variant { hash, own_host: false };
    let mut share = |target: &Target| TcpShare { upstream: variant.used(&target.cluster, uses), weight: target.weight };
    TcpRoute {
        server_names: chain.names.clone(),
        for_tls: chain.for_tls,
        terminate: chain.certificate.is_some(),
        upstreams: proxy.targets.iter().map(&mut share).collect(),
        idle_timeout: proxy.idle,
        connect_attempts: Some(proxy.attempts),
    }
}

/// What tells the requests of a chain from those of others.
fn chain_conditions(door: &Door, chain: &Chain) -> Vec<Value> {
    let mut conditions = vec![json!(["listener", "==", &*door.listener.name])];
    if door.chains.len() == 1 {
        return conditions;
    }
    let others = door.chains.iter().filter(|other| !std::ptr::eq(*other, chain)).flat_map(|other| &other.names);
    conditions.extend(hosts::conditions(&chain.names, &others.collect::<Vec<_>>()));
    conditions
}

/// What all routes of a listener bring about together.
#[derive(Default)]
struct Made {
    /// How they use clusters.
    uses: Uses,
    /// Their conditions. Thousands of virtual hosts have the same, which stand in memory once.
    conditions: HashSet<Arc<Value>>,
}

impl Made {
    fn shared(&mut self, conditions: Vec<Value>) -> Arc<Value> {
        let conditions = Value::from(conditions);
        if let Some(known) = self.conditions.get(&conditions) {
            return known.clone();
        }
        let conditions = Arc::new(conditions);
        self.conditions.insert(conditions.clone());
        conditions
    }
}

/// Where routes are used.
struct Place<'a> {
    name: &'a Arc<str>,
    prefix: String,
    http: &'a Http,
    conditions: Vec<Value>,
    shelf: &'a Shelf<'a>,
    /// What filters do for routes that say nothing of them.
    plain: Vec<PluginConf>,
    /// What filters do where a route says something of others alone, by their places: written down once, and the same for all routes.
    own: RefCell<BTreeMap<(i32, usize), PluginConf>>,
}

/// A route with the host conditions under which it stands.
struct Candidate<'a> {
    id: String,
    route: Option<&'a Route>,
    path: &'a Path,
    conditions: Vec<Value>,
}

/// Whether a route fits every request of its virtual host, so that none behind it is ever asked.
fn fits_all(route: &Route) -> bool {
    let Path::Prefix(prefix) = &route.path else { return false };
    matches!(&**prefix, "" | "/") && route.conditions.is_empty() && route.methods.is_empty()
}

impl<'a> Place<'a> {
    fn new(
        name: &'a Arc<str>,
        prefix: String,
        http: &'a Http,
        conditions: Vec<Value>,
        shelf: &'a Shelf<'a>,
    ) -> Result<Place<'a>, Fault> {
        let mut place = Place { name, prefix, http, conditions, shelf, plain: Vec::new(), own: RefCell::default() };
        place.plain = place.filters(&[], name)?;
        Ok(place)
    }

    fn routes(&self, table: &RouteTable, made: &mut Made) -> Result<Vec<model::Route>, Fault> {
        let mut routes = Vec::new();
        let names = names_of(&table.hosts);
        for (host, name) in table.hosts.iter().zip(&names) {
            for with_port in [false, true] {
                let named = |domain: &&Arc<str>| !is_open(domain) && has_port(domain) == with_port;
                let domains: Vec<Arc<str>> = host.domains.iter().filter(named).cloned().collect();
                if domains.is_empty() {
                    continue;
                }
                let mut conditions = Vec::new();
                if !with_port && !self.http.strips_port && !table.ignores_port {
                    conditions.push(json!(["request_port", "==", null]));
                }
                let group = if with_port { ":port" } else { "" };
                let candidates = self.candidates(host, &format!("{name}{group}"), &conditions);
                self.place(candidates, &domains, made, &mut routes)?;
            }
        }
        // Beginnings of names, the longest first, and at last whoever takes every name, share one list.
        let mut open: Vec<(&VirtualHost, &str, &Arc<str>)> = Vec::new();
        for (host, name) in table.hosts.iter().zip(&names) {
            open.extend(host.domains.iter().filter(|domain| is_open(domain)).map(|domain| (host, &**name, domain)));
        }
        open.sort_by_key(|(_, _, domain)| std::cmp::Reverse(domain.len()));
        let mut candidates = Vec::new();
        for (number, (host, name, domain)) in open.iter().enumerate() {
            let conditions = match domain.strip_suffix('*') {
                Some("") | None => Vec::new(),
                Some(beginning) => vec![self.seen(json!([AUTHORITY, "~*", format!("^{}.+", escaped(beginning))]))],
            };
            candidates.extend(self.candidates(host, &format!("{name}:open{number}"), &conditions));
        }
        if !table.hosts.iter().any(|host| host.domains.iter().any(|domain| **domain == *"*")) {
            let id = format!("{}/:none", self.prefix);
            candidates.push(Candidate { id, route: None, path: &EVERY, conditions: Vec::new() });
        }
        self.place(candidates, &[], made, &mut routes)?;
        Ok(routes)
    }

    /// The routes of a virtual host, and behind them what keeps requests that none of them fits from those of other hosts.
    fn candidates<'t>(&self, host: &'t VirtualHost, name: &str, conditions: &[Value]) -> Vec<Candidate<'t>> {
        let id = |number: usize| format!("{}/{name}/{number}", self.prefix);
        let mut candidates = Vec::with_capacity(host.routes.len() + 1);
        for (number, route) in host.routes.iter().enumerate() {
            candidates.push(Candidate { id: id(number), route: Some(route), path: &route.path, conditions: conditions.to_vec() });
            if fits_all(route) {
                return candidates;
            }
        }
        candidates.push(Candidate { id: id(host.routes.len()), route: None, path: &EVERY, conditions: conditions.to_vec() });
        candidates
    }

    fn place(
        &self,
        candidates: Vec<Candidate<'_>>,
        domains: &[Arc<str>],
        made: &mut Made,
        into: &mut Vec<model::Route>,
    ) -> Result<(), Fault> {
        let placed = order::place(candidates.iter().map(|candidate| candidate.path));
        let count = candidates.len();
        for (number, (candidate, place)) in candidates.into_iter().zip(placed).enumerate() {
            let mut conditions = self.conditions.clone();
            conditions.extend(candidate.conditions);
            conditions.extend(place.condition);
            let mut methods = Vec::new();
            if let Some(route) = candidate.route {
                conditions.extend(route.conditions.iter().cloned().map(|condition| self.seen(condition)));
                methods.clone_from(&route.methods);
            }
            let matches = RouteMatch {
                uris: vec![place.uri.into()],
                hosts: domains.to_vec(),
                methods,
                remote_addrs: Vec::new(),
                vars: Some(made.shared(conditions)),
            };
            let priority = i64::try_from(count - number).unwrap_or(i64::MAX);
            into.push(self.route(candidate.id, candidate.route, matches, priority, &mut made.uses)?);
        }
        Ok(())
    }

    fn route(
        &self,
        id: String,
        route: Option<&Route>,
        matches: RouteMatch,
        priority: i64,
        uses: &mut Uses,
    ) -> Result<model::Route, Fault> {
        let mut ours = model::Route {
            id: id.into(),
            name: route.map(|route| route.name.clone()).unwrap_or_default(),
            service_id: "".into(),
            service_name: "".into(),
            matches,
            priority,
            created: 0,
            plugins: Vec::new(),
            upstream: None,
            timeouts: None,
            enable_websocket: false,
            max_duration: None,
        };
        let Some(route) = route else {
            // Filters see requests that no route fits, too.
            ours.plugins.clone_from(&self.plain);
            let (name, config) = answer(404, "");
            add(&mut ours.plugins, plugin(name, config, &ours.id))?;
            return Ok(ours);
        };
        ours.plugins = self.plugins(route, &ours.id)?;
        self.lead(route, &mut ours, uses)?;
        let limit = route.limit(self.http.idle);
        let connect =
            route.targets.first().and_then(|target| (self.shelf.connect)(&target.cluster)).unwrap_or(Duration::from_secs(5));
        let each = route.each_try.map_or(limit, |each| each.min(limit));
        ours.timeouts = Some(Timeouts { connect: connect.min(limit), send: each, read: each });
        for mirror in &route.mirrors {
            ours.plugins.push(plugin("proxy-mirror", copies(mirror, limit, uses), &ours.id));
        }
        ours.max_duration = route.end();
        ours.enable_websocket = route.websocket.unwrap_or(self.http.websocket);
        Ok(ours)
    }

    /// Where requests go.
    fn lead(&self, route: &Route, ours: &mut model::Route, uses: &mut Uses) -> Result<(), Fault> {
        let variant = Variant::of(route);
        let names: Vec<(Arc<str>, u32)> =
            route.targets.iter().map(|target| (variant.used(&target.cluster, uses), target.weight)).collect();
        ours.upstream = names.iter().max_by_key(|(_, weight)| *weight).map(|(name, _)| UpstreamRef { name: name.clone() });
        if names.len() > MAX_TARGETS {
            return Err(Fault::new("weighted_clusters", format!("expected at most {MAX_TARGETS} clusters")));
        }
        if names.len() > 1 {
            let entries: Vec<Value> =
                names.iter().map(|(name, weight)| json!({"upstream_id": &**name, "weight": weight})).collect();
            ours.plugins.push(plugin("traffic-split", json!({"rules": [{"weighted_upstreams": entries}]}), &ours.id));
        }
        Ok(())
    }

    /// What the filters of the listener do for this route, and what it does itself.
    fn plugins(&self, route: &Route, id: &Arc<str>) -> Result<Vec<PluginConf>, Fault> {
        let mut plugins = if route.overrides.is_empty() { self.plain.clone() } else { self.filters(&route.overrides, id)? };
        let mut own = route.plugins.clone();
        all_tries_within(&mut own, route.limit(self.http.idle));
        if self.http.strips_port {
            hosts::without_port(&mut own, !route.targets.is_empty() && !route.own_host);
        }
        for (name, config) in own {
            add(&mut plugins, plugin(name, config, id))?;
        }
        Ok(plugins)
    }

    /// What is asked about the host, without its port where that does not count.
    fn seen(&self, asked: Value) -> Value {
        if self.http.strips_port { hosts::asked_without_port(asked) } else { asked }
    }

    /// What the filters of the listener do, where a route says this of them.
    fn filters(&self, overrides: &[(Arc<str>, Override)], id: &Arc<str>) -> Result<Vec<PluginConf>, Fault> {
        let mut plugins: Vec<PluginConf> = Vec::new();
        if self.http.request_id {
            add(&mut plugins, plugin("request-id", json!({"include_in_response": false}), self.name))?;
        }
        for (filter, place) in self.http.filters.iter().zip((1..FIRST / 2).rev().map(|half| half * 2)) {
            let said = overrides.iter().find(|(name, _)| *name == filter.name).map(|(_, said)| said);
            let told = filter.asked.and_then(|_| (self.shelf.extension)(&filter.name));
            let does = told.as_ref().map_or(&filter.does, |told| &told.does);
            let own = does.as_ref().filter(|_| !filter.disabled);
            let lost = told.is_none() && filter.asked.is_some_and(|asked| !asked.has_default) && !filter.disabled;
            // What a route changes of it, or names, is not known either.
            if lost && !matches!(said, Some(Override::Off | Override::Does(_))) {
                // Nobody knows what it would have refused.
                let config = json!({"abort": {"http_status": 500}});
                add(&mut plugins, placed("fault-injection", config, self.name, place))?;
            }
            let changed;
            let (deed, origin): (Option<&Deed>, &Arc<str>) = match said {
                Some(Override::Off) => (None, id),
                Some(Override::Does(deed)) => (Some(deed), id),
                Some(Override::But(changes)) => {
                    let place = || format!("typed_per_filter_config[{}]", filter.name);
                    changed = does.as_ref().map(|deed| but(deed, changes, place)).transpose()?;
                    (changed.as_ref(), id)
                }
                Some(Override::Named(name)) => {
                    let named = told.as_ref().map_or(&filter.named, |told| &told.named);
                    (Some(named.get(name).unwrap_or(&KEPT_OUT)), id)
                }
                None => (own, self.name),
            };
            if let (Some(Override::Does(deed)), Some(own)) = (said, own)
                && deed.iter().all(|(name, _)| *name == EDITS)
            {
                // Edits of the listener and of the route are both made, one after the other.
                for (name, config) in own {
                    add(&mut plugins, placed(name, self.seen(config.clone()), self.name, place))?;
                }
            }
            for (number, (name, config)) in deed.into_iter().flatten().enumerate() {
                // A bucket of a virtual host is that of all of its routes, in its chain: others may have a host of the same name.
                let chain: Option<Arc<str>> = is_shared(name, config).then(|| self.prefix.as_str().into());
                let conf = || placed(name, self.seen(config.clone()), chain.as_ref().unwrap_or(origin), place);
                let conf = match said {
                    None => self.own.borrow_mut().entry((place, number)).or_insert_with(conf).clone(),
                    Some(_) => conf(),
                };
                add(&mut plugins, conf)?;
            }
        }
        Ok(plugins)
    }
}

/// What copies requests, which may take as long as the requests themselves.
fn copies(mirror: &Mirror, limit: Duration, uses: &mut Uses) -> Value {
    let upstream = Variant::default().used(&mirror.cluster, uses);
    let seconds = limit.clamp(Duration::from_millis(1), LONGEST_COPY).as_secs_f64();
    let suffix = if mirror.marked { "-shadow" } else { "" };
    json!({
        "upstream_id": &*upstream, "sample_ratio": mirror.share, "host_suffix": suffix, "timeout": seconds,
        "max_in_flight": COPIES,
    })
}

/// Above the places of all our plugins: filters of a listener run in their own order, as far as our phases let them.
const FIRST: i32 = 20_000;
/// Plugins with a place of their own: what they do must come behind all other changes of a body.
const BODIES: [&str; 3] = ["gzip", "brotli", "zstd"];

/// A plugin at the place that its filter has among those of the listener.
fn placed(name: &str, mut config: Value, origin: &Arc<str>, place: i32) -> PluginConf {
    if !BODIES.contains(&name) {
        // Whom it is for stays. What clients say is taken off before the filter itself says something.
        config["_meta"]["priority"] = (place + i32::from(name == "proxy-rewrite")).into();
    }
    plugin(name, config, origin)
}

/// The plugin whose configurations can be put together.
const EDITS: &str = "headers";
/// Plugins of which each configuration stands for itself: they answer, delay, let through, bound, or take off what clients say. A
/// request that has an id is given none.
const SEVERAL: [&str; 8] =
    ["request-id", "fault-injection", "mocking", "ext-authz", "jwt-auth", "workflow", "proxy-rewrite", BUCKETS];
/// In place of what a route names and nobody knows.
static KEPT_OUT: std::sync::LazyLock<Deed> =
    std::sync::LazyLock::new(|| vec![("fault-injection", json!({"abort": {"http_status": 403}}))]);
static EVERY: std::sync::LazyLock<Path> = std::sync::LazyLock::new(|| Path::Prefix("/".into()));

/// Of these, alike configurations are one bound, whose bucket both would draw from.
const BUCKETS: &str = "limit-req";

/// Adds a plugin; a route has most of them only once.
fn add(plugins: &mut Vec<PluginConf>, one: PluginConf) -> Result<(), Fault> {
    let same = |there: &PluginConf| there.name == one.name && there.origin == one.origin && is_alike(there, &one);
    if &*one.name == BUCKETS && plugins.iter().any(same) {
        return Ok(());
    }
    let there = plugins.iter_mut().find(|there| there.name == one.name && !SEVERAL.contains(&&*one.name));
    let Some(there) = there else {
        plugins.push(one);
        return Ok(());
    };
    let (Some(old), Some(new), EDITS) = (there.config.as_object(), one.config.as_object(), &*one.name) else {
        return Err(Fault::new(
            "http_filters",
            format!("two filters of one route become the plugin {}, which runs once: leave one out", one.name),
        ));
    };
    let mut both = old.clone();
    for (name, value) in new {
        match (both.get_mut(name).and_then(Value::as_object_mut), value.as_object()) {
            (Some(inner), Some(more)) => inner.extend(more.clone()),
            _ => drop(both.insert(name.clone(), value.clone())),
        }
    }
    there.config = Arc::new(both.into());
    Ok(())
}

/// Whether two configurations are the same but for their places.
fn is_alike(one: &PluginConf, other: &PluginConf) -> bool {
    let told = |plugin: &PluginConf| {
        let fields = plugin.config.as_object().into_iter().flatten().filter(|(name, _)| *name != "_meta");
        fields.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
    };
    told(one) == told(other)
}

fn plugin(name: &str, config: Value, origin: &Arc<str>) -> PluginConf {
    PluginConf { name: name.into(), config: Arc::new(config), origin: PluginOrigin(origin.clone()) }
}
