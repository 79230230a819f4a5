//! How a node stands to each resource, when somebody asks: the stream is asked, since it alone knows. It knows no protocol.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::NodeView;
use super::beside::Word;
use crate::model::Kind;
use crate::server::{Machine, Nack};
use crate::snapshot::View;

/// Questions that may wait for a stream.
const MAX_ASKS: usize = 2;

/// How a client stands to a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has confirmed this version.
    Synced,
    /// It was sent this version and has not answered.
    Stale,
    /// It asked for it, and there is none.
    NotSent,
    /// It refuses this version.
    Refused(Nack),
}

/// A resource as a client has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceView {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
    /// The version that is meant, empty where there is none.
    pub version: Arc<str>,
    /// How the client stands to it.
    pub standing: Standing,
    /// What it was sent, where that is still the present version. Key material is never shown.
    pub body: Option<Bytes>,
}

impl ResourceView {
    pub(in crate::server) fn new(kind: Kind, name: &Arc<str>, version: Option<&Arc<str>>, standing: Standing) -> ResourceView {
        let version = version.map_or_else(Arc::default, Arc::clone);
        ResourceView { kind, name: name.clone(), version, standing, body: None }
    }

    fn with_body(mut self, view: &View) -> ResourceView {
        let found = view.find(self.kind, &self.name).filter(|found| found.version == self.version && self.kind != Kind::Secret);
        self.body = found.map(|found| found.body.clone());
        self
    }
}

/// One stream of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Who.
    pub node: NodeView,
    /// All resources that it asked for or was sent.
    pub resources: Vec<ResourceView>,
}

/// Who refused what is held refuses it still, although it was given the version before again.
pub(super) fn with_held(mut resources: Vec<ResourceView>, held: impl Iterator<Item = Nack>) -> Vec<ResourceView> {
    for nack in held {
        let of = ResourceView::new(nack.kind, &nack.name, Some(&nack.version), Standing::Refused(nack.clone()));
        resources.retain(|one| (one.kind, &one.name) != (nack.kind, &nack.name));
        resources.push(of);
    }
    resources
}

/// Asks a stream.
pub(super) type Asking = mpsc::Sender<oneshot::Sender<Vec<ResourceView>>>;
/// What a stream is asked.
pub(super) type Asks = mpsc::Receiver<oneshot::Sender<Vec<ResourceView>>>;

/// A way to ask a stream.
pub(super) fn asks() -> (Asking, Asks) {
    mpsc::channel(MAX_ASKS)
}

/// What comes to a stream from others of this process.
pub(in crate::server) enum Ask {
    /// How its client stands to its resources.
    Resources(oneshot::Sender<Vec<ResourceView>>),
    /// What other streams of its node have to tell it.
    Beside(Word),
}

/// Does what a stream is asked. Says whether it is behind other streams of its node.
pub(in crate::server) fn answer<M: Machine>(machine: &mut M, view: &View, ask: Ask) -> bool {
    match ask {
        Ask::Resources(ask) => {
            let resources = machine.resources().into_iter().map(|one| one.with_body(view)).collect();
            // Who asked may have gone.
            let _ = ask.send(resources);
            false
        }
        Ask::Beside(Word { clusters, stands }) => {
            machine.warm(clusters.into_iter().collect());
            let is_behind = stands.as_ref().is_some_and(|stands| stands.position() > machine.position());
            stands.into_iter().for_each(|stands| machine.beside(*stands));
            is_behind
        }
    }
}
