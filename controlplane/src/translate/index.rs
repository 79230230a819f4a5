//! Who read what, the edges along which a change travels; and who asks what of discovery. It looks nothing up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::discovery::Ask;
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

/// Which unit asks what.
#[derive(Debug, Default)]
pub(super) struct Asks {
    of: HashMap<Key, BTreeSet<Ask>>,
    counts: BTreeMap<Ask, usize>,
    changed: bool,
}

impl Asks {
    /// Replaces what a unit asks.
    pub(super) fn set(&mut self, unit: &Key, asks: BTreeSet<Ask>) {
        if self.of.get(unit).map_or(asks.is_empty(), |before| *before == asks) {
            return;
        }
        for ask in &asks {
            let count = self.counts.entry(ask.clone()).or_default();
            *count += 1;
            self.changed |= *count == 1;
        }
        let before = if asks.is_empty() { self.of.remove(unit) } else { self.of.insert(unit.clone(), asks) };
        for ask in before.into_iter().flatten() {
            if let Some(count) = self.counts.get_mut(&ask) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&ask);
                    self.changed = true;
                }
            }
        }
    }

    /// All of them, when they are others than at the last call.
    pub(super) fn news(&mut self) -> Option<BTreeSet<Ask>> {
        std::mem::take(&mut self.changed).then(|| self.counts.keys().cloned().collect())
    }
}
