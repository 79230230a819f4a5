//! Who gets anything out of the ports of a control plane that is open beyond loopback, as the wire shows it to curl on another host, and out of the socket on which a
//! sidecar hands its identity to its application.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine;
use heddle_integration::certificates::Authority;
use heddle_integration::heddle::{KEY, binary};
use heddle_integration::mesh::{Mesh, Service};
use heddle_integration::network::Network;
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_proto::envoy::config::core::v3::Node;
use heddle_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use heddle_proto::heddle::identity::v1::sign_request::Proof;
use heddle_proto::heddle::identity::v1::{SignRequest, SignResponse, WatchBundlesRequest};
use prost::Message;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};

/// Where the control plane is for the other host.
const XDS: &str = "10.77.0.1:18000";
const REST: &str = "http://10.77.0.1:9180/apisix/admin/routes";
/// The calls of each service on the port.
const DISCOVERY: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const SIGN: &str = "heddle.identity.v1.IdentityService/Sign";
const BUNDLES: &str = "heddle.identity.v1.IdentityService/WatchBundles";
const ADMIN: &str = "heddle.admin.v1.Admin/Nodes";
/// Status codes of gRPC.
const OK: &str = "0";
const PERMISSION_DENIED: &str = "7";
const UNAUTHENTICATED: &str = "16";

/// A control plane on all addresses of its host, with nothing said of cleartext, and another host beside it.
struct World {
    network: Network,
    place: Place,
    control: Process,
}

impl World {
    fn start() -> World {
        let (network, place) = (Network::new(1), Place::new());
        let text = format!(
            "node: {{ id: cp-1, data_dir: cp }}\nxds: {{ address: \"0.0.0.0:18000\" }}\n\
             admin: {{ address: \"0.0.0.0:9180\", keys: [ {{ name: story, key: \"{KEY}\", role: admin }} ] }}\n\
             identity: {{ trust_domain: story.example }}\nlisteners: []\n"
        );
        place.write("cp.yaml", &text);
        let mut command = network.inside(&network.router(), binary());
        command.args(["controlplane", "-c", "cp.yaml"]).current_dir(place.folder.path());
        let control = Process::start(command, place.path("cp.log"));
        let world = World { network, place, control };
        until("the roots", || world.own(&["ca", "export"]).status.success().then_some(()));
        world
    }

    /// The command line on the host of the control plane, which finds there what it is known by.
    fn own(&self, arguments: &[&str]) -> Output {
        self.heddle(&self.network.router(), &[arguments, &["--server", "https://127.0.0.1:18000", "--data-dir", "cp"]].concat())
    }

    fn heddle(&self, namespace: &str, arguments: &[&str]) -> Output {
        let mut command = self.network.inside(namespace, binary());
        command.args(arguments).args(["--key", KEY]).current_dir(self.place.folder.path()).output().unwrap()
    }

    fn curl(&self, arguments: &[&str]) -> Output {
        let mut command = self.network.inside(&self.network.host(0), "curl");
        command.args(["-s", "-k", "-m", "10"]).args(arguments).current_dir(self.place.folder.path()).output().unwrap()
    }

    /// What a call from the other host is answered: the status of gRPC and the message. Nothing where nobody answers in HTTP at all.
    fn calls(&self, way: &[&str], path: &str, message: &[u8]) -> Option<(String, Vec<u8>)> {
        let mut framed = vec![0];
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(message);
        std::fs::write(self.place.path("message"), framed).unwrap();
        let _ = std::fs::remove_file(self.place.path("head"));
        let mut arguments =
            vec!["-D", "head", "-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@message"];
        arguments.extend_from_slice(&way[..way.len() - 1]);
        let url = format!("{}://{XDS}/{path}", way.last().unwrap());
        arguments.push(&url);
        let output = self.curl(&arguments);
        // Trailers come behind the head.
        let head = std::fs::read_to_string(self.place.path("head")).unwrap_or_default();
        let Some(status) = head.lines().rev().find_map(|line| line.strip_prefix("grpc-status:")) else {
            assert!(output.stdout.is_empty(), "{path} told something without an answer: {:?}", output.stdout);
            return None;
        };
        Some((status.trim().to_owned(), output.stdout))
    }

    fn status(&self, way: &[&str], path: &str, message: &[u8]) -> Option<String> {
        self.calls(way, path, message).map(|(status, _)| status)
    }

    /// Joins as `web` with a token, as an agent does; its certificate and key in a file.
    fn join(&self) -> &'static str {
        let made = self.own(&["token", "create", "--service", "web", "--ttl", "10m"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        let (csr_der, key) = request();
        let message = SignRequest { csr_der, proof: Some(Proof::JoinToken(token)) }.encode_to_vec();
        let (status, body) = self.calls(TLS, SIGN, &message).expect("an answer");
        assert_eq!(status, OK);
        let signed = SignResponse::decode(&body[5..]).unwrap();
        let pem = |der: &Vec<u8>| {
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
        };
        let chain: String = signed.chain_der.iter().map(pem).collect();
        self.place.write("web.pem", &(chain + &key.serialize_pem()));
        "web.pem"
    }
}

/// A request for the identity of `web`, and its key.
fn request() -> (Vec<u8>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI("spiffe://story.example/ns/default/svc/web".try_into().unwrap())];
    (params.serialize_request(&key).unwrap().der().to_vec(), key)
}

/// The ways to the port; the last word is the scheme.
const CLEAR: [&[&str]; 2] = [&["--http2-prior-knowledge", "http"], &["--http1.1", "http"]];
const TLS: &[&str] = &["--http2", "https"];

/// A sidecar that says that it stands beside this service.
fn claiming(service: &str) -> Vec<u8> {
    let text = |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) };
    let fields = [("namespace", "default"), ("service", service)].map(|(name, value)| (name.to_owned(), text(value)));
    let node = Node {
        id: "web-1".into(),
        cluster: "sidecar".into(),
        metadata: Some(prost_types::Struct { fields: fields.into_iter().collect() }),
        ..Node::default()
    };
    let listeners = "type.googleapis.com/heddle.config.v1.Listener".into();
    DeltaDiscoveryRequest { node: Some(node), type_url: listeners, ..DeltaDiscoveryRequest::default() }.encode_to_vec()
}

#[test]
fn beyond_loopback_the_control_plane_speaks_tls_alone_and_tells_nothing_to_who_has_no_identity() {
    let mut world = World::start();
    let unproven = SignRequest { csr_der: request().0, proof: None }.encode_to_vec();
    let watch = WatchBundlesRequest { node: "web-1".into(), ..WatchBundlesRequest::default() }.encode_to_vec();
    let calls = [(DISCOVERY, claiming("web")), (SIGN, unproven), (BUNDLES, watch), (ADMIN, Vec::new())];
    let key = format!("x-api-key: {KEY}");

    for (path, message) in &calls {
        for way in CLEAR {
            let with_key = [&["-H", &*key], way].concat();
            assert_eq!(world.status(&with_key, path, message), None, "{path} in clear, {way:?}");
        }
        assert_eq!(world.status(TLS, path, message).as_deref(), Some(UNAUTHENTICATED), "{path} without a certificate");
    }
    // A certificate that somebody has made for himself opens no connection, not even for a call that needs none.
    let forged = Authority::new().issue(&["spiffe://story.example/ns/default/svc/web"]);
    world.place.write("forged.pem", &(forged.certificate + &forged.key));
    for (path, message) in &calls {
        let way = ["--cert", "forged.pem", "-H", &key, "--http2", "https"];
        assert_eq!(world.status(&way, path, message), None, "{path} with a certificate of another authority");
    }

    let own = world.join();
    let member = ["--cert", own, "--http2", "https"];
    for (path, message) in calls.iter().filter(|(path, _)| *path != ADMIN) {
        assert_eq!(world.status(&member, path, message).as_deref(), Some(OK), "{path} with the certificate of web");
    }
    assert_eq!(world.status(&member, DISCOVERY, &claiming("api")).as_deref(), Some(PERMISSION_DENIED), "as somebody else");

    // Operators prove themselves by their key, over TLS; a workload is no operator.
    assert_eq!(world.status(&member, ADMIN, &[]).as_deref(), Some(UNAUTHENTICATED), "a certificate is no admin key");
    assert_eq!(world.status(&["-H", &key, "--http2", "https"], ADMIN, &[]).as_deref(), Some(OK));
    let host = world.network.host(0);
    let nodes = |arguments: &[&str]| world.heddle(&host, &[&["nodes"], arguments].concat()).status.success();
    let server = format!("https://{XDS}");
    assert!(nodes(&["--server", &server, "--bundle", "cp/roots-of-control-plane.pem"]));
    assert!(!nodes(&["--server", &format!("http://{XDS}")]));
    assert!(!nodes(&["--server", &server]), "nobody says by what to know it");

    // The Admin API of REST is HTTP with keys, and opens beyond loopback to nobody else.
    let rest = |arguments: &[&str]| {
        String::from_utf8(world.curl(&[&["-o", "body", "-w", "%{http_code}"], arguments].concat()).stdout).unwrap()
    };
    assert_eq!(rest(&[REST]), "401");
    assert_eq!(rest(&["--cert", own, REST]), "401");
    assert_eq!(rest(&["-H", "X-API-KEY: guessed-key", REST]), "401");
    assert_eq!(rest(&["-H", &format!("X-API-KEY: {KEY}"), REST]), "200");
    assert!(world.control.is_running(), "{}", world.control.output());
    world.control.kill();
    let text = std::fs::read_to_string(world.place.path("cp.yaml")).unwrap();
    let keyless: String = text.lines().filter(|line| !line.starts_with("admin:")).map(|line| format!("{line}\n")).collect();
    world.place.write("open.yaml", &(keyless + "admin: { address: \"0.0.0.0:9180\" }\n"));
    let refused = world
        .network
        .inside(&world.network.router(), binary())
        .args(["controlplane", "-c", "open.yaml"])
        .current_dir(world.place.folder.path())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("no admin key is configured"),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
}

/// Users that are not ours.
const GUEST: &str = "65533";
const STRANGER: &str = "65534";

/// Whether a process of a user is handed the identity of the sidecar, by the specification's own call.
fn is_handed(user: &str, socket: &Path) -> bool {
    let socket = socket.display().to_string();
    let fetch = "http://localhost/SpiffeWorkloadAPI/FetchX509SVID";
    let mut child = Command::new("setpriv")
        .args(["--reuid", user, "--regid", user, "--clear-groups", "curl", "-s", "-N", "-m", "20", "--http2-prior-knowledge"])
        .args(["--unix-socket", &socket, "-H", "content-type: application/grpc", "-H", "te: trailers"])
        .args(["-H", "workload.spiffe.io: true", "--data-binary", "@-", fetch])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("setpriv and curl are installed");
    // An empty message; who is refused at once may have gone before it is written.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), &[0; 5]);
    let (mut told, mut piece) = (Vec::new(), [0; 4096]);
    let is_told = |told: &[u8]| told.windows(9).any(|part| part == b"spiffe://");
    let mut output = child.stdout.take().unwrap();
    while !is_told(&told) {
        match output.read(&mut piece).unwrap() {
            0 => break,
            read => told.extend_from_slice(&piece[..read]),
        }
    }
    // It would listen for the next identity.
    let _ = child.kill();
    let _ = child.wait();
    is_told(&told)
}

#[test]
fn the_identity_of_a_sidecar_is_handed_to_its_own_user_and_to_those_who_are_named() {
    let mesh = Mesh::start("");
    let place = &mesh.control.place;
    // All users may go as far as the sockets.
    std::fs::set_permissions(place.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let app = Nginx::saying("yes");
    let begin = |name: &str, uids: &str| {
        let socket = place.path(&format!("{name}.sock"));
        let more = format!("identity: {{ workload_api: \"{}\"{uids} }}\n", socket.display());
        (mesh.sidecar(&Service { more: &more, ..Service::http(name, app.address) }), socket)
    };
    let ((own, closed), (named, shared)) = (begin("own", ""), begin("named", &format!(", workload_api_uids: [{GUEST}]")));
    for (user, socket, handed) in
        [("0", &closed, true), (GUEST, &closed, false), ("0", &shared, true), (GUEST, &shared, true), (STRANGER, &shared, false)]
    {
        assert_eq!(is_handed(user, socket), handed, "{user} at {}", socket.display());
    }
    let warned = "another user asked for our identity";
    until("the refusal in the log", || named.process.output().contains(warned).then_some(()));
    assert!(named.process.output().contains(STRANGER) && !own.process.output().contains(warned));

    // Who may is not a matter of the mode of the file: opened to all, it is answered to none but its own.
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(!is_handed(GUEST, &closed) && is_handed("0", &closed));
    until("the refusal in the log", || own.process.output().contains(warned).then_some(()));
}
