//! Which services there are, by `namespace/service`: which resources speak of each, and where its instances are; and what was discovered beyond the mesh. It decides nothing and forgets what nothing speaks of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use heddle_xds::model::{Endpoint, MeshProtocol};
use serde::Deserialize;

use super::modes::{self, Modes};
use crate::discovery::Discovered;
use crate::model::resources::{Federated, MeshService};
use crate::model::{Key, ResourceKind, ServiceId};
use crate::state::State;

/// Which services there are.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    trust_domain: Arc<str>,
    /// Trust domains of others whose bundles are here.
    partners: BTreeSet<Arc<str>>,
    services: BTreeMap<ServiceId, Known>,
    declared: HashMap<Key, ServiceId>,
    discovered: Discovered,
    modes: Modes,
}

/// What is known of one service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// The `mesh_services` resources that speak of it; the first one counts.
    pub owners: BTreeSet<Key>,
    /// What its instances say; `None` where none ever came.
    pub found: Option<Found>,
    /// Where it is a service of another trust domain: whose, and where it is.
    pub federated: Option<Partner>,
    /// Its address for names.
    pub vip: Option<IpAddr>,
}

/// Whose a service is that is one of another trust domain, and where it is, as its owner here says.
#[derive(Debug, Clone, PartialEq)]
pub struct Partner {
    /// Trust domain, name and addresses.
    pub written: Federated,
    /// Its further ports.
    pub ports: Vec<u16>,
}

/// What the instances of a service say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Where they are, in a stable order.
    pub endpoints: Vec<Endpoint>,
    /// What they speak.
    pub protocol: MeshProtocol,
    /// The ports on which their applications listen where nobody names one; 0 is one that is not said.
    pub applications: BTreeSet<u16>,
    /// Their further ports.
    pub ports: BTreeMap<u16, FoundPort>,
    /// Who says to be at the addresses of its instances, its instances among them. Of each the same, whichever service asks.
    pub places: BTreeMap<SocketAddr, Vec<FoundPlace>>,
}

/// Who says to be at an address and port, and was seen at that address.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundPlace {
    /// Whose instance.
    pub service: ServiceId,
    /// How sure it is that it is there still: the least counts most.
    pub rank: u8,
    /// The instance.
    pub endpoint: Endpoint,
    /// What it speaks there.
    pub protocol: MeshProtocol,
    /// The port, where it is a further one.
    pub further: Option<u16>,
}

/// A further port of some instances of a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundPort {
    /// Those that have it, in the same order.
    pub endpoints: Vec<Endpoint>,
    /// What they speak there.
    pub protocol: MeshProtocol,
}

impl Directory {
    /// A directory of a trust domain that knows no service.
    pub fn new(trust_domain: &str) -> Directory {
        Directory { trust_domain: trust_domain.into(), ..Directory::default() }
    }

    /// The same, where these trust domains of others are known.
    #[must_use]
    pub fn beside(self, partners: BTreeSet<Arc<str>>) -> Directory {
        Directory { partners, ..self }
    }

    /// What the resources of a state alone speak of.
    pub fn of(trust_domain: &str, state: &State) -> Directory {
        let mut directory = Directory::new(trust_domain);
        let keys: Vec<Key> =
            state.list(ResourceKind::MeshService).map(|(id, _)| Key::new(ResourceKind::MeshService, id.clone())).collect();
        directory.resources(state, &keys);
        directory.resources(state, &modes::listed(state).collect::<Vec<_>>());
        directory
    }

    /// What was found beyond the mesh, for upstreams that ask for it.
    pub fn discovered(&self) -> &Discovered {
        &self.discovered
    }

    /// The same, to be brought up to date.
    pub fn discovered_mut(&mut self) -> &mut Discovered {
        &mut self.discovered
    }

    /// Name of the trust domain of all services.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The SPIFFE id of a service's instances.
    pub fn identity(&self, service: &ServiceId) -> Arc<str> {
        let id =
            |domain: &str, service: &ServiceId| format!("spiffe://{domain}/ns/{}/svc/{}", service.namespace(), service.service());
        let Some(federated) = self.federated(service) else { return id(&self.trust_domain, service).into() };
        let federated = &federated.written;
        let there = federated.service.as_deref().and_then(|text| ServiceId::parse(text, service.namespace()));
        id(&federated.trust_domain, there.as_ref().unwrap_or(service)).into()
    }

    /// Whose it is, where that is another trust domain.
    pub fn federated(&self, service: &ServiceId) -> Option<&Partner> {
        self.get(service)?.federated.as_ref()
    }

    /// Whether callers are to speak in clear to a service where nobody names a further port of it: as who may write it has said, and its instances will do.
    pub fn is_called_in_clear(&self, service: &ServiceId) -> bool {
        let found = self.get(service).filter(|known| known.federated.is_none()).and_then(|known| known.found.as_ref());
        found.is_some_and(|found| self.modes.in_clear(service, &found.applications))
    }

    /// What is wrong with a service of another trust domain.
    pub fn fault(&self, service: &ServiceId) -> Option<String> {
        let known = self.get(service)?;
        let domain = &*known.federated.as_ref()?.written.trust_domain;
        if *domain == *self.trust_domain {
            return Some(
                "federated.trust_domain is our own: nobody is called; its instances register themselves, leave federated out"
                    .to_owned(),
            );
        }
        if !self.partners.contains(domain) {
            return Some(format!(
                "federated.trust_domain is {domain}, of which no bundle is here: every call is refused; name it in identity.federation of the control plane"
            ));
        }
        let doubled = "instances of ours have its name; they are not called, as it is one of another trust domain";
        known.found.as_ref().map(|_| doubled.to_owned())
    }

    /// One service.
    pub fn get(&self, service: &ServiceId) -> Option<&Known> {
        self.services.get(service)
    }

    /// All services, by name.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceId, &Known)> {
        self.services.iter()
    }

    /// Takes note of resources that came, changed or went; what is neither a mesh service nor says who is let in does not matter. Gives the services that they spoke of
    /// and speak of.
    pub fn resources(&mut self, state: &State, changed: &[Key]) -> BTreeSet<ServiceId> {
        let mut concerned = BTreeSet::new();
        for key in changed.iter().filter(|key| key.kind == ResourceKind::MeshService) {
            let service = state.get(key).and_then(|stored| ServiceId::of(key, &stored.value));
            let before = match &service {
                Some(service) => self.declared.insert(key.clone(), service.clone()),
                None => self.declared.remove(key),
            };
            if let Some(before) = before.filter(|before| Some(before) != service.as_ref()) {
                self.change(&before, |known| {
                    known.owners.remove(key);
                    known.federated = federated(state, known);
                });
                concerned.insert(before);
            }
            if let Some(service) = service {
                self.change(&service, |known| {
                    known.owners.insert(key.clone());
                    known.federated = federated(state, known);
                });
                concerned.insert(service);
            }
        }
        for key in changed.iter().filter(|key| key.kind == ResourceKind::PeerAuthentication) {
            for (namespace, name) in self.modes.note(state, key) {
                let of_it = |service: &&ServiceId| {
                    service.namespace() == namespace && name.as_deref().is_none_or(|name| service.service() == name)
                };
                concerned.extend(self.services.keys().filter(of_it).cloned());
            }
        }
        concerned
    }

    /// Takes note of every resource of a state, and of those that are gone. Gives the services that they spoke of and speak of.
    pub fn all_resources(&mut self, state: &State) -> BTreeSet<ServiceId> {
        let listed = state.list(ResourceKind::MeshService).map(|(id, _)| Key::new(ResourceKind::MeshService, id.clone()));
        let keys: BTreeSet<Key> = self.declared.keys().cloned().chain(listed).collect();
        let keys: BTreeSet<Key> = keys.into_iter().chain(self.modes.keys().cloned()).chain(modes::listed(state)).collect();
        self.resources(state, &keys.into_iter().collect::<Vec<_>>())
    }

    /// What the instances of a service say now; `None` when there are none and nobody needs to know that there were. Whether that is news.
    pub fn found(&mut self, service: &ServiceId, found: Option<Found>) -> bool {
        let news = self.services.get(service).and_then(|known| known.found.as_ref()) != found.as_ref();
        if news {
            self.change(service, |known| known.found = found);
        }
        news
    }

    /// Gives a known service its address. Whether that is news.
    pub fn address(&mut self, service: &ServiceId, vip: Option<IpAddr>) -> bool {
        self.services.get_mut(service).is_some_and(|known| std::mem::replace(&mut known.vip, vip) != vip)
    }

    fn change(&mut self, service: &ServiceId, change: impl FnOnce(&mut Known)) {
        let known = self.services.entry(service.clone()).or_default();
        change(known);
        if known.owners.is_empty() && known.found.is_none() {
            self.services.remove(service);
        }
    }
}

/// What the owner of a service says of its trust domain.
fn federated(state: &State, known: &Known) -> Option<Partner> {
    let stored = state.get(known.owners.first()?)?;
    let service = MeshService::deserialize(&stored.value).ok()?;
    let ports = service.ports.iter().filter(|port| port.protocol().is_some()).map(|port| port.number()).collect();
    Some(Partner { written: service.federated?, ports })
}
