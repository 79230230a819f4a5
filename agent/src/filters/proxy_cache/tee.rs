//! A body that is collected while it passes, for the store. It never slows the body, and gives up rather than hold too much.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::store::Incoming;
use crate::http::{Body, BodyError, BodySource, Frame};

/// A body that passes.
pub(super) struct Tee {
    body: Body,
    collected: Option<Collected>,
}

/// What to do with the whole body.
pub(super) type Done = Box<dyn FnOnce(Bytes)>;

struct Collected {
    pieces: Vec<Bytes>,
    held: Held,
    most: u64,
    done: Done,
}

/// Counted bytes, given back when they are dropped.
struct Held {
    incoming: Arc<Incoming>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.incoming.give_back(self.bytes);
    }
}

/// The body, which is handed to `done` once it has passed whole and is no longer than `most`. Otherwise `done` is dropped.
pub(super) fn collect(body: Body, most: u64, incoming: &Arc<Incoming>, done: Done) -> Body {
    match body {
        Body::Empty => {
            done(Bytes::new());
            Body::Empty
        }
        Body::Full(bytes) => {
            if bytes.len() as u64 <= most {
                // It may be a slice of a larger buffer, which would stay and which nobody would count.
                done(Bytes::copy_from_slice(&bytes));
            }
            Body::Full(bytes)
        }
        body if body.remaining().is_some_and(|length| length > most) => body,
        body => {
            let held = Held { incoming: incoming.clone(), bytes: 0 };
            Body::Stream(Box::new(Tee { body, collected: Some(Collected { pieces: Vec::new(), held, most, done }) }))
        }
    }
}

impl BodySource for Tee {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let frame = self.body.poll_frame(cx);
        match &frame {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(Frame::Data(bytes)))) => {
                self.take(bytes);
                // Nobody need ask again once the last byte is here.
                if self.body.remaining() == Some(0) {
                    self.finish();
                }
            }
            Poll::Ready(None) => self.finish(),
            // Trailers cannot be stored, and what broke off is not whole.
            Poll::Ready(Some(Ok(Frame::Trailers(_)) | Err(_))) => self.collected = None,
        }
        frame
    }

    fn remaining(&self) -> Option<u64> {
        self.body.remaining()
    }
}

impl Tee {
    fn take(&mut self, bytes: &Bytes) {
        let fits = self.collected.as_mut().is_some_and(|collected| collected.take(bytes));
        if !fits {
            self.collected = None;
        }
    }

    fn finish(&mut self) {
        if let Some(collected) = self.collected.take() {
            collected.finish();
        }
    }
}

impl Collected {
    fn take(&mut self, bytes: &Bytes) -> bool {
        let length = bytes.len() as u64;
        if self.held.bytes + length > self.most || !self.held.incoming.take(length) {
            return false;
        }
        self.held.bytes += length;
        self.pieces.push(bytes.clone());
        true
    }

    /// One piece of its own: those that came may be slices of larger buffers.
    fn finish(self) {
        let mut whole = BytesMut::with_capacity(self.held.bytes as usize);
        self.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        (self.done)(whole.freeze());
    }
}
