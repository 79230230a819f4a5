//! `multi-auth`: lets consumers prove who they are by one of several plugins. It knows none of them.

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
        name: "multi-auth",
        priority: 2600,
        version: "0.1",
        kind: PluginKind::Auth,
        unique_consumer_field: None,
        encrypt_fields: &[],
        prefer_route: false,
    },
    schema: check::route_schema::<Config>,
    check: check::route_only::<Config>,
    build: filter::build,
    credential: None,
};
