//! Field names that the data path itself looks at, as a number, so that finding one needs no string comparison.

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)?) => {
        /// A field name that the data path itself looks at; all others are `Other`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Name {
            /// Any other name.
            Other,
            $($(#[$doc])* $variant,)*
        }

        impl Name {
            /// Lower-case text, empty for `Other`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Name::Other => "",
                    $(Name::$variant => $text,)*
                }
            }

            /// The name spelled by `text` in any case.
            pub fn find(text: &[u8]) -> Name {
                $(if text.len() == $text.len() && text.eq_ignore_ascii_case($text.as_bytes()) { return Name::$variant; })*
                Name::Other
            }
        }
    };
}

names! {
    /// RFC 9110 section 7.2.
    Host = "host",
    /// RFC 9110 section 12.5.1.
    Accept = "accept",
    /// RFC 9110 section 7.6.1.
    Connection = "connection",
    /// RFC 9110 section 10.1.5.
    UserAgent = "user-agent",
    /// RFC 9110 section 8.6.
    ContentLength = "content-length",
    /// RFC 9110 section 8.3.
    ContentType = "content-type",
    /// RFC 9112 section 6.1.
    TransferEncoding = "transfer-encoding",
    /// RFC 9110 section 10.1.1.
    Expect = "expect",
    /// RFC 9110 section 7.8.
    Upgrade = "upgrade",
    /// RFC 9110 section 10.1.4.
    Te = "te",
    /// RFC 9110 section 6.6.2.
    Trailer = "trailer",
    /// Hop-by-hop by custom, RFC 9110 section 7.6.1.
    KeepAlive = "keep-alive",
    /// Hop-by-hop by custom, RFC 9110 section 7.6.1.
    ProxyConnection = "proxy-connection",
    /// RFC 9110 section 11.7.2.
    ProxyAuthorization = "proxy-authorization",
    /// RFC 9110 section 11.7.1.
    ProxyAuthenticate = "proxy-authenticate",
    /// RFC 9113 section 3.2.1 (obsolete).
    Http2Settings = "http2-settings",
    /// RFC 6265.
    Cookie = "cookie",
    /// RFC 9110 section 11.6.2.
    Authorization = "authorization",
    /// Set by proxies.
    XForwardedFor = "x-forwarded-for",
    /// Set by proxies.
    XForwardedProto = "x-forwarded-proto",
    /// Set by proxies.
    XForwardedHost = "x-forwarded-host",
    /// Set by proxies.
    XForwardedPort = "x-forwarded-port",
    /// Set by proxies.
    XRealIp = "x-real-ip",
    /// RFC 7239.
    Forwarded = "forwarded",
    /// RFC 9110 section 7.6.3.
    Via = "via",
    /// RFC 9110 section 10.2.4.
    Server = "server",
    /// RFC 9110 section 6.6.1.
    Date = "date",
    /// W3C Trace Context.
    Traceparent = "traceparent",
    /// W3C Trace Context.
    Tracestate = "tracestate",
    /// RFC 9110 section 8.4.
    ContentEncoding = "content-encoding",
    /// RFC 9110 section 10.2.2.
    Location = "location",
    /// Fetch standard.
    Origin = "origin",
    /// Client certificate as an Envoy proxy reports it.
    XForwardedClientCert = "x-forwarded-client-cert",
    /// No field of HTTP: CGI programs read it as `HTTP_PROXY`, the proxy that they shall use (CVE-2016-5385).
    Proxy = "proxy",
    /// De-facto request id.
    XRequestId = "x-request-id",
    /// gRPC over HTTP/2.
    GrpcStatus = "grpc-status",
}

impl Name {
    /// Whether the field speaks only to the next hop (RFC 9110 section 7.6.1) and must not be forwarded.
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Name::Connection
                | Name::KeepAlive
                | Name::ProxyConnection
                | Name::TransferEncoding
                | Name::Upgrade
                | Name::Te
                | Name::Trailer
                | Name::Http2Settings
                | Name::ProxyAuthenticate
                | Name::ProxyAuthorization
                | Name::Proxy
        )
    }
}
