//! What a client refuses of one kind, until it accepts something newer. It knows no stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::Kind;
use crate::protocol::parse_nack;

/// Refused resources that are remembered by name, per kind and stream.
const MAX_REFUSED: usize = 1000;

/// A resource that a node refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Its kind.
    pub kind: Kind,
    /// Its name, empty when the node did not say it.
    pub name: Arc<str>,
    /// Dotted path inside it, empty when the node did not say it.
    pub field: String,
    /// Why, in the node's words.
    pub reason: String,
    /// When the node said so.
    pub time: SystemTime,
}

/// What a client refuses of one kind.
#[derive(Debug, Default)]
pub(super) struct Refused {
    by_name: BTreeMap<Arc<str>, Nack>,
}

impl Refused {
    /// The client accepted a response with these names.
    pub(super) fn accept<'a>(&mut self, names: impl Iterator<Item = &'a Arc<str>>) {
        if !self.by_name.is_empty() {
            names.for_each(|name| drop(self.by_name.remove(name)));
            self.by_name.remove("");
        }
    }

    /// The client refused a response with these names: those that its text does not name are good.
    pub(super) fn refuse<'a>(&mut self, kind: Kind, names: impl Iterator<Item = &'a Arc<str>>, text: &str, now: SystemTime) {
        self.accept(names);
        for line in parse_nack(kind, text) {
            let name: Arc<str> = line.name.into();
            if self.by_name.len() < MAX_REFUSED || self.by_name.contains_key(&name) {
                let nack = Nack { kind, name: name.clone(), field: line.field, reason: line.reason, time: now };
                self.by_name.insert(name, nack);
            }
        }
    }

    /// The client has a new whole, so that nothing that it refused before matters any more.
    pub(super) fn clear(&mut self) {
        self.by_name.clear();
    }

    /// A resource is no longer the client's business.
    pub(super) fn forget(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// All of it.
    pub(super) fn nacks(&self) -> impl Iterator<Item = &Nack> {
        self.by_name.values()
    }

    /// Number of resources refused by name.
    pub(super) fn named(&self) -> usize {
        self.by_name.keys().filter(|name| !name.is_empty()).count()
    }
}
