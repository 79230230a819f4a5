//! The services of the mesh: which there are, where their instances are, and the addresses of their names. It knows no wire and no translation.
//!
//! [`Mesh`] is a function of what happens and of the time that it is told; what it knows is written down as records, so that a restart forgets nothing.

mod directory;
mod modes;
mod record;
mod registry;
mod shown;
mod vips;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heddle_xds::server::InstanceEvent;
use ipnet::Ipv4Net;

use crate::discovery::Discovered;
use crate::model::{Key, ServiceId};
use crate::state::State;
use crate::store::RecordWrite;

pub use directory::{Directory, Found, FoundPlace, FoundPort, Known, Partner};
pub use registry::{Counts, Held, Registry, Standing};
pub use vips::Vips;

/// The trust domain where nothing says another.
pub const DEFAULT_TRUST_DOMAIN: &str = "heddle.local";

/// All that is known of the mesh. Times are Unix milliseconds.
#[derive(Debug)]
pub struct Mesh {
    directory: Directory,
    registry: Registry,
    vips: Vips,
    /// Services of which something else is known since the last [`Mesh::settle`].
    concerned: BTreeSet<ServiceId>,
    /// Services whose instances are to be written down.
    unwritten: BTreeSet<ServiceId>,
    /// The records of instances as they were written last, by service and node.
    written: BTreeMap<ServiceId, BTreeMap<Arc<str>, Vec<u8>>>,
    /// What was to be removed by the writes that were handed out last.
    removals: BTreeMap<String, RecordWrite>,
    /// What was to be removed and was not, by key: a record that stays is an endpoint that is dead.
    owed: BTreeMap<String, RecordWrite>,
    /// Services for which no address was left.
    without_address: BTreeSet<ServiceId>,
    /// The control planes that were there when it was looked last.
    there: BTreeSet<String>,
    /// The name of this control plane, where there are several; empty otherwise.
    replica: Arc<str>,
}

impl Mesh {
    /// A mesh of a trust domain, with addresses for its names.
    pub fn new(trust_domain: &str, addresses: Ipv4Net) -> Mesh {
        Mesh::of(trust_domain, addresses, "".into())
    }

    /// The same for one control plane of several, by its name.
    pub fn of(trust_domain: &str, addresses: Ipv4Net, replica: Arc<str>) -> Mesh {
        Mesh {
            registry: Registry::of(replica.clone()),
            replica,
            directory: Directory::new(trust_domain),
            vips: Vips::new(addresses),
            concerned: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            written: BTreeMap::new(),
            removals: BTreeMap::new(),
            there: BTreeSet::new(),
            owed: BTreeMap::new(),
            without_address: BTreeSet::new(),
        }
    }

    /// The same, where these trust domains of others are known.
    #[must_use]
    pub fn beside(self, partners: BTreeSet<Arc<str>>) -> Mesh {
        Mesh { directory: self.directory.beside(partners), ..self }
    }

    /// Takes over what was written down before a restart. Records of others, and what cannot be read, do not matter.
    pub fn restore(&mut self, records: &[(String, Vec<u8>)], now: u64) {
        self.directory.discovered_mut().restore(records);
        for (key, body) in records {
            match record::read(key, body) {
                Some(record::Read::Vip { service, address, released }) => self.vips.restore(service, address, released),
                Some(record::Read::Instance { service, node, zone, instance, claim, replica }) if replica != self.replica => {
                    self.registry.told((service, node, zone), instance, (claim, replica), now);
                }
                Some(record::Read::Instance { service, node, zone, instance, .. }) => {
                    self.written.entry(service.clone()).or_default().insert(node.clone(), body.clone());
                    self.unwritten.insert(service.clone());
                    self.registry.remember(service, node, zone, instance, now);
                }
                None => {}
            }
        }
        // Whose service is not there any more is found out when the first state has come.
        let given: Vec<Arc<str>> = self.vips.given().map(|(service, ..)| service.clone()).collect();
        self.concerned.extend(given.iter().filter_map(|service| ServiceId::parse(service, "")));
    }

    /// Another control plane wrote (or, with `None`, removed) a record. What this one wrote comes back too, and is nothing new.
    pub fn heard(&mut self, key: &str, body: Option<&[u8]>, now: u64) {
        // Another record than the one that was to be removed: whoever wrote it is right.
        let is_other = |write: &RecordWrite| match write {
            RecordWrite::Withdraw(_, ours) => body != Some(ours),
            _ => true,
        };
        if self.owed.get(key).is_some_and(is_other) {
            self.owed.remove(key);
        }
        match (record::name(key), body) {
            (Some(record::Name::Vip(service)), None) => self.vips.forgotten(&service),
            (Some(record::Name::Instance(service, node)), None) => {
                let ours = self.registry.instances(&service).any(|held| held.node == node && held.of.is_none());
                if self.written.get_mut(&service).is_some_and(|written| written.remove(&node).is_some()) || ours {
                    self.unwritten.insert(service.clone());
                }
                self.registry.untold(&service, &node);
            }
            (Some(_), Some(body)) => self.heard_record(key, body, now),
            (None, _) => {}
        }
    }

    fn heard_record(&mut self, key: &str, body: &[u8], now: u64) {
        match record::read(key, body) {
            Some(record::Read::Vip { service, address, released }) => {
                let services = self.vips.adopt(&service, address, released);
                let concerned = services.iter().filter_map(|service| ServiceId::parse(service, ""));
                // Whoever holds the address of a service that is not known here knows more, or will release it: an instance that drains is a service where it is
                // connected, and none elsewhere.
                let counts = |service: &ServiceId| self.directory.get(service).is_some() || !self.vips.is_held(service.full());
                let concerned: Vec<ServiceId> = concerned.filter(counts).collect();
                self.concerned.extend(concerned);
            }
            Some(record::Read::Instance { service, node, zone, instance, claim, replica }) if replica != self.replica => {
                // What this one wrote was replaced by it.
                if let Some(written) = self.written.get_mut(&service) {
                    written.remove(&node);
                }
                if !self.registry.told((service.clone(), node, zone), instance, (claim, replica), now) {
                    self.unwritten.insert(service);
                }
            }
            Some(record::Read::Instance { service, node, .. }) => self.heard_own(service, node, body),
            None => {}
        }
    }

    /// What this one wrote is what the store has of an instance, behind all that was heard before. It may have gone meanwhile.
    fn heard_own(&mut self, service: ServiceId, node: Arc<str>, body: &[u8]) {
        self.registry.wrote(&node);
        let ours = self.registry.get(&node).filter(|held| held.of.is_none() && held.standing != Standing::Draining);
        if ours.is_none_or(|held| held.service != service || record::of_instance(held, &self.replica) != body) {
            self.unwritten.insert(service.clone());
        }
        self.written.entry(service).or_default().insert(node, body.to_vec());
    }

    /// These are all records that there are: what was missed is heard of now.
    pub fn reconcile(&mut self, records: &[(String, Vec<u8>)], now: u64) {
        let there: BTreeSet<&str> = records.iter().map(|(key, _)| key.as_str()).collect();
        let key = |held: &Held| record::instance_key(&held.service, &held.node);
        let gone: Vec<String> = self.registry.all().map(key).filter(|key| !there.contains(key.as_str())).collect();
        gone.iter().for_each(|key| self.heard(key, None, now));
        // Addresses that are given are not given anew because the store has lost them: names would mean something else.
        let lost =
            self.vips.given().map(|(service, ..)| service.clone()).filter(|service| !there.contains(&*record::vip_key(service)));
        let lost: Vec<Arc<str>> = lost.collect();
        self.vips.write_again(lost);
        records.iter().for_each(|(key, body)| self.heard(key, Some(body), now));
    }

    /// These control planes are there.
    pub fn present(&mut self, replicas: &BTreeSet<String>, now: u64) {
        if !self.there.is_subset(replicas) {
            // What the one that is gone would have released is looked at by those that are left.
            let given: Vec<Arc<str>> = self.vips.given().map(|(service, ..)| service.clone()).collect();
            self.concerned.extend(given.iter().filter_map(|service| ServiceId::parse(service, "")));
        }
        self.there.clone_from(replicas);
        self.registry.present(replicas, now);
    }

    /// Something became of an instance.
    pub fn event(&mut self, event: &InstanceEvent, now: u64) {
        match event {
            InstanceEvent::Joined { stream, node } => {
                if let Err(why) = self.registry.joined(*stream, node, now) {
                    tracing::warn!(node = %node.scope.id, why, "the instance of this node is no endpoint");
                }
            }
            InstanceEvent::Left { stream, awaited } => self.registry.left(*stream, *awaited, now),
        }
    }

    /// Resources came, changed or went; `None` is all of them.
    pub fn resources(&mut self, state: &State, changed: Option<&[Key]>) {
        let concerned = match changed {
            Some(keys) => self.directory.resources(state, keys),
            None => self.directory.all_resources(state),
        };
        self.concerned.extend(concerned);
    }

    /// Brings the directory up to date, and gives the services of which something else is known than before.
    pub fn settle(&mut self, now: u64) -> BTreeSet<ServiceId> {
        self.registry.pass(now);
        let changed = self.registry.changed();
        self.unwritten.extend(changed.iter().cloned());
        let mut concerned = std::mem::take(&mut self.concerned);
        for service in changed {
            let found = self.registry.found(&service);
            if self.directory.found(&service, found) {
                concerned.insert(service);
            }
        }
        for service in &concerned {
            if self.directory.get(service).is_none() {
                self.vips.release(service.full(), now);
                self.without_address.remove(service);
                continue;
            }
            let vip = self.vips.hold(service.full(), now);
            if vip.is_some() {
                self.without_address.remove(service);
            } else if self.without_address.insert(service.clone()) {
                tracing::error!(%service, "no address is left for this name: choose a larger mesh.vip_range");
            }
            self.directory.address(service, vip);
        }
        concerned
    }

    /// The services as they are known.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What was found beyond the mesh, to be brought up to date.
    pub fn discovered_mut(&mut self) -> &mut Discovered {
        self.directory.discovered_mut()
    }

    /// The instances.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// When [`Mesh::settle`] has something to do by itself.
    pub fn next(&self) -> Option<u64> {
        self.registry.next()
    }

    /// What is to be written down since this was asked last.
    pub fn writes(&mut self) -> Vec<RecordWrite> {
        let mut writes = self.directory.discovered_mut().writes();
        for service in std::mem::take(&mut self.unwritten) {
            let ours = |held: &&Held| held.standing != Standing::Draining && held.of.is_none();
            let there = self.registry.instances(&service).filter(ours);
            let now: BTreeMap<Arc<str>, Vec<u8>> =
                there.map(|held| (held.node.clone(), record::of_instance(held, &self.replica))).collect();
            let before = self.written.remove(&service).unwrap_or_default();
            now.keys().for_each(|node| self.registry.wrote(node));
            let news = now.iter().filter(|(node, body)| before.get(*node) != Some(*body));
            writes.extend(news.map(|(node, body)| RecordWrite::Set(record::instance_key(&service, node), body.clone())));
            // It may have moved, and then another control plane has written it; only where it is open whether a write was carried out it just goes.
            let withdraw = |(node, body): (&Arc<str>, &Vec<u8>)| match record::instance_key(&service, node) {
                key if body.is_empty() => RecordWrite::Remove(key),
                key => RecordWrite::Withdraw(key, body.clone()),
            };
            writes.extend(before.iter().filter(|(node, _)| !now.contains_key(*node)).map(withdraw));
            if !now.is_empty() {
                self.written.insert(service, now);
            }
        }
        for held in self.registry.abandoned() {
            if let Some(of) = &held.of {
                let key = record::instance_key(&held.service, &held.node);
                writes.push(RecordWrite::Withdraw(key, record::of_instance(&held, of)));
            }
        }
        for service in self.vips.changed() {
            let key = record::vip_key(&service);
            writes.push(match self.vips.get(&service) {
                Some((address, released)) => RecordWrite::Set(key, record::of_vip(address, released)),
                None => RecordWrite::Remove(key),
            });
        }
        let anew: BTreeSet<&str> = writes.iter().filter_map(written_key).collect();
        let owed: Vec<RecordWrite> = std::mem::take(&mut self.owed)
            .into_iter()
            .filter(|(key, _)| !anew.contains(&**key))
            .map(|(_, write)| write)
            .collect();
        writes.extend(owed);
        let removal = |write: &&RecordWrite| matches!(write, RecordWrite::Remove(_) | RecordWrite::Withdraw(..));
        let keyed = |write: &RecordWrite| written_key(write).map(|key| (key.to_owned(), write.clone()));
        self.removals = writes.iter().filter(removal).filter_map(keyed).collect();
        writes
    }

    /// What was to be written down was not: all of it is to be written again.
    pub fn unwritten(&mut self) {
        for (key, write) in std::mem::take(&mut self.removals) {
            self.owed.entry(key).or_insert(write);
        }
        self.directory.discovered_mut().unwritten();
        let given: Vec<Arc<str>> = self.vips.given().map(|(service, ..)| service.clone()).collect();
        self.vips.write_again(given);
        self.unwritten.extend(self.registry.all().map(|held| held.service.clone()));
        self.written.values_mut().flat_map(BTreeMap::values_mut).for_each(Vec::clear);
        self.unwritten.extend(self.written.keys().cloned());
    }
}

/// The record that a write is of.
fn written_key(write: &RecordWrite) -> Option<&str> {
    match write {
        RecordWrite::Set(key, _) | RecordWrite::Remove(key) | RecordWrite::Withdraw(key, _) => Some(key),
        RecordWrite::Raise(..) | RecordWrite::Require(..) => None,
    }
}
