//! Limits that the fleet shares by gossip: what this node has let through, what the others say that they have, and whether one request more is within the limit.
//! It knows no requests and no wire.
//!
//! A node lets a request through while what it has let through itself and what the others have said, late as that may be, are below the limit. What others say
//! is a hint, so two bounds hold whatever they say: a node always lets its fair share through, and never more than the whole limit.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use heddle_node::clock;
use heddle_node::membership::{Facts, Fleet, LimitUse, Membership};

use super::{Entry, Store};

/// Most uses that a member says and that are heard of one: the ones nearest to their limits.
pub const MAX_SAID: usize = 1024;
/// How often a node says what it has let through.
pub const SAY_EVERY: Duration = Duration::from_millis(200);
/// What has been heard is taken over at most this often.
const HEAR_EVERY: Duration = Duration::from_millis(20);

/// What this node has let through of shared limits, and what it has heard of others.
#[derive(Debug, Default)]
pub struct Uses {
    own: Store<Own>,
    heard: ArcSwap<Heard>,
}

/// What this node has let through for one key.
#[derive(Debug, Clone, Copy)]
struct Own {
    /// Start and end of the window, Unix milliseconds.
    start: u64,
    end: u64,
    used: u64,
    count: u64,
}

impl Entry for Own {
    fn ends(&self) -> u64 {
        self.end
    }
}

/// What the others say.
#[derive(Debug, Clone)]
struct Heard {
    /// Members that share the limits, this node too.
    members: u64,
    /// How many of them come before this node by their ids.
    before: u64,
    /// What they have let through, by key and start of the window.
    by_key: HashMap<(u64, u64), u64, RandomState>,
}

impl Default for Heard {
    fn default() -> Heard {
        Heard { members: 1, before: 0, by_key: HashMap::default() }
    }
}

impl Heard {
    /// The part of a limit that is this node's own. What does not divide goes to as many members, one each, who take turns by key and window: all parts together
    /// are the limit, also where there are more members than requests to share.
    fn share(&self, key: u64, window: Window) -> u64 {
        let turn = (key ^ window.start.wrapping_mul(TURNS)).wrapping_mul(TURNS) >> 32;
        let place = (self.before + turn) % self.members;
        window.count / self.members + u64::from(place < window.count % self.members)
    }
}

/// 2^64 over the golden ratio: neighbours fall far apart (Knuth, The Art of Computer Programming, 6.4).
const TURNS: u64 = 0x9E37_79B9_7F4A_7C15;

/// A limit in one window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Requests of the whole fleet.
    pub count: u64,
    /// Start of the window, Unix milliseconds.
    pub start: u64,
    /// Its length in milliseconds.
    pub length: u64,
}

impl Window {
    /// The one of this moment; windows lie on a grid of Unix time, so that all members speak of the same ones.
    pub(crate) fn at(now: u64, count: u64, length: u64) -> Window {
        let length = length.max(1);
        Window { count, start: now - now % length, length }
    }

    /// Its end, Unix milliseconds.
    pub(crate) fn end(self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

impl Uses {
    /// Whether one request more for this key is within the limit, and how many remain.
    pub(crate) fn admit(&self, key: u64, window: Window, now: u64) -> (bool, u64) {
        let heard = self.heard.load();
        let others = heard.by_key.get(&(key, window.start)).copied().unwrap_or(0);
        let fair = heard.share(key, window);
        let fresh = Own { start: window.start, end: window.end(), used: 0, count: window.count };
        self.own.with(
            key.into(),
            now,
            || fresh,
            |own| {
                if own.start != window.start {
                    *own = fresh;
                }
                own.count = window.count;
                // At most the whole limit by itself, and at least the fair share.
                let most = window.count.saturating_sub(others).max(fair);
                let allowed = own.used < most;
                own.used += u64::from(allowed);
                (allowed, most.saturating_sub(own.used))
            },
        )
    }

    /// What this node has to say at this moment (Unix milliseconds).
    fn said(&self, now: u64) -> Vec<LimitUse> {
        let mut all = Vec::new();
        self.own.each(|key, own| {
            if own.used > 0 && own.end > now {
                let share = u128::from(own.used) * 1_000_000 / u128::from(own.count.max(1));
                let used = u32::try_from(own.used).unwrap_or(u32::MAX);
                all.push((share, LimitUse { key: key as u64, window_ms: own.start, used }));
            }
        });
        if all.len() > MAX_SAID {
            all.select_nth_unstable_by_key(MAX_SAID, |(share, _)| std::cmp::Reverse(*share));
            all.truncate(MAX_SAID);
        }
        let mut said: Vec<LimitUse> = all.into_iter().map(|(_, said)| said).collect();
        // What stays the same is not said again.
        said.sort_unstable_by_key(|said| (said.key, said.window_ms));
        said
    }

    /// Takes over what the members of this node's role and group say. Those that are gone share the limits no more, but what they have let through has been
    /// let through.
    fn hear(&self, fleet: &Fleet) {
        let nobody = Facts::default();
        let own = fleet.get(&fleet.own).map_or(&nobody, |member| &member.facts);
        let alike = |member: &&heddle_node::membership::Member| {
            member.id != fleet.own && member.facts.role == own.role && member.facts.group == own.group
        };
        let mut heard = Heard::default();
        for member in fleet.members.iter().filter(alike) {
            heard.members += u64::from(member.is_serving());
            heard.before += u64::from(member.is_serving() && member.id < fleet.own);
            for said in member.facts.uses.iter().take(MAX_SAID) {
                *heard.by_key.entry((said.key, said.window_ms)).or_default() += u64::from(said.used);
            }
        }
        self.heard.store(Arc::new(heard));
    }

    /// Says and hears until the end of the process; off the request path.
    pub async fn keep_shared(self: Arc<Uses>, membership: Membership) {
        let mut heard = membership.heard();
        let mut turn = tokio::time::interval(SAY_EVERY);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turn.tick() => {
                    let said = self.said(clock::unix_ms());
                    membership.say(|facts| facts.uses = said.into());
                }
                Ok(()) = heard.changed() => {
                    self.hear(&membership.fleet());
                    tokio::time::sleep(HEAR_EVERY).await;
                }
            }
        }
    }
}
