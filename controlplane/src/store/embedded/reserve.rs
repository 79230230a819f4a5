//! A file whose space is taken before it is used, so that a full disk is met before anything is half written. It knows no tables.

use std::io;
use std::ops::Bound;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Zeros written at a time.
const CHUNK: usize = 1 << 20;

/// The file as redb writes it. Redb grows a file by setting its length, which takes no space yet; a later write into the
/// hole can then fail, and what other writes of that transaction have taken by then stays taken. Here growing fills the
/// hole, and a growth that fails is undone.
#[derive(Debug)]
pub(super) struct Reserved(pub(super) FileBackend);

impl Reserved {
    fn fill(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; CHUNK];
        let mut at = from;
        while at < to {
            let count = (to - at).min(CHUNK as u64);
            self.0.write(at, &zeros[..count as usize])?;
            at += count;
        }
        Ok(())
    }
}

impl StorageBackend for Reserved {
    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.0.len()?;
        // The length is set first and at once: after a crash in between it is one that redb understands.
        self.0.set_len(len)?;
        self.fill(before, len).or_else(|error| self.0.set_len(before).and(Err(error)))?;
        // Nothing that is written from now on may survive a loss of power that the length does not survive.
        if len > before { self.0.sync_data() } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
