//! `buffering`: takes whole requests and whole answers before it hands them on. It knows no upstream.

mod config;
mod filter;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin. Its place is behind what decides whether a request passes at all.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "buffering",
        priority: 980,
        version: "0.1",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &[],
        prefer_route: false,
    },
    schema: check::route_schema::<Config>,
    check: check::route_only::<Config>,
    build: filter::build,
    credential: None,
};
