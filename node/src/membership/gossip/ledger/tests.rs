//! Whose word is taken: what one liar can claim, and what honest members need to be believed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::clock;

const SECOND: Duration = Duration::from_secs(1);
const LIAR: u64 = 99;

fn peer(witness: u64) -> Peer {
    Peer { witness, address: at(u16::try_from(witness).unwrap()), proven: true }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn life(number: u16, generation: u64) -> Named {
    Named { name: format!("n{number:010}").into_bytes().try_into().unwrap(), generation, address: at(number) }
}

struct World {
    ledger: Ledger,
    now: Instant,
}

impl World {
    /// A while after the start, when three peers were just heard.
    fn new(limit: usize) -> World {
        let mut world = World { ledger: Ledger::new(limit, SECOND), now: clock::now() };
        world.ledger.hear(peer(1), world.now);
        world.now += 100 * SECOND;
        for witness in [1, 2, LIAR] {
            world.ledger.hear(peer(witness), world.now);
        }
        world
    }

    fn claim(&mut self, witness: u64, named: &Named, beat: u64) -> Ruling {
        self.ledger.hear(peer(witness), self.now);
        self.ledger.judge(peer(witness), named, beat, false, self.now)
    }

    fn says_itself(&mut self, witness: u64, named: &Named, beat: u64) -> Ruling {
        self.ledger.hear(peer(witness), self.now);
        self.ledger.judge(peer(witness), named, beat, true, self.now)
    }
}

#[test]
fn two_witnesses_let_somebody_in_and_one_does_not() {
    let mut world = World::new(10);
    assert_eq!(world.claim(LIAR, &life(7, 1), 5), Ruling::Cut);
    assert_eq!(world.claim(LIAR, &life(7, 1), 6), Ruling::Cut);
    assert_eq!(world.claim(1, &life(7, 1), 4), Ruling::Keep(4));
}

#[test]
fn who_speaks_for_itself_is_in_at_once() {
    let mut world = World::new(10);
    assert_eq!(world.says_itself(7, &life(7, 1), 3), Ruling::Keep(3));
}

#[test]
fn one_liar_neither_raises_the_dead_nor_runs_ahead_of_the_living() {
    let mut world = World::new(10);
    world.claim(1, &life(7, 1), 40);
    world.claim(2, &life(7, 1), 40);
    assert_eq!(world.claim(LIAR, &life(7, 1), u64::MAX), Ruling::Keep(40));
    assert_eq!(world.claim(LIAR, &life(7, 1), u64::MAX), Ruling::Keep(40));
    // What is true is believed as before.
    assert_eq!(world.claim(1, &life(7, 1), 41), Ruling::Keep(41));
    assert_eq!(world.says_itself(7, &life(7, 1), 50), Ruling::Keep(50));
    assert_eq!(world.claim(LIAR, &life(7, 1), u64::MAX), Ruling::Keep(50));
}

#[test]
fn who_hears_one_peer_only_takes_its_word_though_not_at_the_start() {
    let mut ledger = Ledger::new(10, SECOND);
    let start = clock::now();
    ledger.hear(peer(1), start);
    assert_eq!(ledger.judge(peer(1), &life(7, 1), 5, false, start), Ruling::Cut);
    assert_eq!(ledger.unproven(3, start, &mut fastrand::Rng::with_seed(1)), [at(7)]);
    let later = start + 6 * SECOND;
    ledger.hear(peer(1), later);
    assert_eq!(ledger.judge(peer(1), &life(7, 1), 6, false, later), Ruling::Keep(6));
}

#[test]
fn the_word_of_who_speaks_itself_weighs_more_than_that_of_a_single_other() {
    let mut world = World { ledger: Ledger::new(10, SECOND), now: clock::now() };
    world.ledger.hear(peer(LIAR), world.now);
    world.now += 100 * SECOND;
    assert_eq!(world.says_itself(7, &life(7, 1), 10), Ruling::Keep(10));
    assert_eq!(world.claim(LIAR, &life(7, 1), 1_000), Ruling::Keep(10));
    // When the way to it is broken, the only other one is believed.
    world.now += 4 * SECOND;
    assert_eq!(world.claim(LIAR, &life(7, 1), 1_000), Ruling::Keep(1_000));
}

#[test]
fn invented_names_do_not_fill_the_room() {
    let mut world = World::new(20);
    for number in 1_000..3_000 {
        assert_eq!(world.claim(LIAR, &life(number, 1), 5), Ruling::Cut);
    }
    assert!(world.ledger.waiting.len() <= 40);
    for number in 1..=20 {
        assert_eq!(world.says_itself(number.into(), &life(number, 1), 5), Ruling::Keep(5));
    }
    assert_eq!(world.says_itself(21, &life(21, 1), 5), Ruling::Full);
}

#[test]
fn one_peer_has_few_lives_of_its_own() {
    let mut world = World::new(1_000);
    let named = |number: u16| Named { address: at(99), ..life(number, 1) };
    for number in 0..MAX_PER_PEER {
        assert_eq!(world.says_itself(LIAR, &named(number as u16), 1), Ruling::Keep(1));
    }
    assert_eq!(world.says_itself(LIAR, &named(900), 1), Ruling::Full);
    assert_eq!(world.says_itself(5, &life(5, 1), 1), Ruling::Keep(1));
}

#[test]
fn former_lives_take_no_place_and_are_forgotten() {
    let mut world = World::new(2);
    world.says_itself(7, &life(7, 1), 9);
    world.says_itself(8, &life(8, 1), 9);
    for generation in 2..50 {
        assert_eq!(world.says_itself(7, &life(7, generation), 1), Ruling::Keep(1));
    }
    assert_eq!(world.says_itself(9, &life(9, 1), 1), Ruling::Full);
    // chitchat has forgotten all but the last life of one; the other one is gone.
    let now = world.now;
    world.ledger.refresh([], now);
    world.ledger.refresh([life(7, 49)], now);
    assert_eq!(world.says_itself(9, &life(9, 1), 1), Ruling::Keep(1));
}

#[test]
fn what_chitchat_can_carry_is_the_end_whatever_is_allowed() {
    let mut world = World::new(1_000);
    let fits = (1..=2_000_u16).take_while(|number| {
        let named = Named { address: at(1), ..life(1, u64::from(*number)) };
        world.says_itself(u64::from(*number), &named, 1) == Ruling::Keep(1)
    });
    assert_eq!(fits.count(), DIGEST_ROOM / 52);
}

#[test]
fn claims_that_nobody_repeats_are_forgotten() {
    let mut world = World::new(20);
    world.claim(LIAR, &life(7, 1), 5);
    let later = world.now + 61 * SECOND;
    world.ledger.refresh([], later);
    assert!(world.ledger.within.is_empty() && world.ledger.waiting.is_empty());
}

proptest! {
    #[test]
    fn no_beat_is_believed_that_only_one_has_claimed(claims in prop::collection::vec((0..4_u64, 1..100_u64), 1..60), lie in 1_000..u64::MAX) {
        let mut world = World::new(10);
        let mut highest = 0;
        for (witness, beat) in claims {
            if witness == 0 {
                let ruling = world.claim(LIAR, &life(7, 1), lie);
                prop_assert!(!matches!(ruling, Ruling::Keep(kept) if kept > highest), "{:?} of {}", ruling, highest);
            } else {
                highest = highest.max(beat);
                world.claim(witness, &life(7, 1), beat);
            }
        }
    }
}
