//! Small readers that check and bound what came from the wire. They know no message of ours.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

/// Bytes of one resource. Far above any real one; keeps one resource within one gRPC message.
pub(super) const MAX_RESOURCE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a name or id.
pub(super) const MAX_NAME: usize = 1024;
/// Bytes of any other text.
pub(super) const MAX_TEXT: usize = 64 * 1024;
/// Bytes of a JSON value or a PEM text.
pub(super) const MAX_BLOB: usize = 2 * 1024 * 1024;
/// Elements of a list.
pub(super) const MAX_LIST: usize = 4096;
/// Longest time; keeps arithmetic on clocks far from overflow.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// What is wrong with one field.
#[derive(Debug)]
pub(super) struct Fault {
    /// Dotted path.
    pub(super) field: String,
    /// What was expected and what was found.
    pub(super) reason: String,
}

impl Fault {
    pub(super) fn new(field: &str, reason: impl Into<String>) -> Fault {
        Fault { field: field.to_string(), reason: reason.into() }
    }

    /// The same fault, one level further in.
    pub(super) fn inside(mut self, prefix: &str) -> Fault {
        self.field = if self.field.is_empty() { prefix.to_string() } else { format!("{prefix}.{}", self.field) };
        self
    }
}

/// The outcome of reading a field.
pub(super) type Read<T> = Result<T, Fault>;

/// A text of at most `max` bytes.
pub(super) fn text(field: &str, value: String, max: usize) -> Read<Arc<str>> {
    if value.len() > max {
        return Err(Fault::new(field, format!("has {} bytes, at most {max} are allowed", value.len())));
    }
    Ok(value.into())
}

/// A name that must be there.
pub(super) fn name(field: &str, value: String) -> Read<Arc<str>> {
    if value.is_empty() {
        return Err(Fault::new(field, "must not be empty"));
    }
    text(field, value, MAX_NAME)
}

/// A text that may be absent.
pub(super) fn optional(field: &str, value: Option<String>) -> Read<Option<Arc<str>>> {
    value.map(|value| text(field, value, MAX_TEXT)).transpose()
}

/// A list of at most [`MAX_LIST`] elements, each read with its place in `field`.
pub(super) fn list<T, U>(field: &str, values: Vec<T>, read: impl Fn(&str, T) -> Read<U>) -> Read<Vec<U>> {
    if values.len() > MAX_LIST {
        return Err(Fault::new(field, format!("has {} elements, at most {MAX_LIST} are allowed", values.len())));
    }
    values.into_iter().enumerate().map(|(at, value)| read(&format!("{field}[{at}]"), value)).collect()
}

/// A list of texts.
pub(super) fn texts(field: &str, values: Vec<String>) -> Read<Vec<Arc<str>>> {
    list(field, values, |field, value| text(field, value, MAX_TEXT))
}

/// A list of networks in CIDR form.
pub(super) fn networks(field: &str, values: Vec<String>) -> Read<Vec<IpNet>> {
    list(field, values, |field, value| {
        value.parse().map_err(|_| Fault::new(field, format!("expected a network in CIDR form, found {:.100?}", value)))
    })
}

/// A message that must be there.
pub(super) fn required<T>(field: &str, value: Option<T>) -> Read<T> {
    value.ok_or_else(|| Fault::new(field, "is missing"))
}

/// A time that must be there and must not be negative.
pub(super) fn duration(field: &str, value: Option<prost_types::Duration>) -> Read<Duration> {
    let value = required(field, value)?;
    match Duration::try_from(value) {
        Ok(value) if value <= MAX_DURATION => Ok(value),
        _ => Err(Fault::new(field, "expected a time between zero and ten years")),
    }
}

/// A time on the wire, cut to what [`duration`] reads.
pub(super) fn to_duration(value: Duration) -> Option<prost_types::Duration> {
    let value = value.min(MAX_DURATION);
    let seconds = i64::try_from(value.as_secs()).unwrap_or(i64::MAX);
    Some(prost_types::Duration { seconds, nanos: value.subsec_nanos().cast_signed() })
}

/// A JSON value.
pub(super) fn json(field: &str, value: &[u8]) -> Read<Arc<Value>> {
    if value.len() > MAX_BLOB {
        return Err(Fault::new(field, format!("has {} bytes, at most {MAX_BLOB} are allowed", value.len())));
    }
    serde_json::from_slice(value).map(Arc::new).map_err(|error| Fault::new(field, format!("is not JSON: {error}")))
}

/// A JSON value on the wire.
pub(super) fn to_json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// A number that must fit a smaller type.
pub(super) fn narrow<T: TryFrom<u32>>(field: &str, value: u32) -> Read<T> {
    T::try_from(value).map_err(|_| Fault::new(field, format!("{value} is out of range")))
}

/// Texts on the wire.
pub(super) fn to_texts(values: &[Arc<str>]) -> Vec<String> {
    values.iter().map(|value| value.to_string()).collect()
}

/// Networks on the wire.
pub(super) fn to_networks(values: &[IpNet]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
