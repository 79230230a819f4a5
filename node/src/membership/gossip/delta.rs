//! The inside of chitchat's deltas: what a message would write about members, looked at before chitchat sees it. Pure.
//!
//! chitchat (0.11, wire version 0) believes its peers: it applies what is said about this very node, takes any version for the newest and any key and value for
//! state, and ends by an assertion when versions contradict each other. One member that lies could so end the gossip of all, since the others relay what they
//! took. A delta that no honest member would write is refused here as a whole.

use super::codec::{self, MAX_VALUE_BYTES};
use super::wire::{Cursor, Named};

/// The most packed blocks of a delta. Each unpacks to 64 KiB at most, 16 KiB as chitchat makes them.
pub(super) const MAX_BLOCKS: usize = 96;
/// What one block unpacks to at most: its length is counted in 16 bits.
const MAX_UNPACKED: usize = u16::MAX as usize;
/// Nobody changes what it says more often than a thousand times a second since its life began, and clocks are a day apart at most.
const MAX_CLOCKS_APART_MS: u64 = 86_400_000;

/// Of whom and when a delta speaks.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// This node's present life, which only it may write about.
    pub own: Option<&'a Named>,
    /// Our wall clock, Unix milliseconds.
    pub wall_ms: u64,
}

impl About<'_> {
    /// The highest version that a life can have by now: one that would stay ahead of what the member itself says cannot be forged. It began at its
    /// generation, in Unix microseconds.
    pub(super) fn highest_version(self, named: &Named) -> u64 {
        self.wall_ms.saturating_sub(named.generation / 1_000).saturating_add(MAX_CLOCKS_APART_MS)
    }
}

const NODE: u8 = 0;
const KEY_VALUE: u8 = 1;
const SET_MAX_VERSION: u8 = 2;
/// Set, deleted, deleted after a while.
const STATUSES: u8 = 3;

/// Takes the blocks of a packed delta (kind and length each, until the one that says that no more come) and looks at what they say. `None`: it is no delta, or
/// one that no honest member writes.
pub(super) fn take(cursor: &mut Cursor<'_>, about: About<'_>) -> Option<()> {
    let mut unpacked = Vec::new();
    for _ in 0..=MAX_BLOCKS {
        match cursor.u8()? {
            0 => return operations(&unpacked, about),
            1 => unpacked.extend(zstd::bulk::decompress(cursor.text()?, MAX_UNPACKED).ok()?),
            2 => unpacked.extend_from_slice(cursor.text()?),
            _ => return None,
        }
    }
    None
}

fn operations(bytes: &[u8], about: About<'_>) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    // Of the member that is written about: the newest version so far, and the highest that can be.
    let (mut member, mut highest): (Option<u64>, u64) = (None, 0);
    while !cursor.is_at_end() {
        match cursor.u8()? {
            NODE => {
                let named = cursor.named()?;
                let (_collected, _from) = (cursor.u64()?, cursor.u64()?);
                if about.own == Some(&named) {
                    return None;
                }
                (member, highest) = (Some(0), about.highest_version(&named));
            }
            KEY_VALUE => {
                let newest = member.as_mut()?;
                let (key, value) = (cursor.text()?, cursor.text()?);
                let (version, status) = (cursor.u64()?, cursor.u8()?);
                let known = std::str::from_utf8(key).is_ok_and(codec::is_key);
                if !known || value.len() > MAX_VALUE_BYTES || version <= *newest || version > highest || status >= STATUSES {
                    return None;
                }
                *newest = version;
            }
            // Said only of a member of whom no keys are said.
            SET_MAX_VERSION if member == Some(0) => {
                member = Some(cursor.u64()?).filter(|version| (1..=highest).contains(version));
                member?;
            }
            _ => return None,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chitchat::{ChitchatId, Serializable};
    use proptest::prelude::*;

    use super::*;

    fn member(name: &str, generation: u64) -> Vec<u8> {
        let mut bytes = vec![NODE];
        ChitchatId::new(name, generation, "10.0.0.1:7946".parse().unwrap()).serialize(&mut bytes);
        bytes.extend([0; 16]);
        bytes
    }

    fn says(key: &str, value: &str, version: u64) -> Vec<u8> {
        let mut bytes = vec![KEY_VALUE];
        key.serialize(&mut bytes);
        value.serialize(&mut bytes);
        bytes.extend(version.to_le_bytes());
        bytes.push(0);
        bytes
    }

    fn newest(version: u64) -> Vec<u8> {
        [&[SET_MAX_VERSION][..], &version.to_le_bytes()].concat()
    }

    fn own() -> Named {
        Named { name: *b"nobody-else", generation: 7, address: "10.0.0.1:7946".parse().unwrap() }
    }

    /// Clocks stand at the third day since 1970.
    const ABOUT_NOBODY: About<'_> = About { own: None, wall_ms: 3 * MAX_CLOCKS_APART_MS };

    /// Judged as plain blocks, and packed.
    fn judged(parts: &[Vec<u8>]) -> bool {
        let bytes = parts.concat();
        let block =
            |kind: u8, bytes: &[u8]| [&[kind][..], &u16::try_from(bytes.len()).unwrap().to_le_bytes(), bytes, &[0]].concat();
        let own = own();
        let about = About { own: Some(&own), ..ABOUT_NOBODY };
        let plain = take(&mut Cursor::new(&block(2, &bytes)), about).is_some();
        let packed = take(&mut Cursor::new(&block(1, &zstd::bulk::compress(&bytes, 0).unwrap())), about).is_some();
        assert_eq!(plain, packed);
        plain
    }

    #[test]
    fn what_members_say_of_each_other_passes() {
        assert!(judged(&[
            member("somebody-el", 1),
            says("about", "{}", 1),
            says("load", "{}", 4),
            member("another-one", 1),
            newest(9)
        ]));
        // A former life of this node is known to others, and told.
        assert!(judged(&[member("nobody-else", 6), says("about", "{}", 1)]));
    }

    #[test]
    fn nobody_writes_about_this_node_but_itself() {
        assert!(!judged(&[member("nobody-else", 7), newest(9)]));
        assert!(!judged(&[member("somebody-el", 1), newest(3), member("nobody-else", 7), says("about", "{}", 1)]));
    }

    #[test]
    fn versions_that_contradict_each_other_are_refused() {
        let about = |version| says("about", "{}", version);
        assert!(!judged(&[member("somebody-el", 1), about(100), newest(50)]));
        assert!(!judged(&[member("somebody-el", 1), about(5), about(5)]));
        assert!(!judged(&[member("somebody-el", 1), about(u64::MAX)]));
        assert!(!judged(&[member("somebody-el", 1), newest(u64::MAX)]));
        assert!(!judged(&[about(1)]), "of whom?");
    }

    #[test]
    fn a_version_ahead_of_all_that_its_member_can_have_said_is_refused() {
        let (day, two_days_in) = (MAX_CLOCKS_APART_MS, 2 * MAX_CLOCKS_APART_MS * 1_000);
        let says = |version| says("about", "{}", version);
        assert!(judged(&[member("somebody-el", two_days_in), says(2 * day)]));
        assert!(!judged(&[member("somebody-el", two_days_in), says(2 * day + 1)]));
        assert!(!judged(&[member("somebody-el", two_days_in), newest(2 * day + 1)]));
        // A clock that is far ahead of ours does not make its member mute.
        assert!(judged(&[member("somebody-el", u64::MAX), says(day)]));
    }

    #[test]
    fn only_what_is_gossiped_is_kept() {
        assert!(!judged(&[member("somebody-el", 1), says("made-up", "x", 1)]));
        assert!(!judged(&[member("somebody-el", 1), says("about", &"x".repeat(MAX_VALUE_BYTES + 1), 1)]));
        assert!(!judged(&[member(&"x".repeat(5_000), 1), says("about", "{}", 1)]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = operations(&bytes, About { own: Some(&own()), ..ABOUT_NOBODY });
            let _ = take(&mut Cursor::new(&bytes), ABOUT_NOBODY);
        }
    }
}
