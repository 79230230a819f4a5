//! Who gets an identity of a control plane, over TLS and as operators see it: a separate process, the command line, and a small client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, SystemTime};

use base64::Engine;
use heddle_integration::certificates::Files;
use heddle_integration::envoy::{Envoy, Way};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::{PATIENCE, until};
use heddle_node::identity::{Bundle, Bundles, Expect, Identity, SpiffeId, Svid, TrustDomain};
use heddle_proto::envoy::config::core::v3::Node;
use heddle_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use heddle_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use heddle_proto::heddle::identity::v1::identity_service_client::IdentityServiceClient;
use heddle_proto::heddle::identity::v1::sign_request::Proof;
use heddle_proto::heddle::identity::v1::{SignRequest, SignResponse, WatchBundlesRequest};
use heddle_xds::link::Connector;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

const WEB: &str = "spiffe://heddle.local/ns/default/svc/web";
const API: &str = "spiffe://heddle.local/ns/default/svc/api";

fn control_plane(identity: &str) -> Heddle {
    Heddle::control_plane(Setup { more: format!("identity: {identity}\n"), ..Setup::default() })
}

/// Runs a command that has to succeed; its output.
fn say(heddle: &Heddle, arguments: &[&str]) -> String {
    let output = heddle.cli(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(heddle: &Heddle, arguments: &[&str]) -> Value {
    serde_json::from_str(&say(heddle, &[arguments, &["-o", "json"]].concat())).unwrap()
}

fn token(heddle: &Heddle, more: &[&str]) -> String {
    say(heddle, &[&["token", "create", "--service", "web"], more].concat()).trim().to_owned()
}

/// Waits until a token is no longer good, as the list of tokens says.
async fn until_expired(heddle: &Heddle, token: &str) {
    let listed = json(heddle, &["token", "list"]);
    let listed = listed.as_array().unwrap().iter().find(|listed| token.split('.').nth(1) == listed["id"].as_str()).unwrap();
    let expires: prost_types::Timestamp = listed["expires"].as_str().unwrap().parse().unwrap();
    let left = SystemTime::try_from(expires).unwrap().duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left).await;
}

/// The newest refusal.
fn refusal(heddle: &Heddle) -> Value {
    json(heddle, &["ca", "audit", "--refused", "-n", "1"])[0].clone()
}

/// A process that knows the roots of this control plane, and is nobody yet.
fn stranger(heddle: &Heddle) -> Identity {
    let identity = Identity::new();
    identity.set_bundles(Bundles::new(Bundle::from_pem(domain(), &say(heddle, &["ca", "export"])).unwrap()));
    identity
}

fn domain() -> TrustDomain {
    TrustDomain::new("heddle.local").unwrap()
}

fn connector(heddle: &Heddle, identity: &Identity) -> Connector {
    let server = SpiffeId::service(&domain(), "heddle", "controlplane").unwrap();
    let (address, expect) = (heddle.xds.to_string(), Expect::AnyOf(vec![server]));
    match identity.svid() {
        Some(_) => Connector::tls(&address, identity, expect).unwrap(),
        None => Connector::joining(&address, identity, expect).unwrap(),
    }
}

fn request(id: &str) -> (Vec<u8>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    (params.serialize_request(&key).unwrap().der().to_vec(), key)
}

async fn sign(heddle: &Heddle, identity: &Identity, id: &str, token: Option<&str>) -> Result<(SignResponse, KeyPair), Status> {
    let (csr_der, key) = request(id);
    let mut client = IdentityServiceClient::new(connector(heddle, identity).connect().await.unwrap());
    let proof = token.map(|token| Proof::JoinToken(token.to_owned()));
    Ok((client.sign(SignRequest { csr_der, proof }).await?.into_inner(), key))
}

/// Takes a signed identity into use.
fn become_it(identity: &Identity, signed: SignResponse, key: &KeyPair) {
    let chain = signed.chain_der.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    identity.set_svid(Svid::new(chain, key).unwrap());
}

async fn joined(heddle: &Heddle) -> Identity {
    let identity = stranger(heddle);
    let (signed, key) = sign(heddle, &identity, WEB, Some(&token(heddle, &[]))).await.unwrap();
    become_it(&identity, signed, &key);
    identity
}

#[tokio::test]
async fn a_service_joins_with_a_token_and_renews_with_what_it_got() {
    let heddle = control_plane("{}");
    let identity = joined(&heddle).await;
    let (renewed, _) = sign(&heddle, &identity, WEB, None).await.unwrap();
    assert_eq!(renewed.spiffe_id, WEB);
    let (from, until) = (renewed.not_before.unwrap().seconds, renewed.not_after.unwrap().seconds);
    let now = renewed.server_time.unwrap().seconds;
    assert!((now - from - 300).abs() <= 1 && (until - now - 86_400).abs() <= 1, "{from} {now} {until}");
    let audit = json(&heddle, &["ca", "audit"]);
    assert_eq!((audit[0]["proof"].as_str(), audit[0]["subject"].as_str()), (Some("identity"), Some(WEB)));
    assert_eq!((audit[1]["proof"].as_str(), audit[2]["proof"].as_str()), (Some("token"), Some("own")));
    assert!(say(&heddle, &["token", "list"]).contains(WEB));
    let shown = say(&heddle, &["ca", "show"]);
    assert!(shown.contains("trust domain heddle.local") && shown.contains("signs"), "{shown}");
}

#[tokio::test]
async fn who_cannot_prove_it_is_refused_and_written_down() {
    let heddle = control_plane("{}");
    let nobody = stranger(&heddle);
    let refused = async |identity: &Identity, id: &str, token: Option<&str>, code: Code, verdict: &str| {
        let status = sign(&heddle, identity, id, token).await.err().unwrap();
        assert_eq!(status.code(), code, "{status}");
        let entry = refusal(&heddle);
        assert_eq!((entry["verdict"].as_str(), entry["spiffe_id"].as_str()), (Some(verdict), Some(id)), "{entry:#}");
        assert!(entry["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    };
    refused(&nobody, WEB, None, Code::Unauthenticated, "no-proof").await;
    refused(&nobody, WEB, Some("hj1.000000000000.guess"), Code::Unauthenticated, "token-unknown").await;
    refused(&nobody, API, Some(&token(&heddle, &[])), Code::PermissionDenied, "other-identity").await;

    let once = token(&heddle, &[]);
    sign(&heddle, &nobody, WEB, Some(&once)).await.unwrap();
    refused(&nobody, WEB, Some(&once), Code::Unauthenticated, "token-used").await;

    let short = token(&heddle, &["--ttl", "1s"]);
    until_expired(&heddle, &short).await;
    refused(&nobody, WEB, Some(&short), Code::Unauthenticated, "token-expired").await;

    let revoked = token(&heddle, &[]);
    let id = revoked.split('.').nth(1).unwrap();
    say(&heddle, &["token", "revoke", id]);
    refused(&nobody, WEB, Some(&revoked), Code::Unauthenticated, "token-unknown").await;

    let web = joined(&heddle).await;
    refused(&web, API, None, Code::PermissionDenied, "other-identity").await;
}

#[tokio::test]
async fn a_foreign_authority_opens_no_connection() {
    let (ours, theirs) = (control_plane("{}"), control_plane("{}"));
    let foreign = joined(&theirs).await;
    assert!(connector(&ours, &foreign).connect().await.is_err(), "the server is nobody it trusts");
    // It trusts us, but shows a certificate of theirs.
    foreign.set_bundles(Bundles::clone(&stranger(&ours).bundles()));
    let failed = match connector(&ours, &foreign).connect().await {
        Ok(channel) => {
            IdentityServiceClient::new(channel).sign(SignRequest { csr_der: request(WEB).0, proof: None }).await.is_err()
        }
        Err(_) => true,
    };
    assert!(failed);
    until("the audit", || (refusal(&ours)["verdict"] == "certificate").then_some(()));
}

#[tokio::test]
async fn a_node_is_told_nothing_when_it_claims_to_be_another() {
    let heddle = control_plane("{}");
    let web = joined(&heddle).await;
    let ask = async |service: &str, role: &str| {
        let channel = connector(&heddle, &web).connect().await.unwrap();
        let fields = [("namespace", "default"), ("service", service)].map(|(name, text)| (name.to_owned(), value(text)));
        let node = Node {
            id: "web-1".into(),
            cluster: role.into(),
            metadata: Some(prost_types::Struct { fields: fields.into_iter().collect() }),
            ..Node::default()
        };
        let first = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: "type.googleapis.com/heddle.config.v1.Listener".into(),
            ..DeltaDiscoveryRequest::default()
        };
        let (sender, receiver) = mpsc::channel(1);
        sender.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let mut answers = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await?.into_inner();
        let answer = answers.message().await;
        drop(sender);
        answer.map(drop)
    };
    assert_eq!(ask("api", "sidecar").await.unwrap_err().code(), Code::PermissionDenied);
    until("the audit", || (refusal(&heddle)["verdict"] == "other-identity").then_some(()));
    assert_eq!(ask("web", "gateway").await.unwrap_err().code(), Code::PermissionDenied, "gateways are shown private keys");
    ask("web", "sidecar").await.unwrap();
}

fn value(text: &str) -> prost_types::Value {
    prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) }
}

/// Looks at the authority until it is as expected. This thread carries connections of the story as well, and gets to them between two looks.
async fn shown_when(heddle: &Heddle, what: &str, expected: impl Fn(&Value) -> bool) -> Value {
    let look = async {
        loop {
            let shown = json(heddle, &["ca", "show"]);
            if expected(&shown) {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("still waiting for {what}"))
}

#[tokio::test]
async fn a_root_is_replaced_while_nodes_watch_and_after_a_restart() {
    let mut heddle = control_plane("{ svid_ttl: 10s, clock_skew: 1s, ca: { spread: 1s } }");
    let web = joined(&heddle).await;
    let channel = connector(&heddle, &web).connect().await.unwrap();
    let (sender, receiver) = mpsc::channel(4);
    let hold = |version: &str| WatchBundlesRequest {
        held_version: version.to_owned(),
        node: "web-1".into(),
        ..WatchBundlesRequest::default()
    };
    sender.send(hold("")).await.unwrap();
    let mut client = IdentityServiceClient::new(channel);
    let mut told = client.watch_bundles(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let first = told.message().await.unwrap().unwrap().bundles.unwrap();
    sender.send(hold(&first.version)).await.unwrap();

    say(&heddle, &["ca", "rotate"]);
    let second = told.message().await.unwrap().unwrap().bundles.unwrap();
    assert_eq!((first.bundles[0].roots_der.len(), second.bundles[0].roots_der.len()), (1, 2));
    let shown = shown_when(&heddle, "only web-1 to be waited for", |shown| {
        let waits = shown["waits_for"].as_array().unwrap();
        waits.len() == 1 && waits[0].as_str().unwrap().contains("web-1")
    });
    assert_eq!(shown.await["phase"], "spreading", "web-1 has not confirmed it");
    sender.send(hold(&second.version)).await.unwrap();
    shown_when(&heddle, "the new root to sign", |shown| shown["phase"] == "retiring").await;
    drop((sender, told));
    heddle.restart();
    assert_eq!(json(&heddle, &["ca", "show"])["roots"].as_array().unwrap().len(), 2);
    until("the old root to go", || (json(&heddle, &["ca", "show"])["phase"] == "steady").then_some(()));
    let signed = joined(&heddle).await;
    assert!(sign(&heddle, &signed, WEB, None).await.is_ok());
}

#[test]
fn the_command_line_knows_a_control_plane_by_its_roots() {
    let heddle = Heddle::control_plane(Setup { more: "identity: {}\n".into(), ..Setup::default() });
    let pem = say(&heddle, &["ca", "export"]);
    heddle.place.write("root.pem", &pem);
    let other = Heddle::control_plane(Setup { more: "identity: {}\n".into(), ..Setup::default() });
    other.place.write("root.pem", &pem);
    let ask = |heddle: &Heddle, more: &[&str]| {
        let server = format!("https://{}", heddle.xds);
        let arguments = [&["nodes", "--server", &server, "--key", heddle_integration::heddle::KEY], more].concat();
        std::process::Command::new(heddle_integration::heddle::binary())
            .args(arguments)
            .current_dir(heddle.place.folder.path())
            .output()
            .unwrap()
    };
    assert!(ask(&heddle, &["--bundle", "root.pem"]).status.success());
    assert!(!ask(&heddle, &[]).status.success());
    assert!(!ask(&other, &["--bundle", "root.pem"]).status.success(), "it is another control plane");
}

#[tokio::test]
async fn an_envoy_with_an_identity_follows_over_mutual_tls() {
    let nginx = Nginx::saying("up");
    let heddle = control_plane("{ gateways: [ default/web ] }");
    let (signed, key) = sign(&heddle, &stranger(&heddle), WEB, Some(&token(&heddle, &[]))).await.unwrap();
    let pem = |der: &Vec<u8>| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    let files = Files {
        chain: heddle.place.write("envoy.crt", &signed.chain_der.iter().map(pem).collect::<String>()),
        key: heddle.place.write("envoy.key", &key.serialize_pem()),
        roots: heddle.place.write("roots.pem", &say(&heddle, &["ca", "export"])),
    };
    heddle.route("r", "/hello", nginx.address);
    for way in [Way::DeltaAds, Way::SotwAds] {
        let control_id = "spiffe://heddle.local/ns/heddle/svc/controlplane";
        let envoy = Envoy::prove(heddle.xds, control_id, "envoy-1", way, &files);
        envoy.until_live();
        assert_eq!(heddle.until_status("/hello", 200).text(), "up");
        let node = heddle.admin("GET", "/nodes", Value::Null).json()[0].clone();
        assert_eq!(
            (node["service"].as_str(), node["speaks"].as_str()),
            (Some("web"), Some("envoy")),
            "by its certificate: {node}"
        );
    }
}
