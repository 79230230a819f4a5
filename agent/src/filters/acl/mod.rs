//! `acl`: lets consumers in by their labels, and users whom somebody else has identified by what is known of them. It knows not how they prove who they are.

mod config;
mod filter;
mod pick;
#[cfg(test)]
mod tests;
mod values;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "acl",
        priority: 2410,
        version: "0.1",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &[],
        prefer_route: false,
    },
    schema: check::route_schema::<Config>,
    check: check::route_only::<Config>,
    build: filter::build,
    credential: None,
};
