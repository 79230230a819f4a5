//! Fields to blocks (RFC 7541 section 6). It keeps the table of its direction; which fields a message has others say.
//!
//! A field is indexed when it comes for the second time within a short while. So what a connection says again and again is soon one octet, and what
//! is said once never pushes it out of the table, without anybody having to know the names of either kind.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::class::{Class, Field};
use super::fixed;
use super::integer::{write_integer, write_string};
use super::policy::{Policy, policy};
use super::table::Table;
use crate::http::Name;
use crate::http::h2::frame::DEFAULT_TABLE_SIZE;

/// Fields that are remembered.
const SLOTS: usize = 128;
/// Places of which a field takes one.
const WAYS: usize = 4;
/// A field that takes more of the table than this part is not indexed.
const SHARE: usize = 4;
/// Room for all known names, and two.
const NAMES: usize = 64;
const AUTHORITY: usize = NAMES - 1;
const PATH: usize = NAMES - 2;
const _: () = assert!(Name::KNOWN.len() < PATH);

/// The encoding half of a connection.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// Four per hash value, side by side; made with the first field.
    slots: Vec<Slot>,
    /// The entry that was said last of each known name: for its name, and for what is said with every message; made with the slots.
    named: Vec<u32>,
    /// Changes of the table size that the next block begins with: the smallest on the way, if smaller, and the last.
    resized: Option<(usize, usize)>,
    /// A name in lower case, or a path with its query.
    scratch: Vec<u8>,
}

/// A field that was said lately.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    /// Number of its entry, 0 when it has none; may have been evicted since.
    number: u32,
    /// Whether it was said again since another one wanted the place.
    used: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder {
            table: Table::new(DEFAULT_TABLE_SIZE as usize),
            slots: Vec::new(),
            named: Vec::new(),
            resized: None,
            scratch: Vec::new(),
        }
    }
}

impl Encoder {
    /// One for a new connection.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Takes in that the other end's settings named table sizes, `smallest` and finally `last`. More than the default is not made use of.
    pub fn allow(&mut self, smallest: u32, last: u32) {
        let bound = |size: u32| size.min(DEFAULT_TABLE_SIZE) as usize;
        let (smallest, last) = (bound(smallest.min(last)), bound(last));
        if (smallest, last) == (self.table.max(), self.table.max()) && self.resized.is_none() {
            return;
        }
        let smallest = self.resized.map_or(smallest, |(before, _)| before.min(smallest));
        self.table.resize(smallest);
        self.table.resize(last);
        self.resized = Some((smallest, last));
    }

    /// Begins a block; before every first field.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((smallest, last)) = self.resized.take() {
            if smallest < last {
                write_integer(out, 0x20, 5, smallest);
            }
            write_integer(out, 0x20, 5, last);
        }
    }

    /// `:status`, from 100 to 999.
    pub fn status(&mut self, out: &mut Vec<u8>, status: u16) {
        match fixed::status(status) {
            Some(index) => write_integer(out, 0x80, 7, index),
            None => {
                let digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
                self.write(out, Class::Status, b":status", &digits);
            }
        }
    }

    /// `:method`.
    pub fn method(&mut self, out: &mut Vec<u8>, method: &[u8]) {
        match method {
            b"GET" => write_integer(out, 0x80, 7, 2),
            b"POST" => write_integer(out, 0x80, 7, 3),
            other => self.write(out, Class::Method, b":method", other),
        }
    }

    /// `:scheme`, `https` or `http`.
    pub fn scheme(&mut self, out: &mut Vec<u8>, tls: bool) {
        write_integer(out, 0x80, 7, if tls { 7 } else { 6 });
    }

    /// `:authority`.
    pub fn authority(&mut self, out: &mut Vec<u8>, authority: &[u8]) {
        self.write(out, Class::Authority, b":authority", authority);
    }

    /// `:path`, with the query when there is one. Queries carry tokens, and differ: such paths are not indexed.
    pub fn path(&mut self, out: &mut Vec<u8>, path: &[u8], query: Option<&[u8]>) {
        match (path, query) {
            (b"/", None) => write_integer(out, 0x80, 7, 4),
            (path, None) => self.write(out, Class::Path, b":path", path),
            (path, Some(query)) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(path);
                self.scratch.push(b'?');
                self.scratch.extend_from_slice(query);
                write_literal(out, 0, 4, fixed::name(Class::Path, b":path"), b":path", &self.scratch);
            }
        }
    }

    /// A field with a valid name in any case and a valid value.
    pub fn field(&mut self, out: &mut Vec<u8>, id: Name, name: &[u8], value: &[u8]) {
        if id != Name::Other {
            self.write(out, Class::Field(id), id.as_str().as_bytes(), value);
        } else if name.iter().any(u8::is_ascii_uppercase) {
            let mut lower = std::mem::take(&mut self.scratch);
            lower.clear();
            lower.extend_from_slice(name);
            lower.make_ascii_lowercase();
            self.write(out, Class::Field(id), &lower, value);
            self.scratch = lower;
        } else {
            self.write(out, Class::Field(id), name, value);
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, class: Class, name: &[u8], value: &[u8]) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, Slot::default());
            self.named.resize(NAMES, 0);
        }
        let place = place(class);
        if let Some(index) = place.and_then(|place| self.index(self.named[place]))
            && self.table.get(index).is_some_and(|entry| entry.value == value)
        {
            return write_integer(out, 0x80, 7, fixed::LEN + 1 + index);
        }
        let fits = (name.len() + value.len()) * SHARE <= self.table.max();
        match policy(class, name) {
            Policy::Learn if fits => self.learn(out, class, name, value),
            Policy::Never => self.literal(out, 0x10, class, name, value),
            // Once, so that the name can be said by its index from then on.
            _ if fits && place.is_some() && self.name_index(class, name) == 0 => self.insert(out, class, name, value),
            _ => self.literal(out, 0, class, name, value),
        }
    }

    fn learn(&mut self, out: &mut Vec<u8>, class: Class, name: &[u8], value: &[u8]) {
        let hash = hash(class, name, value);
        let set = hash as usize % (SLOTS / WAYS) * WAYS;
        let Some(at) = self.slots[set..set + WAYS].iter().position(|slot| slot.hash == hash) else {
            self.remember(hash, set);
            return self.literal(out, 0, class, name, value);
        };
        let at = set + at;
        let number = self.slots[at].number;
        if let Some(index) = self.index(number)
            && let Some(entry) = self.table.get(index)
            && (entry.class, entry.value, entry.name) == (class, value, name)
        {
            self.slots[at].used = true;
            if let Some(place) = place(class) {
                self.named[place] = number;
            }
            return write_integer(out, 0x80, 7, fixed::LEN + 1 + index);
        }
        self.insert(out, class, name, value);
        self.slots[at] = Slot { hash, number: self.table.inserted(), used: true };
    }

    /// Where the entry with a number is in the table, if it still is.
    fn index(&self, number: u32) -> Option<usize> {
        let index = self.table.inserted().wrapping_sub(number) as usize;
        (number > 0 && index < self.table.len()).then_some(index)
    }

    /// Takes one of the slots for a field that is said for the first time. Of fields that have no entry the oldest goes; one that is said again
    /// and again keeps its slot against a single other.
    fn remember(&mut self, hash: u32, set: usize) {
        let vacant = |encoder: &Encoder, slot: &Slot| encoder.index(slot.number).is_none();
        let slots = &self.slots[set..set + WAYS];
        let place = slots.iter().rposition(|slot| vacant(self, slot)).or_else(|| slots.iter().rposition(|slot| !slot.used));
        let slots = &mut self.slots[set..set + WAYS];
        match place {
            Some(place) => {
                slots[..=place].rotate_right(1);
                slots[0] = Slot { hash, number: 0, used: false };
            }
            None => slots.iter_mut().for_each(|slot| slot.used = false),
        }
    }

    /// Says a field and indexes it.
    fn insert(&mut self, out: &mut Vec<u8>, class: Class, name: &[u8], value: &[u8]) {
        write_literal(out, 0x40, 6, self.name_index(class, name), name, value);
        self.table.insert(Field { class, clean: true, underscored: false, name, value });
        if let Some(place) = place(class) {
            self.named[place] = self.table.inserted();
        }
    }

    fn literal(&self, out: &mut Vec<u8>, first: u8, class: Class, name: &[u8], value: &[u8]) {
        write_literal(out, first, 4, self.name_index(class, name), name, value);
    }

    /// Index of an entry with this name, 0 where there is none.
    fn name_index(&self, class: Class, name: &[u8]) -> usize {
        match (fixed::name(class, name), place(class)) {
            (0, Some(place)) => self.index(self.named[place]).map_or(0, |index| fixed::LEN + 1 + index),
            (index, _) => index,
        }
    }
}

/// Where the last entry with a known name is noted.
fn place(class: Class) -> Option<usize> {
    match class {
        Class::Field(Name::Other) => None,
        Class::Field(known) => Some(known as usize),
        Class::Authority => Some(AUTHORITY),
        Class::Path => Some(PATH),
        _ => None,
    }
}

fn write_literal(out: &mut Vec<u8>, first: u8, bits: u32, index: usize, name: &[u8], value: &[u8]) {
    write_integer(out, first, bits, index);
    if index == 0 {
        write_string(out, name);
    }
    write_string(out, value);
}

/// Collisions cost an index, nothing else: a hit is compared.
fn hash(class: Class, name: &[u8], value: &[u8]) -> u32 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    match class {
        Class::Field(Name::Other) => hasher.write(name),
        Class::Field(known) => hasher.write_u8(known as u8),
        Class::Authority => hasher.write_u8(u8::MAX),
        Class::Path => hasher.write_u8(u8::MAX - 1),
        _ => hasher.write(name),
    }
    hasher.write(value);
    hasher.finish() as u32
}
