//! The story of `proxy-cache`: what an upstream that counts is asked, and what clients get, through changes, restarts and failures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use heddle_integration::client::{self, Answer};
use heddle_integration::heddle::Heddle;
use heddle_integration::process::until;
use heddle_integration::raw::{Raw, read_head};
use serde_json::{Value, json};

/// A gateway before an upstream that answers with its count of requests.
struct Story {
    heddle: Heddle,
    upstream: Raw,
    counted: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
}

impl Story {
    /// `fields` are lines of the upstream's answers; it takes `pause` for each.
    fn with(config: &Value, fields: &'static str, pause: Duration) -> Story {
        let (counted, fails) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, failing) = (counted.clone(), fails.clone());
        let upstream = Raw::start(move |stream| {
            while !read_head(stream).is_empty() {
                let body = format!("answer {}", counter.fetch_add(1, Ordering::SeqCst) + 1);
                std::thread::park_timeout(pause);
                let status = if failing.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        let story = Story { heddle: Heddle::run(), upstream, counted, fails };
        story.route(json!({ "proxy-cache": config }));
        story
    }

    /// Puts the route and waits until it is effective.
    fn route(&self, plugins: Value) {
        let upstream = json!({ "nodes": { self.upstream.address.to_string(): 1 } });
        self.heddle.put("/routes/c", json!({ "uri": "/c/*", "plugins": plugins, "upstream": upstream }));
        self.heddle.until_effective();
        self.counted.store(0, Ordering::SeqCst);
    }

    fn ask(&self, method: &str, target: &str) -> Answer {
        client::send(self.heddle.http, method, target, &[], b"").unwrap()
    }

    /// What a GET is told: where it comes from, and the text.
    fn get(&self, target: &str) -> (String, String) {
        let answer = self.ask("GET", target);
        (answer.field("apisix-cache-status").unwrap_or("-").to_owned(), answer.text())
    }

    fn asked(&self) -> usize {
        self.counted.load(Ordering::SeqCst)
    }
}

fn told(status: &str, text: &str) -> (String, String) {
    (status.to_owned(), text.to_owned())
}

const KEEPS: &str = "Cache-Control: max-age=600\r\nETag: \"1\"\r\n";

#[test]
fn many_ask_at_once_and_the_upstream_hears_of_one() {
    let story = Story::with(&json!({ "cache_strategy": "memory", "cache_control": true }), KEEPS, Duration::from_millis(200));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..40).map(|_| scope.spawn(|| story.get("/c/one"))).collect();
        for client in clients {
            assert_eq!(client.join().unwrap().1, "answer 1");
        }
    });
    assert_eq!(story.asked(), 1);
    assert_eq!(story.get("/c/one"), told("HIT", "answer 1"));
    assert_eq!(story.ask("PURGE", "/c/one").status, 200);
    assert_eq!(story.ask("PURGE", "/c/one").status, 404);
    assert_eq!(story.get("/c/one"), told("MISS", "answer 2"));
}

#[test]
fn answers_outlive_a_change_and_on_disk_a_restart() {
    let config = json!({ "cache_strategy": "disk", "cache_key": ["$uri"], "no_cache": ["$arg_passing"] });
    let mut story = Story::with(&config, KEEPS, Duration::ZERO);
    assert_eq!(story.get("/c/a"), told("MISS", "answer 1"));
    story.route(json!({ "proxy-cache": config, "request-id": {} }));
    assert_eq!(story.get("/c/a"), told("HIT", "answer 1"));
    let folder = story.heddle.place.path("data").join("filters/proxy-cache/disk_cache_one");
    until("the file", || {
        let folders = std::fs::read_dir(&folder).ok()?.flatten().filter(|entry| entry.path().is_dir());
        let mut files = folders.filter_map(|entry| std::fs::read_dir(entry.path()).ok()).flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|extension| extension == "hca")).then_some(())
    });
    story.heddle.restart();
    // What is asked until the folder has been read is not stored.
    until("what is on disk", || (story.get("/c/a?passing=1") == told("HIT", "answer 1")).then_some(()));
}

#[test]
fn a_stale_answer_is_served_while_it_is_fetched_anew() {
    let fields = "Cache-Control: max-age=1, stale-while-revalidate=600\r\n";
    let story = Story::with(&json!({ "cache_strategy": "memory", "cache_control": true }), fields, Duration::from_millis(100));
    assert_eq!(story.get("/c/a"), told("MISS", "answer 1"));
    until("the answer to be stale", || (story.get("/c/a") == told("STALE", "answer 1")).then_some(()));
    until("the new answer", || (story.get("/c/a") == told("HIT", "answer 2")).then_some(()));
}

#[test]
fn a_stale_answer_helps_out_while_the_upstream_fails() {
    let fields = "Cache-Control: max-age=1, stale-if-error=600\r\n";
    let story = Story::with(&json!({ "cache_strategy": "memory", "cache_control": true }), fields, Duration::ZERO);
    assert_eq!(story.get("/c/a"), told("MISS", "answer 1"));
    story.fails.store(true, Ordering::SeqCst);
    until("the answer to be stale", || (story.get("/c/a") == told("STALE", "answer 1")).then_some(()));
    assert_eq!(story.ask("GET", "/c/unknown").status, 503);
    story.fails.store(false, Ordering::SeqCst);
    assert_eq!(story.get("/c/a").0, "EXPIRED");
}
