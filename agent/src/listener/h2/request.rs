//! HTTP/2 requests as the gateway's own heads, under the rules of RFC 9113 section 8: what HTTP/1 would read otherwise never gets that far.

use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::request::Parts;

use super::super::length::parse_length;
use crate::exchange::Reason;
use crate::http::h1::{HeadLimits, is_authority};
use crate::http::{Method, Name, RequestHead, Version};

/// A request that is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Malformed: the stream is reset.
    Malformed,
    /// Answered with this reason.
    Answer(Reason),
}

/// A head that can be served.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) head: RequestHead,
    /// Announced length of the body.
    pub(super) length: Option<u64>,
    pub(super) expects_continue: bool,
    /// Whether this is an extended CONNECT (RFC 8441).
    pub(super) tunnels: bool,
}

/// Checks and converts a head. `ended` is whether no body follows.
pub(super) fn accept(parts: &Parts, ended: bool, limits: &HeadLimits) -> Result<Accepted, Refusal> {
    let mut head =
        RequestHead { version: Version::Http2, method: Method::from_token(parts.method.as_str()), ..RequestHead::default() };
    let protocol = parts.extensions.get::<Protocol>();
    if head.method == Method::Connect && protocol.is_none() {
        return Err(Refusal::Answer(Reason::MethodNotAllowed));
    }
    head.protocol = protocol.map(|protocol| protocol.as_str().into());
    take_target(parts, &mut head, limits)?;
    take_authority(parts, &mut head)?;
    take_fields(parts, &mut head, limits)?;
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(value), None) => Some(parse_length(value.as_bytes()).ok_or(Refusal::Malformed)?),
        _ => return Err(Refusal::Malformed),
    };
    if ended && length.is_some_and(|bytes| bytes > 0) {
        return Err(Refusal::Malformed);
    }
    let expects_continue = match parts.headers.get(EXPECT) {
        None => false,
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err(Refusal::Answer(Reason::ExpectationFailed)),
    };
    Ok(Accepted { tunnels: head.protocol.is_some(), head, length, expects_continue })
}

fn take_target(parts: &Parts, head: &mut RequestHead, limits: &HeadLimits) -> Result<(), Refusal> {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if target.len() > limits.max_target {
        return Err(Refusal::Answer(Reason::UriTooLong));
    }
    let visible = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    let formed = target.starts_with('/') || (target == "*" && head.method == Method::Options);
    if !visible || !formed {
        return Err(Refusal::Answer(Reason::BadRequest));
    }
    match target.split_once('?') {
        Some((path, query)) => {
            head.path.push_str(path);
            head.query = Some(query.to_owned());
        }
        None => head.path.push_str(target),
    }
    Ok(())
}

/// `:authority`, or `Host` in its place; both only when they agree.
fn take_authority(parts: &Parts, head: &mut RequestHead) -> Result<(), Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter().map(|value| value.as_bytes());
    let (host, second) = (hosts.next(), hosts.next());
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let chosen = authority.or(host).filter(|chosen| is_authority(chosen));
    let agree = second.is_none() && host.is_none_or(|host| chosen.is_some_and(|chosen| chosen.eq_ignore_ascii_case(host)));
    let Some(text) = chosen.filter(|_| agree).and_then(|chosen| std::str::from_utf8(chosen).ok()) else {
        return Err(Refusal::Answer(Reason::BadRequest));
    };
    head.authority.push_str(text);
    head.authority.make_ascii_lowercase();
    Ok(())
}

/// All fields; cookie crumbs are counted one by one and then joined (RFC 9113 section 8.2.3).
fn take_fields(parts: &Parts, head: &mut RequestHead, limits: &HeadLimits) -> Result<(), Refusal> {
    const TOO_LARGE: Refusal = Refusal::Answer(Reason::HeadersTooLarge);
    if parts.headers.len() > limits.max_fields {
        return Err(TOO_LARGE);
    }
    let mut cookies: Vec<u8> = Vec::new();
    let mut size = 0;
    for (name, value) in &parts.headers {
        let bytes = name.as_str().len() + value.len();
        size += bytes;
        if bytes > limits.max_field || size > limits.max_bytes {
            return Err(TOO_LARGE);
        }
        let id = Name::find(name.as_str().as_bytes());
        // What speaks to the connection has no place in HTTP/2 (RFC 9113 section 8.2.2).
        let connection_level = matches!(
            id,
            Name::Connection
                | Name::TransferEncoding
                | Name::Upgrade
                | Name::KeepAlive
                | Name::ProxyConnection
                | Name::Http2Settings
        );
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        // RFC 9113 section 8.2.1.
        let padded = blank(value.as_bytes().first()) || blank(value.as_bytes().last());
        if connection_level || padded || (id == Name::Te && !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
            return Err(Refusal::Malformed);
        }
        match id {
            Name::Host => {}
            _ if name == COOKIE => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value.as_bytes());
            }
            _ => head.fields.push(id, name.as_str().as_bytes(), value.as_bytes()),
        }
    }
    if !cookies.is_empty() {
        head.fields.append_known(Name::Cookie, &cookies);
    }
    Ok(())
}
