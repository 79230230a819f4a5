//! Stories of the file: strange files, damage, two processes, many writers at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, TableDefinition};
use serde_json::json;

use super::*;
use crate::store::conformance::{Hands, put, route};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn open(dir: &Path) -> Result<Embedded, StoreError> {
    Embedded::open(dir, Hands::default().clock())
}

fn refusal(dir: &Path) -> String {
    match open(dir) {
        Err(StoreError::Unusable(message)) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    }
}

fn filled(dir: &Path, revisions: u64) {
    block_on(async {
        let store = open(dir).unwrap();
        for n in 0..revisions {
            let value = json!({ "uri": format!("/{n}"), "desc": "x".repeat(300) });
            store.txn(vec![], vec![put(&route(&format!("r{}", n % 20)), value)], Arc::from("ops")).await.unwrap();
        }
    });
}

#[test]
fn only_the_owner_may_read_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("not/there/yet");
    drop(open(&data).unwrap());
    let mode = || std::fs::metadata(data.join(FILE)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(data.join(FILE), std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&data).unwrap());
    assert_eq!(mode(), 0o600);
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1, "no draft is left behind");
}

#[test]
fn memory_for_the_file_does_not_grow_with_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let txn = |n: u64| {
        let write = put(&route(&format!("r{}", n % 20)), json!({ "uri": format!("/{n}"), "desc": "x".repeat(4_000) }));
        Txn { upon: None, compare: vec![], writes: vec![write], author: Arc::from("ops") }
    };
    for round in 0..20 {
        let committed = block_on(store.txns((round * 50..).take(50).map(txn).collect()));
        assert!(committed.failed.is_none(), "{:?}", committed.failed);
    }
    assert_eq!(block_on(store.history(None, None, 2_000)).unwrap().len(), 1_000);
    let length = std::fs::metadata(dir.path().join(FILE)).unwrap().len();
    let Opened::Ready(database) = &*store.shared.opened.read() else { panic!("not ready") };
    let kept = database.cache_stats().used_bytes();
    assert!(length > 4 << 20 && kept > 0 && kept < 1 << 20, "{kept} bytes of the {length} of the file are in memory");
}

#[test]
fn a_draft_left_by_a_crash_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("heddle.redb.new"), "half").unwrap();
    assert_eq!(block_on(open(dir.path()).unwrap().load()).unwrap().0, 0);
}

#[test]
fn a_second_process_is_told_who_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).unwrap();
    let message = refusal(dir.path());
    assert!(message.contains("in use by another process") && message.contains("heddle.redb"), "{message}");
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    for bytes in [b"".to_vec(), b"hello".to_vec(), vec![0; 20_000], b"redb\x1a\x0a\xa9\x0d\x0a".to_vec(), vec![0xff; 8192]] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), &bytes).unwrap();
        let message = refusal(dir.path());
        assert!(
            message.contains("heddle.redb is damaged") && message.contains("backup") && message.contains("aside"),
            "{message}"
        );
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), bytes);
    }
}

#[test]
fn a_file_of_a_newer_heddle_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let path = dir.path().join(FILE);
    {
        let database = Database::open(&path).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(tables::META).unwrap().insert("format", 2).unwrap();
        txn.commit().unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    let message = refusal(dir.path());
    assert!(message.contains("format 2") && message.contains("newer heddle"), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_of_somebody_else_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    {
        let database = Database::create(&path).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(TableDefinition::<u64, u64>::new("meta")).unwrap().insert(1, 1).unwrap();
        txn.commit().unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    assert!(refusal(dir.path()).contains("damaged"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// Whatever byte is damaged: the file opens with everything that was acknowledged, or it is refused and left alone.
#[test]
fn a_damaged_file_never_passes_for_a_sound_one() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60);
    let path = dir.path().join(FILE);
    let sound = std::fs::read(&path).unwrap();
    let expected = block_on(open(dir.path()).unwrap().load()).unwrap();
    let mut dice = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    for round in 0..120 {
        let mut bytes = sound.clone();
        match round % 3 {
            0 => bytes.truncate(dice.usize(..sound.len())),
            1 => {
                let at = dice.usize(..sound.len());
                bytes[at] ^= 1 << dice.u8(..8);
            }
            _ => {
                let page = dice.usize(..sound.len() / 4096) * 4096;
                bytes[page..page + 4096].fill(dice.u8(..));
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        match open(dir.path()) {
            Err(StoreError::Unusable(message)) => {
                assert!(message.contains("damaged"), "{message}");
                assert!(std::fs::read(&path).unwrap() == bytes, "round {round} changed the file");
                refused += 1;
            }
            Err(other) => panic!("round {round}: {other:?}"),
            Ok(store) => assert!(block_on(store.load()).unwrap() == expected, "round {round} lost something"),
        }
    }
    assert!(refused > 40, "{refused} of 120 were refused");
}

#[test]
fn many_writers_at_once_get_revisions_without_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut revisions = block_on(async {
        let store = open(dir.path()).unwrap();
        let writes = (0..300).map(|n| store.txn(vec![], vec![put(&route(&format!("r{n}")), json!(n))], Arc::from("ops")));
        futures_util::future::try_join_all(writes).await.unwrap()
    });
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=300).collect::<Vec<_>>());
    assert_eq!(block_on(open(dir.path()).unwrap().load()).unwrap().1.len(), 300);
}

#[test]
fn a_writer_that_went_away_did_not_half_write() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let store = open(dir.path()).unwrap();
        {
            let abandoned = store.txn(vec![], vec![put(&route("a"), json!(1)), put(&route("b"), json!(1))], Arc::from("ops"));
            tokio::select! { biased; _ = abandoned => {}, _ = std::future::ready(()) => {} }
        }
        drop(store);
        let (revision, all) = open(dir.path()).unwrap().load().await.unwrap();
        assert!((revision, all.len()) == (0, 0) || (revision, all.len()) == (1, 2));
    });
}

fn append(ring: Ring, body: &str) -> Append {
    Append { ring, body: body.as_bytes().to_vec(), keep: 2 }
}

#[test]
fn records_and_the_journals_outlive_the_process_and_are_no_revisions() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let store = open(dir.path()).unwrap();
        assert_eq!((store.records().await.unwrap(), store.journal(Ring::Done, None, 9).await.unwrap()), (vec![], vec![]));
        let set = |key: &str, value: &[u8]| RecordWrite::Set(key.into(), value.to_vec());
        let raise = |number| RecordWrite::Raise("n".into(), number);
        store.record(vec![set("a", b"1"), set("b", b"2"), raise(7)], vec![append(Ring::Done, "first")]).await.unwrap();
        let remove = RecordWrite::Remove("b".into());
        let more = vec![append(Ring::Done, "second"), append(Ring::Done, "third")];
        store.record(vec![remove, raise(5)], more).await.unwrap();
        assert_eq!(store.load().await.unwrap(), (0, vec![]), "the configuration has no new revision");
    });
    block_on(async {
        let store = open(dir.path()).unwrap();
        let records = store.records().await.unwrap();
        assert_eq!(records, [("a".to_owned(), b"1".to_vec()), ("n".to_owned(), 7_u64.to_be_bytes().to_vec())]);
        let numbers = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.number).collect::<Vec<u64>>();
        assert_eq!(numbers(store.journal(Ring::Done, None, 9).await.unwrap()), [3, 2], "the oldest entry is gone");
        assert_eq!(numbers(store.journal(Ring::Done, Some(3), 9).await.unwrap()), [2]);
        let flood = (0..5).map(|_| append(Ring::Refused, "refused")).collect();
        store.record(vec![], flood).await.unwrap();
        assert_eq!(numbers(store.journal(Ring::Refused, None, 9).await.unwrap()), [8, 7], "one order over both");
        store.record(vec![], vec![append(Ring::Done, "fourth")]).await.unwrap();
        let done = store.journal(Ring::Done, None, 9).await.unwrap();
        assert_eq!(done[0], Entry { number: 9, body: b"fourth".to_vec() });
        assert_eq!(done[1].number, 3, "a flood of refusals pushes out nothing else");
    });
}
