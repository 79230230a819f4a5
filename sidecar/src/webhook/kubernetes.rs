//! Tells the live MutatingWebhookConfiguration whom to trust, and learns how old the API server is. It speaks to it with the pod's own account and changes
//! nothing but `caBundle`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::metrics::Metrics;
use super::settings::UpdateSettings;
use super::tls;

/// How often the live configuration is looked at: somebody may have applied it anew, and with `failurePolicy: Fail` no pod starts until we have seen it.
const LOOK: Duration = Duration::from_secs(30);
/// The first wait after a failure, doubled up to [`LOOK`].
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer.
const MOST_ANSWER: usize = 4 << 20;
/// Most certificates of a `caBundle`: those of several control planes with an own authority each, and of their successors.
const MOST_CERTIFICATES: usize = 8;
const END: &str = "-----END CERTIFICATE-----";
/// The first release that can be told to take native sidecars (by a feature gate; from 1.29 on it takes them by itself). Older ones drop the
/// `restartPolicy` of an init container, and then refuse the pod for the probes of one that they expect to end.
const FIRST_WITH_SIDECARS: (u32, u32) = (1, 28);

/// The Service that stands for us in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Keeps the configuration informed, for ever. `too_old` is told each time whether the API server knows no native sidecars, by the name of its release.
pub async fn keep_informed(
    settings: UpdateSettings,
    service: Service,
    mut bundles: watch::Receiver<Option<String>>,
    metrics: Arc<Metrics>,
    too_old: impl Fn(Option<String>),
) {
    let mut wait = FIRST_WAIT;
    loop {
        let bundle = bundles.borrow_and_update().clone();
        // A cluster may keep its release to itself; then what it knows shows when it is asked to take a pod.
        if let Ok(version) = ask(&settings, Method::GET, "/version", None).await {
            too_old(release_without_sidecars(&version));
        }
        let pause = match &bundle {
            None => LOOK,
            Some(bundle) => match inform(&settings, &service, bundle).await {
                Ok(changed) => {
                    if changed > 0 {
                        tracing::info!(
                            configuration = settings.configuration,
                            webhooks = changed,
                            "the webhook configuration was told whom to trust"
                        );
                    }
                    metrics.updated(true);
                    wait = FIRST_WAIT;
                    LOOK
                }
                Err(error) => {
                    tracing::warn!(configuration = settings.configuration, error, again_in = ?wait, "the webhook configuration cannot be told whom to trust");
                    metrics.updated(false);
                    wait = (wait * 2).min(LOOK);
                    wait
                }
            },
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = bundles.changed() => if changed.is_err() { return },
        }
    }
}

/// The release of an API server that knows no native sidecars. Some call their minor release `28+`.
fn release_without_sidecars(version: &Value) -> Option<String> {
    let of = |key: &str| version.get(key).and_then(Value::as_str);
    let number = |key: &str| of(key)?.trim_end_matches('+').parse::<u32>().ok();
    let too_old = (number("major")?, number("minor")?) < FIRST_WITH_SIDECARS;
    too_old.then(|| of("gitVersion").unwrap_or("unknown").chars().filter(|letter| letter.is_ascii_graphic()).take(64).collect())
}

/// One look; the number of webhooks that were changed.
async fn inform(settings: &UpdateSettings, service: &Service, bundle: &str) -> Result<usize, String> {
    let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{}", settings.configuration);
    let configuration = ask(settings, Method::GET, &path, None).await?;
    let patch = patch(&configuration, service, bundle);
    let changed = patch.iter().filter(|operation| operation["op"] == "add").count();
    if changed > 0 {
        ask(settings, Method::PATCH, &path, Some(Value::Array(patch).to_string())).await?;
    }
    Ok(changed)
}

/// What has to change: nothing when all is well. A webhook that is not ours is not touched, and one that moved meanwhile refuses the whole patch.
pub(super) fn patch(configuration: &Value, service: &Service, bundle: &str) -> Vec<Value> {
    let mut patch = Vec::new();
    for (index, webhook) in configuration.get("webhooks").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let client = webhook.get("clientConfig");
        let of = |key: &str| client.and_then(|client| client.get("service")?.get(key)?.as_str());
        if of("name") != Some(&service.name) || of("namespace") != Some(&service.namespace) {
            continue;
        }
        let present = client.and_then(|client| client.get("caBundle")?.as_str()).unwrap_or_default();
        let present = STANDARD.decode(present).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let wanted = joined(&present, bundle);
        if wanted != present {
            patch.push(json!({ "op": "test", "path": format!("/webhooks/{index}/name"), "value": webhook.get("name") }));
            patch.push(json!({ "op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": STANDARD.encode(wanted) }));
        }
    }
    patch
}

/// Our certificates behind those of other control planes, the oldest dropped when there are too many. Nothing changes when ours are there.
fn joined(present: &str, ours: &str) -> String {
    let blocks = |text: &str| -> Vec<String> {
        let ends =
            text.split_inclusive(END).filter(|block| block.contains("-----BEGIN CERTIFICATE-----") && block.ends_with(END));
        ends.map(|block| format!("{}\n", block.trim())).collect()
    };
    let (mut all, ours) = (blocks(present), blocks(ours));
    if ours.iter().all(|block| all.contains(block)) {
        return present.to_owned();
    }
    all.retain(|block| !ours.contains(block));
    all.extend(ours);
    all.drain(..all.len().saturating_sub(MOST_CERTIFICATES));
    all.concat()
}

async fn ask(settings: &UpdateSettings, method: Method, path: &str, patch: Option<String>) -> Result<Value, String> {
    let request = send(settings, method, path, patch);
    tokio::time::timeout(PATIENCE, request).await.map_err(|_| format!("{}: no answer within {PATIENCE:?}", settings.api))?
}

async fn send(settings: &UpdateSettings, method: Method, path: &str, patch: Option<String>) -> Result<Value, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", settings.api);
    let authority = settings.api.strip_prefix("https://").unwrap_or(&settings.api);
    let (host, target) = match authority.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !authority.ends_with(']')) {
        Some((host, _)) => (host, authority.to_owned()),
        None => (authority, format!("{authority}:443")),
    };
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|error| at(&error))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in tls::certificates(&tls::read(&settings.ca_file)?)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", settings.ca_file.display()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| at(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(&target).await.map_err(|error| at(&error))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| at(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(|error| at(&error))?;
    let driving = tokio::spawn(connection);
    let token = tls::read(&settings.token_file)?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
    if patch.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json-patch+json");
    }
    let request = request.body(patch.map_or_else(Body::empty, Body::from)).map_err(|error| at(&error))?;
    let response = sender.send_request(request).await.map_err(|error| at(&error))?;
    let status = response.status();
    let body = axum::body::to_bytes(Body::new(response.into_body()), MOST_ANSWER).await.map_err(|error| at(&error))?;
    driving.abort();
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status.is_success() {
        return Ok(value);
    }
    let message = value.get("message").and_then(Value::as_str).unwrap_or_default();
    Err(format!("{}{path}: {status}: {message}{}", settings.api, hint(status)))
}

/// The likely cause.
fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
            "; the account of the control plane needs `get` and `patch` of this mutatingwebhookconfiguration"
        }
        StatusCode::NOT_FOUND => "; apply what `heddle inject --webhook-configuration` prints",
        _ => "",
    }
}
