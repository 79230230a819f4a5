//! Reading a plugin's configuration from JSON: all faults at once, in the words that clients of APISIX know. It knows no plugin.

use heddle_xds::catalog::{ConfigFault, Place};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

/// The configuration of a plugin at one place.
pub(crate) trait Config: DeserializeOwned + JsonSchema {
    /// Adds the faults that the types cannot express.
    fn validate(&self, faults: &mut Faults);
}

/// Most faults that are looked for in one configuration.
const MAX_FAULTS: usize = 16;
/// Deepest nesting of a configuration, as deep as JSON is read from outside: what is deeper could exhaust a stack.
pub(super) const MAX_DEPTH: usize = 128;

/// Collects faults.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<ConfigFault>);

impl Faults {
    /// Adds one.
    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(ConfigFault { path: path.into(), message: message.into() });
    }

    /// Adds one when `value` lies outside the bounds, both included.
    pub(crate) fn range<T: PartialOrd + std::fmt::Display>(&mut self, path: &str, value: T, low: T, high: T) {
        if value < low {
            self.add(path, format!("expected {value} to be at least {low}"));
        } else if value > high {
            self.add(path, format!("expected {value} to be at most {high}"));
        }
    }

    /// Fails when there are any.
    ///
    /// # Errors
    /// The faults.
    pub(crate) fn into_result(self) -> Result<(), Vec<ConfigFault>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

/// Reads and validates a configuration, `_meta` left out.
///
/// # Errors
/// All faults that were found.
pub(crate) fn read<C: Config>(value: &Value) -> Result<C, Vec<ConfigFault>> {
    let config: C = parse(value)?;
    let mut faults = Faults::default();
    config.validate(&mut faults);
    faults.into_result().map(|()| config)
}

/// `Plugin::check` of a plugin that is configured on routes only.
///
/// # Errors
/// All faults that were found.
pub(crate) fn route_only<C: Config>(place: Place, value: &Value) -> Result<(), Vec<ConfigFault>> {
    match place {
        Place::Route => read::<C>(value).map(drop),
        Place::Consumer | Place::Metadata => Err(misplaced(place)),
    }
}

/// `Plugin::schema` of a plugin that is configured on routes only.
pub(crate) fn route_schema<C: Config>(place: Place) -> Option<Value> {
    (place == Place::Route).then(schema::<C>)
}

/// `Plugin::check` of a plugin that is configured on routes and has metadata.
///
/// # Errors
/// All faults that were found.
pub(crate) fn with_metadata<C: Config, M: Config>(place: Place, value: &Value) -> Result<(), Vec<ConfigFault>> {
    match place {
        Place::Route => read::<C>(value).map(drop),
        Place::Metadata => read::<M>(value).map(drop),
        Place::Consumer => Err(misplaced(place)),
    }
}

/// `Plugin::schema` of a plugin that is configured on routes and has metadata.
pub(crate) fn schema_with_metadata<C: Config, M: Config>(place: Place) -> Option<Value> {
    match place {
        Place::Route => Some(schema::<C>()),
        Place::Metadata => Some(schema::<M>()),
        Place::Consumer => None,
    }
}

/// `Plugin::check` of an authentication plugin: configured on routes, with credentials on consumers.
///
/// # Errors
/// All faults that were found.
pub(crate) fn with_credentials<C: Config, K: Config>(place: Place, value: &Value) -> Result<(), Vec<ConfigFault>> {
    match place {
        Place::Route => read::<C>(value).map(drop),
        Place::Consumer => read::<K>(value).map(drop),
        Place::Metadata => Err(misplaced(place)),
    }
}

/// `Plugin::schema` of an authentication plugin.
pub(crate) fn schema_with_credentials<C: Config, K: Config>(place: Place) -> Option<Value> {
    match place {
        Place::Route => Some(schema::<C>()),
        Place::Consumer => Some(schema::<K>()),
        Place::Metadata => None,
    }
}

/// JSON Schema of a configuration.
pub(crate) fn schema<C: Config>() -> Value {
    schemars::schema_for!(C).to_value()
}

/// The fault of a configuration at a place where the plugin has none.
pub(crate) fn misplaced(place: Place) -> Vec<ConfigFault> {
    let message = match place {
        Place::Route => "the plugin is configured on consumers only",
        Place::Consumer => "the plugin authenticates nobody, so it has no credentials",
        Place::Metadata => "the plugin has no metadata",
    };
    vec![ConfigFault { path: String::new(), message: message.to_owned() }]
}

/// A fault at a path.
pub(crate) fn fault_at(path: &str, message: String) -> ConfigFault {
    ConfigFault { path: path.to_owned(), message }
}

/// Reads a value. After a fault the property that holds it is left out and reading goes on, so that one run reports the others too.
fn parse<T: DeserializeOwned>(value: &Value) -> Result<T, Vec<ConfigFault>> {
    if is_deeper(value, MAX_DEPTH) {
        return Err(vec![too_deep()]);
    }
    let Value::Object(object) = value else {
        let message = format!("wrong type: expected object, got {}", kind(value));
        return Err(vec![ConfigFault { path: String::new(), message }]);
    };
    let mut rest: Map<String, Value> = object.clone();
    rest.remove("_meta");
    let mut faults: Vec<ConfigFault> = Vec::new();
    let mut left_out: Vec<String> = Vec::new();
    while faults.len() < MAX_FAULTS {
        let whole = Value::Object(rest.clone());
        let error = match serde_path_to_error::deserialize::<_, T>(&whole) {
            Ok(value) if faults.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(error) => error,
        };
        let text = error.inner().to_string();
        let missing = quoted(&text, "missing field `");
        if missing.is_some_and(|name| left_out.iter().any(|left| left == name)) {
            break;
        }
        faults.push(fault(error.path(), &text));
        let first = error.path().iter().find_map(|segment| match segment {
            Segment::Map { key } => Some(key.clone()),
            _ => None,
        });
        match first.filter(|key| rest.remove(key).is_some()) {
            Some(key) => left_out.push(key),
            None => break,
        }
    }
    Err(faults)
}

/// The fault of a configuration that is nested too deep.
pub(super) fn too_deep() -> ConfigFault {
    fault_at("", format!("nested deeper than {MAX_DEPTH} lists and objects"))
}

/// Whether lists and objects are nested deeper than `depth`. It looks no deeper itself.
pub(super) fn is_deeper(value: &Value, depth: usize) -> bool {
    let mut inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(object) => Box::new(object.values()),
        _ => return false,
    };
    depth == 0 || inner.any(|value| is_deeper(value, depth - 1))
}

fn fault(path: &Path, text: &str) -> ConfigFault {
    let mut path = render(path);
    let message = if let Some(name) = quoted(text, "missing field `") {
        format!("property \"{name}\" is required")
    } else if let Some(name) = quoted(text, "unknown field `") {
        // The path ends with the unknown field itself; the fault is its parent's.
        if let Some(parent) = path.strip_suffix(name) {
            path = parent.trim_end_matches('.').to_owned();
        }
        let known = text.split_once(", expected ").map(|(_, known)| format!("; known are {known}")).unwrap_or_default();
        format!("additional properties forbidden, found {name}{}", known.replace("one of ", ""))
    } else if let Some(name) = quoted(text, "unknown variant `") {
        let known = text.split_once(", expected ").map_or("", |(_, known)| known);
        format!("matches none of the enum values: got {name}, expected {known}")
    } else if let Some(rest) = text.strip_prefix("invalid type: ") {
        let (found, expected) = rest.split_once(", expected ").unwrap_or((rest, "something else"));
        format!("wrong type: expected {}, got {}", json_name(expected), json_name(found))
    } else {
        text.to_owned()
    };
    ConfigFault { path, message }
}

/// What Rust's types and values are called in JSON.
fn json_name(text: &str) -> &str {
    match text {
        _ if text.starts_with("struct ") || text == "map" || text == "a map" => "object",
        _ if text.starts_with("integer") || text.starts_with("floating point") => "number",
        "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" => "integer",
        "f32" | "f64" => "number",
        _ if text.starts_with("string") || text == "a string" => "string",
        _ if text.starts_with("boolean") || text == "a boolean" => "boolean",
        _ if text == "sequence" || text == "a sequence" => "array",
        "unit" => "null",
        other => other,
    }
}

fn quoted<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.strip_prefix(start)?.split('`').next()
}

fn render(path: &Path) -> String {
    let mut out = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => out.push_str(&format!("[{index}]")),
            Segment::Map { key } if key.contains(['.', '[', ']', '"']) => out.push_str(&format!("[{key:?}]")),
            Segment::Map { key } if out.is_empty() => out.push_str(key),
            Segment::Map { key } => out.push_str(&format!(".{key}")),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    out
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: String,
        #[serde(default)]
        sizes: Vec<u32>,
        #[serde(default)]
        map: BTreeMap<String, String>,
        #[serde(default)]
        flag: bool,
    }

    impl Config for Sample {
        fn validate(&self, faults: &mut Faults) {
            faults.range("sizes", self.sizes.len(), 0, 2);
        }
    }

    fn faults(value: Value) -> Vec<(String, String)> {
        read::<Sample>(&value).unwrap_err().into_iter().map(|fault| (fault.path, fault.message)).collect()
    }

    #[test]
    fn all_faults_are_found_in_one_run() {
        let found = faults(json!({"name": 5, "sizes": [1, "x"], "map": {"a.b": 1}, "flag": "no", "extra": 1}));
        let mut paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["", "flag", "map[\"a.b\"]", "name", "sizes[1]"]);
        assert!(found.contains(&("name".to_owned(), "wrong type: expected string, got number".to_owned())));
        assert!(found.iter().any(|(_, message)| message.starts_with("additional properties forbidden, found extra")));
    }

    #[test]
    fn missing_wrong_and_out_of_range() {
        assert_eq!(faults(json!({})), [(String::new(), "property \"name\" is required".to_owned())]);
        assert_eq!(faults(json!([])), [(String::new(), "wrong type: expected object, got array".to_owned())]);
        assert_eq!(
            faults(json!({"name": "x", "sizes": [1, 2, 3]})),
            [("sizes".to_owned(), "expected 3 to be at most 2".to_owned())]
        );
        let fine: Sample = read(&json!({"name": "x", "_meta": {"disable": false}})).unwrap();
        assert!(fine.name == "x" && fine.map.is_empty() && !fine.flag);
    }
}
