//! What is gone and is still at a client, and how far the client is with what leads there. It knows no stream.
//!
//! A removal waits for what replaces it, not for what comes after that: it is noted with the position of the view in which it is gone, and goes once the client
//! has taken everything that it was told of the views up to there. Where routes change all the time, something of them is always under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::model::Kind;

/// What is gone and stays at a client all the same, of each kind: what is refused for long must not let clients fill up with what others leave behind.
pub(in crate::server) const MAX_KEPT: usize = 1000;
/// What is gone of a kind and waits for the answer to what replaces it, before further views are looked at.
pub(in crate::server) const MAX_WAITING: usize = 10_000;

/// How a client stands to what may lead to resources that are gone; of several the least counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) enum Leads {
    /// It goes on with an older version.
    Refused,
    /// It has not answered to anything yet.
    UnderWay,
    /// It has taken everything of the views up to this position.
    Through(u64),
}

impl Leads {
    /// Nothing leads there.
    pub(in crate::server) const TAKEN: Leads = Leads::Through(u64::MAX);

    /// Whether resources of one kind may lead to those of another one. Endpoints do not, and change too often to wait for.
    pub(in crate::server) fn are(kind: Kind, to: Kind) -> bool {
        kind.index() > to.index() && kind != Kind::Endpoints
    }
}

/// What is gone of a kind, with the position at which that was noted.
#[derive(Debug, Default)]
pub(in crate::server) struct Gone {
    names: BTreeMap<Arc<str>, u64>,
    in_order: BTreeSet<(u64, Arc<str>)>,
}

impl Gone {
    /// Something is gone; where that was known, it is since then.
    pub(in crate::server) fn insert(&mut self, name: Arc<str>, position: u64) {
        if !self.names.contains_key(&name) {
            self.in_order.insert((position, name.clone()));
            self.names.insert(name, position);
        }
    }

    /// It is not any more, or the client does not have it.
    pub(in crate::server) fn remove(&mut self, name: &Arc<str>) {
        if let Some(position) = self.names.remove(name) {
            self.in_order.remove(&(position, name.clone()));
        }
    }

    pub(in crate::server) fn retain(&mut self, is_kept: impl Fn(&Arc<str>) -> bool) {
        self.names.retain(|name, _| is_kept(name));
        self.in_order.retain(|(_, name)| is_kept(name));
    }

    /// Exactly these are gone; those that were known to be are since then.
    pub(in crate::server) fn renew(&mut self, names: &BTreeSet<Arc<str>>, position: u64) {
        self.retain(|name| names.contains(name));
        names.iter().for_each(|name| self.insert(name.clone(), position));
    }

    /// The next one that may go, the oldest first.
    pub(in crate::server) fn pop(&mut self, leads: Leads) -> Option<Arc<str>> {
        let (position, _) = self.in_order.first()?;
        let goes = match leads {
            Leads::Refused => self.names.len() > MAX_KEPT,
            Leads::UnderWay => false,
            Leads::Through(through) => *position <= through,
        };
        let (_, name) = goes.then(|| self.in_order.pop_first())??;
        self.names.remove(&name);
        Some(name)
    }

    /// Forgets all that may go; says whether there was something.
    pub(in crate::server) fn release(&mut self, leads: Leads) -> bool {
        let before = self.names.len();
        while self.pop(leads).is_some() {}
        self.names.len() < before
    }

    /// The last position up to which nothing of it is gone: with `now` nothing is.
    fn complete(&self, now: u64) -> Option<u64> {
        self.in_order.first().map_or(Some(now), |(position, _)| position.checked_sub(1))
    }

    /// By name.
    pub(in crate::server) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.keys()
    }

    pub(in crate::server) fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(in crate::server) fn len(&self) -> usize {
        self.names.len()
    }

    pub(in crate::server) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Up to which position a client has taken what it was told of a kind.
#[derive(Debug, Default)]
pub(in crate::server) struct Taken {
    through: Option<u64>,
    /// Positions up to which everything was told, each with the response that was the last one then and is not answered.
    told: VecDeque<(u64, u64)>,
}

impl Taken {
    /// Everything was told of the views up to a position but what is `gone`; `last` is the newest response that waits for its answer.
    pub(in crate::server) fn told(&mut self, position: u64, gone: &Gone, last: Option<u64>) {
        let Some(position) = gone.complete(position) else { return };
        match (last, self.told.back_mut()) {
            (None, _) => {
                self.told.clear();
                self.through = Some(position);
            }
            (Some(last), Some((response, told))) if *response == last => *told = position,
            (Some(last), _) => self.told.push_back((last, position)),
        }
    }

    /// The responses up to this one were answered.
    pub(in crate::server) fn answered(&mut self, response: u64) {
        while let Some((_, position)) = self.told.pop_front_if(|(last, _)| *last <= response) {
            self.through = Some(position);
        }
    }

    /// How the client stands to it, where it refuses nothing.
    pub(in crate::server) fn stands(&self) -> Leads {
        self.through.map_or(Leads::UnderWay, Leads::Through)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn gone(all: &[(&str, u64)]) -> Gone {
        let mut gone = Gone::default();
        all.iter().for_each(|(name, position)| gone.insert(Arc::from(*name), *position));
        gone
    }

    #[test]
    fn what_is_gone_goes_when_the_views_up_to_there_are_taken() {
        let mut all = gone(&[("late", 7), ("a", 5), ("late", 9)]);
        assert_eq!((all.pop(Leads::UnderWay), all.pop(Leads::Refused), all.pop(Leads::Through(4))), (None, None, None));
        assert_eq!(all.pop(Leads::Through(6)).as_deref(), Some("a"));
        assert!(!all.release(Leads::Through(6)) && all.contains("late"));
        all.renew(&["late".into(), "new".into()].into(), 9);
        assert!(all.release(Leads::Through(7)) && !all.contains("late") && all.len() == 1, "it is gone since the first time");
        all.remove(&"new".into());
        assert!(all.is_empty() && all.pop(Leads::TAKEN).is_none());
    }

    #[test]
    fn a_view_is_taken_when_what_it_was_told_by_is_answered() {
        let (mut taken, nothing) = (Taken::default(), Gone::default());
        assert_eq!(taken.stands(), Leads::UnderWay);
        taken.told(3, &nothing, None);
        assert_eq!(taken.stands(), Leads::Through(3));
        taken.told(4, &nothing, Some(10));
        taken.told(5, &nothing, Some(10));
        taken.told(6, &nothing, Some(12));
        taken.answered(9);
        assert_eq!(taken.stands(), Leads::Through(3));
        taken.answered(11);
        assert_eq!(taken.stands(), Leads::Through(5), "whatever came after that");
        taken.told(8, &gone(&[("x", 8)]), None);
        assert_eq!(taken.stands(), Leads::Through(7), "what is to be removed of it was not told");
    }
}
