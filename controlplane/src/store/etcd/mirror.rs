//! What one process knows of the store on etcd without asking: which versions there are, not what they hold. Transactions are judged here. A function of
//! what it is told; it knows no connection.

use std::collections::BTreeMap;

use super::layout::{Entry, Kept, Versions, Written, name};
use crate::model::Key;
use crate::store::{Compare, Revision, StoreError, Txn, Version, Write};

/// Revisions that are written together at most; etcd takes 128 operations in one transaction.
const MOST_REVISIONS: usize = 60;
/// Bytes that are written together, unless one revision alone is larger.
const MOST_BYTES: usize = 1 << 20;

/// One version of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) revision: Revision,
    created: Revision,
    exists: bool,
}

/// All versions of all resources, without their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mirror {
    /// The newest revision.
    pub(super) revision: Revision,
    /// The oldest that is still complete.
    pub(super) floor: Revision,
    /// Etcd's revision that wrote `head`; 0: there is none yet.
    pub(super) head: i64,
    /// Of the transaction that wrote the newest revision: by it a history is known again.
    pub(super) token: String,
    versions: BTreeMap<Key, Vec<Mark>>,
    /// When each revision from the floor on was written.
    times: BTreeMap<Revision, u64>,
}

/// Revisions that may be written together.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// What is to be written.
    pub(super) entries: Vec<(Revision, Entry)>,
    /// One for each transaction that was looked at.
    pub(super) revisions: Vec<Revision>,
    /// Why the transaction after these cannot be carried out.
    pub(super) failed: Option<StoreError>,
}

impl Mirror {
    /// Nothing is known yet but the floor and etcd's revision of `head`.
    pub(super) fn begin(floor: Revision, head: i64) -> Mirror {
        Mirror { floor, head, ..Mirror::default() }
    }

    /// Takes over versions that existed before the log begins.
    pub(super) fn base(&mut self, version: &Version) {
        self.note(version.key.clone(), version.revision, version.created, version.value.is_some());
    }

    /// Takes over what a revision wrote.
    pub(super) fn learn(&mut self, revision: Revision, (token, time_ms): (&str, u64), versions: &[Version]) {
        for version in versions {
            self.note(version.key.clone(), revision, version.created, version.value.is_some());
        }
        self.times.insert(revision, time_ms);
        self.revision = revision;
        token.clone_into(&mut self.token);
    }

    fn note(&mut self, key: Key, revision: Revision, created: Revision, exists: bool) {
        self.versions.entry(key).or_default().push(Mark { revision, created, exists });
    }

    /// The revisions of one resource before a revision, newest first.
    pub(super) fn of(&self, key: &Key, before: Revision) -> impl Iterator<Item = Revision> {
        let marks = self.versions.get(key).into_iter().flatten().rev();
        marks.map(|mark| mark.revision).filter(move |revision| *revision < before)
    }

    /// The floor that a compaction would lead to.
    pub(super) fn floor_for(&self, keep_revisions: u64, since_ms: u64) -> Revision {
        let by_count = self.revision.min((self.revision + 1).saturating_sub(keep_revisions));
        let young = self.times.range(self.floor..).find(|(_, time_ms)| **time_ms > since_ms);
        young.map_or(by_count, |(revision, _)| by_count.min(*revision)).max(self.floor)
    }

    /// Forgets what a compaction has removed.
    pub(super) fn forget(&mut self, floor: Revision) {
        self.floor = floor;
        self.times = self.times.split_off(&floor);
        self.versions.retain(|_, marks| {
            let last = marks.iter().rposition(|mark| mark.revision <= floor);
            let needed = |at: usize, mark: &Mark| mark.revision >= floor || (Some(at) == last && mark.exists);
            let kept: Vec<Mark> =
                marks.iter().enumerate().filter(|(at, mark)| needed(*at, mark)).map(|(_, mark)| *mark).collect();
            *marks = kept;
            !marks.is_empty()
        });
    }

    /// Judges transactions upon what is known, each upon those before it, as many as may be written together.
    pub(super) fn plan(&self, txns: &[Txn], token: &str, time_ms: u64) -> Planned {
        let (mut planned, mut bytes) = (Planned::default(), 0);
        let mut drafted = BTreeMap::new();
        let mut newest = self.revision;
        for txn in txns {
            if txn.upon.is_some_and(|upon| upon != newest) {
                planned.failed = Some(StoreError::Behind { found: newest });
                break;
            }
            if let Err(error) = self.compare(&drafted, &txn.compare) {
                planned.failed = Some(error);
                break;
            }
            let writes = self.written(&drafted, &txn.writes, newest + 1);
            if writes.is_empty() {
                planned.revisions.push(newest);
                continue;
            }
            bytes += writes.values().map(size).sum::<usize>();
            let full = planned.entries.len() == MOST_REVISIONS || bytes > MOST_BYTES;
            if full && !planned.entries.is_empty() {
                break;
            }
            newest += 1;
            for (key, written) in &writes {
                drafted.insert(key.clone(), Mark { revision: newest, created: written.created, exists: written.value.is_some() });
            }
            let writes = writes.into_values().collect();
            let entry = Entry { token: token.to_owned(), author: txn.author.clone(), time_ms, writes, parts: 0 };
            planned.entries.push((newest, entry));
            planned.revisions.push(newest);
        }
        planned
    }

    /// What exists of a resource, drafted changes included.
    fn existing(&self, drafted: &BTreeMap<Key, Mark>, key: &Key) -> Option<Mark> {
        let known = || self.versions.get(key).and_then(|marks| marks.last().copied());
        drafted.get(key).copied().or_else(known).filter(|mark| mark.exists)
    }

    fn compare(&self, drafted: &BTreeMap<Key, Mark>, compare: &[Compare]) -> Result<(), StoreError> {
        for Compare { key, modified } in compare {
            let found = self.existing(drafted, key).map(|mark| mark.revision);
            if found != *modified {
                return Err(StoreError::Conflict { key: key.clone(), expected: *modified, found });
            }
        }
        Ok(())
    }

    fn written(&self, drafted: &BTreeMap<Key, Mark>, writes: &[Write], revision: Revision) -> BTreeMap<Key, Written> {
        let last: BTreeMap<&Key, &Write> = writes.iter().map(|write| (&write.key, write)).collect();
        let mut written = BTreeMap::new();
        for (key, write) in last {
            let before = self.existing(drafted, key);
            if write.value.is_none() && before.is_none() {
                continue;
            }
            let created = before.map_or(revision, |mark| mark.created);
            let expires_at_ms = write.expires_at_ms.filter(|_| write.value.is_some());
            written.insert(key.clone(), Written { key: name(key), created, expires_at_ms, value: write.value.clone() });
        }
        written
    }
}

/// About how many bytes a resource is in the log.
fn size(written: &Written) -> usize {
    let value = written.value.as_ref().map_or(0, |value| value.to_string().len());
    value + written.key.len() + 64
}

/// Versions by key, as far as they are known to exist while the log is read from its beginning.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) existing: BTreeMap<Key, Version>,
    /// The same for resources of kinds that are not known here, by name.
    pub(super) foreign: BTreeMap<String, Kept>,
}

impl Replay {
    pub(super) fn apply(&mut self, versions: Versions) {
        for kept in versions.foreign {
            if kept.exists() {
                self.foreign.insert(kept.name().to_owned(), kept);
            } else {
                self.foreign.remove(kept.name());
            }
        }
        for version in versions.known {
            if version.value.is_some() {
                self.existing.insert(version.key.clone(), version);
            } else {
                self.existing.remove(&version.key);
            }
        }
    }

    pub(super) fn into_versions(self) -> Vec<Version> {
        self.existing.into_values().collect()
    }
}
