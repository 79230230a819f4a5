//! A consistent-hash ring (ketama-like): each node owns points in proportion to its weight, a key belongs to the next point.

use xxhash_rust::xxh64::xxh64;

/// Points per unit of weight after the weights were divided by their greatest common divisor, as APISIX and ketama do.
pub(super) const POINTS_PER_WEIGHT: u64 = 160;
/// Most points of one ring: 1 MiB of memory. Above it all nodes get fewer points in proportion, at least one each.
pub(super) const MAX_POINTS: u64 = 65_536;

/// A consistent-hash ring over node indexes.
#[derive(Debug, Default)]
pub struct Ring {
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// Places `(index, identity, weight)`. The points of a node depend on its identity alone, so a node that leaves moves only its own keys.
    pub fn build<'a>(nodes: impl Iterator<Item = (u32, &'a str, u32)> + Clone) -> Ring {
        let divisor = u64::from(nodes.clone().fold(0, |acc, (_, _, weight)| gcd(acc, weight))).max(1);
        let wanted: u64 = nodes.clone().map(|(_, _, weight)| u64::from(weight) / divisor * POINTS_PER_WEIGHT).sum();
        let mut points = Vec::with_capacity(wanted.min(MAX_POINTS) as usize);
        for (index, identity, weight) in nodes {
            let own = u64::from(weight) / divisor * POINTS_PER_WEIGHT;
            let own = if wanted > MAX_POINTS { ((own as u128 * MAX_POINTS as u128 / wanted as u128) as u64).max(1) } else { own };
            points.extend((0..own).map(|nth| (xxh64(identity.as_bytes(), nth), index)));
        }
        points.sort_unstable();
        points.dedup_by_key(|(hash, _)| *hash);
        Ring { points }
    }

    /// Node indexes in the order in which they would take over a key, the owner first; an index comes up once per point.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = u32> + '_ {
        let start = self.points.partition_point(|(hash, _)| *hash < key);
        self.points[start..].iter().chain(&self.points[..start]).map(|(_, index)| *index)
    }
}

/// The hash of a key text, to be given to a pick.
pub fn hash_key(text: &[u8]) -> u64 {
    xxh64(text, 0)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
