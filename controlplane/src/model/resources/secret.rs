//! `secrets`: where `$secret://` references are looked up, as users write it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::types::{Id, path_id_schema, yes};

/// A manager of secrets.
#[derive(Clone, PartialEq)]
pub enum Secret {
    /// HashiCorp Vault, KV version 1 or 2.
    Vault(VaultSecret),
    /// AWS Secrets Manager.
    Aws(AwsSecret),
    /// Google Secret Manager.
    Gcp(GcpSecret),
}

impl std::fmt::Debug for Secret {
    /// The manager only: tokens never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Secret::Vault(_) => "Secret::Vault",
            Secret::Aws(_) => "Secret::Aws",
            Secret::Gcp(_) => "Secret::Gcp",
        })
    }
}

/// HashiCorp Vault, KV version 1 or 2.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultSecret {
    /// Unique below the manager.
    #[serde(default)]
    #[schemars(schema_with = "path_id_schema")]
    pub id: Option<Id>,
    /// Address, `http://` or `https://`.
    #[schemars(regex(pattern = r"^[^:/?#]+://[^/?#]+"))]
    pub uri: String,
    /// Path below which names are looked up: the mount, with `/data` behind it for KV version 2.
    pub prefix: String,
    /// Access token, or a `$env://` reference.
    pub token: String,
    /// Vault namespace.
    pub namespace: Option<String>,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// AWS Secrets Manager.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsSecret {
    /// Unique below the manager.
    #[serde(default)]
    #[schemars(schema_with = "path_id_schema")]
    pub id: Option<Id>,
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token.
    pub session_token: Option<String>,
    /// Region.
    #[serde(default = "default_region")]
    pub region: String,
    /// Address other than Amazon's.
    pub endpoint_url: Option<String>,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// Google Secret Manager. One of `auth_config` and `auth_file`.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcpSecret {
    /// Unique below the manager.
    #[serde(default)]
    #[schemars(schema_with = "path_id_schema")]
    pub id: Option<Id>,
    /// Service account.
    pub auth_config: Option<GcpAuth>,
    /// File with the service account.
    pub auth_file: Option<String>,
    /// Whether certificates are verified.
    #[serde(default = "yes")]
    pub ssl_verify: bool,
    /// Unix seconds, set by the server.
    pub create_time: Option<i64>,
    /// Unix seconds, set by the server.
    pub update_time: Option<i64>,
}

/// A Google service account.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcpAuth {
    /// Account.
    pub client_email: String,
    /// PEM key.
    pub private_key: String,
    /// Project.
    pub project_id: String,
    /// Where tokens come from.
    pub token_uri: Option<String>,
    /// Scopes of the token.
    pub scope: Option<Vec<String>>,
    /// Where secrets are read.
    pub entries_uri: Option<String>,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}
