//! Agents of one control plane that gossip with each other within this host, each with a listener of its own, and members that say what they like.

use std::net::SocketAddr;
use std::process::Command;

use heddle_node::membership::gossip::{self, Gossip, GossipSettings, Parts};
use heddle_node::membership::{Facts, Membership};
use serde_json::json;

use crate::client;
use crate::heddle::{Heddle, Setup, binary};
use crate::process::{Process, until};

/// Between two rounds.
const INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);

/// An agent of the fleet.
pub struct Agent {
    pub process: Process,
    pub name: String,
    pub admin: SocketAddr,
    /// Where it takes requests.
    pub http: SocketAddr,
}

/// Agents that gossip with each other.
pub struct Agents {
    pub control: Heddle,
    pub agents: Vec<Agent>,
    /// Where the first one gossips.
    pub seed: SocketAddr,
}

impl Agents {
    pub fn start(count: usize) -> Agents {
        let control = Heddle::control_plane(Setup::default());
        let gossip: Vec<SocketAddr> = (0..count).map(|_| control.place.address()).collect();
        let agent = |nth: usize| {
            let (name, admin, seed) = (format!("edge-{nth}"), control.place.address(), gossip[usize::from(nth == 0)]);
            let http = control.place.address();
            control
                .put(&format!("/listeners/{name}"), json!({ "address": http.to_string(), "protocol": "http", "nodes": [name] }));
            let text = format!(
                "node: {{ id: {name}, data_dir: \"{}\" }}\n\
                 agent: {{ workers: 1, admin: \"{admin}\" }}\n\
                 controlplane: {{ address: \"{}\" }}\n\
                 gossip: {{ listen: \"{}\", seeds: [\"{seed}\"], interval: {INTERVAL:?} }}\n",
                control.place.path(&name).display(),
                control.xds,
                gossip[nth],
            );
            let file = control.place.write(&format!("{name}.yaml"), &text);
            let mut command = Command::new(binary());
            command.arg("agent").arg("-c").arg(file).current_dir(control.place.folder.path());
            let process = Process::start(command, control.place.path(&format!("{name}.log")));
            Agent { process, name, admin, http }
        };
        let agents = (0..count).map(agent).collect();
        Agents { control, agents, seed: gossip[0] }
    }

    /// Waits until each agent shares checks with so many, itself included.
    pub fn until_peers(&self, count: usize) {
        let line = format!("heddle_health_peers {count}\n");
        for agent in &self.agents {
            until(&format!("{count} peers of {}", agent.name), || {
                client::get(agent.admin, "/metrics").ok().filter(|page| page.text().contains(&line))
            });
        }
    }

    /// Waits until a request to each agent is answered so.
    pub fn until_status(&self, target: &str, status: u16) {
        for agent in &self.agents {
            until(&format!("{status} by {}", agent.name), || {
                client::get(agent.http, target).ok().filter(|answer| answer.status == status)
            });
        }
    }

    /// A gateway by its own account, that is none: it says whatever is put into its mouth.
    pub async fn liar(&self, name: &str) -> Gossip {
        let settings = GossipSettings {
            listen: self.control.place.address(),
            seeds: vec![self.seed.to_string()],
            interval: INTERVAL,
            ..GossipSettings::default()
        };
        let facts = Facts { role: "gateway".into(), ..Facts::default() };
        let membership = Membership::alone(name, facts);
        gossip::start(Parts { settings, membership, identity: None, towards: Vec::new() }).await.unwrap()
    }
}
