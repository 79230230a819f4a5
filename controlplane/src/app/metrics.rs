//! Metrics of the control plane, made at every scrape from what is known anyway.

use heddle_node::telemetry::expose;
use heddle_xds::server::NodeRegistry;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

use crate::ca::Authority;
use crate::model::ResourceKind;
use crate::provider::SourceMetrics;
use crate::state::Keeper;

/// The page in Prometheus' text format.
pub(super) fn page(keeper: &Keeper, nodes: &NodeRegistry, authority: Option<&Authority>) -> String {
    match gather(keeper, nodes, authority) {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(%error, "metrics of the control plane cannot be written");
            String::new()
        }
    }
}

fn gather(keeper: &Keeper, nodes: &NodeRegistry, authority: Option<&Authority>) -> Result<String, prometheus::Error> {
    let registry = Registry::new();
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
    let views = nodes.nodes();
    let connected = views.iter().filter(|node| node.connected_since.is_some()).count();
    gauge("heddle_nodes_connected", "Nodes with an open discovery stream.", count(connected))?;
    gauge(
        "heddle_nodes_refused_resources",
        "Resources that nodes refuse, over all nodes.",
        count(views.iter().map(|node| node.nacks.len()).sum()),
    )?;
    let resources = IntGaugeVec::new(Opts::new("heddle_resources", "User resources by collection."), &["collection"])?;
    for kind in ResourceKind::ALL {
        resources.with_label_values(&[kind.plural()]).set(count(state.count(kind)));
    }
    registry.register(Box::new(resources))?;
    Ok(String::from_utf8_lossy(&expose(&registry)?).into_owned())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
