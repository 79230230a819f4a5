//! Reading the store on etcd: bases, the log and its parts, page by page. It writes nothing.

use std::collections::BTreeMap;

use heddle_proto::etcd::etcdserverpb::response_op::Response as Answer;
use heddle_proto::etcd::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use heddle_proto::etcd::mvccpb::KeyValue;

use super::Etcd;
use super::client::{Trouble, end_of, get, range, reading};
use super::layout::{Entry, FORMAT, Floor, Head, Kept, RESTORING, Versions, form, number};
use super::mirror::{Mirror, Replay};
use crate::model::Key;
use crate::store::{Revision, StoreError, Version};

/// Keys that are read together.
pub(super) const PAGE: i64 = 100;
/// Times that reading is begun anew because etcd was compacted meanwhile.
const AGAIN: usize = 3;

/// Head and floor at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ends {
    /// Etcd's revision of this moment.
    pub(super) at: i64,
    pub(super) head: Option<(Head, i64)>,
    pub(super) floor: Floor,
    /// Etcd's revision that wrote the floor.
    pub(super) floor_modified: i64,
}

impl Ends {
    pub(super) fn newest(&self) -> Revision {
        self.head.as_ref().map_or(0, |(head, _)| head.revision)
    }
}

impl Etcd {
    /// Head and floor as a majority knows them.
    pub(super) async fn ends(&self) -> Result<Ends, StoreError> {
        let success = vec![reading(get(&self.keys.head())), reading(get(&self.keys.floor()))];
        let asked = TxnRequest { success, ..TxnRequest::default() };
        ends(self.client.txn(asked).await.map_err(Trouble::into_error)?)
    }

    /// The same, and by which transaction a revision was written, when it is in the log.
    pub(super) async fn ends_and(&self, revision: Revision) -> Result<(Ends, Option<String>), StoreError> {
        let keys = [self.keys.head(), self.keys.floor(), self.keys.log(revision)];
        let success = keys.iter().map(|key| reading(get(key))).collect();
        let asked = TxnRequest { success, ..TxnRequest::default() };
        let answer = self.client.txn(asked).await.map_err(Trouble::into_error)?;
        let at = answer.header.as_ref().map_or(0, |header| header.revision);
        let (logged, found): (Vec<KeyValue>, Vec<KeyValue>) =
            ranges(answer).into_iter().partition(|kv| kv.key == keys[2].as_bytes());
        let token = logged.first().map(|kv| form::<Entry>(&kv.key, &kv.value)).transpose()?.map(|entry| entry.token);
        Ok((gathered(at, found.into_iter())?, token))
    }

    /// Entries of the log from `from` to `to`, both included, `limit` at most, with their parts, as they were at etcd's revision `at` (0: now).
    pub(super) async fn entries(
        &self,
        (from, to): (Revision, Revision),
        (limit, descending): (i64, bool),
        at: i64,
    ) -> Result<Vec<(Revision, Entry)>, StoreError> {
        let end = self.keys.log(to.saturating_add(1)).into_bytes();
        let mut request = range(&self.keys.log(from), end, limit, descending);
        request.revision = at;
        let found = self.read(request).await?;
        let mut entries = Vec::with_capacity(found.kvs.len());
        for KeyValue { key, value, .. } in found.kvs {
            let Some(revision) = number(&key) else { continue };
            let mut entry: Entry = form(&key, &value)?;
            if entry.parts > 0 {
                entry = self.joined(&key, &entry, revision, at).await?;
            }
            entries.push((revision, entry));
        }
        Ok(entries)
    }

    /// An entry from its parts, as they were at etcd's revision `at` (0: now).
    async fn joined(&self, key: &[u8], entry: &Entry, revision: Revision, at: i64) -> Result<Entry, StoreError> {
        let prefix = self.keys.parts(&entry.token, revision);
        let mut bytes = Vec::new();
        for number in 0..entry.parts {
            let mut request = get(&self.keys.part(&entry.token, revision, number));
            request.revision = at;
            let found = self.read(request).await?;
            let part = found.kvs.into_iter().next();
            let part = part
                .ok_or_else(|| StoreError::Unusable(format!("{prefix} lacks part {number}; restore the store from a backup")))?;
            bytes.extend_from_slice(&part.value);
        }
        form(key, &bytes)
    }

    /// Reads what never changes once it is there: when a majority does not answer, what one member knows is as good.
    pub(super) async fn read(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        match self.client.range(request.clone()).await {
            Err(Trouble::Away(_)) => {
                let local = RangeRequest { serializable: true, ..request };
                self.client.range(local).await.map_err(Trouble::into_error)
            }
            other => other.map_err(Trouble::into_error),
        }
    }

    /// The base of a floor, as it was at etcd's revision `at` (0: now).
    pub(super) async fn base(&self, floor: &Floor, at: i64) -> Result<Versions, StoreError> {
        let prefix = self.keys.base(floor.revision);
        let mut versions = Versions::default();
        for part in 0..floor.parts {
            let key = format!("{prefix}{part:04x}");
            let mut request = get(&key);
            request.revision = at;
            let found = self.read(request).await?;
            let missing = || StoreError::Unusable(format!("{key} is missing; restore the store from a backup"));
            let part = found.kvs.first().ok_or_else(missing)?;
            let kept: Vec<Kept> = form(&part.key, &part.value)?;
            kept.into_iter().for_each(|kept| versions.take(kept));
        }
        Ok(versions)
    }

    /// Everything from the floor to `until` (or the newest revision, when that is `None`): what existed then, and what is known of the versions.
    pub(super) async fn replay(&self, until: Option<Revision>) -> Result<(Ends, Mirror, Replay), StoreError> {
        let mut last = Trouble::Compacted.into_error();
        for _ in 0..AGAIN {
            let ends = match (self.ends().await, until) {
                (Err(StoreError::Away(_)), Some(_)) => self.ends_of_one().await?,
                (ends, _) => ends?,
            };
            match self.replay_at(&ends, until).await {
                // Etcd, or our own compaction, has removed what was to be read: there is a newer state to be read.
                Err(error @ (StoreError::Away(_) | StoreError::Unusable(_))) if self.ends().await? != ends => last = error,
                other => return other.map(|(mirror, replay)| (ends, mirror, replay)),
            }
        }
        Err(last)
    }

    async fn replay_at(&self, ends: &Ends, until: Option<Revision>) -> Result<(Mirror, Replay), StoreError> {
        let until = until.unwrap_or(ends.newest());
        if until < ends.floor.revision || until > ends.newest() {
            return Err(StoreError::UnknownRevision(until, ends.floor.revision));
        }
        let (floor, head) = (ends.floor.revision, ends.head.as_ref().map_or(0, |(_, modified)| *modified));
        let mut mirror = Mirror::begin(floor, head);
        let mut replay = Replay::default();
        let base = self.base(&ends.floor, ends.at).await?;
        for version in base.known.iter().filter(|version| version.revision < floor) {
            mirror.base(version);
        }
        replay.apply(base);
        mirror.revision = floor;
        let mut next = floor.max(1);
        while next <= until {
            let page = self.entries((next, until), (PAGE, false), ends.at).await?;
            if page.is_empty() {
                return Err(StoreError::Unusable(format!("revision {next} is missing; restore the store on etcd from a backup")));
            }
            for (revision, entry) in page {
                if revision != next {
                    return Err(StoreError::Unusable(format!(
                        "revision {next} is missing; restore the store on etcd from a backup"
                    )));
                }
                let (token, time_ms) = (entry.token.clone(), entry.time_ms);
                let versions = entry.sorted(revision);
                mirror.learn(revision, (&token, time_ms), &versions.known);
                replay.apply(versions);
                next += 1;
            }
        }
        Ok((mirror, replay))
    }

    /// Versions of one resource, newest first.
    pub(super) async fn history_of(&self, key: &Key, before: Revision, limit: usize) -> Result<Vec<Version>, StoreError> {
        let (revisions, floor): (Vec<Revision>, Revision) = {
            let mirror = self.mirror.lock();
            let Some(mirror) = mirror.as_ref() else { return Ok(Vec::new()) };
            (mirror.of(key, before).take(limit).collect(), mirror.floor)
        };
        let mut found = Vec::new();
        for revision in revisions.iter().filter(|revision| **revision >= floor.max(1)) {
            for (revision, entry) in self.entries((*revision, *revision), (1, false), 0).await? {
                found.extend(entry.versions(revision).into_iter().filter(|version| version.key == *key));
            }
        }
        if revisions.iter().any(|revision| *revision < floor) {
            let older = self.older(before).await?;
            found.extend(older.into_iter().filter(|version| version.key == *key));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Versions of all resources, newest first; the last revision is not cut in half.
    pub(super) async fn history_of_all(&self, before: Revision, limit: usize) -> Result<Vec<Version>, StoreError> {
        let floor = self.mirror.lock().as_ref().map_or(0, |mirror| mirror.floor);
        let mut found: Vec<Version> = Vec::new();
        let mut to = before.saturating_sub(1);
        let cut = |found: &[Version], revision: Revision| {
            found.len() >= limit && found.last().is_none_or(|last| last.revision != revision)
        };
        while to >= floor.max(1) && !cut(&found, to) {
            let page = self.entries((floor.max(1), to), (PAGE.min(i64::try_from(limit).unwrap_or(PAGE)).max(1), true), 0).await?;
            let Some((last, _)) = page.last() else { break };
            to = last - 1;
            for (revision, entry) in page {
                if cut(&found, revision) {
                    return Ok(found);
                }
                found.extend(entry.versions(revision));
            }
        }
        for version in self.older(before).await? {
            if cut(&found, version.revision) {
                break;
            }
            found.push(version);
        }
        Ok(found)
    }

    /// Versions after a revision, oldest first; the last revision is not cut in half.
    pub(super) async fn after(&self, after: Revision, most: usize) -> Result<Vec<Version>, StoreError> {
        let (floor, newest) = self.mirror.lock().as_ref().map_or((0, 0), |mirror| (mirror.floor, mirror.revision));
        if after + 1 < floor {
            return Err(StoreError::UnknownRevision(after + 1, floor));
        }
        let mut found: Vec<Version> = Vec::new();
        let mut next = after + 1;
        while next <= newest && found.len() < most {
            let page = self.entries((next, newest), (PAGE.min(i64::try_from(most).unwrap_or(PAGE)).max(1), false), 0).await?;
            if page.first().is_none_or(|(revision, _)| *revision != next) {
                // A compaction has removed it since, or one member that answers alone lags behind.
                let floor = self.ends_of_one().await?.floor.revision;
                return if next < floor { Err(StoreError::UnknownRevision(next, floor)) } else { Ok(found) };
            }
            for (revision, entry) in page {
                if found.len() >= most {
                    return Ok(found);
                }
                found.extend(entry.versions(revision));
                next = revision + 1;
            }
        }
        Ok(found)
    }

    /// What is older than the log and exists at its beginning, newest first.
    async fn older(&self, before: Revision) -> Result<Vec<Version>, StoreError> {
        let floor = self.ends_of_one().await?.floor;
        let mut base = self.base(&floor, 0).await?.known;
        base.retain(|version| version.revision < floor.revision && version.revision < before);
        base.sort_by(|a, b| (b.revision, &a.key).cmp(&(a.revision, &b.key)));
        Ok(base)
    }

    /// Head and floor, from one member when a majority does not answer.
    async fn ends_of_one(&self) -> Result<Ends, StoreError> {
        let (head, floor) = (self.read(get(&self.keys.head())).await?, self.read(get(&self.keys.floor())).await?);
        gathered(0, head.kvs.into_iter().chain(floor.kvs))
    }

    /// All keys below a prefix with their values, as a majority knows them, at etcd's revision `at` (0: now).
    pub(super) async fn below(&self, prefix: &str, at: i64) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let (mut found, mut from, mut at) = (BTreeMap::new(), prefix.to_owned(), at);
        loop {
            let mut request = range(&from, end_of(prefix), PAGE * 10, false);
            request.revision = at;
            let page = self.client.range(request).await.map_err(Trouble::into_error)?;
            // The pages that follow are of the same moment.
            at = page.header.as_ref().map_or(at, |header| if at == 0 { header.revision } else { at });
            for KeyValue { key, value, .. } in page.kvs {
                let Ok(key) = String::from_utf8(key) else { continue };
                from = format!("{key}\0");
                found.insert(key, value);
            }
            if !page.more {
                return Ok(found);
            }
        }
    }
}

/// Reads the answer to [`Etcd::ends`].
pub(super) fn ends(answer: TxnResponse) -> Result<Ends, StoreError> {
    let at = answer.header.as_ref().map_or(0, |header| header.revision);
    gathered(at, ranges(answer).into_iter())
}

fn gathered(at: i64, found: impl Iterator<Item = KeyValue>) -> Result<Ends, StoreError> {
    let mut ends = Ends { at, head: None, floor: Floor { revision: 0, parts: 0 }, floor_modified: 0 };
    for kv in found {
        if !kv.key.ends_with(b"head") {
            ends.floor = form(&kv.key, &kv.value)?;
            ends.floor_modified = kv.mod_revision;
            continue;
        }
        let head: Head = form(&kv.key, &kv.value)?;
        if head.format == RESTORING {
            return Err(StoreError::Unusable(
                "the store on etcd is being restored, or that was cut short: repeat heddle store restore --force".into(),
            ));
        }
        if head.format > FORMAT {
            return Err(StoreError::Unusable(format!(
                "the store on etcd has format {}, this version of heddle knows formats up to {FORMAT}; start the newer heddle that wrote it",
                head.format
            )));
        }
        ends.head = Some((head, kv.mod_revision));
    }
    Ok(ends)
}

/// All that the reads of a transaction found.
pub(super) fn ranges(answer: TxnResponse) -> Vec<KeyValue> {
    let found = |response| match response {
        Some(Answer::ResponseRange(range)) => range.kvs,
        _ => Vec::new(),
    };
    answer.responses.into_iter().flat_map(|response| found(response.response)).collect()
}
