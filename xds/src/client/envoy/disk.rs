//! The start from disk as a whole: of a listener of which a part is refused nothing is used, as requests would go to the next route. It knows no stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::kept;
use crate::client::shell::{End, Session};
use crate::client::{Holdings, Origin, TypedUpdate};
use crate::codec::InvalidResource;
use crate::model::Kind;

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
        let empty = || TypedUpdate { kind, set: Vec::new(), removed: Vec::new(), rejected: Vec::new() };
        updates.entry(kind).or_insert_with(empty).removed.push(name);
    }
    updates.into_values().collect()
}
