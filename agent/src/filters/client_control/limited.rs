//! A body that breaks off when it gets longer than it may be. It knows not whose limit that is.

use std::task::{Context, Poll};

use crate::http::{Body, BodyError, BodySource, Frame};

/// A body of unknown length with a limit.
pub(super) struct Limited {
    body: Body,
    limit: u64,
    left: u64,
}

impl Limited {
    /// The body with a limit in bytes.
    pub(super) fn new(body: Body, limit: u64) -> Limited {
        Limited { body, limit, left: limit }
    }
}

impl BodySource for Limited {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let frame = self.body.poll_frame(cx);
        if let Poll::Ready(Some(Ok(Frame::Data(bytes)))) = &frame {
            match self.left.checked_sub(bytes.len() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge(self.limit)))),
            }
        }
        frame
    }

    fn remaining(&self) -> Option<u64> {
        self.body.remaining()
    }
}
