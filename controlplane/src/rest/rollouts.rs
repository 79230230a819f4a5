//! `/rollouts`: how new versions spread over groups of nodes, what is held, and the word to go on. It knows no node.

use axum::response::Response;
use heddle_xds::model::Kind;
use heddle_xds::protocol::Types;
use heddle_xds::server::{GroupView, HeldView};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, envelope};

/// `/rollouts`.
pub(super) fn list(call: &Call<'_>) -> Response {
    let all: Vec<Value> = call.admin.rollouts.view().iter().map(group).collect();
    envelope::json(StatusCode::OK, &Value::Array(all))
}

/// `POST /rollouts/resume?group=gateway/envoy`.
pub(super) fn resume(call: &Call<'_>) -> Response {
    let Some(group) = call.arg("group") else {
        return envelope::bad("missing argument group: name one of GET /rollouts, for example gateway/envoy");
    };
    match call.admin.rollouts.resume(group) {
        Some(resumed) => {
            tracing::warn!(group, resumed, author = %call.caller.author, "what was held goes on");
            envelope::json(StatusCode::OK, &json!({ "group": group, "resumed": resumed }))
        }
        None => envelope::error(StatusCode::NOT_FOUND, format!("there is no group {group}: GET /rollouts lists them")),
    }
}

fn group(view: &GroupView) -> Value {
    json!({
        "group": view.name.to_string(),
        "canaries": view.canaries.iter().map(|id| &**id).collect::<Vec<_>>(),
        "nodes": view.nodes,
        "trying": view.trying,
        "held": view.held.iter().map(|one| held(view.name.types, one)).collect::<Vec<_>>(),
        "kept": view.kept.iter().map(|(kind, name)| kept(view.name.types, *kind, name)).collect::<Vec<_>>(),
    })
}

/// What is gone and is kept, since what nodes have in the place of something held or refused refers to it.
pub(crate) fn kept(types: Types, kind: Kind, name: &str) -> Value {
    json!({ "type": types.url(kind), "resource": name })
}

/// What is held, as `/nodes` shows it too.
pub(crate) fn held(types: Types, held: &HeldView) -> Value {
    let HeldView { kind, name, version, node, field, reason, time, parts } = held;
    json!({
        "type": types.url(*kind), "resource": &**name, "version": &**version, "refused_by": &**node, "field": field, "reason": reason,
        "time": heddle_node::clock::unix_ms_of(*time), "parts": &**parts,
    })
}
