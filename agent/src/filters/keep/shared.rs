//! Compiled filters by what they were compiled of, held weakly: equal configurations are compiled once. It compiles nothing and knows no plugin.

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use heddle_node::weak_map::WeakMap;
use parking_lot::Mutex;
use serde_json::Value;

use super::super::Filter;

/// Whose plugins run beside each other for one request. Filters know what they have noted about a request by their own address, so none is shared
/// between two of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::filters) enum Layer {
    /// Global rules.
    Global,
    /// A route, with what its service and plugin configuration bring.
    Route,
    /// A consumer, with what its group brings.
    Consumer,
}

/// What a filter was compiled of, as a hash that does not tell it: configurations hold secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::filters) struct Source([u8; 32]);

impl Source {
    /// That of a configuration as it is compiled, all references replaced. `_meta` does not count, since filters know nothing of it; the order of
    /// properties does. Nothing when it cannot be written down.
    pub(in crate::filters) fn of(layer: Layer, plugin: &str, config: &Value, metadata: Option<&Value>) -> Option<Source> {
        let mut hash = Hash(Context::new(&SHA256));
        // No text of JSON holds a zero byte, so nothing runs into what follows it.
        hash.0.update(&[layer as u8]);
        hash.part(&plugin)?;
        match config {
            Value::Object(properties) => {
                for property in properties.iter().filter(|(name, _)| *name != "_meta") {
                    hash.part(&property)?;
                }
            }
            other => hash.part(other)?,
        }
        hash.0.update(&[u8::from(metadata.is_some())]);
        metadata.map_or(Some(()), |metadata| hash.part(metadata))?;
        let mut sum = [0; 32];
        sum.copy_from_slice(hash.0.finish().as_ref());
        Some(Source(sum))
    }
}

/// Takes JSON as it is written, so that no copy of it stays in memory.
struct Hash(Context);

impl Hash {
    fn part(&mut self, value: &impl serde::Serialize) -> Option<()> {
        serde_json::to_writer(&mut *self, value).ok()?;
        self.0.update(&[0]);
        Some(())
    }
}

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Filters that serve more than one place. Looked at only while tables are compiled.
#[derive(Default)]
pub(super) struct Shared(Mutex<WeakMap<Source, dyn Filter>>);

impl Shared {
    pub(super) fn get(&self, source: &Source) -> Option<Arc<dyn Filter>> {
        self.0.lock().get(source)
    }

    pub(super) fn put(&self, source: Source, filter: &Arc<dyn Filter>) {
        self.0.lock().put(source, filter);
    }

    pub(super) fn sweep(&self) {
        self.0.lock().sweep();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn of(layer: Layer, plugin: &str, config: Value, metadata: Option<Value>) -> Source {
        Source::of(layer, plugin, &config, metadata.as_ref()).unwrap()
    }

    #[test]
    fn all_that_a_filter_is_compiled_of_counts_and_meta_does_not() {
        let all = [
            of(Layer::Route, "a", json!({}), None),
            of(Layer::Global, "a", json!({}), None),
            of(Layer::Consumer, "a", json!({}), None),
            of(Layer::Route, "b", json!({}), None),
            of(Layer::Route, "a", json!({"x": 1}), None),
            of(Layer::Route, "a", json!({"x": "1"}), None),
            of(Layer::Route, "a", json!({"x": 1, "y": [{"_meta": 1}]}), None),
            of(Layer::Route, "a", json!({"x": 1, "y": [{}]}), None),
            of(Layer::Route, "a", json!({}), Some(json!({}))),
            of(Layer::Route, "a", json!({}), Some(json!({"x": 1}))),
        ];
        for (number, source) in all.iter().enumerate() {
            assert!(!all[..number].contains(source), "{number}");
        }
        assert_eq!(of(Layer::Route, "a", json!({"_meta": {"priority": 1}, "x": 1}), None), all[4]);
    }
}
