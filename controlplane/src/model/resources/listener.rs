//! `listeners`, Heddle's own kind: sockets to accept on and what the edge lets in, as users write it.

use std::net::SocketAddr;
use std::time::Duration;

use heddle_xds::model::{EdgeLimits, PathPolicy};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::super::types::{Id, Labels, Size, Span, labels_schema};
use super::Upstream;

/// A socket to accept on.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Unique id; given by the URL.
    pub id: Option<Id>,
    /// A name; the id when absent.
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// A description for people.
    #[schemars(length(max = 256))]
    pub desc: Option<String>,
    /// Key/value pairs to describe and find resources.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub labels: Labels,
    /// Where to listen, `0.0.0.0:9080` or `[::]:9080`.
    #[serde(deserialize_with = "socket_address")]
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// What is spoken.
    #[serde(default)]
    pub protocol: Protocol,
    /// Whether a PROXY protocol header (v1 or v2) comes first, and from whom.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// Peers whose `X-Forwarded-*` is believed.
    #[serde(default)]
    pub forwarded: Forwarded,
    /// Bounds on what a client may do.
    #[serde(default)]
    pub limits: Limits,
    /// What to do with suspicious paths and header names.
    #[serde(default)]
    pub paths: Paths,
    /// `Server` and `Via` of responses.
    #[serde(default)]
    pub server_header: ServerHeader,
    /// Whether error answers of our own carry `x-heddle-reason`.
    #[serde(default)]
    pub expose_reason: bool,
    /// Ids of the nodes that open it; empty is all.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Where connections of `tcp` go, inline.
    pub upstream: Option<Box<Upstream>>,
    /// Where connections of `tcp` go, by id.
    pub upstream_id: Option<Id>,
    /// What becomes of TLS on connections of `tcp`; with `routes` each route says so itself.
    pub tls: Option<TlsMode>,
    /// Where connections of `tcp` go by the server name that TLS asks for, instead of one upstream for all.
    #[serde(default)]
    pub routes: Vec<TcpRoute>,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 and cleartext HTTP/2 with prior knowledge.
    #[default]
    Http,
    /// The same over TLS, chosen by ALPN.
    Https,
    /// Bytes that go to an upstream as they are.
    Tcp,
}

/// What becomes of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// It passes as any bytes do.
    #[default]
    Passthrough,
    /// It ends here, with the certificate of `ssls` for the server name; the bytes inside are passed on.
    Terminate,
}

/// Where connections go that ask for one of some server names.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpRoute {
    /// `db.example.org` or `*.example.org`; empty is everybody whom no other route fits, clients without TLS among them.
    #[serde(default)]
    pub server_names: Vec<String>,
    /// What becomes of TLS.
    #[serde(default)]
    pub tls: TlsMode,
    /// Where they go, inline.
    pub upstream: Option<Box<Upstream>>,
    /// Where they go, by id.
    pub upstream_id: Option<Id>,
    /// Where they go by shares.
    #[serde(default)]
    pub upstreams: Vec<TcpShare>,
    /// How many nodes are tried at most; as often as the upstream retries when absent.
    #[schemars(range(min = 1))]
    pub connect_attempts: Option<u32>,
}

/// An upstream and its share.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpShare {
    /// Its id.
    pub upstream_id: Id,
    /// Its share, as against those of the others.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// `off`, `on` (from every peer), or `{trusted: [networks]}`; also as a boolean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// Never.
    #[default]
    Off,
    /// Demanded, from these peers; empty trusts every peer.
    On(Vec<IpNet>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ProxyProtocolForm {
    Switch(bool),
    Word(String),
    From(TrustedPeers),
}

/// Peers that are trusted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrustedPeers {
    #[serde(deserialize_with = "networks")]
    trusted: Vec<IpNet>,
}

impl<'de> Deserialize<'de> for ProxyProtocol {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match ProxyProtocolForm::deserialize(deserializer) {
            Ok(ProxyProtocolForm::Switch(false)) => Ok(ProxyProtocol::Off),
            Ok(ProxyProtocolForm::Switch(true)) => Ok(ProxyProtocol::On(Vec::new())),
            Ok(ProxyProtocolForm::Word(word)) if word == "off" => Ok(ProxyProtocol::Off),
            Ok(ProxyProtocolForm::Word(word)) if word == "on" => Ok(ProxyProtocol::On(Vec::new())),
            Ok(ProxyProtocolForm::From(peers)) => Ok(ProxyProtocol::On(peers.trusted)),
            _ => Err(serde::de::Error::custom("expected \"off\", \"on\" or {\"trusted\": [addresses or networks]}")),
        }
    }
}

impl JsonSchema for ProxyProtocol {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ProxyProtocol".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string", "enum": ["off", "on"]},
            {"type": "boolean"},
            {"type": "object", "required": ["trusted"], "additionalProperties": false,
             "properties": {"trusted": {"type": "array", "items": {"type": "string"}}}}
        ]})
    }
}

/// Peers whose `X-Forwarded-*` is believed.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forwarded {
    /// Trusted addresses and networks.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "Vec<String>")]
    pub trusted: Vec<IpNet>,
}

/// Bounds on what a client may do; what is absent has the default of [`EdgeLimits`].
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Whole request head.
    pub max_header_bytes: Option<Size>,
    /// One header field.
    pub max_field_bytes: Option<Size>,
    /// Number of fields.
    #[schemars(range(min = 1))]
    pub max_headers: Option<u32>,
    /// Longest request target; above it 414.
    pub max_uri_bytes: Option<Size>,
    /// Time for the request head.
    pub header_timeout: Option<Span>,
    /// Idle keep-alive connection.
    pub idle_timeout: Option<Span>,
    /// A request body must progress within this.
    pub body_timeout: Option<Span>,
    /// A response write must progress within this.
    pub send_timeout: Option<Span>,
    /// TLS handshake, PROXY header included.
    pub handshake_timeout: Option<Span>,
    /// Largest request body; 0 is unlimited.
    pub max_body_bytes: Option<Size>,
    /// Connections of this listener on a node.
    #[schemars(range(min = 1))]
    pub max_connections: Option<u32>,
    /// Connections per source address; 0 is unlimited.
    pub max_connections_per_ip: Option<u32>,
    /// Concurrent HTTP/2 streams of a connection.
    #[schemars(range(min = 1))]
    pub max_streams: Option<u32>,
    /// Requests of a connection before it is closed; 0 is unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// Age at which a connection is closed behind the request that it serves; 0 is unlimited.
    pub max_connection_duration: Option<Span>,
    /// Suspicious HTTP/2 frames that a connection may send per 10 s.
    #[schemars(range(min = 1))]
    pub glitch_budget: Option<u32>,
    /// Chunk extension bytes per body.
    pub max_chunk_extension_bytes: Option<Size>,
}

impl Limits {
    /// The limits of the data plane.
    pub fn edge(&self) -> EdgeLimits {
        let base = EdgeLimits::default();
        let bytes = |size: Option<Size>, default: u32| size.map_or(default, |s| u32::try_from(s.0).unwrap_or(u32::MAX));
        let span = |span: Option<Span>, default: Duration| span.map_or(default, |s| s.0);
        EdgeLimits {
            max_header_bytes: bytes(self.max_header_bytes, base.max_header_bytes),
            max_field_bytes: bytes(self.max_field_bytes, base.max_field_bytes),
            max_headers: self.max_headers.unwrap_or(base.max_headers),
            max_uri_bytes: bytes(self.max_uri_bytes, base.max_uri_bytes),
            header_timeout: span(self.header_timeout, base.header_timeout),
            idle_timeout: span(self.idle_timeout, base.idle_timeout),
            body_timeout: span(self.body_timeout, base.body_timeout),
            send_timeout: span(self.send_timeout, base.send_timeout),
            handshake_timeout: span(self.handshake_timeout, base.handshake_timeout),
            max_body_bytes: self.max_body_bytes.map_or(base.max_body_bytes, |s| s.0),
            max_connections: self.max_connections.unwrap_or(base.max_connections),
            max_connections_per_ip: self.max_connections_per_ip.unwrap_or(base.max_connections_per_ip),
            max_streams: self.max_streams.unwrap_or(base.max_streams),
            max_requests_per_connection: self.max_requests_per_connection.unwrap_or(base.max_requests_per_connection),
            max_connection_duration: span(self.max_connection_duration, base.max_connection_duration),
            glitch_budget: self.glitch_budget.unwrap_or(base.glitch_budget),
            max_chunk_extension_bytes: bytes(self.max_chunk_extension_bytes, base.max_chunk_extension_bytes),
        }
    }
}

/// What to do with suspicious paths and header names; what is absent has the default of [`PathPolicy`].
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// `%2f` and `%5c` in a path: refuse with 400.
    pub reject_encoded_slashes: Option<bool>,
    /// `//` is one `/`.
    pub merge_slashes: Option<bool>,
    /// Header names with `_` are dropped.
    pub drop_underscore_headers: Option<bool>,
}

impl Paths {
    /// The policy of the data plane.
    pub fn policy(&self) -> PathPolicy {
        let base = PathPolicy::default();
        PathPolicy {
            reject_encoded_slashes: self.reject_encoded_slashes.unwrap_or(base.reject_encoded_slashes),
            merge_slashes: self.merge_slashes.unwrap_or(base.merge_slashes),
            drop_underscore_headers: self.drop_underscore_headers.unwrap_or(base.drop_underscore_headers),
        }
    }
}

/// `Server` and `Via` of responses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerHeader {
    /// Value of `Server`; an empty text lets the upstream's pass.
    #[schemars(length(max = 256), regex(pattern = "^[ -~]*$"))]
    pub server: String,
    /// Pseudonym added to `Via`; none when absent.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[!-~]+$"))]
    pub via: Option<String>,
}

impl Default for ServerHeader {
    fn default() -> Self {
        ServerHeader { server: "heddle".to_owned(), via: None }
    }
}

/// An address with its port; names are not looked up.
fn socket_address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| serde::de::Error::custom(format!("expected an address with port (0.0.0.0:9080, [::]:9080), found `{text}`")))
}

/// Networks; a bare address is a network of one.
fn networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| super::super::addr::network(text)).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_carry_units_and_default_to_those_of_the_edge() {
        let limits: Limits =
            serde_json::from_value(json!({"max_header_bytes": "16KiB", "idle_timeout": "5m", "max_body_bytes": 7})).unwrap();
        let expected = EdgeLimits {
            max_header_bytes: 16_384,
            idle_timeout: Duration::from_secs(300),
            max_body_bytes: 7,
            ..EdgeLimits::default()
        };
        assert_eq!(limits.edge(), expected);
        assert_eq!(Paths::default().policy(), PathPolicy::default());
    }

    #[test]
    fn proxy_protocol_has_a_switch_and_a_list() {
        let read = |v| serde_json::from_value::<ProxyProtocol>(v);
        assert_eq!(read(json!("off")).unwrap(), ProxyProtocol::Off);
        assert_eq!(read(json!(true)).unwrap(), ProxyProtocol::On(vec![]));
        assert_eq!(read(json!({"trusted": ["10.0.0.1"]})).unwrap(), ProxyProtocol::On(vec!["10.0.0.1/32".parse().unwrap()]));
        assert!(read(json!("maybe")).is_err());
        assert!(read(json!({"trusted": ["10.0.0.300"]})).is_err());
    }
}
