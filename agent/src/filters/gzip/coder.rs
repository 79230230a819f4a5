//! Deflating with a gzip frame around it. Used compressors are kept by their worker, since making one costs a quarter of a megabyte.

use std::cell::RefCell;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::super::compress::{Coder, CoderError, spare};

/// The largest window, as every decoder takes it.
const WINDOW_BITS: u8 = 15;
/// Most unused compressors that a worker keeps.
const MAX_KEPT: usize = 4;

thread_local! {
    /// Unused compressors of this worker with their levels.
    static KEPT: RefCell<Vec<(u32, Compress)>> = const { RefCell::new(Vec::new()) };
}

/// A gzip coder.
pub(super) struct Gzip {
    level: u32,
    /// Gone only while it is dropped.
    compress: Option<Compress>,
}

impl Gzip {
    /// A coder of this level.
    pub(super) fn new(level: u32) -> Gzip {
        let kept = KEPT.with_borrow_mut(|kept| {
            let at = kept.iter().position(|(other, _)| *other == level)?;
            Some(kept.swap_remove(at).1)
        });
        let compress = kept.unwrap_or_else(|| Compress::new_gzip(Compression::new(level), WINDOW_BITS));
        Gzip { level, compress: Some(compress) }
    }

    fn run(&mut self, mut input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> Result<(), CoderError> {
        let compress = self.compress.as_mut().ok_or(CoderError)?;
        loop {
            spare(out);
            let before = compress.total_in();
            let status = compress.compress_vec(input, out, flush).map_err(|_| CoderError)?;
            input = &input[(compress.total_in() - before) as usize..];
            let has_room = out.len() < out.capacity();
            match (flush, status) {
                (_, Status::StreamEnd) => return Ok(()),
                (FlushCompress::Finish, _) if has_room => return Err(CoderError),
                (FlushCompress::Finish, _) => {}
                _ if input.is_empty() && has_room => return Ok(()),
                _ => {}
            }
        }
    }
}

impl Coder for Gzip {
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), CoderError> {
        self.run(input, FlushCompress::None, out)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), CoderError> {
        self.run(&[], FlushCompress::Sync, out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CoderError> {
        self.run(&[], FlushCompress::Finish, out)
    }
}

impl Drop for Gzip {
    fn drop(&mut self) {
        let Some(mut compress) = self.compress.take() else { return };
        compress.reset();
        // At the end of the worker there is nothing to keep it in any more.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MAX_KEPT {
                kept.push((self.level, compress));
            }
        });
    }
}
