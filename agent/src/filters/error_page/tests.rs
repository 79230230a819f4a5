//! Tests of `error-page`.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use heddle_xds::catalog::{Catalog, Place};
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter_in, settled};
use super::super::{Flow, Keep, Registry};
use crate::exchange::testing::{NOW_MS, at};
use crate::exchange::{Answer, ConnectionInfo, ConsumerInfo, Directory, Dispatched, Exchange, Inner, Reason};
use crate::http::{Body, RequestHead, ResponseHead};

/// A gateway that answers every inner request with this status and its target, and keeps the heads.
struct Pages(u16, RefCell<Vec<RequestHead>>);

impl Directory for Pages {
    fn find_credential(&self, _plugin: &str, _value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn consumer(&self, _username: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn dispatch(&self, _connection: Rc<ConnectionInfo>, inner: Inner) -> Dispatched {
        let mut head = ResponseHead::new(self.0);
        head.fields.append("Content-Type", "text/html");
        head.fields.append("Content-Length", "1");
        let body = Bytes::from(format!("page {}{}", inner.head.authority, inner.head.target()));
        self.1.borrow_mut().push(*inner.head);
        Box::pin(std::future::ready(Ok((head, body))))
    }
}

fn failed(pages: &Rc<Pages>, reason: Reason) -> Exchange {
    let fields = [("Accept", "text/html"), ("If-None-Match", "x"), ("X-Tag", "t")];
    let mut x = at(NOW_MS, "POST", "h.example:81", "/a b?c=d", &fields, pages.clone());
    x.answer.reason = reason;
    x
}

async fn shown(config: &Value, metadata: Option<&Value>, x: &mut Exchange, status: u16) -> Result<Box<Answer>, u16> {
    let filter = filter_in("error-page", config, metadata, &Keep::default());
    let mut head = ResponseHead::new(status);
    head.fields.append("Retry-After", "5");
    head.fields.append("X-Other", "o");
    let flow = filter.after_proxy(x, &mut head, &mut Body::Empty);
    match settled(flow, x).await {
        Flow::Continue => Err(head.status),
        flow => Ok(answer(flow)),
    }
}

fn gateway(status: u16) -> Rc<Pages> {
    Rc::new(Pages(status, RefCell::default()))
}

#[tokio::test]
async fn metadata_has_pages_for_the_gateways_own_errors() {
    let pages = gateway(200);
    let metadata = json!({"enable": true, "error_404": {"body": "<b>gone</b>"}, "error_503": {"body": "busy", "content_type": "text/plain"}});
    let given = shown(&json!({}), Some(&metadata), &mut failed(&pages, Reason::NoRoute), 404).await.unwrap();
    assert_eq!((given.head.status, &given.body[..], given.reason), (404, &b"<b>gone</b>"[..], Reason::NoRoute));
    assert_eq!(
        (given.head.fields.get_str("content-type"), given.head.fields.get_str("retry-after")),
        (Some("text/html"), Some("5"))
    );
    let busy = shown(&json!({}), Some(&metadata), &mut failed(&pages, Reason::Overflow), 503).await.unwrap();
    assert_eq!(busy.head.fields.get_str("content-type"), Some("text/plain"));
    for (metadata, reason, status) in [
        (metadata.clone(), Reason::None, 404),
        (metadata, Reason::Internal, 500),
        (json!({"error_404": {"body": "x"}}), Reason::NoRoute, 404),
    ] {
        assert_eq!(shown(&json!({}), Some(&metadata), &mut failed(&pages, reason), status).await.unwrap_err(), status);
    }
}

#[tokio::test]
async fn routes_have_pages_for_all_errors() {
    let pages = gateway(200);
    let config =
        json!({"pages": {"500-599": {"body": "five"}, "502": {"body": "two"}}, "status_rewrites": {"502": 503, "418": 404}});
    let given = shown(&config, None, &mut failed(&pages, Reason::None), 502).await.unwrap();
    assert_eq!((given.head.status, &given.body[..], given.reason), (503, &b"two"[..], Reason::None));
    assert_eq!(shown(&config, None, &mut failed(&pages, Reason::None), 500).await.unwrap().body, "five");
    assert_eq!(shown(&config, None, &mut failed(&pages, Reason::None), 418).await.unwrap_err(), 404, "only another status");
    assert_eq!(shown(&config, None, &mut failed(&pages, Reason::None), 200).await.unwrap_err(), 200);
}

#[tokio::test]
async fn pages_may_come_from_another_route() {
    let pages = gateway(200);
    let config =
        json!({"status": ["500-599"], "query": "/errors/{status}?u={url}&o={originalStatus}", "status_rewrites": {"503": 500}});
    let given = shown(&config, None, &mut failed(&pages, Reason::Overflow), 503).await.unwrap();
    let target = "/errors/500?u=http%3A%2F%2Fh%2Eexample%3A81%2Fa%20b%3Fc%3Dd&o=503";
    assert_eq!(
        (given.head.status, given.body, given.reason),
        (500, format!("page h.example:81{target}").into(), Reason::Overflow)
    );
    let fields = ["content-length", "x-other", "retry-after"].map(|name| given.head.fields.get_str(name));
    assert_eq!(fields, [None, None, Some("5")]);
    let asked = pages.1.borrow()[0].clone();
    let sent = ["accept", "if-none-match", "x-tag"].map(|name| asked.fields.get_str(name));
    assert_eq!((asked.method.as_str(), sent), ("GET", [Some("text/html"), None, Some("t")]));

    let config = json!({"status": ["404"], "host": "pages.example", "error_request_headers": ["x-tag"]});
    assert_eq!(shown(&config, None, &mut failed(&pages, Reason::None), 404).await.unwrap().body, "page pages.example/404");
    let asked = pages.1.borrow()[1].clone();
    assert_eq!((asked.fields.len(), asked.fields.get_str("x-tag")), (1, Some("t")));
}

#[tokio::test]
async fn an_error_stays_where_there_is_no_page() {
    let config = json!({"status": ["404"]});
    assert_eq!(shown(&config, None, &mut failed(&gateway(404), Reason::None), 404).await.unwrap_err(), 404);
    let mut inner = failed(&gateway(200), Reason::None);
    inner.connection = Rc::new(ConnectionInfo { inner: true, ..ConnectionInfo::clone(&inner.connection) });
    assert_eq!(shown(&config, None, &mut inner, 404).await.unwrap_err(), 404);
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({"pages": {"x": {"body": "b"}}}), "pages.x"),
        (json!({"pages": {"404": {"body": ""}}}), "pages.404.body"),
        (json!({"pages": {"404": {"body": "b", "content_type": "a\nb"}}}), "pages.404.content_type"),
        (json!({"status": ["404", "5xx"]}), "status[1]"),
        (json!({"query": "errors"}), "query"),
        (json!({"host": "a/b"}), "host"),
        (json!({"status_rewrites": {"404": 100}}), "status_rewrites.404"),
        (json!({"error_request_headers": ["a b"]}), "error_request_headers[0]"),
        (json!({"max_page_size": 0}), "max_page_size"),
    ] {
        assert_eq!(faults("error-page", &config), [path], "{config}");
    }
    let check = |metadata: Value| Registry::default().check("error-page", Place::Metadata, &metadata);
    assert!(check(json!({"error_404": {"body": ""}})).is_err() && check(json!({"error_401": {"body": "x"}})).is_err());
    assert!(check(json!({"enable": true})).is_ok());
}
