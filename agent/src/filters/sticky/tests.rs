//! Tests of `sticky`.

#![allow(clippy::unwrap_used)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::Filter;
use super::super::testing::{faults, filter, passes};
use crate::exchange::testing::{get, request};
use crate::exchange::{Attempt, EndpointName, Exchange};
use crate::http::ResponseHead;

fn endpoint(port: u16) -> Rc<EndpointName> {
    EndpointName::new("node".into(), ([10, 0, 0, 1], port).into())
}

/// The cookie that a client gets which this endpoint has answered.
fn cookie_of(filter: &Arc<dyn Filter>, x: &mut Exchange, port: Option<u16>, status: Option<u16>) -> Option<String> {
    if let Some(port) = port {
        let (endpoint, connect) = (endpoint(port), Duration::ZERO);
        x.attempts.push(Attempt {
            endpoint,
            status,
            outcome: status,
            connect,
            header: None,
            total: None,
            failure: None,
            broke: false,
        });
    }
    let mut head = ResponseHead::new(200);
    filter.response_head(x, &mut head);
    head.fields.get_str("set-cookie").map(str::to_owned)
}

#[test]
fn a_client_is_pinned_by_a_cookie_that_says_nothing() {
    let config =
        json!({"cookie": {"name": "c", "secure": true, "http_only": true, "same_site": "strict", "max_age": 9, "path": "/p"}});
    let filter = filter("sticky", &config);
    let mut first = get("h", "/");
    assert!(passes(filter.access(&mut first)));
    assert!(first.steering.is_none(), "nothing is asked for");
    let cookie = cookie_of(&filter, &mut first, Some(1), Some(200)).unwrap();
    let token = endpoint(1).token;
    assert_eq!(cookie, format!("c={token:016x}; Path=/p; Max-Age=9; Secure; HttpOnly; SameSite=Strict"));
    let pair = cookie.split(';').next().unwrap();

    let mut next = request("GET", "h", "/", &[("Cookie", &format!("a=b; {pair}"))]);
    assert!(passes(filter.access(&mut next)));
    assert_eq!(next.steering.as_ref().unwrap().preferred, Some(token));
    assert_eq!(cookie_of(&filter, &mut next, Some(1), Some(200)), None, "it has the cookie");

    let mut elsewhere = request("GET", "h", "/", &[("Cookie", pair)]);
    assert!(passes(filter.access(&mut elsewhere)));
    let again = cookie_of(&filter, &mut elsewhere, Some(2), Some(200)).unwrap();
    assert!(again.starts_with(&format!("c={:016x};", endpoint(2).token)), "another endpoint, another cookie");
}

#[test]
fn cookies_of_others_are_ignored_and_who_meets_nobody_gets_none() {
    let filter = filter("sticky", &json!({"cookie": {"name": "c"}}));
    for value in ["", "x", "00000000000000zz", "+000000000000001", "00000000000000001", "€€€€€1"] {
        let mut x = request("GET", "h", "/", &[("Cookie", &format!("c={value}"))]);
        assert!(passes(filter.access(&mut x)));
        let preferred = x.steering.as_ref().and_then(|steering| steering.preferred);
        assert!(preferred.is_none_or(|token| token == 1), "{value}");
    }
    for (port, status) in [(None, None), (Some(1), None)] {
        let mut x = get("h", "/");
        assert!(passes(filter.access(&mut x)));
        assert_eq!(cookie_of(&filter, &mut x, port, status), None);
    }
    assert_eq!(cookie_of(&filter, &mut get("h", "/"), Some(1), Some(200)), None, "not a request of this filter");
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("sticky", &json!({"cookie": {"name": "a b"}})), ["cookie.name"]);
    assert_eq!(faults("sticky", &json!({"cookie": {"same_site": "none"}})), ["cookie.same_site"]);
    assert_eq!(faults("sticky", &json!({"cookie": {"same_site": "always"}})), ["cookie.same_site"]);
    assert_eq!(faults("sticky", &json!({"cookie": {"max_age": -1}})), ["cookie.max_age"]);
}
