//! Switching any plugin on, changing it and switching it off again, while requests go on: none is dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use heddle_agent::filters::Registry;
use heddle_integration::client::{self, Answer};
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::pages::{self, story};
use heddle_integration::process::until;
use heddle_xds::catalog::Catalog;
use serde_json::{Value, json};

/// Clients that ask without pause.
const CLIENTS: usize = 8;
/// Answers that are waited for between two changes.
const BETWEEN: u64 = 24;
/// What no plugin says of its own accord: nothing, or that the gateway failed.
const FAILURES: [u16; 4] = [0, 500, 502, 504];
/// What the gateway says when the route was lost for a moment.
const LOST: &str = "404 Route Not Found";
/// Says the same of paths that are none of its own, such as that of the load.
const SAYS_SO: &str = "public-api";

/// What the load has seen.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answers: AtomicU64,
    /// The plugin that is being changed.
    now: Mutex<String>,
    /// How often each one was met.
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Seen {
    fn ask(&self, address: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            let lost = |answer: &Answer| answer.text().contains(LOST) && *self.now.lock().unwrap() != SAYS_SO;
            let failure = match client::get(address, "/load") {
                Ok(answer) if FAILURES.contains(&answer.status) || lost(&answer) => {
                    Some(format!("{} {}", answer.status, answer.text()))
                }
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            };
            self.answers.fetch_add(1, Ordering::Relaxed);
            if let Some(failure) = failure {
                let failure = format!("{}: {failure}", self.now.lock().unwrap());
                *self.failures.lock().unwrap().entry(failure).or_default() += 1;
            }
        }
    }

    fn progress(&self) {
        let target = self.answers.load(Ordering::Relaxed) + BETWEEN;
        until("the load to go on", || (self.answers.load(Ordering::Relaxed) >= target).then_some(()));
    }
}

/// The configuration that the plugin's page shows, on a route or in a global rule.
fn example(name: &str) -> Option<Value> {
    let steps = story::steps(&pages::text(name));
    let bodies =
        steps.iter().filter(|step| step.command.contains("/apisix/admin/") && !step.command.contains("/admin/consumers/"));
    let mut resources = bodies.filter_map(|step| serde_json::from_str::<Value>(step.command.split('\'').nth(1)?).ok());
    resources.find_map(|resource| Some(resource["plugins"].get(name)?.clone()))
}

#[test]
fn enabling_changing_and_removing_any_plugin_drops_no_request() {
    let (nginx, heddle, seen) = (Nginx::saying("here"), Heddle::run(), Seen::default());
    let put = |plugins: Value| {
        let upstream = json!({ "nodes": { nginx.address.to_string(): 1 } });
        heddle.put("/routes/load", json!({ "uri": "/load", "plugins": plugins, "upstream": upstream }));
    };
    put(json!({}));
    heddle.until_status("/load", 200);
    std::thread::scope(|scope| {
        (0..CLIENTS).for_each(|_| drop(scope.spawn(|| seen.ask(heddle.http))));
        for descriptor in Registry::default().descriptors() {
            let name = descriptor.name;
            name.clone_into(&mut seen.now.lock().unwrap());
            let Some(first) = example(name) else { continue };
            let mut second = first.clone();
            second["_meta"] = json!({ "priority": descriptor.priority + 1 });
            for config in [&first, &second, &first] {
                put(json!({ name: config }));
                seen.progress();
            }
            put(json!({}));
            heddle.until_status("/load", 200);
        }
        seen.stop.store(true, Ordering::Relaxed);
    });
    let failures = seen.failures.into_inner().unwrap();
    assert!(failures.is_empty(), "of {:?} requests failed: {failures:#?}", seen.answers);
}
