//! Where a stream looks: at the whole snapshot, or at that of its group as a canary or as one of the rest. It knows no protocol.

use std::sync::Arc;

use super::group::{Side, Ticket};
use crate::server::Machine;
use crate::server::pace::{Telling, Work};
use crate::server::stage::{House, Seat};
use crate::snapshot::{Changes, NodeScope, SnapshotFeed, SnapshotSource, View};

/// A stream's place.
pub(in crate::server) struct Place {
    feed: Arc<dyn SnapshotFeed>,
    seat: Seat,
    pub(in crate::server) work: Work,
    scope: NodeScope,
    ticket: Option<Ticket>,
    canary: bool,
    /// The node came with a configuration.
    holds: bool,
    /// It looks elsewhere than before, so that positions mean something else.
    anew: bool,
}

impl Place {
    /// A place at the whole.
    pub(in crate::server) fn whole(feed: Arc<dyn SnapshotFeed>, house: &House, work: Work, scope: &NodeScope) -> Place {
        Place {
            feed,
            seat: house.seat(scope),
            work,
            scope: scope.clone(),
            ticket: None,
            canary: false,
            holds: false,
            anew: false,
        }
    }

    /// A place in a group; `holds`: the node has a configuration already.
    pub(in crate::server) fn of_group(group: &Arc<super::Group>, (scope, holds): (&NodeScope, bool)) -> Place {
        let ticket = group.enter((scope, holds));
        let canary = ticket.is_canary();
        let Side { store, house, work } = if canary { group.trial.clone() } else { group.rest.clone() };
        let place = Place::whole(store, &house, work, scope);
        if canary {
            ticket.sits(place.seat.number());
        }
        Place { ticket: Some(ticket), canary, holds, ..place }
    }

    /// Where it sits.
    pub(in crate::server) fn seat(&mut self) -> &mut Seat {
        &mut self.seat
    }

    /// Which stage it looks at: positions are those of what is shown there.
    pub(in crate::server) fn stage(&self) -> usize {
        self.seat.stage()
    }

    /// Waits for the canary of a group that has just begun, which judges what is there before others are given it that have something to go on with; who has nothing waits for
    /// nobody.
    pub(in crate::server) async fn begin(&mut self) {
        let Some(ticket) = self.ticket.as_ref().filter(|_| self.holds && !self.canary) else { return };
        let turn = ticket.turn.clone();
        tokio::select! {
            () = ticket.may_begin() => {}
            () = turn.notified() => self.become_canary(),
        }
    }

    /// Waits until something is shown that concerns it, and takes its part of the work for that. `None` when nothing will be shown any more.
    pub(in crate::server) async fn next(&mut self) -> Option<(Arc<View>, Option<Telling>)> {
        let turn = self.ticket.as_ref().filter(|_| !self.canary).map(|ticket| ticket.turn.clone());
        let next = match turn {
            None => self.seat.next().await,
            Some(turn) => tokio::select! {
                next = self.seat.next() => next,
                () = turn.notified() => {
                    self.become_canary();
                    Some(self.seat.view())
                }
            },
        };
        next.map(|view| (view, Some(self.work.telling())))
    }

    fn become_canary(&mut self) {
        let Some(ticket) = &self.ticket else { return };
        let Side { store, house, work } = ticket.group.trial.clone();
        (self.seat, self.feed, self.work) = (house.seat(&self.scope), store, work);
        ticket.sits(self.seat.number());
        (self.canary, self.anew) = (true, true);
    }

    /// Whether it looks elsewhere since [`Place::changes`] was asked last.
    pub(in crate::server) fn is_new(&self) -> bool {
        self.anew
    }

    /// What changed after a position up to a view of this place.
    pub(in crate::server) fn changes(&mut self, position: u64, view: &View) -> Changes {
        match std::mem::take(&mut self.anew) {
            true => Changes { position: view.position(), names: None },
            false => self.feed.changed_between(position, view.position()),
        }
    }

    /// Tells how far a stream is, when that matters to others.
    pub(in crate::server) fn report<M: Machine>(&self, machine: &M) {
        if let Some(ticket) = self.ticket.as_ref().filter(|_| self.canary) {
            ticket.report(machine);
        }
    }
}
