//! Configuration of `key-auth`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use super::super::identity;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Field that carries the key; looked at before the query.
    #[serde(default = "place")]
    pub header: String,
    /// Query argument that carries the key.
    #[serde(default = "place")]
    pub query: String,
    /// Whether the key is taken out of the request before it goes upstream.
    #[serde(default)]
    pub hide_credentials: bool,
    /// What `WWW-Authenticate` names.
    #[serde(default = "realm")]
    pub realm: String,
    /// Consumer that those are who prove nothing.
    #[schemars(length(min = 1))]
    pub anonymous_consumer: Option<String>,
}

/// Configuration on a consumer or credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    /// The key, unique over all consumers.
    #[schemars(length(min = 1))]
    pub key: String,
}

fn place() -> String {
    "apikey".to_owned()
}

fn realm() -> String {
    "key".to_owned()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if !is_name(&self.header) {
            faults.add("header", format!("expected the name of a header field, got \"{}\"", self.header));
        }
        if self.query.is_empty() {
            faults.add("query", "string too short, expected at least 1, got 0");
        }
        identity::check_common(&self.realm, self.anonymous_consumer.as_deref(), faults);
    }
}

impl check::Config for Credential {
    fn validate(&self, faults: &mut Faults) {
        if self.key.is_empty() {
            faults.add("key", "string too short, expected at least 1, got 0");
        }
    }
}
