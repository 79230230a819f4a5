//! The mesh on the data plane: services as clients reach them, the policies that protect them, and who is let in in clear. It knows no instance beyond its address.

mod peers;
mod policy;
mod service;

pub(super) use peers::unit as peers;
pub(super) use policy::unit as policy;
pub(super) use service::unit as service;

use std::sync::Arc;

use heddle_xds::model::{Endpoints, MeshPeer};

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

/// Who the endpoints of an upstream must prove to be, and which they are, when it leads to a service of the mesh.
pub(super) fn behind(
    directory: &Directory,
    service: &ServiceId,
    known: Option<&Known>,
    upstream: Arc<str>,
) -> (MeshPeer, Endpoints) {
    let identities = vec![directory.identity(service)];
    let found = known.and_then(|known| known.found.as_ref());
    let endpoints = found.map(|found| found.endpoints.clone()).unwrap_or_default();
    (MeshPeer { identities }, Endpoints { upstream, endpoints })
}
