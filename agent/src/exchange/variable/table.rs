//! The variables that have a fixed name, each with the function that finds it. It knows no names with a free part.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use super::super::{Attempt, ClientCertificate, Exchange, TlsInfo};
use super::{Getter, JWT_PAYLOAD, POLICY, REQUEST_ID, Value};
use crate::http::{Name, RequestHead};
use heddle_node::telemetry::RequestTrace;

/// The function behind a fixed name.
pub(super) fn find(name: &str) -> Option<Getter> {
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, getter)| *getter)
}

/// The query as the client sent it.
pub(super) fn query(x: &Exchange) -> Option<&str> {
    if x.original.path.is_empty() { x.request.query.as_deref() } else { x.original.query.as_deref() }
}

fn path(x: &Exchange) -> &str {
    if x.original.path.is_empty() { &x.request.path } else { &x.original.path }
}

/// Name and getter. Getters borrow where the text exists.
const TABLE: &[(&str, Getter)] = &[
    // The target, as the client sent it.
    ("uri", |x| Some(path(x).into())),
    ("document_uri", |x| Some(path(x).into())),
    ("args", |x| query(x).map(Value::from)),
    ("query_string", |x| query(x).map(Value::from)),
    ("is_args", |x| Some(if query(x).is_some_and(|query| !query.is_empty()) { "?" } else { "" }.into())),
    ("request_uri", |x| Some(request_uri(x))),
    ("real_request_uri", |x| Some(request_uri(x))),
    ("request_line", |x| Some(format!("{} {} {}", x.request.method, request_uri(x), x.request.version.as_str()).into())),
    ("host", |x| Some(x.request.host().into())),
    ("http_host", |x| Some(x.request.authority.as_str().into())),
    ("authority", |x| Some(authority(&x.request))),
    ("request_port", |x| x.request.port().map(Value::from)),
    ("scheme", |x| Some(x.scheme().into())),
    ("forwarded_proto", |x| Some(x.forwarded_proto().into())),
    ("host_leaving_http", |x| Some(leaving(x, "http", ":80"))),
    ("host_leaving_https", |x| Some(leaving(x, "https", ":443"))),
    ("method", |x| Some(x.request.method.as_str().into())),
    ("request_method", |x| Some(x.request.method.as_str().into())),
    ("server_protocol", |x| Some(x.request.version.as_str().into())),
    ("content_type", |x| x.request.fields.get_known(Name::ContentType).map(Value::lossy)),
    ("content_length", |x| x.request.fields.get_known(Name::ContentLength).map(Value::lossy)),
    // The connection.
    ("remote_addr", |x| Some(Value::Ip(x.remote.ip().to_canonical()))),
    ("remote_port", |x| Some(Value::Number(x.remote.port().into()))),
    ("realip_remote_addr", |x| Some(Value::Ip(x.connection.peer.ip().to_canonical()))),
    ("realip_remote_port", |x| Some(Value::Number(x.connection.peer.port().into()))),
    ("server_addr", |x| Some(Value::Ip(x.connection.local.ip().to_canonical()))),
    ("server_port", |x| Some(Value::Number(x.connection.local.port().into()))),
    ("server_name", |_| Some("_".into())),
    ("listener", |x| Some((&*x.connection.listener).into())),
    ("hostname", |x| Some(x.directory.hostname().into())),
    ("connection", |x| Some(Value::Number(x.connection.id))),
    ("https", |x| Some(if x.connection.tls.is_some() { "on" } else { "" }.into())),
    // TLS.
    ("ssl_protocol", |x| tls(x).map(|tls| tls.version.into())),
    ("ssl_cipher", |x| tls(x).map(|tls| tls.cipher.into())),
    ("requested_server_name", |x| Some(tls(x).and_then(|tls| tls.server_name.as_deref()).unwrap_or_default().into())),
    ("ssl_server_name", |x| tls(x)?.server_name.as_deref().map(Value::from)),
    ("ssl_client_s_dn", |x| certificate(x).map(|certificate| certificate.subject.as_str().into())),
    ("ssl_client_i_dn", |x| certificate(x).map(|certificate| certificate.issuer.as_str().into())),
    ("ssl_client_serial", |x| certificate(x).map(|certificate| certificate.serial.as_str().into())),
    ("ssl_client_fingerprint", |x| certificate(x).map(|certificate| certificate.fingerprint.as_str().into())),
    ("ssl_client_verify", |x| tls(x).map(|tls| if tls.client.is_some() { "SUCCESS" } else { "NONE" }.into())),
    // The mesh.
    ("mesh_peer", |x| x.connection.door.peer().map(|peer| (&**peer).into())),
    ("mesh_peer_namespace", |x| member(x).map(|(namespace, _)| namespace.into())),
    ("mesh_peer_service", |x| member(x).map(|(_, service)| service.into())),
    ("mesh_policy", |x| x.slot::<String>(POLICY).map(|policy| policy.as_str().into())),
    // Who and where.
    ("consumer_name", |x| x.consumer.as_deref().map(|consumer| (&*consumer.username).into())),
    ("consumer_group_id", |x| present(&x.consumer.as_deref()?.group_id)),
    ("credential_id", |x| present(&x.consumer.as_deref()?.credential_id)),
    ("jwt_auth_payload", |x| x.slot::<String>(JWT_PAYLOAD).map(|payload| payload.as_str().into())),
    ("route_id", |x| present(&x.routed()?.info().id)),
    ("route_name", |x| present(&x.routed()?.info().name)),
    ("service_id", |x| present(&x.routed()?.info().service_id)),
    ("service_name", |x| present(&x.routed()?.info().service)),
    ("matched_uri", |x| present(&x.routed()?.info().uri)),
    ("request_id", |x| request_id(x)),
    ("apisix_request_id", |x| request_id(x)),
    // The upstream side.
    ("upstream_uri", |x| Some(with_query(&x.request.path, x.request.query.as_deref()))),
    ("upstream_host", |x| Some(x.host_override.as_deref().unwrap_or(&x.request.authority).into())),
    ("upstream_addr", |x| each_attempt(x, |try_, out| write!(out, "{}", try_.endpoint.address))),
    ("upstream_status", |x| each_attempt(x, |try_, out| write!(out, "{}", try_.status.unwrap_or(502)))),
    ("upstream_connect_time", |x| each_attempt(x, |try_, out| seconds(Some(try_.connect), out))),
    ("upstream_header_time", |x| each_attempt(x, |try_, out| seconds(try_.header, out))),
    ("upstream_response_time", |x| each_attempt(x, |try_, out| seconds(try_.total, out))),
    ("apisix_upstream_response_time", |x| each_attempt(x, |try_, out| seconds(try_.total, out))),
    ("balancer_ip", |x| x.attempts.last().map(|try_| Value::Ip(try_.endpoint.address.ip()))),
    ("balancer_port", |x| x.attempts.last().map(|try_| Value::Number(try_.endpoint.address.port().into()))),
    // The answer.
    ("status", |x| (x.answer.status != 0).then(|| Value::Number(x.answer.status.into()))),
    ("reason", |x| Some(x.answer.reason.flag().into())),
    ("bytes_sent", |x| Some(Value::Number(x.answer.bytes_sent))),
    ("body_bytes_sent", |x| Some(Value::Number(x.answer.bytes_sent))),
    ("request_length", |x| Some(Value::Number(x.answer.bytes_received))),
    ("request_time", |x| Some(Value::Seconds(x.answer.took))),
    // Time, of the first byte of the request.
    ("msec", |x| Some(Value::Seconds(Duration::from_millis(x.started_ms)))),
    ("time_iso8601", |x| Some(iso8601(x.started_ms).into())),
    // Tracing.
    ("trace_id", |x| trace(x).map(|trace| trace.trace_id_hex().into())),
    ("span_id", |x| trace(x).map(|trace| trace.span_id_hex().into())),
    ("opentelemetry_trace_id", |x| trace(x).map(|trace| trace.trace_id_hex().into())),
    ("opentelemetry_span_id", |x| trace(x).map(|trace| trace.span_id_hex().into())),
    ("opentelemetry_context_traceparent", |x| trace(x).map(|trace| trace.traceparent().into())),
];

/// Namespace and service of the member of the mesh that calls: `spiffe://<trust domain>/ns/<namespace>/svc/<service>`.
fn member(x: &Exchange) -> Option<(&str, &str)> {
    let (_, path) = x.connection.door.peer()?.strip_prefix("spiffe://")?.split_once("/ns/")?;
    path.split_once("/svc/")
}

fn tls(x: &Exchange) -> Option<&TlsInfo> {
    x.connection.tls.as_ref()
}

fn certificate(x: &Exchange) -> Option<&ClientCertificate> {
    tls(x)?.client.as_ref()
}

fn trace(x: &Exchange) -> Option<&RequestTrace> {
    x.trace.as_deref()
}

fn present(text: &str) -> Option<Value<'_>> {
    (!text.is_empty()).then(|| text.into())
}

/// Host and port as the client named them, without the usual port of the scheme if it came by that.
fn leaving<'a>(x: &'a Exchange, scheme: &str, port: &str) -> Value<'a> {
    let named = x.request.authority.as_str();
    let bare = named.strip_suffix(port).filter(|_| x.forwarded_proto() == scheme);
    bare.unwrap_or(named).into()
}

/// The host as routes are found by it, with the port that the client named.
fn authority(request: &RequestHead) -> Value<'_> {
    let named = request.authority.as_str();
    let (host, port) = (request.host(), request.port());
    match port {
        None => host.into(),
        Some(port) if host.len() + 1 + port.len() == named.len() => named.into(),
        Some(port) => Value::Text(Cow::Owned([host, ":", port].concat())),
    }
}

fn request_uri(x: &Exchange) -> Value<'_> {
    with_query(path(x), query(x))
}

fn with_query<'a>(path: &'a str, query: Option<&str>) -> Value<'a> {
    match query {
        Some(query) => Value::Text(Cow::Owned([path, "?", query].concat())),
        None => path.into(),
    }
}

fn request_id(x: &Exchange) -> Option<Value<'_>> {
    match x.slot::<String>(REQUEST_ID) {
        Some(id) => Some(id.as_str().into()),
        None => x.request.fields.get_known(Name::XRequestId).map(Value::lossy),
    }
}

/// One entry per try, with `, ` between, as nginx writes them.
fn each_attempt<'a>(x: &'a Exchange, write: impl Fn(&Attempt, &mut String) -> std::fmt::Result) -> Option<Value<'a>> {
    if x.attempts.is_empty() {
        return None;
    }
    let mut out = String::with_capacity(24 * x.attempts.len());
    for (index, attempt) in x.attempts.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        // Writing to a `String` cannot fail.
        _ = write(attempt, &mut out);
    }
    Some(out.into())
}

fn seconds(time: Option<Duration>, out: &mut String) -> std::fmt::Result {
    match time {
        Some(time) => write!(out, "{}", Value::Seconds(time)),
        None => out.write_str("-"),
    }
}

/// UTC date and time of a Unix time, by the civil-from-days algorithm (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn iso8601(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}+00:00", rest / 3600, rest / 60 % 60, rest % 60)
}
