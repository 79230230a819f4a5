//! What a node shows of the health of endpoints: every state with its reasons, for people and for Prometheus. It decides nothing.

use std::sync::Arc;

use heddle_node::clock;
use heddle_node::membership::Membership;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::health::{Reason, Source};
use crate::observe::TextWriter;
use crate::tables::Tables;
use crate::upstream::{Cluster, Context, EndpointReport};

/// All endpoints, or those of the upstream of this name or label; `None` when there is no such upstream.
pub fn show(tables: &Tables, membership: &Membership, upstream: Option<&str>) -> Option<Value> {
    let mut clusters: Vec<&Cluster> = tables
        .clusters
        .values()
        .map(|edition| &**edition.cluster())
        .filter(|cluster| upstream.is_none_or(|wanted| *cluster.name == *wanted || *cluster.view().spec.config.label == *wanted))
        .collect();
    if upstream.is_some() && clusters.is_empty() {
        return None;
    }
    clusters.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let moment = Moment { now: clock::now(), unix_ms: clock::unix_ms(), own: membership.id().clone() };
    Some(
        json!({"node": &*moment.own, "upstreams": clusters.into_iter().map(|cluster| one(cluster, &moment)).collect::<Vec<_>>()}),
    )
}

/// When and by whom is looked.
struct Moment {
    now: Instant,
    unix_ms: u64,
    own: Arc<str>,
}

impl Moment {
    fn unix_ms(&self, at: Instant) -> u64 {
        self.unix_ms.saturating_sub(self.now.saturating_duration_since(at).as_millis() as u64)
    }
}

fn one(cluster: &Cluster, moment: &Moment) -> Value {
    let (reports, config) = (cluster.report(), cluster.view().spec.config.clone());
    json!({
        "name": &*cluster.name,
        "label": &*config.label,
        "panic": cluster.panics(),
        "panic_threshold": config.panic_threshold,
        "probes": cluster.probes(),
        "endpoints": reports.iter().map(|report| endpoint(report, config.checks.active.is_some(), moment)).collect::<Vec<_>>(),
    })
}

fn endpoint(report: &EndpointReport, checked: bool, moment: &Moment) -> Value {
    let own = [moment.own.clone()];
    let checkers = if report.look.checkers.is_empty() && checked { &own[..] } else { &report.look.checkers[..] };
    json!({
        "address": report.address.to_string(),
        "host": &*report.host,
        "zone": &*report.zone,
        "weight": report.weight,
        "priority": report.priority,
        "state": report.condition.as_str(),
        "since_ms": moment.unix_ms(report.look.since),
        "reasons": report.look.reasons.iter().map(|reason| why(reason, moment)).collect::<Vec<_>>(),
        "checked_by": checkers.iter().map(|id| &**id).collect::<Vec<_>>(),
        "ejections": report.ejections,
        "in_flight": report.totals.active,
        "requests": report.totals.attempts,
    })
}

fn why(reason: &Reason, moment: &Moment) -> Value {
    let by: Vec<&str> = match reason.source {
        Source::Discovery | Source::Drain => vec!["discovery"],
        Source::Probe | Source::Traffic => vec![&moment.own],
        Source::Fleet => reason.by.iter().map(|id| &**id).collect(),
    };
    json!({
        "source": reason.source.as_str(),
        "found": reason.finding.map(|finding| finding.to_string()),
        "since_ms": moment.unix_ms(reason.since),
        "by": by,
    })
}

/// State and first reason of each endpoint, one series each; panic and probes of each upstream.
pub fn states(page: &mut TextWriter, reports: &[(Arc<str>, EndpointReport)]) {
    page.family(
        "heddle_endpoint_state",
        "gauge",
        "Always 1: state of an endpoint, and the reason that weighs most where it is not up.",
    );
    for (label, report) in reports {
        let reason = report.look.reasons.first().map_or("", |reason| reason.source.as_str());
        let address = report.address.to_string();
        let labels = [("upstream", &**label), ("endpoint", &address), ("state", report.condition.as_str()), ("reason", reason)];
        page.sample("heddle_endpoint_state", &labels, 1.0);
    }
}

/// Panic and probes by upstream, at most `most` of them.
pub fn upstreams(page: &mut TextWriter, tables: &Tables, most: usize) {
    let clusters = || tables.clusters.values().take(most).map(|cluster| (cluster.view().spec.config.label.clone(), cluster));
    page.family("heddle_upstream_panic", "gauge", "1 while health is ignored because too few endpoints stand.");
    for (label, cluster) in clusters() {
        page.sample("heddle_upstream_panic", &[("upstream", &label)], f64::from(u8::from(cluster.panics())));
    }
    page.family("heddle_upstream_probes_total", "counter", "Active checks of endpoints by this node.");
    for (label, cluster) in clusters() {
        page.sample("heddle_upstream_probes_total", &[("upstream", &label)], cluster.probes() as f64);
    }
}

/// How checks are shared with the fleet.
pub fn sharing(page: &mut TextWriter, context: &Context) {
    let peers = context.fellows.peers(&context.membership, clock::now());
    page.family("heddle_health_isolated", "gauge", "1 while most of the fleet seems dead, so that its word does not count.");
    page.sample("heddle_health_isolated", &[], f64::from(u8::from(peers.is_isolated())));
    page.family("heddle_health_peers", "gauge", "Nodes that share checks, this one included.");
    page.sample("heddle_health_peers", &[], peers.count() as f64);
    page.family("heddle_health_observations", "gauge", "Endpoints of which this node tells the fleet.");
    page.sample("heddle_health_observations", &[], context.membership.facts().observations.len() as f64);
}
