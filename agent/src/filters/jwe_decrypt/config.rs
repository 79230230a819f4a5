//! Configuration of `jwe-decrypt`.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use base64::Engine;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::Proven;
use super::super::check::{self, Faults};
use super::super::fields::is_name;
use super::super::identity::{self, BASE64};
use crate::secrets::reference::is_reference;

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Field that carries the token, with or without `Bearer` before it.
    #[serde(default = "header")]
    pub header: String,
    /// Field in which what was in the token goes upstream.
    #[serde(default = "header")]
    pub forward_header: String,
    /// Whether a request without a token is refused.
    #[serde(default = "strict")]
    pub strict: bool,
}

/// Configuration on a consumer or credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    /// What tokens name the secret by (`kid`), unique over all consumers.
    #[schemars(length(min = 1))]
    pub key: String,
    /// The secret, 32 bytes.
    pub secret: String,
    /// Whether `secret` is base64.
    #[serde(default)]
    pub is_base64_encoded: bool,
}

/// The secret, ready to decrypt; `None` where it is a reference that nobody knows.
pub(super) struct Secret(pub Option<LessSafeKey>);

fn header() -> String {
    "Authorization".to_owned()
}

fn strict() -> bool {
    true
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        for (path, name) in [("header", &self.header), ("forward_header", &self.forward_header)] {
            if !is_name(name) {
                faults.add(path, format!("expected the name of a header field, got \"{name}\""));
            }
        }
    }
}

impl check::Config for Credential {
    fn validate(&self, faults: &mut Faults) {
        identity::check_present("key", &self.key, faults);
        if let Err(message) = self.secret() {
            faults.add("secret", message);
        }
    }
}

impl Credential {
    fn secret(&self) -> Result<Secret, String> {
        if is_reference(&self.secret) {
            return Ok(Secret(None));
        }
        let decoded = || BASE64.decode(&self.secret).map_err(|_| "expected base64".to_owned());
        let bytes = if self.is_base64_encoded { decoded()? } else { self.secret.as_bytes().to_vec() };
        match UnboundKey::new(&AES_256_GCM, &bytes) {
            Ok(key) => Ok(Secret(Some(LessSafeKey::new(key)))),
            Err(_) => Err(format!("expected 32 bytes, got {}", bytes.len())),
        }
    }
}

/// Compiles a consumer's secret.
pub(super) fn credential(value: &Value) -> Proven {
    let config: Credential = check::read(value)?;
    let secret = config.secret().map_err(|message| vec![check::fault_at("secret", message)])?;
    Ok(Arc::new(secret))
}
