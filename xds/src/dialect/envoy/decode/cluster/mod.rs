//! Clusters: how endpoints are used. It knows neither routes nor listeners.

mod check;
pub(super) mod endpoints;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use endpoints::Lookup;

use super::piece::{Addresses, Assignment, Cluster};
use super::protocol::{http1, http2};
use super::read::{Fault, Fields, Read, typed};
use super::{source, tls};
use crate::model::{
    Balancer, CircuitBreakers, HashTable, HealthChecks, KeepalivePool, PassHost, RingSize, Scheme, Spread, Timeouts, Upstream,
    ZoneMode, ZonePolicy,
};

/// Envoy's own default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The share of healthy endpoints below which Envoy ignores health.
const PANIC_PERCENT: f64 = 50.0;
/// Requests of a connection, where Envoy knows no bound.
const MANY: u32 = u32::MAX;
/// How long Envoy keeps an idle connection.
const IDLE: Duration = Duration::from_secs(3600);
/// A connection is used for so long at least.
const SHORTEST_AGE: Duration = Duration::from_secs(1);
/// Where the protocol towards endpoints is said.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Fields that say nothing about what is done with requests.
const IGNORED: [&str; 8] = [
    "alt_stat_name",
    // An endpoint that is no longer named is no longer used, whatever its health was.
    "ignore_health_on_host_removal",
    "metadata",
    "per_connection_buffer_limit_bytes",
    "upstream_connection_options",
    "wait_for_warm_on_init",
    "track_timeout_budgets",
    "track_cluster_stats",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Static,
    StrictDns,
    LogicalDns,
    Eds,
}

/// Reads a cluster.
pub(super) fn read(fields: &mut Fields<'_>) -> Read<Cluster> {
    let name = fields.name("name")?;
    fields.ignore(&IGNORED);
    fields.refuse("close_connections_on_host_health_failure", "is not supported: what is under way is not broken off")?;
    let (found, slow_start, weighted) = balancing(fields)?;
    let (balancer, table) = found;
    let protocol = protocol(fields)?;
    let transport = transport(fields, &name)?;
    let (panic_threshold, by_locality) = common_balancing(fields)?;
    let (addresses, patience) = addresses(fields, &name)?;
    let upstream = Upstream {
        label: fields.text("alt_stat_name")?.map_or_else(|| name.clone(), Arc::from),
        balancer,
        scheme: match (transport.is_some(), protocol.http2) {
            (false, false) => Scheme::Http,
            (true, false) => Scheme::Https,
            (false, true) => Scheme::Grpc,
            (true, true) => Scheme::Grpcs,
        },
        pass_host: PassHost::Pass,
        // Envoy sends nothing again unless a route says so; then the plugin of that route does it.
        retries: Some(0),
        retry_timeout: Duration::ZERO,
        timeouts: Timeouts { connect: fields.duration("connect_timeout")?.unwrap_or(CONNECT_TIMEOUT), ..Timeouts::default() },
        keepalive: KeepalivePool {
            idle_timeout: protocol.idle,
            requests: protocol.requests,
            max_age: protocol.age,
            ..KeepalivePool::default()
        },
        tls: transport.as_ref().map(|tls| tls.upstream.clone()).unwrap_or_default(),
        checks: HealthChecks {
            active: check::active(fields, &name)?.map(Arc::new),
            passive: check::passive(fields)?.map(Arc::new),
        },
        breakers: breakers(fields)?,
        discovery: None,
        slow_start,
        panic_threshold: Some(panic_threshold),
        mesh: None,
        locality: ZonePolicy { mode: ZoneMode::Off, spread: Some(Spread::default()), ..ZonePolicy::default() },
        fleet_load: false,
        in_clear: false,
        // The assignment says what is dropped.
        drops: Vec::new(),
        name,
    };
    let (secrets, asks_secrets) = transport.map(|tls| (tls.secrets, tls.asks)).unwrap_or_default();
    let upstream = Arc::new(upstream);
    Ok(Cluster { upstream, addresses, by_locality: by_locality || weighted, table, secrets, asks_secrets, patience })
}

/// Where endpoints come from.
fn addresses(fields: &mut Fields<'_>, name: &Arc<str>) -> Read<(Addresses, Duration)> {
    fields.refuse(
        "cluster_type",
        "clusters of custom types are not supported; supported are STATIC, STRICT_DNS, LOGICAL_DNS and EDS",
    )?;
    let kinds = [
        ("STATIC", 0, Finding::Static),
        ("STRICT_DNS", 1, Finding::StrictDns),
        ("LOGICAL_DNS", 2, Finding::LogicalDns),
        ("EDS", 3, Finding::Eds),
    ];
    let kind = fields.choice("type", &kinds)?.unwrap_or(Finding::Static);
    // How names are asked for is the node's business: `agent.resolvers` says it once for all.
    fields.ignore(&[
        "dns_refresh_rate",
        "dns_failure_refresh_rate",
        "respect_dns_ttl",
        "dns_jitter",
        "dns_lookup_family",
        "typed_dns_resolver_config",
    ]);
    let asked = fields.message("eds_cluster_config", |eds| {
        let patience = eds.required("eds_config", source::read)?;
        Ok((eds.text("service_name")?.map(Arc::from), patience))
    })?;
    let lookup = if kind == Finding::Static { Lookup::Never } else { Lookup::Allowed };
    let told = fields.message("load_assignment", |fields| endpoints::read(fields, lookup))?;
    match (kind, asked, told) {
        (Finding::Eds, Some((service, patience)), None) => {
            Ok((Addresses::Asked(service.unwrap_or_else(|| name.clone())), patience))
        }
        (Finding::Eds, None, _) => {
            Err(Fault::new("eds_cluster_config", "is missing: a cluster of type EDS must say where its endpoints come from"))
        }
        (Finding::Eds, Some(_), Some(_)) => Err(Fault::new("load_assignment", "excludes the type EDS")),
        (_, Some(_), _) => Err(Fault::new("eds_cluster_config", "needs the type EDS")),
        (Finding::LogicalDns, None, Some(told)) if told.endpoints.len() != 1 => {
            Err(Fault::new("load_assignment", "expected exactly one endpoint with the type LOGICAL_DNS"))
        }
        (_, None, told) => {
            let none = || Assignment { overprovisioning: endpoints::OVERPROVISIONING, ..Assignment::default() };
            Ok((Addresses::Told(told.unwrap_or_else(none)), source::PATIENCE))
        }
    }
}

/// What a balancer is, and the table that it finds hashes in.
type Found = (Balancer, Option<HashTable>);

fn by_policy(name: &str) -> Option<Found> {
    // The key of a hash is said by routes; what a cluster has of its own is a placeholder until one is found there.
    match name {
        "ROUND_ROBIN" | "RANDOM" => Some((Balancer::RoundRobin, None)),
        "LEAST_REQUEST" => Some((Balancer::LeastConn, None)),
        "RING_HASH" => Some((Balancer::RoundRobin, Some(RING))),
        "MAGLEV" => Some((Balancer::RoundRobin, Some(HashTable::MAGLEV))),
        _ => None,
    }
}

/// How endpoints are chosen, how long they warm up, and whether weights of localities count.
fn balancing(fields: &mut Fields<'_>) -> Read<(Found, Duration, bool)> {
    let kinds = [
        ("ROUND_ROBIN", 0, "ROUND_ROBIN"),
        ("LEAST_REQUEST", 1, "LEAST_REQUEST"),
        ("RING_HASH", 2, "RING_HASH"),
        ("RANDOM", 3, "RANDOM"),
        ("MAGLEV", 5, "MAGLEV"),
        ("LOAD_BALANCING_POLICY_CONFIG", 7, "LOAD_BALANCING_POLICY_CONFIG"),
    ];
    let policy = fields.choice("lb_policy", &kinds)?.unwrap_or("ROUND_ROBIN");
    let mut slow = Duration::ZERO;
    for name in ["round_robin_lb_config", "least_request_lb_config"] {
        slow = slow.max(fields.message(name, tuning)?.unwrap_or_default());
    }
    let ring = fields.message("ring_hash_lb_config", |fields| {
        fields.choice("hash_function", &[("XX_HASH", 0, ())])?;
        hashing(fields, RING)
    })?;
    let maglev = fields.message("maglev_lb_config", |fields| hashing(fields, HashTable::MAGLEV))?;
    let extension = fields.message("load_balancing_policy", |policy| {
        // The first that is known counts, as in Envoy.
        let found = policy.values("policies", |value| {
            super::read::message(value, |one| {
                one.required("typed_extension_config", |config| {
                    config.ignore(&["name"]);
                    let Some(value) = config.take("typed_config") else { return Err(Fault::new("typed_config", "is missing")) };
                    Ok(extension(value, 0))
                })
            })
        })?;
        let mut reason = Fault::new("policies", "must not be empty");
        for found in found {
            match found {
                Ok(found) => return Ok(found),
                Err(fault) => reason = fault.inside("policies"),
            }
        }
        Err(reason)
    })?;
    match (extension, by_policy(policy)) {
        (Some(found), _) => Ok(found),
        (None, Some((balancer, table))) => {
            let written = if policy == "MAGLEV" { maglev } else { ring };
            Ok(((balancer, table.map(|table| written.unwrap_or(table))), slow, false))
        }
        (None, None) => Err(Fault::new("load_balancing_policy", "is missing")),
    }
}

/// A policy of load balancing as an extension.
fn extension(value: &Value, depth: u8) -> Read<(Found, Duration, bool)> {
    const FOLDER: &str = "envoy.extensions.load_balancing_policies.";
    typed(value, |name, fields| {
        let name = name.strip_prefix(FOLDER).unwrap_or(name);
        let found = match name.rsplit('.').next() {
            Some("RoundRobin") => by_policy("ROUND_ROBIN"),
            Some("Random") => by_policy("RANDOM"),
            Some("LeastRequest") => by_policy("LEAST_REQUEST"),
            Some("RingHash") => by_policy("RING_HASH"),
            Some("Maglev") => by_policy("MAGLEV"),
            Some("WrrLocality") if depth == 0 => {
                let inner = fields.required("endpoint_picking_policy", |policy| {
                    let mut found = policy.list("policies", |one| {
                        one.required("typed_extension_config", |config| {
                            config.ignore(&["name"]);
                            config
                                .take("typed_config")
                                .ok_or_else(|| Fault::new("typed_config", "is missing"))
                                .and_then(|value| extension(value, 1))
                        })
                    })?;
                    found.pop().ok_or_else(|| Fault::new("policies", "must not be empty"))
                })?;
                return Ok((inner.0, inner.1, true));
            }
            _ => None,
        };
        let (balancer, table) = found.ok_or_else(|| Fault::new("@type", format!("{name} is not supported")))?;
        let weighted = fields.message("locality_lb_config", |config| {
            config.message("zone_aware_lb_config", zones)?;
            config.message("locality_weighted_lb_config", |weights| weights.skip())
        })?;
        let weighted =
            weighted.flatten().is_some() | fields.message("locality_weighted_lb_config", |weights| weights.skip())?.is_some();
        Ok(match table {
            Some(table) => ((balancer, Some(hashing(fields, table)?)), Duration::ZERO, weighted),
            None => ((balancer, None), tuning(fields)?, weighted),
        })
    })
}

/// What round robin and least request can be tuned by; says how long an endpoint warms up.
fn tuning(fields: &mut Fields<'_>) -> Read<Duration> {
    fields.ignore(&["choice_count", "active_request_bias", "enable_full_scan", "selection_method"]);
    let slow = fields.message("slow_start_config", |slow| {
        slow.ignore(&["aggression", "min_weight_percent"]);
        slow.duration("slow_start_window")
    })?;
    Ok(slow.flatten().unwrap_or_default())
}

/// Envoy's ring where nobody says more, as far as ours may grow.
const RING: HashTable = HashTable::Ring(RingSize::Of { least: 1_024, most: HashTable::MOST });

/// A ring has addresses on it, and takes whatever comes.
fn by_address(fields: &mut Fields<'_>) -> Read<()> {
    fields.refuse("use_hostname_for_hashing", "is not supported: endpoints are told apart by their addresses")?;
    fields.refuse("hash_balance_factor", "bounded loads are not supported")
}

/// The zones of a cluster. Without a cluster of its own (`local_cluster_name`) Envoy balances none either.
fn zones(fields: &mut Fields<'_>) -> Read<()> {
    fields.ignore(&["routing_enabled", "min_cluster_size", "force_locality_direct_routing"]);
    fields.refuse("fail_traffic_on_panic", "is not supported: set healthy_panic_threshold")
}

/// The size of a ring or table.
fn hashing(fields: &mut Fields<'_>, usual: HashTable) -> Read<HashTable> {
    fields.choice("hash_function", &[("DEFAULT_HASH", 0, ()), ("XX_HASH", 1, ())])?;
    fields.message("consistent_hashing_lb_config", by_address)?;
    by_address(fields)?;
    let bounded = |number: Option<u64>| number.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    match usual {
        HashTable::Ring(_) => {
            let least = bounded(fields.number("minimum_ring_size")?).unwrap_or(1_024);
            let most = bounded(fields.number("maximum_ring_size")?).unwrap_or(HashTable::MOST).min(HashTable::MOST);
            let expected = || format!("expected 1 to {most} points, found {least}");
            HashTable::ring(least, most).ok_or_else(|| Fault::new("minimum_ring_size", expected()))
        }
        HashTable::Maglev { .. } => {
            let Some(places) = bounded(fields.number("table_size")?) else { return Ok(usual) };
            let expected = || format!("expected a prime up to {}, found {places}", HashTable::MOST);
            HashTable::maglev(places).ok_or_else(|| Fault::new("table_size", expected()))
        }
    }
}

/// The share of healthy endpoints below which health is ignored, and whether weights of localities count.
fn common_balancing(fields: &mut Fields<'_>) -> Read<(u8, bool)> {
    let mut panic = PANIC_PERCENT;
    let weighted = fields.message("common_lb_config", |common| {
        if let Some(said) = common.message("healthy_panic_threshold", |percent| percent.float("value"))? {
            panic = said.unwrap_or(0.0);
        }
        common.ignore(&["update_merge_window", "ignore_new_hosts_until_first_hc"]);
        common.refuse("close_connections_on_host_set_change", "is not supported: what is under way is not broken off")?;
        common.message("consistent_hashing_lb_config", by_address)?;
        common.message("zone_aware_lb_config", zones)?;
        common.message("locality_weighted_lb_config", |weights| weights.skip())
    })?;
    if !(0.0..=100.0).contains(&panic) {
        return Err(Fault::new("common_lb_config.healthy_panic_threshold", "expected 0 to 100 percent"));
    }
    Ok((panic.round() as u8, weighted.flatten().is_some()))
}

struct Protocol {
    http2: bool,
    idle: Duration,
    requests: u32,
    age: Duration,
}

fn protocol(fields: &mut Fields<'_>) -> Read<Protocol> {
    let mut protocol = Protocol { http2: false, idle: IDLE, requests: MANY, age: Duration::ZERO };
    protocol.http2 |= fields.message("http2_protocol_options", http2)?.is_some();
    fields.message("http_protocol_options", http1)?;
    fields.message("common_http_protocol_options", |common| connections(common, &mut protocol))?;
    if let Some(most) = fields.small("max_requests_per_connection")? {
        protocol.requests = most;
    }
    fields.refuse("protocol_selection", "USE_DOWNSTREAM_PROTOCOL is not supported: say which protocol the endpoints speak")?;
    for (name, value) in fields.map("typed_extension_protocol_options")? {
        let place = |fault: Fault| fault.inside(&format!("typed_extension_protocol_options[{name}]"));
        typed(value, |kind, options| match kind {
            HTTP_OPTIONS => http_options(options, &mut protocol),
            other => Err(Fault::new("@type", format!("{other} is not supported"))),
        })
        .map_err(place)?;
    }
    Ok(protocol)
}

fn http_options(options: &mut Fields<'_>, protocol: &mut Protocol) -> Read<()> {
    options.message("common_http_protocol_options", |common| connections(common, protocol))?;
    options.message("upstream_http_protocol_options", |upstream| {
        // What is sent as server name follows the host of the request unless the cluster says one; so does what is verified.
        upstream.ignore(&["auto_sni", "auto_san_validation"]);
        upstream.refuse("override_auto_sni_header", "is not supported: the server name follows the host of the request")
    })?;
    let explicit = options.message("explicit_http_config", |explicit| {
        explicit.message("http_protocol_options", http1)?;
        Ok(explicit.message("http2_protocol_options", http2)?.is_some())
    })?;
    protocol.http2 |= explicit.unwrap_or(false);
    options.refuse(
        "use_downstream_protocol_config",
        "is not supported: say with explicit_http_config which protocol the endpoints speak",
    )?;
    options.refuse("auto_config", "is not supported: say with explicit_http_config which protocol the endpoints speak")
}

fn connections(common: &mut Fields<'_>, protocol: &mut Protocol) -> Read<()> {
    if let Some(idle) = common.duration("idle_timeout")? {
        protocol.idle = idle;
    }
    if let Some(most) = common.small("max_requests_per_connection")? {
        protocol.requests = most;
    }
    common.ignore(&["max_headers_count", "headers_with_underscores_action"]);
    common.refuse("max_stream_duration", "is not supported: use max_stream_duration of routes")?;
    if let Some(most) = common.duration("max_connection_duration")?.filter(|most| !most.is_zero()) {
        // What is old before it is open would be opened for one request after the other.
        protocol.age = most.max(SHORTEST_AGE);
    }
    Ok(())
}

fn transport(fields: &mut Fields<'_>, name: &str) -> Read<Option<tls::Client>> {
    fields.refuse("transport_socket_matches", "choosing TLS by endpoint is not supported: use one cluster for each")?;
    let read = |socket: &mut Fields<'_>| {
        socket.ignore(&["name"]);
        let Some(config) = socket.take("typed_config") else { return Ok(None) };
        typed(config, |kind, context| match kind {
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => tls::client(context, name).map(Some),
            "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(None),
            other => Err(Fault::new("@type", format!("{other} is not supported"))),
        })
        .map_err(|fault| fault.inside("typed_config"))
    };
    Ok(fields.message("transport_socket", read)?.flatten())
}

fn breakers(fields: &mut Fields<'_>) -> Read<CircuitBreakers> {
    let mut breakers = CircuitBreakers::default();
    // The largest number stands for no limit, since Envoy has limits where nothing is said.
    let bounded = |limit: Option<u32>| limit.filter(|limit| *limit < u32::MAX);
    // Envoy makes one connection whatever it is told, or none of its requests would ever be sent.
    let connections = |limit: Option<u32>| bounded(limit).map(|limit| limit.max(1));
    fields.message("circuit_breakers", |circuit| {
        let mut of_each = None;
        circuit.list("per_host_thresholds", |limits| {
            if limits.choice("priority", &[("DEFAULT", 0, false), ("HIGH", 1, true)])? == Some(true) {
                limits.ignore_all();
                return Ok(());
            }
            // Envoy takes nothing else there either, and of several the first.
            let limit = connections(limits.small("max_connections")?);
            of_each = of_each.or(limit);
            Ok(())
        })?;
        circuit.list("thresholds", |limits| {
            if limits.choice("priority", &[("DEFAULT", 0, false), ("HIGH", 1, true)])? == Some(true) {
                // No route sends anything with high priority: those that would are refused.
                limits.ignore_all();
                return Ok(());
            }
            limits.ignore(&["track_remaining", "max_retries", "max_connection_pools"]);
            breakers.max_connections = connections(limits.small("max_connections")?);
            breakers.max_pending = bounded(limits.small("max_pending_requests")?);
            breakers.max_requests = bounded(limits.small("max_requests")?);
            limits.message("retry_budget", |budget| {
                budget.ignore(&["min_retry_concurrency"]);
                let percent = budget.message("budget_percent", |percent| percent.float("value"))?.flatten().unwrap_or(20.0);
                breakers.retry_budget_percent = Some(percent.clamp(0.0, 100.0).round() as u8);
                Ok(())
            })?;
            Ok(())
        })?;
        breakers.max_connections = [breakers.max_connections, of_each].into_iter().flatten().min();
        Ok(())
    })?;
    Ok(breakers)
}
