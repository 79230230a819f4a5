//! The service of this node at Consul, where the settings ask for it. Nothing waits for it.

use std::sync::Arc;

use heddle_node::drain::DrainWatch;
use heddle_node::readiness::Readiness;
use heddle_xds::snapshot::NodeScope;

use super::MoreMetrics;
use crate::registration::{Parts, Registrar};
use crate::settings::AgentSettings;

/// Begins to keep the service registered, when that is asked for. What it counts is told with the further metrics of the process.
pub(super) fn begin(
    settings: &AgentSettings,
    scope: &NodeScope,
    readiness: &Readiness,
    (drain, inbound): (&DrainWatch, &DrainWatch),
    more: Option<MoreMetrics>,
) -> Option<MoreMetrics> {
    let Some((service, registration)) = settings.mesh.registration() else { return more };
    let parts = Parts {
        service,
        settings: registration,
        consul: settings.consul.clone(),
        node: &scope.id,
        zone: &scope.zone,
        role: &scope.role,
        readiness: readiness.clone(),
    };
    let registrar = Registrar::new(parts, fastrand::Rng::new());
    let stats = registrar.stats();
    tokio::spawn(registrar.run(drain.clone(), inbound.clone()));
    Some(Arc::new(move || stats.page() + more.as_ref().map(|more| more()).unwrap_or_default().as_str()))
}
