//! `authorization_policies`, Heddle's own kind: who may call the services of the mesh, as users write it. Nobody is judged here.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::super::super::types::{Id, Labels, labels_schema};
use super::mesh_service::{default_namespace, ports_schema};

/// Who may call what.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationPolicy {
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
    /// Namespace of the services that it protects.
    #[serde(default = "default_namespace")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The service that it protects; every one of the namespace when absent.
    #[schemars(length(min = 1, max = 63))]
    pub service: Option<String>,
    /// What a match means.
    pub action: PolicyActionKind,
    /// Only counts and tells what it would do.
    #[serde(default)]
    pub dry_run: bool,
    /// It matches when one of them does. One that allows and has none refuses everybody whom no other allows.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub rules: Vec<Rule>,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyActionKind {
    /// Let in.
    Allow,
    /// Refuse.
    Deny,
}

/// Matches when one of `from` and one of `to` do; without one of both, whoever calls and whatever is called does.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Who calls.
    #[schemars(length(max = 200))]
    pub from: Vec<Source>,
    /// What is called.
    #[schemars(length(max = 200))]
    pub to: Vec<Operation>,
}

/// Who calls. All lists that are written must match, each by one of its items.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Services (`web`, `shop/web`, `shop/*`), SPIFFE ids (a `*` at the end stands for any rest), or `*` for whoever has an identity.
    #[schemars(length(max = 1000))]
    pub identities: Vec<String>,
    /// Namespaces of the own trust domain.
    #[schemars(length(max = 1000))]
    pub namespaces: Vec<String>,
    /// Addresses and networks of the caller's socket.
    #[schemars(length(max = 1000))]
    pub cidrs: Vec<String>,
    /// The same, of callers that do not match.
    #[schemars(length(max = 1000))]
    pub not_identities: Vec<String>,
    /// The same, of callers that do not match.
    #[schemars(length(max = 1000))]
    pub not_namespaces: Vec<String>,
    /// The same, of callers that do not match.
    #[schemars(length(max = 1000))]
    pub not_cidrs: Vec<String>,
}

/// What is called. All lists that are written must match, each by one of its items. What looks into requests never matches opaque bytes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Operation {
    /// Methods.
    #[schemars(length(max = 100))]
    pub methods: Vec<String>,
    /// Paths without query; a `*` at the end stands for any rest.
    #[schemars(length(max = 1000))]
    pub paths: Vec<String>,
    /// Hosts without port; a `*` at the start stands for any beginning.
    #[schemars(length(max = 1000))]
    pub hosts: Vec<String>,
    /// Ports of the application.
    #[schemars(schema_with = "ports_schema")]
    pub ports: Vec<u16>,
    /// Header fields that must be there, with one of these values; a `*` at the end of a value stands for any rest, and no values for any.
    #[schemars(schema_with = "headers_schema")]
    pub headers: BTreeMap<String, HeaderValues>,
    /// Methods that do not match.
    #[schemars(length(max = 100))]
    pub not_methods: Vec<String>,
    /// Paths that do not match.
    #[schemars(length(max = 1000))]
    pub not_paths: Vec<String>,
}

/// One value, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub enum HeaderValues {
    /// One.
    One(String),
    /// Several; none stands for any.
    Many(Vec<String>),
}

impl HeaderValues {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            HeaderValues::One(value) => std::slice::from_ref(value),
            HeaderValues::Many(values) => values,
        }
    }
}

fn headers_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "Header fields that must be there, with one of these values; a * at the end of a value stands for any rest, and no values for any.",
        "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "array", "maxItems": 1000, "items": {"type": "string"}}]}
    })
}
