//! Who may come into the gossip, how many, and what is counted of it. It knows messages, not how they travel.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use chitchat::{ChitchatMessage, Deserializable};
use parking_lot::Mutex;

use super::delta::About;
use super::ledger::{Ledger, Peer, Ruling};
use super::wire::{Entry, Message, Named};
use crate::clock::{self, Instant};

/// How often the same trouble is told.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Rounds of gossip are mostly so far apart.
const USUAL_INTERVAL: Duration = Duration::from_secs(1);

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
    ledger: Mutex<Ledger>,
    /// This node's present life.
    own: Mutex<Option<Named>>,
    /// The newest version of what we say that others claim to have.
    claimed: AtomicU64,
    told: Mutex<Option<Instant>>,
    /// What is counted.
    pub counters: Counters,
}

impl Doorman {
    /// Lets in `limit` nodes at most, the dead that are not forgotten yet among them.
    #[must_use]
    pub fn new(limit: usize) -> Doorman {
        Doorman {
            limit,
            ledger: Mutex::new(Ledger::new(limit, USUAL_INTERVAL)),
            own: Mutex::default(),
            claimed: AtomicU64::new(0),
            told: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// Where rounds are so far apart.
    #[must_use]
    pub fn paced(self, interval: Duration) -> Doorman {
        Doorman { ledger: Mutex::new(Ledger::new(self.limit, interval)), ..self }
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
        self.ledger.lock().refresh(present, clock::now());
    }

    /// Whether there is nothing to refresh as long as nobody comes or goes in chitchat.
    pub fn is_settled(&self) -> bool {
        self.ledger.lock().is_settled()
    }

    /// Whom to ask whether they are there, since only one peer says so.
    pub fn unproven(&self, most: usize, dice: &mut fastrand::Rng) -> Vec<SocketAddr> {
        self.ledger.lock().unproven(most, clock::now(), dice)
    }

    /// The newest version of what we say that others claim to have: above our own one somebody has written in our place.
    #[must_use]
    pub fn claimed(&self) -> u64 {
        self.claimed.load(Relaxed)
    }

    /// Judges a message of a peer. Whoever may not come in is cut out of it, so that those within keep hearing each other, and no heartbeat is taken on the
    /// word of one.
    pub fn judge(&self, peer: Peer, bytes: &[u8]) -> Verdict {
        self.counters.add(Count::MessagesIn, 1);
        self.counters.add(Count::BytesIn, bytes.len() as u64);
        let own = *self.own.lock();
        let about = About { own: own.as_ref(), wall_ms: clock::unix_ms() };
        let Some(message) = Message::parse(bytes, about) else { return self.dropped() };
        let rulings = self.rule(peer, &message, about);
        if rulings.iter().any(|ruling| matches!(ruling, Kept::Full)) {
            self.counters.add(Count::TurnedAway, 1);
            return Verdict::Full;
        }
        if rulings.iter().all(|ruling| matches!(ruling, Kept::Whole)) {
            return self.unpack(bytes);
        }
        self.unpack(&message.only(|at, entry| match rulings.get(at) {
            Some(Kept::Whole) => Some(entry.beat),
            Some(Kept::Beat(beat)) => Some(*beat),
            _ => None,
        }))
    }

    fn rule(&self, peer: Peer, message: &Message<'_>, about: About<'_>) -> Vec<Kept> {
        let itself = newest_at(message.entries(), peer);
        let now = clock::now();
        let mut ledger = self.ledger.lock();
        ledger.hear(peer, now);
        let rule = |(at, entry): (usize, &Entry)| {
            if about.own == Some(&entry.named) {
                if entry.version <= about.highest_version(&entry.named) {
                    self.claimed.fetch_max(entry.version, Relaxed);
                }
                return Kept::Whole;
            }
            let itself = itself == Some(at);
            match ledger.judge(peer, &entry.named, entry.beat, itself, now) {
                Ruling::Keep(beat) if beat == entry.beat => Kept::Whole,
                Ruling::Keep(beat) => Kept::Beat(beat),
                Ruling::Full if entry.named.address == peer.address => Kept::Full,
                Ruling::Full | Ruling::Cut => Kept::Not,
            }
        };
        message.entries().iter().enumerate().map(rule).collect()
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

/// What remains of an entry of a digest.
#[derive(Debug, Clone, Copy)]
enum Kept {
    /// All of it.
    Whole,
    /// With another heartbeat.
    Beat(u64),
    /// Nothing.
    Not,
    /// Nothing, and the peer itself is the one too many.
    Full,
}

/// Which entry is the peer's own: of the lives at its address the latest, when the stream really leads there.
fn newest_at(entries: &[Entry], peer: Peer) -> Option<usize> {
    let own = entries.iter().enumerate().filter(|(_, entry)| peer.proven && entry.named.address == peer.address);
    own.max_by_key(|(_, entry)| entry.named.generation).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use chitchat::{ChitchatId, Serializable};

    use super::*;

    fn named(port: u16) -> Named {
        Named { name: format!("n{port:010}").into_bytes().try_into().unwrap(), generation: 1, address: at(port) }
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn peer(port: u16) -> Peer {
        Peer { witness: port.into(), address: at(port), proven: true }
    }

    fn syn(ports: impl IntoIterator<Item = u16>) -> Vec<u8> {
        let ports: Vec<u16> = ports.into_iter().collect();
        let mut bytes = vec![83, 176, 0, 0];
        bytes.extend(u16::try_from(ports.len()).unwrap().to_le_bytes());
        for port in ports {
            ChitchatId::new(format!("n{port:010}"), 1, at(port)).serialize(&mut bytes);
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
        (1..=3).for_each(|port| drop(shown(doorman.judge(peer(port), &syn(1..=3)))));
        assert!(matches!(doorman.judge(peer(4), &syn([4])), Verdict::Full));
        assert_eq!(doorman.counters.get(Count::TurnedAway), 1);
        // Those that are in go on.
        shown(doorman.judge(peer(2), &syn([2])));
    }

    #[test]
    fn those_within_hear_each_other_although_they_know_different_others() {
        let doorman = Doorman::new(3);
        doorman.refresh([named(1), named(2), named(3)]);
        let message = shown(doorman.judge(peer(1), &syn([1, 2, 4])));
        assert!(message.contains("10.0.0.1:2") && !message.contains("10.0.0.1:4"), "{message}");
        assert_eq!(doorman.counters.get(Count::TurnedAway), 0);
    }

    #[test]
    fn a_heartbeat_that_one_peer_has_made_up_does_not_get_in() {
        let doorman = Doorman::new(9);
        let beating = |beat: u64| {
            let mut bytes = syn([1]);
            let at = bytes.len() - 24 - 7;
            bytes[at..at + 8].copy_from_slice(&beat.to_le_bytes());
            bytes
        };
        assert!(shown(doorman.judge(peer(1), &beating(7))).contains("Heartbeat(7)"));
        let forged = shown(doorman.judge(peer(2), &beating(7_000)));
        assert!(forged.contains("Heartbeat(7)") && !forged.contains("Heartbeat(7000)"), "{forged}");
    }

    #[test]
    fn a_claim_about_what_we_say_is_noticed() {
        let doorman = Doorman::new(9);
        doorman.is(named(1));
        let mut bytes = syn([1, 2]);
        let version = bytes.len() - 7 - 24 - 44 + 16 - 8;
        bytes[version..version + 8].copy_from_slice(&900_u64.to_le_bytes());
        shown(doorman.judge(peer(2), &bytes));
        assert_eq!(doorman.claimed(), 900);
    }

    #[test]
    fn who_is_forgotten_makes_room() {
        let doorman = Doorman::new(2);
        (1..=2).for_each(|port| drop(shown(doorman.judge(peer(port), &syn([1, 2])))));
        // chitchat has not got to them yet.
        doorman.refresh([]);
        assert!(matches!(doorman.judge(peer(3), &syn([3])), Verdict::Full));
        doorman.refresh([named(1)]);
        shown(doorman.judge(peer(3), &syn([3])));
    }

    #[test]
    fn nonsense_is_dropped_and_counted() {
        let doorman = Doorman::new(2);
        assert!(matches!(doorman.judge(peer(1), b"GET / HTTP/1.1\r\n"), Verdict::Drop));
        // The outside is right, the inside is no delta.
        assert!(matches!(doorman.judge(peer(1), &[83, 176, 0, 2, 2, 1, 0, 9, 0]), Verdict::Drop));
        assert_eq!((doorman.counters.get(Count::MessagesDropped), doorman.counters.get(Count::MessagesIn)), (2, 2));
    }
}
