//! `openid-connect`: people log in at a provider and keep a sealed session in cookies; programs bring tokens. It knows no consumers.

mod bearer;
mod build;
mod config;
mod filter;
mod flights;
mod form;
mod login;
mod provider;
mod rules;
mod session;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "openid-connect",
        priority: 2599,
        version: "0.1",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &["client_secret", "client_rsa_private_key", "session.secret", "session.redis.password"],
        prefer_route: false,
    },
    schema: check::route_schema::<Config>,
    check: check::route_only::<Config>,
    build: build::build,
    credential: None,
};
