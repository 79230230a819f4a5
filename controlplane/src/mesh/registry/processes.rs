//! Several processes under one id of a node, as when a supervisor starts the next one before the old one has gone: which of them counts. It knows no time.

use heddle_xds::model::Instance;
use heddle_xds::protocol::NodeInfo;
use heddle_xds::snapshot::NodeScope;

use super::{Held, Registry, Standing};

impl Registry {
    /// Whether what a process says counts less than another process of its node: that one is connected and takes requests, and this one drains or began before
    /// it. What is lost for a moment is not taken away by a drain that began before it either.
    pub(super) fn stands_back(&mut self, stream: u64, node: &NodeInfo) -> bool {
        let Some(said) = &node.instance else { return false };
        // What a process said before, by whichever stream, is not what it says now.
        let is_same = |other: &NodeInfo| {
            let known = other.instance.as_ref().map(|instance| instance.process);
            other.scope.id == node.scope.id && known == Some(said.process)
        };
        self.aside.retain(|known, other| *known != stream && !is_same(other));
        let Some(held) = self.get(&node.scope.id).filter(|held| held.standing != Standing::Draining) else { return false };
        if !are_others(&held.instance, said) || !is_of(held, &node.scope) {
            return false;
        }
        let began_before = said.process < held.instance.process;
        let stands_back = match held.standing {
            // One that was lost a moment ago will be back.
            Standing::Missing => began_before,
            _ if held.until.is_none() => said.draining || began_before,
            _ => said.draining && began_before,
        };
        if stands_back && !said.draining {
            self.aside.insert(stream, node.clone());
        }
        stands_back
    }

    /// Keeps in mind a process that is still connected here, and whose place another one takes.
    pub(super) fn put_aside(&mut self, stream: u64, before: &Held, next: &Held) {
        let takes_requests = before.of.is_none() && before.standing != Standing::Draining;
        if takes_requests && are_others(&before.instance, &next.instance) {
            let scope = NodeScope {
                id: before.node.clone(),
                zone: before.zone.clone(),
                namespace: before.service.namespace().into(),
                service: before.service.service().into(),
                ..NodeScope::default()
            };
            let node = NodeInfo { scope, instance: Some(before.instance.clone()), ..NodeInfo::default() };
            self.aside.insert(stream, node);
        }
    }

    /// Those that stood back take the place of one that is gone or about to go.
    pub(super) fn revive(&mut self, now: u64) {
        let began = |node: &NodeInfo| node.instance.as_ref().map_or(0, |instance| instance.process);
        let mut waiting: Vec<(u64, u64)> = self.aside.iter().map(|(stream, node)| (began(node), *stream)).collect();
        waiting.sort_unstable();
        for (_, stream) in waiting.into_iter().rev() {
            let Some(node) = self.aside.get(&stream).map(|node| &node.scope.id) else { continue };
            let is_free = |held: &Held| matches!(held.standing, Standing::Draining | Standing::Doubted | Standing::Remembered);
            if !self.get(node).is_none_or(is_free) {
                continue;
            }
            let Some(node) = self.aside.remove(&stream) else { continue };
            if let Some(mut held) = self.remove(&node.scope.id) {
                // Whatever comes of its stream is of no interest any more.
                held.stream.take().map(|stream| self.of_stream.remove(&stream));
                self.insert([held].into_iter());
            }
            // It was admitted before; where there is no room any more that is counted.
            let _ = self.joined(stream, &node, now);
        }
    }
}

/// Whether two processes say this. Whoever does not say which it is, as agents of earlier releases, counts as older than any that does.
pub(super) fn are_others(one: &Instance, other: &Instance) -> bool {
    one.process != other.process
}

/// Whether an instance is one of the service of this node.
fn is_of(held: &Held, scope: &NodeScope) -> bool {
    *held.service.namespace() == *scope.namespace && *held.service.service() == *scope.service
}
