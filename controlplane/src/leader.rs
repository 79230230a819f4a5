//! Who of several control planes does what only one should do: expiry, compaction, the rotation of the root. It knows neither what that is nor where the
//! right lies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::store::{Hold, Leases};

/// The name of the right.
const RIGHT: &str = "leader";
/// How long the right lasts without being renewed: so long nobody leads when the leader dies.
pub const TERM: Duration = Duration::from_secs(10);
/// How often it is renewed, and asked for.
const EVERY: Duration = Duration::from_secs(2);
/// The leader stops this long before others can have the right: longer than what it has begun takes, and than clocks drift apart in a term.
const MARGIN: Duration = Duration::from_secs(3);

/// Whether this control plane leads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// Milliseconds after `start` until which it leads.
    until: AtomicU64,
    present: Mutex<Option<String>>,
}

impl Leader {
    fn new(until: u64, present: Option<String>) -> Leader {
        Leader(Arc::new(Inner { start: clock::now(), until: AtomicU64::new(until), present: Mutex::new(present) }))
    }

    /// The only control plane there is.
    pub fn alone() -> Leader {
        Leader::new(u64::MAX, None)
    }

    /// One of several, by the name `holder`; asks for the right until the drain begins, and gives it up then.
    pub fn campaign(leases: Arc<dyn Leases>, holder: String, drain: DrainWatch, dice: fastrand::Rng) -> Leader {
        let leader = Leader::new(0, None);
        tokio::spawn(leader.clone().run(leases, holder, drain, dice));
        leader
    }

    /// Whether this control plane leads at this moment. It ends before another one can begin.
    pub fn leads(&self) -> bool {
        self.elapsed(clock::now()) < self.0.until.load(Ordering::Relaxed)
    }

    /// Who leads, as far as it is known; `None` when there is only one, or nobody.
    pub fn present(&self) -> Option<String> {
        self.0.present.lock().clone()
    }

    fn elapsed(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.0.start).as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes what became of asking at `asked`.
    fn note(&self, hold: Hold, holder: &str, asked: Instant) {
        let (until, present) = match hold {
            Hold::Ours => (self.elapsed(asked + TERM - MARGIN), holder.to_owned()),
            Hold::Others(name) => (0, name),
        };
        let led = self.leads();
        self.0.until.store(until, Ordering::Relaxed);
        *self.0.present.lock() = Some(present).filter(|name| !name.is_empty());
        if led != self.leads() {
            tracing::info!(leads = !led, "leadership has passed on");
        }
    }

    async fn run(self, leases: Arc<dyn Leases>, holder: String, mut drain: DrainWatch, mut dice: fastrand::Rng) {
        loop {
            let asked = clock::now();
            match leases.hold(RIGHT, &holder, TERM).await {
                Ok(hold) => self.note(hold, &holder, asked),
                Err(error) => tracing::debug!(%error, "who leads is not known"),
            }
            tokio::select! {
                () = sleep(EVERY.mul_f64(0.75 + dice.f64() / 2.0)) => {}
                () = drain.draining() => break,
            }
        }
        self.0.until.store(0, Ordering::Relaxed);
        if let Err(error) = leases.release(RIGHT).await {
            tracing::debug!(%error, "leadership could not be given up; it ends by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_only_one_leads() {
        assert!(Leader::alone().leads() && Leader::alone().present().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_stops_before_others_begin() {
        let leader = Leader::new(0, None);
        assert!(!leader.leads());
        let asked = clock::now();
        leader.note(Hold::Ours, "a", asked);
        assert!(leader.leads() && leader.present().as_deref() == Some("a"));
        tokio::time::advance(TERM - MARGIN - Duration::from_millis(1)).await;
        assert!(leader.leads());
        tokio::time::advance(Duration::from_millis(2)).await;
        assert!(!leader.leads(), "its right ends only {MARGIN:?} later");
        leader.note(Hold::Ours, "a", clock::now());
        leader.note(Hold::Others("b".into()), "a", clock::now());
        assert!(!leader.leads() && leader.present().as_deref() == Some("b"));
    }
}
