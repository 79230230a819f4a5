//! The store in one file of this machine (redb). It knows revisions and disks, not what the resources mean.

mod open;
mod overlay;
mod records;
mod reserve;
mod tables;
mod trouble;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::RwLock;
use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::{mpsc, oneshot, watch};

use super::archive::not_empty;
use super::{
    Append, Archive, Clock, Committed, Compare, Entry, RecordWrite, Records, Restore, Revision, Ring, Store, StoreError, Txn,
    Version, Write,
};
use crate::model::Key;
use tables::Reader;
use trouble::Trouble;
use writer::{Job, Writer};

/// The file below the data directory.
const FILE: &str = "heddle.redb";

/// Transactions that may wait for the disk before callers have to wait to hand theirs over.
const QUEUE: usize = 256;

/// The embedded store: ACID, one file, one writer thread, readers that never wait for it.
pub struct Embedded {
    shared: Arc<Shared>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    clock: Clock,
}

/// What readers and the writer share.
struct Shared {
    path: PathBuf,
    opened: RwLock<Opened>,
    newest: watch::Sender<Revision>,
}

/// The state of the file.
enum Opened {
    /// In order.
    Ready(Database),
    /// After a failed write: reading what was committed, until the file can be opened again.
    ReadOnly(Database),
    /// After a failed write, when even looking into the file failed.
    Closed,
}

impl Embedded {
    /// Opens `data_dir/heddle.redb`, or creates it when there is none. Blocks for as long as the check of the file takes.
    pub fn open(data_dir: &Path, clock: Clock) -> Result<Embedded, StoreError> {
        let path = data_dir.join(FILE);
        let database = open::open(&path)?;
        let newest = newest(&database).map_err(Trouble::into_error)?;
        let shared = Arc::new(Shared { path, opened: RwLock::new(Opened::Ready(database)), newest: watch::Sender::new(newest) });
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer { shared: shared.clone(), clock: clock.clone() };
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || writer.run(queue));
        let writer = Some(thread.map_err(|error| StoreError::Io(format!("cannot start the store's thread: {error}")))?);
        Ok(Embedded { shared, jobs: Some(jobs), writer, clock })
    }

    /// The file in a data directory.
    pub fn file(data_dir: &Path) -> PathBuf {
        data_dir.join(FILE)
    }

    /// Hands a job to the writer and waits for its answer.
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, StoreError> {
        let gone = || StoreError::Io("the store is closed".into());
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(make(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Runs `read` on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<Result<T, StoreError>, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.look(|txn| Reader::new(txn).and_then(|reader| read(&reader))).await
    }

    /// Runs `read` on what was committed last, on a thread that may block.
    async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<Result<T, StoreError>, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let opened = shared.opened.read();
            let (Opened::Ready(database) | Opened::ReadOnly(database)) = &*opened else {
                return Err(StoreError::Io("the file could not be opened again after a failed write".into()));
            };
            let txn = database.begin_read().map_err(|error| Trouble::from(error).into_error())?;
            read(&txn).map_err(Trouble::into_error)?
        });
        task.await.map_err(|error| StoreError::Io(format!("reading the store failed: {error}")))?
    }
}

/// The newest revision in the file.
fn newest(database: &Database) -> Result<Revision, Trouble> {
    Reader::new(&database.begin_read()?)?.newest()
}

impl Drop for Embedded {
    /// Finishes what was handed over, and closes the file.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // The writer catches its own panics, so there is nothing to learn from the thread's end.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn txn(&self, compare: Vec<Compare>, writes: Vec<Write>, author: Arc<str>) -> Result<Revision, StoreError> {
        let committed = self.txns(vec![Txn { upon: None, compare, writes, author }]).await;
        match (committed.failed, committed.revisions.first()) {
            (None, Some(revision)) => Ok(*revision),
            (failed, _) => Err(failed.unwrap_or_else(|| StoreError::Io("the writer gave no revision".into()))),
        }
    }

    async fn txns(&self, txns: Vec<Txn>) -> Committed {
        let answer = self.ask(|reply| Job::Txns { txns, reply }).await;
        answer.unwrap_or_else(|error| Committed { failed: Some(error), ..Committed::default() })
    }

    async fn load(&self) -> Result<(Revision, Vec<Version>), StoreError> {
        self.read(|reader| reader.load().map(Ok)).await
    }

    async fn at(&self, revision: Revision) -> Result<Vec<Version>, StoreError> {
        self.read(move |reader| reader.at(revision)).await
    }

    async fn history(&self, key: Option<Key>, before: Option<Revision>, limit: usize) -> Result<Vec<Version>, StoreError> {
        let before = before.unwrap_or(Revision::MAX);
        let read = move |reader: &Reader| match &key {
            Some(key) => reader.of(key, before, limit),
            None => reader.all(before, limit),
        };
        self.read(move |reader| read(reader).map(Ok)).await
    }

    async fn since(&self, after: Revision, most: usize) -> Result<Vec<Version>, StoreError> {
        self.read(move |reader| reader.since(after, most)).await
    }

    fn newest(&self) -> watch::Receiver<Revision> {
        self.shared.newest.subscribe()
    }

    async fn compact(&self, keep_revisions: u64, keep_ms: u64) -> Result<Revision, StoreError> {
        let since_ms = (self.clock)().saturating_sub(keep_ms);
        self.ask(|reply| Job::Compact { keep_revisions, since_ms, reply }).await?
    }
}

#[async_trait]
impl Records for Embedded {
    async fn record(&self, writes: Vec<RecordWrite>, journal: Vec<Append>) -> Result<(), StoreError> {
        self.ask(|reply| Job::Record { writes, journal, reply }).await?
    }

    async fn records(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.look(|txn| records::all(txn).map(Ok)).await
    }

    async fn journal(&self, ring: Ring, before: Option<u64>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.look(move |txn| records::journal(txn, ring, before.unwrap_or(u64::MAX), limit).map(Ok)).await
    }
}

#[async_trait]
impl Restore for Embedded {
    /// The file is open in this process alone, and whoever makes an archive does nothing else.
    async fn archive(&self) -> Result<Archive, StoreError> {
        Archive::at_rest(self).await
    }

    async fn restore(&self, archive: Archive) -> Result<(), StoreError> {
        if !self.records().await?.is_empty() {
            return Err(not_empty("the store"));
        }
        self.ask(|reply| Job::Restore { archive: Box::new(archive), reply }).await?
    }
}
