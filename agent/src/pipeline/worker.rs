//! What one worker owns: its view of the tables, its pools, dice, counters and log lines. Nothing here is shared with another worker.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::identity::{Identity, Refused};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, watch};

use super::mesh::Callees;
use super::view::View;
use crate::authorize::Policies;
use crate::exchange::{ConnectionInfo, Door, Exchange, Reason};
use crate::observe::access_log::Batch;
use crate::observe::detail::Details;
use crate::observe::{Counter, RouteStats, Sharded, Tracer};
use crate::tables::Tables;
use crate::upstream::Pools;

/// One worker.
pub struct Worker {
    /// Number of the worker, from zero.
    pub index: usize,
    /// Upstream connections.
    pub pools: Rc<Pools>,
    shared: Arc<Shared>,
    view: RefCell<Rc<View>>,
    /// Where new tables appear, for all workers at once.
    newest: RefCell<watch::Receiver<Arc<Tables>>>,
    dice: RefCell<fastrand::Rng>,
    log: RefCell<Option<Batch>>,
    tracer: Option<Tracer>,
    /// Rung when authorization policies have changed.
    judged_anew: Arc<Notify>,
    /// Rung when there are new tables.
    swapped: Arc<Notify>,
    callees: RefCell<Callees>,
    me: Weak<Worker>,
}

/// What all workers write, each into a shard of its own.
pub struct Shared {
    /// Counters of each worker.
    pub counters: Sharded<Counters>,
    /// Requests that no route matched.
    pub unmatched: Arc<RouteStats>,
    /// Requests of routes that ask for detail.
    pub details: Sharded<Details>,
    /// Name of this host.
    pub hostname: Arc<str>,
    /// Who this process is in the mesh, and where is kept whom it has refused.
    pub identity: Identity,
}

/// One worker's counters that belong to no route.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests in flight.
    pub active: Counter,
    /// Requests by the reason of their end.
    pub reasons: Reasons,
}

/// Counters by [`Reason`].
#[derive(Debug)]
pub struct Reasons(Box<[Counter]>);

impl Default for Reasons {
    fn default() -> Self {
        Reasons(Reason::ALL.iter().map(|_| Counter::default()).collect())
    }
}

impl Reasons {
    /// Counts one.
    pub fn add(&self, reason: Reason) {
        self.0[reason as usize].add(1);
    }

    /// Reasons and counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().copied().zip(self.0.iter().map(Counter::get))
    }
}

impl Worker {
    /// A worker that runs on empty tables.
    pub fn new(
        index: usize,
        pools: Rc<Pools>,
        shared: Arc<Shared>,
        dice: fastrand::Rng,
        log: Option<Batch>,
        tracer: Option<Tracer>,
    ) -> Rc<Worker> {
        Rc::new_cyclic(|me| Worker {
            me: me.clone(),
            index,
            pools,
            shared,
            view: RefCell::default(),
            newest: RefCell::new(watch::channel(Arc::default()).1),
            dice: RefCell::new(dice),
            log: RefCell::new(log),
            tracer,
            judged_anew: Arc::default(),
            swapped: Arc::default(),
            callees: RefCell::default(),
        })
    }

    /// Notes for the audit that a caller (with the id that it has proven, if any) has named itself in a field which only we may set. It was taken off, and the
    /// request went on.
    pub(super) fn note_spoofed(&self, connection: &ConnectionInfo, peer: Option<&str>) {
        let from = connection.transport_peer.ip();
        let (peer_ip, detail) = match &connection.door {
            // The whole world can do so: that is one entry, which pushes no others out.
            Door::Gateway | Door::Bytes(_) => {
                (None, format!("X-Forwarded-Client-Cert of a client of the gateway was taken off a request, last from {from}"))
            }
            Door::Inbound { .. } => (Some(from), "X-Forwarded-Client-Cert of a caller was taken off a request".to_owned()),
            Door::Outbound(_) => {
                (Some(from), "X-Forwarded-Client-Cert of the application beside the sidecar was taken off a request".to_owned())
            }
        };
        self.shared.identity.refusals().note(Refused {
            at_ms: clock::unix_ms(),
            reason: "spoofed-client-cert",
            peer: peer_ip,
            subject: peer.unwrap_or_default().to_owned(),
            detail,
            count: 1,
        });
    }

    /// Takes the tables that are here, and from now on those that appear here, each before the next request.
    pub fn follow(&self, newest: watch::Receiver<Arc<Tables>>) {
        self.newest.replace(newest);
        self.catch_up();
    }

    /// The view of this moment; a request keeps the one that it began with. It is of the newest tables, whether or not this worker has been woken for them:
    /// who was answered by a change once is not answered without it by the worker next door.
    pub fn view(&self) -> Rc<View> {
        if self.newest.borrow().has_changed().unwrap_or(false) {
            self.catch_up();
        }
        self.view.borrow().clone()
    }

    /// Takes the newest tables, and says which they are.
    #[cold]
    pub fn catch_up(&self) -> Arc<Tables> {
        let now = self.newest.borrow_mut().borrow_and_update().clone();
        self.swap(now.clone());
        now
    }

    /// Takes new tables for the requests that begin from now on; what was derived from those that are here already stays.
    pub fn swap(&self, tables: Arc<Tables>) {
        if Arc::ptr_eq(&self.view.borrow().tables, &tables) {
            return;
        }
        let other = !Arc::ptr_eq(&self.view.borrow().tables.authorization, &tables.authorization);
        *self.view.borrow_mut() = Rc::new(View::new(tables, self.shared.hostname.clone(), self.index).at(self.me.clone()));
        self.swapped.notify_waiters();
        if other {
            self.judged_anew.notify_waiters();
        }
    }

    /// Names whom the application beside this node may call.
    pub fn set_callees(&self, callees: Callees) {
        self.callees.replace(callees);
    }

    /// Whom the application beside this node may call.
    pub fn callees(&self) -> Callees {
        self.callees.borrow().clone()
    }

    /// Ready when there are new tables, from now on.
    pub fn swapping(&self) -> OwnedNotified {
        self.swapped.clone().notified_owned()
    }

    /// Ready when authorization policies have changed: what goes on for long must be judged anew.
    pub fn judging_anew(&self) -> OwnedNotified {
        self.judged_anew.clone().notified_owned()
    }

    /// The authorization policies of now, when they are others than these.
    pub fn other_policies(&self, policies: &Arc<Policies>) -> Option<Arc<Policies>> {
        let view = self.view.borrow();
        let present = &view.tables.authorization;
        (!Arc::ptr_eq(present, policies)).then(|| present.clone())
    }

    /// Dice for one request.
    pub fn dice(&self) -> fastrand::Rng {
        self.dice.borrow_mut().fork()
    }

    /// What all workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The worker's own counters.
    pub fn counters(&self) -> &Counters {
        self.shared.counters.own(self.index)
    }

    /// Traces requests, when that is configured.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// Whether the access log shows fields of responses, which then have to be kept.
    pub fn wants_sent_fields(&self) -> bool {
        self.log.borrow().as_ref().is_some_and(Batch::wants_sent_fields)
    }

    /// Writes the access log line of a finished exchange, and hands its span over.
    pub fn log(&self, x: &Exchange, duration: Duration) {
        if let Some(tracer) = &self.tracer {
            tracer.end(x, duration);
        }
        if let Some(batch) = self.log.borrow_mut().as_mut() {
            batch.push(x, duration);
        }
    }

    /// Has the last lines written.
    pub async fn close_log(&self) {
        let batch = self.log.borrow_mut().take();
        if let Some(batch) = batch {
            batch.finish().await;
        }
    }

    /// Hands waiting log lines to the writer.
    pub fn flush_log(&self) {
        if let Some(batch) = self.log.borrow_mut().as_mut() {
            batch.flush();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::pipeline) fn worker() -> Rc<Worker> {
        let shared = Shared {
            counters: Sharded::new(1),
            unmatched: Arc::new(RouteStats::new(1)),
            details: Sharded::new(1),
            hostname: "test".into(),
            identity: Identity::new(),
        };
        Worker::new(0, Pools::new(), Arc::new(shared), fastrand::Rng::with_seed(1), None, None)
    }

    #[test]
    fn a_request_meets_the_newest_tables_before_its_worker_was_woken_for_them() {
        let [first, second] = [Arc::<Tables>::default(), Arc::default()];
        let (publisher, newest) = watch::channel(first.clone());
        let worker = worker();
        worker.follow(newest);
        let before = worker.view();
        assert!(Arc::ptr_eq(&before.tables, &first));
        publisher.send_replace(second.clone());
        assert!(Arc::ptr_eq(&worker.view().tables, &second));
        assert!(Arc::ptr_eq(&before.tables, &first), "a request that has begun keeps the tables that it began with");
    }

    #[test]
    fn who_looks_for_new_tables_and_finds_none_keeps_what_was_derived_from_them() {
        let (publisher, newest) = watch::channel(Arc::<Tables>::default());
        let worker = worker();
        worker.follow(newest);
        let before = worker.view();
        worker.catch_up();
        assert!(Rc::ptr_eq(&before, &worker.view()));
        let last = Arc::<Tables>::default();
        publisher.send_replace(last.clone());
        drop(publisher);
        worker.catch_up();
        assert!(Arc::ptr_eq(&worker.view().tables, &last), "the last tables are taken when nobody is left who could send others");
    }
}
