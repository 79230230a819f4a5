//! How far the streams are with telling the view that is shown. It knows no view and no protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use heddle_node::clock;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Streams of which none has told the view for so long are not at work, but wait for clients that read slowly: nobody waits for those.
pub(super) const STALL: Duration = Duration::from_millis(5);
/// More than all streams, so that those who are done before it is known how many were called are counted all the same.
const MANY: i64 = 1 << 32;

/// What the streams tell the pace. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(in crate::server) struct Work(Arc<Round>);

#[derive(Debug)]
struct Round {
    start: Instant,
    /// When the last response was handed to its connection: nanoseconds after `start`.
    last: AtomicU64,
    /// The same for when the view that is shown was told by one more, or was shown.
    moved: AtomicU64,
    /// How many views were shown.
    number: AtomicU64,
    /// Streams that were called to the view that is shown and have not told it yet; less than nothing when others have looked as well.
    open: AtomicI64,
    /// Rings when there are none left.
    ended: Notify,
}

impl Work {
    pub(in crate::server) fn new() -> Work {
        let [last, moved, number] = [const { AtomicU64::new(0) }; 3];
        Work(Arc::new(Round { start: clock::now(), last, moved, number, open: AtomicI64::new(0), ended: Notify::new() }))
    }

    /// A response is handed to its connection just now.
    pub(in crate::server) fn done(&self) {
        self.0.last.fetch_max(self.nanos(), Ordering::Relaxed);
    }

    fn nanos(&self) -> u64 {
        u64::try_from((clock::now() - self.0.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// A stream looks at the view that is shown; it has told it when what is returned is dropped.
    pub(in crate::server) fn telling(&self) -> Telling {
        Telling { work: self.clone(), number: self.0.number.load(Ordering::Relaxed) }
    }

    /// Shows a view by `show`, which says how many streams it has called.
    pub(super) fn round(&self, show: impl FnOnce() -> usize) {
        self.done();
        self.0.moved.fetch_max(self.nanos(), Ordering::Relaxed);
        self.0.number.fetch_add(1, Ordering::Relaxed);
        self.0.open.store(MANY, Ordering::Relaxed);
        let called = i64::try_from(show()).unwrap_or(MANY).min(MANY);
        self.count_down(MANY - called);
    }

    fn count_down(&self, by: i64) {
        let before = self.0.open.fetch_sub(by, Ordering::Relaxed);
        if before > 0 && before <= by {
            self.0.ended.notify_one();
        }
    }

    /// When the last response was handed over.
    pub(super) fn last(&self) -> Instant {
        self.0.start + Duration::from_nanos(self.0.last.load(Ordering::Relaxed))
    }

    /// When nobody is at work with the view that is shown, as far as can be said now. It is sooner when [`Work::ended`] says so.
    pub(super) fn over(&self) -> Instant {
        match self.0.open.load(Ordering::Relaxed) {
            ..=0 => self.0.start,
            _ => self.0.start + Duration::from_nanos(self.0.moved.load(Ordering::Relaxed)) + STALL,
        }
    }

    /// Ready when all who were called have told the view.
    pub(super) async fn ended(&self) {
        self.0.ended.notified().await;
    }
}

/// One stream's part of the work for one view.
#[derive(Debug)]
pub(in crate::server) struct Telling {
    work: Work,
    /// Which view that is.
    number: u64,
}

impl Drop for Telling {
    fn drop(&mut self) {
        let round = &self.work.0;
        // Who is late with a view before moves nothing.
        if round.number.load(Ordering::Relaxed) == self.number {
            round.moved.fetch_max(self.work.nanos(), Ordering::Relaxed);
            self.work.count_down(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_round_is_over_when_all_who_were_called_have_told_it() {
        let work = Work::new();
        assert!(work.over() <= clock::now(), "nobody was called to anything");
        let mut told = Vec::new();
        work.round(|| {
            told.extend([work.telling(), work.telling()]);
            3
        });
        told.push(work.telling());
        assert_eq!(work.over(), clock::now() + STALL);
        told.truncate(1);
        assert!(work.ended().now_or_never().is_none());
        told.clear();
        assert!(work.ended().now_or_never().is_some() && work.over() <= clock::now());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_done_before_all_are_called_counts() {
        let work = Work::new();
        work.round(|| {
            drop(work.telling());
            1
        });
        assert!(work.ended().now_or_never().is_some());
        drop(work.telling());
        assert!(work.over() <= clock::now(), "it was not called, and is no matter");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_those_who_do_not_read() {
        let work = Work::new();
        work.round(|| 3);
        let _slow = work.telling();
        tokio::time::advance(STALL / 2).await;
        drop(work.telling());
        assert_eq!(work.over(), clock::now() + STALL, "somebody is at work");
        tokio::time::advance(STALL).await;
        work.done();
        assert!(work.over() <= clock::now(), "who is told something else is no matter");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_late_with_a_view_does_not_count_for_the_next() {
        let work = Work::new();
        work.round(|| 1);
        let late = work.telling();
        work.round(|| 1);
        drop(late);
        assert!(work.ended().now_or_never().is_none() && work.over() > clock::now());
        drop(work.telling());
        assert!(work.ended().now_or_never().is_some());
    }
}
