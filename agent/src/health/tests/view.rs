//! One view of an endpoint from all evidence, and the clamp on what others say.

use heddle_node::membership::Seen;
use heddle_xds::model::EndpointStatus;

use super::super::clamp::HINTED_PERCENT;
use super::*;

fn ids(names: &[&str]) -> Arc<[Arc<str>]> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn sources(health: &EndpointHealth) -> Vec<&'static str> {
    health.look().reasons.iter().map(|reason| reason.source.as_str()).collect()
}

#[test]
fn discovery_is_overruled_by_nothing() {
    let (rules, now) = (rules(true, true), clock::now());
    let health = health(now);
    let change = health.told(EndpointStatus::Unhealthy, now).unwrap();
    assert_eq!((change.to, change.cause), (State::Down, Cause::Discovery));
    for _ in 0..10 {
        health.probed(&rules, Finding::Connected, now);
        health.traffic(&rules, Finding::Status(200), now);
    }
    assert_eq!((health.state(), sources(&health)), (State::Down, vec!["discovery"]));
    assert_eq!(health.told(EndpointStatus::Healthy, now).unwrap().to, State::Up);
    assert_eq!(health.told(EndpointStatus::Draining, now), None, "who drains still serves whom it has");
    assert_eq!((health.state(), health.look().draining, sources(&health)), (State::Up, true, vec!["drain"]));
}

#[test]
fn who_comes_back_after_a_drain_is_not_judged_by_what_was_found_of_it_before() {
    let (rules, now) = (rules(true, false), clock::now());
    let health = health(now);
    let told = |health: &EndpointHealth, leaves: bool| {
        health.told(if leaves { EndpointStatus::Draining } else { EndpointStatus::Healthy }, now);
    };
    let heard = |health: &EndpointHealth, leaves: bool| {
        health.leaving(leaves.then_some(&"gw-1".into()), now);
    };
    for goes in [&told as &dyn Fn(&EndpointHealth, bool), &heard] {
        goes(&health, true);
        health.traffic(&rules, Finding::Broken, now);
        assert_eq!(health.traffic(&rules, Finding::Broken, now).unwrap().to, State::Down);
        goes(&health, false);
        assert_eq!((health.state(), health.back_at(), sources(&health)), (State::Up, None, vec![]));
        health.traffic(&rules, Finding::Broken, now);
        assert_eq!(health.state(), State::Up, "it has begun anew");
        health.traffic(&rules, Finding::Status(200), now);
    }
}

#[test]
fn every_reason_is_shown_and_each_has_to_go() {
    let (rules, now) = (rules(true, true), clock::now());
    let health = health(now);
    health.told(EndpointStatus::Unhealthy, now);
    health.probed(&rules, Finding::TimedOut, now).unwrap();
    health.doubted(Some(ids(&["b", "c"])), now);
    assert_eq!(sources(&health), ["discovery", "probe", "fleet"]);
    assert_eq!(health.look().reasons[1].finding, Some(Finding::TimedOut));
    assert_eq!(health.look().reasons[2].by, ids(&["b", "c"]));
    assert_eq!(health.told(EndpointStatus::Unknown, now), None);
    assert_eq!(health.doubted(None, now), None);
    health.probed(&rules, Finding::Connected, now);
    assert_eq!(health.probed(&rules, Finding::Connected, now).unwrap().to, State::Up);
    assert_eq!((sources(&health), health.ejections()), (vec![], 1));
}

#[test]
fn who_does_not_probe_waits_or_hears_that_it_is_well() {
    let (rules, start) = (rules(true, true), clock::now());
    let health = health(start);
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    health.assign(ids(&["b"]), false, start);
    assert_eq!(health.traffic(&rules, Finding::TimedOut, start).unwrap().to, State::Down);
    assert_eq!((health.tick(&rules, at(9)), health.back_at()), (None, Some(at(10))));
    health.doubted(Some(ids(&["b"])), at(9));
    health.tick(&rules, at(10));
    assert_eq!(health.state(), State::Down, "a trial is of no use while those who probe it call it down");
    assert_eq!(health.traffic(&rules, Finding::TimedOut, at(11)).unwrap().to, State::Down);
    health.doubted(None, at(12));
    assert_eq!(health.tick(&rules, at(12)).unwrap().to, State::Trial, "it is tried as soon as they find it well");
}

#[test]
fn an_endpoint_that_is_handed_over_waits_at_most() {
    let (rules, start) = (rules(false, true), clock::now());
    let health = health(start);
    health.probed(&rules, Finding::TimedOut, start).unwrap();
    assert_eq!(health.seen().unwrap().0, Seen::Down);
    health.assign(ids(&["b"]), false, start);
    assert_eq!(health.seen(), None, "who does not probe it has nothing to tell");
    assert_eq!(health.tick(&rules, start).unwrap().to, State::Up, "without traffic to judge by, others decide");
}

#[test]
fn answers_are_noticed_without_being_written() {
    let start = clock::now();
    let health = health(start);
    let within = Duration::from_secs(5);
    health.answered(7, start);
    assert!(!health.is_proven(within, start), "the first look says nothing");
    health.answered(8, start + Duration::from_secs(1));
    assert!(health.is_proven(within, start + Duration::from_secs(6)));
    health.answered(8, start + Duration::from_secs(7));
    assert!(!health.is_proven(within, start + Duration::from_secs(7)));
    health.probed(&rules(true, true), Finding::Status(200), start + Duration::from_secs(8));
    assert!(health.is_proven(within, start + Duration::from_secs(8)));
    health.probed(&rules(true, true), Finding::TimedOut, start + Duration::from_secs(8));
    assert!(!health.is_proven(within, start + Duration::from_secs(8)), "it has failed since");
}

/// Something that becomes known of an endpoint.
#[derive(Debug, Clone)]
enum News {
    Traffic(Finding),
    Probe(Finding),
    Told(EndpointStatus),
    Doubted(bool),
    Assigned(bool),
    Passed(u64),
}

fn news() -> impl Strategy<Value = News> {
    let finding = || {
        let all = [Finding::Status(200), Finding::Status(500), Finding::Status(404), Finding::Broken, Finding::TimedOut];
        prop::sample::select(all.to_vec())
    };
    let statuses = [EndpointStatus::Unknown, EndpointStatus::Healthy, EndpointStatus::Unhealthy, EndpointStatus::Draining];
    prop_oneof![
        4 => finding().prop_map(News::Traffic),
        4 => finding().prop_map(News::Probe),
        1 => prop::sample::select(statuses.to_vec()).prop_map(News::Told),
        1 => any::<bool>().prop_map(News::Doubted),
        1 => any::<bool>().prop_map(News::Assigned),
        1 => (0u64..400).prop_map(News::Passed),
    ]
}

proptest! {
    /// Whatever becomes known in whatever order: each change of the standing is told once, each reason that holds is shown, and none outlives its cause.
    #[test]
    fn the_view_follows_from_the_evidence(all in prop::collection::vec(news(), 1..120), traffic: bool, probes: bool) {
        let (rules, mut now) = (rules(traffic, probes), clock::now());
        let health = health(now);
        let (mut told, mut doubted, mut ejections) = (EndpointStatus::Unknown, false, 0);
        for one in all {
            let before = health.state();
            let change = match one {
                News::Traffic(finding) => health.traffic(&rules, finding, now),
                News::Probe(finding) => health.probed(&rules, finding, now),
                News::Told(status) => { told = status; health.told(status, now) }
                News::Doubted(yes) => { doubted = yes; health.doubted(yes.then(|| ids(&["b"])), now) }
                News::Assigned(own) => { health.assign(ids(&["b"]), own, now); None }
                News::Passed(seconds) => { now += Duration::from_secs(seconds); health.tick(&rules, now) }
            };
            let after = health.state();
            prop_assert!(before == after || change.is_some());
            prop_assert!(change.is_none_or(|change| (change.from, change.to) == (before, after)));
            ejections += u64::from(before != State::Down && after == State::Down);
            prop_assert_eq!(health.ejections(), ejections);
            let (look, has) = (health.look(), sources(&health));
            prop_assert_eq!(look.draining, told == EndpointStatus::Draining);
            prop_assert_eq!(has.contains(&"discovery"), told == EndpointStatus::Unhealthy);
            prop_assert_eq!(has.contains(&"fleet"), doubted);
            let own = has.contains(&"probe") || has.contains(&"traffic");
            prop_assert_eq!(after == State::Up, !own && !doubted && told != EndpointStatus::Unhealthy);
            prop_assert!(after != State::Trial || own);
            prop_assert_eq!(look.since <= now, true);
        }
    }

    /// However many are doubted: half of each priority stays, as many as the panic threshold asks for stay, and what is not doubted stays.
    #[test]
    fn hints_leave_enough(
        all in prop::collection::vec((0i32..3, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 0..40),
        threshold in 0u8..=100,
    ) {
        let case = |(priority, counts, out, doubted, acting)| Case { priority, counts, out, doubted, acting };
        let cases: Vec<Case> = all.into_iter().map(case).collect();
        let gone = admitted(&cases, threshold);
        prop_assert!(cases.iter().zip(&gone).all(|(case, gone)| !gone || case.doubted && case.counts && !case.out));
        for priority in 0..3 {
            let of = || cases.iter().zip(&gone).filter(move |(case, _)| case.priority == priority && case.counts);
            let (members, hinted) = (of().count(), of().filter(|(_, gone)| **gone).count());
            let standing = of().filter(|(case, gone)| !case.out && !**gone).count();
            prop_assert!(hinted * 100 <= members * HINTED_PERCENT);
            prop_assert!(hinted == 0 || standing >= 1 && standing * 100 >= members * usize::from(threshold));
        }
    }

    /// Who is down by hints stays so while they last: hints that come later do not take its place.
    #[test]
    fn hints_do_not_take_turns(count in 1usize..30, first in 0usize..30) {
        let case = |index: usize| Case { priority: 0, counts: true, out: false, doubted: true, acting: index == first };
        let cases: Vec<Case> = (0..count).map(case).collect();
        let gone = admitted(&cases, 0);
        prop_assert!(first >= count || count < 2 || gone[first]);
        prop_assert_eq!(gone.iter().filter(|gone| **gone).count(), count / 2);
    }
}
