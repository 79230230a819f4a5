//! Who is at which address and port, for those who call single instances. An address is believed only where a control plane has seen the node at it: what members
//! merely say of themselves takes nobody's place. It decides nothing where several are there.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use heddle_xds::model::{Instance, MeshProtocol};

use super::{FoundPlace, Held, Registry, Standing, endpoint};

/// Nodes at one address and port that are told apart; where there are more nobody is meant.
const MOST: usize = 8;

impl Registry {
    /// Who is at the places of an instance, it itself among them.
    pub(super) fn claims(&self, held: &Held) -> impl Iterator<Item = (SocketAddr, Vec<FoundPlace>)> {
        let claim = |at: SocketAddr, node: &Arc<str>| {
            let held = self.get(node)?;
            let (_, protocol, further) = places(&held.instance).find(|(place, ..)| *place == at)?;
            let rank = match held.standing {
                Standing::Live => 0,
                Standing::Draining => 1,
                Standing::Missing | Standing::Doubted | Standing::Remembered => 2,
            };
            Some(FoundPlace { service: held.service.clone(), rank, endpoint: endpoint(held), protocol, further })
        };
        places(&held.instance).map(move |(at, ..)| {
            let nodes = self.at.get(&at).into_iter().flatten().take(MOST);
            (at, nodes.filter_map(|node| claim(at, node)).collect())
        })
    }

    /// An instance is there: others at its places are not alone.
    pub(super) fn comes(&mut self, held: &Held) {
        for (at, ..) in places(&held.instance) {
            self.at.entry(at).or_default().insert(held.node.clone());
            self.concern(at, &held.node);
        }
    }

    /// An instance is there no more.
    pub(super) fn goes(&mut self, held: &Held) {
        for (at, ..) in places(&held.instance) {
            self.concern(at, &held.node);
            let Some(nodes) = self.at.get_mut(&at) else { continue };
            nodes.remove(&held.node);
            if nodes.is_empty() {
                self.at.remove(&at);
            }
        }
    }

    /// Something else is known of the services of others at a place; of very many those that are told apart.
    fn concern(&mut self, at: SocketAddr, node: &Arc<str>) {
        let nodes = self.at.get(&at).into_iter().flatten().take(MOST + 1).filter(|other| *other != node);
        let services: BTreeSet<_> = nodes.filter_map(|node| self.of_node.get(node).cloned()).collect();
        self.changed.extend(services);
    }
}

/// The addresses and ports of an application, what it speaks there, and which of them are further ones.
fn places(instance: &Instance) -> impl Iterator<Item = (SocketAddr, MeshProtocol, Option<u16>)> {
    let seen = instance.address.parse().ok().filter(|address: &IpAddr| instance.is_seen && !address.is_loopback());
    let main = Some((instance.application, instance.protocol, None)).filter(|(port, ..)| *port > 0);
    let further = instance.ports.iter().filter(|(port, _)| *port != instance.application);
    let all = main.into_iter().chain(further.map(|(port, protocol)| (*port, *protocol, Some(*port))));
    let all: Vec<_> = all.collect();
    seen.into_iter().flat_map(move |address| {
        let place = move |(port, protocol, further)| (SocketAddr::new(address, port), protocol, further);
        all.clone().into_iter().map(place)
    })
}
