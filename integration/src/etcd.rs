//! A real etcd cluster on loopback, whose members can be killed and started again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::client;
use crate::place::Place;
use crate::process::{Process, until};

pub struct Etcd {
    members: Vec<Member>,
    place: Place,
}

struct Member {
    process: Option<Process>,
    client: SocketAddr,
    arguments: Vec<String>,
    log: PathBuf,
}

impl Etcd {
    /// A cluster of so many members that answers.
    pub fn of(count: usize) -> Etcd {
        let place = Place::new();
        let addresses: Vec<(SocketAddr, SocketAddr)> = (0..count).map(|_| (place.address(), place.address())).collect();
        let all: Vec<String> = addresses.iter().enumerate().map(|(at, (peer, _))| format!("m{at}=http://{peer}")).collect();
        let member = |(at, (peer, client)): (usize, &(SocketAddr, SocketAddr))| {
            let arguments = [
                ("name", format!("m{at}")),
                ("data-dir", place.path(&format!("m{at}")).display().to_string()),
                ("listen-client-urls", format!("http://{client}")),
                ("advertise-client-urls", format!("http://{client}")),
                ("listen-peer-urls", format!("http://{peer}")),
                ("initial-advertise-peer-urls", format!("http://{peer}")),
                ("initial-cluster", all.join(",")),
                ("log-level", "error".to_owned()),
            ];
            let arguments = arguments.into_iter().map(|(name, value)| format!("--{name}={value}")).collect();
            Member { process: None, client: *client, arguments, log: place.path(&format!("m{at}.log")) }
        };
        let members = addresses.iter().enumerate().map(member).collect();
        let mut etcd = Etcd { members, place };
        (0..count).for_each(|at| etcd.start(at));
        (0..count).for_each(|at| etcd.wait(at));
        etcd
    }

    pub fn start(&mut self, at: usize) {
        let member = &mut self.members[at];
        let mut command = Command::new("/usr/bin/etcd");
        command.args(&member.arguments).current_dir(self.place.folder.path());
        member.process = Some(Process::start(command, member.log.clone()));
    }

    /// Waits until a member sees a leader.
    pub fn wait(&self, at: usize) {
        let client = self.members[at].client;
        let healthy = || client::get(client, "/health").ok().filter(|answer| answer.text().contains("true"));
        until("the member to be healthy", healthy);
    }

    pub fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill();
        }
    }

    /// Freezes a member (`STOP`) or lets it go on (`CONT`).
    pub fn signal(&self, at: usize, name: &str) {
        if let Some(process) = &self.members[at].process {
            process.signal(name);
        }
    }

    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// As `store.etcd.endpoints` names them.
    pub fn endpoints(&self) -> String {
        let all: Vec<String> = self.members.iter().map(|member| format!("\"http://{}\"", member.client)).collect();
        all.join(", ")
    }
}
