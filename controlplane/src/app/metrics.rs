//! Metrics of the control plane, made at every scrape from what is known anyway.

use std::sync::Arc;

use heddle_node::clock;
use heddle_node::telemetry::expose;
use heddle_xds::server::{LoadView, Loads, NodeRegistry};
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::views::Shown;
use crate::ca::Authority;
use crate::discovery::Discovered;
use crate::mesh::Mesh;
use crate::model::{ResourceKind, ServiceId};
use crate::provider::SourceMetrics;
use crate::state::Keeper;

/// Services of which the number of instances is shown.
const MOST_SHOWN: usize = 1_000;

/// Writes a page of metrics.
pub(super) type Page = Arc<dyn Fn() -> String + Send + Sync>;

/// What writes the whole page, with what others of the process add to it.
pub(super) fn writer(
    keeper: &Keeper,
    nodes: &Arc<NodeRegistry>,
    mesh: &Arc<Mutex<Mesh>>,
    authority: Option<Authority>,
    differences: &Shown,
    more: Page,
) -> Page {
    let (keeper, nodes, mesh, differences) = (keeper.clone(), nodes.clone(), mesh.clone(), differences.clone());
    Arc::new(move || page(&keeper, &nodes, &mesh, authority.as_ref(), &differences) + &more())
}

/// The page in Prometheus' text format.
fn page(keeper: &Keeper, nodes: &NodeRegistry, mesh: &Mutex<Mesh>, authority: Option<&Authority>, differences: &Shown) -> String {
    match gather(keeper, nodes, mesh, authority, differences) {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(%error, "metrics of the control plane cannot be written");
            String::new()
        }
    }
}

fn gather(
    keeper: &Keeper,
    nodes: &NodeRegistry,
    mesh: &Mutex<Mesh>,
    authority: Option<&Authority>,
    differences: &Shown,
) -> Result<String, prometheus::Error> {
    let registry = Registry::new();
    differences.expose(&registry)?;
    if let Some(authority) = authority {
        authority.expose(&registry)?;
    }
    registry.register(Box::new(SourceMetrics::new(keeper.clone())?))?;
    let state = keeper.state();
    let gauge = |name: &str, help: &str, value: i64| {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(value);
        registry.register(Box::new(gauge))
    };
    gauge("heddle_store_revision", "Newest revision of the store.", i64::try_from(state.revision).unwrap_or(i64::MAX))?;
    gauge(
        "heddle_store_unwritable",
        "1 while the store cannot be written (disk full or read-only).",
        i64::from(keeper.trouble().is_some()),
    )?;
    let held = nodes.rollouts().count();
    gauge("heddle_nodes_held_resources", "Resources that further nodes are not given, since a node refused them.", count(held))?;
    let views = nodes.nodes();
    let connected = views.iter().filter(|node| node.connected_since.is_some()).count();
    gauge("heddle_nodes_connected", "Nodes with an open discovery stream.", count(connected))?;
    gauge(
        "heddle_nodes_refused_resources",
        "Resources that nodes refuse, over all nodes.",
        count(views.iter().map(|node| node.nacks.len()).sum()),
    )?;
    let refusals = IntCounter::new("heddle_nodes_refusals_total", "Resources that nodes have refused so far.")?;
    refusals.inc_by(nodes.refusals());
    registry.register(Box::new(refusals))?;
    of_loads(nodes.loads(), &registry)?;
    let resources = IntGaugeVec::new(Opts::new("heddle_resources", "User resources by collection."), &["collection"])?;
    for kind in ResourceKind::ALL {
        resources.with_label_values(&[kind.plural()]).set(count(state.count(kind)));
    }
    registry.register(Box::new(resources))?;
    let mesh = mesh.lock();
    of_mesh(&mesh, &registry)?;
    of_discovery(mesh.directory().discovered(), &registry, clock::unix_ms())?;
    drop(mesh);
    Ok(String::from_utf8_lossy(&expose(&registry)?).into_owned())
}

/// What Envoys and clients of gRPC report of their load.
fn of_loads(loads: &Loads, registry: &Registry) -> Result<(), prometheus::Error> {
    let help = "Requests that Envoys and clients of gRPC report, by cluster, zone of the endpoints and result.";
    let requests = IntCounterVec::new(Opts::new("heddle_xds_load_requests_total", help), &["cluster", "zone", "result"])?;
    let help = "Requests under way that Envoys and clients of gRPC reported last, by cluster and zone of the endpoints.";
    let under_way = IntGaugeVec::new(Opts::new("heddle_xds_load_requests_in_progress", help), &["cluster", "zone"])?;
    for LoadView { cluster, zone, sums, in_progress } in loads.view().into_iter().take(MOST_SHOWN) {
        for (result, number) in [("issued", sums.issued), ("success", sums.succeeded), ("error", sums.failed)] {
            requests.with_label_values(&[&*cluster, &*zone, result]).inc_by(number);
        }
        under_way.with_label_values(&[&*cluster, &*zone]).set(i64::try_from(in_progress).unwrap_or(i64::MAX));
    }
    let help = "Requests that Envoys and clients of gRPC report as dropped, by cluster and category.";
    let dropped = IntCounterVec::new(Opts::new("heddle_xds_load_dropped_requests_total", help), &["cluster", "category"])?;
    for one in loads.dropped().into_iter().take(MOST_SHOWN) {
        dropped.with_label_values(&[&*one.cluster, &*one.category]).inc_by(one.count);
    }
    let reporters = IntGauge::new("heddle_xds_load_reporters", "Envoys and clients of gRPC that report their load.")?;
    reporters.set(count(loads.reporters()));
    let help = "Parts of reports of load that were left out, since there are too many different ones.";
    let left_out = IntCounter::new("heddle_xds_load_left_out_total", help)?;
    left_out.inc_by(loads.left_out());
    registry.register(Box::new(requests))?;
    registry.register(Box::new(under_way))?;
    registry.register(Box::new(dropped))?;
    registry.register(Box::new(reporters))?;
    registry.register(Box::new(left_out))
}

/// Instances by service and state, and what became of instances so far. The series are bounded as services are, and only those that are there are shown.
fn of_mesh(mesh: &Mesh, registry: &Registry) -> Result<(), prometheus::Error> {
    let labels = ["service", "state"];
    let instances = IntGaugeVec::new(Opts::new("heddle_mesh_instances", "Instances of services by state."), &labels)?;
    let mut services: Vec<&ServiceId> = Vec::new();
    for held in mesh.registry().all() {
        if services.last() != Some(&&held.service) {
            services.push(&held.service);
        }
        if services.len() > MOST_SHOWN {
            break;
        }
        instances.with_label_values(&[&**held.service.full(), held.standing.as_str()]).inc();
    }
    registry.register(Box::new(instances))?;
    let counts = mesh.registry().counts();
    let help = "What became of instances of services: joined, left, returned within the grace, doubted because many were lost at once, refused.";
    let events = IntCounterVec::new(Opts::new("heddle_mesh_instance_events_total", help), &["event"])?;
    for (event, number) in [
        ("joined", counts.joins),
        ("left", counts.leaves),
        ("returned", counts.returns),
        ("doubted", counts.doubts),
        ("refused", counts.refusals),
    ] {
        events.with_label_values(&[event]).inc_by(number);
    }
    registry.register(Box::new(events))
}

/// What was discovered, by the name of the service: several asks for one service are one series, the oldest and the sum.
fn of_discovery(discovered: &Discovered, registry: &Registry, now: u64) -> Result<(), prometheus::Error> {
    let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["service"]);
    let endpoints = gauge("heddle_discovery_endpoints", "Instances that Consul knows of services that upstreams ask for.")?;
    let stale = gauge("heddle_discovery_stale_seconds", "Since when Consul gives no answer that is believed; 0 while it does.")?;
    let failures = gauge("heddle_discovery_failures", "Failures of Consul since the control plane asks for a service.")?;
    for (ask, found) in discovered.all().take(MOST_SHOWN) {
        let service = [ask.service.as_str()];
        endpoints.with_label_values(&service).add(count(found.endpoints.len()));
        let age = found.fault.as_ref().map_or(0, |(since, _)| now.saturating_sub(*since) / 1_000);
        let stale = stale.with_label_values(&service);
        stale.set(stale.get().max(i64::try_from(age).unwrap_or(i64::MAX)));
        failures.with_label_values(&service).add(i64::try_from(found.failures).unwrap_or(i64::MAX));
    }
    [endpoints, stale, failures].into_iter().try_for_each(|gauge| registry.register(Box::new(gauge)))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
