//! Steps between up, down and trial; the timetable; probes against small servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fleet;
mod view;

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock::{self, Instant};
use heddle_xds::model::{ActiveCheck, CheckKind, Thresholds};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::evidence::Cause;
use super::judge::StatusSet;
use super::*;
use crate::balance::{Admission, Epoch, Standing, State};

fn thresholds() -> Thresholds {
    Thresholds {
        healthy_statuses: vec![200, 302],
        successes: 2,
        unhealthy_statuses: vec![500, 503],
        http_failures: 3,
        tcp_failures: 2,
        timeouts: 1,
    }
}

fn rules(traffic: bool, probes: bool) -> Rules {
    let judge = Box::new(Judge::new(&thresholds()));
    Rules { traffic: traffic.then(|| judge.clone()), probes: probes.then_some(judge) }
}

fn health(now: Instant) -> EndpointHealth {
    EndpointHealth::new(Arc::new(Standing::new(Arc::new(Epoch::default()), now)), now)
}

#[test]
fn thresholds_count_in_a_row_and_each_kind_alone() {
    let (rules, now) = (rules(true, false), clock::now());
    let health = health(now);
    let bad = Finding::Status(500);
    for finding in [bad, bad, Finding::Status(200), bad, bad, Finding::Status(418), Finding::Broken] {
        assert_eq!(health.traffic(&rules, finding, now), None);
    }
    let change = health.traffic(&rules, bad, now).unwrap();
    assert_eq!((change.from, change.to, change.cause), (State::Up, State::Down, Cause::Traffic));
    assert_eq!(health.ejections(), 1);
}

#[test]
fn a_zero_switches_a_rule_off() {
    let now = clock::now();
    let judge = Box::new(Judge::new(&Thresholds { http_failures: 0, tcp_failures: 0, timeouts: 0, ..thresholds() }));
    let rules = Rules { traffic: Some(judge.clone()), probes: Some(judge) };
    let health = health(now);
    for finding in [Finding::Status(500), Finding::Broken, Finding::TimedOut].repeat(50) {
        assert_eq!((health.traffic(&rules, finding, now), health.probed(&rules, finding, now)), (None, None));
    }
}

#[test]
fn traffic_ejects_then_a_wait_then_a_trial_decides() {
    let (rules, start) = (rules(true, false), clock::now());
    let health = health(start);
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    assert_eq!(health.traffic(&rules, Finding::TimedOut, at(0)).unwrap().to, State::Down);
    assert_eq!(health.tick(&rules, at(9)), None);
    assert_eq!(health.tick(&rules, at(10)).unwrap().to, State::Trial);
    assert_eq!(health.standing().admit(), Admission::Trial);
    assert_eq!(health.standing().admit(), Admission::Refused);
    assert_eq!(health.traffic(&rules, Finding::Status(500), at(11)).unwrap().to, State::Down, "one failure ejects it again");
    assert_eq!(health.back_at(), Some(at(31)), "the second wait is twice as long");
    assert_eq!(health.tick(&rules, at(31)).unwrap().to, State::Trial);
    assert_eq!(health.standing().admit(), Admission::Trial);
    assert_eq!(health.traffic(&rules, Finding::Status(200), at(32)), None);
    assert_eq!(health.standing().admit(), Admission::Trial, "the permit came back");
    assert_eq!(health.traffic(&rules, Finding::Status(200), at(33)).unwrap().to, State::Up);
    // long up: ejections are forgotten
    assert_eq!(health.traffic(&rules, Finding::TimedOut, at(400)).unwrap().to, State::Down);
    assert_eq!(health.back_at(), Some(at(410)));
}

#[test]
fn where_probes_run_only_they_bring_back() {
    let (rules, now) = (rules(true, true), clock::now());
    let health = health(now);
    health.traffic(&rules, Finding::TimedOut, now).unwrap();
    assert_eq!(health.tick(&rules, now + Duration::from_secs(3600)), None);
    assert_eq!(health.probed(&rules, Finding::Status(200), now), None);
    assert_eq!(health.probed(&rules, Finding::Status(500), now), None);
    assert_eq!(health.probed(&rules, Finding::Status(302), now), None);
    let change = health.probed(&rules, Finding::Connected, now).unwrap();
    assert_eq!((change.to, change.cause), (State::Up, Cause::Probe));
}

#[test]
fn switching_checks_off_makes_all_healthy() {
    let now = clock::now();
    let health = health(now);
    health.probed(&rules(false, true), Finding::TimedOut, now).unwrap();
    assert_eq!(health.tick(&Rules::default(), now).unwrap().to, State::Up);
}

proptest! {
    /// Whatever happens: down only by a failure, up only by a success, and every change is reported once.
    #[test]
    fn changes_are_told_and_have_their_cause(findings in prop::collection::vec((0usize..6, any::<bool>(), 0u64..30), 1..200)) {
        let (rules, mut now) = (rules(true, true), clock::now());
        let health = health(now);
        for (kind, probe, seconds) in findings {
            now += Duration::from_secs(seconds);
            let finding = [
                Finding::Status(200), Finding::Status(500), Finding::Status(404), Finding::Broken, Finding::TimedOut, Finding::Connected,
            ][kind];
            let before = health.state();
            let change = if probe { health.probed(&rules, finding, now) } else { health.traffic(&rules, finding, now) };
            prop_assert_eq!(change.is_some(), before != health.state());
            if let Some(change) = change {
                prop_assert_eq!((change.from, change.to), (before, health.state()));
                let good = matches!(finding, Finding::Status(200) | Finding::Connected);
                prop_assert_eq!(change.to == State::Up, good);
            }
        }
    }

    #[test]
    fn a_set_of_statuses_holds_what_was_put_in(codes in prop::collection::hash_set(100u16..600, 0..40)) {
        let set: StatusSet = codes.iter().copied().collect();
        for code in 0..1200 {
            prop_assert_eq!(set.has(code), codes.contains(&code));
        }
    }

    /// However endpoints come and go: never more probes at once than allowed, and each endpoint has its turn.
    #[test]
    fn the_timetable_keeps_its_bound(ids in 1u64..20, concurrency in 1u32..5, seed: u64) {
        let (mut dice, mut now) = (fastrand::Rng::with_seed(seed), clock::now());
        let (mut schedule, mut running, mut seen) = (Schedule::default(), Vec::new(), std::collections::HashSet::new());
        let interval = Duration::from_secs(1);
        for _ in 0..ids * 6 {
            schedule.reconcile(0..ids, interval, &mut dice, now);
            running.extend(schedule.start(concurrency, now));
            prop_assert!(running.len() <= concurrency as usize);
            now += Duration::from_millis(400);
            for id in running.drain(..) {
                seen.insert(id);
                schedule.done(id, interval, &mut dice, now);
            }
        }
        prop_assert_eq!(seen.len() as u64, ids);
    }
}

fn check(kind: CheckKind) -> ActiveCheck {
    ActiveCheck {
        kind,
        timeout: Duration::from_secs(1),
        concurrency: 10,
        host: None,
        port: None,
        method: "GET".into(),
        path: "/status".into(),
        body: "".into(),
        verify_certificate: true,
        headers: vec![("X-Probe".into(), "yes".into())],
        healthy_interval: Duration::from_secs(1),
        unhealthy_interval: Duration::from_secs(1),
        thresholds: thresholds(),
        checkers: 0,
    }
}

/// What a probe finds at a server that answers with `answer`, and what that server was asked.
async fn probe_of(kind: CheckKind, answer: Option<&'static str>) -> (Finding, String) {
    let timeout = if answer.is_some() { Duration::from_secs(10) } else { Duration::from_millis(50) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 1024];
        let len = stream.read(&mut asked).await.unwrap_or(0);
        match answer {
            Some(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
            }
            None => tokio::time::sleep(Duration::from_secs(60)).await,
        }
        String::from_utf8_lossy(&asked[..len]).into_owned()
    });
    let probe = Probe {
        address,
        host: "a.example".into(),
        server_name: None,
        tls: None,
        check: Arc::new(ActiveCheck { timeout, ..check(kind) }),
    };
    let finding = probe.run().await;
    (finding, if answer.is_some() { served.await.unwrap() } else { String::new() })
}

#[tokio::test]
async fn a_probe_finds_what_is_there() {
    let (finding, asked) = probe_of(CheckKind::Http, Some("HTTP/1.1 503 Busy\r\n\r\n")).await;
    assert_eq!(finding, Finding::Status(503));
    assert_eq!(
        asked,
        "GET /status HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\nuser-agent: heddle-health\r\nX-Probe: yes\r\n\r\n"
    );
    let interim = "HTTP/1.1 103 Early\r\n\r\nHTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(probe_of(CheckKind::Http, Some(interim)).await.0, Finding::Status(200));
    assert_eq!(probe_of(CheckKind::Http, Some("SSH-2.0-x\r\n")).await.0, Finding::Broken);
    assert_eq!(probe_of(CheckKind::Http, Some("")).await.0, Finding::Broken);
    assert_eq!(probe_of(CheckKind::Http, None).await.0, Finding::TimedOut);
    assert_eq!(probe_of(CheckKind::Tcp, Some("")).await.0, Finding::Connected);
}
