//! A store that forgets everything with the process: for `heddle validate`, which has nothing to keep. It behaves like the embedded one.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Clock, Compare, Revision, Store, StoreError, Version, Write};
use crate::model::Key;

/// The store in memory.
pub struct Memory {
    clock: Clock,
    log: Mutex<Log>,
    newest: watch::Sender<Revision>,
}

#[derive(Default)]
struct Log {
    newest: Revision,
    floor: Revision,
    /// Oldest first.
    versions: Vec<Version>,
}

impl Memory {
    /// An empty store.
    pub fn new(clock: Clock) -> Memory {
        Memory { clock, log: Mutex::new(Log::default()), newest: watch::Sender::new(0) }
    }
}

impl Log {
    /// The newest version of each key at `revision`, deletions included.
    fn newest_at(&self, revision: Revision) -> BTreeMap<&Key, &Version> {
        let until = self.versions.iter().take_while(|version| version.revision <= revision);
        until.map(|version| (&version.key, version)).collect()
    }

    fn existing_at(&self, revision: Revision) -> Vec<Version> {
        let newest = self.newest_at(revision);
        newest.into_values().filter(|version| version.value.is_some()).cloned().collect()
    }

    fn apply(
        &mut self,
        compare: Vec<Compare>,
        writes: Vec<Write>,
        author: Arc<str>,
        time_ms: u64,
    ) -> Result<Revision, StoreError> {
        let newest = self.newest_at(self.newest);
        let existing = |key: &Key| newest.get(key).filter(|version| version.value.is_some());
        for Compare { key, modified: expected } in compare {
            let found = existing(&key).map(|version| version.revision);
            if found != expected {
                return Err(StoreError::Conflict { key, expected, found });
            }
        }
        let revision = self.newest + 1;
        let wanted: BTreeMap<Key, Write> = writes.into_iter().map(|write| (write.key.clone(), write)).collect();
        let mut added = Vec::new();
        for (key, Write { value, expires_at_ms, .. }) in wanted {
            let before = existing(&key).map(|version| version.created);
            if value.is_some() || before.is_some() {
                let created = before.unwrap_or(revision);
                let expires_at_ms = expires_at_ms.filter(|_| value.is_some());
                added.push(Version { key, revision, created, value, expires_at_ms, author: author.clone(), time_ms });
            }
        }
        if !added.is_empty() {
            self.newest = revision;
            self.versions.append(&mut added);
        }
        Ok(self.newest)
    }

    fn compact(&mut self, keep_revisions: u64, since_ms: u64) -> Revision {
        let by_count = self.newest.min((self.newest + 1).saturating_sub(keep_revisions));
        let young = self.versions.iter().find(|version| version.revision >= self.floor && version.time_ms > since_ms);
        let floor = young.map_or(by_count, |version| version.revision.min(by_count)).max(self.floor);
        let kept: Vec<Version> = {
            let newest = self.newest_at(floor);
            let needed = |version: &Version| {
                version.value.is_some() && newest.get(&version.key).is_some_and(|it| it.revision == version.revision)
            };
            self.versions.iter().filter(|version| version.revision >= floor || needed(version)).cloned().collect()
        };
        self.versions = kept;
        self.floor = floor;
        floor
    }
}

#[async_trait]
impl Store for Memory {
    async fn txn(&self, compare: Vec<Compare>, writes: Vec<Write>, author: Arc<str>) -> Result<Revision, StoreError> {
        let mut log = self.log.lock();
        let revision = log.apply(compare, writes, author, (self.clock)())?;
        self.newest.send_replace(log.newest);
        Ok(revision)
    }

    async fn load(&self) -> Result<(Revision, Vec<Version>), StoreError> {
        let log = self.log.lock();
        Ok((log.newest, log.existing_at(log.newest)))
    }

    async fn at(&self, revision: Revision) -> Result<Vec<Version>, StoreError> {
        let log = self.log.lock();
        if revision < log.floor || revision > log.newest {
            return Err(StoreError::UnknownRevision(revision, log.floor));
        }
        Ok(log.existing_at(revision))
    }

    async fn history(&self, key: Option<Key>, before: Option<Revision>, limit: usize) -> Result<Vec<Version>, StoreError> {
        let log = self.log.lock();
        let mut found: Vec<Version> = Vec::new();
        for version in log.versions.iter().rev().filter(|version| before.is_none_or(|before| version.revision < before)) {
            if key.as_ref().is_some_and(|key| *key != version.key) {
                continue;
            }
            if found.len() >= limit && (key.is_some() || found.last().is_none_or(|last| last.revision != version.revision)) {
                break;
            }
            found.push(version.clone());
        }
        Ok(found)
    }

    async fn since(&self, after: Revision, most: usize) -> Result<Vec<Version>, StoreError> {
        let log = self.log.lock();
        if after + 1 < log.floor {
            return Err(StoreError::UnknownRevision(after + 1, log.floor));
        }
        let mut found: Vec<Version> = Vec::new();
        for version in log.versions.iter().filter(|version| version.revision > after) {
            if found.len() >= most && found.last().is_none_or(|last| last.revision != version.revision) {
                break;
            }
            found.push(version.clone());
        }
        Ok(found)
    }

    fn newest(&self) -> watch::Receiver<Revision> {
        self.newest.subscribe()
    }

    async fn compact(&self, keep_revisions: u64, keep_ms: u64) -> Result<Revision, StoreError> {
        let since_ms = (self.clock)().saturating_sub(keep_ms);
        Ok(self.log.lock().compact(keep_revisions, since_ms))
    }
}
