//! The same choice for the same client: weighted rendezvous hashing. It knows no requests.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Entries with their weights, of which a key always chooses the same.
///
/// Rendezvous hashing (Thaler and Ravishankar 1998) with weights in the logarithmic method (Schindelhauer and Schomaker 2005): an entry whose weight grows
/// takes keys from the others in proportion, and no key moves between those.
#[derive(Debug)]
pub(super) struct Affinity {
    entries: Box<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    seed: u64,
    weight: f64,
}

impl Affinity {
    /// Entries by name; one without a name is the route's own upstream.
    pub(super) fn new<'a>(entries: impl Iterator<Item = (Option<&'a str>, u32)>) -> Affinity {
        let mut seen: Vec<u64> = Vec::new();
        let entry = |(name, weight): (Option<&str>, u32)| {
            // the same upstream twice has twice the share, not the same place twice
            let named = xxh3_64_with_seed(name.unwrap_or_default().as_bytes(), u64::from(name.is_some()));
            let seed = named.wrapping_add(seen.iter().filter(|other| **other == named).count() as u64);
            seen.push(named);
            Entry { seed, weight: f64::from(weight) }
        };
        Affinity { entries: entries.map(entry).collect() }
    }

    /// The entry that this key chooses; `None` when none has a weight.
    pub(super) fn choose(&self, key: &[u8]) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for (index, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.weight > 0.0) {
            let drawn = (xxh3_64_with_seed(key, entry.seed) >> 11) as f64 + 0.5;
            let cost = -(drawn / (1u64 << 53) as f64).ln() / entry.weight;
            if best.is_none_or(|(_, least)| cost < least) {
                best = Some((index, cost));
            }
        }
        best.map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(entries: &[(&'static str, u32)], key: u32) -> Option<&'static str> {
        let affinity = Affinity::new(entries.iter().map(|(name, weight)| (Some(*name), *weight)));
        affinity.choose(&key.to_le_bytes()).map(|index| entries[index].0)
    }

    #[test]
    fn shares_follow_weights_and_only_the_difference_moves() {
        let before = [("a", 90), ("b", 10)];
        let after = [("a", 70), ("b", 30)];
        let (mut share, mut moved) = (0, 0);
        for key in 0..10_000 {
            let (old, new) = (chosen(&before, key), chosen(&after, key));
            share += u32::from(old == Some("b"));
            moved += u32::from(old != new);
            assert!(old == new || new == Some("b"), "nobody goes back");
        }
        assert!((900..1100).contains(&share) && (1850..2150).contains(&moved), "{share} {moved}");
        assert_eq!(chosen(&[("a", 0)], 1), None);
    }

    #[test]
    fn the_same_upstream_twice_has_both_shares() {
        let of_b = (0..3000).filter(|key| chosen(&[("a", 1), ("b", 1), ("a", 1)], *key) == Some("b")).count();
        assert!((900..1100).contains(&of_b), "{of_b}");
    }

    proptest! {
        #[test]
        fn an_entry_that_comes_or_goes_moves_only_its_own_keys(
            weights in prop::collection::vec(0u32..50, 3..=3), key: u32, order: bool,
        ) {
            let all = [("a", weights[0]), ("b", weights[1]), ("c", weights[2])];
            let (all, two) = if order { ([all[2], all[0], all[1]], [all[1], all[0]]) } else { (all, [all[0], all[1]]) };
            let with = chosen(&all, key);
            if with != Some("c") {
                prop_assert_eq!(with, chosen(&two, key));
            }
        }
    }
}
