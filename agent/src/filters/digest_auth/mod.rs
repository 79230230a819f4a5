//! `digest-auth`: identifies a consumer by a digest of name, password and request (RFC 7616). It knows no other way of proving who one is.

mod config;
mod digest;
mod filter;
mod nonce;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::{Config, Credential};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "digest-auth",
        priority: 2515,
        version: "0.1",
        kind: PluginKind::Auth,
        unique_consumer_field: Some("username"),
        encrypt_fields: &["password", "ha1"],
        prefer_route: false,
    },
    schema: check::schema_with_credentials::<Config, Credential>,
    check: check::with_credentials::<Config, Credential>,
    build: filter::build,
    credential: Some(config::credential),
};
