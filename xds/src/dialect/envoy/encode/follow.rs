//! What Envoys are given, kept beside a snapshot that changes. It knows no stream.

use std::sync::{Arc, Mutex, PoisonError};

use heddle_node::drain::DrainWatch;

use super::{Encoder, Gap, Reader, Withheld};
use crate::snapshot::{Changes, SnapshotFeed, SnapshotSource, SnapshotStore};

/// What nodes of others are not given, as it is now.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Arc<[Withheld]>>>);

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

/// The resources of Envoy that a snapshot stands for to who reads them so, as a snapshot of its own that follows it until the drain begins. It is complete at once.
pub fn follow(
    (reader, gap): (Reader, Gap),
    feed: Arc<dyn SnapshotFeed>,
    ledger: Ledger,
    mut drain: DrainWatch,
) -> Arc<SnapshotStore> {
    let store = Arc::new(SnapshotStore::new());
    let mut signal = feed.watch();
    let mut encoder = Encoder::new(reader, gap);
    let view = feed.view();
    let mut position = view.position();
    store.apply_encoded(encoder.apply(&view, &Changes { position, names: None }));
    ledger.write(reader.as_str(), encoder.withheld());
    let follower = store.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                changed = signal.changed() => if changed.is_err() { return },
                () = drain.draining() => return,
            }
            signal.borrow_and_update();
            let view = feed.view();
            let changes = feed.changed_between(position, view.position());
            position = view.position();
            follower.apply_encoded(encoder.apply(&view, &changes));
            ledger.write(reader.as_str(), encoder.withheld());
        }
    });
    store
}
