//! From a JSON Schema to a value that fits it, the same each time; bounded in depth and size. It knows no requests.

use serde_json::{Map, Value};

/// Deepest nesting that is followed; schemas may refer to themselves.
const MAX_DEPTH: usize = 16;
/// Most values that are made.
const MAX_VALUES: usize = 10_000;
/// Most bytes of what is made, about: a long text that is referred to again and again counts each time.
const MAX_BYTES: usize = 1024 * 1024;
/// Most items that are made for a list.
const MAX_ITEMS: u64 = 100;
/// Longest text that is made.
const MAX_TEXT: u64 = 10_000;

/// A value that fits `schema`, whose references lead into `root`.
pub(super) fn example(schema: &Value, root: &Value) -> Value {
    Maker { root, left: MAX_VALUES, bytes: MAX_BYTES }.value(schema, 0)
}

/// What a reference of this document (`#/components/schemas/Pet`) leads to, other references followed too.
pub(super) fn resolved<'a>(mut value: &'a Value, root: &'a Value) -> &'a Value {
    for _ in 0..MAX_DEPTH {
        let Some(target) = value.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#')) else { break };
        let Some(found) = root.pointer(target) else { return &Value::Null };
        value = found;
    }
    value
}

struct Maker<'a> {
    root: &'a Value,
    left: usize,
    bytes: usize,
}

impl Maker<'_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        let schema = resolved(schema, self.root);
        if depth > MAX_DEPTH || self.left == 0 {
            return Value::Null;
        }
        self.left -= 1;
        if let Some(given) = given(schema) {
            return if self.paid(size(given)) { given.clone() } else { Value::Null };
        }
        if let Some(all) = schema.get("allOf").and_then(Value::as_array) {
            return self.merged(schema, all, depth);
        }
        let one = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(key)?.as_array()?.first());
        if let Some(one) = one {
            return self.value(one, depth + 1);
        }
        match kind(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "string" => {
                let text = text(schema);
                if self.paid(size(&text)) { text } else { Value::Null }
            }
            "integer" => number(schema, true),
            "number" => number(schema, false),
            "boolean" => Value::Bool(true),
            _ => Value::Null,
        }
    }

    /// Whether there is room for this many bytes more, which it takes.
    fn paid(&mut self, bytes: usize) -> bool {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }

    /// Objects of all parts in one; of other values the first.
    fn merged(&mut self, schema: &Value, parts: &[Value], depth: usize) -> Value {
        let mut all = match self.object(schema, depth) {
            Value::Object(own) => own,
            _ => Map::new(),
        };
        for part in parts {
            match self.value(part, depth + 1) {
                Value::Object(more) => all.extend(more),
                Value::Null => {}
                other if all.is_empty() => return other,
                _ => {}
            }
        }
        Value::Object(all)
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let properties = schema.get("properties").and_then(Value::as_object);
        let mut object = Map::new();
        for (name, schema) in properties.into_iter().flatten() {
            if !self.paid(name.len()) {
                break;
            }
            object.insert(name.clone(), self.value(schema, depth + 1));
        }
        Value::Object(object)
    }

    fn array(&mut self, schema: &Value, depth: usize) -> Value {
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        let mut items: Vec<Value> = Vec::new();
        for fixed in schema.get("prefixItems").and_then(Value::as_array).into_iter().flatten() {
            items.push(self.value(fixed, depth + 1));
        }
        if let Some(one) = schema.get("items").filter(|items| items.is_object() || **items == Value::Bool(true)) {
            let wanted = bound("minItems").unwrap_or(1).max(1).min(bound("maxItems").unwrap_or(u64::MAX)).min(MAX_ITEMS);
            while (items.len() as u64) < wanted {
                items.push(self.value(one, depth + 1));
            }
        }
        Value::Array(items)
    }
}

/// About how many bytes a value takes as text.
fn size(value: &Value) -> usize {
    const MARKS: usize = 4;
    MARKS
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(object) => object.iter().map(|(name, value)| MARKS + name.len() + size(value)).sum(),
            _ => 0,
        }
}

/// What a schema says itself.
fn given(schema: &Value) -> Option<&Value> {
    let first = |name: &str| schema.get(name)?.as_array()?.first();
    let plain = |name: &str| schema.get(name);
    plain("example")
        .or_else(|| first("examples"))
        .or_else(|| plain("const"))
        .or_else(|| plain("default"))
        .or_else(|| first("enum"))
}

/// The type, guessed where it is not said.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null"),
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() || schema.get("prefixItems").is_some() => "array",
        _ if schema.get("minimum").is_some() || schema.get("maximum").is_some() => "number",
        _ if schema.get("format").is_some() || schema.get("minLength").is_some() => "string",
        _ => "null",
    }
}

fn text(schema: &Value) -> Value {
    let by_format = match schema.get("format").and_then(Value::as_str).unwrap_or_default() {
        "date-time" => "2024-01-31T12:00:00Z",
        "date" => "2024-01-31",
        "time" => "12:00:00Z",
        "duration" => "PT1H",
        "email" | "idn-email" => "user@example.com",
        "hostname" | "idn-hostname" => "www.example.com",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "uri" | "url" | "iri" => "https://www.example.com/",
        "uri-reference" => "/path",
        "uuid" => "3fa85f64-5717-4562-b3fc-2c963f66afa6",
        "byte" => "c3RyaW5n",
        _ => "",
    };
    if !by_format.is_empty() {
        return Value::from(by_format);
    }
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let length = 6.max(bound("minLength").unwrap_or(0)).min(bound("maxLength").unwrap_or(u64::MAX)).min(MAX_TEXT);
    // The bound above keeps it within a usize.
    Value::from("string".chars().cycle().take(length as usize).collect::<String>())
}

/// 1, or the nearest number within the bounds that is a multiple of what it must be.
fn number(schema: &Value, whole: bool) -> Value {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let small = if whole { 1.0 } else { 0.5 };
    // Before JSON Schema 2020-12, `exclusiveMinimum: true` sharpened `minimum`.
    let sharp = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    let low = bound("minimum").map(|low| if sharp("exclusiveMinimum") { low + small } else { low });
    let low = low.into_iter().chain(bound("exclusiveMinimum").map(|low| low + small)).reduce(f64::max);
    let high = bound("maximum").map(|high| if sharp("exclusiveMaximum") { high - small } else { high });
    let high = high.into_iter().chain(bound("exclusiveMaximum").map(|high| high - small)).reduce(f64::min);
    let mut number = 1.0f64.min(high.unwrap_or(f64::MAX)).max(low.unwrap_or(f64::MIN));
    if whole {
        number = number.ceil();
    }
    if let Some(step) = bound("multipleOf").filter(|step| *step > 0.0) {
        let above = (number / step).ceil() * step;
        number = if high.is_some_and(|high| above > high) { (number / step).floor() * step } else { above };
    }
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT { Value::from(number as i64) } else { Value::from(number) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn made(schema: Value) -> Value {
        example(&schema, &schema)
    }

    #[test]
    fn what_is_made_fits() {
        for schema in [
            json!({"type": "object", "required": ["a", "b", "c"], "properties": {"a": {"type": "string", "minLength": 9, "maxLength": 9},
                "b": {"type": "integer", "minimum": 10, "exclusiveMaximum": 12}, "c": {"type": "array", "minItems": 2, "items": {"type": "number", "exclusiveMinimum": 3}}}}),
            json!({"type": ["null", "integer"], "maximum": -3, "multipleOf": 2}),
            json!({"allOf": [{"type": "object", "required": ["x"], "properties": {"x": {"const": 1}}}, {"required": ["y"], "properties": {"y": {"enum": ["e", "f"]}}}]}),
            json!({"oneOf": [{"type": "boolean"}, {"type": "string"}]}),
            json!({"prefixItems": [{"type": "boolean"}, {"type": "string", "maxLength": 2}], "items": false}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "string", "format": "uuid"}}}),
        ] {
            let value = made(schema.clone());
            assert!(jsonschema::is_valid(&schema, &value), "{schema}: {value}");
        }
    }

    #[test]
    fn what_the_schema_says_goes_first() {
        assert_eq!(made(json!({"type": "string", "example": "e", "default": "d"})), "e");
        assert_eq!(made(json!({"type": "string", "examples": ["e"]})), "e");
        assert_eq!(made(json!({"type": "string", "default": "d", "enum": ["x"]})), "d");
        assert_eq!(made(json!({"type": "string", "format": "date"})), "2024-01-31");
        assert_eq!(made(json!({"minimum": 3})), 3);
        assert_eq!(made(json!({"type": "number", "minimum": 3, "exclusiveMinimum": true})), 3.5);
        assert_eq!(
            (made(json!({})), made(json!(true)), made(json!({"$ref": "#/none"}))),
            (Value::Null, Value::Null, Value::Null)
        );
    }

    #[test]
    fn schemas_without_end_have_one() {
        let tree = json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}}}}});
        assert!(made(tree).to_string().len() < 200_000);
        assert_eq!(made(json!({"$ref": "#"})), Value::Null);
        let long = made(
            json!({"type": "array", "minItems": 4_000_000_000u64, "items": {"type": "string", "minLength": 4_000_000_000u64}}),
        );
        assert!(long.to_string().len() < 2_000_000);
    }

    #[test]
    fn what_is_long_is_not_repeated_without_end() {
        let long = "x".repeat(100_000);
        for leaf in [json!({"example": long}), json!({"type": "object", "properties": {long.clone(): {}}})] {
            let schema = json!({"type": "array", "minItems": 100, "items": {"type": "array", "minItems": 100, "items": {"$ref": "#/$defs/leaf"}},
                "$defs": {"leaf": leaf}});
            let made = made(schema).to_string();
            assert!(made.contains(&long) && made.len() < 2 * MAX_BYTES, "{}", made.len());
        }
    }

    proptest! {
        #[test]
        fn any_bounds_are_kept(low in -1000i64..1000, span in 0i64..1000) {
            let schema = json!({"type": "integer", "minimum": low, "maximum": low + span});
            let value = made(schema.clone());
            prop_assert!(jsonschema::is_valid(&schema, &value), "{value}");
        }
    }
}
