//! Control plane and agent as processes of their own: the agent lives on when the control plane does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::load::Load;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use heddle_integration::separate::Separate;
use serde_json::{Value, json};

/// Both processes with a route to an upstream; the agent has it on disk too.
fn serving(nginx: &Nginx) -> Separate {
    let fleet = Separate::start();
    fleet.control.route("kept", "/kept", nginx.address);
    fleet.control.until_status("/kept", 200);
    let last_good = fleet.control.place.path("agent-data/last-good.xds");
    until("the last good configuration on disk", || {
        let bytes = std::fs::read(&last_good).ok()?;
        bytes.windows(5).any(|window| window == b"/kept").then_some(())
    });
    fleet
}

fn nodes(fleet: &Separate) -> Value {
    fleet.control.admin("GET", "/nodes", Value::Null).json()
}

#[test]
fn traffic_goes_on_when_the_control_plane_is_killed() {
    let nginx = Nginx::saying("up");
    let mut fleet = serving(&nginx);
    let load = Load::start(fleet.control.http, "/kept", 8);
    fleet.control.process.kill();
    let target = load.requests() + 200;
    until("the load to go on", || (load.requests() >= target).then_some(()));
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    until("the agent to see that it is alone", || fleet.control.metrics().contains("heddle_xds_connected 0").then_some(()));
}

#[test]
fn an_agent_that_restarts_without_control_plane_serves_what_it_had() {
    let nginx = Nginx::saying("up");
    let mut fleet = serving(&nginx);
    fleet.control.process.kill();
    fleet.restart_agent();
    assert_eq!(fleet.control.get("/kept").text(), "up");
}

#[test]
fn an_agent_catches_up_when_the_control_plane_is_back() {
    let nginx = Nginx::saying("up");
    let mut fleet = serving(&nginx);
    fleet.control.process.kill();
    fleet.restart_agent();
    fleet.control.start_again();
    fleet.control.route("new", "/new", nginx.address);
    assert_eq!(fleet.control.admin("DELETE", "/routes/kept", Value::Null).status, 200);
    fleet.control.until_status("/new", 200);
    fleet.control.until_status("/kept", 404);
}

#[test]
fn what_was_removed_while_the_agent_was_away_is_gone_when_it_is_back() {
    let nginx = Nginx::saying("up");
    let mut fleet = serving(&nginx);
    fleet.agent.kill();
    assert_eq!(fleet.control.admin("DELETE", "/routes/kept", Value::Null).status, 200);
    fleet.control.route("new", "/new", nginx.address);
    fleet.restart_agent();
    fleet.control.until_status("/new", 200);
    fleet.control.until_status("/kept", 404);
}

#[test]
fn the_control_plane_knows_its_agents_and_what_they_hold() {
    let nginx = Nginx::saying("up");
    let fleet = serving(&nginx);
    let seen = until("the node", || {
        let seen = nodes(&fleet);
        seen.to_string().contains("gw-2").then_some(seen)
    });
    assert!(seen.to_string().contains("Route"), "{seen:#}");
    let listed = fleet.control.cli(&["nodes"]);
    assert!(listed.status.success());
    assert!(String::from_utf8_lossy(&listed.stdout).contains("gw-2"), "{}", String::from_utf8_lossy(&listed.stdout));
}

#[test]
fn changes_reach_an_agent_over_the_network() {
    let (first, second) = (Nginx::saying("first"), Nginx::saying("second"));
    let fleet = serving(&first);
    assert_eq!(fleet.control.get("/kept").text(), "first");
    fleet.control.put("/routes/kept", json!({ "uri": "/kept", "upstream": { "nodes": { second.address.to_string(): 1 } } }));
    until("the second upstream", || (fleet.control.get("/kept").text() == "second").then_some(()));
}

/// What a process holds of the files that it has mapped, in bytes (proc(5), `RssFile`).
fn resident_files(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// The bytes of code that an agent says to have let go of, each time that it did.
fn let_go_of(fleet: &Separate) -> Vec<u64> {
    let output = fleet.agent.output();
    let lines = output.lines().filter(|line| line.contains("code of the start was let go of"));
    lines.filter_map(|line| line.split("bytes=").nth(1)?.split_whitespace().next()?.parse().ok()).collect()
}

#[test]
fn an_agent_at_rest_gives_back_the_code_of_its_start() {
    let nginx = Nginx::saying("up");
    let mut fleet = serving(&nginx);
    let settings = fleet.control.place.path("agent.yaml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text + "log: { level: debug }\n").unwrap();
    fleet.restart_agent();
    let of_the_start = until("the code of the start to be let go of, and once more", || {
        let all = let_go_of(&fleet);
        (all.len() == 2).then(|| all[0])
    });
    let left = resident_files(fleet.agent.pid());
    assert!(left < of_the_start / 2, "{left} of {of_the_start}");
    assert_eq!(fleet.control.get("/kept").text(), "up");
}
