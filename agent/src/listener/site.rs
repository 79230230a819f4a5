//! What a connection needs of the worker and the listener that it belongs to. It knows no protocol.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{EdgeLimits, Listener};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::counters::Counters;
use super::h1::Spare;
use super::mesh::Entry;
use super::tls::Identity;
use heddle_node::clock::{self, WallCache};
use tokio::time::Instant;

use crate::exchange::ConnectionInfo;
use crate::http::h1::{DateCache, HeadLimits};

/// How long an idle connection waits for a request that may be on its way when its listener closes.
pub(super) const LEAVING: Duration = Duration::from_secs(1);

/// One worker's part of all listeners.
pub struct Worker<S> {
    /// Answers requests.
    pub service: S,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// The time of requests.
    pub wall: WallCache,
    /// `Date` of responses.
    pub dates: DateCache,
    /// Buffers that its connections share.
    pub(super) spare: Rc<Spare>,
}

impl<S> Worker<S> {
    /// A worker with this service that counts here.
    pub fn new(service: S, counters: Arc<Counters>) -> Worker<S> {
        Worker { service, counters, wall: WallCache::default(), dates: DateCache::default(), spare: Rc::default() }
    }
}

/// A listener as a connection sees it: the configuration of the moment when it was accepted.
pub(super) struct Site {
    pub(super) listener: Arc<Listener>,
    pub(super) entry: Entry,
    pub(super) head_limits: HeadLimits,
    pub(super) drain: Rc<Drain>,
}

impl Site {
    pub(super) fn new(listener: Arc<Listener>, entry: Entry, drain: Rc<Drain>) -> Site {
        Site { head_limits: HeadLimits::edge(&listener.limits), listener, entry, drain }
    }

    pub(super) fn limits(&self) -> &EdgeLimits {
        &self.listener.limits
    }

    /// When a connection that is made now is too old, where there is a bound.
    pub(super) fn aged_at(&self) -> Option<Instant> {
        let age = self.limits().max_connection_duration;
        (!age.is_zero()).then(|| clock::now().checked_add(age)).flatten()
    }
}

/// A connection's place: where it came in, and as whom.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) site: Rc<Site>,
    pub(super) info: Rc<ConnectionInfo>,
    /// Certificate that was shown, `None` in clear.
    pub(super) identity: Option<Identity>,
}

/// Tells the connections of a socket that it is closing.
#[derive(Default)]
pub(super) struct Drain {
    begun: Cell<bool>,
    notify: Arc<Notify>,
}

impl Drain {
    pub(super) fn begin(&self) {
        self.begun.set(true);
        self.notify.notify_waiters();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// Ready when it begins; look at [`Drain::has_begun`] first.
    pub(super) fn begins(&self) -> OwnedNotified {
        self.notify.clone().notified_owned()
    }
}
