//! `request-validation`: refuses requests whose header or body does not fit a JSON Schema. It knows nothing of users.

mod config;
mod document;
mod filter;
mod schema;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "request-validation",
        priority: 2800,
        version: "0.1",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &[],
        prefer_route: false,
    },
    schema: check::route_schema::<Config>,
    check: check::route_only::<Config>,
    credential: None,
    build: filter::build,
};
