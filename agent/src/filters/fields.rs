//! Header edits that users write (`add`, `set`, `remove`, or a plain map), compiled once. It knows no phase and no plugin.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::check::Faults;
use crate::exchange::{Exchange, Template};
use crate::http::Fields;

/// Compiled header edits, applied in the order add, set, remove.
#[derive(Debug, Default)]
pub(crate) struct HeaderEdits {
    add: Vec<(Box<str>, FieldValue)>,
    set: Vec<(Box<str>, FieldValue)>,
    remove: Vec<Box<str>>,
}

/// The value of a field: fixed, or made for each request.
#[derive(Debug)]
pub(crate) enum FieldValue {
    /// Always the same.
    Fixed(Box<str>),
    /// With variables.
    Template(Template),
}

impl FieldValue {
    /// Compiles a value.
    pub(crate) fn new(source: &str) -> FieldValue {
        let template = Template::new(source);
        match template.literal() {
            Some(text) => FieldValue::Fixed(text.into()),
            None => FieldValue::Template(template),
        }
    }

    /// The value for this request. What may not stand in a field (control characters) is left out.
    pub(crate) fn get<'a>(&'a self, x: &Exchange, captures: &[&str]) -> Cow<'a, str> {
        match self {
            FieldValue::Fixed(text) => Cow::Borrowed(text),
            FieldValue::Template(template) => {
                let mut out = String::new();
                template.render_with(x, captures, &mut out);
                out.retain(|c| !c.is_ascii_control());
                let blank = [' ', '\t'];
                Cow::Owned(if out.starts_with(blank) || out.ends_with(blank) { out.trim_matches(blank).to_owned() } else { out })
            }
        }
    }
}

impl HeaderEdits {
    /// Compiles `headers` of a plugin: an object with `add`, `set` and `remove`, or a plain map, which sets. Faults are put under `path`.
    pub(crate) fn compile(source: &Map<String, Value>, path: &str, faults: &mut Faults) -> HeaderEdits {
        let mut edits = HeaderEdits::default();
        let is_edit = |(key, value): (&String, &Value)| ["add", "set", "remove"].contains(&key.as_str()) && !is_text(value);
        if source.iter().any(is_edit) {
            for (key, value) in source {
                let path = format!("{path}.{key}");
                match (key.as_str(), value) {
                    ("add", Value::Object(map)) => edits.add = pairs(map, &path, faults),
                    ("add", Value::Array(lines)) => edits.add = parse_lines(lines, &path, faults),
                    ("set", Value::Object(map)) => edits.set = pairs(map, &path, faults),
                    ("remove", Value::Array(names)) => edits.remove = parse_names(names, &path, faults),
                    ("add" | "set", _) => faults.add(path, "wrong type: expected object"),
                    ("remove", _) => faults.add(path, "wrong type: expected array"),
                    _ => faults.add(path, "expected add, set or remove"),
                }
            }
        } else {
            edits.set = pairs(source, path, faults);
        }
        edits
    }

    /// Edits the fields of the request, one after the other. `Host` stands beside the fields, so its new value is returned.
    pub(crate) fn apply_to_request(&self, x: &mut Exchange, captures: &[&str]) -> Option<String> {
        let mut host = None;
        for (name, value) in &self.add {
            let value = value.get(x, captures);
            x.request.fields.append(&**name, &*value);
        }
        for (name, value) in &self.set {
            let value = value.get(x, captures);
            if name.eq_ignore_ascii_case("host") {
                host = Some(value.into_owned());
            } else {
                x.request.fields.set(&**name, &*value);
            }
        }
        for name in &self.remove {
            x.request.fields.remove(&**name);
        }
        host
    }

    /// Edits the fields of a response.
    pub(crate) fn apply_to_response(&self, x: &Exchange, fields: &mut Fields) {
        for (name, value) in &self.add {
            fields.append(&**name, &*value.get(x, &[]));
        }
        for (name, value) in &self.set {
            fields.set(&**name, &*value.get(x, &[]));
        }
        for name in &self.remove {
            fields.remove(&**name);
        }
    }
}

/// Whether the text may be the name of a field (RFC 9110 section 5.1).
pub(crate) fn is_name(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(token)
}

fn is_text(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

fn pairs(map: &Map<String, Value>, path: &str, faults: &mut Faults) -> Vec<(Box<str>, FieldValue)> {
    let mut pairs = Vec::with_capacity(map.len());
    for (name, value) in map {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                faults.add(format!("{path}.{name}"), "wrong type: expected string or number");
                continue;
            }
        };
        pairs.extend(pair(name, &text, &format!("{path}.{name}"), faults));
    }
    pairs
}

fn pair(name: &str, value: &str, path: &str, faults: &mut Faults) -> Option<(Box<str>, FieldValue)> {
    if !is_name(name) {
        faults.add(path, format!("expected the name of a header field, got \"{name}\""));
        return None;
    }
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        faults.add(path, "expected a value without control characters");
        return None;
    }
    Some((name.into(), FieldValue::new(value.trim())))
}

/// `"Name: value"` lines, as `response-rewrite` writes what is added.
fn parse_lines(lines: &[Value], path: &str, faults: &mut Faults) -> Vec<(Box<str>, FieldValue)> {
    let mut pairs = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match line.as_str().and_then(|line| line.split_once(':')) {
            Some((name, value)) => pairs.extend(pair(name.trim(), value, &path, faults)),
            None => faults.add(path, "expected \"Name: value\""),
        }
    }
    pairs
}

fn parse_names(names: &[Value], path: &str, faults: &mut Faults) -> Vec<Box<str>> {
    let mut list = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        match name.as_str().filter(|name| is_name(name)) {
            Some(name) => list.push(name.into()),
            None => faults.add(format!("{path}[{index}]"), "expected the name of a header field"),
        }
    }
    list
}
