//! `ext-authz`: asks an upstream over HTTP or gRPC whether a request may pass, as Envoy's filter of that name does. It knows no users.

mod config;
mod filter;
mod grpc;
mod names;
#[cfg(test)]
mod tests;
mod verdict;
mod wire;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "ext-authz",
        priority: 2003,
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
