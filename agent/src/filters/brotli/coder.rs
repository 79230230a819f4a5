//! Compressing with brotli (RFC 7932). It knows no responses.

use std::io::Write;

use ::brotli::CompressorWriter;
use ::brotli::enc::BrotliEncoderParams;
use ::brotli::enc::backward_references::BrotliEncoderMode;

use super::super::compress::{Coder, CoderError};
use super::config::Config;

/// Room in which the encoder lays down what it gives.
const ROOM: usize = 4 * 1024;
/// Window of the encoder where none is asked for, as a power of two.
const USUAL_WINDOW: i32 = 22;

/// What the encoder is told.
pub(super) fn parameters(config: &Config) -> BrotliEncoderParams {
    BrotliEncoderParams {
        quality: config.comp_level.into(),
        lgwin: if config.lgwin == 0 { USUAL_WINDOW } else { config.lgwin.into() },
        lgblock: config.lgblock.into(),
        mode: match config.mode {
            1 => BrotliEncoderMode::BROTLI_MODE_TEXT,
            2 => BrotliEncoderMode::BROTLI_MODE_FONT,
            _ => BrotliEncoderMode::BROTLI_MODE_GENERIC,
        },
        ..BrotliEncoderParams::default()
    }
}

/// A brotli coder. The encoder makes its tables anew for each body, so there is nothing to keep.
pub(super) struct Brotli {
    /// Gone once it is finished.
    writer: Option<CompressorWriter<Vec<u8>>>,
}

impl Brotli {
    pub(super) fn new(parameters: &BrotliEncoderParams) -> Brotli {
        Brotli { writer: Some(CompressorWriter::with_params(Vec::new(), ROOM, parameters)) }
    }

    /// Lets the encoder write to the end of `out`.
    fn run(
        &mut self,
        out: &mut Vec<u8>,
        act: impl FnOnce(&mut CompressorWriter<Vec<u8>>) -> std::io::Result<()>,
    ) -> Result<(), CoderError> {
        let writer = self.writer.as_mut().ok_or(CoderError)?;
        std::mem::swap(writer.get_mut(), out);
        let done = act(writer);
        std::mem::swap(writer.get_mut(), out);
        done.map_err(|_| CoderError)
    }
}

impl Coder for Brotli {
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), CoderError> {
        self.run(out, |writer| writer.write_all(input))
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), CoderError> {
        self.run(out, Write::flush)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CoderError> {
        let mut writer = self.writer.take().ok_or(CoderError)?;
        std::mem::swap(writer.get_mut(), out);
        *out = writer.into_inner();
        Ok(())
    }
}
