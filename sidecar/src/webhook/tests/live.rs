//! The webhook over TLS, and the live configuration in an API server that records what it is asked.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, Request, StatusCode, header};
use base64::Engine;
use heddle_node::config::{Document, Expansion, Format};
use heddle_node::drain;
use heddle_node::identity::{Bundle, Bundles, Identity, TrustDomain};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::authorities::Authorities;
use super::super::kubernetes::{Service, patch};
use super::super::tls::{Keeper, Shown};
use super::super::{Running, WebhookSettings, start};

fn settings(text: &str) -> WebhookSettings {
    let document = Document::parse("heddle.yaml", text, Format::Yaml, Expansion::Off).unwrap();
    document.read(|root| root.nested("webhook", WebhookSettings::read)).unwrap()
}

/// Sends one request over TLS as an API server does, trusting `ca` only.
async fn post(address: SocketAddr, ca: &str, path: &str, kind: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in super::super::tls::certificates(ca)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "heddle.heddle-system.svc".try_into().unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let method = if body.is_empty() { Method::GET } else { Method::POST };
    let request = Request::builder().method(method).uri(path).header(header::HOST, "heddle").header(header::CONTENT_TYPE, kind);
    let response = sender.send_request(request.body(Body::from(body)).unwrap()).await.map_err(|error| error.to_string())?;
    let status = response.status();
    Ok((status, axum::body::to_bytes(Body::new(response.into_body()), 1 << 20).await.map_err(|error| error.to_string())?))
}

/// Waits for what comes by itself.
async fn until(holds: impl Fn() -> bool) {
    let done = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), done).await.unwrap();
}

/// The annotations and all else that a question is answered with.
async fn patch_of(address: SocketAddr, ca: &str) -> String {
    let question = include_bytes!("reviews/v1.36/create.json").to_vec();
    let (_, body) = post(address, ca, "/inject", "application/json", question).await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let patch = answer["response"]["patch"].as_str().unwrap().to_owned();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(patch).unwrap()).unwrap()
}

/// A CA, a certificate by it for the usual name, and its key: PEM.
fn issued(until: u64) -> (String, String, String) {
    let mut authorities = Authorities::default();
    authorities.turn(until - 1_000).unwrap();
    let serving = authorities.sign(&["heddle.heddle-system.svc".to_owned()], until - 1_000).unwrap();
    (authorities.bundle(), serving.certificate, serving.key)
}

#[tokio::test]
async fn a_certificate_of_others_is_taken_from_files_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |(ca, certificate, key): &(String, String, String)| {
        for (name, text) in [("ca.pem", ca), ("tls.crt", certificate), ("tls.key", key)] {
            std::fs::write(path(name), text).unwrap();
        }
    };
    let now = heddle_node::clock::unix_ms() / 1000;
    let first = issued(now);
    write(&first);
    let place = folder.path().display();
    let text = format!(
        "webhook: {{ address: \"127.0.0.1:0\", certificate: \"{place}/tls.crt\", key: \"{place}/tls.key\", ca: \"{place}/ca.pem\" }}"
    );
    let (_completion, watch) = drain::pair();
    let running = start(settings(&text), path("data"), None, watch).await.unwrap();
    assert_eq!(post(running.address, &first.0, "/ready", "", Vec::new()).await.unwrap().0, StatusCode::OK);
    assert!(!path("data").exists(), "no authority of our own is made");
    assert!(!(running.metrics)().contains("certificate_not_after_seconds 0\n"), "its end is known");

    let files = settings(&text).files.unwrap();
    let (mut keeper, shown) = (Keeper::open(&path("data"), Vec::new(), Some(files)).unwrap(), Shown::default());
    let tended = keeper.tend(&shown, now).unwrap();
    assert_eq!(tended.bundle.as_deref(), Some(&*first.0));
    let second = issued(now + 10);
    write(&second);
    assert_eq!(keeper.tend(&shown, now).unwrap().bundle.as_deref(), Some(&*second.0), "it is read anew");
    std::fs::write(path("tls.key"), &first.2).unwrap();
    assert!(keeper.tend(&shown, now).unwrap_err().contains("tls.crt: certificate and key do not fit"));
    std::fs::write(path("tls.key"), &second.2).unwrap();
    std::fs::write(path("ca.pem"), "").unwrap();
    assert!(keeper.tend(&shown, now).unwrap_err().contains("ca.pem: expected a certificate"));
    write(&issued(now - 40 * 24 * 3600));
    assert!(keeper.tend(&shown, now).unwrap_err().contains("tls.crt: the certificate has expired"));
    std::fs::remove_file(path("tls.crt")).unwrap();
    assert!(keeper.tend(&shown, now).unwrap_err().contains("tls.crt"));
}

#[tokio::test]
async fn pods_know_their_control_plane_by_its_roots_as_they_change_unless_a_file_says_others() {
    let folder = tempfile::tempdir().unwrap();
    let now = heddle_node::clock::unix_ms() / 1000;
    let (domain, one, two) = (TrustDomain::new("mesh.example").unwrap(), issued(now).0, issued(now).0);
    let own = Identity::new();
    let trust = |pem: &str| own.set_bundles(Bundles::new(Bundle::from_pem(domain.clone(), pem).unwrap()));
    trust(&one);
    let begin = |text: &str, data: &str| {
        let (completion, watch) = drain::pair();
        let running = start(settings(text), folder.path().join(data), Some(own.clone()), watch);
        async move { (running.await.unwrap(), completion) }
    };
    let (running, _held) = begin("webhook: { address: \"127.0.0.1:0\" }", "a").await;
    let ca = std::fs::read_to_string(folder.path().join("a/webhook/ca.pem")).unwrap();
    let line = |pem: &str| pem.lines().nth(1).unwrap().to_owned();
    let mut patch = patch_of(running.address, &ca).await;
    while !patch.contains(&line(&one)) {
        patch = patch_of(running.address, &ca).await;
    }
    trust(&format!("{one}{two}"));
    while !patch.contains(&line(&two)) {
        patch = patch_of(running.address, &ca).await;
    }
    assert!(patch.contains(&line(&one)), "while a root is replaced, pods trust both");

    let file = folder.path().join("root.pem");
    std::fs::write(&file, &two).unwrap();
    let text = format!("webhook: {{ address: \"127.0.0.1:0\", inject: {{ bundle: \"{}\" }} }}", file.display());
    let (running, _held) = begin(&text, "b").await;
    let ca = std::fs::read_to_string(folder.path().join("b/webhook/ca.pem")).unwrap();
    let patch = patch_of(running.address, &ca).await;
    assert!(patch.contains(&line(&two)) && !patch.contains(&line(&one)));
    std::fs::write(&file, "nothing").unwrap();
    let (_completion, watch) = drain::pair();
    let refused = start(settings(&text), folder.path().join("c"), None, watch).await.err().unwrap().to_string();
    assert!(refused.contains("root.pem: expected a certificate"), "{refused}");
}

#[tokio::test]
async fn it_answers_over_tls_within_bounds_and_keeps_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (completion, watch) = drain::pair();
    let settings = settings("webhook: { address: \"127.0.0.1:0\" }");
    let running = start(settings.clone(), folder.path().to_owned(), None, watch).await.unwrap();
    let ca = std::fs::read_to_string(folder.path().join("webhook/ca.pem")).unwrap();
    let question = include_bytes!("reviews/v1.36/create.json").to_vec();
    let (status, body) = post(running.address, &ca, "/inject", "application/json", question.clone()).await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(true)));
    assert!(answer["response"]["patch"].is_string());
    let (status, _) = post(running.address, &ca, "/inject", "text/plain", question.clone()).await.unwrap();
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (status, _) = post(running.address, &ca, "/inject/asked", "application/json", b"{}".to_vec()).await.unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    // An answer may cross what is still being sent; then the connection ends, which is a refusal as well.
    if let Ok((status, _)) = post(running.address, &ca, "/inject", "application/json", vec![b' '; 5 << 20]).await {
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }
    let (_, page) = post(running.address, &ca, "/metrics", "", Vec::new()).await.unwrap();
    let page = String::from_utf8(page.to_vec()).unwrap();
    assert!(page.contains("heddle_webhook_reviews_total{result=\"injected\",dry_run=\"false\"} 1\n"), "{page}");
    for reason in ["malformed", "content_type", "too_large"] {
        assert!(page.contains(&format!("heddle_webhook_refused_total{{reason=\"{reason}\"}} 1\n")), "{page}");
    }
    assert!(page.contains("heddle_webhook_review_duration_seconds_count 1\n"), "{page}");
    let mut other = Authorities::default();
    other.turn(1).unwrap();
    assert!(post(running.address, &other.bundle(), "/ready", "", Vec::new()).await.is_err());
    until(|| (running.metrics)().contains("heddle_webhook_refused_total{reason=\"handshake\"} 1\n")).await;
    completion.drain(std::time::Duration::from_secs(5), std::time::Duration::from_secs(1)).await;
    let (_completion, watch) = drain::pair();
    let again = start(settings, folder.path().to_owned(), None, watch).await.unwrap();
    assert_eq!(post(again.address, &ca, "/ready", "", Vec::new()).await.unwrap().0, StatusCode::OK);
}

/// Method, path, `Authorization` and `Content-Type` of a request.
type Asked = (Method, String, String, String);

#[derive(Clone)]
struct Recorder {
    version: Value,
    configuration: Arc<Mutex<Value>>,
    requests: Arc<Mutex<Vec<Asked>>>,
}

/// Answers as an API server does, and applies the patches.
async fn record(State(recorder): State<Recorder>, request: Request<Body>) -> (StatusCode, String) {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let of = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let asked = (head.method.clone(), head.uri.path().to_owned(), of(header::AUTHORIZATION), of(header::CONTENT_TYPE));
    recorder.requests.lock().unwrap().push(asked);
    if head.uri.path() == "/version" {
        return (StatusCode::OK, recorder.version.to_string());
    }
    let mut configuration = recorder.configuration.lock().unwrap();
    if head.method == Method::PATCH {
        json_patch::patch(&mut configuration, &serde_json::from_slice::<json_patch::Patch>(&body).unwrap()).unwrap();
    }
    (StatusCode::OK, configuration.to_string())
}

/// An API server of 127.0.0.1 whose CA is written to `folder`.
async fn api_server(folder: &Path, recorder: Recorder) -> SocketAddr {
    let mut authorities = Authorities::default();
    let now = heddle_node::clock::unix_ms() / 1000;
    authorities.turn(now).unwrap();
    let serving = authorities.sign(&["127.0.0.1".to_owned()], now).unwrap();
    std::fs::write(folder.join("ca.crt"), authorities.bundle()).unwrap();
    let chain = super::super::tls::certificates(&serving.certificate).unwrap();
    let key = rustls_pki_types::pem::PemObject::from_pem_slice(serving.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(record).with_state(recorder);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
            });
        }
    });
    address
}

fn configuration() -> Value {
    let webhook = |name: &str, service: &str| json!({ "name": name, "clientConfig": { "service": { "name": service, "namespace": "heddle-system" } } });
    json!({ "webhooks": [ webhook("a.other", "other"), webhook("namespace.inject.heddle.io", "heddle"), webhook("pod.inject.heddle.io", "heddle") ] })
}

/// What `/version` says, as far as it is looked at.
fn version(minor: &str, text: &str) -> Value {
    json!({ "major": "1", "minor": minor, "gitVersion": text, "platform": "linux/amd64" })
}

/// A webhook that looks after its configuration in an API server of this release, once that is told whom to trust; what was asked, and our end.
async fn informed(folder: &Path, version: Value) -> (Running, Recorder, drain::DrainCompletion) {
    let recorder = Recorder { version, configuration: Arc::new(Mutex::new(configuration())), requests: Arc::default() };
    let api = api_server(folder, recorder.clone()).await;
    std::fs::write(folder.join("token"), "abc\n").unwrap();
    let place = folder.display();
    let text = format!(
        "webhook: {{ address: \"127.0.0.1:0\", update: {{ api: \"https://{api}\", token_file: \"{place}/token\", ca_file: \"{place}/ca.crt\" }} }}"
    );
    let (completion, watch) = drain::pair();
    let running = start(settings(&text), folder.to_owned(), None, watch).await.unwrap();
    until(|| (running.metrics)().contains("heddle_webhook_updates_total{result=\"done\"} 1")).await;
    (running, recorder, completion)
}

#[tokio::test]
async fn an_api_server_that_would_refuse_every_sidecar_is_not_given_one() {
    for (minor, text, takes) in
        [("20", "v1.20.2", false), ("27+", "v1.27.9-x.1", false), ("28", "v1.28.0", true), ("36", "v1.36.2", true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let (running, _recorder, _completion) = informed(folder.path(), version(minor, text)).await;
        let ca = std::fs::read_to_string(folder.path().join("webhook/ca.pem")).unwrap();
        let question = include_bytes!("reviews/v1.36/create.json").to_vec();
        let (_, body) = post(running.address, &ca, "/inject", "application/json", question).await.unwrap();
        let response = serde_json::from_slice::<Value>(&body).unwrap()["response"].clone();
        assert_eq!((&response["allowed"], response["patch"].is_string()), (&json!(true), takes), "{text}");
        let warning = response["warnings"][0].as_str().unwrap_or_default();
        assert_eq!(
            warning.contains(&format!("expected Kubernetes 1.29, or 1.28 with SidecarContainers, found {text}")),
            !takes,
            "{warning}"
        );
    }
}

#[tokio::test]
async fn the_live_configuration_is_told_whom_to_trust() {
    let folder = tempfile::tempdir().unwrap();
    let (_running, recorder, _completion) = informed(folder.path(), json!({})).await;
    let ca = std::fs::read_to_string(folder.path().join("webhook/ca.pem")).unwrap();
    let now = recorder.configuration.lock().unwrap().clone();
    let told = base64::engine::general_purpose::STANDARD.encode(ca.replace("\r\n", "\n").trim().to_owned() + "\n");
    assert_eq!(now["webhooks"][0], configuration()["webhooks"][0]);
    for index in [1, 2] {
        let bundle = now["webhooks"][index]["clientConfig"]["caBundle"].as_str().unwrap();
        let bundle = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap();
        let bundle = String::from_utf8(bundle).unwrap().replace("\r\n", "\n");
        assert_eq!(base64::engine::general_purpose::STANDARD.encode(bundle), told);
    }
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/heddle";
    let asked = recorder.requests.lock().unwrap().clone();
    let expected = [(Method::GET, "/version", ""), (Method::GET, path, ""), (Method::PATCH, path, "application/json-patch+json")];
    assert_eq!(asked, expected.map(|(method, path, kind)| (method, path.to_owned(), "Bearer abc".to_owned(), kind.to_owned())));
}

#[test]
fn certificates_of_other_control_planes_stay_up_to_a_number() {
    let service = Service { namespace: "heddle-system".into(), name: "heddle".into() };
    let pem = |name: usize| format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n");
    let mut live = configuration();
    for name in 0..10 {
        let operations = patch(&live, &service, &pem(name));
        assert_eq!(operations.len(), 4);
        json_patch::patch(&mut live, &serde_json::from_value::<json_patch::Patch>(operations.into()).unwrap()).unwrap();
        assert!(patch(&live, &service, &pem(name)).is_empty());
    }
    let bundle = base64::engine::general_purpose::STANDARD
        .decode(live["webhooks"][1]["clientConfig"]["caBundle"].as_str().unwrap())
        .unwrap();
    assert_eq!(String::from_utf8(bundle).unwrap(), (2..10).map(pem).collect::<String>());
}

#[test]
fn settings_tell_what_is_wrong_with_them() {
    let text = "webhook: { certificate: a.pem, names: [ x ], update: { api: \"http://x\" }, inject: { capture: tproxy, cpu_request: lots } }";
    let document = Document::parse("heddle.yaml", text, Format::Yaml, Expansion::Off).unwrap();
    let told = document.read(|root| root.nested("webhook", WebhookSettings::read)).unwrap_err().to_string();
    for part in [
        "webhook: the key `key` is missing",
        "webhook.update.api: expected https://",
        "webhook.inject.capture",
        "cpu request: expected a quantity",
    ] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
}
