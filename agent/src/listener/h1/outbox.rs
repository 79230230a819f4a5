//! Bytes on their way to the client: small ones gathered, large ones sent from where they lie, all in one write. It knows no framing.

use std::io::IoSlice;
use std::rc::Rc;

use bytes::{Buf, Bytes};

use super::spare::Spare;

/// Pieces up to this are copied behind the head, so that they travel in its write and its segment.
const COPY_MAX: usize = 4096;
/// Gathered bytes from which no more are taken before some are sent.
const FULL: usize = 16 * 1024;

/// Bytes on their way.
pub(super) struct Outbox {
    spare: Rc<Spare>,
    /// Without room while nothing is on its way.
    gathered: Vec<u8>,
    sent: usize,
    piece: Bytes,
    tail: &'static [u8],
}

impl Outbox {
    /// An empty one.
    pub(super) fn new(spare: Rc<Spare>) -> Outbox {
        Outbox { spare, gathered: Vec::new(), sent: 0, piece: Bytes::new(), tail: &[] }
    }

    /// Where heads and chunk lines are written. Only while no large piece waits.
    pub(super) fn gathered(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.piece.is_empty() && self.tail.is_empty());
        if self.gathered.capacity() == 0 {
            self.gathered = self.spare.output();
        }
        &mut self.gathered
    }

    /// Takes a piece and what closes it. Only when there is room.
    pub(super) fn push(&mut self, piece: Bytes, tail: &'static [u8]) {
        if piece.len() <= COPY_MAX {
            let gathered = self.gathered();
            gathered.extend_from_slice(&piece);
            gathered.extend_from_slice(tail);
        } else {
            self.piece = piece;
            self.tail = tail;
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.gathered.len() < FULL
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.gathered.len() && self.piece.is_empty() && self.tail.is_empty()
    }

    /// All that is on its way, when it lies in one piece.
    pub(super) fn single(&self) -> Option<&[u8]> {
        (self.piece.is_empty() && self.tail.is_empty()).then(|| &self.gathered[self.sent..])
    }

    pub(super) fn slices(&self) -> [IoSlice<'_>; 3] {
        [IoSlice::new(&self.gathered[self.sent..]), IoSlice::new(&self.piece), IoSlice::new(self.tail)]
    }

    /// `written` bytes have gone.
    pub(super) fn advance(&mut self, written: usize) {
        let of_gathered = written.min(self.gathered.len() - self.sent);
        self.sent += of_gathered;
        let of_piece = (written - of_gathered).min(self.piece.len());
        self.piece.advance(of_piece);
        self.tail = &self.tail[(written - of_gathered - of_piece).min(self.tail.len())..];
        if self.piece.is_empty() {
            self.piece = Bytes::new();
        }
        if self.is_empty() {
            self.sent = 0;
            self.spare.take_back_output(std::mem::take(&mut self.gathered));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_leave_in_order_however_little_is_written() {
        for step in [1, 3, 1000, 100_000] {
            let mut out = Outbox::new(Rc::default());
            out.gathered().extend_from_slice(b"head");
            out.push(Bytes::from_static(b"small"), b"\r\n");
            out.push(Bytes::from(vec![b'x'; 5000]), b"\r\n");
            assert!(!out.has_room());
            let mut seen = Vec::new();
            while !out.is_empty() {
                let all: Vec<u8> = out.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                let written = step.min(all.len());
                seen.extend_from_slice(&all[..written]);
                out.advance(written);
            }
            assert_eq!((seen.len(), &seen[..11], &seen[seen.len() - 3..]), (5013, &b"headsmall\r\n"[..], &b"x\r\n"[..]));
            assert!(out.has_room());
        }
    }
}
