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
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::authorities::Authorities;
use super::super::kubernetes::{Service, patch};
use super::super::{WebhookSettings, start};

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

#[tokio::test]
async fn it_answers_over_tls_within_bounds_and_keeps_its_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (completion, watch) = drain::pair();
    let settings = settings("webhook: { address: \"127.0.0.1:0\" }");
    let running = start(settings.clone(), folder.path().to_owned(), watch).await.unwrap();
    let ca = std::fs::read_to_string(folder.path().join("webhook/ca.pem")).unwrap();
    let question = include_bytes!("reviews/create.json").to_vec();
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
    assert!(page.contains("heddle_webhook_reviews_total{result=\"malformed\",dry_run=\"false\"} 3\n"), "{page}");
    let mut other = Authorities::default();
    other.turn(1).unwrap();
    assert!(post(running.address, &other.bundle(), "/ready", "", Vec::new()).await.is_err());
    completion.drain(std::time::Duration::from_secs(5), std::time::Duration::from_secs(1)).await;
    let (_completion, watch) = drain::pair();
    let again = start(settings, folder.path().to_owned(), watch).await.unwrap();
    assert_eq!(post(again.address, &ca, "/ready", "", Vec::new()).await.unwrap().0, StatusCode::OK);
}

/// Method, path, `Authorization` and `Content-Type` of a request.
type Asked = (Method, String, String, String);

#[derive(Clone)]
struct Recorder {
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

#[tokio::test]
async fn the_live_configuration_is_told_whom_to_trust() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder { configuration: Arc::new(Mutex::new(configuration())), requests: Arc::default() };
    let api = api_server(folder.path(), recorder.clone()).await;
    std::fs::write(folder.path().join("token"), "abc\n").unwrap();
    let place = folder.path().display();
    let text = format!(
        "webhook: {{ address: \"127.0.0.1:0\", update: {{ api: \"https://{api}\", token_file: \"{place}/token\", ca_file: \"{place}/ca.crt\" }} }}"
    );
    let (_completion, watch) = drain::pair();
    let running = start(settings(&text), folder.path().to_owned(), watch).await.unwrap();
    let done = async {
        while !(running.metrics)().contains("heddle_webhook_updates_total{result=\"done\"} 1") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), done).await.unwrap();
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
    let expected = [(Method::GET, ""), (Method::PATCH, "application/json-patch+json")];
    assert_eq!(asked, expected.map(|(method, kind)| (method, path.to_owned(), "Bearer abc".to_owned(), kind.to_owned())));
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
