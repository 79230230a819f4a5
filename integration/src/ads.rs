//! A control plane that is not ours, on Envoy's own messages, and Heddle's agent that follows it. It knows nothing of the agent but its command line.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::certificates::Authority;
use crate::client::{self, Answer};
use crate::heddle::binary;
use crate::place::Place;
use crate::process::{Process, until};
use crate::python;

/// The control plane: Python with the messages of Envoy, in a virtual environment of its own.
pub struct Ads {
    process: Option<Process>,
    place: Place,
    pub address: SocketAddr,
    tls: bool,
}

/// The Python that knows Envoy's own messages, made by the script that `./check` runs too.
pub fn interpreter() -> &'static Path {
    static PATH: OnceLock<std::path::PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let target = binary().ancestors().nth(2).unwrap().to_owned();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("xds.sh");
        let made = Command::new("bash").arg(script).env("CARGO_TARGET_DIR", &target).status().unwrap();
        assert!(made.success(), "the virtual environment of the control plane could not be made");
        target.join("xds/bin/python")
    })
}

impl Ads {
    /// Serves nothing yet, in clear.
    pub fn start() -> Ads {
        Ads::begin(None)
    }

    /// Over TLS as `localhost`; clients must show a certificate of this authority.
    pub fn start_tls(authority: &Authority) -> Ads {
        Ads::begin(Some(authority))
    }

    fn begin(authority: Option<&Authority>) -> Ads {
        let place = Place::new();
        let address = place.address();
        if let Some(authority) = authority {
            let pair = authority.issue(&["localhost"]);
            place.write("server.pem", &pair.certificate);
            place.write("server.key", &pair.key);
            place.write("roots.pem", &authority.pem());
        }
        let mut ads = Ads { process: None, place, address, tls: authority.is_some() };
        ads.serve(&json!({}));
        ads.start_again();
        ads
    }

    /// Starts it again where it was, with what it served.
    pub fn start_again(&mut self) {
        let before = self.events().len();
        let mut command = Command::new(interpreter());
        command.arg(python::path("ads.py")).arg(self.address.to_string());
        command.arg(self.place.path("state.json")).arg(self.place.path("events"));
        if self.tls {
            command.args(["server.pem", "server.key", "roots.pem"].map(|name| self.place.path(name)));
        }
        self.process = Some(Process::start(command, self.place.path("ads.log")));
        until("the control plane", || self.events()[before..].iter().any(|event| event.get("serves").is_some()).then_some(()));
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Serves these resources from now on, by the names of their messages.
    pub fn serve(&self, resources: &Value) {
        let next = self.place.write("next.json", &resources.to_string());
        std::fs::rename(next, self.place.path("state.json")).unwrap();
    }

    /// What it was asked and told, in order.
    pub fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.place.path("events")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a refusal that says this, and gives the whole of it.
    pub fn until_refused(&self, part: &str) -> String {
        let error = |event: &Value| event["error"].as_str().filter(|error| error.contains(part)).map(str::to_owned);
        until(&format!("a NACK with {part}"), || self.events().iter().find_map(error))
    }
}

/// `heddle agent` that follows a control plane of Envoy's.
pub struct Follower {
    pub process: Process,
    pub spot: Spot,
}

/// Where an agent is.
pub struct Spot {
    pub place: Place,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
}

impl Follower {
    /// In clear, as `heddle.yaml` says.
    pub fn follow(control: SocketAddr, dialect: &str) -> Follower {
        Follower::start(Follower::anywhere(&format!("controlplane: {{ address: \"{control}\", dialect: {dialect} }}\n")), &[])
    }

    /// The same of a node that says where it is.
    pub fn in_zone(zone: &str, control: SocketAddr, dialect: &str) -> Follower {
        let control = format!("controlplane: {{ address: \"{control}\", dialect: {dialect} }}\n");
        Follower::start(Follower::placed(&format!(", zone: {zone}"), &control), &[])
    }

    /// With a bootstrap, made for whom it starts.
    pub fn with_bootstrap(bootstrap: impl Fn(&Spot) -> String) -> Follower {
        let spot = Follower::anywhere("");
        spot.place.write("bootstrap.yaml", &bootstrap(&spot));
        Follower::start(spot, &["--envoy-bootstrap", "bootstrap.yaml"])
    }

    fn anywhere(more: &str) -> Spot {
        Follower::placed("", more)
    }

    fn placed(at: &str, more: &str) -> Spot {
        let place = Place::new();
        let [http, https, admin] = [(); 3].map(|()| place.address());
        let data = place.path("data");
        let node = format!("node: {{ id: edge-1, data_dir: \"{}\"{at} }}\n", data.display());
        place.write("heddle.yaml", &format!("{node}agent: {{ workers: 1, admin: \"{admin}\" }}\n{more}"));
        Spot { place, http, https, admin }
    }

    fn start(spot: Spot, arguments: &[&str]) -> Follower {
        Follower { process: Follower::begin(&spot, arguments), spot }
    }

    fn begin(spot: &Spot, arguments: &[&str]) -> Process {
        let mut command = Command::new(binary());
        command.args(["agent", "-c", "heddle.yaml"]).args(arguments).current_dir(spot.place.folder.path());
        Process::start(command, spot.place.path("agent.log"))
    }

    /// Kills it and starts it again with another bootstrap.
    pub fn start_again(&mut self, bootstrap: &str) {
        self.process.kill();
        self.spot.place.write("bootstrap.yaml", bootstrap);
        self.process = Follower::begin(&self.spot, &["--envoy-bootstrap", "bootstrap.yaml"]);
    }

    pub fn until_ready(&self) {
        until("the agent to be ready", || client::get(self.spot.admin, "/ready").ok().filter(|answer| answer.status == 200));
    }

    pub fn get(&self, target: &str) -> Answer {
        client::get(self.spot.http, target).expect("the agent answers")
    }

    /// Asks until `target` is answered with this status and text.
    pub fn until_says(&self, target: &str, status: u16, text: &str) {
        let says = || client::get(self.spot.http, target).ok().filter(|answer| answer.status == status && answer.text() == text);
        until(&format!("{status} {text:?} for {target}"), says);
    }
}

/// A socket as Envoy writes it.
pub fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

/// A message of this type, as one of any type.
pub fn any(message: &str, value: Value) -> Value {
    let mut any = Map::from_iter([("@type".to_owned(), json!(format!("type.googleapis.com/{message}")))]);
    any.extend(value.as_object().unwrap().clone());
    any.into()
}

/// A cluster whose endpoints are asked for.
pub fn cluster(name: &str) -> Value {
    json!({
        "name": name, "type": "EDS", "connect_timeout": "1s",
        "eds_cluster_config": { "eds_config": { "ads": {}, "resource_api_version": "V3" } },
    })
}

/// The endpoints of a cluster.
pub fn assignment(cluster: &str, addresses: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({ "endpoint": { "address": socket(*address) } })).collect();
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": endpoints }] })
}

/// A listener whose routes are asked for under the name `routes`.
pub fn listener(name: &str, address: SocketAddr) -> Value {
    let rds = json!({ "route_config_name": "routes", "config_source": { "ads": {}, "resource_api_version": "V3" } });
    json!({ "name": name, "address": socket(address), "filter_chains": [{ "filters": [manager(json!({ "rds": rds }))] }] })
}

/// What a listener does with requests: this, and nothing but the router.
pub fn manager(more: Value) -> Value {
    let router = any("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let mut manager =
        json!({ "stat_prefix": "in", "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": router }] });
    manager.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let message = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": any(message, manager) })
}

/// The table `routes`: a prefix leads to a cluster, for every host.
pub fn routes(to: &[(&str, &str)]) -> Value {
    let routes: Vec<Value> =
        to.iter().map(|(prefix, cluster)| json!({ "match": { "prefix": prefix }, "route": { "cluster": cluster } })).collect();
    json!({ "name": "routes", "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] })
}
