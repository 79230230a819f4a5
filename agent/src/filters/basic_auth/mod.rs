//! `basic-auth`: identifies a consumer by name and password (RFC 7617), kept in plain or as a hash of `htpasswd`. It knows no other way of proving who one is.

mod config;
mod filter;
mod md5crypt;
mod password;
#[cfg(test)]
mod tests;
mod workshop;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::{Config, Credential};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "basic-auth",
        priority: 2520,
        version: "0.1",
        kind: PluginKind::Auth,
        unique_consumer_field: Some("username"),
        encrypt_fields: &["password"],
        prefer_route: false,
    },
    schema: check::schema_with_credentials::<Config, Credential>,
    check: check::with_credentials::<Config, Credential>,
    build: filter::build,
    credential: Some(config::credential),
};
