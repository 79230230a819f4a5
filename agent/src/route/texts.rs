//! A hash table from texts to small values with all texts in one piece of memory. It knows not what texts and values mean.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// A hash table whose keys are texts, each in one of several spaces. With thousands of keys a look-up meets cold memory, so that it touches little of it: one
/// place of the table and the text itself, which lies among its like instead of alone on the heap.
#[derive(Debug)]
pub(super) struct TextMap<V> {
    texts: String,
    slots: HashTable<Slot<V>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Slot<V> {
    space: u32,
    start: u32,
    length: u32,
    value: V,
}

impl<V> Slot<V> {
    fn text<'a>(&self, texts: &'a str) -> &'a [u8] {
        let start = self.start as usize;
        texts.as_bytes().get(start..start + self.length as usize).unwrap_or_default()
    }

    fn has(&self, space: u32, text: &str, texts: &str) -> bool {
        self.space == space && self.text(texts) == text.as_bytes()
    }
}

impl<V> Default for TextMap<V> {
    fn default() -> Self {
        TextMap { texts: String::new(), slots: HashTable::new(), hasher: RandomState::default() }
    }
}

impl<V> TextMap<V> {
    /// The value of a text.
    pub(super) fn get(&self, space: u32, text: &str) -> Option<&V> {
        let hash = hash(&self.hasher, space, text.as_bytes());
        self.slots.find(hash, |slot| slot.has(space, text, &self.texts)).map(|slot| &slot.value)
    }

    /// The value of a text, made and kept when there is none.
    pub(super) fn get_or_insert_with(&mut self, space: u32, text: &str, make: impl FnOnce() -> V) -> Place<'_, V> {
        let TextMap { texts, slots, hasher } = self;
        let rehash = |slot: &Slot<V>| hash(hasher, slot.space, slot.text(texts));
        let entry = slots.entry(hash(hasher, space, text.as_bytes()), |slot| slot.has(space, text, texts), rehash);
        match entry {
            hashbrown::hash_table::Entry::Occupied(slot) => Place { value: &mut slot.into_mut().value, is_new: false },
            hashbrown::hash_table::Entry::Vacant(free) => {
                let slot = Slot { space, start: texts.len() as u32, length: text.len() as u32, value: make() };
                let slot = free.insert(slot).into_mut();
                texts.push_str(text);
                Place { value: &mut slot.value, is_new: true }
            }
        }
    }

    /// Gives back memory that only growing has needed.
    pub(super) fn settle(&mut self) {
        self.texts.shrink_to_fit();
    }
}

/// Where a value stands.
pub(super) struct Place<'a, V> {
    pub(super) value: &'a mut V,
    /// Whether it was made just now.
    pub(super) is_new: bool,
}

fn hash(hasher: &RandomState, space: u32, text: &[u8]) -> u64 {
    hasher.hash_one((space, text))
}
