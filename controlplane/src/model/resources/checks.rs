//! `checks` of an upstream: how nodes are found healthy or not, as users write it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::types::yes;

/// How nodes are found healthy or not. `passive` alone is not possible: nobody would find a node recovered.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checks {
    /// Probes of our own.
    pub active: Option<Active>,
    /// Judged by real traffic.
    pub passive: Option<Passive>,
}

/// Probes of our own.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Active {
    /// What is spoken.
    #[serde(default, rename = "type")]
    pub kind: CheckType,
    /// Seconds for the whole probe.
    #[serde(default = "default_timeout")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub timeout: f64,
    /// Probes under way at once.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1))]
    pub concurrency: u32,
    /// Host header; the node's name when absent.
    #[schemars(length(min = 1))]
    pub host: Option<String>,
    /// Port; the node's when absent.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Method.
    #[serde(default = "default_method")]
    #[schemars(length(min = 1))]
    pub http_method: String,
    /// Path and query.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1))]
    pub http_path: String,
    /// Body.
    #[serde(default)]
    pub http_req_body: String,
    /// Whether the certificate is verified.
    #[serde(default = "yes")]
    pub https_verify_certificate: bool,
    /// Further header fields, `Name: value`.
    #[serde(default)]
    pub req_headers: Vec<String>,
    /// When a node is found healthy.
    #[serde(default)]
    pub healthy: ActiveHealthy,
    /// When a node is found unhealthy.
    #[serde(default)]
    pub unhealthy: ActiveUnhealthy,
    /// How many agents of a group and zone probe each node and tell the others; `all` lets every agent probe.
    #[serde(default)]
    pub checkers: Checkers,
}

/// How many agents probe a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub enum Checkers {
    /// So many of each group and zone.
    Some(u32),
    /// Every one.
    All,
}

/// Most agents that share out one node: more is `all`.
const MOST_CHECKERS: u32 = 64;

impl Default for Checkers {
    /// 3, so that neither one that dies nor one that is wrong decides.
    fn default() -> Self {
        Checkers::Some(3)
    }
}

impl TryFrom<Value> for Checkers {
    type Error = String;

    fn try_from(value: Value) -> Result<Checkers, String> {
        let count =
            value.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| (1..=MOST_CHECKERS).contains(count));
        match (count, value.as_str()) {
            (Some(count), _) => Ok(Checkers::Some(count)),
            (None, Some("all")) => Ok(Checkers::All),
            _ => Err(format!("expected 1 to {MOST_CHECKERS} or \"all\", got {value}")),
        }
    }
}

impl JsonSchema for Checkers {
    fn schema_name() -> Cow<'static, str> {
        "Checkers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": MOST_CHECKERS},
            {"type": "string", "enum": ["all"]}
        ]})
    }
}

/// What a check speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckType {
    /// HTTP/1.1 in clear.
    #[default]
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// A connection that stands is healthy.
    Tcp,
}

/// When a probe finds a node healthy.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ActiveHealthy {
    /// Seconds between probes of a healthy node.
    #[schemars(range(min = 1))]
    pub interval: u32,
    /// Statuses that are success.
    #[schemars(schema_with = "statuses_schema")]
    pub http_statuses: Vec<u16>,
    /// Successes in a row.
    #[schemars(range(min = 1, max = 254))]
    pub successes: u32,
}

/// When a probe finds a node unhealthy. A count of 0 switches its rule off.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ActiveUnhealthy {
    /// Seconds between probes of an unhealthy node.
    #[schemars(range(min = 1))]
    pub interval: u32,
    /// Statuses that are failure.
    #[schemars(schema_with = "statuses_schema")]
    pub http_statuses: Vec<u16>,
    /// Such statuses in a row.
    #[schemars(range(min = 0, max = 254))]
    pub http_failures: u32,
    /// Failed connections in a row.
    #[schemars(range(min = 0, max = 254))]
    pub tcp_failures: u32,
    /// Timeouts in a row.
    #[schemars(range(min = 0, max = 254))]
    pub timeouts: u32,
}

/// Judged by real traffic.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Passive {
    /// What is judged.
    #[serde(default, rename = "type")]
    pub kind: CheckType,
    /// When a node is found healthy.
    #[serde(default)]
    pub healthy: PassiveHealthy,
    /// When a node is found unhealthy.
    #[serde(default)]
    pub unhealthy: PassiveUnhealthy,
}

/// When traffic finds a node healthy.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PassiveHealthy {
    /// Statuses that are success.
    #[schemars(schema_with = "statuses_schema")]
    pub http_statuses: Vec<u16>,
    /// Successes in a row; 0 switches the rule off.
    #[schemars(range(min = 0, max = 254))]
    pub successes: u32,
}

/// When traffic finds a node unhealthy. A count of 0 switches its rule off.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PassiveUnhealthy {
    /// Statuses that are failure.
    #[schemars(schema_with = "statuses_schema")]
    pub http_statuses: Vec<u16>,
    /// Such statuses in a row.
    #[schemars(range(min = 0, max = 254))]
    pub http_failures: u32,
    /// Failed connections in a row.
    #[schemars(range(min = 0, max = 254))]
    pub tcp_failures: u32,
    /// Timeouts in a row.
    #[schemars(range(min = 0, max = 254))]
    pub timeouts: u32,
}

impl Default for ActiveHealthy {
    fn default() -> Self {
        ActiveHealthy { interval: 1, http_statuses: vec![200, 302], successes: 2 }
    }
}

impl Default for ActiveUnhealthy {
    fn default() -> Self {
        let http_statuses = vec![429, 404, 500, 501, 502, 503, 504, 505];
        ActiveUnhealthy { interval: 1, http_statuses, http_failures: 5, tcp_failures: 2, timeouts: 3 }
    }
}

impl Default for PassiveHealthy {
    fn default() -> Self {
        let http_statuses = (200..=208).chain([226]).chain(300..=308).collect();
        PassiveHealthy { http_statuses, successes: 5 }
    }
}

impl Default for PassiveUnhealthy {
    fn default() -> Self {
        PassiveUnhealthy { http_statuses: vec![429, 500, 503], http_failures: 5, tcp_failures: 2, timeouts: 7 }
    }
}

fn default_timeout() -> f64 {
    1.0
}

fn default_concurrency() -> u32 {
    10
}

fn default_method() -> String {
    "GET".to_owned()
}

fn default_path() -> String {
    "/".to_owned()
}

fn statuses_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "minItems": 1, "uniqueItems": true, "items": {"type": "integer", "minimum": 200, "maximum": 599}})
}
