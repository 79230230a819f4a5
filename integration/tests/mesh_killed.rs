//! A sidecar that is killed while others post and ask through it: who may notice, and how often anything reaches an application.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use heddle_integration::app::App;
use heddle_integration::client::{self, Conversation};
use heddle_integration::load::Load;
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::process::until;

/// Connections that post without pause.
const POSTING: usize = 4;

/// Posts that are told apart, each sent once, until they are told to stop.
struct Posts {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Posts {
    fn start(address: SocketAddr) -> Posts {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..POSTING).map(|thread| {
            let (stop, sent) = (stop.clone(), sent.clone());
            std::thread::spawn(move || post(address, thread, &stop, &sent))
        });
        let threads = threads.collect();
        Posts { stop, sent, threads }
    }

    fn further(&self, more: usize) {
        let target = self.sent.load(Ordering::Relaxed) + more;
        until("more posts", || (self.sent.load(Ordering::Relaxed) >= target).then_some(()));
    }

    /// How many were sent, and those that were not answered with 200.
    fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (self.sent.load(Ordering::Relaxed), failed)
    }
}

fn post(address: SocketAddr, thread: usize, stop: &AtomicBool, sent: &AtomicUsize) -> Vec<String> {
    let mut failed = Vec::new();
    let mut kept = Conversation::open(address);
    for nth in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let target = format!("/pay/{thread}/{nth}");
        sent.fetch_add(1, Ordering::Relaxed);
        let answer = kept.ask(&format!("POST {target} HTTP/1.1\r\nHost: api\r\nContent-Length: 4\r\n\r\nonce"));
        if answer.status != 200 {
            failed.push(format!("POST {target}"));
        }
        if answer.field("connection").is_some_and(|said| said.eq_ignore_ascii_case("close")) {
            kept = Conversation::open(address);
        }
    }
    failed
}

/// Posts that the applications hold, until both do: what each of them has, by target, and how each will have ended.
fn held(web: &Node, apps: &[App; 2]) -> HashMap<String, JoinHandle<u16>> {
    let mut posts = HashMap::new();
    let at = |app: &App| app.seen().keys().filter(|asked| asked.contains("/hold/")).count();
    until("posts in flight at both", || {
        let (target, address) = (format!("/hold/{}", posts.len()), web.outbound[0]);
        let asked = format!("POST {target}");
        let sent = asked.clone();
        posts.insert(
            asked.clone(),
            std::thread::spawn(move || client::send(address, "POST", &target, &[], b"once").unwrap().status),
        );
        until("it to arrive", || apps.iter().any(|app| app.count(&sent) > 0).then_some(()));
        (posts.len() >= 4 && apps.iter().all(|app| at(app) > 0)).then_some(())
    });
    posts
}

#[test]
fn a_sidecar_that_is_killed_costs_what_was_in_flight_on_its_own_connections_and_nothing_is_paid_twice() {
    let mesh = Mesh::start("");
    let apps = [App::saying("one"), App::saying("two")];
    let begin = |(id, app): (&str, &App)| mesh.begin_sidecar(id, &Service::http("api", app.address));
    let mut instances: Vec<Node> = ["api-1", "api-2"].into_iter().zip(&apps).map(begin).collect();
    instances.iter().for_each(Node::wait_ready);
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    until("both of them", || {
        (client::get(web.outbound[0], "/").is_ok() && apps.iter().all(|app| app.count("GET /") > 0)).then_some(())
    });

    let held = held(&web, &apps);
    let (asking, posting) = (Load::start(web.outbound[0], "/", 4), Posts::start(web.outbound[0]));
    posting.further(200);
    instances[0].process.kill();
    posting.further(400);
    let more = asking.requests() + 200;
    until("more requests", || (asking.requests() >= more).then_some(()));
    let ((sent, failed), asked) = (posting.stop(), asking.stop());

    // Those that ask may be sent again: nobody has noticed.
    assert!(asked.failures.is_empty(), "{:#?}", asked.failures);
    // Each connection had one post in flight when the sidecar died, so that is how many can have been on the connections to it.
    assert!(failed.len() <= POSTING, "{} of {sent} posts: {failed:?}", failed.len());
    let times = |asked: &String| apps.iter().map(|app| app.count(asked)).sum::<usize>();
    let paid: Vec<String> =
        apps.iter().flat_map(|app| app.seen().into_keys()).filter(|asked| asked.starts_with("POST /pay/")).collect();
    assert!(
        paid.iter().all(|asked| times(asked) == 1),
        "what was paid twice: {:?}",
        paid.iter().filter(|asked| times(asked) > 1).collect::<Vec<_>>()
    );
    assert!(
        paid.len() <= sent && sent - paid.len() <= failed.len(),
        "whatever was answered had arrived: {} of {sent}, {failed:?}",
        paid.len()
    );

    // Those that were certainly in flight there are told so, and went nowhere else; those at the other one are finished.
    let at_the_killed_one: Vec<String> = held.keys().filter(|asked| apps[0].count(asked) > 0).cloned().collect();
    apps[1].let_go();
    for (asked, ended) in held {
        let lost = at_the_killed_one.contains(&asked);
        assert_eq!(ended.join().unwrap(), if lost { 502 } else { 200 }, "{asked}");
        assert_eq!(times(&asked), 1, "{asked}");
    }
}
