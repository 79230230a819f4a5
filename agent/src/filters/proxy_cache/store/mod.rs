//! A zone: room for answers in memory and on disk, shared by all workers and bounded in bytes. It knows no requests.

mod disk;
mod file;
mod flight;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::super::Keep;
use super::super::limits::Waiting;
use super::config::ZoneConfig;
use super::entry::Stored;
use super::key::Key;

use disk::Disk;
pub(super) use flight::{Flights, Lead, Role};

/// A zone.
pub(super) struct Zone {
    memory: Arc<Memory>,
    disk: Option<Arc<Disk>>,
    /// Keeps the folder, or that it cannot be used, from being found out again.
    _folder: Option<Arc<std::io::Result<Arc<Disk>>>>,
    /// Who fetches for a client.
    pub flights: Arc<Flights>,
    /// Who fetches beside a stale answer.
    pub refreshes: Arc<Flights>,
    /// Requests that wait for others.
    pub waiting: Arc<Waiting>,
}

type Answers = Cache<Key, Arc<Stored>, ByWeight, foldhash::fast::RandomState, DefaultLifecycle<Key, Arc<Stored>>>;

/// Answers in memory. What is often asked for stays longest (S3-FIFO as `quick_cache` has it).
struct Memory {
    answers: Answers,
    /// Bytes of bodies that are on their way in.
    incoming: Arc<Incoming>,
}

#[derive(Debug, Clone)]
struct ByWeight;

impl Weighter<Key, Arc<Stored>> for ByWeight {
    fn weight(&self, _key: &Key, stored: &Arc<Stored>) -> u64 {
        stored.weight()
    }
}

/// Bytes of bodies that are being collected, which take memory before they are stored.
#[derive(Debug)]
pub(super) struct Incoming {
    held: AtomicU64,
    most: u64,
}

/// Shards of a memory: more would leave less room for one answer.
const SHARDS: usize = 4;
/// An answer of usual size.
const USUAL: u64 = 8 * 1024;

impl Zone {
    /// The zone as it is kept while somebody uses it; with `on_disk` answers outlive the process.
    pub(super) fn open(config: &ZoneConfig, on_disk: bool, keep: &Keep) -> Zone {
        let name = &config.name;
        let size = config.memory_size;
        let memory = keep.get_or(&format!("proxy-cache/memory/{name}/{on_disk}/{size}"), || Memory::new(size));
        let folder = match (&config.disk_path, keep.folder()) {
            _ if !on_disk => None,
            (Some(path), _) => Some(PathBuf::from(path)),
            (None, folder) => folder.map(|folder| folder.join("proxy-cache").join(name)),
        };
        let folder = folder.map(|folder| {
            let state = keep.get_or(&format!("proxy-cache/disk/{}", folder.display()), || Disk::open(&folder));
            match &*state {
                Ok(disk) => disk.set_limit(config.disk_size),
                Err(error) => tracing::warn!(zone = name, folder = %folder.display(), %error,
                    "answers are cached in memory only: the folder cannot be used; name another one with disk_path of the zone"),
            }
            state
        });
        let disk = folder.as_ref().and_then(|state| state.as_ref().as_ref().ok().cloned());
        let flights = |kind: &str| keep.get_or(&format!("proxy-cache/{kind}/{name}/{on_disk}"), Flights::default);
        let waiting = keep.get_or(&format!("proxy-cache/waiting/{name}/{on_disk}"), Waiting::default);
        Zone { memory, disk, _folder: folder, flights: flights("flights"), refreshes: flights("refreshes"), waiting }
    }

    /// What lies in memory under this key.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.memory.answers.get(key)
    }

    /// Whether something lies on disk under this key.
    pub(super) fn is_on_disk(&self, key: &Key) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.has(key))
    }

    /// Brings what lies on disk into memory, as far as it fits there.
    pub(super) async fn load(&self, key: Key) -> Option<Arc<Stored>> {
        let disk = self.disk.clone()?;
        let loaded = tokio::task::spawn_blocking(move || disk.read(&key)).await.ok().flatten()?;
        let stored = Arc::new(loaded);
        self.memory.answers.insert(key, stored.clone());
        Some(stored)
    }

    /// Stores under this key.
    pub(super) fn put(&self, key: Key, stored: Stored) {
        let stored = Arc::new(stored);
        if let Some(disk) = self.disk.as_ref().filter(|_| !matches!(*stored, Stored::Pass(_))) {
            disk.clone().write_later(key, stored.clone());
        }
        self.memory.answers.insert(key, stored);
    }

    /// Forgets what lies under this key; says whether there was something.
    pub(super) fn remove(&self, key: &Key) -> bool {
        let known = self.memory.answers.remove(key).is_some_and(|(_, stored)| !matches!(*stored, Stored::Pass(_)));
        let on_disk = self.disk.as_ref().is_some_and(|disk| disk.clone().remove_later(key));
        known || on_disk
    }

    /// What counts bodies that are on their way in.
    pub(super) fn incoming(&self) -> &Arc<Incoming> {
        &self.memory.incoming
    }
}

impl Memory {
    fn new(size: u64) -> Memory {
        let mut options = OptionsBuilder::new();
        options.shards(SHARDS).estimated_items_capacity((size / USUAL) as usize).weight_capacity(size);
        let incoming = Arc::new(Incoming { held: AtomicU64::new(0), most: size });
        let hasher = foldhash::fast::RandomState::default();
        let answers = match options.build() {
            Ok(options) => Cache::with_options(options, ByWeight, hasher, DefaultLifecycle::default()),
            Err(_) => Cache::with((size / USUAL) as usize, size, ByWeight, hasher, DefaultLifecycle::default()),
        };
        Memory { answers, incoming }
    }
}

impl Incoming {
    /// Counts some more bytes; false, with nothing counted, when that is too much.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.most;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    /// Counts bytes no more.
    pub(super) fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}
