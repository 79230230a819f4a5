//! Upstreams: how a named set of endpoints is used.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{MeshPeer, Timeouts};

/// How a named set of endpoints is used. Its addresses are the `Endpoints` of the same name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Upstream {
    /// `upstreams/<id>` for shared ones, `routes/<id>` or `services/<id>` for inline ones.
    pub name: Arc<str>,
    /// User-visible name for metrics and logs (the id of an upstream, else `name`).
    pub label: Arc<str>,
    /// How an endpoint is chosen.
    pub balancer: Balancer,
    /// Protocol spoken to endpoints.
    pub scheme: Scheme,
    /// What the endpoint sees as host.
    pub pass_host: PassHost,
    /// Further tries after the first; `None` is one less than the number of endpoints.
    pub retries: Option<u32>,
    /// No new try after this long; zero is no limit.
    pub retry_timeout: Duration,
    /// Step timeouts.
    pub timeouts: Timeouts,
    /// Idle connections kept per endpoint and worker.
    pub keepalive: KeepalivePool,
    /// TLS towards endpoints, used with `https` and `grpcs`.
    pub tls: UpstreamTls,
    /// Health checking.
    pub checks: HealthChecks,
    /// Limits that break the circuit.
    pub breakers: CircuitBreakers,
    /// Where addresses come from when not listed.
    pub discovery: Option<Discovery>,
    /// A recovered or new endpoint ramps up to its weight over this long; zero is at once.
    pub slow_start: Duration,
    /// Below this share of healthy endpoints (percent, per priority), and wherever none is, health is ignored. 0 switches both off; `None` is where none is
    /// healthy alone.
    pub panic_threshold: Option<u8>,
    /// Its endpoints stand behind sidecars of the mesh: `scheme` and `tls` say nothing then.
    pub mesh: Option<MeshPeer>,
    /// Which zones are used.
    pub locality: ZonePolicy,
    /// Whether the load of the other gateways of the group counts in choosing too.
    pub fleet_load: bool,
    /// Its endpoints stand behind sidecars of the mesh that are to be called in clear, as a `peer_authentication` says: `mesh` is `None` then.
    pub in_clear: bool,
    /// Shares of the requests that are not sent at all, each drawn by itself.
    pub drops: Vec<DropOverload>,
}

/// A share of the requests that is answered with 503 in the place of endpoints that have too much to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DropOverload {
    /// Under which name it is counted.
    pub category: Arc<str>,
    /// How many of a million.
    pub millionths: u32,
}

impl DropOverload {
    /// Most of them for one upstream.
    pub const MOST: usize = 16;
    /// The share that is all requests.
    pub const ALL: u32 = 1_000_000;
}

impl Upstream {
    /// Whether its endpoints stand behind sidecars of the mesh, however these are to be called.
    #[must_use]
    pub fn is_in_mesh(&self) -> bool {
        self.mesh.is_some() || self.in_clear
    }

    /// Whether it came by Envoy's types, all of which say how requests are spread: what an endpoint may have seen of a request is sent again only where a route says so.
    #[must_use]
    pub fn is_of_envoy(&self) -> bool {
        self.locality.spread.is_some()
    }

    /// An upstream of which nothing is said but its name: what users get who write nothing more, but tries and health that nobody asked for.
    pub fn new(name: impl Into<Arc<str>>) -> Upstream {
        let name = name.into();
        Upstream {
            label: name.clone(),
            name,
            balancer: Balancer::RoundRobin,
            scheme: Scheme::Http,
            pass_host: PassHost::Pass,
            retries: Some(0),
            retry_timeout: Duration::ZERO,
            timeouts: Timeouts::default(),
            keepalive: KeepalivePool::default(),
            tls: UpstreamTls::default(),
            checks: HealthChecks::default(),
            breakers: CircuitBreakers::default(),
            discovery: None,
            slow_start: Duration::ZERO,
            panic_threshold: None,
            mesh: None,
            locality: ZonePolicy::default(),
            fleet_load: false,
            in_clear: false,
            drops: Vec::new(),
        }
    }
}

/// Which zones are used, seen from the zone of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ZonePolicy {
    /// Whether the own zone comes first.
    pub mode: ZoneMode,
    /// Zones in the order in which they take over; those that are not named come last, together.
    pub failover: Vec<Arc<str>>,
    /// Percent of its fair share that an endpoint may be given before the next zone helps, 100 or more.
    pub overprovisioning: u32,
    /// Requests are spread over priorities and localities as Envoy does, instead of what `mode` says.
    pub spread: Option<Spread>,
}

/// How requests are spread over localities. Without weights they do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Weights of localities; those that have none get nothing where others have some.
    pub weights: Vec<LocalityWeight>,
    /// What a priority can carry follows from the weights of its endpoints that stand, not from their number.
    pub health_by_weight: bool,
}

/// The weight of one locality among those of its priority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalityWeight {
    /// Priority of its endpoints.
    pub priority: i32,
    /// Their zone.
    pub zone: Arc<str>,
    /// The weight.
    pub weight: u32,
}

impl Default for ZonePolicy {
    /// Own zone first, 140 percent: Envoy's overprovisioning factor.
    fn default() -> Self {
        ZonePolicy { mode: ZoneMode::Prefer, failover: Vec::new(), overprovisioning: 140, spread: None }
    }
}

impl ZonePolicy {
    /// Whether zones make a difference to a node of this zone; `""` is one that has none.
    pub fn matters(&self, own: &str) -> bool {
        match self.mode {
            ZoneMode::Off => false,
            ZoneMode::Prefer => !own.is_empty(),
            ZoneMode::Strict => true,
        }
    }

    /// The level of a zone to a node of the zone `own`, the first one to be used is 0; `None` when it is not to be used.
    pub fn level(&self, own: &str, zone: &str) -> Option<usize> {
        if !self.matters(own) || zone == own {
            return Some(0);
        }
        let named = self.failover.iter().position(|named| **named == *zone);
        match self.mode {
            ZoneMode::Strict => named.map(|at| at + 1),
            _ => Some(named.unwrap_or(self.failover.len()) + 1),
        }
    }
}

/// Whether the own zone comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ZoneMode {
    /// Own zone first, the others when it cannot carry all.
    Prefer,
    /// Own zone and those named for failover, no others.
    Strict,
    /// Zones do not matter.
    Off,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Balancer {
    /// Smooth weighted round robin.
    RoundRobin,
    /// Consistent hashing.
    ConsistentHash(HashOn, HashTable),
    /// Fewest requests in flight by weight.
    LeastConn,
    /// Two random choices by decayed response time.
    Ewma,
}

/// How hashes of keys are spread over endpoints, in proportion to their weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum HashTable {
    /// A ketama ring.
    Ring(RingSize),
    /// Maglev's table.
    Maglev {
        /// Its places, a prime.
        places: u32,
    },
}

/// How many points a ring has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum RingSize {
    /// The same number for each unit of weight however many endpoints there are, so that one that leaves moves only its own keys.
    ByWeight,
    /// In all, as Envoy says it.
    Of {
        /// At least, where the lightest endpoint is to have a whole number.
        least: u32,
        /// At most.
        most: u32,
    },
}

impl HashTable {
    /// What rings are where nobody says more.
    pub const RING: HashTable = HashTable::Ring(RingSize::ByWeight);
    /// What tables are where nobody says more: the larger size of the paper, which is Envoy's default.
    pub const MAGLEV: HashTable = HashTable::Maglev { places: 65_537 };
    /// Most points and places that are taken from elsewhere: some 16 MiB.
    pub const MOST: u32 = 1 << 20;

    /// A ring of this size; `None` where the least is none or more than the most.
    pub fn ring(least: u32, most: u32) -> Option<HashTable> {
        let fits = 1 <= least && least <= most && most <= Self::MOST;
        fits.then_some(HashTable::Ring(RingSize::Of { least, most }))
    }

    /// A table of this size; `None` where it is no prime, with which nobody's turns would come to every place.
    pub fn maglev(places: u32) -> Option<HashTable> {
        let mut divisors = (2..).take_while(|divisor| divisor * divisor <= places);
        let is_prime = places > 1 && !divisors.any(|divisor| places.is_multiple_of(divisor));
        (places <= Self::MOST && is_prime).then_some(HashTable::Maglev { places })
    }
}

impl RingSize {
    /// Points for each unit of weight after the weights were divided by their greatest common divisor. A power of two, so that shares of a ring are whole
    /// numbers in floating point too.
    const PER_UNIT: u64 = 128;
    /// Most points of a ring whose size follows the weights: 1 MiB of memory.
    const MOST: u32 = 65_536;

    /// The least and the most points over endpoints of these weights, all above zero.
    pub fn bounds(self, weights: impl Iterator<Item = u32> + Clone) -> (u32, u32) {
        if let RingSize::Of { least, most } = self {
            return (least, most);
        }
        let divisor = u64::from(weights.clone().fold(0, gcd)).max(1);
        let units: u64 = weights.map(|weight| u64::from(weight) / divisor).sum();
        let least = units.saturating_mul(Self::PER_UNIT).clamp(1, u64::from(Self::MOST));
        (u32::try_from(least).unwrap_or(Self::MOST), Self::MOST)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Where the hash key of a request comes from. A missing key falls back to `remote_addr`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum HashOn {
    /// A variable, without `$`.
    Var(Arc<str>),
    /// A request header.
    Header(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
    /// The consumer that authentication found.
    Consumer,
    /// A template such as `$host$uri`.
    VarsCombination(Arc<str>),
}

/// Protocol spoken to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Scheme {
    /// HTTP/1.1 in clear.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 in clear, prior knowledge.
    Grpc,
    /// HTTP/2 over TLS.
    Grpcs,
}

impl Scheme {
    /// Port used when a node does not say one.
    pub fn default_port(self) -> u16 {
        if self.is_tls() { 443 } else { 80 }
    }
    /// Whether TLS is spoken.
    pub fn is_tls(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Grpcs)
    }
    /// Whether HTTP/2 is spoken.
    pub fn is_h2(self) -> bool {
        matches!(self, Scheme::Grpc | Scheme::Grpcs)
    }
}

/// What the endpoint sees as host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum PassHost {
    /// The client's.
    Pass,
    /// The node's own name, with its port where that is not the scheme's.
    Node,
    /// A fixed one.
    Rewrite(Arc<str>),
}

/// Idle connections kept per endpoint and worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KeepalivePool {
    /// Most idle connections.
    pub size: u32,
    /// Closed after this long without use.
    pub idle_timeout: Duration,
    /// Closed after this many requests.
    pub requests: u32,
    /// Given no further requests after this long, and closed when those under way have ended; zero is no limit.
    pub max_age: Duration,
}

impl KeepalivePool {
    /// Whether a connection of this age gets no further requests.
    #[must_use]
    pub fn is_old(&self, age: Duration) -> bool {
        !self.max_age.is_zero() && age >= self.max_age
    }
}

impl Default for KeepalivePool {
    /// 320 connections, 60 s, 1,000 requests, as APISIX.
    fn default() -> Self {
        KeepalivePool { size: 320, idle_timeout: Duration::from_secs(60), requests: 1000, max_age: Duration::ZERO }
    }
}

/// TLS towards endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct UpstreamTls {
    /// Whether the endpoint's certificate is verified. APISIX's default is not to.
    pub verify: bool,
    /// Name of the `Secret` with trusted roots; the system's when `None`.
    pub ca: Option<Arc<str>>,
    /// Name of the `Secret` with our certificate and key.
    pub client_cert: Option<Arc<str>>,
    /// Server name sent instead of the host.
    pub sni: Option<Arc<str>>,
}

/// Health checking of endpoints. Most upstreams have none, and a node may have thousands.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct HealthChecks {
    /// Probes of our own.
    pub active: Option<Arc<ActiveCheck>>,
    /// Judged by real traffic.
    pub passive: Option<Arc<PassiveCheck>>,
}

/// What an active check speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CheckKind {
    /// HTTP/1.1 in clear.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// A connection that stands is healthy.
    Tcp,
}

/// Probes of our own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActiveCheck {
    /// What is spoken.
    pub kind: CheckKind,
    /// Whole probe.
    pub timeout: Duration,
    /// Probes under way at once.
    pub concurrency: u32,
    /// Host header; the node's name when `None`.
    pub host: Option<Arc<str>>,
    /// Port; the node's when `None`.
    pub port: Option<u16>,
    /// Method.
    pub method: Arc<str>,
    /// Path and query.
    pub path: Arc<str>,
    /// Body, may be empty.
    pub body: Arc<str>,
    /// Whether the certificate is verified.
    pub verify_certificate: bool,
    /// Further header fields.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// Interval while healthy.
    pub healthy_interval: Duration,
    /// Interval while unhealthy.
    pub unhealthy_interval: Duration,
    /// Statuses and counts.
    pub thresholds: Thresholds,
    /// How many nodes of a group and zone probe each endpoint and tell the others; zero is all.
    pub checkers: u32,
}

/// Judged by real traffic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PassiveCheck {
    /// Statuses and counts.
    pub thresholds: Thresholds,
}

/// When an endpoint changes its state. A count of zero switches that rule off.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Thresholds {
    /// Statuses that count as success.
    pub healthy_statuses: Vec<u16>,
    /// Successes in a row until healthy.
    pub successes: u32,
    /// Statuses that count as failure.
    pub unhealthy_statuses: Vec<u16>,
    /// Such statuses in a row until unhealthy.
    pub http_failures: u32,
    /// Failed connections in a row until unhealthy.
    pub tcp_failures: u32,
    /// Timeouts in a row until unhealthy.
    pub timeouts: u32,
}

/// Limits that break the circuit: above them a request is refused with 503 at once. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CircuitBreakers {
    /// Connections to one endpoint, per worker.
    pub max_connections: Option<u32>,
    /// Requests waiting for a connection, per worker.
    pub max_pending: Option<u32>,
    /// Requests in flight, per worker.
    pub max_requests: Option<u32>,
    /// Requests that are sent again although an endpoint may have seen them, in percent of all requests; 20 when `None`.
    pub retry_budget_percent: Option<u8>,
}

/// Where addresses come from when they are not listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Discovery {
    /// All addresses of a DNS name, `host` or `host:port`; SRV where the name has such records.
    Dns(Arc<str>),
}
