//! Control planes that may die: three of them beside an etcd of three members, under traffic and under writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use heddle_integration::client;
use heddle_integration::etcd::Etcd;
use heddle_integration::load::{Load, Tally};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use heddle_integration::replicas::{Agents, Relay, Replicas, Writer};
use serde_json::json;

/// Agents that come back at once; `--example returning` does the same with a thousand.
const AGENTS: usize = 150;
/// How long agents are cut off: five minutes are told in twenty seconds, which is longer than it takes an agent to notice (15 s) and to try in vain.
const CUT: Duration = Duration::from_secs(20);

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
    let (writer, mut first) = (Writer::start(&replicas), 0);
    for round in 0..replicas.etcd.count() {
        writer.more(10);
        // The leader first, and each of them in the end.
        let at = if round == 0 { replicas.etcd.leader() } else { (first + round) % replicas.etcd.count() };
        if round == 0 {
            first = at;
        }
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
fn etcd_may_be_set_back_while_control_planes_run() {
    let nginx = Nginx::saying("up");
    let mut replicas = Replicas::beside(Etcd::of(1), 2);
    replicas.route("kept", nginx.address);
    let load = Load::start(replicas.http, "/kept", 2);
    replicas.etcd.keep(0);
    for id in ["late", "later"] {
        let body = json!({ "uri": format!("/{id}"), "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
        let put = || replicas.planes[0].put(&format!("/routes/{id}"), &body).ok().filter(|answer| answer.status == 201);
        until("the route to be taken", put);
        replicas.planes[1].until_has(&format!("/routes/{id}"));
    }
    until("it", || client::get(replicas.http, "/later").ok().filter(|answer| answer.status == 200));
    replicas.etcd.set_back(0);
    for plane in &replicas.planes {
        plane.until_lacks("/routes/later");
        plane.until_lacks("/routes/late");
        plane.until_has("/routes/kept");
    }
    until("the gateway to follow", || client::get(replicas.http, "/late").ok().filter(|answer| answer.status == 404));
    for at in 0..2 {
        let id = format!("after{at}");
        let body = json!({ "uri": format!("/{id}"), "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
        let put =
            || replicas.planes[at].put(&format!("/routes/{id}"), &body).ok().filter(|answer| matches!(answer.status, 200 | 201));
        until("writes to be taken again", put);
        replicas.planes[1 - at].until_has(&format!("/routes/{id}"));
    }
    unharmed(load.stop());
}

#[test]
fn a_control_plane_that_is_cut_off_from_etcd_sends_its_agents_on_and_serves_those_that_find_no_other() {
    let nginx = Nginx::saying("up");
    let etcd = Etcd::of(1);
    let relay = Relay::to(etcd.address(0));
    let ways = [format!("endpoints: [ \"http://{}\" ]", relay.address), etcd.settings()];
    let mut replicas = Replicas::reaching(etcd, &ways);
    replicas.route("kept", nginx.address);
    let load = Load::start(replicas.http, "/kept", 2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (count, begun) = (20, Instant::now());
        let agents = Agents::start(count, &replicas.addresses());
        agents.all(true).await.unwrap();
        assert!(replicas.spread().iter().all(|there| *there > 0), "{:?}", replicas.spread());
        relay.cut();
        let cut = Instant::now();
        let all_at = async |at: usize| {
            while replicas.spread()[at] < count + 1 {
                assert!(begun.elapsed() < Duration::from_secs(150), "{:?}", replicas.spread());
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        all_at(1).await;
        println!("all agents are at the other control plane {:?} after one was cut off", cut.elapsed());
        agents.all(true).await.unwrap();
    });
    // There is no other one any more.
    replicas.planes[1].process.kill();
    until("the gateway to be served from memory", || (replicas.planes[0].connected() == 1).then_some(()));
    replicas.wait_connected();
    relay.mend();
    replicas.start_again(1);
    let body = json!({ "uri": "/back", "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
    let put = || replicas.planes[0].put("/routes/back", &body).ok().filter(|answer| matches!(answer.status, 200 | 201));
    until("writes to be taken again", put);
    until("the gateway to hear of it", || client::get(replicas.http, "/back").ok().filter(|answer| answer.status == 200));
    unharmed(load.stop());
}

#[test]
fn agents_stay_where_they_are_while_no_control_plane_sees_the_store() {
    let nginx = Nginx::saying("up");
    let mut replicas = Replicas::start(2, 1);
    replicas.route("kept", nginx.address);
    let load = Load::start(replicas.http, "/kept", 2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (agents, before) = runtime.block_on(async {
        let agents = Agents::start(20, &replicas.addresses());
        agents.all(true).await.unwrap();
        (agents, replicas.seats())
    });
    assert_eq!(before.iter().map(std::collections::BTreeMap::len).sum::<usize>(), 21);
    replicas.etcd.kill(0);
    let gone = Instant::now();
    runtime.block_on(async {
        while !replicas.planes.iter().all(|plane| plane.process.output().contains("nodes stay where they are")) {
            assert!(gone.elapsed() < Duration::from_secs(120), "{}", replicas.planes[0].process.output());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(gone.elapsed() > Duration::from_secs(15), "they have given it time");
        agents.all(true).await.unwrap();
    });
    replicas.etcd.start(0);
    let body = json!({ "uri": "/back", "upstream": { "nodes": { nginx.address.to_string(): 1 } } });
    let put = || replicas.planes[1].put("/routes/back", &body).ok().filter(|answer| matches!(answer.status, 200 | 201));
    until("writes to be taken again", put);
    until("the gateway to hear of it", || client::get(replicas.http, "/back").ok().filter(|answer| answer.status == 200));
    runtime.block_on(agents.all(true)).unwrap();
    assert_eq!(replicas.seats(), before, "nobody was sent anywhere");
    unharmed(load.stop());
}

#[test]
fn control_planes_that_read_different_files_say_so_until_they_agree() {
    let etcd = Etcd::of(1);
    let ways = [etcd.settings(), etcd.settings()];
    let routes = |uri: &str| {
        format!("routes:\n  - {{ id: filed, uri: {uri}, plugins: {{ mocking: {{ response_example: \"{uri}\" }} }} }}\n")
    };
    let replicas = Replicas::reading(etcd, &ways, Some(&routes("/one")));
    let differ = |plane: &heddle_integration::replicas::Plane| {
        let status = plane.ask("GET", "/status", b"").expect("the Admin API answers").json();
        let told = status["differences"].as_array().map_or(0, Vec::len);
        (told, plane.metric("heddle_provider_differing_control_planes{provider=\"file\"}"))
    };
    assert!(replicas.planes.iter().all(|plane| differ(plane) == (0, None)));
    replicas.write(1, &routes("/two"));
    // It is told once it has lasted for 30 s.
    let written = Instant::now();
    while !replicas.planes.iter().all(|plane| differ(plane) == (1, Some("1".to_owned()))) {
        assert!(written.elapsed() < Duration::from_secs(120), "{:?}", replicas.planes.iter().map(differ).collect::<Vec<_>>());
        std::thread::park_timeout(Duration::from_millis(200));
    }
    assert!(replicas.planes[0].process.output().contains("other control planes have read something else"));
    replicas.write(0, &routes("/two"));
    for plane in &replicas.planes {
        until("that they agree", || (differ(plane) == (0, None)).then_some(()));
    }
}

#[test]
fn a_control_plane_with_another_key_for_secrets_does_not_start() {
    let mut replicas = Replicas::start(1, 1);
    replicas.planes[0].process.kill();
    replicas.replace_key(0);
    let told = replicas.fails_to_start(0);
    assert!(told.contains("secrets.key") && told.contains("is not the one of the other control planes"), "{told}");
}

#[test]
fn two_control_planes_do_not_share_a_data_directory() {
    let replicas = Replicas::start(1, 1);
    let told = replicas.second_in_the_same_place(0);
    assert!(told.contains("another control plane is running with data_dir") && told.contains("node.data_dir"), "{told}");
    replicas.planes[0].wait();
}

#[test]
fn etcd_may_ask_for_a_certificate_and_a_password() {
    let replicas = Replicas::beside(Etcd::guarded(), 2);
    let nginx = Nginx::saying("guarded");
    replicas.route("guarded", nginx.address);
    replicas.planes[1].until_has("/routes/guarded");
    let writer = Writer::start(&replicas);
    writer.more(10);
    writer.check(&replicas);
}

#[test]
fn agents_that_are_cut_off_from_all_control_planes_go_on_and_come_back() {
    let (nginx, replicas, load) = serving();
    // One that is stopped before it has heard of the route tells the agent so when it goes on, until it has caught up.
    until("all of them to know the route", || replicas.planes.iter().all(|plane| plane.knows("kept")).then_some(()));
    replicas.planes.iter().for_each(|plane| plane.process.signal("STOP"));
    let cut = Instant::now();
    replicas.wait_alone();
    println!("the agent noticed after {:?} that nobody answers", cut.elapsed());
    while cut.elapsed() < CUT {
        assert_eq!(client::get(replicas.http, "/kept").unwrap().status, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    replicas.planes.iter().for_each(|plane| plane.process.signal("CONT"));
    let back = Instant::now();
    replicas.wait_connected();
    println!("the agent has a control plane {:?} after they are reached again", back.elapsed());
    replicas.route("after", nginx.address);
    println!("and what was changed since {:?} after", back.elapsed());
    unharmed(load.stop());
}

#[test]
fn many_agents_come_back_at_once_and_are_spread() {
    let (_nginx, mut replicas, load) = serving();
    for n in 0..50 {
        let body = json!({ "uri": format!("/r{n}"), "upstream": { "nodes": { "127.0.0.1:1": 1 } } });
        // Members of etcd on a busy machine may take longer than a control plane waits; then it says so, and is asked again.
        let put = || {
            replicas.planes[n % 3].put(&format!("/routes/r{n}"), &body).ok().filter(|answer| matches!(answer.status, 200 | 201))
        };
        until("the route to be taken", put);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let agents = Agents::start(AGENTS, &replicas.addresses());
        println!("{AGENTS} agents have everything {:?} after they started", agents.all(true).await.unwrap());
        replicas.planes.iter_mut().for_each(|plane| plane.process.kill());
        agents.all(false).await.unwrap();
        let back = Instant::now();
        (0..3).for_each(|at| replicas.start_again(at));
        agents.all(true).await.unwrap();
        println!("{AGENTS} agents have everything {:?} after all control planes came back", back.elapsed());
        let spread = replicas.spread();
        println!("connected: {spread:?}");
        assert!(spread.iter().all(|count| *count >= AGENTS / 10), "no control plane has them all: {spread:?}");
    });
    unharmed(load.stop());
}

/// The hash that `heddle store` tells.
fn hash(told: &str) -> String {
    told.lines().find_map(|line| line.strip_prefix("sha256 ")).unwrap_or_else(|| panic!("no hash in {told}")).to_owned()
}

#[test]
fn a_store_is_backed_up_while_it_is_written_and_moves_with_its_history() {
    let mut replicas = Replicas::start(2, 1);
    let writer = Writer::start(&replicas);
    writer.more(20);
    replicas.store(&["backup", "early.backup", "--from", "cp0.yaml"]).unwrap();
    writer.more(20);
    writer.check(&replicas);
    let last = hash(&replicas.store(&["backup", "late.backup", "--from", "cp1.yaml"]).unwrap());
    let history = replicas.planes[0].ask("GET", "/upstreams", b"").unwrap().json();
    replicas.planes.iter_mut().for_each(|plane| plane.process.kill());

    replicas.folder("moved");
    let moved = replicas.store(&["migrate", "--from", "cp0.yaml", "--to", "moved"]).unwrap();
    assert_eq!(hash(&moved), last, "nothing was lost on the way");
    assert!(replicas.store(&["restore", "early.backup", "--to", "cp0.yaml"]).unwrap_err().contains("is not empty"));
    replicas.start_again(0);
    let refused = replicas.store(&["restore", "early.backup", "--to", "cp0.yaml", "--force"]).unwrap_err();
    assert!(refused.contains("control planes run beside this store") && refused.contains("nothing was changed"), "{refused}");
    replicas.planes[0].process.kill();
    replicas.store(&["restore", "early.backup", "--to", "cp0.yaml", "--force"]).unwrap();
    let back = replicas.store(&["migrate", "--from", "moved", "--to", "cp0.yaml", "--force"]).unwrap();
    assert_eq!(hash(&back), last);
    (0..2).for_each(|at| replicas.start_again(at));
    let now = replicas.planes[1].ask("GET", "/upstreams", b"").unwrap().json();
    assert_eq!(now, history, "the control planes go on where they were");
}
