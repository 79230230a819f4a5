//! `wolf-rbac`: lets a wolf server decide who may do what, and passes logins on to it. It knows no rights itself.

mod api;
mod config;
mod filter;
mod permission;
mod server;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use heddle_xds::catalog::{ConfigFault, Descriptor, Place, PluginKind};
use serde_json::Value;

use super::{Plugin, Proven, check};
use config::{Config, Credential};
use server::Server;

/// The plugin.
pub(crate) static PLUGIN: Plugin = Plugin {
    descriptor: Descriptor {
        name: "wolf-rbac",
        priority: 2555,
        version: "0.1",
        kind: PluginKind::Auth,
        unique_consumer_field: Some("appid"),
        encrypt_fields: &[],
        prefer_route: false,
    },
    schema,
    check,
    build: filter::build,
    credential: Some(credential),
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

fn credential(value: &Value) -> Proven {
    Ok(Arc::new(Server::new(check::read(value)?)))
}
