//! What one thread has of a remote: connections at rest and the number of calls in flight. It asks nothing itself.

use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};

use hashbrown::HashMap;
use heddle_node::clock;
use parking_lot::Mutex;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::Shared;
use super::connect::Wire;
use super::message::CallError;
use super::remote::Core;
use crate::dns::Resolver;

thread_local! {
    static HERE: RefCell<Here> = RefCell::default();
}

/// What this thread has.
#[derive(Default)]
struct Here {
    lanes: HashMap<u64, Arc<Lane>>,
    resolvers: HashMap<u64, Resolver>,
}

/// One thread's part of a remote. Its locks are never contended: they are there because a runtime may move a call between threads.
pub(super) struct Lane {
    owner: Weak<Core>,
    /// Connections at rest, the longest rested first, with the end of their rest.
    idle: Mutex<Vec<(Instant, Box<dyn Wire>)>>,
    in_flight: AtomicUsize,
    turn: AtomicUsize,
    /// Whether a task closes what has rested for too long.
    tidying: AtomicBool,
    addresses: Mutex<Vec<IpAddr>>,
}

/// A call's place among those in flight.
pub(super) struct Seat(Arc<Lane>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// This thread's part of a remote.
pub(super) fn of(core: &Arc<Core>) -> Arc<Lane> {
    HERE.with_borrow_mut(|here| {
        if let Some(lane) = here.lanes.get(&core.id) {
            return lane.clone();
        }
        // A new one is the occasion to forget those of remotes that are gone.
        here.lanes.retain(|_, lane| lane.owner.strong_count() > 0);
        let lane = Arc::new(Lane {
            owner: Arc::downgrade(core),
            idle: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            tidying: AtomicBool::new(false),
            addresses: Mutex::default(),
        });
        here.lanes.insert(core.id, lane.clone());
        lane
    })
}

/// This thread's resolver, so that its sockets and answers belong to the runtime that asks.
pub(super) fn resolver(shared: &Shared) -> Result<Resolver, CallError> {
    HERE.with_borrow_mut(|here| {
        if let Some(resolver) = here.resolvers.get(&shared.id) {
            return Ok(resolver.clone());
        }
        let resolver = Resolver::new(shared.resolver.clone()).map_err(|error| CallError::Dns(error.to_string()))?;
        here.resolvers.insert(shared.id, resolver.clone());
        Ok(resolver)
    })
}

impl Lane {
    /// A place among the calls in flight.
    pub(super) fn sit(self: &Arc<Lane>, most: usize) -> Result<Seat, CallError> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self.clone());
        if before < most { Ok(seat) } else { Err(CallError::Busy(most)) }
    }

    /// A connection at rest that is still good, the one that rested least.
    pub(super) fn take(&self, now: Instant) -> Option<Box<dyn Wire>> {
        let mut idle = self.idle.lock();
        while let Some((end, mut wire)) = idle.pop() {
            if end > now && !is_stale(&mut *wire) {
                return Some(wire);
            }
        }
        None
    }

    /// Lets a connection rest, when there is room.
    pub(super) fn put(self: &Arc<Lane>, wire: Box<dyn Wire>, core: &Core, now: Instant) {
        let end = now + core.keepalive_timeout;
        let mut idle = self.idle.lock();
        if idle.len() >= core.keepalive_pool {
            return;
        }
        idle.push((end, wire));
        drop(idle);
        if !self.tidying.swap(true, Ordering::Relaxed) {
            tokio::spawn(tidy(Tidying(Arc::downgrade(self)), end));
        }
    }

    /// Grows by one each time.
    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps addresses for the time when the name cannot be looked up.
    pub(super) fn remember(&self, addresses: &[IpAddr]) {
        let mut kept = self.addresses.lock();
        if *kept != addresses {
            *kept = addresses.to_vec();
        }
    }

    /// The addresses that were kept.
    pub(super) fn remembered(&self) -> Option<Vec<IpAddr>> {
        Some(self.addresses.lock().clone()).filter(|addresses| !addresses.is_empty())
    }

    /// Closes what has rested for too long, or belongs to nobody, and says when to look again.
    fn tidy(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.idle.lock();
        let wanted = self.owner.strong_count() > 0;
        idle.retain(|(end, _)| wanted && *end > now);
        idle.first().map(|(end, _)| *end)
    }
}

/// Whether a connection must not be used: closed by the server, or with bytes that belong to no answer.
fn is_stale(wire: &mut dyn Wire) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(wire).poll_read(&mut cx, &mut ReadBuf::new(&mut [0])).is_ready()
}

/// Says when it is dropped, for example with its runtime, that nobody tidies any more.
struct Tidying(Weak<Lane>);

impl Drop for Tidying {
    fn drop(&mut self) {
        if let Some(lane) = self.0.upgrade() {
            lane.tidying.store(false, Ordering::Relaxed);
        }
    }
}

/// Closes connections at the end of their rest until there are none.
async fn tidy(tidying: Tidying, first: Instant) {
    let mut next = Some(first);
    while let Some(end) = next {
        tokio::time::sleep_until(end).await;
        next = tidying.0.upgrade().and_then(|lane| lane.tidy(clock::now()));
    }
}
