//! How the streams of one node stand to what they tell it, where it asks for each type by a stream of its own. It knows no stream.
//!
//! They look at the same views, so that positions mean the same to all of them: what is gone on one stream at some position waits until another one, by which
//! the routes come, has been through with that.

use super::gone::{Leads, MAX_WAITING};
use crate::model::Kind;

/// How streams stand to the kinds that they are about, and where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stands {
    position: u64,
    kinds: [Option<Leads>; Kind::ALL.len()],
    /// The position at which all was confirmed that is there; `None`: something is under way.
    ready: [Option<u64>; Kind::ALL.len()],
}

impl Stands {
    /// A stream at this position that is about these kinds; with each stands whether all of it was confirmed.
    pub(in crate::server) fn new(position: u64, all: impl Iterator<Item = (Kind, Leads, bool)>) -> Stands {
        let mut stands = Stands { position, ..Stands::default() };
        for (kind, leads, is_ready) in all {
            stands.kinds[kind.index()] = Some(leads);
            stands.ready[kind.index()] = is_ready.then_some(position);
        }
        stands
    }

    /// The furthest position of all of them.
    pub(in crate::server) fn position(&self) -> u64 {
        self.position
    }

    /// What a later stream is about too is as it says.
    pub(in crate::server) fn add(&mut self, later: &Stands) {
        self.position = self.position.max(later.position);
        for (at, says) in later.kinds.iter().enumerate().filter(|(_, says)| says.is_some()) {
            (self.kinds[at], self.ready[at]) = (*says, later.ready[at]);
        }
    }

    /// What the others are about is not its matter any more.
    pub(in crate::server) fn leave_to(&mut self, others: &Stands) {
        for (known, _) in self.kinds.iter_mut().zip(&others.kinds).filter(|(_, says)| says.is_some()) {
            *known = None;
        }
    }

    /// What stays of a stream that has ended: its node goes on with what it refused, until it comes back for that.
    pub(in crate::server) fn ended(mut self) -> Stands {
        let stays = |known: &Option<Leads>| *known == Some(Leads::Refused);
        self.kinds.iter_mut().filter(|known| !stays(known)).for_each(|known| *known = None);
        // Nothing is under way to it any more.
        Stands { position: 0, ready: self.kinds.map(|known| known.map(|_| u64::MAX)), ..self }
    }

    /// Whether clusters are under way by another stream than the one that `is_about` them itself, up to a position. Endpoints change too often to wait for, and a node
    /// confirms a cluster once it has some.
    pub(in crate::server) fn are_clusters_under_way(&self, to: u64, is_about: impl Fn(Kind) -> bool) -> bool {
        let at = Kind::Upstream.index();
        let is_told = self.kinds[at].is_some() && !is_about(Kind::Upstream);
        is_told && self.ready[at].is_none_or(|ready| ready < to)
    }

    /// How the node stands to what may lead to resources of a kind, by other streams than the one that `is_about` some of it itself. That one has so many that
    /// are gone, and holds up no more than [`MAX_WAITING`] for the others.
    pub(in crate::server) fn leads(&self, (kind, gone): (Kind, usize), is_about: impl Fn(Kind) -> bool) -> Leads {
        let leading = Kind::ALL.into_iter().zip(self.kinds).filter(|(other, _)| Leads::are(*other, kind) && !is_about(*other));
        let leads = leading.filter_map(|(_, stands)| stands).min().unwrap_or(Leads::TAKEN);
        if gone > MAX_WAITING && leads != Leads::Refused { Leads::TAKEN } else { leads }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn of_each_kind_the_latest_stream_says_how_a_node_stands() {
        let of = |position, kind, stands| Stands::new(position, [(kind, stands, true)].into_iter());
        let mut all = of(7, Kind::Route, Leads::Refused);
        all.add(&of(5, Kind::Listener, Leads::Through(5)));
        let nothing = |_| false;
        assert_eq!((all.position(), all.leads((Kind::Upstream, 1), nothing)), (7, Leads::Refused));
        assert_eq!(
            all.leads((Kind::Upstream, 1), |kind| kind == Kind::Route),
            Leads::Through(5),
            "of its own routes it knows itself"
        );
        assert_eq!(all.leads((Kind::Listener, 1), nothing), Leads::TAKEN);
        let ended = all.clone().ended();
        assert_eq!(
            (ended.position(), ended.leads((Kind::Route, 1), nothing)),
            (0, Leads::TAKEN),
            "of listeners nothing was refused"
        );
        all.add(&of(8, Kind::Route, Leads::UnderWay));
        assert_eq!(all.leads((Kind::Upstream, 1), nothing), Leads::UnderWay);
        assert_eq!(all.leads((Kind::Upstream, MAX_WAITING + 1), nothing), Leads::TAKEN, "no more wait for another stream");
        all.leave_to(&of(9, Kind::Route, Leads::UnderWay));
        assert_eq!(all.leads((Kind::Upstream, 1), nothing), Leads::Through(5));
    }

    #[test]
    fn clusters_are_under_way_until_they_are_confirmed_at_that_position() {
        let of = |position, is_ready| Stands::new(position, [(Kind::Upstream, Leads::Through(3), is_ready)].into_iter());
        assert!(!of(7, true).are_clusters_under_way(7, |_| false) && of(6, true).are_clusters_under_way(7, |_| false));
        assert!(of(7, false).are_clusters_under_way(7, |_| false) && !of(7, false).are_clusters_under_way(7, |_| true));
        let refused = |is_ready| Stands::new(9, [(Kind::Upstream, Leads::Refused, is_ready)].into_iter());
        assert!(!refused(true).are_clusters_under_way(9, |_| false), "what is refused is not waited for");
        assert!(refused(false).are_clusters_under_way(9, |_| false), "what comes beside it is");
        assert!(!refused(false).ended().are_clusters_under_way(99, |_| false), "nothing is under way by a stream that has ended");
    }
}
