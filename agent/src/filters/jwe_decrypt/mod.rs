//! `jwe-decrypt`: decrypts a token (RFC 7516) with the secret of a consumer and hands what is in it on. It lets nobody be anybody.

mod config;
mod filter;
#[cfg(test)]
mod tests;
mod token;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::{Config, Credential};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "jwe-decrypt",
        priority: 2509,
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
