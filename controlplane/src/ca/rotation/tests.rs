//! The life of roots, as a story and under arbitrary events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

fn root(name: &str) -> RootMeta {
    RootMeta { fingerprint: name.into(), not_before_ms: 0, not_after_ms: u64::MAX }
}

fn held(node: &str, version: Option<&str>) -> Holding {
    Holding { node: node.into(), version: version.map(str::to_owned) }
}

/// How long a node is waited for that does not confirm.
const PATIENCE_MS: u64 = 1_000;

fn seen<'a>(now_ms: u64, holdings: &'a [Holding], last: &'a BTreeMap<String, u64>) -> Seen<'a> {
    Seen { now_ms, spread_ms: 60, patience_ms: PATIENCE_MS, grace_ms: 5, version: "v2", holdings, last_expiry_ms: last }
}

#[test]
fn a_root_is_replaced_step_by_step() {
    let mut rotation = Rotation::steady(root("old"));
    let last = BTreeMap::from([("old".to_owned(), 500)]);
    rotation.begin(root("new"), 100).unwrap();
    assert_eq!(rotation.begin(root("newer"), 100), Err(Refused::UnderWay));
    assert_eq!(rotation.signing().unwrap().fingerprint, "old");

    let behind = [held("a", Some("v2")), held("b", Some("v1")), held("c", None)];
    let waits = rotation.waits(&seen(120, &behind, &last));
    let nodes = [held("b", Some("v1")), held("c", None)].map(|holding| Wait::Node { holding, until_ms: 1_100 });
    assert_eq!(waits, [&[Wait::Time { until_ms: 160 }][..], &nodes].concat());
    assert_eq!(rotation.advance(&seen(200, &behind, &last)), None, "a node does not have it yet");

    let all = [held("a", Some("v2"))];
    assert_eq!(rotation.advance(&seen(159, &all, &last)), None, "too early");
    assert_eq!(rotation.advance(&seen(160, &all, &last)), Some(Step::Signs));
    assert_eq!(rotation.signing().unwrap().fingerprint, "new");
    assert_eq!(rotation.cancel(), Err(Refused::NotSpreading));

    let waits = rotation.waits(&seen(505, &all, &last));
    assert_eq!(waits, [Wait::Expiry { fingerprint: "old".into(), until_ms: 505 }]);
    assert_eq!(rotation.advance(&seen(505, &all, &last)), None);
    assert_eq!(rotation.advance(&seen(506, &all, &last)), Some(Step::Dropped(vec!["old".into()])));
    assert_eq!(rotation, Rotation::steady(root("new")));
}

#[test]
fn a_node_that_never_confirms_is_waited_for_until_all_that_it_may_hold_has_expired() {
    let mut rotation = Rotation::steady(root("old"));
    let last = BTreeMap::from([("old".to_owned(), 900)]);
    rotation.begin(root("new"), 100).unwrap();
    let mute = [held("mute", Some("v1"))];
    assert_eq!(rotation.advance(&seen(1_099, &mute, &last)), None);
    assert_eq!(rotation.advance(&seen(1_100, &mute, &last)), Some(Step::Signs));
}

#[test]
fn what_has_not_signed_can_be_taken_back() {
    let mut rotation = Rotation::steady(root("old"));
    rotation.begin(root("new"), 1).unwrap();
    assert_eq!(rotation.cancel(), Ok("new".into()));
    assert_eq!(rotation, Rotation::steady(root("old")));
    rotation.begin(root("other"), 2).unwrap();
    rotation.force(3).unwrap();
    assert_eq!(rotation.signing().unwrap().fingerprint, "other");
}

#[test]
fn roots_that_never_signed_go_at_once_and_others_when_they_may() {
    let mut rotation = Rotation::steady(root("a"));
    rotation.replace(root("b"), 1);
    rotation.replace(root("c"), 2);
    assert_eq!(rotation.begin(root("d"), 3), Err(Refused::UnderWay));
    let last = BTreeMap::from([("a".to_owned(), 50)]);
    assert_eq!(rotation.advance(&seen(10, &[], &last)), Some(Step::Dropped(vec!["b".into()])));
    assert!(matches!(rotation.phase, Phase::Retiring { .. }));
    assert_eq!(rotation.advance(&seen(56, &[], &last)), Some(Step::Dropped(vec!["a".into()])));
    assert_eq!(rotation, Rotation::steady(root("c")));
    assert_eq!(rotation.begin(root("c"), 60), Err(Refused::Known));
    rotation.replace(root("c"), 61);
    assert_eq!(rotation, Rotation::steady(root("c")));
}

#[derive(Debug, Clone)]
enum Event {
    Begin,
    Cancel,
    Force,
    Issue(u64),
    Advance(bool),
    Restart,
    Later(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Begin),
        Just(Event::Cancel),
        Just(Event::Force),
        (1..400_u64).prop_map(Event::Issue),
        any::<bool>().prop_map(Event::Advance),
        Just(Event::Restart),
        prop_oneof![4 => 1..200_u64, 1 => 900..1_100_u64].prop_map(Event::Later),
    ]
}

proptest! {
    /// Whatever happens, all that is valid chains to a root that is trusted, and there is always one that signs; it signs once everybody has it, or after
    /// all patience.
    #[test]
    fn no_live_identity_loses_its_root(events in prop::collection::vec(event(), 1..120)) {
        let mut rotation = Rotation::steady(root("r0"));
        let (mut now, mut next) = (1_000_u64, 1);
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for event in events {
            match event {
                Event::Begin => {
                    let new = root(&format!("r{next}"));
                    next += usize::from(rotation.begin(new, now).is_ok());
                }
                Event::Cancel => drop(rotation.cancel()),
                Event::Force => drop(rotation.force(now)),
                Event::Issue(ttl) => {
                    let signer = rotation.signing().unwrap().fingerprint.clone();
                    let entry = last.entry(signer).or_default();
                    *entry = (*entry).max(now + ttl);
                }
                Event::Advance(behind) => {
                    let holdings = if behind { vec![held("n", Some("v1"))] } else { vec![held("n", Some("v2"))] };
                    let before = rotation.clone();
                    let step = rotation.advance(&seen(now, &holdings, &last));
                    let waited_for = matches!(before.phase, Phase::Spreading { since_ms } if now < since_ms + PATIENCE_MS);
                    prop_assert!(!(behind && waited_for && step == Some(Step::Signs)), "signed before {:?} had the root", holdings);
                    prop_assert_eq!(step.is_none(), before == rotation);
                }
                Event::Restart => {
                    let text = serde_json::to_string(&rotation).unwrap();
                    prop_assert_eq!(serde_json::from_str::<Rotation>(&text).unwrap(), rotation.clone());
                }
                Event::Later(span) => now += span,
            }
            prop_assert!(rotation.signing().is_some());
            let trusted: Vec<&str> = rotation.roots.iter().map(|root| root.fingerprint.as_str()).collect();
            for (signer, expiry) in &last {
                prop_assert!(*expiry < now || trusted.contains(&signer.as_str()), "{signer} is gone before {expiry}, now {now}");
            }
            prop_assert_eq!(rotation.phase == Phase::Steady, rotation.roots.len() == 1);
        }
    }

    /// Once everybody has the new root and time passes, every rotation ends with one root.
    #[test]
    fn every_rotation_ends(issued in prop::collection::vec((0..3_usize, 1..500_u64), 0..20)) {
        let mut rotation = Rotation::steady(root("r0"));
        rotation.begin(root("r1"), 0).unwrap();
        let names = ["r0", "r1", "r0"];
        let last = issued.into_iter().map(|(who, until)| (names[who].to_owned(), until)).collect();
        for now in [0, 60, 61, 600] {
            rotation.advance(&seen(now, &[held("n", Some("v2"))], &last));
        }
        prop_assert_eq!(rotation, Rotation::steady(root("r1")));
    }
}
