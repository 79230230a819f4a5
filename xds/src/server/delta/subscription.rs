//! What a delta client wants and has of one kind. It knows no other kind and no stream.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::Kind;
use crate::protocol::DeltaRequest;
use crate::server::refused::{Gone, Leads, Refused, Taken};
use crate::server::sent::Sent;
use crate::server::{ResourceView, Standing};
use crate::snapshot::{NodeScope, SnapshotSource, Versioned};

/// What a client wants and has of one kind.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// There was a request.
    pub(super) open: bool,
    /// All names are asked for.
    pub(super) wildcard: bool,
    /// Names asked for one by one.
    pub(super) names: HashSet<Arc<str>>,
    /// Versions that the client has or is about to get.
    pub(super) sent: Sent,
    /// Names to look at.
    pub(super) dirty: BTreeSet<Arc<str>>,
    /// Names for which an answer is owed even when they do not exist.
    pub(super) asked: HashSet<Arc<str>>,
    /// Names to be removed once everything else was sent.
    pub(super) gone: Gone,
    /// Names of which nothing is said, and that the client has.
    pub(super) left: BTreeSet<Arc<str>>,
    /// An answer is owed even when there is nothing to say.
    pub(super) answer: bool,
    pub(super) in_flight: VecDeque<InFlight>,
    /// How far the client is with what it was told.
    pub(super) taken: Taken,
    pub(super) acked: Arc<str>,
    pub(super) refused: Refused,
}

/// A response that waits for ACK or NACK.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Later ones have higher numbers.
    pub(super) number: u64,
    pub(super) nonce: Arc<str>,
    pub(super) version: Arc<str>,
    /// With their versions; without one where they are removed.
    pub(super) names: Vec<(Arc<str>, Arc<str>)>,
    /// Those of them that the client had in another version.
    pub(super) anew: Vec<Arc<str>>,
}

impl Subscription {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.open && (self.wildcard || self.names.contains(name))
    }

    /// Looks up which response is answered; an unknown nonce is ignored. Gives what the client has anew by it, and by those before it.
    pub(super) fn answered(&mut self, request: &DeltaRequest, now: SystemTime) -> Vec<Arc<str>> {
        let Some(at) = self.in_flight.iter().position(|flight| flight.nonce == request.nonce) else { return Vec::new() };
        let mut answered: Vec<InFlight> = self.in_flight.drain(..=at).collect();
        let anew = answered.iter_mut().flat_map(|flight| std::mem::take(&mut flight.anew)).collect();
        let Some(flight) = answered.pop() else { return anew };
        self.taken.answered(flight.number);
        match &request.error {
            None => {
                self.refused.accept(flight.names.iter().map(|(name, _)| name));
                self.refused.take(flight.names.iter().map(|(name, version)| (name, version)));
                self.acked = flight.version;
            }
            Some(text) => {
                self.refused.refuse(request.kind, flight.names.iter().map(|(name, version)| (name, version)), text, now)
            }
        }
        anew
    }

    /// Takes note that a resource is not there. Says whether the client is to hear it at once.
    pub(super) fn vanishes(
        &mut self,
        (kind, name): (Kind, &Arc<str>),
        asked: bool,
        (source, position): (&dyn SnapshotSource, u64),
        scope: &NodeScope,
    ) -> bool {
        let has = self.sent.get(name, scope).is_some();
        if has && source.is_untold(kind, name) {
            self.left.insert(name.clone());
            return false;
        }
        self.left.remove(name);
        // An address may go from one listener to the next: clients hear first what is gone, and refuse whoever wants one that is taken.
        let now = asked || has && kind == Kind::Listener;
        if now {
            self.sent.remove(name, scope);
            self.gone.remove(name);
        } else if has {
            self.gone.insert(name.clone(), position);
        }
        now
    }

    /// Once the client was sent everything that it sees, what it has is that of every such client, but for what is not told or is still to be removed.
    pub(super) fn settle(&mut self, kind: Kind, position: u64, (source, scope): (&dyn SnapshotSource, &NodeScope)) {
        if self.asked.is_empty() {
            // Who names thousands would keep the room for their answers.
            self.asked = HashSet::new();
        }
        if !self.wildcard || self.tells() {
            return;
        }
        let (at, all) = source.all(kind);
        if at == position && !self.sent.is_settled(&all, |name| self.left.contains(name) || self.gone.contains(name)) {
            self.sent.settle(all, self.left.iter().chain(self.gone.names()), scope);
        }
    }

    pub(super) fn resources(&self, kind: Kind, scope: &NodeScope) -> Vec<ResourceView> {
        let in_flight: HashSet<&Arc<str>> =
            self.in_flight.iter().flat_map(|flight| flight.names.iter().map(|(name, _)| name)).collect();
        let refused = self.refused.nacks().map(|nack| nack.name.clone()).filter(|name| !name.is_empty());
        let names: BTreeSet<Arc<str>> =
            self.sent.names(scope).into_iter().chain(self.names.iter().cloned()).chain(refused).collect();
        let one = |name: &Arc<str>| {
            let sent = self.sent.get(name, scope).filter(|version| !version.is_empty());
            match self.refused.of(name) {
                Some(nack) => ResourceView::new(kind, name, Some(&nack.version), Standing::Refused(nack.clone())),
                None if sent.is_none() => ResourceView::new(kind, name, None, Standing::NotSent),
                None if in_flight.contains(name) => ResourceView::new(kind, name, sent, Standing::Stale),
                None => ResourceView::new(kind, name, sent, Standing::Synced),
            }
        };
        names.iter().map(one).collect()
    }

    /// Whether something is still to be sent.
    pub(super) fn tells(&self) -> bool {
        self.sent.is_under_way() || !self.dirty.is_empty()
    }

    /// Everything was told that there is at a position, but for removals that wait for something else.
    pub(super) fn told(&mut self, position: u64) {
        if self.stands() != Leads::Refused {
            self.taken.told(position, &self.gone, self.in_flight.back().map(|flight| flight.number));
        }
    }

    /// How the client stands to what it was sent.
    pub(super) fn stands(&self) -> Leads {
        match self.refused.is_empty() && self.left.is_empty() {
            true => self.taken.stands(),
            false => Leads::Refused,
        }
    }

    /// All resources that the client does not have in this version, and all that it has and that may be gone.
    pub(super) fn look_at_all(&mut self, kind: Kind, source: &dyn SnapshotSource, scope: &NodeScope) {
        self.sent.stop(scope);
        let (_, all) = source.all(kind);
        let seen = |name: &Arc<str>| all.get(name).filter(|found| scope.sees(&found.resource));
        self.dirty.extend(self.sent.names(scope).into_iter().filter(|name| seen(name).is_none()));
        if self.wildcard {
            let differs = |(name, found): &(&Arc<str>, &Arc<Versioned>)| {
                scope.sees(&found.resource) && self.sent.get(name, scope) != Some(&found.version)
            };
            self.dirty.extend(all.iter().filter(differs).map(|(name, _)| name.clone()));
        }
        self.dirty.extend(self.names.iter().cloned());
    }

    pub(super) fn subscribe(&mut self, name: Arc<str>, first: bool, scope: &NodeScope) {
        let known = first && self.sent.get(&name, scope).is_some();
        if !known {
            self.sent.forget_version(&name, scope);
            self.asked.insert(name.clone());
        }
        self.dirty.insert(name.clone());
        self.names.insert(name);
    }

    pub(super) fn unsubscribe(&mut self, name: &Arc<str>, scope: &NodeScope) {
        if !self.names.remove(name) {
            return;
        }
        self.refused.forget(name);
        if self.wildcard {
            self.sent.forget_version(name, scope);
            self.asked.insert(name.clone());
            self.dirty.insert(name.clone());
        } else {
            self.sent.remove(name, scope);
            self.dirty.remove(name);
            self.asked.remove(name);
            self.gone.remove(name);
            self.left.remove(name);
        }
    }

    pub(super) fn leave_wildcard(&mut self, scope: &NodeScope) {
        self.wildcard = false;
        self.answer = false;
        self.sent.keep(&self.names, scope);
        self.dirty.retain(|name| self.names.contains(name));
        self.asked.retain(|name| self.names.contains(name));
        self.gone.retain(|name| self.names.contains(name));
        self.left.retain(|name| self.names.contains(name));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::server::tests::secrets;
    use crate::snapshot::SnapshotStore;

    #[test]
    fn who_goes_on_with_something_that_is_not_told_shares_all_the_rest_with_others() {
        let (before, store): (SnapshotStore, SnapshotStore) =
            (secrets(&["a", "b", "gone", "left"]), secrets(&["a", "b", "left"]));
        store.leave(&[(Kind::Secret, "left".into())]);
        let scope = NodeScope::default();
        let told = before.all(Kind::Secret).1;
        let told = told.iter().map(|(name, found)| (name.clone(), found.version.clone()));
        let mut state = Subscription { open: true, wildcard: true, sent: Sent::told(told), ..Subscription::default() };
        state.look_at_all(Kind::Secret, &store, &scope);
        for name in std::mem::take(&mut state.dirty) {
            state.vanishes((Kind::Secret, &name), false, (&store, store.position()), &scope);
        }
        let (at, all) = store.all(Kind::Secret);
        state.settle(Kind::Secret, at, (&store, &scope));
        let is_own = |name: &Arc<str>| ["gone", "left"].contains(&&**name);
        assert!(state.sent.is_settled(&all, is_own), "{:?}", state.sent);
        assert_eq!(state.sent.names(&scope).iter().filter(|name| is_own(name)).count(), 2);
        assert_eq!(state.sent.count(), 4);
    }
}
