//! Values by what they were made of, kept only while somebody else holds them: what is equal is made once. It knows nothing of what they are.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

/// Places are looked through for those that nobody holds any more when there are this many, or twice as many as were left then.
const ROOM: usize = 64;

/// Values that are held elsewhere, by what they were made of. Whatever comes and goes, it has room for at most twice as many as are held, and a few.
#[derive(Debug)]
pub struct WeakMap<K, V: ?Sized> {
    places: HashMap<K, Weak<V>>,
    /// How many were left when they were looked through.
    left: usize,
}

impl<K, V: ?Sized> Default for WeakMap<K, V> {
    fn default() -> Self {
        WeakMap { places: HashMap::new(), left: 0 }
    }
}

impl<K: Hash + Eq, V: ?Sized> WeakMap<K, V> {
    /// The value that was made of this, while somebody holds it.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, source: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.places.get(source)?.upgrade()
    }

    /// Takes note of a value.
    pub fn put(&mut self, source: K, value: &Arc<V>) {
        if self.places.len() >= ROOM.max(self.left * 2) {
            self.sweep();
        }
        self.places.insert(source, Arc::downgrade(value));
    }

    /// Forgets what nobody holds any more.
    pub fn sweep(&mut self) {
        self.places.retain(|_, value| value.strong_count() > 0);
        self.left = self.places.len();
    }

    /// Number of places, some of whose values may have gone since the last [`WeakMap::sweep`].
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are no places.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_of_values_that_are_gone_are_used_again() {
        let mut map = WeakMap::<u64, u64>::default();
        let held: Vec<Arc<u64>> = (0..200).map(Arc::new).collect();
        held.iter().for_each(|value| map.put(**value, value));
        assert!(held.iter().all(|value| Arc::ptr_eq(&map.get(&**value).unwrap(), value)));
        drop(held);
        assert!(map.get(&0).is_none());
        for number in 1_000..2_000 {
            map.put(number, &Arc::new(number));
            assert!(map.len() <= 400, "{}", map.len());
        }
        map.sweep();
        assert!(map.is_empty());
    }
}
