//! Bytes on their way out, in their order: small ones gathered, large ones sent from where they lie, all in one write. It knows no frames.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Pieces up to this are copied behind what is gathered: a slice of its own would cost more.
const COPY_MAX: usize = 4096;
/// Bytes from which no more content is framed before some are sent: one call of the TLS library takes as much. What waits in the streams
/// instead can still be overtaken by what is urgent.
const FULL: usize = 64 * 1024;
/// Gathered bytes whose room is kept for the next turn.
const KEEP: usize = 16 * 1024;
/// Slices of one write.
const MAX_SLICES: usize = 64;

/// A large piece and its place: it goes out before the gathered bytes from `at` on.
#[derive(Debug)]
struct Piece {
    at: usize,
    bytes: Bytes,
}

/// Bytes on their way.
#[derive(Debug, Default)]
pub struct Output {
    gathered: Vec<u8>,
    sent: usize,
    pieces: VecDeque<Piece>,
    in_pieces: usize,
}

impl Output {
    /// Where frames are written.
    pub(super) fn gathered(&mut self) -> &mut Vec<u8> {
        &mut self.gathered
    }

    /// Appends content.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_MAX {
            self.gathered.extend_from_slice(&bytes);
        } else {
            self.in_pieces += bytes.len();
            self.pieces.push_back(Piece { at: self.gathered.len(), bytes });
        }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.gathered.len() - self.sent + self.in_pieces
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether more content should be framed.
    pub(super) fn has_room(&self) -> bool {
        self.len() < FULL
    }

    /// The same behind so many bytes more.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.len() + bytes < FULL
    }

    /// All that waits, when it lies in one piece.
    pub fn single(&self) -> Option<&[u8]> {
        self.pieces.is_empty().then(|| &self.gathered[self.sent..])
    }

    /// What waits, as far as one write takes it.
    pub fn slices(&self) -> smallvec::SmallVec<[IoSlice<'_>; MAX_SLICES]> {
        let mut slices = smallvec::SmallVec::new();
        let mut from = self.sent;
        for piece in self.pieces.iter().take(MAX_SLICES / 2 - 1) {
            if piece.at > from {
                slices.push(IoSlice::new(&self.gathered[from..piece.at]));
                from = piece.at;
            }
            slices.push(IoSlice::new(&piece.bytes));
        }
        let until = self.pieces.get(MAX_SLICES / 2 - 1).map_or(self.gathered.len(), |piece| piece.at);
        if until > from {
            slices.push(IoSlice::new(&self.gathered[from..until]));
        }
        slices
    }

    /// `written` bytes have gone.
    pub fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let until = self.pieces.front().map_or(self.gathered.len(), |piece| piece.at);
            let part = written.min(until - self.sent);
            self.sent += part;
            written -= part;
            if written == 0 {
                break;
            }
            let Some(piece) = self.pieces.front_mut() else { break };
            let part = written.min(piece.bytes.len());
            piece.bytes.advance(part);
            self.in_pieces -= part;
            written -= part;
            if piece.bytes.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.tidy();
    }

    /// Makes room again where bytes have gone, also when a slow peer keeps some waiting all the time.
    fn tidy(&mut self) {
        if self.sent == self.gathered.len() && self.pieces.is_empty() {
            self.gathered.clear();
            self.gathered.shrink_to(KEEP);
            self.sent = 0;
        } else if self.sent >= KEEP {
            self.gathered.drain(..self.sent);
            self.pieces.iter_mut().for_each(|piece| piece.at -= self.sent);
            self.sent = 0;
        }
    }

    /// Gives the memory back when nothing waits.
    pub(super) fn slim(&mut self) {
        if self.is_empty() {
            *self = Output::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_leaves_in_order_however_little_is_written() {
        for step in [97, 1000, 20_000, 1_000_000] {
            let (mut out, mut expected, mut seen) = (Output::default(), Vec::new(), Vec::new());
            for round in 0..100_u8 {
                let len = if round % 3 == 0 { COPY_MAX + 1 + usize::from(round) } else { usize::from(round) };
                let bytes = vec![round; len];
                out.gathered().extend_from_slice(b"head");
                out.push(Bytes::from(bytes.clone()));
                expected.extend_from_slice(b"head");
                expected.extend_from_slice(&bytes);
                if round % 7 == 0 {
                    write(&mut out, step, &mut seen);
                }
            }
            while !out.is_empty() {
                write(&mut out, step, &mut seen);
            }
            assert!(seen == expected, "with steps of {step}");
            assert!(out.single().is_some_and(<[u8]>::is_empty));
        }
    }

    fn write(out: &mut Output, step: usize, seen: &mut Vec<u8>) {
        let all: Vec<u8> = out.slices().iter().flat_map(|slice| slice.to_vec()).collect();
        assert!(out.slices().len() <= MAX_SLICES);
        let written = step.min(all.len());
        seen.extend_from_slice(&all[..written]);
        out.advance(written);
    }
}
