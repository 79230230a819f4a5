//! How the streams of one node stand to what they tell it, where it asks for each type by a stream of its own. It knows no stream.
//!
//! They look at the same views, so that positions mean the same to all of them: what is gone on one stream at some position waits until another one, by which
//! the routes come, has been through with that.

use super::gone::Leads;
use crate::model::Kind;

/// How streams stand to the kinds that they are about, and where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stands {
    position: u64,
    kinds: [Option<Leads>; Kind::ALL.len()],
}

impl Stands {
    /// A stream at this position that is about these kinds.
    pub(in crate::server) fn new(position: u64, all: impl Iterator<Item = (Kind, Leads)>) -> Stands {
        let mut kinds = [None; Kind::ALL.len()];
        all.for_each(|(kind, stands)| kinds[kind.index()] = Some(stands));
        Stands { position, kinds }
    }

    /// The furthest position of all of them.
    pub(in crate::server) fn position(&self) -> u64 {
        self.position
    }

    /// What a later stream is about too is as it says.
    pub(in crate::server) fn add(&mut self, later: &Stands) {
        self.position = self.position.max(later.position);
        for (known, says) in self.kinds.iter_mut().zip(&later.kinds) {
            *known = says.or(*known);
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
        Stands { position: 0, ..self }
    }

    /// How the node stands to what may lead to resources of a kind, by other streams than the one that `is_about` some of it itself.
    pub(in crate::server) fn leads(&self, kind: Kind, is_about: impl Fn(Kind) -> bool) -> Leads {
        let leading = Kind::ALL.into_iter().zip(self.kinds).filter(|(other, _)| Leads::are(*other, kind) && !is_about(*other));
        leading.filter_map(|(_, stands)| stands).min().unwrap_or(Leads::TAKEN)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn of_each_kind_the_latest_stream_says_how_a_node_stands() {
        let of = |position, kind, stands| Stands::new(position, [(kind, stands)].into_iter());
        let mut all = of(7, Kind::Route, Leads::Refused);
        all.add(&of(5, Kind::Listener, Leads::Through(5)));
        let nothing = |_| false;
        assert_eq!((all.position(), all.leads(Kind::Upstream, nothing)), (7, Leads::Refused));
        assert_eq!(all.leads(Kind::Upstream, |kind| kind == Kind::Route), Leads::Through(5), "of its own routes it knows itself");
        assert_eq!(all.leads(Kind::Listener, nothing), Leads::TAKEN);
        let ended = all.clone().ended();
        assert_eq!((ended.position(), ended.leads(Kind::Route, nothing)), (0, Leads::TAKEN), "of listeners nothing was refused");
        all.add(&of(8, Kind::Route, Leads::UnderWay));
        assert_eq!(all.leads(Kind::Upstream, nothing), Leads::UnderWay);
        all.leave_to(&of(9, Kind::Route, Leads::UnderWay));
        assert_eq!(all.leads(Kind::Upstream, nothing), Leads::Through(5));
    }
}
