//! Listeners, from the form that users write to the one that agents run. Defaults are those of the two models.

use std::sync::Arc;

use heddle_xds::model::{ForwardedTrust, Listener, ListenerProtocol, ProxyProtocol, Resource, ServerHeader};
use serde::Deserialize;

use super::context::Unit;
use crate::model::Key;
use crate::model::resources::{self, Protocol};
use crate::state::Stored;

/// Translates one listener. Its name on the data plane is its id, which is unique.
pub(super) fn unit(key: &Key, stored: &Stored) -> Unit {
    let Ok(written) = resources::Listener::deserialize(&stored.value) else { return Unit::default() };
    let listener = Listener {
        name: key.id.clone(),
        address: written.address,
        protocol: match written.protocol {
            Protocol::Http => ListenerProtocol::Http,
            Protocol::Https => ListenerProtocol::Https,
        },
        limits: written.limits.edge(),
        paths: written.paths.policy(),
        proxy_protocol: match written.proxy_protocol {
            resources::ProxyProtocol::Off => ProxyProtocol::Off,
            resources::ProxyProtocol::On(trusted) => ProxyProtocol::Required(trusted),
        },
        forwarded: ForwardedTrust { trusted: written.forwarded.trusted },
        server_header: ServerHeader {
            server: Some(written.server_header.server).filter(|name| !name.is_empty()).map(Arc::from),
            via: written.server_header.via.map(Arc::from),
        },
        expose_reason: written.expose_reason,
        nodes: written.nodes.into_iter().map(Arc::from).collect(),
    };
    Unit { resources: vec![Resource::Listener(listener)], ..Unit::default() }
}
