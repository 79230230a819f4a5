//! Heads and errors between our types and those of the HTTP/2 codec.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::exchange::Reason;
use crate::http::{Body, Fields, Name, ResponseHead};
use crate::upstream::{OutgoingRequest, Sent, UpstreamError};

/// The request head, or what of it cannot be said in HTTP/2.
pub(super) fn request(request: &OutgoingRequest<'_>, tls: bool, body: &Body) -> Result<http::Request<()>, &'static str> {
    let head = request.head;
    let path = match &head.query {
        Some(query) => PathAndQuery::try_from(format!("{}?{query}", head.path)),
        None => PathAndQuery::try_from(head.path.as_str()),
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(Authority::try_from(request.host).map_err(|_| "the host is no authority")?);
    parts.path_and_query = Some(path.map_err(|_| "the path cannot be sent")?);
    let mut out = http::Request::new(());
    *out.uri_mut() = Uri::from_parts(parts).map_err(|_| "the target cannot be sent")?;
    *out.method_mut() = http::Method::from_bytes(head.method.as_str().as_bytes()).map_err(|_| "the method cannot be sent")?;
    *out.version_mut() = http::Version::HTTP_2;
    fields(&head.fields, out.headers_mut());
    if let Some(bytes) = body.remaining().filter(|bytes| *bytes > 0) {
        out.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    if asks_for_trailers(&head.fields) {
        out.headers_mut().insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(out)
}

/// gRPC demands `te: trailers` to find proxies that drop them; others say it by themselves.
fn asks_for_trailers(fields: &Fields) -> bool {
    let said = |value: &[u8]| value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    fields.get_all_known(Name::Te).any(said)
        || fields.get_known(Name::ContentType).is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// Fields that may travel in HTTP/2 (RFC 9113 section 8.2.2); what is malformed is left out.
pub(super) fn fields(fields: &Fields, out: &mut HeaderMap) {
    out.reserve(fields.len());
    for field in fields.iter() {
        if field.id.is_hop_by_hop() || matches!(field.id, Name::Host | Name::ContentLength | Name::Expect) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.name), HeaderValue::from_bytes(field.value)) {
            out.append(name, value);
        }
    }
}

/// Trailers as our fields.
pub(super) fn trailers(map: &HeaderMap) -> Fields {
    let mut out = Fields::new();
    for (name, value) in map {
        out.append(name.as_str(), value.as_bytes());
    }
    out
}

/// A response head as ours.
pub(super) fn response(status: http::StatusCode, map: &HeaderMap) -> ResponseHead {
    ResponseHead { status: status.as_u16(), fields: trailers(map) }
}

/// What an error of a stream or its connection means. A refused stream, or one beyond a GOAWAY, has not been looked at (RFC 9113 section 8.7).
pub(super) fn error(error: &h2::Error, sent: Sent) -> UpstreamError {
    let untouched = error.reason() == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote());
    let ours = error.is_library() || (!error.is_remote() && !error.is_io() && !untouched);
    let reason = if ours { Reason::UpstreamProtocol } else { Reason::UpstreamReset };
    UpstreamError::new(reason, if untouched { Sent::Nothing } else { sent }, format!("HTTP/2: {error}"))
}
