//! Types that several user resources share: ids, labels, plugins, timeouts, spans and sizes with units. They know their JSON form and schema, nothing of the resources that use them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::config::{parse_duration, parse_size};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Plugin name to its configuration.
pub type Plugins = BTreeMap<String, Value>;

/// Label name to value.
pub type Labels = BTreeMap<String, String>;

/// An id as people write it: a string, or an integer that is read as its decimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub Arc<str>);

impl Id {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Id(text.into())),
            Value::Number(number) if number.is_u64() => Ok(Id(number.to_string().into())),
            other => Err(serde::de::Error::custom(format_args!("expected an id (string or positive integer), got {other}"))),
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[a-zA-Z0-9-_.]+(@[a-zA-Z0-9-_.]+)?$"},
            {"type": "integer", "minimum": 1}
        ]})
    }
}

/// A span of time: a number of seconds, or a text with a unit (`250ms`, `10s`, `1m30s`, `1h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Spans above ten years are mistakes, and would overflow timers.
const LONGEST_SPAN_S: f64 = 10.0 * 365.0 * 86_400.0;

impl Span {
    /// Reads a text with a unit.
    pub fn parse(text: &str) -> Result<Span, String> {
        let read = parse_duration(text)
            .ok_or_else(|| format!("expected a time such as \"250ms\", \"10s\", \"1m30s\" or \"1h\", got \"{text}\""))?;
        Span::from_seconds(read.as_secs_f64()).map(|_| Span(read))
    }

    fn from_seconds(seconds: f64) -> Result<Span, String> {
        if !(0.0..=LONGEST_SPAN_S).contains(&seconds) {
            return Err(format!("expected a time from 0 to 10 years, got {seconds} seconds"));
        }
        Ok(Span(Duration::from_secs_f64(seconds)))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let read = match Value::deserialize(deserializer)? {
            Value::String(text) => Span::parse(&text),
            Value::Number(number) => Span::from_seconds(number.as_f64().unwrap_or(-1.0)),
            other => Err(format!("expected a time such as \"10s\" or a number of seconds, got {other}")),
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string", "pattern": "^(([0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h|d))+|0)$"},
            {"type": "number", "minimum": 0}
        ]})
    }
}

/// A number of bytes: a plain number, or a text with a unit (`64KiB`, `1MiB`, `1.5GiB`, `5MB`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl Size {
    /// Reads a text with a unit.
    pub fn parse(text: &str) -> Result<Size, String> {
        parse_size(text)
            .map(Size)
            .ok_or_else(|| format!("expected a size such as \"64KiB\", \"1MiB\" or a number of bytes, got \"{text}\""))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        let read = match Value::deserialize(deserializer)? {
            Value::String(text) => Size::parse(&text),
            Value::Number(number) => number.as_u64().map(Size).ok_or_else(|| format!("expected a number of bytes, got {number}")),
            other => Err(format!("expected a size such as \"64KiB\" or a number of bytes, got {other}")),
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)? ?(B|KB|MB|GB|KiB|MiB|GiB)?$"},
            {"type": "integer", "minimum": 0}
        ]})
    }
}

/// How long each step towards the upstream may take, in seconds.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeout {
    /// Until the connection stands.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub connect: f64,
    /// Between two successful writes.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub send: f64,
    /// Between two successful reads.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub read: f64,
}

/// Seconds as a duration; what is negative, infinite or beyond ten years is cut to that range.
pub fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(if value.is_finite() { value.clamp(0.0, LONGEST_SPAN_S) } else { 0.0 })
}

/// Schema of an id that names its parents too: `manager/id`, `username/credentials/id`.
pub(super) fn path_id_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": ["string", "integer"], "minLength": 1, "maxLength": 512, "pattern": "^[a-zA-Z0-9-_.@/]+$"})
}

/// Schema of [`Plugins`].
pub(super) fn plugins_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": {"type": "object"}})
}

/// Schema of [`Labels`].
pub(super) fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "Key/value pairs to describe and find resources.",
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^\\S+$"}
    })
}

/// Schema of a switch that is the number 1 (on, the default) or 0 (off).
pub(super) fn status_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "enum": [1, 0], "default": 1})
}

/// Schema of a list of different, non-empty host patterns.
pub(super) fn hosts_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "minItems": 1, "uniqueItems": true, "items": {"type": "string", "minLength": 1, "pattern": HOST}})
}

/// A host: `*`, `*.example.com`, a name, or an address.
pub(super) const HOST: &str = "^(\\*|\\*?[0-9a-zA-Z-._\\[\\]:]+)$";

/// The default of `status`.
pub(super) fn on() -> u8 {
    1
}

/// A default of `true`.
pub(super) fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn spans_and_sizes_carry_units() {
        assert_eq!(Span::parse("250ms").unwrap().0, Duration::from_millis(250));
        assert_eq!(Span::parse("1m30s").unwrap().0, Duration::from_secs(90));
        assert_eq!(Size::parse("64KiB").unwrap().0, 65_536);
        assert_eq!(Size::parse("5MB").unwrap().0, 5_000_000);
        for bad in ["", "s", "10", "10 parsecs", "-1s", "1e9d", "4000d", "99999999999d"] {
            assert!(Span::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "KiB", "-1", "99999999999999999999", "18446744073709551615KiB"] {
            assert!(Size::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_are_texts_or_integers() {
        assert_eq!(serde_json::from_str::<Id>("17").unwrap().as_str(), "17");
        assert_eq!(serde_json::from_str::<Id>("\"r1\"").unwrap().as_str(), "r1");
        assert!(serde_json::from_str::<Id>("-1").is_err());
        assert!(serde_json::from_str::<Id>("true").is_err());
    }
}
