//! Facts of a member as the small keys and values that are gossiped, and back. Pure, bounded both ways, and it trusts nothing that it reads.
//!
//! Each key travels singly when it changes, so what changes often is cut into shards: one endpoint that fails moves one small value.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::facts::{Cell, CellMember, EndpointLoad, Facts, LimitUse, MemberState, NodeLoad, Observation, Seen};

/// The most observations of one member.
pub const MAX_OBSERVATIONS: usize = 256;
/// The most loads of endpoints of one member.
pub const MAX_LOADS: usize = 256;
/// The most uses of limits of one member.
pub const MAX_USES: usize = 1_024;
/// The most other cells that one member tells of.
pub const MAX_CELLS: usize = 8;
/// The most members of one other cell that are told by name.
pub const MAX_CELL_MEMBERS: usize = 64;
/// The longest value of one key; what does not fit is left out. All values of a member together stay far below what one message carries.
pub const MAX_VALUE_BYTES: usize = 12 * 1_024;
/// The most ports of one member.
pub const MAX_PORTS: usize = 32;
/// The longest id, group, zone or version.
const MAX_WORD: usize = 128;
/// The longest name of an upstream.
const MAX_UPSTREAM: usize = 256;
/// The longest configuration version.
const MAX_CONFIG: usize = 256;
/// Into how many keys observations and loads are cut.
const SHARDS: u64 = 8;
/// Into how many keys uses are cut.
const USE_SHARDS: u64 = 16;

/// What it is: id, role, group, zone, address, version.
const ABOUT: &str = "about";
/// What it holds and whether it is about to leave.
const HOLDS: &str = "holds";
/// How busy it is.
const LOAD: &str = "load";
/// What checks have found, a shard each.
const HEALTH: &str = "health.";
/// Requests in flight at endpoints, a shard each.
const LOADS: &str = "loads.";
/// What was let through of limits, a shard each.
const USES: &str = "uses.";
/// Other cells, one each.
const CELLS: &str = "cells.";
/// Said good-bye.
const LEFT: &str = "left";

/// What is gossiped of one member.
pub type Pairs = BTreeMap<String, String>;

/// What was read of one member.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// Id of its node.
    pub id: Arc<str>,
    /// What it says.
    pub facts: Facts,
    /// Whether it said good-bye.
    pub left: bool,
    /// How many keys and entries were nonsense or beyond the bounds.
    pub dropped: u64,
}

#[derive(Serialize, Deserialize)]
struct About {
    id: String,
    role: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    zone: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    cell: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<u16>,
}

#[derive(Serialize, Deserialize, Default)]
struct Holds {
    #[serde(default)]
    config: String,
    #[serde(default)]
    draining: bool,
    #[serde(default)]
    checked: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<bool>,
}

/// Name of the upstream, endpoint, whether it is up, since when.
type ObservationEntry = (String, SocketAddr, bool, u64);
/// Name of the upstream, endpoint, requests in flight.
type LoadEntry = (String, SocketAddr, u32);
/// Key, start of the window, how many.
type UseEntry = (u64, u64, u32);
/// Name of the cell; alive, suspect, dead, left; members by id, role, zone and state, a number in [`MemberState::ALL`].
type CellEntry = (String, [u32; 4], Vec<(String, String, String, usize)>);

/// That it is so.
const SAID: &str = "true";

/// The good-bye of a member.
#[must_use]
pub fn farewell() -> (&'static str, &'static str) {
    (LEFT, SAID)
}

/// Whether this is the name of something that is gossiped.
#[must_use]
pub fn is_key(key: &str) -> bool {
    let shard = |prefix: &str, shards: u64| {
        let number = key.strip_prefix(prefix).and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| number < shards)
    };
    matches!(key, ABOUT | HOLDS | LOAD | LEFT)
        || shard(HEALTH, SHARDS)
        || shard(LOADS, SHARDS)
        || shard(USES, USE_SHARDS)
        || shard(CELLS, MAX_CELLS as u64)
}

/// What is gossiped of this node, and how many entries had to stay behind.
#[must_use]
pub fn encode(id: &str, facts: &Facts) -> (Pairs, u64) {
    let mut out = Writer::default();
    let word = |text: &str| cut(text, MAX_WORD).to_owned();
    out.put(
        ABOUT.to_owned(),
        &About {
            id: word(id),
            role: word(&facts.role),
            group: word(&facts.group),
            zone: word(&facts.zone),
            address: facts.address,
            version: word(&facts.version),
            cell: word(&facts.cell),
            ports: facts.ports.iter().copied().take(MAX_PORTS).collect(),
        },
    );
    let config = cut(&facts.config_version, MAX_CONFIG).to_owned();
    let holds = Holds { config, draining: facts.draining, checked: facts.checked_s, store: facts.sees_store };
    out.put(HOLDS.to_owned(), &holds);
    // Said too, so that a good-bye which somebody else has put in our place does not stay.
    out.pairs.insert(LEFT.to_owned(), String::new());
    out.put(LOAD.to_owned(), &(facts.load.in_flight, facts.load.requests_per_second));
    out.shards(HEALTH, SHARDS, &facts.observations, MAX_OBSERVATIONS, |seen| {
        let shard = spread(&seen.upstream, seen.endpoint);
        (shard, (seen.upstream.to_string(), seen.endpoint, seen.seen == Seen::Up, seen.since_ms))
    });
    out.shards(LOADS, SHARDS, &facts.loads, MAX_LOADS, |load| {
        (spread(&load.upstream, load.endpoint), (load.upstream.to_string(), load.endpoint, load.in_flight))
    });
    out.shards(USES, USE_SHARDS, &facts.uses, MAX_USES, |used| (used.key, (used.key, used.window_ms, used.used)));
    out.left_out += facts.cells.len().saturating_sub(MAX_CELLS) as u64;
    facts.cells.iter().take(MAX_CELLS).enumerate().for_each(|(nth, cell)| out.cell(nth, cell));
    (out.pairs, out.left_out)
}

/// What a member says, as far as it makes sense; `None` before it has said who it is. `now_ms` is our wall clock: nothing has been found out later than
/// that.
#[must_use]
pub fn decode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, now_ms: u64) -> Option<Read> {
    let mut reader = Reader::default();
    for (key, value) in pairs {
        reader.take(key, value, now_ms);
    }
    let Reader { about, holds, load, left, observations, loads, uses, cells, dropped } = reader;
    let about = about?;
    let facts = Facts {
        role: about.role.into(),
        group: about.group.into(),
        zone: about.zone.into(),
        cell: about.cell.into(),
        address: about.address,
        version: about.version.into(),
        config_version: holds.config.into(),
        load: NodeLoad { in_flight: load.0, requests_per_second: load.1 },
        draining: holds.draining,
        sees_store: holds.store,
        ports: about.ports.into(),
        checked_s: holds.checked,
        observations: observations.into(),
        loads: loads.into(),
        uses: uses.into(),
        cells: cells.into(),
    };
    Some(Read { id: about.id.into(), facts, left, dropped })
}

#[derive(Default)]
struct Writer {
    pairs: Pairs,
    left_out: u64,
}

impl Writer {
    fn put(&mut self, key: String, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => {
                self.pairs.insert(key, text);
            }
            Err(_) => self.left_out += 1,
        }
    }

    /// A cell, with as many of its members as fit.
    fn cell(&mut self, nth: usize, cell: &Cell) {
        let state = |state| MemberState::ALL.iter().position(|known| *known == state).unwrap_or_default();
        let word = |text: &str| cut(text, MAX_WORD).to_owned();
        let member = |one: &CellMember| (word(&one.id), word(&one.role), word(&one.zone), state(one.state));
        let mut members: Vec<_> = cell.members.iter().take(MAX_CELL_MEMBERS).map(member).collect();
        loop {
            let entry: CellEntry = (word(&cell.name), [cell.alive, cell.suspect, cell.dead, cell.left], members.clone());
            let fits = serde_json::to_string(&entry).is_ok_and(|text| text.len() <= MAX_VALUE_BYTES);
            if fits || members.is_empty() {
                return self.put(format!("{CELLS}{nth}"), &entry);
            }
            self.left_out += (members.len() - members.len() / 2) as u64;
            members.truncate(members.len() / 2);
        }
    }

    /// Cuts entries into shards. What is too much is left out: of the entries the last ones, of a shard those that do not fit.
    fn shards<T, E: Serialize>(&mut self, prefix: &str, shards: u64, entries: &[T], most: usize, entry: impl Fn(&T) -> (u64, E)) {
        let mut texts: BTreeMap<u64, String> = BTreeMap::new();
        self.left_out += entries.len().saturating_sub(most) as u64;
        for (shard, entry) in entries.iter().take(most).map(entry) {
            let (text, Ok(written)) = (texts.entry(shard % shards).or_default(), serde_json::to_string(&entry)) else {
                self.left_out += 1;
                continue;
            };
            // One separator and the brackets come on top.
            if text.len() + written.len() + 3 > MAX_VALUE_BYTES {
                self.left_out += 1;
                continue;
            }
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(&written);
        }
        self.pairs.extend(texts.into_iter().map(|(shard, text)| (format!("{prefix}{shard}"), format!("[{text}]"))));
    }
}

#[derive(Default)]
struct Reader {
    about: Option<About>,
    holds: Holds,
    load: (u32, u32),
    left: bool,
    observations: Vec<Observation>,
    loads: Vec<EndpointLoad>,
    uses: Vec<LimitUse>,
    cells: Vec<Cell>,
    dropped: u64,
}

impl Reader {
    fn take(&mut self, key: &str, value: &str, now_ms: u64) {
        if value.len() > MAX_VALUE_BYTES {
            self.dropped += 1;
            return;
        }
        match key {
            ABOUT => {
                let about: Option<About> = self.parse(value);
                self.about = about.filter(About::is_sane);
                self.dropped += u64::from(self.about.is_none());
            }
            HOLDS => {
                let holds: Holds = self.parse(value).unwrap_or_default();
                self.holds = if is_word(&holds.config, MAX_CONFIG) { holds } else { Holds::default() };
            }
            LOAD => self.load = self.parse(value).unwrap_or_default(),
            LEFT => self.left = value == SAID,
            _ => self.take_shard(key, value, now_ms),
        }
    }

    /// Keys that nobody knows here are those of a later version, and none of ours: they are not counted.
    fn take_shard(&mut self, key: &str, value: &str, now_ms: u64) {
        if key.starts_with(HEALTH) {
            for (upstream, endpoint, up, since_ms) in self.parse::<Vec<ObservationEntry>>(value).unwrap_or_default() {
                let fits = self.observations.len() < MAX_OBSERVATIONS && is_upstream(&upstream);
                let seen = if up { Seen::Up } else { Seen::Down };
                let upstream = upstream.into();
                let observation = Observation { upstream, endpoint, seen, since_ms: since_ms.min(now_ms) };
                self.keep(fits, |reader| reader.observations.push(observation));
            }
        } else if key.starts_with(LOADS) {
            for (upstream, endpoint, in_flight) in self.parse::<Vec<LoadEntry>>(value).unwrap_or_default() {
                let fits = self.loads.len() < MAX_LOADS && is_upstream(&upstream);
                self.keep(fits, |reader| reader.loads.push(EndpointLoad { upstream: upstream.into(), endpoint, in_flight }));
            }
        } else if key.starts_with(USES) {
            for (key, window_ms, used) in self.parse::<Vec<UseEntry>>(value).unwrap_or_default() {
                let fits = self.uses.len() < MAX_USES;
                self.keep(fits, |reader| reader.uses.push(LimitUse { key, window_ms, used }));
            }
        } else if key.starts_with(CELLS) {
            let cell = self.parse::<CellEntry>(value).and_then(|entry| {
                let cell = cell(entry).filter(|_| self.cells.len() < MAX_CELLS);
                self.dropped += u64::from(cell.is_none());
                cell
            });
            self.cells.extend(cell);
        }
    }

    fn keep(&mut self, fits: bool, push: impl FnOnce(&mut Reader)) {
        if fits { push(self) } else { self.dropped += 1 }
    }

    /// An emptied value says that there is nothing any more.
    fn parse<T: serde::de::DeserializeOwned>(&mut self, value: &str) -> Option<T> {
        if value.is_empty() {
            return None;
        }
        let parsed = serde_json::from_str(value).ok();
        self.dropped += u64::from(parsed.is_none());
        parsed
    }
}

/// A cell, when what is said of it makes sense.
fn cell((name, [alive, suspect, dead, left], members): CellEntry) -> Option<Cell> {
    let member = |(id, role, zone, state): (String, String, String, usize)| {
        let sane = !id.is_empty() && [&id, &role, &zone].iter().all(|word| is_word(word, MAX_WORD));
        let state = MemberState::ALL.get(state).copied().filter(|_| sane)?;
        Some(CellMember { id: id.into(), role: role.into(), zone: zone.into(), state })
    };
    let fits = members.len() <= MAX_CELL_MEMBERS && is_word(&name, MAX_WORD);
    let members: Option<Vec<CellMember>> = members.into_iter().map(member).collect();
    Some(Cell { name: name.into(), alive, suspect, dead, left, members: members.filter(|_| fits)?.into() })
}

impl About {
    fn is_sane(&self) -> bool {
        let words = [&self.role, &self.group, &self.zone, &self.version, &self.cell];
        !self.id.is_empty()
            && self.ports.len() <= MAX_PORTS
            && is_word(&self.id, MAX_WORD)
            && words.iter().all(|word| is_word(word, MAX_WORD))
    }
}

/// Terminals and metrics show them: no control characters.
fn is_word(text: &str, most: usize) -> bool {
    text.len() <= most && !text.chars().any(char::is_control)
}

fn is_upstream(name: &str) -> bool {
    !name.is_empty() && is_word(name, MAX_UPSTREAM)
}

/// As much of a text as is allowed, whole characters.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The shard of an endpoint: it stays where it is, whatever else is there (FNV-1a).
fn spread(upstream: &str, endpoint: SocketAddr) -> u64 {
    let address: u128 = match endpoint.ip() {
        std::net::IpAddr::V4(v4) => u128::from(u32::from(v4)),
        std::net::IpAddr::V6(v6) => u128::from(v6),
    };
    let bytes = upstream.bytes().chain(address.to_be_bytes()).chain(endpoint.port().to_be_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The low bits of this hash are its weakest.
    hash >> 32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn read(pairs: &Pairs) -> Option<Read> {
        decode(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())), NOW)
    }

    fn observation(number: u16) -> Observation {
        let endpoint = SocketAddr::from(([10, 0, 0, 1], number));
        Observation {
            upstream: "web".into(),
            endpoint,
            seen: if number.is_multiple_of(2) { Seen::Up } else { Seen::Down },
            since_ms: 7,
        }
    }

    fn facts() -> Facts {
        Facts {
            role: "gateway".into(),
            group: "edge".into(),
            zone: "eu-1".into(),
            cell: "eu".into(),
            address: Some(SocketAddr::from(([10, 0, 0, 1], 7946))),
            version: "0.1.0".into(),
            config_version: "42".into(),
            load: NodeLoad { in_flight: 3, requests_per_second: 900 },
            draining: true,
            sees_store: Some(false),
            ports: [80, 443].into(),
            checked_s: 1_700_000_000,
            observations: (0..40).map(observation).collect(),
            loads: [EndpointLoad { upstream: "web".into(), endpoint: "[::1]:80".parse().unwrap(), in_flight: 9 }].into(),
            uses: (0..40).map(|n| LimitUse { key: n << 60 | n, window_ms: NOW, used: 5 }).collect(),
            cells: (0..3).map(|nth| other_cell(nth, 5)).collect(),
        }
    }

    fn other_cell(nth: usize, members: usize) -> Cell {
        let member = |of: usize| CellMember {
            id: format!("gw-{of}").into(),
            role: "gateway".into(),
            zone: "us-1".into(),
            state: MemberState::ALL[of % 4],
        };
        let members = (0..members).map(member).collect();
        Cell { name: format!("us-{nth}").into(), alive: 900, suspect: 1, dead: 2, left: 3, members }
    }

    #[test]
    fn other_cells_are_bounded_when_said_and_when_heard() {
        let long: Arc<str> = "x".repeat(MAX_WORD).into();
        let mut wide = other_cell(0, MAX_CELL_MEMBERS);
        wide.members =
            wide.members.iter().map(|member| CellMember { zone: long.clone(), role: long.clone(), ..member.clone() }).collect();
        let cells: Vec<Cell> = std::iter::once(wide).chain((1..20).map(|nth| other_cell(nth, 100))).collect();
        let (pairs, left_out) = encode("a", &Facts { cells: cells.into(), ..facts() });
        assert!(left_out >= 12 && pairs.values().all(|value| value.len() <= MAX_VALUE_BYTES));
        let heard = read(&pairs).unwrap().facts.cells;
        assert_eq!(heard.len(), MAX_CELLS);
        assert!(heard.iter().all(|cell| cell.members.len() <= MAX_CELL_MEMBERS && !cell.members.is_empty()));
        let mut forged = pairs.clone();
        forged.insert("cells.0".into(), r#"["us",[1,2,3,4],[["gw","gateway","z",9]]]"#.into());
        let heard = read(&forged).unwrap();
        assert_eq!((heard.facts.cells.len(), heard.dropped), (MAX_CELLS - 1, 1));
    }

    fn sorted(mut facts: Facts) -> Facts {
        let mut observations = facts.observations.to_vec();
        observations.sort_by_key(|seen| seen.endpoint);
        facts.observations = observations.into();
        let mut uses = facts.uses.to_vec();
        uses.sort_by_key(|used| used.key);
        facts.uses = uses.into();
        facts
    }

    #[test]
    fn what_is_said_is_heard() {
        let (pairs, left_out) = encode("gw-1", &facts());
        let heard = read(&pairs).unwrap();
        assert_eq!((left_out, heard.dropped, heard.left, &*heard.id), (0, 0, false, "gw-1"));
        assert_eq!(sorted(heard.facts), sorted(facts()));
    }

    #[test]
    fn one_change_moves_one_small_value() {
        let mut changed = facts();
        let mut observations = changed.observations.to_vec();
        observations[7].seen = Seen::Up;
        changed.observations = observations.into();
        let (before, after) = (encode("a", &facts()).0, encode("a", &changed).0);
        let moved: Vec<&String> =
            after.iter().filter(|(key, value)| before.get(*key) != Some(value)).map(|(key, _)| key).collect();
        assert_eq!(moved.len(), 1, "{moved:?}");
        assert!(moved[0].starts_with(HEALTH));
    }

    #[test]
    fn too_much_stays_behind_and_is_counted() {
        let long: Arc<str> = "u".repeat(MAX_UPSTREAM).into();
        let many: Vec<Observation> = (0..1_000).map(|n| Observation { upstream: long.clone(), ..observation(n) }).collect();
        let uses: Vec<LimitUse> = (0..3_000).map(|key| LimitUse { key, window_ms: NOW, used: u32::MAX }).collect();
        let said = Facts { observations: many.into(), uses: uses.into(), ..facts() };
        let (pairs, left_out) = encode("a", &said);
        assert!(left_out >= 744 + 1_976, "{left_out}");
        assert!(pairs.values().all(|value| value.len() <= MAX_VALUE_BYTES));
        // Everything of one member fits a message, twice.
        assert!(pairs.values().map(String::len).sum::<usize>() < 200 * 1_024);
        let heard = read(&pairs).unwrap();
        assert!(heard.facts.observations.len() <= MAX_OBSERVATIONS && heard.facts.uses.len() == MAX_USES);
        assert_eq!(heard.dropped, 0);
    }

    #[test]
    fn a_liar_is_bounded() {
        let (mut pairs, _) = encode("a", &Facts::default());
        let flood: Vec<ObservationEntry> =
            (0..300).map(|n| ("u".into(), SocketAddr::from(([1, 1, 1, 1], n)), false, u64::MAX)).collect();
        for shard in 0..30 {
            pairs.insert(format!("{HEALTH}{shard}"), serde_json::to_string(&flood[..200]).unwrap());
        }
        pairs.insert(format!("{USES}0"), "[[1,2,3],[1,2]]".into());
        pairs.insert(LOAD.into(), "[-1,5]".into());
        pairs.insert(format!("{LOADS}1"), format!("[[\"{}\",\"1.1.1.1:1\",1]]", "x".repeat(MAX_UPSTREAM + 1)));
        pairs.insert("tomorrow".into(), "?".into());
        let heard = read(&pairs).unwrap();
        assert_eq!(heard.facts.observations.len(), MAX_OBSERVATIONS);
        assert!(heard.facts.observations.iter().all(|seen| seen.since_ms == NOW));
        assert!(heard.facts.uses.is_empty() && heard.facts.loads.is_empty());
        assert_eq!(heard.facts.load, NodeLoad::default());
        assert_eq!(heard.dropped, 30 * 200 - MAX_OBSERVATIONS as u64 + 3);
    }

    #[test]
    fn nobody_is_somebody_without_saying_who() {
        assert_eq!(read(&Pairs::new()), None);
        let mut pairs = encode("a", &Facts::default()).0;
        pairs.insert(ABOUT.into(), r#"{"id":"a\u001b[2J","role":"gateway"}"#.into());
        assert_eq!(read(&pairs), None);
        pairs.insert(ABOUT.into(), r#"{"id":"b","role":"gateway","later":[1]}"#.into());
        assert_eq!(&*read(&pairs).unwrap().id, "b");
    }

    #[test]
    fn a_good_bye_is_heard() {
        let mut pairs = encode("a", &Facts::default()).0;
        let (key, value) = farewell();
        pairs.insert(key.into(), value.into());
        assert!(read(&pairs).unwrap().left);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(values in prop::collection::btree_map("(about|holds|load|left|health\\.[0-9]|loads\\.1|uses\\.3|[a-z]{1,5})", "[ -~]{0,60}", 0..12)) {
            let _ = read(&values);
        }

        #[test]
        fn any_facts_fit(names in prop::collection::vec("\\PC{0,300}", 0..20), id in "\\PC{1,200}") {
            let observations: Vec<Observation> =
                names.iter().enumerate().map(|(at, name)| Observation { upstream: name.as_str().into(), ..observation(at as u16) }).collect();
            let (pairs, _) = encode(&id, &Facts { observations: observations.into(), ..Facts::default() });
            prop_assert!(pairs.values().all(|value| value.len() <= MAX_VALUE_BYTES));
            prop_assert!(read(&pairs).is_some() || id.chars().any(char::is_control));
        }
    }
}
