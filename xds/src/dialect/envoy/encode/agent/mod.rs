//! What agents of ours that ask for Envoy's types can read of it: they refuse what they cannot do as it is meant, and all routes are one resource there, so that
//! what one of them would be refused for is found out before. It knows no snapshot.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use heddle_proto::envoy::config::route::v3 as wire;
use prost::Message;

use super::hosts::Place;
use super::route::Encoded;
use super::{ROUTES, bytes};
use crate::dialect::envoy::decode::{DecodeFault, Unread};
use crate::dialect::envoy::kind::EnvoyKind;

/// Where a route stands in the table that it is read in.
const PLACE: &str = "virtual_hosts[0].routes[0].";

/// A cluster, or why it is withheld.
pub(super) fn cluster(body: Bytes) -> Result<Bytes, String> {
    read(EnvoyKind::Cluster, &body).map_err(|fault| told(&fault))?;
    Ok(body)
}

/// A listener, or why it is withheld.
pub(super) fn listener(body: Bytes) -> Result<Bytes, String> {
    read(EnvoyKind::Listener, &body).map_err(|fault| told(&fault))?;
    Ok(body)
}

/// A route in all of its places, or why it is withheld.
pub(super) fn route(encoded: Encoded) -> Result<Encoded, String> {
    look(&encoded.places)?;
    Ok(encoded)
}

/// What stands in the place of a route that is withheld, unless that is withheld for what it has in common with it.
pub(super) fn gap(places: Vec<Place>) -> Vec<Place> {
    if look(&places).is_ok() { places } else { Vec::new() }
}

fn look(places: &[Place]) -> Result<(), String> {
    let mut before: Option<&Bytes> = None;
    // It is the same in all hosts.
    for place in places.iter().filter(|place| before.replace(&place.body) != Some(&place.body)) {
        let routes = wire::Route::decode(place.body.clone()).into_iter().collect();
        let host = wire::VirtualHost { name: "*".to_owned(), domains: vec!["*".to_owned()], routes, ..Default::default() };
        let table = wire::RouteConfiguration { name: ROUTES.to_owned(), virtual_hosts: vec![host], ..Default::default() };
        read(EnvoyKind::Routes, &bytes(&table)).map_err(|fault| {
            let field = fault.field.strip_prefix(PLACE).unwrap_or(&fault.field).to_owned();
            told(&DecodeFault { field, ..fault })
        })?;
    }
    Ok(())
}

fn read(kind: EnvoyKind, body: &[u8]) -> Result<(), DecodeFault> {
    Unread::new(kind, body)?.read().map(drop)
}

fn told(fault: &DecodeFault) -> String {
    format!("agents of ours take it from Heddle's own types alone: {}: {}", fault.field, fault.reason)
}
