//! Addresses for the names of services: one each, the same for as long as the service is there, and not given to another one for a while after. A function of names and time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;

/// How long an address of a service that is gone is given to no other, in milliseconds: clients may remember what its name meant.
pub const QUARANTINE: u64 = 3_600_000;
/// Addresses of a range that are looked at; larger ranges are used in part.
const MOST: u32 = 1 << 20;

/// Who has which address.
#[derive(Debug, Clone)]
pub struct Vips {
    range: Ipv4Net,
    given: BTreeMap<Arc<str>, Given>,
    taken: BTreeMap<Ipv4Addr, Arc<str>>,
    changed: BTreeSet<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    address: Ipv4Addr,
    /// When its service went.
    released: Option<u64>,
}

impl Vips {
    /// Addresses out of a range; none is given yet.
    pub fn new(range: Ipv4Net) -> Vips {
        Vips { range, given: BTreeMap::new(), taken: BTreeMap::new(), changed: BTreeSet::new() }
    }

    /// What was given before a restart. Addresses outside of the range, or given twice, are forgotten.
    pub fn restore(&mut self, service: Arc<str>, address: Ipv4Addr, released: Option<u64>) {
        if self.range.contains(&address) && !self.taken.contains_key(&address) && !self.given.contains_key(&service) {
            self.taken.insert(address, service.clone());
            self.given.insert(service, Given { address, released });
        }
    }

    /// What another control plane gave. When two gave one address to two services, the one whose name comes first keeps it. Gives the services whose
    /// address is another one now, or none.
    pub fn adopt(&mut self, service: &Arc<str>, address: Ipv4Addr, released: Option<u64>) -> Vec<Arc<str>> {
        let given = Given { address, released };
        if !self.range.contains(&address) || self.given.get(service) == Some(&given) {
            return Vec::new();
        }
        let other = self.taken.get(&address).filter(|other| *other != service).cloned();
        if let Some(other) = other.as_ref().filter(|other| *other < service) {
            // Whoever gave it is to hear of it.
            self.changed.insert(other.clone());
            return Vec::new();
        }
        if let Some(other) = &other {
            self.given.remove(other);
        }
        if let Some(old) = self.given.insert(service.clone(), given) {
            self.taken.remove(&old.address);
        }
        self.taken.insert(address, service.clone());
        other.into_iter().chain([service.clone()]).collect()
    }

    /// Whether a service has an address that nobody has released.
    pub fn is_held(&self, service: &str) -> bool {
        self.given.get(service).is_some_and(|given| given.released.is_none())
    }

    /// Another control plane has forgotten the address of a service that is gone.
    pub fn forgotten(&mut self, service: &str) {
        if self.given.get(service).is_some_and(|given| given.released.is_some())
            && let Some(given) = self.given.remove(service)
        {
            self.taken.remove(&given.address);
        }
    }

    /// The address of a service that is there; `None` when all are taken. Where it begins to look depends on the name alone, so that control planes
    /// that have lost their data mostly give what they gave.
    pub fn hold(&mut self, service: &Arc<str>, now: u64) -> Option<IpAddr> {
        if let Some(given) = self.given.get_mut(service) {
            if given.released.take().is_some() {
                self.changed.insert(service.clone());
            }
            return Some(given.address.into());
        }
        self.forget(now);
        let first = u32::from(self.range.network());
        let size = (u32::from(self.range.broadcast()) - first).min(MOST);
        let start = first_place(service, size.max(1));
        // The first and the last address of a range mean the range itself.
        let places = (0..size.saturating_sub(1)).map(|step| Ipv4Addr::from(first + 1 + (start + step) % (size - 1)));
        let address = places.into_iter().find(|address| !self.taken.contains_key(address))?;
        self.taken.insert(address, service.clone());
        self.given.insert(service.clone(), Given { address, released: None });
        self.changed.insert(service.clone());
        Some(address.into())
    }

    /// A service is gone. Its address stays its own for [`QUARANTINE`].
    pub fn release(&mut self, service: &Arc<str>, now: u64) {
        if let Some(given) = self.given.get_mut(service).filter(|given| given.released.is_none()) {
            given.released = Some(now);
            self.changed.insert(service.clone());
        }
    }

    /// All that are given, with when they were released.
    pub fn given(&self) -> impl Iterator<Item = (&Arc<str>, Ipv4Addr, Option<u64>)> {
        self.given.iter().map(|(service, given)| (service, given.address, given.released))
    }

    /// One that is given.
    pub fn get(&self, service: &str) -> Option<(Ipv4Addr, Option<u64>)> {
        self.given.get(service).map(|given| (given.address, given.released))
    }

    /// Services of which something is to be written down since this was asked last.
    pub fn changed(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.changed)
    }

    /// These are to be written down again.
    pub fn write_again(&mut self, services: impl IntoIterator<Item = Arc<str>>) {
        self.changed.extend(services);
    }

    fn forget(&mut self, now: u64) {
        let over = |given: &Given| given.released.is_some_and(|at| at + QUARANTINE <= now);
        let gone: Vec<Arc<str>> =
            self.given.iter().filter(|(_, given)| over(given)).map(|(service, _)| service.clone()).collect();
        for service in gone {
            if let Some(given) = self.given.remove(&service) {
                self.taken.remove(&given.address);
            }
            self.changed.insert(service);
        }
    }
}

/// A place below `size` that depends on the name alone (FNV-1a, 32 bits).
fn first_place(name: &str, size: u32) -> u32 {
    name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)) % size
}
