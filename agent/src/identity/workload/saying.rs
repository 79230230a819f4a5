//! What a caller says in one call, on its way from the connection to whoever answers: in pieces, and no more of them than fit. It knows no protocol.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;

/// Pieces that wait for whoever answers; further ones wait in the connection, whose windows bound them.
const MOST: usize = 8;

/// Where the connection puts what comes.
pub(super) struct Saying(Arc<Mutex<Said>>);

/// The same as the body of a request.
pub(super) struct Heard(Arc<Mutex<Said>>);

/// The caller went away in the middle of it.
#[derive(Debug, thiserror::Error)]
#[error("the caller has gone")]
pub(super) struct Gone;

#[derive(Default)]
struct Said {
    pieces: VecDeque<Bytes>,
    /// Nothing more comes.
    over: Option<Result<(), Gone>>,
    speaker: Option<Waker>,
    listener: Option<Waker>,
}

/// Both ends.
pub(super) fn channel() -> (Saying, Heard) {
    let said = Arc::<Mutex<Said>>::default();
    (Saying(said.clone()), Heard(said))
}

impl Saying {
    /// Ready when one more piece fits.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut said = self.0.lock();
        if said.pieces.len() < MOST {
            return Poll::Ready(());
        }
        said.speaker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn push(&self, piece: Bytes) {
        let mut said = self.0.lock();
        said.pieces.push_back(piece);
        said.listener.take().into_iter().for_each(Waker::wake);
    }

    /// That was all.
    pub(super) fn end(self) {
        self.0.lock().over = Some(Ok(()));
    }
}

impl Drop for Saying {
    fn drop(&mut self) {
        let mut said = self.0.lock();
        said.over.get_or_insert(Err(Gone));
        said.listener.take().into_iter().for_each(Waker::wake);
    }
}

impl Stream for Heard {
    type Item = Result<Bytes, Gone>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        let mut said = self.0.lock();
        if let Some(piece) = said.pieces.pop_front() {
            said.speaker.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Some(Ok(piece)));
        }
        match &said.over {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(Gone)) => Poll::Ready(Some(Err(Gone))),
            None => {
                said.listener = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
