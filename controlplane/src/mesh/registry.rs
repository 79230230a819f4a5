//! The instances of all services, from what their sidecars' streams do. A function of events and time: it knows no stream, no store and no clock.
//!
//! An instance is an endpoint as soon as it has come, and none as soon as it says that it drains. One whose stream ends without a word is kept for
//! [`GRACE`], in which coming back changes nothing. When more than half of [`MASS`] or more instances are lost within [`TOGETHER`], the trouble is
//! more likely ours than theirs: they are kept for [`DOUBT`]. What was known before a restart is kept for [`MEMORY`].

mod places;
mod processes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use heddle_xds::model::{Endpoint, Instance, Labels, MeshProtocol};
use heddle_xds::protocol::NodeInfo;

use self::processes::are_others;
use super::{Found, FoundPlace, FoundPort};
use crate::model::ServiceId;

/// How long a lost instance stays an endpoint, in milliseconds: a stream that breaks comes back within this.
pub const GRACE: u64 = 1_000;
/// The same for one whose stream was ended from here, because its certificate was about to expire, in milliseconds.
pub const AWAITED: u64 = 5_000;
/// Losses that are this close together may have one cause.
pub const TOGETHER: u64 = 2_000;
/// Fewer instances than this are no mass.
pub const MASS: usize = 4;
/// How long lost instances stay when it may be our trouble.
pub const DOUBT: u64 = 30_000;
/// How long instances of before a restart stay: the longest pause between two tries of an agent to connect, twice.
pub const MEMORY: u64 = 60_000;
/// Instances of one service; what clients balance over must fit one message.
pub const MOST_INSTANCES: usize = 5_000;
/// Services.
pub const MOST_SERVICES: usize = 20_000;

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its sidecar is connected.
    Live,
    /// It takes no new requests, and is no endpoint.
    Draining,
    /// Its stream was lost a moment ago.
    Missing,
    /// Many were lost at once; it is kept in doubt.
    Doubted,
    /// It was there before the control plane restarted.
    Remembered,
}

impl Standing {
    /// All of them.
    pub const ALL: [Standing; 5] =
        [Standing::Live, Standing::Draining, Standing::Missing, Standing::Doubted, Standing::Remembered];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Live => "live",
            Standing::Draining => "draining",
            Standing::Missing => "missing",
            Standing::Doubted => "doubted",
            Standing::Remembered => "remembered",
        }
    }
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whose.
    pub service: ServiceId,
    /// Id of the node of its sidecar.
    pub node: Arc<str>,
    /// Where it runs.
    pub zone: Arc<str>,
    /// What its sidecar said.
    pub instance: Instance,
    /// What it does.
    pub standing: Standing,
    /// Since when, in Unix milliseconds.
    pub since: u64,
    /// The control plane that it is connected to, when that is another one.
    pub of: Option<Arc<str>>,
    /// Of control planes that say that it is connected to them, the one with the largest number is right: when its stream began, in Unix milliseconds,
    /// and more than any number that was heard before.
    pub claim: u64,
    /// What the store says of it instead, until it is written that it is connected here.
    rival: Option<Box<Rival>>,
    stream: Option<u64>,
    /// When it is given up.
    until: Option<u64>,
}

/// What another control plane says of an instance that is connected here, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rival {
    zone: Arc<str>,
    instance: Instance,
    claim: u64,
    of: Arc<str>,
}

/// By what subsets of instances are made: their labels, and their version where no label is called so.
fn labels(instance: &Instance) -> Labels {
    let version = Some(("version".into(), instance.version.clone())).filter(|_| !instance.version.is_empty());
    // A later one of the same name counts.
    version.into_iter().chain(instance.labels.iter().cloned()).collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// What happened so far, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instances that came, those that came back included.
    pub joins: u64,
    /// Instances that drained or were given up.
    pub leaves: u64,
    /// Instances that came back within their grace.
    pub returns: u64,
    /// Times that a mass of instances was kept in doubt.
    pub doubts: u64,
    /// Instances that were refused: without a service, an address, or room.
    pub refusals: u64,
}

/// All instances. Times are Unix milliseconds.
#[derive(Debug, Default)]
pub struct Registry {
    /// The name of this control plane among several.
    replica: Arc<str>,
    held: BTreeMap<ServiceId, BTreeMap<Arc<str>, Held>>,
    of_node: HashMap<Arc<str>, ServiceId>,
    of_stream: HashMap<u64, Arc<str>>,
    deadlines: BTreeSet<(u64, Arc<str>)>,
    /// Nodes by the addresses and ports at which their applications are, as far as the nodes were seen there.
    at: HashMap<SocketAddr, BTreeSet<Arc<str>>>,
    changed: BTreeSet<ServiceId>,
    /// Instances of other control planes that were given up.
    abandoned: Vec<Held>,
    /// Open streams of processes that stand back for another one of their node.
    aside: BTreeMap<u64, NodeInfo>,
    counts: Counts,
}

impl Registry {
    /// Of a control plane of this name; it may be empty where there is only one.
    pub fn of(replica: Arc<str>) -> Registry {
        Registry { replica, ..Registry::default() }
    }

    /// An instance came by a stream, or says something else. Of several processes of a node that are connected and take requests the one that began last counts,
    /// and of one process the newest stream.
    ///
    /// # Errors
    /// Why it is no endpoint.
    pub fn joined(&mut self, stream: u64, node: &NodeInfo, now: u64) -> Result<(), String> {
        if self.stands_back(stream, node) {
            return Ok(());
        }
        let held = match self.admit(stream, node, now) {
            Ok(held) => held,
            Err(why) => {
                self.counts.refusals += 1;
                return Err(why);
            }
        };
        let before = self.remove(&held.node);
        if let Some(old) = before.as_ref().and_then(|before| before.stream) {
            let another = before.as_ref().is_some_and(|before| are_others(&before.instance, &held.instance));
            if old > stream && !another {
                self.insert(before.into_iter());
                return Ok(());
            }
            self.of_stream.remove(&old);
            before.iter().for_each(|before| self.put_aside(old, before, &held));
        }
        let returns = before.as_ref().is_some_and(|before| before.until.is_some());
        let same = before.as_ref().is_some_and(|before| before.instance == held.instance && before.service == held.service);
        if before.as_ref().is_none_or(|before| before.stream != Some(stream)) {
            self.counts.joins += 1;
            self.counts.returns += u64::from(returns);
        }
        if held.standing == Standing::Draining && before.as_ref().is_some_and(|before| before.standing != Standing::Draining) {
            self.counts.leaves += 1;
        }
        let claim = match &before {
            Some(before) if before.stream == Some(stream) && before.of.is_none() => before.claim,
            Some(before) => now.max(before.claim + 1),
            None => now,
        };
        // Coming back changes nothing, and is nothing new since then.
        let rival = before.as_ref().and_then(|before| before.rival.clone());
        let since = before.filter(|before| same && before.standing != Standing::Draining).map_or(now, |before| before.since);
        self.of_stream.insert(stream, held.node.clone());
        self.insert([Held { since, claim, rival, ..held }].into_iter());
        Ok(())
    }

    fn admit(&self, stream: u64, node: &NodeInfo, now: u64) -> Result<Held, String> {
        let (scope, id) = (&node.scope, &node.scope.id);
        let service = ServiceId::new(&scope.namespace, &scope.service);
        let service = service.ok_or_else(|| format!("\"{}/{}\" is no name of a service", scope.namespace, scope.service))?;
        let instance = node.instance.clone().ok_or("it says nothing of its instance")?;
        if instance.address.parse::<IpAddr>().is_err() {
            return Err(format!("\"{}\" is no IP address under which others reach it", instance.address));
        }
        // An id is no proof: who has another service's certificate must not push its instances aside.
        let holder = self.of_node.get(id).filter(|holder| **holder != service);
        let held = holder.and_then(|holder| self.held.get(holder)?.get(id));
        if held.is_some_and(|held| held.until.is_none()) {
            return Err(format!("an instance of another service is connected as node {id}; give each node an id of its own"));
        }
        let known = self.held.get(&service);
        let full = known.is_some_and(|all| all.len() >= MOST_INSTANCES && !all.contains_key(id));
        if full || (known.is_none() && self.held.len() >= MOST_SERVICES) {
            return Err(format!("there is room for {MOST_SERVICES} services with {MOST_INSTANCES} instances each"));
        }
        let standing = if instance.draining { Standing::Draining } else { Standing::Live };
        let (node, zone) = (id.clone(), scope.zone.clone());
        let (claim, stream, rival) = (now, Some(stream), None);
        Ok(Held { service, node, zone, instance, standing, since: now, of: None, claim, rival, stream, until: None })
    }

    /// A stream has ended without a word; `awaited` when it was ended from here, so that the instance will be back.
    pub fn left(&mut self, stream: u64, awaited: bool, now: u64) {
        self.aside.remove(&stream);
        let Some(mut held) = self.of_stream.remove(&stream).and_then(|node| self.remove(&node)) else { return };
        if held.of.is_some() {
            // It is connected to another control plane by now.
            held.stream = None;
            self.insert([held].into_iter());
            return;
        }
        if held.standing == Standing::Draining {
            self.yield_to_rival(held, now);
            return;
        }
        held.stream = None;
        held.standing = Standing::Missing;
        held.since = now;
        held.until = Some(now + if awaited { AWAITED } else { GRACE });
        self.insert([held].into_iter());
    }

    /// What was known before a restart, unless it is known better.
    pub fn remember(&mut self, service: ServiceId, node: Arc<str>, zone: Arc<str>, instance: Instance, now: u64) {
        if self.of_node.contains_key(&node) || instance.draining {
            return;
        }
        let standing = Standing::Remembered;
        let until = Some(now + MEMORY);
        let (of, claim, rival, stream) = (None, now, None, None);
        let held = Held { service, node, zone, instance, standing, since: now, of, claim, rival, stream, until };
        self.insert([held].into_iter());
    }

    /// Gives up whose time is over, unless many were lost at once.
    pub fn pass(&mut self, now: u64) {
        while let Some((at, node)) = self.deadlines.first().filter(|(at, _)| *at <= now).cloned() {
            self.deadlines.remove(&(at, node.clone()));
            let Some(mut held) = self.remove(&node) else { continue };
            if held.standing == Standing::Missing && self.is_mass(held.since) {
                held.standing = Standing::Doubted;
                held.until = Some(held.since + DOUBT);
                self.counts.doubts += 1;
                self.insert([held].into_iter());
            } else {
                self.counts.leaves += 1;
                match held.of {
                    Some(_) => self.abandoned.push(held),
                    None => self.yield_to_rival(held, now),
                }
            }
        }
        self.revive(now);
    }

    /// Another control plane says that an instance is connected to it. `false`: that was before what is known, and changes nothing, for instances move and
    /// words overtake each other.
    pub fn told(
        &mut self,
        (service, node, zone): (ServiceId, Arc<str>, Arc<str>),
        instance: Instance,
        (claim, of): (u64, Arc<str>),
        now: u64,
    ) -> bool {
        let own = self.replica.clone();
        if let Some(held) = self.get_mut(&node).filter(|held| (held.claim, held.of.as_ref().unwrap_or(&own)) > (claim, &of)) {
            if held.of.is_none() {
                held.rival = Some(Box::new(Rival { zone, instance, claim, of }));
            }
            return false;
        }
        let before = self.remove(&node);
        let known = self.held.get(&service);
        let full = known.is_some_and(|all| all.len() >= MOST_INSTANCES) || (known.is_none() && self.held.len() >= MOST_SERVICES);
        let other = before.as_ref().is_some_and(|before| before.service != service && before.stream.is_some());
        if full || other || instance.draining {
            self.insert(before.into_iter());
            return true;
        }
        let before = before.filter(|before| before.service == service);
        let since = before.as_ref().filter(|before| before.instance == instance).map_or(now, |before| before.since);
        let stream = before.and_then(|before| before.stream);
        let (standing, of, rival) = (Standing::Live, Some(of), None);
        self.insert([Held { service, node, zone, instance, standing, since, of, claim, rival, stream, until: None }].into_iter());
        true
    }

    /// An instance is here no more; where another control plane has written that it is there, that counts from now on.
    fn yield_to_rival(&mut self, held: Held, now: u64) {
        if let Some(rival) = held.rival {
            let Rival { zone, instance, claim, of } = *rival;
            self.told((held.service, held.node, zone), instance, (claim, of), now);
        }
    }

    /// It is written that an instance is connected here.
    pub fn wrote(&mut self, node: &Arc<str>) {
        if let Some(held) = self.get_mut(node) {
            held.rival = None;
        }
    }

    /// Another control plane says that an instance is gone. What is connected here is not, and is to be written down again.
    pub fn untold(&mut self, service: &ServiceId, node: &Arc<str>) {
        if self.of_node.get(node) != Some(service) {
            return;
        }
        let Some(mut held) = self.remove(node) else { return };
        held.rival = None;
        if held.of.take().is_some() && held.stream.is_none() {
            self.counts.leaves += 1;
            return;
        }
        self.insert([held].into_iter());
    }

    /// What other control planes said stays for [`MEMORY`] when they are gone: their instances have that long to connect elsewhere. Those that are
    /// connected here all the same are ours from then on.
    pub fn present(&mut self, replicas: &BTreeSet<String>, now: u64) {
        let gone = |held: &&Held| held.of.as_ref().is_some_and(|of| !replicas.contains(&**of));
        let differs = |held: &&Held| gone(held) != held.until.is_some() && held.of.is_some();
        let nodes: Vec<Arc<str>> = self.all().filter(differs).map(|held| held.node.clone()).collect();
        for node in nodes {
            let Some(mut held) = self.remove(&node) else { continue };
            let lost = gone(&&held);
            if lost && held.stream.is_some() {
                held.of = None;
                held.claim = now.max(held.claim + 1);
                self.insert([held].into_iter());
                continue;
            }
            held.until = lost.then_some(now + MEMORY);
            held.standing = if lost { Standing::Remembered } else { Standing::Live };
            self.insert([held].into_iter());
        }
    }

    /// Instances of other control planes that were given up since this was asked last.
    pub fn abandoned(&mut self) -> Vec<Held> {
        std::mem::take(&mut self.abandoned)
    }

    /// Whether the loss of an instance at `since` (which is taken out at this moment) was one of more than half of all.
    fn is_mass(&self, since: u64) -> bool {
        let all = || self.held.values().flat_map(BTreeMap::values).filter(|held| held.standing != Standing::Draining);
        let lost = |held: &&Held| {
            matches!(held.standing, Standing::Missing | Standing::Doubted) && held.since.abs_diff(since) <= TOGETHER
        };
        let (count, lost) = (all().count() + 1, all().filter(lost).count() + 1);
        count >= MASS && lost * 2 > count
    }

    /// When [`Registry::pass`] has something to do.
    pub fn next(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Services of which something is different since this was asked last.
    pub fn changed(&mut self) -> BTreeSet<ServiceId> {
        std::mem::take(&mut self.changed)
    }

    /// What the instances of a service say; `None` when there are none.
    pub fn found(&self, service: &ServiceId) -> Option<Found> {
        let all = self.held.get(service)?;
        let there = || all.values().filter(|held| held.standing != Standing::Draining);
        let mut ports: BTreeMap<u16, (FoundPort, Vec<MeshProtocol>)> = BTreeMap::new();
        for held in there() {
            for (port, protocol) in &held.instance.ports {
                let (found, spoken) = ports.entry(*port).or_default();
                found.endpoints.push(endpoint(held));
                spoken.push(*protocol);
            }
        }
        let agreed = |(port, (found, spoken)): (u16, (FoundPort, Vec<MeshProtocol>))| {
            (port, FoundPort { protocol: agreed(spoken.into_iter()), ..found })
        };
        let ports = ports.into_iter().map(agreed).collect();
        let places = all.values().flat_map(|held| self.claims(held)).collect();
        let applications = there().map(|held| held.instance.application).collect();
        Some(Found { endpoints: there().map(endpoint).collect(), protocol: protocol(there()), applications, ports, places })
    }

    /// What is wrong with what the instances of a service say.
    pub fn fault(&self, service: &ServiceId) -> Option<String> {
        let mut spoken: Vec<&str> = self.instances(service).filter_map(declared).map(MeshProtocol::as_str).collect();
        spoken.sort_unstable();
        spoken.dedup();
        (spoken.len() > 1).then(|| {
            format!("its instances disagree about their protocol ({}); it counts as auto until a mesh_services resource says which it is", spoken.join(", "))
        })
    }

    /// The instances of a service.
    pub fn instances(&self, service: &ServiceId) -> impl Iterator<Item = &Held> {
        self.held.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// All instances, by service and node.
    pub fn all(&self) -> impl Iterator<Item = &Held> {
        self.held.values().flat_map(BTreeMap::values)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The instance of a node.
    pub fn get(&self, node: &Arc<str>) -> Option<&Held> {
        self.held.get(self.of_node.get(node)?)?.get(node)
    }

    fn get_mut(&mut self, node: &Arc<str>) -> Option<&mut Held> {
        self.held.get_mut(self.of_node.get(node)?)?.get_mut(node)
    }

    fn insert(&mut self, held: impl Iterator<Item = Held>) {
        for held in held {
            if let Some(until) = held.until {
                self.deadlines.insert((until, held.node.clone()));
            }
            self.of_node.insert(held.node.clone(), held.service.clone());
            self.comes(&held);
            self.changed.insert(held.service.clone());
            self.held.entry(held.service.clone()).or_default().insert(held.node.clone(), held);
        }
    }

    fn remove(&mut self, node: &Arc<str>) -> Option<Held> {
        let service = self.of_node.remove(node)?;
        let all = self.held.get_mut(&service)?;
        let held = all.remove(node);
        if all.is_empty() {
            self.held.remove(&service);
        }
        if let Some(until) = held.as_ref().and_then(|held| held.until) {
            self.deadlines.remove(&(until, node.clone()));
        }
        if let Some(held) = &held {
            self.goes(held);
        }
        self.changed.insert(service);
        held
    }
}

/// What an instance declares to speak.
fn declared(held: &Held) -> Option<MeshProtocol> {
    Some(held.instance.protocol).filter(|protocol| *protocol != MeshProtocol::Auto && held.standing != Standing::Draining)
}

/// What all instances that declare something declare; where they disagree, the first bytes decide, which harms none of them.
fn protocol<'a>(held: impl Iterator<Item = &'a Held>) -> MeshProtocol {
    agreed(held.filter_map(declared))
}

fn agreed(mut declared: impl Iterator<Item = MeshProtocol>) -> MeshProtocol {
    let Some(first) = declared.next() else { return MeshProtocol::Auto };
    if declared.all(|other| other == first) { first } else { MeshProtocol::Auto }
}

fn endpoint(held: &Held) -> Endpoint {
    Endpoint {
        host: held.instance.address.clone(),
        port: held.instance.port,
        weight: 1,
        zone: held.zone.clone(),
        labels: labels(&held.instance),
        ..Endpoint::default()
    }
}
