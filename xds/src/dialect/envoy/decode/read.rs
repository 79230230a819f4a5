//! Reading a message of Envoy field by field, so that what nobody has read is refused by its name. It knows no message.
//!
//! A message is a JSON object in the mapping of protobuf, whether it came as YAML, as JSON or over the wire (`super::wire`). Names may be
//! written in both ways that the mapping allows, `lb_policy` and `lbPolicy`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Elements of a list.
pub(super) const MAX_LIST: usize = 100_000;
/// Bytes of a text.
const MAX_TEXT: usize = 2 * 1024 * 1024;
/// Longest time in seconds; ten years keep arithmetic on clocks far from overflow.
const MAX_SECONDS: f64 = 10.0 * 366.0 * 24.0 * 3600.0;
/// What stands for a field of a message that the schema does not have.
pub(super) const UNKNOWN: &str = "#";
/// Where a message of any type says its type.
pub(super) const TYPE: &str = "@type";

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Dotted path inside the resource, empty for the whole.
    pub field: String,
    /// What was expected and what was found.
    pub reason: String,
}

impl Fault {
    /// A fault of one field.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Fault {
        Fault { field: field.into(), reason: reason.into() }
    }

    /// The same fault, one level further in.
    pub fn inside(mut self, prefix: &str) -> Fault {
        self.field = match self.field.as_str() {
            "" => prefix.to_owned(),
            inner if inner.starts_with('[') => format!("{prefix}{inner}"),
            inner => format!("{prefix}.{inner}"),
        };
        self
    }
}

/// The outcome of reading something.
pub type Read<T> = Result<T, Fault>;

/// Reads a message; a field that `read` leaves over is a fault.
pub(super) fn message<'t, T>(value: &'t Value, read: impl FnOnce(&mut Fields<'t>) -> Read<T>) -> Read<T> {
    let Value::Object(map) = value else { return Err(Fault::new("", format!("expected a message, found {}", kind(value)))) };
    let two_ways = map.keys().any(|name| name.bytes().any(|byte| byte.is_ascii_uppercase()));
    let mut fields = Fields { map, two_ways, taken: Vec::with_capacity(map.len()) };
    let outcome = read(&mut fields)?;
    match fields.left_over() {
        None => Ok(outcome),
        Some(name) => Err(unsupported(name)),
    }
}

fn unsupported(name: &str) -> Fault {
    match name.strip_prefix(UNKNOWN) {
        Some(number) => Fault::new("", format!("field number {number} is not known to this release")),
        None => Fault::new(name, "is not supported"),
    }
}

/// The fields of a message that is being read.
pub(crate) struct Fields<'t> {
    map: &'t Map<String, Value>,
    /// Some of them are written as `lbPolicy`, which none is that came over the wire.
    two_ways: bool,
    taken: Vec<&'t str>,
}

impl<'t> Fields<'t> {
    /// The value of a field that is there.
    pub(super) fn take(&mut self, name: &str) -> Option<&'t Value> {
        let found = self.find(name)?;
        self.taken.push(found.0);
        Some(found.1).filter(|value| !value.is_null())
    }

    fn find(&self, name: &str) -> Option<(&'t String, &'t Value)> {
        // A message has few fields, most of them of other lengths: to look at each takes less than to hash the name of one, and dozens are asked for.
        let written = |name: &str| self.map.iter().find(|(written, _)| *written == name);
        let found = written(name);
        if self.two_ways { found.or_else(|| written(&camel(name))) } else { found }
    }

    /// A field without a meaning for what is done with requests: statistics, hints, what logs say.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// A field that would change what is done with requests, and has a better explanation than that it is not supported.
    pub(super) fn refuse(&mut self, name: &str, reason: &str) -> Read<()> {
        match self.take(name) {
            Some(value) if !is_default(value) => Err(Fault::new(name, reason)),
            _ => Ok(()),
        }
    }

    /// Whether a field is there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some_and(|(_, value)| !value.is_null())
    }

    /// A text; empty is absent.
    pub(super) fn text(&mut self, name: &str) -> Read<Option<&'t str>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        text(value).map_err(|fault| fault.inside(name)).map(|text| Some(text).filter(|text| !text.is_empty()))
    }

    /// A text that must be there.
    pub(super) fn name(&mut self, name: &str) -> Read<Arc<str>> {
        self.text(name)?.map(Arc::from).ok_or_else(|| Fault::new(name, "must not be empty"))
    }

    /// Yes or no, where it is said.
    pub(super) fn flag(&mut self, name: &str) -> Read<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(Fault::new(name, format!("expected true or false, found {}", kind(other)))),
        }
    }

    /// Whether a flag that is off by default is on.
    pub(super) fn is_on(&mut self, name: &str) -> Read<bool> {
        Ok(self.flag(name)?.unwrap_or(false))
    }

    /// A whole number, where it is said.
    pub(super) fn number(&mut self, name: &str) -> Read<Option<u64>> {
        self.take(name).map(|value| number(value).map_err(|fault| fault.inside(name))).transpose()
    }

    /// A whole number that fits 32 bits.
    pub(super) fn small(&mut self, name: &str) -> Read<Option<u32>> {
        let too_large = |_| Fault::new(name, "is out of range");
        self.number(name)?.map(|number| u32::try_from(number).map_err(too_large)).transpose()
    }

    /// A number with fractions.
    pub(super) fn float(&mut self, name: &str) -> Read<Option<f64>> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => {
                value.as_f64().map(Some).ok_or_else(|| Fault::new(name, format!("expected a number, found {}", kind(value))))
            }
        }
    }

    /// A time.
    pub(super) fn duration(&mut self, name: &str) -> Read<Option<Duration>> {
        self.take(name).map(|value| duration(value).map_err(|fault| fault.inside(name))).transpose()
    }

    /// One of a closed set, by name or number; the first is what is meant when nothing is said.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, u64, T)]) -> Read<Option<T>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let wanted = value.as_u64();
        let found = choices.iter().find(|(text, number, _)| value.as_str() == Some(*text) || wanted == Some(*number));
        match found {
            Some((_, _, choice)) => Ok(Some(*choice)),
            None => {
                let known: Vec<&str> = choices.iter().map(|(text, _, _)| *text).collect();
                Err(Fault::new(name, format!("{value} is not supported; supported are {}", known.join(", "))))
            }
        }
    }

    /// A message.
    pub(super) fn message<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields<'t>) -> Read<T>) -> Read<Option<T>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        message(value, read).map(Some).map_err(|fault| fault.inside(name))
    }

    /// A message that must be there.
    pub(super) fn required<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields<'t>) -> Read<T>) -> Read<T> {
        self.message(name, read)?.ok_or_else(|| Fault::new(name, "is missing"))
    }

    /// A list of messages.
    pub(super) fn list<T>(&mut self, name: &str, mut read: impl FnMut(&mut Fields<'t>) -> Read<T>) -> Read<Vec<T>> {
        self.values(name, |value| message(value, &mut read))
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, name: &str) -> Read<Vec<&'t str>> {
        self.values(name, text)
    }

    /// A list of whatever `read` reads.
    pub(super) fn values<T>(&mut self, name: &str, mut read: impl FnMut(&'t Value) -> Read<T>) -> Read<Vec<T>> {
        let items = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) if items.len() <= MAX_LIST => items,
            Some(Value::Array(items)) => {
                return Err(Fault::new(name, format!("has {} elements, at most {MAX_LIST} are read", items.len())));
            }
            Some(other) => return Err(Fault::new(name, format!("expected a list, found {}", kind(other)))),
        };
        // As long as it is, since what is read is held, and lists of one are the most.
        let mut read_items = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            read_items.push(read(item).map_err(|fault| fault.inside(&format!("{name}[{at}]")))?);
        }
        Ok(read_items)
    }

    /// A map by name.
    pub(super) fn map(&mut self, name: &str) -> Read<impl Iterator<Item = (&'t String, &'t Value)> + use<'t>> {
        let map = match self.take(name) {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => return Err(Fault::new(name, format!("expected a map, found {}", kind(other)))),
        };
        Ok(map.into_iter().flatten())
    }

    /// The name of the type of this message of any type.
    pub(super) fn type_name(&mut self) -> Read<&'t str> {
        let url = self.text(TYPE)?.ok_or_else(|| Fault::new(TYPE, "is missing: this message must say its type"))?;
        Ok(url.rsplit('/').next().unwrap_or(url))
    }

    /// Nothing in it has a meaning for what is done with requests.
    pub(super) fn skip(&mut self) -> Read<()> {
        self.ignore_all();
        Ok(())
    }

    /// Everything is read, by somebody else.
    pub(super) fn ignore_all(&mut self) {
        self.taken.extend(self.map.keys().map(String::as_str));
    }

    /// A field that nobody has taken and that says something.
    fn left_over(&self) -> Option<&'t str> {
        let left = |(name, value): &(&'t String, &'t Value)| !self.taken.contains(&name.as_str()) && !is_default(value);
        self.map.iter().find(left).map(|(name, _)| name.as_str())
    }
}

/// The type of a message of any type, and its reader.
pub(super) fn typed<'t, T>(value: &'t Value, read: impl FnOnce(&str, &mut Fields<'t>) -> Read<T>) -> Read<T> {
    message(value, |fields| {
        let name = fields.type_name()?;
        read(name, fields)
    })
}

/// Whether a value is what a field has that was never set. An empty message is something: it was put there.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(true) | Value::Object(_) => false,
    }
}

fn text(value: &Value) -> Read<&str> {
    match value {
        Value::String(text) if text.len() <= MAX_TEXT => Ok(text),
        Value::String(text) => Err(Fault::new("", format!("has {} bytes, at most {MAX_TEXT} are read", text.len()))),
        other => Err(Fault::new("", format!("expected a text, found {}", kind(other)))),
    }
}

/// 64-bit numbers may be written as texts.
fn number(value: &Value) -> Read<u64> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        _ => None,
    };
    number.ok_or_else(|| Fault::new("", format!("expected a whole number, found {value:.60}")))
}

fn whole(number: f64) -> Option<u64> {
    // Whole and far below 2^53 by the guard.
    (number.fract() == 0.0 && (0.0..=1e15).contains(&number)).then_some(number as u64)
}

/// A time as the mapping writes it: seconds with an `s`, such as `0.25s`.
fn duration(value: &Value) -> Read<Duration> {
    let expected = || Fault::new("", format!("expected a time such as 0.25s, at most ten years, found {value:.60}"));
    let seconds = value.as_str().and_then(|text| text.strip_suffix('s')).and_then(|text| text.parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds)).ok_or_else(expected)?;
    // Nanoseconds are more than a double holds of long times: round to microseconds, which every setting is coarser than.
    Ok(Duration::from_micros((seconds * 1e6).round() as u64))
}

/// Bytes as the mapping writes them.
pub(super) fn bytes(text: &str) -> Read<Vec<u8>> {
    STANDARD.decode(text).map_err(|_| Fault::new("", "expected bytes in base64"))
}

/// Bytes on their way into a tree.
pub(super) fn from_bytes(bytes: &[u8]) -> Value {
    Value::String(STANDARD.encode(bytes))
}

/// `lb_policy` as `lbPolicy`.
fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                out.push(c.to_ascii_uppercase());
                upper = false;
            }
            c => out.push(c),
        }
    }
    out
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a message",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_reads_is_refused_by_name_unless_it_says_nothing() {
        let value =
            json!({"name": "a", "inner": [{"port": 1}, {"port": 2, "odd": true}], "off": false, "none": null, "empty": ""});
        let fault = message(&value, |fields| {
            fields.name("name")?;
            fields.list("inner", |inner| inner.number("port"))
        });
        assert_eq!(fault.unwrap_err(), Fault::new("inner[1].odd", "is not supported"));
        let value = json!({"#17": "", "#18": "AA=="});
        let fault = message(&value, |_| Ok(())).unwrap_err();
        assert!(fault.reason.contains("field number 18"), "{fault:?}");
    }

    #[test]
    fn both_ways_to_write_a_name_are_read() {
        for value in [json!({"lb_policy": "MAGLEV"}), json!({"lbPolicy": 5})] {
            let choice = message(&value, |fields| fields.choice("lb_policy", &[("ROUND_ROBIN", 0, 'r'), ("MAGLEV", 5, 'm')]));
            assert_eq!(choice, Ok(Some('m')));
        }
        let odd = message(&json!({"lb_policy": "ODD"}), |fields| fields.choice("lb_policy", &[("MAGLEV", 5, 'm')])).unwrap_err();
        assert_eq!(odd.to_owned(), Fault::new("lb_policy", "\"ODD\" is not supported; supported are MAGLEV"));
    }

    #[test]
    fn times_numbers_and_bytes_are_those_of_the_mapping() {
        let value = json!({"a": "1.5s", "b": "3", "c": 7.0, "d": "-1s", "e": {"@type": "type.googleapis.com/x.Y"}});
        let read = |fields: &mut Fields<'_>| {
            assert_eq!(fields.duration("a")?, Some(Duration::from_millis(1500)));
            assert_eq!((fields.number("b")?, fields.small("c")?), (Some(3), Some(7)));
            assert!(fields.duration("d").is_err());
            let any = fields.take("e").unwrap();
            typed(any, |name, _| {
                assert_eq!(name, "x.Y");
                Ok(())
            })
        };
        message(&value, read).unwrap();
        assert_eq!(bytes(from_bytes(b"\x00\xff").as_str().unwrap()), Ok(b"\x00\xff".to_vec()));
    }
}
