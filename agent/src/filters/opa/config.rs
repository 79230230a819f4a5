//! Configuration of `opa`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::asking::{ClientTls, Reach, check_names};
use super::super::check::{self, Faults};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// URL of the OPA server, without the path of its data API.
    pub host: String,
    /// Path of the policy below `/v1/data/`, for example `httpapi/authz`.
    #[schemars(length(min = 1, max = 256))]
    pub policy: String,
    /// Whether the policy learns which route it is about.
    #[serde(default)]
    pub with_route: bool,
    /// Whether the policy learns which service it is about.
    #[serde(default)]
    pub with_service: bool,
    /// Whether the policy learns who asks.
    #[serde(default)]
    pub with_consumer: bool,
    /// Fields of its `headers` that go upstream when it allows the request.
    #[schemars(length(min = 1))]
    pub send_headers_upstream: Option<Vec<String>>,
    /// Milliseconds that it may take.
    #[serde(default = "timeout")]
    pub timeout: u64,
    /// Whether connections to it are used again.
    #[serde(default = "yes")]
    pub keepalive: bool,
    /// Milliseconds that an idle connection is kept.
    #[serde(default = "keepalive_timeout")]
    pub keepalive_timeout: u64,
    /// Most idle connections that each worker keeps.
    #[serde(default = "keepalive_pool")]
    pub keepalive_pool: usize,
    /// Whether its certificate must be trusted.
    #[serde(default = "yes")]
    pub ssl_verify: bool,
    /// Authorities to trust and a certificate to show.
    pub tls: Option<ClientTls>,
    /// Whether requests pass when it gives no answer, or fails (5xx).
    #[serde(default)]
    pub allow_degradation: bool,
    /// Status for the client when it gives no answer.
    #[serde(default = "forbidden")]
    pub status_on_error: u16,
}

fn yes() -> bool {
    true
}

fn timeout() -> u64 {
    3000
}

fn keepalive_timeout() -> u64 {
    60_000
}

fn keepalive_pool() -> usize {
    5
}

fn forbidden() -> u16 {
    403
}

/// Most bytes of a decision.
const MAX_DECISION: u64 = 1024 * 1024;

impl Config {
    /// How the server is reached.
    pub(super) fn reach<'a>(&'a self, url: &'a str) -> Reach<'a> {
        Reach {
            field: "host",
            url,
            timeout: self.timeout,
            keepalive: self.keepalive,
            keepalive_timeout: self.keepalive_timeout,
            keepalive_pool: self.keepalive_pool,
            ssl_verify: self.ssl_verify,
            tls: self.tls.as_ref(),
            max_body: MAX_DECISION,
        }
    }

    /// URL of the policy.
    pub(super) fn url(&self) -> String {
        format!("{}/v1/data/{}", self.host.trim_end_matches('/'), self.policy.trim_matches('/'))
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        self.reach(&self.host).validate(faults);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%/".contains(&byte);
        if self.policy.trim_matches('/').is_empty() || self.policy.len() > 256 || !self.policy.bytes().all(plain) {
            faults.add("policy", "expected the path of a policy, for example httpapi/authz");
        }
        if let Some(names) = &self.send_headers_upstream {
            if names.is_empty() {
                faults.add("send_headers_upstream", "expect array to have at least 1 items");
            }
            check_names("send_headers_upstream", names, false, faults);
        }
        faults.range("status_on_error", self.status_on_error, 200, 599);
    }
}
