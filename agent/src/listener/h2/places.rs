//! Many pieces of work of one kind, done in place by the task that owns them: no task, no allocation and no turn of the scheduler for each. It
//! knows nothing of what they are.
//!
//! A place has one future for good, which does one piece of work after the other: its memory is made and moved once.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Places of work, which have numbers.
pub(super) struct Places<T, F> {
    places: Vec<Place<T, F>>,
    board: Arc<Board>,
    busy: usize,
}

struct Place<T, F> {
    desk: Rc<Desk<T>>,
    future: Pin<Box<F>>,
    waker: Waker,
}

/// Where a place finds its next piece of work.
pub(super) struct Desk<T> {
    next: RefCell<Option<T>>,
    /// Whether nothing is being done here.
    free: Cell<bool>,
}

impl<T> Desk<T> {
    /// The next piece of work: who asks for it has done the last one.
    pub(super) async fn next(&self) -> T {
        std::future::poll_fn(|_| match self.next.borrow_mut().take() {
            Some(work) => Poll::Ready(work),
            None => {
                self.free.set(true);
                Poll::Pending
            }
        })
        .await
    }
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

impl<T, F: Future<Output = ()>> Places<T, F> {
    /// Room for `most` places.
    pub(super) fn new(most: usize) -> Places<T, F> {
        let rung = (0..most.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let board = Board { rung, at_work: AtomicBool::new(false), owner: AtomicWaker::new() };
        Places { places: Vec::new(), board: Arc::new(board), busy: 0 }
    }

    /// Gives work to a place, which must be free, to be done in the next round. `open` makes the future of a new place, which works for ever.
    pub(super) fn put(&mut self, number: usize, work: T, open: impl Fn(Rc<Desk<T>>) -> F) {
        while self.places.len() <= number {
            let bell = Bell { place: self.places.len(), board: self.board.clone() };
            let desk = Rc::new(Desk { next: RefCell::new(None), free: Cell::new(true) });
            self.places.push(Place { future: Box::pin(open(desk.clone())), desk, waker: Waker::from(Arc::new(bell)) });
        }
        let desk = &self.places[number].desk;
        debug_assert!(desk.free.get());
        desk.free.set(false);
        *desk.next.borrow_mut() = Some(work);
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

    /// Lets those work whose bells have rung, and calls `between` after each.
    pub(super) fn poll_rung(&mut self, mut between: impl FnMut()) {
        for word in 0..self.board.rung.len() {
            if self.board.rung[word].load(Ordering::SeqCst) == 0 {
                continue;
            }
            let mut rung = self.board.rung[word].swap(0, Ordering::SeqCst);
            while rung != 0 {
                let number = word * 64 + rung.trailing_zeros() as usize;
                rung &= rung - 1;
                self.poll(number);
                between();
            }
        }
    }

    fn poll(&mut self, number: usize) {
        // A bell may ring late, for work that has been done.
        let Some(place) = self.places.get_mut(number).filter(|place| !place.desk.free.get()) else { return };
        let polled = place.future.as_mut().poll(&mut Context::from_waker(&place.waker));
        debug_assert!(polled.is_pending());
        self.busy -= usize::from(place.desk.free.get());
    }

    /// Drops all work.
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
    async fn work_is_done_when_it_is_woken_and_places_are_used_again() {
        let mut places = Places::new(100);
        let done = Rc::new(Cell::new(0));
        let open = |desk: Rc<Desk<oneshot::Receiver<()>>>| {
            let done = done.clone();
            async move {
                loop {
                    desk.next().await.await.unwrap();
                    done.set(done.get() + 1);
                }
            }
        };
        for round in 1..4 {
            let mut senders = Vec::new();
            for place in [0, 63, 64, 99] {
                let (sender, receiver) = oneshot::channel::<()>();
                senders.push(sender);
                places.put(place, receiver, open);
            }
            let mut senders = senders.into_iter();
            std::future::poll_fn(|cx| {
                loop {
                    places.work(cx);
                    places.poll_rung(|| ());
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
