//! Whoever is refused at the door of a sidecar, or is not whom a sidecar has called, stands in the audit of the control plane beside those that it has refused itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use base64::Engine;
use heddle_integration::client::{self, raw};
use heddle_integration::heddle::KEY;
use heddle_integration::mesh::{DOMAIN, Mesh, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::{PATIENCE, until};
use heddle_node::identity::{Bundle, Bundles, Expect, Identity, SpiffeId, Svid, TrustDomain, nameless};
use heddle_proto::heddle::identity::v1::SignRequest;
use heddle_proto::heddle::identity::v1::identity_service_client::IdentityServiceClient;
use heddle_proto::heddle::identity::v1::sign_request::Proof;
use heddle_xds::link::Connector;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

/// The refusals that the audit lists with this verdict.
fn listed(mesh: &Mesh, verdict: &str) -> Vec<Value> {
    let output = mesh.control.cli(&["ca", "audit", "--refused", "-n", "100", "-o", "json"]);
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    entries.into_iter().filter(|entry| entry["verdict"] == verdict).collect()
}

/// The one with this verdict, once it is there.
fn audited(mesh: &Mesh, verdict: &str) -> Value {
    until(&format!("{verdict} in the audit"), || listed(mesh, verdict).into_iter().next())
}

/// By how much the clock of a node is ahead, as its line ends with it: a sign, seconds, and tenths of them.
fn clock_of(line: &str) -> f64 {
    let told = line.trim_end().strip_suffix(" s").and_then(|rest| rest.rsplit(' ').next()).unwrap_or_default();
    let (seconds, tenths) = told.strip_prefix(['+', '-']).and_then(|rest| rest.split_once('.')).unwrap_or_default();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    assert!(digits(seconds) && digits(tenths) && tenths.len() == 1, "expected a sign and tenths of seconds: {line:?}");
    told.parse().unwrap()
}

fn roots(mesh: &Mesh) -> String {
    String::from_utf8(mesh.control.cli(&["ca", "export"]).stdout).unwrap()
}

/// A process that trusts this mesh, and is nobody.
fn nobody(mesh: &Mesh) -> Identity {
    nobody_of(mesh, DOMAIN)
}

fn nobody_of(mesh: &Mesh, domain: &str) -> Identity {
    let identity = Identity::new();
    identity.set_bundles(Bundles::new(Bundle::from_pem(TrustDomain::new(domain).unwrap(), &roots(mesh)).unwrap()));
    identity
}

fn named(id: &str) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    (params, KeyPair::generate().unwrap())
}

fn become_it(identity: &Identity, chain: Vec<CertificateDer<'static>>, key: &KeyPair) {
    identity.set_svid(Svid::new(chain, PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()))).unwrap());
}

/// Somebody who has made this identity for itself.
fn pretender(mesh: &Mesh, id: &str) -> Identity {
    let (identity, (params, key)) = (nobody(mesh), named(id));
    become_it(&identity, vec![params.self_signed(&key).unwrap().der().clone()], &key);
    identity
}

/// What a member of a mesh is given: its certificates and its key.
fn issued(mesh: &Mesh, domain: &str, service: &str) -> (Vec<CertificateDer<'static>>, KeyPair) {
    let (identity, (params, key)) = (nobody_of(mesh, domain), named(&format!("spiffe://{domain}/ns/default/svc/{service}")));
    let control_plane = SpiffeId::service(&TrustDomain::new(domain).unwrap(), "heddle", "controlplane").unwrap();
    let request = SignRequest {
        csr_der: params.serialize_request(&key).unwrap().der().to_vec(),
        proof: Some(Proof::JoinToken(mesh.token(service))),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let signed = runtime.block_on(async {
        let connector = Connector::joining(&mesh.control.xds.to_string(), &identity, Expect::AnyOf(vec![control_plane])).unwrap();
        IdentityServiceClient::new(connector.connect().await.unwrap()).sign(request).await.unwrap().into_inner()
    });
    (signed.chain_der.into_iter().map(CertificateDer::from).collect(), key)
}

/// A member that never renews.
fn member(mesh: &Mesh, service: &str) -> Identity {
    let (identity, (chain, key)) = (nobody(mesh), issued(mesh, DOMAIN, service));
    become_it(&identity, chain, &key);
    identity
}

/// Whether a sidecar lets somebody in, told by what it says to the beginning of HTTP/2.
fn is_let_in(identity: &Identity, address: SocketAddr) -> bool {
    let config = identity.client_config(Expect::TrustDomain, &[b"heddle-h2"]);
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(config, nameless()).unwrap(), stream);
    let begun = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    begun.is_ok() && matches!(stream.read(&mut [0; 64]), Ok(1..))
}

#[test]
fn who_is_refused_at_the_door_of_a_sidecar_stands_in_the_audit() {
    let mesh = Mesh::start(", svid_ttl: 10s, clock_skew: 1s");
    let app = Nginx::saying("secret");
    let api = mesh.sidecar(&Service::http("api", app.address));
    let web = member(&mesh, "web");
    assert!(is_let_in(&web, api.inbound), "a member is let in");

    assert!(!is_let_in(&nobody(&mesh), api.inbound));
    let entry = audited(&mesh, "peer-no-certificate");
    assert_eq!((&entry["proof"], &entry["spiffe_id"]), (&"none".into(), &format!("spiffe://{DOMAIN}/ns/default/svc/api").into()));
    assert!(entry["detail"].as_str().unwrap().starts_with("by api: ") && entry["peer"] == "127.0.0.1", "{entry:#}");

    let foreign = "spiffe://partner.example/ns/default/svc/web";
    assert!(!is_let_in(&pretender(&mesh, foreign), api.inbound));
    assert_eq!(audited(&mesh, "peer-foreign-domain")["subject"], foreign);

    let forged = format!("spiffe://{DOMAIN}/ns/default/svc/web");
    assert!(!is_let_in(&pretender(&mesh, &forged), api.inbound));
    assert_eq!(audited(&mesh, "peer-untrusted")["subject"], forged.as_str(), "whatever name it has given itself");

    assert_eq!(raw(api.inbound, b"GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n"), "");
    assert!(audited(&mesh, "peer-plaintext")["detail"].as_str().unwrap().contains("strict"));

    until("the certificate to expire", || (!is_let_in(&web, api.inbound)).then_some(()));
    assert_eq!(audited(&mesh, "peer-expired")["subject"], forged.as_str());

    // Who comes again and again is one entry, not a flood that pushes others out.
    for _ in 0..50 {
        assert!(!is_let_in(&nobody(&mesh), api.inbound));
    }
    assert!(!is_let_in(&pretender(&mesh, "spiffe://other.example/ns/default/svc/web"), api.inbound));
    until("the last of them", || (listed(&mesh, "peer-foreign-domain").len() == 2).then_some(()));
    assert_eq!(listed(&mesh, "peer-no-certificate").len(), 1);
    let shown = String::from_utf8_lossy(&mesh.control.cli(&["ca", "show"]).stdout).into_owned();
    assert!(shown.contains("EXPIRES") && shown.contains("CLOCK"), "{shown}");
    let apart: Vec<f64> = shown.lines().filter(|line| line.contains("/svc/api ")).map(clock_of).collect();
    assert!(
        !apart.is_empty() && apart.iter().all(|apart| apart.abs() < 10.0),
        "it is the same clock, told by who may be slow: {shown}"
    );
    let metrics = client::send(mesh.control.admin, "GET", "/admin/metrics", &[("X-API-KEY", KEY)], b"").unwrap().text();
    assert!(metrics.contains("heddle_identity_nodes_earliest_expiry_timestamp_seconds"), "{metrics}");
    assert!(metrics.contains("heddle_identity_nodes_clock_skew_milliseconds"), "{metrics}");
}

#[test]
fn an_instance_that_is_another_service_gets_nothing_and_stands_in_the_audit() {
    let mut mesh = Mesh::start("");
    let (app, other) = (Nginx::saying("api"), Nginx::saying("thief"));
    let mut api = mesh.sidecar(&Service::http("api", app.address));
    let kept = "identity: { persist: true }\n";
    let mut thief = mesh.sidecar(&Service { more: kept, ..Service::http("thief", other.address) });
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    mesh.until_kept(&thief, &[]);
    // While nobody can say that api is gone, another member of the mesh takes its address.
    let place = &mesh.control.place;
    let text = std::fs::read_to_string(place.path("thief.yaml")).unwrap();
    place.write("thief.yaml", &text.replace(&thief.inbound.to_string(), &api.inbound.to_string()));
    mesh.control.process.kill();
    api.process.kill();
    thief.restart();
    let answer = until("an answer", || client::get(web.outbound[0], "/").ok().filter(|answer| answer.status == 502));
    assert!(!answer.text().contains("thief"), "{}", answer.text());
    mesh.control.start_again();
    let entry = audited(&mesh, "peer-wrong-identity");
    assert_eq!(entry["subject"], format!("spiffe://{DOMAIN}/ns/default/svc/thief").as_str());
    assert_eq!(entry["spiffe_id"], format!("spiffe://{DOMAIN}/ns/default/svc/web").as_str(), "who has refused it");
    assert!(entry["detail"].as_str().unwrap().contains("expected spiffe://story.example/ns/default/svc/api"), "{entry:#}");
}

#[test]
fn who_names_itself_to_a_door_stands_in_the_audit_whichever_door_it_is() {
    let mesh = Mesh::in_one("");
    let app = telling();
    let api = mesh.sidecar(&Service { inbound: ", mode: permissive", ..Service::http("api", app.address) });
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.control.put("/upstreams/api", json!({ "discovery_type": "mesh", "service_name": "api" }));
    mesh.control.put("/routes/all", json!({ "uri": "/*", "upstream_id": "api" }));
    mesh.until_reached(&web, "/");
    mesh.control.until_status("/", 200);
    let forged = [("X-Forwarded-Client-Cert", "URI=spiffe://story.example/ns/default/svc/admin")];
    for (door, who) in [(api.inbound, "api"), (web.outbound[0], "web"), (mesh.control.http, "gateway")] {
        let answer = client::send(door, "GET", "/", &forged, b"").unwrap();
        assert!(answer.status == 200 && !answer.text().contains("admin"), "{}", answer.text());
        let id = format!("spiffe://{DOMAIN}/ns/default/svc/{who}");
        let entry = until(&format!("{who} in the audit"), || {
            listed(&mesh, "peer-spoofed-client-cert").into_iter().find(|entry| entry["spiffe_id"] == id.as_str())
        });
        assert!(entry["detail"].as_str().unwrap().contains("was taken off"), "{entry:#}");
    }
}

#[test]
fn the_gateway_beside_a_control_plane_tells_of_an_instance_that_is_another_service() {
    let mesh = Mesh::in_one("");
    let app = Nginx::saying("thief");
    let thief = mesh.sidecar(&Service::http("thief", app.address));
    let elsewhere = format!(", advertise: \"{}\"", thief.inbound);
    let _api = mesh.sidecar(&Service { inbound: &elsewhere, ..Service::http("api", app.address) });
    mesh.control.put("/upstreams/api", json!({ "discovery_type": "mesh", "service_name": "api" }));
    mesh.control.put("/routes/all", json!({ "uri": "/*", "upstream_id": "api" }));
    mesh.control.until_status("/", 502);
    let entry = audited(&mesh, "peer-wrong-identity");
    assert_eq!(entry["subject"], format!("spiffe://{DOMAIN}/ns/default/svc/thief").as_str());
    assert_eq!(entry["spiffe_id"], format!("spiffe://{DOMAIN}/ns/default/svc/gateway").as_str(), "who has refused it");
    assert!(entry["detail"].as_str().unwrap().starts_with("by gw-1: "), "{entry:#}");
}

/// A member of another trust domain.
struct Partner {
    _theirs: Mesh,
    folder: tempfile::TempDir,
}

impl Partner {
    fn new() -> Partner {
        let theirs = Mesh::of_domain("partner.example", "");
        let folder = tempfile::tempdir().unwrap();
        let pem = |der: &CertificateDer<'_>| {
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        let (chain, key) = issued(&theirs, "partner.example", "shop");
        for (name, text) in [
            ("partner.pem", roots(&theirs)),
            ("shop.pem", chain.iter().map(pem).collect::<String>()),
            ("shop.key", key.serialize_pem()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Partner { _theirs: theirs, folder }
    }

    /// A mesh of ours that is federated with theirs.
    fn federated(&self) -> Mesh {
        let bundle = self.folder.path().join("partner.pem");
        Mesh::start(&format!(", federation: [ {{ trust_domain: partner.example, bundle_file: \"{}\" }} ]", bundle.display()))
    }

    /// What the member of theirs is answered, and the status behind it.
    fn ask(&self, at: std::net::SocketAddr) -> String {
        // Whom it calls a client of another make can know by its roots; here it is the callee that judges.
        let [certificate, key] = ["shop.pem", "shop.key"].map(|name| self.folder.path().join(name));
        let output = Command::new("curl")
            .args(["-sS", "-k", "--max-time", "20", "-w", " %{http_code}", &format!("https://{at}/"), "--cert"])
            .arg(certificate)
            .arg("--key")
            .arg(key)
            .output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    }
}

/// An application that tells who called it.
fn telling() -> Nginx {
    Nginx::start("location / { return 200 '$http_x_forwarded_client_cert'; }")
}

#[test]
fn an_envoy_lets_members_of_partners_in_where_it_says_that_it_does() {
    let partner = Partner::new();
    let mesh = partner.federated();
    let app = telling();
    let envoy = |name: &str, federated: bool| {
        let inbound = mesh.control.place.address();
        let instance = json!({ "address": inbound.ip(), "port": inbound.port(), "protocol": "http" });
        let metadata = json!({ "role": "sidecar", "federated": federated, "application": app.address, "instance": instance });
        mesh.envoy_member(heddle_integration::envoy::Way::DeltaAds, name, name, metadata, (inbound, Vec::new()))
    };
    let (open, closed) = (envoy("open", true), envoy("closed", false));
    let web = mesh.sidecar(&Service { calls: &["open", "closed"], ..Service::http("web", mesh.control.place.address()) });
    for at in &web.outbound {
        until("a member of ours", || client::get(*at, "/").ok().filter(|answer| answer.status == 200));
    }
    let answer = until("the partner to be known", || Some(partner.ask(open.inbound)).filter(|answer| answer.ends_with(" 200")));
    assert!(answer.contains("URI=spiffe://partner.example/ns/default/svc/shop"), "{answer}");
    assert!(partner.ask(closed.inbound).ends_with(" 000"), "no handshake");
    let ours = json!([{ "from": [ { "namespaces": ["default"] } ] }]);
    mesh.policy("ours", json!({ "service": "open", "action": "allow", "rules": ours }));
    until("only ours", || partner.ask(open.inbound).ends_with(" 403").then_some(()));
    assert_eq!(client::get(web.outbound[0], "/").unwrap().status, 200);
    let shop = json!([{ "from": [ { "identities": ["spiffe://partner.example/ns/default/svc/shop"] } ] }]);
    mesh.policy("theirs", json!({ "service": "open", "action": "allow", "rules": shop }));
    until("the partner again", || partner.ask(open.inbound).ends_with(" 200").then_some(()));
}

#[test]
fn a_member_of_a_partner_is_let_in_by_its_own_name_and_by_nothing_else() {
    let partner = Partner::new();
    let mesh = partner.federated();
    let app = telling();
    let api = mesh.sidecar(&Service::http("api", app.address));
    let ask = || partner.ask(api.inbound);
    let answer = until("the partner to be known", || Some(ask()).filter(|answer| answer.ends_with(" 200")));
    assert!(answer.contains("URI=spiffe://partner.example/ns/default/svc/shop"), "{answer}");

    // A namespace of ours is none of theirs, and a share is one of that caller.
    let limit = json!({ "count": 2, "time_window": 3600, "key": "mesh_peer", "rejected_code": 429 });
    mesh.control.put("/mesh_services/api", json!({ "inbound_plugins": { "limit-count": limit } }));
    until("the partner to have had its share", || ask().ends_with(" 429").then_some(()));
    mesh.policy(
        "ours",
        json!({ "service": "api", "action": "allow", "rules": [ { "from": [ { "namespaces": ["default"] } ] } ] }),
    );
    until("only ours", || ask().ends_with(" 403").then_some(()));
    let whole = json!([{ "from": [ { "identities": ["spiffe://partner.example/ns/default/svc/shop"] } ] }]);
    mesh.policy("theirs", json!({ "service": "api", "action": "allow", "rules": whole }));
    until("the partner again", || ask().ends_with(" 429").then_some(()));
}

#[test]
fn a_service_of_a_partner_is_called_as_ours_are_and_nobody_passes_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let federated = |domain: &str, file: &str| {
        format!(", federation: [ {{ trust_domain: {domain}, bundle_file: \"{}\" }} ]", path(file).display())
    };
    let theirs = Mesh::of_domain("partner.example", &federated(DOMAIN, "ours.pem"));
    let ours = Mesh::start(&federated("partner.example", "theirs.pem"));
    std::fs::write(path("ours.pem"), roots(&ours)).unwrap();
    std::fs::write(path("theirs.pem"), roots(&theirs)).unwrap();
    let app = Nginx::start("location / { return 200 'cart for $http_x_forwarded_client_cert'; }");
    let secret = Nginx::saying("somebody else");
    let cart = theirs.sidecar(&Service::http("cart", app.address));
    let thief = theirs.sidecar(&Service::http("thief", secret.address));
    let api = ours.sidecar(&Service::http("api", secret.address));
    let web = ours.sidecar(&Service { calls: &["partner/cart"], ..Service::http("web", ours.control.place.address()) });
    let gateway = ours.gateway();

    let at = |callee: SocketAddr| {
        let nodes = json!([{ "host": callee.ip().to_string(), "port": callee.port(), "weight": 1 }]);
        let federated = json!({ "trust_domain": "partner.example", "service": "default/cart", "nodes": nodes });
        ours.control.put("/mesh_services/cart", json!({ "namespace": "partner", "protocol": "http", "federated": federated }));
    };
    at(cart.inbound);
    let answer = ours.until_reached(&web, "/").text();
    assert!(answer.starts_with("cart for ") && answer.contains(&format!("URI=spiffe://{DOMAIN}/ns/default/svc/web")), "{answer}");
    let upstream = json!({ "discovery_type": "mesh", "service_name": "partner/cart", "type": "roundrobin" });
    ours.control.put("/upstreams/cart", upstream);
    ours.control.put("/routes/cart", json!({ "uri": "/*", "upstream_id": "cart" }));
    assert!(ours.control.until_status("/", 200).text().contains(&format!("URI=spiffe://{DOMAIN}/ns/default/svc/gateway")));

    // Who may call it is for the partner to say.
    let callers = json!([{ "from": [ { "identities": [format!("spiffe://{DOMAIN}/ns/default/svc/web")] } ] }]);
    theirs.policy("cart", json!({ "service": "cart", "action": "allow", "rules": callers }));
    ours.control.until_status("/", 403);
    assert_eq!(client::get(web.outbound[0], "/").unwrap().status, 200);

    for (somebody, domain, name) in [(&thief, "partner.example", "thief"), (&api, DOMAIN, "api")] {
        at(somebody.inbound);
        let subject = format!("spiffe://{domain}/ns/default/svc/{name}");
        let entry = until(&format!("{name} in the audit"), || {
            let answer = client::get(web.outbound[0], "/").ok()?;
            assert!(!answer.text().contains("somebody"), "{}", answer.text());
            let by_web = |entry: &Value| entry["subject"] == *subject && entry["spiffe_id"].as_str().unwrap().ends_with("/web");
            listed(&ours, "peer-wrong-identity").into_iter().find(by_web)
        });
        assert_ne!(client::get(web.outbound[0], "/").unwrap().status, 200);
        assert!(entry["detail"].as_str().unwrap().contains("expected spiffe://partner.example/ns/default/svc/cart"), "{entry:#}");
    }
    at(cart.inbound);
    ours.until_reached(&web, "/");
    drop(gateway);
}
