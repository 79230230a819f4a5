//! The keeper's task: one command after the other, each stored before it is published. It knows who asked only by name.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::keeper::{Board, Command, Scope};
use super::plan::{self, Plan};
use super::sources::Sources;
use super::{Applied, Expect, Intent, Options, Outcome, Refused, State, Stored, Validator};
use crate::model::Key;
use crate::store::{Clock, Revision, Store, StoreError, Txn, Version};

/// Transactions that are made durable together at most; more only makes the first of them wait longer.
const GROUP: usize = 64;

/// Versions of other writers that are taken over together.
const PAGE: usize = 1_000;

/// Times that a change is planned anew because others write at the same time.
const AGAIN: usize = 50;

/// Of these, how many without a pause, and how long it is.
const QUICK: usize = 5;
/// See [`QUICK`].
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Before what others wrote is read again when it could not be.
const RETRY: std::time::Duration = std::time::Duration::from_millis(200);

/// The author of deletions by expiry.
const TTL_AUTHOR: &str = "ttl";

/// A transaction that somebody waits for.
struct Wish {
    intents: Vec<Intent>,
    options: Options,
    reply: oneshot::Sender<Result<Applied, Refused>>,
}

/// A transaction that was planned and found valid.
enum Judged {
    /// It is to be stored.
    Change(Change),
    /// There is nothing to store.
    Nothing(Applied),
}

/// What is to be stored, and what is believed then.
struct Change {
    state: Arc<State>,
    txn: Txn,
    changed: Vec<Key>,
    outcomes: Vec<Outcome>,
}

/// What the task owns.
pub(super) struct Core {
    store: Arc<dyn Store>,
    validator: Arc<dyn Validator>,
    clock: Clock,
    board: Arc<Board>,
    sources: Sources,
    /// The newest revision, whoever wrote it.
    newest: watch::Receiver<Revision>,
    /// How often the store had been set back when it was read last.
    setbacks: u64,
    /// A write failed in a way that leaves open whether it was stored.
    doubtful: bool,
    /// The store did not answer.
    away: bool,
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
    /// `setbacks` is how often the store had been set back before it was read.
    pub(super) fn new(
        store: Arc<dyn Store>,
        validator: Arc<dyn Validator>,
        clock: Clock,
        board: Arc<Board>,
        setbacks: u64,
    ) -> Core {
        let newest = store.newest();
        Core { store, validator, clock, board, sources: Sources::default(), newest, setbacks, doubtful: false, away: false }
    }

    /// Works until the last handle is gone. Who asked may have gone away before the answer; what was done stands.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut next = self.next(&mut queue).await;
        while let Some(command) = next.take() {
            match command {
                Command::Apply(intents, options, reply) => {
                    let mut wishes = VecDeque::from([Wish { intents, options, reply }]);
                    while wishes.len() < GROUP {
                        match queue.try_recv() {
                            Ok(Command::Apply(intents, options, reply)) => wishes.push_back(Wish { intents, options, reply }),
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.fulfil(wishes).await;
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
                Command::Sweep(deletes, reply) => {
                    let _ = reply.send(self.sweep(deletes).await);
                }
            }
            if next.is_none() {
                next = self.next(&mut queue).await;
            }
        }
    }

    /// The next command; what others write is taken over meanwhile.
    async fn next(&mut self, queue: &mut mpsc::Receiver<Command>) -> Option<Command> {
        loop {
            let state = self.board.published.state();
            let known = state.revision;
            let mut newest = self.newest.clone();
            let differs = |newest: &Revision| *newest != known || self.store.setbacks() != self.setbacks;
            let written = async { newest.wait_for(differs).await.is_ok() };
            tokio::select! {
                biased;
                command = queue.recv() => return command,
                true = written => {}
                else => return queue.recv().await,
            }
            let followed = self.follow().await;
            // What changes nothing is not done again at once.
            match followed {
                Ok(()) if self.board.published.state().generation != state.generation => continue,
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "what others wrote cannot be read yet"),
            }
            tokio::select! {
                command = queue.recv() => return command,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Takes over what others have written.
    async fn follow(&mut self) -> Result<(), StoreError> {
        loop {
            let before = self.board.published.state();
            let newest = *self.newest.borrow();
            if newest < before.revision || self.store.setbacks() != self.setbacks {
                return self.reload().await;
            }
            if newest == before.revision {
                return Ok(());
            }
            let versions = match self.store.since(before.revision, PAGE).await {
                Err(StoreError::UnknownRevision(..)) => {
                    self.doubtful = true;
                    return self.reload().await;
                }
                versions => versions?,
            };
            let Some(revision) = versions.last().map(|version| version.revision) else {
                // Nothing that is known here was written, or who was asked lags behind: a majority says which.
                return self.reload().await;
            };
            let mut state = (*before).clone();
            let mut keys = BTreeSet::new();
            for Version { key, revision, created, value, expires_at_ms, .. } in versions {
                let stored = value.map(|value| Arc::new(Stored { value, created, modified: revision, expires_at_ms }));
                state.set(&key, stored);
                keys.insert(key);
            }
            state.revision = revision;
            state.generation = revision.max(before.generation + 1);
            self.board.published.publish(Arc::new(state), Some(keys.into_iter().collect()));
            self.look_at_sources();
        }
    }

    /// What waits in sources may have become valid.
    fn look_at_sources(&mut self) {
        if self.sources.waiting() {
            self.adopt();
            self.board.sources.store(Arc::new(self.sources.status()));
        }
    }

    /// Carries out what waits together: each is judged upon those before it, and all are made durable at once.
    async fn fulfil(&mut self, mut wishes: VecDeque<Wish>) {
        let mut in_vain = 0;
        while !wishes.is_empty() {
            let mut base = match self.settle().await {
                Ok(()) => self.board.published.state(),
                Err(Refused::Store(StoreError::Away(why))) => {
                    // Whoever waits longer waits for the same.
                    for wish in wishes.drain(..) {
                        let _ = wish.reply.send(Err(Refused::Store(StoreError::Away(why.clone()))));
                    }
                    return;
                }
                Err(error) => {
                    if let Some(wish) = wishes.pop_front() {
                        let _ = wish.reply.send(Err(error));
                    }
                    continue;
                }
            };
            let (mut asked, mut judged) = (Vec::new(), Vec::new());
            while let Some(wish) = wishes.pop_front() {
                match self.judge(&base, wish.intents.clone(), &wish.options) {
                    Ok(Judged::Change(change)) => {
                        base = change.state.clone();
                        judged.push(change);
                        asked.push(wish);
                    }
                    Ok(Judged::Nothing(applied)) if judged.is_empty() => drop(wish.reply.send(Ok(applied))),
                    Err(refused) if judged.is_empty() => drop(wish.reply.send(Err(refused))),
                    // Nobody is told something that rests on what is not stored yet.
                    _ => {
                        wishes.push_front(wish);
                        break;
                    }
                }
            }
            if in_vain == AGAIN {
                for wish in asked.drain(..).chain(wishes.drain(..)) {
                    let _ = wish.reply.send(Err(Refused::Store(StoreError::Behind { found: *self.newest.borrow() })));
                }
                return;
            }
            let tried = !judged.is_empty();
            let answers = self.store(judged).await;
            in_vain = if tried && answers.is_empty() { in_vain + 1 } else { 0 };
            if in_vain > QUICK {
                tokio::time::sleep(PAUSE).await;
            }
            for wish in asked.split_off(answers.len().min(asked.len())).into_iter().rev() {
                wishes.push_front(wish);
            }
            asked.into_iter().zip(answers).for_each(|(wish, answer)| drop(wish.reply.send(answer)));
        }
    }

    /// Carries out one transaction.
    async fn apply(&mut self, intents: Vec<Intent>, options: Options) -> Result<Applied, Refused> {
        for _ in 0..AGAIN {
            self.settle().await?;
            match self.judge(&self.board.published.state(), intents.clone(), &options)? {
                Judged::Change(change) => {
                    // No answer: others wrote in between.
                    if let Some(answer) = self.store(vec![change]).await.pop() {
                        return answer;
                    }
                }
                Judged::Nothing(applied) => return Ok(applied),
            }
        }
        Err(Refused::Store(StoreError::Behind { found: *self.newest.borrow() }))
    }

    /// Plans a transaction upon `base` and has it validated.
    fn judge(&self, base: &Arc<State>, intents: Vec<Intent>, options: &Options) -> Result<Judged, Refused> {
        if let Some(expected) = options.at_revision.filter(|expected| *expected != base.revision) {
            return Err(Refused::Moved { expected, found: base.revision });
        }
        let plan = plan::plan(base, intents, options, (self.clock)())?;
        let Plan { candidate, writes, compare, changed, outcomes } = plan;
        let exists = |key: &&Key| !options.force || candidate.get(key).is_some();
        let judged: Vec<Key> = changed.iter().filter(exists).cloned().collect();
        let faults = self.validator.check(&candidate, &judged);
        if !faults.is_empty() {
            return Err(Refused::Invalid(faults));
        }
        let state = Arc::new(candidate);
        if options.dry_run || changed.is_empty() {
            return Ok(Judged::Nothing(Applied { revision: state.revision, outcomes, state }));
        }
        let txn = Txn { upon: Some(base.revision), compare, writes, author: options.author.clone() };
        Ok(Judged::Change(Change { state, txn, changed, outcomes }))
    }

    /// Stores changes that build upon each other and publishes what was stored. The answers are those up to the first that
    /// failed; what is behind it was not tried. What others have written in between is no failure: it is taken over, and there are
    /// answers only to what was stored before it.
    async fn store(&mut self, changes: Vec<Change>) -> Vec<Result<Applied, Refused>> {
        if changes.is_empty() {
            return Vec::new();
        }
        let (mut txns, mut pending) = (Vec::with_capacity(changes.len()), Vec::with_capacity(changes.len()));
        for Change { state, txn, changed, outcomes } in changes {
            txns.push(txn);
            pending.push((state, changed, outcomes));
        }
        let committed = self.store.txns(txns).await;
        let (mut answers, mut keys, mut newest) = (Vec::new(), BTreeSet::new(), None);
        for (revision, (state, changed, outcomes)) in committed.revisions.into_iter().zip(pending) {
            if revision == state.revision && !self.doubtful {
                keys.extend(changed);
                newest = Some(state.clone());
            } else {
                // Somebody else writes the same store; what is believed has to be read anew.
                self.doubtful = true;
            }
            answers.push(Ok(Applied { revision, outcomes, state }));
        }
        if let Some(state) = newest {
            self.board.trouble.store(Arc::new(None));
            self.board.published.publish(state, Some(keys.into_iter().collect()));
            self.look_at_sources();
        }
        if let Some(StoreError::Behind { .. }) = committed.failed {
            if let Err(error) = self.follow().await {
                tracing::warn!(%error, "what others wrote cannot be read yet");
                self.doubtful = true;
            }
        } else if let Some(error) = committed.failed {
            answers.push(Err(self.failed(error).await));
        } else if self.doubtful
            && let Err(error) = self.settle().await
        {
            tracing::error!(%error, "the store was changed by somebody else and cannot be read");
        }
        answers
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
                self.away = matches!(error, StoreError::Away(_));
                tracing::error!(%error, "a change was refused by the store");
                self.board.trouble.store(Arc::new(Some(error.to_string())));
                Refused::Store(error)
            }
        }
    }

    /// Makes sure that what is believed is what is stored, when a write before left that open.
    async fn settle(&mut self) -> Result<(), Refused> {
        if self.doubtful {
            self.reload().await?;
        }
        Ok(())
    }

    /// Reads everything anew.
    async fn reload(&mut self) -> Result<(), StoreError> {
        let (before, setbacks) = (self.board.published.state(), self.store.setbacks());
        let mut state = load(&*self.store, before.generation + 1).await?;
        let is_other = std::mem::replace(&mut self.setbacks, setbacks) != setbacks || state.revision < before.revision;
        self.doubtful = false;
        if is_other {
            let (known, found) = (before.revision, state.revision);
            tracing::warn!(known, found, "the configuration is what the store holds now that it was set back");
        }
        if std::mem::take(&mut self.away) || is_other {
            tracing::info!("the store answers again");
            self.board.trouble.store(Arc::new(None));
        }
        if is_other || state.revision != before.revision {
            for (key, stored) in before.all().filter(|(key, _)| key.provider().is_some()) {
                state.set(&key, Some(stored.clone()));
            }
            self.board.published.publish(Arc::new(state), None);
            self.look_at_sources();
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

    async fn sweep(&mut self, deletes: bool) -> Result<usize, Refused> {
        if self.away {
            self.settle().await?;
        }
        if !deletes {
            return Ok(0);
        }
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
