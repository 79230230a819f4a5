//! Tests of `client-control`.

#![allow(clippy::unwrap_used)]

use std::task::{Context, Poll};

use bytes::Bytes;
use serde_json::json;

use super::super::testing::{answer, faults, filter, passes};
use crate::exchange::Reason;
use crate::exchange::testing::get;
use crate::http::{Body, BodyError, BodySource, Frame};

/// A body in pieces whose length nobody knows.
struct Chunked(Vec<&'static [u8]>);

impl BodySource for Chunked {
    fn poll_frame(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let piece = if self.0.is_empty() { None } else { Some(self.0.remove(0)) };
        Poll::Ready(piece.map(|piece| Ok(Frame::Data(Bytes::from_static(piece)))))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

#[test]
fn a_body_that_says_that_it_is_too_long_is_refused_at_once() {
    let filter = filter("client-control", &json!({"max_body_size": 3}));
    let mut x = get("h", "/");
    assert!(passes(filter.rewrite(&mut x)), "no body");
    x.body = Body::from(Bytes::from_static(b"abc"));
    assert!(passes(filter.rewrite(&mut x)));
    x.body = Body::from(Bytes::from_static(b"abcd"));
    let refusal = answer(filter.rewrite(&mut x));
    assert_eq!((refusal.head.status, refusal.reason), (413, Reason::BodyTooLarge));
}

#[tokio::test]
async fn a_body_of_unknown_length_is_counted_while_it_comes() {
    let filter = filter("client-control", &json!({"max_body_size": 4}));
    for (pieces, expected) in
        [(vec![&b"ab"[..], b"cd"], Ok("abcd".into())), (vec![b"ab", b"cd", b"e"], Err(Reason::BodyTooLarge))]
    {
        let mut x = get("h", "/");
        x.body = Body::Stream(Box::new(Chunked(pieces)));
        assert!(passes(filter.rewrite(&mut x)));
        assert_eq!(x.read_body(100).await, expected);
    }
}

#[tokio::test]
async fn nothing_is_limited_by_nought() {
    let filter = filter("client-control", &json!({"max_body_size": 0}));
    let mut x = get("h", "/");
    x.body = Body::Stream(Box::new(Chunked(vec![b"abcdef"])));
    assert!(passes(filter.rewrite(&mut x)));
    assert_eq!(x.read_body(100).await.unwrap(), "abcdef");
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [(json!({"max_body_size": -1}), "max_body_size"), (json!({"max": 1}), "")] {
        assert_eq!(faults("client-control", &config), [path], "{config}");
    }
}
