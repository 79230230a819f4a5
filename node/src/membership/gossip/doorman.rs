//! Who may come into the gossip, how many, and what is counted of it. It knows messages, not how they travel.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use chitchat::{ChitchatMessage, Deserializable};
use parking_lot::Mutex;

use super::wire::{Message, Named};
use crate::clock::{self, Instant};

/// How often the same trouble is told.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Why a node is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no room.
    #[error("the fleet has as many members as gossip carries; give zones a gossip.cell each")]
    Full,
    /// It is another fleet.
    #[error("it belongs to another gossip.cluster or gossip.cell")]
    Cluster,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Bytes of messages read.
    BytesIn,
    /// Bytes of messages written.
    BytesOut,
    /// Messages read.
    MessagesIn,
    /// Messages written.
    MessagesOut,
    /// Messages thrown away: nonsense, or more than there is room for on the way.
    MessagesDropped,
    /// Facts of others that were nonsense or beyond the bounds.
    FactsDropped,
    /// Facts of our own that did not fit.
    FactsLeftOut,
    /// Members that were suspected.
    Suspicions,
    /// Nodes that were not let in, since the fleet is full.
    TurnedAway,
    /// How often others did not let this node in.
    Refused,
    /// Streams that could not be opened, or ended by a fault.
    StreamsFailed,
    /// How often gossip had to be started again.
    Restarts,
}

const COUNTS: usize = 12;

/// What is counted of gossip; shared by all its parts.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; COUNTS]);

impl Counters {
    /// Counts `by` more.
    pub fn add(&self, what: Count, by: u64) {
        self.0[what as usize].fetch_add(by, Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self, what: Count) -> u64 {
        self.0[what as usize].load(Relaxed)
    }
}

/// What becomes of a message that has come in.
#[derive(Debug)]
pub enum Verdict {
    /// chitchat may have it.
    Take(ChitchatMessage),
    /// Nonsense.
    Drop,
    /// Its sender is one more than there is room for, and has to be told.
    Full,
}

/// Judges messages: by their outside, and by who is named in them.
#[derive(Debug)]
pub struct Doorman {
    limit: usize,
    known: Mutex<Known>,
    /// This node's present life.
    own: Mutex<Option<Named>>,
    told: Mutex<Option<Instant>>,
    /// What is counted.
    pub counters: Counters,
}

#[derive(Debug, Default)]
struct Known {
    all: HashSet<Named>,
    /// Let in since chitchat was looked at last: it may not have got to them yet.
    fresh: HashSet<Named>,
}

impl Doorman {
    /// Lets in `limit` nodes at most, the dead that are not forgotten yet among them.
    #[must_use]
    pub fn new(limit: usize) -> Doorman {
        Doorman { limit, known: Mutex::default(), own: Mutex::default(), told: Mutex::default(), counters: Counters::default() }
    }

    /// How many may be in.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes note of this node's present life, about which nobody else may write.
    pub fn is(&self, own: Named) {
        *self.own.lock() = Some(own);
    }

    /// Takes note of whom chitchat knows at present.
    pub fn refresh(&self, present: impl IntoIterator<Item = Named>) {
        let mut known = self.known.lock();
        known.all = std::mem::take(&mut known.fresh);
        known.all.extend(present);
    }

    /// Judges a message of the node whose gossip is reached at `from`. Nodes beyond the limit are cut out of it, so that those within keep hearing each
    /// other.
    pub fn judge(&self, from: SocketAddr, bytes: &[u8]) -> Verdict {
        self.counters.add(Count::MessagesIn, 1);
        self.counters.add(Count::BytesIn, bytes.len() as u64);
        let own = self.own.lock().clone();
        let Some(message) = Message::parse(bytes, own.as_ref()) else { return self.dropped() };
        let mut turned_away: Vec<Named> = Vec::new();
        {
            let Known { all, fresh } = &mut *self.known.lock();
            for named in message.named() {
                if all.contains(named) {
                    continue;
                }
                if all.len() < self.limit {
                    all.insert(named.clone());
                    fresh.insert(named.clone());
                } else {
                    turned_away.push(named.clone());
                }
            }
        }
        if turned_away.is_empty() {
            return self.unpack(bytes);
        }
        if turned_away.iter().any(|named| named.address == from) {
            self.counters.add(Count::TurnedAway, 1);
            return Verdict::Full;
        }
        let away: HashSet<Named> = turned_away.into_iter().collect();
        self.unpack(&message.only(|named| !away.contains(named)))
    }

    /// Counts a message that goes out.
    pub fn note_out(&self, bytes: usize) {
        self.counters.add(Count::MessagesOut, 1);
        self.counters.add(Count::BytesOut, bytes as u64);
    }

    /// Takes note that another node does not let this one in. Told once in a while, as it is tried again and again.
    pub fn refused(&self, by: SocketAddr, why: Refusal) {
        self.counters.add(Count::Refused, 1);
        let now = clock::now();
        let mut told = self.told.lock();
        if told.is_none_or(|then| now.saturating_duration_since(then) >= TELL_AGAIN) {
            *told = Some(now);
            tracing::warn!(%by, "this node is not let into the gossip: {why}");
        }
    }

    fn unpack(&self, bytes: &[u8]) -> Verdict {
        ChitchatMessage::deserialize(&mut &*bytes).map_or_else(|_| self.dropped(), Verdict::Take)
    }

    fn dropped(&self) -> Verdict {
        self.counters.add(Count::MessagesDropped, 1);
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use chitchat::{ChitchatId, Serializable};

    use super::*;

    fn named(port: u16) -> Named {
        Named { name: Box::from(&b"nnnnnnnnnnn"[..]), generation: 1, address: at(port) }
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn syn(ports: impl IntoIterator<Item = u16>) -> Vec<u8> {
        let ports: Vec<u16> = ports.into_iter().collect();
        let mut bytes = vec![83, 176, 0, 0];
        bytes.extend(u16::try_from(ports.len()).unwrap().to_le_bytes());
        for port in ports {
            ChitchatId::new("nnnnnnnnnnn", 1, at(port)).serialize(&mut bytes);
            bytes.extend([0; 24]);
        }
        "fleet".serialize(&mut bytes);
        bytes
    }

    fn shown(verdict: Verdict) -> String {
        match verdict {
            Verdict::Take(message) => format!("{message:?}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_too_many_is_turned_away_and_told() {
        let doorman = Doorman::new(3);
        shown(doorman.judge(at(1), &syn(1..=3)));
        assert!(matches!(doorman.judge(at(4), &syn([4])), Verdict::Full));
        assert_eq!(doorman.counters.get(Count::TurnedAway), 1);
        // Those that are in go on.
        shown(doorman.judge(at(2), &syn([2])));
    }

    #[test]
    fn those_within_hear_each_other_although_they_know_different_others() {
        let doorman = Doorman::new(3);
        doorman.refresh([named(1), named(2), named(3)]);
        let message = shown(doorman.judge(at(1), &syn([1, 2, 4])));
        assert!(message.contains("10.0.0.1:2") && !message.contains("10.0.0.1:4"), "{message}");
        assert_eq!(doorman.counters.get(Count::TurnedAway), 0);
    }

    #[test]
    fn who_is_forgotten_makes_room() {
        let doorman = Doorman::new(2);
        shown(doorman.judge(at(1), &syn([1, 2])));
        // chitchat has not got to them yet.
        doorman.refresh([]);
        assert!(matches!(doorman.judge(at(3), &syn([3])), Verdict::Full));
        doorman.refresh([named(1)]);
        shown(doorman.judge(at(3), &syn([3])));
    }

    #[test]
    fn nonsense_is_dropped_and_counted() {
        let doorman = Doorman::new(2);
        assert!(matches!(doorman.judge(at(1), b"GET / HTTP/1.1\r\n"), Verdict::Drop));
        // The outside is right, the inside is no delta.
        assert!(matches!(doorman.judge(at(1), &[83, 176, 0, 2, 2, 1, 0, 9, 0]), Verdict::Drop));
        assert_eq!((doorman.counters.get(Count::MessagesDropped), doorman.counters.get(Count::MessagesIn)), (2, 2));
    }
}
