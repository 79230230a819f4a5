//! The endpoint for those who may only ask, beyond loopback: readiness, liveness, metrics, and the application's own probes when the mesh stands between it and its kubelet. Nothing here changes anything.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use heddle_node::readiness::{Readiness, Verdict};
use heddle_xds::model::{ActiveCheck, CheckKind, Thresholds};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Shown, metrics_of};
use crate::health::{Finding, Probe};
use crate::net::client_config;
use crate::settings::{CheckProtocol, CheckSettings, ProbeSettings};

/// Checks of the application under way at once; the others wait, and their askers give up by themselves.
const MOST_CHECKS: usize = 32;

struct Probes {
    readiness: Readiness,
    shown: Arc<dyn Shown>,
    checks: HashMap<String, Probe>,
    slots: Semaphore,
}

/// Opens the port on all addresses, IPv6 and IPv4 where the host has both.
///
/// # Errors
/// The port is taken.
pub async fn bind(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(error),
        // Hosts without IPv6 refuse the address, each in its own words.
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

/// Serves for as long as the process lives.
///
/// # Errors
/// The listener fails for good.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    shown: Arc<dyn Shown>,
    settings: &ProbeSettings,
) -> std::io::Result<()> {
    let checks = settings.checks.iter().map(|check| (check.path.clone(), probe(settings, check))).collect();
    let probes = Arc::new(Probes { readiness, shown, checks, slots: Semaphore::new(MOST_CHECKS) });
    let app = Router::new()
        .route("/ready", get(ready))
        .route("/live", get(|| async { "live\n" }))
        .route("/metrics", get(|State(probes): State<Arc<Probes>>| async move { metrics_of(&*probes.shown) }))
        .fallback(get(application))
        .with_state(probes);
    axum::serve(listener, app).await
}

fn probe(settings: &ProbeSettings, check: &CheckSettings) -> Probe {
    let kind = match check.protocol {
        CheckProtocol::Http => CheckKind::Http,
        CheckProtocol::Https => CheckKind::Https,
        CheckProtocol::Tcp => CheckKind::Tcp,
    };
    let address = SocketAddr::new(settings.application, check.port);
    let named = |wanted: &str| check.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let host: Arc<str> = named("host").map_or_else(|| address.to_string().into(), |(_, value)| value.as_str().into());
    let tls = (kind == CheckKind::Https)
        .then(|| client_config(&Arc::new(aws_lc_rs::default_provider()), None, None, &[]).ok().map(Arc::new))
        .flatten();
    let headers = check.headers.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
    // Nobody judges by these checks but who asks.
    let (healthy_statuses, unhealthy_statuses) = (Vec::new(), Vec::new());
    let rules = Thresholds { healthy_statuses, successes: 0, unhealthy_statuses, http_failures: 0, tcp_failures: 0, timeouts: 0 };
    let check = ActiveCheck {
        kind,
        timeout: check.timeout,
        concurrency: 1,
        host: None,
        port: None,
        method: "GET".into(),
        path: check.target.as_str().into(),
        body: "".into(),
        verify_certificate: false,
        headers,
        healthy_interval: Duration::ZERO,
        unhealthy_interval: Duration::ZERO,
        thresholds: rules,
        checkers: 0,
    };
    Probe { address, host, server_name: Some(ServerName::IpAddress(settings.application.into())), tls, check: Arc::new(check) }
}

async fn ready(State(probes): State<Arc<Probes>>) -> Response {
    match probes.readiness.verdict() {
        Verdict::Ready => (StatusCode::OK, "ready\n").into_response(),
        verdict => (StatusCode::SERVICE_UNAVAILABLE, format!("{verdict}\n")).into_response(),
    }
}

/// Asks the application in the place of whoever asks here, and says what it said.
async fn application(State(probes): State<Arc<Probes>>, request: Request) -> Response {
    let Some(probe) = probes.checks.get(request.uri().path()) else { return StatusCode::NOT_FOUND.into_response() };
    // The semaphore is never closed.
    let Ok(_slot) = probes.slots.acquire().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let (status, told) = match probe.run().await {
        Finding::Connected => (StatusCode::OK, "the application accepts connections\n".to_owned()),
        Finding::Status(status) => {
            // A redirect is a success, as it is for a kubelet that is sent elsewhere.
            let seen = if (200..400).contains(&status) { 200 } else { status };
            let own = StatusCode::from_u16(seen).unwrap_or(StatusCode::BAD_GATEWAY);
            (own, format!("the application answered {status}\n"))
        }
        Finding::TimedOut => (StatusCode::GATEWAY_TIMEOUT, format!("the application did not answer on {}\n", probe.address)),
        _ => (StatusCode::BAD_GATEWAY, format!("the application cannot be asked on {}\n", probe.address)),
    };
    (status, told).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Nothing;

    impl Shown for Nothing {
        fn metrics(&self) -> String {
            "heddle_up 1\n".to_owned()
        }

        fn config_dump(&self) -> Value {
            Value::Null
        }

        fn endpoints(&self, _: Option<&str>) -> Option<Value> {
            None
        }

        fn members(&self) -> Value {
            Value::Null
        }

        fn callers_in_clear(&self) -> Value {
            Value::Null
        }
    }

    async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// An application that answers each connection with this status and gives what it was sent.
    async fn application(status: u16) -> (u16, tokio::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, requests) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = seen.send(String::from_utf8_lossy(&head[..read]).into_owned()).await;
            }
        });
        (port, requests)
    }

    fn check(path: &str, protocol: CheckProtocol, port: u16) -> CheckSettings {
        let headers = vec![("Host".to_owned(), "shop".to_owned()), ("X-A".to_owned(), "1".to_owned())];
        CheckSettings {
            path: path.to_owned(),
            protocol,
            port,
            target: "/healthz?a=1".to_owned(),
            headers,
            timeout: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn the_application_is_asked_in_the_place_of_the_kubelet() {
        let ((good, mut requests), (bad, _bad)) = (application(302).await, application(500).await);
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let checks = vec![
            check("/app/web/readiness", CheckProtocol::Http, good),
            check("/app/web/liveness", CheckProtocol::Http, bad),
            check("/app/db/liveness", CheckProtocol::Tcp, closed),
        ];
        let settings = ProbeSettings { port: 0, application: Ipv4Addr::LOCALHOST.into(), checks };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Readiness::new();
        let waiting = readiness.guard("identity");
        tokio::spawn(async move { serve(listener, readiness, Arc::new(Nothing), &settings).await });
        assert!(ask(address, "GET", "/ready").await.starts_with("HTTP/1.1 503"));
        drop(waiting);
        assert!(ask(address, "GET", "/ready").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "GET", "/live").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "GET", "/metrics").await.ends_with("heddle_up 1\n"));
        assert!(ask(address, "GET", "/app/web/readiness").await.starts_with("HTTP/1.1 200"));
        let request = requests.recv().await.unwrap();
        assert!(
            request.starts_with("GET /healthz?a=1 HTTP/1.1\r\nhost: shop\r\n") && request.contains("X-A: 1\r\n"),
            "{request}"
        );
        assert!(ask(address, "GET", "/app/web/liveness").await.starts_with("HTTP/1.1 500"));
        assert!(ask(address, "GET", "/app/db/liveness").await.starts_with("HTTP/1.1 502"));
        for (method, path, status) in [("GET", "/config_dump", "404"), ("POST", "/drain", "405"), ("POST", "/ready", "405")] {
            assert!(ask(address, method, path).await.starts_with(&format!("HTTP/1.1 {status}")), "{method} {path}");
        }
    }
}
