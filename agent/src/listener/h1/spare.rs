//! Buffers that the HTTP/1 connections of one worker share: whoever has something to hold takes one, so that a connection at rest holds none.
//! It knows no connection.

use std::cell::RefCell;

use bytes::BytesMut;

use crate::http::RequestHead;

/// Room of a buffer for reading, and that which is made in one that holds something.
const READ_ROOM: usize = 16 * 1024;
/// A buffer with less room than this is not worth a read.
const LEAST_ROOM: usize = READ_ROOM / 4;
/// Buffers of each kind that are kept for the next who needs one: more are in use at once only on a worker that is behind.
const KEPT: usize = 32;
/// Heads that are kept; a request in flight has one.
const KEPT_HEADS: usize = 128;
/// Bytes from which a buffer that some unusual message needed is not kept.
const LARGE: usize = 2 * READ_ROOM;
/// The same for a head.
const LARGE_HEAD: usize = 4 * 1024;

/// Buffers that wait for their next use.
#[derive(Default)]
pub struct Spare {
    inputs: RefCell<Vec<BytesMut>>,
    outputs: RefCell<Vec<Vec<u8>>>,
    #[expect(clippy::vec_box, reason = "they are taken out and put back")]
    heads: RefCell<Vec<Box<RequestHead>>>,
}

impl Spare {
    /// Makes room for a read behind what `input` holds.
    pub(in super::super) fn make_room(&self, input: &mut BytesMut) {
        if input.capacity() - input.len() >= LEAST_ROOM || input.try_reclaim(READ_ROOM) {
            return;
        }
        if input.len() > READ_ROOM - LEAST_ROOM {
            return input.reserve(READ_ROOM);
        }
        let mut roomy = self.inputs.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(READ_ROOM));
        roomy.extend_from_slice(input);
        *input = roomy;
    }

    /// Takes back a buffer that holds nothing.
    pub(in super::super) fn take_back(&self, input: &mut BytesMut) {
        if !input.is_empty() || input.capacity() == 0 {
            return;
        }
        let mut input = std::mem::take(input);
        let mut inputs = self.inputs.borrow_mut();
        // One of which pieces are still in use elsewhere cannot be used again.
        if inputs.len() < KEPT && input.try_reclaim(READ_ROOM) && input.capacity() <= LARGE {
            inputs.push(input);
        }
    }

    /// Moves what `input` holds to where it takes no more room than it needs: its rest may be long in coming.
    pub(super) fn tuck(&self, input: &mut BytesMut) {
        if !input.is_empty() && input.len() <= input.capacity() / 4 {
            let mut roomy = std::mem::take(input);
            input.extend_from_slice(&roomy);
            roomy.clear();
            self.take_back(&mut roomy);
        }
    }

    /// An empty buffer for writing.
    pub(super) fn output(&self) -> Vec<u8> {
        self.outputs.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes one back.
    pub(super) fn take_back_output(&self, mut output: Vec<u8>) {
        let mut outputs = self.outputs.borrow_mut();
        if outputs.len() < KEPT && output.capacity() <= LARGE {
            output.clear();
            outputs.push(output);
        }
    }

    /// An empty head.
    pub(super) fn head(&self) -> Box<RequestHead> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes one back.
    pub(super) fn take_back_head(&self, mut head: Box<RequestHead>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < KEPT_HEADS && head.capacity() <= LARGE_HEAD {
            head.clear();
            heads.push(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_from_hand_to_hand_and_large_ones_go_away() {
        let spare = Spare::default();
        let mut input = BytesMut::new();
        spare.make_room(&mut input);
        let place = input.as_ptr();
        spare.take_back(&mut input);
        assert_eq!(input.capacity(), 0);
        spare.make_room(&mut input);
        assert_eq!(input.as_ptr(), place);
        input.extend_from_slice(&[b'x'; 5 * READ_ROOM]);
        input.clear();
        spare.take_back(&mut input);
        assert!(spare.inputs.borrow().is_empty());
    }

    #[test]
    fn pieces_that_are_in_use_are_not_written_over() {
        let spare = Spare::default();
        let mut input = BytesMut::new();
        spare.make_room(&mut input);
        input.extend_from_slice(b"body");
        let piece = input.split_to(4).freeze();
        spare.take_back(&mut input);
        spare.make_room(&mut input);
        input.extend_from_slice(b"other");
        assert_eq!(&piece[..], b"body");
    }

    #[test]
    fn what_has_come_of_a_head_is_kept_while_the_rest_is_awaited() {
        let spare = Spare::default();
        let mut input = BytesMut::new();
        let mut all = Vec::new();
        for piece in [&b"GET / HT"[..], b"TP/1.1\r\n", &[b'x'; READ_ROOM], b"\r\n\r\n"] {
            spare.make_room(&mut input);
            input.extend_from_slice(piece);
            all.extend_from_slice(piece);
            spare.tuck(&mut input);
            assert!(input.len() * 4 >= input.capacity().min(LARGE) || input.capacity() < LEAST_ROOM);
        }
        assert_eq!(&input[..], &all[..]);
    }
}
