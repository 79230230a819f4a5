//! The store on an etcd cluster, for any number of control planes. It knows revisions and majorities, not what the resources mean.

mod channel;
mod client;
mod commit;
mod compact;
mod follow;
mod layout;
mod lease;
mod mirror;
mod read;
mod records;
mod restore;

#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use super::{
    Append, Clock, Committed, Compare, Entry, Hold, Leases, News, RecordWrite, Records, Revision, Ring, Store, StoreError, Txn,
    Version, Write,
};
use crate::model::Key;
use client::Client;
use layout::Keys;
use mirror::Mirror;

pub use channel::{EtcdSettings, EtcdTls};
pub(super) use layout::Kept;

/// Messages about records that a listener may lag behind; one that lags further reads everything.
const NEWS: usize = 1_024;

/// The store on etcd.
pub struct Etcd {
    client: Arc<Client>,
    keys: Keys,
    clock: Clock,
    /// What is known; `None` until it was read.
    mirror: Mutex<Option<Mirror>>,
    /// Whoever writes revisions or learns of them holds this.
    turn: tokio::sync::Mutex<()>,
    /// Whoever writes records holds this.
    recording: tokio::sync::Mutex<()>,
    newest: watch::Sender<Revision>,
    news: broadcast::Sender<News>,
    /// The last write found nobody.
    away: AtomicBool,
    /// There is nothing where there was a store.
    lost: AtomicBool,
    /// See [`Store::setbacks`].
    setbacks: AtomicU64,
    /// Names of resources of kinds that are not known here.
    foreign: Mutex<BTreeSet<String>>,
    /// Leases that are held, by name.
    held: Mutex<BTreeMap<String, i64>>,
}

impl Etcd {
    /// Reads what the cluster holds below the prefix, and follows it from then on.
    ///
    /// # Errors
    /// The settings are not usable, the cluster does not answer, or what it holds is not ours.
    pub async fn open(settings: &EtcdSettings, clock: Clock, mut dice: fastrand::Rng) -> Result<Arc<Etcd>, StoreError> {
        let store = Etcd::look(settings, clock, dice.usize(..))?;
        {
            let _turn = store.turn.lock().await;
            store.catch_up().await?;
        }
        tokio::spawn(follow::run(Arc::downgrade(&store), dice));
        Ok(store)
    }

    /// The same for a tool, which reads nothing before it has to, follows nothing, and begins with the member `first`.
    ///
    /// # Errors
    /// The settings are not usable.
    pub fn look(settings: &EtcdSettings, clock: Clock, first: usize) -> Result<Arc<Etcd>, StoreError> {
        let client = Arc::new(Client::new(settings, first)?);
        Ok(Arc::new(Etcd::with(client, Keys(settings.prefix.as_str().into()), clock)))
    }

    /// Another store on the same cluster.
    fn other(&self, keys: Keys) -> Etcd {
        Etcd::with(self.client.clone(), keys, self.clock.clone())
    }

    fn with(client: Arc<Client>, keys: Keys, clock: Clock) -> Etcd {
        Etcd {
            client,
            keys,
            clock,
            mirror: Mutex::new(None),
            turn: tokio::sync::Mutex::new(()),
            recording: tokio::sync::Mutex::new(()),
            newest: watch::Sender::new(0),
            news: broadcast::Sender::new(NEWS),
            away: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            setbacks: AtomicU64::new(0),
            foreign: Mutex::default(),
            held: Mutex::new(BTreeMap::new()),
        }
    }

    /// Tells everybody of the newest revision; the caller holds the turn, so that what it has read is not older than what was told.
    fn tell(&self, revision: Revision) {
        self.newest.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Notes how the last write went.
    fn went(&self, failed: Option<&StoreError>) {
        self.away.store(matches!(failed, Some(StoreError::Away(_))), Ordering::Relaxed);
    }
}

#[async_trait]
impl Store for Etcd {
    async fn txn(&self, compare: Vec<Compare>, writes: Vec<Write>, author: Arc<str>) -> Result<Revision, StoreError> {
        let committed = self.txns(vec![Txn { upon: None, compare, writes, author }]).await;
        match (committed.failed, committed.revisions.first()) {
            (None, Some(revision)) => Ok(*revision),
            (failed, _) => Err(failed.unwrap_or_else(|| StoreError::Io("the store gave no revision".into()))),
        }
    }

    async fn txns(&self, txns: Vec<Txn>) -> Committed {
        self.commit(&txns).await
    }

    async fn load(&self) -> Result<(Revision, Vec<Version>), StoreError> {
        let _turn = self.turn.lock().await;
        self.catch_up().await?;
        let (_, mirror, replay) = self.replay(None).await?;
        let revision = mirror.revision;
        *self.mirror.lock() = Some(mirror);
        self.tell(revision);
        Ok((revision, replay.into_versions()))
    }

    async fn at(&self, revision: Revision) -> Result<Vec<Version>, StoreError> {
        let (_, _, replay) = self.replay(Some(revision)).await?;
        Ok(replay.into_versions())
    }

    async fn history(&self, key: Option<Key>, before: Option<Revision>, limit: usize) -> Result<Vec<Version>, StoreError> {
        let before = before.unwrap_or(Revision::MAX);
        match key {
            Some(key) => self.history_of(&key, before, limit).await,
            None => self.history_of_all(before, limit).await,
        }
    }

    async fn since(&self, after: Revision, most: usize) -> Result<Vec<Version>, StoreError> {
        self.after(after, most).await
    }

    fn newest(&self) -> watch::Receiver<Revision> {
        self.newest.subscribe()
    }

    fn setbacks(&self) -> u64 {
        self.setbacks.load(Ordering::Relaxed)
    }

    fn unknown(&self) -> Vec<String> {
        self.foreign.lock().iter().cloned().collect()
    }

    async fn compact(&self, keep_revisions: u64, keep_ms: u64) -> Result<Revision, StoreError> {
        let since_ms = (self.clock)().saturating_sub(keep_ms);
        self.move_floor(keep_revisions, since_ms).await
    }
}

#[async_trait]
impl Records for Etcd {
    async fn record(&self, writes: Vec<RecordWrite>, journal: Vec<Append>) -> Result<(), StoreError> {
        self.write_records(writes, journal).await
    }

    async fn records(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.all_records().await
    }

    async fn journal(&self, ring: Ring, before: Option<u64>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.read_journal(ring, before.unwrap_or(u64::MAX), limit).await
    }

    fn most(&self) -> usize {
        records::MOST_RECORD
    }

    fn news(&self) -> Option<broadcast::Receiver<News>> {
        Some(self.news.subscribe())
    }
}

#[async_trait]
impl Leases for Etcd {
    async fn hold(&self, name: &str, holder: &str, ttl: std::time::Duration) -> Result<Hold, StoreError> {
        self.hold_lease(name, holder, ttl).await
    }

    async fn held(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let prefix = self.keys.lease(prefix);
        let found = self.below(&prefix, 0).await?;
        Ok(found.into_keys().map(|key| key[prefix.len()..].to_owned()).collect())
    }

    async fn release(&self, name: &str) -> Result<(), StoreError> {
        self.release_lease(name).await
    }
}
