//! Answers in a folder, one file each, bounded in bytes. Reading and writing block, so workers have others do it. It knows no requests.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::super::entry::Stored;
use super::super::key::Key;
use super::file;

/// A folder with answers.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    index: Mutex<Index>,
    /// Files that are being written.
    writing: AtomicUsize,
    /// Held as long as the folder is used, so that no other process uses it.
    _lock: File,
}

/// What lies in the folder. The least recently used goes first.
#[derive(Debug, Default)]
struct Index {
    files: HashMap<Key, Known, RandomState>,
    /// Keys by when they were last used.
    by_use: BTreeMap<u64, Key>,
    bytes: u64,
    limit: u64,
    /// Counts uses.
    now: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    size: u64,
    used: u64,
    /// Whether the file is there, rather than being written.
    ready: bool,
}

/// Most files that are written at the same time; what comes beyond stays in memory alone.
const MOST_WRITING: usize = 64;
/// Most files that are known: about 100 bytes of memory each.
const MOST_FILES: usize = 1_000_000;
const LOCK: &str = "lock";

impl Disk {
    /// Takes hold of a folder, which is made when it is not there, and looks in the background at what lies in it.
    ///
    /// # Errors
    /// It cannot be made, or another process uses it.
    pub(super) fn open(folder: &Path) -> io::Result<Arc<Disk>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::Error(error) => error,
            fs::TryLockError::WouldBlock => io::Error::other("another process uses the folder"),
        })?;
        let index = Mutex::new(Index { limit: u64::MAX, ..Index::default() });
        let disk = Arc::new(Disk { folder: folder.to_owned(), index, writing: AtomicUsize::new(0), _lock: lock });
        let scanned = Arc::downgrade(&disk);
        std::thread::Builder::new().name("cache-scan".into()).spawn(move || {
            if let Some(disk) = scanned.upgrade() {
                disk.scan();
            }
        })?;
        Ok(disk)
    }

    /// Most bytes from now on; what is too much goes with the next file that is written.
    pub(super) fn set_limit(&self, bytes: u64) {
        self.index.lock().limit = bytes;
    }

    /// Whether there is a file for this key.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.index.lock().files.get(key).is_some_and(|known| known.ready)
    }

    /// What lies under this key. A damaged file is removed.
    pub(super) fn read(&self, key: &Key) -> Option<Stored> {
        self.index.lock().touch(key);
        let stored = fs::read(self.path(key)).ok().and_then(|bytes| file::decode(key, bytes));
        if stored.is_none() && self.index.lock().forget(key) {
            tracing::warn!(file = %self.path(key).display(), "a cached answer cannot be read and is dropped");
            self.unlink(key);
        }
        stored
    }

    /// Writes what is stored under this key, beside the worker that has asked.
    pub(super) fn write_later(self: Arc<Disk>, key: Key, stored: Arc<Stored>) {
        if self.writing.fetch_add(1, Ordering::Relaxed) >= MOST_WRITING {
            self.writing.fetch_sub(1, Ordering::Relaxed);
            // What is there is older than what cannot be written.
            self.remove_later(&key);
            return;
        }
        let used = self.index.lock().begin(key, stored.weight());
        tokio::task::spawn_blocking(move || {
            self.write(&key, used, &stored);
            self.writing.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn write(&self, key: &Key, used: u64, stored: &Stored) {
        let written = match file::encode(key, stored) {
            Some(bytes) => self.write_file(key, used, &bytes),
            None => Err(io::Error::other("nothing to write")),
        };
        let mut gone = Vec::new();
        match written {
            Ok(()) => self.index.lock().make_room(&mut gone),
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "an answer cannot be written and is cached in memory only");
                self.index.lock().forget(key);
            }
        }
        gone.iter().for_each(|key| self.unlink(key));
    }

    /// Under another name first, so that nobody ever sees half a file.
    fn write_file(&self, key: &Key, used: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let fresh = path.with_extension(format!("{used}.new"));
        fs::write(&fresh, bytes)?;
        // The lock keeps the order in which answers were stored: what was removed, or stored anew, in the meantime does not come back.
        let mut index = self.index.lock();
        if index.settle(key, used) { fs::rename(&fresh, &path) } else { fs::remove_file(&fresh) }
    }

    /// Forgets this key at once, and removes its file beside the worker that has asked. Says whether there was one.
    pub(super) fn remove_later(self: Arc<Disk>, key: &Key) -> bool {
        let key = *key;
        let known = self.index.lock().forget(&key);
        if known {
            tokio::task::spawn_blocking(move || {
                // Unless it has been stored anew in the meantime; the lock keeps it from being so right now.
                let index = self.index.lock();
                if !index.files.contains_key(&key) {
                    self.unlink(&key);
                }
            });
        }
        known
    }

    fn unlink(&self, key: &Key) {
        // Whether it was there or not, it is not there now.
        let _ = fs::remove_file(self.path(key));
    }

    /// `ab/abcd….hca`: 256 folders, so that none gets too large.
    fn path(&self, key: &Key) -> PathBuf {
        let mut name = String::with_capacity(64);
        for byte in key {
            for digit in [byte >> 4, byte & 15] {
                name.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        self.folder.join(&name[..2]).join(name).with_extension("hca")
    }

    /// Learns what lies in the folder; what was never finished, or is none of ours, goes.
    fn scan(&self) {
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        for folder in entries(&self.folder).filter(|entry| entry.path().is_dir()) {
            for entry in entries(&folder.path()) {
                let size = entry.metadata().map_or(0, |metadata| metadata.len());
                match key_of(&entry.path()) {
                    Some(key) => self.index.lock().found(key, size),
                    None if entry.path().extension().is_some_and(|extension| extension == "new") => {
                        let _ = fs::remove_file(entry.path());
                    }
                    None => {}
                }
            }
        }
        let mut gone = Vec::new();
        self.index.lock().make_room(&mut gone);
        gone.iter().for_each(|key| self.unlink(key));
    }
}

fn key_of(path: &Path) -> Option<Key> {
    let name = path.file_stem()?.to_str()?.as_bytes();
    if name.len() != 64 || path.extension()? != "hca" {
        return None;
    }
    let mut key = Key::default();
    for (byte, digits) in key.iter_mut().zip(name.chunks(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(key)
}

impl Index {
    fn next(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn touch(&mut self, key: &Key) {
        let now = self.next();
        if let Some(known) = self.files.get_mut(key).filter(|known| known.ready) {
            self.by_use.remove(&known.used);
            known.used = now;
            self.by_use.insert(now, *key);
        }
    }

    /// A file that will be written; the number tells it from others of the same key.
    fn begin(&mut self, key: Key, size: u64) -> u64 {
        self.forget(&key);
        let used = self.next();
        self.insert(key, Known { size, used, ready: false });
        used
    }

    /// It has been written; false when it is wanted no more.
    fn settle(&mut self, key: &Key, used: u64) -> bool {
        match self.files.get_mut(key) {
            Some(known) if known.used == used => {
                known.ready = true;
                true
            }
            _ => false,
        }
    }

    /// A file that was there when the process started, older than all that came since.
    fn found(&mut self, key: Key, size: u64) {
        if !self.files.contains_key(&key) {
            let used = self.next();
            self.insert(key, Known { size, used, ready: true });
        }
    }

    fn insert(&mut self, key: Key, known: Known) {
        self.bytes += known.size;
        self.by_use.insert(known.used, key);
        self.files.insert(key, known);
    }

    fn forget(&mut self, key: &Key) -> bool {
        let Some(known) = self.files.remove(key) else { return false };
        self.bytes -= known.size;
        self.by_use.remove(&known.used);
        true
    }

    fn make_room(&mut self, gone: &mut Vec<Key>) {
        while self.bytes > self.limit || self.files.len() > MOST_FILES {
            let Some((_, key)) = self.by_use.first_key_value() else { return };
            let key = *key;
            self.forget(&key);
            gone.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut index = Index { limit: 30, ..Index::default() };
        for key in 1..=3u8 {
            let used = index.begin([key; 32], 10);
            assert!(index.settle(&[key; 32], used));
        }
        index.touch(&[1; 32]);
        let used = index.begin([4; 32], 10);
        assert!(index.settle(&[4; 32], used));
        let mut gone = Vec::new();
        index.make_room(&mut gone);
        assert_eq!((gone, index.bytes, index.by_use.len()), (vec![[2; 32]], 30, 3));
        let used = index.begin([5; 32], 10);
        assert!(index.forget(&[5; 32]) && !index.settle(&[5; 32], used), "removed while it was written");
    }

    #[test]
    fn names_of_files_are_keys() {
        let folder = Path::new("/c");
        let index = Mutex::new(Index::default());
        let lock = File::open("/dev/null").unwrap();
        let disk = Disk { folder: folder.to_owned(), index, writing: AtomicUsize::new(0), _lock: lock };
        let key: Key = std::array::from_fn(|at| at as u8 * 7);
        assert_eq!(key_of(&disk.path(&key)), Some(key));
        assert_eq!(key_of(Path::new("/c/00/x.hca")), None);
    }
}
