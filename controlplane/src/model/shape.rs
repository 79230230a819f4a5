//! Checks a JSON value against a JSON Schema and reports every fault, in the words that clients of APISIX know. It knows the subset of JSON Schema that our own types produce.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::Fault;

/// More faults than this in one resource help nobody.
const MOST_FAULTS: usize = 64;

/// None of several alternatives holds.
pub(super) const NO_ALTERNATIVE: &str = "object matches none of the required";

/// A compiled schema.
#[derive(Debug, Default)]
pub(super) struct Shape {
    types: Vec<String>,
    choices: Option<Vec<Value>>,
    minimum: Option<f64>,
    above: Option<f64>,
    maximum: Option<f64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    pattern: Option<Regex>,
    items: Option<Box<Shape>>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    unique: bool,
    properties: BTreeMap<String, Shape>,
    required: Vec<String>,
    closed: bool,
    others: Option<Box<Shape>>,
    any_of: Vec<Shape>,
}

impl Shape {
    /// Compiles a schema whose sub-schemas are inlined. Fails on a pattern that is no regular expression.
    pub(super) fn compile(schema: &Value) -> Result<Shape, String> {
        let Some(map) = schema.as_object() else { return Ok(Shape::default()) };
        let number = |key: &str| map.get(key).and_then(Value::as_f64);
        let count = |key: &str| map.get(key).and_then(Value::as_u64).map(|n| n as usize);
        let list = |key: &str| map.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut shape = Shape {
            types: match map.get("type") {
                Some(Value::String(one)) => vec![one.clone()],
                _ => list("type").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            },
            choices: map.get("enum").and_then(Value::as_array).cloned().or_else(|| map.get("const").map(|c| vec![c.clone()])),
            minimum: number("minimum"),
            above: number("exclusiveMinimum"),
            maximum: number("maximum"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            unique: map.get("uniqueItems") == Some(&Value::Bool(true)),
            required: list("required").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            any_of: list("anyOf").iter().map(Shape::compile).collect::<Result<_, _>>()?,
            ..Shape::default()
        };
        if let Some(pattern) = map.get("pattern").and_then(Value::as_str) {
            shape.pattern = Some(Regex::new(pattern).map_err(|e| format!("pattern {pattern}: {e}"))?);
        }
        if let Some(items) = map.get("items") {
            shape.items = Some(Box::new(Shape::compile(items)?));
        }
        for (name, property) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            shape.properties.insert(name.clone(), Shape::compile(property)?);
        }
        match map.get("additionalProperties") {
            Some(Value::Bool(false)) => shape.closed = true,
            Some(other @ Value::Object(_)) => shape.others = Some(Box::new(Shape::compile(other)?)),
            _ => {}
        }
        Ok(shape)
    }

    /// All faults of `value`, at most [`MOST_FAULTS`].
    pub(super) fn check(&self, value: &Value) -> Vec<Fault> {
        let mut walk = Walk { path: String::new(), faults: Vec::new() };
        walk.visit(self, value);
        walk.faults
    }

    fn accepts_type(&self, value: &Value) -> bool {
        self.types.is_empty() || self.types.iter().any(|name| is_type(name, value))
    }

    /// The alternative that the value was probably meant for: the only one of its type.
    fn meant(&self, value: &Value) -> Option<&Shape> {
        let mut fitting = self.any_of.iter().filter(|shape| !shape.types.is_empty() && shape.accepts_type(value));
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        }
    }

    fn describe(&self) -> String {
        let mut text = match &self.choices {
            Some(choices) => format!("one of {}", choices.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
            None if self.types.is_empty() => "anything".to_owned(),
            None => self.types.join(" or "),
        };
        if let Some(pattern) = &self.pattern {
            text.push_str(&format!(" like {pattern}"));
        }
        if self.min_length.is_some() || self.max_length.is_some() {
            let most = self.max_length.map_or(String::new(), |most| most.to_string());
            text.push_str(&format!(" of {}..{most} bytes", self.min_length.unwrap_or(0)));
        }
        if let Some(minimum) = self.minimum {
            text.push_str(&format!(" of at least {minimum}"));
        }
        text
    }
}

struct Walk {
    path: String,
    faults: Vec<Fault>,
}

impl Walk {
    fn fault(&mut self, message: String) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(Fault::new(self.path.clone(), message));
        }
    }

    /// A fault of which APISIX says less.
    fn fault_told(&mut self, words: &'static str, more: String) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(Fault::new(self.path.clone(), format!("{words}: {more}")).literally(words));
        }
    }

    /// What was found, as a fault may quote it.
    fn found(&self, value: &Value) -> String {
        match value {
            Value::Array(_) | Value::Object(_) => type_name(value).to_owned(),
            Value::String(text) if self.in_secret() => format!("a text of {} bytes", text.len()),
            other => clip(&other.to_string()),
        }
    }

    /// Faults are shown and logged: they must not quote key material.
    fn in_secret(&self) -> bool {
        let field = self.path.rsplit('.').next().unwrap_or_default().split('[').next().unwrap_or_default();
        matches!(field, "key" | "keys" | "client_key" | "token" | "session_token" | "secret_access_key" | "private_key")
    }

    fn below(&mut self, step: &str, shape: &Shape, value: &Value) {
        let length = self.path.len();
        self.path.push_str(step);
        self.visit(shape, value);
        self.path.truncate(length);
    }

    fn visit(&mut self, shape: &Shape, value: &Value) {
        if !shape.accepts_type(value) {
            let expected = match shape.types.as_slice() {
                [one] => one.clone(),
                several => format!("one of {}", several.join(", ")),
            };
            return self.fault(format!("wrong type: expected {expected}, got {}", type_name(value)));
        }
        if let Some(choices) = &shape.choices
            && !choices.contains(value)
        {
            let expected = choices.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
            return self
                .fault_told("matches none of the enum values", format!("expected one of {expected}, got {}", self.found(value)));
        }
        if !shape.any_of.is_empty() && !shape.any_of.iter().any(|one| one.check(value).is_empty()) {
            return match shape.meant(value) {
                Some(meant) if value.is_object() || value.is_array() => self.visit(meant, value),
                _ => {
                    let expected = shape.any_of.iter().map(Shape::describe).collect::<Vec<_>>().join(", or ");
                    self.fault_told(NO_ALTERNATIVE, format!("expected {expected}, got {}", self.found(value)));
                }
            };
        }
        match value {
            Value::Number(number) => self.number(shape, number.as_f64().unwrap_or(f64::NAN), value),
            Value::String(text) => self.text(shape, text),
            Value::Array(items) => self.array(shape, items),
            Value::Object(map) => self.object(shape, map),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn number(&mut self, shape: &Shape, number: f64, value: &Value) {
        if let Some(minimum) = shape.minimum.filter(|minimum| number < *minimum) {
            self.fault(format!("expected {value} to be at least {minimum}"));
        }
        if let Some(above) = shape.above.filter(|above| number <= *above) {
            self.fault(format!("expected {value} to be strictly greater than {above}"));
        }
        if let Some(maximum) = shape.maximum.filter(|maximum| number > *maximum) {
            self.fault(format!("expected {value} to be at most {maximum}"));
        }
    }

    fn text(&mut self, shape: &Shape, text: &str) {
        if let Some(least) = shape.min_length.filter(|least| text.len() < *least) {
            self.fault(format!("string too short, expected at least {least}, got {}", text.len()));
        }
        if let Some(most) = shape.max_length.filter(|most| text.len() > *most) {
            self.fault(format!("string too long, expected at most {most}, got {}", text.len()));
        }
        if let Some(pattern) = shape.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            self.fault(format!("failed to match pattern \"{pattern}\" with {}", self.found(&Value::from(text))));
        }
    }

    fn array(&mut self, shape: &Shape, items: &[Value]) {
        if let Some(least) = shape.min_items.filter(|least| items.len() < *least) {
            self.fault(format!("expect array to have at least {least} items"));
        }
        if let Some(most) = shape.max_items.filter(|most| items.len() > *most) {
            self.fault(format!("expect array to have at most {most} items"));
        }
        if shape.unique
            && let Some((first, second)) = equal_items(items)
        {
            self.fault(format!("expected unique items but items {} and {} are equal", first + 1, second + 1));
        }
        if let Some(item_shape) = &shape.items {
            for (index, item) in items.iter().enumerate() {
                self.below(&format!("[{index}]"), item_shape, item);
            }
        }
    }

    fn object(&mut self, shape: &Shape, map: &serde_json::Map<String, Value>) {
        for name in shape.required.iter().filter(|name| !map.contains_key(*name)) {
            self.fault(format!("property \"{name}\" is required"));
        }
        for (name, value) in map {
            let known = shape.properties.get(name).or(shape.others.as_deref());
            match known {
                Some(known) => {
                    let step = step(&self.path, name);
                    self.below(&step, known, value);
                }
                None if shape.closed => self.fault(format!("additional properties forbidden, found {}", clip(name))),
                None => {}
            }
        }
    }
}

/// The step from `path` to its property `name`.
pub(super) fn step(path: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (plain, path.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!(".{name}"),
        (false, _) => format!("[\"{name}\"]"),
    }
}

fn equal_items(items: &[Value]) -> Option<(usize, usize)> {
    let mut seen: std::collections::HashMap<String, usize> = std::collections::HashMap::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        if let Some(first) = seen.insert(item.to_string(), index) {
            return Some((first, index));
        }
    }
    None
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        _ => value.is_null(),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Faults quote what they found, but not megabytes of it.
fn clip(text: &str) -> String {
    if text.chars().nth(80).is_none() { text.to_owned() } else { text.chars().take(80).chain("…".chars()).collect() }
}
