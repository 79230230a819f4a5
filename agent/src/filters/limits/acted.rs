//! Which limits a `workflow` has applied to a request already, so that those of the chain do not apply again. It knows no plugin's workings.

use crate::exchange::Exchange;

/// A limit that may be an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acted {
    /// `limit-count`.
    Count = 0,
    /// `limit-conn`.
    Conn = 1,
}

/// Their addresses stand for the limits among the notes of an exchange.
static OWNERS: [u8; 2] = [0, 1];

impl Acted {
    fn owner(self) -> usize {
        std::ptr::from_ref(&OWNERS[self as usize]).addr()
    }

    /// Writes down that the limit has been applied.
    pub(crate) fn mark(self, x: &mut Exchange) {
        x.note(self.owner(), [0; 4]);
    }

    /// Whether the limit has been applied.
    pub(crate) fn has(self, x: &Exchange) -> bool {
        x.notes(self.owner()).next().is_some()
    }
}
