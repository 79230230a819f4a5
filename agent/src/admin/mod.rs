//! The agent's own HTTP endpoint: ready, metrics, configuration dump, health of endpoints, members, drain. It asks what it is given and knows nothing of how it is made.

mod closing;
pub mod probes;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
pub use closing::Closing;
use heddle_node::drain::DrainTrigger;
use heddle_node::readiness::{Readiness, Verdict};
use heddle_node::token::{self, Token};
use serde_json::Value;
use tokio::net::TcpListener;

/// What the endpoint shows.
pub trait Shown: Send + Sync + 'static {
    /// The metrics page in Prometheus text format.
    fn metrics(&self) -> String;
    /// What the node runs on, without secrets.
    fn config_dump(&self) -> Value;
    /// The endpoints of all upstreams with their health, or of the one of this name or label; `None` when there is no such upstream.
    fn endpoints(&self, upstream: Option<&str>) -> Option<Value>;
    /// The members of the fleet, as they are seen from here.
    fn members(&self) -> Value;
    /// Who still calls a sidecar's application in clear, by port.
    fn callers_in_clear(&self) -> Value;
}

/// How a drain is begun, and who may begin it.
pub struct Draining {
    /// Begins it.
    pub trigger: DrainTrigger,
    /// Closes what comes in.
    pub closing: Closing,
    /// Beside an application, whose requests come from this host too: the folder that one must be able to read.
    pub owner: Option<PathBuf>,
}

struct Admin {
    readiness: Readiness,
    draining: Draining,
    shown: Arc<dyn Shown>,
}

/// Serves for as long as the process lives, so that `/ready` can say "draining" and metrics can be read to the last.
///
/// # Errors
/// The listener fails for good.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    draining: Draining,
    shown: Arc<dyn Shown>,
) -> std::io::Result<()> {
    let local = listener.local_addr()?;
    let admin = Arc::new(Admin { readiness, draining, shown });
    let app = Router::new()
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/config_dump", get(config_dump))
        .route("/endpoints", get(|State(admin): State<Arc<Admin>>| async move { endpoints_of(&*admin.shown, None) }))
        .route("/endpoints/{*upstream}", get(endpoints))
        .route("/admin/members", get(members))
        .route("/drain", post(begin_drain))
        .route("/mesh/plaintext", get(callers_in_clear))
        .layer(middleware::from_fn(move |request, next| from_here(local, request, next)))
        .with_state(admin);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// Refuses requests whose `Host` is a name that somebody else's DNS could have pointed here (DNS rebinding from a browser).
async fn from_here(local: SocketAddr, request: Request, next: Next) -> Response {
    if local.ip().is_loopback() && !names_an_address(request.headers()) {
        return (StatusCode::FORBIDDEN, "Host must be an IP address or localhost\n").into_response();
    }
    if request.method() == Method::POST && is_foreign(request.headers()) {
        return (StatusCode::FORBIDDEN, "a page of another origin may not change anything here\n").into_response();
    }
    next.run(request).await
}

/// Whether a browser sent this for a page that did not come from here (cross-site request forgery).
fn is_foreign(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    match headers.get(header::ORIGIN) {
        Some(origin) => origin.as_bytes().strip_prefix(b"http://").is_none_or(|own| !own.eq_ignore_ascii_case(host)),
        None => headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"none" | b"same-origin")),
    }
}

fn names_an_address(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else { return true };
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())).map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok()
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.readiness.verdict() {
        Verdict::Ready => (StatusCode::OK, "ready\n").into_response(),
        verdict => (StatusCode::SERVICE_UNAVAILABLE, format!("{verdict}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    metrics_of(&*admin.shown)
}

fn metrics_of(shown: &dyn Shown) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shown.metrics()).into_response()
}

async fn config_dump(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{:#}\n", admin.shown.config_dump())).into_response()
}

async fn endpoints(State(admin): State<Arc<Admin>>, Path(upstream): Path<String>) -> Response {
    endpoints_of(&*admin.shown, Some(&upstream))
}

fn endpoints_of(shown: &dyn Shown, upstream: Option<&str>) -> Response {
    match shown.endpoints(upstream) {
        Some(value) => ([(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response(),
        None => (StatusCode::NOT_FOUND, "this node has no upstream of this name; GET /endpoints lists all\n").into_response(),
    }
}

async fn members(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{:#}\n", admin.shown.members())).into_response()
}

async fn callers_in_clear(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{:#}\n", admin.shown.callers_in_clear())).into_response()
}

/// Only this host may end the process, and beside an application only who shows the token of the folder: not the application, nor whoever makes it ask.
/// With `?inbound` only what others call closes, and the answer comes when the last of their connections has ended: what goes out goes on.
async fn begin_drain(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "draining is asked for from this host only: over loopback, or by SIGTERM\n")
            .into_response();
    }
    if let Some(refusal) = admin.draining.owner.as_deref().and_then(|folder| refusal(folder, &headers)) {
        return (StatusCode::FORBIDDEN, refusal).into_response();
    }
    admin.readiness.begin_draining();
    if query.as_deref() == Some("inbound") {
        admin.draining.closing.close().await;
        return (StatusCode::OK, "drained: nothing comes in any more\n").into_response();
    }
    admin.draining.trigger.begin();
    (StatusCode::ACCEPTED, "draining: requests in flight are finished, then the process ends\n").into_response()
}

/// Why a request has not shown that whoever sends it may read the folder. The file is read each time: it is small, and another process may have written it
/// anew.
fn refusal(folder: &FilePath, headers: &HeaderMap) -> Option<String> {
    let shown = headers.get(token::FIELD).map(HeaderValue::as_bytes);
    match Token::read(folder) {
        Ok(token) if shown.is_some_and(|shown| token.is(shown)) => None,
        Ok(_) => Some(format!(
            "a sidecar drains for those who may read its node.data_dir: ask by `heddle drain --data-dir DIR`, show what stands in {} as {}, or send SIGTERM\n",
            token::path(folder).display(),
            token::FIELD
        )),
        Err(error) => Some(format!("nobody can show {}: {error}; send SIGTERM\n", token::path(folder).display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_names_of_this_endpoint() {
        let with = |host: &'static str| HeaderMap::from_iter([(header::HOST, header::HeaderValue::from_static(host))]);
        for host in ["127.0.0.1:15000", "localhost", "LOCALHOST:1", "[::1]:15000", "::1"] {
            assert!(names_an_address(&with(host)), "{host}");
        }
        for host in ["evil.example", "evil.example:15000", "127.0.0.1.evil.example"] {
            assert!(!names_an_address(&with(host)), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let pairs =
                pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_foreign(&pairs.collect())
        };
        let host = ("host", "127.0.0.1:15000");
        assert!(!with(&[host]));
        assert!(!with(&[host, ("origin", "http://127.0.0.1:15000")]));
        assert!(!with(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(with(&[host, ("origin", "http://evil.example")]));
        assert!(with(&[host, ("origin", "null")]));
        assert!(with(&[host, ("sec-fetch-site", "cross-site")]));
    }
}
