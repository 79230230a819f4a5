//! When all streams are shown the next view of the snapshot: at once when little is going on, together with what follows when much is. It knows no stream and no protocol.
//!
//! A change that every node hears of costs a response to each of them, however small it is. So changes are gathered for a moment, and the
//! next are gathered for as long as the work for the last ones took, several times over: however fast changes come, telling them takes
//! a bounded share of the time, and none waits longer than [`LONGEST`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use tokio::time::{Instant, sleep_until};

use super::stage::Stage;
use crate::model::Kind;
use crate::snapshot::{Changes, SnapshotFeed, SnapshotSource};

/// Changes that follow each other this closely travel together. Endpoints never wait for it.
pub(super) const GATHER: Duration = Duration::from_millis(5);
/// Between two views passes this many times what writing the responses to the first one took. With what the kernel and the ACKs take beside
/// it, telling a thousand nodes of a hundred changes a second then takes about a third of a core.
const REST: u32 = 10;
/// No change waits longer, however much is to be told: a quarter of the second within which the last node is to know.
const LONGEST: Duration = Duration::from_millis(250);

/// What the streams tell the pace: when the last response was handed to its connection.
#[derive(Debug, Clone)]
pub(super) struct Work {
    start: Instant,
    /// Nanoseconds after `start`.
    last: Arc<AtomicU64>,
}

impl Work {
    pub(super) fn new() -> Work {
        Work { start: clock::now(), last: Arc::default() }
    }

    /// A response is handed to its connection just now.
    pub(super) fn done(&self) {
        let nanos = u64::try_from((clock::now() - self.start).as_nanos()).unwrap_or(u64::MAX);
        self.last.fetch_max(nanos, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }
}

/// Streams that begin at once, when none has begun for a while: a small fleet is not made to wait.
const BURST: u32 = 200;
/// Between two streams beyond those: of a thousand nodes that come back together the last waits for three seconds, and changes are told meanwhile.
const BETWEEN: Duration = Duration::from_millis(4);
/// Who would wait longer is sent away: by then it may be served elsewhere.
const LONGEST_QUEUE: Duration = Duration::from_secs(10);

/// Lets streams begin one after the other when many want to at once: a token bucket (GCRA, ITU-T I.371).
#[derive(Debug)]
pub(super) struct Entrance {
    /// When the bucket is full again.
    full_at: Mutex<Instant>,
}

impl Entrance {
    pub(super) fn new() -> Entrance {
        Entrance { full_at: Mutex::new(clock::now()) }
    }

    /// How long a stream that comes now has to wait, or that it would be too long.
    pub(super) fn enter(&self, now: Instant) -> Option<Duration> {
        // Nothing can fail while this is held.
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let (full, wait) = queue(*full_at, now);
        if wait > LONGEST_QUEUE {
            return None;
        }
        *full_at = full;
        Some(wait)
    }
}

/// When the bucket is full after one more stream, and how long that stream waits.
fn queue(full_at: Instant, now: Instant) -> (Instant, Duration) {
    let full = full_at.max(now) + BETWEEN;
    (full, full.saturating_duration_since(now).saturating_sub(BETWEEN * BURST))
}

/// When the next view is due: `first` is when its first change came, `shown` when the present view was shown, `worked` when the last
/// response was handed to its connection.
fn due(first: Instant, gather: Duration, shown: Instant, worked: Instant) -> Instant {
    let gathered = first + gather;
    let rest = (worked.saturating_duration_since(shown) * REST).min(LONGEST);
    gathered.max(shown + rest)
}

/// Whether something changed that must not wait to be gathered: where traffic can go.
fn is_urgent(changes: &Changes) -> bool {
    changes.names.iter().flatten().any(|(kind, _)| *kind == Kind::Endpoints)
}

/// Shows one view after the other until nobody looks any more, or the drain begins. Changes that nobody is to wait for any longer are gathered for `gather`.
pub(super) async fn run(feed: Arc<dyn SnapshotFeed>, stage: Stage, (work, gather): (Work, Duration), mut drain: DrainWatch) {
    let mut signal = feed.watch();
    let (mut shown, mut looked) = (work.start, stage.view().position());
    let mut waiting: Option<(Instant, bool)> = None;
    loop {
        let position = *signal.borrow_and_update();
        if position > looked {
            let (first, urgent) = waiting.unwrap_or((clock::now(), false));
            waiting = Some((first, urgent || is_urgent(&feed.changed_between(looked, position))));
            looked = position;
        }
        let gathering = |urgent| if urgent { Duration::ZERO } else { gather };
        let next = waiting.map(|(first, urgent)| due(first, gathering(urgent), shown, work.last()));
        if next.is_some_and(|next| next <= clock::now()) {
            waiting = None;
            shown = clock::now();
            let view = feed.view();
            looked = view.position();
            let changes = feed.changed_between(stage.view().position(), looked);
            stage.show(view, &changes);
            continue;
        }
        tokio::select! {
            () = sleep_until(next.unwrap_or(shown)), if next.is_some() => {}
            changed = signal.changed() => if changed.is_err() { return },
            () = stage.deserted() => return,
            () = drain.draining() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;
    use crate::server::tests::{gone, set};
    use crate::snapshot::SnapshotStore;

    #[test]
    fn little_is_told_soon_and_much_together() {
        let start = clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(due(at(100), GATHER, at(0), at(1)), at(105), "long after the last view, only gathering counts");
        assert_eq!(due(at(100), Duration::ZERO, at(0), at(1)), at(100), "and endpoints do not even wait for that");
        assert_eq!(due(at(100), Duration::ZERO, at(90), at(105)), at(240), "ten times the fifteen that the last view took");
        assert_eq!(due(at(100), GATHER, at(90), at(2000)), at(340), "but no longer than this");
        assert_eq!(due(at(100), GATHER, at(90), at(3)), at(105), "nobody had to be told of the last view");
    }

    #[test]
    fn a_few_streams_begin_at_once_and_a_thousand_one_after_the_other() {
        let (entrance, now) = (Entrance::new(), clock::now());
        let waits: Vec<Duration> = (0..1_000).map(|_| entrance.enter(now).unwrap()).collect();
        assert!(waits[..BURST as usize].iter().all(Duration::is_zero));
        assert!(waits.is_sorted() && waits[999] == BETWEEN * 800, "{:?}", waits[999]);
        let refused = (0..5_000).filter(|_| entrance.enter(now).is_none()).count();
        assert!(refused > 2_000, "who would wait for too long goes elsewhere: {refused}");
        let later = now + Duration::from_secs(60);
        assert_eq!(entrance.enter(later), Some(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn no_change_waits_too_long(first in 0u64..1000, before in 0u64..1000, worked in 0u64..5000, urgent: bool) {
            let start = clock::now();
            let at = |ms: u64| start + Duration::from_millis(ms);
            let shown = at(first.saturating_sub(before));
            let gather = if urgent { Duration::ZERO } else { GATHER };
            prop_assert!(due(at(first), gather, shown, at(worked)) <= at(first) + LONGEST.max(GATHER));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn views_follow_changes_and_endpoints_are_first() {
        let store = Arc::new(SnapshotStore::new());
        let (stage, house) = Stage::new(store.view(), false);
        let mut seat = house.seat(&crate::snapshot::NodeScope { id: "n".into(), ..Default::default() });
        let (drain, watch) = heddle_node::drain::pair();
        let task = tokio::spawn(run(store.clone(), stage, (Work::new(), GATHER), watch));
        let start = clock::now();
        store.apply(vec![set(Kind::Secret, "a", "1")]);
        store.apply(vec![set(Kind::Secret, "b", "1")]);
        assert_eq!((seat.next().await.unwrap().position(), clock::now() - start >= GATHER), (2, true));
        let start = clock::now();
        store.apply(vec![gone(Kind::Secret, "b")]);
        store.apply(vec![set(Kind::Endpoints, "u", "h")]);
        assert_eq!((seat.next().await.unwrap().position(), clock::now() - start < GATHER), (4, true));
        drop((seat, house));
        task.await.unwrap();
        drop(drain);
    }
}
