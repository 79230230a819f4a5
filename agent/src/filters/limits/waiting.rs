//! Requests that a limit holds up: counted, so that not too many wait at once. It knows not what they wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests that wait for one limit, on all workers.
#[derive(Debug, Default)]
pub(crate) struct Waiting(AtomicUsize);

/// The place of one request that waits; given back when it is dropped, also when the client went away.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Waiting>);

/// Most requests that wait for one limit: each holds a connection and some 10 kB, so that a limit set far too low holds 100 MB at most.
pub(crate) const MAX_WAITING: usize = 10_000;

impl Waiting {
    /// A place, `None` when all are taken.
    pub(crate) fn enter(self: &Arc<Waiting>) -> Option<Ticket> {
        // The ticket is made first, so that its drop gives back what was taken too much.
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket(self.clone());
        (before < MAX_WAITING).then_some(ticket)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let waiting = Arc::new(Waiting::default());
        let mut tickets: Vec<_> = (0..MAX_WAITING).filter_map(|_| waiting.enter()).collect();
        assert_eq!(tickets.len(), MAX_WAITING);
        assert!(waiting.enter().is_none() && waiting.enter().is_none());
        tickets.pop();
        assert!(waiting.enter().is_some());
        tickets.clear();
        assert_eq!(waiting.0.load(Ordering::Relaxed), 0);
    }
}
