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

use heddle_xds::tree::Tree;
use serde_json::Value;

use crate::model::{Key, ResourceKind, references};
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
type Collection = Tree<Arc<str>, Arc<Stored>>;

/// All user resources at one revision. Cloning shares everything, and a change copies only the way to what it changes: its cost does
/// not grow with the configuration.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The newest revision of the store; what history and rollback speak of.
    pub revision: Revision,
    /// Grows with every change of store or providers while the process lives; never below `revision`.
    pub generation: u64,
    collections: BTreeMap<ResourceKind, Collection>,
    /// What is deleted by itself, the next first.
    expiring: Tree<(u64, Key), ()>,
    /// Who refers to what: the kind and the id as it is written, and the resource in which it stands.
    users: Tree<(ResourceKind, Arc<str>, Key), ()>,
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

    /// Resources of a kind whose ids begin with `prefix`, by id.
    pub fn beginning<'a>(&'a self, kind: ResourceKind, prefix: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Stored>)> {
        let from = self.collections.get(&kind).map(|map| map.from(prefix));
        from.into_iter().flatten().take_while(move |(id, _)| id.starts_with(prefix))
    }

    /// The resources that refer to `id` of a kind, written just so, whether it exists or not.
    pub fn users<'a>(&'a self, kind: ResourceKind, id: &'a str) -> impl Iterator<Item = &'a Key> {
        let first = (kind, Arc::from(id), Key::new(ResourceKind::ALL[0], ""));
        let from = self.users.from(&first).map(|(edge, ())| edge);
        from.take_while(move |edge| edge.0 == kind && *edge.1 == *id).map(|edge| &edge.2)
    }

    /// What has expired by `now_ms` (Unix milliseconds).
    pub fn expired(&self, now_ms: u64) -> impl Iterator<Item = &Key> {
        self.expiring.iter().map(|(key, ())| key).take_while(move |(at, _)| *at <= now_ms).map(|(_, key)| key)
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
        let map = self.collections.entry(key.kind).or_default();
        let expires_at_ms = stored.as_ref().and_then(|stored| stored.expires_at_ms);
        let named = stored.as_ref().map(|stored| references(key, &stored.value)).unwrap_or_default();
        let before = match stored {
            Some(stored) => map.insert(key.id.clone(), stored),
            None => map.remove(&key.id),
        };
        let unnamed = before.as_ref().map(|before| references(key, &before.value)).unwrap_or_default();
        if named != unnamed {
            for old in unnamed {
                self.users.remove(&(old.kind, Arc::from(old.id), key.clone()));
            }
            for new in named {
                self.users.insert((new.kind, Arc::from(new.id), key.clone()), ());
            }
        }
        if let Some(at) = before.and_then(|before| before.expires_at_ms) {
            self.expiring.remove(&(at, key.clone()));
        }
        if let Some(at) = expires_at_ms {
            self.expiring.insert((at, key.clone()), ());
        }
    }
}
