//! The connection as its streams share it. It moves no bytes: the task of the connection does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use crate::http::RequestHead;
use crate::http::h2::connection::{Connection, StreamKey};

/// A connection, shared by its task, its streams and the bodies that were handed out.
pub(super) struct Wire {
    machine: RefCell<Connection>,
    /// Wakes the task of the connection.
    owner: RefCell<Option<Waker>>,
    /// Whether that task is at work: what its streams do then goes out without waking it.
    at_work: Cell<bool>,
}

impl Wire {
    pub(super) fn new(machine: Connection) -> Wire {
        Wire { machine: RefCell::new(machine), owner: RefCell::default(), at_work: Cell::new(false) }
    }

    /// Lets `act` have the connection; what it leaves to be sent goes out soon.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Connection) -> T) -> T {
        let mut machine = self.machine.borrow_mut();
        let result = act(&mut machine);
        // A body may be pulled by another task, for example that of a connection to an endpoint.
        if !self.at_work.get() && !machine.output().is_empty() {
            drop(machine);
            if let Some(owner) = &*self.owner.borrow() {
                owner.wake_by_ref();
            }
        }
        result
    }

    /// The task of the connection begins to work.
    pub(super) fn work(&self, owner: &Waker) {
        self.at_work.set(true);
        let mut known = self.owner.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(owner)) {
            *known = Some(owner.clone());
        }
    }

    /// It rests.
    pub(super) fn rest(&self) {
        self.at_work.set(false);
    }
}

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
    pub(super) fn recycle(&self, head: RequestHead) {
        self.wire.with(|machine| machine.recycle(head));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.wire.with(|machine| machine.release(self.key));
    }
}
