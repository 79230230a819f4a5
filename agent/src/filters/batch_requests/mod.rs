//! `batch-requests`: many requests in one, each of which goes through the whole gateway. `public-api` offers the same under APISIX's way to its plugins' own paths.

mod answer;
mod config;
mod filter;
mod parts;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::{Config, Metadata};

pub(super) use filter::Batches;

/// Where APISIX's clients send batches.
pub(super) const URI: &str = "/apisix/batch-requests";

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "batch-requests",
        priority: 4010,
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
