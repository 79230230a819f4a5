//! Where revisions are kept. The store stores; it neither validates nor translates.

mod archive;
mod embedded;
mod etcd;
mod lease;
mod memory;
mod records;
mod watch;

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) use etcd::tests::Cluster;

pub use archive::{Archive, Restore};
pub use embedded::Embedded;
pub use etcd::{Etcd, EtcdSettings, EtcdTls};
pub use lease::{Hold, Leases, PRESENT};
pub use memory::Memory;
pub use records::{Append, Entry, News, RecordWrite, Records, Ring, fitting, read_again};
pub use watch::Watch;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::model::Key;

/// A point in the history; the first change is 1.
pub type Revision = u64;

/// Tells the wall-clock time in Unix milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// What is written.
    pub key: Key,
    /// The new value, `None` to delete.
    pub value: Option<Value>,
    /// Deleted by itself at this time (Unix milliseconds).
    pub expires_at_ms: Option<u64>,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// What is looked at.
    pub key: Key,
    /// Its modification revision; `None` demands that it does not exist.
    pub modified: Option<Revision>,
}

/// One transaction: writes that go ahead when all comparisons hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Txn {
    /// The newest revision that it was planned upon; when there is another one it is not tried.
    pub upon: Option<Revision>,
    /// What has to hold.
    pub compare: Vec<Compare>,
    /// What is written.
    pub writes: Vec<Write>,
    /// Who writes.
    pub author: Arc<str>,
}

/// What became of transactions that were handed over together.
#[derive(Debug, Default)]
pub struct Committed {
    /// The revisions of those that were carried out, the first ones in their order.
    pub revisions: Vec<Revision>,
    /// Why the one after them was not; those behind it were not tried.
    pub failed: Option<StoreError>,
}

/// One version of one resource in the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// What was written.
    pub key: Key,
    /// The revision that wrote it.
    pub revision: Revision,
    /// The revision that created it (equal to `revision` for a creation).
    pub created: Revision,
    /// The value, `None` when it was deleted.
    pub value: Option<Value>,
    /// Deleted by itself at this time (Unix milliseconds).
    pub expires_at_ms: Option<u64>,
    /// Who wrote it: an admin key's name, `provider:file`, `rollback` …
    pub author: Arc<str>,
    /// When, Unix milliseconds.
    pub time_ms: u64,
}

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A comparison failed: somebody else wrote in between.
    #[error("{key} is at revision {found:?}, not {expected:?}")]
    Conflict {
        /// What was looked at.
        key: Key,
        /// What the transaction expected.
        expected: Option<Revision>,
        /// What was found.
        found: Option<Revision>,
    },
    /// The newest revision is not the one that the transaction was planned upon; nothing was written, and it is to be planned anew.
    #[error("the newest revision is {found} by now")]
    Behind {
        /// The newest revision.
        found: Revision,
    },
    /// The disk is full or read-only; nothing was written.
    #[error(
        "the store cannot be written ({0}): free space below data_dir; traffic goes on, reads work, writes are refused until then"
    )]
    Full(String),
    /// The file is damaged or of a newer format; it was left as it is.
    #[error("{0}")]
    Unusable(String),
    /// A revision that compaction has removed, or that never was.
    #[error("revision {0} is not in the history (it keeps {1} and later)")]
    UnknownRevision(Revision, Revision),
    /// The store is on other machines and does not answer. Whether the write is stored may be open.
    #[error("{0}; traffic and reads go on, writes are refused until then. Look whether this one was stored before repeating it")]
    Away(String),
    /// A record that had to be as it was is not: another control plane wrote in between.
    #[error("the record {0} was changed by another control plane in between")]
    Changed(String),
    /// More than the store takes at once; nothing was written.
    #[error("{what} has {bytes} bytes, the store on etcd takes {most} bytes at most: split it")]
    TooLarge {
        /// What was to be written.
        what: String,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        most: usize,
    },
    /// Anything else of the disk.
    #[error("store: {0}")]
    Io(String),
}

/// Where revisions are kept. All implementations pass the same conformance suite.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes all or nothing as one new revision, durably before it returns. Of several writes to one key the last
    /// counts; deleting what does not exist does nothing, and a transaction that does nothing makes no revision: it
    /// returns the newest.
    async fn txn(&self, compare: Vec<Compare>, writes: Vec<Write>, author: Arc<str>) -> Result<Revision, StoreError>;
    /// Carries out transactions that build upon each other, one after the other, until one fails; what was carried out is durable
    /// before this returns. A store that can makes them durable all at once, which takes no longer than one.
    async fn txns(&self, txns: Vec<Txn>) -> Committed {
        let mut committed = Committed::default();
        for Txn { upon, compare, writes, author } in txns {
            let found = *self.newest().borrow();
            if upon.is_some_and(|upon| upon != found) {
                committed.failed = Some(StoreError::Behind { found });
                break;
            }
            match self.txn(compare, writes, author).await {
                Ok(revision) => committed.revisions.push(revision),
                Err(error) => {
                    committed.failed = Some(error);
                    break;
                }
            }
        }
        committed
    }
    /// Everything that exists at the newest revision, with that revision.
    async fn load(&self) -> Result<(Revision, Vec<Version>), StoreError>;
    /// Everything that existed at `revision`.
    async fn at(&self, revision: Revision) -> Result<Vec<Version>, StoreError>;
    /// Versions, newest first: of one key or of all, older than `before` when given, `limit` at most. Of all keys the
    /// last revision comes whole even beyond the limit, so that paging by `before` misses nothing.
    async fn history(&self, key: Option<Key>, before: Option<Revision>, limit: usize) -> Result<Vec<Version>, StoreError>;
    /// All versions of the revisions after `after`, oldest first; whole revisions, and no more of them once there are `most` versions.
    async fn since(&self, after: Revision, most: usize) -> Result<Vec<Version>, StoreError>;
    /// The newest revision that this store has heard of, whoever wrote it.
    fn newest(&self) -> tokio::sync::watch::Receiver<Revision>;
    /// How often the history turned out to be another one than it was: the store was set back to an older state, and what was known of it has to be
    /// read anew. Who listens to [`Store::newest`] is told whenever this grows.
    fn setbacks(&self) -> u64 {
        0
    }
    /// Resources, as `kind/id`, of kinds that this heddle does not know: a newer one that shares the store has written them. They are kept as they are.
    fn unknown(&self) -> Vec<String> {
        Vec::new()
    }
    /// Forgets revisions that are neither among the newest `keep_revisions` nor younger than `keep_ms`, and returns
    /// the oldest that [`Store::at`] still answers. What exists now is never forgotten, however old.
    async fn compact(&self, keep_revisions: u64, keep_ms: u64) -> Result<Revision, StoreError>;
}
