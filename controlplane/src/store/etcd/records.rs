//! Records and the journals on etcd. Every write compares and replaces `rhead`, so that what it has read still holds when it is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use heddle_node::clock;
use heddle_proto::etcd::etcdserverpb::{RangeRequest, RequestOp, TxnRequest};
use tokio::time::{Instant, sleep};

use super::Etcd;
use super::client::{Trouble, delete, delete_range, get, nested, put, range, reading, unchanged};
use super::commit::token;
use super::layout::{RecordHead, form, json, number};
use super::read::ranges;
use crate::store::{Append, Entry, RecordWrite, Ring, StoreError};

/// How long a write is tried.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Keys that are read together.
const READ: usize = 60;
/// Operations in one of the inner transactions of a write, and inner transactions in it: etcd counts 128 along each way into the depth.
const INNER: usize = 60;
/// See [`INNER`].
const OUTER: usize = 60;
/// Bytes that are written together; etcd takes 1.5 MiB.
const MOST_BYTES: usize = 1 << 20;
/// Tokens of earlier writes that are kept, and letters of each: others write while an answer is waited for in vain.
const RECENT: (usize, usize) = (64, 16);
/// Bytes of one record; with its name it is within [`MOST_BYTES`].
pub(super) const MOST_RECORD: usize = MOST_BYTES - (4 << 10);
/// Bytes of all that is appended to the journals together.
const MOST_JOURNAL: usize = 256 << 10;

impl Etcd {
    /// Writes all or nothing, as long as it fits into one transaction of etcd (3,600 records and 1 MiB); more is written in several, each whole.
    pub(super) async fn write_records(&self, writes: Vec<RecordWrite>, journal: Vec<Append>) -> Result<(), StoreError> {
        bounded(&writes, &journal)?;
        if self.lost.load(Ordering::Relaxed) {
            return Err(StoreError::Away("the store on etcd is empty where there was one".into()));
        }
        let _turn = self.recording.lock().await;
        let deadline = clock::now() + PATIENCE;
        let mut groups = grouped(writes);
        let last = groups.pop().unwrap_or_default();
        for group in groups {
            self.record_group(&group, &[], deadline).await?;
        }
        self.record_group(&last, &journal, deadline).await
    }

    async fn record_group(&self, writes: &[RecordWrite], journal: &[Append], deadline: Instant) -> Result<(), StoreError> {
        let token = token()?;
        loop {
            let tried = self.try_group(writes, journal, &token).await;
            match tried {
                Ok(true) => return Ok(()),
                Err(StoreError::Away(why)) if clock::now() + PAUSE >= deadline => return Err(StoreError::Away(why)),
                Ok(false) | Err(StoreError::Away(_)) => sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what decides, and writes when that is still so; `false` when somebody else wrote in between.
    pub(super) async fn try_group(&self, writes: &[RecordWrite], journal: &[Append], token: &str) -> Result<bool, StoreError> {
        let (mut head, modified) = self.record_head().await?;
        // The answer to an earlier try may have been lost.
        if head.token == token || head.recent.iter().any(|recent| token.starts_with(recent)) {
            return Ok(true);
        }
        let there = self.deciding(writes).await?;
        let mut ops = Vec::new();
        for (key, value) in resolved(writes, &there)? {
            let key = self.keys.record(&key);
            ops.push(value.map_or_else(|| delete(&key), |value| put(&key, value)));
        }
        for ring in Ring::ALL {
            if let Some(last) = journal.iter().rfind(|entry| entry.ring == ring) {
                ops.extend(self.making_room(ring, &mut head, journal, last.keep).await?);
            }
        }
        for entry in journal {
            head.journal += 1;
            ops.push(put(&self.keys.journal(entry.ring, head.journal), entry.body.clone()));
        }
        let before = std::mem::replace(&mut head.token, token.to_owned());
        head.recent.extend(before.get(..RECENT.1).map(str::to_owned));
        head.recent.drain(..head.recent.len().saturating_sub(RECENT.0));
        let mut success: Vec<RequestOp> = vec![put(&self.keys.record_head(), json(&head)?)];
        success.extend(ops.chunks(INNER).map(|inner| nested(inner.to_vec())));
        let compare = vec![unchanged(&self.keys.record_head(), modified)];
        let answer = self.client.txn(TxnRequest { compare, success, failure: Vec::new() }).await;
        Ok(answer.map_err(Trouble::into_error)?.succeeded)
    }

    /// Counts what is appended to a journal, and deletes as many of its oldest entries as are too many then.
    async fn making_room(
        &self,
        ring: Ring,
        head: &mut RecordHead,
        journal: &[Append],
        keep: u64,
    ) -> Result<Option<RequestOp>, StoreError> {
        let first = self.keys.journal(ring, 0);
        let held = match (ring, &mut head.reported) {
            (Ring::Done, _) => &mut head.done,
            (Ring::Refused, _) => &mut head.refused,
            (Ring::Reported, Some(count)) => count,
            (Ring::Reported, none) => none.insert(self.count(&first, self.keys.journal(ring, u64::MAX)).await?),
        };
        let added = journal.iter().filter(|entry| entry.ring == ring).count() as u64;
        let gone = (*held + added).saturating_sub(keep).min(*held);
        *held = *held + added - gone;
        if gone == 0 {
            return Ok(None);
        }
        let limit = i64::try_from(gone).unwrap_or(i64::MAX);
        let oldest = self.read(range(&first, self.keys.journal(ring, u64::MAX).into_bytes(), limit, false)).await?;
        let last = oldest.kvs.last().and_then(|kv| number(&kv.key));
        Ok(last.map(|last| delete_range(&first, self.keys.journal(ring, last + 1).into_bytes())))
    }

    /// How many keys there are from one on, before another. Whoever adds to them writes the head too, so that the count holds as long as that stands.
    async fn count(&self, from: &str, end: String) -> Result<u64, StoreError> {
        let asked = RangeRequest { count_only: true, ..range(from, end.into_bytes(), 0, false) };
        let found = self.client.range(asked).await.map_err(Trouble::into_error)?;
        Ok(u64::try_from(found.count).unwrap_or_default())
    }

    async fn record_head(&self) -> Result<(RecordHead, i64), StoreError> {
        let found = self.client.range(get(&self.keys.record_head())).await.map_err(Trouble::into_error)?;
        match found.kvs.first() {
            Some(kv) => Ok((form(&kv.key, &kv.value)?, kv.mod_revision)),
            None => Ok((RecordHead::default(), 0)),
        }
    }

    /// The records on which it depends what is written.
    async fn deciding(&self, writes: &[RecordWrite]) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let named = |write: &RecordWrite| match write {
            RecordWrite::Raise(key, _) | RecordWrite::Require(key, _) | RecordWrite::Withdraw(key, _) => Some(key.clone()),
            RecordWrite::Set(..) | RecordWrite::Remove(_) => None,
        };
        let names: Vec<String> = writes.iter().filter_map(named).collect::<BTreeSet<String>>().into_iter().collect();
        let mut there = BTreeMap::new();
        for names in names.chunks(READ) {
            let success = names.iter().map(|name| reading(get(&self.keys.record(name)))).collect();
            let answer = self.client.txn(TxnRequest { success, ..TxnRequest::default() }).await.map_err(Trouble::into_error)?;
            for kv in ranges(answer) {
                if let Some(name) = self.record_name(&kv.key) {
                    there.insert(name, kv.value);
                }
            }
        }
        Ok(there)
    }

    /// The name of a record, from its key.
    pub(super) fn record_name(&self, key: &[u8]) -> Option<String> {
        let name = key.strip_prefix(self.keys.records().as_bytes())?;
        String::from_utf8(name.to_vec()).ok()
    }

    pub(super) async fn all_records(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let prefix = self.keys.records();
        let found = self.below(&prefix, 0).await?;
        Ok(found.into_iter().map(|(key, value)| (key[prefix.len()..].to_owned(), value)).collect())
    }

    pub(super) async fn read_journal(&self, ring: Ring, before: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let end = self.keys.journal(ring, before).into_bytes();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let found = self.read(range(&self.keys.journal(ring, 0), end, limit, true)).await?;
        let entry = |kv: heddle_proto::etcd::mvccpb::KeyValue| Some(Entry { number: number(&kv.key)?, body: kv.value });
        Ok(found.kvs.into_iter().filter_map(entry).collect())
    }
}

/// Refuses what etcd would refuse in words that nobody understands.
fn bounded(writes: &[RecordWrite], journal: &[Append]) -> Result<(), StoreError> {
    for write in writes {
        if let RecordWrite::Set(key, value) = write
            && value.len() > MOST_RECORD
        {
            let what = format!("the record {key}");
            return Err(StoreError::TooLarge { what, bytes: value.len(), most: MOST_RECORD });
        }
    }
    let bytes = journal.iter().map(|entry| entry.body.len()).sum();
    if bytes > MOST_JOURNAL {
        return Err(StoreError::TooLarge { what: "what is to be journalled".into(), bytes, most: MOST_JOURNAL });
    }
    Ok(())
}

/// Writes that fit into one transaction each, in their order.
fn grouped(writes: Vec<RecordWrite>) -> Vec<Vec<RecordWrite>> {
    let mut groups = vec![Vec::new()];
    let mut bytes = 0;
    for write in writes {
        let size = match &write {
            RecordWrite::Set(key, value) | RecordWrite::Withdraw(key, value) => key.len() + value.len() + 64,
            RecordWrite::Remove(key) | RecordWrite::Raise(key, _) | RecordWrite::Require(key, _) => key.len() + 64,
        };
        let full = groups.last().is_some_and(|group: &Vec<RecordWrite>| group.len() >= INNER * (OUTER - 2));
        if full || bytes + size > MOST_BYTES {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(group) = groups.last_mut() {
            group.push(write);
        }
    }
    groups
}

/// What each record is to be, the last write of each counting; or which one is not as it has to be.
fn resolved(writes: &[RecordWrite], there: &BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<String, Option<Vec<u8>>>, StoreError> {
    let mut wanted: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    for write in writes {
        if let RecordWrite::Require(key, expected) = write
            && there.get(key) != expected.as_ref()
        {
            return Err(StoreError::Changed(key.clone()));
        }
    }
    for write in writes {
        match write {
            RecordWrite::Set(key, value) => drop(wanted.insert(key.clone(), Some(value.clone()))),
            RecordWrite::Remove(key) => drop(wanted.insert(key.clone(), None)),
            RecordWrite::Withdraw(key, value) => {
                let present = wanted.get(key).map_or_else(|| there.get(key), Option::as_ref);
                if present == Some(value) {
                    wanted.insert(key.clone(), None);
                }
            }
            RecordWrite::Raise(key, number) => {
                let drafted = wanted.get(key).cloned().unwrap_or_else(|| there.get(key).cloned());
                let present = drafted.and_then(|value| value.try_into().ok().map(u64::from_be_bytes));
                wanted.insert(key.clone(), Some(present.unwrap_or(0).max(*number).to_be_bytes().to_vec()));
            }
            RecordWrite::Require(..) => {}
        }
    }
    Ok(wanted)
}
