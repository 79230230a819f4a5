//! The tables of the embedded store, and what a revision, a version and a compaction are in them. It opens no file and reads no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde_json::Value;

use super::trouble::Trouble;
use crate::model::{Key, ResourceKind};
use crate::store::archive::not_empty;
use crate::store::{Archive, Compare, Revision, StoreError, Version, Write};

/// The layout that this code reads and writes.
pub(super) const FORMAT: u64 = 1;

/// `format`, `revision` (the newest) and `floor` (the oldest that is still complete).
pub(super) const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
/// Revision → Unix milliseconds, author.
const REVISIONS: TableDefinition<'static, u64, (u64, &'static str)> = TableDefinition::new("revisions");
/// (revision, key) → (revision that created it, expiry in Unix milliseconds or 0, JSON or nothing when deleted).
const VERSIONS: TableDefinition<'static, (u64, &'static str), (u64, u64, &'static [u8])> = TableDefinition::new("versions");
/// (key, revision): the versions of each key.
const HISTORY: TableDefinition<'static, (&'static str, u64), ()> = TableDefinition::new("history");
/// Key → (revision that created it, revision of its newest version), for what exists.
const CURRENT: TableDefinition<'static, &'static str, (u64, u64)> = TableDefinition::new("current");

/// The name of a key in the tables: `routes/r1`, `credentials/jack/credentials/c1`.
fn name(key: &Key) -> String {
    format!("{}/{}", key.kind.plural(), key.id)
}

fn parse(name: &str) -> Result<Key, Trouble> {
    let parts = name.split_once('/').and_then(|(kind, id)| Some(Key::new(ResourceKind::from_plural(kind)?, id)));
    parts.ok_or_else(|| Trouble::Damaged(format!("`{name}` is no kind of resource that this version of heddle knows")))
}

/// Lays out an empty store.
pub(super) fn create(txn: &WriteTransaction) -> Result<(), Trouble> {
    let mut meta = txn.open_table(META)?;
    meta.insert("format", FORMAT)?;
    meta.insert("revision", 0)?;
    meta.insert("floor", 0)?;
    txn.open_table(REVISIONS)?;
    txn.open_table(VERSIONS)?;
    txn.open_table(HISTORY)?;
    txn.open_table(CURRENT)?;
    Ok(())
}

fn meta(table: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, Trouble> {
    Ok(table.get(name)?.ok_or_else(|| Trouble::Damaged(format!("its `{name}` is missing")))?.value())
}

/// The layout that the file says it has.
pub(super) fn format(txn: &ReadTransaction) -> Result<u64, Trouble> {
    meta(&txn.open_table(META)?, "format")
}

/// The newest revision, those of this transaction included.
pub(super) fn newest(txn: &WriteTransaction) -> Result<Revision, Trouble> {
    meta(&txn.open_table(META)?, "revision")
}

/// Writes one revision, unless a comparison fails (then nothing) or nothing is left to do (then no new revision).
pub(super) fn apply(
    txn: &WriteTransaction,
    compare: &[Compare],
    writes: &[Write],
    author: &str,
    now_ms: u64,
) -> Result<Result<Revision, StoreError>, Trouble> {
    let (mut meta_table, mut current) = (txn.open_table(META)?, txn.open_table(CURRENT)?);
    for compare in compare {
        let found = current.get(name(&compare.key).as_str())?.map(|entry| entry.value().1);
        if found != compare.modified {
            return Ok(Err(StoreError::Conflict { key: compare.key.clone(), expected: compare.modified, found }));
        }
    }
    let newest = meta(&meta_table, "revision")?;
    let mut wanted = BTreeMap::new();
    for write in writes {
        wanted.insert(name(&write.key), write);
    }
    let revision = newest + 1;
    let (mut versions, mut history) = (txn.open_table(VERSIONS)?, txn.open_table(HISTORY)?);
    let mut written = false;
    for (name, write) in wanted {
        let before = current.get(name.as_str())?.map(|entry| entry.value().0);
        let created = before.unwrap_or(revision);
        match &write.value {
            Some(value) => {
                let json = serde_json::to_vec(value).map_err(|error| Trouble::Io(format!("{}: {error}", write.key)))?;
                versions.insert((revision, name.as_str()), (created, write.expires_at_ms.unwrap_or(0), json.as_slice()))?;
                current.insert(name.as_str(), (created, revision))?;
            }
            None if before.is_some() => {
                versions.insert((revision, name.as_str()), (created, 0, [].as_slice()))?;
                current.remove(name.as_str())?;
            }
            None => continue,
        }
        history.insert((name.as_str(), revision), ())?;
        written = true;
    }
    if !written {
        return Ok(Ok(newest));
    }
    txn.open_table(REVISIONS)?.insert(revision, (now_ms, author))?;
    meta_table.insert("revision", revision)?;
    Ok(Ok(revision))
}

/// Puts the versions of an archive into tables that are empty.
pub(super) fn restore(txn: &WriteTransaction, archive: &Archive) -> Result<Result<(), StoreError>, Trouble> {
    let mut meta_table = txn.open_table(META)?;
    if meta(&meta_table, "revision")? != 0 {
        return Ok(Err(not_empty("the store")));
    }
    let (mut revisions, mut versions) = (txn.open_table(REVISIONS)?, txn.open_table(VERSIONS)?);
    let (mut history, mut current) = (txn.open_table(HISTORY)?, txn.open_table(CURRENT)?);
    for version in &archive.versions {
        let (name, revision) = (name(&version.key), version.revision);
        let json = version.value.as_ref().map(serde_json::to_vec).transpose();
        let json = json.map_err(|error| Trouble::Io(format!("{}: {error}", version.key)))?.unwrap_or_default();
        let expires = version.expires_at_ms.unwrap_or(0);
        versions.insert((revision, name.as_str()), (version.created, expires, json.as_slice()))?;
        history.insert((name.as_str(), revision), ())?;
        revisions.insert(revision, (version.time_ms, &*version.author))?;
        match version.value {
            Some(_) => drop(current.insert(name.as_str(), (version.created, revision))?),
            None => drop(current.remove(name.as_str())?),
        }
    }
    meta_table.insert("revision", archive.newest)?;
    meta_table.insert("floor", archive.floor)?;
    Ok(Ok(()))
}

/// The tables as one reader sees them.
pub(super) struct Reader {
    meta: redb::ReadOnlyTable<&'static str, u64>,
    revisions: redb::ReadOnlyTable<u64, (u64, &'static str)>,
    versions: redb::ReadOnlyTable<(u64, &'static str), (u64, u64, &'static [u8])>,
    history: redb::ReadOnlyTable<(&'static str, u64), ()>,
    current: redb::ReadOnlyTable<&'static str, (u64, u64)>,
}

impl Reader {
    pub(super) fn new(txn: &ReadTransaction) -> Result<Reader, Trouble> {
        Ok(Reader {
            meta: txn.open_table(META)?,
            revisions: txn.open_table(REVISIONS)?,
            versions: txn.open_table(VERSIONS)?,
            history: txn.open_table(HISTORY)?,
            current: txn.open_table(CURRENT)?,
        })
    }

    /// One version, which must be there.
    fn version(&self, revision: Revision, name: &str) -> Result<Version, Trouble> {
        let missing = || Trouble::Damaged(format!("revision {revision} of {name} is missing"));
        let entry = self.versions.get((revision, name))?.ok_or_else(missing)?;
        let (created, expires, json) = entry.value();
        let value = match json {
            [] => None,
            json => Some(
                serde_json::from_slice::<Value>(json)
                    .map_err(|error| Trouble::Damaged(format!("revision {revision} of {name} is no JSON: {error}")))?,
            ),
        };
        let told = self.revisions.get(revision)?.ok_or_else(missing)?;
        let (time_ms, author) = told.value();
        Ok(Version {
            key: parse(name)?,
            revision,
            created,
            value,
            expires_at_ms: (expires > 0).then_some(expires),
            author: Arc::from(author),
            time_ms,
        })
    }

    /// Everything that exists now.
    pub(super) fn load(&self) -> Result<(Revision, Vec<Version>), Trouble> {
        let mut found = Vec::new();
        for entry in self.current.iter()? {
            let (name, at) = entry?;
            found.push(self.version(at.value().1, name.value())?);
        }
        Ok((meta(&self.meta, "revision")?, found))
    }

    /// The newest revision.
    pub(super) fn newest(&self) -> Result<Revision, Trouble> {
        meta(&self.meta, "revision")
    }

    /// Versions of revisions after `after`, oldest first; the last revision is not cut in half.
    pub(super) fn since(&self, after: Revision, most: usize) -> Result<Result<Vec<Version>, StoreError>, Trouble> {
        let floor = meta(&self.meta, "floor")?;
        if after + 1 < floor {
            return Ok(Err(StoreError::UnknownRevision(after + 1, floor)));
        }
        let mut found: Vec<Version> = Vec::new();
        for entry in self.versions.range((after + 1, "")..)? {
            let entry = entry?.0;
            let (revision, name) = entry.value();
            if found.len() >= most && found.last().is_none_or(|last| last.revision != revision) {
                break;
            }
            found.push(self.version(revision, name)?);
        }
        Ok(Ok(found))
    }

    /// Everything that existed at `revision`.
    pub(super) fn at(&self, revision: Revision) -> Result<Result<Vec<Version>, StoreError>, Trouble> {
        let floor = meta(&self.meta, "floor")?;
        if revision < floor || revision > meta(&self.meta, "revision")? {
            return Ok(Err(StoreError::UnknownRevision(revision, floor)));
        }
        let mut newest: BTreeMap<String, Revision> = BTreeMap::new();
        for entry in self.history.iter()? {
            let entry = entry?.0;
            let (name, at) = entry.value();
            if at <= revision {
                newest.insert(name.to_owned(), at);
            }
        }
        let mut found = Vec::new();
        for (name, at) in newest {
            let version = self.version(at, &name)?;
            if version.value.is_some() {
                found.push(version);
            }
        }
        Ok(Ok(found))
    }

    /// Versions of one key, newest first.
    pub(super) fn of(&self, key: &Key, before: Revision, limit: usize) -> Result<Vec<Version>, Trouble> {
        let name = name(key);
        let mut found = Vec::new();
        for entry in self.history.range((name.as_str(), 0)..(name.as_str(), before))?.rev().take(limit) {
            found.push(self.version(entry?.0.value().1, &name)?);
        }
        Ok(found)
    }

    /// Versions of all keys, newest first; the last revision is not cut in half.
    pub(super) fn all(&self, before: Revision, limit: usize) -> Result<Vec<Version>, Trouble> {
        let mut found: Vec<Version> = Vec::new();
        for entry in self.versions.range(..(before, ""))?.rev() {
            let entry = entry?.0;
            let (revision, name) = entry.value();
            if found.len() >= limit && found.last().is_none_or(|last| last.revision != revision) {
                break;
            }
            found.push(self.version(revision, name)?);
        }
        Ok(found)
    }
}

/// Forgets versions that nobody can ask for any more, and says which revision is the oldest now.
pub(super) fn compact(txn: &WriteTransaction, keep_revisions: u64, since_ms: u64) -> Result<Revision, Trouble> {
    let mut meta_table = txn.open_table(META)?;
    let (old, newest) = (meta(&meta_table, "floor")?, meta(&meta_table, "revision")?);
    let mut revisions = txn.open_table(REVISIONS)?;
    let mut floor = newest.min((newest + 1).saturating_sub(keep_revisions)).max(old);
    for entry in revisions.range(old..floor)? {
        let (revision, told) = entry?;
        if told.value().0 > since_ms {
            floor = revision.value();
            break;
        }
    }
    if floor == old {
        return Ok(old);
    }
    let (mut versions, mut history) = (txn.open_table(VERSIONS)?, txn.open_table(HISTORY)?);
    let mut gone = Vec::new();
    for entry in versions.range(..(floor, ""))? {
        let (at, version) = entry?;
        let (revision, name) = at.value();
        let superseded = history.range((name, revision + 1)..(name, floor + 1))?.next().is_some();
        if superseded || version.value().2.is_empty() {
            gone.push((revision, name.to_owned()));
        }
    }
    for (revision, name) in gone {
        versions.remove((revision, name.as_str()))?;
        history.remove((name.as_str(), revision))?;
        if versions.range((revision, "")..(revision + 1, ""))?.next().is_none() {
            revisions.remove(revision)?;
        }
    }
    meta_table.insert("floor", floor)?;
    Ok(floor)
}
