//! Which zones carry which share of the requests: pure arithmetic over weights that stand. It knows no endpoints and no policies.
//!
//! Zones are put into levels: the own one, those named for failover one by one, all others together. A level can carry
//! `overprovisioning × standing weight / whole weight` of the requests, all of them at most. The levels are filled in their order; what all of them together
//! cannot carry is shared out in proportion. That is Envoy's priority load. The own zone can carry the more, the larger its part of the endpoints is in
//! comparison with its part of the callers, which is what Envoy's zone-aware routing goes by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use heddle_xds::model::{LocalityWeight, ZonePolicy};

/// What this node's zone has of all who call the same upstreams.
#[derive(Debug, Default)]
pub struct Callers(AtomicU32);

/// Unit of [`Callers`].
const MILLION: f64 = 1_000_000.0;

impl Callers {
    /// Their part of all callers, above 0 up to 1; `None` while nobody else is known.
    pub fn part(&self) -> Option<f64> {
        let millionths = self.0.load(Ordering::Acquire);
        (millionths > 0).then_some(f64::from(millionths) / MILLION)
    }

    /// Says how many callers are in the own zone, of how many whose zone is known. Two callers at least make a part. True when that is news.
    pub fn set(&self, own: usize, all: usize) -> bool {
        let known = all > 1 && own > 0;
        let part = if known { (own.min(all) as f64 / all as f64 * MILLION) as u32 } else { 0 };
        self.0.swap(part, Ordering::AcqRel) != part
    }
}

/// Where this node stands among the zones, and which it may use.
#[derive(Debug, Clone, Default)]
pub struct Zones {
    /// Zone of this node; empty when unknown.
    pub own: Arc<str>,
    /// What the upstream says.
    pub policy: ZonePolicy,
    /// Callers in the own zone.
    pub callers: Arc<Callers>,
}

impl Zones {
    /// Whether endpoints of this zone may be used at all.
    pub fn allows(&self, zone: &str) -> bool {
        match self.weights() {
            Some(weights) => {
                let counts = |one: &LocalityWeight| one.weight > 0 || !self.weighs(one.priority);
                weights.iter().any(|one| &*one.zone == zone && counts(one))
            }
            None => self.level(zone, 0).is_some(),
        }
    }

    /// The weights of localities, where they count.
    fn weights(&self) -> Option<&[LocalityWeight]> {
        self.policy.spread.as_ref().map(|spread| &spread.weights[..]).filter(|weights| !weights.is_empty())
    }

    /// Whether a priority has a locality with a weight. Where it has none, all its endpoints are alike.
    fn weighs(&self, priority: i32) -> bool {
        self.weights().is_some_and(|weights| weights.iter().any(|one| one.priority == priority && one.weight > 0))
    }

    /// The weight of a locality.
    pub(super) fn weight(&self, zone: &str, priority: i32) -> u32 {
        let of = |one: &&LocalityWeight| one.priority == priority && &*one.zone == zone;
        self.weights().and_then(|weights| weights.iter().find(of)).map_or(0, |one| one.weight)
    }

    /// Whether zones make a difference.
    pub(super) fn matter(&self) -> bool {
        self.policy.spread.is_none() && self.policy.matters(&self.own)
    }

    /// The level of a zone, the first one to be used is 0; `None` when it is not to be used.
    pub(super) fn level(&self, zone: &str, priority: i32) -> Option<usize> {
        if let Some(weights) = self.weights() {
            if !self.weighs(priority) {
                return Some(0);
            }
            return weights.iter().position(|one| one.priority == priority && &*one.zone == zone && one.weight > 0);
        }
        if self.matter() { self.policy.level(&self.own, zone) } else { Some(0) }
    }

    /// How much more of the endpoints than of the callers the own zone has; 1 when callers are not known.
    pub(super) fn room(&self, own_weight: f64, all_weight: f64) -> f64 {
        match self.callers.part() {
            Some(part) if all_weight > 0.0 => own_weight / all_weight / part,
            _ => 1.0,
        }
    }

    /// How much above its fair share an endpoint may be loaded before the next level helps, 1 or more.
    pub(super) fn headroom(&self) -> f64 {
        (f64::from(self.policy.overprovisioning) / 100.0).max(1.0)
    }
}

/// One level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    /// Weight of all its endpoints.
    pub(super) weight: f64,
    /// Weight of those that stand, less while they ramp up.
    pub(super) standing: f64,
    /// By how much its capacity exceeds its callers; 1 where that is not known.
    pub(super) room: f64,
}

impl Level {
    /// The part of all requests that it can carry.
    fn carries(&self, headroom: f64) -> f64 {
        if self.weight <= 0.0 { 0.0 } else { (headroom * self.room * self.standing / self.weight).clamp(0.0, 1.0) }
    }
}

/// The share of each level. They sum up to 1 unless nothing stands.
pub(super) fn shares(levels: &[Level], headroom: f64) -> Vec<f64> {
    let carried: Vec<f64> = levels.iter().map(|level| level.carries(headroom)).collect();
    let all = carried.iter().sum::<f64>().min(1.0);
    let mut left = 1.0;
    let share = |carries: &f64| {
        let share = if all > 0.0 { (carries / all).min(left) } else { 0.0 };
        left = (left - share).max(0.0);
        share
    };
    let mut shares: Vec<f64> = carried.iter().map(share).collect();
    // What rounding has left over must not make the last level a candidate.
    if left > 0.0
        && let Some(first) = shares.iter_mut().find(|share| **share > 0.0)
    {
        *first += left;
    }
    shares
}
