//! Where the present view is shown, and whom a change concerns: only those nodes are called to look. It knows no protocol and no time.
//!
//! Gateways hold everything, so a change concerns all of them unless the resource names its nodes. A sidecar holds the few names that it asked for, and
//! there are thousands: it is called by its own bell, when one of those changes, or something of a kind of which it asked for all that it may see.

mod bells;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::model::{Kind, MESH_PREFIX};
use crate::snapshot::{Changes, NodeScope, SIDECAR, SnapshotSource, View};
use bells::Bells;

/// Whom changes concern.
#[derive(Debug, PartialEq, Eq)]
enum Audience {
    Everybody,
    /// The nodes with these ids.
    Nodes(BTreeSet<Arc<str>>),
}

/// Whether only sidecars see such a resource.
fn is_of_sidecars(kind: Kind, name: &str) -> bool {
    match kind {
        Kind::MeshService | Kind::MeshInbound | Kind::AuthorizationPolicy | Kind::PeerAuthentication => true,
        Kind::Endpoints => name.starts_with(MESH_PREFIX),
        _ => false,
    }
}

/// Whom of those who are no sidecars the changes between two views concern: those that see what was there, and those that see what is there now.
fn audience(changes: &Changes, before: &View, after: &View) -> Audience {
    let Some(names) = &changes.names else { return Audience::Everybody };
    let mut nodes = BTreeSet::new();
    for (kind, name) in names.iter().filter(|(kind, name)| !is_of_sidecars(*kind, name)) {
        if before.is_untold(*kind, name) {
            // Who has it, nobody knows.
            return Audience::Everybody;
        }
        for versioned in [before, after].into_iter().filter_map(|view| view.find(*kind, name)) {
            match versioned.resource.nodes() {
                Some(ids) => nodes.extend(ids.iter().cloned()),
                None => return Audience::Everybody,
            }
        }
    }
    Audience::Nodes(nodes)
}

/// Whom a change concerned, so that they were called to look.
#[derive(Debug)]
pub(super) struct Called {
    audience: Audience,
    /// Numbers of sidecars; `None` are all.
    sidecars: Option<BTreeSet<u64>>,
    /// How many streams that are.
    count: usize,
}

impl Called {
    /// Everybody was.
    pub(super) fn everybody() -> Called {
        Called { audience: Audience::Everybody, sidecars: None, count: 0 }
    }

    /// How many streams were called.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether a node was called: by its id, a sidecar by the number of its seat.
    pub(super) fn includes(&self, id: &str, sidecar: Option<u64>) -> bool {
        match (sidecar, &self.audience) {
            (Some(number), _) => self.sidecars.as_ref().is_none_or(|called| called.contains(&number)),
            (None, Audience::Everybody) => true,
            (None, Audience::Nodes(ids)) => ids.contains(id),
        }
    }
}

/// Shows views; held by what paces them.
#[derive(Debug)]
pub(super) struct Stage {
    view: watch::Sender<Arc<View>>,
    bells: Bells,
    /// Of what is made for one node: whatever changes there concerns it.
    alone: bool,
}

/// Finds seats; held by what starts streams.
#[derive(Debug, Clone)]
pub(super) struct House {
    view: watch::Receiver<Arc<View>>,
    bells: Bells,
    alone: bool,
}

/// A stream's place: it sees what is shown and is called when that concerns it.
#[derive(Debug)]
pub(super) struct Seat {
    house: House,
    scope: NodeScope,
    bell: Arc<Notify>,
    /// Among the sidecars; `None` for who is none.
    number: Option<u64>,
}

impl Stage {
    /// A stage that shows a view, and its house; `alone`: for one node.
    pub(super) fn new(view: Arc<View>, alone: bool) -> (Stage, House) {
        let (show, view) = watch::channel(view);
        let bells = Bells::default();
        (Stage { view: show, bells: bells.clone(), alone }, House { view, bells, alone })
    }

    /// The present view.
    pub(super) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Shows the view that follows from the present one by `changes`, and calls those whom they concern.
    pub(super) fn show(&self, next: Arc<View>, changes: &Changes) -> Called {
        let before = self.view();
        let audience = if self.alone { Audience::Everybody } else { audience(changes, &before, &next) };
        let after = next.clone();
        let nodes = match &audience {
            Audience::Everybody => {
                self.view.send_replace(next);
                self.bells.nodes()
            }
            Audience::Nodes(nodes) => {
                // Who looks next sees it, but nobody is woken by it.
                self.view.send_if_modified(|view| {
                    *view = next;
                    false
                });
                self.bells.ring_nodes(nodes)
            }
        };
        let sidecars = self.bells.ring_sidecars(changes, &before, &after);
        let count = nodes + sidecars.as_ref().map_or_else(|| self.bells.sidecars(), BTreeSet::len);
        Called { audience, sidecars, count }
    }

    /// Waits until nobody can come to look any more.
    pub(super) async fn deserted(&self) {
        self.view.closed().await;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.bells.close();
    }
}

impl House {
    /// A place for a stream of this node.
    pub(super) fn seat(&self, scope: &NodeScope) -> Seat {
        let bell = Arc::new(Notify::new());
        let number = if *scope.role == *SIDECAR && !self.alone {
            Some(self.bells.add_sidecar(scope.clone(), bell.clone()))
        } else {
            self.bells.add_node(&scope.id, bell.clone());
            None
        };
        Seat { house: self.clone(), scope: scope.clone(), bell, number }
    }
}

impl Seat {
    /// What is shown.
    pub(super) fn view(&mut self) -> Arc<View> {
        self.house.view.borrow_and_update().clone()
    }

    /// Which stage it looks at, for as long as that is there.
    pub(super) fn stage(&self) -> usize {
        self.house.bells.address()
    }

    /// Its number among the sidecars.
    pub(super) fn number(&self) -> Option<u64> {
        self.number
    }

    /// Whether it is called by what it asked for.
    pub(super) fn is_sidecar(&self) -> bool {
        self.number.is_some()
    }

    /// Notes what a sidecar asks for: of a kind everything that it may see, and names. True when it has to look at once, as it may not have been
    /// called for what it asks for only now. Others are called without it.
    pub(super) fn listen(&self, kind: Kind, all: bool, names: Vec<Arc<str>>) -> bool {
        self.number.is_some_and(|number| self.house.bells.listen(number, kind, all, names))
    }

    /// Waits until something is shown that concerns this node. `None` when nothing will be shown any more.
    pub(super) async fn next(&mut self) -> Option<Arc<View>> {
        if self.number.is_some() {
            self.bell.notified().await;
            return (!self.house.bells.is_closed()).then(|| self.view());
        }
        tokio::select! {
            changed = self.house.view.changed() => changed.ok()?,
            () = self.bell.notified() => {}
        }
        Some(self.view())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        match self.number {
            Some(number) => self.house.bells.remove_sidecar(number),
            None => self.house.bells.remove_node(&self.scope.id, &self.bell),
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
    use crate::snapshot::{Change, SnapshotFeed, SnapshotStore};

    struct World {
        store: SnapshotStore,
        stage: Stage,
        seats: [Seat; 2],
    }

    impl World {
        fn new() -> World {
            let store = SnapshotStore::new();
            let (stage, house) = Stage::new(store.view(), false);
            World {
                store,
                stage,
                seats: ["one", "two"].map(|node| house.seat(&NodeScope { id: node.into(), ..NodeScope::default() })),
            }
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
    fn sidecars_are_called_for_what_they_asked_for() {
        let mut world = World::new();
        let house = world.seats[0].house.clone();
        let sidecar = |name: &str| NodeScope { id: name.into(), role: SIDECAR.into(), ..NodeScope::default() };
        let mut sidecars = ["a", "b"].map(|name| house.seat(&sidecar(name)));
        assert!(sidecars[0].listen(Kind::Endpoints, false, vec!["mesh/shop/web".into()]));
        assert!(!sidecars[0].listen(Kind::Endpoints, false, vec!["mesh/shop/web".into()]), "nothing new");
        sidecars[1].listen(Kind::Endpoints, false, vec!["mesh/shop/api".into()]);
        let mut called = |world: &mut World, change, gateways| {
            assert_eq!(world.called(change), gateways);
            sidecars.each_mut().map(|seat| seat.next().now_or_never().is_some())
        };
        assert_eq!(called(&mut world, set(Kind::Endpoints, "mesh/shop/web", "h"), [false, false]), [true, false]);
        assert_eq!(called(&mut world, set(Kind::Endpoints, "mesh/shop/api", "h"), [false, false]), [false, true]);
        assert_eq!(called(&mut world, gone(Kind::Endpoints, "mesh/shop/web"), [false, false]), [true, false]);
        assert_eq!(called(&mut world, set(Kind::Endpoints, "upstreams/u", "h"), [true, true]), [false, false]);
        assert_eq!(called(&mut world, set(Kind::Secret, "s", "1"), [true, true]), [false, false]);
        sidecars[0].listen(Kind::Endpoints, false, Vec::new());
        sidecars[1].listen(Kind::Endpoints, true, Vec::new());
        let mut called = |world: &mut World, change| {
            assert_eq!(world.called(change), [false, false]);
            sidecars.each_mut().map(|seat| seat.next().now_or_never().is_some())
        };
        assert_eq!(called(&mut world, set(Kind::Endpoints, "mesh/shop/web", "k")), [false, true], "it asked for all");
        drop(world.stage);
        assert!(sidecars[0].next().now_or_never().unwrap().is_none());
        drop(sidecars);
        drop(world.seats);
        assert!(house.bells.is_empty());
    }

    #[test]
    fn a_seat_that_is_left_is_forgotten() {
        let World { stage, seats, .. } = World::new();
        assert!(stage.deserted().now_or_never().is_none());
        drop(seats);
        assert!(stage.bells.is_empty());
        assert!(stage.deserted().now_or_never().is_some());
    }
}
