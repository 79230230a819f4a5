//! What becomes of a response when the consumer has judged it: what it cannot use goes back to what it was. It reads no resource.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Follower, Open, Says};
use crate::client::TypedUpdate;
use crate::client::envoy::world::Owner;
use crate::codec::InvalidResource;
use crate::dialect::envoy::decode::DecodeFault as Fault;
use crate::dialect::envoy::kind::EnvoyKind;
use crate::model::Kind;
use crate::protocol::Dialect;

/// Lines of a NACK, one for each bad resource.
const MAX_NACK_LINES: usize = 100;
/// Characters of one line.
const MAX_NACK_LINE: usize = 1000;

impl Follower {
    /// Takes the consumer's verdict over a response: what it cannot use goes back to what it was. Says ACK, or a NACK that names each bad resource.
    pub fn settle(&mut self, mut open: Open, rejected: &[InvalidResource], now: Instant) -> (Says, Vec<TypedUpdate>) {
        if open.kind == EnvoyKind::Listener {
            let never = |name: &&Arc<str>| !name.is_empty() && !self.world.holds(EnvoyKind::Listener, name);
            self.unusable.extend(open.refused.iter().map(|(name, _)| name).filter(never).cloned());
            self.unusable.retain(|name| !open.taken.contains_key(name));
        }
        let mut earlier = Vec::new();
        for fault in rejected {
            // A table that came earlier may be refused for what a listener of this response does with it.
            let is_here = |(kind, name): &Owner| {
                *kind == open.kind && (open.taken.contains_key(name) || open.refused.iter().any(|(known, _)| known == name))
            };
            let Some(blamed) = self.world.blame(fault) else { continue };
            match [Some(blamed.clone()), self.world.teller(fault)].into_iter().flatten().find(is_here) {
                Some((kind, name)) => {
                    // It is undone as a whole with the first fault.
                    let Some((before, _)) = open.taken.remove(&name) else { continue };
                    self.world.restore(&(kind, name.clone()), before, now);
                    open.refused.push((name, told_of(kind, fault)));
                    self.oust(&mut open, now);
                }
                // It came with an earlier response, which is answered already.
                None => earlier.push((blamed, fault)),
            }
        }
        for (owner, fault) in earlier {
            self.take_away(&owner, fault, now);
        }
        let undone = if rejected.is_empty() { Vec::new() } else { self.world.step(now) };
        for (name, (_, version)) in open.taken {
            self.held.insert((open.kind, name), version);
        }
        self.answered.insert(open.kind);
        self.nonces.insert(open.kind, open.nonce.clone());
        let error = (!open.refused.is_empty()).then(|| nack(open.kind, &open.refused));
        if error.is_none() {
            self.versions.insert(open.kind, open.version);
        }
        let mut says = Says { kind: Some(open.kind), nonce: open.nonce, error, ..Says::default() };
        if self.dialect == Dialect::Sotw {
            says.names = self.names.get(&open.kind).into_iter().flatten().cloned().collect();
            says.version = self.versions.get(&open.kind).cloned().unwrap_or_default();
        }
        (says, undone)
    }

    /// Takes the consumer's verdict over what nobody is answered for any more, such as what the bootstrap holds; what changes by that.
    pub fn withdraw(&mut self, rejected: &[InvalidResource], now: Instant) -> Vec<TypedUpdate> {
        if rejected.is_empty() {
            return Vec::new();
        }
        let blamed: Vec<_> = rejected.iter().filter_map(|fault| Some((self.world.blame(fault)?, fault))).collect();
        for (owner, fault) in blamed {
            self.take_away(&owner, fault, now);
        }
        self.world.step(now)
    }

    /// Takes a listener or a table away of which a route is refused: requests of that route would go to whichever comes next, and it may be one that keeps out.
    fn take_away(&mut self, owner: &Owner, fault: &InvalidResource, now: Instant) {
        if fault.kind != Kind::Route || !self.world.holds(owner.0, &owner.1) {
            return;
        }
        let (kind, name) = owner;
        tracing::error!(%kind, %name, route = %fault.name, field = %fault.field, reason = %fault.reason, "a route cannot be used, and all beside it are withdrawn");
        self.held.remove(owner);
        self.world.restore(owner, None, now);
        self.broken |= self.fixed.contains(owner);
    }

    /// A listener that stays where it was takes its address back from whoever came there with the same response.
    fn oust(&mut self, open: &mut Open, now: Instant) {
        if open.kind != EnvoyKind::Listener {
            return;
        }
        while let Some((name, (piece, fault))) =
            open.taken.keys().find_map(|name| Some((name.clone(), self.world.contested(name)?)))
        {
            let Some((before, version)) = open.taken.remove(&name) else { break };
            self.world.restore(&(open.kind, name.clone()), before, now);
            self.parked.insert(name.clone(), (piece, version));
            open.refused.push((name, fault));
        }
    }
}

/// A fault of one of our resources as one of the resource of Envoy that it comes from.
fn told_of(kind: EnvoyKind, fault: &InvalidResource) -> Fault {
    if kind == EnvoyKind::Extension {
        return Fault::new("typed_config", format!("as {}: {}", fault.field, fault.reason));
    }
    Fault::new(format!("{} {}: {}", fault.kind.as_str(), fault.name, fault.field), fault.reason.clone())
}

/// One line for each bad resource: `Cluster NAME: FIELD: REASON`.
fn nack(kind: EnvoyKind, refused: &[(Arc<str>, Fault)]) -> String {
    let line = |(name, fault): &(Arc<str>, Fault)| -> String {
        let place = if fault.field.is_empty() { String::new() } else { format!("{}: ", fault.field) };
        let line = format!("{kind} {name}: {place}{}", fault.reason);
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_NACK_LINE).collect()
    };
    let mut lines: Vec<String> = refused.iter().take(MAX_NACK_LINES).map(line).collect();
    if refused.len() > MAX_NACK_LINES {
        lines.push(format!("and {} more", refused.len() - MAX_NACK_LINES));
    }
    lines.join("\n")
}
