//! Listeners: sockets to accept on and what the edge lets in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

/// A socket to accept on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listener {
    /// Unique name.
    pub name: Arc<str>,
    /// Where to listen.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: ListenerProtocol,
    /// Whether a PROXY protocol header comes first.
    pub proxy_protocol: ProxyProtocol,
    /// Peers whose `X-Forwarded-*` is believed.
    pub forwarded: ForwardedTrust,
    /// Bounds on what a client may do.
    pub limits: EdgeLimits,
    /// What to do with suspicious paths and header names.
    pub paths: PathPolicy,
    /// `Server` and `Via` of responses.
    pub server_header: ServerHeader,
    /// Whether error answers of our own carry `x-heddle-reason`.
    pub expose_reason: bool,
    /// Ids of the nodes that open it; empty is all.
    pub nodes: Vec<Arc<str>>,
    /// Where connections of a [`ListenerProtocol::Tcp`] go; none for the others.
    pub tcp: Vec<Arc<TcpRoute>>,
}

impl Listener {
    /// One for HTTP, with defaults in everything else, on every node.
    pub fn new(name: &str, address: SocketAddr) -> Listener {
        Listener {
            name: name.into(),
            address,
            protocol: ListenerProtocol::Http,
            proxy_protocol: ProxyProtocol::Off,
            forwarded: ForwardedTrust::default(),
            limits: EdgeLimits::default(),
            paths: PathPolicy::default(),
            server_header: ServerHeader::default(),
            expose_reason: false,
            nodes: Vec::new(),
            tcp: Vec::new(),
        }
    }
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ListenerProtocol {
    /// HTTP/1.1 and cleartext HTTP/2 with prior knowledge.
    Http,
    /// The same over TLS, chosen by ALPN.
    Https,
    /// Bytes that nobody looks into, which go to an upstream as they are.
    Tcp,
}

/// Where connections go whose bytes nobody looks into. Of several the one with the most telling server name that fits is taken: an exact one, the longest
/// `*.suffix`, then one without names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TcpRoute {
    /// Lower-case server names, exact or `*.suffix`, that a client must ask for by TLS; empty is every client.
    pub server_names: Vec<Arc<str>>,
    /// `Some(true)`: clients that begin with TLS only. `Some(false)`: only those that do not.
    pub for_tls: Option<bool>,
    /// TLS ends here, with the certificate of the server name, and the bytes inside are passed on; otherwise TLS passes as any bytes do.
    pub terminate: bool,
    /// Upstreams and their shares; at least one.
    pub upstreams: Vec<TcpShare>,
    /// How long nothing may move in either direction; zero is for ever.
    pub idle_timeout: Duration,
    /// How many endpoints are tried at most; `None` is what the upstream says of retries.
    pub connect_attempts: Option<u32>,
}

/// An upstream of a [`TcpRoute`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TcpShare {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// Its share of the connections, as against those of the others.
    pub weight: u32,
}

/// Whether a PROXY protocol header (v1 or v2) comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum ProxyProtocol {
    /// Never.
    Off,
    /// Demanded from these peers; others are refused. Empty trusts every peer.
    Required(Vec<IpNet>),
}

/// Peers whose `X-Forwarded-*` is believed. From others those fields are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ForwardedTrust {
    /// Trusted networks.
    pub trusted: Vec<IpNet>,
    /// `X-Forwarded-Client-Cert` is believed of nobody, though, and `x-envoy-*` fields and `X-Forwarded-For` as Envoy believes them.
    pub sanitizes: bool,
}

/// Bounds on what a client may do. Each protects memory, sockets or time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgeLimits {
    /// Whole request head in bytes.
    pub max_header_bytes: u32,
    /// One header field in bytes.
    pub max_field_bytes: u32,
    /// Number of fields, cookie crumbs and trailers counted.
    pub max_headers: u32,
    /// Longest request target in bytes; above it 414.
    pub max_uri_bytes: u32,
    /// Request head, armed when the connection or the previous response is done and the first byte came.
    pub header_timeout: Duration,
    /// Idle keep-alive connection.
    pub idle_timeout: Duration,
    /// A request body must progress within this.
    pub body_timeout: Duration,
    /// A response write must progress within this.
    pub send_timeout: Duration,
    /// TLS handshake (PROXY header included).
    pub handshake_timeout: Duration,
    /// Largest request body in bytes; zero is unlimited.
    pub max_body_bytes: u64,
    /// Connections of this listener on this node.
    pub max_connections: u32,
    /// Connections per source address on this node; zero is unlimited.
    pub max_connections_per_ip: u32,
    /// Concurrent HTTP/2 streams of a connection.
    pub max_streams: u32,
    /// Requests of a connection before it is closed (GOAWAY); zero is unlimited.
    pub max_requests_per_connection: u32,
    /// How old a connection may be before it is closed behind the request that it serves (GOAWAY); zero is unlimited.
    pub max_connection_duration: Duration,
    /// Suspicious HTTP/2 frames (resets, pings, settings, empty data …) that a connection may send per 10 s.
    pub glitch_budget: u32,
    /// Chunk extension bytes per body (RFC 9112 section 7.1.1).
    pub max_chunk_extension_bytes: u32,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        EdgeLimits {
            max_header_bytes: 64 * 1024,
            max_field_bytes: 32 * 1024,
            max_headers: 100,
            max_uri_bytes: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            max_body_bytes: 0,
            max_connections: 10_000,
            max_connections_per_ip: 0,
            max_streams: 100,
            max_requests_per_connection: 0,
            max_connection_duration: Duration::ZERO,
            glitch_budget: 100,
            max_chunk_extension_bytes: 16 * 1024,
        }
    }
}

/// What to do with suspicious paths and header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PathPolicy {
    /// `%2f` and `%5c` in a path: refuse with 400 instead of keeping them encoded.
    pub reject_encoded_slashes: bool,
    /// `//` is one `/`.
    pub merge_slashes: bool,
    /// Header names with `_` are dropped (they collide with `-` in CGI-like servers).
    pub drop_underscore_headers: bool,
}

impl Default for PathPolicy {
    fn default() -> Self {
        PathPolicy { reject_encoded_slashes: true, merge_slashes: true, drop_underscore_headers: true }
    }
}

/// `Server` and `Via` of responses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerHeader {
    /// Value of `Server`: ours replaces the upstream's when set; the upstream's passes when `None`.
    pub server: Option<Arc<str>>,
    /// Pseudonym added to `Via`; no `Via` when `None`.
    pub via: Option<Arc<str>>,
}

impl Default for ServerHeader {
    fn default() -> Self {
        ServerHeader { server: Some("heddle".into()), via: None }
    }
}
