//! The body of a call on its way to the upstream: base64 where the client writes it so, at most so many bytes. It holds less than one group of four.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::http::BodyError;

/// What stands for something else than groups of base64 with their padding.
pub(super) const BAD_BASE64: BodyError = BodyError::Malformed("the call is not base64");

/// Reads base64 piece by piece. A group may be padded anywhere: what a client sends in parts it may have written in parts.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    /// The beginning of a group.
    rest: Vec<u8>,
}

impl Base64 {
    /// What the next piece stands for, `None` being the end.
    ///
    /// # Errors
    /// It is no base64, or ends within a group.
    pub(super) fn decode(&mut self, piece: Option<&[u8]>) -> Result<Bytes, BodyError> {
        let Some(piece) = piece else {
            return if self.rest.is_empty() { Ok(Bytes::new()) } else { Err(BAD_BASE64) };
        };
        let mut out = Vec::with_capacity((self.rest.len() + piece.len()) / 4 * 3);
        let mut piece = piece;
        if !self.rest.is_empty() {
            let (more, after) = piece.split_at(piece.len().min(4 - self.rest.len()));
            self.rest.extend_from_slice(more);
            piece = after;
            if self.rest.len() < 4 {
                return Ok(Bytes::new());
            }
            append(&self.rest, &mut out)?;
            self.rest.clear();
        }
        let whole = piece.len() / 4 * 4;
        let (mut groups, rest) = piece.split_at(whole);
        while !groups.is_empty() {
            // Behind a group with padding another text begins.
            let padded = groups.iter().position(|byte| *byte == b'=').map_or(groups.len(), |at| at / 4 * 4 + 4);
            let (run, after) = groups.split_at(padded);
            append(run, &mut out)?;
            groups = after;
        }
        self.rest.extend_from_slice(rest);
        Ok(Bytes::from(out))
    }
}

fn append(groups: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
    STANDARD.decode_vec(groups, out).map_err(|_| BAD_BASE64)
}

/// Counts bytes up to a limit.
#[derive(Debug)]
pub(super) struct Limit {
    most: u64,
    seen: u64,
}

impl Limit {
    /// So many at most.
    pub(super) fn of(most: u64) -> Limit {
        Limit { most, seen: 0 }
    }

    /// Counts a piece.
    ///
    /// # Errors
    /// With it there are too many.
    pub(super) fn count(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        self.seen = self.seen.saturating_add(piece.len() as u64);
        if self.seen > self.most { Err(BodyError::TooLarge(self.most)) } else { Ok(()) }
    }
}
