//! Readiness by named guards: ready when the last guard is dropped, until draining begins. It does not know what the guards wait for.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::{self, Instant};

/// Whether this node should get traffic. Clones share one state.
#[derive(Debug, Clone)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    next: u64,
    pending: BTreeMap<u64, String>,
    draining: bool,
}

/// What `/ready` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Send traffic.
    Ready,
    /// Not yet: these are still awaited, oldest first.
    Pending(Vec<String>),
    /// No longer: the node is going away.
    Draining,
}

/// Keeps the node from being ready until it is dropped.
#[derive(Debug)]
pub struct Guard {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    number: u64,
}

impl Default for Readiness {
    fn default() -> Self {
        Readiness::new()
    }
}

impl Readiness {
    /// Ready as long as nobody holds a guard: take the first guards before anything asks.
    #[must_use]
    pub fn new() -> Readiness {
        let state = State { since: clock::now(), next: 0, pending: BTreeMap::new(), draining: false };
        Readiness { state: Arc::new(Mutex::new(state)), changed: Arc::default() }
    }

    /// Holds readiness back until the guard is dropped. `name` is what `/ready` prints, for example `first configuration`.
    #[must_use]
    pub fn guard(&self, name: &str) -> Guard {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.pending.insert(number, name.to_owned());
        Guard { state: self.state.clone(), changed: self.changed.clone(), number }
    }

    /// From now on not ready, whatever the guards say. Call it before the sockets close, so that balancers hear of it first.
    pub fn begin_draining(&self) {
        self.state.lock().draining = true;
        self.changed.notify_waiters();
    }

    /// Waits until nothing is pending (or draining has begun).
    pub async fn settled(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed, also one that comes before the wait.
            changed.as_mut().enable();
            if !matches!(self.verdict(), Verdict::Pending(_)) {
                return;
            }
            changed.await;
        }
    }

    /// Ready, pending or draining.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let state = self.state.lock();
        if state.draining {
            Verdict::Draining
        } else if state.pending.is_empty() {
            Verdict::Ready
        } else {
            Verdict::Pending(state.pending.values().cloned().collect())
        }
    }
}

impl Verdict {
    /// Whether `/ready` answers 200 (otherwise 503).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self == Verdict::Ready
    }
}

impl std::fmt::Display for Verdict {
    /// The body of `/ready`: `ready`, `draining`, or `pending: a, b`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Ready => f.write_str("ready"),
            Verdict::Draining => f.write_str("draining"),
            Verdict::Pending(names) => write!(f, "pending: {}", names.join(", ")),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        let Some(name) = state.pending.remove(&self.number) else { return };
        let (waited, left) = (clock::now().saturating_duration_since(state.since), state.pending.len());
        drop(state);
        self.changed.notify_waiters();
        if left == 0 {
            tracing::info!(last = %name, ?waited, "ready");
        } else {
            tracing::debug!(done = %name, left, "still getting ready");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_pending_and_is_ready_after_the_last_guard() {
        let ready = Readiness::new();
        let listeners = ready.guard("listeners");
        let config = ready.guard("first configuration");
        assert_eq!(ready.verdict().to_string(), "pending: listeners, first configuration");
        drop(listeners);
        assert_eq!(ready.verdict(), Verdict::Pending(vec!["first configuration".into()]));
        assert!(!ready.verdict().is_ready());
        drop(config);
        assert!(ready.verdict().is_ready());
        assert_eq!(ready.verdict().to_string(), "ready");
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_last_guard() {
        let ready = Readiness::new();
        let guard = ready.guard("first configuration");
        let waiting = tokio::spawn({
            let ready = ready.clone();
            async move { ready.settled().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(guard);
        assert!(waiting.await.is_ok());
    }

    #[test]
    fn equal_names_are_two_guards() {
        let ready = Readiness::new();
        let first = ready.guard("socket");
        let second = ready.guard("socket");
        drop(first);
        assert!(!ready.verdict().is_ready());
        drop(second);
        assert!(ready.verdict().is_ready());
    }

    #[test]
    fn draining_wins_over_everything() {
        let ready = Readiness::new();
        let guard = ready.guard("late");
        ready.clone().begin_draining();
        assert_eq!(ready.verdict(), Verdict::Draining);
        drop(guard);
        assert_eq!(ready.verdict().to_string(), "draining");
    }
}
