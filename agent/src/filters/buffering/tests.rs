//! Tests of `buffering`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde_json::json;

use super::super::testing::{answer, faults, filter, passes, settled};
use super::super::{Filter, Flow, Phases};
use crate::exchange::Reason;
use crate::exchange::testing::get;
use crate::http::{Body, BodyError, BodySource, Frame, ResponseHead};

/// A body in pieces, which ends well or not.
struct Pieces(Vec<Result<&'static [u8], BodyError>>);

impl BodySource for Pieces {
    fn poll_frame(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let piece = if self.0.is_empty() { None } else { Some(self.0.remove(0)) };
        Poll::Ready(piece.map(|piece| piece.map(|piece| Frame::Data(Bytes::from_static(piece)))))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

fn pieces(list: &[&'static [u8]]) -> Body {
    Body::Stream(Box::new(Pieces(list.iter().map(|piece| Ok(*piece)).collect())))
}

async fn answered(filter: &Arc<dyn Filter>, mut body: Body) -> Flow {
    let mut x = get("h", "/");
    let mut head = ResponseHead::new(201);
    head.fields.append("x-of", "upstream");
    let flow = filter.after_proxy(&mut x, &mut head, &mut body);
    settled(flow, &mut x).await
}

#[tokio::test]
async fn a_request_goes_on_with_its_whole_body() {
    let filter = filter("buffering", &json!({"max_request_body_bytes": 4}));
    let mut x = get("h", "/");
    assert!(passes(filter.access(&mut x)), "nothing to wait for");
    x.body = pieces(&[b"ab", b"cd"]);
    let flow = filter.access(&mut x);
    assert!(passes(settled(flow, &mut x).await));
    assert_eq!(x.body.remaining(), Some(4));
    x.body = pieces(&[b"ab", b"cd", b"e"]);
    let flow = filter.access(&mut x);
    assert_eq!(answer(settled(flow, &mut x).await).head.status, 413);
}

#[tokio::test]
async fn an_answer_goes_on_with_its_whole_body() {
    let filter = filter("buffering", &json!({"max_response_body_bytes": 4}));
    let told = answer(answered(&filter, pieces(&[b"ab", b"cd"])).await);
    assert_eq!((told.head.status, &told.body[..], told.reason), (201, &b"abcd"[..], Reason::None));
    assert_eq!(told.head.fields.get_str("x-of"), Some("upstream"));
    assert!(passes(answered(&filter, Body::from(Bytes::from_static(b"here already"))).await));
    assert_eq!(answer(answered(&filter, pieces(&[b"ab", b"cd", b"e"])).await).head.status, 500);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let filter = filter("buffering", &json!({}));
    for (error, status) in [(BodyError::Aborted, 502), (BodyError::Timeout, 504), (BodyError::Malformed("x"), 502)] {
        let body = Body::Stream(Box::new(Pieces(vec![Ok(b"ab"), Err(error)])));
        assert_eq!(answer(answered(&filter, body).await).head.status, status);
    }
}

#[test]
fn either_side_may_be_left_alone() {
    let phases = |config| filter("buffering", &config).phases();
    assert_eq!(phases(json!({"response": false})), Phases::ACCESS);
    assert_eq!(phases(json!({"request": false})), Phases::AFTER_PROXY);
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({"request": false, "response": false}), ""),
        (json!({"max_request_body_bytes": 0}), "max_request_body_bytes"),
        (json!({"max_response_body_bytes": 1_073_741_825}), "max_response_body_bytes"),
        (json!({"retryExpression": "Attempts() < 2"}), ""),
    ] {
        assert_eq!(faults("buffering", &config), [path], "{config}");
    }
}
