//! Maglev's table (Eisenbud and others, NSDI 2016, section 3.4), place by place that of Envoy, so that the same key leads to the same endpoint whoever chooses.

use xxhash_rust::xxh64::xxh64;

/// Further places that are looked at by another hash when the owner of a key may not be chosen, before the places behind it are.
const LEAPS: u64 = 16;

/// A table in which each node owns places in proportion to its weight.
#[derive(Debug, Default)]
pub(super) struct Maglev {
    places: Box<[u32]>,
}

/// A node that takes its turns.
struct Turns {
    index: u32,
    offset: u64,
    skip: u64,
    next: u64,
    weight: f64,
    /// It takes a place in the rounds in which its weight has made up for this.
    owed: f64,
}

impl Maglev {
    /// Fills a table of so many places, a prime, with `(index, identity, weight)`.
    pub(super) fn build<'a>(nodes: impl Iterator<Item = (u32, &'a str, u32)>, size: u32) -> Maglev {
        let mut nodes: Vec<_> = nodes.filter(|(_, _, weight)| *weight > 0).collect();
        // In an order that is the same everywhere: the first ones are served first.
        nodes.sort_by_key(|(_, identity, _)| *identity);
        let sum: f64 = nodes.iter().map(|(_, _, weight)| f64::from(*weight)).sum();
        let size = u64::from(size);
        let turns = |&(index, identity, weight): &(u32, &str, u32)| Turns {
            index,
            offset: xxh64(identity.as_bytes(), 0) % size,
            skip: xxh64(identity.as_bytes(), 1) % (size - 1) + 1,
            next: 0,
            weight: f64::from(weight) / sum,
            owed: 0.0,
        };
        let mut all: Vec<Turns> = nodes.iter().map(turns).collect();
        let heaviest = all.iter().map(|node| node.weight).fold(0.0, f64::max);
        if all.is_empty() || size < 2 {
            return Maglev::default();
        }
        let mut places = vec![u32::MAX; size as usize];
        let (mut free, mut round) = (size, 0.0);
        while free > 0 {
            round += 1.0;
            for node in &mut all {
                if free == 0 || round * node.weight < node.owed {
                    continue;
                }
                node.owed += heaviest;
                let place = node.take(&places, size);
                places[place] = node.index;
                free -= 1;
            }
        }
        Maglev { places: places.into() }
    }

    /// Node indexes in the order in which they would take over a key, the owner first; an index comes up again and again.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = u32> + '_ {
        let size = (self.places.len() as u64).max(1);
        let leaps = (0..=LEAPS).map(move |nth| (key ^ nth.wrapping_neg()) % size);
        let behind = (1..size).map(move |step| (key % size + step) % size);
        leaps.chain(behind).filter_map(|place| self.places.get(place as usize).copied())
    }
}

impl Turns {
    /// The next place of its own permutation that is free. The size is a prime, so the permutation comes to every place.
    fn take(&mut self, places: &[u32], size: u64) -> usize {
        loop {
            let place = ((self.offset + self.skip * self.next) % size) as usize;
            self.next += 1;
            if places[place] == u32::MAX {
                return place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::hash_key;
    use super::*;

    #[test]
    fn places_follow_weights_and_most_keys_stay_when_a_node_leaves() {
        let names: Vec<String> = (0..5).map(|nth| format!("10.0.0.{nth}:80")).collect();
        let table = |weights: &[u32]| {
            let nodes = names.iter().zip(weights).enumerate();
            Maglev::build(nodes.map(|(index, (name, weight))| (index as u32, name.as_str(), *weight)), 65_537)
        };
        let all = table(&[1, 1, 1, 1, 4]);
        let owned = |index: u32| all.places.iter().filter(|owner| **owner == index).count();
        assert!((32_700..32_800).contains(&owned(4)) && (8_150..8_250).contains(&owned(0)), "{} {}", owned(4), owned(0));
        let (all, less) = (table(&[1, 1, 1, 1, 1]), table(&[1, 1, 1, 1, 0]));
        let first = |table: &Maglev, key: u64| table.walk(hash_key(&key.to_le_bytes())).next().unwrap();
        let moved = (0..10_000).filter(|key| first(&all, *key) != first(&less, *key)).count();
        assert!((1_900..3_000).contains(&moved), "a fifth has to: {moved}");
        assert!(table(&[0, 0]).walk(7).next().is_none());
        let order: std::collections::BTreeSet<u32> = all.walk(7).collect();
        assert_eq!(order.len(), 5, "everybody's turn comes");
    }
}
