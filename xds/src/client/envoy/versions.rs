//! What of our resources one resource of Envoy's has become, as hashes of their encoded forms. It knows none of them.

use std::sync::Arc;

use crate::model::Kind;

/// One of our resources.
pub(super) type Key = (Kind, Arc<str>);

/// Hashes of our resources by kind and name. Most resources of Envoy's become two or three of ours, and there are thousands of them: a sorted list takes a tenth of
/// what a map would.
#[derive(Default)]
pub(super) struct Versions(Vec<(Key, u128)>);

impl Versions {
    /// Those of these resources; of several of one name the last one, which is in use.
    pub(super) fn new(mut told: Vec<(Key, u128)>) -> Versions {
        told.reverse();
        told.sort_by(|(a, _), (b, _)| a.cmp(b));
        told.dedup_by(|(a, _), (b, _)| a == b);
        told.shrink_to_fit();
        Versions(told)
    }

    /// The hash of one.
    pub(super) fn get(&self, key: &Key) -> Option<u128> {
        self.0.binary_search_by(|(known, _)| known.cmp(key)).ok().map(|place| self.0[place].1)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of their kinds and names.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_resources_of_one_name_the_last_one_counts() {
        let key = |name: &str| (Kind::Route, Arc::from(name));
        let versions = Versions::new(vec![(key("b"), 1), (key("a"), 2), (key("b"), 3)]);
        assert_eq!(["a", "b", "c"].map(|name| versions.get(&key(name))), [Some(2), Some(3), None]);
        assert_eq!(versions.keys().collect::<Vec<_>>(), [&key("a"), &key("b")]);
    }
}
