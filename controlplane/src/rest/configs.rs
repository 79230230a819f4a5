//! `/configs/validate`: a whole document of collections, checked without being stored and without following references.

use std::collections::HashSet;

use axum::response::Response;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::value::body;
use super::{Call, envelope};
use crate::model::{Key, ResourceKind, validate};

/// More errors than this help nobody.
const MOST_ERRORS: usize = 1000;

/// Checks a JSON or YAML document.
pub(super) fn validate_all(call: &Call<'_>, bytes: &[u8]) -> Response {
    let kind = call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let read = if kind.contains("yaml") { body::yaml(bytes) } else { body::json(bytes) };
    let document = match read {
        Ok(Value::Object(document)) => document,
        Ok(_) => return envelope::bad("invalid request body: expected an object of collections"),
        Err(why) => return envelope::bad(format!("invalid request body: {why}")),
    };
    let mut errors = Vec::new();
    for (name, items) in &document {
        if name.ends_with("_conf_version") {
            continue;
        }
        collection(call, name, items, &mut errors);
    }
    if errors.is_empty() {
        return envelope::json(StatusCode::OK, &json!({}));
    }
    errors.truncate(MOST_ERRORS);
    envelope::json(StatusCode::BAD_REQUEST, &json!({"error_msg": "Configuration validation failed", "errors": errors}))
}

fn collection(call: &Call<'_>, name: &str, items: &Value, errors: &mut Vec<Value>) {
    let whole = |why: String| json!({"resource_type": name, "error": why});
    let Some(kind) = ResourceKind::from_plural(name) else {
        return errors.push(whole(match name {
            "stream_routes" | "protos" => format!("{name} are not supported yet"),
            _ => format!("Unsupported resource type: {name}"),
        }));
    };
    let Some(items) = items.as_array() else { return errors.push(whole("expected an array of resources".to_owned())) };
    let mut seen = HashSet::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        if errors.len() >= MOST_ERRORS {
            return;
        }
        let (key, value) = keyed(kind, index, item);
        let mut fault = |why: String| {
            errors.push(json!({"resource_type": name, "resource_id": &*key.id, "index": index, "error": why}));
        };
        if !seen.insert(key.clone()) {
            fault(format!("found duplicate id {} in {name}", key.id));
        }
        for found in validate(key.kind, &key.id, &value, call.admin.catalog.as_ref()).err().unwrap_or_default() {
            let wording = found.wording();
            fault(wording.strip_prefix("invalid configuration: ").unwrap_or(&wording).to_owned());
        }
    }
}

/// The key of an item of a document; a credential stands among consumers as `user/credentials/id`.
fn keyed(kind: ResourceKind, index: usize, item: &Value) -> (Key, Value) {
    let id = match item.get("id") {
        Some(Value::String(id)) => Some(id.clone()),
        Some(Value::Number(id)) => Some(id.to_string()),
        _ => None,
    };
    match (kind, id) {
        (ResourceKind::Consumer, Some(id)) if id.contains("/credentials/") => {
            (Key::new(ResourceKind::Credential, id), item.clone())
        }
        (ResourceKind::Consumer, _) => {
            let name = item.get("username").and_then(Value::as_str).unwrap_or_default();
            (Key::new(kind, name), item.clone())
        }
        (_, Some(id)) => (Key::new(kind, id), item.clone()),
        (_, None) => (Key::new(kind, format!("#{index}")), item.clone()),
    }
}
