//! Demo services behind `heddle run --demo`: small HTTP servers on loopback and the resources that route to them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Largest request body that the demo echoes.
const MAX_ECHO: usize = 1024 * 1024;

/// Longest time that `/delay` waits.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// What the instances of the service call themselves, in order.
const INSTANCES: [&str; 2] = ["blue", "green"];

/// Starts two instances of the demo service on free loopback ports.
///
/// # Errors
/// No loopback port can be opened.
pub async fn start() -> std::io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for instance in INSTANCES {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        addresses.push(listener.local_addr()?);
        tokio::spawn(serve(listener, instance));
    }
    Ok(addresses)
}

/// Runs one instance at each address until the process ends.
///
/// # Errors
/// An address cannot be opened.
pub async fn echo(addresses: &[SocketAddr]) -> std::io::Result<Infallible> {
    for (address, instance) in addresses.iter().zip(INSTANCES.into_iter().cycle()) {
        let listener = TcpListener::bind(address).await?;
        tokio::spawn(serve(listener, instance));
    }
    Ok(std::future::pending().await)
}

async fn serve(listener: TcpListener, instance: &'static str) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, instance));
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, instance: &'static str) -> Result<Response<Full<Bytes>>, Infallible> {
    let fields: serde_json::Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), Value::String(String::from_utf8_lossy(value.as_bytes()).into_owned())))
        .collect();
    let (method, uri) = (request.method().to_string(), request.uri().clone());
    let Ok(body) = Limited::new(request.into_body(), MAX_ECHO).collect().await else {
        return Ok(reply(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error_msg": "the demo echoes at most 1 MiB" })));
    };
    if let Some(seconds) = number(uri.path(), "/delay/").filter(|seconds| (0.0..=LONGEST_DELAY.as_secs_f64()).contains(seconds)) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }
    let status = number::<u16>(uri.path(), "/status/").filter(|status| *status >= 200);
    let status = status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let told = json!({ "instance": instance, "method": method, "uri": uri.to_string(), "headers": fields, "body": body });
    let mut response = reply(status, &told);
    if uri.path() == "/response-headers" {
        wanted(uri.query().unwrap_or_default(), response.headers_mut());
    }
    Ok(response)
}

/// What stands behind `start` in a path.
fn number<T: std::str::FromStr>(path: &str, start: &str) -> Option<T> {
    path.strip_prefix(start)?.parse().ok()
}

/// Sets the fields that a query asks for.
fn wanted(query: &str, fields: &mut header::HeaderMap) {
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let text = percent_encoding::percent_decode_str(value).decode_utf8_lossy().replace('+', " ");
        if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(name), header::HeaderValue::try_from(text)) {
            fields.insert(name, value);
        }
    }
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body:#}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// The resources of the demo, by collection.
pub fn resources(services: &[SocketAddr]) -> Vec<(&'static str, Value)> {
    let nodes: serde_json::Map<String, Value> = services.iter().map(|address| (address.to_string(), json!(1))).collect();
    vec![
        ("upstreams", json!({ "id": "demo", "name": "demo", "type": "roundrobin", "nodes": nodes })),
        ("routes", json!({ "id": "hello", "uri": "/hello", "upstream_id": "demo" })),
        (
            "routes",
            json!({ "id": "anything", "uri": "/anything/*", "upstream_id": "demo",
                    "plugins": { "request-id": {}, "cors": {}, "response-rewrite": { "headers": { "set": { "x-demo": "heddle" } } } } }),
        ),
        (
            "routes",
            json!({ "id": "private", "uri": "/private/*", "upstream_id": "demo",
                    "plugins": { "key-auth": {}, "limit-count": { "count": 5, "time_window": 60, "rejected_code": 429, "key": "consumer_name" } } }),
        ),
        ("consumers", json!({ "username": "jack", "plugins": { "key-auth": { "key": "demo-key" } } })),
    ]
}

/// What to try, with the addresses that are really open.
pub fn welcome(http: SocketAddr, admin: SocketAddr, agent: SocketAddr, access_log: &str) -> String {
    let at = |address: SocketAddr| {
        if address.ip().is_unspecified() { format!("127.0.0.1:{}", address.port()) } else { address.to_string() }
    };
    let (http, admin, agent) = (at(http), at(admin), at(agent));
    format!(
        "\nHeddle is up with two demo services behind it.\n\n  \
         gateway    http://{http}\n  \
         admin API  http://{admin}/apisix/admin/routes\n  \
         metrics    http://{agent}/metrics\n  \
         access log {access_log}\n\n\
         Try:\n  \
         curl -i http://{http}/hello\n  \
         curl -i http://{http}/anything/x?y=1 -d hello\n  \
         curl -i http://{http}/private/x -H 'apikey: demo-key'\n\n\
         Then, in the same directory: `heddle get routes`, `heddle explain GET /private/x`, `heddle nodes`. Ctrl-C stops.\n"
    )
}
