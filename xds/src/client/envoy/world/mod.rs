//! What a node holds of Envoy's configuration, and what of it is live: what depends on something waits for it, as long as Envoy would. It knows no stream.

mod blame;
mod marks;
mod undo;
mod warming;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::clusters::{self, Uses, Variant};
use super::compose::{self, Shelf};
use super::parts::{parts_of, patience};
use super::versions::Versions;
use crate::client::{Held, SetResource, TypedUpdate};
use crate::codec::encode_body;
use crate::dialect::envoy::decode::piece::{Addresses, Assignment, Cluster, Door, Extension, RouteTable};
use crate::dialect::envoy::decode::source::PATIENCE;
use crate::dialect::envoy::decode::{DecodeFault as Fault, Piece};
use crate::dialect::envoy::kind::EnvoyKind;
use crate::model::{Kind, Resource, Secret};
use crate::snapshot::{hash_of, written};
pub(super) use blame::Blame;
pub(super) use undo::Before;
use undo::Old;

/// A resource of Envoy that resources of ours come from.
pub type Owner = (EnvoyKind, Arc<str>);

/// Something that waits for what it depends on, and the version of it that is live meanwhile.
struct Waiting<T> {
    next: Arc<T>,
    live: Option<Arc<T>>,
    until: Instant,
    /// Routes of the next one were refused: it is out of use until something is told that it names.
    barred: bool,
    /// That was told, and what is left to wait for is its address.
    mended: bool,
    /// The version before one that is out of use, while another one has its address.
    kept_out: Option<Arc<T>>,
}

impl<T> Waiting<T> {
    /// What came last, which waits from now on, in the place of what was there.
    fn new(next: Arc<T>, before: Option<&Waiting<T>>, until: Instant) -> Waiting<T> {
        Waiting { next, live: before.and_then(|old| old.live.clone()), until, barred: false, mended: false, kept_out: None }
    }

    /// Whether what came last is live.
    fn is_warm(&self) -> bool {
        self.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, &self.next))
    }

    /// The version whose place is kept free: that of one that is out of use is not.
    fn stands(&self) -> Option<&Arc<T>> {
        if self.barred { self.live.as_ref() } else { Some(&self.next) }
    }
}

/// A listener and what it becomes: resources of ours, and the ways in which they use clusters.
type Draft = (Arc<Door>, (Vec<Resource>, Uses));

/// What a node holds.
pub struct World {
    clusters: BTreeMap<Arc<str>, Waiting<Cluster>>,
    doors: BTreeMap<Arc<str>, Waiting<Door>>,
    assignments: BTreeMap<Arc<str>, Arc<Assignment>>,
    tables: BTreeMap<Arc<str>, Arc<RouteTable>>,
    secrets: BTreeMap<Arc<str>, Arc<Secret>>,
    extensions: BTreeMap<Arc<str>, Arc<Extension>>,
    /// What the control plane has said that it does not have.
    absent: BTreeSet<Owner>,
    /// What is not live yet.
    warming: BTreeSet<Owner>,
    /// Listeners that went live in this turn, each with what was live of it before.
    opened: BTreeMap<Arc<str>, Option<Arc<Door>>>,
    /// What must be made anew.
    stale: BTreeSet<Owner>,
    /// Variants of clusters that the routes of each listener use.
    uses: BTreeMap<Arc<str>, Uses>,
    /// Names under which clusters ask for their endpoints, each with the cluster.
    services: BTreeSet<(Arc<str>, Arc<str>)>,
    /// What was told, by where it comes from.
    told: BTreeMap<Owner, Versions>,
    /// What was told since somebody last asked, as it is encoded.
    encoded: Vec<(Kind, Arc<str>, Held)>,
    /// What listeners become with what came last; it was looked at before that was taken over, and is not made twice.
    drafts: BTreeMap<Arc<str>, Draft>,
    /// Listeners wait for the first clusters: nothing is let in that could lead nowhere.
    gate: Gate,
    /// What is to be asked for by name may have changed.
    wants_changed: bool,
    /// Listeners of the bootstrap, with what tells each from what it was in another one.
    marks: BTreeMap<Arc<str>, Arc<str>>,
}

/// Whether listeners may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// No clusters were told yet; they are waited for until then.
    Shut(Instant),
    /// The first clusters are there; they are waited for until they are warm.
    Warming,
    Open,
}

impl World {
    /// Holds nothing. Where a control plane is followed, listeners wait for its clusters.
    pub fn new(follows: bool, now: Instant) -> World {
        World {
            clusters: BTreeMap::new(),
            doors: BTreeMap::new(),
            assignments: BTreeMap::new(),
            tables: BTreeMap::new(),
            secrets: BTreeMap::new(),
            extensions: BTreeMap::new(),
            absent: BTreeSet::new(),
            warming: BTreeSet::new(),
            opened: BTreeMap::new(),
            stale: BTreeSet::new(),
            uses: BTreeMap::new(),
            services: BTreeSet::new(),
            told: BTreeMap::new(),
            encoded: Vec::new(),
            drafts: BTreeMap::new(),
            gate: if follows { Gate::Shut(now + PATIENCE) } else { Gate::Warming },
            wants_changed: false,
            marks: BTreeMap::new(),
        }
    }

    /// The first clusters have been told.
    pub fn clusters_told(&mut self) {
        if matches!(self.gate, Gate::Shut(_)) {
            self.gate = Gate::Warming;
        }
    }

    /// Takes a resource over; gives what was there before.
    ///
    /// # Errors
    /// It cannot stand beside what is there; nothing has changed then.
    pub(super) fn set(&mut self, piece: Piece, now: Instant) -> Result<Option<Before>, Fault> {
        if let Some(fault) = self.contest(&piece) {
            return Err(fault);
        }
        self.put(piece, now)
    }

    /// The same, whoever has the address of a listener.
    fn put(&mut self, piece: Piece, now: Instant) -> Result<Option<Before>, Fault> {
        self.drafts = self.judge(&piece)?;
        let owner = (piece.kind(), piece.name().clone());
        self.absent.remove(&owner);
        let before = match piece {
            Piece::Cluster(cluster) => {
                self.wants_changed = true;
                let until = now + if matches!(cluster.addresses, Addresses::Asked(_)) { cluster.patience } else { PATIENCE };
                let before = self.clusters.remove(&owner.1);
                self.clusters.insert(owner.1.clone(), Waiting::new(cluster, before.as_ref(), until));
                self.warming.insert(owner);
                before.map(Old::Cluster)
            }
            Piece::Listener(door) => {
                self.wants_changed = true;
                let until = now + patience(&door);
                let before = self.doors.remove(&owner.1);
                self.doors.insert(owner.1.clone(), Waiting::new(door, before.as_ref(), until));
                self.warming.insert(owner);
                before.map(Old::Listener)
            }
            Piece::Endpoints(assignment) => {
                self.stale_clusters_of(&owner.1);
                self.assignments.insert(owner.1, assignment).map(Piece::Endpoints).map(Old::Other)
            }
            part => self.put_part(&owner, part).map(Old::Other),
        };
        Ok(before.map(Before::from))
    }

    /// Takes over what listeners are made of, which those that are out of use are tried with again.
    fn put_part(&mut self, owner: &Owner, piece: Piece) -> Option<Piece> {
        let name = owner.1.clone();
        let before = match piece {
            Piece::Routes(table) => self.tables.insert(name, table).map(Piece::Routes),
            Piece::Extension(extension) => self.extensions.insert(name, extension).map(Piece::Extension),
            Piece::Secret(secret) => {
                self.stale.insert(owner.clone());
                self.secrets.insert(name, secret).map(Piece::Secret)
            }
            Piece::Cluster(_) | Piece::Listener(_) | Piece::Endpoints(_) => None,
        };
        self.stale_doors_of(owner.0, &owner.1);
        self.retry(owner);
        before
    }

    /// The control plane no longer has a resource. One that is asked for by name stays in use, as in Envoy: whoever names it decides.
    pub fn remove(&mut self, kind: EnvoyKind, name: &Arc<str>) {
        let owner = (kind, name.clone());
        match kind {
            EnvoyKind::Cluster | EnvoyKind::Listener => self.forget(&owner),
            _ if !self.holds(kind, name) => {
                self.absent.insert(owner);
            }
            _ => {}
        }
    }

    fn forget(&mut self, owner: &Owner) {
        let (kind, name) = owner;
        self.drafts.clear();
        self.wants_changed = true;
        self.warming.remove(owner);
        match kind {
            EnvoyKind::Cluster => drop(self.clusters.remove(name)),
            EnvoyKind::Listener => drop(self.doors.remove(name)),
            EnvoyKind::Endpoints => {
                self.assignments.remove(name);
                self.stale_clusters_of(name);
            }
            EnvoyKind::Routes => {
                self.tables.remove(name);
                self.stale_doors_of(*kind, name);
            }
            EnvoyKind::Extension => {
                self.extensions.remove(name);
                self.stale_doors_of(*kind, name);
            }
            EnvoyKind::Secret => drop(self.secrets.remove(name)),
        }
        self.stale.insert(owner.clone());
    }

    /// Whether a resource is held.
    pub fn holds(&self, kind: EnvoyKind, name: &str) -> bool {
        match kind {
            EnvoyKind::Cluster => self.clusters.contains_key(name),
            EnvoyKind::Listener => self.doors.contains_key(name),
            EnvoyKind::Endpoints => self.assignments.contains_key(name),
            EnvoyKind::Routes => self.tables.contains_key(name),
            EnvoyKind::Secret => self.secrets.contains_key(name),
            EnvoyKind::Extension => self.extensions.contains_key(name),
        }
    }

    /// What is to be asked for by name of each kind, when that may have changed.
    pub fn wants(&mut self) -> Option<BTreeMap<EnvoyKind, BTreeSet<Arc<str>>>> {
        if !std::mem::take(&mut self.wants_changed) {
            return None;
        }
        let mut wants: BTreeMap<EnvoyKind, BTreeSet<Arc<str>>> = BTreeMap::new();
        self.services.clear();
        for (name, waiting) in &self.clusters {
            for cluster in waiting.live.iter().chain([&waiting.next]) {
                if let Addresses::Asked(service) = &cluster.addresses {
                    wants.entry(EnvoyKind::Endpoints).or_default().insert(service.clone());
                    self.services.insert((service.clone(), name.clone()));
                }
                wants.entry(EnvoyKind::Secret).or_default().extend(cluster.asks_secrets.iter().cloned());
            }
        }
        for door in self.doors.values().flat_map(|waiting| waiting.live.iter().chain([&waiting.next])) {
            wants.entry(EnvoyKind::Secret).or_default().extend(door.asks_secrets.iter().cloned());
            for (kind, name, _) in parts_of(door) {
                wants.entry(kind).or_default().insert(name.clone());
            }
        }
        self.drop_unwanted(&wants);
        Some(wants)
    }

    /// What nobody names any more is held no more.
    fn drop_unwanted(&mut self, wants: &BTreeMap<EnvoyKind, BTreeSet<Arc<str>>>) {
        let empty = BTreeSet::new();
        let wanted = |kind: EnvoyKind| wants.get(&kind).unwrap_or(&empty);
        self.assignments.retain(|name, _| wanted(EnvoyKind::Endpoints).contains(name));
        self.tables.retain(|name, _| wanted(EnvoyKind::Routes).contains(name));
        self.extensions.retain(|name, _| wanted(EnvoyKind::Extension).contains(name));
        let gone: Vec<Arc<str>> =
            self.secrets.keys().filter(|name| !wanted(EnvoyKind::Secret).contains(*name)).cloned().collect();
        for name in gone {
            self.secrets.remove(&name);
            self.stale.insert((EnvoyKind::Secret, name));
        }
        self.absent.retain(|(kind, name)| wanted(*kind).contains(name));
    }

    /// Lets what is ready go live; what changed of our model by that, in the order in which it is to be applied.
    pub fn step(&mut self, now: Instant) -> Vec<TypedUpdate> {
        self.opened.clear();
        self.step_on(now)
    }

    /// The same in the same turn, for what was undone of it.
    pub(super) fn step_on(&mut self, now: Instant) -> Vec<TypedUpdate> {
        // Names are known before it is asked whether all of them are there.
        self.warm(now);
        let stale = std::mem::take(&mut self.stale);
        let mut changes: BTreeMap<Kind, TypedUpdate> = BTreeMap::new();
        // Listeners first: their routes say in which ways clusters are used.
        for owner in stale.iter().filter(|(kind, _)| *kind == EnvoyKind::Listener) {
            self.tell(owner, &mut changes);
        }
        let used = std::mem::take(&mut self.stale);
        for owner in stale.iter().chain(used.difference(&stale)).filter(|(kind, _)| *kind != EnvoyKind::Listener) {
            self.tell(owner, &mut changes);
        }
        self.drafts.clear();
        changes.into_values().filter(|update| !(update.set.is_empty() && update.removed.is_empty())).collect()
    }

    /// What was told since this was last asked, as it is encoded.
    pub(super) fn take_encoded(&mut self) -> Vec<(Kind, Arc<str>, Held)> {
        std::mem::take(&mut self.encoded)
    }

    /// Everything of our model that was told of.
    pub fn told(&self) -> impl Iterator<Item = &(Kind, Arc<str>)> {
        self.told.values().flat_map(Versions::keys)
    }

    /// Whether a resource can stand beside those that it meets; what listeners become with it.
    fn judge(&self, piece: &Piece) -> Result<BTreeMap<Arc<str>, Draft>, Fault> {
        let table = |name: &str| match piece {
            Piece::Routes(table) if *name == *table.name => Some(table.clone()),
            _ => self.tables.get(name).cloned(),
        };
        let extension = |name: &str| match piece {
            Piece::Extension(extension) if *name == *extension.name => Some(extension.clone()),
            _ => self.extensions.get(name).cloned(),
        };
        let connect = |cluster: &str| self.connect(cluster);
        let shelf = Shelf { table: &table, extension: &extension, connect: &connect };
        let draft = |name: &Arc<str>, door: &Arc<Door>| Ok((name.clone(), (door.clone(), compose::listener(door, &shelf)?)));
        let owner = (piece.kind(), piece.name());
        match piece {
            Piece::Listener(door) => Ok(BTreeMap::from([draft(owner.1, door)?])),
            Piece::Routes(_) | Piece::Extension(_) => {
                let names = |door: &Door| parts_of(door).any(|(kind, name, _)| (kind, name) == owner);
                let standing = self.doors.iter().filter_map(|(name, waiting)| Some((name, waiting.stands()?)));
                standing.filter(|(_, door)| names(door)).map(|(name, door)| draft(name, door)).collect()
            }
            _ => Ok(BTreeMap::new()),
        }
    }

    /// That a listener wants the address of another one: connections would go to either. One that leaves an address has it no more.
    pub(super) fn contest(&self, piece: &Piece) -> Option<Fault> {
        let Piece::Listener(door) = piece else { return None };
        let (name, address) = (&door.listener.name, door.listener.address);
        // A port that the system chooses is another one for each.
        let has = |waiting: &Waiting<Door>| {
            waiting.stands().is_some_and(|door| door.listener.address == address) && address.port() != 0
        };
        let holder = self.doors.iter().find(|(other, waiting)| *other != name && has(waiting))?;
        Some(door.taken_by(holder.0))
    }

    /// The same of a listener that is held.
    pub(super) fn contested(&self, name: &str) -> Option<(Piece, Fault)> {
        let piece = Piece::Listener(self.doors.get(name)?.next.clone());
        self.contest(&piece).map(|fault| (piece, fault))
    }

    /// Whether a listener is live at an address.
    pub(super) fn is_live_at(&self, address: SocketAddr) -> bool {
        self.doors.values().filter_map(|waiting| waiting.live.as_ref()).any(|door| door.listener.address == address)
    }

    /// How long a connection to a cluster that is live may take.
    fn connect(&self, cluster: &str) -> Option<Duration> {
        self.clusters.get(cluster)?.live.as_ref().map(|live| live.upstream.timeouts.connect)
    }

    fn stale_clusters_of(&mut self, service: &str) {
        let service: Arc<str> = service.into();
        let users = self.services.range((service.clone(), "".into())..).take_while(|(asked, _)| *asked == service);
        self.stale.extend(users.map(|(_, cluster)| (EnvoyKind::Cluster, cluster.clone())));
    }

    fn stale_doors_of(&mut self, kind: EnvoyKind, part: &str) {
        let uses = |door: &Arc<Door>| parts_of(door).any(|(of, name, _)| of == kind && **name == *part);
        let users = self.doors.iter().filter(|(_, waiting)| waiting.live.iter().any(uses)).map(|(name, _)| name.clone());
        self.stale.extend(users.map(|name| (EnvoyKind::Listener, name)));
    }

    /// Routes say how long a connection to their cluster may take.
    fn stale_callers_of(&mut self, cluster: &str) {
        let callers =
            self.uses.iter().filter(|(_, uses)| uses.contains_key(cluster)).map(|(name, _)| (EnvoyKind::Listener, name.clone()));
        self.stale.extend(callers);
    }

    fn stale_used<'u>(&mut self, clusters: impl Iterator<Item = &'u Arc<str>>) {
        self.stale.extend(clusters.map(|cluster| (EnvoyKind::Cluster, cluster.clone())));
    }

    /// What a resource of Envoy is here now.
    fn made_of(&mut self, owner: &Owner) -> Vec<Resource> {
        let (kind, name) = owner;
        match kind {
            EnvoyKind::Secret => self.secrets.get(name).map(|secret| Resource::Secret((**secret).clone())).into_iter().collect(),
            EnvoyKind::Cluster => {
                let Some(cluster) = self.clusters.get(name).and_then(|waiting| waiting.live.clone()) else { return Vec::new() };
                let asked = match &cluster.addresses {
                    Addresses::Asked(service) => self.assignments.get(service).map(|assignment| &**assignment),
                    Addresses::Told(_) => None,
                };
                let mut variants: Vec<&Variant> = Vec::new();
                for variant in self.uses.values().filter_map(|uses| uses.get(name)).flatten() {
                    if !variants.contains(&variant) {
                        variants.push(variant);
                    }
                }
                clusters::cluster(&cluster, asked, &variants)
            }
            EnvoyKind::Listener => {
                let before = self.uses.remove(name).unwrap_or_default();
                let Some(door) = self.doors.get(name).and_then(|waiting| waiting.live.clone()) else {
                    self.stale_used(before.keys());
                    return Vec::new();
                };
                let draft = self.drafts.remove(name).filter(|(of, _)| Arc::ptr_eq(of, &door));
                let connect = |cluster: &str| self.connect(cluster);
                let table = |name: &str| self.tables.get(name).cloned();
                let extension = |name: &str| self.extensions.get(name).cloned();
                let shelf = Shelf { table: &table, extension: &extension, connect: &connect };
                // What does not fit was refused when it came.
                let made = draft.map_or_else(|| compose::listener(&door, &shelf), |(_, made)| Ok(made));
                let (resources, uses) = made.unwrap_or_default();
                // Who is used in no way but the plain one, or no more, has nothing to change.
                let ways = |uses: &Uses, cluster: &Arc<str>| uses.get(cluster).cloned().unwrap_or_default();
                let changed: Vec<Arc<str>> = before
                    .keys()
                    .chain(uses.keys())
                    .filter(|cluster| ways(&before, cluster) != ways(&uses, cluster))
                    .cloned()
                    .collect();
                self.stale_used(changed.iter());
                self.uses.insert(name.clone(), uses);
                resources
            }
            EnvoyKind::Endpoints | EnvoyKind::Routes | EnvoyKind::Extension => Vec::new(),
        }
    }

    fn tell(&mut self, owner: &Owner, changes: &mut BTreeMap<Kind, TypedUpdate>) {
        let before = self.told.remove(owner).unwrap_or_default();
        let made = self.made_of(owner);
        let mut told = Vec::with_capacity(made.len());
        let empty = |kind| TypedUpdate { kind, set: Vec::new(), removed: Vec::new(), rejected: Vec::new() };
        for resource in made {
            let key = (resource.kind(), resource.name().clone());
            let body = encode_body(&resource);
            let version = hash_of(&body);
            if before.get(&key) != Some(version) {
                let set = SetResource { name: key.1.clone(), version: written(version), resource };
                self.encoded.push((key.0, key.1.clone(), Held { version: self.marked(owner, &set.version), body }));
                changes.entry(key.0).or_insert_with(|| empty(key.0)).set.push(set);
            }
            told.push((key, version));
        }
        let told = Versions::new(told);
        for (kind, name) in before.keys().filter(|key| told.get(key).is_none()) {
            changes.entry(*kind).or_insert_with(|| empty(*kind)).removed.push(name.clone());
        }
        if !told.is_empty() {
            self.told.insert(owner.clone(), told);
        }
    }
}
