//! How a new version spreads over the nodes of a group: first to one of them, its canary, to the others when that one has taken it, and to nobody else when
//! it refuses it. It knows no protocol.
//!
//! A group is who has the same role and speaks the same types. Beside the snapshot it has two that follow it: the *trial*, which canaries are shown, and the
//! *rest*, which all others are shown. What changed is put on trial as one step, which a canary answers; then the rest takes it over. What the canary
//! refuses is set back in the trial to what the rest has, and waits there until it changes or somebody says to go on.

mod group;
mod place;
#[cfg(test)]
mod tests;
mod wave;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use heddle_node::drain::DrainWatch;

use crate::model::Kind;
use crate::protocol::Types;
use crate::server::Nack;
use crate::snapshot::{NodeScope, SnapshotFeed};
use group::Group;
pub(super) use place::Place;

/// Groups that are told apart; nodes of further roles are shown everything at once.
const MAX_GROUPS: usize = 64;

/// Which nodes belong together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupName {
    /// Whose types they speak.
    pub types: Types,
    /// What they are, for example `gateway`; empty when they do not say.
    pub role: Arc<str>,
}

impl fmt::Display for GroupName {
    /// `gateway/envoy`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.types.as_str())
    }
}

/// A version that is not given to further nodes of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldView {
    /// Kind of the resource.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// The version that was refused; what nodes are given instead is the one before, or nothing where there was none.
    pub version: Arc<str>,
    /// Who refused it.
    pub node: Arc<str>,
    /// Dotted path inside it, empty when the node did not say it.
    pub field: String,
    /// Why, in the node's words.
    pub reason: String,
    /// When.
    pub time: SystemTime,
}

impl From<HeldView> for Nack {
    fn from(held: HeldView) -> Nack {
        let HeldView { kind, name, version, field, reason, time, .. } = held;
        Nack { kind, name, version, field, reason, time }
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
}

/// All groups. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Rollouts(Arc<Mutex<BTreeMap<GroupName, Arc<Group>>>>);

impl Rollouts {
    /// All groups that nodes have connected to.
    pub fn view(&self) -> Vec<GroupView> {
        let groups: Vec<_> = self.lock().iter().map(|(name, group)| (name.clone(), group.clone())).collect();
        groups.into_iter().map(|(name, group)| group.view(name)).collect()
    }

    /// What is held from the nodes of a group.
    pub fn held(&self, name: &GroupName) -> Vec<HeldView> {
        let group = self.lock().get(name).cloned();
        group.map(|group| group.held()).unwrap_or_default()
    }

    /// Gives the nodes of a group what is held from them, although it was refused. Says how many resources that are; `None`: there is no such group.
    pub fn resume(&self, group: &str) -> Option<usize> {
        let found = self.lock().iter().find(|(name, _)| name.to_string() == group).map(|(_, group)| group.clone());
        found.map(|group| group.resume())
    }

    /// The group of a node, which follows `feed` in a task of the present runtime. `None`: there are too many.
    pub(super) fn group(
        &self,
        (types, scope): (Types, &NodeScope),
        feed: &Arc<dyn SnapshotFeed>,
        wait: Duration,
        drain: &DrainWatch,
    ) -> Option<Arc<Group>> {
        let name = GroupName { types, role: scope.role.clone() };
        let mut groups = self.lock();
        if groups.len() >= MAX_GROUPS && !groups.contains_key(&name) {
            return None;
        }
        let group = groups.entry(name).or_insert_with(|| Group::begin(feed.clone(), wait, drain.clone()));
        Some(group.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupName, Arc<Group>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
