//! Who shares the checks, whom it falls to, and whose word counts.

use std::collections::HashMap;
use std::net::SocketAddr;

use heddle_node::membership::{Facts, Fleet, Member, MemberState, Membership, Observation, Seen};

use super::super::fellows::LATE;
use super::super::peers::HINT_LIFE_MS;
use super::*;

const NOW_MS: u64 = 1_000_000_000;

fn endpoint(nth: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (nth >> 8) as u8, nth as u8], 80))
}

fn down(nth: u16) -> Observation {
    Observation { upstream: "upstreams/u".into(), endpoint: endpoint(nth), seen: Seen::Down, since_ms: 1 }
}

fn facts() -> Facts {
    Facts { role: "gateway".into(), zone: "a".into(), ..Facts::default() }
}

fn member(id: &str, edit: impl FnOnce(&mut Facts)) -> Member {
    let mut facts = facts();
    edit(&mut facts);
    Member { id: id.into(), facts: Arc::new(facts), state: MemberState::Alive, last_seen_ms: NOW_MS }
}

fn fleet(own: &str, members: Vec<Member>) -> Fleet {
    Fleet { own: own.into(), members }
}

fn many(count: usize) -> Vec<Member> {
    (0..count).map(|nth| member(&format!("gw-{nth}"), |_| ())).collect()
}

fn peers(own: &str, members: Vec<Member>) -> Peers {
    Peers::of(&fleet(own, members), &facts(), NOW_MS)
}

#[test]
fn ten_share_the_checks_evenly_and_agree() {
    let all: Vec<Peers> = (0..10).map(|nth| peers(&format!("gw-{nth}"), many(10))).collect();
    let mut duties: HashMap<Arc<str>, usize> = HashMap::new();
    for nth in 0..500 {
        let checkers = all[0].checkers("upstreams/u", endpoint(nth), 2);
        assert_eq!(checkers.len(), 2);
        assert!(all.iter().all(|peers| peers.checkers("upstreams/u", endpoint(nth), 2) == checkers));
        checkers.iter().for_each(|id| *duties.entry(id.clone()).or_default() += 1);
    }
    assert_eq!(duties.len(), 10);
    assert!(duties.values().all(|duty| (70..130).contains(duty)), "a hundred each, more or less: {duties:?}");
    assert_eq!(all[0].checkers("upstreams/u", endpoint(0), 0).len(), 10, "zero is all");
}

#[test]
fn who_dies_leaves_its_own_endpoints_only() {
    let (before, mut fewer) = (peers("gw-0", many(10)), many(10));
    fewer[7].state = MemberState::Dead;
    let after = peers("gw-0", fewer);
    assert_ne!(before.stamp(), after.stamp());
    for nth in 0..200 {
        let (old, new) = (before.checkers("u", endpoint(nth), 3), after.checkers("u", endpoint(nth), 3));
        assert_eq!(new.len(), 3);
        assert!(old.iter().filter(|id| &***id != "gw-7").all(|id| new.contains(id)), "those who stay keep theirs");
        assert!(old.contains(&"gw-7".into()) || old == new);
    }
}

#[test]
fn only_equals_of_the_own_zone_share() {
    let others = vec![
        member("a", |_| ()),
        member("b", |facts| facts.zone = "b".into()),
        member("c", |facts| facts.group = "edge".into()),
        member("d", |facts| facts.role = "sidecar".into()),
        member("e", |facts| facts.draining = true),
    ];
    assert!(!peers("a", others.clone()).share());
    assert_eq!(&*peers("a", others.clone()).checkers("u", endpoint(1), 3), [Arc::<str>::from("a")]);
    let mut more = others;
    more.push(member("f", |_| ()));
    assert!(peers("a", more).share());
}

#[test]
fn sidecars_share_within_a_group_only() {
    let sidecars = |group: &str| {
        let facts = Facts { role: "sidecar".into(), group: group.into(), ..Facts::default() };
        let of = |id: &str| Member { id: id.into(), facts: Arc::new(facts.clone()), ..member("", |_| ()) };
        Peers::of(&fleet("a", vec![of("a"), of("b")]), &facts, NOW_MS).share()
    };
    assert!(!sidecars("") && !sidecars("default") && sidecars("shop/web"));
}

#[test]
fn most_of_those_who_check_have_to_say_so() {
    let checkers = peers("gw-0", many(9)).checkers("upstreams/u", endpoint(1), 3);
    let doubters = |speak: &dyn Fn(usize, &Arc<str>, &mut Member)| {
        let mut members = many(9);
        for member in &mut members {
            if let Some(nth) = checkers.iter().position(|id| *id == member.id) {
                speak(nth, &checkers[nth], member);
            }
        }
        let own = (0..9).map(|nth| format!("gw-{nth}")).find(|id| !checkers.contains(&id.as_str().into())).unwrap();
        peers(&own, members).doubters("upstreams/u", endpoint(1), &checkers).map(|by| by.len())
    };
    let say = |member: &mut Member, seen: Seen| {
        let said = Observation { seen, ..down(1) };
        member.facts = Arc::new(Facts { observations: [said].into(), ..Facts::clone(&member.facts) });
    };
    assert_eq!(doubters(&|_, _, _| ()), None);
    assert_eq!(
        doubters(&|nth, _, member| if nth == 0 {
            say(member, Seen::Down)
        }),
        None,
        "one is not most"
    );
    assert_eq!(
        doubters(&|nth, _, member| if nth < 2 {
            say(member, Seen::Down)
        }),
        Some(2)
    );
    assert_eq!(doubters(&|_, _, member| say(member, Seen::Up)), None);
    let silent = |edit: &dyn Fn(&mut Member)| {
        doubters(&|nth, _, member| {
            if nth < 2 {
                say(member, Seen::Down);
            }
            if nth == 1 {
                edit(member);
            }
        })
    };
    assert_eq!(silent(&|member| member.state = MemberState::Suspect), None, "hints of who is not heard do not count");
    assert_eq!(silent(&|member| member.state = MemberState::Dead), None);
    assert_eq!(silent(&|member| member.last_seen_ms -= HINT_LIFE_MS + 1), None, "hints expire");
}

#[test]
fn those_who_do_not_check_it_have_no_voice() {
    let mut members = many(9);
    let checkers = peers("gw-0", many(9)).checkers("upstreams/u", endpoint(1), 3);
    for member in members.iter_mut().filter(|member| !checkers.contains(&member.id)) {
        member.facts = Arc::new(Facts { observations: vec![down(1); 50].into(), ..facts() });
    }
    assert_eq!(peers("gw-0", members).doubters("upstreams/u", endpoint(1), &checkers), None);
}

#[test]
fn members_made_up_on_one_host_are_one_checker_and_one_voice() {
    let on = |host: u8| move |facts: &mut Facts| facts.address = Some(SocketAddr::from(([10, 9, 9, host], 7_946)));
    let honest = (1..=6).map(|nth| member(&format!("gw-{nth}"), on(nth)));
    let invented = (0..60).map(|nth| {
        member(&format!("gw-liar-{nth}"), |facts| {
            on(99)(facts);
            facts.observations = (0..20).map(down).collect();
        })
    });
    let peers = peers("gw-1", honest.chain(invented).collect());
    for nth in 0..20 {
        let checkers = peers.checkers("upstreams/u", endpoint(nth), 3);
        assert_eq!(checkers.len(), 3);
        assert!(checkers.iter().filter(|id| id.starts_with("gw-liar")).count() <= 1, "{checkers:?}");
        assert_eq!(peers.doubters("upstreams/u", endpoint(nth), &checkers), None);
    }
}

#[test]
fn a_crowd_on_one_of_two_hosts_is_not_most_of_those_who_check() {
    let address = |host: u8| Some(SocketAddr::from(([10, 9, 9, host], 7_946)));
    let mut members = vec![member("gw-1", |facts| facts.address = address(1))];
    members.extend((0..9).map(|nth| {
        member(&format!("gw-liar-{nth}"), |facts| {
            (facts.address, facts.observations) = (address(2), [down(1)].into());
        })
    }));
    let peers = peers("gw-1", members);
    let checkers = peers.checkers("upstreams/u", endpoint(1), 5);
    assert_eq!(checkers.len(), 5);
    assert_eq!(peers.doubters("upstreams/u", endpoint(1), &checkers), None);
}

#[test]
fn whose_checks_have_stopped_is_relieved_though_it_gossips() {
    let (fellows, membership) = (Fellows::default(), Membership::alone("gw-0", facts()));
    let start = heddle_node::clock::now();
    let hear = |checked_s: u64| {
        let mut members = many(6);
        for (nth, member) in members.iter_mut().enumerate() {
            // The fourth says the same for ever; one that has nothing to check says so.
            let checked_s = [checked_s, checked_s, checked_s, 20, 0, checked_s][nth];
            member.facts = Arc::new(Facts { checked_s, ..facts() });
        }
        membership.hear(members);
    };
    let checks = |seconds: u64| {
        let peers = fellows.peers(&membership, start + Duration::from_secs(seconds));
        (0..60).any(|nth| peers.checkers("u", endpoint(nth), 2).contains(&"gw-3".into()))
    };
    for step in 0..10 {
        hear(20 + step * 20);
        assert_eq!(checks(step * 20), step < 4, "after {} s", step * 20);
        assert_eq!(fellows.peers(&membership, start + Duration::from_secs(step * 20)).count(), if step < 4 { 6 } else { 5 });
    }
    // Its checks run again.
    let mut members = many(6);
    members[3].facts = Arc::new(Facts { checked_s: 9_000, ..facts() });
    membership.hear(members);
    assert!(checks(400));
}

#[test]
fn a_node_tells_that_its_checks_run_only_while_all_do() {
    let (fellows, membership) = (Fellows::default(), Membership::alone("gw-0", facts()));
    let start = heddle_node::clock::now();
    let (web, api): (Arc<str>, Arc<str>) = ("web".into(), "api".into());
    fellows.checks(&membership, &web, Some(Duration::ZERO), start);
    let told = membership.facts().checked_s;
    assert!(told > 0);
    membership.say(|facts| facts.checked_s = 1);
    // The keeper of one upstream hangs: what the other one does says nothing about it.
    fellows.checks(&membership, &api, Some(Duration::ZERO), start + 2 * LATE);
    assert_eq!(membership.facts().checked_s, 1);
    fellows.checks(&membership, &web, Some(2 * LATE), start + 2 * LATE);
    assert_eq!(membership.facts().checked_s, 1);
    fellows.checks(&membership, &web, Some(Duration::ZERO), start + 2 * LATE);
    assert!(membership.facts().checked_s >= told);
    fellows.checks(&membership, &web, None, start + 3 * LATE);
    fellows.checks(&membership, &api, None, start + 3 * LATE);
    assert_eq!(membership.facts().checked_s, 0, "there is nothing to check any more");
}

#[test]
fn who_is_cut_off_goes_by_nobody() {
    let mut members = many(9);
    for member in &mut members[4..] {
        member.state = MemberState::Dead;
    }
    let alone = peers("gw-0", members.clone());
    assert!(alone.is_isolated() && !alone.share());
    assert_eq!(&*alone.checkers("u", endpoint(1), 3), [Arc::<str>::from("gw-0")], "it checks everything itself");
    members[4].state = MemberState::Alive;
    assert!(!peers("gw-0", members.clone()).is_isolated(), "half of it may be away");
    for member in &mut members {
        if member.state == MemberState::Dead {
            member.state = MemberState::Left;
        }
    }
    assert!(!peers("gw-0", members).is_isolated(), "who said good-bye is not missed");
}

#[test]
fn what_is_told_is_bounded_and_the_worst_comes_first() {
    let (fellows, membership) = (Fellows::default(), Membership::alone("a", facts()));
    let up = |nth| Observation { seen: Seen::Up, ..down(nth) };
    fellows.tell(&membership, &"upstreams/u".into(), (0..200).map(up).collect());
    let mut said = membership.said();
    fellows.tell(&membership, &"upstreams/u".into(), (0..200).map(up).collect());
    assert_eq!(said.has_changed().ok(), Some(false), "only news is told");
    said.mark_unchanged();
    fellows.tell(&membership, &"upstreams/v".into(), (0..200).map(down).collect());
    let told = membership.facts().observations.clone();
    let downs = told.iter().filter(|one| one.seen == Seen::Down).count();
    assert_eq!((told.len(), downs, told[199].seen), (256, 200, Seen::Down));
    fellows.tell(&membership, &"upstreams/v".into(), Vec::new());
    fellows.tell(&membership, &"upstreams/u".into(), Vec::new());
    assert!(membership.facts().observations.is_empty());
}

proptest! {
    /// Whatever most of a fleet says, with whatever lies among it: nobody who was asked less than most of those who check an endpoint calls it down.
    #[test]
    fn a_minority_convinces_nobody(
        count in 2usize..12,
        checkers in 1u32..5,
        lies in prop::collection::vec(prop::collection::vec(0u16..20, 0..40), 12),
    ) {
        let mut members = many(count);
        for (member, lies) in members.iter_mut().zip(&lies).skip(1) {
            let observations = lies.iter().map(|nth| down(*nth)).collect();
            member.facts = Arc::new(Facts { observations, ..facts() });
        }
        let peers = peers("gw-0", members);
        for nth in 0..20 {
            let checkers = peers.checkers("upstreams/u", endpoint(nth), checkers);
            let by = peers.doubters("upstreams/u", endpoint(nth), &checkers);
            let liars = (1..count).filter(|at| lies[*at].contains(&nth) && checkers.contains(&format!("gw-{at}").as_str().into()));
            let liars = liars.count();
            prop_assert_eq!(by.map_or(0, |by| by.len()), if liars * 2 > checkers.len() { liars } else { 0 });
        }
    }
}
