//! The one thread that writes the file. Transactions that wait together share one commit, and none is answered before it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{Durability, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::trouble::Trouble;
use super::{Opened, Shared, open, records, tables};
use crate::store::{Append, Archive, Clock, Committed, RecordWrite, Revision, StoreError, Txn};

/// Transactions that share one commit at most; more only makes the first of them wait longer.
const BATCH: usize = 64;

/// Work for the writer.
pub(super) enum Job {
    /// Write one revision after the other.
    Txns { txns: Vec<Txn>, reply: oneshot::Sender<Committed> },
    /// Forget old versions.
    Compact { keep_revisions: u64, since_ms: u64, reply: oneshot::Sender<Result<Revision, StoreError>> },
    /// Put a whole archive into the empty store.
    Restore { archive: Box<Archive>, reply: oneshot::Sender<Result<(), StoreError>> },
    /// Write records and append to the journals.
    Record { writes: Vec<RecordWrite>, journal: Vec<Append>, reply: oneshot::Sender<Result<(), StoreError>> },
}

/// What became of a job.
enum Answer {
    Committed(Committed),
    Compacted(Revision),
    Recorded(Result<(), StoreError>),
    Restored(Revision, Result<(), StoreError>),
}

impl Answer {
    /// The newest revision that was written.
    fn newest(&self) -> Option<Revision> {
        match self {
            Answer::Committed(committed) => committed.revisions.iter().max().copied(),
            Answer::Restored(newest, done) => done.is_ok().then_some(*newest),
            Answer::Compacted(_) | Answer::Recorded(_) => None,
        }
    }
}

/// The writer's side of the store.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
}

impl Writer {
    /// Works until every handle to the store is gone.
    pub(super) fn run(&self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut jobs = vec![first];
            while jobs.len() < BATCH {
                match queue.try_recv() {
                    Ok(job) => jobs.push(job),
                    Err(_) => break,
                }
            }
            self.commit(jobs);
        }
    }

    /// Carries out all jobs in one commit, and answers them.
    fn commit(&self, jobs: Vec<Job>) {
        let result = self.ready().and_then(|()| {
            let attempt = catch_unwind(AssertUnwindSafe(|| self.write(&jobs)));
            let result = attempt.unwrap_or_else(|_| Err(Trouble::Damaged("its pages contradict each other".into())));
            result.inspect_err(|_| self.fail())
        });
        if let Ok(answers) = &result {
            let written = answers.iter().filter_map(Answer::newest).max();
            self.shared.newest.send_if_modified(|newest| {
                written.is_some_and(|written| {
                    *newest < written && {
                        *newest = written;
                        true
                    }
                })
            });
        }
        match result {
            Ok(answers) => jobs.into_iter().zip(answers).for_each(|(job, answer)| job.answer(answer)),
            Err(trouble) => jobs.into_iter().for_each(|job| job.refuse(trouble.clone().into_error())),
        }
    }

    fn write(&self, jobs: &[Job]) -> Result<Vec<Answer>, Trouble> {
        let opened = self.shared.opened.read();
        let Opened::Ready(database) = &*opened else {
            return Err(Trouble::Io("the file is not open".into()));
        };
        let mut txn = database.begin_write()?;
        txn.set_durability(Durability::Immediate).map_err(|error| Trouble::Io(error.to_string()))?;
        let now_ms = (self.clock)();
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            answers.push(match job {
                Job::Txns { txns, .. } => Answer::Committed(carry_out(&txn, txns, now_ms)?),
                Job::Compact { keep_revisions, since_ms, .. } => {
                    Answer::Compacted(tables::compact(&txn, *keep_revisions, *since_ms)?)
                }
                Job::Restore { archive, .. } => {
                    let restored = tables::restore(&txn, archive)?;
                    if restored.is_ok() {
                        records::restore(&txn, archive)?;
                    }
                    Answer::Restored(archive.newest, restored)
                }
                Job::Record { writes, journal, .. } => Answer::Recorded(records::write(&txn, writes, journal)?),
            });
        }
        txn.commit()?;
        Ok(answers)
    }

    /// After a failed write redb refuses everything until the file is opened again, so it is opened again: for reading
    /// at once, for writing when the next write asks for it (there may be space by then).
    fn fail(&self) {
        let mut opened = self.shared.opened.write();
        *opened = Opened::Closed;
        match open::look(&self.shared.path) {
            Ok(database) => *opened = Opened::ReadOnly(database),
            Err(error) => tracing::error!(%error, "the store cannot be read after a failed write"),
        }
    }

    /// Makes sure that the file is open for writing.
    fn ready(&self) -> Result<(), Trouble> {
        if matches!(*self.shared.opened.read(), Opened::Ready(_)) {
            return Ok(());
        }
        let mut opened = self.shared.opened.write();
        *opened = Opened::Closed;
        match open::existing(&self.shared.path) {
            Ok(database) => {
                tracing::info!("the store can be written again");
                *opened = Opened::Ready(database);
                Ok(())
            }
            Err(error) => {
                *opened = open::look(&self.shared.path).map_or(Opened::Closed, Opened::ReadOnly);
                Err(match error {
                    StoreError::Full(what) => Trouble::Full(what),
                    error => Trouble::Io(error.to_string()),
                })
            }
        }
    }
}

/// One transaction after the other, until one cannot be carried out.
fn carry_out(txn: &WriteTransaction, txns: &[Txn], now_ms: u64) -> Result<Committed, Trouble> {
    let mut committed = Committed::default();
    for Txn { upon, compare, writes, author } in txns {
        if let Some(upon) = upon {
            let found = tables::newest(txn)?;
            if found != *upon {
                committed.failed = Some(StoreError::Behind { found });
                break;
            }
        }
        match tables::apply(txn, compare, writes, author, now_ms)? {
            Ok(revision) => committed.revisions.push(revision),
            Err(error) => {
                committed.failed = Some(error);
                break;
            }
        }
    }
    Ok(committed)
}

impl Job {
    /// Whoever asked may have gone away; the revision stands all the same.
    fn answer(self, answer: Answer) {
        match (self, answer) {
            (Job::Txns { reply, .. }, Answer::Committed(committed)) => drop(reply.send(committed)),
            (Job::Compact { reply, .. }, Answer::Compacted(floor)) => drop(reply.send(Ok(floor))),
            (Job::Record { reply, .. }, Answer::Recorded(done)) => drop(reply.send(done)),
            (Job::Restore { reply, .. }, Answer::Restored(_, done)) => drop(reply.send(done)),
            (job, _) => job.refuse(StoreError::Io("the writer mixed its answers up".into())),
        }
    }

    /// Nothing of it was stored.
    fn refuse(self, error: StoreError) {
        match self {
            Job::Txns { reply, .. } => drop(reply.send(Committed { failed: Some(error), ..Committed::default() })),
            Job::Compact { reply, .. } => drop(reply.send(Err(error))),
            Job::Record { reply, .. } | Job::Restore { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}
