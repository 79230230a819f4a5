//! Where requests go besides the usual way: retries, another upstream, clients that stay where they were, mirrors, many requests in one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use heddle_integration::client::{self, Answer};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::process::until;
use heddle_integration::raw::{Raw, read_head};
use serde_json::{Value, json};

/// A server that can be told what to answer, and tells what it was asked.
struct Server {
    address: SocketAddr,
    told: Arc<Told>,
}

struct Told {
    name: String,
    /// Status of the next answers; 0 closes without one.
    status: AtomicU16,
    /// Answers with `status` that are left; 200 behind them.
    left: AtomicUsize,
    asked: Mutex<Vec<String>>,
}

impl Server {
    fn start(name: &str) -> Server {
        let told =
            Told { name: name.into(), status: AtomicU16::new(200), left: AtomicUsize::new(usize::MAX), asked: Mutex::default() };
        let told = Arc::new(told);
        let serving = told.clone();
        let raw = Raw::start(move |stream| while serving.serve(stream).is_some() {});
        Server { address: raw.address, told }
    }

    /// Answers with this status from now on.
    fn says(&self, status: u16) {
        self.says_for(status, usize::MAX);
    }

    /// Answers so many times with this status, then with 200.
    fn says_for(&self, status: u16, times: usize) {
        self.told.left.store(times, Ordering::SeqCst);
        self.told.status.store(status, Ordering::SeqCst);
    }

    /// What it was asked since this was asked last: method, target and content.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.asked.lock().unwrap())
    }

    fn node(&self) -> Value {
        json!({ "nodes": { self.address.to_string(): 1 } })
    }
}

impl Told {
    fn serve(&self, stream: &mut TcpStream) -> Option<()> {
        let head = read_head(stream);
        let first = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
        let field = |name: &str| head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(str::to_owned));
        let mut body = vec![0; field("content-length: ").and_then(|text| text.trim().parse().ok()).unwrap_or(0)];
        stream.read_exact(&mut body).ok()?;
        self.asked.lock().unwrap().push(format!("{first} {}", String::from_utf8_lossy(&body)).trim_end().to_owned());
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let status = if left { self.status.load(Ordering::SeqCst) } else { 200 };
        if status == 0 {
            return None;
        }
        let (name, length) = (&self.name, self.name.len());
        stream.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{name}").as_bytes()).ok()
    }
}

fn heddle() -> Heddle {
    Heddle::run_with(Setup { more: "access_log: { path: \"access.log\" }\n".to_owned(), ..Setup::default() })
}

fn route(heddle: &Heddle, upstream: Value, plugins: Value) {
    heddle.put("/routes/r", json!({ "uri": "/x", "upstream": upstream, "plugins": plugins }));
    heddle.until_effective();
}

fn ask(heddle: &Heddle, method: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    client::send(heddle.http, method, "/x", fields, body.as_bytes()).unwrap()
}

fn said(answer: &Answer) -> (u16, String) {
    (answer.status, answer.text())
}

/// The lines of the access log for `/x`, once there are so many.
fn log_lines(heddle: &Heddle, count: usize) -> Vec<Value> {
    until("the access log", || {
        let text = std::fs::read_to_string(heddle.place.path("access.log")).ok()?;
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let lines: Vec<Value> = lines.into_iter().filter(|line| line["uri"] == "/x" || line["path"] == "/x").collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn a_retry_mends_bad_answers_and_the_access_log_tells() {
    let heddle = heddle();
    let server = Server::start("one");
    route(&heddle, server.node(), json!({ "retry": { "attempts": 3, "statuses": ["502-503"], "initial_interval": 0.01 } }));
    server.says_for(503, 2);
    assert_eq!(said(&ask(&heddle, "PUT", &[], "body")), (200, "one".into()), "the only endpoint is tried again");
    assert_eq!(server.asked(), ["PUT /x body"; 3], "with its body each time");
    server.says_for(503, 3);
    assert_eq!(said(&ask(&heddle, "GET", &[], "")), (503, "one".into()), "the last answer is the client's");
    assert_eq!(server.asked().len(), 3);
    server.says_for(503, 1);
    assert_eq!(ask(&heddle, "POST", &[], "once").status, 503, "what may not be sent twice is not");
    assert_eq!(server.asked(), ["POST /x once"]);
    server.says_for(500, 1);
    assert_eq!(ask(&heddle, "GET", &[], "").status, 500, "not one of the listed");
    server.says_for(0, 2);
    assert_eq!(ask(&heddle, "GET", &[], "").status, 200, "no answer at all is tried again too");
    let mut attempts: Vec<_> = log_lines(&heddle, 5).iter().map(|line| line["attempts"].as_u64().unwrap()).collect();
    attempts.sort_unstable();
    // The last request may have met a connection that had served before, whose replacement is no try of its own.
    assert!(matches!(attempts[..], [1, 1, 3, 3, 3] | [1, 1, 2, 3, 3]), "{attempts:?}");
    until("the counter of retries", || {
        let page = heddle.metrics();
        let line = page.lines().find(|line| line.starts_with("heddle_http_retries_total{route=\"r\""))?;
        line.rsplit(' ').next()?.parse::<u64>().ok().filter(|retries| *retries >= 5)
    });
}

#[test]
fn retries_stay_within_their_budget() {
    let heddle = heddle();
    let server = Server::start("one");
    let retry = json!({ "attempts": 3, "statuses": [503], "budget_percent": 10, "budget_burst": 3 });
    route(&heddle, server.node(), json!({ "retry": retry }));
    server.says(503);
    (0..50).for_each(|_| assert_eq!(ask(&heddle, "GET", &[], "").status, 503));
    let retries = server.asked().len() - 50;
    assert!((3..=8).contains(&retries), "{retries} retries of 50 requests");
}

#[test]
fn a_body_too_long_to_be_kept_goes_out_once() {
    let heddle = heddle();
    let server = Server::start("one");
    route(
        &heddle,
        server.node(),
        json!({ "retry": { "attempts": 3, "statuses": [503], "methods": ["POST"], "max_body_size": 10 } }),
    );
    server.says_for(503, 1);
    assert_eq!(ask(&heddle, "POST", &[], "0123456789").status, 200);
    assert_eq!(server.asked(), ["POST /x 0123456789"; 2]);
    server.says_for(503, 1);
    assert_eq!(ask(&heddle, "POST", &[], "0123456789a").status, 503);
    assert_eq!(server.asked(), ["POST /x 0123456789a"]);
}

#[test]
fn requests_fail_over_and_come_back() {
    let heddle = heddle();
    let (first, second) = (Server::start("first"), Server::start("second"));
    let failover = json!({ "failover": { "upstream": second.node(), "statuses": ["500-599"] } });
    route(&heddle, first.node(), failover.clone());
    assert_eq!(said(&ask(&heddle, "GET", &[], "")), (200, "first".into()));
    first.says(500);
    assert_eq!(said(&ask(&heddle, "PUT", &[], "kept")), (200, "second".into()), "a bad answer");
    assert_eq!(second.asked(), ["PUT /x kept"]);
    assert_eq!(said(&ask(&heddle, "POST", &[], "once")), (500, "first".into()), "what may not be sent twice is not");
    assert!(second.asked().is_empty());
    first.says(0);
    assert_eq!(said(&ask(&heddle, "GET", &[], "")), (200, "second".into()), "no answer");
    first.says(200);
    assert_eq!(said(&ask(&heddle, "GET", &[], "")), (200, "first".into()), "and back");
    second.says(0);
    first.says(503);
    assert_eq!(said(&ask(&heddle, "GET", &[], "")), (503, "first".into()), "a bad answer is better than none");
}

#[test]
fn a_websocket_that_a_server_may_have_seen_goes_nowhere_else() {
    let heddle = heddle();
    let (first, second) = (Server::start("first"), Server::start("second"));
    let socket = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    // The first one is preferred as long as it stands.
    let node = |server: &Server, priority: i32| {
        let address = server.address;
        json!({ "host": address.ip().to_string(), "port": address.port(), "weight": 1, "priority": priority })
    };
    let both = json!({ "nodes": [node(&first, 1), node(&second, 0)], "retries": 1 });
    let retry = json!({ "retry": { "attempts": 3, "initial_interval": 0.01 } });
    let failover = json!({ "failover": { "upstream": second.node() } });
    for (upstream, plugins) in [(both.clone(), json!({})), (both, retry), (first.node(), failover)] {
        let told = json!({ "uri": "/x", "enable_websocket": true, "upstream": upstream, "plugins": plugins });
        heddle.put("/routes/r", told.clone());
        heddle.until_effective();
        first.says(0);
        assert_eq!(ask(&heddle, "GET", &socket, "").status, 502, "{told}");
        assert_eq!((first.asked().len(), second.asked().len()), (1, 0), "{told}");
        assert_eq!(said(&ask(&heddle, "GET", &[], "")), (200, "second".into()), "other requests go on: {told}");
        let _forgotten = (first.asked(), second.asked());
        first.says(200);
    }
}

#[test]
fn requests_leave_an_upstream_without_a_healthy_endpoint_and_return() {
    let heddle = heddle();
    let (first, second) = (Server::start("first"), Server::start("second"));
    heddle.put("/upstreams/second", second.node());
    let active = json!({ "http_path": "/health", "healthy": { "interval": 1, "successes": 1 },
        "unhealthy": { "interval": 1, "http_failures": 1, "http_statuses": [503] } });
    let upstream = json!({ "nodes": { first.address.to_string(): 1 }, "checks": { "active": active } });
    route(&heddle, upstream, json!({ "failover": { "upstream_id": "second", "on_network_error": false } }));
    assert_eq!(said(&ask(&heddle, "GET", &[], "")), (200, "first".into()));
    first.says(503);
    until("the failover", || (ask(&heddle, "POST", &[], "x").text() == "second").then_some(()));
    first.asked();
    (0..5).for_each(|_| assert_eq!(said(&ask(&heddle, "POST", &[], "x")), (200, "second".into())));
    assert!(first.asked().iter().all(|asked| asked == "GET /health"), "nobody but the probe asks it");
    first.says(200);
    until("the return", || (ask(&heddle, "POST", &[], "x").text() == "first").then_some(()));
}

/// Asks as a client with these cookies and says who answered, and the cookie that it gave.
fn as_client(heddle: &Heddle, cookie: Option<&str>) -> (String, Option<String>) {
    let fields: Vec<(&str, &str)> = cookie.map(|cookie| ("Cookie", cookie)).into_iter().collect();
    let answer = ask(heddle, "GET", &fields, "");
    let given = answer.field("set-cookie").map(|line| line.split(';').next().unwrap().to_owned());
    (answer.text(), given)
}

#[test]
fn clients_stay_at_their_endpoint_over_reloads_until_it_is_gone() {
    let heddle = heddle();
    let servers = ["a", "b", "c"].map(Server::start);
    let nodes = |servers: &[&Server], weight: u32| -> Value {
        let nodes: serde_json::Map<String, Value> =
            servers.iter().map(|server| (server.address.to_string(), json!(weight))).collect();
        json!({ "nodes": nodes })
    };
    let [a, b, c] = &servers;
    let sticky = json!({ "sticky": { "cookie": { "name": "pin", "http_only": true } } });
    route(&heddle, nodes(&[a, b, c], 1), sticky.clone());
    let (name, cookie) = as_client(&heddle, None);
    let cookie = cookie.unwrap();
    assert!(cookie.starts_with("pin="), "{cookie}");
    let stays = |times: usize| (0..times).for_each(|_| assert_eq!(as_client(&heddle, Some(&cookie)), (name.clone(), None)));
    stays(9);
    let others: BTreeSet<String> = (0..9).map(|_| as_client(&heddle, None).0).collect();
    assert_eq!(others.len(), 3, "others are shared out");
    route(&heddle, nodes(&[c, a, b], 5), json!({ "sticky": sticky["sticky"], "request-id": {} }));
    stays(9);
    let left: Vec<&Server> = servers.iter().filter(|server| server.told.name != name).collect();
    route(&heddle, nodes(&left, 1), sticky.clone());
    let (next, given) = as_client(&heddle, Some(&cookie));
    assert!(next != name && given.is_some_and(|given| given != cookie), "who is left alone is pinned anew");
    route(&heddle, nodes(&[a, b, c], 1), sticky);
    stays(3);
}

#[test]
fn a_client_whose_endpoint_does_not_answer_is_pinned_to_another() {
    let heddle = heddle();
    let (a, b) = (Server::start("a"), Server::start("b"));
    let upstream = json!({ "nodes": { a.address.to_string(): 1, b.address.to_string(): 1 } });
    route(&heddle, upstream, json!({ "sticky": {} }));
    let (name, cookie) = as_client(&heddle, None);
    let own = if name == "a" { &a } else { &b };
    own.says(0);
    let (other, given) = as_client(&heddle, cookie.as_deref());
    assert!(other != name && given.is_some(), "{other}");
    own.says(200);
    assert_eq!(as_client(&heddle, given.as_deref()), (other, None));
}

#[test]
fn a_canary_keeps_its_clients_while_its_share_grows() {
    let heddle = heddle();
    let (old, canary) = (Server::start("old"), Server::start("canary"));
    heddle.put("/upstreams/canary", canary.node());
    let split = |share: u32| {
        let entries = json!([{ "upstream_id": "canary", "weight": share }, { "weight": 100 - share }]);
        json!({ "traffic-split": { "rules": [{ "weighted_upstreams": entries, "sticky": { "key": "http_x_user" } }] } })
    };
    let who = |heddle: &Heddle| -> Vec<String> {
        (0..40).map(|user| ask(heddle, "GET", &[("X-User", &user.to_string())], "").text()).collect()
    };
    route(&heddle, old.node(), split(20));
    let before = who(&heddle);
    assert_eq!(who(&heddle), before);
    route(&heddle, old.node(), split(60));
    let after = who(&heddle);
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || after == "canary"), "nobody goes back");
    let share = |names: &[String]| names.iter().filter(|name| *name == "canary").count();
    assert!(share(&before) < share(&after), "{} {}", share(&before), share(&after));
}

/// What the plugin has counted.
fn counted(heddle: &Heddle, event: &str) -> u64 {
    let page = heddle.metrics();
    let line = format!("heddle_plugin_events_total{{plugin=\"proxy-mirror\",origin=\"route/r\",event=\"{event}\"}} ");
    page.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or_default()
}

#[test]
fn a_mirror_gets_copies_and_one_that_hangs_or_is_dead_slows_nobody() {
    let heddle = heddle();
    let (server, mirror) = (Server::start("real"), Server::start("mirror"));
    let to = |address: SocketAddr| json!({ "proxy-mirror": { "host": format!("http://{address}"), "max_in_flight": 2, "timeout": 30 } });
    route(&heddle, server.node(), to(mirror.address));
    mirror.says(500);
    assert_eq!(said(&ask(&heddle, "POST", &[], "content")), (200, "real".into()));
    until("the copy", || (mirror.asked() == ["POST /x content"]).then_some(()));
    until("the count", || (counted(&heddle, "sent") == 1).then_some(()));

    let hanging = Raw::start(|stream| {
        read_head(stream);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    route(&heddle, server.node(), to(hanging.address));
    let start = std::time::Instant::now();
    (0..40).for_each(|_| assert_eq!(said(&ask(&heddle, "POST", &[], "content")), (200, "real".into())));
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
    until("the drops", || (counted(&heddle, "dropped") >= 36).then_some(()));

    route(&heddle, server.node(), to(heddle.place.address()));
    // One after the other: more than two at a time would be dropped.
    for failures in 1..=5 {
        assert_eq!(said(&ask(&heddle, "GET", &[], "")), (200, "real".into()));
        until("the failure", || (counted(&heddle, "failed") == failures).then_some(()));
    }
}

#[test]
fn requests_of_a_batch_are_judged_one_by_one() {
    let heddle = heddle();
    let server = Server::start("real");
    let limit = json!({ "count": 2, "time_window": 60, "rejected_code": 429, "key": "consumer_name" });
    heddle.put("/consumers/jack", json!({ "username": "jack", "plugins": { "key-auth": { "key": "jacks-key" } } }));
    heddle.put("/global_rules/batch", json!({ "plugins": { "batch-requests": { "uri": "/many" } } }));
    heddle.put("/routes/batch", json!({ "uri": "/apisix/batch-requests", "plugins": { "batch-requests": {} } }));
    heddle.put("/routes/old", json!({ "uri": "/old-batch", "plugins": { "public-api": { "uri": "/apisix/batch-requests" } } }));
    route(&heddle, server.node(), json!({ "key-auth": {}, "limit-count": limit }));
    let send = |path: &str, batch: Value, fields: &[(&str, &str)]| {
        let answer = client::send(heddle.http, "POST", path, fields, batch.to_string().as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json().as_array().unwrap().iter().map(|part| part["status"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let parts = json!({ "pipeline": [{ "path": "/x" }, { "path": "/x", "headers": { "apikey": "wrong" } }, { "path": "/x" }, { "path": "/x" }] });
    assert_eq!(send("/apisix/batch-requests", parts.clone(), &[]), [401; 4], "nobody is known");
    assert_eq!(send("/many", parts, &[("apikey", "jacks-key")]), [200, 401, 200, 429]);
    assert_eq!(server.asked(), ["GET /x"; 2]);
    let nested = json!({ "pipeline": [{ "method": "POST", "path": "/apisix/batch-requests", "body": "{\"pipeline\":[{\"path\":\"/x\"}]}" }] });
    assert_eq!(send("/old-batch", nested, &[]), [400]);
    assert_eq!(log_lines(&heddle, 8).len(), 8, "each has its line in the access log");
}
