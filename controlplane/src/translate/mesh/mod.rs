//! The mesh on the data plane: services as clients reach them, the policies that protect them, and who is let in in clear. It knows no instance beyond its address.

mod peers;
mod policy;
mod service;

pub(super) use peers::unit as peers;
pub(super) use policy::unit as policy;
pub(super) use service::{spoken_to, unit as service};

use std::sync::Arc;

use heddle_xds::model::{Endpoints, MeshPeer, Scheme, Upstream};

use super::upstream::endpoint;
use crate::mesh::{Directory, Known};
use crate::model::{Key, ResourceKind, ServiceId};

/// The unit of a service, whichever resources speak of it. No resource has such an id.
pub(super) fn unit_key(service: &ServiceId) -> Key {
    Key::new(ResourceKind::MeshService, service.full().clone())
}

/// The service of a unit.
pub(super) fn service_of(unit: &Key) -> Option<ServiceId> {
    unit.id.contains('/').then(|| ServiceId::parse(&unit.id, "")).flatten()
}

/// An upstream as callers of a service are to use it: by mutual TLS with who `peer` says, or in clear where a `peer_authentication` says `disable`. Further ports are
/// named within mutual TLS alone, so calls of them stay there.
pub(super) fn called(directory: &Directory, service: &ServiceId, peer: MeshPeer, upstream: Upstream) -> Upstream {
    let in_clear = peer.port.is_none() && directory.is_called_in_clear(service);
    Upstream { mesh: (!in_clear).then_some(peer), in_clear, ..upstream }
}

/// Who the endpoints of an upstream must prove to be, and which they are, when it leads to a service of the mesh, or to a port of it.
pub(super) fn behind(
    directory: &Directory,
    (service, port): (&ServiceId, Option<u16>),
    known: Option<&Known>,
    upstream: Arc<str>,
) -> (MeshPeer, Endpoints) {
    let identities = vec![directory.identity(service)];
    if let Some(partner) = directory.federated(service) {
        // Its own bundle alone says who it is. In our own trust domain nobody is called by an address that somebody wrote.
        let is_other = partner.written.trust_domain != directory.trust_domain();
        let nodes = partner.written.nodes.0.iter().filter(|_| is_other);
        let endpoints = nodes.map(|node| endpoint(node, Scheme::Http)).collect();
        return (
            MeshPeer { identities, port: port.filter(|port| partner.ports.contains(port)) },
            Endpoints { upstream, endpoints },
        );
    }
    let found = known.and_then(|known| known.found.as_ref());
    // A port that no instance says to have of its own is taken by the one that each has.
    let own = port.and_then(|port| Some((port, found?.ports.get(&port)?)));
    let endpoints = match own {
        Some((_, found)) => found.endpoints.as_slice().into(),
        None => found.map(|found| found.endpoints.as_slice().into()).unwrap_or_default(),
    };
    (MeshPeer { identities, port: own.map(|(port, _)| port) }, Endpoints { upstream, endpoints })
}
