//! Draining by dropping: a drain is over when every watch has been dropped. It does not know what is being drained.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving as usual.
    Running,
    /// Finish what was begun, begin nothing new.
    Draining,
    /// Stop now: the deadline has passed or an operator insisted.
    Forced,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every watch was dropped in time.
    Clean,
    /// Work was cut off.
    Forced,
}

/// The end that starts a drain and waits for it. Clone it freely: any clone may begin or force the drain.
#[derive(Debug, Clone)]
pub struct DrainTrigger {
    phase: watch::Sender<Phase>,
}

/// The end that owns the wait: it resolves when all watches are gone. There is one per pair.
#[derive(Debug)]
pub struct DrainCompletion {
    trigger: DrainTrigger,
    alive: mpsc::Receiver<()>,
}

/// Held by everything that must finish before the process may go. Dropping it says: done.
#[derive(Debug, Clone)]
pub struct DrainWatch {
    phase: watch::Receiver<Phase>,
    _alive: mpsc::Sender<()>,
}

/// A new pair, running.
#[must_use]
pub fn pair() -> (DrainCompletion, DrainWatch) {
    let (phase, watching) = watch::channel(Phase::Running);
    let (alive, gone) = mpsc::channel(1);
    let trigger = DrainTrigger { phase };
    (DrainCompletion { trigger, alive: gone }, DrainWatch { phase: watching, _alive: alive })
}

impl DrainTrigger {
    /// Asks every watch to finish. Does nothing when the drain has begun already.
    pub fn begin(&self) {
        self.advance(Phase::Draining);
    }

    /// Asks every watch to stop at once.
    pub fn force(&self) {
        self.advance(Phase::Forced);
    }

    /// Where the drain stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            if later {
                *phase = to;
            }
            later
        });
    }
}

impl DrainCompletion {
    /// A handle that can begin and force this drain.
    #[must_use]
    pub fn trigger(&self) -> DrainTrigger {
        self.trigger.clone()
    }

    /// Begins the drain, waits until every watch is dropped or `deadline` has passed, then forces the rest and waits at most `grace` for it.
    pub async fn drain(mut self, deadline: Duration, grace: Duration) -> Drained {
        self.trigger.begin();
        let mut phase = self.trigger.phase.subscribe();
        let forced = phase.wait_for(|phase| *phase == Phase::Forced);
        tokio::select! {
            biased;
            _ = self.alive.recv() => {
                return if self.trigger.phase() == Phase::Forced { Drained::Forced } else { Drained::Clean };
            }
            _ = forced => {}
            () = tokio::time::sleep(deadline) => self.trigger.force(),
        }
        // Whether the rest went in time or not, work was cut off.
        let _ = tokio::time::timeout(grace, self.alive.recv()).await;
        Drained::Forced
    }
}

impl DrainWatch {
    /// Where the drain stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether new work should be refused.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// Resolves when draining begins (at once when it has). Also when the other end is gone, as nobody could begin it any more.
    pub async fn draining(&mut self) {
        // An error means that the trigger was dropped, which ends the wait too.
        let _ = self.phase.wait_for(|phase| *phase >= Phase::Draining).await;
    }

    /// Resolves when work must stop at once. Also when the other end is gone.
    pub async fn forced(&mut self) {
        // An error means that the trigger was dropped, which ends the wait too.
        let _ = self.phase.wait_for(|phase| *phase >= Phase::Forced).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::clock;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn ends_when_the_last_watch_is_dropped() {
        let (done, mut watch) = pair();
        let second = watch.clone();
        assert!(!watch.is_draining());
        let worker = tokio::spawn(async move {
            watch.draining().await;
            drop(watch);
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(second);
        });
        let start = clock::now();
        assert_eq!(done.drain(LONG, LONG).await, Drained::Clean);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        worker.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn forces_after_the_deadline() {
        let (done, mut watch) = pair();
        let worker = tokio::spawn(async move {
            watch.forced().await;
            watch.phase()
        });
        let start = clock::now();
        assert_eq!(done.drain(Duration::from_secs(30), LONG).await, Drained::Forced);
        assert_eq!(start.elapsed(), Duration::from_secs(30));
        assert_eq!(worker.await.unwrap(), Phase::Forced);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_no_longer_than_the_grace_for_what_ignores_the_force() {
        let (done, watch) = pair();
        let start = clock::now();
        assert_eq!(done.drain(Duration::from_secs(30), Duration::from_secs(2)).await, Drained::Forced);
        assert_eq!(start.elapsed(), Duration::from_secs(32));
        drop(watch);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_request_forces_before_the_deadline() {
        let (done, mut watch) = pair();
        let trigger = done.trigger();
        trigger.begin();
        trigger.begin();
        assert_eq!(trigger.phase(), Phase::Draining);
        let worker = tokio::spawn(async move { watch.forced().await });
        let start = clock::now();
        let drain = tokio::spawn(done.drain(LONG, LONG));
        tokio::task::yield_now().await;
        trigger.force();
        assert_eq!(drain.await.unwrap(), Drained::Forced);
        assert!(start.elapsed() < LONG);
        worker.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_force_is_never_taken_back() {
        let (done, watch) = pair();
        let trigger = done.trigger();
        trigger.force();
        trigger.begin();
        assert_eq!(watch.phase(), Phase::Forced);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_trigger_ends_the_wait() {
        let (done, mut watch) = pair();
        drop(done);
        watch.draining().await;
        watch.forced().await;
        assert_eq!(watch.phase(), Phase::Running);
    }
}
