//! Compressing with Zstandard (RFC 8878). Used encoders are kept by their worker, since their tables are large.

use std::cell::RefCell;

use ::zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

use super::super::compress::{Coder, CoderError, spare};

/// Most unused encoders that a worker keeps.
const MAX_KEPT: usize = 4;

/// Level and window of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) level: u8,
    pub(super) window_log: u8,
}

thread_local! {
    /// Unused encoders of this worker with their shapes.
    static KEPT: RefCell<Vec<(Shape, Encoder<'static>)>> = const { RefCell::new(Vec::new()) };
}

/// A Zstandard coder.
pub(super) struct Zstd {
    shape: Shape,
    /// `None` when the library had no memory for one.
    encoder: Option<Encoder<'static>>,
}

impl Zstd {
    /// A coder of this shape for a body of this length, where that is known.
    pub(super) fn new(shape: Shape, length: Option<u64>) -> Zstd {
        let kept = KEPT.with_borrow_mut(|kept| {
            let at = kept.iter().position(|(other, _)| *other == shape)?;
            Some(kept.swap_remove(at).1)
        });
        let encoder = kept.or_else(|| fresh(shape).ok());
        let encoder = encoder.and_then(|mut encoder| encoder.set_pledged_src_size(length).ok().map(|()| encoder));
        Zstd { shape, encoder }
    }
}

fn fresh(shape: Shape) -> std::io::Result<Encoder<'static>> {
    let mut encoder = Encoder::new(shape.level.into())?;
    encoder.set_parameter(CParameter::WindowLog(shape.window_log.into()))?;
    Ok(encoder)
}

impl Coder for Zstd {
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), CoderError> {
        let encoder = self.encoder.as_mut().ok_or(CoderError)?;
        let mut input = InBuffer::around(input);
        while input.pos() < input.src.len() {
            spare(out);
            let at = out.len();
            encoder.run(&mut input, &mut OutBuffer::around_pos(out, at)).map_err(|_| CoderError)?;
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), CoderError> {
        let encoder = self.encoder.as_mut().ok_or(CoderError)?;
        loop {
            spare(out);
            let at = out.len();
            if encoder.flush(&mut OutBuffer::around_pos(out, at)).map_err(|_| CoderError)? == 0 {
                return Ok(());
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CoderError> {
        let encoder = self.encoder.as_mut().ok_or(CoderError)?;
        loop {
            spare(out);
            let at = out.len();
            if encoder.finish(&mut OutBuffer::around_pos(out, at), true).map_err(|_| CoderError)? == 0 {
                return Ok(());
            }
        }
    }
}

impl Drop for Zstd {
    fn drop(&mut self) {
        let Some(mut encoder) = self.encoder.take() else { return };
        if encoder.reinit().is_err() {
            return;
        }
        // At the end of the worker there is nothing to keep it in any more.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MAX_KEPT {
                kept.push((self.shape, encoder));
            }
        });
    }
}
