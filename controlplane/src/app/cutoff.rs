//! A control plane that does not see its store while nodes still see it: it sends them to others, and serves those who find no other one. It knows neither
//! lease nor stream.

use std::collections::HashSet;
use std::sync::Arc;

use heddle_node::membership::{Fleet, Member, MemberState};
use heddle_xds::server::Elsewhere;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

/// Nodes of which is remembered that they were sent elsewhere; further ones are served at once.
const MOST: usize = 50_000;

/// Whether this control plane is cut off, and whom it has told so. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct CutOff(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// How often it was cut off.
    times: watch::Sender<u64>,
    /// Nodes that were sent elsewhere, by id; `None`: it sees its store.
    sent: Mutex<Option<HashSet<Arc<str>>>>,
}

impl CutOff {
    pub(super) fn new() -> CutOff {
        CutOff(Arc::new(Inner { times: watch::Sender::new(0), sent: Mutex::new(None) }))
    }

    /// Ends the streams of all nodes that are connected now, which are these. `false`: it was cut off already.
    pub(super) fn begin(&self, connected: impl IntoIterator<Item = Arc<str>>) -> bool {
        let mut sent = self.0.sent.lock();
        if sent.is_some() {
            return false;
        }
        *sent = Some(connected.into_iter().take(MOST).collect());
        self.0.times.send_modify(|times| *times += 1);
        true
    }

    /// The store is seen again. `false`: it always was.
    pub(super) fn end(&self) -> bool {
        self.0.sent.lock().take().is_some()
    }

    /// Whether a node is served now. Whoever comes a second time has found no other control plane: what is known is better than nothing.
    ///
    /// # Errors
    /// It is to go to another one.
    pub(super) fn admit(&self, node: &Arc<str>) -> Result<(), Status> {
        let mut sent = self.0.sent.lock();
        if sent.as_mut().is_some_and(|sent| sent.len() < MOST && sent.insert(node.clone())) {
            return Err(Status::unavailable(
                "this control plane is cut off from its store; connect to another one, or come again",
            ));
        }
        Ok(())
    }

    /// For streams, which end when it is cut off.
    pub(super) fn elsewhere(&self) -> Elsewhere {
        self.0.times.subscribe()
    }
}

/// Whether another control plane may serve nodes better than this one, which does not see its store. `others` were there when it was seen last, `None` where
/// that is not known. By what they say in the fleet: one sees the store, or not all of them have said that they do not. It is a hint: who lies there keeps nodes
/// where they are served from memory, or sends them on once for nothing.
pub(super) fn may_be_better_elsewhere(others: Option<usize>, fleet: &Fleet) -> bool {
    let is_heard = |member: &&Member| member.id != fleet.own && matches!(member.state, MemberState::Alive | MemberState::Suspect);
    let say = |sees: bool| fleet.members.iter().filter(is_heard).filter(|member| member.facts.sees_store == Some(sees)).count();
    say(true) > 0 || others.is_none_or(|others| say(false) < others)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use heddle_node::membership::Facts;

    use super::*;

    fn fleet(of: &[(Option<bool>, MemberState)]) -> Fleet {
        let member = |(at, (sees_store, state)): (usize, &(Option<bool>, MemberState))| {
            let facts = Arc::new(Facts { sees_store: *sees_store, ..Facts::default() });
            Member { id: format!("m{at}").into(), facts, state: *state, last_seen_ms: 0 }
        };
        Fleet { own: "m0".into(), members: of.iter().enumerate().map(member).collect() }
    }

    #[test]
    fn nodes_stay_when_all_others_say_that_they_do_not_see_the_store_either() {
        use MemberState::{Alive, Dead, Suspect};
        let (own, gateway) = ((Some(false), Alive), (None, Alive));
        let other = |sees, state| (Some(sees), state);
        let all = fleet(&[own, gateway, other(false, Alive), other(false, Suspect)]);
        assert!(!may_be_better_elsewhere(Some(2), &all) && !may_be_better_elsewhere(Some(1), &all));
        assert!(may_be_better_elsewhere(Some(3), &all), "one says nothing");
        assert!(may_be_better_elsewhere(None, &all), "it has never seen who else is there");
        assert!(may_be_better_elsewhere(Some(1), &fleet(&[own, other(false, Alive), other(true, Alive)])));
        assert!(may_be_better_elsewhere(Some(1), &fleet(&[own, gateway])), "they do not gossip, or are out of reach");
        assert!(may_be_better_elsewhere(Some(1), &fleet(&[own, other(false, Dead)])), "an old word");
        assert!(!may_be_better_elsewhere(Some(0), &fleet(&[own])), "it is the only one");
    }

    #[test]
    fn who_comes_back_is_served_and_who_comes_first_is_sent_on() {
        let cut = CutOff::new();
        let (old, new): (Arc<str>, Arc<str>) = ("old".into(), "new".into());
        let mut streams = cut.elsewhere();
        assert!(cut.admit(&old).is_ok() && cut.admit(&new).is_ok() && !cut.end());
        assert!(cut.begin([old.clone()]) && streams.has_changed().unwrap());
        streams.mark_unchanged();
        assert!(!cut.begin([]) && !streams.has_changed().unwrap(), "streams that came since stay");
        assert!(cut.admit(&old).is_ok(), "its stream was ended, and it found nobody else");
        assert_eq!(cut.admit(&new).unwrap_err().code(), tonic::Code::Unavailable);
        assert!(cut.admit(&new).is_ok());
        assert!(cut.end() && cut.admit(&"third".into()).is_ok());
        assert!(cut.begin([]) && cut.admit(&new).is_err(), "another time is another time");
    }
}
