//! `real-ip`: takes the address of the client from what proxies say. It decides nothing about it.

mod config;
mod filter;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "real-ip",
        priority: 23000,
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
