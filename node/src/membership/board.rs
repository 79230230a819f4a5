//! The handle between those who have something to say or to hear and the gossip that carries it. Without gossip a process is a fleet of one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::facts::{Facts, Fleet, Member, MemberState};

/// The handle; clones lead to the same board. Reading it takes no lock.
#[derive(Debug, Clone)]
pub struct Membership(Arc<Board>);

#[derive(Debug)]
struct Board {
    id: Arc<str>,
    /// What we say; written under a lock, since several write parts of it.
    own: Mutex<Arc<Facts>>,
    said: watch::Sender<u64>,
    fleet: ArcSwap<Fleet>,
    heard: watch::Sender<u64>,
}

impl Membership {
    /// A fleet of one: nobody else is heard until gossip carries it.
    pub fn alone(id: &str, facts: Facts) -> Membership {
        let (id, facts): (Arc<str>, _) = (id.into(), Arc::new(facts));
        let member = Member { id: id.clone(), facts: facts.clone(), state: MemberState::Alive, last_seen_ms: 0 };
        let fleet = Fleet { own: id.clone(), members: vec![member] };
        Membership(Arc::new(Board {
            id,
            own: Mutex::new(facts),
            said: watch::Sender::new(0),
            fleet: ArcSwap::from_pointee(fleet),
            heard: watch::Sender::new(0),
        }))
    }

    /// Id of this node.
    pub fn id(&self) -> &Arc<str> {
        &self.0.id
    }

    /// What this node says at present.
    pub fn facts(&self) -> Arc<Facts> {
        self.0.own.lock().clone()
    }

    /// Changes what this node says. What stays the same is not said again.
    pub fn say(&self, change: impl FnOnce(&mut Facts)) {
        let mut own = self.0.own.lock();
        let mut facts = Facts::clone(&own);
        change(&mut facts);
        if facts != **own {
            *own = Arc::new(facts);
            drop(own);
            self.0.said.send_modify(|count| *count += 1);
        }
    }

    /// Changes whenever this node has something new to say.
    pub fn said(&self) -> watch::Receiver<u64> {
        self.0.said.subscribe()
    }

    /// The members as they are known now.
    pub fn fleet(&self) -> Arc<Fleet> {
        self.0.fleet.load_full()
    }

    /// Changes whenever the members, or what they say, are known anew.
    pub fn heard(&self) -> watch::Receiver<u64> {
        self.0.heard.subscribe()
    }

    /// Takes members of whom nothing is new but when they were heard last: nobody is woken for it.
    pub fn touch(&self, members: Vec<Member>) {
        self.0.fleet.store(Arc::new(Fleet { own: self.0.id.clone(), members }));
    }

    /// Takes what gossip has brought.
    pub fn hear(&self, members: Vec<Member>) {
        self.touch(members);
        self.0.heard.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_is_a_fleet_of_one() {
        let membership = Membership::alone("gw-1", Facts { role: "gateway".into(), ..Facts::default() });
        let fleet = membership.fleet();
        assert_eq!(fleet.serving("gateway", "").map(|member| &*member.id).collect::<Vec<_>>(), ["gw-1"]);
        assert_eq!(fleet.serving("gateway", "other").count(), 0);
    }

    #[test]
    fn only_news_is_said() {
        let membership = Membership::alone("gw-1", Facts::default());
        let mut said = membership.said();
        membership.say(|facts| facts.draining = false);
        assert_eq!(said.has_changed().ok(), Some(false));
        membership.clone().say(|facts| facts.draining = true);
        assert_eq!(said.has_changed().ok(), Some(true));
        said.mark_unchanged();
        assert!(membership.facts().draining);
    }

    #[test]
    fn who_drains_or_is_silent_is_not_counted_on() {
        let membership = Membership::alone("a", Facts::default());
        let member = |id: &str, state, draining| Member {
            id: id.into(),
            facts: Arc::new(Facts { draining, ..Facts::default() }),
            state,
            last_seen_ms: 0,
        };
        membership.hear(vec![
            member("a", MemberState::Alive, false),
            member("b", MemberState::Dead, false),
            member("c", MemberState::Alive, true),
            member("d", MemberState::Suspect, false),
        ]);
        let fleet = membership.fleet();
        assert_eq!(fleet.serving("", "").map(|member| &*member.id).collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!(fleet.get("b").map(|member| member.state.as_str()), Some("dead"));
    }
}
