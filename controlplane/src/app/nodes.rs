//! The connected nodes as `GET /admin/nodes` shows them.

use heddle_node::clock;
use heddle_xds::server::{KindView, Nack, NodeRegistry, NodeView};
use serde_json::{Value, json};

/// An array of objects, one per node.
pub(super) fn json(registry: &NodeRegistry) -> Value {
    registry.nodes().iter().map(node).collect()
}

fn node(node: &NodeView) -> Value {
    json!({
        "id": &*node.node.scope.id,
        "role": &*node.node.scope.role,
        "zone": &*node.node.scope.zone,
        "namespace": &*node.node.scope.namespace,
        "service": &*node.node.scope.service,
        "version": &*node.node.version,
        "connected_since": node.connected_since.map(clock::unix_ms_of),
        "types": node.kinds.iter().map(kind).collect::<Vec<_>>(),
        "nacks": node.nacks.iter().map(nack).collect::<Vec<_>>(),
    })
}

fn kind(held: &KindView) -> Value {
    json!({ "type": held.kind.type_url(), "version": held.version, "resources": held.resources, "pending": held.pending })
}

fn nack(nack: &Nack) -> Value {
    json!({ "type": nack.kind.type_url(), "resource": &*nack.name, "field": nack.field, "reason": nack.reason, "time": clock::unix_ms_of(nack.time) })
}
