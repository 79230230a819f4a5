//! From a snapshot of the model to the resources of Envoy, incrementally: the cost of a change is that of what depends on it. It knows no stream and no node.
//!
//! An upstream becomes a `Cluster` and its endpoints a `ClusterLoadAssignment`, one by one. All routes become one `RouteConfiguration`, of which each
//! route is encoded once, and a listener becomes a `Listener` that reads it. What Envoy cannot do as it is written is withheld, never done by halves.

mod agent;
mod cluster;
mod fields;
mod follow;
pub(crate) mod grpc;
mod hosts;
mod listener;
mod matching;
mod mesh;
mod pattern;
mod plugins;
mod re2;
mod route;
#[cfg(test)]
mod tests;
mod weights;
mod wire;
mod zones;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::codec;
use crate::model::{Certificate, Consumer, Endpoints, Kind, Resource, Route, RouteMatch, SecretBody, Upstream};
use crate::snapshot::{Changes, History, SnapshotSource, Versioned, View};

pub use follow::{Ledger, follow, follow_one, follow_services};
pub use mesh::Member;

/// The name of the one `RouteConfiguration`.
pub const ROUTES: &str = "heddle";

/// A resource of the model that Envoy is not given, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withheld {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// What Envoy lacks.
    pub reason: String,
}

/// What differs for nodes: resources of Envoy in the place of those of the model that they stand for, and names that are gone.
pub type Difference = Vec<Result<Versioned, (Kind, Arc<str>)>>;

/// Who reads what is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// Envoys.
    #[default]
    Envoy,
    /// Agents of ours that ask for Envoy's types: what they do not know of it is withheld from them, as what Envoy lacks is from Envoys.
    Agent,
    /// Clients and servers of gRPC, which know a part of it.
    Grpc,
}

/// What is answered in the place of routes that are withheld.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gap {
    /// 404, as where there is no route.
    #[default]
    NotFound,
    /// 503, as where there is a route that does not work.
    Unavailable,
}

impl Gap {
    fn status(self) -> u32 {
        match self {
            Gap::NotFound => 404,
            Gap::Unavailable => 503,
        }
    }
}

/// What a route needs beside the table of routes.
#[derive(Debug, Default)]
struct Beside {
    further: plugins::Filters,
    copies: BTreeMap<Arc<str>, plugins::Extra>,
}

impl Reader {
    fn as_str(self) -> &'static str {
        match self {
            Reader::Envoy => "Envoys",
            Reader::Agent => "agents of ours that ask for Envoy's types",
            Reader::Grpc => "clients of gRPC",
        }
    }
}

/// Keeps what Envoys are given of a snapshot, and says what differs when it changes.
#[derive(Debug, Default)]
pub struct Encoder {
    reader: Reader,
    routes: hosts::Table,
    /// How the table of all routes came to be.
    history: Arc<History>,
    /// Routes by the upstreams that they lead to, and the other way around.
    users: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    used: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    withheld: BTreeMap<(Kind, Arc<str>), String>,
    /// Clusters that hold their endpoints themselves.
    inline: BTreeSet<Arc<str>>,
    /// What listeners have to know for routes, and where copies of requests go, by route.
    beside: BTreeMap<Arc<str>, Beside>,
    /// What is answered in the place of routes that are withheld.
    gap: Gap,
    /// All consumers, and the routes that ask who they are.
    consumers: Arc<[Consumer]>,
    asking: BTreeSet<Arc<str>>,
    /// What is said of plugins wherever they are used.
    metadata: Arc<plugins::Metadata>,
    /// Whether who reads it has an identity of the mesh.
    members: bool,
    /// The zone of who reads it, empty when unknown; `None`: zones make no difference to them.
    zone: Option<Arc<str>>,
    /// Upstreams to which listeners for bytes lead.
    led: BTreeSet<Arc<str>>,
    /// What was given, by kind.
    given: BTreeSet<(Kind, Arc<str>)>,
}

impl Encoder {
    /// Nothing is encoded yet.
    pub fn new(reader: Reader, gap: Gap) -> Encoder {
        Encoder { reader, gap, zone: Some(Arc::default()), ..Encoder::default() }
    }

    /// The same for nodes that have an identity of the mesh, or have none.
    pub fn of_members(self, members: bool) -> Encoder {
        Encoder { members, ..self }
    }

    /// The same for nodes of this zone; `None`: as if zones were off.
    pub fn in_zone(self, zone: Option<Arc<str>>) -> Encoder {
        Encoder { zone, ..self }
    }

    /// What differs now that the snapshot is `view`, which it became by `changes`.
    pub fn apply(&mut self, view: &View, changes: &Changes) -> Difference {
        let names = self.touched(view, changes);
        let (mut out, mut listeners, mut routes) = (Difference::new(), changes.names.is_none(), changes.names.is_none());
        let (before, mut changed) = (self.further(), BTreeSet::new());
        for (kind, name) in names {
            match kind {
                Kind::Secret if self.reader != Reader::Grpc => self.secret(view, name, &mut out),
                Kind::Upstream if plugins::is_beside(&name) => {}
                Kind::Upstream | Kind::Endpoints => {
                    listeners |= kind == Kind::Upstream && self.led.contains(&name);
                    self.cluster(view, &name, kind, &mut out);
                }
                Kind::Route => changed.extend(self.route(view, &name).then_some(name)),
                Kind::Certificate | Kind::Listener => listeners = true,
                // Servers of gRPC ask them.
                Kind::AuthorizationPolicy | Kind::MeshInbound if self.reader == Reader::Grpc => {
                    let found = view.find(kind, &name).map(|found| Ok(Versioned::clone(found)));
                    self.give(kind, &name, found, &mut out);
                }
                _ => {}
            }
        }
        routes |= !changed.is_empty();
        match self.reader {
            Reader::Envoy | Reader::Agent if routes => out.push(Ok(self.all_routes(changed))),
            Reader::Grpc if routes => grpc::tables(&mut self.routes, &mut out),
            _ => {}
        }
        if routes {
            self.copies(&mut out);
        }
        let further = self.further();
        if (listeners || further != before) && self.reader != Reader::Grpc {
            self.listeners(view, &further, &mut out);
        }
        for change in &out {
            match change {
                Ok(given) => {
                    self.given.insert((given.resource.kind(), given.resource.name().clone()));
                }
                Err(gone) => {
                    self.given.remove(gone);
                }
            }
        }
        out
    }

    /// What is to be looked at anew: what has changed, and the routes that it is in.
    fn touched(&mut self, view: &View, changes: &Changes) -> BTreeSet<(Kind, Arc<str>)> {
        let mut names: BTreeSet<(Kind, Arc<str>)> = match &changes.names {
            Some(names) => names.iter().cloned().collect(),
            None => {
                let here = Kind::ALL.into_iter().flat_map(|kind| {
                    let names: Vec<_> = view.all(kind).1.iter().map(|(name, _)| (kind, name.clone())).collect();
                    names
                });
                here.chain(self.given.iter().cloned()).chain(self.withheld.keys().cloned()).chain(self.routes.names()).collect()
            }
        };
        // What is said of all routes stands in each of them.
        if names.iter().any(|(kind, _)| *kind == Kind::GlobalRule) {
            names.extend(view.all(Kind::Route).1.iter().map(|(name, _)| (Kind::Route, name.clone())));
        }
        if names.iter().any(|(kind, _)| *kind == Kind::Consumer) {
            self.consumers = route::consumers(view);
            names.extend(self.asking.iter().map(|name| (Kind::Route, name.clone())));
        }
        if changes.names.is_none() || names.iter().any(|(kind, _)| *kind == Kind::PluginMetadata) {
            self.metadata = route::metadata(view);
            let plugins: BTreeSet<Arc<str>> =
                names.iter().filter(|(kind, _)| *kind == Kind::PluginMetadata).map(|(_, name)| name.clone()).collect();
            names.extend(route::using(view, &plugins).into_iter().map(|name| (Kind::Route, name)));
        }
        let leading = names.iter().filter(|(kind, _)| *kind == Kind::Upstream);
        let routes: Vec<_> = leading.filter_map(|(_, name)| self.users.get(name)).flatten().cloned().collect();
        names.extend(routes.into_iter().map(|name| (Kind::Route, name)));
        names
    }

    /// What Envoys are not given.
    pub fn withheld(&self) -> Vec<Withheld> {
        let one = |((kind, name), reason): (&(Kind, Arc<str>), &String)| Withheld {
            kind: *kind,
            name: name.clone(),
            reason: reason.clone(),
        };
        self.withheld.iter().map(one).collect()
    }

    /// Gives what could be encoded, or takes back what was given before.
    fn give(&mut self, kind: Kind, name: &Arc<str>, encoded: Option<Result<Versioned, String>>, out: &mut Difference) {
        self.withheld.remove(&(kind, name.clone()));
        match encoded {
            Some(Ok(versioned)) => return out.push(Ok(versioned)),
            Some(Err(reason)) => drop(self.withheld.insert((kind, name.clone()), reason)),
            None => {}
        }
        if self.given.contains(&(kind, name.clone())) {
            out.push(Err((kind, name.clone())));
        }
    }

    /// Key material is the same in both dialects; managers of secrets are our agents' alone.
    fn secret(&mut self, view: &View, name: Arc<str>, out: &mut Difference) {
        let material = |versioned: &&Arc<Versioned>| match &versioned.resource {
            Resource::Secret(secret) => !matches!(secret.body, SecretBody::Manager(_)),
            _ => false,
        };
        let found = view.find(Kind::Secret, &name).filter(material).map(|versioned| Ok(Versioned::clone(versioned)));
        self.give(Kind::Secret, &name, found, out);
    }

    /// The cluster of an upstream and its endpoints. The endpoints of one that are names stand in the cluster itself, since EDS carries addresses only.
    fn cluster(&mut self, view: &View, name: &Arc<str>, changed: Kind, out: &mut Difference) {
        let upstream = upstream(view, name);
        let endpoints = endpoints(view, name);
        let ranked = endpoints.map(|endpoints| zones::ranked(self.zone.as_deref(), upstream, endpoints));
        let ranked = ranked.as_ref();
        let inline = cluster::is_inline(upstream, ranked);
        let was_inline = self.inline.remove(name);
        if inline {
            self.inline.insert(name.clone());
        }
        let follows = inline || was_inline || upstream.is_some_and(cluster::follows_endpoints);
        if changed == Kind::Upstream || follows || self.withheld.contains_key(&(Kind::Upstream, name.clone())) {
            let encoded = upstream.map(|upstream| {
                let body = match self.reader {
                    Reader::Envoy => cluster::encode(upstream, ranked, self.members),
                    Reader::Agent => cluster::encode(upstream, ranked, self.members).and_then(agent::cluster),
                    Reader::Grpc => grpc::cluster(upstream, ranked, self.members),
                };
                body.map(|body| Versioned::encoded(Resource::Upstream(Arc::new(upstream.clone())), body))
            });
            self.give(Kind::Upstream, name, encoded, out);
        }
        let assigned =
            endpoints.zip(ranked).filter(|_| !inline && upstream.is_some_and(|upstream| self.members || upstream.mesh.is_none()));
        let encoded = assigned.map(|(endpoints, ranked)| {
            let body = match self.reader {
                Reader::Envoy | Reader::Agent => cluster::assignment(ranked, upstream),
                Reader::Grpc => grpc::assignment(ranked, upstream),
            };
            Ok(Versioned::encoded(Resource::Endpoints(endpoints.clone()), body))
        });
        self.give(Kind::Endpoints, name, encoded, out);
    }

    /// Encodes a route anew; whether the table of routes is another one then.
    fn route(&mut self, view: &View, name: &Arc<str>) -> bool {
        self.withheld.remove(&(Kind::Route, name.clone()));
        self.leads_nowhere(name);
        self.beside.remove(name);
        self.asking.remove(name);
        let found = view.find(Kind::Route, name).map(|versioned| &versioned.resource);
        let Some(Resource::Route(route)) = found else { return self.routes.set(name, Vec::new()) };
        let find = |name: &str| upstream(view, name);
        let everywhere = route::everywhere(view);
        let around = (&everywhere[..], &self.consumers, &self.metadata);
        if route.plugins.iter().chain(&everywhere).any(|plugin| plugins::asks_consumers(&plugin.name)) {
            self.asking.insert(name.clone());
        }
        let encoded = match self.reader {
            Reader::Envoy => route::encode((self.reader, route), around, &find),
            Reader::Agent => route::encode((self.reader, route), around, &find).and_then(agent::route),
            Reader::Grpc => grpc::route(route, &everywhere, &find),
        };
        match encoded.and_then(|encoded| self.answerable(encoded)) {
            Ok(encoded) => {
                for upstream in encoded.upstreams {
                    self.leads_to(upstream, name);
                }
                if !encoded.further.is_empty() || !encoded.copies.is_empty() {
                    self.beside.insert(name.clone(), Beside { further: encoded.further, copies: encoded.copies });
                }
                self.routes.set(name, encoded.places)
            }
            Err(reason) => {
                let asked = route.plugins.iter().chain(&everywhere).filter_map(plugins::asked).map(Arc::from);
                for upstream in route.upstream.iter().map(|upstream| upstream.name.clone()).chain(asked) {
                    self.leads_to(upstream, name);
                }
                self.withheld.insert((Kind::Route, name.clone()), reason);
                let gap = match self.reader {
                    Reader::Envoy => route::gap(route, self.gap.status(), |_| Ok(())),
                    Reader::Agent => agent::gap(route::gap(route, self.gap.status(), |_| Ok(()))),
                    Reader::Grpc => grpc::gap(route, self.gap.status()),
                };
                self.routes.set(name, gap)
            }
        }
    }

    /// Whom its filters ask has to be there: who passes where nobody answers would pass unasked.
    fn answerable(&self, encoded: route::Encoded) -> Result<route::Encoded, String> {
        let withheld = |name: &Arc<str>| Some((name.clone(), self.withheld.get(&(Kind::Upstream, name.clone()))?));
        match encoded.asked.iter().find_map(withheld) {
            Some((name, reason)) => Err(format!("asks upstream {name}, which is withheld: {reason}")),
            None => Ok(encoded),
        }
    }

    /// The one table, in which these have changed.
    fn all_routes(&mut self, changed: BTreeSet<Arc<str>>) -> Versioned {
        let table = Versioned::encoded(table(ROUTES), self.routes.encode());
        self.history = Arc::new(self.history.then(table.version.clone(), changed));
        Versioned { history: Some(self.history.clone()), ..table }
    }

    fn leads_to(&mut self, upstream: Arc<str>, route: &Arc<str>) {
        self.used.entry(route.clone()).or_default().insert(upstream.clone());
        self.users.entry(upstream).or_default().insert(route.clone());
    }

    fn leads_nowhere(&mut self, route: &Arc<str>) {
        for upstream in self.used.remove(route).into_iter().flatten() {
            if let Some(users) = self.users.get_mut(&upstream) {
                users.remove(route);
                if users.is_empty() {
                    self.users.remove(&upstream);
                }
            }
        }
    }

    /// What listeners have to know for all routes.
    fn further(&self) -> plugins::Filters {
        self.beside.values().flat_map(|beside| beside.further.clone()).collect()
    }

    /// Clusters to which copies of requests go, and those that filters ask.
    fn copies(&mut self, out: &mut Difference) {
        let wanted: BTreeMap<Arc<str>, plugins::Extra> = self.beside.values().flat_map(|beside| beside.copies.clone()).collect();
        let is_gone = |name: &Arc<str>| plugins::is_beside(name) && !wanted.contains_key(name);
        let gone: Vec<_> = self.names_of(Kind::Upstream).filter(is_gone).collect();
        for name in gone {
            self.give(Kind::Upstream, &name, None, out);
        }
        for (name, extra) in wanted {
            let encoded = cluster::extra(&extra);
            let encoded = encoded.map(|body| Versioned::encoded(Resource::Upstream(Arc::new(extra.upstream)), body));
            self.give(Kind::Upstream, &name, Some(encoded), out);
        }
    }

    /// All listeners: each of TLS shows every certificate, those for bytes say what their upstreams do.
    fn listeners(&mut self, view: &View, further: &plugins::Filters, out: &mut Difference) {
        let (certificates, listeners) = (view.all(Kind::Certificate).1, view.all(Kind::Listener).1);
        self.withheld.retain(|(kind, _), _| *kind != Kind::Certificate);
        let mut shown = Vec::with_capacity(certificates.len());
        for (name, found) in &certificates {
            let Resource::Certificate(certificate) = &found.resource else { continue };
            let (certificate, left_out) = listener::usable(certificate);
            self.withheld.extend(left_out.map(|reason| ((Kind::Certificate, Arc::clone(name)), reason)));
            shown.push(certificate);
        }
        let certificates: Vec<&Certificate> = shown.iter().map(|certificate| &**certificate).collect();
        let gone: Vec<_> = self.names_of(Kind::Listener).filter(|name| !listeners.contains_key(&**name)).collect();
        for name in gone {
            self.give(Kind::Listener, &name, None, out);
        }
        self.led.clear();
        for (name, found) in &listeners {
            let Resource::Listener(listener) = &found.resource else { continue };
            self.led.extend(listener.tcp.iter().flat_map(|route| &route.upstreams).map(|share| share.upstream.clone()));
            let find = |name: &str| match self.withheld.get(&(Kind::Upstream, name.into())) {
                Some(reason) => Err(reason.clone()),
                None => Ok(upstream(view, name)),
            };
            let encoded = listener::encode((self.reader, listener), &certificates, further, &find);
            let encoded = if self.reader == Reader::Agent { encoded.and_then(agent::listener) } else { encoded };
            let encoded = encoded.map(|body| Versioned::encoded(found.resource.clone(), body));
            self.give(Kind::Listener, name, Some(encoded), out);
        }
    }

    fn names_of(&self, kind: Kind) -> impl Iterator<Item = Arc<str>> + use<'_> {
        let all = self.given.iter().chain(self.withheld.keys());
        all.filter(move |(other, _)| *other == kind).map(|(_, name)| name.clone())
    }
}

fn upstream<'a>(view: &'a View, name: &str) -> Option<&'a Upstream> {
    match &view.find(Kind::Upstream, name)?.resource {
        Resource::Upstream(upstream) => Some(upstream),
        _ => None,
    }
}

fn endpoints<'a>(view: &'a View, name: &str) -> Option<&'a Endpoints> {
    match &view.find(Kind::Endpoints, name)?.resource {
        Resource::Endpoints(endpoints) => Some(endpoints),
        _ => None,
    }
}

/// What a table of routes stands for in a snapshot: a route that is for every gateway.
fn table(name: &str) -> Resource {
    Resource::Route(Route {
        id: name.into(),
        name: "".into(),
        service_id: "".into(),
        service_name: "".into(),
        matches: RouteMatch::default(),
        priority: 0,
        created: 0,
        plugins: Vec::new(),
        upstream: None,
        timeouts: None,
        enable_websocket: false,
        max_duration: None,
    })
}

/// The bytes of a message.
fn bytes(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The endpoints as our own dialect says them.
fn plain_assignment(endpoints: &Endpoints) -> heddle_proto::envoy::config::endpoint::v3::ClusterLoadAssignment {
    codec::assignment(endpoints)
}
