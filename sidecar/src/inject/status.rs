//! What was injected into a pod template, written into it, so that it can be taken out again exactly. It does not know what the parts are.

use serde_json::{Map, Value, json};

use super::annotations::{INJECTED, OWN, STATUS};
use super::fault::Faults;
use super::probes;
use super::refuse::{CAPTURE, DATA_VOLUME, FILES_VOLUME, SIDECAR};

/// What the template was before.
#[derive(Debug, Default)]
pub struct Before {
    /// Lists and maps that we made, with what was in their place: `absent` or `null`.
    pub made: Map<String, Value>,
    /// Handlers of probes that we replaced.
    pub probes: Map<String, Value>,
}

impl Before {
    /// The list or map `key` of `parent`, made when it is not there, and noted if so.
    pub fn child<'v>(&mut self, parent: &'v mut Map<String, Value>, key: &str, empty: Value) -> &'v mut Value {
        match parent.get(key) {
            None => self.made.insert(key.to_owned(), "absent".into()),
            Some(Value::Null) => self.made.insert(key.to_owned(), "null".into()),
            Some(_) => None,
        };
        let child = parent.entry(key.to_owned()).or_insert(Value::Null);
        if child.is_null() {
            *child = empty;
        }
        child
    }

    /// The text of the annotation [`STATUS`] for a template that is otherwise complete.
    #[must_use]
    pub fn to_text(&self, template: &Value) -> String {
        let mut status = json!({ "version": env!("CARGO_PKG_VERSION"), "hash": format!("{:016x}", digest(START, template)) });
        for (name, map) in [("made", &self.made), ("probes", &self.probes)] {
            if !map.is_empty() {
                status[name] = Value::Object(map.clone());
            }
        }
        status.to_string()
    }
}

/// Where FNV-1a of 64 bits starts. It tells versions of a template apart, and promises nothing against malice.
const START: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Of what a value says, whatever the order of its keys.
fn digest(hash: u64, value: &Value) -> u64 {
    match value {
        Value::Array(items) => fnv(items.iter().fold(fnv(hash, b"["), digest), b"]"),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(name, _)| name.as_str());
            let inner = entries
                .into_iter()
                .fold(fnv(hash, b"{"), |hash, (name, value)| digest(fnv(fnv(hash, name.as_bytes()), b":"), value));
            fnv(inner, b"}")
        }
        scalar => fnv(fnv(hash, scalar.to_string().as_bytes()), b","),
    }
}

/// Whether a template says that it was injected.
#[must_use]
pub fn is_injected(template: &Value) -> bool {
    text(template).is_some()
}

/// What a template says about its injection.
pub fn text(template: &Value) -> Option<&str> {
    template.get("metadata")?.get("annotations")?.get(STATUS)?.as_str()
}

/// The template as it was before; `None` when it was not injected, or when what it says about that is damaged, which is a fault then.
pub fn remove(template: &Value, place: &str, faults: &mut Faults) -> Option<Value> {
    let status: Value = serde_json::from_str(text(template)?).unwrap_or_default();
    if status.get("version").and_then(Value::as_str).is_none() {
        let dot = if place.is_empty() { "" } else { "." };
        faults.push(
            format!("{place}{dot}metadata.annotations[{STATUS}]"),
            "expected what an injection wrote; start from the original object",
        );
        return None;
    }
    let map = |name: &str| status.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let (made, originals) = (map("made"), map("probes"));
    let mut template = template.clone();
    if let Some(spec) = template.get_mut("spec") {
        probes::restore(spec, &originals);
        if let Some(spec) = spec.as_object_mut() {
            without_items(spec, "initContainers", &[SIDECAR, CAPTURE], &made);
            without_items(spec, "volumes", &[FILES_VOLUME, DATA_VOLUME], &made);
        }
    }
    let whole = template.as_object_mut()?;
    if let Some(metadata) = whole.get_mut("metadata").and_then(Value::as_object_mut) {
        without_keys(metadata, "annotations", &OWN, &made);
        without_keys(metadata, "labels", &[INJECTED], &made);
    }
    undo_made(whole, "metadata", &made);
    Some(template)
}

fn without_items(parent: &mut Map<String, Value>, key: &str, names: &[&str], made: &Map<String, Value>) {
    if let Some(items) = parent.get_mut(key).and_then(Value::as_array_mut) {
        items.retain(|item| !item.get("name").and_then(Value::as_str).is_some_and(|name| names.contains(&name)));
    }
    undo_made(parent, key, made);
}

fn without_keys(parent: &mut Map<String, Value>, key: &str, names: &[&str], made: &Map<String, Value>) {
    if let Some(map) = parent.get_mut(key).and_then(Value::as_object_mut) {
        map.retain(|name, _| !names.contains(&name.as_str()));
    }
    undo_made(parent, key, made);
}

/// Takes an empty list or map away again that was not there before. What others have put into it since stays.
fn undo_made(parent: &mut Map<String, Value>, key: &str, made: &Map<String, Value>) {
    let empty = match parent.get(key) {
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        _ => false,
    };
    match made.get(key).and_then(Value::as_str) {
        Some("absent") if empty => drop(parent.shift_remove(key)),
        Some("null") if empty => drop(parent.insert(key.to_owned(), Value::Null)),
        _ => {}
    }
}
