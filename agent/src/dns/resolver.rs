//! The resolver: hickory with our bounds, `/etc/hosts` and `localhost` first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::marked::Marked;
use super::{Answer, DnsError, Resolved, Service};

type Hickory = hickory_resolver::Resolver<Marked>;

/// Most addresses, and most SRV records, that are taken from one answer: bounds what a name server can make us hold and probe.
const MAX_RECORDS: usize = 512;

/// That a name does not exist is believed at most this long: what is being rolled out appears soon.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverSettings {
    /// Name servers; the system's (`/etc/resolv.conf`) when empty.
    pub servers: Vec<SocketAddr>,
    /// One question to one server; 5 s as APISIX's `resolver_timeout`.
    pub timeout: Duration,
    /// An answer holds at least this long, so that a TTL of 0 does not turn us into a flood.
    pub min_ttl: Duration,
    /// An answer holds at most this long, so that a move is seen within a bounded time.
    pub max_ttl: Duration,
}

impl Default for ResolverSettings {
    fn default() -> ResolverSettings {
        ResolverSettings {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(300),
        }
    }
}

/// Resolves names. Answers are cached for their TTL; whoever asks keeps the last good one beyond it.
#[derive(Clone)]
pub struct Resolver {
    hickory: Hickory,
    settings: ResolverSettings,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Resolver {
    /// A resolver. Fails when the system's configuration cannot be read and no servers are given.
    pub fn new(settings: ResolverSettings) -> Result<Resolver, DnsError> {
        let failed = |error: NetError| DnsError::Failed { name: "/etc/resolv.conf".into(), cause: error.to_string().into() };
        let mut builder = if settings.servers.is_empty() {
            Hickory::builder(Marked::default()).map_err(failed)?
        } else {
            let servers = settings.servers.iter().map(|server| name_server(*server)).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            Hickory::builder_with_config(config, Marked::default())
        };
        set_options(builder.options_mut(), &settings);
        Ok(Resolver { hickory: builder.build().map_err(failed)?, settings })
    }

    /// Addresses of a host name.
    pub async fn addresses(&self, name: &str) -> Result<Resolved, DnsError> {
        if let Some(ip) = literal(name) {
            return Ok(Resolved { answer: Answer { addresses: ip, services: Vec::new() }, ttl: self.settings.max_ttl });
        }
        let found = self.hickory.lookup_ip(name).await.map_err(|error| fault(name, &error))?;
        let lookup = found.as_lookup();
        let mut addresses: Vec<IpAddr> = found.iter().take(MAX_RECORDS).collect();
        if addresses.is_empty() {
            return Err(DnsError::NoAddress(name.into()));
        }
        addresses.sort_unstable();
        addresses.dedup();
        Ok(Resolved { answer: Answer { addresses, services: Vec::new() }, ttl: self.ttl(lookup.valid_until()) })
    }

    /// SRV records of a name, or its addresses where it has none.
    pub async fn discover(&self, name: &str) -> Result<Resolved, DnsError> {
        if literal(name).is_some() {
            return self.addresses(name).await;
        }
        match self.hickory.lookup(name, RecordType::SRV).await {
            Ok(found) => {
                let records = found.answers().iter().filter_map(|record| match &record.data {
                    RData::SRV(srv) => Some(Service {
                        target: srv.target.to_utf8().trim_end_matches('.').into(),
                        port: srv.port,
                        weight: srv.weight,
                        priority: srv.priority,
                    }),
                    _ => None,
                });
                // a target of "." means that the service is decidedly not available (RFC 2782)
                let mut services: Vec<Service> = records.filter(|srv| !srv.target.is_empty()).take(MAX_RECORDS).collect();
                if services.is_empty() {
                    return self.addresses(name).await;
                }
                services.sort_unstable();
                Ok(Resolved { answer: Answer { addresses: Vec::new(), services }, ttl: self.ttl(found.valid_until()) })
            }
            Err(_) => self.addresses(name).await,
        }
    }

    fn ttl(&self, until: Instant) -> Duration {
        let now = heddle_node::clock::now().into_std();
        until.saturating_duration_since(now).clamp(self.settings.min_ttl, self.settings.max_ttl)
    }
}

fn set_options(options: &mut ResolverOpts, settings: &ResolverSettings) {
    options.timeout = settings.timeout;
    options.attempts = 2;
    // names that many upstreams share are asked for once per TTL
    options.cache_size = 4096;
    options.positive_min_ttl = Some(settings.min_ttl);
    options.positive_max_ttl = Some(settings.max_ttl);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// Addresses that need no question: IP literals, and `localhost` with all below it (RFC 6761 section 6.3).
fn literal(name: &str) -> Option<Vec<IpAddr>> {
    if let Ok(ip) = name.parse() {
        return Some(vec![ip]);
    }
    let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let local = bare == "localhost" || bare.ends_with(".localhost");
    local.then(|| vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)])
}

fn fault(name: &str, error: &NetError) -> DnsError {
    if error.is_nx_domain() || error.is_no_records_found() {
        DnsError::NoAddress(name.into())
    } else {
        DnsError::Failed { name: name.into(), cause: error.to_string().into() }
    }
}
