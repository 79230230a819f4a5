//! Writing revisions: judged upon what is known, carried out when `head` is still what it was then. Whether a transaction whose answer was lost was carried
//! out is read, never guessed: it is repeated with the same condition until it is, or until somebody else has moved `head`, and then the log says who.

use std::sync::atomic::Ordering;
use std::time::Duration;

use heddle_node::clock;
use heddle_proto::etcd::etcdserverpb::{RequestOp, TxnRequest};
use tokio::time::{Instant, sleep};

use super::Etcd;
use super::client::{Trouble, keep, put, put_for, unchanged};
use super::layout::{Entry, FORMAT, Head, Kept, MOST_PARTS, PART, json};
use super::mirror::Planned;
use super::read::Ends;
use crate::store::{Committed, Revision, Store, StoreError, Txn};

/// How long a write is tried: longer than members need to choose another leader.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one is tried when the one before it failed.
const IMPATIENCE: Duration = Duration::from_millis(1_000);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// How long parts of a transaction that is not carried out lie around, in seconds.
const STAGED: i64 = 120;
/// Resources of kinds that are not known here that are named.
const MOST_FOREIGN: usize = 1_000;
/// Entries that are caught up with at once.
const PAGE: i64 = 100;

impl Etcd {
    /// Carries out transactions until one fails.
    pub(super) async fn commit(&self, txns: &[Txn]) -> Committed {
        let _turn = self.turn.lock().await;
        let patience = if self.is_away() { IMPATIENCE } else { PATIENCE };
        let deadline = clock::now() + patience;
        let mut committed = Committed::default();
        let setbacks = self.setbacks();
        while committed.failed.is_none() && committed.revisions.len() < txns.len() {
            match self.some(&txns[committed.revisions.len()..], (deadline, setbacks)).await {
                Ok(planned) => {
                    committed.revisions.extend(planned.revisions);
                    committed.failed = planned.failed;
                }
                Err(error) => committed.failed = Some(error),
            }
        }
        self.went(committed.failed.as_ref());
        committed
    }

    /// Carries out as many transactions as can be written together.
    async fn some(&self, txns: &[Txn], (deadline, setbacks): (Instant, u64)) -> Result<Planned, StoreError> {
        let (token, now_ms) = (token()?, (self.clock)());
        let mut checked = false;
        loop {
            if self.setbacks() != setbacks {
                // They were planned upon a history that is not this one.
                let failed = Some(StoreError::Behind { found: *self.newest.borrow() });
                return Ok(Planned { failed, ..Planned::default() });
            }
            if self.mirror.lock().is_none() {
                self.again(deadline, self.catch_up().await.map(drop)).await?;
                continue;
            }
            let (planned, head) = match &*self.mirror.lock() {
                Some(mirror) => (mirror.plan(txns, &token, now_ms), mirror.head),
                None => continue,
            };
            if planned.entries.is_empty() {
                if checked {
                    return Ok(planned);
                }
                // What is refused, and what changes nothing, is so upon the newest revision only.
                checked = self.again(deadline, self.catch_up().await).await?.is_some_and(|seen| seen.is_empty());
                continue;
            }
            checked = false;
            match self.write(&planned, head, &token).await {
                Ok(true) => return Ok(planned),
                Ok(false) => {
                    let seen = self.again(deadline, self.catch_up().await).await?.unwrap_or_default();
                    let first = planned.entries.first().map(|(revision, _)| *revision);
                    if seen.iter().any(|(revision, written)| Some(*revision) == first && *written == token) {
                        return Ok(planned);
                    }
                }
                Err(error) => drop(self.again::<()>(deadline, Err(error)).await?),
            }
        }
    }

    /// What was asked for, or, when nobody answered and there is time, nothing after a pause.
    async fn again<T>(&self, deadline: Instant, asked: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match asked {
            Ok(answer) => Ok(Some(answer)),
            Err(StoreError::Away(_)) if clock::now() + PAUSE < deadline => {
                sleep(PAUSE).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes entries when `head` is still what it was; `false` when it is not.
    async fn write(&self, planned: &Planned, head: i64, token: &str) -> Result<bool, StoreError> {
        let mut success = Vec::new();
        let mut newest = 0;
        for (revision, entry) in &planned.entries {
            newest = *revision;
            let bytes = json(entry)?;
            if bytes.len() <= PART {
                success.push(put(&self.keys.log(*revision), bytes));
            } else {
                success.extend(self.stage(*revision, entry, &bytes).await?);
            }
        }
        let new = Head { format: FORMAT, revision: newest, token: token.to_owned() };
        success.push(put(&self.keys.head(), json(&new)?));
        let compare = vec![unchanged(&self.keys.head(), head)];
        let answer = self.client.txn(TxnRequest { compare, success, failure: Vec::new() }).await.map_err(Trouble::into_error)?;
        if answer.succeeded {
            let modified = answer.header.map_or(0, |header| header.revision);
            self.learn(&planned.entries, modified)?;
        }
        Ok(answer.succeeded)
    }

    /// Takes over what was written just now.
    fn learn(&self, entries: &[(Revision, Entry)], modified: i64) -> Result<(), StoreError> {
        let mut newest = 0;
        if let Some(mirror) = &mut *self.mirror.lock() {
            for (revision, entry) in entries {
                mirror.learn(*revision, (&entry.token, entry.time_ms), &entry.clone().versions(*revision));
            }
            mirror.head = modified;
            newest = mirror.revision;
        }
        self.tell(newest);
        Ok(())
    }

    /// Lays the parts of a large entry ready. They go with a lease, and stay when the transaction that names them is carried out.
    async fn stage(&self, revision: Revision, entry: &Entry, bytes: &[u8]) -> Result<Vec<RequestOp>, StoreError> {
        let parts: Vec<&[u8]> = bytes.chunks(PART).collect();
        if parts.len() > MOST_PARTS {
            let what = format!("the change by {}", entry.author);
            return Err(StoreError::TooLarge { what, bytes: bytes.len(), most: MOST_PARTS * PART });
        }
        let lease = self.client.grant(STAGED).await.map_err(Trouble::into_error)?;
        let mut ops = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            let key = self.keys.part(&entry.token, revision, number);
            let success = vec![put_for(&key, part.to_vec(), lease)];
            // One that is there was laid by an earlier try, and may be kept already: it must not get a lease again.
            let staged = TxnRequest { compare: vec![unchanged(&key, 0)], success, ..TxnRequest::default() };
            self.client.txn(staged).await.map_err(Trouble::into_error)?;
            ops.push(keep(&key));
        }
        let pointer = Entry { writes: Vec::new(), parts: parts.len(), ..entry.clone() };
        ops.push(put(&self.keys.log(revision), json(&pointer)?));
        Ok(ops)
    }

    /// Learns what others have written; gives the revisions and their tokens. The caller holds the turn.
    pub(super) async fn catch_up(&self) -> Result<Vec<(Revision, String)>, StoreError> {
        let known = self.mirror.lock().as_ref().map(|mirror| (mirror.revision, mirror.token.clone()));
        let Some((known, token)) = known else { return self.read_anew().await };
        let (ends, found) = match self.ends_and(known).await {
            Err(error @ StoreError::Unusable(_)) => {
                self.is_lost(true, &error);
                return Err(error);
            }
            read => read?,
        };
        self.still_there(known, &ends)?;
        let logged = known > 0 && known >= ends.floor.revision;
        if known > ends.newest() || (logged && found != Some(token)) {
            let told = self.read_anew().await?;
            self.set_back(known);
            return Ok(told);
        }
        if known + 1 < ends.floor.revision {
            return self.read_anew().await;
        }
        let seen = self.entries_after(known, &ends).await?;
        let mut told = Vec::with_capacity(seen.len());
        {
            let mut mirror = self.mirror.lock();
            if let Some(mirror) = &mut *mirror {
                for (revision, entry) in seen {
                    let (token, time_ms) = (entry.token.clone(), entry.time_ms);
                    let versions = entry.sorted(revision);
                    mirror.learn(revision, (&token, time_ms), &versions.known);
                    self.foreign(versions.foreign.iter());
                    told.push((revision, token));
                }
                mirror.head = ends.head.as_ref().map_or(0, |(_, modified)| *modified);
                if ends.floor.revision > mirror.floor {
                    mirror.forget(ends.floor.revision);
                }
            }
        }
        self.tell(ends.newest());
        Ok(told)
    }

    /// Reads everything from the floor on; the caller holds the turn.
    async fn read_anew(&self) -> Result<Vec<(Revision, String)>, StoreError> {
        let (_, mirror, replay) = self.replay(None).await?;
        let newest = mirror.revision;
        *self.mirror.lock() = Some(mirror);
        self.foreign(replay.foreign.values());
        self.tell(newest);
        Ok(vec![(newest, String::new())])
    }

    /// Whether there is a store where revision `known` was: an empty cluster in its place is one that was lost, or is being restored, and not the wish that
    /// all agents forget everything.
    fn still_there(&self, known: Revision, ends: &Ends) -> Result<(), StoreError> {
        let lost = known > 0 && ends.head.is_none();
        let why = StoreError::Unusable(format!(
            "the store on etcd is empty where revision {known} was: it was lost, or is being restored. Nothing is written until it is back; what was \
                 known is served from memory. Restore it (heddle store restore), or restart all control planes to begin with an empty store"
        ));
        self.is_lost(lost, &why);
        if lost { Err(why) } else { Ok(()) }
    }

    /// Notes whether the store can be used, and tells when that changes.
    fn is_lost(&self, lost: bool, why: &StoreError) {
        if self.lost.swap(lost, Ordering::Relaxed) == lost {
            return;
        }
        if lost {
            tracing::error!(%why, "the store is not there");
        } else {
            tracing::warn!("the store on etcd is there again");
        }
    }

    /// Notes which resources are of kinds that this heddle does not know; each is told of once.
    fn foreign<'a>(&self, versions: impl Iterator<Item = &'a Kept>) {
        let mut foreign = self.foreign.lock();
        for kept in versions {
            if !kept.exists() {
                foreign.remove(kept.name());
            } else if foreign.len() < MOST_FOREIGN && foreign.insert(kept.name().to_owned()) {
                tracing::warn!(
                    resource = kept.name(),
                    "the store holds a resource of a kind that this version of heddle does not know: it stays as it is, and does nothing here"
                );
            }
        }
    }

    /// What was known is not the history any more. Everybody is told; the caller holds the turn.
    fn set_back(&self, known: Revision) {
        let found = *self.newest.borrow();
        tracing::error!(
            known,
            found,
            "the store on etcd was set back: its history is another one than it was. Everything is read anew, and what was written after the state that it \
             was set back to is lost"
        );
        self.setbacks.fetch_add(1, Ordering::Relaxed);
        self.newest.send_replace(found);
    }

    /// All entries after a revision, up to the head.
    async fn entries_after(&self, known: Revision, ends: &Ends) -> Result<Vec<(Revision, Entry)>, StoreError> {
        let mut seen: Vec<(Revision, Entry)> = Vec::new();
        let mut next = known + 1;
        while next <= ends.newest() {
            let page = self.entries((next, ends.newest()), (PAGE, false), ends.at).await?;
            if page.first().is_none_or(|(revision, _)| *revision != next) {
                return Err(StoreError::Unusable(format!("revision {next} is missing; restore the store on etcd from a backup")));
            }
            next += page.len() as u64;
            seen.extend(page);
        }
        Ok(seen)
    }
}

/// A name that no other transaction has.
pub(super) fn token() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::Io("the system gives no random numbers".into()))?;
    Ok(heddle_node::hex::encode(&bytes))
}
