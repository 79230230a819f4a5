//! The stream of changes: what the history holds first, then what happens, without gap or repeat. It knows no messages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::{Key, ResourceKind};
use crate::state::{Keeper, State, Stored, Subscription};
use crate::store::{Revision, StoreError, Version};

/// Versions that are read from the history at a time.
const PAGE: usize = 500;

/// Versions that may lie between a watcher and the present; one that is further behind has to list again.
const MOST_BEHIND: usize = 20_000;

/// Changes of one event; a larger revision comes in several, so that none is too large for a message.
const MOST_TOGETHER: usize = 500;

/// What one revision, or one report of a provider, changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// The newest revision of the store at that time.
    pub(super) revision: Revision,
    /// Who did it.
    pub(super) author: Arc<str>,
    /// What exists now, and what does not any more.
    pub(super) changes: Vec<(Key, Option<Arc<Stored>>)>,
}

/// A watcher's place in the stream.
pub(super) struct Watcher {
    keeper: Keeper,
    subscription: Subscription,
    /// What it has been told of the store.
    told: Revision,
    /// How often the store had been set back then.
    setbacks: u64,
    /// What it has been told of providers.
    seen: Arc<State>,
    /// Collections of interest, empty for all.
    kinds: Vec<ResourceKind>,
    /// Told next.
    pending: VecDeque<Event>,
}

impl Watcher {
    /// Starts after revision `after`, or now.
    pub(super) async fn new(keeper: Keeper, after: Option<Revision>, kinds: Vec<ResourceKind>) -> Result<Watcher, StoreError> {
        let setbacks = keeper.setbacks();
        let (seen, subscription) = keeper.subscribe();
        let told = after.unwrap_or(seen.revision);
        if told != seen.revision {
            // Says so when the history does not reach back to it.
            keeper.at(told).await?;
        }
        let mut watcher = Watcher { keeper, subscription, told, setbacks, seen, kinds, pending: VecDeque::new() };
        watcher.catch_up().await?;
        Ok(watcher)
    }

    /// Waits for the next event. Dropping the future loses nothing but time.
    pub(super) async fn next(&mut self) -> Result<Event, StoreError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            let changes = self.subscription.next().await;
            if self.keeper.setbacks() != self.setbacks {
                // What was told is not the history any more: whoever watches lists again.
                return Err(StoreError::UnknownRevision(self.told, changes.state.revision));
            }
            self.catch_up().await?;
            self.providers(changes.state, changes.keys);
        }
    }

    /// Queues what the store has got since the watcher was told.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let (mut missed, mut before): (Vec<Version>, _) = (Vec::new(), None);
        loop {
            let page = self.keeper.history(None, before, PAGE).await?;
            let last = page.last().map_or(0, |version| version.revision);
            missed.extend(page.into_iter().filter(|version| version.revision > self.told));
            if last <= self.told + 1 {
                break;
            }
            if missed.len() > MOST_BEHIND {
                return Err(StoreError::UnknownRevision(self.told, last));
            }
            before = Some(last);
        }
        missed.reverse();
        for group in missed.chunk_by(|a, b| a.revision == b.revision) {
            self.told = group[0].revision;
            let change = |version: &Version| {
                let stored = |value| Stored {
                    value,
                    created: version.created,
                    modified: version.revision,
                    expires_at_ms: version.expires_at_ms,
                };
                (version.key.clone(), version.value.clone().map(stored).map(Arc::new))
            };
            let changes = group.iter().map(change).collect();
            self.queue(group[0].revision, group[0].author.clone(), changes);
        }
        Ok(())
    }

    /// Queues what providers have changed since the watcher was told.
    fn providers(&mut self, state: Arc<State>, keys: Option<Vec<Key>>) {
        let keys = keys.unwrap_or_else(|| self.seen.all().chain(state.all()).map(|(key, _)| key).collect());
        let mut by_provider: BTreeMap<String, BTreeMap<Key, Option<Arc<Stored>>>> = BTreeMap::new();
        for key in keys {
            let (before, after) = (self.seen.get(&key), state.get(&key));
            if let Some(provider) = key.provider().filter(|_| before != after) {
                by_provider.entry(format!("provider:{provider}")).or_default().insert(key.clone(), after.cloned());
            }
        }
        for (author, changes) in by_provider {
            self.queue(state.revision, author.into(), changes.into_iter().collect());
        }
        self.seen = state;
    }

    fn queue(&mut self, revision: Revision, author: Arc<str>, mut changes: Vec<(Key, Option<Arc<Stored>>)>) {
        changes.retain(|(key, _)| self.kinds.is_empty() || self.kinds.contains(&key.kind));
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(MOST_TOGETHER));
            self.pending.push_back(Event { revision, author: author.clone(), changes });
            changes = rest;
        }
    }
}
