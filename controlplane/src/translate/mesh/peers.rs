//! Who is let in by sidecars, from the form that users write to the one that sidecars obey.

use std::sync::Arc;

use heddle_xds::model::{PeerAuthentication, PeerMode, Resource};
use serde::Deserialize;

use super::super::context::Unit;
use crate::model::Key;
use crate::model::resources::{self, PeerModeKind};
use crate::state::Stored;

/// Translates one.
pub(in super::super) fn unit(key: &Key, stored: &Stored) -> Unit {
    let Ok(written) = resources::PeerAuthentication::deserialize(&stored.value) else { return Unit::default() };
    let port = |(port, kind): (&String, &PeerModeKind)| Some((resources::PeerAuthentication::port(port)?, mode(*kind)));
    let peers = PeerAuthentication {
        id: key.id.clone(),
        namespace: written.namespace.as_str().into(),
        service: written.service.as_deref().map(Arc::from),
        mode: written.mode.map(mode),
        ports: written.ports.iter().filter_map(port).collect(),
    };
    Unit { resources: vec![Resource::PeerAuthentication(peers)], ..Unit::default() }
}

fn mode(kind: PeerModeKind) -> PeerMode {
    match kind {
        PeerModeKind::Strict => PeerMode::Strict,
        PeerModeKind::Permissive => PeerMode::Permissive,
        PeerModeKind::Disable => PeerMode::Disable,
    }
}
