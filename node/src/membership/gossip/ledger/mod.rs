//! Whose word is taken about whom: two witnesses, or the member itself. Pure; it knows neither messages nor connections.
//!
//! Any member may name anybody in a digest and claim any heartbeat for him. So a life is let in, and a heartbeat of it is believed, only when two different
//! peers have claimed it or it spoke for itself, over a stream that leads to its own address. One liar can then neither keep the dead alive nor run ahead of the
//! heartbeats of the living, which would make them look dead later; nor can it fill the room with names that it has made up. Where a node hears just one
//! peer, there is no other word to take.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::wire::{NAME_BYTES, Named};
use crate::clock::Instant;

/// The most lives that are in on the word of one peer about itself.
pub const MAX_PER_PEER: usize = 128;
/// Who was heard in so many intervals is heard lately.
const LATELY: u32 = 3;
/// For so many intervals after the start nobody is believed alone, however lonely it is.
const STRICT: u32 = 5;
/// Who was claimed by one peer only for so many intervals is asked himself.
const ASK_AFTER: u32 = 15;
/// Claims that nobody repeats are forgotten after so many intervals.
const CLAIMS_LAST: u32 = 60;
/// How many peers heard last are remembered: two besides the one that is spoken of have to be among them.
const REMEMBERED: usize = 4;
/// All entries of a digest together, in bytes: chitchat's arithmetic ends at 65,506, the rest of the message included.
const DIGEST_ROOM: usize = 64_000;

/// The other side of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Stands for its certificate: what comes under one number is the word of one.
    pub witness: u64,
    /// Where its gossip is reached, as it says.
    pub address: SocketAddr,
    /// Whether the stream really leads to that host.
    pub proven: bool,
}

/// What becomes of one entry of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// It stays, with this heartbeat.
    Keep(u64),
    /// It is cut out: too few say so, for now.
    Cut,
    /// It is cut out, since there is no room.
    Full,
}

/// What has been claimed, and who is in.
#[derive(Debug)]
pub struct Ledger {
    limit: usize,
    interval: Duration,
    /// When its first message came.
    since: Option<Instant>,
    /// Who is in, in the order of digests, which name nearly all of them: who comes next is mostly who was meant next.
    within: Vec<(Named, Life)>,
    next: usize,
    /// Who is not in.
    waiting: HashMap<Named, Life>,
    /// Names that are in, with the number of their lives: former lives take no place of another member.
    names: HashMap<[u8; NAME_BYTES], usize>,
    /// Lives that are not in, by who claimed them first.
    pending: HashMap<u64, usize>,
    /// chitchat knew all that are in, when it was looked at last.
    settled: bool,
    /// Lives that are in on their own word, by whose word that was.
    own_word: HashMap<u64, usize>,
    /// Bytes of a digest of all that are in.
    carried: usize,
    heard: Vec<(u64, Instant)>,
}

#[derive(Debug)]
struct Life {
    /// The two highest heartbeats of different witnesses, the higher one first.
    claims: [Claim; 2],
    /// The witness that it is itself, when it spoke last, and its heartbeat then.
    itself: Option<(u64, Instant, u64)>,
    first: u64,
    place: Place,
    claimed: Instant,
    since: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Claim {
    witness: Option<u64>,
    beat: u64,
}

/// Whether chitchat may know a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Out,
    /// Let in since chitchat was looked at last: it may not have got to it yet.
    Fresh,
    In,
}

impl Ledger {
    /// Lets in the lives of `limit` names at most; rounds are `interval` apart.
    #[must_use]
    pub fn new(limit: usize, interval: Duration) -> Ledger {
        Ledger {
            limit,
            interval,
            since: None,
            within: Vec::new(),
            next: 0,
            waiting: HashMap::new(),
            names: HashMap::new(),
            pending: HashMap::new(),
            settled: false,
            own_word: HashMap::new(),
            carried: 0,
            heard: Vec::new(),
        }
    }

    /// Takes note that a peer was heard.
    pub fn hear(&mut self, peer: Peer, now: Instant) {
        self.since.get_or_insert(now);
        self.heard.retain(|(witness, _)| *witness != peer.witness);
        self.heard.truncate(REMEMBERED - 1);
        self.heard.insert(0, (peer.witness, now));
    }

    /// Takes note of whom chitchat knows at present.
    pub fn refresh(&mut self, present: impl IntoIterator<Item = Named>, now: Instant) {
        for (_, life) in &mut self.within {
            life.place = if life.place == Place::Fresh { Place::In } else { Place::Out };
        }
        let (mut come, mut count) = (Vec::new(), 0);
        for named in present {
            count += 1;
            match self.find(&named) {
                Some(at) => self.within[at].1.place = Place::In,
                None => {
                    let life = self.waiting.remove(&named).unwrap_or_else(|| Life::new(0, now));
                    come.push((named, Life { place: Place::In, ..life }));
                }
            }
        }
        self.waiting.extend(self.within.extract_if(.., |(_, life)| life.place == Place::Out));
        self.within.extend(come);
        // By the key itself: copying it out for each comparison would allocate.
        #[expect(clippy::unnecessary_sort_by, reason = "a key that is borrowed cannot be handed out")]
        self.within.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.settled = self.within.len() == count;
        let lasts = self.interval * CLAIMS_LAST;
        self.waiting.retain(|_, life| now.saturating_duration_since(life.claimed) < lasts);
        self.count();
    }

    /// Whether nothing has to be looked up in chitchat as long as nobody comes or goes there.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled && self.waiting.is_empty()
    }

    fn count(&mut self) {
        (self.names, self.pending, self.own_word, self.carried) = Default::default();
        for life in self.waiting.values() {
            *self.pending.entry(life.first).or_default() += 1;
        }
        for (named, life) in &self.within {
            *self.names.entry(named.name).or_default() += 1;
            self.carried += weight(named);
            if let Some((witness, ..)) = life.itself {
                *self.own_word.entry(witness).or_default() += 1;
            }
        }
    }

    /// The place of one who is in.
    fn find(&mut self, named: &Named) -> Option<usize> {
        let at = match self.within.get(self.next) {
            Some((next, _)) if next == named => self.next,
            _ => self.within.binary_search_by(|(other, _)| other.cmp(named)).ok()?,
        };
        self.next = at + 1;
        Some(at)
    }

    /// Judges that `peer` claims this heartbeat of a life; `itself`: it is its own.
    pub fn judge(&mut self, peer: Peer, named: &Named, beat: u64, itself: bool, now: Instant) -> Ruling {
        let strict = self.since.is_none_or(|since| now.saturating_duration_since(since) < self.interval * STRICT);
        let recent = (!strict).then_some(self.interval * LATELY);
        // Nearly all are in already, and a digest names them all.
        if let Some(at) = self.find(named) {
            let believed = self.within[at].1.hear(peer, beat, itself, &self.heard, now, recent);
            return Ruling::Keep(beat.min(believed.unwrap_or(0)));
        }
        let room = self.room(peer.witness, named, itself);
        if !self.waiting.contains_key(named) {
            // Who is the last one in a full room must be told, others are claimed again.
            let most = 2 * self.limit;
            if self.waiting.len() >= 4 * most || self.pending.get(&peer.witness).is_some_and(|pending| *pending >= most) {
                return if itself && !room { Ruling::Full } else { Ruling::Cut };
            }
            *self.pending.entry(peer.witness).or_default() += 1;
            self.waiting.insert(*named, Life::new(peer.witness, now));
        }
        let Some(life) = self.waiting.get_mut(named) else { return Ruling::Cut };
        let Some(believed) = life.hear(peer, beat, itself, &self.heard, now, recent) else { return Ruling::Cut };
        if !room {
            return Ruling::Full;
        }
        if let Some(life) = self.waiting.remove(named) {
            self.let_in(peer.witness, named, itself, life);
        }
        Ruling::Keep(beat.min(believed))
    }

    /// Lives of which just one peer has spoken: to be asked themselves, at once while nobody else is heard, else only when nobody speaks of them for long.
    pub fn unproven(&self, most: usize, now: Instant, dice: &mut fastrand::Rng) -> Vec<SocketAddr> {
        let recent = self.interval * LATELY;
        let heard = self.heard.iter().filter(|(_, at)| now.saturating_duration_since(*at) < recent).count();
        let patience = if heard < 2 { Duration::ZERO } else { self.interval * ASK_AFTER };
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let waits = |life: &&Life| {
            let repeated = now.saturating_duration_since(life.claimed) < self.interval * ASK_AFTER;
            repeated && now.saturating_duration_since(life.since) >= patience
        };
        let mut waiting: Vec<SocketAddr> =
            self.waiting.iter().filter(|(_, life)| waits(life)).map(|(named, _)| named.address).collect();
        // The order of a map is not to be relied on, also not for chance.
        waiting.sort_unstable();
        dice.shuffle(&mut waiting);
        waiting.truncate(if patience.is_zero() { most } else { 1 });
        waiting
    }

    /// Whether there is room for one more life.
    fn room(&self, witness: u64, named: &Named, itself: bool) -> bool {
        let known = self.names.contains_key(&named.name);
        (known || self.names.len() < self.limit)
            && self.carried + weight(named) <= DIGEST_ROOM
            && !(itself && self.own_word.get(&witness).is_some_and(|lives| *lives >= MAX_PER_PEER))
    }

    fn let_in(&mut self, witness: u64, named: &Named, itself: bool, life: Life) {
        *self.names.entry(named.name).or_default() += 1;
        self.carried += weight(named);
        self.settled = false;
        if let Some(pending) = self.pending.get_mut(&life.first) {
            *pending = pending.saturating_sub(1);
        }
        let at = self.within.partition_point(|(other, _)| other < named);
        self.within.insert(at, (*named, Life { place: Place::Fresh, ..life }));
        self.next = at + 1;
        if itself {
            *self.own_word.entry(witness).or_default() += 1;
        }
    }
}

impl Life {
    fn new(first: u64, now: Instant) -> Life {
        Life { claims: [Claim::default(); 2], itself: None, first, place: Place::Out, claimed: now, since: now }
    }

    /// Takes what is claimed; the newest heartbeat that is believed then. `recent`: who has been heard within it is heard lately, `None` while nobody is believed
    /// alone.
    fn hear(
        &mut self,
        peer: Peer,
        beat: u64,
        itself: bool,
        heard: &[(u64, Instant)],
        now: Instant,
        recent: Option<Duration>,
    ) -> Option<u64> {
        self.claimed = now;
        if itself {
            self.itself = Some((peer.witness, now, beat.max(self.itself.map_or(0, |(.., beat)| beat))));
        } else {
            self.claim(peer.witness, beat);
        }
        self.believed(recent.is_some_and(|recent| self.is_lonely(heard, now, recent)))
    }

    fn claim(&mut self, witness: u64, beat: u64) {
        let claim = Claim { witness: Some(witness), beat };
        if self.claims[0].witness == Some(witness) {
            self.claims[0].beat = self.claims[0].beat.max(beat);
        } else if self.claims[1].witness == Some(witness) {
            self.claims[1].beat = self.claims[1].beat.max(beat);
        } else if self.claims[1].witness.is_none() || beat > self.claims[1].beat {
            self.claims[1] = claim;
        }
        if self.claims[0].witness.is_none() || self.claims[1].beat > self.claims[0].beat {
            self.claims.swap(0, 1);
        }
    }

    /// Whether it does not speak itself, and fewer than two others are heard that could speak of it.
    fn is_lonely(&self, heard: &[(u64, Instant)], now: Instant, recent: Duration) -> bool {
        let lately = |at: Instant| now.saturating_duration_since(at) < recent;
        if self.itself.is_some_and(|(_, at, _)| lately(at)) {
            return false;
        }
        let own = self.itself.map(|(witness, ..)| witness);
        heard.iter().filter(|(witness, at)| lately(*at) && Some(*witness) != own).count() < 2
    }

    /// The newest heartbeat that is believed; `None`: that it lives at all is the word of one.
    fn believed(&self, lonely: bool) -> Option<u64> {
        let itself = self.itself.map(|(.., beat)| beat);
        let claim = &self.claims[usize::from(!lonely)];
        let others = claim.witness.map(|_| claim.beat);
        match (itself.max(others), self.place) {
            (None, Place::Out) => None,
            (believed, _) => Some(believed.unwrap_or(0)),
        }
    }
}

/// What an entry of a digest takes: name, generation, address and three numbers.
fn weight(named: &Named) -> usize {
    let address = if named.address.is_ipv4() { 4 } else { 16 };
    2 + named.name.len() + 8 + 3 + address + 24
}

#[cfg(test)]
mod tests;
