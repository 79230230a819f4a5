//! How what was taken over goes back, and how listeners are withdrawn and tried again. It knows no response.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Owner, Waiting, World};
use crate::dialect::envoy::decode::Piece;
use crate::dialect::envoy::decode::piece::{Cluster, Door};
use crate::dialect::envoy::kind::EnvoyKind;

use super::super::parts::parts_of;

/// What was there before a resource was taken over: of what waits also what was live of it, and until when it waits.
pub(in crate::client::envoy) struct Before(Old);

pub(super) enum Old {
    Cluster(Waiting<Cluster>),
    Listener(Waiting<Door>),
    Other(Piece),
}

impl From<Old> for Before {
    fn from(old: Old) -> Before {
        Before(old)
    }
}

impl World {
    /// Undoes a resource that cannot be used: what was there before comes back, as it stood.
    pub(in crate::client::envoy) fn restore(&mut self, owner: &Owner, before: Option<Before>, now: Instant) {
        let warm = match before.map(|before| before.0) {
            Some(Old::Cluster(old)) => {
                let warm = old.is_warm();
                self.clusters.insert(owner.1.clone(), old);
                warm
            }
            Some(Old::Listener(old)) => {
                let warm = old.is_warm() || old.barred;
                self.doors.insert(owner.1.clone(), old);
                warm
            }
            Some(Old::Other(piece)) => {
                // It was in use, and can stand where it stood. If not, nothing of it stands, which is better than what was refused.
                if self.put(piece, now).is_err() {
                    self.forget(owner);
                }
                return;
            }
            None => return self.forget(owner),
        };
        if warm {
            self.warming.remove(owner);
        } else {
            self.warming.insert(owner.clone());
        }
        self.drafts.clear();
        self.wants_changed = true;
        self.stale.insert(owner.clone());
    }

    /// Takes a version of a listener out of use of which a route is refused: requests of that route would go to whichever comes next, and it may be one that
    /// keeps out. The version before comes back where there was one until the last turn and its address is free; it is tried again when something is told
    /// that it names.
    pub(in crate::client::envoy) fn bar(&mut self, name: &Arc<str>) {
        let before = self.opened.remove(name).flatten();
        let is_free = |door: &Arc<Door>| self.contest(&Piece::Listener(door.clone())).is_none();
        let (live, kept_out) = if before.as_ref().is_none_or(is_free) { (before, None) } else { (None, before) };
        let Some(waiting) = self.doors.get_mut(name) else { return };
        let owner = (EnvoyKind::Listener, name.clone());
        if waiting.is_warm() {
            (waiting.barred, waiting.mended) = (true, false);
            self.warming.remove(&owner);
        }
        (waiting.live, waiting.kept_out) = (live, kept_out);
        self.drafts.clear();
        self.wants_changed = true;
        self.stale.insert(owner);
    }

    /// Whether another version of a listener was live until this turn.
    pub(in crate::client::envoy) fn has_replaced(&self, name: &str) -> bool {
        self.opened.get(name).is_some_and(Option::is_some)
    }

    /// Whether a version of a listener is out of use.
    pub(in crate::client::envoy) fn is_barred(&self, name: &str) -> bool {
        self.doors.get(name).is_some_and(|waiting| waiting.barred)
    }

    /// Lets listeners try again that are out of use and name this, which has just been told. Whose address another one has by now waits for that, too.
    pub(super) fn retry(&mut self, owner: &Owner) {
        let names = |door: &Door| parts_of(door).any(|(kind, name, _)| (kind, name) == (owner.0, &owner.1));
        self.doors
            .values_mut()
            .filter(|waiting| waiting.barred && names(&waiting.next))
            .for_each(|waiting| waiting.mended = true);
        self.readmit();
    }

    /// Lets listeners try again that are out of use, but for which only an address was not free any more.
    pub(super) fn readmit(&mut self) {
        let mended = self.doors.values().filter(|waiting| waiting.barred && waiting.mended);
        let mended: Vec<Arc<Door>> = mended.map(|waiting| waiting.next.clone()).collect();
        for door in mended {
            let piece = Piece::Listener(door.clone());
            if self.contest(&piece).is_some() {
                continue;
            }
            let judged = self.judge(&piece);
            let Some(waiting) = self.doors.get_mut(&door.listener.name) else { continue };
            waiting.mended = false;
            if let Ok(drafts) = judged {
                waiting.barred = false;
                self.drafts.extend(drafts);
                self.warming.insert((EnvoyKind::Listener, door.listener.name.clone()));
                tracing::info!(listener = %door.listener.name, "a listener that was out of use is tried again");
            }
        }
    }

    /// Lets the versions before those that are out of use come back, whose addresses have become free.
    pub(super) fn fall_back(&mut self) {
        while let Some(name) = self.free_again() {
            let Some(waiting) = self.doors.get_mut(&name) else { return };
            waiting.live = waiting.kept_out.take();
            tracing::info!(listener = %name, "the version before of a listener that is out of use has its address again");
            self.wants_changed = true;
            self.stale.insert((EnvoyKind::Listener, name));
        }
    }

    fn free_again(&self) -> Option<Arc<str>> {
        let is_free =
            |door: &Arc<Door>| !self.is_live_at(door.listener.address) && self.contest(&Piece::Listener(door.clone())).is_none();
        let mut kept_out = self.doors.iter().filter(|(_, waiting)| waiting.barred);
        kept_out.find(|(_, waiting)| waiting.kept_out.as_ref().is_some_and(is_free)).map(|(name, _)| name.clone())
    }
}
