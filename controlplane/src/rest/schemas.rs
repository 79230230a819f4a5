//! `/schema`, `/schema/validate` and `/plugins`: what may be written, told without writing.

use axum::response::Response;
use heddle_xds::catalog::{Descriptor, Place, PluginKind};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::value::body;
use super::{Call, envelope};
use crate::model::{MANAGERS, ResourceKind, check_schema, schema as schema_of};

/// `/schema/{name}`.
pub(super) fn schema(name: &str) -> Response {
    if name == "plugins" {
        return envelope::json(StatusCode::OK, &json!({"type": "object", "additionalProperties": {"type": "object"}}));
    }
    match ResourceKind::ALL.into_iter().find(|kind| kind.singular() == name) {
        Some(kind) => envelope::json(StatusCode::OK, &schema_of(kind)),
        None => envelope::bad(format!("not found schema: {name}")),
    }
}

/// `/schema/validate/{collection}`: the shape only.
pub(super) fn validate_one(name: &str, bytes: &[u8]) -> Response {
    let Some(kind) = ResourceKind::from_plural(name) else { return envelope::bad(format!("not found schema: {name}")) };
    let value = match body::json(bytes) {
        Ok(value) => value,
        Err(why) => return envelope::bad(format!("invalid request body: {why}")),
    };
    // Secrets do not say their manager; any that takes the value will do.
    let ids: &[&str] = if kind == ResourceKind::Secret { &MANAGERS } else { &[""] };
    let mut found: Vec<_> = ids.iter().map(|id| check_schema(kind, id, &value)).collect();
    found.sort_by_key(Vec::len);
    let Some(fault) = found.first().and_then(|faults| faults.first()) else { return envelope::empty(StatusCode::OK) };
    let wording = fault.wording();
    envelope::bad(wording.strip_prefix("invalid configuration: ").unwrap_or(&wording))
}

/// `/plugins/list` and `/plugins?all=true`.
pub(super) fn plugins(call: &Call<'_>, may_be_all: bool) -> Response {
    let stream = call.arg("subsystem") == Some("stream");
    let all: &[Descriptor] = if stream { &[] } else { call.admin.catalog.descriptors() };
    if !may_be_all || call.arg("all") != Some("true") {
        let names: Vec<&str> = all.iter().map(|descriptor| descriptor.name).collect();
        return envelope::json(StatusCode::OK, &json!(names));
    }
    let facts: Map<String, Value> = all.iter().map(|descriptor| (descriptor.name.to_owned(), facts(call, descriptor))).collect();
    envelope::json(StatusCode::OK, &Value::Object(facts))
}

fn facts(call: &Call<'_>, descriptor: &Descriptor) -> Value {
    let mut facts = json!({"version": descriptor.version, "priority": descriptor.priority});
    if descriptor.kind == PluginKind::Auth {
        facts["type"] = "auth".into();
    }
    for (field, place) in [("schema", Place::Route), ("consumer_schema", Place::Consumer), ("metadata_schema", Place::Metadata)] {
        if let Some(schema) = call.admin.catalog.schema(descriptor.name, place) {
            facts[field] = schema;
        }
    }
    facts
}

/// `/plugins/{name}` and `/schema/plugins/{name}`.
pub(super) fn plugin(call: &Call<'_>, name: &str) -> Response {
    let subsystem = call.arg("subsystem").unwrap_or("http");
    if subsystem != "http" || call.admin.catalog.descriptor(name).is_none() {
        return envelope::error(StatusCode::NOT_FOUND, format!("plugin not found in subsystem {subsystem}"));
    }
    let place = match call.arg("schema_type") {
        Some("consumer") => Place::Consumer,
        Some("metadata") => Place::Metadata,
        _ => Place::Route,
    };
    match call.admin.catalog.schema(name, place) {
        Some(schema) => envelope::json(StatusCode::OK, &schema),
        None => envelope::bad("not found schema"),
    }
}
