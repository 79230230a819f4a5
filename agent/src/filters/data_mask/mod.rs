//! `data-mask`: takes out of a finished request what logs must not show. It writes no log and knows none.

mod config;
mod filter;
mod rule;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "data-mask",
        priority: 1500,
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
