//! Who is connected, what they hold and what they refuse. It knows no protocol; the admin service reads it.

mod instances;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use heddle_node::clock::Instant;
use tokio::sync::Notify;

use self::instances::{Outbox, Pace};
use super::Nack;
use crate::dialect::envoy::encode::Ledger;
use crate::model::{Instance, Kind};
use crate::protocol::{Dialect, NodeInfo, Types};

pub use self::instances::InstanceFollower;

/// Nodes that are remembered after they left.
const MAX_GONE: usize = 1000;

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
    /// Since when; `None` when it left.
    pub connected_since: Option<SystemTime>,
    /// When it last said something.
    pub last_contact: SystemTime,
    /// What it holds.
    pub kinds: Vec<KindView>,
    /// What it refuses.
    pub nacks: Vec<Nack>,
}

/// What becomes of instances of services.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Who is connected. Shared by all streams of a server.
#[derive(Debug, Default)]
pub struct NodeRegistry {
    inner: Mutex<Inner>,
    /// What nodes are not given, by the types that they speak.
    withheld: [Ledger; Types::COUNT],
    /// Rings when there is something for the follower.
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    streams: BTreeMap<u64, NodeView>,
    gone: BTreeMap<Arc<str>, NodeView>,
    followers: u64,
    /// Resources that nodes refused, so far.
    refusals: u64,
    outbox: Outbox,
}

impl NodeRegistry {
    /// Nobody is connected.
    pub fn new() -> NodeRegistry {
        NodeRegistry::default()
    }

    /// All connected nodes, and those that left, by id. A node with two streams is there twice.
    pub fn nodes(&self) -> Vec<NodeView> {
        let inner = self.lock();
        let mut nodes: Vec<NodeView> = inner.streams.values().chain(inner.gone.values()).cloned().collect();
        nodes.sort_by(|a, b| a.node.scope.id.cmp(&b.node.scope.id));
        nodes
    }

    /// What nodes that speak these types are not given, since they lack what it needs; nothing as long as no such node has connected.
    pub fn withheld(&self, types: Types) -> &Ledger {
        &self.withheld[types as usize]
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
        joined(id, &node).into_iter().for_each(|event| inner.outbox.put(event));
        self.news.notify_one();
        let view = NodeView {
            node,
            dialect,
            types: Types::Heddle,
            connected_since: Some(now),
            last_contact: now,
            kinds: Vec::new(),
            nacks: Vec::new(),
        };
        inner.streams.insert(id, view);
        Presence { registry: Arc::clone(self), id, pace: Pace::new(at), awaited: false }
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
    pace: Pace,
    awaited: bool,
}

impl Presence {
    /// Notes whose types the node speaks.
    pub(super) fn speaks(&mut self, types: Types) {
        if let Some(view) = self.registry.lock().streams.get_mut(&self.id) {
            view.types = types;
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

    /// The stream is ended from here, and the node is expected back.
    pub(super) fn expect_back(&mut self) {
        self.awaited = true;
    }

    /// Notes what the node holds and refuses; `now` when it said something.
    pub(super) fn update(&self, kinds: Vec<KindView>, nacks: Vec<Nack>, now: Option<SystemTime>) {
        let mut inner = self.registry.lock();
        let Some(view) = inner.streams.get_mut(&self.id) else { return };
        let news: Vec<&Nack> = nacks.iter().filter(|nack| !view.nacks.contains(nack)).collect();
        for Nack { kind, name, field, reason, .. } in &news {
            let node = &view.node.scope.id;
            tracing::warn!(%node, kind = kind.as_str(), %name, field, reason, "a node refuses what it was sent");
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
        let Some(mut view) = inner.streams.remove(&self.id) else { return };
        if view.node.instance.is_some() {
            inner.outbox.put(InstanceEvent::Left { stream: self.id, awaited: self.awaited });
            self.registry.news.notify_one();
        }
        if inner.streams.values().any(|other| other.node.scope.id == view.node.scope.id) {
            return;
        }
        view.connected_since = None;
        inner.gone.insert(view.node.scope.id.clone(), view);
        if inner.gone.len() > MAX_GONE {
            let oldest = inner.gone.iter().min_by_key(|(_, view)| view.last_contact).map(|(id, _)| id.clone());
            oldest.map(|id| inner.gone.remove(&id));
        }
    }
}
