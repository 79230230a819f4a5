//! The dynamic table (RFC 7541 sections 2.3.2 and 4): entries in one growing text, the oldest in front. It knows no representations.
//!
//! Text of evicted entries stays where it is until the text is twice as long as the table may be; then what lives is moved to the front. So an
//! insertion costs a copy and never an allocation of its own.

use std::collections::VecDeque;

use super::class::{Class, Field};

/// What an entry counts beside its octets (section 4.1).
const OVERHEAD: usize = 32;
/// Largest table, whatever the other end allows: bounds the memory of a connection and the text offsets.
pub(super) const MAX: usize = 1 << 15;

/// A dynamic table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Newest first.
    entries: VecDeque<Entry>,
    text: Vec<u8>,
    /// Octets that have been dropped from the front of the text in all, modulo 2^32.
    dropped: u32,
    size: usize,
    max: usize,
    inserted: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where the name begins, counted from the first octet that ever was in the text, modulo 2^32.
    at: u32,
    name_len: u16,
    value_len: u16,
    class: Class,
    clean: bool,
    underscored: bool,
}

impl Table {
    pub(super) fn new(max: usize) -> Table {
        Table { max: max.min(MAX), ..Table::default() }
    }

    /// Largest size now.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// How many entries were ever inserted, modulo 2^32: the number of the newest.
    pub(super) fn inserted(&self) -> u32 {
        self.inserted
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// An entry, 0 being the newest.
    pub(super) fn get(&self, index: usize) -> Option<Field<'_>> {
        let entry = self.entries.get(index)?;
        let at = self.place(entry);
        let (name, value) = self.text[at..at + entry.octets()].split_at(usize::from(entry.name_len));
        Some(Field { class: entry.class, clean: entry.clean, underscored: entry.underscored, name, value })
    }

    /// Changes the largest size and evicts what no longer fits.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max.min(MAX);
        self.evict(0);
    }

    /// Inserts a field, evicting what has no room beside it; one that is larger than the table leaves it empty (section 4.4).
    pub(super) fn insert(&mut self, field: Field<'_>) {
        if self.too_large(field.name.len() + field.value.len()) {
            return;
        }
        self.make_room(field.name.len() + field.value.len());
        let at = self.end();
        self.text.extend_from_slice(field.name);
        let (name_len, value_len) = (field.name.len() as u16, field.value.len() as u16);
        let (class, clean, underscored) = (field.class, field.clean, field.underscored);
        self.finish(Entry { at, name_len, value_len, class, clean, underscored }, field.value);
    }

    /// Inserts a field with the name of an entry, which may be evicted by that.
    pub(super) fn insert_named(&mut self, index: usize, value: &[u8], clean: bool) {
        let Some(&named) = self.entries.get(index) else { return };
        let name_len = usize::from(named.name_len);
        if self.too_large(name_len + value.len()) {
            return;
        }
        self.make_room(name_len + value.len());
        let (from, at) = (self.place(&named), self.end());
        self.text.extend_from_within(from..from + name_len);
        self.finish(Entry { at, value_len: value.len() as u16, clean, ..named }, value);
    }

    /// Where the next text begins, as entries count it.
    fn end(&self) -> u32 {
        self.dropped.wrapping_add(self.text.len() as u32)
    }

    /// Whether so many octets never fit; the table is empty then.
    fn too_large(&mut self, octets: usize) -> bool {
        let large = octets + OVERHEAD > self.max;
        if large {
            self.evict(self.max);
        }
        large
    }

    /// Drops dead text when there is as much as may live.
    fn make_room(&mut self, octets: usize) {
        if self.text.len() + octets <= 2 * self.max {
            return;
        }
        let live = self.entries.back().map_or(self.text.len(), |oldest| self.place(oldest));
        self.text.drain(..live);
        self.dropped = self.dropped.wrapping_add(live as u32);
    }

    /// Both lengths of an entry are smaller than the table, and that is at most [`MAX`].
    fn finish(&mut self, entry: Entry, value: &[u8]) {
        self.text.extend_from_slice(value);
        let size = entry.octets() + OVERHEAD;
        self.evict(size);
        self.size += size;
        self.entries.push_front(entry);
        self.inserted = self.inserted.wrapping_add(1);
    }

    /// Evicts until there is room for `size`.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.max
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.octets() + OVERHEAD;
        }
    }

    fn place(&self, entry: &Entry) -> usize {
        entry.at.wrapping_sub(self.dropped) as usize
    }
}

impl Entry {
    fn octets(&self) -> usize {
        usize::from(self.name_len) + usize::from(self.value_len)
    }
}
