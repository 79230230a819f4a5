//! The conversation with a control plane of Envoy's, delta or state of the world, as values. It knows neither gRPC nor time.

mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::world::{Before, Owner, World};
use crate::dialect::envoy::decode::{DecodeFault as Fault, Piece, Unread, material, name_in};
use crate::dialect::envoy::kind::EnvoyKind;
use crate::protocol::Dialect;
use crate::snapshot::version_of;

/// Bytes of one resource.
const MAX_RESOURCE_BYTES: usize = 4 * 1024 * 1024;
/// Resources of one kind.
const MAX_HELD: usize = 500_000;

/// Said of a listener of which a NACK said otherwise: there are no words for it in the protocol.
const AT_LAST: &str = "a listener that was refused since its address was another one's takes it over now";

/// What the control plane says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The kind that it is about.
    pub kind: EnvoyKind,
    /// Its position.
    pub version: Arc<str>,
    /// To be given back.
    pub nonce: Arc<str>,
    /// Resources: name and version are empty in state of the world.
    pub resources: Vec<Raw>,
    /// Names that are gone; delta only.
    pub removed: Vec<Arc<str>>,
}

/// A resource on its way.
#[derive(Clone, PartialEq, Eq)]
pub struct Raw {
    /// Name, may be empty.
    pub name: Arc<str>,
    /// Version, may be empty.
    pub version: Arc<str>,
    /// Type of the body.
    pub type_url: String,
    /// Encoded resource.
    pub body: Bytes,
}

impl std::fmt::Debug for Raw {
    /// Without the body: key material never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Raw({} {:?} at {:?}, {} bytes)", self.type_url, self.name, self.version, self.body.len())
    }
}

/// What the client says: a subscription, an ACK or a NACK. Of the names each dialect sends its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Says {
    /// The kind that it is about; `None` never.
    pub kind: Option<EnvoyKind>,
    /// Names asked for from now on; delta.
    pub subscribe: Vec<Arc<str>>,
    /// Names no longer asked for; delta.
    pub unsubscribe: Vec<Arc<str>>,
    /// What is held; delta, at the start of a stream.
    pub initial: BTreeMap<Arc<str>, Arc<str>>,
    /// All names asked for; state of the world.
    pub names: Vec<Arc<str>>,
    /// The version that is held; state of the world.
    pub version: Arc<str>,
    /// The response that is answered, empty for none.
    pub nonce: Arc<str>,
    /// Why it was refused, in whole or in part.
    pub error: Option<String>,
}

/// A response that waits for the consumer.
pub struct Open {
    kind: EnvoyKind,
    version: Arc<str>,
    nonce: Arc<str>,
    /// What was taken over, with what was there before and the version that it has now.
    taken: BTreeMap<Arc<str>, (Option<Before>, Arc<str>)>,
    /// What was taken over and is so no more.
    undone: BTreeSet<Arc<str>>,
    refused: Vec<(Arc<str>, Fault)>,
}

/// The conversation, which outlives its streams.
pub struct Follower {
    world: World,
    dialect: Dialect,
    /// Kinds that are asked for as a whole.
    whole: BTreeSet<EnvoyKind>,
    names: BTreeMap<EnvoyKind, BTreeSet<Arc<str>>>,
    held: BTreeMap<Owner, Arc<str>>,
    /// Listeners whose address another one has, with their versions. They were refused, and come alive when that goes: nobody tells of them again.
    parked: BTreeMap<Arc<str>, (Piece, Arc<str>)>,
    /// Listeners of which no version that was told can be used.
    unusable: BTreeSet<Arc<str>>,
    fixed: BTreeSet<Owner>,
    nonces: BTreeMap<EnvoyKind, Arc<str>>,
    versions: BTreeMap<EnvoyKind, Arc<str>>,
    answered: BTreeSet<EnvoyKind>,
    /// A stream is open, so that changes of what is asked for are said.
    open: bool,
}

impl Follower {
    /// A client that asks for these kinds as a whole, beside what it was told at its start.
    pub fn new(
        dialect: Dialect,
        whole: BTreeSet<EnvoyKind>,
        statics: &[Piece],
        now: Instant,
    ) -> Result<Follower, (Owner, Fault)> {
        let mut follower = Follower {
            world: World::new(whole.contains(&EnvoyKind::Cluster), now),
            dialect,
            whole,
            names: BTreeMap::new(),
            held: BTreeMap::new(),
            parked: BTreeMap::new(),
            unusable: BTreeSet::new(),
            fixed: BTreeSet::new(),
            nonces: BTreeMap::new(),
            versions: BTreeMap::new(),
            answered: BTreeSet::new(),
            open: false,
        };
        for piece in statics {
            let owner = (piece.kind(), piece.name().clone());
            if let Piece::Listener(door) = piece {
                follower.world.mark(door);
            }
            match follower.world.set(piece.clone(), now) {
                Err(fault) => return Err((owner, fault)),
                Ok(Some(_)) => return Err((owner, Fault::new("name", "is there twice"))),
                Ok(None) => drop(follower.fixed.insert(owner)),
            }
        }
        Ok(follower)
    }

    /// What is held.
    pub fn world(&mut self) -> &mut World {
        &mut self.world
    }

    /// Whether everything that is asked for was answered, and is live.
    pub fn is_synced(&self) -> bool {
        self.whole.iter().all(|kind| self.answered.contains(kind)) && self.world.is_warm()
    }

    /// Listeners of which no version that was told can be used: what was on disk of them stays.
    pub fn unusable(&self) -> &BTreeSet<Arc<str>> {
        &self.unusable
    }

    /// Whether all of the bootstrap is in use.
    pub fn is_whole(&self) -> bool {
        !self.fixed.iter().any(|(kind, name)| *kind == EnvoyKind::Listener && self.world.is_barred(name))
    }

    /// The stream is gone.
    pub fn lost(&mut self) {
        self.open = false;
    }

    /// What opens a stream.
    pub fn hello(&mut self) -> Vec<Says> {
        self.open = true;
        self.nonces.clear();
        // They are told anew, as it is not said that they are held.
        self.parked.clear();
        self.note_wants();
        let asked = |kind: &EnvoyKind| self.whole.contains(kind) || self.names.get(kind).is_some_and(|names| !names.is_empty());
        // Clusters first, then what they need: the order in which a control plane expects questions.
        let order = [
            EnvoyKind::Cluster,
            EnvoyKind::Endpoints,
            EnvoyKind::Listener,
            EnvoyKind::Extension,
            EnvoyKind::Routes,
            EnvoyKind::Secret,
        ];
        order.into_iter().filter(asked).map(|kind| self.question(kind)).collect()
    }

    /// The question that asks for all that is wanted of a kind.
    fn question(&self, kind: EnvoyKind) -> Says {
        let names: Vec<Arc<str>> = self.names.get(&kind).into_iter().flatten().cloned().collect();
        let mut says = Says { kind: Some(kind), ..Says::default() };
        match self.dialect {
            Dialect::Delta => {
                says.subscribe = names;
                if kind == EnvoyKind::Listener {
                    // What is there of them is no version that is told of; should they be gone by now, that is said.
                    says.initial = self.unusable.iter().map(|name| (name.clone(), "".into())).collect();
                }
                let held = self.held.iter().filter(|((of, _), _)| *of == kind);
                says.initial.extend(held.map(|((_, name), version)| (name.clone(), version.clone())));
            }
            Dialect::Sotw => {
                says.names = names;
                says.version = self.versions.get(&kind).cloned().unwrap_or_default();
            }
        }
        says
    }

    /// What is to be asked for besides, since something names it.
    pub fn asks(&mut self) -> Vec<Says> {
        let Some(before) = self.note_wants().filter(|_| self.open) else { return Vec::new() };
        let empty = BTreeSet::new();
        let mut says = Vec::new();
        for kind in EnvoyKind::ALL.into_iter().filter(|kind| !kind.is_asked_whole()) {
            let (old, new) = (before.get(&kind).unwrap_or(&empty), self.names.get(&kind).unwrap_or(&empty));
            if old == new {
                continue;
            }
            let mut one =
                Says { kind: Some(kind), nonce: self.nonces.get(&kind).cloned().unwrap_or_default(), ..Says::default() };
            match self.dialect {
                Dialect::Delta => {
                    // Nothing is answered by this.
                    one.nonce = "".into();
                    one.subscribe = new.difference(old).cloned().collect();
                    one.unsubscribe = old.difference(new).cloned().collect();
                }
                Dialect::Sotw => {
                    one.names = new.iter().cloned().collect();
                    one.version = self.versions.get(&kind).cloned().unwrap_or_default();
                }
            }
            says.push(one);
        }
        says
    }

    /// Takes over what is wanted by name, where that may have changed; what was wanted before.
    fn note_wants(&mut self) -> Option<BTreeMap<EnvoyKind, BTreeSet<Arc<str>>>> {
        let mut wants = self.world.wants()?;
        for (kind, name) in &self.fixed {
            // What the bootstrap has is not asked for.
            wants.get_mut(kind).map(|names| names.remove(name));
        }
        let wanted = |(kind, name): &Owner| kind.is_asked_whole() || wants.get(kind).is_some_and(|names| names.contains(name));
        self.held.retain(|owner, _| wanted(owner));
        Some(std::mem::replace(&mut self.names, wants))
    }

    /// Takes a response over, each resource singly.
    pub fn receive(&mut self, told: Told, now: Instant) -> Open {
        let Told { kind, version, nonce, resources, removed } = told;
        let mut open = Open { kind, version, nonce, taken: BTreeMap::new(), undone: BTreeSet::new(), refused: Vec::new() };
        let mut seen = BTreeSet::new();
        if kind == EnvoyKind::Listener {
            // Listeners that go give their addresses away to those that come. They are few, so that their names may be read twice.
            if self.dialect == Dialect::Sotw {
                seen = resources.iter().map(|raw| self.read(kind, raw).0).collect();
            }
            self.drop_gone(kind, &seen, &removed);
        }
        for raw in &resources {
            self.take(raw, &mut open, &mut seen, now);
        }
        if kind == EnvoyKind::Listener {
            self.let_in(&mut open, &seen, now);
        } else {
            self.drop_gone(kind, &seen, &removed);
        }
        if kind == EnvoyKind::Cluster {
            self.world.clusters_told();
        }
        open
    }

    /// Drops what was removed, and in state of the world what was not seen.
    fn drop_gone(&mut self, kind: EnvoyKind, seen: &BTreeSet<Arc<str>>, removed: &[Arc<str>]) {
        if self.dialect == Dialect::Sotw && kind.is_asked_whole() && !seen.contains("") {
            let gone: Vec<Owner> = self.held.keys().filter(|(of, name)| *of == kind && !seen.contains(name)).cloned().collect();
            gone.into_iter().for_each(|owner| self.drop_one(&owner));
            self.parked.retain(|name, _| kind != EnvoyKind::Listener || seen.contains(name));
            self.unusable.retain(|name| kind != EnvoyKind::Listener || seen.contains(name));
        }
        removed.iter().for_each(|name| self.drop_one(&(kind, name.clone())));
    }

    /// Lets listeners in whose address is free by now; of those of this response it is said that it is not.
    fn let_in(&mut self, open: &mut Open, seen: &BTreeSet<Arc<str>>, now: Instant) {
        while let Some((name, piece, version)) = self.next_parked() {
            if !seen.contains(&name) {
                tracing::info!(listener = %name, "{AT_LAST}");
            }
            self.put(open, name, version, piece, now);
        }
        let refused = self.parked.iter().filter(|(name, _)| seen.contains(*name));
        open.refused.extend(refused.filter_map(|(name, (piece, _))| Some((name.clone(), self.world.contest(piece)?))));
    }

    /// The next listener whose address is free by now.
    fn next_parked(&mut self) -> Option<(Arc<str>, Piece, Arc<str>)> {
        let is_free = |(_, (piece, _)): &(&Arc<str>, &(Piece, Arc<str>))| self.world.contest(piece).is_none();
        let name = self.parked.iter().find(is_free)?.0.clone();
        let (piece, version) = self.parked.remove(&name)?;
        Some((name, piece, version))
    }

    fn put(&mut self, open: &mut Open, name: Arc<str>, version: Arc<str>, piece: Piece, now: Instant) {
        match self.world.set(piece, now) {
            Ok(before) => drop(open.taken.insert(name, (before, version))),
            Err(fault) => open.refused.push((name, fault)),
        }
    }

    fn drop_one(&mut self, owner: &Owner) {
        if owner.0 == EnvoyKind::Listener {
            self.parked.remove(&owner.1);
            self.unusable.remove(&owner.1);
        }
        if !self.fixed.contains(owner) {
            self.held.remove(owner);
            self.world.remove(owner.0, &owner.1);
        }
    }

    fn take(&mut self, raw: &Raw, open: &mut Open, seen: &mut BTreeSet<Arc<str>>, now: Instant) {
        let kind = open.kind;
        let (name, read) = self.read(kind, raw);
        seen.insert(name.clone());
        if kind == EnvoyKind::Listener {
            self.parked.remove(&name);
        }
        let version = if raw.version.is_empty() { version_of(&raw.body) } else { raw.version.clone() };
        let owner = (kind, name.clone());
        if self.dialect == Dialect::Sotw && self.held.get(&owner) == Some(&version) {
            return;
        }
        match read() {
            Ok(piece) if self.world.contest(&piece).is_some() => drop(self.parked.insert(name, (piece, version))),
            Ok(piece) => self.put(open, name, version, piece, now),
            Err(fault) => open.refused.push((name, fault)),
        }
    }

    /// The name of a resource, and how it is read.
    fn read<'r>(&self, kind: EnvoyKind, raw: &'r Raw) -> (Arc<str>, impl FnOnce() -> Result<Piece, Fault> + use<'r>) {
        let unread = if raw.type_url != kind.type_url() {
            Err(Fault::new("@type", format!("expected {}, found {:.200}", kind.type_url(), raw.type_url)))
        } else if raw.body.len() > MAX_RESOURCE_BYTES {
            Err(Fault::new("", format!("has {} bytes, at most {MAX_RESOURCE_BYTES} are read", raw.body.len())))
        } else {
            Unread::new(kind, &raw.body)
        };
        let own = match &unread {
            Ok(unread) => unread.name(),
            Err(_) if raw.type_url == kind.type_url() => name_in(kind, &raw.body),
            Err(_) => None,
        };
        let name = own.clone().filter(|_| raw.name.is_empty()).unwrap_or_else(|| raw.name.clone());
        let fixed = self.fixed.contains(&(kind, name.clone()));
        let full = self.held.len() + self.parked.len() >= MAX_HELD * EnvoyKind::ALL.len();
        let said = name.clone();
        let read = move || {
            let unread = unread?;
            match own {
                _ if fixed => Err(Fault::new("name", "is that of a resource of the bootstrap, which stays")),
                _ if full => Err(Fault::new("", format!("more than {MAX_HELD} resources of a kind are not held"))),
                Some(own) if own != said => Err(Fault::new("name", format!("the resource calls itself {own:.200?}"))),
                _ => unread.read().and_then(|piece| material::usable(&piece).map(|()| piece)),
            }
        };
        (name, read)
    }
}
