//! `body-transformer`: makes another body of a request's or a response's by a template. It knows not what the bodies are about.

mod config;
mod decode;
mod filter;
mod multipart;
mod template;
#[cfg(test)]
mod tests;
mod xml;

use heddle_xds::catalog::{Descriptor, PluginKind};

use super::{Plugin, check};
use config::Config;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "body-transformer",
        priority: 1080,
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
