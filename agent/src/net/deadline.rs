//! A deadline that is set for every message and nearly never met: moving it touches no timer. It knows not what it guards.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use heddle_node::clock::{self, Instant};
use tokio::time::Sleep;

/// A deadline. Moving it later, and clearing it, is a store: the timer below is moved only when it goes off too early.
#[derive(Debug, Default)]
pub struct Deadline {
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// None.
    pub fn none() -> Deadline {
        Deadline::default()
    }

    /// Moves it.
    pub fn set(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// Sets it only when there is none.
    pub fn set_once(&mut self, due: impl FnOnce() -> Instant) {
        if self.due.is_none() {
            self.due = Some(due());
        }
    }

    /// Takes it away.
    pub fn clear(&mut self) {
        self.due = None;
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.due.is_some()
    }

    /// Ready once it has passed; it is cleared then.
    pub fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() > due || timer.is_elapsed() {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if clock::now() >= due {
                self.due = None;
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn passed(deadline: &mut Deadline) -> Duration {
        let start = clock::now();
        std::future::poll_fn(|cx| deadline.poll_passed(cx)).await;
        clock::now() - start
    }

    #[tokio::test(start_paused = true)]
    async fn it_passes_when_due_however_it_was_moved() {
        let mut deadline = Deadline::none();
        let second = Duration::from_secs(1);
        deadline.set(clock::now() + second * 5);
        assert!(futures_util::poll!(std::future::poll_fn(|cx| deadline.poll_passed(cx))).is_pending());
        deadline.set(clock::now() + second * 9);
        assert_eq!(passed(&mut deadline).await.as_secs(), 9);
        deadline.set(clock::now() + second * 9);
        assert!(futures_util::poll!(std::future::poll_fn(|cx| deadline.poll_passed(cx))).is_pending());
        deadline.set(clock::now() + second * 2);
        assert_eq!(passed(&mut deadline).await.as_secs(), 2);
        assert!(!deadline.is_set());
    }
}
