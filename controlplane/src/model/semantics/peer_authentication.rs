//! What the schema of a peer authentication cannot say.

use super::super::Fault;
use super::super::mesh::{NAME_RULE, is_mesh_name};
use super::super::resources::PeerAuthentication;

/// Names and ports, and that it says anything at all.
pub(super) fn check(peers: &PeerAuthentication, faults: &mut Vec<Fault>) {
    let named = [("namespace", Some(&peers.namespace)), ("service", peers.service.as_ref())];
    for (field, name) in named.into_iter().filter_map(|(field, name)| name.map(|name| (field, name))) {
        if !is_mesh_name(name) {
            faults.push(Fault::new(field, format!("expected {NAME_RULE}, got \"{name}\"")));
        }
    }
    if peers.mode.is_none() && peers.ports.is_empty() {
        faults.push(Fault::new(
            "mode",
            "expected strict, permissive or disable, or ports that have a mode: it says nothing as it is",
        ));
    }
    if peers.service.is_none() && !peers.ports.is_empty() {
        faults.push(Fault::new("ports", "ports are those of one service: say service too, or mode for all of the namespace"));
    }
    for port in peers.ports.keys().filter(|port| PeerAuthentication::port(port).is_none()) {
        faults.push(Fault::new(
            format!("ports[\"{port}\"]"),
            format!("expected a port of the application, 1 to 65535, got \"{port}\""),
        ));
    }
}
