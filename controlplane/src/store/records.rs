//! What is kept beside the configuration: records without history, and journals of bounded length. It knows neither what they mean nor any resource.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::StoreError;

/// Between two tries to read all records: the first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// One change of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordWrite {
    /// The record is this.
    Set(String, Vec<u8>),
    /// There is no such record.
    Remove(String),
    /// There is no such record, unless it is another one than this: then it stays.
    Withdraw(String, Vec<u8>),
    /// The record is the larger of this number and the one that is there. Numbers are eight bytes, most significant first.
    Raise(String, u64),
    /// The record has to be this (`None`: there must be none), or nothing is written and the answer is [`StoreError::Changed`].
    Require(String, Option<Vec<u8>>),
}

/// Records that were written, each with what it is now.
pub type News = Arc<[(String, Option<Vec<u8>>)]>;

/// Which journal. Each is bounded for itself, so that a flood in one pushes nothing out of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// What was done.
    Done,
    /// What was refused: strangers decide how much that is.
    Refused,
    /// What others say that they have refused: nodes decide how much that is.
    Reported,
}

impl Ring {
    /// All of them.
    pub const ALL: [Ring; 3] = [Ring::Done, Ring::Refused, Ring::Reported];
}

/// What is appended to a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Which.
    pub ring: Ring,
    /// The entry.
    pub body: Vec<u8>,
    /// Entries that this journal keeps, the newest ones.
    pub keep: u64,
}

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number; grows over all journals, never used twice.
    pub number: u64,
    /// What was appended.
    pub body: Vec<u8>,
}

/// All records, asked for until they can be read, after pauses that grow. `what` says in the log for whom.
pub async fn read_again(records: &dyn Records, what: &str, dice: &mut fastrand::Rng) -> Vec<(String, Vec<u8>)> {
    let mut pause = PAUSE.0;
    loop {
        match records.records().await {
            Ok(all) => return all,
            Err(error) => tracing::warn!(%error, "what others wrote down of {what} cannot be read yet; it is tried again"),
        }
        tokio::time::sleep(pause.mul_f64(0.5 + dice.f64() / 2.0)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Writes whose records a store takes that takes `most` bytes of each, and the names of the others.
pub fn fitting(writes: Vec<RecordWrite>, most: usize) -> (Vec<RecordWrite>, Vec<String>) {
    let mut refused = Vec::new();
    let fits = |write: &RecordWrite| match write {
        RecordWrite::Set(key, value) if value.len() > most => {
            refused.push(key.clone());
            false
        }
        _ => true,
    };
    let writes = writes.into_iter().filter(fits).collect();
    (writes, refused)
}

/// Records and the journals. They are no part of the configuration: a rollback does not touch them, and nobody is shown them as resources.
#[async_trait]
pub trait Records: Send + Sync {
    /// Writes everything or nothing, durably before it returns.
    async fn record(&self, writes: Vec<RecordWrite>, journal: Vec<Append>) -> Result<(), StoreError>;
    /// All records by key.
    async fn records(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
    /// Entries of a journal, newest first: older than `before` when given, `limit` at most.
    async fn journal(&self, ring: Ring, before: Option<u64>, limit: usize) -> Result<Vec<Entry>, StoreError>;
    /// Bytes of one record.
    fn most(&self) -> usize {
        usize::MAX
    }
    /// What is written from now on, by others as well as by ourselves, where several write; who lags behind, and who is told of nothing
    /// ([`News`] that are empty), reads all records again. `None` where nobody else can write.
    fn news(&self) -> Option<broadcast::Receiver<News>> {
        None
    }
}
