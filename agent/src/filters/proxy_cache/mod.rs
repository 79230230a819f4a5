//! `proxy-cache`: keeps answers and gives them again, by the rules of RFC 9111 where they are to be heeded. It knows no upstream.

mod config;
mod entry;
mod filter;
mod finish;
mod key;
mod pending;
mod rules;
mod serve;
mod store;
mod tee;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::{Config, Metadata};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "proxy-cache",
        priority: 1085,
        version: "0.2",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &[],
        prefer_route: false,
    },
    schema: check::schema_with_metadata::<Config, Metadata>,
    check: check::with_metadata::<Config, Metadata>,
    build: filter::build,
    credential: None,
};
