//! Following a store from a revision on. It knows no store in particular.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Revision, Store, StoreError, Version};

/// Versions that are fetched together.
const PAGE: usize = 1_000;

/// Everything that is written after a revision, revision by revision, whoever writes it.
pub struct Watch {
    store: Arc<dyn Store>,
    newest: watch::Receiver<Revision>,
    after: Revision,
    fetched: VecDeque<Version>,
}

impl Watch {
    /// Follows `store` from the revision after `after`.
    pub fn new(store: Arc<dyn Store>, after: Revision) -> Watch {
        let newest = store.newest();
        Watch { store, newest, after, fetched: VecDeque::new() }
    }

    /// The next revision: all its versions. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`StoreError::UnknownRevision`]: compaction has overtaken this watch; whoever follows loads everything and begins anew. Others
    /// pass: asking again goes on where it was.
    pub async fn next(&mut self) -> Result<Vec<Version>, StoreError> {
        while self.fetched.is_empty() {
            let after = self.after;
            if self.newest.wait_for(|newest| *newest > after).await.is_err() {
                return Err(StoreError::Io("the store is closed".into()));
            }
            self.fetched = self.store.since(after, PAGE).await?.into();
            if self.fetched.is_empty() {
                // What is known of the newest may be ahead of what one member shows.
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
        let revision = self.fetched.front().map_or(self.after, |version| version.revision);
        let end = self.fetched.iter().position(|version| version.revision != revision).unwrap_or(self.fetched.len());
        self.after = revision;
        Ok(self.fetched.drain(..end).collect())
    }
}
