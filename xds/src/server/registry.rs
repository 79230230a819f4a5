//! Who is connected, what they hold and what they refuse. It knows no protocol; the admin service reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::Nack;
use crate::model::Kind;
use crate::protocol::{Dialect, NodeInfo};

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
    /// Since when; `None` when it left.
    pub connected_since: Option<SystemTime>,
    /// When it last said something.
    pub last_contact: SystemTime,
    /// What it holds.
    pub kinds: Vec<KindView>,
    /// What it refuses.
    pub nacks: Vec<Nack>,
}

/// Who is connected. Shared by all streams of a server.
#[derive(Debug, Default)]
pub struct NodeRegistry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    streams: BTreeMap<u64, NodeView>,
    gone: BTreeMap<Arc<str>, NodeView>,
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

    /// Number of open streams.
    pub fn connected(&self) -> usize {
        self.lock().streams.len()
    }

    /// Notes a new stream; it is there until what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, node: NodeInfo, dialect: Dialect, now: SystemTime) -> Presence {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        inner.gone.remove(&node.scope.id);
        let view =
            NodeView { node, dialect, connected_since: Some(now), last_contact: now, kinds: Vec::new(), nacks: Vec::new() };
        inner.streams.insert(id, view);
        Presence { registry: Arc::clone(self), id }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place in the registry.
#[derive(Debug)]
pub(super) struct Presence {
    registry: Arc<NodeRegistry>,
    id: u64,
}

impl Presence {
    /// Notes what the node holds and refuses; `now` when it said something.
    pub(super) fn update(&self, kinds: Vec<KindView>, nacks: Vec<Nack>, now: Option<SystemTime>) {
        if let Some(view) = self.registry.lock().streams.get_mut(&self.id) {
            view.kinds = kinds;
            view.nacks = nacks;
            view.last_contact = now.unwrap_or(view.last_contact);
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        let Some(mut view) = inner.streams.remove(&self.id) else { return };
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
