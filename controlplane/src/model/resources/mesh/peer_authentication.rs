//! `peer_authentications`, Heddle's own kind: who is let in by the sidecars of services, as users write it. Nobody is let in here.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::super::super::types::{Id, Labels, labels_schema};
use super::mesh_service::default_namespace;

/// Who is let in: members of the mesh, callers in clear, or both.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerAuthentication {
    /// Unique id; given by the URL.
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
    /// Namespace of the services that it is about.
    #[serde(default = "default_namespace")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The service that it is about; every one of the namespace that has none of its own when absent.
    #[schemars(length(min = 1, max = 63))]
    pub service: Option<String>,
    /// For all ports; what is less specific decides when absent.
    pub mode: Option<PeerModeKind>,
    /// For single ports of the application, which need `service`.
    #[serde(default)]
    #[schemars(schema_with = "ports_schema")]
    pub ports: BTreeMap<String, PeerModeKind>,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PeerModeKind {
    /// Members of the mesh.
    Strict,
    /// They, and callers in clear.
    Permissive,
    /// Callers in clear; no TLS is spoken.
    Disable,
}

impl PeerAuthentication {
    /// The port that a key of `ports` names.
    pub fn port(key: &str) -> Option<u16> {
        // No sign, no zero in front: each port has one spelling.
        key.parse().ok().filter(|port: &u16| *port > 0 && port.to_string() == *key)
    }
}

fn ports_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "Modes of single ports of the application: {\"9090\": \"permissive\"}. They need service.",
        "maxProperties": 100,
        "additionalProperties": {"type": "string", "enum": ["strict", "permissive", "disable"]}
    })
}
