//! Which resource of Envoy a refused resource of ours comes from. It changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::super::compose::{self, Shelf};
use super::super::parts::{extensions_behind, parts_of};
use super::{Owner, World};
use crate::codec::InvalidResource;
use crate::dialect::envoy::decode::piece::{Addresses, Door};
use crate::dialect::envoy::kind::EnvoyKind;
use crate::model::{Kind, Resource};

/// Whom a fault may be blamed on.
pub(in crate::client::envoy) struct Blame<'f> {
    /// What the consumer said.
    pub(in crate::client::envoy) fault: &'f InvalidResource,
    /// What brought the refused resource about: for a route, the listener.
    pub(in crate::client::envoy) teller: Owner,
    /// What it names and may have the fault from, the likeliest first.
    pub(in crate::client::envoy) parts: Vec<Owner>,
}

/// The ids of the routes that each table gives a listener, by the names of both.
type Gives = BTreeMap<(Arc<str>, Option<Arc<str>>), HashSet<Arc<str>>>;

impl World {
    /// Whom each fault may be blamed on; of resources that nobody brought about nothing is said.
    pub(in crate::client::envoy) fn blame<'f>(&self, rejected: &'f [InvalidResource]) -> Vec<Blame<'f>> {
        let mut gives = Gives::new();
        let one = |fault: &'f InvalidResource| {
            let key = (fault.kind, fault.name.clone());
            let (teller, _) = self.told.iter().find(|(_, told)| told.get(&key).is_some())?;
            let parts = match (teller.0, fault.kind) {
                (EnvoyKind::Cluster, Kind::Endpoints) => self.service_of(&teller.1).into_iter().collect(),
                (EnvoyKind::Listener, Kind::Route) => self.parts_behind(&teller.1, fault, &mut gives),
                _ => Vec::new(),
            };
            Some(Blame { fault, teller: teller.clone(), parts })
        };
        rejected.iter().filter_map(one).collect()
    }

    /// Where a cluster that is live has its endpoints from, if not from itself.
    fn service_of(&self, cluster: &str) -> Option<Owner> {
        match &self.clusters.get(cluster)?.live.as_ref()?.addresses {
            Addresses::Asked(service) => Some((EnvoyKind::Endpoints, service.clone())),
            Addresses::Told(_) => None,
        }
    }

    /// What a listener that is live has a route from, if not from itself.
    fn parts_behind(&self, name: &Arc<str>, fault: &InvalidResource, gives: &mut Gives) -> Vec<Owner> {
        let Some(door) = self.doors.get(name).and_then(|waiting| waiting.live.as_ref()) else { return Vec::new() };
        let extensions = extensions_behind(door, &fault.field, &self.extensions);
        let mut parts: Vec<Owner> = extensions.map(|name| (EnvoyKind::Extension, name.clone())).collect();
        let tables = parts_of(door).filter(|(kind, ..)| *kind == EnvoyKind::Routes);
        let tables: BTreeSet<&Arc<str>> = tables.map(|(_, table, _)| table).collect();
        let mut has = |table: Option<&Arc<str>>| {
            let key = (name.clone(), table.cloned());
            gives.entry(key).or_insert_with(|| self.given(door, table)).contains(&fault.name)
        };
        // What stands in the listener itself is there whichever table is.
        if !has(None)
            && let Some(table) = tables.into_iter().find(|table| has(Some(table)))
        {
            parts.push((EnvoyKind::Routes, table.clone()));
        }
        parts
    }

    /// The ids of the routes of a listener with one table of those that it names, or none.
    fn given(&self, door: &Door, table: Option<&Arc<str>>) -> HashSet<Arc<str>> {
        let only = |name: &str| self.tables.get(name).filter(|_| table.is_some_and(|table| **table == *name)).cloned();
        let extension = |name: &str| self.extensions.get(name).cloned();
        let shelf = Shelf { table: &only, extension: &extension, connect: &|_| None };
        let made = compose::listener(door, &shelf).map(|(resources, _)| resources).unwrap_or_default();
        made.into_iter().filter_map(|one| if let Resource::Route(route) = one { Some(route.id) } else { None }).collect()
    }
}
