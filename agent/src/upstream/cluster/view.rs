//! The immutable list of resolved endpoints of one upstream, and what of an endpoint outlives such a list.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::stats::Stats;
use super::Spec;
use crate::balance;
use crate::health::EndpointHealth;

/// What of an endpoint stays the same while configuration changes around it: shared by all workers.
#[derive(Debug)]
pub struct EndpointCore {
    /// Unique in this process, never used again.
    pub id: u64,
    /// Name of the node as configured; an IP literal has no brackets.
    pub host: Arc<str>,
    /// Where connections go first.
    pub address: SocketAddr,
    /// Health, with its counters.
    pub health: EndpointHealth,
    /// Counters of traffic.
    pub stats: Stats,
    retired: AtomicBool,
}

impl EndpointCore {
    pub(super) fn new(host: Arc<str>, address: SocketAddr, health: EndpointHealth) -> Arc<EndpointCore> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(EndpointCore { id, host, address, health, stats: Stats::default(), retired: AtomicBool::new(false) })
    }

    /// Whether configuration or DNS has let go of it: its idle connections are closed, its busy ones after their request.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

/// One endpoint in one list.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// What outlives the list.
    pub core: Arc<EndpointCore>,
    /// Further addresses of the same name, tried in order when the first does not connect.
    pub fallbacks: Arc<[SocketAddr]>,
    /// Relative share.
    pub weight: u32,
    /// Higher is used first.
    pub priority: i32,
    /// Locality zone, empty when unknown.
    pub zone: Arc<str>,
}

/// The resolved endpoints of one upstream at one moment, with the balancer's tables; never changed, only replaced.
#[derive(Debug)]
pub struct EndpointView {
    /// How they are used.
    pub spec: Arc<Spec>,
    /// In the order of the configuration.
    pub endpoints: Vec<Endpoint>,
    /// The same as balancing sees them, index for index.
    pub balance: balance::View,
    /// Names whose first look-up has not ended yet.
    pub pending: usize,
    /// Names that could not be resolved.
    pub unresolved: usize,
    /// Whether endpoints that drain get new requests, because nobody else stands.
    pub draining_serve: bool,
}
