//! The connection as its streams share it. It moves no bytes: the task of the connection does.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use super::connection::Connection;

/// A connection, shared by its task, its streams and the bodies that were handed out.
#[derive(Debug)]
pub struct Wire {
    machine: RefCell<Connection>,
    /// Wakes the task of the connection.
    owner: RefCell<Option<Waker>>,
    /// Whether that task is at work: what is left to be sent then goes out without waking it.
    at_work: Cell<bool>,
}

impl Wire {
    /// Shares a connection.
    pub fn new(machine: Connection) -> Wire {
        Wire { machine: RefCell::new(machine), owner: RefCell::default(), at_work: Cell::new(false) }
    }

    /// Lets `act` have the connection; what it leaves to be sent goes out soon.
    pub fn with<T>(&self, act: impl FnOnce(&mut Connection) -> T) -> T {
        let mut machine = self.machine.borrow_mut();
        let result = act(&mut machine);
        // A stream may belong to another task, for example that of a connection on the other side.
        let idle = self.at_work.get() || !machine.has_to_send();
        drop(machine);
        if !idle {
            self.ring();
        }
        result
    }

    /// Wakes the task of the connection.
    pub fn ring(&self) {
        if let Some(owner) = &*self.owner.borrow() {
            owner.wake_by_ref();
        }
    }

    /// The task of the connection begins to work.
    pub fn work(&self, owner: &Waker) {
        self.at_work.set(true);
        let mut known = self.owner.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(owner)) {
            *known = Some(owner.clone());
        }
    }

    /// It rests.
    pub fn rest(&self) {
        self.at_work.set(false);
    }
}
