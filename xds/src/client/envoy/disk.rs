//! What comes from disk: of a listener of which a part is refused nothing is used, and each stays until somebody else can take its address. It knows no stream.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::World;
use super::kept;
use crate::client::shell::{End, Session};
use crate::client::{Held, Holdings, Origin, SetResource, TypedUpdate};
use crate::codec::{InvalidResource, decode_body};
use crate::model::{Kind, Resource};

/// Listeners from disk that nobody has told of since, by their addresses.
#[derive(Default)]
pub(super) struct Stood {
    open: BTreeMap<SocketAddr, Arc<str>>,
    /// Those that have given their addresses to others, for the case that these turn out to be of no use.
    away: BTreeMap<SocketAddr, (Arc<str>, Held)>,
}

/// Hands what was held at the last run to the consumer, without what `sift` drops of it; what is in use. Listeners of which another release wrote something
/// that this one cannot use stay closed until a control plane tells of them. They do not go back to disk either: the next start would not see what they lack.
pub(super) async fn start(session: &mut Session, sift: impl FnOnce(&mut Holdings)) -> Result<Holdings, End> {
    let Some(mut held) = session.load().await else { return Ok(Holdings::default()) };
    sift(&mut held);
    let mut updates = held.updates();
    let unread: Vec<InvalidResource> = updates.iter().flat_map(|update| update.rejected.iter().cloned()).collect();
    for fault in &unread {
        tracing::warn!(%fault, "what was kept on disk cannot be read and is left out");
    }
    let (closed, gone) = close(&unread, &mut held);
    let stays = |kind: Kind, name: &Arc<str>| !gone.contains(&(kind, name.clone()));
    updates.iter_mut().for_each(|update| update.set.retain(|set| stays(update.kind, &set.name)));
    updates.retain(|update| !(update.set.is_empty() && update.rejected.is_empty()));
    let mut is_whole = !closed;
    if !updates.is_empty() {
        let refused = session.offer(Origin::LastGood, updates).await?;
        if !refused.is_empty() {
            let (closed, gone) = close(&refused, &mut held);
            is_whole &= !closed;
            session.release(Origin::LastGood, removals(gone)).await?;
        }
    }
    if is_whole {
        session.loaded();
    }
    Ok(held)
}

/// Takes out what cannot be used, and all of the listeners that it is a part of; whether there are any, and what went with them.
fn close(faults: &[InvalidResource], held: &mut Holdings) -> (bool, BTreeSet<(Kind, Arc<str>)>) {
    let lacking = kept::lacking(faults, held);
    for (listener, fault) in &lacking {
        tracing::error!(%listener, kind = fault.kind.as_str(), name = %fault.name, field = %fault.field, reason = %fault.reason, "a listener from disk stays closed until a control plane tells of it: a part of it cannot be used, and requests would go elsewhere");
    }
    held.forget(faults);
    let listeners: BTreeSet<Arc<str>> = lacking.into_keys().collect();
    let gone = kept::take_out(&listeners, held);
    (!listeners.is_empty(), gone)
}

/// That these are gone.
fn removals(gone: BTreeSet<(Kind, Arc<str>)>) -> Vec<TypedUpdate> {
    let mut updates: BTreeMap<Kind, TypedUpdate> = BTreeMap::new();
    for (kind, name) in gone {
        updates.entry(kind).or_insert_with(|| empty(kind)).removed.push(name);
    }
    updates.into_values().collect()
}

fn empty(kind: Kind) -> TypedUpdate {
    TypedUpdate { kind, set: Vec::new(), removed: Vec::new(), rejected: Vec::new() }
}

fn listener_of(held: &Held) -> Option<Resource> {
    decode_body(Kind::Listener, &held.body).ok()
}

impl Stood {
    /// Those that are on disk. A port that the system chooses is nobody else's.
    pub(super) fn of(held: &Holdings) -> Stood {
        let at = held.list(Kind::Listener).filter_map(|(name, held)| match listener_of(held)? {
            Resource::Listener(listener) => Some((listener.address, name.clone())),
            _ => None,
        });
        Stood { open: at.filter(|(address, _)| address.port() != 0).collect(), away: BTreeMap::new() }
    }

    /// Only these are still of interest.
    pub(super) fn retain(&mut self, names: &BTreeSet<Arc<str>>) {
        self.open.retain(|_, name| names.contains(name));
        self.away.retain(|_, (name, _)| names.contains(name));
    }

    /// A listener that was on disk gives its address to one that is told of: it may be gone, and connections would go to either. It has it again where the
    /// other one is not live after all; what is to be on disk again.
    pub(super) fn make_room(
        &mut self,
        updates: &mut Vec<TypedUpdate>,
        held: &Holdings,
        world: &World,
    ) -> Vec<(Kind, Arc<str>, Held)> {
        for update in updates.iter_mut().filter(|update| update.kind == Kind::Listener) {
            let is_told = |name: &Arc<str>| update.set.iter().any(|set| set.name == *name);
            self.open.retain(|_, name| !is_told(name));
            self.away.retain(|_, (name, _)| !is_told(name));
            for set in &update.set {
                if let Resource::Listener(listener) = &set.resource
                    && let Some(name) = self.open.remove(&listener.address)
                {
                    let before = held.get(Kind::Listener, &name).cloned();
                    self.away.extend(before.map(|before| (listener.address, (name.clone(), before))));
                    update.removed.push(name);
                }
            }
        }
        let free: Vec<SocketAddr> = self.away.keys().filter(|address| !world.is_live_at(**address)).copied().collect();
        free.into_iter().filter_map(|address| self.come_back(address, updates)).collect()
    }

    fn come_back(&mut self, address: SocketAddr, updates: &mut Vec<TypedUpdate>) -> Option<(Kind, Arc<str>, Held)> {
        let (name, before) = self.away.remove(&address)?;
        let set = SetResource { name: name.clone(), version: before.version.clone(), resource: listener_of(&before)? };
        tracing::warn!(listener = %name, %address, "a listener from disk stays where it was: the one that came in its place cannot be used");
        match updates.iter_mut().find(|update| update.kind == Kind::Listener) {
            Some(update) => update.set.push(set),
            None => updates.push(TypedUpdate { set: vec![set], ..empty(Kind::Listener) }),
        }
        self.open.insert(address, name.clone());
        Some((Kind::Listener, name, before))
    }
}
