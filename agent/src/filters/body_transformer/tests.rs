//! Tests of `body-transformer`.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::testing::{answer, faults, filter, header, passes, settled};
use super::super::{Flow, Phases};
use crate::exchange::testing::request;
use crate::exchange::{Exchange, Reason};
use crate::http::{Body, ResponseHead};

/// What the upstream would get, or the status of a refusal.
async fn sent(config: Value, method: &str, target: &str, media: &str, body: &str) -> Result<String, u16> {
    let mut x = request(method, "h.example", target, &[("Content-Type", media), ("Accept-Encoding", "gzip")]);
    x.body = Body::from(Bytes::from(body.to_owned()));
    let flow = filter("body-transformer", &config).rewrite(&mut x);
    match settled(flow, &mut x).await {
        Flow::Continue => Ok(String::from_utf8(x.body.collect(1 << 20).await.unwrap().to_vec()).unwrap()),
        flow => Err(answer(flow).head.status),
    }
}

#[tokio::test]
async fn requests_are_read_by_format_or_content_type() {
    let by = |template: &str| json!({"request": {"template": template}});
    let json = "application/json";
    assert_eq!(sent(by("<a>{{a.b[1]}}</a>"), "POST", "/", json, "{\"a\": {\"b\": [7]}}").await.unwrap(), "<a>7</a>");
    assert_eq!(sent(by("{*_escape_json(e.x)*}"), "POST", "/", "text/xml", "<n:e><x>\"</x></n:e>").await.unwrap(), "\"\\\"\"");
    let form = "application/x-www-form-urlencoded";
    assert_eq!(sent(by("{{a}} {{_ctx.var.arg_q}}"), "POST", "/?q=1", form, "a=b%20c").await.unwrap(), "b c 1");
    assert_eq!(sent(by("{{q}}"), "GET", "/?q=1", "", "").await.unwrap(), "1");
    assert_eq!(sent(by("{*_body*}{*_body*}"), "POST", "/", "text/plain", "x").await.unwrap(), "xx");
    let parts = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--";
    assert_eq!(
        sent(by("{{a}}{{_multipart:get('a').value}}"), "POST", "/", "multipart/form-data; boundary=b", parts).await.unwrap(),
        "11"
    );
    let args = json!({"request": {"input_format": "args", "template": "{{q}}"}});
    assert_eq!(sent(args, "POST", "/?q=2", json, "no JSON").await.unwrap(), "2");
    let coded = json!({"request": {"template": "e3tuLmF9fQ==", "template_is_base64": true}});
    assert_eq!(sent(coded, "POST", "/", json, "{\"n\": {\"a\": 1}}").await.unwrap(), "1");
}

#[tokio::test]
async fn requests_that_cannot_be_read_are_refused() {
    let config = || json!({"request": {"input_format": "json", "template": "{{a + 1}}"}, "max_req_body_size": 20});
    assert_eq!(sent(config(), "POST", "/", "", "{").await, Err(400));
    assert_eq!(sent(config(), "POST", "/", "", "{}").await, Err(500));
    assert_eq!(sent(config(), "POST", "/", "", "{\"a\": 11111111111111}").await, Err(413));
    assert_eq!(sent(config(), "POST", "/", "", "{\"a\": 1}").await.unwrap(), "2");
}

async fn received(
    config: &Value,
    x: &mut Exchange,
    mut head: ResponseHead,
    body: &str,
) -> Option<(ResponseHead, String, Reason)> {
    let filter = filter("body-transformer", config);
    assert!(filter.phases().has(Phases::AFTER_PROXY) && passes(filter.rewrite(x)));
    let mut body = Body::from(Bytes::from(body.to_owned()));
    match settled(filter.after_proxy(x, &mut head, &mut body), x).await {
        Flow::Continue => None,
        flow => {
            let answer = answer(flow);
            Some((answer.head, String::from_utf8(answer.body.to_vec()).unwrap(), answer.reason))
        }
    }
}

fn from_upstream(fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead::new(201);
    fields.iter().for_each(|(name, value)| head.fields.append(name, value));
    head
}

#[tokio::test]
async fn responses_get_another_body_and_keep_their_head() {
    let config = json!({"response": {"template": "{{a}} {{_ctx.var.status}}"}});
    let x = &mut request("GET", "h", "/", &[("Accept-Encoding", "br")]);
    let head =
        from_upstream(&[("Content-Type", "application/json"), ("Content-Length", "8"), ("ETag", "\"x\""), ("X-Kept", "1")]);
    let (head, body, reason) = received(&config, x, head, "{\"a\":\"b\"}").await.unwrap();
    assert_eq!((head.status, body.as_str(), reason), (201, "b 201", Reason::None));
    assert_eq!(
        (head.fields.get_str("x-kept"), head.fields.get("etag"), head.fields.get("content-length")),
        (Some("1"), None, None)
    );
    assert_eq!(header(x, "accept-encoding"), None);
}

#[tokio::test]
async fn responses_that_cannot_be_read_are_answered_for() {
    let config = json!({"response": {"input_format": "json", "template": "{{a + 1}}"}, "max_resp_body_size": 10});
    for (fields, body, status) in [
        (&[][..], "{", 502),
        (&[], "{\"a\": 100000000}", 502),
        (&[("Content-Encoding", "gzip")], "{\"a\": 1}", 502),
        (&[], "{}", 500),
    ] {
        let (head, _, reason) = received(&config, &mut request("GET", "h", "/", &[]), from_upstream(fields), body).await.unwrap();
        assert_eq!((head.status, reason), (status, Reason::PluginFailed), "{body}");
    }
    let own = &mut request("GET", "h", "/", &[]);
    own.answer.reason = Reason::UpstreamConnect;
    assert!(received(&config, own, from_upstream(&[]), "{").await.is_none(), "our own answers stay as they are");
    assert!(received(&config, &mut request("HEAD", "h", "/", &[]), from_upstream(&[]), "").await.is_none());
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({}), ""),
        (json!({"request": {}}), "request"),
        (json!({"request": {"template": "{{"}}), "request.template"),
        (json!({"response": {"template": "?", "template_is_base64": true}}), "response.template"),
        (json!({"request": {"template": "", "input_format": "yaml"}}), "request.input_format"),
        (json!({"request": {"template": ""}, "max_req_body_size": 0}), "max_req_body_size"),
    ] {
        assert_eq!(faults("body-transformer", &config), [path], "{config}");
    }
}
