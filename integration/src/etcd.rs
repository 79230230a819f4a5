//! A real etcd cluster on loopback, whose members can be killed and started again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::certificates::Authority;
use crate::client;
use crate::place::Place;
use crate::process::{Process, until};

pub struct Etcd {
    members: Vec<Member>,
    place: Place,
    /// What `store.etcd` has to say besides the members.
    guarded: String,
}

/// The password of `root` on a guarded cluster.
const PASSWORD: &str = "hush";

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
        let mut etcd = Etcd { members, place, guarded: String::new() };
        (0..count).for_each(|at| etcd.start(at));
        (0..count).for_each(|at| etcd.wait(at));
        etcd
    }

    /// One member that asks clients for a certificate, a name and a password.
    pub fn guarded() -> Etcd {
        let mut etcd = Etcd::of(1);
        let client = etcd.members[0].client;
        for (path, body) in [
            ("user/add", json!({ "name": "root", "password": PASSWORD })),
            ("role/add", json!({ "name": "root" })),
            ("user/grant", json!({ "user": "root", "role": "root" })),
            ("enable", json!({})),
        ] {
            let answer = client::send(client, "POST", &format!("/v3/auth/{path}"), &[], body.to_string().as_bytes());
            let answer = answer.expect("the member answers");
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        etcd.kill(0);
        let authority = Authority::new();
        let (server, own) = (authority.issue(&[&client.ip().to_string()]), authority.issue(&["heddle"]));
        let write = |name: &str, text: &str| etcd.place.write(name, text).display().to_string();
        let ca = write("ca.pem", &authority.pem());
        let (certificate, key) = (write("server.pem", &server.certificate), write("server.key", &server.key));
        let (own_certificate, own_key) = (write("own.pem", &own.certificate), write("own.key", &own.key));
        let password = write("password", PASSWORD);
        etcd.guarded = format!(
            ", username: root, password_file: \"{password}\", tls: {{ ca: \"{ca}\", certificate: \"{own_certificate}\", key: \"{own_key}\" }}"
        );
        let member = &mut etcd.members[0];
        for argument in member.arguments.iter_mut().filter(|argument| argument.contains("client-urls")) {
            *argument = argument.replace("http://", "https://");
        }
        let more = [("cert-file", certificate), ("key-file", key), ("trusted-ca-file", ca), ("client-cert-auth", "true".into())];
        member.arguments.extend(more.map(|(name, value)| format!("--{name}={value}")));
        etcd.start(0);
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

    /// Where clients reach a member.
    pub fn address(&self, at: usize) -> SocketAddr {
        self.members[at].client
    }

    /// Keeps a member's data of this moment for [`Etcd::set_back`].
    pub fn keep(&mut self, at: usize) {
        self.kill(at);
        let (now, then) = (self.place.path(&format!("m{at}")), self.place.path(&format!("then{at}")));
        assert!(Command::new("cp").arg("-r").args([now, then]).status().is_ok_and(|status| status.success()));
        self.start(at);
        self.wait(at);
    }

    /// Gives a member the data that it had then, as whoever restores an old backup of etcd itself.
    pub fn set_back(&mut self, at: usize) {
        self.kill(at);
        let (now, then) = (self.place.path(&format!("m{at}")), self.place.path(&format!("then{at}")));
        std::fs::remove_dir_all(&now).expect("the data");
        std::fs::rename(then, now).expect("the data of then");
        self.start(at);
        self.wait(at);
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

    /// Which member leads.
    pub fn leader(&self) -> usize {
        until("a leader", || {
            self.members.iter().position(|member| {
                member.process.is_some()
                    && client::get(member.client, "/metrics").is_ok_and(|page| page.text().contains("etcd_server_is_leader 1"))
            })
        })
    }

    /// As `store.etcd` has it.
    pub fn settings(&self) -> String {
        let scheme = if self.guarded.is_empty() { "http" } else { "https" };
        let all: Vec<String> = self.members.iter().map(|member| format!("\"{scheme}://{}\"", member.client)).collect();
        format!("endpoints: [ {} ]{}", all.join(", "), self.guarded)
    }
}
