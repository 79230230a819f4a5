//! Which unit asks what of discovery: an ask is there as long as one unit has it. It looks nothing up.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::discovery::Ask;
use crate::model::Key;

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
