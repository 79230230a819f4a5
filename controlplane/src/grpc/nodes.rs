//! Between what the discovery server knows of nodes and the messages of `heddle.admin.v1`. It asks nobody and decides nothing.

use heddle_proto::heddle::admin::v1 as api;
use heddle_xds::dialect::envoy::encode::Withheld;
use heddle_xds::model::Kind;
use heddle_xds::protocol::Types;
use heddle_xds::server::{GroupView, HeldView, Nack, NodeView, Refusal};

use super::codec::moment;

pub(super) fn node(view: NodeView, withheld: &[Withheld], held: Vec<HeldView>) -> api::NodeStatus {
    let (types, group) = (view.types, view.group().to_string());
    let kinds = view.kinds.into_iter().map(|held| api::TypeStatus {
        type_url: types.url(held.kind).into(),
        version: held.version.to_string(),
        resources: held.resources as u64,
        pending: held.pending,
    });
    let kept = view.kept.iter().map(|(kind, name)| self::kept(types, *kind, name));
    let nacks = view.nacks.into_iter().map(|refused| nack(types, refused));
    api::NodeStatus {
        id: view.node.scope.id.to_string(),
        role: view.node.scope.role.to_string(),
        zone: view.node.scope.zone.to_string(),
        version: view.node.version.to_string(),
        connected_since: view.connected_since.map(moment),
        dialect: view.dialect.as_str().into(),
        types: kinds.collect(),
        nacks: nacks.collect(),
        last_contact: Some(moment(view.last_contact)),
        speaks: types.as_str().into(),
        withheld: withheld.iter().map(self::withheld).collect(),
        group,
        held: held.into_iter().map(|one| self::held(types, one)).collect(),
        kept: kept.collect(),
        streams: view.streams as u64,
    }
}

fn nack(types: Types, nack: Nack) -> api::Nack {
    api::Nack {
        type_url: types.url(nack.kind).into(),
        resource: nack.name.to_string(),
        field: nack.field,
        reason: nack.reason,
        time: Some(moment(nack.time)),
        parts: nack.parts.iter().map(ToString::to_string).collect(),
    }
}

fn held(types: Types, held: HeldView) -> api::Held {
    let (node, version) = (held.node.to_string(), held.version.to_string());
    api::Held { nack: Some(nack(types, held.into())), node, version }
}

fn kept(types: Types, kind: Kind, name: &str) -> api::Kept {
    api::Kept { type_url: types.url(kind).into(), resource: name.into() }
}

/// A group of nodes.
pub(super) fn rollout(view: GroupView) -> api::Rollout {
    let types = view.name.types;
    api::Rollout {
        group: view.name.to_string(),
        canaries: view.canaries.iter().map(ToString::to_string).collect(),
        nodes: view.nodes as u64,
        trying: view.trying as u64,
        held: view.held.into_iter().map(|one| held(types, one)).collect(),
        kept: view.kept.iter().map(|(kind, name)| kept(types, *kind, name)).collect(),
    }
}

/// A refusal as who watches hears of it.
pub(super) fn refusal(refusal: Refusal) -> api::WatchResponse {
    let Refusal { node, group, nack: refused } = refusal;
    let told = api::Refusal { node: node.to_string(), group: group.to_string(), nack: Some(nack(group.types, refused)) };
    api::WatchResponse { refusal: Some(told), ..Default::default() }
}

fn withheld(withheld: &Withheld) -> api::Withheld {
    api::Withheld { kind: withheld.kind.as_str().into(), resource: withheld.name.to_string(), reason: withheld.reason.clone() }
}
