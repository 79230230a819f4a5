//! A service of the mesh: what its owner wrote, or defaults where nobody wrote anything, and where its instances are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{
    HealthChecks, MeshProtocol, MeshService, PassiveCheck, PluginConf, PluginOrigin, Resource, Scheme, Thresholds, Timeouts,
    Upstream,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::context::{Context, Unit};
use super::super::{checks, plugins, upstream};
use crate::mesh::Known;
use crate::model::resources::{self, Split};
use crate::model::{Key, ServiceId};

/// An instance is near; one whose host is gone must not cost more.
const CONNECT: Duration = Duration::from_secs(1);
/// Tries after the first: what two instances in a row cannot take is no accident of one of them.
const RETRIES: u32 = 2;

/// Translates one service. One of which nothing is known is nothing.
pub(in super::super) fn unit(context: &mut Context<'_>, service: &ServiceId) -> Unit {
    let directory = context.directory;
    let Some(known) = directory.get(service) else { return Unit::default() };
    let (owner, written) = owned(context, known, service);
    let name = service.upstream();
    let (peer, endpoints) = super::behind(directory, service, Some(known), name.clone());
    let protocol = written.protocol.as_deref().and_then(MeshProtocol::named);
    let protocol = protocol.or_else(|| known.found.as_ref().map(|found| found.protocol)).unwrap_or_default();
    let mut plugins = owner.as_ref().map_or_else(Vec::new, |(key, value)| plugins::of(context, key, value).0);
    if let (Some((key, _)), false) = (&owner, written.split.is_empty()) {
        let origin = PluginOrigin(format!("{}/{}", key.kind.singular(), key.id).into());
        plugins.push(PluginConf { name: "traffic-split".into(), config: Arc::new(shares(service, &written.split)), origin });
    }
    let others = written.split.iter().filter_map(|entry| ServiceId::parse(&entry.service, service.namespace()));
    let depends: BTreeSet<ServiceId> = others.filter(|other| other != service).collect();
    let resource = MeshService {
        name: service.full().clone(),
        protocol,
        vip: known.vip,
        ports: written.ports.clone(),
        plugins,
        timeouts: None,
        upstream: Upstream { mesh: Some(peer), ..usage(name, service, &written, protocol) },
        depends: depends.iter().map(|other| other.full().clone()).collect(),
    };
    Unit { resources: vec![Resource::MeshService(resource), Resource::Endpoints(endpoints)], ..Unit::default() }
}

/// What the owner wrote, with the resource that says it.
fn owned<'a>(context: &Context<'a>, known: &Known, service: &ServiceId) -> (Option<(Key, &'a Value)>, resources::MeshService) {
    let stored = known.owners.first().and_then(|key| Some((key.clone(), &context.state.get(key)?.value)));
    let written = stored.as_ref().and_then(|(_, value)| resources::MeshService::deserialize(*value).ok());
    (stored, written.unwrap_or_else(|| resources::MeshService::unwritten(service.namespace())))
}

/// How its endpoints are used.
fn usage(name: Arc<str>, service: &ServiceId, written: &resources::MeshService, protocol: MeshProtocol) -> Upstream {
    let usage = upstream::usage(name, service.full(), &written.upstream());
    let passive = |checks: &resources::Checks| checks.passive.as_ref().map(checks::passive);
    Upstream {
        scheme: match protocol {
            MeshProtocol::Http2 | MeshProtocol::Grpc => Scheme::Grpc,
            MeshProtocol::Http | MeshProtocol::Tcp | MeshProtocol::Auto => Scheme::Http,
        },
        retries: written.retries.or(Some(RETRIES)),
        timeouts: match written.timeout {
            Some(_) => usage.timeouts,
            None => Timeouts { connect: CONNECT, ..usage.timeouts },
        },
        checks: match &written.checks {
            Some(checks) => HealthChecks { passive: passive(checks), ..usage.checks },
            None => HealthChecks { active: None, passive: Some(judged_by_traffic()) },
        },
        ..usage
    }
}

/// What traffic finds where nobody wrote how: an instance that is not reached, or whose sidecar says that its application is not. What the
/// application itself answers is no reason, as it may be the request.
fn judged_by_traffic() -> PassiveCheck {
    let thresholds = Thresholds {
        healthy_statuses: (200..=208).chain([226]).chain(300..=308).chain(400..=431).collect(),
        successes: 2,
        unhealthy_statuses: vec![502, 503, 504],
        http_failures: 5,
        tcp_failures: 2,
        timeouts: 5,
    };
    PassiveCheck { thresholds }
}

/// The configuration of the plugin that shares requests out: entries in a row with the same condition are one rule.
fn shares(service: &ServiceId, split: &[Split]) -> Value {
    let mut rules: Vec<(Option<&Value>, Vec<Value>)> = Vec::new();
    for entry in split {
        let share = match ServiceId::parse(&entry.service, service.namespace()) {
            Some(other) if other != *service => json!({"upstream_id": &*other.upstream(), "weight": entry.weight}),
            _ => json!({"weight": entry.weight}),
        };
        match rules.last_mut() {
            Some((matches, shares)) if *matches == entry.matches.as_ref() => shares.push(share),
            _ => rules.push((entry.matches.as_ref(), vec![share])),
        }
    }
    let rule = |(matches, shares): (Option<&Value>, Vec<Value>)| match matches {
        Some(vars) => json!({"match": [{"vars": vars}], "weighted_upstreams": shares}),
        None => json!({"weighted_upstreams": shares}),
    };
    json!({"rules": rules.into_iter().map(rule).collect::<Vec<_>>()})
}
