//! Where the present view is shown, and whom a change concerns: only those nodes are called to look. It knows no protocol and no time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::snapshot::{Changes, View};

/// Whom changes concern.
#[derive(Debug, PartialEq, Eq)]
enum Audience {
    Everybody,
    /// The nodes with these ids.
    Nodes(BTreeSet<Arc<str>>),
}

/// Whom the changes between two views concern: those that see what was there, and those that see what is there now.
fn audience(changes: &Changes, before: &View, after: &View) -> Audience {
    let Some(names) = &changes.names else { return Audience::Everybody };
    let mut nodes = BTreeSet::new();
    for (kind, name) in names {
        for versioned in [before, after].into_iter().filter_map(|view| view.find(*kind, name)) {
            match versioned.resource.nodes() {
                Some(ids) => nodes.extend(ids.iter().cloned()),
                None => return Audience::Everybody,
            }
        }
    }
    Audience::Nodes(nodes)
}

/// Shows views; held by what paces them.
#[derive(Debug)]
pub(super) struct Stage {
    view: watch::Sender<Arc<View>>,
    bells: Bells,
}

/// The bells of each node's streams.
#[derive(Debug, Clone, Default)]
struct Bells(Arc<Mutex<ByNode>>);

type ByNode = HashMap<Arc<str>, Vec<Arc<Notify>>>;

impl Bells {
    fn lock(&self) -> MutexGuard<'_, ByNode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds seats; held by what starts streams.
#[derive(Debug, Clone)]
pub(super) struct House {
    view: watch::Receiver<Arc<View>>,
    bells: Bells,
}

/// A stream's place: it sees what is shown and is called when that concerns it.
#[derive(Debug)]
pub(super) struct Seat {
    house: House,
    node: Arc<str>,
    bell: Arc<Notify>,
}

impl Stage {
    /// A stage that shows a view, and its house.
    pub(super) fn new(view: Arc<View>) -> (Stage, House) {
        let (show, view) = watch::channel(view);
        let bells = Bells::default();
        (Stage { view: show, bells: bells.clone() }, House { view, bells })
    }

    /// The present view.
    pub(super) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Shows the view that follows from the present one by `changes`, and calls those whom they concern.
    pub(super) fn show(&self, next: Arc<View>, changes: &Changes) {
        match audience(changes, &self.view(), &next) {
            Audience::Everybody => drop(self.view.send_replace(next)),
            Audience::Nodes(nodes) => {
                // Who looks next sees it, but nobody is woken by it.
                self.view.send_if_modified(|view| {
                    *view = next;
                    false
                });
                let bells = self.bells.lock();
                nodes.iter().filter_map(|node| bells.get(node)).flatten().for_each(|bell| bell.notify_one());
            }
        }
    }

    /// Waits until nobody can come to look any more.
    pub(super) async fn deserted(&self) {
        self.view.closed().await;
    }
}

impl House {
    /// A place for a stream of this node.
    pub(super) fn seat(&self, node: Arc<str>) -> Seat {
        let bell = Arc::new(Notify::new());
        self.bells.lock().entry(node.clone()).or_default().push(bell.clone());
        Seat { house: self.clone(), node, bell }
    }
}

impl Seat {
    /// What is shown.
    pub(super) fn view(&mut self) -> Arc<View> {
        self.house.view.borrow_and_update().clone()
    }

    /// Waits until something is shown that concerns this node. `None` when nothing will be shown any more.
    pub(super) async fn next(&mut self) -> Option<Arc<View>> {
        tokio::select! {
            changed = self.house.view.changed() => changed.ok()?,
            () = self.bell.notified() => {}
        }
        Some(self.view())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut bells = self.house.bells.lock();
        if let Some(of_node) = bells.get_mut(&self.node) {
            of_node.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
            if of_node.is_empty() {
                bells.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use futures_util::FutureExt;

    use super::*;
    use crate::model::Kind;
    use crate::server::tests::{gone, listener, set};
    use crate::snapshot::{Change, SnapshotFeed, SnapshotSource, SnapshotStore};

    struct World {
        store: SnapshotStore,
        stage: Stage,
        seats: [Seat; 2],
    }

    impl World {
        fn new() -> World {
            let store = SnapshotStore::new();
            let (stage, house) = Stage::new(store.view());
            World { store, stage, seats: ["one", "two"].map(|node| house.seat(node.into())) }
        }

        /// Which of the nodes `one` and `two` a change calls; those that are called see it.
        fn called(&mut self, change: Change) -> [bool; 2] {
            let before = self.stage.view().position();
            self.store.apply(vec![change]);
            let next = self.store.view();
            self.stage.show(next.clone(), &self.store.changed_between(before, next.position()));
            self.seats.each_mut().map(|seat| match seat.next().now_or_never() {
                Some(view) => {
                    assert_eq!(view.unwrap().position(), next.position());
                    true
                }
                None => false,
            })
        }
    }

    #[test]
    fn only_those_whom_a_change_concerns_are_called() {
        let mut world = World::new();
        assert_eq!(world.called(set(Kind::Secret, "s", "1")), [true, true]);
        assert_eq!(world.called(listener("l", &["two"])), [false, true]);
        assert_eq!(world.called(listener("l", &["one"])), [true, true], "one gets it, two loses it");
        assert_eq!(world.called(listener("l", &["one", "nobody"])), [true, false]);
        assert_eq!(world.called(listener("l", &[])), [true, true]);
        assert_eq!(world.called(listener("l", &["two"])), [true, true]);
        assert_eq!(world.called(gone(Kind::Listener, "l")), [false, true]);
        assert_eq!(world.called(gone(Kind::Secret, "s")), [true, true]);
    }

    #[test]
    fn who_was_not_called_sees_it_when_it_looks() {
        let mut world = World::new();
        world.called(listener("l", &["two"]));
        assert_eq!(world.seats[0].view().position(), 1);
        world.called(set(Kind::Secret, "s", "1"));
        assert_eq!(world.seats[0].view().position(), 2);
    }

    #[test]
    fn a_seat_that_is_left_is_forgotten() {
        let World { stage, seats, .. } = World::new();
        assert!(stage.deserted().now_or_never().is_none());
        drop(seats);
        assert!(stage.bells.lock().is_empty());
        assert!(stage.deserted().now_or_never().is_some());
    }
}
