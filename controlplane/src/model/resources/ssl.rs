//! `ssls`: certificates for server names, and client certificates towards upstreams, as users write them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::super::types::{HOST, Id, Labels, hosts_schema, labels_schema, on, status_schema};

/// A certificate with its key.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("allOf" = [{
    "if": {"properties": {"type": {"const": "client"}}, "required": ["type"]},
    "else": {"oneOf": [{"required": ["sni"]}, {"required": ["snis"]}]}
}]))]
pub struct Ssl {
    /// Unique id; given by the URL or generated.
    pub id: Option<Id>,
    /// A description for people.
    #[schemars(length(max = 256))]
    pub desc: Option<String>,
    /// Key/value pairs to describe and find resources.
    #[serde(default)]
    #[schemars(schema_with = "labels_schema")]
    pub labels: Labels,
    /// `server` shows it to clients, `client` shows it to upstreams.
    #[serde(default, rename = "type")]
    pub kind: SslType,
    /// Server name; exactly one of `sni` and `snis` for type `server`.
    #[schemars(length(min = 1), regex(pattern = HOST))]
    pub sni: Option<String>,
    /// Several server names.
    #[serde(default)]
    #[schemars(schema_with = "hosts_schema")]
    pub snis: Option<Vec<String>>,
    /// PEM chain, leaf first, or a `$secret://` or `$env://` reference.
    #[schemars(schema_with = "cert_schema")]
    pub cert: String,
    /// PEM key, or a `$secret://` or `$env://` reference. Never shown again.
    #[schemars(schema_with = "key_schema")]
    pub key: String,
    /// Further chains, for example of another key type.
    #[serde(default)]
    #[schemars(schema_with = "certs_schema")]
    pub certs: Vec<String>,
    /// Their keys, in the same order.
    #[serde(default)]
    #[schemars(schema_with = "keys_schema")]
    pub keys: Vec<String>,
    /// Demand a client certificate.
    pub client: Option<SslClient>,
    /// TLS versions; those of the listener when absent.
    #[serde(default)]
    #[schemars(schema_with = "protocols_schema")]
    pub ssl_protocols: Option<Vec<String>>,
    /// 1 in use, 0 left out.
    #[serde(default = "on")]
    #[schemars(schema_with = "status_schema")]
    pub status: u8,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

impl Ssl {
    /// The server names, whichever of `sni` and `snis` was used.
    pub fn all_snis(&self) -> impl Iterator<Item = &str> {
        self.sni.iter().chain(self.snis.iter().flatten()).map(String::as_str)
    }

    /// All pairs of chain and key.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        std::iter::once((self.cert.as_str(), self.key.as_str()))
            .chain(self.certs.iter().zip(&self.keys).map(|(cert, key)| (cert.as_str(), key.as_str())))
    }
}

impl std::fmt::Debug for Ssl {
    /// Names only: key material never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ssl").field("kind", &self.kind).field("sni", &self.sni).field("snis", &self.snis).finish_non_exhaustive()
    }
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SslType {
    /// Shown to clients.
    #[default]
    Server,
    /// Shown to upstreams.
    Client,
}

/// Demand a client certificate.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SslClient {
    /// PEM roots that are trusted.
    #[schemars(schema_with = "cert_schema")]
    pub ca: String,
    /// Longest chain of intermediates.
    #[serde(default = "default_depth")]
    #[schemars(range(min = 0, max = 32))]
    pub depth: u8,
    /// Paths (regex) for which no certificate is demanded.
    #[serde(default)]
    #[schemars(schema_with = "skip_schema")]
    pub skip_mtls_uri_regex: Option<Vec<String>>,
}

fn default_depth() -> u8 {
    1
}

/// Secret references are not bound to the length of a PEM text.
fn pem_schema(min: u32, max: u32) -> Schema {
    json_schema!({"anyOf": [
        {"type": "string", "minLength": min, "maxLength": max},
        {"type": "string", "pattern": "^\\$(secret|env|ENV)://"}
    ]})
}

fn cert_schema(_: &mut SchemaGenerator) -> Schema {
    pem_schema(128, 65_536)
}

fn key_schema(_: &mut SchemaGenerator) -> Schema {
    pem_schema(64, 65_536)
}

fn certs_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": pem_schema(128, 65_536)})
}

fn keys_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": pem_schema(64, 65_536)})
}

fn protocols_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "minItems": 1, "uniqueItems": true, "items": {"type": "string", "enum": ["TLSv1.1", "TLSv1.2", "TLSv1.3"]}})
}

fn skip_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "minItems": 1, "uniqueItems": true, "items": {"type": "string"}})
}
