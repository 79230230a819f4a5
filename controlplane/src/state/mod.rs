//! What we believe: all user resources, merged over store and providers, validated, at one revision. It knows neither HTTP nor the data-plane model.

mod changes;

mod diff;
mod housekeeping;
mod intent;
mod keeper;
mod plan;
mod sources;
mod task;
mod update;

#[cfg(test)]
mod tests;

pub use changes::{Changes, Subscription};
pub use diff::{Change, Difference, FieldChange, diff};
pub use housekeeping::keep_house;
pub use intent::{Applied, Effect, Expect, Intent, Options, Outcome, Refused, Validator};
pub use keeper::{Keeper, Scope};
pub use update::{Content, Locate, Places, SourceStatus, Update};

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::model::{Key, ResourceKind};
use crate::store::Revision;

/// One user resource as it is believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// What the user wrote, with `id`, `create_time` and `update_time`.
    pub value: Value,
    /// Revision that created it (`createdIndex`); a generation when it came from a provider.
    pub created: u64,
    /// Revision that changed it last (`modifiedIndex`); a generation when it came from a provider.
    pub modified: u64,
    /// Deleted by itself at this time (Unix milliseconds).
    pub expires_at_ms: Option<u64>,
}

/// The resources of one kind, by id.
type Collection = BTreeMap<Arc<str>, Arc<Stored>>;

/// All user resources at one revision. Cloning shares everything.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The newest revision of the store; what history and rollback speak of.
    pub revision: Revision,
    /// Grows with every change of store or providers while the process lives; never below `revision`.
    pub generation: u64,
    collections: BTreeMap<ResourceKind, Arc<Collection>>,
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

    /// Every resource, referenced kinds before referring ones.
    pub fn all(&self) -> impl Iterator<Item = (Key, &Arc<Stored>)> {
        self.collections
            .iter()
            .flat_map(|(kind, map)| map.iter().map(|(id, stored)| (Key { kind: *kind, id: id.clone() }, stored)))
    }

    /// Number of resources of a kind.
    pub fn count(&self, kind: ResourceKind) -> usize {
        self.collections.get(&kind).map_or(0, |map| map.len())
    }

    /// What `id` means when `from` refers to it: `u1@file` is exactly that; a plain `u1` is looked for within the
    /// provider of `from` first, then in the store.
    pub fn resolve(&self, kind: ResourceKind, id: &str, from: &Key) -> Option<(Key, &Arc<Stored>)> {
        let plain = Key::new(kind, id);
        let own = match from.provider() {
            Some(provider) if plain.provider().is_none() => Some(plain.of_provider(provider)),
            _ => None,
        };
        own.into_iter().chain([plain]).find_map(|key| self.get(&key).map(|stored| (key, stored)))
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
