//! Who is let in at a port of an application, by what is said of it, of its service and of its namespace. It knows no listener.

use crate::model::{Kind, PeerAuthentication, PeerMode, Resource};
use crate::snapshot::{NodeScope, SnapshotSource, View};

/// The mode of a port: the most specific that is said counts, and of two that speak of the same the safer one.
pub(super) fn at(view: &View, scope: &NodeScope, port: u16) -> PeerMode {
    let all = view.all(Kind::PeerAuthentication).1;
    let seen = || {
        all.iter().filter(|(_, found)| scope.sees(&found.resource)).filter_map(|(_, found)| match &found.resource {
            Resource::PeerAuthentication(peers) => Some(peers),
            _ => None,
        })
    };
    let is_own = |peers: &&PeerAuthentication| peers.service.is_some();
    let at_port = seen().filter(is_own).filter_map(|peers| peers.ports.get(&port).copied()).max();
    let of_service = || seen().filter(is_own).filter_map(|peers| peers.mode).max();
    let of_namespace = || seen().filter(|peers| peers.service.is_none()).filter_map(|peers| peers.mode).max();
    at_port.or_else(of_service).or_else(of_namespace).unwrap_or_default()
}
