//! Reading single fields of a user resource that was validated before. It never fails: what has another form than expected reads as absent.

use std::sync::Arc;

use serde_json::Value;

/// A string.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field)?.as_str()
}

/// A string that is not empty, shared.
pub(super) fn shared(value: &Value, field: &str) -> Option<Arc<str>> {
    text(value, field).filter(|text| !text.is_empty()).map(Arc::from)
}

/// The id of another resource; numbers are allowed and read as their digits.
pub(super) fn reference(value: &Value, field: &str) -> Option<String> {
    match value.get(field)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A whole number.
pub(super) fn number(value: &Value, field: &str) -> Option<i64> {
    value.get(field)?.as_i64()
}

/// The strings of an array, others left out.
pub(super) fn texts<'a>(value: &'a Value, field: &str) -> Vec<&'a str> {
    value.get(field).and_then(Value::as_array).map_or_else(Vec::new, |items| items.iter().filter_map(Value::as_str).collect())
}

/// The strings of `many`, or the one of `one`: `uri` and `uris`, `host` and `hosts`.
pub(super) fn one_or_many<'a>(value: &'a Value, one: &str, many: &str) -> Vec<&'a str> {
    match text(value, one) {
        Some(single) => vec![single],
        None => texts(value, many),
    }
}
