//! `jwt-auth`: identifies a consumer by a signed token (RFC 7519), with keys of the consumer or of an issuer. It knows no other way of proving who one is.

mod config;
mod filter;
mod jwks;
#[cfg(test)]
mod tests;
mod told;

use heddle_xds::catalog::{Descriptor, PluginKind};
use serde_json::Value;

use super::{Plugin, check};
use config::{Config, Credential};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "jwt-auth",
        priority: 2510,
        version: "0.1",
        kind: PluginKind::Auth,
        unique_consumer_field: Some("key"),
        encrypt_fields: &["secret"],
        prefer_route: false,
    },
    schema: check::schema_with_credentials::<Config, Credential>,
    check: check::with_credentials::<Config, Credential>,
    build: filter::build,
    credential: Some(config::credential),
};

/// The fields in which a configuration tells the upstream of a token.
pub(super) fn vouched(config: &Value) -> impl Iterator<Item = &str> {
    let claims = config["claim_headers"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    config["payload_header"].as_str().into_iter().chain(claims)
}
