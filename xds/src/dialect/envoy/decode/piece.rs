//! What is read out of each resource of Envoy, before the resources that it names are known. It knows no message and no other resource.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::read::Fault;
use crate::model::{Certificate, DropOverload, Endpoint, HashOn, HashTable, Listener, Secret, Upstream};

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// How its endpoints are used, under the cluster's own name.
    pub upstream: Arc<Upstream>,
    /// Where they come from.
    pub addresses: Addresses,
    /// Weights of localities count.
    pub by_locality: bool,
    /// Requests are spread over this by a hash of what their route says.
    pub table: Option<HashTable>,
    /// Key material that it holds itself.
    pub secrets: Vec<Secret>,
    /// Names of secrets that it asks SDS for.
    pub asks_secrets: Vec<Arc<str>>,
    /// How long it waits for its endpoints before it is used without.
    pub patience: Duration,
}

/// Where the endpoints of a cluster come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// EDS, under this name.
    Asked(Arc<str>),
    /// The cluster itself.
    Told(Assignment),
}

/// A listener, for its chains of filters: all take HTTP, or all pass bytes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Door {
    /// The socket and what is let in.
    pub listener: Listener,
    /// What is done with requests: one, or one for each set of server names.
    pub chains: Vec<Chain>,
    /// Key material that it holds itself.
    pub secrets: Vec<Secret>,
    /// Names of secrets that it asks SDS for.
    pub asks_secrets: Vec<Arc<str>>,
}

impl Door {
    /// That another listener has its address.
    pub fn taken_by(&self, holder: &str) -> Fault {
        let address = self.listener.address;
        Fault::new("address", format!("{address} is the address of the listener {holder}, and one address is for one listener"))
    }
}

/// A chain of filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Server names for which it is; empty is any.
    pub names: Vec<Arc<str>>,
    /// It is for clients that begin with TLS, or for those that do not; `None` where it does not say.
    pub for_tls: Option<bool>,
    /// What is shown to clients, with TLS.
    pub certificate: Option<Certificate>,
    /// It is the one for all that no other fits.
    pub is_default: bool,
    /// What is done with connections.
    pub does: Does,
}

/// What is done with connections.
#[derive(Debug, Clone, PartialEq)]
pub enum Does {
    /// Their requests go by routes.
    Http(Http),
    /// Their bytes go to a cluster.
    Tcp(TcpProxy),
}

impl Chain {
    /// Where it stands in its listener.
    pub fn place(&self, at: usize) -> String {
        if self.is_default { "default_filter_chain".to_owned() } else { format!("filter_chains[{at}]") }
    }

    /// What is done with requests, where there are some.
    pub fn http(&self) -> Option<&Http> {
        match &self.does {
            Does::Http(http) => Some(http),
            Does::Tcp(_) => None,
        }
    }

    /// The clusters that requests, their copies, bytes and questions about requests go to, as far as the chain says so itself, and does not say that they may be
    /// missing.
    pub fn clusters(&self) -> Vec<&str> {
        let http = match &self.does {
            Does::Tcp(proxy) => return proxy.targets.iter().map(|target| &*target.cluster).collect(),
            Does::Http(http) => http,
        };
        let mut clusters: Vec<&str> = http.filters.iter().flat_map(Filter::clusters).collect();
        let Routes::Told(table) = &http.routes else { return clusters };
        if !table.checks_clusters {
            return clusters;
        }
        for route in table.hosts.iter().flat_map(|host| &host.routes) {
            clusters.extend(route.targets.iter().map(|target| &*target.cluster));
            clusters.extend(route.mirrors.iter().map(|mirror| &*mirror.cluster));
        }
        clusters
    }
}

/// Bytes that are passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpProxy {
    /// Where they go, and the shares.
    pub targets: Vec<Target>,
    /// How long nothing may move; zero is for ever.
    pub idle: Duration,
    /// How old connections may become; zero is without end.
    pub age: Duration,
    /// How many endpoints are tried at most.
    pub attempts: u32,
    /// Where the cluster spreads by a hash, it is that of the client's address.
    pub by_source: bool,
}

/// What is done with the requests of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// Where its routes are.
    pub routes: Routes,
    /// What runs for each request, in order.
    pub filters: Vec<Filter>,
    /// Protocols that a connection may be upgraded to; only WebSocket is.
    pub websocket: bool,
    /// A port behind the name of a host does not count.
    pub strips_port: bool,
    /// How long a stream may be silent, where its route does not say.
    pub idle: Duration,
    /// Requests get an id.
    pub request_id: bool,
}

/// Where routes are.
#[derive(Debug, Clone, PartialEq)]
pub enum Routes {
    /// RDS has them, under this name, and is waited for this long.
    Asked(Arc<str>, Duration),
    /// In the listener.
    Told(Arc<RouteTable>),
}

/// A filter of a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Its name there, by which routes speak of it.
    pub name: Arc<str>,
    /// What it does where a route says nothing; `None` where it does nothing then.
    pub does: Option<Deed>,
    /// What it does where a route names it.
    pub named: Arc<BTreeMap<Arc<str>, Deed>>,
    /// ECDS says what it does, under its name; `does` is what it does until then.
    pub asked: Option<Asked>,
    /// Switched off unless a route switches it on.
    pub disabled: bool,
}

impl Filter {
    /// The clusters that it asks about requests.
    fn clusters(&self) -> impl Iterator<Item = &str> {
        let deeds = self.does.iter().chain(self.named.values()).flatten();
        deeds.filter_map(|(_, config)| config.get("upstream_id")?.as_str())
    }
}

/// How ECDS is asked for what a filter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// How long it is waited for.
    pub patience: Duration,
    /// There is something that it does until then. Without it requests are refused: it might guard them.
    pub has_default: bool,
    /// It is not waited for.
    pub at_once: bool,
}

/// What a filter does, by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Extension {
    /// The name of the filter.
    pub name: Arc<str>,
    /// As plugins; `None` where it does nothing.
    pub does: Option<Deed>,
    /// What it does where a route names it.
    pub named: Arc<BTreeMap<Arc<str>, Deed>>,
}

/// What a filter does, as plugins of ours.
pub type Deed = Vec<(&'static str, Value)>;

/// A route configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteTable {
    /// Its name.
    pub name: Arc<str>,
    /// Virtual hosts, in the order given.
    pub hosts: Vec<VirtualHost>,
    /// A port behind the name of a host does not count.
    pub ignores_port: bool,
    /// Whether it is a mistake of a bootstrap when routes lead to clusters that are not there.
    pub checks_clusters: bool,
}

/// Routes of some domains.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// Lower-case domains: exact, `*.suffix`, `prefix.*` or `*`.
    pub domains: Vec<Arc<str>>,
    /// Routes, of which the first that fits decides.
    pub routes: Vec<Route>,
}

/// A route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its name, empty when not given.
    pub name: Arc<str>,
    /// What the path must look like.
    pub path: Path,
    /// Further conditions, all of which must hold, as our expressions write them.
    pub conditions: Vec<Value>,
    /// Methods; empty is any.
    pub methods: Vec<Arc<str>>,
    /// What it does by itself, as plugins of ours.
    pub plugins: Deed,
    /// Where requests go; empty when a plugin answers.
    pub targets: Vec<Target>,
    /// Where copies of them go.
    pub mirrors: Vec<Mirror>,
    /// What the endpoint is told as host is its own name.
    pub own_host: bool,
    /// What requests are spread by where the cluster does so.
    pub hash: Option<HashOn>,
    /// How long the answer may take; `None` is no limit.
    pub timeout: Option<Duration>,
    /// How long a whole exchange may take, its answer to the end included; `None` is no limit.
    pub whole: Option<Duration>,
    /// How long each of several tries may take, where that is said.
    pub each_try: Option<Duration>,
    /// How long its streams may be silent; `None` is what the listener says.
    pub idle: Option<Duration>,
    /// What it says of WebSocket, where it does.
    pub websocket: Option<bool>,
    /// What it says of the listener's filters, by their names: what they do here, or nothing.
    pub overrides: Vec<(Arc<str>, Override)>,
}

/// Where nothing limits an answer.
const NO_LIMIT: Duration = Duration::from_secs(366 * 24 * 3600);

impl Route {
    /// How long the answer may take, all tries together, where streams of its listener may be silent for so long.
    pub(crate) fn limit(&self, idle: Duration) -> Duration {
        let limit = self.timeout.or(self.idle).unwrap_or(idle);
        if limit.is_zero() { NO_LIMIT } else { limit.min(NO_LIMIT) }
    }

    /// How long a whole exchange may take, where that is bounded.
    pub(crate) fn end(&self) -> Option<Duration> {
        self.whole.filter(|limit| *limit < NO_LIMIT)
    }
}

/// What a route says of a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Override {
    /// It is not to run.
    Off,
    /// It does this instead.
    Does(Deed),
    /// It does what it does elsewhere, but for these fields of its configuration; those that are null are taken away.
    But(Value),
    /// It does what the filter knows by this name.
    Named(Arc<str>),
}

/// A cluster that requests go to, and its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Its weight.
    pub weight: u32,
}

/// A cluster that gets copies.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Share of requests that are copied, 0 to 1.
    pub share: f64,
    /// Copies say in the name of their host that they are some.
    pub marked: bool,
}

/// What a path must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// Exactly so.
    Exact(Arc<str>),
    /// So at its beginning.
    Prefix(Arc<str>),
    /// So, or so with a slash and anything behind it.
    Below(Arc<str>),
    /// As this pattern, which covers it all.
    Pattern(Arc<str>),
}

/// Addresses under the name that a cluster asks EDS for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The name.
    pub name: Arc<str>,
    /// The addresses.
    pub endpoints: Arc<[Endpoint]>,
    /// Their localities, for clusters that go by the weights of these.
    pub localities: Vec<Locality>,
    /// Percent of its fair share that an endpoint may be given before the next priority helps.
    pub overprovisioning: u32,
    /// How much of a priority stands goes by the weights of its endpoints, not by their number.
    pub health_by_weight: bool,
    /// As whom its endpoints are probed, where that is not what the check of the cluster says.
    pub probed: Option<Probed>,
    /// Requests that are not sent at all.
    pub drops: Vec<DropOverload>,
}

/// The host that probes of endpoints name, in the place of the one of the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// The endpoint itself, each its own.
    Own,
    /// This one, all alike.
    As(Arc<str>),
}

/// Endpoints of one place and priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locality {
    /// Region, zone and place in it, as one name.
    pub name: Arc<str>,
    /// Their priority.
    pub priority: i32,
    /// Its weight among those of its priority; nothing goes to one without.
    pub weight: u32,
    /// How many of the endpoints are its, in their order.
    pub count: usize,
}
