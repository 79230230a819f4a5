//! What every store must do, told as stories and as a comparison with the store in memory. Tests only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::etcd::tests::Cluster;
use super::{
    Append, Archive, Clock, Compare, Embedded, Memory, RecordWrite, Restore, Revision, Ring, Store, StoreError, Txn, Version,
    Watch, Write,
};
use crate::model::{Key, ResourceKind};

/// A clock that stands still until it is told otherwise.
#[derive(Clone, Default)]
pub(crate) struct Hands(Arc<AtomicU64>);

impl Hands {
    pub(crate) fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let hands = self.0.clone();
        Arc::new(move || hands.load(Ordering::SeqCst))
    }
}

pub(crate) fn route(id: &str) -> Key {
    Key::new(ResourceKind::Route, id)
}

pub(crate) fn put(key: &Key, value: Value) -> Write {
    Write { key: key.clone(), value: Some(value), expires_at_ms: None }
}

pub(crate) fn delete(key: &Key) -> Write {
    Write { key: key.clone(), value: None, expires_at_ms: None }
}

/// Runs one story over every store.
fn everywhere<F: Future<Output = ()>>(story: impl Fn(Arc<dyn Store>, Hands) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let hands = Hands::default();
    runtime.block_on(story(Arc::new(Memory::new(hands.clock())), hands));
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    runtime.block_on(story(Arc::new(Embedded::open(dir.path(), hands.clock()).unwrap()), hands));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (cluster, hands) = (Cluster::of(1), Hands::default());
    runtime.block_on(async { story(cluster.store("/story/", hands.clock()).await, hands).await });
}

async fn write(store: &Arc<dyn Store>, writes: Vec<Write>) -> Revision {
    store.txn(vec![], writes, Arc::from("ops")).await.unwrap()
}

/// Key, revision, creation and value, for short comparisons.
fn brief(versions: Vec<Version>) -> Vec<(String, Revision, Revision, Option<Value>)> {
    versions.into_iter().map(|version| (version.key.to_string(), version.revision, version.created, version.value)).collect()
}

#[test]
fn transactions_that_build_upon_each_other_stand_up_to_the_first_that_fails() {
    everywhere(|store, _| async move {
        let txn = |modified, n: u64| Txn {
            upon: None,
            compare: vec![Compare { key: route("a"), modified }],
            writes: vec![put(&route("a"), json!({ "n": n }))],
            author: "ops".into(),
        };
        let done = store.txns(vec![txn(None, 1), txn(Some(1), 2), txn(Some(1), 3), txn(Some(2), 4)]).await;
        assert_eq!(done.revisions, [1, 2]);
        assert!(matches!(done.failed, Some(StoreError::Conflict { expected: Some(1), found: Some(2), .. })));
        assert_eq!(store.load().await.unwrap().1[0].value, Some(json!({"n": 2})));
        let done = store.txns(vec![]).await;
        assert!(done.revisions.is_empty() && done.failed.is_none());
        let upon = |upon, n| Txn { upon: Some(upon), ..txn(Some(n), n) };
        let done = store.txns(vec![upon(2, 2), upon(3, 3), upon(3, 4)]).await;
        assert_eq!(done.revisions, [3, 4]);
        assert!(matches!(done.failed, Some(StoreError::Behind { found: 4 })), "{:?}", done.failed);
        assert_eq!(store.load().await.unwrap().0, 4);
    });
}

#[test]
fn a_new_store_is_empty_at_revision_zero() {
    everywhere(|store, _| async move {
        assert_eq!(store.load().await.unwrap(), (0, vec![]));
        assert_eq!(store.at(0).await.unwrap(), vec![]);
        assert_eq!(store.history(None, None, 10).await.unwrap(), vec![]);
    });
}

#[test]
fn every_change_is_a_revision_with_author_and_time() {
    everywhere(|store, hands| async move {
        hands.set(1_000);
        assert_eq!(write(&store, vec![put(&route("a"), json!({"n": 1})), put(&route("b"), json!({"n": 1}))]).await, 1);
        hands.set(2_000);
        assert_eq!(store.txn(vec![], vec![put(&route("a"), json!({"n": 2}))], Arc::from("eve")).await.unwrap(), 2);
        let (revision, all) = store.load().await.unwrap();
        assert_eq!(revision, 2);
        assert_eq!(all.len(), 2);
        assert_eq!((&*all[0].author, all[0].time_ms, all[0].created, all[0].revision), ("eve", 2_000, 1, 2));
        assert_eq!((&*all[1].author, all[1].time_ms, all[1].created, all[1].revision), ("ops", 1_000, 1, 1));
        assert_eq!(all[0].value, Some(json!({"n": 2})));
    });
}

#[test]
fn the_order_of_fields_is_kept_as_written() {
    everywhere(|store, _| async move {
        write(&store, vec![put(&route("a"), json!({"z": 1, "a": {"y": 1, "b": 2}}))]).await;
        let text = store.load().await.unwrap().1[0].value.as_ref().unwrap().to_string();
        assert_eq!(text, r#"{"z":1,"a":{"y":1,"b":2}}"#);
    });
}

#[test]
fn a_failed_comparison_writes_nothing_and_says_what_it_found() {
    everywhere(|store, _| async move {
        write(&store, vec![put(&route("a"), json!(1))]).await;
        let compare = vec![Compare { key: route("b"), modified: None }, Compare { key: route("a"), modified: Some(7) }];
        let refused = store.txn(compare, vec![put(&route("b"), json!(2))], Arc::from("ops")).await.unwrap_err();
        let StoreError::Conflict { key, expected, found } = refused else { panic!("{refused}") };
        assert_eq!((key, expected, found), (route("a"), Some(7), Some(1)));
        assert_eq!(store.load().await.unwrap().0, 1);
        let absent = vec![Compare { key: route("a"), modified: None }];
        assert!(matches!(
            store.txn(absent, vec![delete(&route("a"))], Arc::from("ops")).await,
            Err(StoreError::Conflict { found: Some(1), expected: None, .. })
        ));
        let right = vec![Compare { key: route("a"), modified: Some(1) }, Compare { key: route("zz"), modified: None }];
        assert_eq!(store.txn(right, vec![delete(&route("a"))], Arc::from("ops")).await.unwrap(), 2);
        let gone = vec![Compare { key: route("a"), modified: Some(1) }];
        assert!(matches!(
            store.txn(gone, vec![put(&route("a"), json!(1))], Arc::from("ops")).await,
            Err(StoreError::Conflict { found: None, .. })
        ));
    });
}

#[test]
fn a_transaction_that_does_nothing_makes_no_revision() {
    everywhere(|store, _| async move {
        assert_eq!(write(&store, vec![delete(&route("never"))]).await, 0);
        assert_eq!(write(&store, vec![]).await, 0);
        assert_eq!(write(&store, vec![put(&route("a"), json!(1)), delete(&route("a"))]).await, 0);
        assert_eq!(write(&store, vec![delete(&route("a")), put(&route("a"), json!(1))]).await, 1);
    });
}

#[test]
fn what_was_deleted_and_made_again_is_a_new_creation() {
    everywhere(|store, _| async move {
        write(&store, vec![put(&route("a"), json!(1))]).await;
        write(&store, vec![delete(&route("a"))]).await;
        write(&store, vec![put(&route("a"), json!(2))]).await;
        assert_eq!(brief(store.load().await.unwrap().1), [("routes/a".into(), 3, 3, Some(json!(2)))]);
        let history = brief(store.history(Some(route("a")), None, 10).await.unwrap());
        assert_eq!(
            history,
            [
                ("routes/a".into(), 3, 3, Some(json!(2))),
                ("routes/a".into(), 2, 1, None),
                ("routes/a".into(), 1, 1, Some(json!(1)))
            ]
        );
    });
}

#[test]
fn the_past_can_be_read_at_any_revision() {
    everywhere(|store, _| async move {
        write(&store, vec![put(&route("a"), json!(1))]).await;
        write(&store, vec![put(&route("b"), json!(1))]).await;
        write(&store, vec![put(&route("a"), json!(2)), delete(&route("b"))]).await;
        assert_eq!(brief(store.at(1).await.unwrap()), [("routes/a".into(), 1, 1, Some(json!(1)))]);
        assert_eq!(store.at(2).await.unwrap().len(), 2);
        assert_eq!(brief(store.at(3).await.unwrap()), [("routes/a".into(), 3, 1, Some(json!(2)))]);
        assert!(matches!(store.at(4).await, Err(StoreError::UnknownRevision(4, 0))));
    });
}

#[test]
fn history_is_paged_and_never_cuts_a_revision_in_half() {
    everywhere(|store, _| async move {
        for n in 0..4 {
            write(&store, vec![put(&route("a"), json!(n)), put(&route("b"), json!(n)), put(&route("c"), json!(n))]).await;
        }
        let page = store.history(None, None, 4).await.unwrap();
        let revisions: Vec<Revision> = page.iter().map(|version| version.revision).collect();
        assert_eq!(revisions, [4, 4, 4, 3, 3, 3]);
        let page = store.history(None, Some(3), 1).await.unwrap();
        assert!(page.len() == 3 && page.iter().all(|version| version.revision == 2));
        let page = store.history(Some(route("b")), Some(4), 2).await.unwrap();
        assert_eq!(brief(page).into_iter().map(|it| it.1).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(store.history(Some(route("none")), None, 9).await.unwrap(), vec![]);
    });
}

#[test]
fn kinds_and_prefixes_of_ids_are_not_mixed_up() {
    everywhere(|store, _| async move {
        let keys = [
            route("a"),
            route("a.b"),
            route("a\u{0}"),
            Key::new(ResourceKind::Service, "a"),
            Key::new(ResourceKind::Secret, "vault/a"),
            Key::new(ResourceKind::Credential, "jack/credentials/a"),
        ];
        for key in &keys {
            write(&store, vec![put(key, json!(key.id.to_string()))]).await;
        }
        for key in &keys {
            let history = store.history(Some(key.clone()), None, 10).await.unwrap();
            assert_eq!(history.len(), 1);
            assert_eq!(history[0].key, *key);
        }
        assert_eq!(store.load().await.unwrap().1.len(), keys.len());
    });
}

#[test]
fn expiry_is_kept_with_the_value() {
    everywhere(|store, _| async move {
        let write_it = Write { expires_at_ms: Some(5_000), ..put(&route("a"), json!(1)) };
        write(&store, vec![write_it]).await;
        assert_eq!(store.load().await.unwrap().1[0].expires_at_ms, Some(5_000));
        write(&store, vec![put(&route("a"), json!(1))]).await;
        assert_eq!(store.load().await.unwrap().1[0].expires_at_ms, None);
    });
}

#[test]
fn compaction_keeps_the_newest_the_young_and_what_exists() {
    everywhere(|store, hands| async move {
        write(&store, vec![put(&route("old"), json!("still here"))]).await;
        for n in 0..10 {
            hands.set(1_000 * (n + 1));
            write(&store, vec![put(&route("a"), json!(n))]).await;
        }
        hands.set(9_999);
        assert_eq!(
            store.compact(3, 5_000).await.unwrap(),
            6,
            "revision 6 was written at 5,000, 4,999 ago, so it is young enough"
        );
        assert!(matches!(store.at(5).await, Err(StoreError::UnknownRevision(5, 6))));
        assert_eq!(store.at(6).await.unwrap().len(), 2);
        assert_eq!(store.compact(3, 0).await.unwrap(), 9, "of eleven revisions the newest three");
        assert_eq!(store.compact(3, 0).await.unwrap(), 9);
        let history = brief(store.history(None, None, 100).await.unwrap());
        assert_eq!(history.iter().map(|it| it.1).collect::<Vec<_>>(), [11, 10, 9, 1]);
        assert_eq!(store.compact(0, 0).await.unwrap(), 11);
        assert_eq!(store.load().await.unwrap().1.len(), 2);
        assert_eq!(store.at(11).await.unwrap().len(), 2);
    });
}

#[test]
fn compaction_forgets_what_was_deleted() {
    everywhere(|store, hands| async move {
        write(&store, vec![put(&route("a"), json!(1))]).await;
        write(&store, vec![delete(&route("a"))]).await;
        write(&store, vec![put(&route("b"), json!(1))]).await;
        hands.set(100);
        assert_eq!(store.compact(1, 0).await.unwrap(), 3);
        assert_eq!(store.history(Some(route("a")), None, 10).await.unwrap(), vec![]);
        assert_eq!(write(&store, vec![put(&route("a"), json!(2))]).await, 4);
    });
}

#[test]
fn whoever_follows_hears_of_every_revision_once_and_whole() {
    everywhere(|store, _| async move {
        write(&store, vec![put(&route("a"), json!(1))]).await;
        let mut watch = Watch::new(store.clone(), 0);
        assert_eq!(brief(watch.next().await.unwrap()), [("routes/a".into(), 1, 1, Some(json!(1)))]);
        let both = tokio::join!(watch.next(), write(&store, vec![put(&route("b"), json!(2)), delete(&route("a"))]));
        assert_eq!(both.1, 2);
        let mut told = brief(both.0.unwrap());
        told.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(told, [("routes/a".into(), 2, 1, None), ("routes/b".into(), 2, 2, Some(json!(2)))]);
        for n in 3..9 {
            write(&store, vec![put(&route("a"), json!(n))]).await;
        }
        let mut resumed = Watch::new(store.clone(), 5);
        for n in 3..9u64 {
            assert_eq!(watch.next().await.unwrap()[0].revision, n);
            if n > 5 {
                assert_eq!(resumed.next().await.unwrap()[0].revision, n);
            }
        }
        assert_eq!(store.since(3, 2).await.unwrap().iter().map(|version| version.revision).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(store.since(8, 2).await.unwrap(), vec![]);
        assert_eq!(*store.newest().borrow(), 8);
    });
}

#[test]
fn whoever_was_overtaken_by_compaction_is_told_to_load() {
    everywhere(|store, hands| async move {
        for n in 0..6 {
            write(&store, vec![put(&route("a"), json!(n))]).await;
        }
        hands.set(10);
        assert_eq!(store.compact(2, 0).await.unwrap(), 5);
        assert!(matches!(Watch::new(store.clone(), 3).next().await, Err(StoreError::UnknownRevision(4, 5))));
        assert_eq!(Watch::new(store.clone(), 4).next().await.unwrap()[0].revision, 5);
    });
}

/// A store with a history that has been compacted, records and a journal.
async fn fill<S: Restore>(store: &S) {
    for n in 0..6 {
        store.txn(vec![], vec![put(&route("a"), json!({ "n": n })), put(&route("b"), json!(n))], "ops".into()).await.unwrap();
    }
    store.txn(vec![], vec![delete(&route("b")), put(&route("c"), Value::Null)], "eve".into()).await.unwrap();
    store.compact(3, 0).await.unwrap();
    let record = |key: &str, value: &[u8]| RecordWrite::Set(key.into(), value.to_vec());
    let append = |ring| Append { ring, body: b"said".to_vec(), keep: 9 };
    store.record(vec![record("x", b"1"), record("y/z", &[0, 255])], Ring::ALL.map(append).into()).await.unwrap();
}

#[tokio::test]
async fn a_store_moves_whole_or_not_at_all() {
    let (cluster, hands) = (Cluster::of(1), Hands::default());
    hands.set(5_000);
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let embedded = Embedded::open(dir.path(), hands.clock()).unwrap();
    fill(&embedded).await;
    let archive = embedded.archive().await.unwrap();
    assert_eq!((archive.floor, archive.newest, archive.records.len(), archive.entries().count()), (5, 7, 2, 3));
    let mut file = Vec::new();
    let digest = archive.write(&mut file).unwrap();
    assert_eq!(Archive::read(&mut &file[..]).unwrap(), archive);

    let etcd = cluster.store("/a/", hands.clock()).await;
    etcd.restore(archive.clone()).await.unwrap();
    assert_eq!(etcd.archive().await.unwrap().digest().unwrap(), digest);
    assert!(etcd.restore(archive.clone()).await.unwrap_err().to_string().contains("is not empty; nothing was changed"));
    let back = Embedded::open(other.path(), hands.clock()).unwrap();
    back.restore(etcd.archive().await.unwrap()).await.unwrap();
    assert_eq!(back.archive().await.unwrap(), archive);
    assert!(back.restore(archive.clone()).await.is_err());
    for store in [&*etcd as &dyn Store, &back] {
        assert_eq!(answers(store).await, answers(&embedded).await);
        assert_eq!(store.txn(vec![], vec![put(&route("d"), json!(1))], "ops".into()).await.unwrap(), 8);
    }
    etcd.clear().await.unwrap();
    assert!(cluster.store("/a/", hands.clock()).await.archive().await.unwrap().is_empty());
    let again = cluster.store("/b/", hands.clock()).await;
    fill(&*again).await;
    assert_eq!(again.archive().await.unwrap(), archive, "all stores keep the same");
}

#[test]
fn a_backup_that_was_changed_is_refused() {
    let archive = Archive { newest: 1, records: vec![("a".into(), vec![1])], ..Archive::default() };
    let mut file = Vec::new();
    archive.write(&mut file).unwrap();
    let told = |bytes: &[u8]| Archive::read(&mut &bytes[..]).unwrap_err();
    assert!(told(&file[..file.len() / 2]).contains("the backup is not whole"));
    let text = String::from_utf8(file).unwrap();
    assert!(told(text.replace("AQ==", "Ag==").as_bytes()).contains("was changed or damaged"));
    assert!(told(b"{}\n").contains("line 1 is no line of a backup"));
    assert!(told(b"").contains("not whole"));
}

/// A step of a random life of a store.
#[derive(Debug, Clone)]
enum Step {
    Txn { compare: Option<(u8, Option<u64>)>, writes: Vec<(u8, Option<u16>, bool)>, later_ms: u64 },
    Compact { keep: u64, keep_ms: u64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let writes = proptest::collection::vec((0u8..8, proptest::option::of(any::<u16>()), any::<bool>()), 0..5);
    let compare = proptest::option::weighted(0.2, (0u8..8, proptest::option::of(0u64..30)));
    prop_oneof![
        8 => (compare, writes, 0u64..50).prop_map(|(compare, writes, later_ms)| Step::Txn { compare, writes, later_ms }),
        1 => (0u64..20, 0u64..500).prop_map(|(keep, keep_ms)| Step::Compact { keep, keep_ms }),
        1 => Just(Step::Reopen),
    ]
}

/// Everything that can be asked of a store.
async fn answers<S: Store + ?Sized>(store: &S) -> (Revision, Vec<Version>, Vec<Vec<Version>>, Vec<Version>) {
    let sorted = |mut versions: Vec<Version>| {
        versions.sort_by(|a, b| (b.revision, &a.key).cmp(&(a.revision, &b.key)));
        versions
    };
    let (revision, all) = store.load().await.unwrap();
    let mut past = Vec::new();
    for at in 0..=revision + 1 {
        past.push(sorted(store.at(at).await.unwrap_or_default()));
    }
    (revision, sorted(all), past, sorted(store.history(None, None, 10_000).await.unwrap()))
}

fn key(n: u8) -> Key {
    let kind = if n.is_multiple_of(2) { ResourceKind::Route } else { ResourceKind::Upstream };
    Key::new(kind, format!("k{}", n / 2))
}

/// `open` opens the same store again.
async fn same_life<S: Store + ?Sized, F: Future<Output = Arc<S>>>(open: impl Fn(Clock) -> F, steps: Vec<Step>) {
    let hands = Hands::default();
    let (model, mut now) = (Memory::new(hands.clock()), 0);
    let mut store = open(hands.clock()).await;
    for step in steps {
        match step {
            Step::Txn { compare, writes, later_ms } => {
                now += later_ms;
                hands.set(now);
                let compare: Vec<Compare> = compare.into_iter().map(|(n, modified)| Compare { key: key(n), modified }).collect();
                let writes: Vec<Write> = writes
                    .into_iter()
                    .map(|(n, value, ttl)| Write {
                        key: key(n),
                        value: value.map(|value| json!({ "v": value })),
                        expires_at_ms: ttl.then_some(now + 1),
                    })
                    .collect();
                let expected = model.txn(compare.clone(), writes.clone(), Arc::from("p")).await;
                let found = store.txn(compare, writes, Arc::from("p")).await;
                assert_eq!(format!("{found:?}"), format!("{expected:?}"));
            }
            Step::Compact { keep, keep_ms } => {
                assert_eq!(store.compact(keep, keep_ms).await.unwrap(), model.compact(keep, keep_ms).await.unwrap());
            }
            Step::Reopen => {
                drop(store);
                store = open(hands.clock()).await;
            }
        }
    }
    assert_eq!(answers(&*store).await, answers(&model).await);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_file_and_the_memory_live_the_same_life(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let open = |clock| async { Arc::new(Embedded::open(dir.path(), clock).unwrap()) };
        runtime.block_on(same_life(open, steps));
    }
}

#[test]
fn etcd_and_the_memory_live_the_same_life() {
    let cluster = Cluster::of(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lives = AtomicU64::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(12));
    let steps = proptest::collection::vec(step(), 1..30);
    let run = runner.run(&steps, |steps| {
        let prefix = format!("/life/{}/", lives.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(same_life(|clock| cluster.store(&prefix, clock), steps));
        Ok(())
    });
    run.unwrap();
}
