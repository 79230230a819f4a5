//! A request body that may have to be sent again: what went out is kept, up to a limit. It knows not when that is.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use heddle_node::clock;
use tokio::time::Instant;

use crate::http::{Body, BodyError, BodySource, Fields, Frame};

/// A request body that may have to be sent again.
pub(super) struct Replay {
    source: Source,
}

enum Source {
    /// Short and at hand, so that it stays where it is.
    Held,
    /// Longer than may be kept.
    Once,
    /// Kept as it goes by.
    Kept(Rc<RefCell<Kept>>),
}

struct Kept {
    rest: Body,
    /// What was pulled of it so far.
    pieces: Vec<Bytes>,
    trailers: Option<Box<Fields>>,
    size: u64,
    limit: u64,
    ended: bool,
    /// When the last byte of it came.
    done: Option<Instant>,
}

/// One way through what is kept and what still comes.
struct Reader {
    kept: Rc<RefCell<Kept>>,
    at: usize,
    told_trailers: bool,
}

impl Replay {
    /// Makes `body` one that can be sent again, where at most `limit` bytes of it have to be kept for that.
    pub(super) fn of(body: &mut Body, limit: u64) -> Replay {
        let source = match body {
            Body::Empty => Source::Held,
            ref whole if whole.remaining().is_some_and(|bytes| bytes > limit) || limit == 0 => Source::Once,
            Body::Full(_) => Source::Held,
            Body::Stream(_) => {
                let rest = std::mem::take(body);
                let kept = Kept { rest, pieces: Vec::new(), trailers: None, size: 0, limit, ended: false, done: None };
                Source::Kept(Rc::new(RefCell::new(kept)))
            }
        };
        let replay = Replay { source };
        replay.rewind(body);
        replay
    }

    /// Whether it can still be sent from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        match &self.source {
            Source::Held => true,
            Source::Once => false,
            Source::Kept(kept) => kept.borrow().size <= kept.borrow().limit,
        }
    }

    /// When the client had sent all of it; `began` where all was at hand then, `None` while more may come.
    pub(super) fn done(&self, began: Instant) -> Option<Instant> {
        match &self.source {
            Source::Held => Some(began),
            Source::Once => None,
            Source::Kept(kept) => kept.borrow().done,
        }
    }

    /// Makes `body` the one from the beginning again.
    pub(super) fn rewind(&self, body: &mut Body) {
        if let Source::Kept(kept) = &self.source {
            *body = Body::Stream(Box::new(Reader { kept: kept.clone(), at: 0, told_trailers: false }));
        }
    }
}

impl BodySource for Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut kept = self.kept.borrow_mut();
        if let Some(piece) = kept.pieces.get(self.at) {
            self.at += 1;
            return Poll::Ready(Some(Ok(Frame::Data(piece.clone()))));
        }
        if kept.ended {
            let trailers = kept.trailers.clone().filter(|_| !std::mem::replace(&mut self.told_trailers, true));
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::Trailers(trailers))));
        }
        let polled = kept.rest.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(Frame::Data(piece)))) => {
                kept.size += piece.len() as u64;
                if kept.size <= kept.limit {
                    kept.pieces.push(piece.clone());
                    self.at += 1;
                } else {
                    kept.pieces.clear();
                    self.at = 0;
                }
            }
            Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                kept.trailers = Some(trailers.clone());
                kept.ended = true;
                self.told_trailers = true;
            }
            Poll::Ready(None) => kept.ended = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        // Who knows the length of a body asks for no end of it.
        if kept.done.is_none() && (kept.ended || kept.rest.remaining() == Some(0)) {
            kept.done = Some(clock::now());
        }
        polled
    }

    fn remaining(&self) -> Option<u64> {
        let kept = self.kept.borrow();
        let again: u64 = kept.pieces.iter().skip(self.at).map(|piece| piece.len() as u64).sum();
        let rest = if kept.ended { Some(0) } else { kept.rest.remaining() };
        Some(again + rest?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;

    use super::*;

    struct Pieces(VecDeque<Frame>);

    impl BodySource for Pieces {
        fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }

        fn remaining(&self) -> Option<u64> {
            let length = |frame: &Frame| if let Frame::Data(piece) = frame { piece.len() as u64 } else { 0 };
            Some(self.0.iter().map(length).sum())
        }
    }

    fn body(pieces: &[&'static str]) -> Body {
        let trailers = std::iter::once(Frame::Trailers(Box::default()));
        let data = pieces.iter().map(|piece| Frame::Data(Bytes::from_static(piece.as_bytes())));
        Body::Stream(Box::new(Pieces(data.chain(trailers).collect())))
    }

    async fn pull(body: &mut Body, frames: usize) -> String {
        let mut text = String::new();
        for _ in 0..frames {
            match body.frame().await {
                Some(Ok(Frame::Data(piece))) => text.push_str(std::str::from_utf8(&piece).unwrap()),
                Some(Ok(Frame::Trailers(_))) => text.push('.'),
                Some(Err(error)) => text.push_str(&error.to_string()),
                None => text.push('|'),
            }
        }
        text
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    #[test]
    fn what_went_out_comes_again_and_the_rest_behind_it() {
        run(async {
            let mut sent = body(&["ab", "cd", "ef"]);
            let replay = Replay::of(&mut sent, 6);
            assert_eq!(sent.remaining(), Some(6));
            assert_eq!(pull(&mut sent, 2).await, "abcd");
            assert_eq!(sent.remaining(), Some(2));
            replay.rewind(&mut sent);
            assert_eq!(sent.remaining(), Some(6));
            assert_eq!(pull(&mut sent, 5).await, "abcdef.|");
            replay.rewind(&mut sent);
            assert_eq!(pull(&mut sent, 5).await, "abcdef.|");
            assert!(replay.is_whole());
        });
    }

    #[test]
    fn what_is_too_long_goes_out_once() {
        run(async {
            let mut sent = body(&["ab", "cd"]);
            assert!(!Replay::of(&mut sent, 3).is_whole(), "its length says so at once");
            assert_eq!(pull(&mut sent, 4).await, "abcd.|");
            let mut held = Body::from(Bytes::from_static(b"abcd"));
            assert!(!Replay::of(&mut held, 3).is_whole() && Replay::of(&mut held, 4).is_whole(), "the limit holds for all");
            assert!(matches!(held, Body::Full(_)) && Replay::of(&mut Body::Empty, 0).is_whole());
        });
    }

    struct Unknown(Pieces);

    impl BodySource for Unknown {
        fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
            self.0.poll_frame(cx)
        }

        fn remaining(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn a_body_without_length_is_kept_until_it_is_too_long() {
        run(async {
            let pieces = ["ab", "cd", "ef"].map(|piece| Frame::Data(Bytes::from_static(piece.as_bytes())));
            let mut sent = Body::Stream(Box::new(Unknown(Pieces(pieces.into_iter().collect()))));
            let replay = Replay::of(&mut sent, 4);
            assert_eq!((pull(&mut sent, 2).await.as_str(), replay.is_whole()), ("abcd", true));
            assert_eq!((pull(&mut sent, 2).await.as_str(), replay.is_whole()), ("ef|", false));
        });
    }
}
