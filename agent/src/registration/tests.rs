//! What is said to Consul and when, by what happens; and how what is known becomes a status.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use heddle_node::clock::{self, Instant};
use heddle_node::config::{Document, Expansion, Format};
use heddle_node::consul::{CheckStatus, ConsulSettings};
use heddle_node::readiness::{Readiness, Verdict};
use proptest::prelude::*;

use super::keeper::{Keeper, Step};
use super::registrar::{Parts, registration};
use super::standing::{Asked, Standing, standing};
use crate::health::Finding;
use crate::settings::AgentSettings;

const TTL: Duration = Duration::from_secs(15);

fn dice() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

fn well() -> Standing {
    Standing { status: CheckStatus::Passing, why: "heddle: ready".into() }
}

fn ill() -> Standing {
    Standing { status: CheckStatus::Critical, why: "connect to 127.0.0.1:1: connection failed".into() }
}

#[test]
fn the_service_is_registered_told_kept_alive_and_registered_again_when_it_is_lost() {
    let (mut keeper, now, mut dice) = (Keeper::new(TTL), clock::now(), dice());
    assert_eq!(keeper.next(&well(), now), Step::Register);
    keeper.has_registered();
    assert_eq!(keeper.next(&well(), now), Step::Tell);
    keeper.has_told(well(), now);
    assert_eq!(keeper.next(&well(), now), Step::Rest(now + TTL / 3));
    assert_eq!(keeper.next(&ill(), now), Step::Tell, "what is new is said at once");
    assert_eq!(keeper.next(&well(), now + TTL / 3), Step::Tell, "silence would make it critical");
    keeper.has_lost(now, &mut dice);
    assert_eq!((keeper.next(&well(), now), keeper.is_registered()), (Step::Register, false));
    keeper.has_registered();
    keeper.has_lost(now, &mut dice);
    assert!(matches!(keeper.next(&well(), now), Step::Rest(_)), "one that forgets at once is not asked without a pause");
}

#[test]
fn failures_pause_longer_and_longer_but_never_let_the_check_die() {
    let (mut keeper, now, mut dice) = (Keeper::new(TTL), clock::now(), dice());
    keeper.has_registered();
    keeper.has_told(well(), now);
    let mut last = Duration::ZERO;
    for _ in 0..12 {
        keeper.has_failed(now, &mut dice);
        let Step::Rest(until) = keeper.next(&ill(), now) else { panic!("no pause") };
        last = until - now;
        assert!(last <= TTL / 3, "{last:?}");
    }
    assert!(last > TTL / 6, "{last:?}");
    assert_eq!(keeper.next(&ill(), now + last), Step::Tell, "it is still registered, as far as is known");
    assert!(keeper.is_failing());
    keeper.has_told(ill(), now + last);
    assert!(!keeper.is_failing());
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Taken,
    Unknown,
    Failed,
    Changes,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![4 => Just(Event::Taken), 1 => Just(Event::Unknown), 2 => Just(Event::Failed), 2 => Just(Event::Changes)]
}

proptest! {
    /// Whatever Consul does: a third of the TTL never passes without a try, nothing is told of a service that is not registered, and as soon as Consul takes
    /// two words it knows how the service stands.
    #[test]
    fn consul_is_never_left_without_a_word(events in prop::collection::vec(event(), 1..200)) {
        let (mut keeper, mut now, mut dice) = (Keeper::new(TTL), clock::now(), dice());
        let (mut stands, mut tried): (Standing, Instant) = (well(), now);
        for event in events {
            let step = keeper.next(&stands, now);
            match (step, event) {
                (_, Event::Changes) => stands = if stands == well() { ill() } else { well() },
                (Step::Rest(until), _) => {
                    prop_assert!(until > now && until - tried <= TTL / 3);
                    now = until;
                }
                (_, Event::Failed) => keeper.has_failed(now, &mut dice),
                (Step::Register, _) => keeper.has_registered(),
                (Step::Tell, Event::Taken) => keeper.has_told(stands.clone(), now),
                (Step::Tell, Event::Unknown) => keeper.has_lost(now, &mut dice),
            }
            if !matches!(step, Step::Rest(_)) && !matches!(event, Event::Changes) {
                tried = now;
            }
            prop_assert!(step != Step::Tell || matches!(event, Event::Unknown) || keeper.is_registered());
        }
        for _ in 0..3 {
            match keeper.next(&stands, now) {
                Step::Rest(until) => now = until,
                Step::Register => keeper.has_registered(),
                Step::Tell => keeper.has_told(stands.clone(), now),
            }
        }
        prop_assert_eq!(keeper.told(), Some(&stands));
    }
}

#[test]
fn the_worst_counts_and_every_reason_is_told() {
    let mut asked = Asked::new("GET http://127.0.0.1:1/healthz".into(), 2);
    let of = |asked: &Asked| standing(&Verdict::Ready, std::slice::from_ref(asked));
    assert_eq!(of(&asked).status, CheckStatus::Critical);
    assert_eq!(of(&asked).why, "GET http://127.0.0.1:1/healthz: not asked yet\nheddle: ready");
    asked.note(Finding::Status(503));
    assert_eq!(of(&asked).status, CheckStatus::Critical, "it has never worked");
    asked.note(Finding::Status(204));
    assert_eq!(of(&asked).status, CheckStatus::Passing);
    asked.note(Finding::TimedOut);
    assert_eq!(of(&asked).status, CheckStatus::Warning, "once is an accident");
    asked.note(Finding::Broken);
    assert_eq!(of(&asked).status, CheckStatus::Critical);
    assert!(of(&asked).why.starts_with("GET http://127.0.0.1:1/healthz: connection failed"), "{}", of(&asked).why);
    asked.note(Finding::Status(429));
    assert_eq!(of(&asked).status, CheckStatus::Warning);
    asked.note(Finding::Connected);
    let pending = standing(&Verdict::Pending(vec!["configuration".into()]), &[asked]);
    assert_eq!(pending.status, CheckStatus::Critical);
    assert!(pending.why.starts_with("heddle: pending: configuration\n"), "{}", pending.why);
    assert_eq!(standing(&Verdict::Draining, &[]).status, CheckStatus::Critical);
    assert_eq!(standing(&Verdict::Ready, &[]), well());
}

#[test]
fn what_others_read_in_consul_is_published() {
    let text = r#"
role: sidecar
service:
  { name: web, namespace: shop, address: "127.0.0.1:8080", protocol: http, version: "2", labels: { track: canary, "a.b/c": d },
    consul: { register: true, tags: [v2], meta: { team: t, zone: other }, weights: { passing: 9 } } }
inbound: { address: "10.0.0.7:15006" }
"#;
    let document = Document::parse("heddle.yaml", text, Format::Yaml, Expansion::Off).unwrap();
    let settings = document.read(|root| AgentSettings::read(root, 1)).unwrap();
    let (service, registered) = settings.mesh.registration().unwrap();
    let parts = Parts {
        service,
        settings: registered,
        consul: ConsulSettings::default(),
        node: "web-1",
        zone: "eu-1a",
        role: "sidecar",
        readiness: Readiness::new(),
    };
    let one = registration(&parts);
    assert_eq!(
        (one.id.as_str(), one.name.as_str(), one.address.as_deref(), one.port),
        ("web-web-1", "web", Some("10.0.0.7"), 15_006)
    );
    assert_eq!((&one.tags[..], one.weights), (&["v2".to_owned()][..], Some((9, 1))));
    let expected = [
        ("a_b_c", "d"),
        ("heddle-namespace", "shop"),
        ("heddle-node", "web-1"),
        ("heddle-protocol", "http"),
        ("heddle-role", "sidecar"),
        ("heddle-version", env!("CARGO_PKG_VERSION")),
        ("team", "t"),
        ("track", "canary"),
        ("version", "2"),
        ("zone", "other"),
    ];
    assert_eq!(one.meta.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(), expected);
    let check = &one.ttl_checks[0];
    assert_eq!((check.id.as_str(), check.reap_after), ("web-web-1:heddle", Some(Duration::from_secs(60))));
}
