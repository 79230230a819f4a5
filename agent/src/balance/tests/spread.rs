//! Properties of requests that are spread over priorities and localities as Envoy does.

use heddle_xds::model::{LocalityWeight, Spread, ZonePolicy};

use super::*;

/// A view of nodes `(locality, weight, priority)`; weights of localities are `(priority, locality, weight)`.
fn spread(nodes: &[(&str, u32, i32)], weights: &[(i32, &str, u32)], panic_threshold: u8) -> View {
    spread_by(nodes, weights, panic_threshold, false)
}

fn spread_by(nodes: &[(&str, u32, i32)], weights: &[(i32, &str, u32)], panic_threshold: u8, health_by_weight: bool) -> View {
    let epoch = Arc::new(Epoch::default());
    let node = |(index, &(zone, weight, priority)): (usize, &(&str, u32, i32))| Node {
        id: index as u64,
        identity: format!("node-{index}").into(),
        weight,
        priority,
        zone: zone.into(),
        standing: Arc::new(Standing::new(epoch.clone(), start())),
    };
    let weight = |&(priority, zone, weight): &(i32, &str, u32)| LocalityWeight { priority, zone: zone.into(), weight };
    let weights = weights.iter().map(weight).collect();
    let policy = ZonePolicy { spread: Some(Spread { weights, health_by_weight }), ..ZonePolicy::default() };
    let zones = Zones { own: "a".into(), policy, callers: Arc::default() };
    let nodes = nodes.iter().enumerate().map(node).collect();
    View::new(Policy::RoundRobin, nodes, Duration::ZERO, Some(panic_threshold), zones, epoch.clone())
}

fn down(view: &View, indexes: &[usize]) {
    indexes.iter().for_each(|index| view.nodes()[*index].standing.set(State::Down, start()));
}

fn near(view: &View, expected: &[f64]) {
    let picks = 10_000;
    let found: Vec<f64> = count(view, picks, |_| None).into_iter().map(|picked| picked as f64 / picks as f64).collect();
    let all = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.01);
    assert!(all && found.len() == expected.len(), "{found:?} instead of {expected:?}");
    let shown: f64 = view.zone_shares(start()).iter().map(|zone| zone.share).sum();
    assert!((shown - 1.0).abs() < 1e-6, "{shown}");
}

#[test]
fn localities_have_their_weights_whatever_those_of_their_endpoints() {
    let view = spread(&[("a", 1, 0), ("a", 3, 0), ("b", 9, 0), ("c", 1, 0)], &[(0, "a", 3), (0, "b", 1)], 0);
    near(&view, &[0.1875, 0.5625, 0.25, 0.0]);
    down(&view, &[2]);
    near(&view, &[0.25, 0.75, 0.0, 0.0]);
}

#[test]
fn without_any_weight_all_endpoints_of_a_priority_are_alike() {
    let view = spread(&[("a", 1, 0), ("b", 1, 0), ("c", 1, -1)], &[(0, "a", 0), (0, "b", 0), (-1, "c", 5)], 0);
    near(&view, &[0.5, 0.5, 0.0]);
    down(&view, &[0, 1]);
    near(&view, &[0.0, 0.0, 1.0]);
}

#[test]
fn a_locality_loses_what_it_cannot_carry() {
    let nodes: Vec<(&str, u32, i32)> = (0..4).map(|_| ("a", 1, 0)).chain([("b", 1, 0)]).collect();
    let view = spread(&nodes, &[(0, "a", 1), (0, "b", 1)], 0);
    down(&view, &[0]);
    near(&view, &[0.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 0.5]);
    down(&view, &[1]);
    near(&view, &[0.0, 0.0, 0.35 / 1.7, 0.35 / 1.7, 1.0 / 1.7]);
}

#[test]
fn a_lower_priority_helps_before_a_higher_one_has_failed() {
    let view = spread(&[("", 1, 0), ("", 1, 0), ("", 1, -1), ("", 1, -1)], &[], 50);
    near(&view, &[0.5, 0.5, 0.0, 0.0]);
    down(&view, &[0]);
    near(&view, &[0.0, 0.7, 0.15, 0.15]);
    down(&view, &[1]);
    near(&view, &[0.0, 0.0, 0.5, 0.5]);
    // Half of the last ones can carry 70 percent of all, so that the first ones would panic, did they get anything.
    down(&view, &[2]);
    near(&view, &[0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn where_too_few_stand_in_all_health_is_ignored() {
    let view = spread(&[("", 1, 0), ("", 1, 0), ("", 1, 0), ("", 1, 0)], &[], 50);
    down(&view, &[0, 1]);
    near(&view, &[0.0, 0.0, 0.5, 0.5]);
    down(&view, &[2]);
    near(&view, &[0.25; 4]);
    let view = spread(&[("", 1, 0), ("", 1, 0), ("", 1, 0), ("", 1, -1)], &[], 50);
    down(&view, &[0, 1]);
    near(&view, &[0.0, 0.0, 1.4 / 3.0, 1.6 / 3.0]);
}

#[test]
fn where_health_is_never_ignored_nobody_who_is_down_gets_anything() {
    let view = spread(&[("", 1, 0), ("", 1, -1)], &[], 0);
    down(&view, &[0, 1]);
    let picked = Worker::default().pick(&view, None, &[], &mut fastrand::Rng::with_seed(1), start());
    assert_eq!(picked, None);
}

#[test]
fn a_priority_may_carry_by_the_weights_of_what_stands_in_it() {
    let nodes = [("a", 9, 0), ("a", 1, 0), ("b", 10, -1)];
    let view = spread_by(&nodes, &[], 0, true);
    down(&view, &[1]);
    near(&view, &[1.0, 0.0, 0.0]);
    let view = spread_by(&nodes, &[], 0, true);
    down(&view, &[0]);
    near(&view, &[0.0, 0.14, 0.86]);
    let view = spread_by(&nodes, &[], 0, false);
    down(&view, &[0]);
    near(&view, &[0.0, 0.7, 0.3]);
}
