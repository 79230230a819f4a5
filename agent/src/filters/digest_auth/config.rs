//! Configuration of `digest-auth`.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::check::{self, Faults};
use super::super::{Proven, identity};
use super::digest::Hash;
use crate::secrets::reference::is_reference;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// What `WWW-Authenticate` names; it is part of what is hashed.
    #[serde(default = "realm")]
    pub realm: String,
    /// Hashes that clients may use, in the order in which they are offered.
    #[serde(default = "algorithms")]
    #[schemars(length(min = 1))]
    pub algorithms: Vec<Hash>,
    /// Seconds for which a challenge is good.
    #[serde(default = "nonce_ttl")]
    #[schemars(range(min = 1, max = 86_400))]
    pub nonce_ttl: u32,
    /// Whether `Authorization` is taken out of the request before it goes upstream.
    #[serde(default)]
    pub hide_credentials: bool,
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
    /// The password; or `ha1` instead.
    pub password: Option<String>,
    /// MD5 or SHA-256 of `username:realm:password` in hex, as `htdigest` writes it; it is good for that realm and that hash alone.
    pub ha1: Option<String>,
}

/// What a consumer's digests are computed from.
#[derive(Debug)]
pub(super) enum Secret {
    Password(Box<str>),
    /// In lower-case hex; its length tells the hash.
    Ha1(Box<str>),
    /// A reference to a secret that is not known.
    Nothing,
}

fn realm() -> String {
    "digest".to_owned()
}

fn algorithms() -> Vec<Hash> {
    vec![Hash::Sha256, Hash::Md5]
}

fn nonce_ttl() -> u32 {
    300
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.algorithms.is_empty() {
            faults.add("algorithms", "expect array to have at least 1 items");
        }
        faults.range("nonce_ttl", self.nonce_ttl, 1, 86_400);
        identity::check_common(&self.realm, self.anonymous_consumer.as_deref(), faults);
    }
}

impl check::Config for Credential {
    fn validate(&self, faults: &mut Faults) {
        identity::check_present("username", &self.username, faults);
        if let Err((path, message)) = self.secret() {
            faults.add(path, message);
        }
    }
}

impl Credential {
    fn secret(&self) -> Result<Secret, (&'static str, &'static str)> {
        match (self.password.as_deref(), self.ha1.as_deref()) {
            (Some(text), None) | (None, Some(text)) if is_reference(text) => Ok(Secret::Nothing),
            (Some(""), None) => Err(("password", "string too short, expected at least 1, got 0")),
            (Some(password), None) => Ok(Secret::Password(password.into())),
            (None, Some(ha1)) if [32, 64].contains(&ha1.len()) && ha1.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Ok(Secret::Ha1(ha1.to_ascii_lowercase().into()))
            }
            (None, Some(_)) => Err(("ha1", "expected 32 (MD5) or 64 (SHA-256) hexadecimal digits")),
            _ => Err(("", "expected either password or ha1")),
        }
    }
}

/// Compiles a consumer's secret.
pub(super) fn credential(value: &Value) -> Proven {
    let config: Credential = check::read(value)?;
    let secret = config.secret().map_err(|(path, message)| vec![check::fault_at(path, message.to_owned())])?;
    Ok(Arc::new(secret))
}
