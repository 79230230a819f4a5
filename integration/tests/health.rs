//! How endpoints stand, and why: what an agent shows, what others tell it, and that checks are shared out among agents that gossip.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use heddle_integration::client;
use heddle_integration::fleet::gossip::{Agent, Agents};
use heddle_integration::heddle::{Heddle, Setup, binary};
use heddle_integration::place::Place;
use heddle_integration::process::until;
use heddle_integration::raw::read_head;
use heddle_node::membership::{Observation, Seen};
use serde_json::{Value, json};

/// Probes at this path are counted; they are answered with a status that can be changed. All else is 200.
const HEALTH: &str = "/healthz";
/// How long probes are counted.
const WINDOW: Duration = Duration::from_secs(5);

/// An endpoint: what its checks are told, and how many there were.
struct Endpoint {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    probes: Arc<AtomicUsize>,
}

impl Endpoint {
    fn start(place: &Place) -> Endpoint {
        let listener = TcpListener::bind((place.ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (status, probes) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let (answers, seen) = (status.clone(), probes.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, seen) = (answers.clone(), seen.clone());
                std::thread::spawn(move || serve(stream, &answers, &seen));
            }
        });
        Endpoint { address, status, probes }
    }

    fn probes_within(&self, window: Duration) -> usize {
        let before = self.probes.load(Ordering::Relaxed);
        std::thread::sleep(window);
        self.probes.load(Ordering::Relaxed) - before
    }
}

/// One request for each connection.
fn serve(mut stream: TcpStream, answers: &AtomicU16, seen: &AtomicUsize) {
    let head = read_head(&mut stream);
    let status = if head.starts_with(&format!("GET {HEALTH} ")) {
        seen.fetch_add(1, Ordering::Relaxed);
        answers.load(Ordering::Relaxed)
    } else {
        200
    };
    let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

fn upstream(endpoints: &[Endpoint], checkers: Value) -> Value {
    let nodes = endpoints.iter().map(|endpoint| (endpoint.address.to_string(), json!(1))).collect::<serde_json::Map<_, _>>();
    let healthy = json!({ "interval": 1, "successes": 1 });
    let unhealthy = json!({ "interval": 1, "http_failures": 1, "tcp_failures": 1, "timeouts": 1 });
    let active = json!({ "http_path": HEALTH, "checkers": checkers, "healthy": healthy, "unhealthy": unhealthy });
    json!({ "nodes": nodes, "checks": { "active": active } })
}

/// What an agent says of one endpoint.
fn endpoint(agent: SocketAddr, upstream: &str, address: SocketAddr) -> Option<Value> {
    let answer = client::get(agent, &format!("/endpoints/{upstream}")).ok()?;
    let all = (answer.status == 200).then(|| answer.json())?;
    let list = all["upstreams"][0]["endpoints"].as_array()?.clone();
    list.into_iter().find(|one| one["address"] == address.to_string())
}

fn until_state(agent: SocketAddr, upstream: &str, address: SocketAddr, state: &str) -> Value {
    until(&format!("{address} to be {state}"), || endpoint(agent, upstream, address).filter(|one| one["state"] == state))
}

fn heddle(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(binary()).args(arguments).output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn every_state_is_shown_with_its_reason() {
    let place = Place::new();
    let endpoints = [(); 3].map(|()| Endpoint::start(&place));
    let gateway = Heddle::run_with(Setup::default());
    gateway.put("/upstreams/web", upstream(&endpoints, json!(3)));
    gateway.put("/routes/web", json!({ "uri": "/*", "upstream_id": "web" }));
    gateway.until_effective();
    endpoints[0].status.store(503, Ordering::Relaxed);
    let down = until_state(gateway.agent, "web", endpoints[0].address, "down");
    let reason = &down["reasons"][0];
    assert_eq!((&reason["source"], &reason["found"], &reason["by"]), (&json!("probe"), &json!("status 503"), &json!(["gw-1"])));
    assert_eq!(down["checked_by"], json!(["gw-1"]), "an agent alone checks everything");
    let agent = gateway.agent.to_string();
    let (done, table) = heddle(&["endpoints", "upstreams/web", "--agent", &agent]);
    assert!(done && table.starts_with("UPSTREAM"), "{table}");
    assert!(table.contains("probe (status 503) by gw-1") && table.lines().count() == 4, "{table}");
    let (done, _) = heddle(&["endpoints", "nobody", "--agent", &agent]);
    assert!(!done, "an upstream that is not there is a failure");
    let address = endpoints[0].address;
    let series = format!("heddle_endpoint_state{{upstream=\"web\",endpoint=\"{address}\",state=\"down\",reason=\"probe\"}} 1");
    assert!(gateway.metrics().contains(&series), "{}", gateway.metrics());
    assert!(gateway.metrics().contains("heddle_upstream_panic{upstream=\"web\"} 0"));
    // no evidence empties an upstream
    endpoints.iter().for_each(|endpoint| endpoint.status.store(503, Ordering::Relaxed));
    endpoints.iter().for_each(|endpoint| drop(until_state(gateway.agent, "web", endpoint.address, "panic")));
    assert!(gateway.metrics().contains("heddle_upstream_panic{upstream=\"web\"} 1"));
    assert!((0..10).all(|_| gateway.get("/anything").status == 200));
    assert!(heddle(&["endpoints", "--agent", &agent]).1.contains("health is ignored (panic)"));
    endpoints.iter().for_each(|endpoint| endpoint.status.store(200, Ordering::Relaxed));
    endpoints.iter().for_each(|endpoint| drop(until_state(gateway.agent, "web", endpoint.address, "up")));
}

/// Ids of those who check an endpoint, once all agents agree on so many.
fn checkers(fleet: &Agents, address: SocketAddr, count: usize) -> Vec<String> {
    until(&format!("{count} checkers of {address}"), || {
        let named = |admin| Some(endpoint(admin, "web", address)?["checked_by"].clone());
        let first = named(fleet.agents[0].admin)?;
        let agree = fleet.agents.iter().all(|agent| named(agent.admin).as_ref() == Some(&first));
        let names: Vec<String> = serde_json::from_value(first).ok()?;
        (agree && names.len() == count).then_some(names)
    })
}

#[test]
fn agents_share_checks_and_believe_each_other() {
    let place = Place::new();
    let endpoints = [(); 4].map(|()| Endpoint::start(&place));
    let mut fleet = Agents::start(6);
    fleet.control.put("/upstreams/web", upstream(&endpoints, json!("all")));
    fleet.control.put("/routes/web", json!({ "uri": "/*", "upstream_id": "web" }));
    fleet.until_peers(6);
    endpoints.iter().for_each(|one| until("first probes", || (one.probes.load(Ordering::Relaxed) > 6).then_some(())));
    let all = endpoints[0].probes_within(WINDOW);
    fleet.control.put("/upstreams/web", upstream(&endpoints, json!(2)));
    let checked_by = checkers(&fleet, endpoints[0].address, 2);
    let shared = endpoints[0].probes_within(WINDOW);
    assert!(shared > 0 && shared * 2 < all, "{shared} probes by two agents, {all} by six");
    // those who do not check it hear of its end
    endpoints[0].status.store(503, Ordering::Relaxed);
    let began = Instant::now();
    for Agent { admin, name, .. } in &fleet.agents {
        let down = until_state(*admin, "web", endpoints[0].address, "down");
        let (source, by) = (&down["reasons"][0]["source"], &down["reasons"][0]["by"]);
        let own = checked_by.contains(name);
        assert_eq!(source, if own { "probe" } else { "fleet" }, "{down}");
        assert_eq!(*by, if own { json!([name]) } else { json!(checked_by) }, "{down}");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    endpoints[0].status.store(200, Ordering::Relaxed);
    fleet.agents.iter().for_each(|agent| drop(until_state(agent.admin, "web", endpoints[0].address, "up")));
    // when one of them dies another takes over
    let gone = fleet.agents.iter().position(|agent| agent.name == checked_by[0]).unwrap();
    fleet.agents.remove(gone).process.kill();
    fleet.until_peers(5);
    let heirs = checkers(&fleet, endpoints[0].address, 2);
    assert!(heirs.contains(&checked_by[1]) && !heirs.contains(&checked_by[0]), "{heirs:?} after {checked_by:?}");
    until("probes by those who are left", || (endpoints[0].probes_within(Duration::from_secs(2)) > 0).then_some(()));
    endpoints[0].status.store(503, Ordering::Relaxed);
    fleet.agents.iter().for_each(|agent| drop(until_state(agent.admin, "web", endpoints[0].address, "down")));
}

/// How many endpoints an agent would send requests to, while it goes by their health.
fn standing(agent: SocketAddr) -> Option<usize> {
    let answer = client::get(agent, "/endpoints/web").ok().filter(|answer| answer.status == 200)?.json();
    let list = answer["upstreams"][0]["endpoints"].as_array()?.clone();
    Some(list.iter().filter(|one| one["state"] == "up").count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_lie_or_are_cut_off_empty_no_upstream() {
    let place = Place::new();
    let endpoints = [(); 6].map(|()| Endpoint::start(&place));
    let mut fleet = Agents::start(4);
    fleet.control.put("/upstreams/web", upstream(&endpoints, json!(3)));
    fleet.control.put("/routes/web", json!({ "uri": "/*", "upstream_id": "web" }));
    fleet.until_peers(4);
    let mut liars = Vec::new();
    for number in 0..3 {
        liars.push(fleet.liar(&format!("edge-liar-{number}")).await);
    }
    fleet.until_peers(7);
    let down =
        |one: &Endpoint| Observation { upstream: "upstreams/web".into(), endpoint: one.address, seen: Seen::Down, since_ms: 1 };
    let told: Vec<Observation> = endpoints.iter().map(down).collect();
    for liar in &liars {
        liar.membership().say(|facts| {
            facts.observations = told.clone().into();
            facts.ports = endpoints.iter().map(|one| one.address.port()).collect();
        });
    }
    let end = Instant::now() + WINDOW;
    while Instant::now() < end {
        for agent in &fleet.agents {
            let count = until("what an agent knows", || standing(agent.admin));
            assert!(count * 2 >= endpoints.len(), "{}: {count} stand", agent.name);
            assert_eq!(client::get(agent.http, "/anything").map(|answer| answer.status).ok(), Some(200));
        }
    }
    for liar in liars {
        liar.leave().await;
    }
    let all_stand = |agent: &Agent| {
        until("all to stand", || (standing(agent.admin) == Some(endpoints.len())).then_some(()));
    };
    fleet.agents.iter().for_each(all_stand);
    // One that hears nobody any more goes by what it sees itself, and says so.
    let alone = fleet.agents.remove(0);
    fleet.agents.iter().for_each(|agent| agent.process.signal("STOP"));
    until("the one that is cut off to notice", || {
        client::get(alone.admin, "/metrics").ok().filter(|page| page.text().contains("heddle_health_isolated 1\n"))
    });
    all_stand(&alone);
    assert_eq!(client::get(alone.http, "/anything").unwrap().status, 200);
    fleet.agents.iter().for_each(|agent| agent.process.signal("CONT"));
    fleet.agents.push(alone);
    fleet.until_peers(4);
    fleet.agents.iter().for_each(all_stand);
}
