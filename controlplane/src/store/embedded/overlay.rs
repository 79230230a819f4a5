//! A file that can be read and locked but never changes: what is written stays in memory. It knows no tables.

use std::collections::HashMap;
use std::io;
use std::ops::Bound;

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Bytes of a block; redb writes whole pages of this size.
const BLOCK: u64 = 4096;

/// Redb's view of a file through a sheet of glass. Opening a file this way shows whether it is sound, and what a
/// repair after a crash would give, without touching it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: FileBackend,
    sheet: Mutex<Sheet>,
}

#[derive(Debug)]
struct Sheet {
    /// Length as redb sees it.
    len: u64,
    /// Bytes of the file from here on are hidden: it was cut to this length at some time.
    visible: u64,
    blocks: HashMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(file: FileBackend) -> io::Result<Overlay> {
        let len = file.len()?;
        Ok(Overlay { file, sheet: Mutex::new(Sheet { len, visible: len, blocks: HashMap::new() }) })
    }

    /// The block at `index` of the file, zeros where the file has nothing.
    fn below(&self, visible: u64, index: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; BLOCK as usize];
        let start = index * BLOCK;
        let have = visible.saturating_sub(start).min(BLOCK) as usize;
        if have > 0 {
            self.file.read(start, &mut block[..have])?;
        }
        Ok(block)
    }
}

/// Calls `each(block index, range within the block, range within the data)` for `len` bytes at `offset`.
fn pieces(
    offset: u64,
    len: usize,
    mut each: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let within = (at % BLOCK) as usize;
        let count = (BLOCK as usize - within).min(len - done);
        each(at / BLOCK, within..within + count, done..done + count)?;
        done += count;
    }
    Ok(())
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.sheet.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let sheet = self.sheet.lock();
        if offset.saturating_add(out.len() as u64) > sheet.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pieces(offset, out.len(), |index, within, data| {
            match sheet.blocks.get(&index) {
                Some(block) => out[data].copy_from_slice(&block[within]),
                None => out[data].copy_from_slice(&self.below(sheet.visible, index)?[within]),
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sheet = self.sheet.lock();
        let (visible, last) = (sheet.visible, len / BLOCK);
        if len < sheet.len && !len.is_multiple_of(BLOCK) {
            let mut block = match sheet.blocks.remove(&last) {
                Some(block) => block,
                None => self.below(visible, last)?,
            };
            block[(len % BLOCK) as usize..].fill(0);
            sheet.blocks.insert(last, block);
        }
        sheet.blocks.retain(|index, _| index * BLOCK < len);
        sheet.visible = visible.min(len);
        sheet.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut sheet = self.sheet.lock();
        let visible = sheet.visible;
        pieces(offset, data.len(), |index, within, piece| {
            let mut block = match sheet.blocks.remove(&index) {
                Some(block) => block,
                None => self.below(visible, index)?,
            };
            block[within].copy_from_slice(&data[piece]);
            sheet.blocks.insert(index, block);
            Ok(())
        })?;
        sheet.len = sheet.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Reading through the sheet gives what a plain byte vector would, and the file below never changes.
        #[test]
        fn an_overlay_reads_like_the_file_it_hides(
            base in proptest::collection::vec(any::<u8>(), 0..10_000),
            steps in proptest::collection::vec((0u64..12_000, proptest::collection::vec(any::<u8>(), 0..5_000), any::<bool>()), 0..12),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            std::fs::write(&path, &base).unwrap();
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let overlay = Overlay::new(FileBackend::new(file).unwrap()).unwrap();
            let mut model = base.clone();
            for (at, data, cut) in steps {
                if cut {
                    overlay.set_len(at).unwrap();
                    model.resize(at as usize, 0);
                } else {
                    let end = at as usize + data.len();
                    if model.len() < end { model.resize(end, 0); }
                    model[at as usize..end].copy_from_slice(&data);
                    overlay.write(at, &data).unwrap();
                }
                let mut seen = vec![0; model.len()];
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
                overlay.read(0, &mut seen).unwrap();
                prop_assert!(seen == model);
                prop_assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
            }
            prop_assert!(std::fs::read(&path).unwrap() == base);
        }
    }
}
