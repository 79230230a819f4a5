//! The counters of a group, and whether its members agree on what they count. It counts nothing itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::counters::Counters;

/// Counters that several configurations share.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The counters.
    pub counters: Arc<Counters>,
    /// What each place counts. Written only while tables are compiled.
    members: Mutex<BTreeMap<Box<str>, Weak<str>>>,
}

/// A configuration that belongs to a group, as long as it is held. It also keeps the group, so that nobody finds an empty one.
#[derive(Debug)]
pub(super) struct Member {
    _group: Arc<Group>,
    _limits: Arc<str>,
}

impl Group {
    /// Takes the configuration of a place in, and names another place whose limits differ. What the place itself had before does not count.
    pub(super) fn join(self: &Arc<Group>, origin: &str, limits: &str) -> (Member, Option<String>) {
        let mut members = self.members.lock();
        members.retain(|_, limits| limits.strong_count() > 0);
        let mut others = members.iter().filter(|(place, _)| ***place != *origin);
        let differs = |held: &Weak<str>| held.upgrade().is_some_and(|held| &*held != limits);
        let other = others.find(|(_, held)| differs(held)).map(|(place, _)| place.to_string());
        let limits: Arc<str> = limits.into();
        members.insert(origin.into(), Arc::downgrade(&limits));
        (Member { _group: self.clone(), _limits: limits }, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_differ_are_told() {
        let group = Arc::new(Group::default());
        let (_a, other) = group.join("route/a", "1");
        assert_eq!(other, None);
        let (_b, other) = group.join("route/b", "1");
        assert_eq!(other, None);
        let (a, other) = group.join("route/a", "2");
        assert_eq!(other.as_deref(), Some("route/b"));
        let (b, other) = group.join("route/b", "2");
        assert_eq!(other, None, "both have changed");
        drop((a, b));
        assert_eq!(group.join("route/c", "3").1, None, "nobody else is left");
    }
}
