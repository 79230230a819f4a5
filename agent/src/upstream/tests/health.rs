//! Clusters and evidence that does not come from their own requests: discovery, and what other nodes of the fleet have found.

use std::cell::Cell;

use heddle_node::membership::{Facts, Member, MemberState, Membership, Observation, Seen as Observed};
use heddle_xds::model::{ActiveCheck, CheckKind, EndpointStatus, Thresholds};
use proptest::prelude::*;

use super::*;
use crate::exchange::EndpointName;
use crate::health::{Finding, Peers};

fn now() -> tokio::time::Instant {
    heddle_node::clock::now()
}

fn check(checkers: u32) -> ActiveCheck {
    ActiveCheck {
        kind: CheckKind::Tcp,
        timeout: Duration::from_secs(1),
        concurrency: 10,
        host: None,
        port: None,
        method: "GET".into(),
        path: "/".into(),
        body: "".into(),
        verify_certificate: true,
        headers: Vec::new(),
        healthy_interval: Duration::from_secs(1),
        unhealthy_interval: Duration::from_secs(1),
        thresholds: Thresholds {
            healthy_statuses: vec![200],
            successes: 1,
            unhealthy_statuses: vec![500],
            http_failures: 1,
            tcp_failures: 1,
            timeouts: 1,
        },
        checkers,
    }
}

fn facts(observations: Vec<Observation>) -> Facts {
    Facts { role: "gateway".into(), observations: observations.into(), ..Facts::default() }
}

fn member(id: &str, observations: Vec<Observation>) -> Member {
    Member { id: id.into(), facts: Arc::new(facts(observations)), state: MemberState::Alive, last_seen_ms: 0 }
}

fn seen(endpoint: SocketAddr, seen: Observed) -> Observation {
    Observation { upstream: "upstreams/u".into(), endpoint, seen, since_ms: 1 }
}

/// A node among `count` others that all say the same.
fn fleet(membership: &Membership, count: usize, said: &[Observation]) {
    let others = (0..count).map(|nth| member(&format!("other-{nth}"), said.to_vec()));
    membership.hear(others.chain([member(membership.id(), Vec::new())]).collect());
}

/// Addresses that this node does not probe itself in a fleet with `count` others.
fn foreign(membership: &Membership, addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let peers = Peers::of(&membership.fleet(), &membership.facts(), 0);
    let is_own = |address: SocketAddr| peers.checkers("upstreams/u", address, 3).iter().any(|id| peers.is_own(id));
    addresses.filter(|address| !is_own(*address)).collect()
}

fn clusters(membership: &Membership) -> Clusters {
    let context = Context { membership: membership.clone(), ..Context::default() };
    Clusters::new(Arc::new(context), None, tokio::runtime::Handle::current())
}

fn states(cluster: &Cluster) -> Vec<&'static str> {
    cluster.report().iter().map(|endpoint| endpoint.condition.as_str()).collect()
}

fn test_addresses() -> impl Iterator<Item = SocketAddr> {
    (1..=250).map(|nth| SocketAddr::from(([192, 0, 2, nth], 80)))
}

#[test]
fn what_most_checkers_find_counts_until_they_take_it_back_or_fall_silent() {
    run_paused(async {
        let membership = Membership::alone("own", facts(Vec::new()));
        fleet(&membership, 9, &[]);
        let addresses: Vec<_> = foreign(&membership, test_addresses()).into_iter().take(4).collect();
        let clusters = clusters(&membership);
        let config = config(|upstream| upstream.checks.active = Some(Arc::new(check(3))));
        let nodes: Vec<_> = addresses.iter().copied().map(node).collect();
        let cluster = clusters.apply(&config, &nodes.into(), &|_| None, News::Revision);
        let mut watch = cluster.watch();
        let mut until = async |wanted: &[&str]| {
            tokio::time::timeout(Duration::from_secs(60), watch.wait_for(|_| states(&cluster) == wanted)).await.unwrap().unwrap();
        };
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((states(&cluster), cluster.probes()), (vec!["up"; 4], 0), "others probe them");
        fleet(&membership, 9, &[seen(addresses[1], Observed::Down)]);
        until(&["up", "down", "up", "up"]).await;
        let reason = &cluster.report()[1].look.reasons[0];
        assert_eq!((reason.source.as_str(), reason.by.len()), ("fleet", 3));
        // all of them at once: half stays
        let all: Vec<_> = addresses.iter().map(|address| seen(*address, Observed::Down)).collect();
        fleet(&membership, 9, &all);
        until(&["down", "down", "up", "up"]).await;
        fleet(&membership, 9, &[seen(addresses[1], Observed::Up)]);
        until(&["up", "up", "up", "up"]).await;
        fleet(&membership, 9, &all[..1]);
        until(&["down", "up", "up", "up"]).await;
        let mut dead: Vec<Member> = membership.fleet().members.clone();
        dead.iter_mut().filter(|member| *member.id != **membership.id()).for_each(|member| member.state = MemberState::Dead);
        membership.hear(dead);
        until(&["up", "up", "up", "up"]).await;
        assert!(
            cluster.view().endpoints.iter().all(|endpoint| endpoint.core.health.is_checked()),
            "cut off, it checks all itself"
        );
    });
}

#[test]
fn no_hint_counts_against_what_this_node_has_just_seen_answer() {
    run(async {
        const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let membership = Membership::alone("own", facts(Vec::new()));
        fleet(&membership, 9, &[]);
        let mut answering = Vec::new();
        while answering.len() < 2 {
            let address = canned(&[OK; 100]).await;
            answering.extend(foreign(&membership, [address].into_iter()));
        }
        let clusters = clusters(&membership);
        let config = config(|upstream| upstream.checks.active = Some(Arc::new(check(3))));
        let nodes: Vec<_> = answering.iter().copied().map(node).collect();
        let cluster = clusters.apply(&config, &nodes.into(), &|_| None, News::Revision);
        let pools = Pools::new();
        // Answers are looked at about once a second.
        for _ in 0..12 {
            get(&pools, &cluster).await.unwrap();
            get(&pools, &cluster).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let proven = |nth: usize| cluster.view().endpoints[nth].core.health.is_proven(Duration::from_secs(60), now());
        assert!(proven(0) && proven(1));
        fleet(&membership, 9, &[seen(answering[0], Observed::Down)]);
        for _ in 0..10 {
            get(&pools, &cluster).await.unwrap();
            get(&pools, &cluster).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(states(&cluster), ["up", "up"]);
        }
    });
}

/// A server that only accepts, and how often it did.
async fn counted() -> (SocketAddr, Rc<Cell<usize>>) {
    let counter = Rc::new(Cell::new(0));
    let told = counter.clone();
    let address = server(move |_stream, nth| {
        told.set(nth + 1);
        async {}
    })
    .await;
    (address, counter)
}

#[test]
fn ten_nodes_with_two_checkers_each_probe_a_fifth() {
    run(async {
        let mut servers = Vec::new();
        for _ in 0..10 {
            servers.push(counted().await);
        }
        let nodes: Vec<_> = servers.iter().map(|(address, _)| node(*address)).collect();
        let mut quick = check(2);
        quick.healthy_interval = Duration::from_millis(200);
        let config = config(|upstream| upstream.checks.active = Some(Arc::new(quick)));
        let members: Vec<Member> = (0..10).map(|nth| member(&format!("gw-{nth}"), Vec::new())).collect();
        let fleet: Vec<(Clusters, Arc<Edition>)> = (0..10)
            .map(|nth| {
                let membership = Membership::alone(&format!("gw-{nth}"), facts(Vec::new()));
                membership.hear(members.clone());
                let clusters = clusters(&membership);
                let cluster = clusters.apply(&config, &nodes.clone().into(), &|_| None, News::Revision);
                (clusters, cluster)
            })
            .collect();
        while fleet.iter().map(|(_, cluster)| cluster.probes()).sum::<u64>() < 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let checked = |cluster: &Cluster| cluster.view().endpoints.iter().filter(|one| one.core.health.is_checked()).count();
        assert_eq!(fleet.iter().map(|(_, cluster)| checked(cluster)).sum::<usize>(), 20, "two of ten check each of ten");
        for (_, cluster) in &fleet {
            let allowed = 200 * checked(cluster) as u64 / 20 * 2 + 2;
            assert!(cluster.probes() <= allowed, "{} probes for {} endpoints", cluster.probes(), checked(cluster));
        }
        assert!(servers.iter().all(|(_, count)| count.get() > 0), "nobody is left out");
    });
}

#[test]
fn discovery_takes_endpoints_out_and_lets_those_drain_that_leave() {
    run(async {
        let at = |nth: u8, status| model::Endpoint { status, ..node(SocketAddr::from(([192, 0, 2, nth], 80))) };
        let clusters = clusters(&Membership::alone("own", facts(Vec::new())));
        let config = config(|_| ());
        let apply = |statuses: &[EndpointStatus]| {
            let nodes: Vec<_> = statuses.iter().enumerate().map(|(nth, status)| at(nth as u8 + 1, *status)).collect();
            clusters.apply(&config, &nodes.into(), &|_| None, News::Discovery)
        };
        let picks = |cluster: &Arc<Edition>| {
            let pools = Pools::new();
            let target = pools.target(cluster);
            let mut dice = fastrand::Rng::with_seed(1);
            let pick = |_| target.pick(None, &[], Seen::Never, &mut dice, now()).unwrap().endpoint().address.ip().to_string();
            (0..12).map(pick).collect::<std::collections::BTreeSet<String>>()
        };
        use EndpointStatus::{Draining, Healthy, Unhealthy, Unknown};
        let cluster = apply(&[Healthy, Unhealthy, Draining, Unknown]);
        assert_eq!(states(&cluster), ["up", "down", "draining", "up"]);
        assert_eq!(Vec::from_iter(picks(&cluster)), ["192.0.2.1", "192.0.2.4"]);
        let pools = Pools::new();
        let target = pools.target(&cluster);
        let draining = &cluster.report()[2];
        let token = EndpointName::new(draining.host.clone(), draining.address).token;
        assert!(target.pick_preferred(token, &[], Seen::Never, now()).is_some(), "sessions of who drains stay");
        assert_eq!(states(&apply(&[Unhealthy, Unhealthy, Draining, Unhealthy])), ["down", "down", "draining", "down"]);
        assert_eq!(Vec::from_iter(picks(&cluster)), ["192.0.2.3"], "who drains serves on while nobody else does");
        assert_eq!(states(&apply(&[Unhealthy, Unhealthy, Unhealthy, Unhealthy])), ["panic"; 4]);
        assert_eq!(picks(&cluster).len(), 4);
        assert_eq!(states(&apply(&[Healthy, Healthy, Unknown, Healthy])), ["up"; 4]);
        assert_eq!(picks(&cluster).len(), 4);
    });
}

#[test]
fn endpoints_that_are_members_get_nothing_new_once_they_say_that_they_leave() {
    run(async {
        let membership = Membership::alone("own", facts(Vec::new()));
        let clusters = clusters(&membership);
        let nodes: Vec<_> = (1..=3).map(|nth| node(SocketAddr::from(([192, 0, 2, nth], 80)))).collect();
        let cluster = clusters.apply(&config(|_| ()), &nodes.into(), &|_| None, News::Revision);
        let hear = |draining: bool| {
            let sidecar = Facts {
                role: "sidecar".into(),
                address: Some(SocketAddr::from(([192, 0, 2, 2], 7_946))),
                ports: [80, 443].into(),
                draining,
                ..Facts::default()
            };
            // One that names a port of others says nothing about them.
            let stranger = Facts { address: Some(SocketAddr::from(([192, 0, 2, 9], 7_946))), draining: true, ..sidecar.clone() };
            let of = |id: &str, facts: Facts| Member { facts: Arc::new(facts), ..member(id, Vec::new()) };
            membership.hear(vec![member("own", Vec::new()), of("web-2", sidecar), of("web-9", stranger)]);
        };
        let until = async |wanted: [&str; 3]| {
            let end = now() + Duration::from_secs(30);
            while states(&cluster) != wanted {
                assert!(now() < end, "{:?}", states(&cluster));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        hear(true);
        until(["up", "draining", "up"]).await;
        let pools = Pools::new();
        let target = pools.target(&cluster);
        let mut dice = fastrand::Rng::with_seed(1);
        let mut picks =
            (0..12).map(|_| target.pick(None, &[], Seen::Never, &mut dice, now()).unwrap().endpoint().address.to_string());
        assert!(picks.all(|address| address != "192.0.2.2:80"));
        hear(false);
        until(["up"; 3]).await;
    });
}

/// What becomes known of one endpoint: what discovery says, what requests and probes of this node find, and who of nine others calls it down.
type Known = (usize, Vec<(bool, usize)>, Vec<bool>);

fn known() -> impl Strategy<Value = Known> {
    (0usize..4, prop::collection::vec((any::<bool>(), 0usize..4), 0..6), prop::collection::vec(any::<bool>(), 9))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever discovery, requests, probes and all other nodes say, true or not: there is an endpoint to choose for every request.
    #[test]
    fn no_evidence_empties_an_upstream(all in prop::collection::vec(known(), 1..8), threshold in prop::option::of(1u8..=100), passive: bool, passed in 0u64..30) {
        run_paused(async move {
            let membership = Membership::alone("own", facts(Vec::new()));
            let at = |nth: usize| SocketAddr::from(([192, 0, 2, nth as u8 + 1], 80));
            let says = |who: usize| {
                let down = all.iter().enumerate().filter(|(_, (.., by))| by[who]);
                member(&format!("other-{who}"), down.map(|(nth, _)| seen(at(nth), Observed::Down)).collect())
            };
            membership.hear((0..9).map(says).chain([member("own", Vec::new())]).collect());
            let clusters = clusters(&membership);
            let config = config(|upstream| {
                upstream.panic_threshold = threshold;
                upstream.checks.active = Some(Arc::new(check(3)));
                upstream.checks.passive = passive.then(|| Arc::new(model::PassiveCheck { thresholds: check(3).thresholds }));
            });
            use EndpointStatus::{Draining, Healthy, Unhealthy, Unknown};
            let status = |nth: usize| [Unknown, Healthy, Unhealthy, Draining][nth];
            let nodes = all.iter().enumerate().map(|(nth, (told, ..))| model::Endpoint { status: status(*told), ..node(at(nth)) });
            let cluster = clusters.apply(&config, &nodes.collect::<Vec<_>>().into(), &|_| None, News::Revision);
            let pools = Pools::new();
            let mut dice = fastrand::Rng::with_seed(1);
            let mut open = Vec::new();
            for (nth, (_, found, _)) in all.iter().enumerate() {
                for (probe, finding) in found {
                    let finding = [Finding::Status(200), Finding::Status(500), Finding::Broken, Finding::TimedOut][*finding];
                    let view = cluster.view().clone();
                    let core = &view.endpoints[nth].core;
                    if *probe { cluster.probed(core, finding, now()) } else { cluster.traffic(&view.spec, core, finding, now()) }
                }
                tokio::time::sleep(Duration::from_secs(passed)).await;
                // Trials stay open: there must be somebody for the others, too.
                for _ in 0..3 {
                    open.push(pools.target(&cluster).pick(None, &[], Seen::Never, &mut dice, now()).unwrap());
                }
            }
        });
    }
}
