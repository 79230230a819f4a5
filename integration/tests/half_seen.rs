//! A configuration is never half seen: whoever asks while routes and upstreams change together gets the answer of one revision, whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heddle_integration::client::Conversation;
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::until;
use heddle_integration::replicas::Replicas;
use heddle_proto::heddle::admin::v1::{Change, Key};
use serde_json::{Value, json};

/// Servers behind the gateway; each revision sends to the next one.
const SERVERS: usize = 4;
/// Revisions that change a route and its upstream together.
const REVISIONS: u64 = 300;
/// Connections that ask without pause, for each of the two routes.
const CONNECTIONS: usize = 2;
/// Between two revisions; the answers are to see most of them.
const BETWEEN: Duration = Duration::from_millis(20);

/// Changes that each are asked for on all connections, once one of them was answered by it.
const CHANGES: u64 = 100;

/// One nginx with several servers, each of which says its number.
fn servers() -> (Nginx, Vec<SocketAddr>) {
    let place = Place::new();
    let addresses: Vec<SocketAddr> = (0..SERVERS).map(|_| place.address()).collect();
    let others: Vec<String> = addresses
        .iter()
        .enumerate()
        .map(|(number, address)| format!("}} server {{ listen {address}; location / {{ return 200 '{number}'; }}"))
        .collect();
    (Nginx::start(&format!("location / {{ return 200 'none'; }} {}", others.join("\n"))), addresses)
}

fn set(collection: &str, id: &str, value: &Value) -> Change {
    Change { key: Some(key(collection, id)), json: Some(value.to_string().into_bytes()) }
}

fn key(collection: &str, id: &str) -> Key {
    Key { collection: collection.to_owned(), id: id.to_owned() }
}

/// What the revision `n` is: `/same` has an upstream whose nodes change, `/moved` another upstream each time; the routes say the revision.
fn revision(n: u64, servers: &[SocketAddr]) -> Vec<Change> {
    let node = servers[usize::try_from(n).unwrap() % servers.len()].to_string();
    let upstream = json!({ "nodes": { node: 1 } });
    let route = |uri: &str, upstream: &str| {
        let plugins = json!({ "response-rewrite": { "headers": { "set": { "x-revision": n.to_string() } } } });
        json!({ "uri": uri, "upstream_id": upstream, "plugins": plugins })
    };
    let moved = format!("moved-{n}");
    let mut changes = vec![
        set("upstreams", "same", &upstream),
        set("upstreams", &moved, &upstream),
        set("routes", "same", &route("/same", "same")),
        set("routes", "moved", &route("/moved", &moved)),
    ];
    if n > 0 {
        changes.push(Change { key: Some(key("upstreams", &format!("moved-{}", n - 1))), json: None });
    }
    changes
}

/// Asks without pause; each answer must be of one revision, and of no older one than the answer before it on the same connection.
struct Asker {
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
    thread: JoinHandle<(u64, Vec<String>)>,
}

impl Asker {
    fn start(gateway: SocketAddr, target: &'static str) -> Asker {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, newest) = (stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            let (mut count, mut faults, mut last) = (0, Vec::new(), 0);
            let mut conversation = Conversation::open(gateway);
            let request = format!("GET {target} HTTP/1.1\r\nHost: test.example\r\n\r\n");
            while !stopped.load(Ordering::Relaxed) && faults.len() < 5 {
                let answer = conversation.ask(&request);
                count += 1;
                let revision = answer.field("x-revision").and_then(|text| text.parse::<u64>().ok());
                match revision {
                    Some(n) if answer.status == 200 && answer.text() == (n % SERVERS as u64).to_string() && n >= last => last = n,
                    _ => faults.push(format!(
                        "{target}: {} from server {:?} in revision {revision:?} after {last}",
                        answer.status,
                        answer.text()
                    )),
                }
                newest.fetch_max(last, Ordering::Relaxed);
            }
            (count, faults)
        });
        Asker { stop, seen, thread }
    }
}

#[test]
fn each_answer_is_of_one_revision_while_routes_and_upstreams_change_together() {
    let (_nginx, servers) = servers();
    let replicas = Replicas::start(2, 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // A control plane may not have heard yet of the upstream that goes; then it refuses, and is asked again.
    let apply = |at: usize, n: u64| {
        until("the transaction", || match runtime.block_on(replicas.planes[at].apply(revision(n, &servers))) {
            Ok(revision) => Some(revision),
            Err(why) => {
                println!("revision {n} is refused by control plane {at}: {why}");
                None
            }
        });
    };
    apply(0, 0);
    for target in ["/same", "/moved"] {
        until("the first revision", || {
            heddle_integration::client::get(replicas.http, target).ok().filter(|answer| answer.field("x-revision") == Some("0"))
        });
    }
    let askers: Vec<Asker> = ["/same", "/moved"]
        .into_iter()
        .flat_map(|target| (0..CONNECTIONS).map(move |_| target))
        .map(|target| Asker::start(replicas.http, target))
        .collect();
    let begun = Instant::now();
    for n in 1..=REVISIONS {
        apply(usize::try_from(n).unwrap() % 2, n);
        std::thread::sleep(BETWEEN);
    }
    println!("{REVISIONS} revisions in {:?}", begun.elapsed());
    until("the last revision", || {
        askers.iter().all(|asker| asker.seen.load(Ordering::Relaxed) == REVISIONS || asker.thread.is_finished()).then_some(())
    });
    askers.iter().for_each(|asker| asker.stop.store(true, Ordering::Relaxed));
    let (mut answers, mut faults) = (0, Vec::new());
    for asker in askers {
        let (count, found) = asker.thread.join().unwrap();
        answers += count;
        faults.extend(found);
    }
    println!("{answers} answers");
    assert!(faults.is_empty() && answers > REVISIONS, "{answers} answers, {faults:#?}");
}

#[test]
fn who_was_answered_by_a_change_is_not_answered_without_it_by_another_worker() {
    let heddle = Heddle::run();
    let change = |n: u64| {
        let plugins = json!({ "redirect": { "uri": format!("/{n}"), "ret_code": 302 } });
        heddle.put("/routes/turn", json!({ "uri": "/turn", "plugins": plugins }));
    };
    change(0);
    heddle.until_status("/turn", 302);
    // Each stays with the worker that has accepted it.
    let mut connections: Vec<Conversation> = (0..16).map(|_| Conversation::open(heddle.http)).collect();
    let ask = |connection: &mut Conversation| {
        let answer = connection.ask("GET /turn HTTP/1.1\r\nHost: test.example\r\n\r\n");
        answer.field("location").unwrap_or_default().to_owned()
    };
    for n in 1..=CHANGES {
        change(n);
        let new = format!("/{n}");
        let mut turn = 0;
        until("the change", || {
            turn += 1;
            (ask(&mut connections[turn % 16]) == new).then_some(())
        });
        for (nth, connection) in connections.iter_mut().enumerate() {
            assert_eq!(ask(connection), new, "connection {nth} after connection {} was answered by change {n}", turn % 16);
        }
    }
}
