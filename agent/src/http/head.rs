//! Request and response heads, the same for HTTP/1 and HTTP/2.

use super::{Fields, Method};

/// Protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// As logs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }
}

/// What a client asks for. Made by the codecs, which have validated every part.
///
/// `fields` holds neither `Host` nor pseudo-fields: those are `authority` and the target. Connection-level fields (`Connection`, `Transfer-Encoding`,
/// `Content-Length`, `Expect` …) are still there as received; the pipeline removes what must not travel.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// Version of the message.
    pub version: Version,
    /// Host and optional port as the client named it, lower-case, empty only for HTTP/1.0 without `Host`.
    pub authority: String,
    /// Path in origin form, starting with `/` (or `*` for OPTIONS). The codec delivers it as received; the pipeline normalises it once, and
    /// the same text is matched and forwarded.
    pub path: String,
    /// Query without `?`, `None` when there is no `?`.
    pub query: Option<String>,
    /// `:protocol` of an extended CONNECT (RFC 8441), for example `websocket`.
    pub protocol: Option<Box<str>>,
    /// Header fields.
    pub fields: Fields,
}

impl RequestHead {
    /// Host without port and without a trailing dot; an IPv6 literal keeps its brackets.
    pub fn host(&self) -> &str {
        let text = self.authority.as_str();
        let end = match text.rfind(':') {
            Some(colon) if !text[colon..].contains(']') => colon,
            _ => text.len(),
        };
        let host = &text[..end];
        host.strip_suffix('.').unwrap_or(host)
    }

    /// Path and query as they go upstream.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// First value of a query argument, undecoded.
    pub fn query_arg(&self, name: &str) -> Option<&str> {
        self.query.as_deref()?.split('&').find_map(|pair| match pair.split_once('=') {
            Some((key, value)) if key == name => Some(value),
            None if pair == name => Some(""),
            _ => None,
        })
    }

    /// Value of a cookie. Names are case-sensitive.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.fields.get_all_known(super::Name::Cookie).filter_map(|line| std::str::from_utf8(line).ok()).find_map(|line| {
            line.split(';').find_map(|pair| {
                let (key, value) = pair.trim_start().split_once('=')?;
                (key == name).then_some(value.trim_end())
            })
        })
    }

    /// Bytes that the buffers hold on to, full or not.
    pub fn capacity(&self) -> usize {
        self.authority.capacity() + self.path.capacity() + self.fields.capacity()
    }

    /// Makes it empty and keeps the buffers for the next request of the connection.
    pub fn clear(&mut self) {
        self.method = Method::Get;
        self.version = Version::Http11;
        self.authority.clear();
        self.path.clear();
        self.query = None;
        self.protocol = None;
        self.fields.clear();
    }
}

/// What an upstream, or a filter, answers.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    /// Status code, 100 to 599.
    pub status: u16,
    /// Header fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// A head without fields.
    pub fn new(status: u16) -> ResponseHead {
        ResponseHead { status, fields: Fields::new() }
    }
}

/// The usual reason phrase of a status (RFC 9110 section 15), empty for unknown ones.
pub fn reason_phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()).unwrap_or("")
}
