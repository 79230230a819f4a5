//! The embedded store against `kill -9` and a disk that fills up, in real processes. It knows only the public API of the store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use heddle_controlplane::model::{Key, ResourceKind};
use heddle_controlplane::store::{Embedded, Store, StoreError, Write};
use serde_json::{Value, json};

fn open(dir: &Path) -> Result<Embedded, StoreError> {
    Embedded::open(dir, Arc::new(|| 1_000))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn put(id: &str, value: Value) -> Write {
    Write { key: Key::new(ResourceKind::Route, id), value: Some(value), expires_at_ms: None }
}

/// Not a story of its own: the process that the stories below start. Its first line of input names the role and the
/// directory; without one (when somebody runs it by hand) it ends at once.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    let mut first = String::new();
    std::io::stdin().read_line(&mut first).unwrap();
    match first.trim().split_once(' ') {
        Some(("forever", dir)) => block_on(write_forever(Path::new(dir))),
        Some(("asked", dir)) => block_on(write_when_asked(Path::new(dir))),
        _ => {}
    }
}

/// Three writers; each revision writes the same number under two keys, and is printed once it was acknowledged.
async fn write_forever(dir: &Path) {
    let store = open(dir).unwrap();
    let writer = |name: &'static str| {
        let store = &store;
        async move {
            for n in 0u64.. {
                let value = json!({ "n": n, "fill": "x".repeat((n % 7 * 900) as usize) });
                let writes = vec![put(&format!("{name}-left"), value.clone()), put(&format!("{name}-right"), value)];
                let revision = store.txn(vec![], writes, Arc::from(name)).await.unwrap();
                println!("acknowledged {revision}");
                if n % 50 == 49 {
                    store.compact(100, 0).await.unwrap();
                }
            }
        }
    };
    tokio::join!(writer("a"), writer("b"), writer("c"));
}

/// Writes as many bytes as each line of input says, and answers with a line.
async fn write_when_asked(dir: &Path) {
    let store = open(dir).unwrap();
    for line in std::io::stdin().lines() {
        let bytes: usize = line.unwrap().trim().parse().unwrap();
        let written = store.txn(vec![], vec![put("r", json!({ "fill": "x".repeat(bytes) }))], Arc::from("ops")).await;
        let (newest, all) = store.load().await.unwrap();
        let told = match written {
            Ok(revision) => format!("revision {revision}"),
            Err(StoreError::Full(_)) => "full".to_owned(),
            Err(other) => format!("unexpected: {other}"),
        };
        let past = store.history(None, None, 1000).await.unwrap();
        println!("answer {told}, newest {newest}, resources {}, versions {}", all.len(), past.len());
    }
}

/// This test binary as a child that has been told its role; through a shell that first does `prepare`.
fn start(role: &str, dir: &Path, prepare: &str) -> (Child, BufReader<ChildStdout>) {
    let exe: PathBuf = std::fs::read_link("/proc/self/exe").unwrap();
    let mut child = Command::new("sh")
        .args(["-c", &format!("{prepare} exec \"$0\" --exact child --ignored --nocapture")])
        .arg(exe)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    writeln!(child.stdin.as_mut().unwrap(), "{role} {}", dir.display()).unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// The revisions that were acknowledged in whole lines.
fn acknowledged(text: &str) -> impl Iterator<Item = u64> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| line.split("acknowledged ").nth(1)).map(|revision| revision.parse().unwrap())
}

/// What must hold of a store whose writer was killed after `last` was acknowledged.
async fn judge(dir: &Path, before: u64, last: u64) -> u64 {
    let store = open(dir).expect("the file opens after every kill");
    let (newest, all) = store.load().await.unwrap();
    assert!(newest >= last.max(before), "revision {last} was acknowledged, the store is at {newest}");
    for name in ["a", "b", "c"] {
        let value = |side: &str| all.iter().find(|it| *it.key.id == *format!("{name}-{side}")).map(|it| (it.revision, &it.value));
        assert_eq!(value("left"), value("right"), "a revision was applied by half");
    }
    let mut revisions: Vec<u64> = store.history(None, None, 300).await.unwrap().iter().map(|it| it.revision).collect();
    revisions.dedup();
    let gaps = revisions.windows(2).take(90).filter(|pair| pair[0] != pair[1] + 1).count();
    assert_eq!(gaps, 0, "revisions follow one another: {revisions:?}");
    newest
}

#[test]
fn two_hundred_kills_lose_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = fastrand::Rng::with_seed(2026);
    let (mut newest, mut total) = (0, 0);
    for _ in 0..200 {
        let (mut child, mut output) = start("forever", dir.path(), "");
        #[expect(clippy::disallowed_methods, reason = "the moment of the kill is what this story is about, so real time passes")]
        std::thread::sleep(Duration::from_micros(dice.u64(2_000..60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        let told: Vec<u64> = acknowledged(&text).collect();
        assert!(told.iter().all(|revision| *revision > newest), "revisions only grow: {told:?} after {newest}");
        total += told.len();
        newest = block_on(judge(dir.path(), newest, told.into_iter().max().unwrap_or(0)));
    }
    assert!(total > 20, "only {total} writes were acknowledged before the kills");
}

/// Asks the child for one write and returns its answer.
fn ask(child: &mut Child, output: &mut BufReader<ChildStdout>, bytes: usize) -> String {
    writeln!(child.stdin.as_mut().unwrap(), "{bytes}").unwrap();
    loop {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "the child has ended");
        if let Some((_, answer)) = line.trim().split_once("answer ") {
            return answer.to_owned();
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_keeps_reading_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    // A limit on the size of files stands for the full disk: it needs no rights, and ends the same way.
    let (mut child, mut output) = start("asked", dir.path(), "trap '' XFSZ; ulimit -S -f 6000;");
    assert_eq!(ask(&mut child, &mut output, 1_000), "revision 1, newest 1, resources 1, versions 1");
    for _ in 0..3 {
        assert_eq!(ask(&mut child, &mut output, 20_000_000), "full, newest 1, resources 1, versions 1");
    }
    assert_eq!(ask(&mut child, &mut output, 2_000), "revision 2, newest 2, resources 1, versions 2");
    assert_eq!(ask(&mut child, &mut output, 20_000_000), "full, newest 2, resources 1, versions 2");
    let freed = Command::new("prlimit").args(["--pid", &child.id().to_string(), "--fsize=unlimited"]).status().unwrap();
    assert!(freed.success());
    assert_eq!(ask(&mut child, &mut output, 20_000_000), "revision 3, newest 3, resources 1, versions 3");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(block_on(open(dir.path()).unwrap().load()).unwrap().0, 3);
}

#[test]
fn a_write_too_large_for_the_disk_leaves_room_for_smaller_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(dir.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("mounting a small disk needs rights that are missing here; the limit on file sizes above tells the rest");
        return;
    }
    let (mut child, mut output) = start("asked", dir.path(), "");
    let mut answers = vec![ask(&mut child, &mut output, 1_000)];
    answers.push(ask(&mut child, &mut output, 3_000_000));
    answers.push(ask(&mut child, &mut output, 1_500));
    let remount = |options: &str| Command::new("mount").args(["-o", options]).arg(dir.path()).status().unwrap().success();
    let larger = remount("remount,size=60m");
    answers.push(ask(&mut child, &mut output, 3_000_000));
    drop(child.stdin.take());
    let ended = child.wait().unwrap().success();
    let freed = Command::new("umount").arg(dir.path()).status().unwrap().success();
    let of = |told: &str, newest: u64| format!("{told}, newest {newest}, resources 1, versions {newest}");
    assert_eq!(answers, [of("revision 1", 1), of("full", 1), of("revision 2", 2), of("revision 3", 3)]);
    assert!(larger && ended && freed);
}
