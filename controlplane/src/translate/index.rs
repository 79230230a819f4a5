//! Who read what: the edges along which a change travels. It knows keys only.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::model::Key;

/// What a unit took from another resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Interest {
    /// Only whether it exists; changes of its content do not matter.
    Existence,
    /// Its content.
    Content,
}

/// The reads of one unit, of resources that exist and of those that do not (yet).
pub(super) type Reads = BTreeSet<(Key, Interest)>;

/// Both directions of who read what.
#[derive(Debug, Default)]
pub(super) struct Index {
    reads: HashMap<Key, Reads>,
    readers: HashMap<(Key, Interest), HashSet<Key>>,
}

impl Index {
    /// Replaces what `unit` read; empty forgets it.
    pub(super) fn set(&mut self, unit: &Key, reads: Reads) {
        if self.reads.get(unit).is_some_and(|before| *before == reads) {
            return;
        }
        for edge in self.reads.remove(unit).unwrap_or_default() {
            if let Some(readers) = self.readers.get_mut(&edge) {
                readers.remove(unit);
                if readers.is_empty() {
                    self.readers.remove(&edge);
                }
            }
        }
        for edge in &reads {
            self.readers.entry(edge.clone()).or_default().insert(unit.clone());
        }
        if !reads.is_empty() {
            self.reads.insert(unit.clone(), reads);
        }
    }

    /// Everything that must be computed again when the resources of `content` changed and those of `existence` also came
    /// or went: they themselves, and whoever read them, over any number of steps.
    pub(super) fn dirty(&self, content: impl IntoIterator<Item = Key>, existence: &[Key]) -> BTreeSet<Key> {
        let mut pending: Vec<Key> = content.into_iter().collect();
        for key in existence {
            pending.extend(self.readers_of(key, Interest::Existence));
        }
        let mut dirty = BTreeSet::new();
        while let Some(key) = pending.pop() {
            pending.extend(self.readers_of(&key, Interest::Content).filter(|reader| !dirty.contains(reader)));
            dirty.insert(key);
        }
        dirty
    }

    fn readers_of(&self, key: &Key, interest: Interest) -> impl Iterator<Item = Key> + '_ {
        self.readers.get(&(key.clone(), interest)).into_iter().flatten().cloned()
    }
}
