//! Tests of `proxy-cache`: what a request meets, and what becomes of the answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_xds::catalog::{Catalog, Place};
use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::super::testing::{faults, filter, filter_in, settled};
use super::super::{Filter, Flow, Keep, Registry};
use super::filter::{MARK, Mark};
use crate::exchange::imagined::EmptyDirectory;
use crate::exchange::testing::{NOW_MS, at, consumer};
use crate::exchange::variable::JWT_CLAIMS;
use crate::exchange::{Exchange, Reason, TlsInfo};
use crate::http::{Body, Fields, ResponseHead};

/// What a client was told, and whether the upstream was asked, with which fields.
struct Told {
    status: u16,
    fields: Fields,
    body: Bytes,
    asked: Option<Fields>,
}

impl Told {
    fn cached(&self) -> &str {
        self.fields.get_str("apisix-cache-status").unwrap_or("-")
    }

    /// A field of what the upstream was asked.
    fn sent(&self, name: &str) -> Option<&str> {
        self.asked.as_ref().unwrap().get_str(name)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

type Sent<'a> = (u16, &'a [(&'a str, &'a str)], &'a str);

fn request(later_s: u64, method: &str, target: &str, fields: &[(&str, &str)]) -> Exchange {
    at(NOW_MS + later_s * 1000, method, "h", target, fields, Rc::new(EmptyDirectory))
}

fn get(later_s: u64, fields: &[(&str, &str)]) -> Exchange {
    request(later_s, "GET", "/a?x=1", fields)
}

/// Sends a request through the filter to an upstream that answers so.
async fn ask(filter: &Arc<dyn Filter>, x: Exchange, sent: Sent<'_>) -> Told {
    ask_failing(filter, x, Ok(sent)).await
}

async fn ask_failing(filter: &Arc<dyn Filter>, mut x: Exchange, sent: Result<Sent<'_>, Reason>) -> Told {
    let flow = filter.access(&mut x);
    let asked = match settled(flow, &mut x).await {
        Flow::Answer(answer) => {
            return Told { status: answer.head.status, fields: answer.head.fields, body: answer.body, asked: None };
        }
        _ => Some(x.request.fields.clone()),
    };
    let (status, fields, text) = sent.unwrap_or((502, &[], "broken"));
    x.answer.reason = sent.err().unwrap_or_default();
    let mut head = ResponseHead::new(status);
    fields.iter().for_each(|(name, value)| head.fields.append(name, value));
    let mut body = Body::from(Bytes::copy_from_slice(text.as_bytes()));
    let flow = filter.after_proxy(&mut x, &mut head, &mut body);
    match settled(flow, &mut x).await {
        Flow::Answer(answer) => Told { status: answer.head.status, fields: answer.head.fields, body: answer.body, asked },
        _ => Told { status: head.status, fields: head.fields, body: body.collect(1 << 20).await.unwrap(), asked },
    }
}

fn memory(more: Value) -> Value {
    let mut config = json!({"cache_strategy": "memory", "cache_control": true});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn cache(more: Value) -> Arc<dyn Filter> {
    filter("proxy-cache", &memory(more))
}

const PLAIN: Sent<'_> = (200, &[("Cache-Control", "max-age=10"), ("ETag", "\"1\""), ("X-Of", "upstream")], "one");
const OTHER: Sent<'_> = (200, &[], "two");

#[tokio::test(start_paused = true)]
async fn what_was_told_is_told_again_until_it_is_stale() {
    let cache = cache(json!({}));
    let first = ask(&cache, get(0, &[]), PLAIN).await;
    assert_eq!((first.status, first.cached(), first.text()), (200, "MISS", "one"));
    let again = ask(&cache, get(9, &[]), OTHER).await;
    assert_eq!(
        (again.cached(), again.text(), again.fields.get_str("age"), again.asked.is_none()),
        ("HIT", "one", Some("9"), true)
    );
    assert_eq!((again.fields.get_str("x-of"), again.fields.get_str("etag")), (Some("upstream"), Some("\"1\"")));
    assert_eq!(ask(&cache, request(9, "GET", "/a?x=2", &[]), OTHER).await.cached(), "MISS", "another query");
    let stale = ask(&cache, get(10, &[]), OTHER).await;
    assert_eq!((stale.cached(), stale.text()), ("EXPIRED", "two"));
    assert_eq!(stale.sent("if-none-match"), Some("\"1\""));
    assert_eq!(ask(&cache, get(69, &[]), PLAIN).await.text(), "two", "fresh for cache_ttl");
}

#[tokio::test]
async fn an_answer_that_has_not_changed_is_fresh_again() {
    let cache = cache(json!({}));
    ask(&cache, get(0, &[]), PLAIN).await;
    let same: Sent<'_> = (304, &[("Cache-Control", "max-age=100"), ("X-New", "1")], "");
    let told = ask(&cache, get(20, &[]), same).await;
    assert_eq!((told.status, told.cached(), told.text()), (200, "REVALIDATED", "one"));
    let told = ask(&cache, get(100, &[]), OTHER).await;
    assert_eq!(
        (told.cached(), told.text(), told.fields.get_str("x-new"), told.fields.get_str("age")),
        ("HIT", "one", Some("1"), Some("80"))
    );
    let knows = ask(&cache, get(130, &[("If-None-Match", "\"1\"")]), same).await;
    assert_eq!((knows.status, knows.cached(), knows.text()), (304, "REVALIDATED", ""));
}

#[tokio::test]
async fn conditions_and_ranges_are_answered_here_and_asked_whole() {
    let cache = cache(json!({}));
    let first = ask(&cache, get(0, &[("If-None-Match", "\"x\"")]), PLAIN).await;
    assert_eq!((first.text(), first.sent("if-none-match")), ("one", None));
    assert_eq!(ask(&cache, get(1, &[("If-None-Match", "\"1\"")]), OTHER).await.status, 304);
    let part = ask(&cache, get(1, &[("Range", "bytes=1-")]), OTHER).await;
    assert_eq!((part.status, part.text(), part.cached()), (206, "ne", "HIT"));
    let other = request(1, "GET", "/b", &[("Range", "bytes=1-")]);
    let passed = ask(&cache, other, (206, &[("Content-Range", "bytes 1-2/3")], "wo")).await;
    assert_eq!((passed.status, passed.cached(), passed.sent("range")), (206, "MISS", Some("bytes=1-")));
    assert_eq!(ask(&cache, request(1, "GET", "/b", &[]), OTHER).await.cached(), "MISS", "a part is not stored");
}

#[tokio::test]
async fn head_is_answered_from_what_get_has_stored() {
    let cache = cache(json!({}));
    let head = || request(1, "HEAD", "/a?x=1", &[]);
    assert_eq!(ask(&cache, head(), (200, &[], "")).await.cached(), "MISS");
    assert_eq!(ask(&cache, get(1, &[]), PLAIN).await.cached(), "MISS", "what HEAD was told is not stored");
    assert_eq!(ask(&cache, head(), OTHER).await.cached(), "HIT");
}

#[tokio::test]
async fn methods_statuses_and_texts_choose() {
    let cache = cache(json!({
        "cache_method": ["GET", "POST"], "cache_http_status": [404], "cache_bypass": ["$arg_bypass"], "no_cache": ["$arg_private"], "cache_key": ["$uri"]
    }));
    let missing: Sent<'_> = (404, &[], "none");
    let of = |method: &'static str, target: &'static str| request(0, method, target, &[]);
    let cached = async |x: Exchange, sent: Sent<'_>| ask(&cache, x, sent).await.cached().to_owned();
    assert_eq!([cached(of("GET", "/a"), PLAIN).await, cached(of("GET", "/a"), missing).await], ["MISS", "MISS"]);
    assert_eq!(cached(of("GET", "/a?y=2"), PLAIN).await, "HIT", "the query is no part of the key");
    assert_eq!(cached(of("GET", "/a?bypass=1"), (404, &[], "new")).await, "BYPASS");
    assert_eq!(ask(&cache, of("GET", "/a?bypass=0"), PLAIN).await.text(), "new", "a bypass stores what it gets");
    assert_eq!([cached(of("GET", "/c?private=1"), missing).await, cached(of("GET", "/c"), missing).await], ["MISS", "MISS"]);
    assert_eq!([cached(of("POST", "/a"), missing).await, cached(of("POST", "/a"), missing).await], ["MISS", "HIT"]);
    assert_eq!(cached(of("HEAD", "/a"), missing).await, "-");
}

#[tokio::test]
async fn answers_vary_by_what_they_say() {
    let cache = cache(json!({}));
    let vary: &[(&str, &str)] = &[("Vary", "Accept, X-Tag")];
    let of = |accept: &str| get(0, &[("Accept", accept)]);
    assert_eq!(ask(&cache, of("a"), (200, vary, "for a")).await.cached(), "MISS");
    assert_eq!(ask(&cache, of("b"), (200, vary, "for b")).await.cached(), "MISS");
    for (accept, text) in [("a", "for a"), ("b", "for b")] {
        let told = ask(&cache, of(accept), OTHER).await;
        assert_eq!((told.cached(), told.text()), ("HIT", text));
    }
    assert_eq!(ask(&cache, request(0, "PURGE", "/a?x=1", &[]), OTHER).await.status, 200);
    assert_eq!(ask(&cache, of("a"), (200, vary, "new")).await.cached(), "MISS", "all variants are gone");
}

#[tokio::test]
async fn each_consumer_has_answers_of_its_own() {
    for (isolated, status, text) in [(true, "MISS", "two"), (false, "HIT", "one")] {
        let cache = cache(json!({"consumer_isolation": isolated}));
        let of = |name: &str| {
            let mut x = get(0, &[]);
            x.consumer = Some(Arc::new(consumer(name)));
            x
        };
        ask(&cache, of("jack"), PLAIN).await;
        assert_eq!(ask(&cache, of("jack"), OTHER).await.cached(), "HIT");
        let told = ask(&cache, of("rose"), OTHER).await;
        assert_eq!((told.cached(), told.text()), (status, text));
    }
}

#[tokio::test]
async fn credentials_and_cookies_are_for_nobody_else() {
    let cache = cache(json!({}));
    let secret = [("Authorization", "Basic x")];
    ask(&cache, get(0, &secret), PLAIN).await;
    assert_eq!(ask(&cache, get(0, &[]), OTHER).await.cached(), "MISS");
    let cookies: Sent<'_> = (200, &[("Set-Cookie", "a=b")], "mine");
    let of = |target: &'static str| request(0, "GET", target, &[]);
    ask(&cache, of("/c"), cookies).await;
    assert_eq!(ask(&cache, of("/c"), OTHER).await.cached(), "MISS");
    let open = self::cache(json!({"cache_set_cookie": true}));
    ask(&open, of("/c"), cookies).await;
    assert_eq!(ask(&open, of("/c"), OTHER).await.fields.get_str("set-cookie"), Some("a=b"));
}

#[tokio::test]
async fn requests_are_heeded_only_where_that_is_wished() {
    let heeds = cache(json!({}));
    assert_eq!(ask(&heeds, get(0, &[("Cache-Control", "only-if-cached")]), PLAIN).await.status, 504);
    ask(&heeds, get(0, &[]), PLAIN).await;
    assert_eq!(ask(&heeds, get(0, &[("Cache-Control", "only-if-cached")]), OTHER).await.cached(), "HIT");
    assert_eq!(ask(&heeds, get(0, &[("Cache-Control", "no-cache")]), PLAIN).await.cached(), "EXPIRED");
    assert_eq!(ask(&heeds, get(15, &[("Cache-Control", "max-stale=5")]), OTHER).await.cached(), "STALE");
    let changed = ask(&heeds, request(0, "DELETE", "/a?x=1", &[]), (204, &[], "")).await;
    assert_eq!(changed.cached(), "-");
    assert_eq!(ask(&heeds, get(0, &[]), OTHER).await.cached(), "MISS", "a change drops what is stored");

    let plain = cache(json!({"cache_control": false, "cache_ttl": 5}));
    ask(&plain, get(0, &[]), (200, &[("Cache-Control", "no-store")], "kept")).await;
    assert_eq!(ask(&plain, get(4, &[("Cache-Control", "no-cache")]), OTHER).await.text(), "kept");
    assert_eq!(ask(&plain, get(5, &[]), OTHER).await.cached(), "EXPIRED");
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_helps_out_when_the_upstream_fails() {
    let cache = cache(json!({"stale_if_error": 30}));
    ask(&cache, get(0, &[]), PLAIN).await;
    for sent in [Err(Reason::UpstreamConnect), Ok((503, &[][..], "busy"))] {
        let told = ask_failing(&cache, get(39, &[]), sent).await;
        assert_eq!((told.status, told.cached(), told.text()), (200, "STALE", "one"));
    }
    let told = ask_failing(&cache, get(40, &[]), Err(Reason::UpstreamConnect)).await;
    assert_eq!((told.status, told.text()), (502, "broken"));
    assert_eq!(ask(&cache, get(20, &[]), (404, &[], "gone")).await.text(), "gone", "an answer is no failure");
}

#[tokio::test]
async fn a_stale_answer_is_served_while_it_is_fetched_anew() {
    LocalSet::new()
        .run_until(async {
            let keep = Keep::default();
            let cache = filter_in("proxy-cache", &memory(json!({})), None, &keep);
            let mark = keep.get_or::<Mark>(MARK, || unreachable!());
            let patient: Sent<'_> = (200, &[("Cache-Control", "max-age=10, stale-while-revalidate=20")], "one");
            ask(&cache, get(0, &[]), patient).await;
            let told = ask(&cache, get(25, &[]), OTHER).await;
            assert_eq!((told.cached(), told.text(), told.asked.is_none()), ("STALE", "one", true));
            // The request that it makes to itself asks the upstream, whatever is stored.
            let inner = |later, mark| {
                let mut inner = get(later, &[("Heddle-Cache-Refresh", mark)]);
                let connection = crate::exchange::ConnectionInfo::clone(&inner.connection);
                inner.connection = Rc::new(crate::exchange::ConnectionInfo { inner: true, ..connection });
                inner
            };
            let told = ask(&cache, inner(25, &mark.0), OTHER).await;
            assert_eq!((told.cached(), told.sent("heddle-cache-refresh")), ("EXPIRED", None));
            for x in [get(26, &[("Heddle-Cache-Refresh", &mark.0)]), inner(26, "1")] {
                assert_eq!(ask(&cache, x, PLAIN).await.text(), "two", "clients cannot ask for it");
            }
        })
        .await;
}

#[tokio::test]
async fn nothing_but_reading_is_asked_beside_the_client() {
    LocalSet::new()
        .run_until(async {
            let cache = cache(json!({"cache_method": ["POST"], "stale_while_revalidate": 100}));
            let post = |later| request(later, "POST", "/a", &[]);
            ask(&cache, post(0), PLAIN).await;
            assert_eq!(ask(&cache, post(9), OTHER).await.cached(), "HIT");
            let told = ask(&cache, post(20), OTHER).await;
            assert_eq!((told.cached(), told.text(), told.asked.is_some()), ("EXPIRED", "two", true));
        })
        .await;
}

#[tokio::test]
async fn what_one_user_was_told_is_told_to_no_other() {
    let cache = cache(json!({}));
    let user = |claims: Value| {
        let mut x = get(0, &[]);
        if let Value::Object(claims) = claims {
            x.put(JWT_CLAIMS, claims);
        }
        x
    };
    let all = [
        json!({"iss": "i", "sub": "a"}),
        json!({"iss": "i", "sub": "b"}),
        json!({"iss": "j", "sub": "a"}),
        json!({"email": "a"}),
        json!({"email": "b"}),
        Value::Null,
    ];
    for claims in &all {
        assert_eq!(ask(&cache, user(claims.clone()), PLAIN).await.cached(), "MISS", "{claims}");
    }
    for claims in &all {
        assert_eq!(ask(&cache, user(claims.clone()), OTHER).await.cached(), "HIT", "{claims}");
    }
    let later = user(json!({"iss": "i", "sub": "a", "iat": 7}));
    assert_eq!(ask(&cache, later, OTHER).await.cached(), "HIT", "another token of the same user");
}

#[tokio::test]
async fn what_was_told_without_tls_is_not_told_with_it() {
    let cache = cache(json!({}));
    let there: Sent<'_> = (301, &[("Location", "https://h/a")], "");
    ask(&cache, get(0, &[]), there).await;
    let mut x = get(1, &[]);
    let connection = crate::exchange::ConnectionInfo::clone(&x.connection);
    let tls = TlsInfo { server_name: None, version: "TLSv1.3", cipher: "", client: None, client_required_unless: None };
    x.connection = Rc::new(crate::exchange::ConnectionInfo { tls: Some(tls), ..connection });
    let told = ask(&cache, x, PLAIN).await;
    assert_eq!((told.status, told.cached()), (200, "MISS"));
    assert_eq!(ask(&cache, get(1, &[]), PLAIN).await.status, 301);
}

/// An upstream that writes the port it is told into a link must not write it into the links of others.
#[tokio::test]
async fn a_port_that_a_client_names_poisons_nobody() {
    let cache = cache(json!({}));
    let to = |host: &str| at(NOW_MS, "GET", host, "/a", &[], Rc::new(EmptyDirectory));
    let poison: Sent<'_> = (301, &[("Location", "http://h:1337/login")], "");
    assert_eq!(ask(&cache, to("h:1337"), poison).await.cached(), "MISS");
    assert_eq!(ask(&cache, to("h"), PLAIN).await.text(), "one");
    assert_eq!(ask(&cache, to("h:80"), OTHER).await.text(), "one", "the same place");
    assert_eq!(ask(&cache, to("h:1337"), OTHER).await.status, 301);
    assert_eq!(ask(&cache, to("[::1]"), OTHER).await.cached(), "MISS");
    assert_eq!(ask(&cache, to("[::1]"), OTHER).await.cached(), "HIT");
}

/// A zone holds what it counts: no slice of a larger buffer.
#[tokio::test]
async fn what_is_kept_is_no_part_of_a_larger_buffer() {
    let cache = cache(json!({}));
    let buffer = Bytes::from(vec![b'x'; 64 * 1024]);
    let mut x = get(0, &[]);
    assert!(matches!(cache.access(&mut x), Flow::Continue));
    let (mut head, mut body) = (ResponseHead::new(200), Body::from(buffer.slice(100..200)));
    assert!(matches!(cache.after_proxy(&mut x, &mut head, &mut body), Flow::Continue));
    let told = ask(&cache, get(1, &[]), OTHER).await;
    assert_eq!((told.cached(), told.body.len()), ("HIT", 100));
    assert!(!buffer.as_ptr_range().contains(&told.body.as_ptr()));
}

/// The room that a zone may take is a bound and not taken at once.
#[tokio::test]
async fn a_zone_without_bounds_is_no_danger() {
    for size in [1 << 40, u64::MAX] {
        let zones = json!({"zones": [{"name": "z", "memory_size": size, "disk_size": size, "cache_ttl": u64::MAX}]});
        let config = json!({"cache_strategy": "memory", "cache_zone": "z", "cache_ttl": u64::MAX, "stale_if_error": u64::MAX,
            "stale_while_revalidate": u64::MAX, "max_resp_body_size": u64::MAX});
        let cache = filter_in("proxy-cache", &config, Some(&zones), &Keep::default());
        ask(&cache, get(0, &[]), (200, &[], "one")).await;
        assert_eq!(ask(&cache, get(1 << 40, &[]), OTHER).await.text(), "one");
    }
}

#[tokio::test]
async fn one_asks_and_the_others_wait_for_it() {
    let cache = cache(json!({}));
    let mut first = get(0, &[]);
    assert!(matches!(cache.access(&mut first), Flow::Continue));
    let others = (0..5).map(|_| ask(&cache, get(0, &[]), OTHER));
    let lead = async {
        // The others are polled before this one, so by now they wait.
        tokio::task::yield_now().await;
        let mut head = ResponseHead::new(200);
        let mut body = Body::from(Bytes::from_static(b"once"));
        assert!(matches!(cache.after_proxy(&mut first, &mut head, &mut body), Flow::Continue));
    };
    let (told, ()) = tokio::join!(futures_util::future::join_all(others), lead);
    for told in told {
        assert_eq!((told.cached(), told.text()), ("HIT", "once"));
    }
}

#[tokio::test]
async fn when_the_one_goes_away_another_takes_over() {
    let cache = cache(json!({}));
    let mut first = get(0, &[]);
    assert!(matches!(cache.access(&mut first), Flow::Continue));
    let gone = async {
        // The others are polled before this one, so by now they wait.
        tokio::task::yield_now().await;
        drop(first);
    };
    let (told, second, ()) = tokio::join!(ask(&cache, get(0, &[]), OTHER), ask(&cache, get(0, &[]), OTHER), gone);
    let mut seen = [told.cached(), second.cached()];
    seen.sort_unstable();
    assert_eq!(seen, ["HIT", "MISS"]);
}

#[tokio::test]
async fn nobody_waits_for_what_will_not_be_stored() {
    let cache = cache(json!({}));
    let private: Sent<'_> = (200, &[("Cache-Control", "private")], "mine");
    ask(&cache, get(0, &[]), private).await;
    let mut x = get(1, &[]);
    assert!(matches!(cache.access(&mut x), Flow::Continue));
    assert!(matches!(cache.access(&mut get(1, &[])), Flow::Continue), "both at once");
}

#[tokio::test]
async fn purge_drops_what_is_stored() {
    let cache = cache(json!({}));
    let purge = || request(0, "PURGE", "/a?x=1", &[]);
    assert_eq!(ask(&cache, purge(), OTHER).await.status, 404);
    ask(&cache, get(0, &[]), PLAIN).await;
    assert_eq!(ask(&cache, purge(), OTHER).await.status, 200);
    assert_eq!(ask(&cache, get(0, &[]), OTHER).await.cached(), "MISS");
}

#[tokio::test]
async fn long_bodies_and_fields_of_the_connection_are_not_kept() {
    let cache = cache(json!({"max_resp_body_size": 3, "hide_cache_headers": true}));
    let long: Sent<'_> = (200, &[], "four");
    ask(&cache, request(0, "GET", "/long", &[]), long).await;
    assert_eq!(ask(&cache, request(0, "GET", "/long", &[]), long).await.cached(), "MISS");
    let odd: Sent<'_> =
        (200, &[("Connection", "X-Hop"), ("X-Hop", "1"), ("Expires", "0"), ("Cache-Control", "max-age=9")], "one");
    assert_eq!(ask(&cache, get(0, &[]), odd).await.fields.get("cache-control"), None);
    let told = ask(&cache, get(0, &[]), odd).await;
    assert_eq!(told.cached(), "HIT");
    for name in ["x-hop", "connection", "expires", "cache-control"] {
        assert_eq!(told.fields.get(name), None, "{name}");
    }
}

#[tokio::test]
async fn stored_answers_outlive_a_reload_and_on_disk_a_restart() {
    let keep = Keep::default();
    let of = |more: Value| filter_in("proxy-cache", &memory(more), None, &keep);
    let first = of(json!({}));
    ask(&first, get(0, &[]), PLAIN).await;
    assert_eq!(ask(&of(json!({"hide_cache_headers": true})), get(0, &[]), OTHER).await.cached(), "HIT");

    let folder = tempfile::tempdir().unwrap();
    let metadata = json!({"zones": [{"name": "z", "disk_path": folder.path(), "cache_ttl": 50}]});
    let config = json!({"cache_zone": "z"});
    let vary: Sent<'_> = (200, &[("Vary", "Accept")], "kept");
    {
        let keep = Keep::default();
        let cache = filter_in("proxy-cache", &config, Some(&metadata), &keep);
        ask(&cache, get(0, &[("Accept", "a")]), vary).await;
        settle(folder.path(), 2).await;
    }
    until_free(folder.path()).await;
    let keep = Keep::default();
    let cache = filter_in("proxy-cache", &config, Some(&metadata), &keep);
    let told = until_hit(&cache).await;
    assert_eq!((told.text(), told.fields.get_str("age")), ("kept", Some("49")));
}

/// Waits until so many files lie below a folder.
async fn settle(folder: &std::path::Path, count: usize) {
    for _ in 0..500 {
        if files(folder).len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", files(folder));
}

/// Waits until a file is longer than this.
async fn until_longer(file: &std::path::Path, length: u64) {
    for _ in 0..500 {
        if std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > length) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the file is not written");
}

/// Waits until nobody uses a folder any more.
async fn until_free(folder: &std::path::Path) {
    for _ in 0..500 {
        if std::fs::File::open(folder.join("lock")).unwrap().try_lock().is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("somebody still uses the folder");
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries =
        |folder: &std::path::Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let folders = entries(folder).into_iter().filter(|path| path.is_dir());
    folders.flat_map(|folder| entries(&folder)).filter(|path| path.extension().is_some_and(|of| of == "hca")).collect()
}

/// Asks until the folder has been read.
async fn until_hit(cache: &Arc<dyn Filter>) -> Told {
    for _ in 0..500 {
        let mut x = get(49, &[("Accept", "a")]);
        let flow = cache.access(&mut x);
        if let Flow::Answer(answer) = settled(flow, &mut x).await {
            return Told { status: answer.head.status, fields: answer.head.fields, body: answer.body, asked: None };
        }
        drop(x);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing was found on disk");
}

#[tokio::test]
async fn damaged_files_are_dropped_and_purged_ones_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let metadata = json!({"zones": [{"name": "z", "memory_size": 1024, "disk_path": folder.path()}]});
    let cache = filter_in("proxy-cache", &json!({"cache_zone": "z"}), Some(&metadata), &Keep::default());
    let long = "x".repeat(3000);
    let sent: Sent<'_> = (200, &[("Cache-Control", "max-age=10")], &long);
    ask(&cache, get(0, &[]), sent).await;
    settle(folder.path(), 1).await;
    let file = files(folder.path()).remove(0);
    // The memory is too small for it, so it comes from disk each time.
    let from_disk = async || ask(&cache, get(0, &[]), sent).await.cached().to_owned();
    assert_eq!(from_disk().await, "HIT");
    std::fs::write(&file, "damaged").unwrap();
    assert_eq!(from_disk().await, "MISS");
    until_longer(&file, 3000).await;
    assert_eq!(from_disk().await, "HIT");
    assert_eq!(ask(&cache, request(0, "PURGE", "/a?x=1", &[]), OTHER).await.status, 200);
    settle(folder.path(), 0).await;
}

#[test]
fn mistakes_are_refused() {
    for (config, path) in [
        (json!({"cache_strategy": "x"}), "cache_strategy"),
        (json!({"cache_zone": "../x"}), "cache_zone"),
        (json!({"cache_key": []}), "cache_key"),
        (json!({"cache_key": [""]}), "cache_key[0]"),
        (json!({"cache_method": ["PUT"]}), "cache_method[0]"),
        (json!({"cache_method": []}), "cache_method"),
        (json!({"cache_http_status": [99]}), "cache_http_status[0]"),
        (json!({"cache_http_status": []}), "cache_http_status"),
        (json!({"cache_bypass": [""]}), "cache_bypass[0]"),
        (json!({"no_cache": [""]}), "no_cache[0]"),
        (json!({"cache_ttl": 0}), "cache_ttl"),
        (json!({"max_resp_body_size": 0}), "max_resp_body_size"),
    ] {
        assert_eq!(faults("proxy-cache", &config), [path], "{config}");
    }
    let registry = Registry::default();
    for (zone, path) in [
        (json!({"name": "a b"}), "zones[0].name"),
        (json!({"name": "a", "memory_size": 1}), "zones[0].memory_size"),
        (json!({"name": "a", "disk_size": 1}), "zones[0].disk_size"),
        (json!({"name": "a", "disk_path": ""}), "zones[0].disk_path"),
    ] {
        let found = registry.check("proxy-cache", Place::Metadata, &json!({"zones": [zone]})).unwrap_err();
        assert_eq!(found[0].path, path);
    }
    let twice = json!({"zones": [{"name": "a"}, {"name": "a"}]});
    assert_eq!(registry.check("proxy-cache", Place::Metadata, &twice).unwrap_err()[0].path, "zones[1].name");
}
