//! `redirect`: sends the client elsewhere. It knows no listeners.

mod config;
mod filter;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{ConfigFault, Descriptor, Place, PluginKind};
use serde_json::Value;

use super::{Plugin, check};
use config::{Config, Metadata};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "redirect",
        priority: 900,
        version: "0.1",
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
