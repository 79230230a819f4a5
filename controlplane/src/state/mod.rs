//! What we believe: all user resources, merged over store and providers, validated, at one revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::model::{Key, ResourceKind};

/// One user resource as it is believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// What the user wrote, with `id`, `create_time` and `update_time`.
    pub value: Value,
    /// Revision that created it.
    pub created: u64,
    /// Revision that changed it last (`modifiedIndex`).
    pub modified: u64,
}

/// All user resources at one revision. Cloning shares everything.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Grows by one with every change.
    pub revision: u64,
    collections: BTreeMap<ResourceKind, Arc<BTreeMap<Arc<str>, Arc<Stored>>>>,
}

impl State {
    /// One resource.
    pub fn get(&self, key: &Key) -> Option<&Arc<Stored>> {
        self.collections.get(&key.kind)?.get(&key.id)
    }

    /// All resources of a kind, by id.
    pub fn list(&self, kind: ResourceKind) -> impl Iterator<Item = (&Arc<str>, &Arc<Stored>)> {
        self.collections.get(&kind).into_iter().flat_map(|map| map.iter())
    }

    /// Number of resources of a kind.
    pub fn count(&self, kind: ResourceKind) -> usize {
        self.collections.get(&kind).map_or(0, |map| map.len())
    }

    /// Puts or (with `None`) removes one resource.
    pub fn set(&mut self, key: &Key, stored: Option<Arc<Stored>>) {
        let map = Arc::make_mut(self.collections.entry(key.kind).or_default());
        match stored {
            Some(stored) => map.insert(key.id.clone(), stored),
            None => map.remove(&key.id),
        };
    }
}
