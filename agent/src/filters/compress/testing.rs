//! What the tests of all codings share: bodies in pieces with pauses, and reading them to the end.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::super::Filter;
use crate::exchange::Exchange;
use crate::http::{Body, BodyError, BodySource, Frame, ResponseHead};

/// Pieces of a body; `None` is a pause.
pub(crate) struct Pieces(pub(crate) VecDeque<Option<Bytes>>);

impl BodySource for Pieces {
    fn poll_frame(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self.0.pop_front() {
            Some(Some(bytes)) => Poll::Ready(Some(Ok(Frame::Data(bytes)))),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

/// The body of these pieces with a pause behind each, in which it is asked twice: for the flush, and when that has been taken.
pub(crate) fn paused(pieces: &[&[u8]]) -> Body {
    let queue = pieces.iter().flat_map(|piece| [Some(Bytes::copy_from_slice(piece)), None, None]).collect();
    Body::Stream(Box::new(Pieces(queue)))
}

/// What comes until the next pause or the end, and whether it is the end.
pub(crate) fn until_pause(body: &mut Body) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        match body.poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(Frame::Data(bytes)))) => all.extend_from_slice(&bytes),
            Poll::Ready(Some(Ok(Frame::Trailers(_)))) => {}
            Poll::Ready(Some(Err(error))) => unreachable!("{error}"),
            Poll::Ready(None) => return (all, true),
            Poll::Pending => return (all, false),
        }
    }
}

/// All of a body, pauses overlooked.
pub(crate) fn all(body: &mut Body) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let (more, ended) = until_pause(body);
        all.extend(more);
        if ended {
            return all;
        }
    }
}

/// Head and body as a client gets them; whether it was encoded shows in the head.
pub(crate) fn through(filter: &dyn Filter, x: &mut Exchange, mut head: ResponseHead, body: Body) -> (ResponseHead, Body) {
    match filter.offer(x, &mut head, body.remaining()) {
        Some(_) => {
            let body = filter.encode(x, &mut head, body);
            (head, body)
        }
        None => (head, body),
    }
}

/// A response of `text/html`.
pub(crate) fn page() -> ResponseHead {
    let mut head = ResponseHead::new(200);
    head.fields.append("Content-Type", "text/html; charset=utf-8");
    head
}
