//! Control planes that may die: three of them beside an etcd of three members, under traffic and under writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use heddle_integration::load::{Load, Tally};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use heddle_integration::replicas::{Replicas, Writer};
use heddle_xds::client::{Batch, ClientConfig, ClientStatus, run};
use heddle_xds::link::Connector;
use heddle_xds::protocol::NodeInfo;
use heddle_xds::snapshot::NodeScope;
use serde_json::json;
use tokio::sync::{mpsc, watch};

/// Agents that come back at once.
const AGENTS: usize = 1_000;

fn serving() -> (Nginx, Replicas, Load) {
    let nginx = Nginx::saying("up");
    let replicas = Replicas::start(3, 3);
    replicas.route("kept", nginx.address);
    let load = Load::start(replicas.http, "/kept", 2);
    (nginx, replicas, load)
}

fn unharmed(tally: Tally) {
    assert!(tally.requests > 0 && tally.failures.is_empty(), "{:#?}", tally.failures);
}

#[test]
fn any_control_plane_may_be_killed_under_traffic_and_writes() {
    let (nginx, mut replicas, load) = serving();
    let writer = Writer::start(&replicas);
    for at in 0..replicas.planes.len() {
        writer.more(10);
        replicas.planes[at].process.kill();
        let killed = Instant::now();
        replicas.wait_connected();
        println!("an agent has a control plane {:?} after one was killed", killed.elapsed());
        writer.more(10);
        // What others write reaches the gateway.
        let id = format!("while{at}");
        let other = (at + 1) % replicas.planes.len();
        let body = json!({ "uri": format!("/{id}"), "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
        assert_eq!(replicas.planes[other].put(&format!("/routes/{id}"), &body).unwrap().status, 201);
        until("the route", || {
            heddle_integration::client::get(replicas.http, &format!("/{id}")).ok().filter(|answer| answer.status == 200)
        });
        replicas.start_again(at);
    }
    writer.more(10);
    assert!(writer.check(&replicas) >= 70);
    unharmed(load.stop());
}

#[test]
fn any_member_of_etcd_may_be_killed_the_leader_included() {
    let (_nginx, mut replicas, load) = serving();
    let writer = Writer::start(&replicas);
    for at in 0..replicas.etcd.count() {
        writer.more(10);
        replicas.etcd.kill(at);
        let killed = Instant::now();
        writer.more(5);
        println!("writes go on {:?} after a member was killed", killed.elapsed());
        replicas.etcd.start(at);
        replicas.etcd.wait(at);
    }
    writer.more(10);
    writer.check(&replicas);
    unharmed(load.stop());
}

#[test]
fn without_a_majority_writes_are_refused_clearly_and_traffic_goes_on() {
    let (nginx, mut replicas, load) = serving();
    let writer = Writer::start(&replicas);
    writer.more(20);
    replicas.etcd.kill(0);
    replicas.etcd.kill(1);
    let body = json!({ "uri": "/no", "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
    let refused = until("a refusal", || replicas.planes[1].put("/routes/no", &body).ok().filter(|answer| answer.status >= 400));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("majority"), "it says what to do: {}", refused.text());
    let known = replicas.planes[1].ask("GET", "/routes/kept", b"").unwrap();
    assert_eq!(known.status, 200, "what is believed can be read");
    let requests = load.requests();
    until("traffic to go on", || (load.requests() > requests + 100).then_some(()));
    replicas.etcd.start(0);
    replicas.etcd.start(1);
    writer.more(20);
    writer.check(&replicas);
    for plane in &replicas.planes {
        let status = || plane.ask("GET", "/status", b"").ok().filter(|answer| answer.json()["store"]["writable"] == json!(true));
        until("the store to be writable", status);
    }
    unharmed(load.stop());
}

#[test]
fn a_control_plane_with_another_key_for_secrets_does_not_start() {
    let mut replicas = Replicas::start(1, 1);
    replicas.planes[0].process.kill();
    replicas.replace_key(0);
    let told = replicas.fails_to_start(0);
    assert!(told.contains("secrets.key") && told.contains("is not the one of the other control planes"), "{told}");
}

/// An agent without a data plane; what it holds counts.
fn follow(number: usize, connector: Connector) -> watch::Receiver<ClientStatus> {
    let scope = NodeScope { id: format!("agent-{number}").into(), role: "gateway".into(), ..NodeScope::default() };
    let node = NodeInfo { scope, version: "1".into(), instance: None };
    let (updates, mut batches) = mpsc::channel::<Batch>(1);
    let (status, watched) = watch::channel(ClientStatus::default());
    tokio::spawn(run(ClientConfig::new(node, connector), updates, status, fastrand::Rng::new()));
    tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            batch.accept();
        }
    });
    watched
}

/// Waits until all agents are connected, or none is.
async fn all(agents: &[watch::Receiver<ClientStatus>], connected: bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let there = agents.iter().filter(|agent| {
            let status = agent.borrow();
            status.connected && status.synced && status.failures == 0
        });
        let there = there.count();
        if there == if connected { agents.len() } else { 0 } {
            return;
        }
        assert!(Instant::now() < deadline, "{there} of {} agents are connected", agents.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_thousand_agents_come_back_at_once_and_are_spread() {
    let (_nginx, mut replicas, load) = serving();
    for n in 0..50 {
        let body = json!({ "uri": format!("/r{n}"), "upstream": { "nodes": { "127.0.0.1:1": 1 } } });
        assert_eq!(replicas.planes[n % 3].put(&format!("/routes/r{n}"), &body).unwrap().status, 201);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let to = |plane: &heddle_integration::replicas::Plane| Connector::tcp(&plane.xds.to_string()).unwrap();
        let ways = || replicas.planes.iter().map(to).collect::<Vec<_>>();
        let agents: Vec<_> = (0..AGENTS).map(|n| follow(n, Connector::any(ways(), fastrand::Rng::with_seed(n as u64)))).collect();
        let start = Instant::now();
        all(&agents, true).await;
        println!("{AGENTS} agents have everything {:?} after they started", start.elapsed());
        for plane in &mut replicas.planes {
            plane.process.kill();
        }
        all(&agents, false).await;
        for at in 0..3 {
            replicas.start_again(at);
        }
        let back = Instant::now();
        all(&agents, true).await;
        println!("{AGENTS} agents have everything {:?} after all control planes came back", back.elapsed());
        let connected = |plane: &heddle_integration::replicas::Plane| {
            let nodes = plane.ask("GET", "/nodes", b"").unwrap().json();
            nodes.as_array().map_or(0, |nodes| nodes.iter().filter(|node| !node["connected_since"].is_null()).count())
        };
        let spread: Vec<usize> = replicas.planes.iter().map(connected).collect();
        println!("connected: {spread:?}");
        assert!(spread.iter().all(|count| *count >= AGENTS / 10), "no control plane has them all: {spread:?}");
    });
    unharmed(load.stop());
}
