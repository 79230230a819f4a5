//! What the translation of one unit may look at, and a record of what it did look at. It changes nothing.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use heddle_xds::model::{PluginConf, Resource};

use super::index::{Interest, Reads};
use super::{mesh, plugins};
use crate::discovery::{Ask, Found};
use crate::mesh::{Directory, Known};
use crate::model::{Key, ResourceKind, ServiceId};
use crate::state::{State, Stored};

/// What one user resource became.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// The data-plane resources that it owns. No other unit owns one of the same kind and name.
    pub(super) resources: Vec<Resource>,
    /// Its plugins, ready to be merged into the units that refer to it.
    pub(super) plugins: Arc<[PluginConf]>,
}

/// What the translation of one unit may look at.
pub(super) struct Context<'a> {
    /// All user resources.
    pub(super) state: &'a State,
    /// The services of the mesh.
    pub(super) directory: &'a Directory,
    /// Units that are up to date; those of kinds further down are not asked for.
    pub(super) units: &'a HashMap<Key, Unit>,
    /// Names of plugins that identify consumers.
    pub(super) auth: &'a HashSet<Arc<str>>,
    /// What was looked at so far.
    pub(super) reads: Reads,
    /// What was asked of discovery so far.
    pub(super) asks: BTreeSet<Ask>,
}

impl<'a> Context<'a> {
    /// A context that has seen nothing yet.
    pub(super) fn new(
        state: &'a State,
        directory: &'a Directory,
        units: &'a HashMap<Key, Unit>,
        auth: &'a HashSet<Arc<str>>,
    ) -> Context<'a> {
        Context { state, directory, units, auth, reads: Reads::new(), asks: BTreeSet::new() }
    }

    /// A service of the mesh, for where its instances are.
    pub(super) fn service(&mut self, service: &ServiceId) -> Option<&'a Known> {
        self.reads.insert((mesh::unit_key(service), Interest::Content));
        self.directory.get(service)
    }

    /// What discovery has found; from now on it is asked for.
    pub(super) fn discovered(&mut self, ask: Ask) -> Option<&'a Found> {
        self.reads.insert((ask.key(), Interest::Content));
        let found = self.directory.discovered().get(&ask);
        self.asks.insert(ask);
        found
    }

    /// The resource that `id` means in the eyes of `from`, for its content.
    pub(super) fn read(&mut self, kind: ResourceKind, id: &str, from: &Key) -> Option<(Key, &'a Arc<Stored>)> {
        self.look(kind, id, from, Interest::Content)
    }

    /// The key that `id` means in the eyes of `from`; without a resource of that name, the name as it was written.
    pub(super) fn name(&mut self, kind: ResourceKind, id: &str, from: &Key) -> Key {
        self.look(kind, id, from, Interest::Existence).map_or_else(|| Key::new(kind, id), |(key, _)| key)
    }

    /// The plugins of a shared resource that was read before.
    pub(super) fn plugins_of(&self, key: &Key, stored: &Stored) -> Arc<[PluginConf]> {
        match self.units.get(key) {
            Some(unit) => unit.plugins.clone(),
            None => {
                let mut own = Context::new(self.state, self.directory, self.units, self.auth);
                plugins::of(&mut own, key, &stored.value).0.into()
            }
        }
    }

    /// As [`State::resolve`], with every name that was tried put on record: its coming would change the answer.
    fn look(&mut self, kind: ResourceKind, id: &str, from: &Key, interest: Interest) -> Option<(Key, &'a Arc<Stored>)> {
        let state: &'a State = self.state;
        let found = state.resolve(kind, id, from);
        let plain = Key::new(kind, id);
        if let (Some(provider), None) = (from.provider(), plain.provider()) {
            let own = plain.of_provider(provider);
            let settled = found.as_ref().is_some_and(|(key, _)| *key == own);
            self.reads.insert((own, interest));
            if settled {
                return found;
            }
        }
        self.reads.insert((plain, interest));
        found
    }
}
