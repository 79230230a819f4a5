//! `forward-auth`: asks another service over HTTP whether a request may pass. It knows no users.

mod config;
mod cookies;
mod filter;
mod post_arg;
mod question;
#[cfg(test)]
mod tests;
mod verdict;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "forward-auth",
        priority: 2002,
        version: "0.1",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &["tls.key"],
        prefer_route: false,
    },
    schema: check::route_schema::<Config>,
    check: check::route_only::<Config>,
    build: filter::build,
    credential: None,
};
