//! Tests of `grpc-web`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, header, passes, settled};
use super::super::{BodyEdit, Filter, Flow};
use super::decode::Base64;
use crate::exchange::testing::{at, request};
use crate::exchange::{ConsumerInfo, Directory, Exchange, Reason, RouteInfo, Routed};
use crate::http::{Body, BodyError, BodySource, Fields, Frame, ResponseHead};

struct Frames(VecDeque<Frame>);

impl BodySource for Frames {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

fn frames(list: impl IntoIterator<Item = Frame>) -> Body {
    Body::Stream(Box::new(Frames(list.into_iter().collect())))
}

fn data(bytes: &'static [u8]) -> Frame {
    Frame::Data(Bytes::from_static(bytes))
}

fn trailers(list: &[(&str, &str)]) -> Frame {
    let mut fields = Fields::new();
    list.iter().for_each(|(name, value)| fields.append(name, value));
    Frame::Trailers(Box::new(fields))
}

/// One route, which says so many segments of each path.
struct OneRoute(RouteInfo, Option<usize>);

impl Routed for OneRoute {
    fn id(&self) -> &[u8] {
        self.0.id.as_bytes()
    }

    fn service_id(&self) -> &str {
        &self.0.service_id
    }

    fn info(&self) -> &RouteInfo {
        &self.0
    }

    fn said(&self, _path: &str) -> Option<usize> {
        self.1
    }
}

impl Directory for OneRoute {
    fn find_credential(&self, _: &str, _: &[u8]) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn consumer(&self, _: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn route(&self, number: u32) -> Option<&dyn Routed> {
        (number == 0).then_some(self as &dyn Routed)
    }
}

fn call(path: &str, fields: &[(&str, &str)]) -> Exchange {
    request("POST", "h", path, fields)
}

fn transparent() -> Arc<dyn Filter> {
    filter("grpc-web", &json!({ "transparent": true }))
}

/// What the upstream gets of these pieces.
fn sent(filter: &dyn Filter, x: &mut Exchange, pieces: &[&'static str]) -> Result<Vec<u8>, BodyError> {
    let edit = filter.request_body(x);
    let mut all = Vec::new();
    let mut through = match edit {
        Some(BodyEdit::Stream(edit)) => edit,
        None => return Ok(pieces.concat().into_bytes()),
        Some(_) => panic!("a call is never held"),
    };
    for piece in pieces {
        all.extend_from_slice(&through(Some(Bytes::from_static(piece.as_bytes())))?);
    }
    all.extend_from_slice(&through(None)?);
    Ok(all)
}

/// What the client gets of an answer: its head, and the pieces of its body.
async fn told(filter: &dyn Filter, x: &mut Exchange, mut head: ResponseHead, mut body: Body) -> (ResponseHead, Vec<Bytes>) {
    match filter.after_proxy(x, &mut head, &mut body) {
        Flow::Continue => {}
        flow => {
            let told = answer(settled(flow, x).await);
            head = told.head;
            body = Body::from(told.body);
        }
    }
    filter.response_head(x, &mut head);
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.unwrap() {
            Frame::Data(bytes) => pieces.push(bytes),
            Frame::Trailers(_) => panic!("no trailers reach a page"),
        }
    }
    (head, pieces)
}

fn head(status: u16, content_type: &str) -> ResponseHead {
    let mut head = ResponseHead::new(status);
    head.fields.append("content-type", content_type);
    head
}

#[tokio::test]
async fn a_call_becomes_grpc_and_its_trailers_a_frame() {
    let filter = transparent();
    let mut x = call("/a.B/C", &[("Content-Type", "application/grpc-web"), ("Content-Length", "8")]);
    assert!(passes(filter.rewrite(&mut x)));
    assert_eq!((header(&x, "content-type"), header(&x, "grpc-accept-encoding")), (Some("application/grpc"), Some("identity")));
    assert_eq!(header(&x, "content-length"), Some("8"), "it goes as it came");
    assert_eq!(sent(&*filter, &mut x, &["\0\0\0\0\u{3}abc"]).unwrap(), b"\0\0\0\0\x03abc");
    let answered = frames([data(b"\0\0\0\0\x01x"), trailers(&[("Grpc-Status", "0"), ("x-last", "y")])]);
    let (head, pieces) = told(&*filter, &mut x, head(200, "application/grpc+proto"), answered).await;
    assert_eq!(head.fields.get_str("content-type"), Some("application/grpc-web+proto"));
    assert_eq!(pieces, [&b"\0\0\0\0\x01x"[..], b"\x80\0\0\0\x19grpc-status:0\r\nx-last:y\r\n"]);
    assert_eq!(head.fields.get_str("access-control-allow-origin"), None);
}

#[tokio::test]
async fn base64_is_read_and_written_piece_by_piece() {
    let filter = transparent();
    let fields =
        [("Content-Type", "Application/GRPC-Web-Text"), ("Accept", "application/grpc-web-text"), ("Content-Length", "9")];
    let mut x = call("/a.B/C", &fields);
    assert!(passes(filter.rewrite(&mut x)));
    assert_eq!(header(&x, "content-length"), None);
    assert_eq!(sent(&*filter, &mut x, &["A", "AAAAA", "Nh", "YmM", "="]).unwrap(), b"\0\0\0\0\x03abc");
    let answered = frames([data(b"abcd"), data(b"e"), trailers(&[("grpc-status", "0")])]);
    let (head, pieces) = told(&*filter, &mut x, head(200, "application/grpc"), answered).await;
    assert_eq!(head.fields.get_str("content-type"), Some("application/grpc-web-text+proto"));
    assert_eq!(pieces, ["YWJjZA==", "ZQ==", "gAAAAA9ncnBjLXN0YXR1czowDQo="]);
    let mut binary = call("/a.B/C", &[("Content-Type", "application/grpc-web-text"), ("Accept", "*/*")]);
    assert!(passes(filter.rewrite(&mut binary)));
    let (head, _) = told(&*filter, &mut binary, self::head(200, "application/grpc"), Body::Empty).await;
    assert_eq!(head.fields.get_str("content-type"), Some("application/grpc-web+proto"), "as Envoy, by what is accepted alone");
}

#[test]
fn base64_may_be_cut_and_padded_anywhere_and_nothing_else_passes() {
    let of = |pieces: &[&str]| {
        let mut base64 = Base64::default();
        let mut all = Vec::new();
        for piece in pieces {
            all.extend_from_slice(&base64.decode(Some(piece.as_bytes()))?);
        }
        base64.decode(None)?;
        Ok::<_, BodyError>(String::from_utf8(all).unwrap())
    };
    let whole = "aGVsbG8gd29ybGQ=YQ==YmM=YWJj";
    for cut in 0..whole.len() {
        for other in cut..whole.len() {
            let (a, b) = (&whole[..cut], &whole[other..]);
            assert_eq!(of(&[a, &whole[cut..other], b]).unwrap(), "hello worldabcabc", "{cut} {other}");
        }
    }
    assert_eq!(of(&[]).unwrap(), "");
    for bad in ["a", "YWJ", "YW!j", "YQ=x", "Y===", "====", "YQ=", "YWJj\n"] {
        assert!(of(&[bad]).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn what_is_no_grpc_is_told_as_a_status() {
    let filter = transparent();
    let asked = || {
        let mut x = call("/a.B/C", &[("Content-Type", "application/grpc-web+proto")]);
        assert!(passes(filter.rewrite(&mut x)));
        x
    };
    let expected =
        [(200, "2"), (400, "13"), (401, "16"), (403, "7"), (404, "12"), (429, "8"), (500, "2"), (503, "14"), (504, "14")];
    for (status, code) in expected {
        let mut x = asked();
        let body = frames([data(b"go \"away\" \xc3\xa4"), data(b"%\n")]);
        let (head, pieces) = told(&*filter, &mut x, head(status, "text/html"), body).await;
        let fields = ["content-type", "grpc-status", "grpc-message"].map(|name| head.fields.get_str(name));
        assert_eq!(fields, [Some("application/grpc-web+proto"), Some(code), Some("go \"away\" %C3%A4%25%0A")]);
        assert_eq!((head.status, pieces.len()), (status, 0));
    }
    let mut own = asked();
    own.answer.reason = Reason::NoEndpoint;
    let (head, _) = told(&*filter, &mut own, head(503, "application/json"), Body::from(Bytes::from_static(b"no endpoint"))).await;
    assert_eq!((head.fields.get_str("grpc-status"), head.fields.get_str("grpc-message")), (Some("14"), Some("no endpoint")));
    let mut late = asked();
    late.answer.reason = Reason::UpstreamTimeout;
    let (head, _) = told(&*filter, &mut late, self::head(504, "application/json"), Body::Empty).await;
    assert_eq!(head.fields.get_str("grpc-status"), Some("4"));
    let mut coded = self::head(500, "text/plain");
    coded.fields.append("content-encoding", "gzip");
    let (head, _) = told(&*filter, &mut asked(), coded, frames([data(b"\x1f\x8b")])).await;
    assert_eq!((head.fields.get_str("grpc-message"), head.fields.get_str("content-encoding")), (None, None));
    let long = frames((0..100).map(|_| data(&[b'x'; 100])));
    let (head, _) = told(&*filter, &mut asked(), self::head(500, "text/plain"), long).await;
    assert_eq!(head.fields.get_str("grpc-message").unwrap().len(), 1024, "the beginning says enough");
    let (head, _) = told(&*filter, &mut asked(), self::head(200, "application/grpc-web"), frames([data(b"x")])).await;
    assert_eq!(head.fields.get_str("grpc-status"), Some("2"), "nobody asked for that");
}

#[tokio::test]
async fn a_call_that_was_refused_before_it_came_here_is_told_its_status_too() {
    for (filter, kind) in
        [(transparent(), "application/grpc-web+proto"), (filter("grpc-web", &json!({})), "application/grpc-web")]
    {
        let mut x = call("/a.B/C", &[("Content-Type", kind)]);
        x.answer.reason = Reason::Plugin;
        let (head, pieces) =
            told(&*filter, &mut x, head(401, "application/json"), Body::from(Bytes::from_static(b"no key"))).await;
        let fields = ["content-type", "grpc-status", "grpc-message"].map(|name| head.fields.get_str(name));
        assert_eq!(fields, [Some("application/grpc-web+proto"), Some("16"), Some("no key")]);
        assert_eq!((head.status, pieces.len()), (401, 0));
    }
    let mut page = call("/a.B/C", &[("Content-Type", "application/json")]);
    page.answer.reason = Reason::Plugin;
    let (head, pieces) =
        told(&*transparent(), &mut page, head(401, "application/json"), Body::from(Bytes::from_static(b"no key"))).await;
    assert_eq!((head.fields.get_str("grpc-status"), pieces.len()), (None, 1), "who asks for no gRPC-Web is not told in it");
}

#[tokio::test]
async fn what_does_not_speak_grpc_web_passes_or_is_refused_as_configured() {
    let (open, strict) = (transparent(), filter("grpc-web", &json!({})));
    for fields in [&[("Content-Type", "application/json")][..], &[("Content-Type", "application/grpc-web+json")], &[]] {
        let mut x = call("/a.B/C", fields);
        assert!(passes(open.rewrite(&mut x)) && open.request_body(&mut x).is_none());
        assert_eq!(header(&x, "content-type"), fields.first().map(|(_, value)| *value));
        let (head, pieces) = told(&*open, &mut x, head(200, "text/plain"), frames([data(b"x")])).await;
        assert_eq!((head.fields.get_str("grpc-status"), pieces.len()), (None, 1));
        assert_eq!(answer(strict.rewrite(&mut call("/a.B/C", fields))).head.status, 400);
    }
    let web = [("Content-Type", "application/grpc-web; charset=utf-8")];
    assert_eq!(answer(strict.rewrite(&mut request("GET", "h", "/a.B/C", &web))).head.status, 405);
    for path in ["/", "/a", "//a", "/a.B/"] {
        assert_eq!(answer(strict.rewrite(&mut call(path, &web))).head.status, 400, "{path}");
    }
}

#[test]
fn a_route_for_one_service_leads_to_no_other() {
    let strict = filter("grpc-web", &json!({}));
    let leads = |said: Option<usize>, matched: &str, path: &str| {
        let web = [("Content-Type", "application/grpc-web")];
        let mut x = at(1, "POST", "h", matched, &web, Rc::new(OneRoute(RouteInfo::default(), said)));
        x.route = Some(0);
        x.request.path = path.to_owned();
        match strict.rewrite(&mut x) {
            Flow::Continue => Some(x.request.path),
            flow => {
                assert_eq!(answer(flow).head.status, 400);
                None
            }
        }
    };
    for (said, path, called) in [
        // `/pages/*`
        (Some(1), "/pages/shop.Orders/List", Some("/shop.Orders/List")),
        (Some(1), "/pages/more/shop.Orders/List", None),
        // `/pages/shop.Orders/*`
        (Some(2), "/pages/shop.Orders/List", Some("/shop.Orders/List")),
        (Some(2), "/pages/shop.Orders/admin.Users/Delete", None),
        (Some(2), "/pages/shop.Orders/more/admin.Users/Delete", None),
        // `/*` and `/shop.Orders/*`
        (Some(0), "/shop.Orders/List", Some("/shop.Orders/List")),
        (Some(0), "/pages/shop.Orders/List", None),
        (Some(1), "/shop.Orders/List", Some("/shop.Orders/List")),
        (Some(1), "/shop.Orders/admin.Users/Delete", None),
        // `/v1.0/shop.Orders/List`
        (None, "/v1.0/shop.Orders/List", Some("/shop.Orders/List")),
    ] {
        assert_eq!(leads(said, path, path).as_deref(), called, "{said:?} {path}");
    }
    assert_eq!(leads(Some(2), "/pages/more/x", "/shop.Orders/List").as_deref(), Some("/shop.Orders/List"), "rewritten");
    assert_eq!(leads(Some(2), "/pages/more/x", "/pages/shop.Orders/List"), None, "half rewritten");
}

#[tokio::test]
async fn pages_of_all_origins_may_call_unless_origins_are_looked_at() {
    let strict = filter("grpc-web", &json!({ "cors_allow_headers": "content-type, x-own" }));
    let mut x = request("OPTIONS", "h", "/a.B/C", &[("Origin", "http://page")]);
    let preflight = answer(strict.rewrite(&mut x));
    assert_eq!(preflight.head.status, 204);
    let (allowed, _) = told(&*strict, &mut x, preflight.head, Body::Empty).await;
    let of = |head: &ResponseHead, name: &str| head.fields.get_str(&format!("access-control-{name}")).map(str::to_owned);
    let said = ["allow-origin", "allow-methods", "allow-headers"].map(|name| of(&allowed, name).unwrap_or_default());
    assert_eq!(said, ["*", "POST", "content-type, x-own"]);
    let mut varies = head(200, "text/plain");
    varies.fields.append("Vary", "accept, Origin");
    let mut x = call("/a.B/C", &[("Content-Type", "application/grpc-web")]);
    let (refused, _) = told(&*strict, &mut x, varies, Body::Empty).await;
    assert_eq!(of(&refused, "allow-origin"), None, "`cors` has let this page not in");
    let (open, _) = told(&*strict, &mut x, head(200, "text/plain"), Body::Empty).await;
    assert_eq!(
        (of(&open, "allow-origin").as_deref(), of(&open, "expose-headers").as_deref()),
        (Some("*"), Some("grpc-message,grpc-status"))
    );
}

#[test]
fn longer_calls_than_allowed_are_refused_by_their_length() {
    for content_type in ["application/grpc-web", "application/grpc-web-text"] {
        let filter = filter("grpc-web", &json!({ "max_req_body_size": 8 }));
        let mut x = call("/a.B/C", &[("Content-Type", content_type)]);
        assert!(passes(filter.rewrite(&mut x)));
        assert!(sent(&*filter, &mut x, &["AAAA", "AAAA"]).is_ok());
        assert_eq!(sent(&*filter, &mut x, &["AAAA", "AAAA", "A"]), Err(BodyError::TooLarge(8)));
    }
}

#[test]
fn mistakes_are_told() {
    assert_eq!(
        faults("grpc-web", &json!({ "max_req_body_size": 0, "cors_allow_headers": "a,b c" })),
        ["cors_allow_headers[1]", "max_req_body_size"]
    );
    assert_eq!(faults("grpc-web", &json!({ "transparent": "yes" })), ["transparent"]);
    assert_eq!(faults("grpc-web", &Value::from("x")), [""]);
}
