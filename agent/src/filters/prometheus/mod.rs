//! `prometheus`: metrics of this route by route, service and consumer. It only marks the request; the metrics themselves are made elsewhere.

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
        name: "prometheus",
        priority: 500,
        version: "0.2",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &[],
        prefer_route: true,
    },
    schema: check::route_schema::<Config>,
    check: check::route_only::<Config>,
    build: filter::build,
    credential: None,
};
