//! Configuration of `wolf-rbac`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};
use super::super::fields::is_name;
use crate::outbound::Url;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Whether the certificate of the wolf server must be trusted.
    #[serde(default = "yes")]
    pub ssl_verify: bool,
    /// Milliseconds that one question to the wolf server may take.
    #[serde(default = "timeout")]
    pub timeout: u64,
}

/// Configuration on a consumer or credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    /// Id of the application at the wolf server, unique over all consumers.
    #[serde(default = "unset")]
    pub appid: String,
    /// URL of the wolf server.
    #[serde(default = "server")]
    pub server: String,
    /// What the fields `UserId`, `Username` and `Nickname` begin with, which tell the upstream and the client who it is.
    #[serde(default = "prefix")]
    pub header_prefix: String,
}

fn yes() -> bool {
    true
}

fn timeout() -> u64 {
    10_000
}

fn unset() -> String {
    "unset".to_owned()
}

fn server() -> String {
    "http://127.0.0.1:12180".to_owned()
}

fn prefix() -> String {
    "X-".to_owned()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.range("timeout", self.timeout, 1, 60_000);
    }
}

impl check::Config for Credential {
    fn validate(&self, faults: &mut Faults) {
        if self.appid.is_empty() || self.appid.contains('#') {
            faults.add("appid", "expected an id without #");
        }
        if let Err(error) = Url::parse(&self.server) {
            faults.add("server", error);
        }
        if !is_name(&format!("{}UserId", self.header_prefix)) {
            faults.add("header_prefix", "expected what the name of a header field may begin with");
        }
    }
}
