//! The socket of the webhook: TLS, bounds on whatever can be sent, and the tasks that look after certificate and live configuration. It does not judge.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use heddle_node::clock;
use heddle_node::drain::DrainWatch;
use heddle_node::identity::Identity;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::kubernetes;
use super::metrics::{Metrics, Refusal, Tending};
use super::review::{Policy, Scope, Verdict, answer};
use super::settings::{Roots, WebhookSettings};
use super::tls::{self, Keeper, Shown};
use crate::inject::Bundle;

/// Most bytes of a question: twice what etcd takes as an object, and a bit, since a question has the old object as well.
const MOST_BODY: usize = 4 << 20;
/// Connections at a time. API servers keep a few open.
const MOST_CONNECTIONS: usize = 256;
/// How long a handshake, the head of a request, or a body may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the certificate is looked after.
const TEND: Duration = Duration::from_secs(60);

/// What has been started.
pub struct Running {
    /// Where it really listens.
    pub address: SocketAddr,
    /// Its metrics page.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Why a webhook does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its address cannot be had.
    #[error("webhook.address: {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It has no certificate, or no roots for its pods.
    #[error("webhook: {0}")]
    Files(String),
    /// The TLS library does not take the certificate.
    #[error("webhook: {0}")]
    Tls(#[from] rustls::Error),
}

struct Shared {
    policy: RwLock<Arc<Policy>>,
    metrics: Arc<Metrics>,
}

impl Shared {
    fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Policy)) {
        // Held from reading to writing, so that nobody's change is lost.
        let mut policy = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut policy));
    }

    /// Pods get these roots from now on.
    fn take_bundle(&self, pem: String) {
        self.change(|policy| policy.settings.bundle = Bundle::Inline(pem));
    }

    /// The API server is of this release, which knows no native sidecars; or of one that may.
    fn take_too_old(&self, release: Option<String>) {
        if let Some(release) = release.as_ref().filter(|release| self.policy().too_old.as_ref() != Some(release)) {
            tracing::error!(
                release,
                "the API server knows no native sidecars (Kubernetes 1.29 and later do): pods get no sidecar"
            );
        }
        self.change(|policy| policy.too_old = release);
    }
}

/// Starts the webhook. It serves until the drain ends. `own` is who this process is, by whose roots pods know their control plane when nothing else is said.
///
/// # Errors
/// Its address is taken, or it has no certificate.
pub async fn start(
    settings: WebhookSettings,
    data_dir: PathBuf,
    own: Option<Identity>,
    drain: DrainWatch,
) -> Result<Running, StartError> {
    let bound = TcpListener::bind(settings.address).await;
    let listener = bound.map_err(|source| StartError::Bind { address: settings.address, source })?;
    let address = listener.local_addr().unwrap_or(settings.address);
    let (names, shown, metrics) = (settings.all_names(), Arc::new(Shown::default()), Arc::new(Metrics::default()));
    let policy = Policy {
        settings: settings.inject,
        strict: settings.strict,
        exclude_namespaces: settings.exclude_namespaces,
        too_old: None,
    };
    let shared = Arc::new(Shared { policy: RwLock::new(Arc::new(policy)), metrics: metrics.clone() });
    let mut keeper = Keeper::open(&data_dir, names, settings.files).map_err(StartError::Files)?;
    let first = keeper.tend(&shown, seconds()).map_err(StartError::Files)?;
    let bundle_file = match settings.roots {
        Roots::File(file) => {
            shared.take_bundle(roots_in(&file).map_err(StartError::Files)?);
            Some(file)
        }
        Roots::Own => {
            own.into_iter().for_each(|own| drop(tokio::spawn(until_drained(drain.clone(), follow(own, shared.clone())))));
            None
        }
        Roots::ConfigMap => None,
    };
    metrics.serving_until(first.not_after.unwrap_or(0));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(shown.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (told, bundles) = watch::channel(first.bundle);
    let tending = tend(keeper, shown, shared.clone(), bundle_file, told);
    tokio::spawn(until_drained(drain.clone(), tending));
    if let Some(update) = settings.update {
        let service = kubernetes::Service { namespace: settings.namespace, name: settings.service };
        let told = shared.clone();
        let informed =
            kubernetes::keep_informed(update, service, bundles, metrics.clone(), move |release| told.take_too_old(release));
        tokio::spawn(until_drained(drain.clone(), informed));
    }
    let router = Router::new()
        .route("/inject", post(|state, request| review(state, Scope::Namespace, request)))
        .route("/inject/asked", post(|state, request| review(state, Scope::Asked, request)))
        .route("/ready", get(|| async { "ready\n" }))
        .route("/metrics", get(page))
        .with_state(shared);
    tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), router, metrics.clone(), drain));
    Ok(Running { address, metrics: Arc::new(move || metrics.page()) })
}

fn seconds() -> u64 {
    clock::unix_ms() / 1000
}

async fn until_drained(mut drain: DrainWatch, task: impl Future<Output = ()>) {
    tokio::select! {
        () = drain.draining() => {}
        () = task => {}
    }
}

/// The roots of a file.
fn roots_in(file: &Path) -> Result<String, String> {
    let pem = tls::read(file)?;
    tls::certificates(&pem).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(pem)
}

/// Gives pods the roots of this process, as they change.
async fn follow(own: Identity, shared: Arc<Shared>) {
    let mut changes = own.changes();
    loop {
        changes.mark_unchanged();
        if let Some(bundle) = own.bundles().own() {
            shared.take_bundle(bundle.pem());
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn tend(
    mut keeper: Keeper,
    shown: Arc<Shown>,
    shared: Arc<Shared>,
    bundle_file: Option<PathBuf>,
    told: watch::Sender<Option<String>>,
) {
    loop {
        tokio::time::sleep(TEND).await;
        match keeper.tend(&shown, seconds()) {
            Ok(tended) => {
                shared.metrics.serving_until(tended.not_after.unwrap_or(0));
                told.send_if_modified(|old| std::mem::replace(old, tended.bundle.clone()) != tended.bundle);
            }
            Err(error) => {
                shared.metrics.untended(Tending::Certificate);
                tracing::error!(%error, "the webhook's certificate cannot be renewed; the present one stays");
            }
        }
        match bundle_file.as_deref().map(roots_in).transpose() {
            Ok(pem) => pem.into_iter().for_each(|pem| shared.take_bundle(pem)),
            Err(error) => {
                shared.metrics.untended(Tending::Roots);
                tracing::error!(%error, "the roots for injected pods cannot be read; the present ones stay");
            }
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, router: Router, metrics: Arc<Metrics>, mut drain: DrainWatch) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = drain.draining() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the webhook cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router, metrics, drain) = (acceptor.clone(), router.clone(), metrics.clone(), drain.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await;
            match shaken {
                Ok(Ok(stream)) => connection(stream, router, drain).await,
                // Mostly an API server that was told of another authority: nothing of it is seen but this.
                Ok(Err(error)) => {
                    metrics.refused(Refusal::Handshake);
                    tracing::debug!(%error, "a TLS handshake with the webhook failed");
                }
                Err(_) => metrics.refused(Refusal::Handshake),
            }
            drop(slot);
        });
    }
}

async fn connection(stream: TlsStream<TcpStream>, router: Router, mut drain: DrainWatch) {
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE * 12)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = drain.draining() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the webhook ended early");
    }
}

async fn page(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.page()).into_response()
}

async fn review(State(shared): State<Arc<Shared>>, scope: Scope, request: Request) -> Response {
    let began = clock::now();
    let refuse = |why: Refusal, status: StatusCode, message: String| {
        shared.metrics.refused(why);
        tracing::warn!(%status, message, "a question to the webhook was refused");
        (status, format!("{message}\n")).into_response()
    };
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return refuse(
            Refusal::ContentType,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "expected Content-Type: application/json".to_owned(),
        );
    }
    let body = match tokio::time::timeout(PATIENCE, axum::body::to_bytes(request.into_body(), MOST_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return refuse(
                Refusal::TooLarge,
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("expected a body of at most {MOST_BODY} bytes"),
            );
        }
        Err(_) => return refuse(Refusal::Slow, StatusCode::REQUEST_TIMEOUT, format!("expected the body within {PATIENCE:?}")),
    };
    match answer(&body, scope, &shared.policy()) {
        Ok(answered) => {
            shared.metrics.reviewed(answered.verdict, answered.dry_run, clock::now().saturating_duration_since(began));
            if !answered.dry_run && answered.verdict != Verdict::Passed {
                tracing::info!(pod = %answered.pod, verdict = ?answered.verdict, "the webhook was asked");
            }
            match serde_json::to_vec(&answered.review) {
                Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], Body::from(bytes)).into_response(),
                Err(error) => refuse(Refusal::Malformed, StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        }
        Err(message) => refuse(Refusal::Malformed, StatusCode::BAD_REQUEST, message),
    }
}
