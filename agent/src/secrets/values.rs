//! What references stand for, as far as it is known: a cache whose entries grow old. It asks nobody.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How long a value is believed before it is asked for again.
pub(super) const TTL: Duration = Duration::from_secs(300);
/// How long after a failure it is tried again.
pub(super) const NEGATIVE_TTL: Duration = Duration::from_secs(60);
/// References nobody has asked for in this time are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// Most references that are kept.
const MOST: usize = 10_000;

/// What is known.
#[derive(Default)]
pub(super) struct Values {
    known: HashMap<String, Known>,
}

struct Known {
    /// The last good one; `None` while there never was one.
    value: Option<Arc<str>>,
    /// When it is asked for again.
    due: Instant,
    /// When it was last used in a configuration.
    used: Instant,
}

impl Values {
    /// The last good value.
    pub(super) fn get(&mut self, reference: &str, now: Instant) -> Option<Arc<str>> {
        let known = self.known.get_mut(reference)?;
        known.used = now;
        known.value.clone()
    }

    /// Those of which nothing is known, not even that they cannot be had.
    pub(super) fn unknown(&self, references: BTreeSet<String>) -> BTreeSet<String> {
        references.into_iter().filter(|reference| !self.known.contains_key(reference)).collect()
    }

    /// Those that it is time to ask for again.
    pub(super) fn due(&mut self, now: Instant) -> BTreeSet<String> {
        self.known.retain(|_, known| now.saturating_duration_since(known.used) < FORGOTTEN);
        self.known.iter().filter(|(_, known)| known.due <= now).map(|(reference, _)| reference.clone()).collect()
    }

    /// All of them are due: a manager has changed.
    pub(super) fn outdate(&mut self, now: Instant) {
        self.known.values_mut().for_each(|known| known.due = now);
    }

    /// Takes an answer; `None` when there was none, which keeps the last good value. Says whether the value is another one now.
    pub(super) fn learn(&mut self, reference: &str, value: Option<Arc<str>>, now: Instant) -> bool {
        let due = now + if value.is_some() { TTL } else { NEGATIVE_TTL };
        let full = self.known.len() >= MOST;
        match self.known.get_mut(reference) {
            Some(known) => {
                known.due = due;
                let differs = value.is_some() && known.value != value;
                known.value = value.or_else(|| known.value.take());
                differs
            }
            None if full => false,
            None => {
                let differs = value.is_some();
                self.known.insert(reference.to_owned(), Known { value, due, used: now });
                differs
            }
        }
    }
}
