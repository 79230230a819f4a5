//! Properties of every policy: shares follow weights, the dead are skipped, priorities hold, keys stay where they are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{HashTable, RingSize};
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

mod scale;
mod spread;
mod tilt;
mod zones;

fn view(policy: Policy, nodes: &[(u32, i32)]) -> View {
    with(policy, nodes, Duration::ZERO, None)
}

fn with(policy: Policy, nodes: &[(u32, i32)], slow_start: Duration, panic_threshold: Option<u8>) -> View {
    let epoch = Arc::new(Epoch::default());
    let node = |(index, &(weight, priority)): (usize, &(u32, i32))| Node {
        id: index as u64,
        identity: format!("node-{index}").into(),
        weight,
        priority,
        zone: "".into(),
        standing: Arc::new(Standing::new(epoch.clone(), start())),
    };
    View::new(policy, nodes.iter().enumerate().map(node).collect(), slow_start, panic_threshold, Zones::default(), epoch.clone())
}

fn start() -> Instant {
    heddle_node::clock::now()
}

fn count(view: &View, picks: usize, key: impl Fn(usize) -> Option<u64>) -> Vec<usize> {
    let (mut worker, mut dice, now) = (Worker::default(), fastrand::Rng::with_seed(7), start());
    let mut counts = vec![0; view.nodes().len()];
    for nth in 0..picks {
        counts[worker.pick(view, key(nth), &[], &mut dice, now).unwrap().index] += 1;
    }
    counts
}

const CHASH: Policy = Policy::ConsistentHash(HashTable::RING);
const MAGLEV: Policy = Policy::ConsistentHash(HashTable::MAGLEV);
const ALL: [Policy; 5] = [Policy::RoundRobin, CHASH, MAGLEV, Policy::LeastConn, Policy::Ewma];

fn mixed_key(nth: usize) -> Option<u64> {
    Some(hash_key(&nth.to_le_bytes()))
}

#[test]
fn a_preferred_node_is_chosen_while_it_may_be() {
    for policy in ALL {
        let view = view(policy, &[(1, 0), (0, 0), (5, 1)]);
        let mut worker = Worker::default();
        let mut prefer = |index, tried: &[u64]| worker.prefer(&view, index, tried, start()).map(|pick| pick.index);
        assert_eq!(
            (prefer(0, &[]), prefer(1, &[]), prefer(2, &[])),
            (Some(0), Some(1), Some(2)),
            "whatever its weight and priority"
        );
        assert_eq!((prefer(0, &[0]), prefer(3, &[])), (None, None), "tried, or not there");
        view.nodes()[0].standing.set(State::Down, start());
        assert_eq!(prefer(0, &[]), None);
        view.nodes()[2].standing.set(State::Down, start());
        assert_eq!((prefer(0, &[]), prefer(2, &[])), (Some(0), Some(2)), "when all are down, health says nothing");
        assert_eq!(prefer(1, &[]), Some(1));
    }
}

proptest! {
    #[test]
    fn round_robin_gives_every_node_exactly_its_weight_in_each_round(weights in prop::collection::vec(0u32..9, 1..8), rounds in 1usize..4) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let nodes: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
        let counts = count(&view(Policy::RoundRobin, &nodes), total as usize * rounds, |_| None);
        let expected: Vec<usize> = weights.iter().map(|weight| *weight as usize * rounds).collect();
        prop_assert_eq!(counts, expected);
    }

    #[test]
    fn no_policy_ever_picks_what_is_down_tried_or_without_weight(
        nodes in prop::collection::vec((0u32..4, 0i32..3, any::<bool>(), any::<bool>()), 1..10),
        policy in 0usize..5,
        seed: u64,
    ) {
        let view = view(ALL[policy], &nodes.iter().map(|(weight, priority, ..)| (*weight, *priority)).collect::<Vec<_>>());
        let mut tried = Tried::new();
        for (index, (_, _, up, was_tried)) in nodes.iter().enumerate() {
            if !up {
                view.nodes()[index].standing.set(State::Down, start());
            }
            if *was_tried {
                tried.push(index as u64);
            }
        }
        let usable = |index: usize| nodes[index].0 > 0;
        let all_down = !(0..nodes.len()).any(|index| usable(index) && nodes[index].2);
        let allowed: HashSet<usize> =
            (0..nodes.len()).filter(|&index| usable(index) && !nodes[index].3 && (nodes[index].2 || all_down)).collect();
        let best = allowed.iter().map(|&index| nodes[index].1).max();
        let mut dice = fastrand::Rng::with_seed(seed);
        for key in [None, Some(seed)] {
            match Worker::default().pick(&view, key, &tried, &mut dice, start()) {
                Some(pick) => {
                    prop_assert!(allowed.contains(&pick.index));
                    prop_assert_eq!(Some(nodes[pick.index].1), best, "the highest priority that is left comes first");
                }
                None => prop_assert!(allowed.is_empty()),
            }
        }
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own_keys(count in 2usize..9, gone in 0usize..9, keys in prop::collection::vec(any::<u64>(), 50)) {
        let gone = gone % count;
        let names: Vec<String> = (0..count).map(|index| format!("10.0.0.{index}:80")).collect();
        let all = Ring::build(names.iter().enumerate().map(|(index, name)| (index as u32, name.as_str(), 1)), RingSize::ByWeight);
        let less = Ring::build(names.iter().enumerate().filter(|(index, _)| *index != gone).map(|(index, name)| (index as u32, name.as_str(), 1)), RingSize::ByWeight);
        for key in keys {
            let (before, after) = (all.walk(key).next().unwrap(), less.walk(key).next().unwrap());
            if before as usize == gone {
                // and these go where they would have gone had the node only been down
                prop_assert_eq!(all.walk(key).find(|index| *index as usize != gone), Some(after));
            } else {
                prop_assert_eq!(before, after);
            }
        }
    }
}

#[test]
fn every_policy_follows_weights() {
    for policy in ALL {
        let view = view(policy, &[(1, 0), (3, 0), (0, 0)]);
        if policy == Policy::Ewma || policy == Policy::LeastConn {
            // without load these take the cheapest; weight tells once requests are in flight
            assert_eq!(count(&view, 100, mixed_key)[2], 0);
            continue;
        }
        let counts = count(&view, 8000, mixed_key);
        assert!((1400..2600).contains(&counts[0]) && counts[2] == 0, "{policy:?}: {counts:?}");
    }
}

#[test]
fn a_ring_is_spread_evenly_and_bounded() {
    let counts = count(&view(CHASH, &[(1, 0); 10]), 100_000, mixed_key);
    assert!(counts.iter().all(|count| (7_000..13_500).contains(count)), "{counts:?}");
    let huge = Ring::build([(0, "a", 1_000_003), (1, "b", 1), (2, "c", 999)].into_iter(), RingSize::ByWeight);
    // As with Envoy: who has less than a point's share may own none.
    assert!(huge.walk(0).count() <= 65_536 && huge.walk(0).collect::<HashSet<_>>().len() == 2);
    assert_eq!(
        Ring::build([(0, "a", 200), (1, "b", 100)].into_iter(), RingSize::ByWeight).walk(0).count(),
        384,
        "weights are divided by what they share"
    );
}

#[test]
fn least_conn_spreads_requests_in_flight_by_weight() {
    let view = view(Policy::LeastConn, &[(1, 0), (2, 0), (1, 0)]);
    let (mut worker, mut dice) = (Worker::default(), fastrand::Rng::with_seed(3));
    let mut open: HashMap<usize, Vec<InFlight>> = HashMap::new();
    for _ in 0..400 {
        let pick = worker.pick(&view, None, &[], &mut dice, start()).unwrap();
        open.entry(pick.index).or_default().push(InFlight::start(worker.load(pick.index).unwrap()));
    }
    assert_eq!((open[&0].len(), open[&1].len(), open[&2].len()), (100, 200, 100));
    open.remove(&1);
    assert_eq!(worker.pick(&view, None, &[], &mut dice, start()).unwrap().index, 1);
}

#[test]
fn ewma_leaves_the_slow_node_and_comes_back_to_it() {
    let view = view(Policy::Ewma, &[(1, 0), (1, 0)]);
    let (mut worker, mut dice, now) = (Worker::default(), fastrand::Rng::with_seed(3), start());
    worker.pick(&view, None, &[], &mut dice, now).unwrap();
    worker.load(0).unwrap().observe(Duration::from_millis(500), now);
    worker.load(1).unwrap().observe(Duration::from_millis(5), now);
    for _ in 0..50 {
        assert_eq!(worker.pick(&view, None, &[], &mut dice, now).unwrap().index, 1);
    }
    let later = now + Duration::from_secs(60);
    worker.load(1).unwrap().observe(Duration::from_millis(5), later);
    assert_eq!(worker.pick(&view, None, &[], &mut dice, later).unwrap().index, 0, "what was not seen for long is tried again");
}

#[test]
fn ewma_gives_a_new_node_others_again_whose_first_request_is_never_answered() {
    let view = view(Policy::Ewma, &[(1, 0), (1, 0)]);
    let (mut worker, mut dice, now) = (Worker::default(), fastrand::Rng::with_seed(3), start());
    worker.pick(&view, None, &[], &mut dice, now).unwrap();
    worker.load(0).unwrap().observe(Duration::from_millis(5), now);
    let mut open = vec![InFlight::start(worker.load(1).unwrap())];
    for second in 0..20 {
        let later = now + Duration::from_secs(second);
        worker.load(0).unwrap().observe(Duration::from_millis(5), later);
        for _ in 0..50 {
            if worker.pick(&view, None, &[], &mut dice, later).unwrap().index == 1 {
                open.push(InFlight::start(worker.load(1).unwrap()));
            }
        }
        assert_eq!(open.len() as u64, 1 + second / 5, "after {second} seconds");
    }
    open[0].load().observe(Duration::from_millis(1), now + Duration::from_secs(20));
    open.clear();
    assert_eq!(worker.pick(&view, None, &[], &mut dice, now + Duration::from_secs(20)).unwrap().index, 1);
}

#[test]
fn loads_and_turns_survive_a_new_view() {
    let first = view(Policy::LeastConn, &[(1, 0), (1, 0)]);
    let (mut worker, mut dice) = (Worker::default(), fastrand::Rng::with_seed(3));
    worker.pick(&first, None, &[], &mut dice, start()).unwrap();
    let _busy = InFlight::start(worker.load(1).unwrap());
    let next = view(Policy::LeastConn, &[(1, 0), (1, 0), (0, 0)]);
    for _ in 0..20 {
        assert_eq!(worker.pick(&next, None, &[], &mut dice, start()).unwrap().index, 0);
    }
}

#[test]
fn below_the_panic_threshold_health_is_ignored() {
    for (threshold, expected) in [(None, 1), (Some(0), 1), (Some(20), 1), (Some(50), 4)] {
        let view = with(Policy::RoundRobin, &[(1, 0); 4], Duration::ZERO, threshold);
        for node in &view.nodes()[1..] {
            node.standing.set(State::Down, start());
        }
        let used = count(&view, 8, |_| None).into_iter().filter(|count| *count > 0).count();
        assert_eq!(used, expected, "threshold {threshold:?}");
    }
}

#[test]
fn who_is_down_gets_nothing_where_health_is_never_ignored() {
    for policy in ALL {
        for (threshold, used) in [(None, true), (Some(1), true), (Some(0), false)] {
            let view = with(policy, &[(1, 0), (1, 0), (1, -1)], Duration::ZERO, threshold);
            view.nodes().iter().for_each(|node| node.standing.set(State::Down, start()));
            let mut worker = Worker::default();
            let mut dice = fastrand::Rng::with_seed(1);
            let picked = worker.pick(&view, mixed_key(1), &[], &mut dice, start());
            assert_eq!(picked.is_some(), used, "{policy:?} {threshold:?}");
            assert_eq!(worker.prefer(&view, 1, &[], start()).is_some(), used, "{policy:?} {threshold:?}");
            let shared: f64 = view.zone_shares(start()).iter().map(|zone| zone.share).sum();
            assert_eq!(shared > 0.0, used, "{policy:?} {threshold:?}");
        }
        let view = with(policy, &[(1, 0), (1, 0)], Duration::ZERO, Some(0));
        view.nodes()[0].standing.set(State::Down, start());
        view.nodes()[1].standing.set(State::Trial, start());
        let mut worker = Worker::default();
        let mut pick = || worker.pick(&view, mixed_key(1), &[], &mut fastrand::Rng::with_seed(1), start()).map(|pick| pick.index);
        assert_eq!((pick(), pick()), (Some(1), None), "a trial is for one request at a time");
    }
}

#[test]
fn a_lower_priority_is_used_when_the_higher_is_down_or_tried() {
    for threshold in [None, Some(0), Some(10), Some(50)] {
        let view = with(Policy::RoundRobin, &[(1, 10), (1, 10), (1, 0)], Duration::ZERO, threshold);
        let (mut worker, mut dice) = (Worker::default(), fastrand::Rng::with_seed(1));
        assert_eq!(worker.pick(&view, None, &[0, 1], &mut dice, start()).unwrap().index, 2);
        assert_eq!(worker.pick(&view, None, &[0, 1, 2], &mut dice, start()), None);
        view.nodes()[0].standing.set(State::Down, start());
        view.nodes()[1].standing.set(State::Down, start());
        assert_eq!(worker.pick(&view, None, &[], &mut dice, start()).unwrap().index, 2, "threshold {threshold:?}");
        assert_eq!(view.zone_shares(start())[0].why, super::plan::Why::Any, "nobody's health is ignored");
        view.nodes()[1].standing.set(State::Up, start());
        assert_eq!(worker.pick(&view, None, &[], &mut dice, start()).unwrap().index, 1);
    }
}

#[test]
fn a_half_open_node_gets_one_request_at_a_time() {
    let view = view(Policy::RoundRobin, &[(1, 0), (1, 0)]);
    view.nodes()[0].standing.set(State::Trial, start());
    let (mut worker, mut dice) = (Worker::default(), fastrand::Rng::with_seed(1));
    let mut trials = || (0..10).filter(|_| worker.pick(&view, None, &[], &mut dice, start()).unwrap().trial).count();
    assert_eq!((trials(), trials()), (1, 0));
    view.nodes()[0].standing.give_back();
    assert_eq!(trials(), 1);
}

#[test]
fn a_node_that_came_back_ramps_up() {
    let view = with(Policy::RoundRobin, &[(10, 0), (10, 0)], Duration::from_secs(10), None);
    let now = start();
    view.nodes()[0].standing.set(State::Down, now);
    view.nodes()[0].standing.set(State::Up, now);
    let share = |after: u64| {
        let (mut worker, mut dice) = (Worker::default(), fastrand::Rng::with_seed(1));
        let at = now + Duration::from_secs(after);
        (0..1000).filter(|_| worker.pick(&view, None, &[], &mut dice, at).unwrap().index == 0).count()
    };
    assert!((80..110).contains(&share(0)), "{}", share(0));
    assert!((300..350).contains(&share(5)), "{}", share(5));
    assert_eq!(share(11), 500);
}
