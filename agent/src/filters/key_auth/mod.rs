//! `key-auth`: identifies a consumer by a key in a header or query argument. It knows no other way of proving who one is.

mod config;
mod filter;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::{Config, Credential};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "key-auth",
        priority: 2500,
        version: "0.1",
        kind: PluginKind::Auth,
        unique_consumer_field: Some("key"),
        encrypt_fields: &["key"],
        prefer_route: false,
    },
    schema: check::schema_with_credentials::<Config, Credential>,
    check: check::with_credentials::<Config, Credential>,
    build: filter::build,
    credential: None,
};
