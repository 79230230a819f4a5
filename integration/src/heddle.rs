//! The real heddle binary, started the way users start it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::client::{self, Answer};
use crate::place::Place;
use crate::process::{Process, until};

/// The binary that this build made.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HEDDLE_BINARY") {
        return path.into();
    }
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.pop();
    }
    let path = folder.join("heddle");
    assert!(path.exists(), "{} is missing: build the workspace first (cargo build --workspace)", path.display());
    path
}

/// A running heddle with the addresses that it was given.
pub struct Heddle {
    pub process: Process,
    pub place: Place,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
    pub xds: SocketAddr,
    pub agent: SocketAddr,
    mode: &'static str,
    /// How the command line reaches it.
    server: Vec<String>,
}

/// The admin key of the stories.
pub const KEY: &str = "story-admin-key";

/// What differs from the usual configuration.
#[derive(Default)]
pub struct Setup {
    /// More top-level YAML.
    pub more: String,
    /// `resources.yaml`; the file provider watches it when given.
    pub resources: Option<String>,
    /// More keys of the http listener, YAML flow style, for example `, proxy_protocol: on`.
    pub listener: String,
    /// More keys of `node`, for example `, zone: eu-1a`.
    pub node: String,
    /// More keys of `agent`, for example `, drain_timeout: 1s`.
    pub agent: String,
    /// More keys of `xds`, for example `, withheld: unavailable`.
    pub xds: String,
    /// Where data is kept instead of in a folder beside the configuration.
    pub data_dir: Option<PathBuf>,
}

impl Heddle {
    /// `heddle run` with nothing special.
    pub fn run() -> Heddle {
        Heddle::run_with(Setup::default())
    }

    /// `heddle run` with a file of resources.
    pub fn with_resources(yaml: &str) -> Heddle {
        Heddle::run_with(Setup { resources: Some(yaml.to_owned()), ..Setup::default() })
    }

    pub fn run_with(setup: Setup) -> Heddle {
        Heddle::start_with(setup, "run")
    }

    /// `heddle controlplane` alone; `agent`, `http` and `https` are where its agent will be.
    pub fn control_plane(setup: Setup) -> Heddle {
        Heddle::start_with(setup, "controlplane")
    }

    fn start_with(setup: Setup, mode: &'static str) -> Heddle {
        let place = Place::new();
        let [http, https, admin, xds, agent] = [(); 5].map(|()| place.address());
        let data_dir = setup.data_dir.unwrap_or_else(|| place.path("data"));
        let server = match setup.xds.contains("tls: required") {
            true => vec![
                format!("https://{xds}"),
                "--bundle".into(),
                data_dir.join("roots-of-control-plane.pem").display().to_string(),
            ],
            false => vec![format!("http://{xds}")],
        };
        let providers = match &setup.resources {
            Some(yaml) => {
                let path = place.write("resources.yaml", yaml);
                format!("providers: {{ file: {{ path: \"{}\", watch: true }} }}\n", path.display())
            }
            None => String::new(),
        };
        let text = format!(
            "node: {{ id: gw-1, data_dir: \"{}\"{} }}\n\
             agent: {{ workers: 2, admin: \"{agent}\"{} }}\n\
             admin: {{ address: \"{admin}\", keys: [ {{ name: story, key: \"{KEY}\", role: admin }}, {{ name: looker, key: \"viewer-key\", role: viewer }} ] }}\n\
             xds: {{ address: \"{xds}\"{} }}\n\
             listeners:\n  - {{ name: http, address: \"{http}\", protocol: http{} }}\n  - {{ name: https, address: \"{https}\", protocol: https }}\n\
             {providers}{}",
            data_dir.display(),
            setup.node,
            setup.agent,
            setup.xds,
            setup.listener,
            setup.more
        );
        place.write("heddle.yaml", &text);
        let process = Heddle::spawn(&place, mode);
        let heddle = Heddle { process, place, http, https, admin, xds, agent, mode, server };
        heddle.wait_ready();
        heddle
    }

    fn spawn(place: &Place, mode: &str) -> Process {
        let mut command = Command::new(binary());
        command.arg(mode).arg("-c").arg(place.path("heddle.yaml")).current_dir(place.folder.path());
        Process::start(command, place.path("heddle.log"))
    }

    /// Waits until it can be used: an agent by what `/ready` says, a control plane alone by its Admin API.
    pub fn wait_ready(&self) {
        if self.mode == "controlplane" {
            let asked = || client::send(self.admin, "GET", "/apisix/admin/routes", &[("X-API-KEY", KEY)], b"").ok();
            until("the control plane to answer", || asked().filter(|answer| answer.status == 200));
            return;
        }
        self.wait_agent();
    }

    /// Waits until the agent says that it is ready.
    pub fn wait_agent(&self) {
        until("heddle to be ready", || client::get(self.agent, "/ready").ok().filter(|answer| answer.status == 200));
    }

    /// Starts it again after it has ended.
    pub fn start_again(&mut self) {
        self.process = Heddle::spawn(&self.place, self.mode);
        self.wait_ready();
    }

    /// Kills it and starts it again with the same folder.
    pub fn restart(&mut self) {
        self.process.kill();
        self.start_again();
    }

    /// One request to the Admin API with the admin key.
    pub fn admin(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let fields = [("X-API-KEY", KEY), ("Content-Type", "application/json")];
        client::send(self.admin, method, &format!("/apisix/admin{path}"), &fields, &body).expect("the Admin API answers")
    }

    /// Puts a resource and expects that it is taken.
    pub fn put(&self, path: &str, body: Value) {
        let answer = self.admin("PUT", path, body);
        assert!(matches!(answer.status, 200 | 201), "PUT {path}: {} {}", answer.status, answer.text());
    }

    /// Waits until all that was changed is effective: a route that was put after it is, and what one worker has answered by, all answer by.
    pub fn until_effective(&self) {
        let revision = self.admin("GET", "/status", Value::Null).json()["revision"].to_string();
        let target = format!("/{revision}");
        self.put("/routes/after", json!({ "uri": "/after", "plugins": { "redirect": { "uri": target, "ret_code": 302 } } }));
        let there = || client::get(self.http, "/after").is_ok_and(|answer| answer.field("location") == Some(&*target));
        until("the change", || there().then_some(()));
    }

    /// Puts a route for `uri` to one node.
    pub fn route(&self, id: &str, uri: &str, node: SocketAddr) {
        self.put(&format!("/routes/{id}"), json!({ "uri": uri, "upstream": { "nodes": { node.to_string(): 1 } } }));
    }

    pub fn get(&self, target: &str) -> Answer {
        client::get(self.http, target).expect("the gateway answers")
    }

    /// Asks until the gateway answers `target` with this status.
    pub fn until_status(&self, target: &str, status: u16) -> Answer {
        until(&format!("{status} for {target}"), || client::get(self.http, target).ok().filter(|answer| answer.status == status))
    }

    /// Asks over TLS for a page of this host, whoever shows a certificate of it, until the answer is `text`.
    pub fn until_said_over_tls(&self, host: &str, target: &str, text: &str) {
        let (ip, port) = (self.https.ip(), self.https.port());
        let (resolved, url) = (format!("{host}:{port}:{ip}"), format!("https://{host}:{port}{target}"));
        let mut curl = Command::new("curl");
        curl.args(["-sk", "--max-time", "30", "--resolve", &resolved, &url]);
        until(&format!("{text} over TLS"), || (curl.output().unwrap().stdout == text.as_bytes()).then_some(()));
    }

    /// Runs the command-line client against this control plane.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .args(arguments)
            .args(["--key", KEY, "--server"])
            .args(&self.server)
            .current_dir(self.place.folder.path())
            .output()
            .unwrap()
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        client::get(self.agent, "/metrics").expect("the agent answers").text()
    }
}
