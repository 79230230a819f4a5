//! Which instance is at an address, for those who call single instances. An address is believed only where this control plane has seen it, and only while it is
//! that of one instance: nobody takes the traffic of others by what it says of itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{FoundPlace, Held, Registry, Standing, endpoint};

impl Registry {
    /// The ports of an instance at its address, as far as that is its own.
    pub(super) fn places(&self, held: &Held) -> Vec<(SocketAddr, FoundPlace)> {
        let instance = &held.instance;
        let Some(address) = instance.address.parse::<IpAddr>().ok().filter(|_| instance.is_seen && instance.application > 0)
        else {
            return Vec::new();
        };
        let nodes = self.at.get(&instance.address).into_iter().flatten();
        let shares =
            |node: &Arc<str>| *node != held.node && self.get(node).is_some_and(|other| other.standing != Standing::Draining);
        if nodes.into_iter().any(shares) {
            return Vec::new();
        }
        let place = |port: u16, protocol, further| {
            (SocketAddr::new(address, port), FoundPlace { endpoint: endpoint(held), protocol, further })
        };
        let main = place(instance.application, instance.protocol, None);
        let others = instance.ports.iter().filter(|(port, _)| *port != instance.application);
        [main].into_iter().chain(others.map(|(port, protocol)| place(*port, *protocol, Some(*port)))).collect()
    }

    /// An instance is at an address, which may so become no single one's.
    pub(super) fn comes_to(&mut self, address: &Arc<str>, node: &Arc<str>) {
        let nodes = self.at.entry(address.clone()).or_default();
        nodes.insert(node.clone());
        if nodes.len() > 1 {
            self.concern(address);
        }
    }

    /// An instance is at an address no more.
    pub(super) fn goes_from(&mut self, address: &Arc<str>, node: &Arc<str>) {
        let Some(nodes) = self.at.get_mut(address) else { return };
        nodes.remove(node);
        if nodes.is_empty() {
            self.at.remove(address);
        } else {
            self.concern(address);
        }
    }

    /// Something else is known of the services of all instances at an address.
    fn concern(&mut self, address: &Arc<str>) {
        let nodes: BTreeSet<Arc<str>> = self.at.get(address).cloned().unwrap_or_default();
        let services = nodes.iter().filter_map(|node| self.of_node.get(node).cloned());
        self.changed.extend(services.collect::<Vec<_>>());
    }
}
