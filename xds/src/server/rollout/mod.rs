//! How a new version spreads over the nodes of a group: first to one of them, its canary, to the others when that one has taken it, and to nobody else when
//! it refuses it. It knows no protocol.
//!
//! A group is who has the same role, speaks the same types and is the same kind of program. Beside the snapshot it has two that follow it: the *trial*, which canaries are shown, and the
//! *rest*, which all others are shown. What changed is put on trial as one step, which a canary answers; then the rest takes it over. What the canary
//! refuses is set back in the trial to what the rest has, and waits there until it changes or somebody says to go on.

mod group;
mod needs;
mod place;
#[cfg(test)]
mod tests;
mod wave;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use heddle_node::clock;
use heddle_node::drain::DrainWatch;

use crate::model::Kind;
use crate::protocol::Types;
use crate::server::Nack;
use crate::snapshot::{NodeScope, SnapshotFeed};
use group::{Group, Over};
pub(super) use place::Place;

/// Groups that are told apart; nodes of further roles are shown everything at once.
const MAX_GROUPS: usize = 256;
/// Those among them of which no member has proven who it is: who says any role it likes must not take the places of others. Enough for four roles
/// in each of the zones that such nodes are told apart by.
const MAX_UNPROVEN: usize = 64;
/// A group without nodes is remembered this long, with what is held from it: as long as a gateway may take to start again.
const FORGET: Duration = Duration::from_secs(600);

/// Which nodes belong together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupName {
    /// Whose types they speak.
    pub types: Types,
    /// What they are, for example `gateway`; empty when they do not say.
    pub role: Arc<str>,
    /// Where they are, of nodes of others: they are given other endpoints then. Empty of our own, and when unknown.
    pub zone: Arc<str>,
    /// There was no place for their zone, whichever it is: they are given what such nodes are given.
    pub zoneless: bool,
    /// They are agents of ours that ask for the types of others: what they refuse says nothing of the programs whose types these are.
    pub translating: bool,
}

impl GroupName {
    /// The group of a node that speaks these types.
    pub fn of(types: Types, scope: &NodeScope) -> GroupName {
        let ours = types == Types::Heddle;
        let zone = if ours || scope.zoneless { Arc::default() } else { scope.zone.clone() };
        GroupName { types, role: scope.role.clone(), zone, zoneless: !ours && scope.zoneless, translating: scope.translates }
    }
}

impl fmt::Display for GroupName {
    /// `gateway/envoy`, `gateway/envoy-dialect` for agents of ours, with a zone behind it where there is one, and `*` where there was no place for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.role, self.types.as_str(), if self.translating { "-dialect" } else { "" })?;
        match &*self.zone {
            _ if self.zoneless => f.write_str("/*"),
            "" => Ok(()),
            zone => write!(f, "/{zone}"),
        }
    }
}

/// A version that is not given to further nodes of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldView {
    /// Kind of the resource.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// The version that was refused; what nodes are given instead is the one before, or nothing where there was none. Where a group began with it, they keep what
    /// they have.
    pub version: Arc<str>,
    /// Who refused it.
    pub node: Arc<str>,
    /// Dotted path inside it, empty when the node did not say it.
    pub field: String,
    /// Why, in the node's words.
    pub reason: String,
    /// When.
    pub time: SystemTime,
    /// Names of the user's resources in it that have changed since the version before; empty where it is of one, or that is not known.
    pub parts: Arc<BTreeSet<Arc<str>>>,
}

impl From<HeldView> for Nack {
    fn from(held: HeldView) -> Nack {
        let HeldView { kind, name, version, field, reason, time, parts, .. } = held;
        Nack { kind, name, version, field, reason, time, parts }
    }
}

/// A group as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// Which.
    pub name: GroupName,
    /// Ids of the nodes that new versions go to first.
    pub canaries: Vec<Arc<str>>,
    /// Nodes that are connected.
    pub nodes: usize,
    /// Resources that a canary is trying now.
    pub trying: usize,
    /// What is held.
    pub held: Vec<HeldView>,
    /// What is gone and is kept for the nodes, since what they have in the place of something held refers to it.
    pub kept: Vec<(Kind, Arc<str>)>,
}

/// All groups. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Rollouts {
    groups: Arc<Mutex<BTreeMap<GroupName, Entry>>>,
    /// It was said that there are too many.
    said: Arc<AtomicBool>,
}

/// A group, and whether one of its members has proven who it is.
#[derive(Debug)]
struct Entry {
    group: Arc<Group>,
    proven: bool,
}

impl Rollouts {
    /// All groups that nodes have connected to.
    pub fn view(&self) -> Vec<GroupView> {
        let groups: Vec<_> = self.lock().iter().map(|(name, entry)| (name.clone(), entry.group.clone())).collect();
        groups.into_iter().map(|(name, group)| group.view(name)).collect()
    }

    /// What is held from the nodes of a group.
    pub fn held(&self, name: &GroupName) -> Vec<HeldView> {
        let group = self.lock().get(name).map(|entry| entry.group.clone());
        group.map(|group| group.held()).unwrap_or_default()
    }

    /// Number of resources that are held, over all groups.
    pub fn count(&self) -> usize {
        let groups: Vec<_> = self.lock().values().map(|entry| entry.group.clone()).collect();
        groups.iter().map(|group| group.count()).sum()
    }

    /// Gives the nodes of a group what is held from them, although it was refused. Says how many resources that are; `None`: there is no such group.
    pub fn resume(&self, group: &str) -> Option<usize> {
        let found = self.lock().iter().find(|(name, _)| name.to_string() == group).map(|(_, entry)| entry.group.clone());
        found.map(|group| group.resume())
    }

    /// A place for a stream in the group of its node, which follows `feed` in a task of the present runtime; `proven`: the node has shown who it is;
    /// `holds`: it has a configuration already. `None`: there are too many groups.
    pub(super) fn place(
        &self,
        (types, (scope, holds), proven): (Types, (&NodeScope, bool), bool),
        feed: &Arc<dyn SnapshotFeed>,
        wait: Duration,
        drain: &DrainWatch,
    ) -> Option<Place> {
        let name = GroupName::of(types, scope);
        let mut groups = self.lock();
        if !groups.contains_key(&name) && !make_room(&mut groups, proven) {
            if self.is_first() {
                let told = "too many groups of nodes: this one and others are given new versions at once, without a canary";
                tracing::warn!(group = %name, groups = MAX_GROUPS, without_certificate = MAX_UNPROVEN, "{told}");
            }
            return None;
        }
        let entry = groups.entry(name).or_insert_with_key(|name| {
            let group = Group::begin(feed.clone(), (types, wait), (drain.clone(), self.over(name.clone())));
            Entry { group, proven }
        });
        entry.proven |= proven;
        // Under the lock, so that no group is forgotten while somebody comes to it.
        Some(Place::of_group(&entry.group, (scope, holds)))
    }

    /// Whether nobody was told so far that there are too many.
    fn is_first(&self) -> bool {
        !self.said.swap(true, Ordering::Relaxed)
    }

    /// Forgets a group when nobody has been there for long.
    fn over(&self, name: GroupName) -> Over {
        let groups = Arc::downgrade(&self.groups);
        Box::new(move |group| {
            // Where nobody holds the groups any more, nobody comes to this one.
            let Some(groups) = groups.upgrade() else { return group.empty_since().is_some() };
            let mut groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
            let is_over = match groups.get(&name) {
                Some(entry) if std::ptr::eq(&*entry.group, group) => {
                    group.empty_since().is_some_and(|since| since + FORGET <= clock::now())
                }
                // Another one has taken its place.
                _ => return true,
            };
            if is_over {
                groups.remove(&name);
            }
            is_over
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupName, Entry>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that there is room for one more group, if need be in the place of the one that has been without nodes for longest.
fn make_room(groups: &mut BTreeMap<GroupName, Entry>, proven: bool) -> bool {
    let unproven = groups.values().filter(|entry| !entry.proven).count();
    let is_full = groups.len() >= MAX_GROUPS || !proven && unproven >= MAX_UNPROVEN;
    if !is_full {
        return true;
    }
    // Who has proven nothing displaces nobody who has.
    let displaced = groups.iter().filter(|(_, entry)| proven || !entry.proven);
    let displaced = displaced.filter_map(|(name, entry)| Some((entry.group.empty_since()?, name.clone()))).min();
    let displaced = displaced.and_then(|(_, name)| groups.remove(&name));
    // What it follows goes with it.
    displaced.inspect(|entry| entry.group.wake()).is_some()
}
