//! A real Consul: one agent that keeps everything in memory, or three servers that elect a leader; on a loopback address of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::client::{self, Answer};
use crate::place::Place;
use crate::process::{Process, until};

/// The binary, brought by the script that `./check` runs too.
fn consul() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let target = test.ancestors().find(|folder| folder.ends_with("deps") || folder.ends_with("examples")).unwrap();
        let target = target.ancestors().nth(2).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("consul.sh");
        let brought = Command::new("bash").arg(script).env("CARGO_TARGET_DIR", target).status().unwrap();
        assert!(brought.success(), "Consul could not be brought");
        target.join("consul/consul")
    })
}

/// One agent.
pub struct Consul {
    pub process: Process,
    pub place: Place,
    /// Its HTTP API.
    pub http: SocketAddr,
    /// What it is asked with.
    pub token: Option<String>,
    arguments: Vec<String>,
}

impl Consul {
    /// A single server that forgets everything when it ends.
    pub fn start() -> Consul {
        Consul::with(json!({}))
    }

    /// The same with more configuration.
    pub fn with(configuration: Value) -> Consul {
        let place = Place::new();
        let http = place.address();
        let ports = Ports { http, server: place.address(), serf: place.address() };
        let consul = Consul::spawn(place, ports, vec!["-dev".into()], configuration);
        consul.until_leader();
        consul
    }

    /// Three servers that elect a leader.
    pub fn cluster() -> [Consul; 3] {
        let places = [(); 3].map(|()| Place::new());
        let ports =
            places.each_ref().map(|place| Ports { http: place.address(), server: place.address(), serf: place.address() });
        let joins: Vec<String> = ports.iter().map(|ports| format!("-retry-join={}", ports.serf)).collect();
        let mut at = 0;
        let servers = places.map(|place| {
            let mut arguments = vec!["-server".to_owned(), "-bootstrap-expect=3".to_owned(), "-retry-interval=1s".to_owned()];
            arguments.push(format!("-data-dir={}", place.path("data").display()));
            arguments.extend(joins.iter().cloned());
            let server = Consul::spawn(place, ports[at], arguments, json!({ "performance": { "raft_multiplier": 1 } }));
            at += 1;
            server
        });
        servers.iter().for_each(Consul::until_leader);
        servers
    }

    fn spawn(place: Place, ports: Ports, mut arguments: Vec<String>, configuration: Value) -> Consul {
        let mut file = json!({
            "disable_update_check": true,
            "leave_on_terminate": false,
            "limits": { "http_max_conns_per_client": 2000 },
        });
        if let (Some(file), Some(more)) = (file.as_object_mut(), configuration.as_object()) {
            file.extend(more.clone());
        }
        let file = place.write("consul.json", &file.to_string());
        arguments.extend([
            format!("-config-file={}", file.display()),
            format!("-node=n{}", ports.http.port()),
            format!("-bind={}", place.ip),
            format!("-client={}", place.ip),
            format!("-http-port={}", ports.http.port()),
            format!("-server-port={}", ports.server.port()),
            format!("-serf-lan-port={}", ports.serf.port()),
            "-serf-wan-port=-1".to_owned(),
            "-dns-port=-1".to_owned(),
            "-grpc-port=-1".to_owned(),
        ]);
        let process = run(&place, &arguments);
        Consul { process, place, http: ports.http, token: None, arguments }
    }

    /// Starts it again at the same address after it has ended.
    pub fn start_again(&mut self) {
        self.process = run(&self.place, &self.arguments);
        self.until_leader();
    }

    /// Kills it and starts it again; one that keeps everything in memory begins anew, with a small index.
    pub fn restart(&mut self) {
        self.process.kill();
        self.start_again();
    }

    /// As settings name it.
    pub fn uri(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Asks its API.
    pub fn ask(&self, method: &str, target: &str, body: &Value) -> std::io::Result<Answer> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let token = self.token.as_deref().map(|token| ("X-Consul-Token", token));
        client::send(self.http, method, target, &token.into_iter().collect::<Vec<_>>(), &body)
    }

    /// Changes something, which is taken.
    pub fn put(&self, target: &str, body: &Value) -> Answer {
        let answer = self.ask("PUT", target, body).unwrap();
        assert_eq!(answer.status, 200, "PUT {target}: {}", answer.text());
        answer
    }

    /// Puts text behind a key.
    pub fn key(&self, key: &str, text: &str) {
        let token = self.token.as_deref().map(|token| ("X-Consul-Token", token));
        let fields: Vec<_> = token.into_iter().collect();
        let answer = client::send(self.http, "PUT", &format!("/v1/kv/{key}"), &fields, text.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{key}: {}", answer.text());
    }

    /// Puts an instance into the catalog, on a node of its own that no agent looks after; `more` are more keys of the service.
    pub fn register(&self, service: &str, id: &str, address: SocketAddr, more: &Value) {
        let mut instance = json!({ "ID": id, "Service": service, "Address": address.ip().to_string(), "Port": address.port() });
        if let (Some(instance), Some(more)) = (instance.as_object_mut(), more.as_object()) {
            instance.extend(more.clone());
        }
        self.put(
            "/v1/catalog/register",
            &json!({ "Node": format!("node-{id}"), "Address": address.ip().to_string(), "Service": instance }),
        );
    }

    /// Takes an instance out of the catalog, with its node.
    pub fn deregister(&self, id: &str) {
        self.put("/v1/catalog/deregister", &json!({ "Node": format!("node-{id}") }));
    }

    /// Sets the check of an instance of the catalog.
    pub fn check(&self, id: &str, status: &str) {
        let check = json!({ "CheckID": format!("check-{id}"), "Name": "check", "ServiceID": id, "Status": status });
        self.put("/v1/catalog/register", &json!({ "Node": format!("node-{id}"), "SkipNodeUpdate": true, "Check": check }));
    }

    /// Waits until there is a leader and the node is in the catalog.
    pub fn until_leader(&self) {
        until("Consul to have a leader", || {
            let leader = client::get(self.http, "/v1/status/leader").ok()?;
            (leader.status == 200 && leader.text().contains(':')).then_some(())
        });
        until("Consul's catalog", || {
            let answer = self.ask("GET", "/v1/catalog/nodes", &Value::Null).ok()?;
            (answer.status == 200 && answer.text().contains("Address") || answer.status == 403 || answer.text().trim() == "[]")
                .then_some(())
        });
    }

    /// Whether it is the leader of its cluster.
    pub fn is_leader(&self) -> bool {
        let of = |part: &str| {
            self.ask("GET", "/v1/agent/self", &Value::Null).ok()?.json()["Stats"]["consul"][part].as_str().map(str::to_owned)
        };
        of("leader").as_deref() == Some("true")
    }
}

#[derive(Clone, Copy)]
struct Ports {
    http: SocketAddr,
    server: SocketAddr,
    serf: SocketAddr,
}

fn run(place: &Place, arguments: &[String]) -> Process {
    let mut command = Command::new(consul());
    command.arg("agent").args(arguments);
    Process::start(command, place.path("consul.log"))
}
