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

/// Fields that are remembered, a power of two.
const SLOTS: usize = 64;
/// A field that takes more of the table than this part is not indexed.
const SHARE: usize = 4;

/// The encoding half of a connection.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// Two per hash value, side by side; made with the first field.
    slots: Vec<Slot>,
    /// Changes of the table size that the next block begins with: the smallest on the way, if smaller, and the last.
    resized: Option<(usize, usize)>,
    /// A name in lower case, or a path with its query.
    scratch: Vec<u8>,
}

/// A field that was said lately.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    /// Number of its entry, when it has one; may have been evicted since.
    number: Option<u32>,
    /// Whether it was said again since another one wanted the place.
    used: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder { table: Table::new(DEFAULT_TABLE_SIZE as usize), slots: Vec::new(), resized: None, scratch: Vec::new() }
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
                literal(out, 0, 4, Class::Path, b":path", &self.scratch);
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
            lower.extend(name.iter().map(u8::to_ascii_lowercase));
            self.write(out, Class::Field(id), &lower, value);
            self.scratch = lower;
        } else {
            self.write(out, Class::Field(id), name, value);
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, class: Class, name: &[u8], value: &[u8]) {
        match policy(class, name) {
            Policy::Never => literal(out, 0x10, 4, class, name, value),
            Policy::Learn if (name.len() + value.len()) * SHARE <= self.table.max() => self.learn(out, class, name, value),
            _ => literal(out, 0, 4, class, name, value),
        }
    }

    fn learn(&mut self, out: &mut Vec<u8>, class: Class, name: &[u8], value: &[u8]) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, Slot::default());
        }
        let hash = hash(class, name, value);
        let at = hash as usize % SLOTS;
        let at = if self.slots[at].hash == hash { at } else { at ^ 1 };
        if self.slots[at].hash != hash {
            self.remember(hash);
            return literal(out, 0, 4, class, name, value);
        }
        if let Some(index) = self.index(&self.slots[at])
            && let Some(entry) = self.table.get(index)
            && (entry.class, entry.value, entry.name) == (class, value, name)
        {
            self.slots[at].used = true;
            return write_integer(out, 0x80, 7, fixed::LEN + 1 + index);
        }
        literal(out, 0x40, 6, class, name, value);
        self.table.insert(Field { class, clean: true, underscored: false, name, value });
        self.slots[at] = Slot { hash, number: Some(self.table.inserted()), used: true };
    }

    /// Where the entry of a slot is in the table, if it still is.
    fn index(&self, slot: &Slot) -> Option<usize> {
        let index = self.table.inserted().wrapping_sub(slot.number?) as usize;
        (index < self.table.len()).then_some(index)
    }

    /// Takes a slot for a field that is said for the first time, one of two. A field that is said again and again keeps its slot against a single
    /// other, and of fields that have no entry the older one goes.
    fn remember(&mut self, hash: u32) {
        let (first, second) = (hash as usize % SLOTS, (hash as usize % SLOTS) ^ 1);
        let new = Slot { hash, number: None, used: false };
        let lives = [first, second].map(|at| self.index(&self.slots[at]).is_some());
        let used = [first, second].map(|at| self.slots[at].used);
        match (lives, used) {
            ([false, false], _) => {
                self.slots[second] = self.slots[first];
                self.slots[first] = new;
            }
            ([false, true], _) | ([true, true], [false, _]) => self.slots[first] = new,
            ([true, false], _) | ([true, true], [true, false]) => self.slots[second] = new,
            ([true, true], [true, true]) => {
                self.slots[first].used = false;
                self.slots[second].used = false;
            }
        }
    }
}

fn literal(out: &mut Vec<u8>, first: u8, bits: u32, class: Class, name: &[u8], value: &[u8]) {
    let index = fixed::name(class, name);
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
