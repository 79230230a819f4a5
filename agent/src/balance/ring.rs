//! A consistent-hash ring (ketama), point by point that of Envoy and gRPC, so that the same key leads to the same endpoint whoever chooses.
//!
//! Each endpoint owns points in proportion to its weight: the hash of its address with `_0`, `_1` and so on behind it. A key belongs to the next point.

use std::fmt::Write;

use heddle_xds::model::{HashTable, RingSize};
use xxhash_rust::xxh64::xxh64;

use super::maglev::Maglev;

/// How keys are spread over the nodes of one part.
#[derive(Debug)]
pub(super) enum Spread {
    /// Not by keys.
    None,
    /// By a ring.
    Ring(Ring),
    /// By a table.
    Maglev(Maglev),
}

impl Spread {
    /// Spreads keys over `(index, identity, weight)`.
    pub(super) fn new<'a>(table: HashTable, nodes: impl Iterator<Item = (u32, &'a str, u32)> + Clone) -> Spread {
        match table {
            HashTable::Ring(size) => Spread::Ring(Ring::build(nodes, size)),
            HashTable::Maglev { places } => Spread::Maglev(Maglev::build(nodes, places)),
        }
    }

    /// The first node that may be chosen, in the order in which they would take over a key.
    pub(super) fn find(&self, key: u64, may: impl FnMut(&u32) -> bool) -> Option<u32> {
        match self {
            Spread::None => None,
            Spread::Ring(ring) => ring.walk(key).find(may),
            Spread::Maglev(table) => table.walk(key).find(may),
        }
    }
}

/// A consistent-hash ring over node indexes.
#[derive(Debug, Default)]
pub struct Ring {
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// Places `(index, identity, weight)`. The points of a node depend on its identity, and where the size follows the weights on nothing else, so that a node
    /// that leaves moves only its own keys. The arithmetic is Envoy's to the last bit: where shares are no whole numbers, the order of nodes says who has one
    /// point more.
    pub fn build<'a>(nodes: impl Iterator<Item = (u32, &'a str, u32)> + Clone, size: RingSize) -> Ring {
        let weights = || nodes.clone().map(|(_, _, weight)| weight).filter(|weight| *weight > 0);
        let sum: f64 = weights().map(f64::from).sum();
        let Some(lightest) = weights().min().map(|weight| f64::from(weight) / sum) else { return Ring::default() };
        let (least, most) = size.bounds(weights());
        let points = ((lightest * f64::from(least)).ceil() / lightest).min(f64::from(most));
        let mut ring = Vec::with_capacity(most.min(points as u32 + 1) as usize);
        let (mut placed, mut due, mut name) = (0.0, 0.0, String::new());
        for (index, identity, weight) in nodes {
            due += points * (f64::from(weight) / sum);
            let mut nth = 0u32;
            while placed < due {
                name.clear();
                // Writing to a text cannot fail.
                let _ = write!(name, "{identity}_{nth}");
                ring.push((xxh64(name.as_bytes(), 0), index));
                (nth, placed) = (nth + 1, placed + 1.0);
            }
        }
        ring.sort_unstable();
        ring.dedup_by_key(|(hash, _)| *hash);
        Ring { points: ring }
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
