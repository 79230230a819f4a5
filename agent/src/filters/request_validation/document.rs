//! What is validated: a JSON body or a header as a value. It knows no schema.
//!
//! The upstream must not read another document than the one that was validated, so JSON with the same key twice in one object is refused.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use crate::http::{Fields, RequestHead};

/// Reads JSON without doubled keys, nested at most 127 deep.
///
/// # Errors
/// Says where it is wrong.
pub(super) fn json(body: &[u8]) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Strict::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map(|value| value.0).map_err(|error| error.to_string())
}

/// The header as an object of texts, an array of them for a field that comes more than once. Names are in lower case, unless `spelled` says otherwise.
pub(super) fn header(head: &RequestHead, spelled: &BTreeMap<String, Vec<String>>) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: &str| {
        let lower = name.to_ascii_lowercase();
        match spelled.get(&lower) {
            Some(names) => names.iter().for_each(|name| add(&mut object, name.clone(), value.into())),
            None => add(&mut object, lower, value.into()),
        }
    };
    if !head.authority.is_empty() {
        put("host", &head.authority);
    }
    for field in Fields::iter(&head.fields) {
        put(&String::from_utf8_lossy(field.name), &String::from_utf8_lossy(field.value));
    }
    Value::Object(object)
}

/// The names that a schema of a header may mean, by their lower-case form.
pub(super) fn spellings(schema: &Map<String, Value>) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    collect(schema, &mut found);
    found
}

fn collect(schema: &Map<String, Value>, found: &mut BTreeMap<String, Vec<String>>) {
    let mut note = |name: &str| {
        let names: &mut Vec<String> = found.entry(name.to_ascii_lowercase()).or_default();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    for (key, value) in schema {
        match (key.as_str(), value) {
            ("required", Value::Array(names)) => names.iter().filter_map(Value::as_str).for_each(&mut note),
            ("properties" | "dependencies" | "dependentRequired" | "dependentSchemas", Value::Object(object)) => {
                object.keys().for_each(|name| note(name));
            }
            _ => {}
        }
    }
    for value in schema.values() {
        match value {
            Value::Object(object) => collect(object, found),
            Value::Array(items) => items.iter().filter_map(Value::as_object).for_each(|object| collect(object, found)),
            _ => {}
        }
    }
}

/// Adds a value; more than one of a name become an array.
fn add(object: &mut Map<String, Value>, name: String, value: Value) {
    match object.get_mut(&name) {
        None => _ = object.insert(name, value),
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

/// A JSON value in which no object has the same key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        StrictSeed.deserialize(deserializer).map(Strict)
    }
}

struct StrictSeed;

impl<'de> DeserializeSeed<'de> for StrictSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(StrictSeed)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom("the same key twice in one object"));
            }
            let value = entries.next_value_seed(StrictSeed)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_what_everybody_reads_in_it() {
        let text = r#"{"a": [1, -2, 1.5e3, "x\u0041", true, null], "b": {}}"#;
        assert_eq!(json(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        for bad in [r#"{"a": 1, "a": 2}"#, r#"[{"a": 1, "\u0061": 2}]"#, "{}x", "", "{", &"[".repeat(200)] {
            assert!(json(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_is_spelled_as_the_schema_spells_it() {
        let mut head = RequestHead { authority: "a.example".into(), ..RequestHead::default() };
        for (name, value) in [("content-TYPE", "text/plain"), ("X-Tag", "1"), ("x-tag", "2")] {
            head.fields.append(name, value);
        }
        let schema = json!({"required": ["Content-Type"], "allOf": [{"properties": {"content-type": {}, "HOST": {}}}]});
        let value = header(&head, &spellings(schema.as_object().unwrap()));
        let expected =
            json!({"HOST": "a.example", "Content-Type": "text/plain", "content-type": "text/plain", "x-tag": ["1", "2"]});
        assert_eq!(value, expected);
    }

    proptest! {
        #[test]
        fn nothing_is_too_odd_to_be_read(bytes: Vec<u8>) {
            let _ = json(&bytes);
        }

        #[test]
        fn what_is_taken_is_what_others_read(text in "[{}\\[\\]\",:a1 ]{0,24}") {
            if let Ok(value) = json(text.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
