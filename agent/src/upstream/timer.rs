//! A deadline that moves with every read: the timer behind it is set once in a while, not once per read.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use heddle_node::clock;
use tokio::time::{Instant, Sleep};

/// A deadline that mostly moves away before it is met.
///
/// The timer of the runtime stays where it was while the deadline moves on; when it fires too early it is set again. So a busy connection
/// touches the runtime's timers about once per timeout.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Instant>,
}

impl Deadline {
    /// Forgets the deadline.
    pub(super) fn disarm(&mut self) {
        self.at = None;
    }

    /// Whether a deadline is set.
    pub(super) fn is_armed(&self) -> bool {
        self.at.is_some()
    }

    /// Sets the deadline `after` from now; zero is never.
    pub(super) fn arm(&mut self, after: Duration) {
        self.at = if after.is_zero() { None } else { clock::now().checked_add(after) };
    }

    /// Ready when the deadline is met.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}
