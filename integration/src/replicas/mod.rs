//! Several control planes beside one etcd, an agent that knows them all, and a writer that remembers what was acknowledged.

mod agents;
mod relay;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use heddle_proto::heddle::admin::v1::admin_client::AdminClient;
use heddle_proto::heddle::admin::v1::{ApplyRequest, Change};
use serde_json::{Value, json};

use crate::client::{self, Answer};
use crate::etcd::Etcd;
use crate::heddle::{KEY, binary};
use crate::place::Place;
use crate::process::{Process, until};

pub use agents::Agents;
pub use relay::Relay;

/// The key that all control planes have.
const SEAL: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";

pub struct Replicas {
    pub planes: Vec<Plane>,
    pub etcd: Etcd,
    pub agent: Process,
    pub http: SocketAddr,
    agent_admin: SocketAddr,
    place: Place,
}

/// One control plane.
pub struct Plane {
    pub process: Process,
    pub admin: SocketAddr,
    pub xds: SocketAddr,
    at: usize,
}

impl Replicas {
    /// So many control planes, and members of etcd.
    pub fn start(planes: usize, members: usize) -> Replicas {
        Replicas::beside(Etcd::of(members), planes)
    }

    /// So many control planes beside a cluster.
    pub fn beside(etcd: Etcd, planes: usize) -> Replicas {
        let settings = vec![etcd.settings(); planes];
        Replicas::reaching(etcd, &settings)
    }

    /// One control plane for each of these ways to a cluster, as `store.etcd` has them.
    pub fn reaching(etcd: Etcd, ways: &[String]) -> Replicas {
        Replicas::reading(etcd, ways, None)
    }

    /// The same, which read each a file of its own, `resources/AT.yaml`; what is in all of them at first.
    pub fn reading(etcd: Etcd, ways: &[String], resources: Option<&str>) -> Replicas {
        let planes = ways.len();
        let place = Place::new();
        let [http, agent_admin] = [(); 2].map(|()| place.address());
        let addresses: Vec<(SocketAddr, SocketAddr)> = (0..planes).map(|_| (place.address(), place.address())).collect();
        let gossip: Vec<SocketAddr> = (0..planes).map(|_| place.address()).collect();
        for (at, (admin, xds)) in addresses.iter().enumerate() {
            place.write(&format!("cp{at}/secrets.key"), SEAL);
            if let Some(resources) = resources {
                place.write(&format!("resources/{at}.yaml"), resources);
            }
            let files = resources.map_or(String::new(), |_| format!("providers: {{ file: {{ path: resources/{at}.yaml }} }}\n"));
            let text = format!(
                "node: {{ id: cp-{at}, data_dir: cp{at} }}\n\
                 admin: {{ address: \"{admin}\", keys: [ {{ name: story, key: \"{KEY}\", role: admin }} ] }}\n\
                 xds: {{ address: \"{xds}\" }}\n\
                 store: {{ etcd: {{ {}, prefix: /story/ }} }}\n\
                 gossip: {{ listen: \"{}\", seeds: [ \"{}\" ] }}\n{files}\
                 listeners:\n  - {{ name: http, address: \"{http}\", protocol: http }}\n",
                ways[at], gossip[at], gossip[0]
            );
            place.write(&format!("cp{at}.yaml"), &text);
        }
        let all: Vec<String> = addresses.iter().map(|(_, xds)| format!("\"{xds}\"")).collect();
        let text = format!(
            "node: {{ id: gw, data_dir: agent }}\n\
             agent: {{ workers: 2, admin: \"{agent_admin}\" }}\n\
             controlplane: {{ address: [ {} ] }}\n",
            all.join(", ")
        );
        place.write("agent.yaml", &text);
        let spawn = |(at, (admin, xds)): (usize, &(SocketAddr, SocketAddr))| {
            let process = run(&place, "controlplane", &format!("cp{at}"));
            Plane { process, admin: *admin, xds: *xds, at }
        };
        let planes: Vec<Plane> = addresses.iter().enumerate().map(spawn).collect();
        let agent = run(&place, "agent", "agent");
        let replicas = Replicas { planes, etcd, agent, http, agent_admin, place };
        replicas.planes.iter().for_each(Plane::wait);
        until("the agent to be ready", || client::get(agent_admin, "/ready").ok().filter(|answer| answer.status == 200));
        replicas
    }

    /// Starts a control plane again that was killed.
    pub fn start_again(&mut self, at: usize) {
        self.planes[at].process = run(&self.place, "controlplane", &format!("cp{at}"));
        self.planes[at].wait();
    }

    /// Starts another control plane with the configuration of one that runs, at other addresses; what it says when it ends.
    pub fn second_in_the_same_place(&self, at: usize) -> String {
        let text = std::fs::read_to_string(self.place.path(&format!("cp{at}.yaml"))).expect("the configuration");
        let plane = &self.planes[at];
        let text = [plane.admin, plane.xds]
            .iter()
            .fold(text, |text, address| text.replace(&address.to_string(), &self.place.address().to_string()));
        self.place.write("second.yaml", &text);
        let mut process = run(&self.place, "controlplane", "second");
        assert!(!process.wait().success());
        process.output()
    }

    /// Gives a control plane another key for secrets.
    pub fn replace_key(&self, at: usize) {
        self.place.write(&format!("cp{at}/secrets.key"), "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n");
    }

    /// Starts a control plane that cannot start; what it says.
    pub fn fails_to_start(&mut self, at: usize) -> String {
        until("a member of etcd to answer while it starts", || {
            self.planes[at].process = run(&self.place, "controlplane", &format!("cp{at}"));
            assert!(!self.planes[at].process.wait().success());
            Some(self.planes[at].process.output()).filter(|told| !told.contains("does not answer"))
        })
    }

    /// What `heddle store` says to these words, among the configurations of the control planes.
    pub fn store(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binary());
        let output = command.arg("store").args(words).current_dir(self.place.folder.path()).output().expect("heddle runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Makes a folder beside the configurations.
    pub fn folder(&self, name: &str) {
        std::fs::create_dir_all(self.place.path(name)).expect("a folder");
    }

    /// Where the control planes serve agents.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.planes.iter().map(|plane| plane.xds).collect()
    }

    /// Puts something else into the file that a control plane reads.
    pub fn write(&self, at: usize, resources: &str) {
        self.place.write(&format!("resources/{at}.yaml"), resources);
    }

    /// Which agents are connected to each control plane, and since when.
    pub fn seats(&self) -> Vec<BTreeMap<String, String>> {
        self.planes.iter().map(Plane::seats).collect()
    }

    /// How many agents are connected to each control plane.
    pub fn spread(&self) -> Vec<usize> {
        self.planes.iter().map(Plane::connected).collect()
    }

    /// Waits until the agent has noticed that it has no control plane.
    pub fn wait_alone(&self) {
        let alone =
            || client::get(self.agent_admin, "/metrics").ok().filter(|page| page.text().contains("heddle_xds_connected 0"));
        until("the agent to have no control plane", alone);
    }

    /// Waits until the agent follows a control plane.
    pub fn wait_connected(&self) {
        let connected =
            || client::get(self.agent_admin, "/metrics").ok().filter(|page| page.text().contains("heddle_xds_connected 1"));
        until("the agent to have a control plane", connected);
    }

    /// Puts a route to a node by the first control plane, and waits until the gateway serves it.
    pub fn route(&self, id: &str, node: SocketAddr) {
        let body = json!({ "uri": format!("/{id}"), "upstream": { "nodes": { node.to_string(): 1 } } });
        let answer = self.planes[0].put(&format!("/routes/{id}"), &body).expect("the Admin API answers");
        assert!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.text());
        until("the route", || client::get(self.http, &format!("/{id}")).ok().filter(|answer| answer.status == 200));
    }
}

fn run(place: &Place, mode: &str, name: &str) -> Process {
    let mut command = Command::new(binary());
    command.args([mode, "-c", &format!("{name}.yaml")]).current_dir(place.folder.path());
    Process::start(command, place.path(&format!("{name}.log")))
}

impl Plane {
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        let fields = [("X-API-KEY", KEY), ("Content-Type", "application/json")];
        client::send(self.admin, method, &format!("/apisix/admin{path}"), &fields, body)
    }

    pub fn put(&self, path: &str, body: &Value) -> std::io::Result<Answer> {
        self.ask("PUT", path, body.to_string().as_bytes())
    }

    /// Whether it knows a route by now, which others may know before.
    pub fn knows(&self, id: &str) -> bool {
        self.ask("GET", &format!("/routes/{id}"), b"").is_ok_and(|answer| answer.status == 200)
    }

    /// Agents that are connected to it.
    pub fn connected(&self) -> usize {
        let nodes = self.ask("GET", "/nodes", b"").expect("the Admin API answers").json();
        nodes.as_array().map_or(0, |nodes| nodes.iter().filter(|node| !node["connected_since"].is_null()).count())
    }

    /// Agents that are connected to it, and since when.
    fn seats(&self) -> BTreeMap<String, String> {
        let nodes = self.ask("GET", "/nodes", b"").expect("the Admin API answers").json();
        let there = nodes.as_array().into_iter().flatten().filter(|node| !node["connected_since"].is_null());
        there.map(|node| (node["id"].to_string(), node["connected_since"].to_string())).collect()
    }

    /// The value of a metric with these labels.
    pub fn metric(&self, name: &str) -> Option<String> {
        let page = self.ask("GET", "/metrics", b"").ok()?.text();
        page.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    }

    /// Carries out changes in one transaction; the revision that it made.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<u64, String> {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{}", self.xds)).map_err(|error| error.to_string())?;
        let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
        let mut request = tonic::Request::new(ApplyRequest { changes, ..ApplyRequest::default() });
        request.metadata_mut().insert("x-api-key", KEY.parse().map_err(|_| "the key is no header")?);
        let answer = AdminClient::new(channel).apply(request).await.map_err(|status| status.to_string())?.into_inner();
        if answer.applied { Ok(answer.revision) } else { Err(format!("{:?}", answer.outcomes)) }
    }

    /// Waits until its Admin API answers.
    pub fn wait(&self) {
        let answers = || self.ask("GET", "/routes", b"").ok().filter(|answer| answer.status == 200);
        until(&format!("control plane {}", self.at), answers);
    }

    /// Waits until it has a resource no more.
    pub fn until_lacks(&self, path: &str) {
        until(&format!("{path} to go from control plane {}", self.at), || {
            self.ask("GET", path, b"").ok().filter(|answer| answer.status == 404)
        });
    }

    /// Waits until it has a resource.
    pub fn until_has(&self, path: &str) {
        until(&format!("{path} on control plane {}", self.at), || {
            self.ask("GET", path, b"").ok().filter(|answer| answer.status == 200)
        });
    }
}

/// Writes one resource after the other, to one control plane after the other.
pub struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<Vec<u64>>,
}

impl Writer {
    pub fn start(replicas: &Replicas) -> Writer {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let addresses: Vec<SocketAddr> = replicas.planes.iter().map(|plane| plane.admin).collect();
        let (stopped, counted) = (stop.clone(), acknowledged.clone());
        let thread = std::thread::spawn(move || {
            let mut taken = Vec::new();
            for n in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let fields = [("X-API-KEY", KEY), ("Content-Type", "application/json")];
                let target = format!("/apisix/admin/upstreams/w{n}");
                let body = json!({ "nodes": { "127.0.0.1:1": 1 }, "desc": n.to_string() }).to_string();
                let address = addresses[usize::try_from(n).unwrap_or(0) % addresses.len()];
                match client::send(address, "PUT", &target, &fields, body.as_bytes()) {
                    Ok(answer) if answer.status == 201 => {
                        taken.push(n);
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    // Who is not told that it was taken may not count on it.
                    _ => std::thread::sleep(Duration::from_millis(10)),
                }
            }
            taken
        });
        Writer { stop, acknowledged, thread }
    }

    /// Waits until so many more were acknowledged.
    pub fn more(&self, count: u64) {
        let target = self.acknowledged.load(Ordering::Relaxed) + count;
        until("writes to be acknowledged", || (self.acknowledged.load(Ordering::Relaxed) >= target).then_some(()));
    }

    /// Ends, and looks whether every control plane has everything that was acknowledged by any.
    pub fn check(self, replicas: &Replicas) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let taken = self.thread.join().expect("the writer");
        for plane in &replicas.planes {
            if let Some(last) = taken.last() {
                plane.until_has(&format!("/upstreams/w{last}"));
            }
            let listed = plane.ask("GET", "/upstreams", b"").expect("the Admin API answers").text();
            let lost: Vec<&u64> = taken.iter().filter(|n| !listed.contains(&format!("\"w{n}\""))).collect();
            assert!(lost.is_empty(), "control plane {} lacks what was acknowledged: {lost:?}", plane.at);
        }
        taken.len()
    }
}
