//! Why an exchange ended as it did: one table from reason to status, flag and text.

use bytes::Bytes;

use crate::http::{BodyError, Fields, ResponseHead};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = ($flag:literal, $status:literal, $text:literal)),* $(,)?) => {
        /// Why we answered ourselves, or why an exchange ended badly. The one table of statuses, flags and texts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub enum Reason {
            /// Nothing to report: the upstream answered.
            #[default]
            None,
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[Reason::None, $(Reason::$variant,)*];

            /// Short flag of access log and metrics, `-` for none.
            pub const fn flag(self) -> &'static str {
                match self { Reason::None => "-", $(Reason::$variant => $flag,)* }
            }

            /// Status the client gets when this reason ends the request.
            pub const fn status(self) -> u16 {
                match self { Reason::None => 200, $(Reason::$variant => $status,)* }
            }

            /// Body text the client gets.
            pub const fn text(self) -> &'static str {
                match self { Reason::None => "", $(Reason::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// The request is malformed or ambiguous.
    BadRequest = ("bad_request", 400, "400 Bad Request"),
    /// The path cannot be normalised safely.
    BadPath = ("bad_path", 400, "400 Bad Request: path"),
    /// The client certificate is missing or does not fit the host.
    ClientCertificate = ("client_certificate", 400, "400 Bad Request: client certificate required"),
    /// No route matches.
    NoRoute = ("no_route", 404, "404 Route Not Found"),
    /// A method that is never forwarded (TRACE, plain CONNECT).
    MethodNotAllowed = ("method", 405, "405 Method Not Allowed"),
    /// The client sent its request too slowly.
    RequestTimeout = ("request_timeout", 408, "408 Request Timeout"),
    /// The request body is larger than allowed.
    BodyTooLarge = ("body_too_large", 413, "413 Content Too Large"),
    /// The request target is longer than allowed.
    UriTooLong = ("uri_too_long", 414, "414 URI Too Long"),
    /// An expectation other than 100-continue.
    ExpectationFailed = ("expectation_failed", 417, "417 Expectation Failed"),
    /// The host does not belong to the certificate of the connection.
    Misdirected = ("misdirected", 421, "421 Misdirected Request"),
    /// Header fields are larger or more than allowed.
    HeadersTooLarge = ("headers_too_large", 431, "431 Request Header Fields Too Large"),
    /// The client went away before the answer.
    ClientClosed = ("client_closed", 499, "499 Client Closed Request"),
    /// Refused by a plugin; the status is the plugin's.
    Plugin = ("plugin", 403, "403 Forbidden"),
    /// A plugin failed.
    PluginFailed = ("plugin_failed", 500, "500 Internal Server Error"),
    /// Refused by an authorization policy of the service.
    Policy = ("policy", 403, "403 Forbidden: refused by an authorization policy"),
    /// Answered by a plugin on purpose (redirect, mock …).
    Answered = ("answered", 200, ""),
    /// A method or upgrade that we do not proxy.
    NotImplemented = ("not_implemented", 501, "501 Not Implemented"),
    /// The protocol version is not spoken.
    VersionNotSupported = ("version", 505, "505 HTTP Version Not Supported"),
    /// No connection to an endpoint could be made.
    UpstreamConnect = ("upstream_connect", 502, "502 Bad Gateway"),
    /// TLS with the endpoint failed.
    UpstreamTls = ("upstream_tls", 502, "502 Bad Gateway"),
    /// The endpoint could not prove that it is who it should be in the mesh.
    PeerIdentity = ("peer_identity", 502, "502 Bad Gateway: identity of the endpoint refused"),
    /// The endpoint closed or reset before its answer was complete.
    UpstreamReset = ("upstream_reset", 502, "502 Bad Gateway"),
    /// The peer in the mesh lets no bytes through to its application: its policy refuses us, or it does not know the service.
    TunnelRefused = ("tunnel_refused", 502, "502 Bad Gateway: refused by the peer"),
    /// The endpoint's answer is malformed.
    UpstreamProtocol = ("upstream_protocol", 502, "502 Bad Gateway"),
    /// The endpoint speaks HTTP/2 and was asked in HTTP/1: it has looked at nothing.
    UpstreamHttp2 = ("upstream_http2", 502, "502 Bad Gateway: the endpoint speaks HTTP/2 only"),
    /// A name of an endpoint could not be resolved.
    UpstreamDns = ("upstream_dns", 502, "502 Bad Gateway"),
    /// The route names no upstream.
    NoUpstream = ("no_upstream", 503, "503 Service Unavailable: no upstream"),
    /// The upstream is not known (yet) or has no endpoint.
    NoEndpoint = ("no_endpoint", 503, "503 Service Unavailable: no endpoint"),
    /// This node has no identity (yet), so that nobody in the mesh would let it in.
    NoIdentity = ("no_identity", 503, "503 Service Unavailable: no identity"),
    /// No service of the mesh has this name, or none is called on this port.
    UnknownService = ("unknown_service", 502, "502 Bad Gateway: no such service in the mesh"),
    /// The control plane has not said in time what it knows of the service.
    ServicePending = ("service_pending", 503, "503 Service Unavailable: the service is not known yet"),
    /// A limit of the upstream is reached.
    Overflow = ("overflow", 503, "503 Service Unavailable"),
    /// A control plane wants a share of the requests not to be sent to the upstream.
    DropOverload = ("drop_overload", 503, "503 Service Unavailable: dropped to relieve the upstream"),
    /// We are shutting down or shedding load.
    Shedding = ("shedding", 503, "503 Service Unavailable"),
    /// The endpoint did not answer in time.
    UpstreamTimeout = ("upstream_timeout", 504, "504 Gateway Timeout"),
    /// Something that must not happen; a panic ended the request.
    Internal = ("internal", 500, "500 Internal Server Error"),
}

impl Reason {
    /// Why a request ends whose own body failed: never the upstream's doing.
    pub fn of_request_body(error: &BodyError) -> Reason {
        match error {
            BodyError::Aborted => Reason::ClientClosed,
            BodyError::Refused => Reason::Policy,
            BodyError::Malformed(_) => Reason::BadRequest,
            BodyError::Timeout => Reason::RequestTimeout,
            BodyError::TooLarge(_) => Reason::BodyTooLarge,
            BodyError::Request(error) => Reason::of_request_body(error),
        }
    }

    /// Whether the upstream is to blame.
    pub const fn is_upstream(self) -> bool {
        matches!(
            self,
            Reason::UpstreamConnect
                | Reason::UpstreamTls
                | Reason::PeerIdentity
                | Reason::UpstreamReset
                | Reason::UpstreamProtocol
                | Reason::UpstreamHttp2
                | Reason::UpstreamDns
                | Reason::UpstreamTimeout
        )
    }
}

/// Methods that a client is pointed to when it sends one that is never forwarded (RFC 9110 section 15.5.6).
const FORWARDED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// An answer of our own.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status and fields; `Content-Length` and `Date` are added when it is written.
    pub head: ResponseHead,
    /// Whole body.
    pub body: Bytes,
    /// Why.
    pub reason: Reason,
}

impl Answer {
    /// The usual answer for a reason: `{"error_msg":"…"}`.
    pub fn of(reason: Reason) -> Answer {
        let body = if reason.text().is_empty() {
            Bytes::new()
        } else {
            Bytes::from(format!("{{\"error_msg\":\"{}\"}}\n", reason.text()))
        };
        let mut head = ResponseHead::new(reason.status());
        if !body.is_empty() {
            head.fields.append("content-type", "application/json");
        }
        if reason == Reason::MethodNotAllowed {
            head.fields.append("allow", FORWARDED_METHODS);
        }
        Answer { head, body, reason }
    }

    /// A plugin's JSON answer.
    pub fn json(status: u16, body: &serde_json::Value, reason: Reason) -> Answer {
        let mut fields = Fields::new();
        fields.append("content-type", "application/json");
        Answer { head: ResponseHead { status, fields }, body: Bytes::from(format!("{body}\n")), reason }
    }

    /// A plugin's answer in plain words.
    pub fn text(status: u16, text: &str, reason: Reason) -> Answer {
        let mut fields = Fields::new();
        fields.append("content-type", "text/plain");
        Answer { head: ResponseHead { status, fields }, body: Bytes::copy_from_slice(text.as_bytes()), reason }
    }

    /// A plugin's answer without content.
    pub fn empty(status: u16, reason: Reason) -> Answer {
        Answer { head: ResponseHead::new(status), body: Bytes::new(), reason }
    }
}
