//! When all streams are shown the next view of the snapshot: at once when little is going on, together with what follows when much is. It knows no stream and no protocol.
//!
//! A change that every node hears of costs a response to each of them, however small it is. So changes are gathered for a moment, and the
//! next are gathered for as long as the work for the last ones took, several times over: however fast changes come, telling them takes
//! a bounded share of the time, and none waits longer than [`LONGEST`]. Endpoints do not wait for any of that, for requests go astray meanwhile: they are
//! told as soon as the streams are done with the view before, and whatever else has changed goes with them, so that nothing overtakes anything.

mod entrance;
mod work;

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use tokio::time::{Instant, sleep_until};

use super::stage::Stage;
use crate::model::{Kind, MESH_PREFIX};
use crate::snapshot::{Changes, SnapshotFeed, SnapshotSource, View};

pub(super) use entrance::Entrance;
pub(super) use work::{Telling, Work};

/// Changes that follow each other this closely travel together. Endpoints never wait for it.
pub(super) const GATHER: Duration = Duration::from_millis(5);
/// Between two views passes this many times what writing the responses to the first one took. With what the kernel and the ACKs take beside
/// it, telling a thousand nodes of a hundred changes a second then takes about a third of a core.
const REST: u32 = 10;
/// No change waits longer, however much is to be told: a quarter of the second within which the last node is to know.
const LONGEST: Duration = Duration::from_millis(250);

/// What has changed and is not shown yet.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// When the first of it came.
    first: Instant,
    /// Where traffic can go is among it.
    urgent: bool,
}

/// How far the present view is.
#[derive(Debug, Clone, Copy)]
struct Present {
    /// When it was shown.
    shown: Instant,
    /// When the last response was handed to its connection.
    worked: Instant,
    /// When nobody is at work with it any more.
    over: Instant,
}

/// When the next view is due.
fn due(waiting: Waiting, gather: Duration, present: Present) -> Instant {
    let Present { shown, worked, over } = present;
    let over = over.min(shown + LONGEST);
    if waiting.urgent {
        return over.max(waiting.first);
    }
    let rest = (worked.saturating_duration_since(shown) * REST).min(LONGEST);
    (waiting.first + gather).max(shown + rest).max(over)
}

/// Whether something changed that must not wait to be gathered: where traffic goes, for all that is known. Endpoints of an upstream that is as new as they are
/// come with it.
fn is_urgent(changes: &Changes, shown: &View) -> bool {
    let is_old = |name: &str| [Kind::Upstream, Kind::Endpoints].iter().any(|kind| shown.find(*kind, name).is_some());
    let is_urgent = |(kind, name): &(Kind, Arc<str>)| *kind == Kind::Endpoints && (name.starts_with(MESH_PREFIX) || is_old(name));
    changes.names.as_ref().is_none_or(|names| names.iter().any(is_urgent))
}

/// Shows one view after the other until nobody looks any more, or the drain begins. Changes that nobody is to wait for any longer are gathered for `gather`.
pub(super) async fn run(feed: Arc<dyn SnapshotFeed>, stage: Stage, (work, gather): (Work, Duration), mut drain: DrainWatch) {
    let mut signal = feed.watch();
    let (mut shown, mut looked) = (clock::now(), stage.view().position());
    let mut waiting: Option<Waiting> = None;
    loop {
        let position = *signal.borrow_and_update();
        if position > looked {
            let Waiting { first, urgent } = waiting.unwrap_or(Waiting { first: clock::now(), urgent: false });
            waiting =
                Some(Waiting { first, urgent: urgent || is_urgent(&feed.changed_between(looked, position), &stage.view()) });
            looked = position;
        }
        let present = Present { shown, worked: work.last(), over: work.over() };
        let next = waiting.map(|waiting| due(waiting, gather, present));
        if next.is_some_and(|next| next <= clock::now()) {
            waiting = None;
            shown = clock::now();
            let view = feed.view();
            looked = view.position();
            let changes = feed.changed_between(stage.view().position(), looked);
            work.round(|| stage.show(view, &changes).count());
            continue;
        }
        tokio::select! {
            () = sleep_until(next.unwrap_or(shown)), if next.is_some() => {}
            () = work.ended(), if next.is_some() => {}
            changed = signal.changed() => if changed.is_err() { return },
            () = stage.deserted() => return,
            () = drain.draining() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::server::tests::{gone, set};
    use crate::snapshot::SnapshotStore;

    #[test]
    fn little_is_told_soon_and_much_together() {
        let start = clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let due = |first, shown, worked, over, urgent| {
            let present = Present { shown: at(shown), worked: at(worked), over: at(over) };
            (due(Waiting { first: at(first), urgent }, GATHER, present) - start).as_millis()
        };
        assert_eq!(due(100, 0, 1, 1, false), 105, "long after the last view, only gathering counts");
        assert_eq!(due(100, 90, 105, 0, false), 240, "ten times the fifteen that the last view took");
        assert_eq!(due(100, 90, 2000, 0, false), 340, "but no longer than this");
        assert_eq!(due(100, 90, 90, 0, false), 105, "nobody had to be told of the last view");
        assert_eq!(due(100, 98, 98, 120, false), 120, "all of them are at work with it, and nobody is done");
    }

    #[test]
    fn endpoints_wait_for_nothing_but_those_who_are_at_work_with_the_last_view() {
        let start = clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let due = |first, shown, worked, over| {
            let present = Present { shown: at(shown), worked: at(worked), over: at(over) };
            (due(Waiting { first: at(first), urgent: true }, GATHER, present) - start).as_millis()
        };
        assert_eq!(due(100, 0, 1, 1), 100);
        assert_eq!(due(100, 90, 99, 0), 100, "however long telling the last ones took");
        assert_eq!(due(100, 90, 99, 104), 104, "until the last one has it");
        assert_eq!(due(100, 90, 2000, 2005), 340, "but no longer than this");
    }

    proptest! {
        #[test]
        fn no_change_waits_too_long(first in 0u64..1000, before in 0u64..1000, worked in 0u64..5000, over in 0u64..5000, urgent: bool) {
            let start = clock::now();
            let at = |ms: u64| start + Duration::from_millis(ms);
            let present = Present { shown: at(first.saturating_sub(before)), worked: at(worked), over: at(over) };
            let waiting = Waiting { first: at(first), urgent };
            prop_assert!(due(waiting, GATHER, present) <= at(first) + LONGEST.max(GATHER));
        }
    }

    #[test]
    fn only_endpoints_of_what_nodes_have_are_urgent() {
        let store = SnapshotStore::new();
        store.apply(vec![set(Kind::Endpoints, "known", "h")]);
        let shown = store.view();
        let urgent = |kind: Kind, name: &str| {
            is_urgent(&Changes { position: 2, names: Some(vec![(Kind::Route, "r".into()), (kind, name.into())]) }, &shown)
        };
        assert!(urgent(Kind::Endpoints, "known") && urgent(Kind::Endpoints, "mesh/default/web"));
        assert!(!urgent(Kind::Endpoints, "new"), "its upstream comes with it");
        assert!(!urgent(Kind::Secret, "known"));
        assert!(is_urgent(&Changes { position: 2, names: None }, &shown), "nobody knows any more what it was");
    }

    #[tokio::test(start_paused = true)]
    async fn views_follow_changes_and_endpoints_are_first() {
        let store = Arc::new(SnapshotStore::new());
        store.apply(vec![set(Kind::Endpoints, "u", "known")]);
        let (stage, house) = Stage::new(store.view(), false);
        let mut seat = house.seat(&crate::snapshot::NodeScope { id: "n".into(), ..Default::default() });
        let (drain, watch) = heddle_node::drain::pair();
        let work = Work::new();
        let task = tokio::spawn(run(store.clone(), stage, (work.clone(), GATHER), watch));
        let start = clock::now();
        store.apply(vec![set(Kind::Secret, "a", "1")]);
        store.apply(vec![set(Kind::Secret, "b", "1")]);
        assert_eq!((seat.next().await.unwrap().position(), clock::now() - start >= GATHER), (3, true));
        drop(work.telling());
        let start = clock::now();
        store.apply(vec![gone(Kind::Secret, "b")]);
        store.apply(vec![set(Kind::Endpoints, "u", "h")]);
        assert_eq!((seat.next().await.unwrap().position(), clock::now() - start < GATHER), (5, true));
        drop((seat, house));
        task.await.unwrap();
        drop(drain);
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_follow_as_soon_as_the_view_before_is_told_and_take_with_them_what_waits() {
        let store = Arc::new(SnapshotStore::new());
        store.apply(vec![set(Kind::Endpoints, "u", "known")]);
        let (stage, house) = Stage::new(store.view(), false);
        let scope = crate::snapshot::NodeScope { id: "n".into(), ..Default::default() };
        let (mut quick, mut slow) = (house.seat(&scope), house.seat(&scope));
        let (work, (drain, watch)) = (Work::new(), heddle_node::drain::pair());
        let task = tokio::spawn(run(store.clone(), stage, (work.clone(), GATHER), watch));
        // One view takes two streams a while.
        store.apply(vec![set(Kind::Endpoints, "u", "1")]);
        assert_eq!((quick.next().await.unwrap().position(), slow.next().await.unwrap().position()), (2, 2));
        let telling = [work.telling(), work.telling()];
        tokio::time::sleep(Duration::from_millis(2)).await;
        work.done();
        let start = clock::now();
        store.apply(vec![set(Kind::Secret, "a", "1")]);
        tokio::time::sleep(Duration::from_millis(1)).await;
        store.apply(vec![set(Kind::Endpoints, "u", "2")]);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(quick.next().now_or_never().is_none(), "one of them still tells the view before");
        drop(telling);
        assert_eq!(quick.next().await.unwrap().position(), 4, "and what waited is there too");
        assert!(clock::now() - start < Duration::from_millis(5), "though twenty would be the rest after two");
        drop((quick, slow, house));
        task.await.unwrap();
        drop(drain);
    }
}
