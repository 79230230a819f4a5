//! A whole archive out of a cluster, as of one moment, and into an empty one: `head` comes last, so that until then there is nothing. It knows no file.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use heddle_node::clock;
use heddle_proto::etcd::etcdserverpb::RequestOp;
use tokio::time::sleep;

use super::Etcd;
use super::client::{Trouble, delete_range, end_of, get, put, unchanged};
use super::commit::token;
use super::layout::{
    Entry, FORMAT, Floor, Head, Kept, Keys, MOST_PARTS, PART, RESTORING, RecordHead, Versions, Written, json, name, number,
};
use super::read::{Ends, PAGE};
use super::records::MOST_RECORD;
use crate::store::archive::not_empty;
use crate::store::{Archive, Entry as Said, Leases, PRESENT, Restore, Revision, Ring, StoreError, Version};

/// Bytes, and operations, that are written together.
const TOGETHER: (usize, usize) = (512 << 10, 100);

/// How long a control plane that was killed counts as there, and some time to spare; and how often is looked.
const LINGERING: Duration = Duration::from_secs(14);
/// See [`LINGERING`].
const LOOK: Duration = Duration::from_millis(500);

/// Times that reading is begun anew because etcd, or we, forgot a part of it meanwhile.
const AGAIN: usize = 5;

#[async_trait]
impl Restore for Etcd {
    /// All of it at one revision of etcd: control planes may write meanwhile.
    async fn archive(&self) -> Result<Archive, StoreError> {
        let mut tries = 1;
        loop {
            let ends = self.ends().await?;
            match self.archive_at(&ends).await {
                Err(StoreError::Away(_)) if tries < AGAIN => tries += 1,
                read => return read,
            }
        }
    }

    async fn restore(&self, archive: Archive) -> Result<(), StoreError> {
        if self.ends().await?.head.is_some() || !self.all_records().await?.is_empty() {
            return Err(not_empty("the store on etcd"));
        }
        fits(&archive)?;
        self.clear().await?;
        self.fill(&archive, 0).await
    }
}

impl Etcd {
    /// Puts an archive in the place of what is there. It is laid beside it first and read back; only then is what is there removed, in whose place a mark says
    /// until the end that no control plane can begin here. Cut short it is either not begun or can be repeated.
    ///
    /// # Errors
    /// Nothing was replaced; or, when it says so, the store has to be restored again.
    pub async fn replace(&self, archive: Archive) -> Result<(), StoreError> {
        fits(&archive)?;
        let beside = self.beside();
        beside.clear().await?;
        beside.fill(&archive, 0).await?;
        if beside.archive().await? != archive {
            beside.clear().await?;
            return Err(StoreError::Unusable("what was laid on etcd is not what was read; nothing was replaced".into()));
        }
        let mark = Head { format: RESTORING, revision: 0, token: token()? };
        self.when(Vec::new(), vec![put(&self.keys.head(), json(&mark)?)]).await?;
        self.remove_all_but_head().await?;
        let marked = self.client.range(get(&self.keys.head())).await.map_err(Trouble::into_error)?;
        self.fill(&archive, marked.kvs.first().map_or(0, |kv| kv.mod_revision)).await?;
        beside.clear().await
    }

    /// Waits until no control plane says that it is there: one that was killed a moment ago counts as there for a while.
    ///
    /// # Errors
    /// Some are there, by their names.
    pub async fn nobody_runs(&self) -> Result<(), StoreError> {
        let deadline = clock::now() + LINGERING;
        loop {
            let there = self.held(PRESENT).await?;
            if there.is_empty() {
                return Ok(());
            }
            if clock::now() >= deadline {
                return Err(StoreError::Unusable(format!(
                    "control planes run beside this store ({}); nothing was changed. Stop them first, or say --running",
                    there.join(", ")
                )));
            }
            sleep(LOOK).await;
        }
    }

    /// The place where an archive is laid before it replaces what is there.
    fn beside(&self) -> Etcd {
        let keys = Keys(format!("{}restore/", self.keys.0).into());
        self.other(keys)
    }

    /// Writes an archive where nothing is; `head` was written last at etcd's revision `marked` (0: there is none).
    async fn fill(&self, archive: &Archive, marked: i64) -> Result<(), StoreError> {
        let token = token()?;
        let mut batch = Vec::new();
        let (base, log): (Vec<Version>, Vec<Version>) =
            archive.versions.iter().cloned().partition(|version| version.revision < archive.floor);
        for (revision, entry) in entries(log, &token) {
            let bytes = json(&entry)?;
            if bytes.len() > PART {
                let count = bytes.chunks(PART).count();
                if count > MOST_PARTS {
                    let what = format!("revision {revision}");
                    return Err(StoreError::TooLarge { what, bytes: bytes.len(), most: MOST_PARTS * PART });
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
        let existing = existing(base, archive);
        let parts = if archive.floor > 0 { self.lay_down(archive.floor, existing).await? } else { 0 };
        for (key, value) in &archive.records {
            self.add(&mut batch, self.keys.record(key), value.clone()).await?;
        }
        let journal = archive.entries().map(|(_, entry)| entry.number).max().unwrap_or(0);
        for (ring, entry) in archive.entries() {
            self.add(&mut batch, self.keys.journal(ring, entry.number), entry.body.clone()).await?;
        }
        let [done, refused, reported] = [&archive.done, &archive.refused, &archive.reported].map(|entries| entries.len() as u64);
        let records = RecordHead { journal, done, refused, reported: Some(reported), token: token.clone(), recent: Vec::new() };
        self.flush(&mut batch).await?;
        let head = Head { format: FORMAT, revision: archive.newest, token: token.clone() };
        let success = vec![
            put(&self.keys.floor(), json(&Floor { revision: archive.floor, parts })?),
            put(&self.keys.record_head(), json(&records)?),
            put(&self.keys.head(), json(&head)?),
        ];
        if !self.when(vec![unchanged(&self.keys.head(), marked)], success).await? {
            return Err(StoreError::Unusable(
                "somebody wrote to the store on etcd meanwhile; stop all control planes and begin anew".into(),
            ));
        }
        *self.mirror.lock() = None;
        Ok(())
    }
}

impl Etcd {
    /// Everything, as it was at a revision of etcd.
    async fn archive_at(&self, ends: &Ends) -> Result<Archive, StoreError> {
        let (floor, newest, at) = (ends.floor.revision, ends.newest(), ends.at);
        let Versions { known: mut versions, mut foreign } = self.base(&ends.floor, at).await?;
        versions.retain(|version| version.revision < floor);
        let mut next = floor.max(1);
        while next <= newest {
            let page = self.entries((next, newest), (PAGE, false), at).await?;
            if page.first().is_none_or(|(revision, _)| *revision != next) {
                return Err(StoreError::Unusable(format!("revision {next} is missing; restore the store on etcd from a backup")));
            }
            for (revision, entry) in page {
                let written = entry.sorted(revision);
                versions.extend(written.known);
                foreign.extend(written.foreign);
                next = revision + 1;
            }
        }
        if let Some(kept) = foreign.first() {
            return Err(StoreError::Unusable(format!(
                "the store on etcd holds `{}`, no kind of resource that this version of heddle knows: use the newer heddle that wrote it",
                kept.name()
            )));
        }
        versions.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        let records = self.keys.records();
        let records = self.below(&records, at).await?.into_iter().map(|(key, value)| (key[records.len()..].to_owned(), value));
        let mut archive = Archive { floor, newest, versions, records: records.collect(), ..Archive::default() };
        for ring in Ring::ALL {
            let found = self.below(&self.keys.journals(ring), at).await?;
            let entry = |(key, body): (String, Vec<u8>)| Some(Said { number: number(key.as_bytes())?, body });
            *archive.journal(ring) = found.into_iter().filter_map(entry).collect();
        }
        Ok(archive)
    }

    /// Removes everything, `head` first, so that nothing is ever half there. No control plane may run meanwhile.
    ///
    /// # Errors
    /// The cluster does not answer; what is left is no store.
    pub async fn clear(&self) -> Result<(), StoreError> {
        self.when(Vec::new(), vec![delete_range(&self.keys.head(), Vec::new())]).await?;
        self.remove_all_but_head().await
    }

    /// Removes all keys but `head`; what is laid beside the store, and who is there, stays.
    async fn remove_all_but_head(&self) -> Result<(), StoreError> {
        let gone = self.keys.all_but_head().into_iter().map(|from| delete_range(&from, end_of(&from)));
        self.when(Vec::new(), gone.collect()).await?;
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

/// Everything is looked at before anything is removed or written.
fn fits(archive: &Archive) -> Result<(), StoreError> {
    match archive.records.iter().find(|(_, value)| value.len() > MOST_RECORD) {
        Some((key, value)) => {
            Err(StoreError::TooLarge { what: format!("the record {key}"), bytes: value.len(), most: MOST_RECORD })
        }
        None => Ok(()),
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
