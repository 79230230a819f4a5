//! Putting a whole archive into an empty cluster: `head` comes last, so that until then there is nothing. It knows no file.

use std::collections::BTreeMap;

use async_trait::async_trait;
use heddle_proto::etcd::etcdserverpb::RequestOp;

use super::Etcd;
use super::client::{delete_range, end_of, put, unchanged};
use super::commit::token;
use super::layout::{Entry, FORMAT, Floor, Head, Kept, MOST_PARTS, PART, RecordHead, Written, json, name};
use crate::store::archive::not_empty;
use crate::store::{Archive, Restore, Revision, StoreError, Version};

/// Bytes, and operations, that are written together.
const TOGETHER: (usize, usize) = (512 << 10, 100);

#[async_trait]
impl Restore for Etcd {
    async fn restore(&self, archive: Archive) -> Result<(), StoreError> {
        if self.ends().await?.head.is_some() || !self.all_records().await?.is_empty() {
            return Err(not_empty("the store on etcd"));
        }
        self.clear().await?;
        let token = token()?;
        let mut batch = Vec::new();
        let (base, log): (Vec<Version>, Vec<Version>) =
            archive.versions.iter().cloned().partition(|version| version.revision < archive.floor);
        for (revision, entry) in entries(log, &token) {
            let bytes = json(&entry)?;
            if bytes.len() > PART {
                let count = bytes.chunks(PART).count();
                if count > MOST_PARTS {
                    return Err(StoreError::Io(format!("revision {revision} is too large for the store on etcd")));
                }
                for (number, part) in bytes.chunks(PART).enumerate() {
                    self.add(&mut batch, self.keys.part(&token, revision, number), part.to_vec()).await?;
                }
                let pointer = Entry { writes: Vec::new(), parts: count, ..entry };
                self.add(&mut batch, self.keys.log(revision), json(&pointer)?).await?;
            } else {
                self.add(&mut batch, self.keys.log(revision), bytes).await?;
            }
        }
        let existing = existing(base, &archive);
        let parts = if archive.floor > 0 { self.lay_down(archive.floor, existing).await? } else { 0 };
        for (key, value) in &archive.records {
            self.add(&mut batch, self.keys.record(key), value.clone()).await?;
        }
        let journal = archive.entries().map(|(_, entry)| entry.number).max().unwrap_or(0);
        for (ring, entry) in archive.entries() {
            self.add(&mut batch, self.keys.journal(ring, entry.number), entry.body.clone()).await?;
        }
        let (done, refused) = (archive.done.len() as u64, archive.refused.len() as u64);
        self.flush(&mut batch).await?;
        let head = Head { format: FORMAT, revision: archive.newest, token: token.clone() };
        let success = vec![
            put(&self.keys.floor(), json(&Floor { revision: archive.floor, parts })?),
            put(&self.keys.record_head(), json(&RecordHead { journal, done, refused, token })?),
            put(&self.keys.head(), json(&head)?),
        ];
        if !self.when(vec![unchanged(&self.keys.head(), 0)], success).await? {
            return Err(StoreError::Unusable(
                "somebody wrote to the store on etcd meanwhile; stop all control planes and begin anew".into(),
            ));
        }
        let _turn = self.turn.lock().await;
        *self.mirror.lock() = None;
        self.catch_up().await.map(drop)
    }
}

impl Etcd {
    /// Removes everything, `head` first, so that nothing is ever half there. No control plane may run meanwhile.
    ///
    /// # Errors
    /// The cluster does not answer; what is left is no store.
    pub async fn clear(&self) -> Result<(), StoreError> {
        let all = &self.keys.0;
        self.when(Vec::new(), vec![delete_range(&self.keys.head(), Vec::new())]).await?;
        self.when(Vec::new(), vec![delete_range(all, end_of(all))]).await?;
        *self.mirror.lock() = None;
        Ok(())
    }

    /// Puts a key, together with others.
    async fn add(&self, batch: &mut Vec<(String, Vec<u8>)>, key: String, value: Vec<u8>) -> Result<(), StoreError> {
        let bytes: usize = batch.iter().map(|(key, value)| key.len() + value.len()).sum();
        if batch.len() >= TOGETHER.1 || bytes + value.len() > TOGETHER.0 {
            self.flush(batch).await?;
        }
        batch.push((key, value));
        Ok(())
    }

    async fn flush(&self, batch: &mut Vec<(String, Vec<u8>)>) -> Result<(), StoreError> {
        let ops: Vec<RequestOp> = std::mem::take(batch).into_iter().map(|(key, value)| put(&key, value)).collect();
        if !ops.is_empty() {
            self.when(Vec::new(), ops).await?;
        }
        Ok(())
    }
}

/// What each revision wrote.
fn entries(versions: Vec<Version>, token: &str) -> BTreeMap<Revision, Entry> {
    let mut entries: BTreeMap<Revision, Entry> = BTreeMap::new();
    for version in versions {
        let Version { key, revision, created, value, expires_at_ms, author, time_ms } = version;
        let entry = entries.entry(revision).or_insert_with(|| Entry {
            token: token.to_owned(),
            author,
            time_ms,
            writes: Vec::new(),
            parts: 0,
        });
        entry.writes.push(Written { key: name(&key), created, expires_at_ms, value });
    }
    entries
}

/// What existed at the floor, as a base holds it.
fn existing(base: Vec<Version>, archive: &Archive) -> Vec<Vec<u8>> {
    let mut existing: BTreeMap<_, Version> = base.into_iter().map(|version| (version.key.clone(), version)).collect();
    for version in archive.versions.iter().filter(|version| version.revision == archive.floor) {
        if version.value.is_some() {
            existing.insert(version.key.clone(), version.clone());
        } else {
            existing.remove(&version.key);
        }
    }
    existing.values().filter_map(|version| json(&Kept::of(version)).ok()).collect()
}
