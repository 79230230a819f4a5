//! The request body as the service pulls it from the wire. It outlives neither its request nor its connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::wire::Wire;
use crate::http::{BodyError, BodySource, Frame};

/// The body of the request of one turn.
pub(super) struct RequestBody {
    wire: Rc<RefCell<Wire>>,
    turn: u64,
}

impl RequestBody {
    /// The body that stands on the wire now.
    pub(super) fn new(wire: &Rc<RefCell<Wire>>) -> RequestBody {
        let mut on = wire.borrow_mut();
        on.body_alive = true;
        RequestBody { turn: on.turn, wire: wire.clone() }
    }
}

impl BodySource for RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut wire = self.wire.borrow_mut();
        if wire.turn != self.turn || wire.body_failed {
            return Poll::Ready(Some(Err(BodyError::Aborted)));
        }
        wire.poll_body(cx)
    }

    fn remaining(&self) -> Option<u64> {
        let wire = self.wire.borrow();
        if wire.turn == self.turn { wire.decoder.remaining() } else { None }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Ok(mut wire) = self.wire.try_borrow_mut()
            && wire.turn == self.turn
        {
            wire.body_alive = false;
        }
    }
}
