//! A mesh: a control plane with identities, sidecars and gateways as processes of their own, each with nothing but its join token.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::client::{self, Answer};
use crate::heddle::{Heddle, Setup, binary};
use crate::process::{Process, until};

/// The trust domain of the stories.
pub const DOMAIN: &str = "story.example";

/// A control plane that gives identities.
pub struct Mesh {
    pub control: Heddle,
    roots: PathBuf,
}

/// A sidecar or a gateway.
pub struct Node {
    pub process: Process,
    pub name: String,
    pub admin: SocketAddr,
    /// Where a sidecar takes what others send to its service.
    pub inbound: SocketAddr,
    /// Where its application reaches the services that it calls, in the order in which they were named.
    pub outbound: Vec<SocketAddr>,
    folder: PathBuf,
}

/// What a sidecar stands beside.
#[derive(Clone)]
pub struct Service<'a> {
    pub name: &'a str,
    pub address: SocketAddr,
    pub protocol: &'a str,
    /// More keys of `service`, for example `, version: v2, labels: { track: canary }`.
    pub said: &'a str,
    /// More keys of `node`, for example `, zone: a`.
    pub node: &'a str,
    /// Services that it calls.
    pub calls: &'a [&'a str],
    /// More keys of `inbound`, for example `, mode: permissive`.
    pub inbound: &'a str,
    /// More keys of `outbound`, for example `, http_proxy: "127.0.0.1:15001"`.
    pub outbound: &'a str,
    /// More keys of `agent`, for example `, drain_timeout: 5s`.
    pub agent: &'a str,
    /// More top-level YAML.
    pub more: &'a str,
}

impl<'a> Service<'a> {
    /// An HTTP service that calls nobody.
    pub fn http(name: &'a str, address: SocketAddr) -> Service<'a> {
        Service {
            name,
            address,
            protocol: "http",
            said: "",
            node: "",
            calls: &[],
            inbound: "",
            outbound: "",
            agent: "",
            more: "",
        }
    }
}

impl Mesh {
    /// Starts a control plane; `identity` is more of its `identity:`, for example `, svid_ttl: 10s`.
    pub fn start(identity: &str) -> Mesh {
        Mesh::with(Setup::default(), identity)
    }

    pub fn with(setup: Setup, identity: &str) -> Mesh {
        Mesh::of(Heddle::control_plane(identified(setup, DOMAIN, identity)))
    }

    /// Starts a control plane of another trust domain.
    pub fn of_domain(domain: &str, identity: &str) -> Mesh {
        Mesh::of(Heddle::control_plane(identified(Setup::default(), domain, identity)))
    }

    /// Starts `heddle run`: control plane and gateway in one process.
    pub fn in_one(identity: &str) -> Mesh {
        Mesh::of(Heddle::run_with(identified(Setup::default(), DOMAIN, identity)))
    }

    fn of(control: Heddle) -> Mesh {
        let exported = until("the roots", || Some(control.cli(&["ca", "export"])).filter(|output| output.status.success()));
        let roots = control.place.write("root.pem", &String::from_utf8_lossy(&exported.stdout));
        Mesh { control, roots }
    }

    /// A join token for a service.
    pub fn token(&self, service: &str) -> String {
        let output = self.control.cli(&["token", "create", "--service", service, "--ttl", "10m"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// How an agent reaches the control plane.
    fn reach(&self, service: &str, node: &str) -> String {
        self.reach_with(service, node, "")
    }

    /// The same with more keys of `controlplane`.
    fn reach_with(&self, service: &str, node: &str, more: &str) -> String {
        let token = self.control.place.write(&format!("{node}.token"), &self.token(service));
        format!(
            "controlplane: {{ address: \"https://{}\", token_file: \"{}\", bundle: \"{}\"{more} }}\n",
            self.control.xds,
            token.display(),
            self.roots.display()
        )
    }

    /// Starts a sidecar and waits until it is ready.
    pub fn sidecar(&self, service: &Service<'_>) -> Node {
        let node = self.begin_sidecar(service.name, service);
        node.wait_ready();
        node
    }

    /// Starts a sidecar under a name of its own and does not wait.
    pub fn begin_sidecar(&self, id: &str, service: &Service<'_>) -> Node {
        self.beside(id, service, &|_| Vec::new())
    }

    /// Starts an application with its sidecar as one process, as `heddle sidecar -- app` does; the application is told where it reaches the services that it
    /// calls.
    pub fn wrapped(&self, id: &str, service: &Service<'_>, app: impl Fn(&[SocketAddr]) -> Vec<String>) -> Node {
        self.beside(id, service, &app)
    }

    fn beside(&self, id: &str, service: &Service<'_>, app: &dyn Fn(&[SocketAddr]) -> Vec<String>) -> Node {
        let place = &self.control.place;
        let (admin, inbound) = (place.address(), place.address());
        let outbound: Vec<SocketAddr> = service.calls.iter().map(|_| place.address()).collect();
        let explicit: Vec<String> = service
            .calls
            .iter()
            .zip(&outbound)
            .map(|(called, listen)| format!("{{ service: {called}, listen: \"{listen}\" }}"))
            .collect();
        let text = format!(
            "node: {{ id: {id}, data_dir: \"{id}-data\"{} }}\nrole: sidecar\n\
             service: {{ name: {}, address: \"{}\", protocol: {}{} }}\n\
             agent: {{ workers: 1, admin: \"{admin}\"{} }}\n{}\
             inbound: {{ address: \"{inbound}\"{} }}\noutbound: {{ explicit: [ {} ]{} }}\n{}",
            service.node,
            service.name,
            service.address,
            service.protocol,
            service.said,
            service.agent,
            self.reach(service.name, id),
            service.inbound,
            explicit.join(", "),
            service.outbound,
            service.more
        );
        let app = app(&outbound);
        self.begin(id, &text, [admin, inbound], outbound, &app)
    }

    /// Starts a gateway and waits until it is ready; it serves `self.control.http`.
    pub fn gateway(&self) -> Node {
        self.gateway_with("")
    }

    /// The same with more keys of `controlplane`, for example `, dialect: envoy`.
    pub fn gateway_with(&self, more: &str) -> Node {
        let admin = self.control.agent;
        let text = format!(
            "node: {{ id: gw-1, data_dir: \"gw-1-data\" }}\nrole: gateway\nservice: {{ name: gateway }}\n\
             agent: {{ workers: 1, admin: \"{admin}\" }}\n{}",
            self.reach_with("gateway", "gw-1", more)
        );
        let node = self.begin("gw-1", &text, [admin; 2], Vec::new(), &[]);
        node.wait_ready();
        node
    }

    /// Starts an agent that does nothing but keep the identity of a service, for an Envoy or a client of gRPC beside it; `identity` says how it hands it on.
    pub fn keeper(&self, id: &str, service: &str, identity: &str) -> Node {
        let admin = self.control.place.address();
        let text = format!(
            "node: {{ id: {id}, data_dir: \"{id}-data\" }}\nrole: sidecar\nservice: {{ name: {service} }}\n\
             agent: {{ workers: 1, admin: \"{admin}\" }}\nidentity: {{ {identity} }}\n{}",
            self.reach(service, id)
        );
        let node = self.begin(id, &text, [admin; 2], Vec::new(), &[]);
        node.wait_ready();
        node
    }

    fn begin(&self, id: &str, text: &str, [admin, inbound]: [SocketAddr; 2], outbound: Vec<SocketAddr>, app: &[String]) -> Node {
        let place = &self.control.place;
        place.write(&format!("{id}.yaml"), text);
        let folder = place.folder.path().to_owned();
        Node { process: spawn(&folder, id, app), name: id.to_owned(), admin, inbound, outbound, folder }
    }

    /// Waits until a node has kept on disk what it holds, with all of these names in it.
    pub fn until_kept(&self, node: &Node, names: &[&str]) {
        let file = self.control.place.path(&format!("{}-data/last-good.xds", node.name));
        until(&format!("{} to keep what it holds", node.name), || {
            let bytes = std::fs::read(&file).ok()?;
            let has = |name: &&str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
            names.iter().all(has).then_some(())
        });
    }

    /// Waits until `caller` reaches its first service, and gives the answer.
    pub fn until_reached(&self, caller: &Node, target: &str) -> Answer {
        let asked = || client::get(caller.outbound[0], target).ok();
        until(&format!("{} to reach its service", caller.name), || asked().filter(|answer| answer.status == 200))
    }

    /// What the authority has issued and refused, as `heddle ca audit` tells it.
    pub fn audit(&self) -> String {
        let output = self.control.cli(&["ca", "audit", "-n", "1000"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Puts a policy and expects that it is taken.
    pub fn policy(&self, id: &str, policy: Value) {
        self.control.put(&format!("/authorization_policies/{id}"), policy);
    }
}

fn identified(setup: Setup, domain: &str, identity: &str) -> Setup {
    let more = format!("{}identity: {{ trust_domain: {domain}{identity} }}\n", setup.more);
    Setup { more, ..setup }
}

impl Node {
    pub fn wait_ready(&self) {
        until(&format!("{} to be ready", self.name), || {
            client::get(self.admin, "/ready").ok().filter(|answer| answer.status == 200)
        });
    }

    /// SIGTERM; how it has ended.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }

    /// Starts it again with what it has on disk; its join token is used up.
    pub fn start(&mut self) {
        self.process = spawn(&self.folder, &self.name, &[]);
    }

    /// A second process in its place, with the same listeners and data, and with an id and a port for operators of its own.
    pub fn successor(&self, mesh: &Mesh) -> Node {
        self.next(mesh, |text, name| text.replace(&format!("id: {},", self.name), &format!("id: {name},")))
    }

    /// The same with the id of this one.
    pub fn twin(&self, mesh: &Mesh) -> Node {
        self.next(mesh, |text, _| text.to_owned())
    }

    fn next(&self, mesh: &Mesh, edit: impl FnOnce(&str, &str) -> String) -> Node {
        let place = &mesh.control.place;
        let name = format!("{}-next", self.name);
        let admin = place.address();
        let text = std::fs::read_to_string(place.path(&format!("{}.yaml", self.name))).expect("it was written");
        let text = text.replace(&self.admin.to_string(), &admin.to_string());
        place.write(&format!("{name}.yaml"), &edit(&text, &name));
        let (process, outbound) = (spawn(&self.folder, &name, &[]), self.outbound.clone());
        Node { process, name, admin, inbound: self.inbound, outbound, folder: self.folder.clone() }
    }

    /// Kills it and starts it again with what it has on disk; its join token is used up.
    pub fn restart(&mut self) {
        self.process.kill();
        self.start();
        self.wait_ready();
    }

    pub fn metrics(&self) -> String {
        client::get(self.admin, "/metrics").expect("the agent answers").text()
    }
}

/// An agent, or one with an application beside it.
fn spawn(folder: &std::path::Path, id: &str, app: &[String]) -> Process {
    let mut command = Command::new(binary());
    let mode = if app.is_empty() { "agent" } else { "sidecar" };
    command.args([mode, "-c", &format!("{id}.yaml")]).current_dir(folder);
    if !app.is_empty() {
        command.arg("--").args(app);
    }
    Process::start(command, folder.join(format!("{id}.log")))
}
