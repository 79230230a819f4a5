//! The JSON bodies and headers of answers, in APISIX's forms. It knows statuses and texts, not what led to them.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::model::{Fault, Key};
use crate::state::{Refused, Stored};
use crate::store::StoreError;

/// An answer with a JSON body.
pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    text(status, "application/json", body.to_string())
}

/// An answer with a body of any type.
pub(super) fn text(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// `{"error_msg": …}`.
pub(super) fn error(status: StatusCode, message: impl Into<String>) -> Response {
    json(status, &json!({"error_msg": message.into()}))
}

/// 400 with `error_msg`.
pub(super) fn bad(message: impl Into<String>) -> Response {
    error(StatusCode::BAD_REQUEST, message)
}

/// 404 as APISIX says it for a missing resource.
pub(super) fn missing() -> Response {
    json(StatusCode::NOT_FOUND, &json!({"message": "Key not found"}))
}

/// 401 with its reason.
pub(super) fn unauthorized(why: &str) -> Response {
    json(StatusCode::UNAUTHORIZED, &json!({"error_msg": "failed to check token", "description": why}))
}

/// 400 for faults of one resource: the first in APISIX's words, all of them with path and expectation.
pub(super) fn faults(faults: &[Fault]) -> Response {
    let first = faults.first().map(Fault::wording).unwrap_or_default();
    let errors: Vec<Value> = faults.iter().map(|fault| json!({"path": fault.path, "message": fault.message})).collect();
    let not_found = faults.iter().any(|fault| fault.whole && fault.message == "consumer not found");
    let status = if not_found { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
    json(status, &json!({"error_msg": first, "errors": errors}))
}

/// The key as it is shown: `/apisix/routes/1`.
pub(super) fn key_text(key: &Key) -> String {
    format!("/apisix/{key}")
}

/// One resource as GET and lists show it.
pub(super) fn item(key: &Key, value: Value, stored: &Stored) -> Value {
    json!({"key": key_text(key), "value": value, "createdIndex": stored.created, "modifiedIndex": stored.modified})
}

/// Why a transaction was refused. `guarded` when the client demanded a revision, so that a conflict is its own.
pub(super) fn refused(refused: &Refused, guarded: bool) -> Response {
    match refused {
        Refused::Invalid(found) => faults(&found.iter().map(|(_, fault)| fault.clone()).collect::<Vec<_>>()),
        Refused::NotFound(_) => missing(),
        Refused::Conflict { .. } | Refused::Moved { .. } if guarded => {
            error(StatusCode::PRECONDITION_FAILED, refused.to_string())
        }
        Refused::Conflict { .. }
        | Refused::Moved { .. }
        | Refused::Store(StoreError::Conflict { .. } | StoreError::Behind { .. }) => {
            error(StatusCode::SERVICE_UNAVAILABLE, "value changed before overwritten")
        }
        Refused::ReadOnly { .. } => bad(refused.to_string()),
        Refused::Store(StoreError::Full(_)) => error(StatusCode::INSUFFICIENT_STORAGE, refused.to_string()),
        Refused::Store(StoreError::UnknownRevision(..)) => bad(refused.to_string()),
        Refused::Store(StoreError::TooLarge { .. }) => error(StatusCode::PAYLOAD_TOO_LARGE, refused.to_string()),
        Refused::Store(_) | Refused::Closed => error(StatusCode::SERVICE_UNAVAILABLE, refused.to_string()),
    }
}
