//! A stream of a connection for as long as its task has it. It moves no bytes: the task of the connection does.

use std::rc::Rc;

use crate::http::RequestHead;
use crate::http::h2::connection::{Connection, StreamKey};
pub(super) use crate::http::h2::wire::Wire;

/// A stream that lives as long as this does.
pub(super) struct Held {
    pub(super) wire: Rc<Wire>,
    pub(super) key: StreamKey,
}

impl Held {
    /// Lets `act` have the connection and the stream.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Connection, StreamKey) -> T) -> T {
        self.wire.with(|machine| act(machine, self.key))
    }

    /// Gives the buffers of a request head back.
    pub(super) fn recycle(&self, head: Box<RequestHead>) {
        self.wire.with(|machine| machine.recycle(head));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.wire.with(|machine| machine.release(self.key));
    }
}
