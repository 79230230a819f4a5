//! Hints of the fleet: they shift weights towards less load, never far, whoever says what.

use super::*;

#[test]
fn who_is_loaded_by_others_gets_less() {
    assert_eq!(tilts(&[(1, 10), (1, 10), (1, 10)]), [256, 256, 256]);
    assert_eq!(tilts(&[(1, 0), (1, 0), (0, 7)]), [256, 256, 256], "nothing in flight, or never chosen");
    assert_eq!(tilts(&[(1, 20), (1, 10), (1, 0)]), [128, 256, 384]);
    assert_eq!(tilts(&[(2, 20), (1, 10)]), [256, 256], "twice the weight, twice the load");
}

#[test]
fn a_tilt_shifts_requests_and_is_no_news_twice() {
    let view = view(Policy::LeastConn, &[(1, 0), (1, 0)]);
    view.nodes()[0].standing.lean(128);
    let epoch = view.epoch.get();
    view.nodes()[0].standing.lean(128);
    assert_eq!(view.epoch.get(), epoch);
    let (mut worker, mut dice) = (Worker::default(), fastrand::Rng::with_seed(3));
    let mut open = Vec::new();
    for _ in 0..300 {
        let pick = worker.pick(&view, None, &[], &mut dice, start()).unwrap();
        open.push(InFlight::start(worker.load(pick.index).unwrap()));
    }
    let loads = [0, 1].map(|index| worker.load(index).unwrap().active());
    assert!((98..=102).contains(&loads[0]), "a third goes to the one with half of its weight: {loads:?}");
}

proptest! {
    #[test]
    fn no_hint_moves_a_weight_by_more_than_half(endpoints in prop::collection::vec((0u32..100, any::<u32>().prop_map(u64::from)), 0..12)) {
        let tilts = tilts(&endpoints);
        prop_assert_eq!(tilts.len(), endpoints.len());
        prop_assert!(tilts.iter().all(|tilt| (128..=384).contains(tilt)));
        for (one, of_one) in endpoints.iter().zip(&tilts) {
            for (other, of_other) in endpoints.iter().zip(&tilts) {
                if one.0 == other.0 && one.1 > other.1 {
                    prop_assert!(of_one <= of_other, "who has more to do gets no more");
                }
            }
        }
    }

    #[test]
    fn a_liar_counts_as_a_few_honest_members(honest in prop::collection::vec(0u32..200, 2..20), lie in any::<u32>()) {
        let (own, others) = (honest[0], &honest[1..]);
        let with: Vec<u32> = others.iter().copied().chain([lie]).collect();
        let (fair, told) = (joint_load(own, others), joint_load(own, &with));
        let most = u64::from(*honest.iter().max().unwrap());
        prop_assert!(told <= fair.max(u64::from(honest.iter().sum::<u32>())) + (4 * most).max(16));
    }
}
