//! Upstreams on the wire; it knows no other kind.

use std::sync::Arc;

use heddle_proto::heddle::config::v1 as wire;
use wire::balancer::Kind as BalancerKind;
use wire::consistent_hash::{Key, Table};

use super::read::{
    Fault, MAX_NAME, MAX_TEXT, Read, duration, list, name, narrow, optional, required, text, texts, to_duration, to_texts,
};
use super::route::{timeouts_from_wire, timeouts_to_wire};
use crate::model::{
    ActiveCheck, Balancer, CheckKind, CircuitBreakers, Discovery, DropOverload, HashOn, HashTable, HealthChecks, KeepalivePool,
    LocalityWeight, MeshPeer, PassHost, PassiveCheck, RingSize, Scheme, Spread, Thresholds, Upstream, UpstreamTls, ZoneMode,
    ZonePolicy,
};

/// Zones that an upstream may name; each is a level that its shares are computed over.
const MAX_ZONES: usize = 64;
/// Localities with a weight; as many endpoints a cluster may have.
const MAX_LOCALITIES: usize = 20_000;

pub(super) fn to_wire(upstream: &Upstream) -> wire::Upstream {
    let texts = |value: &Option<Arc<str>>| value.as_ref().map(ToString::to_string);
    let passive = |check: &PassiveCheck| wire::PassiveCheck { thresholds: Some(thresholds_to_wire(&check.thresholds)) };
    wire::Upstream {
        name: upstream.name.to_string(),
        label: upstream.label.to_string(),
        balancer: Some(balancer_to_wire(&upstream.balancer)),
        scheme: scheme_to_wire(upstream.scheme).into(),
        pass_host: Some(pass_host_to_wire(&upstream.pass_host)),
        retries: upstream.retries,
        retry_timeout: to_duration(upstream.retry_timeout),
        timeouts: Some(timeouts_to_wire(&upstream.timeouts)),
        keepalive: Some(wire::KeepalivePool {
            size: upstream.keepalive.size,
            idle_timeout: to_duration(upstream.keepalive.idle_timeout),
            requests: upstream.keepalive.requests,
            max_age: to_duration(upstream.keepalive.max_age),
        }),
        tls: Some(wire::UpstreamTls {
            verify: upstream.tls.verify,
            ca: texts(&upstream.tls.ca),
            client_cert: texts(&upstream.tls.client_cert),
            sni: texts(&upstream.tls.sni),
        }),
        active_check: upstream.checks.active.as_deref().map(active_to_wire),
        passive_check: upstream.checks.passive.as_deref().map(passive),
        breakers: Some(wire::CircuitBreakers {
            max_connections: upstream.breakers.max_connections,
            max_pending: upstream.breakers.max_pending,
            max_requests: upstream.breakers.max_requests,
            retry_budget_percent: upstream.breakers.retry_budget_percent.map(u32::from),
        }),
        discovery: upstream
            .discovery
            .as_ref()
            .map(|Discovery::Dns(host)| wire::Discovery { kind: Some(wire::discovery::Kind::Dns(host.to_string())) }),
        slow_start: to_duration(upstream.slow_start),
        panic_threshold: upstream.panic_threshold.map(u32::from),
        mesh: upstream.mesh.as_ref().map(|peer| wire::MeshPeer {
            identities: to_texts(&peer.identities),
            port: peer.port.map(u32::from).unwrap_or_default(),
        }),
        locality: Some(zones_to_wire(&upstream.locality)),
        fleet_load: upstream.fleet_load,
        in_clear: upstream.in_clear,
        drops: upstream.drops.iter().map(drop_to_wire).collect(),
    }
}

pub(super) fn from_wire(message: wire::Upstream) -> Read<Upstream> {
    let keepalive = required("keepalive", message.keepalive)?;
    let tls = required("tls", message.tls)?;
    let breakers = required("breakers", message.breakers)?;
    let active = message.active_check.map(active_from_wire).transpose().map_err(|fault| fault.inside("active_check"))?;
    let passive = message.passive_check.map(|check| thresholds("passive_check.thresholds", check.thresholds)).transpose()?;
    Ok(Upstream {
        name: name("name", message.name)?,
        label: text("label", message.label, MAX_NAME)?,
        balancer: balancer_from_wire(required("balancer", message.balancer)?)?,
        scheme: scheme_from_wire(message.scheme)?,
        pass_host: pass_host_from_wire(required("pass_host", message.pass_host)?)?,
        retries: message.retries,
        retry_timeout: duration("retry_timeout", message.retry_timeout)?,
        timeouts: timeouts_from_wire(required("timeouts", message.timeouts)?).map_err(|fault| fault.inside("timeouts"))?,
        keepalive: KeepalivePool {
            size: keepalive.size,
            idle_timeout: duration("keepalive.idle_timeout", keepalive.idle_timeout)?,
            requests: keepalive.requests,
            max_age: keepalive.max_age.map(|age| duration("keepalive.max_age", Some(age))).transpose()?.unwrap_or_default(),
        },
        tls: UpstreamTls {
            verify: tls.verify,
            ca: optional("tls.ca", tls.ca)?,
            client_cert: optional("tls.client_cert", tls.client_cert)?,
            sni: optional("tls.sni", tls.sni)?,
        },
        checks: HealthChecks {
            active: active.map(Arc::new),
            passive: passive.map(|thresholds| Arc::new(PassiveCheck { thresholds })),
        },
        breakers: CircuitBreakers {
            max_connections: breakers.max_connections,
            max_pending: breakers.max_pending,
            max_requests: breakers.max_requests,
            retry_budget_percent: breakers
                .retry_budget_percent
                .map(|percent| narrow("breakers.retry_budget_percent", percent))
                .transpose()?,
        },
        discovery: message.discovery.map(discovery_from_wire).transpose()?,
        slow_start: duration("slow_start", message.slow_start)?,
        panic_threshold: message.panic_threshold.map(|percent| narrow("panic_threshold", percent)).transpose()?,
        mesh: message.mesh.map(mesh_from_wire).transpose().map_err(|fault| fault.inside("mesh"))?,
        locality: zones_from_wire(message.locality).map_err(|fault| fault.inside("locality"))?,
        fleet_load: message.fleet_load,
        in_clear: message.in_clear,
        drops: drops(message.drops)?,
    })
}

fn drop_to_wire(one: &DropOverload) -> wire::DropOverload {
    wire::DropOverload { category: one.category.to_string(), millionths: one.millionths }
}

fn drops(messages: Vec<wire::DropOverload>) -> Read<Vec<DropOverload>> {
    if messages.len() > DropOverload::MOST {
        let most = DropOverload::MOST;
        return Err(Fault::new("drops", format!("has {} elements, at most {most} are allowed", messages.len())));
    }
    list("drops", messages, |field, one| {
        if one.millionths > DropOverload::ALL {
            return Err(Fault::new(
                field,
                format!("expected {} millionths at most, found {}", DropOverload::ALL, one.millionths),
            ));
        }
        Ok(DropOverload { category: name(field, one.category)?, millionths: one.millionths })
    })
}

fn zones_to_wire(zones: &ZonePolicy) -> wire::ZonePolicy {
    let mode = match zones.mode {
        ZoneMode::Prefer => wire::ZoneMode::Prefer,
        ZoneMode::Strict => wire::ZoneMode::Strict,
        ZoneMode::Off => wire::ZoneMode::Off,
    };
    let weight =
        |one: &LocalityWeight| wire::LocalityWeight { priority: one.priority, zone: one.zone.to_string(), weight: one.weight };
    let spread = |spread: &Spread| wire::Spread {
        weights: spread.weights.iter().map(weight).collect(),
        health_by_weight: spread.health_by_weight,
    };
    wire::ZonePolicy {
        mode: mode.into(),
        failover: to_texts(&zones.failover),
        overprovisioning: zones.overprovisioning,
        spread: zones.spread.as_ref().map(spread),
    }
}

/// A control plane that knows nothing of zones says nothing of them.
fn zones_from_wire(message: Option<wire::ZonePolicy>) -> Read<ZonePolicy> {
    let Some(message) = message else { return Ok(ZonePolicy::default()) };
    if message.overprovisioning < 100 {
        return Err(Fault::new("overprovisioning", format!("expected 100 percent or more, found {}", message.overprovisioning)));
    }
    if message.failover.len() > MAX_ZONES {
        return Err(Fault::new("failover", format!("has {} zones, at most {MAX_ZONES} are allowed", message.failover.len())));
    }
    Ok(ZonePolicy {
        mode: match wire::ZoneMode::try_from(message.mode) {
            Ok(wire::ZoneMode::Prefer) => ZoneMode::Prefer,
            Ok(wire::ZoneMode::Strict) => ZoneMode::Strict,
            Ok(wire::ZoneMode::Off) => ZoneMode::Off,
            _ => return Err(Fault::new("mode", format!("expected prefer, strict or off, found {}", message.mode))),
        },
        failover: texts("failover", message.failover)?,
        overprovisioning: message.overprovisioning,
        spread: message.spread.map(spread_from_wire).transpose()?,
    })
}

fn spread_from_wire(message: wire::Spread) -> Read<Spread> {
    if message.weights.len() > MAX_LOCALITIES {
        let reason = format!("has {} localities, at most {MAX_LOCALITIES} are allowed", message.weights.len());
        return Err(Fault::new("spread.weights", reason));
    }
    let weights = message.weights.into_iter().map(|one| {
        let zone = text("spread.weights.zone", one.zone, MAX_NAME)?;
        Ok(LocalityWeight { priority: one.priority, zone, weight: one.weight })
    });
    Ok(Spread { weights: weights.collect::<Read<_>>()?, health_by_weight: message.health_by_weight })
}

fn mesh_from_wire(peer: wire::MeshPeer) -> Read<MeshPeer> {
    // Without an identity to expect, anybody's would do.
    if peer.identities.is_empty() {
        return Err(Fault::new("identities", "must not be empty"));
    }
    let port = Some(narrow("port", peer.port)?).filter(|port| *port != 0);
    Ok(MeshPeer { identities: texts("identities", peer.identities)?, port })
}

fn balancer_to_wire(balancer: &Balancer) -> wire::Balancer {
    let kind = match balancer {
        Balancer::RoundRobin => BalancerKind::RoundRobin(wire::balancer::RoundRobin {}),
        Balancer::LeastConn => BalancerKind::LeastConn(wire::balancer::LeastConn {}),
        Balancer::Ewma => BalancerKind::Ewma(wire::balancer::Ewma {}),
        Balancer::ConsistentHash(on, table) => {
            let key = match on {
                HashOn::Var(value) => Key::Var(value.to_string()),
                HashOn::Header(value) => Key::Header(value.to_string()),
                HashOn::Cookie(value) => Key::Cookie(value.to_string()),
                HashOn::Consumer => Key::Consumer(true),
                HashOn::VarsCombination(value) => Key::VarsCombination(value.to_string()),
            };
            BalancerKind::ConsistentHash(wire::ConsistentHash { key: Some(key), table: table_to_wire(*table) })
        }
    };
    wire::Balancer { kind: Some(kind) }
}

fn balancer_from_wire(message: wire::Balancer) -> Read<Balancer> {
    Ok(match required("balancer.kind", message.kind)? {
        BalancerKind::RoundRobin(_) => Balancer::RoundRobin,
        BalancerKind::LeastConn(_) => Balancer::LeastConn,
        BalancerKind::Ewma(_) => Balancer::Ewma,
        BalancerKind::ConsistentHash(hash) => {
            let field = "balancer.consistent_hash.key";
            let table = table_from_wire(hash.table)?;
            let on = match required(field, hash.key)? {
                Key::Var(value) => HashOn::Var(text(field, value, MAX_TEXT)?),
                Key::Header(value) => HashOn::Header(text(field, value, MAX_TEXT)?),
                Key::Cookie(value) => HashOn::Cookie(text(field, value, MAX_TEXT)?),
                Key::Consumer(_) => HashOn::Consumer,
                Key::VarsCombination(value) => HashOn::VarsCombination(text(field, value, MAX_TEXT)?),
            };
            Balancer::ConsistentHash(on, table)
        }
    })
}

fn table_to_wire(table: HashTable) -> Option<Table> {
    match table {
        HashTable::Ring(RingSize::ByWeight) => None,
        HashTable::Ring(RingSize::Of { least, most }) => Some(Table::Ring(wire::consistent_hash::Ring { least, most })),
        HashTable::Maglev { places } => Some(Table::Maglev(wire::consistent_hash::Maglev { places })),
    }
}

fn table_from_wire(table: Option<Table>) -> Read<HashTable> {
    let most = HashTable::MOST;
    match table {
        None => Ok(HashTable::RING),
        Some(Table::Ring(ring)) => HashTable::ring(ring.least, ring.most).ok_or_else(|| {
            let found = format!("expected 1 to {most} points, the least first, found {} and {}", ring.least, ring.most);
            Fault::new("balancer.consistent_hash.ring", found)
        }),
        Some(Table::Maglev(table)) => HashTable::maglev(table.places).ok_or_else(|| {
            let found = format!("expected a prime up to {most}, found {}", table.places);
            Fault::new("balancer.consistent_hash.maglev.places", found)
        }),
    }
}

fn scheme_to_wire(scheme: Scheme) -> wire::Scheme {
    match scheme {
        Scheme::Http => wire::Scheme::Http,
        Scheme::Https => wire::Scheme::Https,
        Scheme::Grpc => wire::Scheme::Grpc,
        Scheme::Grpcs => wire::Scheme::Grpcs,
    }
}

fn scheme_from_wire(value: i32) -> Read<Scheme> {
    match wire::Scheme::try_from(value) {
        Ok(wire::Scheme::Http) => Ok(Scheme::Http),
        Ok(wire::Scheme::Https) => Ok(Scheme::Https),
        Ok(wire::Scheme::Grpc) => Ok(Scheme::Grpc),
        Ok(wire::Scheme::Grpcs) => Ok(Scheme::Grpcs),
        _ => Err(Fault::new("scheme", format!("expected http, https, grpc or grpcs, found {value}"))),
    }
}

fn pass_host_to_wire(pass_host: &PassHost) -> wire::PassHost {
    let kind = match pass_host {
        PassHost::Pass => wire::pass_host::Kind::Pass(true),
        PassHost::Node => wire::pass_host::Kind::Node(true),
        PassHost::Rewrite(host) => wire::pass_host::Kind::Rewrite(host.to_string()),
    };
    wire::PassHost { kind: Some(kind) }
}

fn pass_host_from_wire(message: wire::PassHost) -> Read<PassHost> {
    Ok(match required("pass_host.kind", message.kind)? {
        wire::pass_host::Kind::Pass(_) => PassHost::Pass,
        wire::pass_host::Kind::Node(_) => PassHost::Node,
        wire::pass_host::Kind::Rewrite(host) => PassHost::Rewrite(text("pass_host.rewrite", host, MAX_TEXT)?),
    })
}

fn discovery_from_wire(message: wire::Discovery) -> Read<Discovery> {
    match required("discovery.kind", message.kind)? {
        wire::discovery::Kind::Dns(host) => Ok(Discovery::Dns(name("discovery.dns", host)?)),
    }
}

fn active_to_wire(check: &ActiveCheck) -> wire::ActiveCheck {
    let kind = match check.kind {
        CheckKind::Http => wire::CheckKind::Http,
        CheckKind::Https => wire::CheckKind::Https,
        CheckKind::Tcp => wire::CheckKind::Tcp,
    };
    let header = |(name, value): &(Arc<str>, Arc<str>)| wire::HeaderField { name: name.to_string(), value: value.to_string() };
    wire::ActiveCheck {
        kind: kind.into(),
        timeout: to_duration(check.timeout),
        concurrency: check.concurrency,
        host: check.host.as_ref().map(ToString::to_string),
        port: check.port.map(u32::from),
        method: check.method.to_string(),
        path: check.path.to_string(),
        body: check.body.to_string(),
        verify_certificate: check.verify_certificate,
        headers: check.headers.iter().map(header).collect(),
        healthy_interval: to_duration(check.healthy_interval),
        unhealthy_interval: to_duration(check.unhealthy_interval),
        thresholds: Some(thresholds_to_wire(&check.thresholds)),
        checkers: check.checkers,
    }
}

fn active_from_wire(message: wire::ActiveCheck) -> Read<ActiveCheck> {
    Ok(ActiveCheck {
        kind: match wire::CheckKind::try_from(message.kind) {
            Ok(wire::CheckKind::Http) => CheckKind::Http,
            Ok(wire::CheckKind::Https) => CheckKind::Https,
            Ok(wire::CheckKind::Tcp) => CheckKind::Tcp,
            _ => return Err(Fault::new("kind", format!("expected http, https or tcp, found {}", message.kind))),
        },
        timeout: duration("timeout", message.timeout)?,
        concurrency: message.concurrency,
        host: optional("host", message.host)?,
        port: message.port.map(|port| narrow("port", port)).transpose()?,
        method: text("method", message.method, MAX_NAME)?,
        path: text("path", message.path, MAX_TEXT)?,
        body: text("body", message.body, MAX_TEXT)?,
        verify_certificate: message.verify_certificate,
        headers: list("headers", message.headers, |field, header| {
            Ok((text(field, header.name, MAX_NAME)?, text(field, header.value, MAX_TEXT)?))
        })?,
        healthy_interval: duration("healthy_interval", message.healthy_interval)?,
        unhealthy_interval: duration("unhealthy_interval", message.unhealthy_interval)?,
        thresholds: thresholds("thresholds", message.thresholds)?,
        checkers: message.checkers,
    })
}

fn thresholds_to_wire(thresholds: &Thresholds) -> wire::Thresholds {
    let wide = |statuses: &[u16]| statuses.iter().copied().map(u32::from).collect();
    wire::Thresholds {
        healthy_statuses: wide(&thresholds.healthy_statuses),
        successes: thresholds.successes,
        unhealthy_statuses: wide(&thresholds.unhealthy_statuses),
        http_failures: thresholds.http_failures,
        tcp_failures: thresholds.tcp_failures,
        timeouts: thresholds.timeouts,
    }
}

fn thresholds(field: &str, message: Option<wire::Thresholds>) -> Read<Thresholds> {
    let message = required(field, message)?;
    Ok(Thresholds {
        healthy_statuses: list(&format!("{field}.healthy_statuses"), message.healthy_statuses, narrow)?,
        successes: message.successes,
        unhealthy_statuses: list(&format!("{field}.unhealthy_statuses"), message.unhealthy_statuses, narrow)?,
        http_failures: message.http_failures,
        tcp_failures: message.tcp_failures,
        timeouts: message.timeouts,
    })
}
