//! Many futures of one kind, polled in place by the task that owns them: no task, no allocation and no turn of the scheduler for each. It knows
//! nothing of what they do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Futures, each in a place that has a number and is used again.
pub(super) struct Places<F> {
    places: Vec<Place<F>>,
    board: Arc<Board>,
    busy: usize,
}

struct Place<F> {
    future: Pin<Box<Option<F>>>,
    waker: Waker,
}

/// Where the bells of the places ring.
struct Board {
    /// A bit for each place.
    rung: Box<[AtomicU64]>,
    /// Whether the owner is at work: it looks at the board again before it rests, so nobody needs to wake it.
    at_work: AtomicBool,
    owner: AtomicWaker,
}

/// The bell of one place.
struct Bell {
    place: usize,
    board: Arc<Board>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Either the owner sees the bit before it rests, or it is seen resting here: both stores and both loads are in one order.
        self.board.rung[self.place / 64].fetch_or(1 << (self.place % 64), Ordering::SeqCst);
        if !self.board.at_work.load(Ordering::SeqCst) {
            self.board.owner.wake();
        }
    }
}

impl<F: Future<Output = ()>> Places<F> {
    /// Room for `most` futures.
    pub(super) fn new(most: usize) -> Places<F> {
        let rung = (0..most.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let board = Board { rung, at_work: AtomicBool::new(false), owner: AtomicWaker::new() };
        Places { places: Vec::new(), board: Arc::new(board), busy: 0 }
    }

    /// Puts a future into a place, which must be free, and lets it be polled in the next round.
    pub(super) fn put(&mut self, number: usize, future: F) {
        while self.places.len() <= number {
            let bell = Bell { place: self.places.len(), board: self.board.clone() };
            self.places.push(Place { future: Box::pin(None), waker: Waker::from(Arc::new(bell)) });
        }
        let place = &mut self.places[number];
        debug_assert!(place.future.is_none());
        place.future.set(Some(future));
        self.busy += 1;
        self.board.rung[number / 64].fetch_or(1 << (number % 64), Ordering::SeqCst);
    }

    /// Whether no place is taken.
    pub(super) fn is_empty(&self) -> bool {
        self.busy == 0
    }

    /// The owner begins to work: until it rests it must be polled no more for a bell.
    pub(super) fn work(&mut self, cx: &Context<'_>) {
        self.board.owner.register(cx.waker());
        self.board.at_work.store(true, Ordering::SeqCst);
    }

    /// The owner rests, and is woken by the next bell; false when one has rung already.
    pub(super) fn rest(&mut self) -> bool {
        self.board.at_work.store(false, Ordering::SeqCst);
        !self.has_rung()
    }

    fn has_rung(&self) -> bool {
        self.board.rung.iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Polls those whose bells have rung.
    pub(super) fn poll_rung(&mut self) {
        for word in 0..self.board.rung.len() {
            if self.board.rung[word].load(Ordering::SeqCst) == 0 {
                continue;
            }
            let mut rung = self.board.rung[word].swap(0, Ordering::SeqCst);
            while rung != 0 {
                let number = word * 64 + rung.trailing_zeros() as usize;
                rung &= rung - 1;
                self.poll(number);
            }
        }
    }

    fn poll(&mut self, number: usize) {
        let Some(place) = self.places.get_mut(number) else { return };
        let Some(future) = place.future.as_mut().as_pin_mut() else { return };
        if let Poll::Ready(()) = future.poll(&mut Context::from_waker(&place.waker)) {
            place.future.set(None);
            self.busy -= 1;
        }
    }

    /// Drops all futures.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.busy = 0;
    }

    /// Gives the memory back when no place is taken.
    pub(super) fn slim(&mut self) {
        if self.is_empty() {
            self.places = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn futures_run_when_they_are_woken_and_places_are_used_again() {
        let mut places = Places::new(100);
        let done = Rc::new(Cell::new(0));
        for round in 1..4 {
            let mut senders = Vec::new();
            for place in [0, 63, 64, 99] {
                let (sender, receiver) = oneshot::channel::<()>();
                senders.push(sender);
                let done = done.clone();
                places.put(place, async move {
                    receiver.await.unwrap();
                    done.set(done.get() + 1);
                });
            }
            let mut senders = senders.into_iter();
            std::future::poll_fn(|cx| {
                loop {
                    places.work(cx);
                    places.poll_rung();
                    if places.is_empty() {
                        return Poll::Ready(());
                    }
                    if places.rest() {
                        // One is woken from outside while nobody is at work.
                        senders.next().unwrap().send(()).unwrap();
                        return Poll::Pending;
                    }
                }
            })
            .await;
            assert_eq!(done.get(), round * 4);
        }
        places.slim();
        assert!(places.places.is_empty());
    }
}
