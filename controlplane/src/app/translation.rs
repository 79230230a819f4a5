//! The way from the keeper to the snapshot: every change of the state is translated and published, nothing else is.

use std::sync::Arc;

use heddle_node::drain::DrainWatch;
use heddle_xds::catalog::Catalog;
use heddle_xds::snapshot::SnapshotStore;

use crate::state::{Keeper, Subscription};
use crate::translate::Translator;

/// Keeps a snapshot in step with the keeper.
pub(super) struct Translation {
    translator: Translator,
    subscription: Subscription,
    snapshot: Arc<SnapshotStore>,
}

impl Translation {
    /// Puts everything that is believed now into the snapshot.
    pub(super) fn begin(keeper: &Keeper, catalog: Arc<dyn Catalog>, snapshot: Arc<SnapshotStore>) -> Translation {
        let (state, subscription) = keeper.subscribe();
        let mut translator = Translator::new(catalog);
        snapshot.apply(translator.rebuild(&state));
        Translation { translator, subscription, snapshot }
    }

    /// Follows until the drain begins.
    pub(super) async fn run(mut self, mut drain: DrainWatch) {
        loop {
            let changes = tokio::select! {
                changes = self.subscription.next() => changes,
                () = drain.draining() => return,
            };
            let translated = match &changes.keys {
                Some(keys) => self.translator.apply(&changes.state, keys),
                None => self.translator.rebuild(&changes.state),
            };
            self.snapshot.apply(translated);
        }
    }
}
