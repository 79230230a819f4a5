//! `error-page`: puts pages in place of errors, from its metadata, its configuration or another route. It knows not why requests fail.

mod config;
mod filter;
mod statuses;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::{Config, Metadata};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "error-page",
        priority: 450,
        version: "0.1",
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
