//! The life of an identity: asked for, renewed, kept while nobody signs, and read again by the next process. Time is paused, so no test waits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use heddle_node::clock::{self, Instant};
use parking_lot::Mutex;

use super::held::Held;
use super::signer::{Proof, SignError, Signed, Signer};
use super::testing::Authority;
use super::*;
use crate::settings::ProofSettings;

const TTL: Duration = Duration::from_secs(3_600);

/// What a test wants of the control plane, and what it saw.
struct Script {
    authority: Authority,
    away: bool,
    ttl: Duration,
    /// When it has signed.
    signed: Vec<Instant>,
    /// Whom it signs for, whatever is asked.
    signs_for: SpiffeId,
    calls: Vec<(Instant, &'static str, Vec<u8>)>,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<Script>>);

impl Fake {
    fn new() -> Self {
        let authority = Authority::new("a.test");
        let signs_for = authority.id("web");
        Self(Arc::new(Mutex::new(Script { authority, away: false, ttl: TTL, signed: Vec::new(), signs_for, calls: Vec::new() })))
    }

    fn calls(&self) -> Vec<&'static str> {
        self.0.lock().calls.iter().map(|call| call.1).collect()
    }

    fn away(&self, away: bool) {
        self.0.lock().away = away;
    }

    fn trust(&self) -> Trust {
        Trust { bundles: self.0.lock().authority.bundles(), version: "1".to_owned() }
    }
}

impl Signer for Fake {
    fn sign<'a>(&'a self, csr: &'a [u8], proof: &'a Proof) -> BoxFuture<'a, Result<Signed, SignError>> {
        Box::pin(async move {
            let trust = self.trust();
            let mut script = self.0.lock();
            let shown = match proof {
                Proof::Svid => "svid",
                Proof::JoinToken(token) => {
                    if token == "secret" {
                        "token"
                    } else {
                        "wrong token"
                    }
                }
                Proof::ServiceAccount(_) => "account",
            };
            script.calls.push((clock::now(), shown, csr.to_vec()));
            if script.away {
                return Err(SignError::Unreachable("nobody is there".to_owned()));
            }
            let id = Authority::asked(csr).map_or_else(|| script.signs_for.clone(), |_| script.signs_for.clone());
            let chain = script.authority.sign(csr, &id, script.ttl);
            script.signed.push(clock::now());
            Ok(Signed { chain, trust, server_time: clock::wall() })
        })
    }
}

/// A process with a folder of its own.
struct Process {
    fake: Fake,
    held: Arc<Held>,
    stats: Arc<Stats>,
    readiness: Readiness,
    folder: Arc<tempfile::TempDir>,
    wanted: Option<SpiffeId>,
}

impl Process {
    fn new() -> Self {
        let (fake, folder) = (Fake::new(), Arc::new(tempfile::tempdir().unwrap()));
        std::fs::write(folder.path().join("token"), "secret\n").unwrap();
        let wanted = Some(fake.0.lock().authority.id("web"));
        let held = Arc::new(Held::new(Identity::new(), Some(folder.path())));
        Self { fake, held, stats: Arc::default(), readiness: Readiness::new(), folder, wanted }
    }

    /// The next process with the same folder.
    fn again(&self) -> Self {
        let held = Arc::new(Held::new(Identity::new(), Some(self.folder.path())));
        let (fake, folder, wanted) = (self.fake.clone(), self.folder.clone(), self.wanted.clone());
        Self { fake, held, stats: Arc::default(), readiness: Readiness::new(), folder, wanted }
    }

    fn token(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn start(&self, proof: Option<ProofSettings>) -> tokio::task::JoinHandle<()> {
        begin(&self.held, self.fake.0.lock().authority.bundle());
        let keeper = Keeper {
            held: self.held.clone(),
            signer: Box::new(self.fake.clone()),
            proof,
            wanted: self.wanted.clone(),
            stats: self.stats.clone(),
            dice: fastrand::Rng::with_seed(7),
            guard: Some(self.readiness.guard("identity")),
        };
        tokio::spawn(keeper.run())
    }

    fn serial(&self) -> Option<String> {
        self.held.identity.svid().map(|svid| svid.serial_hex())
    }

    fn metric(&self, name: &str) -> f64 {
        let page = self.stats.page(&self.held.identity);
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
        line.parse().unwrap()
    }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_identity_costs_a_token_and_the_next_ones_none() {
    let process = Process::new();
    let task = process.start(Some(ProofSettings::JoinToken(process.token())));
    assert!(!process.readiness.verdict().is_ready());
    pass(Duration::from_secs(1)).await;
    let first = process.serial().unwrap();
    assert!(process.readiness.verdict().is_ready());
    assert_eq!(process.fake.calls(), ["token"]);
    pass(TTL.mul_f64(0.44)).await;
    assert_eq!(process.fake.calls().len(), 1);
    pass(TTL.mul_f64(0.12)).await;
    assert_eq!(process.fake.calls(), ["token", "svid"]);
    assert_ne!(process.serial().unwrap(), first);
    pass(TTL * 10).await;
    let calls = process.fake.calls();
    assert!((18..25).contains(&calls.len()) && calls.iter().skip(1).all(|shown| *shown == "svid"), "{calls:?}");
    let keys = process.fake.0.lock().calls.windows(2).filter(|pair| pair[0].2 == pair[1].2).count();
    assert_eq!(keys, 0, "each identity has a key of its own");
    assert!(process.metric("heddle_identity_renewals_total") > 18.0);
    assert!((process.metric("heddle_identity_expiry_timestamp_seconds") - clock::unix_ms() as f64 / 1e3 - 3_600.0).abs() < 60.0);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn while_nobody_signs_the_identity_stays_and_it_is_tried_for_ever() {
    let process = Process::new();
    let task = process.start(Some(ProofSettings::JoinToken(process.token())));
    pass(Duration::from_secs(1)).await;
    let first = process.serial();
    process.fake.away(true);
    pass(TTL * 6 / 10).await;
    assert_eq!(process.metric("heddle_identity_renewal_overdue"), 0.0);
    pass(TTL / 10).await;
    assert_eq!(process.metric("heddle_identity_renewal_overdue"), 1.0);
    assert_eq!(process.serial(), first);
    let before = process.fake.calls().len();
    pass(TTL / 10).await;
    assert!(process.fake.calls().len() >= before + 5, "it must be tried at least once a minute");
    process.fake.away(false);
    pass(Duration::from_secs(61)).await;
    assert_ne!(process.serial(), first);
    assert_eq!(process.metric("heddle_identity_renewal_overdue"), 0.0);
    // The request was the same all the time, so that an answer that was lost can be given again.
    let calls = process.fake.0.lock().calls.iter().skip(1).map(|call| call.2.clone()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(calls.len(), 1);
    task.abort();
}

/// The promise at its real size: the story of it is ten times as fast.
#[tokio::test(start_paused = true)]
async fn with_identities_of_five_minutes_the_control_plane_may_be_away_for_two_at_any_moment() {
    let (length, absence) = (Duration::from_secs(300), Duration::from_secs(120));
    for beginning in (0..=300).step_by(20) {
        let process = Process::new();
        process.fake.0.lock().ttl = length;
        let task = process.start(Some(ProofSettings::JoinToken(process.token())));
        pass(Duration::from_secs(1 + beginning)).await;
        process.fake.away(true);
        let back = clock::now() + absence;
        for _ in 0..600 {
            if clock::now() >= back {
                process.fake.away(false);
            }
            let age = clock::now() - *process.fake.0.lock().signed.last().unwrap();
            assert!(age < length, "away from {beginning} s on: the identity is {age:?} old");
            pass(Duration::from_secs(1)).await;
        }
        let signed = process.fake.0.lock().signed.clone();
        assert!(signed.len() >= 4, "{} renewals in {beginning} s and ten minutes", signed.len());
        assert_eq!(process.fake.calls().iter().filter(|shown| **shown == "token").count(), 1, "no second token is needed");
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_has_ended_is_asked_for_with_the_token_again() {
    let process = Process::new();
    let task = process.start(Some(ProofSettings::JoinToken(process.token())));
    pass(Duration::from_secs(1)).await;
    process.fake.away(true);
    pass(TTL + Duration::from_secs(1)).await;
    assert_eq!(process.fake.calls().last(), Some(&"svid"));
    std::fs::write(process.token(), "other").unwrap();
    pass(Duration::from_secs(120)).await;
    assert_eq!(process.fake.calls().last(), Some(&"wrong token"), "the file is read anew");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_service_account_helps_where_an_identity_is_refused() {
    let process = Process::new();
    let task = process.start(Some(ProofSettings::ServiceAccount(process.token())));
    pass(Duration::from_secs(1)).await;
    process.fake.away(true);
    pass(TTL * 3 / 4).await;
    let calls = process.fake.calls();
    assert_eq!(&calls[..6], ["account", "svid", "svid", "svid", "account", "svid"]);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn who_somebody_else_is_we_do_not_become() {
    let process = Process::new();
    let other = process.fake.0.lock().authority.id("db");
    process.fake.0.lock().signs_for = other;
    let task = process.start(Some(ProofSettings::JoinToken(process.token())));
    pass(Duration::from_secs(120)).await;
    assert_eq!(process.serial(), None);
    assert!(!process.readiness.verdict().is_ready());
    assert!(process.metric("heddle_identity_renewal_failures_total") >= 10.0);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn without_a_service_the_token_decides_who_we_are() {
    let mut process = Process::new();
    process.wanted = None;
    let task = process.start(Some(ProofSettings::JoinToken(process.token())));
    pass(Duration::from_secs(1)).await;
    assert_eq!(process.held.identity.svid().unwrap().id().service_name(), Some("web"));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn without_anything_to_show_it_waits_for_a_token() {
    let process = Process::new();
    let path = process.folder.path().join("later");
    let task = process.start(Some(ProofSettings::JoinToken(path.clone())));
    pass(Duration::from_secs(60)).await;
    assert_eq!(process.fake.calls(), Vec::<&str>::new());
    std::fs::write(path, "secret").unwrap();
    pass(Duration::from_secs(11)).await;
    assert_eq!(process.fake.calls(), ["token"]);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_serves_a_restart_without_a_control_plane() {
    let process = Process::new();
    let task = process.start(Some(ProofSettings::JoinToken(process.token())));
    pass(Duration::from_secs(1)).await;
    task.abort();
    let file = process.folder.path().join("identity.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let next = process.again();
    next.fake.away(true);
    let task = next.start(None);
    pass(Duration::from_secs(1)).await;
    assert_eq!(next.serial(), process.serial());
    assert!(next.readiness.verdict().is_ready());
    assert_eq!(next.held.identity.bundles(), process.held.identity.bundles());
    task.abort();

    // Another service finds nothing in it that it may use.
    let mut other = process.again();
    other.wanted = Some(process.fake.0.lock().authority.id("db"));
    let task = other.start(None);
    pass(Duration::from_secs(1)).await;
    assert!(!other.readiness.verdict().is_ready());
    task.abort();

    // A key that others can read is not used.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let open = process.again();
    let task = open.start(None);
    pass(Duration::from_secs(1)).await;
    assert_eq!(open.serial(), None);
    task.abort();
}

#[test]
fn roots_of_the_file_and_of_what_was_kept_both_count_at_first() {
    let process = Process::new();
    let old = Authority::new("a.test");
    let web = old.id("web");
    let foreign = Authority::new("b.test");
    let bundles = old.bundles().with_federated(foreign.bundle());
    process.held.become_who(old.svid(&web, TTL), Trust { bundles, version: "7".to_owned() });
    let next = process.again();
    begin(&next.held, process.fake.0.lock().authority.bundle());
    let trusted = next.held.identity.bundles();
    assert_eq!(trusted.own().unwrap().roots().len(), 2);
    assert_eq!(trusted.federated().count(), 1);
    assert_eq!(next.held.version(), "", "the control plane is asked for its bundles");
}
