//! Switching any plugin on, changing it and switching it off again, while requests go on: none is dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use heddle_agent::filters::Registry;
use heddle_integration::client;
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::pages::{self, story};
use heddle_integration::process::until;
use heddle_xds::catalog::Catalog;
use serde_json::{Value, json};

/// Clients that ask without pause.
const CLIENTS: usize = 8;
/// Answers of each client that are waited for between two changes.
const EACH: u64 = 3;
/// What the gateway says when there is no route, and `public-api` of a path that is none of its own.
const LOST: &str = "404 Route Not Found";
/// What the examples of these plugins answer themselves, besides the 200 of the upstream before and after. All others pass each request on.
const OWN: [(&str, &str); 28] = [
    ("acl", "401"),
    ("authz-casbin", "403"),
    ("basic-auth", "401"),
    ("body-transformer", "400"),
    ("consumer-restriction", "401"),
    ("digest-auth", "401"),
    ("ext-authz", "403"),
    ("forward-auth", "403"),
    ("grpc-web", "405"),
    ("hmac-auth", "401"),
    ("ip-restriction", "403"),
    ("jwe-decrypt", "403"),
    ("jwt-auth", "401"),
    ("key-auth", "401"),
    ("ldap-auth", "401"),
    ("limit-conn", "429"),
    ("limit-count", "429"),
    ("limit-req", "429"),
    ("mocking", "404"),
    ("multi-auth", "401"),
    ("opa", "403"),
    ("openid-connect", "503"),
    ("public-api", LOST),
    ("redirect", "301"),
    ("referer-restriction", "403"),
    ("request-validation", "400"),
    ("ua-restriction", "403"),
    ("wolf-rbac", "401"),
];

/// What the load has seen.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answers: [AtomicU64; CLIENTS],
    /// The plugin that is being changed.
    now: Mutex<String>,
    /// What was answered while each plugin was changed, and how often.
    told: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
}

impl Seen {
    /// Asks without pause.
    fn ask(&self, address: SocketAddr, client: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            let now = self.now.lock().unwrap().clone();
            let told = match client::get(address, "/load") {
                Ok(answer) if answer.text().contains(LOST) => LOST.to_owned(),
                Ok(answer) => answer.status.to_string(),
                Err(error) => error.to_string(),
            };
            // One that began just before the next plugin was switched on may have met that one.
            let after = self.now.lock().unwrap().clone();
            let met = if own(&after) == Some(&told) { after } else { now };
            *self.told.lock().unwrap().entry(met).or_default().entry(told).or_default() += 1;
            self.answers[client].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until each client has been answered some more requests that it began after this call.
    fn progress(&self) {
        let read = || self.answers.each_ref().map(|answers| answers.load(Ordering::Relaxed));
        let before = read();
        let all = || read().iter().zip(&before).all(|(now, before)| *now > before + EACH);
        until("the load to go on", || all().then_some(()));
    }
}

/// What the example of a plugin answers itself.
fn own(name: &str) -> Option<&'static str> {
    OWN.iter().find(|(known, _)| *known == name).map(|(_, own)| *own)
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
    let (nginx, heddle, seen) = (Nginx::saying("here"), Heddle::run(), &Seen::default());
    let put = |plugins: Value| {
        let upstream = json!({ "nodes": { nginx.address.to_string(): 1 } });
        heddle.put("/routes/load", json!({ "uri": "/load", "plugins": plugins, "upstream": upstream }));
    };
    put(json!({}));
    heddle.until_status("/load", 200);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || seen.ask(heddle.http, client));
        }
        for descriptor in Registry::default().descriptors() {
            let name = descriptor.name;
            let Some(first) = example(name) else { continue };
            name.clone_into(&mut seen.now.lock().unwrap());
            let mut second = first.clone();
            second["_meta"] = json!({ "priority": descriptor.priority + 1 });
            for config in [&first, &second, &first] {
                put(json!({ name: config }));
                heddle.until_effective();
                seen.progress();
            }
            put(json!({}));
            heddle.until_effective();
            seen.progress();
        }
        seen.stop.store(true, Ordering::Relaxed);
    });
    let told = seen.told.lock().unwrap();
    let mut wrong = Vec::new();
    for (name, answers) in told.iter() {
        let others = answers.iter().filter(|(answer, _)| *answer != "200" && own(name) != Some(answer.as_str()));
        wrong.extend(others.map(|(answer, count)| format!("{name} {count} times: {answer}")));
        wrong.extend(
            own(name).filter(|own| !answers.contains_key(*own)).map(|own| format!("{name} never: {own}, so it was not on")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(OWN.iter().all(|(name, _)| told.contains_key(*name)), "{told:?}");
}
