//! What Envoys are given, kept beside a snapshot that changes. It knows no stream.

use std::sync::{Arc, Mutex, PoisonError};

use heddle_node::drain::DrainWatch;

use super::mesh::{Member, MeshEncoder};
use super::{Difference, Encoder, Gap, Reader, Withheld};
use crate::snapshot::{Changes, SnapshotFeed, SnapshotSource, SnapshotStore, View};

/// What nodes of others are not given, as it is now.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Arc<[Withheld]>>>);

impl PartialEq for Ledger {
    /// The same one.
    fn eq(&self, other: &Ledger) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Ledger {}

impl Ledger {
    /// All of it.
    pub fn read(&self) -> Arc<[Withheld]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, whom: &str, withheld: Vec<Withheld>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // In the order of kinds and names, both.
        for new in withheld.iter().filter(|new| told.binary_search(new).is_err()) {
            tracing::warn!(kind = new.kind.as_str(), name = %new.name, reason = %new.reason, from = whom, "withheld");
        }
        *told = withheld.into();
    }
}

/// What keeps resources of Envoy in step with a snapshot.
trait Encode: Send + 'static {
    fn apply(&mut self, view: &View, changes: &Changes) -> Difference;
    fn withheld(&self) -> Vec<Withheld>;
    /// For whom.
    fn whom(&self) -> &str;
}

impl Encode for Encoder {
    fn apply(&mut self, view: &View, changes: &Changes) -> Difference {
        Encoder::apply(self, view, changes)
    }
    fn withheld(&self) -> Vec<Withheld> {
        Encoder::withheld(self)
    }
    fn whom(&self) -> &str {
        self.reader.as_str()
    }
}

impl Encode for MeshEncoder {
    fn apply(&mut self, view: &View, changes: &Changes) -> Difference {
        MeshEncoder::apply(self, view, changes)
    }
    fn withheld(&self) -> Vec<Withheld> {
        MeshEncoder::withheld(self)
    }
    fn whom(&self) -> &str {
        self.node()
    }
}

/// The resources of Envoy that a snapshot stands for to who reads them so, as a snapshot of its own that follows it until the drain begins. It is complete at
/// once. Only who has an identity of the mesh is one of its `members`; all are in one zone, empty when unknown;
/// without one zones make no difference to them. It ends when nobody holds it any more.
pub fn follow(
    (reader, gap, members, zone): (Reader, Gap, bool, Option<Arc<str>>),
    feed: Arc<dyn SnapshotFeed>,
    ledger: Ledger,
    drain: DrainWatch,
) -> Arc<SnapshotStore> {
    keep(Encoder::new(reader, gap).of_members(members).in_zone(zone), feed, ledger, drain)
}

/// The same for clients and servers of gRPC that are services of the mesh: they are given the others, and nothing else.
pub fn follow_services(
    whom: (Reader, Gap, bool, Option<Arc<str>>),
    feed: &Arc<dyn SnapshotFeed>,
    ledger: Ledger,
    drain: DrainWatch,
) -> Arc<SnapshotStore> {
    let services = super::grpc::project(feed, drain.clone());
    follow(whom, services, ledger, drain)
}

/// The same for one Envoy beside an application, for as long as somebody holds it.
pub fn follow_one(who: Member, feed: Arc<dyn SnapshotFeed>, ledger: Ledger, drain: DrainWatch) -> Arc<SnapshotStore> {
    keep(MeshEncoder::new(who), feed, ledger, drain)
}

fn keep(mut encoder: impl Encode, feed: Arc<dyn SnapshotFeed>, ledger: Ledger, mut drain: DrainWatch) -> Arc<SnapshotStore> {
    let store = Arc::new(SnapshotStore::new());
    let mut signal = feed.watch();
    let view = feed.view();
    let mut position = view.position();
    store.apply_encoded(encoder.apply(&view, &Changes { position, names: None }));
    ledger.write(encoder.whom(), encoder.withheld());
    let (follower, mut held) = (Arc::downgrade(&store), store.watch());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                changed = signal.changed() => if changed.is_err() { return },
                // What was encoded goes with who read it, and does not wait for the next change.
                told = held.changed() => match told {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = drain.draining() => return,
            }
            // Who read it may have gone.
            let Some(store) = follower.upgrade() else { return };
            signal.borrow_and_update();
            let view = feed.view();
            let changes = feed.changed_between(position, view.position());
            position = view.position();
            store.apply_encoded(encoder.apply(&view, &changes));
            ledger.write(encoder.whom(), encoder.withheld());
        }
    });
    store
}
