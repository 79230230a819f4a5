//! `/status` and `/history`: how the control plane stands, and who changed what.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Call, envelope, show};
use crate::model::{Key, ResourceKind};

/// Versions of one page of the history.
const LONGEST_PAGE: usize = 500;
/// Versions when nothing else is asked for.
const USUAL_PAGE: usize = 50;

/// `/status`.
pub(super) fn status(call: &Call<'_>) -> Response {
    let keeper = &call.admin.keeper;
    let state = keeper.state();
    let counts: Map<String, Value> =
        ResourceKind::ALL.into_iter().map(|kind| (kind.plural().to_owned(), state.count(kind).into())).collect();
    let providers: Vec<Value> = keeper
        .sources()
        .iter()
        .map(|source| {
            json!({
                "provider": &*source.provider, "source": &*source.source, "resources": source.resources,
                "accepted_ms": source.accepted_ms, "refused_ms": source.refused_ms, "errors": source.errors,
            })
        })
        .collect();
    let nodes = (call.admin.nodes)();
    let trouble = keeper.trouble();
    envelope::json(
        StatusCode::OK,
        &json!({
            "version": env!("CARGO_PKG_VERSION"),
            "revision": state.revision,
            "generation": state.generation,
            "store": {"writable": trouble.is_none(), "error": trouble, "unknown_resources": keeper.unknown()},
            "providers": providers,
            "differences": (call.admin.differences)(),
            "resources": counts,
            "nodes": nodes.as_array().map_or(0, Vec::len),
        }),
    )
}

/// `/history?key=routes/1&before=17&limit=50`.
pub(super) async fn history(call: &Call<'_>) -> Response {
    let key = match call.arg("key").map(key_of) {
        Some(None) => {
            return envelope::bad("invalid argument key: expected, for example, routes/1 or consumers/jack/credentials/c1");
        }
        Some(Some(key)) => Some(key),
        None => None,
    };
    let number = |name: &str| match call.arg(name) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("invalid argument {name}: should be a number")),
    };
    let (before, limit) = match (number("before"), number("limit")) {
        (Ok(before), Ok(limit)) => (before, limit),
        (Err(why), _) | (_, Err(why)) => return envelope::bad(why),
    };
    let limit = limit.map_or(USUAL_PAGE, |limit| usize::try_from(limit).unwrap_or(LONGEST_PAGE).clamp(1, LONGEST_PAGE));
    match call.admin.keeper.history(key, before, limit).await {
        Ok(versions) => {
            let list: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let value = version.value.as_ref().map(|value| show::to_reader(call, version.key.kind, value));
                    json!({
                        "key": envelope::key_text(&version.key), "revision": version.revision, "createdIndex": version.created,
                        "author": &*version.author, "time_ms": version.time_ms, "deleted": value.is_none(), "value": value,
                    })
                })
                .collect();
            envelope::json(StatusCode::OK, &json!({"list": list}))
        }
        Err(error) => envelope::error(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

fn key_of(text: &str) -> Option<Key> {
    let text = text.trim_start_matches('/');
    let text = text.strip_prefix("apisix/").unwrap_or(text);
    let (kind, id) = text.split_once('/').filter(|(_, id)| !id.is_empty())?;
    if kind == "consumers" && id.contains("/credentials/") {
        return Some(Key::new(ResourceKind::Credential, id));
    }
    Some(Key::new(ResourceKind::from_plural(kind)?, id))
}
