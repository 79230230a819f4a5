//! What a sidecar needs for what its application sends: what it asks its control plane for, whom the application may call, and the names of services. It opens
//! no listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use heddle_xds::client::envoy::EnvoySource;
use heddle_xds::client::{ClientConfig, Demand, Interest, Interests};
use heddle_xds::model::Kind;
use heddle_xds::protocol::Dialect;
use tokio::sync::watch;

use super::{StartError, doors};
use crate::mesh_dns::{self, Names, Server};
use crate::net::has_ipv6;
use crate::observe::MeshStats;
use crate::pipeline::Callees;
use crate::settings::{AgentSettings, DEFAULT_NAMESPACE, MeshSettings, Other, Requests, Role, Served};
use crate::tables::Tables;

/// What an agent asks for: a gateway for everything; a sidecar for policies, and for services when they are called.
pub(super) fn interests(role: Role) -> Interests {
    match role {
        Role::Gateway => Interests::default(),
        Role::Sidecar => Interests::only(&[
            (Kind::PluginMetadata, Interest::All),
            (Kind::AuthorizationPolicy, Interest::All),
            (Kind::MeshInbound, Interest::All),
            (Kind::PeerAuthentication, Interest::All),
            (Kind::MeshService, Interest::Named),
            (Kind::Endpoints, Interest::Named),
        ]),
    }
}

/// Whose resources are asked for: ours, or an Envoy's, where the control plane serves those or a bootstrap said what there is.
pub(super) fn follows(config: ClientConfig, settings: &AgentSettings, bootstrap: Option<EnvoySource>) -> ClientConfig {
    let served = settings.control_plane.dialect;
    let followed = || (served != Served::Heddle).then(|| EnvoySource::followed(settings.mesh.role.as_str().into()));
    let dialect = if served == Served::EnvoySotw { Dialect::Sotw } else { Dialect::Delta };
    ClientConfig { envoy: bootstrap.or_else(followed), dialect, ..config }
}

/// Whom the application beside this node may call.
pub(super) fn callees(mesh: &MeshSettings, demand: &Demand, stats: &Arc<MeshStats>) -> Callees {
    let lets_others_pass = mesh.outbound.other == Other::Pass;
    let outside = (mesh.outbound.requests == Requests::Pass).then(Arc::default);
    let (demand, stats) = (demand.clone(), stats.clone());
    Callees { demand, namespace: namespace(mesh), lets_others_pass, outside, stats, ..Callees::default() }
}

fn namespace(mesh: &MeshSettings) -> Arc<str> {
    mesh.service.as_ref().map_or_else(|| DEFAULT_NAMESPACE.into(), |service| service.namespace.clone())
}

/// Answers names of services, where that is wanted.
///
/// # Errors
/// The address is taken or not ours.
pub(super) async fn answer_names(
    settings: &AgentSettings,
    demand: &Demand,
    tables: watch::Receiver<Arc<Tables>>,
) -> Result<(), StartError> {
    let Some(address) = settings.mesh.outbound.dns else { return Ok(()) };
    let configured = &settings.resolvers;
    let servers: Arc<[SocketAddr]> =
        if configured.is_empty() { mesh_dns::servers_of_host(address) } else { configured.clone().into() };
    let names = Names { demand: demand.clone(), tables, namespace: namespace(&settings.mesh), servers };
    // Captured questions come by both families, too.
    for address in [address].into_iter().chain(doors::twin(address).filter(|_| has_ipv6())) {
        let server = Server::open(address, names.clone()).await.map_err(|source| StartError::Names { address, source })?;
        tracing::info!(address = %server.address().unwrap_or(address), "names of services are answered");
        tokio::spawn(server.run());
    }
    Ok(())
}
