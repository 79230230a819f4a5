//! A bound on what a metric label may say. It does not know which metric.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// What a label says once there are too many values: the rest in one.
pub const OTHER: &str = "other";

/// Admits the first so many different values of a label. Ask it when a metric handle is made, not for every request.
#[derive(Debug)]
pub struct LabelGuard {
    most: usize,
    known: Mutex<HashSet<Arc<str>>>,
}

impl LabelGuard {
    /// Admits at most `most` values besides [`OTHER`].
    #[must_use]
    pub fn new(most: usize) -> LabelGuard {
        LabelGuard { most, known: Mutex::new(HashSet::new()) }
    }

    /// `value` itself when it is known or there is room, otherwise [`OTHER`].
    pub fn admit(&self, value: &str) -> Arc<str> {
        let mut known = self.known.lock();
        if let Some(found) = known.get(value) {
            return found.clone();
        }
        if known.len() >= self.most {
            return OTHER.into();
        }
        let value: Arc<str> = value.into();
        known.insert(value.clone());
        value
    }

    /// Makes room: `value` is no longer exported. Remove its series from the metric too.
    pub fn forget(&self, value: &str) {
        self.known.lock().remove(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_bound_are_other() {
        let guard = LabelGuard::new(2);
        assert_eq!((&*guard.admit("a"), &*guard.admit("b"), &*guard.admit("c"), &*guard.admit("a")), ("a", "b", OTHER, "a"));
        guard.forget("a");
        assert_eq!((&*guard.admit("c"), &*guard.admit("a")), ("c", OTHER));
    }
}
