//! Editions: who began on older tables keeps their endpoints, and what is true whatever the configuration says counts for all of them at once.

use std::collections::BTreeSet;

use heddle_xds::model::{EndpointStatus, PassiveCheck, Thresholds};
use proptest::prelude::*;

use super::*;
use crate::exchange::Reason;
use crate::health::Finding;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn now() -> tokio::time::Instant {
    heddle_node::clock::now()
}

/// An endpoint that nobody connects to.
fn at(nth: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, nth], 80))
}

fn next(edition: &Arc<Edition>, nodes: &[model::Endpoint], news: News) -> Arc<Edition> {
    let config = edition.view().spec.config.clone();
    edition.next(config, &nodes.into(), &|_| None, news, now())
}

fn nodes(of: &[u8]) -> Vec<model::Endpoint> {
    of.iter().map(|nth| node(at(*nth))).collect()
}

/// Last numbers of the addresses that are chosen.
fn picks(pools: &Rc<Pools>, edition: &Edition) -> Vec<u8> {
    let target = pools.target(edition);
    let mut dice = fastrand::Rng::with_seed(1);
    let mut pick = || match target.pick(None, &[], Seen::Never, &mut dice, now()).unwrap().endpoint().address {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(address) => panic!("{address}"),
    };
    Vec::from_iter((0..12).map(|_| pick()).collect::<BTreeSet<u8>>())
}

#[test]
fn who_began_before_a_revision_keeps_its_endpoints_and_their_connections() {
    run_paused(async {
        let (a, b, c) = (canned(&[OK; 9]).await, canned(&[OK; 9]).await, canned(&[OK; 9]).await);
        let pools = Pools::new();
        tokio::task::spawn_local(pools.clone().keep_tidy());
        let before = cluster(&[a, b], |_| ());
        for _ in 0..2 {
            get(&pools, &before).await.unwrap();
        }
        let after = next(&before, &[node(b), node(c)], News::Revision);
        assert!(!Arc::ptr_eq(&before, &after));
        let addresses = |edition: &Edition| edition.view().endpoints.iter().map(|one| one.core.address).collect::<Vec<_>>();
        assert_eq!((addresses(&before), addresses(&after)), (vec![a, b], vec![b, c]));
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..4 {
            assert!(get(&pools, &before).await.unwrap().reused, "its connections stand");
        }
        let reused: Vec<bool> = [get(&pools, &after).await, get(&pools, &after).await].map(|sent| sent.unwrap().reused).into();
        assert_eq!(reused, [true, false], "those of what stays are everybody's");
        let leaving = before.view().endpoints[0].core.clone();
        assert_eq!((leaving.is_retired(), leaving.stats.totals().connections), (false, 1));
        drop(before);
        assert!(leaving.is_retired());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(leaving.stats.totals().connections, 0, "with the last who could choose it");
        assert!(get(&pools, &after).await.unwrap().reused);
    });
}

#[test]
fn what_two_older_editions_hold_is_let_go_of_with_the_second() {
    let first = cluster(&[at(1), at(2)], |_| ());
    let second = next(&first, &nodes(&[1, 3]), News::Revision);
    let third = next(&second, &nodes(&[4]), News::Revision);
    let [one, two] = [0, 1].map(|nth| first.view().endpoints[nth].core.clone());
    drop(first);
    assert_eq!((one.is_retired(), two.is_retired()), (false, true), "the second edition still has one of them");
    drop(second);
    assert!(one.is_retired() && !third.view().endpoints[0].core.is_retired());
}

#[test]
fn a_member_that_leaves_is_nothing_new_for_requests_on_older_tables_either() {
    let before = cluster(&[at(1), at(2)], |_| ());
    let after = next(&before, &nodes(&[2, 3]), News::Revision);
    let pools = Pools::new();
    let leave = |of: &[u8]| {
        let leaving = of.iter().map(|nth| (at(*nth), Arc::from("gw-1"))).collect();
        after.members_leave(&leaving, now());
        (picks(&pools, &before), picks(&pools, &after))
    };
    assert_eq!(leave(&[1]), (vec![2], vec![2, 3]), "the newest has it no more");
    assert_eq!(leave(&[2]), (vec![1], vec![3]));
    assert_eq!(leave(&[]), (vec![1, 2], vec![2, 3]));
}

#[test]
fn the_settings_of_an_upstream_are_those_of_the_revision() {
    let before = cluster(&[at(1)], |_| ());
    let changed = config(|upstream| upstream.retries = Some(7));
    let after = before.next(changed, &nodes(&[1]).into(), &|_| None, News::Revision, now());
    let pools = Pools::new();
    let retries = |edition: &Edition| pools.target(edition).config().retries;
    assert_eq!((retries(&before), retries(&after)), (None, Some(7)));
    assert_eq!(before.view().endpoints[0].core.id, after.view().endpoints[0].core.id);
    assert!(Arc::ptr_eq(&after, &next(&after, &nodes(&[1]), News::Revision)), "nothing new is no edition");
}

#[test]
fn health_is_the_same_for_all_editions() {
    let one = Thresholds {
        healthy_statuses: vec![200],
        successes: 1,
        unhealthy_statuses: vec![500],
        http_failures: 1,
        tcp_failures: 1,
        timeouts: 1,
    };
    let before = cluster(&[at(1), at(2)], |upstream| upstream.checks.passive = Some(Arc::new(PassiveCheck { thresholds: one })));
    let after = next(&before, &nodes(&[2, 3]), News::Revision);
    let pools = Pools::new();
    assert_eq!((picks(&pools, &before), picks(&pools, &after)), (vec![1, 2], vec![2, 3]));
    let (view, shared) = (after.view().clone(), after.view().endpoints[0].core.clone());
    after.traffic(&view.spec, &shared, Finding::Status(500), now());
    assert_eq!((picks(&pools, &before), picks(&pools, &after)), (vec![1], vec![3]));
    let (view, left) = (before.view().clone(), before.view().endpoints[0].core.clone());
    before.traffic(&view.spec, &left, Finding::Status(500), now());
    assert_eq!(picks(&pools, &before), [1, 2], "where none stands all are used");
}

#[test]
fn what_discovery_says_counts_for_older_editions_too() {
    let first = cluster(&[at(1), at(2), at(3)], |_| ());
    let second = next(&first, &nodes(&[1, 2, 3, 4]), News::Revision);
    let pools = Pools::new();
    let told = |nth, status| model::Endpoint { status, ..node(at(nth)) };
    let same = next(&second, &[told(1, EndpointStatus::Unhealthy), node(at(2)), node(at(3)), node(at(4))], News::Discovery);
    assert!(Arc::ptr_eq(&second, &same), "discovery makes no edition");
    assert_eq!((picks(&pools, &first), picks(&pools, &second)), (vec![2, 3], vec![2, 3, 4]));
    let _ = next(&second, &[node(at(1)), told(2, EndpointStatus::Draining), node(at(3)), node(at(4))], News::Discovery);
    assert_eq!((picks(&pools, &first), picks(&pools, &second)), (vec![1, 3], vec![1, 3, 4]));
    let _ = next(&second, &nodes(&[2, 4, 5]), News::Discovery);
    assert_eq!((picks(&pools, &first), picks(&pools, &second)), (vec![2], vec![2, 4, 5]), "what is new is for the newest alone");
    let _ = next(&second, &nodes(&[4, 5]), News::Discovery);
    assert_eq!((picks(&pools, &first), picks(&pools, &second)), (vec![4, 5], vec![4, 5]), "nothing else is left");
    let third = next(&second, &nodes(&[6]), News::Revision);
    assert_eq!((picks(&pools, &first), picks(&pools, &second), picks(&pools, &third)), (vec![4, 5], vec![4, 5], vec![6]));
}

#[test]
fn drains_of_a_revision_count_for_older_editions_and_end_when_nobody_else_is_left() {
    let first = cluster(&[at(1), at(2)], |_| ());
    let drains = |nth| model::Endpoint { status: EndpointStatus::Draining, ..node(at(nth)) };
    let second = next(&first, &[drains(1), node(at(2)), node(at(3))], News::Revision);
    let pools = Pools::new();
    assert_eq!((picks(&pools, &first), picks(&pools, &second)), (vec![2], vec![2, 3]));
    let third = next(&second, &[drains(1), drains(2), node(at(3))], News::Revision);
    let picked = (picks(&pools, &first), picks(&pools, &second), picks(&pools, &third));
    assert_eq!(picked, (vec![1, 2], vec![3], vec![3]));
}

#[test]
fn no_endpoints_are_a_revision_too_but_names_that_nobody_looks_up_any_more_are_not() {
    run(async {
        let none = cluster(&[], |_| ());
        let some = next(&none, &nodes(&[1]), News::Revision);
        let pools = Pools::new();
        let fails = |edition: &Edition| {
            let mut dice = fastrand::Rng::with_seed(1);
            pools.target(edition).pick(None, &[], Seen::Never, &mut dice, now()).err().map(|error| error.reason)
        };
        assert_eq!((fails(&none), fails(&some)), (Some(Reason::NoEndpoint), None));
        let named = next(&some, &[model::Endpoint { host: "late.example".into(), ..node(at(9)) }], News::Revision);
        let mut target = pools.target(&named);
        assert_eq!((fails(&named), picks(&pools, &some)), (Some(Reason::UpstreamDns), vec![1]));
        let waits = target.settle(&named);
        let newest = next(&named, &nodes(&[2]), News::Revision);
        waits.await;
        assert_eq!((fails(&named), picks(&pools, &named), picks(&pools, &newest)), (None, vec![2], vec![2]));
        assert_eq!(fails(&none), Some(Reason::NoEndpoint));
    });
}

/// What happens to an upstream.
#[derive(Debug, Clone)]
enum Step {
    Told(BTreeSet<u8>, News),
    /// The nth of the older editions is let go of.
    Forgotten(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || proptest::collection::btree_set(0u8..6, 0..4);
    let step = prop_oneof![
        some().prop_map(|of| Step::Told(of, News::Revision)),
        some().prop_map(|of| Step::Told(of, News::Discovery)),
        (0usize..4).prop_map(Step::Forgotten),
    ];
    proptest::collection::vec(step, 1..24)
}

fn endpoints(edition: &Edition) -> BTreeSet<SocketAddr> {
    edition.view().endpoints.iter().map(|one| one.core.address).collect()
}

proptest! {
    #[test]
    fn editions_keep_what_they_had_but_for_what_discovery_takes_away(steps in steps()) {
        let mut newest = cluster(&[at(0)], |_| ());
        let mut older: Vec<(Arc<Edition>, BTreeSet<SocketAddr>)> = Vec::new();
        let mut ever = vec![newest.view().endpoints[0].core.clone()];
        for step in steps {
            match step {
                Step::Forgotten(nth) => drop((nth < older.len()).then(|| older.remove(nth))),
                Step::Told(of, news) => {
                    let (before, had) = (newest.clone(), endpoints(&newest));
                    newest = next(&before, &nodes(&Vec::from_iter(of)), news);
                    let has = endpoints(&newest);
                    if news == News::Revision && !Arc::ptr_eq(&before, &newest) {
                        older.push((before, had));
                    } else {
                        let gone: BTreeSet<SocketAddr> = had.difference(&has).copied().collect();
                        for (_, expected) in &mut older {
                            let left: BTreeSet<SocketAddr> = expected.difference(&gone).copied().collect();
                            *expected = if left.is_empty() && !expected.is_empty() { has.clone() } else { left };
                        }
                    }
                }
            }
            for (edition, expected) in &older {
                prop_assert_eq!(&endpoints(edition), expected);
            }
            ever.extend(newest.view().endpoints.iter().map(|one| one.core.clone()));
            prop_assert!(newest.view().endpoints.iter().all(|one| !one.core.is_retired()), "the newest has lost connections");
            let held = |core: &Arc<EndpointCore>| {
                let all = older.iter().map(|(edition, _)| edition).chain([&newest]);
                all.into_iter().any(|edition| edition.view().endpoints.iter().any(|one| one.core.id == core.id))
            };
            prop_assert!(ever.iter().all(|core| core.is_retired() != held(core)), "connections stand to what somebody can choose, and to nobody else");
        }
    }
}
