//! What becomes of a response when the consumer has judged it: what it cannot use goes back to what it was. It reads no resource.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::{AT_LAST, Follower, Open, Says};
use crate::client::TypedUpdate;
use crate::client::envoy::world::{Blame, Owner};
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
        self.undo(&mut open, rejected, now);
        for (name, (_, version)) in open.taken {
            self.held.insert((open.kind, name), version);
        }
        let undone = if rejected.is_empty() { Vec::new() } else { self.step(now) };
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

    /// Undoes what came with a response, and withdraws listeners whose faults came with an earlier one, which is answered already.
    fn undo(&mut self, open: &mut Open, rejected: &[InvalidResource], now: Instant) {
        let mut back: BTreeSet<Owner> = BTreeSet::new();
        let mut late: BTreeMap<Owner, &InvalidResource> = BTreeMap::new();
        for Blame { fault, teller, parts } in self.world.blame(rejected) {
            let is_here =
                |(kind, name): &&Owner| *kind == open.kind && (open.taken.contains_key(name) || open.undone.contains(name));
            // A table that came earlier may be refused for what a listener of this response does with it.
            let Some(owner) = parts.iter().chain([&teller]).find(is_here) else {
                if closes(fault) {
                    late.entry(teller).or_insert(fault);
                }
                continue;
            };
            // It is undone as a whole with the first fault.
            if let Some((before, _)) = open.taken.remove(&owner.1) {
                self.world.restore(owner, before, now);
                open.undone.insert(owner.1.clone());
                open.refused.push((owner.1.clone(), told_of(open.kind, fault)));
                self.oust(open, now);
            }
            // Who opened with it was something else until then, and is that again until the next one comes.
            if teller.0 == EnvoyKind::Listener && teller != *owner && self.world.has_replaced(&teller.1) {
                self.world.bar(&teller.1);
                back.insert(teller);
            }
        }
        late.retain(|teller, _| !back.contains(teller));
        self.bar(&late);
    }

    /// Takes the consumer's verdict over what nobody is answered for any more, such as what the bootstrap holds; what changes by that.
    pub fn withdraw(&mut self, rejected: &[InvalidResource], now: Instant) -> Vec<TypedUpdate> {
        if rejected.is_empty() {
            return Vec::new();
        }
        let late = self.world.blame(rejected).into_iter().filter(|blame| closes(blame.fault)).rev();
        let late = late.map(|blame| (blame.teller, blame.fault)).collect();
        self.bar(&late);
        self.step(now)
    }

    /// What changes by what was undone. Who waited for an address that was given up by that comes in: nobody tells of it again.
    fn step(&mut self, now: Instant) -> Vec<TypedUpdate> {
        while let Some((name, piece, version)) = self.next_parked() {
            match self.world.set(piece, now) {
                Ok(_) => {
                    tracing::info!(listener = %name, "{AT_LAST}");
                    self.unusable.remove(&name);
                    self.held.insert((EnvoyKind::Listener, name), version);
                }
                Err(fault) => tracing::error!(%name, field = %fault.field, reason = %fault.reason, "a listener cannot be used"),
            }
        }
        self.world.step_on(now)
    }

    /// Takes listeners out of use that are refused, or of which a route is. What they share with others stays.
    fn bar(&mut self, late: &BTreeMap<Owner, &InvalidResource>) {
        for (owner, fault) in late.iter().filter(|((kind, _), _)| *kind == EnvoyKind::Listener) {
            let name = &owner.1;
            let what = if fault.kind == Kind::Route { "a route cannot be used: its" } else { "it cannot be used: the" };
            tracing::error!(listener = %name, kind = fault.kind.as_str(), name = %fault.name, field = %fault.field, reason = %fault.reason, "{what} listener is what it was before, or closes, until it is told anew or what it names is");
            self.world.bar(name);
            if !self.fixed.contains(owner) {
                // No version of it is current, so that it is told again as soon as anybody asks.
                self.held.insert(owner.clone(), "".into());
            }
        }
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
            open.undone.insert(name.clone());
            open.refused.push((name, fault));
        }
    }
}

/// Whether a listener cannot stand without this: it may be what keeps out. Whatever else is refused late is left out alone.
fn closes(fault: &InvalidResource) -> bool {
    matches!(fault.kind, Kind::Listener | Kind::Route)
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
