//! `authz-casbin`: lets a Casbin model and policy decide who may do what. It proves nobody.

mod config;
mod filter;
mod functions;
mod policy;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::{Config, Metadata};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "authz-casbin",
        priority: 2560,
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
