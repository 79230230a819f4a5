//! Which endpoints Envoys use first, seen from their zone: each of our priorities becomes as many of Envoy's as it has levels of zones. It knows no cluster.
//!
//! What a level carries is what Envoy says a priority carries, by weight and with the same headroom. Where zones make no difference, a priority carries
//! everything as long as any of its endpoints stands, of more than a thousand one in a thousand.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heddle_proto::envoy::config::endpoint::v3::cluster_load_assignment::Policy;

use crate::model::{Endpoint, Endpoints, Upstream};

/// The last priority that Envoy knows.
const LAST: i32 = 128;
/// One endpoint of so many that stands still carries its priority; the product with their number is far from the end of 32 bits.
const FEWEST: u32 = 1_000;

/// Endpoints in the order in which an Envoy uses them.
#[derive(Debug, Clone)]
pub(super) struct Ranked {
    /// Without those that it may not use; priorities are zero and below.
    pub(super) endpoints: Endpoints,
    /// What a priority carries.
    pub(super) policy: Option<Policy>,
}

/// The endpoints of an upstream as a node of this zone uses them; `""` is a node that says none, `None` one to which zones make no difference.
pub(super) fn ranked(own: Option<&str>, upstream: Option<&Upstream>, endpoints: &Endpoints) -> Ranked {
    let zones = own.zip(upstream.map(|upstream| &upstream.locality));
    let level = |endpoint: &Endpoint| zones.map_or(Some(0), |(own, zones)| zones.level(own, &endpoint.zone));
    // What has no weight gets nothing: Envoy would make it one, and turn to it where nothing else stands.
    let used = || endpoints.endpoints.iter().filter(|endpoint| endpoint.weight > 0);
    let places: BTreeSet<(Reverse<i32>, usize)> =
        used().filter_map(|endpoint| Some((Reverse(endpoint.priority), level(endpoint)?))).collect();
    let tiers: BTreeSet<Reverse<i32>> = places.iter().map(|(priority, _)| *priority).collect();
    let zoned = places.len() > tiers.len();
    let ranks: BTreeMap<(Reverse<i32>, usize), i32> = places.into_iter().zip(0..).collect();
    let place = |endpoint: &Endpoint| {
        let rank = ranks.get(&(Reverse(endpoint.priority), level(endpoint)?))?;
        Some(Endpoint { priority: -(*rank).min(LAST), ..endpoint.clone() })
    };
    let most = used().fold(BTreeMap::<i32, u32>::new(), |mut counts, endpoint| {
        *counts.entry(endpoint.priority).or_default() += 1;
        counts
    });
    let most = most.into_values().max().unwrap_or(1).min(FEWEST);
    let factor = match zones {
        Some((_, zones)) if zoned => Some((zones.overprovisioning.max(100), true)),
        _ => (tiers.len() > 1).then(|| (most.saturating_mul(100), false)),
    };
    Ranked {
        endpoints: Endpoints { upstream: Arc::clone(&endpoints.upstream), endpoints: used().filter_map(place).collect() },
        policy: factor.map(|(factor, weighted)| Policy {
            overprovisioning_factor: Some(factor),
            weighted_priority_health: weighted,
            ..Policy::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ZoneMode, ZonePolicy};

    fn endpoint(name: &str, priority: i32, zone: &str, weight: u32) -> Endpoint {
        Endpoint { host: name.into(), port: 1, weight, priority, zone: zone.into(), ..Endpoint::default() }
    }

    /// Names with their priorities, and what a priority carries.
    type Seen = (Vec<(String, i32)>, Option<(u32, bool)>);

    fn seen<'a>(own: impl Into<Option<&'a str>>, policy: ZonePolicy, endpoints: &[Endpoint]) -> Seen {
        let upstream = Upstream { locality: policy, ..Upstream::new("u") };
        let ranked = ranked(own.into(), Some(&upstream), &Endpoints { upstream: "u".into(), endpoints: endpoints.into() });
        let names = ranked.endpoints.endpoints.iter().map(|endpoint| (endpoint.host.to_string(), endpoint.priority)).collect();
        let policy = ranked.policy.map(|policy| (policy.overprovisioning_factor.unwrap_or(0), policy.weighted_priority_health));
        (names, policy)
    }

    fn told(all: &[(&str, i32)]) -> Vec<(String, i32)> {
        all.iter().map(|(name, priority)| ((*name).to_owned(), *priority)).collect()
    }

    #[test]
    fn the_own_zone_comes_first_then_those_of_the_failover_then_the_others_together() {
        let endpoints = [
            endpoint("own", 0, "a", 1),
            endpoint("rest", 0, "b", 1),
            endpoint("next", 0, "c", 1),
            endpoint("more", 0, "d", 1),
            endpoint("off", 0, "a", 0),
            endpoint("spare", -1, "a", 1),
        ];
        let policy = ZonePolicy { failover: vec!["c".into()], overprovisioning: 200, ..ZonePolicy::default() };
        let whole = [("own", 0), ("rest", -2), ("next", -1), ("more", -2), ("spare", -3)];
        assert_eq!(seen("a", policy.clone(), &endpoints), (told(&whole), Some((200, true))));
        let strict = ZonePolicy { mode: ZoneMode::Strict, ..policy.clone() };
        assert_eq!(seen("a", strict, &endpoints).0, told(&[("own", 0), ("next", -1), ("spare", -2)]));
        let strict = ZonePolicy { mode: ZoneMode::Strict, ..ZonePolicy::default() };
        assert_eq!(seen("", strict.clone(), &endpoints).0, told(&[]), "a node without a zone uses endpoints without one");
        let whole = [("own", 0), ("rest", 0), ("next", 0), ("more", 0), ("spare", -1)];
        assert_eq!(
            seen(None, strict, &endpoints),
            (told(&whole), Some((400, false))),
            "one for whose zone is no place uses all of them"
        );
        let off = ZonePolicy { mode: ZoneMode::Off, ..policy };
        let whole = [("own", 0), ("rest", 0), ("next", 0), ("more", 0), ("spare", -1)];
        assert_eq!(seen("a", off, &endpoints), (told(&whole), Some((400, false))), "any one of four carries its priority");
    }

    #[test]
    fn where_zones_make_no_difference_nothing_is_said() {
        let endpoints = [endpoint("one", 7, "a", 1), endpoint("two", 7, "a", 1)];
        for own in ["", "a", "b"] {
            assert_eq!(seen(own, ZonePolicy::default(), &endpoints), (told(&[("one", 0), ("two", 0)]), None));
        }
    }
}
