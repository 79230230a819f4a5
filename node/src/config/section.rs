//! Reading a map key by key, collecting every mistake. It does not know which keys there are: its user asks for them.

use std::cell::RefCell;
use std::collections::{BTreeMap, btree_map};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::mistake::{Mistake, Mistakes, excerpt, suggest};
use super::secret::Secret;
use super::tree::{Data, Document, Entry, Node, Position};
use super::units;

/// A map that is being read. Every getter returns `None` for a key that is missing or `null` as well as for a wrong value, which is then noted as a mistake;
/// keys that nobody asked for are mistakes when the whole document has been read, since several floors may read keys of one map.
pub struct Section<'d> {
    shared: &'d Shared,
    path: String,
    at: Position,
    entries: &'d [Entry],
    asked: Vec<&'static str>,
}

/// What all sections of a document write to.
struct Shared {
    file: Arc<str>,
    mistakes: RefCell<Mistakes>,
    asked: RefCell<BTreeMap<(Position, String), Asked>>,
}

/// What was asked for in one map so far, and what else is in it.
#[derive(Default)]
struct Asked {
    keys: Vec<&'static str>,
    unknown: Vec<(Position, String)>,
}

impl Shared {
    fn new(file: &Arc<str>) -> Shared {
        Shared { file: file.clone(), mistakes: RefCell::default(), asked: RefCell::default() }
    }

    fn note(&self, at: Position, path: String, message: String) {
        let mistake = Mistake { file: self.file.clone(), at, path, message };
        let mut mistakes = self.mistakes.borrow_mut();
        if !mistakes.contains(&mistake) {
            mistakes.push(mistake);
        }
    }

    /// Ends the reading: what nobody has asked for is unknown.
    fn finish(self) -> Mistakes {
        let asked = self.asked.take();
        for ((_, path), Asked { keys, unknown }) in asked {
            for (at, key) in unknown {
                let meant = match suggest(&key, keys.iter().copied()) {
                    Some(name) => format!("; did you mean `{name}`?"),
                    None if keys.is_empty() => String::new(),
                    None => format!("; expected one of: {}", keys.join(", ")),
                };
                self.note(at, joined(&path, &key), format!("unknown key `{}`{meant}", excerpt(&key)));
            }
        }
        self.mistakes.into_inner()
    }
}

impl Section<'_> {
    /// Reads a whole document.
    pub(super) fn whole<T>(document: &Document, read: impl FnOnce(&mut Section<'_>) -> T) -> Result<T, Mistakes> {
        let shared = Shared::new(&document.file);
        let value = Section::visit(&shared, String::new(), document.root.at, Some(&document.root), read);
        shared.finish().or(value)
    }
}

impl<'d> Section<'d> {
    fn visit<T>(
        shared: &'d Shared,
        path: String,
        at: Position,
        node: Option<&'d Node>,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let entries = match node.map(|node| &node.data) {
            Some(Data::Map(entries)) => entries.as_slice(),
            None | Some(Data::Null) => &[],
            Some(_) => {
                let found = node.map_or("nothing", Node::kind);
                shared.note(at, path.clone(), format!("expected a map, found {found}"));
                // Its defaults are read without further complaints: whatever it lacks is this same mistake.
                let quiet = Shared::new(&shared.file);
                return read(&mut Section { shared: &quiet, path, at, entries: &[], asked: Vec::new() });
            }
        };
        let mut section = Section { shared, path, at, entries, asked: Vec::new() };
        let value = read(&mut section);
        section.remember();
        value
    }

    /// Keeps what was asked for here, for the end of the reading.
    fn remember(self) {
        let mut all = self.shared.asked.borrow_mut();
        let asked = match all.entry((self.at, self.path)) {
            btree_map::Entry::Occupied(earlier) => {
                let asked = earlier.into_mut();
                asked.unknown.retain(|(_, key)| !self.asked.contains(&key.as_str()));
                asked
            }
            btree_map::Entry::Vacant(first) => {
                let unknown = self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str()));
                let unknown = unknown.map(|entry| (entry.key_at, entry.key.clone())).collect();
                first.insert(Asked { keys: Vec::new(), unknown })
            }
        };
        let new = self.asked.into_iter().filter(|key| !asked.keys.contains(key)).collect::<Vec<_>>();
        asked.keys.extend(new);
    }

    fn path_of(&self, key: &str) -> String {
        joined(&self.path, key)
    }

    /// The entry of a key, which is known from now on; `None` when it is missing or `null`.
    fn ask(&mut self, key: &'static str) -> Option<&'d Entry> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.entries.iter().find(|entry| entry.key == key && entry.node.data != Data::Null)
    }

    fn wrong<T>(&self, key: &str, entry: &Entry, expected: &str, found: &str) -> Option<T> {
        self.shared.note(entry.node.at, self.path_of(key), format!("expected {expected}, found {found}"));
        None
    }

    /// Text that `parse` understands. Numbers are taken as they are written in JSON, so that `size: 512` needs no quotes.
    fn scalar<T>(&mut self, key: &'static str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let entry = self.ask(key)?;
        let text = match &entry.node.data {
            Data::String(text) => text.clone(),
            Data::Number(number) => number.to_string(),
            _ => return self.wrong(key, entry, expected, entry.node.kind()),
        };
        match parse(&text) {
            Some(value) => Some(value),
            None => self.wrong(key, entry, expected, &format!("`{}`", excerpt(&text))),
        }
    }

    /// Whether the key is given.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.ask(key).is_some()
    }

    /// Where the value of a key stands, or the section when it is missing.
    pub fn place(&mut self, key: &'static str) -> Position {
        self.ask(key).map_or(self.at, Entry::place)
    }

    /// Notes that a key must be given.
    pub fn require(&mut self, key: &'static str) -> &mut Self {
        if self.ask(key).is_none() {
            self.shared.note(self.at, self.path.clone(), format!("the key `{key}` is missing"));
        }
        self
    }

    /// Notes a mistake in the value of a key that its user found, for example two settings that exclude each other.
    pub fn mistake(&mut self, key: &'static str, message: impl Into<String>) {
        let at = self.place(key);
        self.shared.note(at, self.path_of(key), message.into());
    }

    /// A string.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        let entry = self.ask(key)?;
        match &entry.node.data {
            Data::String(text) => Some(text.clone()),
            Data::Number(_) | Data::Bool(_) => self.wrong(key, entry, "a string", &format!("{} (quote it)", entry.node.kind())),
            _ => self.wrong(key, entry, "a string", entry.node.kind()),
        }
    }

    /// A string that is not empty.
    pub fn name(&mut self, key: &'static str) -> Option<String> {
        let text = self.string(key)?;
        if text.trim().is_empty() {
            self.mistake(key, "expected some text, found an empty string");
            return None;
        }
        Some(text)
    }

    /// A string that is never shown.
    pub fn secret(&mut self, key: &'static str) -> Option<Secret> {
        self.name(key).map(Secret::new)
    }

    /// A path in the file system.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.name(key).map(PathBuf::from)
    }

    /// `true` or `false`.
    pub fn bool(&mut self, key: &'static str) -> Option<bool> {
        let entry = self.ask(key)?;
        match &entry.node.data {
            Data::Bool(value) => Some(*value),
            Data::String(text) => self.wrong(key, entry, "true or false", &format!("`{}`", excerpt(text))),
            _ => self.wrong(key, entry, "true or false", entry.node.kind()),
        }
    }

    /// A whole number within `range`.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = match (*range.start(), *range.end()) {
            (start, u64::MAX) => format!("a whole number of at least {start}"),
            (start, end) => format!("a whole number between {start} and {end}"),
        };
        self.scalar(key, &expected, |text| text.parse::<u64>().ok().filter(|number| range.contains(number)))
    }

    /// A whole number that fits 16 bits.
    pub fn u16(&mut self, key: &'static str) -> Option<u16> {
        self.integer(key, 0..=u64::from(u16::MAX)).and_then(|number| u16::try_from(number).ok())
    }

    /// A whole number within `range` that fits 32 bits.
    pub fn u32(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        self.integer(key, wide).and_then(|number| u32::try_from(number).ok())
    }

    /// A whole number within `range` that counts things in memory.
    pub fn count(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<usize> {
        self.u32(key, range).and_then(|number| usize::try_from(number).ok())
    }

    /// A number within `range`.
    pub fn float(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let expected = format!("a number between {} and {}", range.start(), range.end());
        self.scalar(key, &expected, |text| text.parse::<f64>().ok().filter(|number| range.contains(number)))
    }

    /// A duration with unit: `5s`, `200ms`, `1m30s`.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.scalar(key, "a duration with unit (200ms, 5s, 1m30s, 2h)", units::parse_duration)
    }

    /// A size in bytes: `64KiB`, `10MB`, `512`.
    pub fn size(&mut self, key: &'static str) -> Option<u64> {
        self.scalar(key, "a size (512, 64KiB, 10MiB, 2GB)", units::parse_size)
    }

    /// An address with port. Brackets may stand around IPv4, too: then one text, `[${POD_IP}]:8080`, is right for either family.
    pub fn socket_addr(&mut self, key: &'static str) -> Option<SocketAddr> {
        self.scalar(key, "an address with port (127.0.0.1:9080, [::1]:9080)", |text| {
            let bare = || text.strip_prefix('[')?.split_once("]:");
            text.parse().ok().or_else(|| bare().and_then(|(ip, port)| Some(SocketAddr::V4(format!("{ip}:{port}").parse().ok()?))))
        })
    }

    /// Anything with `FromStr`.
    pub fn parsed<T: FromStr>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        self.scalar(key, expected, |text| text.parse().ok())
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let entry = self.ask(key)?;
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let expected = format!("one of: {}", names.join(", "));
        let Data::String(text) = &entry.node.data else { return self.wrong(key, entry, &expected, entry.node.kind()) };
        if let Some((_, value)) = choices.iter().find(|(name, _)| name == text) {
            return Some(*value);
        }
        let meant = suggest(text, names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        self.wrong(key, entry, &expected, &format!("`{}`{meant}", excerpt(text)))
    }

    /// A list whose items `parse` understands; every bad item is a mistake.
    pub fn parsed_list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        mut parse: impl FnMut(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.items(key)?;
        let mut values = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let found = match &item.data {
                Data::String(text) => match parse(text) {
                    Some(value) => {
                        values.push(value);
                        continue;
                    }
                    None => format!("`{}`", excerpt(text)),
                },
                _ => item.kind().to_owned(),
            };
            let path = format!("{}[{i}]", self.path_of(key));
            self.shared.note(item.at, path, format!("expected {expected}, found {found}"));
        }
        Some(values)
    }

    /// A list of strings.
    pub fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        self.parsed_list(key, "a string", |text| Some(text.to_owned()))
    }

    /// A list of networks (`10.0.0.0/8`) or single addresses.
    pub fn networks(&mut self, key: &'static str) -> Option<Vec<IpNet>> {
        self.parsed_list(key, "a network (10.0.0.0/8) or an IP address", |text| {
            text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        })
    }

    /// A list of maps, each read by `read`.
    pub fn list<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Section<'_>) -> T) -> Option<Vec<T>> {
        let items = self.items(key)?;
        let path = self.path_of(key);
        let visit =
            |(i, item): (usize, &'d Node)| Section::visit(self.shared, format!("{path}[{i}]"), item.at, Some(item), &mut read);
        Some(items.iter().enumerate().map(visit).collect())
    }

    /// A map whose keys are names that users choose, each value read by `read`.
    pub fn named<T>(&mut self, key: &'static str, mut read: impl FnMut(&str, &mut Section<'_>) -> T) -> Option<Vec<T>> {
        let entry = self.ask(key)?;
        let Data::Map(entries) = &entry.node.data else { return self.wrong(key, entry, "a map", entry.node.kind()) };
        let path = self.path_of(key);
        let visit = |entry: &'d Entry| {
            let path = format!("{path}.{}", entry.key);
            Section::visit(self.shared, path, entry.place(), Some(&entry.node), |section| read(&entry.key, section))
        };
        Some(entries.iter().map(visit).collect())
    }

    /// A nested map. A missing one reads like an empty one, so that its defaults apply.
    pub fn nested<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let entry = self.ask(key);
        let at = entry.map_or(self.at, Entry::place);
        Section::visit(self.shared, self.path_of(key), at, entry.map(|entry| &entry.node), read)
    }

    /// A nested map, when it is given.
    pub fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> Option<T> {
        let given = self.has(key);
        given.then(|| self.nested(key, read))
    }

    /// A value of any shape, which somebody else checks.
    pub fn value(&mut self, key: &'static str) -> Option<Value> {
        self.ask(key).map(|entry| entry.node.to_json())
    }

    /// A list of values of any shape with their places.
    pub fn values(&mut self, key: &'static str) -> Option<Vec<(Position, Value)>> {
        Some(self.items(key)?.iter().map(|item| (item.at, item.to_json())).collect())
    }

    fn items(&mut self, key: &'static str) -> Option<&'d [Node]> {
        let entry = self.ask(key)?;
        match &entry.node.data {
            Data::List(items) => Some(items),
            _ => self.wrong(key, entry, "a list", entry.node.kind()),
        }
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
