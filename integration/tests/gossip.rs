//! Members of a fleet as real processes: they find each other by what their control plane tells them, see who dies or leaves, and come through a partition.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use heddle_integration::client;
use heddle_integration::heddle::{Heddle, KEY, Setup, binary};
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use serde_json::Value;

/// Twenty agents share two cores with other stories.
const LONG: Duration = Duration::from_secs(120);
const AGENTS: usize = 20;
/// Parts of the network, and as many namespaces beside the one of the control plane.
const PARTS: usize = 3;
const XDS: u16 = 18_000;
const GOSSIP: u16 = 7_946;
/// Half a second between rounds: silent for four seconds is dead.
const PACE: &str = "interval: 500ms";

/// A router with a control plane on it, and three networks behind it.
struct World {
    name: String,
    place: Place,
    control: Option<Process>,
    agents: Vec<Option<Process>>,
}

impl World {
    fn start() -> World {
        let name = format!("heddle-gossip-{}", std::process::id());
        let mut world = World { name, place: Place::new(), control: None, agents: Vec::new() };
        world.run("ip", &["netns", "add", &world.hub()]);
        world.run("ip", &["-n", &world.hub(), "link", "set", "lo", "up"]);
        world.inside(&world.hub(), "sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"]);
        for part in 0..PARTS {
            world.cable(part);
        }
        let text = format!(
            "node: {{ id: cp-1, data_dir: \"cp\" }}\nxds: {{ address: \"0.0.0.0:{XDS}\", allow_plaintext: true }}\n\
             admin: {{ address: \"127.0.0.1:9180\", keys: [ {{ name: story, key: \"{KEY}\", role: admin }} ] }}\n\
             identity: {{ trust_domain: story.example }}\n\
             gossip: {{ advertise: \"10.77.0.1:{GOSSIP}\", {PACE} }}\n"
        );
        world.place.write("cp.yaml", &text);
        let mut command = world.command(&world.hub());
        command.args(["controlplane", "-c", "cp.yaml"]);
        world.control = Some(Process::start(command, world.place.path("cp.log")));
        let exported = until("the roots", || Some(world.cli(&["ca", "export"])).filter(|output| output.status.success()));
        world.place.write("root.pem", &String::from_utf8_lossy(&exported.stdout));
        world
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn part(&self, part: usize) -> String {
        format!("{}-{part}", self.name)
    }

    /// Connects a part to the router.
    fn cable(&self, part: usize) {
        let (hub, own, link) = (self.hub(), self.part(part), format!("part{part}"));
        self.run("ip", &["netns", "add", &own]);
        self.run("ip", &["link", "add", &link, "netns", &hub, "type", "veth", "peer", "name", "eth0", "netns", &own]);
        self.run("ip", &["-n", &own, "link", "set", "lo", "up"]);
        for (namespace, device, host) in [(&hub, link.as_str(), 1), (&own, "eth0", 2)] {
            self.run("ip", &["-n", namespace, "address", "add", &format!("10.77.{part}.{host}/24"), "dev", device]);
            self.run("ip", &["-n", namespace, "link", "set", device, "up"]);
        }
        self.run("ip", &["-n", &own, "route", "add", "default", "via", &format!("10.77.{part}.1")]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn inside(&self, namespace: &str, program: &str, arguments: &[&str]) {
        self.run("ip", &[&["netns", "exec", namespace, program], arguments].concat());
    }

    /// Heddle in a namespace.
    fn command(&self, namespace: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(binary()).current_dir(self.place.folder.path());
        command
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let server = format!("http://127.0.0.1:{XDS}");
        self.command(&self.hub()).args(arguments).args(["--server", &server, "--key", KEY]).output().unwrap()
    }

    /// Starts a gateway that knows its control plane, and nobody of the fleet.
    fn agent(&mut self, number: usize) {
        let part = number % PARTS;
        let token = self.cli(&["token", "create", "--service", "gateway", "--ttl", "10m"]);
        assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
        let token = self.place.write(&format!("{number}.token"), String::from_utf8_lossy(&token.stdout).trim());
        let text = format!(
            "node: {{ id: {}, data_dir: \"data-{number}\", zone: zone-{part} }}\nrole: gateway\nservice: {{ name: gateway }}\n\
             agent: {{ workers: 1, admin: \"127.0.0.1:{}\", drain_timeout: 1s, drain_delay: 0s }}\n\
             controlplane: {{ address: \"https://10.77.{part}.1:{XDS}\", token_file: \"{}\", bundle: root.pem }}\n\
             gossip: {{ listen: \"0.0.0.0:{}\", {PACE} }}\n",
            id(number),
            port(number),
            token.display(),
            GOSSIP + number as u16,
        );
        self.place.write(&format!("{number}.yaml"), &text);
        let mut command = self.command(&self.part(part));
        command.args(["agent", "-c", &format!("{number}.yaml")]);
        let process = Process::start(command, self.place.path(&format!("{number}.log")));
        self.agents.push(Some(process));
    }

    /// The members that an agent sees in some state.
    fn seen(&self, number: usize, state: &str) -> Vec<String> {
        let mut command = self.command(&self.part(number % PARTS));
        named(command.args(["members", "--at", &format!("127.0.0.1:{}", port(number)), "-o", "json"]), state)
    }

    /// The members that the control plane sees in some state.
    fn seen_by_control(&self, state: &str) -> Vec<String> {
        named(self.command(&self.hub()).args(["members", "--at", "127.0.0.1:9180", "--key", KEY, "-o", "json"]), state)
    }

    /// Waits until the control plane sees just these members in a state: it hears of them as late as anybody.
    fn until_control_sees(&self, state: &str, expected: &[String]) {
        until(&format!("{expected:?} {state} for the control plane"), || (self.seen_by_control(state) == expected).then_some(()));
    }

    /// Waits until every running agent sees just these members in a state.
    fn until_all_see(&self, what: &str, state: &str, expected: impl Fn(usize) -> Vec<String>) {
        let deadline = Instant::now() + LONG;
        for number in (0..self.agents.len()).filter(|number| self.agents[*number].is_some()) {
            let expected = expected(number);
            loop {
                let seen = self.seen(number, state);
                if seen == expected {
                    break;
                }
                assert!(Instant::now() < deadline, "{what}: {} sees {state}: {seen:?}, not {expected:?}", id(number));
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
    }

    /// All that are running, and the control plane.
    fn running(&self) -> Vec<String> {
        let agents = (0..self.agents.len()).filter(|number| self.agents[*number].is_some()).map(id);
        std::iter::once("cp-1".to_owned()).chain(agents).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.agents.clear();
        self.control = None;
        for namespace in (0..PARTS).map(|part| self.part(part)).chain([self.hub()]) {
            let _ = Command::new("ip").args(["netns", "del", &namespace]).stderr(Stdio::null()).status();
        }
    }
}

fn id(number: usize) -> String {
    format!("gw-{number:02}")
}

fn port(number: usize) -> u16 {
    15_000 + number as u16
}

/// Ids of members in a state, by `heddle members`.
fn named(command: &mut Command, state: &str) -> Vec<String> {
    let output = command.output().unwrap();
    let Ok(answer) = serde_json::from_slice::<Value>(&output.stdout) else { return Vec::new() };
    let members = answer["members"].as_array().into_iter().flatten();
    members.filter(|member| member["state"] == state).filter_map(|member| Some(member["id"].as_str()?.to_owned())).collect()
}

#[test]
fn twenty_gateways_see_who_dies_who_leaves_and_come_through_a_partition() {
    let mut world = World::start();
    (0..AGENTS).for_each(|number| world.agent(number));
    world.until_all_see("all have found each other", "alive", |_| world.running());

    let killed = [1, 6, 9, 14, 19];
    for number in killed {
        world.agents[number].take().unwrap().kill();
    }
    let dead: Vec<String> = killed.into_iter().map(id).collect();
    world.until_all_see("five are dead", "dead", |_| dead.clone());
    world.until_all_see("and nobody else", "alive", |_| world.running());
    world.until_control_sees("dead", &dead);

    let mut leaving = world.agents[3].take().unwrap();
    leaving.signal("TERM");
    assert!(leaving.wait().success(), "{}", leaving.output());
    world.until_all_see("one has left", "left", |_| vec![id(3)]);
    world.until_control_sees("left", &[id(3)]);

    // Between the parts, and to and from the control plane, gossip is cut; discovery is not.
    let cut = format!(
        "table inet cut {{ chain forward {{ type filter hook forward priority 0; policy drop; }}; \
         chain input {{ type filter hook input priority 0; tcp dport {GOSSIP} drop; tcp sport {GOSSIP}-{last} drop; }}; \
         chain output {{ type filter hook output priority 0; tcp dport {GOSSIP}-{last} drop; }}; }}",
        last = GOSSIP + AGENTS as u16
    );
    world.place.write("cut.nft", &cut);
    let rules = world.place.path("cut.nft").display().to_string();
    world.inside(&world.hub(), "nft", &["-f", &rules]);
    let part_of = |number: usize| -> Vec<String> {
        let same = |other: &usize| other % PARTS == number % PARTS && world.agents[*other].is_some();
        (0..AGENTS).filter(same).map(id).collect()
    };
    world.until_all_see("each part sees itself only", "alive", part_of);
    world.inside(&world.hub(), "nft", &["delete", "table", "inet", "cut"]);
    world.until_all_see("all have found together again", "alive", |_| world.running());
    assert_eq!(world.seen_by_control("left"), [id(3)]);
}

#[test]
fn one_process_is_a_fleet_of_one() {
    let place = Place::new();
    let more = format!("gossip: {{ listen: \"{}\", group: edge }}\n", place.address());
    let heddle = Heddle::run_with(Setup { more, ..Setup::default() });
    let members =
        |at: &str, more: &[&str]| -> Output { Command::new(binary()).args(["members", "--at", at]).args(more).output().unwrap() };
    let text = until("the group of the member", || {
        let table = String::from_utf8_lossy(&members(&heddle.agent.to_string(), &[]).stdout).into_owned();
        table.contains("edge").then_some(table)
    });
    assert!(text.contains("gw-1 *") && text.contains("alive"), "{text}");
    let refused = members(&heddle.admin.to_string(), &[]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--key"));
    let shown = members(&heddle.admin.to_string(), &["--key", KEY, "-o", "json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&shown["seen_by"], &shown["members"][0]["role"]), (&"gw-1".into(), &"gateway".into()));
    until("the version that it holds", || {
        let answer = client::get(heddle.agent, "/admin/members").ok()?.json();
        answer["members"][0]["config_version"].as_str().filter(|version| !version.is_empty()).map(drop)
    });
    assert!(heddle.metrics().contains("heddle_membership_members{state=\"alive\"} 1\n"));
}

#[test]
fn without_an_identity_gossip_stays_within_the_host() {
    let control = Heddle::control_plane(Setup::default());
    let text = format!(
        "node: {{ id: gw-2, data_dir: agent-data }}\nagent: {{ workers: 1, admin: \"{}\" }}\n\
         controlplane: {{ address: \"{}\" }}\ngossip: {{ listen: \"0.0.0.0:0\" }}\n",
        control.agent, control.xds
    );
    control.place.write("agent.yaml", &text);
    let output =
        Command::new(binary()).args(["agent", "-c", "agent.yaml"]).current_dir(control.place.folder.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("no identity"), "{told}");
}
