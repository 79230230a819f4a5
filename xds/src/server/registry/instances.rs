//! What is told of the instances behind streams: at most the newest word of each stream and its end, however often it changes its mind. It knows no stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock::Instant;

use super::{InstanceEvent, NodeRegistry};
use crate::model::Instance;
use crate::protocol::NodeInfo;

/// Changes of an instance that may come at once: starting, getting ready, draining and back again.
const BURST: u32 = 10;
/// One more may come after each of these. Every change goes to all who call the service.
const EVERY: Duration = Duration::from_secs(1);

/// What the follower has not heard yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The number of the follower that hears; `None` when nobody does.
    pub(super) follower: Option<u64>,
    waiting: BTreeMap<u64, News>,
    order: VecDeque<u64>,
    /// Streams of whose coming it has heard.
    told: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct News {
    joined: Option<NodeInfo>,
    left: Option<bool>,
}

impl Outbox {
    /// There is another follower, who has heard of nothing yet.
    pub(super) fn begin(&mut self, follower: Option<u64>) {
        *self = Outbox { follower, ..Outbox::default() };
    }

    pub(super) fn put(&mut self, event: InstanceEvent) {
        if self.follower.is_none() {
            return;
        }
        let (InstanceEvent::Joined { stream, .. } | InstanceEvent::Left { stream, .. }) = &event;
        let stream = *stream;
        let news = self.waiting.entry(stream).or_insert_with(|| {
            self.order.push_back(stream);
            News::default()
        });
        match event {
            InstanceEvent::Joined { node, .. } => news.joined = Some(node),
            InstanceEvent::Left { awaited, .. } => news.left = Some(awaited),
        }
        if news.left.is_some() && !self.told.contains(&stream) {
            // It came and went unheard.
            self.waiting.remove(&stream);
            self.order.retain(|other| *other != stream);
        }
    }

    /// At most this many events, for this follower.
    pub(super) fn take(&mut self, follower: u64, most: usize, events: &mut Vec<InstanceEvent>) {
        if self.follower != Some(follower) {
            return;
        }
        while events.len() < most
            && let Some(stream) = self.order.pop_front()
        {
            let News { joined, left } = self.waiting.remove(&stream).unwrap_or_default();
            if let Some(node) = joined {
                self.told.insert(stream);
                events.push(InstanceEvent::Joined { stream, node });
            }
            if let Some(awaited) = left {
                self.told.remove(&stream);
                events.push(InstanceEvent::Left { stream, awaited });
            }
        }
    }
}

/// Hears what becomes of instances, until it is dropped or somebody else asks to hear it.
#[derive(Debug)]
pub struct InstanceFollower {
    pub(super) registry: Arc<NodeRegistry>,
    pub(super) number: u64,
}

impl InstanceFollower {
    /// Waits for news, and puts about as many as `most` behind those that are there already. Dropped before it is ready it has taken nothing.
    pub async fn next(&mut self, events: &mut Vec<InstanceEvent>, most: usize) {
        loop {
            let more = self.registry.news.notified();
            self.take(events, most);
            if !events.is_empty() {
                return;
            }
            more.await;
        }
    }

    /// The same without waiting.
    pub fn take(&self, events: &mut Vec<InstanceEvent>, most: usize) {
        self.registry.lock().outbox.take(self.number, most, events);
    }
}

impl Drop for InstanceFollower {
    fn drop(&mut self) {
        let outbox = &mut self.registry.lock().outbox;
        if outbox.follower == Some(self.number) {
            outbox.begin(None);
        }
    }
}

/// How fast a member may change what it says of its instance; what comes faster waits, and only the newest of it counts.
#[derive(Debug)]
pub(super) struct Pace {
    left: u32,
    /// Since when the next one is growing back.
    since: Instant,
    /// What has come too fast.
    pub(super) late: Option<Instance>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Pace {
        Pace { left: BURST, since: now, late: None }
    }

    /// Whether something may be said now.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        while self.left < BURST && now >= self.since + EVERY {
            self.left += 1;
            self.since += EVERY;
        }
        if self.left == BURST {
            self.since = now;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }

    /// When what has come too fast may be said.
    pub(super) fn due(&self) -> Option<Instant> {
        self.late.as_ref().map(|_| self.since + EVERY)
    }
}

#[cfg(test)]
mod tests {
    use heddle_node::clock;

    use super::*;

    #[test]
    fn changes_grow_back_one_a_second() {
        let start = clock::now();
        let mut pace = Pace::new(start);
        let admitted = (0..100).filter(|_| pace.admits(start)).count();
        assert_eq!(admitted, BURST as usize);
        assert!(!pace.admits(start + EVERY / 2));
        assert!(pace.admits(start + EVERY) && !pace.admits(start + EVERY));
        assert!((0..100).filter(|_| pace.admits(start + EVERY * 100)).count() == BURST as usize, "never more than a burst");
    }
}
