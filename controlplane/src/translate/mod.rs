//! From user resources to the data-plane model, incrementally: the cost of a change is that of what depends on it. It knows no wire, no node and no plugin beyond the catalog.
//!
//! Every user resource is a *unit*. Translating a unit is a function of the state; what it looked at is put on record, so that
//! the next change finds the units that depend on it. Each data-plane resource belongs to exactly one unit, and a whole
//! translation gives the same as any sequence of increments.

mod certificate;
mod checks;
mod consumer;
mod context;
mod explain;
mod index;
mod listener;
mod mesh;
mod plugins;
mod read;
mod route;
mod upstream;

#[cfg(test)]
mod tests;

pub use explain::{PluginStep, Provenance, UpstreamChoice, everywhere, provenance};

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use heddle_xds::catalog::{Catalog, PluginKind};
use heddle_xds::model::{Kind, Resource};
use heddle_xds::snapshot::Change;

use crate::discovery::Ask;
use crate::mesh::Directory;
use crate::model::{Key, ResourceKind, ServiceId};
use crate::state::State;
use context::{Context, Unit};
use index::{Asks, Index, Reads};

/// Keeps the data-plane resources that a state stands for, and says what differs when the state changes.
pub struct Translator {
    auth: HashSet<Arc<str>>,
    known: HashSet<Key>,
    credentials: HashMap<Key, BTreeSet<Key>>,
    units: HashMap<Key, Unit>,
    index: Index,
    asks: Asks,
}

impl Translator {
    /// A translator of the empty state.
    pub fn new(catalog: Arc<dyn Catalog>) -> Translator {
        Translator {
            auth: auth_plugins(&*catalog),
            known: HashSet::new(),
            credentials: HashMap::new(),
            units: HashMap::new(),
            index: Index::default(),
            asks: Asks::default(),
        }
    }

    /// What differs now that the resources `changed` were added, changed or removed, what is known of `services` of the mesh is another, and `state`
    /// and `directory` are the whole. The order is one in which they can be applied one by one without a gap: what is referred to is set before what
    /// refers to it, and removed after it.
    pub fn apply(
        &mut self,
        state: &State,
        directory: &Directory,
        changed: &[Key],
        services: &BTreeSet<ServiceId>,
    ) -> Vec<Change> {
        self.apply_with(state, directory, changed, services.iter().map(mesh::unit_key))
    }

    /// What differs now that discovery has found something else for `asks`.
    pub fn found(&mut self, state: &State, directory: &Directory, asks: &BTreeSet<Ask>) -> Vec<Change> {
        self.apply_with(state, directory, &[], asks.iter().map(Ask::key))
    }

    /// What is asked of discovery, when that is something else than at the last call.
    pub fn newly_asked(&mut self) -> Option<BTreeSet<Ask>> {
        self.asks.news()
    }

    fn apply_with(
        &mut self,
        state: &State,
        directory: &Directory,
        changed: &[Key],
        others: impl Iterator<Item = Key>,
    ) -> Vec<Change> {
        let mut came_or_went = Vec::new();
        for key in changed {
            let exists = state.get(key).is_some();
            if exists != self.known.contains(key) {
                self.note(key, exists);
                came_or_went.push(key.clone());
            }
        }
        // Which services a resource speaks of, and spoke of, the directory has told.
        let resources = changed.iter().filter(|key| key.kind != ResourceKind::MeshService).map(unit_of);
        let dirty = self.index.dirty(resources.chain(others), &came_or_went);
        let mut changes = Vec::new();
        // Keys order by kind, and kinds refer backwards only: a unit finds those that it merges up to date.
        for key in dirty {
            let (unit, reads, asks) = self.translate(state, directory, &key);
            let before = self.units.get(&key).map_or(&[][..], |unit| &unit.resources);
            differences(before, &unit.resources, &mut changes);
            self.index.set(&key, reads);
            self.asks.set(&key, asks);
            if unit.resources.is_empty() && unit.plugins.is_empty() {
                self.units.remove(&key);
            } else {
                self.units.insert(key, unit);
            }
        }
        in_order(changes)
    }

    /// What differs between what is held and what `state` and `directory` stand for, whatever happened in between.
    pub fn rebuild(&mut self, state: &State, directory: &Directory) -> Vec<Change> {
        let mut changed: BTreeSet<Key> = self.known.iter().cloned().collect();
        changed.extend(state.all().map(|(key, _)| key));
        let changed: Vec<Key> = changed.into_iter().collect();
        let mut services: BTreeSet<ServiceId> = self.units.keys().filter_map(mesh::service_of).collect();
        services.extend(directory.services().map(|(service, _)| service.clone()));
        self.apply(state, directory, &changed, &services)
    }

    /// Every data-plane resource held, in no particular order.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.units.values().flat_map(|unit| &unit.resources)
    }

    /// Writes down that a resource came or went.
    fn note(&mut self, key: &Key, exists: bool) {
        if exists {
            self.known.insert(key.clone());
        } else {
            self.known.remove(key);
        }
        if key.kind != ResourceKind::Credential {
            return;
        }
        let owner = consumer::owner(key);
        let held = self.credentials.entry(owner.clone()).or_default();
        if exists {
            held.insert(key.clone());
        } else {
            held.remove(key);
        }
        if held.is_empty() {
            self.credentials.remove(&owner);
        }
    }

    fn translate(&self, state: &State, directory: &Directory, key: &Key) -> (Unit, Reads, BTreeSet<Ask>) {
        let mut context = Context::new(state, directory, &self.units, &self.auth);
        let unit = match (key.kind, state.get(key)) {
            (ResourceKind::PluginMetadata, _) => consumer::metadata(state, key),
            (ResourceKind::MeshService, _) => {
                mesh::service_of(key).map(|service| mesh::service(&mut context, &service)).unwrap_or_default()
            }
            (_, None) => Unit::default(),
            (ResourceKind::Route, Some(stored)) => route::unit(&mut context, key, stored),
            (ResourceKind::Service | ResourceKind::PluginConfig | ResourceKind::ConsumerGroup, Some(stored)) => {
                plugins::shared(&mut context, key, stored)
            }
            (ResourceKind::Upstream, Some(stored)) => upstream::unit(&mut context, key, stored),
            (ResourceKind::Consumer, Some(stored)) => {
                let credentials: Vec<Key> = self.credentials.get(key).into_iter().flatten().cloned().collect();
                consumer::unit(&mut context, key, stored, &credentials)
            }
            (ResourceKind::GlobalRule, Some(stored)) => consumer::global_rule(&mut context, key, stored),
            (ResourceKind::Ssl, Some(stored)) => certificate::unit(key, stored),
            (ResourceKind::Listener, Some(stored)) => listener::unit(&mut context, key, stored),
            (ResourceKind::Secret, Some(stored)) => certificate::manager(key, stored),
            (ResourceKind::AuthorizationPolicy, Some(stored)) => mesh::policy(&context, key, stored),
            (ResourceKind::PeerAuthentication, Some(stored)) => mesh::peers(key, stored),
            // A credential is part of its consumer.
            (ResourceKind::Credential, Some(_)) => Unit::default(),
        };
        (unit, context.reads, context.asks)
    }
}

fn auth_plugins(catalog: &dyn Catalog) -> HashSet<Arc<str>> {
    let all = catalog.descriptors().iter();
    all.filter(|plugin| plugin.kind == PluginKind::Auth).map(|plugin| plugin.name.into()).collect()
}

/// The unit that a change of `key` concerns first: credentials are part of their consumer, and all metadata of one plugin is
/// one unit, wherever it comes from.
fn unit_of(key: &Key) -> Key {
    match key.kind {
        ResourceKind::Credential => consumer::owner(key),
        ResourceKind::PluginMetadata => Key::new(key.kind, key.local_id()),
        _ => key.clone(),
    }
}

fn differences(before: &[Resource], after: &[Resource], changes: &mut Vec<Change>) {
    let old: BTreeMap<(Kind, &str), &Resource> = before.iter().map(|old| ((old.kind(), &**old.name()), old)).collect();
    let new: BTreeSet<(Kind, &str)> = after.iter().map(|new| (new.kind(), &**new.name())).collect();
    let differs = after.iter().filter(|new| old.get(&(new.kind(), &**new.name())).is_none_or(|old| old != new));
    changes.extend(differs.cloned().map(Change::Set));
    let gone = before.iter().filter(|old| !new.contains(&(old.kind(), &**old.name())));
    changes.extend(gone.map(|old| Change::Remove(old.kind(), old.name().clone())));
}

/// Sets first, referenced kinds before referring ones; then removals the other way round. What one owner gives up and another one takes over in the same step is set.
fn in_order(mut changes: Vec<Change>) -> Vec<Change> {
    let set = |change: &Change| match change {
        Change::Set(resource) => Some((resource.kind(), resource.name().clone())),
        Change::Remove(..) => None,
    };
    let taken: BTreeSet<(Kind, Arc<str>)> = changes.iter().filter_map(set).collect();
    changes.retain(|change| !matches!(change, Change::Remove(kind, name) if taken.contains(&(*kind, name.clone()))));
    changes.sort_by_key(|change| match change {
        Change::Set(resource) => (false, rank(resource.kind())),
        Change::Remove(kind, _) => (true, Kind::ALL.len() - rank(*kind)),
    });
    changes
}

fn rank(kind: Kind) -> usize {
    Kind::ALL.iter().position(|other| *other == kind).unwrap_or(Kind::ALL.len())
}
