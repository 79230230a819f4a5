//! `csrf`: refuses requests that another site made a browser send, by a token in a cookie and a header or by where they come from. It knows nothing of users.

mod config;
mod filter;
mod origin;
#[cfg(test)]
mod tests;
mod token;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "csrf",
        priority: 2980,
        version: "0.1",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &["key"],
        prefer_route: false,
    },
    schema: check::route_schema::<Config>,
    check: check::route_only::<Config>,
    credential: None,
    build: filter::build,
};
