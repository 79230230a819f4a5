//! Configuration of `basic-auth`.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::check::{self, Faults};
use super::super::{Proven, identity};
use super::password::Password;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Whether `Authorization` is taken out of the request before it goes upstream.
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
    /// The name, unique over all consumers.
    #[schemars(length(min = 1))]
    pub username: String,
    /// The password, or its hash as `htpasswd` writes it: `$2y$…` (bcrypt), `$apr1$…` or `{SHA}…`.
    #[schemars(length(min = 1))]
    pub password: String,
}

fn realm() -> String {
    "basic".to_owned()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        identity::check_common(&self.realm, self.anonymous_consumer.as_deref(), faults);
    }
}

impl check::Config for Credential {
    fn validate(&self, faults: &mut Faults) {
        identity::check_present("username", &self.username, faults);
        if self.username.contains(':') {
            faults.add("username", "expected a name without a colon, which would end it in a request");
        }
        match Password::parse(&self.password) {
            Ok(_) => identity::check_present("password", &self.password, faults),
            Err(message) => faults.add("password", message),
        }
    }
}

/// Compiles a consumer's password.
pub(super) fn credential(value: &Value) -> Proven {
    let config: Credential = check::read(value)?;
    let password = Password::parse(&config.password).map_err(|message| vec![check::fault_at("password", message)])?;
    Ok(Arc::new(password))
}
