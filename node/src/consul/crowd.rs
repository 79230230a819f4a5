//! Word that something in Consul has changed, for watches that may not hold a query of their own: three blocking queries wait in the place of all of them,
//! and whoever hears of a change asks without waiting. It knows nothing of what is watched.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;

use super::client::Consul;
use super::query::{Query, Scope};
use super::watch::Watch;
use crate::clock::{self, Instant};

/// Plain queries at a time: each takes a connection for a moment.
const AT_ONCE: usize = 16;
/// Asked anew after this long without word of a change, should word ever be lost.
const QUIET: Duration = Duration::from_secs(30);
/// Between two plain queries of one watch, for each watch in the crowd: a thousand of them in a second.
const SHARE: Duration = Duration::from_millis(1);
/// The longest that a change waits for its turn because many watches are in the crowd.
const LONGEST: Duration = Duration::from_secs(5);
/// Matches no check and no node: what is asked for is the index alone.
const NOTHING: &str = "Node == \"heddle.index.only\"";

/// Who waits for word, by where in Consul.
#[derive(Debug)]
pub(super) struct Crowds {
    at: Mutex<HashMap<Scope, Weak<Crowd>>>,
    slots: Semaphore,
}

impl Default for Crowds {
    fn default() -> Crowds {
        Crowds { at: Mutex::default(), slots: Semaphore::new(AT_ONCE) }
    }
}

/// Those that wait for word from one datacenter. The queries end with the last of them.
#[derive(Debug)]
struct Crowd {
    word: watch::Receiver<u64>,
    _asking: JoinSet<()>,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    crowd: Arc<Crowd>,
    word: watch::Receiver<u64>,
    /// The word that its last answer came after, and the one before its last question.
    heard: u64,
    asking: u64,
    asked: Option<Instant>,
}

impl Crowds {
    /// Joins those that wait for word from there.
    pub(super) fn join(&self, consul: &Consul, scope: &Scope, dice: &mut fastrand::Rng) -> Waiter {
        let mut at = self.at.lock();
        at.retain(|_, crowd| crowd.strong_count() > 0);
        let crowd = at.get(scope).and_then(Weak::upgrade).unwrap_or_else(|| {
            let crowd = Arc::new(Crowd::gather(consul, scope, dice));
            at.insert(scope.clone(), Arc::downgrade(&crowd));
            crowd
        });
        let word = crowd.word.clone();
        let heard = *word.borrow();
        Waiter { word, crowd, heard, asking: heard, asked: None }
    }

    /// The right to ask one plain query.
    pub(super) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed, so there is always a permit.
        self.slots.acquire().await.ok()
    }
}

impl Crowd {
    fn gather(consul: &Consul, scope: &Scope, dice: &mut fastrand::Rng) -> Crowd {
        let (told, word) = watch::channel(0_u64);
        let told = Arc::new(told);
        let mut asking = JoinSet::new();
        // The index moves with every change of a service, of a check, of a node; what is left out of the answer does not matter.
        let queries = [
            Query::new("/v1/catalog/services").scope(scope),
            Query::new("/v1/health/state/any").scope(scope).with("filter", NOTHING),
            Query::new("/v1/catalog/nodes").scope(scope).with("filter", NOTHING),
        ];
        for query in queries {
            let mut watch = Watch::alone(consul, query, dice.fork(), |_, _, _| Ok(()));
            let told = told.clone();
            asking.spawn(async move {
                loop {
                    // A failure is word too: each then finds out for itself what is wrong.
                    let _ = watch.next().await;
                    told.send_modify(|count| *count = count.wrapping_add(1));
                }
            });
        }
        Crowd { word, _asking: asking }
    }
}

impl Waiter {
    /// Waits until something may have changed since the last question; not at all where `at_once` is asked for. Dropping the future loses nothing.
    pub(super) async fn wait(&mut self, at_once: bool) {
        if !at_once {
            let heard = self.heard;
            // An error cannot be: the crowd holds the other end.
            let _ = tokio::time::timeout(QUIET, self.word.wait_for(|word| *word != heard)).await;
            if let Some(asked) = self.asked {
                let crowd = u32::try_from(Arc::strong_count(&self.crowd)).unwrap_or(u32::MAX);
                tokio::time::sleep_until(asked + SHARE.saturating_mul(crowd).min(LONGEST)).await;
            }
        }
        (self.asking, self.asked) = (*self.word.borrow(), Some(clock::now()));
    }

    /// The question was answered: what changed before it is known.
    pub(super) fn has_asked(&mut self) {
        self.heard = self.asking;
    }
}
