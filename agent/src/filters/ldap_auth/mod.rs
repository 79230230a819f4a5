//! `ldap-auth`: identifies a consumer by name and password, which a directory server proves. It keeps no passwords.

mod basic;
mod cache;
mod config;
mod directory;
mod filter;
#[cfg(test)]
mod tests;

use heddle_xds::catalog::{ConfigFault, Descriptor, Place, PluginKind};
use serde_json::Value;

use super::{Plugin, check};
use config::{Config, Credential};

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "ldap-auth",
        priority: 2540,
        version: "0.1",
        kind: PluginKind::Auth,
        unique_consumer_field: Some("user_dn"),
        encrypt_fields: &[],
        prefer_route: false,
    },
    schema,
    check,
    build: filter::build,
    credential: None,
};

fn schema(place: Place) -> Option<Value> {
    match place {
        Place::Route => Some(check::schema::<Config>()),
        Place::Consumer => Some(check::schema::<Credential>()),
        Place::Metadata => None,
    }
}

fn check(place: Place, value: &Value) -> Result<(), Vec<ConfigFault>> {
    match place {
        Place::Route => check::read::<Config>(value).map(drop),
        Place::Consumer => check::read::<Credential>(value).map(drop),
        Place::Metadata => Err(check::misplaced(place)),
    }
}
