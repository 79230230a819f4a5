//! An instance joins others under load, simulated with a clock of its own: whoever is new and cold is not run over, and has its share in the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

/// Between two requests.
const EVERY: Duration = Duration::from_millis(2);
/// Instances that are there before.
const BEFORE: usize = 4;
/// What an instance needs for a request, and the new one while it is cold.
const WARM: Duration = Duration::from_millis(10);
const COLD: Duration = Duration::from_secs(1);
/// How long it is cold.
const WARMING: Duration = Duration::from_secs(3);
/// Requests in a second that each of them would have in equal shares.
const FAIR: usize = 1_000 / 2 / (BEFORE + 1);

/// Requests on their way, the first to end on top.
#[derive(Default)]
struct UnderWay {
    ends: BinaryHeap<Reverse<(Instant, usize)>>,
    all: HashMap<usize, (InFlight, Duration)>,
}

impl UnderWay {
    fn begin(&mut self, nth: usize, load: &std::rc::Rc<Load>, now: Instant, takes: Duration) {
        self.ends.push(Reverse((now + takes, nth)));
        self.all.insert(nth, (InFlight::start(load), takes));
    }

    fn end(&mut self, now: Instant) {
        while let Some(Reverse((at, nth))) = self.ends.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.ends.pop();
            let (flight, took) = self.all.remove(&nth).expect("it was begun");
            flight.load().observe(took, at);
        }
    }
}

/// How many requests the new instance has in each second after it has joined, for a minute, and how many of all were under way at it at most while it was cold.
fn joins(policy: Policy, slow_start: Duration) -> (Vec<usize>, u32) {
    let (epoch, begun) = (Arc::new(Epoch::default()), start());
    let joined = begun + Duration::from_secs(5);
    let node = |index: usize, standing: Standing| Node {
        id: index as u64,
        identity: format!("node-{index}").into(),
        weight: 1,
        priority: 0,
        zone: "".into(),
        standing: Arc::new(standing),
    };
    let view = |nodes: &[Node]| View::new(policy, nodes.to_vec(), slow_start, None, Zones::default(), epoch.clone());
    let mut nodes: Vec<Node> = (0..BEFORE).map(|index| node(index, Standing::new(epoch.clone(), begun))).collect();
    let before = view(&nodes);
    nodes.push(node(BEFORE, Standing::joining(epoch.clone(), joined)));
    let after = view(&nodes);
    let (mut worker, mut dice, mut under_way) = (Worker::default(), fastrand::Rng::with_seed(5), UnderWay::default());
    let (mut seconds, mut most) = (vec![0; 60], 0);
    for nth in 0..32_500 {
        let now = begun + EVERY * nth as u32;
        under_way.end(now);
        let view = if now < joined { &before } else { &after };
        let index = worker.pick(view, None, &[], &mut dice, now).unwrap().index;
        let load = worker.load(index).unwrap().clone();
        let is_cold = index == BEFORE && now < joined + WARMING;
        under_way.begin(nth, &load, now, if is_cold { COLD } else { WARM });
        if index == BEFORE {
            seconds[(now - joined).as_secs() as usize] += 1;
            most = most.max(if is_cold { load.active() } else { 0 });
        }
    }
    (seconds, most)
}

#[test]
fn one_that_joins_gets_no_more_than_its_share_while_it_is_cold_and_all_of_it_later() {
    for policy in [Policy::RoundRobin, Policy::LeastConn, Policy::Ewma] {
        for slow_start in [Duration::ZERO, Duration::from_secs(10)] {
            let (seconds, _) = joins(policy, slow_start);
            let most = seconds.iter().max().unwrap();
            assert!(*most <= FAIR * 13 / 10, "{policy:?} with {slow_start:?}: {seconds:?}");
            let late = seconds[50..].iter().sum::<usize>() / 10;
            assert!((FAIR / 2..=FAIR * 13 / 10).contains(&late), "{policy:?} with {slow_start:?}: {seconds:?}");
        }
    }
}

#[test]
fn balancers_that_look_at_load_keep_those_that_are_cold_from_piling_up() {
    let most = |policy, slow_start| joins(policy, slow_start).1;
    let turns = most(Policy::RoundRobin, Duration::ZERO);
    assert!(turns >= 100, "by turns all requests of a second wait at it: {turns}");
    assert!(most(Policy::Ewma, Duration::ZERO) <= 2, "the first answer is awaited before more are risked");
    assert!(most(Policy::LeastConn, Duration::ZERO) <= 4);
    assert!(most(Policy::RoundRobin, Duration::from_secs(10)) <= turns / 2, "a slow start halves it and more");
}
