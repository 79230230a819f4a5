//! From data-plane resources to tables: what changed is compiled, everything else is used again. One bad resource is refused singly; its last good version stays.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use heddle_node::clock;
use heddle_node::weak_map::WeakMap;
use heddle_xds::catalog::ConfigFault;
use heddle_xds::codec::InvalidResource;
use heddle_xds::model::{self, Kind, ListenerProtocol, Resource};
use serde_json::Value;

use super::consumers::Known;
use super::{Action, Application, Clusters, Consumers, Secrets, Tables, mesh, references};
use crate::balance::ZoneShare;
use crate::filters::{self, Chain, Credential, Keep, Parts, Uses};
use crate::observe::{RouteStats, TcpStats};
use crate::outbound::Outbound;
use crate::route::{CompiledRoute, Conditions, RouteTable};
use crate::secrets::References;
use crate::upstream::{self, News};

/// Everything that a node has been told, compiled as far as it can be.
pub struct Compiler {
    pub(super) workers: usize,
    keep: Keep,
    outbound: Outbound,
    pub(super) references: References,
    /// Resources that have references to secrets, with these, also when they cannot be used for now.
    pub(super) referring: BTreeMap<(Kind, Arc<str>), (BTreeSet<String>, Resource)>,
    /// Compiles anew also what has not changed.
    pub(super) anew: bool,
    pool: upstream::Clusters,
    generation: u64,
    secrets: Arc<Secrets>,
    upstreams: HashMap<Arc<str>, Arc<model::Upstream>>,
    endpoints: HashMap<Arc<str>, Arc<[model::Endpoint]>>,
    no_endpoints: Arc<[model::Endpoint]>,
    clusters: Arc<Clusters>,
    metadata: HashMap<Arc<str>, Arc<Value>>,
    rules: BTreeMap<Arc<str>, model::GlobalRule>,
    global: Arc<Chain>,
    consumers: BTreeMap<Arc<str>, KnownConsumer>,
    consumer_index: Arc<Consumers>,
    routes: BTreeMap<Arc<str>, KnownRoute>,
    /// What routes have in common.
    conditions: Conditions,
    /// Chains that serve several routes, by the plugins that they are made of.
    pub(super) chains: WeakMap<Box<[model::PluginConf]>, Chain>,
    /// The table of all routes, until one of them changes.
    table: Option<Arc<RouteTable<Action>>>,
    /// The chain of all routes without plugins.
    no_plugins: Arc<Chain>,
    stats: HashMap<Arc<str>, Arc<RouteStats>>,
    certificates: Arc<BTreeMap<Arc<str>, Arc<model::Certificate>>>,
    listeners: BTreeMap<Arc<str>, Arc<model::Listener>>,
    tcp: BTreeMap<Arc<str>, Arc<TcpStats>>,
    pub(super) mesh: mesh::Known,
    pub(super) application: Option<Arc<Application>>,
    stale: Stale,
}

/// Why a listener may not be called so.
const RESERVED: &str = "names that begin with mesh/ are those of the node's own listeners; expected another name";

/// A route as it was told, and what has been compiled of it.
type KnownRoute = (Arc<model::Route>, Arc<CompiledRoute<Action>>);

/// A consumer as it was told, and what has been compiled of it.
struct KnownConsumer {
    consumer: model::Consumer,
    chain: Arc<Chain>,
    credentials: Vec<Credential>,
}

/// What has to be made anew before the next tables.
#[derive(Default)]
struct Stale {
    /// Something else than endpoints has changed: all of it is one revision.
    revision: bool,
    clusters: BTreeSet<Arc<str>>,
    consumers: bool,
}

impl Compiler {
    /// Nothing known yet; `workers` is how many shards counters need. `pool` keeps the run-time side of upstreams, `outbound` that of other services that
    /// filters ask.
    pub fn new(workers: usize, pool: upstream::Clusters, outbound: Outbound, references: References) -> Compiler {
        Compiler {
            workers,
            keep: Keep::default(),
            outbound,
            references,
            referring: BTreeMap::new(),
            anew: false,
            pool,
            generation: 0,
            secrets: Arc::default(),
            upstreams: HashMap::new(),
            endpoints: HashMap::new(),
            no_endpoints: Arc::default(),
            clusters: Arc::default(),
            metadata: HashMap::new(),
            rules: BTreeMap::new(),
            global: Arc::default(),
            consumers: BTreeMap::new(),
            consumer_index: Arc::default(),
            routes: BTreeMap::new(),
            conditions: Conditions::default(),
            chains: WeakMap::default(),
            table: None,
            no_plugins: Arc::default(),
            stats: HashMap::new(),
            certificates: Arc::default(),
            listeners: BTreeMap::new(),
            tcp: BTreeMap::new(),
            mesh: mesh::Known::default(),
            application: None,
            stale: Stale::default(),
        }
    }

    /// Lets filters keep files below this folder. Called before the first resource is taken.
    #[must_use]
    pub fn keeping_below(mut self, folder: std::path::PathBuf) -> Compiler {
        self.keep = Keep::below(folder);
        self
    }

    /// What filters let through of limits that the fleet shares.
    pub fn uses(&self) -> &Arc<Uses> {
        self.keep.uses()
    }

    /// Takes one resource.
    ///
    /// # Errors
    /// Why it cannot be used; what was there under its name stays in use.
    pub fn set(&mut self, resource: Resource) -> Result<(), InvalidResource> {
        let (kind, name) = (resource.kind(), resource.name().clone());
        self.stale.revision |= kind != Kind::Endpoints;
        self.refer(&resource);
        self.take(resource).map_err(|fault| InvalidResource { kind, name, field: fault.path, reason: fault.message })
    }

    fn take(&mut self, resource: Resource) -> Result<(), ConfigFault> {
        match resource {
            Resource::Secret(secret) => {
                let secret = references::material(&secret, &self.references)?;
                self.stale_users_of(&secret.name);
                Arc::make_mut(&mut self.secrets).insert(secret.name.clone(), Arc::new(secret));
            }
            Resource::Upstream(upstream) => self.set_upstream(upstream),
            Resource::Endpoints(endpoints) => {
                self.stale.clusters.insert(endpoints.upstream.clone());
                self.endpoints.insert(endpoints.upstream, endpoints.endpoints);
            }
            Resource::PluginMetadata(metadata) => {
                let config = self.references.resolved(&metadata.config).0;
                let before = self.metadata.insert(metadata.plugin.clone(), config);
                self.chains = WeakMap::default();
                self.recompile_users_of(&metadata.plugin).inspect_err(|_| self.put_back(&metadata.plugin, before))?;
            }
            Resource::Consumer(consumer) => {
                let chain = Arc::new(self.consumer_chain(&consumer.plugins)?);
                let credentials =
                    filters::credentials(&references::credentials(&consumer.credentials, &self.references)).map_err(first)?;
                self.consumers.insert(consumer.username.clone(), KnownConsumer { consumer, chain, credentials });
                self.stale.consumers = true;
            }
            Resource::GlobalRule(rule) => {
                let before = self.rules.insert(rule.id.clone(), rule.clone());
                self.fuse().inspect_err(|_| match before {
                    Some(before) => drop(self.rules.insert(rule.id.clone(), before)),
                    None => drop(self.rules.remove(&rule.id)),
                })?;
            }
            Resource::Route(route) => {
                let compiled = self.route(&route)?;
                self.table = None;
                self.routes.insert(route.id.clone(), (Arc::new(route), Arc::new(compiled)));
            }
            Resource::MeshService(service) => self.set_mesh_service(service)?,
            Resource::MeshInbound(inbound) => self.set_inbound(inbound)?,
            Resource::AuthorizationPolicy(policy) => self.set_policy(policy),
            Resource::PeerAuthentication(peers) => self.set_peers(peers),
            Resource::Certificate(certificate) => {
                drop(Arc::make_mut(&mut self.certificates).insert(certificate.id.clone(), Arc::new(certificate)))
            }
            Resource::Listener(listener) if listener.name.starts_with(model::MESH_PREFIX) => {
                return Err(ConfigFault { path: "name".to_owned(), message: RESERVED.to_owned() });
            }
            Resource::Listener(listener) => self.set_listener(listener)?,
        }
        Ok(())
    }

    /// Forgets one resource.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        self.stale.revision |= kind != Kind::Endpoints;
        self.forget(kind, name);
        match kind {
            Kind::Secret => {
                Arc::make_mut(&mut self.secrets).remove(name);
                self.stale_users_of(name);
            }
            Kind::Upstream => self.remove_upstream(name),
            Kind::Endpoints => {
                self.endpoints.remove(name);
                self.stale.clusters.insert(name.into());
            }
            Kind::PluginMetadata => {
                let before = self.metadata.remove(name);
                self.chains = WeakMap::default();
                if let Err(fault) = self.recompile_users_of(name) {
                    tracing::warn!(plugin = name, %fault.path, %fault.message, "plugin metadata cannot be dropped and stays in use");
                    self.put_back(name, before);
                }
            }
            Kind::Consumer => {
                self.consumers.remove(name);
                self.stale.consumers = true;
            }
            Kind::GlobalRule => {
                self.rules.remove(name);
                if let Err(fault) = self.fuse() {
                    tracing::warn!(rule = name, %fault.path, %fault.message, "global rules stay as they were");
                }
            }
            Kind::Route => {
                self.table = None;
                self.routes.remove(name);
                self.stats.remove(name);
            }
            Kind::MeshService => self.remove_mesh_service(name),
            Kind::MeshInbound => self.remove_inbound(name),
            Kind::AuthorizationPolicy => self.remove_policy(name),
            Kind::PeerAuthentication => self.remove_peers(name),
            Kind::Certificate => drop(Arc::make_mut(&mut self.certificates).remove(name)),
            Kind::Listener => {
                self.listeners.remove(name);
                self.tcp.remove(name);
            }
        }
    }

    /// The tables of everything that is known now.
    pub fn tables(&mut self) -> Arc<Tables> {
        self.end_view();
        if std::mem::take(&mut self.stale.consumers) {
            let all = self.consumers.values().map(|known| Known {
                consumer: &known.consumer,
                chain: &known.chain,
                credentials: &known.credentials,
            });
            self.consumer_index = Arc::new(Consumers::new(all));
        }
        self.generation += 1;
        self.keep.sweep();
        Arc::new(Tables {
            generation: self.generation,
            listeners: self.listeners.clone(),
            tcp: self.tcp.clone(),
            routes: self.route_table(),
            clusters: self.clusters.clone(),
            global: self.global.clone(),
            consumers: self.consumer_index.clone(),
            certificates: self.certificates.clone(),
            secrets: self.secrets.clone(),
            mesh: self.mesh.compiled.clone(),
            application: self.application.clone(),
            authorization: self.mesh.authorization(),
            peers: self.mesh.modes.clone(),
        })
    }

    /// The table of all routes: with thousands of them it is too much work for a change of endpoints.
    fn route_table(&mut self) -> Arc<RouteTable<Action>> {
        let routes = &self.routes;
        let build = || Arc::new(RouteTable::build(routes.values().map(|(_, compiled)| compiled.clone()).collect()));
        self.table.get_or_insert_with(build).clone()
    }

    /// The resources in the model's own form, without key material, for the configuration dump.
    pub fn dump(&self) -> Value {
        serde_json::json!({
            "listeners": self.listeners.values().collect::<Vec<_>>(),
            "certificates": self.certificates.values().collect::<Vec<_>>(),
            "secrets": self.secrets.keys().collect::<Vec<_>>(),
            "routes": self.routes.values().map(|(route, _)| model::Route { plugins: filters::masked(&route.plugins), ..(**route).clone() }).collect::<Vec<_>>(),
            "upstreams": self.upstreams.values().collect::<Vec<_>>(),
            "endpoints": self.endpoints.iter().map(|(upstream, endpoints)| model::Endpoints { upstream: upstream.clone(), endpoints: endpoints.clone() }).collect::<Vec<_>>(),
            "zones": self.clusters.iter().map(|(name, cluster)| (name.to_string(), zones(cluster))).collect::<serde_json::Map<_, _>>(),
            "mesh_services": self.mesh.services().map(|service| model::MeshService { plugins: filters::masked(&service.plugins), ..service.clone() }).collect::<Vec<_>>(),
            "mesh_inbound": self.mesh.inbound.iter().map(|inbound| model::MeshInbound { plugins: filters::masked(&inbound.plugins), ..inbound.clone() }).collect::<Vec<_>>(),
            "authorization_policies": self.mesh.policies().collect::<Vec<_>>(),
            "peer_authentications": self.mesh.peers().collect::<Vec<_>>(),
            "global_rules": self.rules.values().map(|rule| model::GlobalRule { plugins: filters::masked(&rule.plugins), ..rule.clone() }).collect::<Vec<_>>(),
            "plugin_metadata": self.metadata.iter().map(|(plugin, config)| (plugin.to_string(), self.as_told(plugin, config))).collect::<serde_json::Map<_, _>>(),
            "consumers": self.consumers.values().map(|KnownConsumer { consumer, .. }| serde_json::json!({
                "username": consumer.username, "group_id": consumer.group_id, "labels": consumer.labels, "plugins": filters::masked(&consumer.plugins),
                "credentials": consumer.credentials.iter().map(|credential| serde_json::json!({ "id": credential.id, "plugin": credential.plugin })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }

    fn set_listener(&mut self, listener: model::Listener) -> Result<(), ConfigFault> {
        let name = listener.name.clone();
        if listener.protocol != ListenerProtocol::Tcp {
            self.tcp.remove(&name);
        } else if listener.tcp.is_empty() {
            let message = "a TCP listener leads nowhere; expected a route";
            return Err(ConfigFault { path: "tcp".to_owned(), message: message.to_owned() });
        } else {
            self.tcp.entry(name.clone()).or_insert_with(|| Arc::new(TcpStats::new(self.workers)));
        }
        self.listeners.insert(name, Arc::new(listener));
        Ok(())
    }

    pub(super) fn set_upstream(&mut self, upstream: Arc<model::Upstream>) {
        if upstream.in_clear && !self.upstreams.get(&upstream.name).is_some_and(|before| before.in_clear) {
            tracing::warn!(
                upstream = &*upstream.label,
                "this service is called in clear from now on: a peer_authentication says disable"
            );
        }
        self.stale.clusters.insert(upstream.name.clone());
        self.upstreams.insert(upstream.name.clone(), upstream);
    }

    pub(super) fn remove_upstream(&mut self, name: &str) {
        self.upstreams.remove(name);
        Arc::make_mut(&mut self.clusters).remove(name);
        self.pool.retain(|other| other != name);
    }

    /// All of one view has been taken. What it says of endpoints is a revision, or discovery when it says nothing else; what arrived with it, and is another
    /// view, makes neither the other.
    pub fn end_view(&mut self) {
        let news = if std::mem::take(&mut self.stale.revision) { News::Revision } else { News::Discovery };
        for name in std::mem::take(&mut self.stale.clusters) {
            let Some(config) = self.upstreams.get(&name) else { continue };
            let nodes = self.endpoints.get(&name).unwrap_or(&self.no_endpoints);
            let secrets = self.secrets.clone();
            let find = |name: &str| secrets.get(name).cloned();
            let edition = self.pool.apply(config, nodes, &find, news);
            if !self.clusters.get(&name).is_some_and(|known| Arc::ptr_eq(known, &edition)) {
                Arc::make_mut(&mut self.clusters).insert(name, edition);
            }
        }
    }

    fn stale_users_of(&mut self, secret: &str) {
        let uses = |name: &Option<Arc<str>>| name.as_deref() == Some(secret);
        let users = self.upstreams.values().filter(|upstream| uses(&upstream.tls.ca) || uses(&upstream.tls.client_cert));
        self.stale.clusters.extend(users.map(|upstream| upstream.name.clone()));
    }

    pub(super) fn chain(&self, plugins: &[model::PluginConf]) -> Result<Chain, ConfigFault> {
        self.with_parts(|parts| Chain::compile(plugins, parts))
    }

    /// The chain of a route: one for all whose plugins are the same.
    fn shared_chain(&mut self, plugins: &[model::PluginConf]) -> Result<Arc<Chain>, ConfigFault> {
        if let Some(chain) = self.chains.get(plugins).filter(|_| !self.anew) {
            return Ok(chain);
        }
        let chain = Arc::new(self.chain(plugins)?);
        if chain.serves_others() {
            self.chains.put(plugins.into(), &chain);
        }
        Ok(chain)
    }

    fn consumer_chain(&self, plugins: &[model::PluginConf]) -> Result<Chain, ConfigFault> {
        self.with_parts(|parts| Chain::of_consumer(plugins, parts))
    }

    fn with_parts<T>(&self, compile: impl FnOnce(&Parts<'_>) -> Result<T, Vec<ConfigFault>>) -> Result<T, ConfigFault> {
        let metadata = |name: &str| self.metadata.get(name).map(|value| &**value);
        let parts = Parts { metadata: &metadata, keep: &self.keep, outbound: &self.outbound, references: &self.references };
        compile(&parts).map_err(first)
    }

    fn route(&mut self, route: &model::Route) -> Result<CompiledRoute<Action>, ConfigFault> {
        let workers = self.workers;
        let chain = match self.routes.get(&route.id) {
            Some((before, compiled)) if before.plugins == route.plugins && !self.anew => compiled.target.chain.clone(),
            _ if route.plugins.is_empty() => self.no_plugins.clone(),
            _ => self.shared_chain(&route.plugins)?,
        };
        let stats = self.stats.entry(route.id.clone()).or_insert_with(|| Arc::new(RouteStats::new(workers))).clone();
        let action = Action {
            chain,
            upstream: route.upstream.as_ref().map(|upstream| upstream.name.clone()),
            timeouts: route.timeouts,
            enable_websocket: route.enable_websocket,
            max_duration: route.max_duration,
            stats,
        };
        CompiledRoute::compile_beside(route, action, &mut self.conditions).map_err(first)
    }

    fn fuse(&mut self) -> Result<(), ConfigFault> {
        let rules: Vec<&model::GlobalRule> = self.rules.values().collect();
        let (chain, doubles) = self.with_parts(|parts| Chain::fuse(&rules, parts))?;
        doubles.iter().for_each(|double| tracing::warn!(path = %double.path, "{}", double.message));
        self.global = Arc::new(chain);
        Ok(())
    }

    /// Compiles whatever uses this plugin anew, since its metadata has changed; all or none.
    fn recompile_users_of(&mut self, plugin: &str) -> Result<(), ConfigFault> {
        let uses = |plugins: &[model::PluginConf]| plugins.iter().any(|conf| &*conf.name == plugin);
        let mut routes = Vec::new();
        let users = self.routes.values().filter(|(route, _)| uses(&route.plugins));
        let users: Vec<_> = users.map(|(route, compiled)| (route.clone(), compiled.target.clone())).collect();
        for (route, target) in users {
            let action = Action { chain: self.shared_chain(&route.plugins)?, ..target };
            let compiled = CompiledRoute::compile_beside(&route, action, &mut self.conditions).map_err(first)?;
            routes.push((route.id.clone(), compiled));
        }
        let mut consumers = Vec::new();
        for consumer in self.consumers.values().map(|known| &known.consumer).filter(|consumer| uses(&consumer.plugins)) {
            consumers.push((consumer.username.clone(), self.consumer_chain(&consumer.plugins)?));
        }
        let in_mesh = self.users_in_mesh(&uses)?;
        if self.rules.values().any(|rule| uses(&rule.plugins)) {
            self.fuse()?;
        }
        self.use_in_mesh(in_mesh);
        self.table = None;
        for (id, compiled) in routes {
            self.routes.entry(id).and_modify(|entry| entry.1 = Arc::new(compiled));
        }
        for (username, chain) in consumers {
            self.consumers.entry(username).and_modify(|known| known.chain = Arc::new(chain));
            self.stale.consumers = true;
        }
        Ok(())
    }

    fn put_back(&mut self, plugin: &str, before: Option<Arc<Value>>) {
        self.chains = WeakMap::default();
        match before {
            Some(value) => drop(self.metadata.insert(plugin.into(), value)),
            None => drop(self.metadata.remove(plugin)),
        }
    }
}

/// What each zone carries of an upstream, and why.
fn zones(cluster: &upstream::Cluster) -> Value {
    let zone = |zone: ZoneShare| {
        let share = (zone.share * 1000.0).round() / 1000.0;
        serde_json::json!({ "zone": zone.zone, "endpoints": zone.endpoints, "standing": zone.standing, "share": share, "why": zone.why.as_str() })
    };
    cluster.zones(clock::now()).into_iter().map(zone).collect()
}

/// The first fault stands for the resource; the control plane has told its author all of them.
pub(super) fn first(faults: Vec<ConfigFault>) -> ConfigFault {
    faults.into_iter().next().unwrap_or(ConfigFault { path: String::new(), message: "unusable".to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn compiler() -> Compiler {
        let pool = upstream::Clusters::new(Arc::default(), None, tokio::runtime::Handle::current());
        let references = References::new(Arc::new(|_: &str| None), "".into(), Outbound::default());
        Compiler::new(1, pool, Outbound::default(), references)
    }

    fn plugin(origin: &str, name: &str, config: Value) -> model::PluginConf {
        model::PluginConf { name: name.into(), config: Arc::new(config), origin: model::PluginOrigin(origin.into()) }
    }

    fn route(number: u32, pattern: &str) -> Resource {
        let origin = format!("route/{number}");
        let schema = json!({"body_schema": {"type": "object", "required": ["a"]}});
        Resource::Route(model::Route {
            id: number.to_string().into(),
            name: "".into(),
            service_id: "".into(),
            service_name: "".into(),
            matches: model::RouteMatch { uris: vec![format!("/{number}/*").into()], ..model::RouteMatch::default() },
            priority: 0,
            created: 0,
            plugins: vec![
                plugin(&origin, "request-validation", schema),
                plugin(&origin, "uri-blocker", json!({"block_rules": [pattern]})),
                plugin(&origin, "limit-count", json!({"count": 1, "time_window": 60})),
            ],
            upstream: None,
            timeouts: None,
            enable_websocket: false,
            max_duration: None,
        })
    }

    #[tokio::test]
    async fn routes_share_filters_and_those_that_nobody_uses_go() {
        let mut compiler = compiler();
        for number in 0..1_000 {
            compiler.set(route(number, "^/no")).unwrap();
        }
        assert_eq!(compiler.keep.shared(), 2, "the schema and the patterns; limits count on each route");
        let before = compiler.tables();
        compiler.set(route(7, "^/never")).unwrap();
        assert_eq!(compiler.keep.shared(), 3, "what has not changed is shared still");
        for number in 0..1_000 {
            compiler.set(route(number, "^/never")).unwrap();
        }
        drop((before, compiler.tables()));
        drop(compiler.tables());
        assert_eq!(compiler.keep.shared(), 2, "the old patterns are gone");

        let metadata = |number| model::PluginMetadata { plugin: "limit-count".into(), config: Arc::new(number) };
        compiler.set(Resource::PluginMetadata(metadata(json!({"limit_header": "X-L"})))).unwrap();
        for number in 0..1_000 {
            compiler.remove(Kind::Route, &number.to_string());
        }
        drop(compiler.tables());
        assert_eq!(compiler.keep.shared(), 0);
    }

    fn upstream(node: u16) -> [Resource; 2] {
        let upstream = crate::upstream::tests::config(|_| ()).as_ref().clone();
        let endpoint = model::Endpoint { host: "192.0.2.1".into(), port: node, weight: 1, ..model::Endpoint::default() };
        let endpoints = model::Endpoints { upstream: upstream.name.clone(), endpoints: [endpoint].into() };
        [Resource::Upstream(upstream.into()), Resource::Endpoints(endpoints)]
    }

    #[tokio::test]
    async fn a_table_of_routes_is_built_when_a_route_has_changed() {
        let mut compiler = compiler();
        upstream(1).into_iter().chain([route(1, "^/no")]).for_each(|resource| compiler.set(resource).unwrap());
        let first = compiler.tables();
        upstream(2).into_iter().for_each(|resource| compiler.set(resource).unwrap());
        let second = compiler.tables();
        assert!(Arc::ptr_eq(&first.routes, &second.routes));
        compiler.set(route(2, "^/no")).unwrap();
        let third = compiler.tables();
        assert_eq!((second.routes.len(), third.routes.len()), (1, 2));
        let metadata = model::PluginMetadata { plugin: "limit-count".into(), config: Arc::new(json!({"limit_header": "X-L"})) };
        compiler.set(Resource::PluginMetadata(metadata)).unwrap();
        assert!(!Arc::ptr_eq(&third.routes, &compiler.tables().routes), "its filters are made anew");
        compiler.remove(Kind::Route, "1");
        assert_eq!((compiler.tables().routes.len(), third.routes.len()), (1, 2));
    }

    #[tokio::test]
    async fn tables_keep_the_endpoints_of_their_revision_and_follow_discovery() {
        let mut compiler = compiler();
        let ports = |tables: &Tables| {
            let view = tables.clusters["upstreams/u"].view();
            view.endpoints.iter().map(|endpoint| endpoint.core.address.port()).collect::<Vec<_>>()
        };
        upstream(1).into_iter().chain([route(1, "^/no")]).for_each(|resource| compiler.set(resource).unwrap());
        let first = compiler.tables();
        upstream(2).into_iter().chain([route(1, "^/never")]).for_each(|resource| compiler.set(resource).unwrap());
        assert_eq!(ports(&first), [1]);
        let second = compiler.tables();
        assert_eq!((ports(&first), ports(&second)), (vec![1], vec![2]));
        let [_, endpoints] = upstream(3);
        compiler.set(endpoints).unwrap();
        let third = compiler.tables();
        assert_eq!((ports(&first), ports(&second), ports(&third)), (vec![1], vec![3], vec![3]));
        compiler.remove(Kind::Route, "1");
        let [_, endpoints] = upstream(4);
        compiler.set(endpoints).unwrap();
        let fourth = compiler.tables();
        assert_eq!((ports(&fourth), ports(&third)), (vec![4], vec![3]), "without the route it is a revision");
        let [_, endpoints] = upstream(5);
        compiler.set(endpoints).unwrap();
        compiler.end_view();
        compiler.set(route(1, "^/no")).unwrap();
        assert_eq!(
            (ports(&compiler.tables()), ports(&fourth)),
            (vec![5], vec![5]),
            "the route has come together with it, and is another view"
        );
    }
}
