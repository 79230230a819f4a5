//! `limit-count`: so many requests per key and time window on this node. It knows no other nodes.

mod config;
mod counters;
mod filter;
mod quota;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{ConfigFault, Descriptor, Place, PluginKind};
use serde_json::Value;

use super::{Plugin, check};
use config::{Config, Metadata};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "limit-count",
        priority: 1002,
        version: "0.5",
        kind: PluginKind::Plain,
        unique_consumer_field: None,
        encrypt_fields: &[],
        prefer_route: false,
    },
    schema,
    check,
    build: filter::build,
};

fn schema(place: Place) -> Option<Value> {
    match place {
        Place::Route => Some(check::schema::<Config>()),
        Place::Metadata => Some(check::schema::<Metadata>()),
        Place::Consumer => None,
    }
}

fn check(place: Place, value: &Value) -> Result<(), Vec<ConfigFault>> {
    match place {
        Place::Route => check::read::<Config>(value).map(drop),
        Place::Metadata => check::read::<Metadata>(value).map(drop),
        Place::Consumer => Err(check::misplaced(place)),
    }
}
