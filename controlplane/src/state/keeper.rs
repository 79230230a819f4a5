//! The one place where the configuration changes. It orders writes, asks for their validation, stores them and tells everybody; it knows no HTTP and no file.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::changes::{Published, Subscription};
use super::task::Core;
use super::{Applied, Intent, Options, Refused, SourceStatus, State, Update, Validator};
use crate::model::Key;
use crate::store::{Clock, Revision, Store, StoreError, Version};

/// Writes that may wait for their turn before callers have to wait to hand theirs over.
const QUEUE: usize = 64;

/// What a rollback brings back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One resource.
    Resource(Key),
    /// Everything that is kept in the store. What providers supply stays as it is.
    Everything,
}

/// What can be asked of the keeper's task.
pub(super) enum Command {
    Apply(Vec<Intent>, Options, oneshot::Sender<Result<Applied, Refused>>),
    Rollback(Scope, Revision, Options, oneshot::Sender<Result<Applied, Refused>>),
    Offer(Vec<Update>, oneshot::Sender<()>),
    Sweep(bool, oneshot::Sender<Result<usize, Refused>>),
}

/// What the task shows to everybody without being asked.
pub(super) struct Board {
    pub(super) published: Arc<Published>,
    pub(super) sources: ArcSwap<Vec<SourceStatus>>,
    pub(super) trouble: ArcSwap<Option<String>>,
}

/// A handle to the keeper; clones lead to the same one. It ends with its last handle.
#[derive(Clone)]
pub struct Keeper {
    commands: mpsc::Sender<Command>,
    board: Arc<Board>,
    store: Arc<dyn Store>,
}

impl Keeper {
    /// Reads the store and starts the keeper's task on the present runtime.
    pub async fn start(store: Arc<dyn Store>, validator: Arc<dyn Validator>, clock: Clock) -> Result<Keeper, StoreError> {
        let setbacks = store.setbacks();
        let state = super::task::load(&*store, 0).await?;
        let board = Arc::new(Board {
            published: Arc::new(Published::new(state)),
            sources: ArcSwap::default(),
            trouble: ArcSwap::default(),
        });
        let (commands, queue) = mpsc::channel(QUEUE);
        let core = Core::new(store.clone(), validator, clock, board.clone(), setbacks);
        tokio::spawn(core.run(queue));
        Ok(Keeper { commands, board, store })
    }

    /// What is believed now. Never waits.
    pub fn state(&self) -> Arc<State> {
        self.board.published.state()
    }

    /// What is believed now, and everything that comes after it.
    pub fn subscribe(&self) -> (Arc<State>, Subscription) {
        self.board.published.subscribe()
    }

    /// How the sources of the providers stand. Never waits.
    pub fn sources(&self) -> Arc<Vec<SourceStatus>> {
        self.board.sources.load_full()
    }

    /// Why the store could not be written the last time it was tried, `None` when it could. Never waits.
    pub fn trouble(&self) -> Option<String> {
        (**self.board.trouble.load()).clone()
    }

    /// How often the history turned out to be another one; see [`Store::setbacks`].
    pub fn setbacks(&self) -> u64 {
        self.store.setbacks()
    }

    /// Resources of kinds that this heddle does not know; see [`Store::unknown`].
    pub fn unknown(&self) -> Vec<String> {
        self.store.unknown()
    }

    /// Carries out a transaction: all of it or nothing, durably before this returns. Dropping the future does not undo it.
    pub async fn apply(&self, intents: Vec<Intent>, options: Options) -> Result<Applied, Refused> {
        self.ask(|reply| Command::Apply(intents, options, reply)).await?
    }

    /// Makes a new revision in which `scope` is as it was at `to`. What has expired since stays away.
    pub async fn rollback(&self, scope: Scope, to: Revision, options: Options) -> Result<Applied, Refused> {
        self.ask(|reply| Command::Rollback(scope, to, options, reply)).await?
    }

    /// Takes over what sources of providers hold now, as far as it is valid; [`Keeper::sources`] tells what became of it.
    pub async fn offer(&self, updates: Vec<Update>) -> Result<(), Refused> {
        self.ask(|reply| Command::Offer(updates, reply)).await
    }

    /// Looks whether a store that did not answer does again; deletes what has expired when this is who `deletes`, and says how many that were.
    pub async fn sweep(&self, deletes: bool) -> Result<usize, Refused> {
        self.ask(|reply| Command::Sweep(deletes, reply)).await?
    }

    /// Versions, newest first; see [`Store::history`].
    pub async fn history(&self, key: Option<Key>, before: Option<Revision>, limit: usize) -> Result<Vec<Version>, StoreError> {
        self.store.history(key, before, limit).await
    }

    /// Everything that the store held at `revision`; see [`Store::at`].
    pub async fn at(&self, revision: Revision) -> Result<Vec<Version>, StoreError> {
        self.store.at(revision).await
    }

    /// Forgets old revisions; see [`Store::compact`].
    pub async fn compact(&self, keep_revisions: u64, keep_ms: u64) -> Result<Revision, StoreError> {
        self.store.compact(keep_revisions, keep_ms).await
    }

    /// What `proposed` would change; see [`super::diff`].
    pub fn diff(&self, proposed: &[(Key, Option<Value>)]) -> Vec<super::Difference> {
        super::diff(&self.state(), proposed)
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(make(reply)).await.map_err(|_| Refused::Closed)?;
        answer.await.map_err(|_| Refused::Closed)
    }
}
