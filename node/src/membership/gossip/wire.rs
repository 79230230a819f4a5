//! The outside of chitchat's messages: who is named in one and whether it may be unpacked, before chitchat sees it. Pure; it knows no connection.
//!
//! chitchat (0.11, wire version 0) takes whoever is named in a digest for a member, and unpacks as much as a message says. Both are bounded here. Also
//! its arithmetic demands that a whole digest is shorter than 65,506 bytes, which one of [`super::MAX_MEMBERS`] entries is as all names have one length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::delta::{self, About};

/// The most bytes of one message: a digest and a delta as large as chitchat makes them.
pub const MAX_MESSAGE_BYTES: usize = 144 * 1_024;
/// Every name is as long: eight bytes in base64 (`super::short_name`).
pub(super) const NAME_BYTES: usize = 11;
/// `u16` at the start of every message.
const MAGIC: [u8; 2] = 45_139_u16.to_le_bytes();
/// Magic, version, kind.
const HEADER: usize = 4;
/// Heartbeat, last collected version, newest version.
const DIGEST_TAIL: usize = 24;
/// The shortest entry: a name, which life, an IPv4 address, and the numbers.
const LEAST_ENTRY: usize = 2 + NAME_BYTES + 8 + 7 + DIGEST_TAIL;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Here is what I know, tell me more.
    Syn,
    /// Here is more, and what I know.
    SynAck,
    /// Here is more.
    Ack,
    /// We are of different clusters.
    BadCluster,
}

/// Whether whoever is sent this message owes an answer.
#[must_use]
pub fn wants_answer(message: &[u8]) -> bool {
    matches!(message.get(3), Some(0 | 1))
}

/// Who is named in a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Named {
    /// The name that chitchat has for the node.
    pub name: [u8; NAME_BYTES],
    /// Which life of it.
    pub generation: u64,
    /// Where its gossip is reached.
    pub address: SocketAddr,
}

/// One entry of a digest and the bytes that it is made of.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who is named.
    pub named: Named,
    /// Its newest heartbeat.
    pub beat: u64,
    /// The newest version of what it says.
    pub version: u64,
    bytes: std::ops::Range<usize>,
}

/// A message whose outside makes sense.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    bytes: &'a [u8],
    kind: Kind,
    entries: Vec<Entry>,
    /// Where the digest ends; after it come the name of the cluster or the delta.
    rest: usize,
}

impl<'a> Message<'a> {
    /// Looks at a message. `None`: it is not one, too large to be unpacked, or says what no honest member says.
    #[must_use]
    pub fn parse(bytes: &'a [u8], about: About<'_>) -> Option<Message<'a>> {
        if bytes.len() > MAX_MESSAGE_BYTES || bytes.get(..2)? != MAGIC || *bytes.get(2)? != 0 {
            return None;
        }
        let kind = match bytes.get(3)? {
            0 => Kind::Syn,
            1 => Kind::SynAck,
            2 => Kind::Ack,
            3 => Kind::BadCluster,
            _ => return None,
        };
        let mut cursor = Cursor { bytes, at: HEADER };
        let entries = if matches!(kind, Kind::Syn | Kind::SynAck) { cursor.digest()? } else { Vec::new() };
        let rest = cursor.at;
        match kind {
            Kind::Syn => {
                cursor.text()?;
            }
            Kind::SynAck | Kind::Ack => delta::take(&mut cursor, about)?,
            Kind::BadCluster => {}
        }
        (cursor.at == bytes.len()).then_some(Message { bytes, kind, entries, rest })
    }

    /// Who is named in it.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The same message with a digest of only those for whom `kept` has a heartbeat, which takes the place of the one claimed.
    #[must_use]
    pub fn only(&self, kept: impl Fn(usize, &Entry) -> Option<u64>) -> Vec<u8> {
        let mut out = self.bytes.to_vec();
        // Mostly all are kept: bytes move only from the first on that is not, and the count of entries stands before them.
        let (mut end, mut count) = (HEADER + 2, 0_u16);
        for (at, entry) in self.entries.iter().enumerate() {
            let Some(beat) = kept(at, entry) else { continue };
            if end != entry.bytes.start {
                out.copy_within(entry.bytes.clone(), end);
            }
            end += entry.bytes.len();
            out[end - DIGEST_TAIL..][..8].copy_from_slice(&beat.to_le_bytes());
            count += 1;
        }
        if usize::from(count) < self.entries.len() {
            out[HEADER..HEADER + 2].copy_from_slice(&count.to_le_bytes());
            out.drain(end..self.rest);
        }
        out
    }
}

/// A place in bytes that are read from front to back.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip = match self.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(self.take(4)?).ok()?)),
            6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(self.take(16)?).ok()?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, self.u16()?))
    }

    /// Who is meant.
    pub(super) fn named(&mut self) -> Option<Named> {
        let name = self.text()?.try_into().ok()?;
        Some(Named { name, generation: self.u64()?, address: self.address()? })
    }

    fn digest(&mut self) -> Option<Vec<Entry>> {
        let count = self.u16()?;
        let fit = (self.bytes.len() - self.at) / LEAST_ENTRY;
        let mut entries = Vec::with_capacity(fit.min(count.into()));
        for _ in 0..count {
            let start = self.at;
            let named = self.named()?;
            let (beat, _collected, version) = (self.u64()?, self.u64()?, self.u64()?);
            entries.push(Entry { named, beat, version, bytes: start..self.at });
        }
        Some(entries)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chitchat::{ChitchatId, ChitchatMessage, Deserializable, Serializable};
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Option<Message<'_>> {
        Message::parse(bytes, About { own: None, wall_ms: u64::MAX })
    }

    fn all(_: usize, entry: &Entry) -> Option<u64> {
        Some(entry.beat)
    }

    /// A digest as chitchat writes it: the layout is its wire version 0.
    fn syn(nodes: u16) -> Vec<u8> {
        let mut bytes = vec![MAGIC[0], MAGIC[1], 0, 0];
        bytes.extend(nodes.to_le_bytes());
        for node in 0..nodes {
            let address = if node % 2 == 0 { format!("10.0.0.1:{node}") } else { format!("[fd00::1]:{node}") };
            ChitchatId::new(format!("n{node:010}"), 7, address.parse().unwrap()).serialize(&mut bytes);
            [3_u64, 0, 9].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        }
        "fleet".serialize(&mut bytes);
        bytes
    }

    #[test]
    fn chitchat_and_we_read_the_same() {
        let bytes = syn(5);
        let message = parse(&bytes).unwrap();
        assert_eq!((message.kind, message.entries().len()), (Kind::Syn, 5));
        assert_eq!(message.only(all), bytes);
        let read = ChitchatMessage::deserialize(&mut &bytes[..]).unwrap();
        assert_eq!(read.serialize_to_vec(), bytes);
    }

    #[test]
    fn who_is_cut_out_is_unknown_to_chitchat() {
        let bytes = syn(3);
        let cut = parse(&bytes).unwrap().only(|_, entry| (entry.named.address.port() != 1).then_some(77));
        let shown = format!("{:?}", ChitchatMessage::deserialize(&mut &cut[..]).unwrap());
        assert!(shown.contains("n0000000000") && !shown.contains("n0000000001") && shown.contains("n0000000002"), "{shown}");
        assert!(shown.contains("77") && !shown.contains("Heartbeat(3)"), "{shown}");
    }

    #[test]
    fn a_full_digest_fits_what_chitchat_reckons_with() {
        let bytes = syn(u16::try_from(super::super::MAX_MEMBERS).unwrap());
        assert!(bytes.len() < 65_000, "{}", bytes.len());
        assert!(parse(&bytes).is_some());
    }

    #[test]
    fn a_long_name_does_not_make_a_digest_too_long() {
        let mut bytes = vec![MAGIC[0], MAGIC[1], 0, 0, 1, 0];
        ChitchatId::new("n".repeat(65_000), 7, "10.0.0.1:1".parse().unwrap()).serialize(&mut bytes);
        bytes.extend([0; DIGEST_TAIL]);
        "fleet".serialize(&mut bytes);
        assert_eq!(parse(&bytes), None);
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut bomb = vec![MAGIC[0], MAGIC[1], 0, 2];
        (0..=delta::MAX_BLOCKS).for_each(|_| bomb.extend([1, 1, 0, 0]));
        bomb.push(0);
        assert_eq!(parse(&bomb), None);
        let none: Vec<u8> = [&[MAGIC[0], MAGIC[1], 0, 2][..], &[0]].concat();
        assert_eq!(parse(&none).map(|message| message.kind), Some(Kind::Ack));
    }

    #[test]
    fn what_hangs_on_or_is_missing_is_refused() {
        let bytes = syn(2);
        assert!((0..bytes.len()).all(|end| parse(&bytes[..end]).is_none()));
        assert!(parse(&[&bytes[..], &[0]].concat()).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(tail in prop::collection::vec(any::<u8>(), 0..200), kind in 0..5_u8) {
            let bytes = [&[MAGIC[0], MAGIC[1], 0, kind][..], &tail].concat();
            if let Some(message) = parse(&bytes) {
                prop_assert_eq!(message.only(all), bytes.clone());
            }
        }
    }
}
