//! Configuration of `hmac-auth`.

use std::sync::Arc;

use aws_lc_rs::hmac;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::check::{self, Faults};
use super::super::{Proven, identity};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Algorithms that requests may be signed with.
    #[serde(default = "allowed_algorithms")]
    #[schemars(length(min = 1))]
    pub allowed_algorithms: Vec<Algorithm>,
    /// Seconds that `Date` may differ from our clock.
    #[serde(default = "clock_skew")]
    #[schemars(range(min = 1))]
    pub clock_skew: u32,
    /// Fields that must be among those that are signed.
    #[serde(default = "signed_headers")]
    pub signed_headers: Vec<String>,
    /// Whether the body must have the digest that `Digest: SHA-256=…` tells; put `digest` into `signed_headers` then.
    #[serde(default)]
    pub validate_request_body: bool,
    /// Most bytes of a body whose digest is checked.
    #[serde(default = "max_req_body_size")]
    #[schemars(range(min = 1))]
    pub max_req_body_size: u64,
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

/// How requests are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum Algorithm {
    /// HMAC with SHA-1.
    #[serde(rename = "hmac-sha1")]
    Sha1,
    /// HMAC with SHA-256.
    #[serde(rename = "hmac-sha256")]
    Sha256,
    /// HMAC with SHA-512.
    #[serde(rename = "hmac-sha512")]
    Sha512,
}

/// Configuration on a consumer or credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    /// What signatures name the consumer by, unique over all consumers.
    #[schemars(length(min = 1, max = 256))]
    pub key_id: String,
    /// The shared secret.
    #[schemars(length(min = 1, max = 256))]
    pub secret_key: String,
}

/// The secret, ready for each algorithm.
pub(super) struct Secret {
    sha1: hmac::Key,
    sha256: hmac::Key,
    sha512: hmac::Key,
}

fn allowed_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512]
}

fn clock_skew() -> u32 {
    300
}

fn signed_headers() -> Vec<String> {
    vec!["date".to_owned()]
}

fn max_req_body_size() -> u64 {
    64 * 1024 * 1024
}

fn realm() -> String {
    "hmac".to_owned()
}

impl Algorithm {
    /// The algorithm of this name.
    pub(super) fn of_name(name: &str) -> Option<Algorithm> {
        match name {
            "hmac-sha1" => Some(Algorithm::Sha1),
            "hmac-sha256" => Some(Algorithm::Sha256),
            "hmac-sha512" => Some(Algorithm::Sha512),
            _ => None,
        }
    }
}

impl Secret {
    /// The keys of a secret.
    pub(super) fn new(secret: &[u8]) -> Secret {
        Secret {
            sha1: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret),
            sha256: hmac::Key::new(hmac::HMAC_SHA256, secret),
            sha512: hmac::Key::new(hmac::HMAC_SHA512, secret),
        }
    }

    /// The key for an algorithm.
    pub(super) fn key(&self, algorithm: Algorithm) -> &hmac::Key {
        match algorithm {
            Algorithm::Sha1 => &self.sha1,
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => &self.sha512,
        }
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.allowed_algorithms.is_empty() {
            faults.add("allowed_algorithms", "expect array to have at least 1 items");
        }
        faults.range("clock_skew", self.clock_skew, 1, u32::MAX);
        for (place, name) in self.signed_headers.iter().enumerate() {
            if name.is_empty() || name.len() > 50 || name.contains([' ', '"']) {
                faults.add(format!("signed_headers[{place}]"), "expected the name of a field with 1 to 50 characters");
            }
        }
        faults.range("max_req_body_size", self.max_req_body_size, 1, u64::MAX);
        identity::check_common(&self.realm, self.anonymous_consumer.as_deref(), faults);
    }
}

impl check::Config for Credential {
    fn validate(&self, faults: &mut Faults) {
        for (path, text) in [("key_id", &self.key_id), ("secret_key", &self.secret_key)] {
            faults.range(path, text.len(), 1, 256);
        }
    }
}

/// Compiles a consumer's secret.
pub(super) fn credential(value: &Value) -> Proven {
    let config: Credential = check::read(value)?;
    Ok(Arc::new(Secret::new(config.secret_key.as_bytes())))
}
