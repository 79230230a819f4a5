//! The real Envoy, which reads its configuration from a control plane. It knows nothing of Heddle but an address.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::certificates::Files;
use crate::client::{self, Answer};
use crate::heddle::{Heddle, Setup, binary as heddle};
use crate::place::Place;
use crate::process::{Process, until};

/// How a node speaks xDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All types over one stream, only what changed.
    DeltaAds,
    /// All types over one stream, the whole of a type at a time.
    SotwAds,
}

impl Way {
    fn api(self) -> &'static str {
        match self {
            Way::DeltaAds => "DELTA_GRPC",
            Way::SotwAds => "GRPC",
        }
    }
}

/// The binary, brought by the script that `./check` runs too.
fn binary() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let target = heddle().ancestors().nth(2).unwrap().to_owned();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy.sh");
        let brought = Command::new("bash").arg(script).env("CARGO_TARGET_DIR", &target).output().unwrap();
        assert!(brought.status.success(), "Envoy could not be brought: {}", String::from_utf8_lossy(&brought.stderr));
        String::from_utf8(brought.stdout).unwrap().trim().into()
    })
}

/// A story of a control plane and an Envoy that follows it, which both ways to speak xDS have to tell the same.
pub fn both(story: impl Fn(&Heddle, &Envoy)) {
    for way in [Way::DeltaAds, Way::SotwAds] {
        let heddle = Heddle::control_plane(Setup::default());
        let envoy = Envoy::follow(heddle.xds, "envoy-1", way);
        until("Envoy to take connections", || TcpStream::connect(heddle.http).ok());
        story(&heddle, &envoy);
        let node = heddle.admin("GET", "/nodes", Value::Null).json()[0].clone();
        assert_eq!(node["nacks"], json!([]), "{way:?}: {node}");
        // The listener of TLS is, where there is no certificate.
        assert!(node["withheld"].as_array().unwrap().iter().all(|one| one["resource"] == "https@config"), "{way:?}: {node}");
    }
}

/// A story that a gateway of Heddle has to tell, and Envoys that follow a control plane of Heddle the same.
pub fn everywhere(story: impl Fn(&Heddle)) {
    story(&Heddle::run());
    both(|heddle, _| story(heddle));
}

/// A running Envoy.
pub struct Envoy {
    pub process: Process,
    pub admin: SocketAddr,
    place: Place,
}

impl Envoy {
    /// Follows a control plane in clear.
    pub fn follow(control: SocketAddr, id: &str, way: Way) -> Envoy {
        Envoy::start(&bootstrap(control, id, way).to_string())
    }

    /// Follows a control plane over mutual TLS, which has to be `control_id`.
    pub fn prove(control: SocketAddr, control_id: &str, id: &str, way: Way, files: &Files) -> Envoy {
        Envoy::start(&over(bootstrap(control, id, way), Some((control_id, files))).to_string())
    }

    /// Has listeners and a cluster of its own, and asks a control plane for their routes, endpoints and certificate alone, each by the service of the type;
    /// over mutual TLS where there are files, with one that has to be who they are with.
    pub fn ask_by_type(control: SocketAddr, id: &str, way: Way, own: &Own, proof: Option<(&str, &Files)>) -> Envoy {
        Envoy::start(&by_type(over(bootstrap(control, id, way), proof), way, own).to_string())
    }

    /// Asks for clusters and listeners each by the service of the type, and for what these refer to by the aggregated one.
    pub fn ask_apart(control: SocketAddr, id: &str, way: Way, proof: Option<(&str, &Files)>) -> Envoy {
        Envoy::start(&apart(control, id, way, proof).to_string())
    }

    /// With this bootstrap, whose admin may have any port.
    pub fn start(bootstrap: &str) -> Envoy {
        let place = Place::new();
        // JSON is YAML too.
        let path = place.write("envoy.yaml", bootstrap);
        let told = place.path("admin");
        let mut command = Command::new(binary());
        command.arg("-c").arg(path).arg("--admin-address-path").arg(&told);
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
        let process = Process::start(command, place.path("envoy.log"));
        let admin = until("the address of Envoy's admin", || std::fs::read_to_string(&told).ok()?.trim().parse().ok());
        Envoy { process, admin, place }
    }

    /// Waits until it has all of its configuration.
    pub fn until_live(&self) {
        until("Envoy to be live", || client::get(self.admin, "/ready").ok().filter(|answer| answer.status == 200));
    }

    /// A page of its admin.
    pub fn page(&self, target: &str) -> Answer {
        client::get(self.admin, target).expect("Envoy's admin answers")
    }

    /// One of its counters and gauges; zero when it has none of that name.
    pub fn stat(&self, name: &str) -> u64 {
        let page = self.page(&format!("/stats?filter=^{}$", name.replace('.', "\\."))).text();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
        line.unwrap_or(0)
    }

    /// A folder that lives as long as it does.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// What makes a data plane follow a control plane in clear, with an admin on any port.
pub fn bootstrap(control: SocketAddr, id: &str, way: Way) -> Value {
    let source = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "5s" });
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "node": { "id": id, "cluster": "gateway" },
        "admin": { "address": socket("127.0.0.1:0".parse().unwrap()) },
        "dynamic_resources": {
            "ads_config": {
                "api_type": way.api(),
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "control" } }],
            },
            "lds_config": source,
            "cds_config": source,
        },
        "static_resources": { "clusters": [{
            "name": "control",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": { options: {
                "@type": format!("type.googleapis.com/{options}"),
                "explicit_http_config": { "http2_protocol_options": {} },
            } },
            "load_assignment": { "cluster_name": "control", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(control) } }] }] },
        }] },
    })
}

/// The same for one that asks for clusters and listeners each by the service of the type; over mutual TLS where there are files.
pub fn apart(control: SocketAddr, id: &str, way: Way, proof: Option<(&str, &Files)>) -> Value {
    let mut bootstrap = over(bootstrap(control, id, way), proof);
    bootstrap["dynamic_resources"]["cds_config"] = source(way);
    bootstrap["dynamic_resources"]["lds_config"] = source(way);
    bootstrap
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

/// What an Envoy has by its own bootstrap.
pub struct Own<'a> {
    /// Where it listens in clear.
    pub http: SocketAddr,
    /// Where it shows a certificate.
    pub https: SocketAddr,
    /// The cluster that it wants endpoints of.
    pub cluster: &'a str,
    /// The certificate that it wants.
    pub secret: &'a str,
}

/// The service of one type at the control plane.
fn source(way: Way) -> Value {
    json!({ "resource_api_version": "V3", "api_config_source": {
        "api_type": way.api(),
        "transport_api_version": "V3",
        "grpc_services": [{ "envoy_grpc": { "cluster_name": "control" } }],
    } })
}

/// The same without the aggregated stream.
fn by_type(mut bootstrap: Value, way: Way, own: &Own) -> Value {
    bootstrap.as_object_mut().unwrap().remove("dynamic_resources");
    let any = |message: &str| json!({ "@type": format!("type.googleapis.com/{message}") });
    let mut manager = any("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager");
    manager["stat_prefix"] = json!("own");
    manager["rds"] = json!({ "route_config_name": "heddle", "config_source": source(way) });
    let router = any("envoy.extensions.filters.http.router.v3.Router");
    manager["http_filters"] = json!([{ "name": "envoy.filters.http.router", "typed_config": router }]);
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    let mut tls = any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext");
    let certificate = json!({ "name": own.secret, "sds_config": source(way) });
    tls["common_tls_context"] = json!({ "tls_certificate_sds_secret_configs": [certificate] });
    let socket_of_tls = json!({ "name": "envoy.transport_sockets.tls", "typed_config": tls });
    bootstrap["static_resources"]["listeners"] = json!([
        { "name": "own", "address": socket(own.http), "filter_chains": [{ "filters": [filter] }] },
        { "name": "own-tls", "address": socket(own.https), "filter_chains": [{ "filters": [filter], "transport_socket": socket_of_tls }] },
    ]);
    let cluster = json!({ "name": own.cluster, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": { "eds_config": source(way) } });
    bootstrap["static_resources"]["clusters"].as_array_mut().unwrap().push(cluster);
    bootstrap
}

/// The same over mutual TLS.
fn over(mut bootstrap: Value, proof: Option<(&str, &Files)>) -> Value {
    if let Some((control_id, files)) = proof {
        bootstrap["static_resources"]["clusters"][0]["transport_socket"] = mutual(control_id, files);
    }
    bootstrap
}

fn mutual(control_id: &str, files: &Files) -> Value {
    let file = |path: &Path| json!({ "filename": path });
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "alpn_protocols": ["h2"],
            "tls_certificates": [{ "certificate_chain": file(&files.chain), "private_key": file(&files.key) }],
            "validation_context": {
                "trusted_ca": file(&files.roots),
                "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": control_id } }],
            },
        },
    } })
}
