//! `hmac-auth`: identifies a consumer by a signature over parts of the request, made with a shared secret. It knows no other way of proving who one is.

pub mod canonical;
mod config;
mod date;
mod filter;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::{Config, Credential};

#[cfg(test)]
pub(super) use tests::sign as sign_for_tests;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "hmac-auth",
        priority: 2530,
        version: "0.1",
        kind: PluginKind::Auth,
        unique_consumer_field: Some("key_id"),
        encrypt_fields: &["secret_key"],
        prefer_route: false,
    },
    schema: check::schema_with_credentials::<Config, Credential>,
    check: check::with_credentials::<Config, Credential>,
    build: filter::build,
    credential: Some(config::credential),
};
