//! What is kept of a request while the upstream is asked for it. It decides nothing.

use std::sync::Arc;

use super::entry::Entry;
use super::key::Key;
use super::rules::Asked;
use super::store::Lead;
use crate::exchange::Exchange;
use crate::http::Fields;

/// A request whose answer is waited for.
pub(super) struct Pending {
    /// Address of the filter, which may be in a chain twice.
    pub owner: usize,
    pub key: Key,
    pub purpose: Purpose,
    /// What the answer will be called.
    pub called: Status,
    pub asked: Asked,
    /// When the upstream was asked, in Unix milliseconds.
    pub asked_ms: u64,
    /// What is stored already, but stale.
    pub stale: Option<Arc<Entry>>,
    /// Whether the upstream was asked about it by its validators.
    pub revalidates: bool,
    /// The fields of the request as the client sent them: its conditions were taken off.
    pub fields: Fields,
    /// Others wait for this one.
    pub lead: Option<Lead>,
}

/// What is done with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is stored where that is allowed.
    Store,
    /// It is only handed on.
    Pass,
    /// When it is no error, what is stored is dropped, since the request has changed it (RFC 9111 section 4.4).
    Invalidate,
}

/// `Apisix-Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Miss,
    Hit,
    Expired,
    Bypass,
    Stale,
    Revalidated,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Status::Miss => "MISS",
            Status::Hit => "HIT",
            Status::Expired => "EXPIRED",
            Status::Bypass => "BYPASS",
            Status::Stale => "STALE",
            Status::Revalidated => "REVALIDATED",
        }
    }
}

/// Key of the slot.
const SLOT: &str = "proxy-cache";

impl Pending {
    /// Keeps it until the answer; false where another filter of this kind keeps one already, which then has the request for itself.
    pub(super) fn keep(self, x: &mut Exchange) -> bool {
        match x.slot_mut::<Option<Pending>>(SLOT) {
            Some(Some(_)) => false,
            Some(slot) => {
                *slot = Some(self);
                true
            }
            None => {
                x.put(SLOT, Some(self));
                true
            }
        }
    }

    /// Takes what this filter has kept.
    pub(super) fn take(x: &mut Exchange, owner: usize) -> Option<Pending> {
        x.slot_mut::<Option<Pending>>(SLOT)?.take_if(|pending| pending.owner == owner)
    }
}
