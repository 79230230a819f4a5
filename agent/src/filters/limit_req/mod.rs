//! `limit-req`: a steady pace of requests per key, by holding up or refusing what comes too fast, on this node or on all that use one Redis. It knows no wire.

mod bucket;
mod config;
mod elsewhere;
mod filter;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "limit-req",
        priority: 1001,
        version: "0.1",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &["redis_password", "redis_tls.key"],
        prefer_route: false,
    },
    schema: check::route_schema::<Config>,
    check: check::route_only::<Config>,
    build: filter::build,
    credential: None,
};
