//! The connected nodes as `GET /admin/nodes` shows them.

use heddle_node::clock;
use heddle_xds::dialect::envoy::encode::Withheld;
use heddle_xds::protocol::Types;
use heddle_xds::server::{HeldView, KindView, Nack, NodeRegistry, NodeView};
use serde_json::{Value, json};

use crate::rest;

/// An array of objects, one per node.
pub(super) fn json(registry: &NodeRegistry) -> Value {
    let held = registry.held();
    let one = |view: &NodeView| node(view, &view.withheld.read(), held.from(view));
    registry.nodes().iter().map(one).collect()
}

fn node<'a>(node: &NodeView, withheld: &[Withheld], held: impl Iterator<Item = &'a HeldView>) -> Value {
    let types = node.types;
    json!({
        "id": &*node.node.scope.id,
        "role": &*node.node.scope.role,
        "zone": &*node.node.scope.zone,
        "namespace": &*node.node.scope.namespace,
        "service": &*node.node.scope.service,
        "version": &*node.node.version,
        "connected_since": node.connected_since.map(clock::unix_ms_of),
        "streams": node.streams,
        "speaks": types.as_str(),
        "types": node.kinds.iter().map(|held| kind(types, held)).collect::<Vec<_>>(),
        "nacks": node.nacks.iter().map(|refused| nack(types, refused)).collect::<Vec<_>>(),
        "kept": node.kept.iter().map(|(kind, name)| rest::kept(types, *kind, name)).collect::<Vec<_>>(),
        "withheld": withheld.iter().map(self::withheld).collect::<Vec<_>>(),
        "group": node.group().to_string(),
        "held": held.map(|held| rest::held(types, held)).collect::<Vec<_>>(),
    })
}

fn kind(types: Types, held: &KindView) -> Value {
    json!({ "type": types.url(held.kind), "version": held.version, "resources": held.resources, "pending": held.pending })
}

fn withheld(withheld: &Withheld) -> Value {
    json!({ "kind": withheld.kind.as_str(), "resource": &*withheld.name, "reason": withheld.reason })
}

fn nack(types: Types, nack: &Nack) -> Value {
    json!({
        "type": types.url(nack.kind), "resource": &*nack.name, "field": nack.field, "reason": nack.reason, "time": clock::unix_ms_of(nack.time),
        "parts": &*nack.parts,
    })
}
