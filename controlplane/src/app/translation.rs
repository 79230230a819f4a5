//! The way from the keeper to the snapshot: every change of the state is translated and published, nothing else is.

use std::sync::Arc;

use heddle_node::drain::DrainWatch;
use heddle_xds::catalog::Catalog;
use heddle_xds::snapshot::SnapshotStore;

use crate::mesh::Directory;
use crate::state::{Keeper, Subscription};
use crate::translate::Translator;

/// Keeps a snapshot in step with the keeper.
pub(super) struct Translation {
    translator: Translator,
    directory: Directory,
    subscription: Subscription,
    snapshot: Arc<SnapshotStore>,
}

impl Translation {
    /// Puts everything that is believed now into the snapshot.
    pub(super) fn begin(
        keeper: &Keeper,
        catalog: Arc<dyn Catalog>,
        trust_domain: &str,
        snapshot: Arc<SnapshotStore>,
    ) -> Translation {
        let (state, subscription) = keeper.subscribe();
        let mut translator = Translator::new(catalog);
        let directory = Directory::of(trust_domain, &state);
        snapshot.apply(translator.rebuild(&state, &directory));
        Translation { translator, directory, subscription, snapshot }
    }

    /// Follows until the drain begins.
    pub(super) async fn run(mut self, mut drain: DrainWatch) {
        loop {
            let changes = tokio::select! {
                changes = self.subscription.next() => changes,
                () = drain.draining() => return,
            };
            let state = &changes.state;
            let translated = match &changes.keys {
                Some(keys) => {
                    let services = self.directory.resources(state, keys);
                    self.translator.apply(state, &self.directory, keys, &services)
                }
                None => {
                    self.directory.all_resources(state);
                    self.translator.rebuild(state, &self.directory)
                }
            };
            self.snapshot.apply(translated);
        }
    }
}
