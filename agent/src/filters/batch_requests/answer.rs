//! The answers of a batch as one JSON array, in APISIX's form. It asks nobody.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::exchange::Reason;
use crate::http::{ResponseHead, reason_phrase};

/// The entry of an answer that came.
pub(super) fn entry(head: &ResponseHead, body: &Bytes) -> Value {
    let mut headers = Map::new();
    for field in head.fields.iter() {
        let name = String::from_utf8_lossy(field.name).into_owned();
        let value = Value::String(String::from_utf8_lossy(field.value).into_owned());
        match headers.get_mut(&name) {
            None => drop(headers.insert(name, value)),
            Some(Value::Array(values)) => values.push(value),
            Some(one) => *one = json!([one.take(), value]),
        }
    }
    json!({ "status": head.status, "reason": reason_phrase(head.status), "headers": headers, "body": String::from_utf8_lossy(body) })
}

/// The entry of a request that was not answered in time.
pub(super) fn late() -> Value {
    json!({ "status": 504, "reason": "upstream timeout" })
}

/// The entry of an answer that broke off or was too long.
pub(super) fn broken(reason: Reason) -> Value {
    match reason {
        Reason::Overflow => json!({ "status": 502, "reason": "the answers of the batch are too long" }),
        other => json!({ "status": other.status(), "reason": reason_phrase(other.status()) }),
    }
}
