//! `upstreams`, shared or inline: a set of nodes and how it is used, as users write it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::super::types::{Id, Labels, Span, Timeout, labels_schema};
use super::Checks;

/// A set of nodes and how it is used.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("allOf" = [{"oneOf": [{"required": ["nodes"]}, {"required": ["service_name", "discovery_type"]}]}]))]
pub struct Upstream {
    /// Unique id; given by the URL or generated.
    pub id: Option<Id>,
    /// A name for people.
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// A description for people.
    #[schemars(length(max = 256))]
    pub desc: Option<String>,
    /// Key/value pairs to describe and find resources.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub labels: Labels,
    /// Addresses: a map `"host[:port]"` to weight, or a list of nodes.
    pub nodes: Option<Nodes>,
    /// Name looked up by `discovery_type` instead of `nodes`.
    #[schemars(length(min = 1, max = 256))]
    pub service_name: Option<String>,
    /// How `service_name` is looked up: `dns`, `mesh` for a service of the mesh (`web`, `shop/web`), or `consul`.
    pub discovery_type: Option<String>,
    /// Arguments of the look-up.
    pub discovery_args: Option<DiscoveryArgs>,
    /// How a node is chosen: `roundrobin`, `chash`, `maglev`, `least_conn` or `ewma`.
    #[serde(default = "default_type", rename = "type")]
    #[schemars(schema_with = "type_schema")]
    pub balancer: String,
    /// Where the key of `chash` and `maglev` comes from.
    #[serde(default)]
    pub hash_on: HashOnKind,
    /// The variable, header, cookie or template that `hash_on` names.
    pub key: Option<String>,
    /// Further tries after the first; one less than the number of nodes when absent.
    #[schemars(range(min = 0))]
    pub retries: Option<u32>,
    /// Seconds after which no new try is made; 0 is no limit.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub retry_timeout: f64,
    /// Step timeouts, 60 s each when absent.
    pub timeout: Option<Timeout>,
    /// Protocol spoken to nodes: `http`, `https`, `grpc` or `grpcs`.
    #[serde(default = "default_scheme")]
    #[schemars(schema_with = "scheme_schema")]
    pub scheme: String,
    /// What the node sees as host.
    #[serde(default)]
    pub pass_host: PassHostKind,
    /// The host of `pass_host: rewrite`.
    #[schemars(length(min = 1), regex(pattern = r"^[0-9a-zA-Z\-._\[\]:]+$"))]
    pub upstream_host: Option<String>,
    /// TLS towards nodes.
    pub tls: Option<UpstreamTls>,
    /// Idle connections kept per node.
    pub keepalive_pool: Option<KeepalivePool>,
    /// Health checks.
    pub checks: Option<Checks>,
    /// A new or recovered node ramps up to its weight over this long.
    pub slow_start: Option<Span>,
    /// Below this share of healthy nodes, in percent, and wherever none is, health is ignored; 0 switches both off.
    #[schemars(range(min = 0, max = 100))]
    pub panic_threshold: Option<u8>,
    /// Limits that break the circuit.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Which zones are used; with `chash` and `maglev` zones do not matter when absent, so that a key leads to the same node from everywhere.
    pub locality: Option<Locality>,
    /// Only nodes with all of these labels are used: their `metadata`, or what discovery says of them.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub subset: Labels,
    /// Whose load `least_conn` and `ewma` go by.
    #[serde(default)]
    pub load_from: LoadFrom,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// Addresses in the order in which they were written.
#[derive(Debug, Clone, PartialEq)]
pub struct Nodes(pub Vec<Node>);

/// One address.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// IP address (without brackets) or DNS name.
    #[schemars(length(min = 1, max = 256))]
    pub host: String,
    /// Port; the scheme's when absent.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Relative share; zero gets no traffic.
    pub weight: u32,
    /// Higher is tried first.
    #[serde(default)]
    pub priority: i32,
    /// Locality zone.
    pub zone: Option<String>,
    /// Free data.
    pub metadata: Option<Map<String, Value>>,
}

impl<'de> Deserialize<'de> for Nodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Nodes, D::Error> {
        use serde::de::Error;
        match Value::deserialize(deserializer)? {
            Value::Object(map) => map
                .into_iter()
                .map(|(address, weight)| mapped_node(&address, &weight))
                .collect::<Result<_, _>>()
                .map(Nodes)
                .map_err(D::Error::custom),
            Value::Array(list) => {
                let mut nodes = Vec::with_capacity(list.len());
                for item in list {
                    let mut node = Node::deserialize(item).map_err(D::Error::custom)?;
                    if let Some(bare) = node.host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
                        node.host = bare.to_owned();
                    }
                    nodes.push(node);
                }
                Ok(Nodes(nodes))
            }
            other => {
                Err(D::Error::custom(format_args!("expected a map of addresses to weights or a list of nodes, got {other}")))
            }
        }
    }
}

impl JsonSchema for Nodes {
    fn schema_name() -> Cow<'static, str> {
        "Nodes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let node = generator.subschema_for::<Node>();
        json_schema!({"anyOf": [
            {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": u32::MAX}},
            {"type": "array", "items": node}
        ]})
    }
}

/// `"host[:port]": weight` as a node.
fn mapped_node(address: &str, weight: &Value) -> Result<Node, String> {
    let weight = weight
        .as_u64()
        .and_then(|w| u32::try_from(w).ok())
        .ok_or_else(|| format!("expected a weight of 0 or more for {address}"))?;
    let (host, port) = split_address(address)?;
    Ok(Node { host, port, weight, priority: 0, zone: None, metadata: None })
}

/// Splits `host`, `host:port`, `[v6]` and `[v6]:port`.
fn split_address(address: &str) -> Result<(String, Option<u16>), String> {
    let refused = |why: &str| format!("\"{address}\" is not host[:port]: {why}");
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (inner, tail) = rest.split_once(']').ok_or_else(|| refused("the bracket is not closed"))?;
            match tail.strip_prefix(':') {
                Some(port) => (inner, Some(port)),
                None if tail.is_empty() => (inner, None),
                None => return Err(refused("expected : and a port after the bracket")),
            }
        }
        None => match address.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(refused("an IPv6 address must stand in brackets")),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Err(refused("the host is empty"));
    }
    let port = match port {
        None => None,
        Some(text) => {
            Some(text.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| refused("expected a port from 1 to 65535"))?)
        }
    };
    Ok((host.to_owned(), port))
}

impl Upstream {
    /// Whether a node is chosen by a hash.
    pub fn hashes(&self) -> bool {
        matches!(self.balancer.as_str(), "chash" | "maglev")
    }
}

/// Where the key of `chash` and `maglev` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashOnKind {
    /// A variable.
    #[default]
    Vars,
    /// A request header.
    Header,
    /// A cookie.
    Cookie,
    /// The consumer that authentication found.
    Consumer,
    /// A template such as `$host$uri`.
    VarsCombinations,
}

/// What the node sees as host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PassHostKind {
    /// The client's.
    #[default]
    Pass,
    /// The node's own name.
    Node,
    /// `upstream_host`.
    Rewrite,
}

/// Arguments of discovery, for `discovery_type: consul`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscoveryArgs {
    /// Namespace.
    pub namespace_id: Option<String>,
    /// Group.
    pub group_name: Option<String>,
    /// Only nodes with this metadata.
    #[serde(default)]
    pub metadata: BTreeMap<String, Value>,
    /// The datacenter, when it is not that of the settings.
    #[schemars(length(min = 1, max = 64))]
    pub datacenter: Option<String>,
    /// The namespace (Consul Enterprise), when it is not that of the settings.
    #[schemars(length(min = 1, max = 64))]
    pub namespace: Option<String>,
    /// Only instances with all of these tags.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    pub tags: Vec<String>,
    /// Only instances whose checks all pass; else those that warn are used with their own weight, and those that are critical are known as unhealthy.
    #[serde(default)]
    pub only_passing: bool,
    /// Instances in the order of their distance from this node, the nearest first; `_agent` is the agent that is asked.
    #[schemars(length(min = 1, max = 256))]
    pub near: Option<String>,
    /// Only instances on nodes with all of this in their meta.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub node_meta: BTreeMap<String, String>,
    /// The port of all instances, instead of the one that each is registered with.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Whether instances are used that say they are at an address of loopback, of a link or of a cloud's metadata service, or that have a name for an
    /// address; yes when absent.
    pub allow_local: Option<bool>,
    /// `service_name` is the name of a prepared query, which is executed every five seconds.
    #[serde(default)]
    pub prepared_query: bool,
}

/// TLS towards nodes.
#[derive(Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTls {
    /// PEM chain shown to nodes; together with `client_key`.
    #[schemars(length(min = 128, max = 65536))]
    pub client_cert: Option<String>,
    /// Its PEM key. Never shown again.
    #[schemars(length(min = 64, max = 65536))]
    pub client_key: Option<String>,
    /// An `ssls` resource of type `client`, instead of `client_cert` and `client_key`.
    pub client_cert_id: Option<Id>,
    /// Whether the node's certificate is verified.
    #[serde(default)]
    pub verify: bool,
    /// Trusted roots as PEM, or the id of an `ssls` resource whose `client.ca` (else `cert`) is trusted.
    #[schemars(length(min = 1, max = 1048576))]
    pub ca: Option<String>,
    /// Server name sent instead of the host.
    #[schemars(length(min = 1, max = 253))]
    pub sni: Option<String>,
}

impl std::fmt::Debug for UpstreamTls {
    /// Key material never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamTls")
            .field("client_cert_id", &self.client_cert_id)
            .field("verify", &self.verify)
            .field("sni", &self.sni)
            .finish_non_exhaustive()
    }
}

/// Idle connections kept per node.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepalivePool {
    /// Most idle connections.
    #[serde(default = "default_pool_size")]
    #[schemars(range(min = 1))]
    pub size: u32,
    /// Seconds without use; 0 is no limit.
    #[serde(default = "default_pool_idle")]
    #[schemars(range(min = 0))]
    pub idle_timeout: f64,
    /// Requests until it is closed.
    #[serde(default = "default_pool_requests")]
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// Seconds after which a connection gets no further requests, and is closed when those under way have ended; 0 is no limit, and less than 1
    /// counts as 1.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub max_age: f64,
}

/// Limits that break the circuit: above them a request is refused with 503 at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Connections to one node, per worker.
    #[schemars(range(min = 1))]
    pub max_connections: Option<u32>,
    /// Requests waiting for a connection, per worker.
    pub max_pending: Option<u32>,
    /// Requests in flight, per worker.
    #[schemars(range(min = 1))]
    pub max_requests: Option<u32>,
    /// Requests that are sent again although an endpoint may have seen them, in percent of all requests; 20 when absent.
    #[schemars(range(min = 0, max = 100))]
    pub retry_budget_percent: Option<u8>,
}

/// Which zones are used, seen from the zone of the gateway or sidecar (`node.zone`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Locality {
    /// Whether the own zone comes first.
    #[serde(default)]
    pub mode: LocalityMode,
    /// Zones in the order in which they take over; those that are not named come last, together.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub failover: Vec<String>,
    /// Percent of its fair share that a node may be given before the next zone helps.
    #[serde(default = "default_overprovisioning")]
    #[schemars(range(min = 100, max = 10_000))]
    pub overprovisioning: u32,
}

/// Whether the own zone comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LocalityMode {
    /// The own zone first, the others when it cannot carry all.
    #[default]
    Prefer,
    /// The own zone and those of `failover`, no others.
    Strict,
    /// Zones do not matter.
    Off,
}

/// Whose load counts in choosing a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoadFrom {
    /// What this gateway has in flight itself.
    #[default]
    Local,
    /// That, and what the other gateways of its group tell by gossip.
    Fleet,
}

fn default_overprovisioning() -> u32 {
    140
}

fn default_type() -> String {
    "roundrobin".to_owned()
}

fn default_scheme() -> String {
    "http".to_owned()
}

fn default_pool_size() -> u32 {
    320
}

fn default_pool_idle() -> f64 {
    60.0
}

fn default_pool_requests() -> u32 {
    1000
}

fn type_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "default": "roundrobin", "description": "How a node is chosen: roundrobin, chash, maglev, least_conn or ewma."})
}

fn scheme_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "default": "http", "enum": ["grpc", "grpcs", "http", "https", "tcp", "tls", "udp", "kafka"]})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_are_a_map_or_a_list_and_keep_their_order() {
        let map: Nodes =
            serde_json::from_value(json!({"z.example:81": 2, "10.0.0.1": 0, "[::1]:80": 1, "[fe80::1]": 3})).unwrap();
        let read: Vec<_> = map.0.iter().map(|n| (n.host.as_str(), n.port, n.weight)).collect();
        assert_eq!(read, [("z.example", Some(81), 2), ("10.0.0.1", None, 0), ("::1", Some(80), 1), ("fe80::1", None, 3)]);
        let list: Nodes = serde_json::from_value(json!([{"host": "[::1]", "port": 80, "weight": 1, "priority": -1}])).unwrap();
        assert_eq!((list.0[0].host.as_str(), list.0[0].priority), ("::1", -1));
    }

    #[test]
    fn addresses_that_could_mean_two_things_are_refused() {
        for bad in ["::1:80", "a:0", "a:70000", "a:", ":80", "[::1", "[::1]80", ""] {
            assert!(split_address(bad).is_err(), "{bad}");
        }
    }
}
