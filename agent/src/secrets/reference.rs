//! References to secrets that are kept elsewhere: `$env://NAME[/key]` and `$secret://manager/id/name/key`. It looks nothing up.

pub use heddle_xds::model::is_reference;
use serde_json::Value;

/// Longest reference.
const MAX_LEN: usize = 1024;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A variable of the agent's environment, or one member of the JSON object that it holds.
    Env {
        /// Variable.
        name: &'a str,
        /// Member.
        key: Option<&'a str>,
    },
    /// Something that a manager keeps.
    Managed {
        /// `vault` or `file`.
        manager: &'a str,
        /// Which one of them.
        id: &'a str,
        /// Path below it.
        name: &'a str,
        /// Member of what is there.
        key: &'a str,
    },
}

impl<'a> Reference<'a> {
    /// Reads a reference.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &'a str) -> Result<Reference<'a>, &'static str> {
        const ENV: &str = "expected $env://NAME or $env://NAME/key";
        const SECRET: &str = "expected $secret://manager/id/name/key";
        let (scheme, path) = text.split_once("://").ok_or(SECRET)?;
        if text.len() > MAX_LEN || path.chars().any(|c| c.is_control() || matches!(c, '?' | '#' | '%' | '\\')) {
            return Err("expected at most 1024 bytes without control characters and any of ?#%\\");
        }
        if scheme.eq_ignore_ascii_case("$env") {
            let (name, key) = path.split_once('/').map_or((path, None), |(name, key)| (name, Some(key)));
            return if name.is_empty() || key == Some("") { Err(ENV) } else { Ok(Reference::Env { name, key }) };
        }
        let (manager, rest) = path.split_once('/').ok_or(SECRET)?;
        let (id, rest) = rest.split_once('/').ok_or(SECRET)?;
        let (name, key) = rest.rsplit_once('/').ok_or(SECRET)?;
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err("expected a path without empty parts, `.` and `..`");
        }
        Ok(Reference::Managed { manager, id, name, key })
    }
}

/// Calls `each` with every reference in a value.
pub fn visit<'a>(value: &'a Value, each: &mut dyn FnMut(&'a str)) {
    match value {
        Value::String(text) if is_reference(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| visit(item, each)),
        Value::Object(map) => map.values().for_each(|item| visit(item, each)),
        _ => {}
    }
}

/// Calls `each` with every reference in a value and the text that stands in its place in another one of the same shape.
pub fn beside<'a>(value: &'a Value, other: &'a Value, each: &mut dyn FnMut(&'a str, &'a str)) {
    match (value, other) {
        (Value::String(text), Value::String(other)) if is_reference(text) => each(text, other),
        (Value::Array(items), Value::Array(others)) => {
            items.iter().zip(others).for_each(|(item, other)| beside(item, other, each));
        }
        (Value::Object(map), Value::Object(others)) => {
            map.values().zip(others.values()).for_each(|(item, other)| beside(item, other, each));
        }
        _ => {}
    }
}

/// The value with every reference replaced.
pub fn replaced(value: &Value, by: &mut dyn FnMut(&str) -> String) -> Value {
    match value {
        Value::String(text) if is_reference(text) => Value::String(by(text)),
        Value::Array(items) => items.iter().map(|item| replaced(item, by)).collect(),
        Value::Object(map) => {
            map.iter().map(|(name, item)| (name.clone(), replaced(item, by))).collect::<serde_json::Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// The text at a path as faults name it (`headers.set`, `whitelist[2]`).
pub fn at<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    let pointer = path.replace(['.', '['], "/").replace(']', "");
    value.pointer(&format!("/{pointer}"))?.as_str()
}
