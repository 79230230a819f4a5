//! Properties of zones: the own one first, others by what is missing, nobody left out, nothing twice.

use heddle_xds::model::{ZoneMode, ZonePolicy};

use super::super::plan::Why;
use super::super::zones::{Level, shares};
use super::*;

/// A view of nodes `(zone, weight, priority)` as seen from `own`.
struct Scene {
    policy: Policy,
    own: &'static str,
    mode: ZoneMode,
    failover: Vec<&'static str>,
    slow_start: Duration,
    panic_threshold: Option<u8>,
    callers: Arc<Callers>,
}

impl Default for Scene {
    fn default() -> Scene {
        Scene {
            policy: Policy::RoundRobin,
            own: "a",
            mode: ZoneMode::Prefer,
            failover: Vec::new(),
            slow_start: Duration::ZERO,
            panic_threshold: None,
            callers: Arc::default(),
        }
    }
}

impl Scene {
    fn view(&self, nodes: &[(&str, u32, i32)]) -> View {
        let epoch = Arc::new(Epoch::default());
        let node = |(index, &(zone, weight, priority)): (usize, &(&str, u32, i32))| Node {
            id: index as u64,
            identity: format!("node-{index}").into(),
            weight,
            priority,
            zone: zone.into(),
            standing: Arc::new(Standing::new(epoch.clone(), start())),
        };
        let failover = self.failover.iter().map(|zone| Arc::from(*zone)).collect();
        let zones = Zones {
            own: self.own.into(),
            policy: ZonePolicy { mode: self.mode, failover, overprovisioning: 140, spread: None },
            callers: self.callers.clone(),
        };
        let nodes = nodes.iter().enumerate().map(node).collect();
        View::new(self.policy, nodes, self.slow_start, self.panic_threshold, zones, epoch.clone())
    }
}

fn down(view: &View, index: usize) {
    view.nodes()[index].standing.set(State::Down, start());
}

/// Requests by zone.
fn by_zone(view: &View, picks: usize, key: impl Fn(usize) -> Option<u64>) -> HashMap<String, usize> {
    let mut zones = HashMap::new();
    for (index, picked) in count(view, picks, key).into_iter().enumerate() {
        *zones.entry(view.nodes()[index].zone.to_string()).or_default() += picked;
    }
    zones
}

/// Share of each zone as it is shown.
fn shown(view: &View, now: Instant) -> HashMap<String, (f64, Why)> {
    view.zone_shares(now).into_iter().map(|zone| (zone.zone.to_string(), (zone.share, zone.why))).collect()
}

const TWO: [(&str, u32, i32); 4] = [("a", 1, 0), ("a", 1, 0), ("b", 1, 0), ("b", 1, 0)];

#[test]
fn the_own_zone_comes_first_and_spills_over_by_what_is_missing() {
    for policy in ALL {
        let view = Scene { policy, ..Scene::default() }.view(&TWO);
        assert_eq!(by_zone(&view, 1000, mixed_key)["b"], 0, "{policy:?}");
        down(&view, 0);
        // half of the own zone stands: 0.5 × 1.4
        let zones = by_zone(&view, 1000, mixed_key);
        assert!((660..740).contains(&zones["a"]), "{policy:?}: {zones:?}");
        down(&view, 1);
        assert_eq!(by_zone(&view, 1000, mixed_key)["a"], 0, "{policy:?}");
        view.nodes()[0].standing.set(State::Up, start());
        view.nodes()[1].standing.set(State::Up, start());
        assert_eq!(by_zone(&view, 1000, mixed_key)["b"], 0, "{policy:?}: all back");
    }
}

#[test]
fn the_split_is_exact_over_any_stretch() {
    let view = Scene::default().view(&TWO);
    down(&view, 0);
    let (mut worker, mut dice) = (Worker::default(), fastrand::Rng::with_seed(7));
    let mut own = 0usize;
    for nth in 1..=2000usize {
        own += usize::from(worker.pick(&view, None, &[], &mut dice, start()).unwrap().index < 2);
        let expected = nth as f64 * 0.7;
        assert!((own as f64 - expected).abs() < 4.0, "{own} of {nth}");
    }
}

#[test]
fn without_zones_on_either_side_nothing_changes() {
    let plain: Vec<(u32, i32)> = vec![(1, 0), (3, 0), (2, 1)];
    let zoned = |zones: [&'static str; 3]| [(zones[0], 1, 0), (zones[1], 3, 0), (zones[2], 2, 1)];
    let expected = count(&view(Policy::RoundRobin, &plain), 60, |_| None);
    let unzoned = Scene::default().view(&zoned(["", "", ""]));
    let nowhere = Scene { own: "", ..Scene::default() }.view(&zoned(["a", "b", "c"]));
    let off = Scene { mode: ZoneMode::Off, ..Scene::default() }.view(&zoned(["a", "b", "a"]));
    for view in [&unzoned, &nowhere, &off] {
        assert_eq!(count(view, 60, |_| None), expected);
        assert!(shown(view, start()).values().all(|(share, why)| *why == Why::Any || *share == 0.0));
    }
    let foreign = Scene::default().view(&[("b", 1, 0), ("c", 3, 0)]);
    assert_eq!(count(&foreign, 60, |_| None), [15, 45], "zones that are all foreign share by weight");
}

#[test]
fn zones_take_over_in_the_order_that_was_named() {
    let scene = Scene { failover: vec!["c", "b"], ..Scene::default() };
    let view = scene.view(&[("a", 1, 0), ("b", 1, 0), ("c", 1, 0), ("d", 1, 0)]);
    for (gone, next) in [(0, "c"), (2, "b"), (1, "d")] {
        down(&view, gone);
        assert_eq!(by_zone(&view, 100, mixed_key)[next], 100);
        let shown = shown(&view, start());
        assert_eq!(shown[next], (1.0, Why::Spill), "{shown:?}");
    }
}

#[test]
fn strict_uses_the_own_zone_and_the_named_ones_only() {
    let scene = Scene { mode: ZoneMode::Strict, failover: vec!["b"], ..Scene::default() };
    let view = scene.view(&[("a", 1, 0), ("b", 1, 0), ("c", 9, 5)]);
    assert_eq!(by_zone(&view, 100, mixed_key)["a"], 100);
    assert_eq!(shown(&view, start())["c"], (0.0, Why::Barred));
    let mut worker = Worker::default();
    assert_eq!(worker.prefer(&view, 2, &[], start()), None, "not even for those who were there before");
    assert_eq!(worker.prefer(&view, 1, &[], start()).map(|pick| pick.index), Some(1));
    for index in 0..3 {
        down(&view, index);
    }
    let zones = by_zone(&view, 100, mixed_key);
    assert_eq!((zones["a"], zones["b"], zones["c"]), (50, 50, 0), "health is ignored, the policy is not");
    assert!(scene.view(&[("c", 1, 0)]).is_empty());
    let nowhere = Scene { own: "", mode: ZoneMode::Strict, ..Scene::default() };
    assert_eq!(by_zone(&nowhere.view(&[("", 1, 0), ("a", 1, 0)]), 10, mixed_key)[""], 10, "who knows no zone has none but that");
}

#[test]
fn a_small_zone_with_many_callers_is_not_drowned() {
    let scene = Scene::default();
    let nodes = [("a", 1, 0), ("b", 1, 0), ("b", 1, 0), ("b", 1, 0)];
    let view = scene.view(&nodes);
    assert_eq!(by_zone(&view, 1000, mixed_key)["a"], 1000, "while callers are not known, they are where the endpoints are");
    assert!(scene.callers.set(1, 2));
    view.epoch.bump();
    // a quarter of the endpoints, half of the callers: 1.4 × 0.25 / 0.5
    let zones = by_zone(&view, 1000, mixed_key);
    assert!((695..705).contains(&zones["a"]), "{zones:?}");
    scene.callers.set(1, 4);
    view.epoch.bump();
    assert_eq!(by_zone(&view, 1000, mixed_key)["a"], 1000);
    assert!(!scene.callers.set(2, 8) && scene.callers.set(1, 1), "the same part is no news; one alone is no part");
    assert_eq!(scene.callers.part(), None);
}

#[test]
fn one_that_comes_back_alone_is_not_run_over() {
    let scene = Scene { slow_start: Duration::from_secs(10), ..Scene::default() };
    let view = scene.view(&[("a", 1, 0), ("b", 1, 0)]);
    let now = start();
    view.nodes()[0].standing.set(State::Down, now);
    view.nodes()[0].standing.set(State::Up, now);
    let mut worker = Worker::default();
    let mut dice = fastrand::Rng::with_seed(7);
    let mut own = |at: Instant| (0..1000).filter(|_| worker.pick(&view, None, &[], &mut dice, at).unwrap().index == 0).count();
    let steps: Vec<usize> = [0, 3, 6, 8, 11].map(|after| own(now + Duration::from_secs(after))).to_vec();
    assert!((130..145).contains(&steps[0]), "a tenth × 1.4: {steps:?}");
    assert!(steps.is_sorted() && steps[4] == 1000, "{steps:?}");
}

#[test]
fn where_all_are_new_nothing_spills_over() {
    let epoch = Arc::new(Epoch::default());
    let now = start();
    let node = |(id, zone): (u64, &str)| Node {
        id,
        identity: zone.into(),
        weight: 1,
        priority: 0,
        zone: zone.into(),
        standing: Arc::new(Standing::joining(epoch.clone(), now)),
    };
    let zones = Zones { own: "a".into(), ..Zones::default() };
    let nodes = [(0, "a"), (1, "b")].map(node).to_vec();
    let view = View::new(Policy::RoundRobin, nodes, Duration::from_secs(10), None, zones, epoch.clone());
    assert_eq!(count(&view, 100, |_| None), [100, 0]);
}

#[test]
fn panic_forgets_zones_and_priorities_come_before_them() {
    let view = Scene { panic_threshold: Some(50), ..Scene::default() }.view(&TWO);
    for index in 0..3 {
        down(&view, index);
    }
    assert_eq!(count(&view, 100, |_| None), [25, 25, 25, 25]);
    assert!(shown(&view, start()).values().all(|zone| *zone == (0.5, Why::Panic)));
    let tiers = Scene::default().view(&[("b", 1, 1), ("a", 1, 0), ("b", 1, 0)]);
    assert_eq!(count(&tiers, 10, |_| None), [10, 0, 0], "a higher priority elsewhere wins over the own zone");
    down(&tiers, 0);
    assert_eq!(count(&tiers, 10, |_| None), [0, 10, 0]);
}

#[test]
fn tries_leave_the_zone_before_they_leave_the_priority() {
    let view = Scene::default().view(&[("a", 1, 1), ("b", 1, 1), ("a", 1, 0)]);
    let mut dice = fastrand::Rng::with_seed(1);
    let mut pick = |tried: &[u64]| Worker::default().pick(&view, None, tried, &mut dice, start()).map(|pick| pick.index);
    assert_eq!((pick(&[]), pick(&[0]), pick(&[0, 1]), pick(&[0, 1, 2])), (Some(0), Some(1), Some(2), None));
}

#[test]
fn a_half_open_endpoint_alone_in_its_zone_gets_one_request_the_others_go_elsewhere() {
    let view = Scene::default().view(&[("a", 1, 0), ("b", 1, 0)]);
    view.nodes()[0].standing.set(State::Trial, start());
    assert_eq!(count(&view, 10, |_| None), [1, 9]);
}

#[test]
fn keys_that_stay_in_the_zone_stay_where_they_were() {
    let scene = Scene { policy: super::CHASH, ..Scene::default() };
    let view = scene.view(&[("a", 1, 0), ("a", 1, 0), ("a", 1, 0), ("b", 1, 0), ("b", 1, 0)]);
    let place = |nth: usize| {
        let mut dice = fastrand::Rng::with_seed(nth as u64);
        Worker::default().pick(&view, mixed_key(nth), &[], &mut dice, start()).unwrap().index
    };
    let before: Vec<usize> = (0..500).map(place).collect();
    down(&view, 0);
    let after: Vec<usize> = (0..500).map(place).collect();
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *before == 0 || *after >= 3, "a key moved inside the zone from {before} to {after}");
    }
    assert_eq!(after, (0..500).map(place).collect::<Vec<_>>());
    let spilt = after.iter().filter(|index| **index >= 3).count();
    // two thirds stand: 0.93
    assert!((15..60).contains(&spilt), "{spilt}");
}

proptest! {
    #[test]
    fn shares_are_whole_and_fall_only_with_what_stands(
        levels in prop::collection::vec((1u32..1000, 0.0f64..=1.0, 0.1f64..5.0), 1..6),
        headroom in 1.0f64..3.0,
        which in 0usize..6,
        less in 0.0f64..1.0,
    ) {
        let level = |&(weight, stands, room): &(u32, f64, f64)| Level { weight: weight.into(), standing: f64::from(weight) * stands, room };
        let mut levels: Vec<Level> = levels.iter().map(level).collect();
        let before = shares(&levels, headroom);
        let sum: f64 = before.iter().sum();
        prop_assert!((sum - 1.0).abs() < 1e-9 || levels.iter().all(|level| level.standing <= 0.0) && sum == 0.0);
        for (level, share) in levels.iter().zip(&before) {
            prop_assert!(*share >= 0.0 && (level.standing > 0.0 || *share == 0.0), "nothing goes where nothing stands");
        }
        let which = which % levels.len();
        levels[which].standing *= less;
        let after = shares(&levels, headroom);
        prop_assert!(after[which] <= before[which] + 1e-9, "who loses endpoints gets no more requests");
        if which == 0 && levels.iter().any(|level| level.standing > 0.0) {
            let rest = |shares: &[f64]| shares[1..].iter().sum::<f64>();
            prop_assert!(rest(&after) + 1e-9 >= rest(&before), "and the others get no less");
        }
    }

    #[test]
    fn whatever_stands_and_is_allowed_is_found(
        nodes in prop::collection::vec((0usize..4, 0u32..4, 0i32..3, 0usize..3), 1..12),
        policy in 0usize..4,
        mode in prop::sample::select(vec![ZoneMode::Prefer, ZoneMode::Strict, ZoneMode::Off]),
        own in prop::sample::select(vec!["", "a", "b"]),
        failover in prop::sample::subsequence(vec!["b", "c", "d"], 0..3),
        seed: u64,
    ) {
        let names = ["", "a", "b", "c"];
        let scene = Scene { policy: ALL[policy], own, mode, failover: failover.clone(), ..Scene::default() };
        let view = scene.view(&nodes.iter().map(|(zone, weight, priority, _)| (names[*zone], *weight, *priority)).collect::<Vec<_>>());
        for (index, (.., state)) in nodes.iter().enumerate() {
            view.nodes()[index].standing.set([State::Up, State::Down, State::Trial][*state], start());
        }
        let usable = |index: &usize| {
            let (zone, weight, ..) = nodes[*index];
            weight > 0 && (mode != ZoneMode::Strict || names[zone] == own || failover.contains(&names[zone]))
        };
        let usable: Vec<usize> = (0..nodes.len()).filter(usable).collect();
        let none_up = usable.iter().all(|&index| nodes[index].3 != 0);
        let mut left: HashSet<usize> = usable.into_iter().filter(|&index| none_up || nodes[index].3 != 1).collect();
        let shares: f64 = view.zone_shares(start()).iter().map(|zone| zone.share).sum();
        prop_assert!((shares - 1.0).abs() < 1e-6 || left.is_empty());
        let (mut worker, mut dice, mut tried) = (Worker::default(), fastrand::Rng::with_seed(seed), Tried::new());
        while let Some(pick) = worker.pick(&view, Some(seed), &tried, &mut dice, start()) {
            prop_assert!(left.remove(&pick.index), "{} is down, forbidden or was tried", pick.index);
            tried.push(pick.index as u64);
        }
        prop_assert!(left.is_empty(), "never tried: {left:?}");
    }
}
