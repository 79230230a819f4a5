//! What a sidecar needs for what its application sends: what it asks its control plane for, whom the application may call, and the names of services. It opens
//! no listeners.

use std::sync::Arc;

use heddle_node::identity::Identity;
use heddle_xds::client::envoy::EnvoySource;
use heddle_xds::client::{ClientConfig, Demand, Interest, Interests};
use heddle_xds::model::Kind;
use heddle_xds::protocol::Dialect;

use super::{Common, StartError, doors};
use crate::mesh_dns::{self, Kubernetes, Names, Server};
use crate::net::has_ipv6;
use crate::observe::MeshStats;
use crate::pipeline::Callees;
use crate::settings::{
    AgentSettings, ClusterDomain, ControlPlaneAccess, ControlPlaneAddress, DEFAULT_NAMESPACE, MeshSettings, Other, Requests,
    Role, Served,
};
use crate::tables::Called;

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

/// What is answered of names of Kubernetes; nothing where the control plane is another one's, which knows no addresses of services.
fn kubernetes(settings: &AgentSettings, identity: &Identity) -> Option<Kubernetes> {
    let domain: Arc<str> = match &settings.mesh.outbound.cluster_domain {
        _ if settings.control_plane.dialect != Served::Heddle => return None,
        ClusterDomain::Off => return None,
        ClusterDomain::OfHost if !reaches_addresses_of_services() => {
            tracing::warn!(
                "this host has no way to addresses of IPv4, as services have: names of Kubernetes are left to its own name servers"
            );
            return None;
        }
        ClusterDomain::OfHost => mesh_dns::cluster_domain_of_host().into(),
        ClusterDomain::Named(domain) => domain.clone(),
    };
    let own = namespace(&settings.mesh);
    let spared = |address: &ControlPlaneAddress| Called::of(&address.authority, &own).map(|called| called.service);
    let ControlPlaneAccess { address, others, .. } = &settings.control_plane;
    let spared = [address].into_iter().chain(others).filter_map(spared).collect();
    Some(Kubernetes { domain, spared, identity: identity.clone() })
}

/// Whether this host would send anything to the addresses that services have by default: what has no way there fails before capture sees it. Nothing is sent.
fn reaches_addresses_of_services() -> bool {
    let ways = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0));
    ways.and_then(|socket| socket.connect((std::net::Ipv4Addr::new(240, 240, 0, 1), 9))).is_ok()
}

/// Answers names of services, where that is wanted; those of Kubernetes only where no bootstrap of an Envoy says whom to follow.
///
/// # Errors
/// The address is taken or not ours.
pub(super) async fn answer_names(common: &Common, by_bootstrap: bool) -> Result<(), StartError> {
    let settings = &common.settings;
    let Some(address) = settings.mesh.outbound.dns else { return Ok(()) };
    let configured = &settings.resolvers;
    let names = Names {
        demand: common.callees.demand.clone(),
        tables: common.tables.clone(),
        namespace: namespace(&settings.mesh),
        kubernetes: if by_bootstrap { None } else { kubernetes(settings, &common.shared.identity) },
        servers: if configured.is_empty() { mesh_dns::servers_of_host(address) } else { configured.clone().into() },
    };
    // Captured questions come by both families, too.
    for address in [address].into_iter().chain(doors::twin(address).filter(|_| has_ipv6())) {
        let server = Server::open(address, names.clone()).await.map_err(|source| StartError::Names { address, source })?;
        tracing::info!(address = %server.address().unwrap_or(address), "names of services are answered");
        tokio::spawn(server.run());
    }
    Ok(())
}
