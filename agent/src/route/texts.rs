//! A hash table from texts to small values with all texts in one piece of memory. It knows not what texts and values mean.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// A hash table whose keys are texts, each in one of several spaces. With thousands of keys a look-up meets cold memory, so that it touches little of it: one
/// line of 64 bytes, which holds the value and the text too; only long texts lie elsewhere, among their like.
#[derive(Debug)]
pub(super) struct TextMap<V> {
    /// Texts that are too long for their place.
    texts: String,
    slots: HashTable<Slot<V>>,
    hasher: RandomState,
}

/// Bytes of a text that is kept where its value is.
const SHORT: usize = 40;

/// A line of memory for values of up to 16 bytes.
#[derive(Debug)]
#[repr(align(64))]
struct Slot<V> {
    space: u32,
    length: u32,
    /// The text, or where a longer one begins in `texts`: four bytes, little endian.
    place: [u8; SHORT],
    value: V,
}

impl<V> Slot<V> {
    /// A slot for a text, which goes to `texts` when it is long.
    fn new(space: u32, text: &str, texts: &mut String, value: V) -> Slot<V> {
        let mut place = [0; SHORT];
        match place.get_mut(..text.len()) {
            Some(whole) => whole.copy_from_slice(text.as_bytes()),
            None => {
                place[..4].copy_from_slice(&(texts.len() as u32).to_le_bytes());
                texts.push_str(text);
            }
        }
        Slot { space, length: text.len() as u32, place, value }
    }

    fn text<'a>(&'a self, texts: &'a str) -> &'a [u8] {
        let length = self.length as usize;
        self.place.get(..length).unwrap_or_else(|| {
            let [a, b, c, d, ..] = self.place;
            let start = u32::from_le_bytes([a, b, c, d]) as usize;
            texts.as_bytes().get(start..start + length).unwrap_or_default()
        })
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
                let slot = free.insert(Slot::new(space, text, texts, make())).into_mut();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_texts_are_found_again() {
        let mut map = TextMap::default();
        let texts: Vec<String> = (0..200).map(|length| "x".repeat(length)).collect();
        for (number, text) in texts.iter().enumerate() {
            assert!(map.get_or_insert_with(0, text, || number).is_new);
            assert!(map.get_or_insert_with(1, text, || number + 1000).is_new);
            assert!(!map.get_or_insert_with(0, text, || 0).is_new);
        }
        for (number, text) in texts.iter().enumerate() {
            assert_eq!((map.get(0, text), map.get(1, text), map.get(2, text)), (Some(&number), Some(&(number + 1000)), None));
        }
        assert_eq!(map.get(0, &"x".repeat(200)), None);
        assert_eq!(size_of::<Slot<[u32; 4]>>(), 64, "a look-up touches one line");
    }
}
