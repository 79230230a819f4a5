//! Several control planes with one authority.

use super::*;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use tokio::sync::{broadcast, watch};

use super::super::others::Fellows;
use crate::store::{Append, Cluster, Entry, News, RecordWrite, Records, Ring, StoreError};

/// Authorities beside one cluster that were opened at the same time, and know what each of them has written since.
async fn several(cluster: &Cluster, count: usize, now_ms: &Arc<AtomicU64>) -> Vec<Authority> {
    let now_ms = now_ms.clone();
    let clock: Clock = Arc::new(move || now_ms.load(Ordering::SeqCst));
    let opening = (0..count).map(|_| async {
        let store = cluster.store("/ca/", clock.clone()).await;
        let news = store.news().unwrap();
        let seal = Arc::new(Seal::new(&[7; 32]).unwrap());
        let settings = IdentitySettings::default();
        let authority = Authority::open(settings, store, seal, clock.clone(), fastrand::Rng::with_seed(7)).await.unwrap();
        let (completion, drain) = heddle_node::drain::pair();
        let following = authority.clone().follow(news, drain, fastrand::Rng::with_seed(7));
        tokio::spawn(async move {
            let _until_the_test_ends = completion;
            following.await;
        });
        authority
    });
    let all: Vec<Authority> = futures_util::future::join_all(opening).await;
    let written = |authority: &Authority| authority.0.written.lock().1;
    until("the last write to be known", || all.iter().all(|authority| written(authority) == written(&all[0]))).await;
    all
}

async fn until(what: &str, mut there: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if there() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still waiting for {what}");
}

#[tokio::test]
async fn all_have_one_root_and_a_token_is_good_once_for_all() {
    let cluster = Cluster::of(1);
    let all = several(&cluster, 3, &Arc::new(AtomicU64::new(START))).await;
    let version = |authority: &Authority| authority.trusted().borrow().version.clone();
    until("one root", || all.iter().all(|authority| version(authority) == version(&all[0]))).await;
    let (token, about) = all[0].create_token("default", "web", None, "ops").await.unwrap();
    let knows = |authority: &Authority| authority.tokens().iter().any(|token| token.id == about.id);
    until("the token everywhere", || all.iter().all(knows)).await;
    let requests: Vec<Vec<u8>> = all.iter().map(|_| request(Some(WEB)).0).collect();
    let (proof, peer) = (Proof::Token(token), clear());
    let tries = all.iter().zip(&requests).map(|(authority, csr)| authority.sign(csr, &proof, &peer));
    let signed: Vec<bool> = futures_util::future::join_all(tries).await.into_iter().map(|signed| signed.is_ok()).collect();
    assert_eq!(signed.iter().filter(|signed| **signed).count(), 1, "{signed:?}");

    let before = version(&all[1]);
    all[2].rotate().await.unwrap();
    until("the new root everywhere", || all.iter().all(|authority| version(authority) == version(&all[2]))).await;
    assert_ne!(version(&all[1]), before);
    assert!(all[1].revoke_token(&about.id).await.unwrap());
    until("the token to be forgotten", || !all.iter().any(knows)).await;
}

#[tokio::test]
async fn a_root_signs_only_once_the_nodes_of_all_control_planes_hold_it() {
    let (cluster, now_ms) = (Cluster::of(1), Arc::new(AtomicU64::new(START)));
    let all = several(&cluster, 3, &now_ms).await;
    let names = ["a", "b", "c"];
    let there = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>());
    let (sender, present) = watch::channel(None);
    for (authority, name) in all.iter().zip(names) {
        authority.among(Fellows { name: name.into(), present: present.clone() });
    }
    let steady = |authority: &Authority| authority.overview(&[]).phase == Phase::Steady;
    let node = Holder { node: "n1".into(), spiffe_id: String::new(), version: String::new(), ..Holder::default() };
    let seat = all[1].holders().enter(node).unwrap();
    all[0].rotate().await.unwrap();
    until("the rotation everywhere", || !all.iter().any(steady)).await;
    now_ms.fetch_add(400_000, Ordering::SeqCst);
    let waits = || -> BTreeSet<String> {
        let name = |wait: Wait| match wait {
            Wait::Node { holding, .. } => holding.node,
            other => panic!("{other:?}"),
        };
        all[0].overview(&[]).waits.into_iter().map(name).collect()
    };
    let stays = async |expected: &[&str]| {
        all[0].look_for_others().await.unwrap();
        all[0].advance(&[]).await.unwrap();
        until(&format!("{expected:?}"), || waits() == expected.iter().map(|name| (*name).to_owned()).collect()).await;
        assert!(matches!(all[0].overview(&[]).phase, Phase::Spreading { .. }));
    };
    stays(&["control plane that was not looked for yet"]).await;
    sender.send_replace(there(&names));
    stays(&["control plane b", "control plane c"]).await;
    for authority in &all {
        authority.report(&["n2".to_owned()]).await.unwrap();
    }
    stays(&["n1", "n2"]).await;
    all[2].report(&[]).await.unwrap();
    sender.send_replace(there(&["a", "b"]));
    all[1].report(&[]).await.unwrap();
    stays(&["n1", "control plane c"]).await;
    now_ms.fetch_add(60_000, Ordering::SeqCst);
    stays(&["n1"]).await;
    let version = all[1].trusted().borrow().version.clone();
    seat.holds(&version);
    all[1].report(&[]).await.unwrap();
    until("all to hold it", || waits().is_empty()).await;
    all[0].advance(&[]).await.unwrap();
    assert!(matches!(all[0].overview(&[]).phase, Phase::Retiring { .. }));
}

#[tokio::test]
async fn a_node_whose_streams_lie_at_two_control_planes_is_waited_for_no_longer_than_it_takes() {
    let (cluster, now_ms) = (Cluster::of(1), Arc::new(AtomicU64::new(START)));
    let all = several(&cluster, 2, &now_ms).await;
    let there = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    let (_sender, present) = watch::channel(Some(there));
    for (authority, name) in all.iter().zip(["a", "b"]) {
        authority.among(Fellows { name: name.into(), present: present.clone() });
    }
    // A hundred nodes have their configuration from one and their bundles from the other.
    let nodes: Vec<String> = (0..100).map(|n| format!("n{n}")).collect();
    let holder =
        |node: &String| Holder { node: node.clone(), spiffe_id: String::new(), version: String::new(), ..Holder::default() };
    let seats: Vec<_> = nodes.iter().map(|node| all[1].holders().enter(holder(node)).unwrap()).collect();
    // Another one may write down at the same moment what it has found at its start: then nothing has been rotated.
    let mut began = all[0].rotate().await;
    for _ in 0..100 {
        if began.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        began = all[0].rotate().await;
    }
    began.unwrap();
    let version = |authority: &Authority| authority.trusted().borrow().version.clone();
    until("the rotation everywhere", || version(&all[0]) == version(&all[1])).await;
    now_ms.fetch_add(400_000, Ordering::SeqCst);
    let goes_on = async || {
        for _ in 0..3 {
            all[1].report(&[]).await.unwrap();
            all[0].report(&nodes).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        all[0].advance(&nodes).await.unwrap();
        matches!(all[0].overview(&nodes).phase, Phase::Retiring { .. })
    };
    let held = version(&all[1]);
    seats.iter().skip(1).for_each(|seat| seat.holds(&held));
    assert!(!goes_on().await, "one of them has not confirmed it anywhere");
    let waits = all[0].overview(&nodes).waits;
    assert!(waits.iter().all(|wait| matches!(wait, Wait::Node { holding, .. } if holding.node == "n0")), "{waits:?}");
    seats[0].holds(&held);
    for _ in 0..100 {
        if goes_on().await {
            return;
        }
    }
    panic!("it waits for nodes that have confirmed: {:?}", all[0].overview(&nodes).waits);
}

#[tokio::test]
async fn a_rotation_that_could_not_be_written_leaves_no_key_behind_and_old_news_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let clock: Clock = Arc::new(|| START);
    let inner = Embedded::open(folder.path(), clock.clone()).unwrap();
    let sulky =
        Arc::new(Sulky { inner, news: broadcast::Sender::new(8), refusals: AtomicUsize::new(0), full: AtomicBool::new(false) });
    let seal = Arc::new(Seal::new(&[7; 32]).unwrap());
    let settings = IdentitySettings::default();
    let one = Authority::open(settings, sulky.clone(), seal, clock.clone(), fastrand::Rng::with_seed(7)).await.unwrap();
    let state = async || {
        let all = sulky.inner.records().await.unwrap();
        all.into_iter().find(|(key, _)| key == "authority/state").unwrap()
    };
    let (key, before) = state().await;
    sulky.full.store(true, Ordering::SeqCst);
    assert!(one.rotate().await.is_err());
    assert_eq!(one.0.book.lock().issuers.len(), 1);
    assert_eq!(one.0.book.lock().roots.len(), 1);
    sulky.full.store(false, Ordering::SeqCst);
    one.rotate().await.unwrap();
    let version = one.trusted().borrow().version.clone();
    // News of before, which were still on their way.
    one.heard(&key, Some(&before), false).unwrap();
    assert_eq!(one.trusted().borrow().version, version);
    let (_, after) = state().await;
    one.heard(&key, Some(&after), false).unwrap();
    one.interfere(true).await.unwrap();
    // A store that was set back counts all the same.
    one.heard(&key, Some(&after), true).unwrap();
    assert_eq!(one.trusted().borrow().version, version);
}

/// Records that others write without a word, and that cannot be read at first.
struct Sulky {
    inner: Embedded,
    news: broadcast::Sender<News>,
    refusals: AtomicUsize,
    /// Nothing can be written.
    full: AtomicBool,
}

#[async_trait::async_trait]
impl Records for Sulky {
    async fn record(&self, writes: Vec<RecordWrite>, journal: Vec<Append>) -> Result<(), StoreError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Full("no room".into()));
        }
        self.inner.record(writes, journal).await
    }

    async fn records(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let refused = self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if refused { Err(StoreError::Away("not now".into())) } else { self.inner.records().await }
    }

    async fn journal(&self, ring: Ring, before: Option<u64>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.inner.journal(ring, before, limit).await
    }

    fn news(&self) -> Option<broadcast::Receiver<News>> {
        Some(self.news.subscribe())
    }
}

#[tokio::test]
async fn what_was_missed_is_read_until_it_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let clock: Clock = Arc::new(|| START);
    let inner = Embedded::open(folder.path(), clock.clone()).unwrap();
    let sulky =
        Arc::new(Sulky { inner, news: broadcast::Sender::new(8), refusals: AtomicUsize::new(0), full: AtomicBool::new(false) });
    let open = || {
        let seal = Arc::new(Seal::new(&[7; 32]).unwrap());
        Authority::open(IdentitySettings::default(), sulky.clone(), seal, clock.clone(), fastrand::Rng::with_seed(7))
    };
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    let (_completion, drain) = heddle_node::drain::pair();
    tokio::spawn(one.clone().follow(sulky.news().unwrap(), drain, fastrand::Rng::with_seed(7)));
    let missed = || {
        sulky.refusals.store(3, Ordering::SeqCst);
        sulky.news.send(Arc::from([])).unwrap();
    };
    let (_, token) = other.create_token("default", "web", None, "ops").await.unwrap();
    missed();
    until("the token", || one.tokens().iter().any(|known| known.id == token.id)).await;
    assert!(other.revoke_token(&token.id).await.unwrap());
    missed();
    until("the token to be forgotten", || one.tokens().is_empty()).await;
}
