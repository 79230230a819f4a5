//! A snapshot as it is at one position, for as long as somebody holds it. It never changes and knows nobody who reads it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{NodeScope, SnapshotSource, Versioned};
use crate::model::Kind;
use crate::tree::Tree;

/// The resources of one kind, by name.
pub type Kindred = Tree<Arc<str>, Arc<Versioned>>;

/// All resources at one position. Copies, and views of neighbouring positions, share what they have in common.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub(super) position: u64,
    pub(super) kinds: [Kindred; Kind::ALL.len()],
    /// What is not told: nodes keep what they have of it.
    pub(super) untold: BTreeSet<(Kind, Arc<str>)>,
}

impl View {
    /// One resource, whoever may see it.
    pub fn find(&self, kind: Kind, name: &str) -> Option<&Arc<Versioned>> {
        self.kinds[kind.index()].get(name)
    }
}

impl SnapshotSource for View {
    fn get(&self, kind: Kind, name: &str, scope: &NodeScope) -> Option<Arc<Versioned>> {
        self.find(kind, name).filter(|versioned| scope.sees(&versioned.resource)).cloned()
    }

    fn all(&self, kind: Kind) -> (u64, Kindred) {
        (self.position, self.kinds[kind.index()].clone())
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn is_untold(&self, kind: Kind, name: &str) -> bool {
        !self.untold.is_empty() && self.untold.contains(&(kind, name.into()))
    }

    fn leaves(&self, kind: Kind) -> bool {
        self.untold.iter().any(|(of, _)| *of == kind)
    }
}
