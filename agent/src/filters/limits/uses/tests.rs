//! Fleets in memory: who says what, how late it is heard, and how many requests get through in the end.

#![allow(clippy::unwrap_used)]

use heddle_node::membership::{Member, MemberState};
use proptest::prelude::*;

use super::*;

const KEY: u64 = 7;

/// Members that share one limit, each with what it has said last.
struct Members {
    all: Vec<Uses>,
    said: Vec<Arc<[LimitUse]>>,
    states: Vec<MemberState>,
}

impl Members {
    fn new(number: usize) -> Members {
        let mut members = Members {
            all: (0..number).map(|_| Uses::default()).collect(),
            said: vec![Arc::default(); number],
            states: vec![MemberState::Alive; number],
        };
        members.spread();
        members
    }

    /// All say what they have let through.
    fn say(&mut self, now: u64) {
        self.said = self.all.iter().map(|uses| uses.said(now).into()).collect();
    }

    /// All hear what was said last.
    fn spread(&mut self) {
        let member = |index: usize| Member {
            id: format!("gw-{index}").into(),
            facts: Arc::new(Facts { uses: self.said[index].clone(), ..Facts::default() }),
            state: self.states[index],
            last_seen_ms: 0,
        };
        let members: Vec<Member> = (0..self.all.len()).map(member).collect();
        for (index, uses) in self.all.iter().enumerate() {
            uses.hear(&Fleet { own: members[index].id.clone(), members: members.clone() });
        }
    }

    fn admit(&self, index: usize, count: u64, now: u64) -> bool {
        self.all[index].admit(KEY, Window::at(now, count, 60_000), now).0
    }
}

/// One window of a minute in steps of a millisecond: `rates` are requests per second at each member; what is said every `every` milliseconds is heard
/// `late` milliseconds later. Gives how many requests there were and how many got through.
fn play(count: u64, rates: &[f64], every: u64, late: u64) -> (u64, u64) {
    let mut members = Members::new(rates.len());
    let (mut offered, mut passed) = (0, 0);
    let mut due: Vec<f64> = rates.iter().map(|rate| 500.0 / rate).collect();
    for now in 0..59_999 {
        // Steps in which nobody speaks come between saying and hearing.
        if now % every == late % every && now >= late {
            members.spread();
        }
        if now % every == 0 {
            members.say(now);
        }
        for (index, rate) in rates.iter().enumerate() {
            while due[index] <= now as f64 {
                due[index] += 1000.0 / rate;
                offered += 1;
                passed += u64::from(members.admit(index, count, now));
            }
        }
    }
    (offered, passed)
}

/// Most requests beyond the limit: for each other member what it lets through before it is heard, or its fair share.
fn bound(count: u64, rates: &[f64], every: u64, late: u64) -> u64 {
    let stale = (every + late) as f64 / 1000.0;
    let members = rates.len() as u64;
    let mut each: Vec<u64> = rates.iter().map(|rate| ((rate * stale).ceil() as u64 + 1).max(count / members)).collect();
    each.sort_unstable();
    each[1..].iter().sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn no_more_get_through_than_the_bound_says_and_no_fewer_than_the_limit(
        rates in prop::collection::vec(0.1f64..60.0, 1..7),
        count in 1u64..800,
        every in 50u64..2000,
        late in 1u64..1000,
    ) {
        let late = late.min(every - 1);
        let (offered, passed) = play(count, &rates, every, late);
        prop_assert!(passed >= offered.min(count), "{passed} of {offered}");
        prop_assert!(passed <= count + bound(count, &rates, every, late), "{passed}");
        prop_assert!(passed <= count * rates.len() as u64);
    }
}

/// The table of docs/performance.md.
#[test]
fn an_even_load_exceeds_a_limit_by_what_is_said_too_late() {
    println!("members | said every | heard after | offered | let through of 6000 | bound");
    for (members, every, late) in
        [(2, 200, 100), (2, 1000, 500), (5, 200, 100), (5, 1000, 500), (10, 200, 100), (10, 1000, 500), (20, 1000, 500)]
    {
        let rates = vec![400.0 / members as f64; members];
        let (offered, passed) = play(6000, &rates, every, late);
        let stale = ((every + late) as f64 / 1000.0 * rates[0]).ceil() as u64 + 1;
        let most = 6000 + (members as u64 - 1) * stale;
        println!("{members} | {every} ms | {late} ms | {offered} | {passed} | {most}");
        assert!((6000..=most).contains(&passed), "{members} members: {passed}, not within {most}");
    }
}

#[test]
fn a_fleet_of_one_is_exact() {
    let uses = Uses::default();
    let window = |now| Window::at(now, 3, 1000);
    let admit = |now| uses.admit(KEY, window(now), now);
    assert_eq!([admit(5_400), admit(5_500), admit(5_999)], [(true, 2), (true, 1), (true, 0)]);
    assert_eq!(admit(5_999), (false, 0));
    assert_eq!(admit(6_000), (true, 2), "windows lie on a grid");
    assert_eq!(uses.admit(KEY + 1, window(6_000), 6_000), (true, 2), "another key");
}

#[test]
fn who_lies_takes_no_more_than_what_is_beyond_the_fair_shares() {
    let mut members = Members::new(4);
    let lie = |window_ms| LimitUse { key: KEY, window_ms, used: u32::MAX };
    members.said[3] = [lie(0), lie(60_000)].into();
    members.spread();
    let passed = |index| (0..1000).filter(|_| members.admit(index, 100, 10)).count();
    assert_eq!([passed(0), passed(1), passed(2)], [25, 25, 25]);
    members.said[3] = Arc::default();
    members.spread();
    let passed: Vec<_> = (0..4).map(|index| (0..1000).filter(|_| members.admit(index, 100, 20)).count()).collect();
    assert_eq!(passed, [75, 75, 75, 100], "each at most the whole limit by itself");
}

#[test]
fn who_is_gone_shares_no_more_and_what_it_let_through_still_counts() {
    let mut members = Members::new(3);
    assert_eq!((0..30).filter(|_| members.admit(1, 100, 5)).count(), 30);
    members.say(10);
    members.states[1] = MemberState::Dead;
    members.spread();
    assert_eq!((0..200).filter(|_| members.admit(0, 100, 20)).count(), 70);
    members.say(30);
    members.spread();
    assert_eq!((0..200).filter(|_| members.admit(2, 100, 40)).count(), 50, "its share is that of two");
    assert_eq!(
        (0..200).filter(|_| members.admit(0, 100, 60_000)).count(),
        100,
        "nobody has let anything through in the next window"
    );
}

#[test]
fn others_than_ones_own_kind_do_not_count() {
    let uses = Uses::default();
    let member = |id: &str, role: &str, group: &str| Member {
        id: id.into(),
        facts: Arc::new(Facts {
            role: role.into(),
            group: group.into(),
            uses: [LimitUse { key: KEY, window_ms: 0, used: 10 }].into(),
            ..Facts::default()
        }),
        state: MemberState::Alive,
        last_seen_ms: 0,
    };
    let all = [("a", "gateway", "x"), ("b", "gateway", "x"), ("c", "gateway", "y"), ("d", "sidecar", "x")];
    let members = all.map(|(id, role, group)| member(id, role, group)).to_vec();
    uses.hear(&Fleet { own: "a".into(), members });
    let passed = (0..200).filter(|_| uses.admit(KEY, Window::at(5, 100, 1000), 5).0).count();
    assert_eq!(passed, 90);
}

#[test]
fn what_is_said_is_bounded_to_what_is_nearest_to_its_limit() {
    let uses = Uses::default();
    for key in 0..5000u64 {
        let count = if key < 100 { 10 } else { 1000 };
        for _ in 0..5 {
            uses.admit(key, Window::at(5, count, 1000), 5);
        }
    }
    let said = uses.said(10);
    assert_eq!(said.len(), MAX_SAID);
    assert_eq!(said.iter().filter(|said| said.key < 100).count(), 100);
    assert!(said.iter().all(|said| said.used == 5 && said.window_ms == 0));
    assert!(uses.said(1000).is_empty(), "the window is over");
}

#[tokio::test(start_paused = true)]
async fn members_say_and_hear_by_themselves() {
    let membership = Membership::alone("a", Facts::default());
    let uses = Arc::new(Uses::default());
    let task = tokio::spawn(uses.clone().keep_shared(membership.clone()));
    let now = clock::unix_ms();
    let window = Window::at(now, 100, 3_600_000 * 24);
    assert!(uses.admit(KEY, window, now).0);
    let mut said = membership.said();
    while membership.facts().uses.is_empty() {
        said.changed().await.unwrap();
    }
    assert_eq!(membership.facts().uses[..], [LimitUse { key: KEY, window_ms: window.start, used: 1 }]);
    let other = Arc::new(Facts { uses: [LimitUse { key: KEY, window_ms: window.start, used: 30 }].into(), ..Facts::default() });
    let member = |id: &str, facts: Arc<Facts>| Member { id: id.into(), facts, state: MemberState::Alive, last_seen_ms: 0 };
    membership.hear(vec![member("a", membership.facts()), member("b", other)]);
    while uses.heard.load().members == 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(uses.admit(KEY, window, now), (true, 68));
    task.abort();
}

#[test]
fn more_members_than_requests_share_them_by_turns() {
    let shares = |members: u64, window: Window, key: u64| -> Vec<u64> {
        (0..members).map(|before| Heard { members, before, ..Heard::default() }.share(key, window)).collect()
    };
    let mut turns = vec![0_u64; 20];
    for nth in 0..400 {
        let window = Window { count: 3, start: nth * 60_000, length: 60_000 };
        let shared = shares(20, window, 7);
        assert_eq!(shared.iter().sum::<u64>(), 3);
        turns.iter_mut().zip(&shared).for_each(|(sum, share)| *sum += share);
    }
    assert!(turns.iter().all(|sum| (20..110).contains(sum)), "each has its turn: {turns:?}");
    let window = Window { count: 10, start: 0, length: 1_000 };
    for members in 1..30 {
        assert_eq!(shares(members, window, members).iter().sum::<u64>(), 10);
    }
}

#[test]
fn a_lie_about_what_others_let_through_refuses_not_all_where_members_are_many() {
    let window = Window { count: 5, start: 0, length: 1_000 };
    let admitted = |before| {
        let uses = Uses::default();
        let mut heard = Heard { members: 50, before, ..Heard::default() };
        heard.by_key.insert((9, 0), u64::MAX);
        uses.heard.store(Arc::new(heard));
        (0..5).filter(|_| uses.admit(9, window, 1).0).count()
    };
    assert_eq!((0..50).map(admitted).sum::<usize>(), 5);
}
