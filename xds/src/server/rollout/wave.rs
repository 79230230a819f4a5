//! What is on trial and who judges it, as values: who is a member, who of them is a canary, what they have said. It knows no snapshot and no task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heddle_node::clock::Instant;
use tokio::sync::Notify;

use super::HeldView;
use crate::model::Kind;
use crate::server::Nack;
use crate::server::stage::Called;
use crate::snapshot::NodeScope;

/// A resource by kind and name.
pub(super) type Key = (Kind, Arc<str>);

/// Nodes that stand for each other: those beside the same service, or all gateways.
type Cell = (Arc<str>, Arc<str>);

/// A stream of a node.
#[derive(Debug)]
pub(super) struct Member {
    node: Arc<str>,
    cell: Cell,
    /// It is shown the trial. It stays so until it leaves.
    pub(super) canary: bool,
    /// It did not answer in time, and judges nothing until it has.
    slow: bool,
    /// The number of its seat, of a sidecar.
    pub(super) seat: Option<u64>,
    /// Up to where it has seen the trial, and whether it has answered to all of that.
    position: u64,
    answered: bool,
    /// Rings when it becomes a canary.
    pub(super) turn: Arc<Notify>,
}

/// All streams of a group, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Members {
    next: u64,
    all: BTreeMap<u64, Member>,
    by_cell: BTreeMap<Cell, BTreeSet<u64>>,
    by_node: BTreeMap<Arc<str>, BTreeSet<u64>>,
}

impl Members {
    /// A stream has come. The first of its cell is the canary, with all its other streams.
    pub(super) fn enter(&mut self, scope: &NodeScope) -> u64 {
        let number = self.next;
        self.next += 1;
        let cell = (scope.namespace.clone(), scope.service.clone());
        let known = self.by_node.get(&scope.id).and_then(|streams| self.all.get(streams.first()?)).is_some_and(|one| one.canary);
        let member = Member {
            node: scope.id.clone(),
            cell: cell.clone(),
            canary: known,
            slow: false,
            seat: None,
            position: 0,
            answered: false,
            turn: Arc::default(),
        };
        self.all.insert(number, member);
        self.by_cell.entry(cell.clone()).or_default().insert(number);
        self.by_node.entry(scope.id.clone()).or_default().insert(number);
        self.elect(&cell);
        number
    }

    /// A stream has ended.
    pub(super) fn leave(&mut self, number: u64) {
        let Some(member) = self.all.remove(&number) else { return };
        if let Some(streams) = self.by_node.get_mut(&member.node) {
            streams.remove(&number);
            if streams.is_empty() {
                self.by_node.remove(&member.node);
            }
        }
        if let Some(cell) = self.by_cell.get_mut(&member.cell) {
            cell.remove(&number);
            if cell.is_empty() {
                self.by_cell.remove(&member.cell);
            }
        }
        self.elect(&member.cell);
    }

    /// Sees to it that a cell has a canary that answers: the one that is connected longest of those that do.
    fn elect(&mut self, cell: &Cell) {
        let Some(numbers) = self.by_cell.get(cell) else { return };
        let members = || numbers.iter().filter_map(|number| self.all.get(number)).filter(|member| !member.slow);
        if members().any(|member| member.canary) {
            return;
        }
        let Some(node) = members().next().map(|member| member.node.clone()) else { return };
        for number in self.by_node.get(&node).into_iter().flatten() {
            if let Some(member) = self.all.get_mut(number) {
                member.canary = true;
                member.turn.notify_one();
            }
        }
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Member> {
        self.all.get_mut(&number)
    }

    /// A canary tells how far it is.
    pub(super) fn note(&mut self, number: u64, position: u64, answered: bool) {
        if let Some(member) = self.all.get_mut(&number) {
            (member.position, member.answered) = (position, answered);
            member.slow &= !answered;
        }
    }

    pub(super) fn node_of(&self, number: u64) -> Option<&Arc<str>> {
        self.all.get(&number).map(|member| &member.node)
    }

    /// Number of nodes.
    pub(super) fn nodes(&self) -> usize {
        self.by_node.len()
    }

    /// Ids of the canaries.
    pub(super) fn canaries(&self) -> BTreeSet<Arc<str>> {
        self.all.values().filter(|member| member.canary).map(|member| member.node.clone()).collect()
    }

    /// Who is to judge what was shown: of the canaries that were called and answer, the one that is connected longest.
    pub(super) fn judge(&self, called: &Called) -> Option<Arc<str>> {
        let mut able = self.all.values().filter(|member| member.canary && !member.slow);
        able.find(|member| called.includes(&member.node, member.seat)).map(|member| member.node.clone())
    }

    /// Whether a canary has answered to everything up to a position. `None`: it is gone.
    fn is_through(&self, node: &str, position: u64) -> Option<bool> {
        let streams = self.by_node.get(node)?;
        let through = |member: &Member| member.answered && member.position >= position;
        Some(streams.iter().filter_map(|number| self.all.get(number)).filter(|member| member.canary).all(through))
    }

    /// A canary did not answer in time: somebody else is to judge until it does.
    pub(super) fn too_slow(&mut self, node: &str) {
        let streams = self.by_node.get(node).cloned().unwrap_or_default();
        let mut cells = BTreeSet::new();
        for number in streams {
            if let Some(member) = self.all.get_mut(&number).filter(|member| member.canary) {
                member.slow = true;
                cells.insert(member.cell.clone());
            }
        }
        cells.iter().for_each(|cell| self.elect(cell));
    }
}

/// What is on trial.
#[derive(Debug)]
pub(super) struct Wave {
    /// What changed, with its version; without one where it is gone.
    pub(super) tried: BTreeMap<Key, Option<Arc<str>>>,
    /// Position of the trial that has all of it.
    pub(super) position: u64,
    /// Since when.
    pub(super) since: Instant,
    /// Who judges.
    pub(super) judge: Arc<str>,
    /// Whom it concerns.
    pub(super) called: Called,
}

impl Wave {
    /// Whether its judge has answered; another one takes the place of a judge that is gone. `None`: nobody is left to judge.
    pub(super) fn is_judged(&mut self, members: &Members, now: Instant) -> Option<bool> {
        if let Some(through) = members.is_through(&self.judge, self.position) {
            return Some(through);
        }
        self.judge = members.judge(&self.called)?;
        self.since = now;
        members.is_through(&self.judge, self.position)
    }

    /// What of it a node refuses; endpoints are never held, and nothing where the node does not say which resource in which version it means.
    pub(super) fn refused(&self, node: &Arc<str>, nacks: &[Nack]) -> Vec<HeldView> {
        let mut held = Vec::new();
        for nack in nacks.iter().filter(|nack| nack.kind != Kind::Endpoints) {
            let found = self.tried.get_key_value(&(nack.kind, nack.name.clone()));
            let meant = found.and_then(|((_, name), version)| Some((name, version.as_ref()?)));
            held.extend(meant.filter(|(_, version)| **version == nack.version).map(|(name, version)| HeldView {
                kind: nack.kind,
                name: name.clone(),
                version: version.clone(),
                node: node.clone(),
                field: nack.field.clone(),
                reason: nack.reason.clone(),
                time: nack.time,
                parts: nack.parts.clone(),
            }));
        }
        held
    }
}
