//! The keeper's task: one command after the other, each stored before it is published. It knows who asked only by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::keeper::{Board, Command, Scope};
use super::plan::{self, Plan};
use super::sources::Sources;
use super::{Applied, Expect, Intent, Options, Refused, State, Stored, Validator};
use crate::model::Key;
use crate::store::{Clock, Revision, Store, StoreError, Version};

/// The author of deletions by expiry.
const TTL_AUTHOR: &str = "ttl";

/// What the task owns.
pub(super) struct Core {
    store: Arc<dyn Store>,
    validator: Arc<dyn Validator>,
    clock: Clock,
    board: Arc<Board>,
    sources: Sources,
    /// A write failed in a way that leaves open whether it was stored.
    doubtful: bool,
}

/// The state that `store` holds, in a generation after `generation`.
pub(super) async fn load(store: &dyn Store, generation: u64) -> Result<State, StoreError> {
    let (revision, versions) = store.load().await?;
    let mut state = State { revision, generation: revision.max(generation), ..State::default() };
    for version in versions {
        if let Version { key, revision, created, value: Some(value), expires_at_ms, .. } = version {
            state.set(&key, Some(Arc::new(Stored { value, created, modified: revision, expires_at_ms })));
        }
    }
    Ok(state)
}

impl Core {
    pub(super) fn new(store: Arc<dyn Store>, validator: Arc<dyn Validator>, clock: Clock, board: Arc<Board>) -> Core {
        Core { store, validator, clock, board, sources: Sources::default(), doubtful: false }
    }

    /// Works until the last handle is gone. Who asked may have gone away before the answer; what was done stands.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.recv().await {
            match command {
                Command::Apply(intents, options, reply) => {
                    let _ = reply.send(self.apply(intents, options).await);
                }
                Command::Rollback(scope, to, options, reply) => {
                    let _ = reply.send(self.rollback(scope, to, options).await);
                }
                Command::Offer(updates, reply) => {
                    self.sources.offer(updates, (self.clock)());
                    self.adopt();
                    self.board.sources.store(Arc::new(self.sources.status()));
                    let _ = reply.send(());
                }
                Command::Sweep(reply) => {
                    let _ = reply.send(self.sweep().await);
                }
            }
        }
    }

    async fn apply(&mut self, intents: Vec<Intent>, options: Options) -> Result<Applied, Refused> {
        self.settle().await?;
        let base = self.board.published.state();
        if let Some(expected) = options.at_revision.filter(|expected| *expected != base.revision) {
            return Err(Refused::Moved { expected, found: base.revision });
        }
        let plan = plan::plan(&base, intents, &options, (self.clock)())?;
        let Plan { candidate, writes, compare, changed, outcomes } = plan;
        let exists = |key: &&Key| !options.force || candidate.get(key).is_some();
        let judged: Vec<Key> = changed.iter().filter(exists).cloned().collect();
        let faults = self.validator.check(&candidate, &judged);
        if !faults.is_empty() {
            return Err(Refused::Invalid(faults));
        }
        let state = Arc::new(candidate);
        let applied = Applied { revision: state.revision, outcomes, state: state.clone() };
        if options.dry_run || changed.is_empty() {
            return Ok(applied);
        }
        match self.store.txn(compare, writes, options.author).await {
            Ok(revision) if revision == state.revision => {
                self.board.trouble.store(Arc::new(None));
                self.board.published.publish(state, Some(changed));
                if self.sources.waiting() {
                    self.adopt();
                    self.board.sources.store(Arc::new(self.sources.status()));
                }
                Ok(applied)
            }
            Ok(revision) => {
                // Somebody else writes the same store; what is believed has to be read anew.
                self.doubtful = true;
                self.settle().await?;
                Ok(Applied { revision, ..applied })
            }
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// Learns from a failed write.
    async fn failed(&mut self, error: StoreError) -> Refused {
        self.doubtful = true;
        match error {
            StoreError::Conflict { key, expected, found } => {
                if let Err(error) = self.settle().await {
                    tracing::error!(%error, "the store was changed by somebody else and cannot be read");
                }
                Refused::Conflict { key, expected, found }
            }
            error => {
                tracing::error!(%error, "a change was refused by the store");
                self.board.trouble.store(Arc::new(Some(error.to_string())));
                Refused::Store(error)
            }
        }
    }

    /// Makes sure that what is believed is what is stored, when a write before left that open.
    async fn settle(&mut self) -> Result<(), Refused> {
        if !self.doubtful {
            return Ok(());
        }
        let before = self.board.published.state();
        let mut state = load(&*self.store, before.generation + 1).await?;
        self.doubtful = false;
        if state.revision != before.revision {
            for (key, stored) in before.all().filter(|(key, _)| key.provider().is_some()) {
                state.set(&key, Some(stored.clone()));
            }
            self.board.published.publish(Arc::new(state), None);
        }
        Ok(())
    }

    /// Takes over what waits in sources and is valid, until nothing more becomes valid by it.
    fn adopt(&mut self) {
        let mut base = self.board.published.state();
        while let Some(adoption) = self.sources.adopt(&base, &*self.validator, (self.clock)()) {
            base = Arc::new(adoption.candidate);
            if !adoption.changed.is_empty() {
                self.board.published.publish(base.clone(), Some(adoption.changed));
            }
        }
    }

    async fn rollback(&mut self, scope: Scope, to: Revision, options: Options) -> Result<Applied, Refused> {
        let now_ms = (self.clock)();
        let alive = |version: &Version| version.expires_at_ms.is_none_or(|at| at > now_ms);
        let past = self.store.at(to).await?.into_iter().filter(alive);
        let past: BTreeMap<Key, Version> = past.map(|version| (version.key.clone(), version)).collect();
        let state = self.board.published.state();
        let intents = match scope {
            Scope::Resource(key) => vec![match past.get(&key) {
                Some(version) => restore(version),
                None => Intent::delete(key),
            }],
            Scope::Everything => {
                let later = state.all().map(|(key, _)| key).filter(|key| key.provider().is_none() && !past.contains_key(key));
                later.map(Intent::delete).chain(past.values().map(restore)).collect()
            }
        };
        let author = format!("rollback by {} to {to}", options.author).into();
        self.apply(intents, Options { author, skip_unchanged: true, ..options }).await
    }

    async fn sweep(&mut self) -> Result<usize, Refused> {
        let now_ms = (self.clock)();
        let state = self.board.published.state();
        let intents: Vec<Intent> = state.expired(now_ms).cloned().map(Intent::delete).collect();
        if intents.is_empty() {
            return Ok(0);
        }
        let count = intents.len();
        self.apply(intents, Options { force: true, ..Options::by(TTL_AUTHOR) }).await?;
        Ok(count)
    }
}

/// Puts a version back. Its `update_time` is left to be filled in, for it is changed now.
fn restore(version: &Version) -> Intent {
    let mut value = version.value.clone().unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("update_time");
    }
    let (key, expires_at_ms) = (version.key.clone(), version.expires_at_ms);
    Intent::Put { key, value, expires_at_ms, expect: Expect::Any }
}
