//! `/mesh/services` and `/mesh/instances`, narrowed by the query. It knows the shape of what is shown, not the mesh.

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::{Call, envelope};
use crate::mesh::Standing;

/// Fields by which services and instances are narrowed, each by its exact value.
const FIELDS: [&str; 5] = ["zone", "node", "protocol", "version", "state"];

/// `/mesh/services?service=web&namespace=shop&faulty=true`, `/mesh/instances?service=shop/web&zone=a&state=live`. All conditions must hold.
pub(super) fn list(call: &Call<'_>, what: &str) -> Response {
    if let Some(state) = call.arg("state").filter(|state| !Standing::ALL.iter().any(|standing| standing.as_str() == *state)) {
        let known: Vec<&str> = Standing::ALL.iter().map(|standing| standing.as_str()).collect();
        return envelope::bad(format!("invalid argument state: expected one of {}, got {state}", known.join(", ")));
    }
    let mut shown = (call.admin.mesh)();
    let Some(Value::Array(list)) = shown.get_mut(what).map(Value::take) else {
        return envelope::error(StatusCode::NOT_FOUND, "not found");
    };
    let passing: Vec<Value> = list.into_iter().filter(|item| passes(call, item)).collect();
    envelope::json(StatusCode::OK, &Value::Array(passing))
}

fn passes(call: &Call<'_>, item: &Value) -> bool {
    let (namespace, name) = item["service"].as_str().and_then(|full| full.split_once('/')).unwrap_or_default();
    let is_service = |wanted: &str| match wanted.split_once('/') {
        Some(full) => full == (namespace, name),
        None => wanted == name,
    };
    let holds = |field: &str| call.arg(field).is_none_or(|wanted| item[field].as_str() == Some(wanted));
    // Sidecars of a partner's services register with the partner.
    let is_faulty = || item["fault"].is_string() || (item["live"] == 0 && item["federated"].is_null());
    call.arg("service").is_none_or(is_service)
        && call.arg("namespace").is_none_or(|wanted| wanted == namespace)
        && FIELDS.iter().all(|field| holds(field))
        && call.arg("faulty").is_none_or(|wanted| (wanted == "true") == is_faulty())
}
