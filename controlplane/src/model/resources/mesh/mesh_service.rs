//! `mesh_services`, Heddle's own kind: how clients of the mesh reach one service, as its owner writes it once for all of them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::super::types::{Id, Labels, Plugins, Span, Timeout, labels_schema, plugins_schema};
use super::super::{Checks, CircuitBreaker, HashOnKind, KeepalivePool, LoadFrom, Locality, Nodes, PassHostKind, Upstream};

/// How clients reach a service.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeshService {
    /// Unique id; given by the URL.
    pub id: Option<Id>,
    /// The service; the id when absent.
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// Its namespace.
    #[serde(default = "default_namespace")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// A description for people.
    #[schemars(length(max = 256))]
    pub desc: Option<String>,
    /// Key/value pairs to describe and find resources.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub labels: Labels,
    /// What its application speaks: `http`, `http2`, `grpc`, `tcp` or `auto`; what its instances say when absent.
    #[serde(default)]
    #[schemars(schema_with = "protocol_schema")]
    pub protocol: Option<String>,
    /// Ports on which clients call it, each a number or with what is spoken there; any when empty.
    #[serde(default)]
    #[schemars(schema_with = "called_ports_schema")]
    pub ports: Vec<CalledPort>,
    /// Addresses by which clients know it besides its name, as that of a Kubernetes service: captured connections there are calls of it.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub addresses: Vec<String>,
    /// It is a service of a partner's trust domain, which has no instances here.
    pub federated: Option<Federated>,
    /// Step timeouts; 1 s to connect, 60 s for each of the others when absent.
    pub timeout: Option<Timeout>,
    /// Further tries after the first; 2 when absent.
    #[schemars(range(min = 0, max = 20))]
    pub retries: Option<u32>,
    /// Seconds after which no new try is made; 0 is no limit.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub retry_timeout: f64,
    /// How an instance is chosen: `roundrobin`, `chash`, `maglev`, `least_conn` or `ewma`.
    #[serde(default = "default_type", rename = "type")]
    #[schemars(schema_with = "type_schema")]
    pub balancer: String,
    /// Where the key of `chash` and `maglev` comes from.
    #[serde(default)]
    pub hash_on: HashOnKind,
    /// The variable, header, cookie or template that `hash_on` names.
    pub key: Option<String>,
    /// Health checks; judged by traffic alone when absent.
    pub checks: Option<Checks>,
    /// Limits that break the circuit.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Idle connections kept per instance.
    pub keepalive_pool: Option<KeepalivePool>,
    /// A new or recovered instance ramps up to its share over this long.
    pub slow_start: Option<Span>,
    /// Below this share of healthy instances, in percent, and wherever none is, health is ignored; 0 switches both off.
    #[schemars(range(min = 0, max = 100))]
    pub panic_threshold: Option<u8>,
    /// Which zones are used, seen from the zone of the caller.
    pub locality: Option<Locality>,
    /// Plugins that run at its own instances, for requests that come in, after its callers have been judged.
    #[serde(default)]
    #[schemars(schema_with = "plugins_schema")]
    pub inbound_plugins: Plugins,
    /// Plugins that run where it is called.
    #[serde(default)]
    #[schemars(schema_with = "plugins_schema")]
    pub plugins: Plugins,
    /// Where its requests go instead, in shares.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub split: Vec<Split>,
    /// Who gets copies of its requests.
    pub mirror: Option<ServiceMirror>,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// A service of another trust domain that we are federated with, and where it is.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Federated {
    /// The trust domain: by its bundle, and no other, whoever is called must prove who it is.
    #[schemars(length(min = 1, max = 255))]
    pub trust_domain: String,
    /// What it is called there, `service` of the same namespace or `namespace/service`; as it is here when absent.
    pub service: Option<String>,
    /// Where its sidecars take what comes in.
    pub nodes: Nodes,
}

/// Who gets copies of the requests to a service; their answers are thrown away.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceMirror {
    /// Who gets them: `service` of the same namespace, or `namespace/service`; the service itself when absent.
    pub service: Option<String>,
    /// Only its instances with all of these labels; `version` is what they say of their version.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub subset: Labels,
    /// Share of requests that are copied.
    #[serde(default = "all")]
    #[schemars(range(min = 0.00001, max = 1))]
    pub sample_ratio: f64,
    /// Copies bodies too, up to 1 MiB; requests with a longer one are not copied.
    #[serde(default = "yes")]
    pub mirror_body: bool,
    /// Seconds that a copy may take.
    #[serde(default = "minute")]
    #[schemars(range(min = 0.001, max = 3600))]
    pub timeout: f64,
}

/// A port on which clients call a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a port, or one with what is spoken there: { port: 9090, protocol: grpc }")]
pub enum CalledPort {
    /// By its number alone.
    Number(u16),
    /// With what is spoken there.
    Spoken {
        /// Its number.
        port: u16,
        /// As of `protocol`.
        protocol: String,
    },
}

impl CalledPort {
    /// Its number.
    pub fn number(&self) -> u16 {
        match self {
            CalledPort::Number(port) | CalledPort::Spoken { port, .. } => *port,
        }
    }

    /// What is spoken there, where it is said.
    pub fn protocol(&self) -> Option<&str> {
        match self {
            CalledPort::Number(_) => None,
            CalledPort::Spoken { protocol, .. } => Some(protocol),
        }
    }
}

/// A share of the requests to a service.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Who gets it: `service` of the same namespace, or `namespace/service`; the service itself when absent.
    pub service: Option<String>,
    /// Only its instances with all of these labels; `version` is what they say of their version.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub subset: Labels,
    /// Its share; 0 gets nothing.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
    /// Which requests are shared out: an expression as in `vars` of routes; all when absent. Entries in a row with the same one share what fits.
    #[serde(default, rename = "match")]
    #[schemars(schema_with = "match_schema")]
    pub matches: Option<Value>,
}

impl MeshService {
    /// What it has in common with upstreams, as an upstream without nodes.
    pub fn upstream(&self) -> Upstream {
        Upstream {
            id: None,
            name: None,
            desc: None,
            labels: Labels::new(),
            nodes: self.federated.as_ref().map(|federated| federated.nodes.clone()),
            service_name: None,
            discovery_type: None,
            discovery_args: None,
            balancer: self.balancer.clone(),
            hash_on: self.hash_on,
            key: self.key.clone(),
            retries: self.retries,
            retry_timeout: self.retry_timeout,
            timeout: self.timeout.clone(),
            scheme: "http".to_owned(),
            pass_host: PassHostKind::Pass,
            upstream_host: None,
            tls: None,
            keepalive_pool: self.keepalive_pool.clone(),
            checks: self.checks.clone(),
            slow_start: self.slow_start,
            panic_threshold: self.panic_threshold,
            circuit_breaker: self.circuit_breaker.clone(),
            locality: self.locality.clone(),
            load_from: LoadFrom::Local,
            subset: Labels::new(),
            create_time: None,
            update_time: None,
        }
    }

    /// What stands for a service whose owner wrote nothing.
    pub fn unwritten(namespace: &str) -> MeshService {
        MeshService {
            id: None,
            name: None,
            namespace: namespace.to_owned(),
            desc: None,
            labels: Labels::new(),
            protocol: None,
            ports: Vec::new(),
            addresses: Vec::new(),
            federated: None,
            timeout: None,
            retries: None,
            retry_timeout: 0.0,
            balancer: default_type(),
            hash_on: HashOnKind::default(),
            key: None,
            checks: None,
            circuit_breaker: None,
            keepalive_pool: None,
            slow_start: None,
            panic_threshold: None,
            locality: None,
            inbound_plugins: Plugins::new(),
            plugins: Plugins::new(),
            split: Vec::new(),
            mirror: None,
            create_time: None,
            update_time: None,
        }
    }
}

pub(super) fn default_namespace() -> String {
    super::super::super::DEFAULT_NAMESPACE.to_owned()
}

fn default_type() -> String {
    "ewma".to_owned()
}

fn default_weight() -> u32 {
    1
}

fn all() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn minute() -> f64 {
    60.0
}

fn type_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "default": "ewma", "description": "How an instance is chosen: roundrobin, chash, maglev, least_conn or ewma."})
}

fn protocol_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["http", "http2", "grpc", "tcp", "auto"], "description": "What its application speaks; what its instances say when absent."})
}

fn match_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "description": "An expression as in `vars` of routes."})
}

fn called_ports_schema(_: &mut SchemaGenerator) -> Schema {
    let port = || json!({"type": "integer", "minimum": 1, "maximum": 65535});
    json_schema!({
        "type": "array",
        "description": "Ports on which clients call it, each a number or with what is spoken there; any when empty.",
        "maxItems": 100,
        "uniqueItems": true,
        "items": {"anyOf": [port(), {
            "type": "object",
            "properties": {"port": port(), "protocol": {"type": "string", "enum": ["http", "http2", "grpc", "tcp", "auto"]}},
            "required": ["port", "protocol"],
            "additionalProperties": false
        }]}
    })
}

pub(super) fn ports_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 100, "uniqueItems": true, "items": {"type": "integer", "minimum": 1, "maximum": 65535}})
}
