//! A node as one, which asks for each type by a stream of its own. It asks nobody.

use std::collections::HashMap;

use super::NodeView;

/// The streams, the oldest first, as nodes: who says the same of itself by all of them is one. Of a kind that several are about, the latest says how it is.
pub(super) fn joined<'a>(streams: impl Iterator<Item = &'a NodeView>) -> Vec<NodeView> {
    let mut nodes: Vec<NodeView> = Vec::new();
    let mut known = HashMap::new();
    for stream in streams {
        let is = (&stream.node.scope, &stream.node.version, stream.types.as_str(), stream.dialect.as_str());
        match known.get(&is).and_then(|at: &usize| nodes.get_mut(*at)) {
            Some(node) => join(node, stream),
            None => {
                known.insert(is, nodes.len());
                nodes.push(stream.clone());
            }
        }
    }
    nodes
}

fn join(node: &mut NodeView, later: &NodeView) {
    let is_told = |kind| later.kinds.iter().any(|of| of.kind == kind);
    node.streams += later.streams;
    node.connected_since = node.connected_since.min(later.connected_since);
    node.last_contact = node.last_contact.max(later.last_contact);
    node.kinds.retain(|of| !is_told(of.kind));
    node.kinds.extend(later.kinds.iter().cloned());
    node.kinds.sort_by_key(|of| of.kind.index());
    node.nacks.retain(|nack| !is_told(nack.kind));
    node.nacks.extend(later.nacks.iter().cloned());
    node.kept.retain(|(kind, _)| !is_told(*kind));
    node.kept.extend(later.kept.iter().cloned());
    node.withheld = later.withheld.clone();
    if later.node.instance.is_some() {
        node.node.instance.clone_from(&later.node.instance);
    }
}
