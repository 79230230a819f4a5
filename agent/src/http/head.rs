//! Request and response heads, the same for HTTP/1 and HTTP/2.

use super::{Fields, Method, grpc};

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
    /// The target says `https`: who asks a proxy for that wants the way behind it to be encrypted.
    pub asks_tls: bool,
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
        // An address in brackets ends with one, and a name has no colon.
        let name = text.trim_end_matches(|character: char| character.is_ascii_digit());
        let host = name.strip_suffix(':').unwrap_or(text);
        host.strip_suffix('.').unwrap_or(host)
    }

    /// The digits of the port that the client named behind the host, if it did.
    pub fn port(&self) -> Option<&str> {
        let text = self.authority.as_str();
        let name = text.trim_end_matches(|character: char| character.is_ascii_digit());
        text.get(name.len()..).filter(|digits| !digits.is_empty() && name.ends_with(':'))
    }

    /// Whether it is a call of gRPC, which there is in HTTP/2 only.
    pub fn names_grpc(&self) -> bool {
        let is_grpc = |kind: &[u8]| kind.starts_with(grpc::GRPC.as_bytes());
        self.version == Version::Http2 && self.fields.get_known(super::Name::ContentType).is_some_and(is_grpc)
    }

    /// Whether it has to leave in HTTP/2: a call of gRPC, also one that came in HTTP/1 and was made from gRPC-Web on its way.
    pub fn needs_http2(&self) -> bool {
        self.names_grpc() || self.calls_grpc()
    }

    /// Whether its content is that of a call of gRPC, whatever brought it: who sends that reads answers of gRPC alone.
    pub fn calls_grpc(&self) -> bool {
        self.fields.get_known(super::Name::ContentType).is_some_and(grpc::is_grpc)
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
        self.asks_tls = false;
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

    /// Whether it says in the words of gRPC that a call has failed, whatever its status is.
    pub fn fails_call(&self) -> bool {
        self.fields.get_known(super::Name::GrpcStatus).is_some_and(|code| code != b"0")
    }

    /// What an endpoint is judged by: the status, or what an answer of gRPC that is all head means in HTTP. So a failure counts, whichever way it is told.
    pub fn outcome(&self) -> u16 {
        match self.status {
            200 => self.fields.get_known(super::Name::GrpcStatus).map_or(200, grpc::meant),
            status => status,
        }
    }
}

/// The usual reason phrase of a status (RFC 9110 section 15 and the registry of status codes), empty for unknown ones.
pub fn reason_phrase(status: u16) -> &'static str {
    PHRASES.binary_search_by_key(&status, |(code, _)| *code).map_or("", |at| PHRASES[at].1)
}

/// Reason phrases, by status.
static PHRASES: [(u16, &str); 62] = [
    (100, "Continue"),
    (101, "Switching Protocols"),
    (102, "Processing"),
    (103, "Early Hints"),
    (200, "OK"),
    (201, "Created"),
    (202, "Accepted"),
    (203, "Non Authoritative Information"),
    (204, "No Content"),
    (205, "Reset Content"),
    (206, "Partial Content"),
    (207, "Multi-Status"),
    (208, "Already Reported"),
    (226, "IM Used"),
    (300, "Multiple Choices"),
    (301, "Moved Permanently"),
    (302, "Found"),
    (303, "See Other"),
    (304, "Not Modified"),
    (305, "Use Proxy"),
    (307, "Temporary Redirect"),
    (308, "Permanent Redirect"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Timeout"),
    (409, "Conflict"),
    (410, "Gone"),
    (411, "Length Required"),
    (412, "Precondition Failed"),
    (413, "Payload Too Large"),
    (414, "URI Too Long"),
    (415, "Unsupported Media Type"),
    (416, "Range Not Satisfiable"),
    (417, "Expectation Failed"),
    (418, "I'm a teapot"),
    (421, "Misdirected Request"),
    (422, "Unprocessable Entity"),
    (423, "Locked"),
    (424, "Failed Dependency"),
    (425, "Too Early"),
    (426, "Upgrade Required"),
    (428, "Precondition Required"),
    (429, "Too Many Requests"),
    (431, "Request Header Fields Too Large"),
    (451, "Unavailable For Legal Reasons"),
    (500, "Internal Server Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Gateway Timeout"),
    (505, "HTTP Version Not Supported"),
    (506, "Variant Also Negotiates"),
    (507, "Insufficient Storage"),
    (508, "Loop Detected"),
    (510, "Not Extended"),
    (511, "Network Authentication Required"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_neither_port_nor_trailing_dot() {
        let all = [
            ("a", "a"),
            ("a.b:80", "a.b"),
            ("a.b.", "a.b"),
            ("a.b.:80", "a.b"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:1", "10.0.0.1"),
        ];
        let literals = [("[::1]", "[::1]"), ("[::1]:443", "[::1]"), ("", ""), ("a1", "a1"), ("a1:1", "a1")];
        for (authority, host) in all.into_iter().chain(literals) {
            let head = RequestHead { authority: authority.into(), ..RequestHead::default() };
            assert_eq!(head.host(), host);
            let port = authority.strip_prefix(host).and_then(|rest| rest.trim_start_matches('.').strip_prefix(':'));
            assert_eq!(head.port(), port, "{authority}");
        }
    }

    #[test]
    fn what_was_made_from_grpc_web_needs_http2_and_grpc_web_itself_does_not() {
        let needs = |version, kind: &'static str| {
            let mut head = RequestHead { version, ..RequestHead::default() };
            head.fields.append("content-type", kind);
            head.needs_http2()
        };
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"] {
            assert!(needs(Version::Http11, kind) && needs(Version::Http2, kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web-text+proto", "application/json"] {
            assert!(!needs(Version::Http11, kind), "{kind}");
        }
    }

    #[test]
    fn phrases_are_found() {
        assert!(PHRASES.is_sorted_by_key(|(code, _)| *code));
        assert_eq!(
            (reason_phrase(100), reason_phrase(404), reason_phrase(511)),
            ("Continue", "Not Found", "Network Authentication Required")
        );
        assert_eq!((reason_phrase(99), reason_phrase(299), reason_phrase(600)), ("", "", ""));
    }
}
