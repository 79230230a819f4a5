//! Who is connected, what they hold and what they refuse. It knows no protocol; the admin service reads it.

pub(super) mod beside;
pub(super) mod inspect;
mod instances;
mod joined;
mod loads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use heddle_node::clock::Instant;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::time::timeout;

use self::beside::{Beside, Company, Owner};
use self::inspect::{Ask, Asking, Asks};
use self::instances::{Outbox, Pace};
use super::rollout::{GroupName, GroupView, HeldView, Rollouts};
use super::{Machine, Nack, Stands};
use crate::dialect::envoy::encode::Ledger;
use crate::model::{Instance, Kind};
use crate::protocol::{Dialect, NodeInfo, Types};

pub use self::inspect::{Inspected, ResourceView, Standing};
pub use self::instances::InstanceFollower;
pub use self::loads::{Dropped, LoadView, Loads, Sums};
pub(super) use self::loads::{Report, Reporter, Who};

/// Nodes that are remembered after they left.
const MAX_GONE: usize = 1000;

/// What is held from a node and told with it: a thousand nodes with ten thousand each would be an answer of gigabytes.
pub const MAX_HELD_SHOWN: usize = 100;

/// Refusals that may wait for who hears of them; one that is slower misses the oldest.
const MAX_TOLD: usize = 1024;

/// What a node holds of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindView {
    /// The kind.
    pub kind: Kind,
    /// Version that it confirmed last, empty when none.
    pub version: Arc<str>,
    /// Resources that it was sent and did not refuse.
    pub resources: usize,
    /// It has not answered yet to what it was sent, or is about to be sent more.
    pub pending: bool,
}

/// A node and what it runs, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Who.
    pub node: NodeInfo,
    /// How it speaks.
    pub dialect: Dialect,
    /// Whose types it speaks.
    pub types: Types,
    /// By how many streams it is connected; none when it left.
    pub streams: usize,
    /// Since when; `None` when it left.
    pub connected_since: Option<SystemTime>,
    /// When it last said something.
    pub last_contact: SystemTime,
    /// What it holds.
    pub kinds: Vec<KindView>,
    /// What it refuses.
    pub nacks: Vec<Nack>,
    /// What is gone and stays there, since what it goes on with in the place of something refused may lead to it.
    pub kept: Vec<(Kind, Arc<str>)>,
    /// What it is not given, since it lacks what that needs.
    pub withheld: Ledger,
}

/// What becomes of instances of services.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "short-lived, and one for each stream at most")]
pub enum InstanceEvent {
    /// An instance has come by this stream, or says something else than before.
    Joined {
        /// Number of the stream; later streams have higher ones.
        stream: u64,
        /// Who, with its instance.
        node: NodeInfo,
    },
    /// A stream by which an instance came has ended, without a word why.
    Left {
        /// Number of the stream.
        stream: u64,
        /// The stream was ended from here, and its node is expected back.
        awaited: bool,
    },
}

/// What is held from nodes, by group.
#[derive(Debug)]
pub struct HeldNow(BTreeMap<GroupName, Vec<HeldView>>);

impl HeldNow {
    /// What a node is not given in its newest version, since another node of its group refused that: the first [`MAX_HELD_SHOWN`]. All of it is shown with
    /// the group.
    pub fn from(&self, view: &NodeView) -> impl Iterator<Item = &HeldView> {
        let of_group = self.0.get(&view.group()).filter(|_| !view.node.is_apart(view.types));
        of_group.into_iter().flatten().filter(|held| held.node != view.node.scope.id).take(MAX_HELD_SHOWN)
    }
}

/// Who is connected. Shared by all streams of a server.
#[derive(Debug, Default)]
pub struct NodeRegistry {
    inner: Mutex<Inner>,
    /// How new versions spread.
    rollouts: Rollouts,
    /// Hears of each refusal.
    told: Told,
    /// What nodes of others say of their load.
    loads: Loads,
    /// Rings when there is something for the follower.
    news: Notify,
}

/// A node has refused a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its id.
    pub node: Arc<str>,
    /// Its group.
    pub group: GroupName,
    /// What it refuses, and why.
    pub nack: Nack,
}

/// Where refusals are told.
#[derive(Debug)]
struct Told(broadcast::Sender<Refusal>);

impl Default for Told {
    fn default() -> Told {
        Told(broadcast::Sender::new(MAX_TOLD))
    }
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    streams: BTreeMap<u64, NodeView>,
    asking: BTreeMap<u64, Asking>,
    company: Company,
    gone: BTreeMap<Arc<str>, NodeView>,
    followers: u64,
    /// Resources that nodes refused, so far.
    refusals: u64,
    outbox: Outbox,
}

impl NodeView {
    /// The nodes among which new versions spread.
    pub fn group(&self) -> GroupName {
        GroupName::of(self.types, &self.node.scope)
    }
}

impl NodeRegistry {
    /// Nobody is connected.
    pub fn new() -> NodeRegistry {
        NodeRegistry::default()
    }

    /// All connected nodes, and those that left, by id. A node with several streams is there once, with what it holds and refuses over all of them.
    pub fn nodes(&self) -> Vec<NodeView> {
        let inner = self.lock();
        let mut nodes = joined::joined(inner.streams.values().chain(inner.gone.values()));
        drop(inner);
        self.add_held(&mut nodes);
        nodes.sort_by(|a, b| a.node.scope.id.cmp(&b.node.scope.id));
        nodes
    }

    /// Who refused what is held refuses it still, although it was given the version before again.
    fn add_held(&self, nodes: &mut [NodeView]) {
        let mut by_node: BTreeMap<(GroupName, Arc<str>), Vec<HeldView>> = BTreeMap::new();
        for GroupView { name, held, .. } in self.rollouts.view() {
            for held in held {
                by_node.entry((name.clone(), held.node.clone())).or_default().push(held);
            }
        }
        for view in nodes.iter_mut().filter(|_| !by_node.is_empty()) {
            let Some(held) = by_node.get(&(view.group(), view.node.scope.id.clone())) else { continue };
            let known: BTreeSet<_> = view.nacks.iter().map(|nack| (nack.kind, nack.name.clone())).collect();
            let unknown = held.iter().filter(|held| !known.contains(&(held.kind, held.name.clone())));
            view.nacks.extend(unknown.cloned().map(Nack::from));
        }
    }

    /// What nodes of others say of their load.
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// What is held from nodes now, read once for all that are looked at.
    pub fn held(&self) -> HeldNow {
        HeldNow(self.rollouts.view().into_iter().map(|group| (group.name, group.held)).collect())
    }

    /// How connected nodes stand to their resources, of those whose id `meant` holds for: each stream is asked when its turn comes. One that does not answer
    /// within `patience` is left out. `None`: there are more than `most` resources.
    pub async fn inspect(&self, meant: impl Fn(&str) -> bool, most: usize, patience: Duration) -> Option<Vec<Inspected>> {
        let mut streams: Vec<(u64, Arc<str>, Asking)> = {
            let inner = self.lock();
            let of = |(id, asking): (&u64, &Asking)| Some((*id, inner.streams.get(id)?.node.scope.id.clone(), asking.clone()));
            inner.asking.iter().filter_map(of).collect()
        };
        // Whoever asks says what this costs, so nobody waits for it.
        streams.retain(|(_, node, _)| meant(node));
        let (mut all, mut count) = (Vec::new(), 0);
        for (id, _, asking) in streams {
            let (ask, answer) = oneshot::channel();
            let asked = async {
                asking.send(ask).await.ok()?;
                answer.await.ok()
            };
            let Ok(Some(resources)) = timeout(patience, asked).await else { continue };
            count += resources.len();
            if count > most {
                return None;
            }
            let Some(node) = self.lock().streams.get(&id).cloned() else { continue };
            let held = self.rollouts.held(&node.group()).into_iter().filter(|held| held.node == node.node.scope.id);
            let resources = inspect::with_held(resources, held.map(Nack::from));
            all.push(Inspected { node, resources });
        }
        Some(all)
    }

    /// Refusals from now on.
    pub fn follow_refusals(&self) -> broadcast::Receiver<Refusal> {
        self.told.0.subscribe()
    }

    /// How new versions spread over groups of nodes, and what is held.
    pub fn rollouts(&self) -> &Rollouts {
        &self.rollouts
    }

    /// Number of open streams.
    pub fn connected(&self) -> usize {
        self.lock().streams.len()
    }

    /// Resources that nodes refused so far, each counted again when it is refused again.
    pub fn refusals(&self) -> u64 {
        self.lock().refusals
    }

    /// What becomes of instances from now on, beginning with those that are connected. There is one follower, the last one who asked.
    pub fn follow_instances(self: &Arc<Self>) -> InstanceFollower {
        let mut inner = self.lock();
        inner.followers += 1;
        let number = inner.followers;
        inner.outbox.begin(Some(number));
        let present: Vec<InstanceEvent> = inner.streams.iter().filter_map(|(id, view)| joined(*id, &view.node)).collect();
        present.into_iter().for_each(|event| inner.outbox.put(event));
        self.news.notify_one();
        InstanceFollower { registry: Arc::clone(self), number }
    }

    /// Notes a new stream; it is there until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, node: NodeInfo, dialect: Dialect, (now, at): (SystemTime, Instant)) -> Presence {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        inner.gone.remove(&node.scope.id);
        let owner = beside::owner(&node.scope);
        joined(id, &node).into_iter().for_each(|event| inner.outbox.put(event));
        self.news.notify_one();
        let view = NodeView {
            node,
            dialect,
            types: Types::Heddle,
            streams: 1,
            connected_since: Some(now),
            last_contact: now,
            kinds: Vec::new(),
            nacks: Vec::new(),
            kept: Vec::new(),
            withheld: Ledger::default(),
        };
        inner.streams.insert(id, view);
        let (asking, asks) = inspect::asks();
        inner.asking.insert(id, asking);
        let beside = inner.company.enter(id, owner.clone());
        let (pace, stood) = (Pace::new(at), None);
        Presence { registry: Arc::clone(self), id, owner, pace, awaited: false, asks, beside, stood }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn joined(stream: u64, node: &NodeInfo) -> Option<InstanceEvent> {
    node.instance.as_ref().map(|_| InstanceEvent::Joined { stream, node: node.clone() })
}

/// A stream's place in the registry.
#[derive(Debug)]
pub(super) struct Presence {
    registry: Arc<NodeRegistry>,
    id: u64,
    owner: Owner,
    pace: Pace,
    awaited: bool,
    asks: Asks,
    beside: Arc<Beside>,
    /// What the other streams of its node were told last.
    stood: Option<(usize, Stands)>,
}

impl Presence {
    /// Notes whose types the node speaks, and where it is written what it is not given.
    pub(super) fn speaks(&mut self, types: Types, withheld: &Ledger) {
        if let Some(view) = self.registry.lock().streams.get_mut(&self.id) {
            view.types = types;
            view.withheld = withheld.clone();
        }
    }

    /// Notes what the node says of its instance now: that it drains, for example. What it is stays what it was when it came.
    pub(super) fn instance(&mut self, instance: Option<Instance>, now: Instant) {
        let Some(mut said) = instance else { return };
        let mut inner = self.registry.lock();
        let Some(view) = inner.streams.get_mut(&self.id) else { return };
        let Some(before) = view.node.instance.as_ref() else { return };
        if said.address.is_empty() {
            said.address = before.address.clone();
            said.is_seen = before.is_seen;
        }
        if said == *before {
            self.pace.late = None;
        } else if self.pace.admits(now) {
            self.pace.late = None;
            view.node.instance = Some(said);
            let event = joined(self.id, &view.node);
            event.into_iter().for_each(|event| inner.outbox.put(event));
            self.registry.news.notify_one();
        } else {
            self.pace.late = Some(said);
        }
    }

    /// When [`Presence::catch_up`] has something to do.
    pub(super) fn late_until(&self) -> Option<Instant> {
        self.pace.due()
    }

    /// Notes what the node has said too fast.
    pub(super) fn catch_up(&mut self, now: Instant) {
        let late = self.pace.late.take();
        self.instance(late, now);
    }

    /// Somebody asks how the node stands to its resources, or another stream of it has something to tell.
    pub(super) async fn asked(&mut self) -> Option<Ask> {
        tokio::select! {
            ask = self.asks.recv() => ask.map(Ask::Resources),
            word = self.beside.look() => Some(Ask::Beside(word)),
        }
    }

    /// The stream is ended from here; whether the node is expected back.
    pub(super) fn expect_back(&mut self, awaited: bool) {
        self.awaited = awaited;
    }

    /// Notes how far a stream is that looks there; `now` when the node said something.
    pub(super) fn update<M: Machine>(&mut self, machine: &mut M, stage: usize, now: Option<SystemTime>) {
        self.note(machine.held(), machine.nacks(), now);
        self.keeps(machine.kept());
        let (taken, stands) = (machine.taken(), machine.stands());
        if !taken.is_empty() {
            self.registry.lock().company.taken(self.id, &self.owner, &taken);
        }
        if self.stood.as_ref().is_none_or(|stood| *stood != (stage, stands.clone())) {
            self.registry.lock().company.note(self.id, &self.owner, (stage, &stands));
            self.stood = Some((stage, stands));
        }
    }

    /// Notes what stays at the node although it is gone.
    fn keeps(&self, kept: Vec<(Kind, Arc<str>)>) {
        if let Some(view) = self.registry.lock().streams.get_mut(&self.id) {
            view.kept = kept;
        }
    }

    /// Notes what the node holds and refuses; `now` when it said something.
    pub(super) fn note(&self, kinds: Vec<KindView>, nacks: Vec<Nack>, now: Option<SystemTime>) {
        let mut inner = self.registry.lock();
        let Some(view) = inner.streams.get_mut(&self.id) else { return };
        let news: Vec<&Nack> = nacks.iter().filter(|nack| !view.nacks.contains(nack)).collect();
        for Nack { kind, name, field, reason, .. } in &news {
            let node = &view.node.scope.id;
            tracing::warn!(%node, kind = kind.as_str(), %name, field, reason, "a node refuses what it was sent");
        }
        for nack in &news {
            let refusal = Refusal { node: view.node.scope.id.clone(), group: view.group(), nack: Nack::clone(nack) };
            // Nobody may be listening.
            let _ = self.registry.told.0.send(refusal);
        }
        let count = u64::try_from(news.len()).unwrap_or(u64::MAX);
        view.kinds = kinds;
        view.nacks = nacks;
        view.last_contact = now.unwrap_or(view.last_contact);
        inner.refusals = inner.refusals.saturating_add(count);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        inner.asking.remove(&self.id);
        inner.company.leave(self.id, &self.owner);
        let Some(mut view) = inner.streams.remove(&self.id) else { return };
        if view.node.instance.is_some() {
            inner.outbox.put(InstanceEvent::Left { stream: self.id, awaited: self.awaited });
            self.registry.news.notify_one();
        }
        if inner.streams.values().any(|other| other.node.scope.id == view.node.scope.id) {
            return;
        }
        (view.connected_since, view.streams) = (None, 0);
        inner.gone.insert(view.node.scope.id.clone(), view);
        if inner.gone.len() > MAX_GONE {
            let oldest = inner.gone.iter().min_by_key(|(_, view)| view.last_contact).map(|(id, _)| id.clone());
            oldest.map(|id| inner.gone.remove(&id));
        }
    }
}
