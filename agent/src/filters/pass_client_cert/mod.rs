//! `pass-client-cert`: tells the upstream of the certificate that the client has shown. It verifies none.

mod config;
mod facts;
mod filter;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "pass-client-cert",
        priority: 11990,
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
