//! `limit-count`: so many requests per key and time window, on this node or on all that use one Redis. It knows no wire.

mod config;
mod counters;
mod elsewhere;
mod filter;
mod group;
mod quota;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::{Config, Metadata};

pub(in crate::filters) use filter::inner;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "limit-count",
        priority: 1002,
        version: "0.5",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &["redis_password", "redis_tls.key"],
        prefer_route: false,
    },
    schema: check::schema_with_metadata::<Config, Metadata>,
    check: check::with_metadata::<Config, Metadata>,
    build: filter::build,
    credential: None,
};
