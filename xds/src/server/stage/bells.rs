//! Who is called by a bell of its own: nodes by their ids, sidecars by what they asked for. It knows no stream.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::Kind;
use crate::snapshot::{Changes, NodeScope, View};

/// The bells of all seats.
#[derive(Debug, Clone, Default)]
pub(super) struct Bells(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    nodes: HashMap<Arc<str>, Vec<Arc<Notify>>>,
    next: u64,
    sidecars: BTreeMap<u64, Sidecar>,
    by_name: HashMap<(Kind, Arc<str>), BTreeSet<u64>>,
    by_kind: HashMap<Kind, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Sidecar {
    scope: NodeScope,
    bell: Arc<Notify>,
    names: HashMap<Kind, BTreeSet<Arc<str>>>,
}

impl Bells {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells one set of bells from another.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(super) fn add_node(&self, id: &Arc<str>, bell: Arc<Notify>) {
        self.lock().nodes.entry(id.clone()).or_default().push(bell);
    }

    pub(super) fn remove_node(&self, id: &Arc<str>, bell: &Arc<Notify>) {
        let mut inner = self.lock();
        if let Some(of_node) = inner.nodes.get_mut(id) {
            of_node.retain(|other| !Arc::ptr_eq(other, bell));
            if of_node.is_empty() {
                inner.nodes.remove(id);
            }
        }
    }

    pub(super) fn add_sidecar(&self, scope: NodeScope, bell: Arc<Notify>) -> u64 {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        if inner.closed {
            bell.notify_one();
        }
        inner.sidecars.insert(number, Sidecar { scope, bell, names: HashMap::new() });
        number
    }

    pub(super) fn remove_sidecar(&self, number: u64) {
        let mut inner = self.lock();
        let Some(sidecar) = inner.sidecars.remove(&number) else { return };
        for (kind, names) in sidecar.names {
            names.into_iter().for_each(|name| inner.forget((kind, name), number));
        }
        inner.by_kind.retain(|_, all| {
            all.remove(&number);
            !all.is_empty()
        });
    }

    /// What a sidecar asks for of a kind from now on. Whether that is more than before.
    pub(super) fn listen(&self, number: u64, kind: Kind, all: bool, names: Vec<Arc<str>>) -> bool {
        let mut inner = self.lock();
        let Inner { sidecars, .. } = &mut *inner;
        let Some(sidecar) = sidecars.get_mut(&number) else { return false };
        let known = sidecar.names.entry(kind).or_default();
        let unchanged = known.len() == names.len() && names.iter().all(|name| known.contains(name));
        let mut more = false;
        if !unchanged {
            let now: BTreeSet<Arc<str>> = names.into_iter().collect();
            let before = std::mem::replace(known, now.clone());
            for name in now.difference(&before) {
                inner.by_name.entry((kind, name.clone())).or_default().insert(number);
                more = true;
            }
            before.difference(&now).for_each(|name| inner.forget((kind, name.clone()), number));
        }
        let of_kind = inner.by_kind.entry(kind).or_default();
        if all {
            more |= of_kind.insert(number);
        } else {
            of_kind.remove(&number);
        }
        more
    }

    pub(super) fn ring_nodes(&self, nodes: &BTreeSet<Arc<str>>) -> usize {
        let inner = self.lock();
        let bells = nodes.iter().filter_map(|node| inner.nodes.get(node)).flatten();
        bells.inspect(|bell| bell.notify_one()).count()
    }

    /// Seats of nodes that are no sidecars.
    pub(super) fn nodes(&self) -> usize {
        self.lock().nodes.values().map(Vec::len).sum()
    }

    /// Seats of sidecars.
    pub(super) fn sidecars(&self) -> usize {
        self.lock().sidecars.len()
    }

    /// Calls the sidecars that asked for something that changed between two views; for one that asked for all of a kind, something that it sees or saw.
    /// Gives their numbers; `None` are all.
    pub(super) fn ring_sidecars(&self, changes: &Changes, before: &View, after: &View) -> Option<BTreeSet<u64>> {
        let inner = self.lock();
        let Some(names) = &changes.names else {
            inner.ring_all();
            return None;
        };
        let mut called = BTreeSet::new();
        for (kind, name) in names {
            let asked = inner.by_name.get(&(*kind, name.clone()));
            called.extend(asked.into_iter().flatten());
            let Some(of_kind) = inner.by_kind.get(kind) else { continue };
            let seen: Vec<_> = [before, after].into_iter().filter_map(|view| view.find(*kind, name)).collect();
            let sees = |number: &&u64| {
                let sidecar = inner.sidecars.get(number);
                sidecar.is_some_and(|sidecar| seen.iter().any(|versioned| sidecar.scope.sees(&versioned.resource)))
            };
            called.extend(of_kind.iter().filter(sees));
        }
        called.iter().filter_map(|number| inner.sidecars.get(number)).for_each(|one| one.bell.notify_one());
        Some(called)
    }

    /// Nothing will be shown any more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.ring_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.nodes.is_empty()
            && inner.sidecars.is_empty()
            && inner.by_name.is_empty()
            && inner.by_kind.values().all(BTreeSet::is_empty)
    }
}

impl Inner {
    fn forget(&mut self, name: (Kind, Arc<str>), number: u64) {
        if let Some(asked) = self.by_name.get_mut(&name) {
            asked.remove(&number);
            if asked.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }

    fn ring_all(&self) {
        self.sidecars.values().for_each(|sidecar| sidecar.bell.notify_one());
    }
}
