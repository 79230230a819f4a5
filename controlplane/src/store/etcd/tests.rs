//! The store on real etcd clusters: what the conformance suite cannot ask of all stores.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use heddle_node::config::Secret;
use heddle_proto::etcd::etcdserverpb::TxnRequest;
use serde_json::json;
use tempfile::TempDir;

use super::{Etcd, EtcdSettings, EtcdTls, records};
use crate::model::{Fault, Key};
use crate::state::{Intent, Keeper, Options, Refused, State, Validator};
use crate::store::conformance::{Hands, delete, put, route};
use crate::store::{
    Append, Archive, Clock, Compare, Hold, Leases, RecordWrite, Records, Restore, Ring, Store, StoreError, Txn, Watch, fitting,
};

/// Members of etcd on loopback, ended by their process ids.
pub(crate) struct Cluster {
    members: Vec<Member>,
    folder: TempDir,
}

struct Member {
    process: Option<Child>,
    client: u16,
    arguments: Vec<String>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|at| self.kill(at));
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    let sockets: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
}

impl Cluster {
    pub(crate) fn of(count: usize) -> Cluster {
        let folder = ["/dev/shm", "/tmp"].iter().find_map(|at| tempfile::tempdir_in(at).ok()).unwrap();
        let ports = free_ports(count * 2);
        let peer = |at: usize| format!("http://127.0.0.1:{}", ports[at * 2]);
        let all: Vec<String> = (0..count).map(|at| format!("m{at}={}", peer(at))).collect();
        let members = (0..count).map(|at| {
            let client = ports[at * 2 + 1];
            let url = format!("http://127.0.0.1:{client}");
            let data = folder.path().join(format!("m{at}")).display().to_string();
            let arguments = [
                ("name", format!("m{at}")),
                ("data-dir", data),
                ("listen-client-urls", url.clone()),
                ("advertise-client-urls", url),
                ("listen-peer-urls", peer(at)),
                ("initial-advertise-peer-urls", peer(at)),
                ("initial-cluster", all.join(",")),
                ("heartbeat-interval", "50".into()),
                ("election-timeout", "500".into()),
                ("log-level", "error".into()),
            ];
            let arguments = arguments.into_iter().map(|(name, value)| format!("--{name}={value}")).collect();
            Member { process: None, client, arguments }
        });
        let mut cluster = Cluster { members: members.collect(), folder };
        (0..count).for_each(|at| cluster.start(at));
        cluster
    }

    fn start(&mut self, at: usize) {
        let log = std::fs::File::create(self.folder.path().join(format!("m{at}.log"))).unwrap();
        let mut command = Command::new("/usr/bin/etcd");
        command.args(&self.members[at].arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.members[at].process = Some(command.spawn().expect("/usr/bin/etcd starts"));
    }

    fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Keeps a member's data of this moment for [`Cluster::set_back`].
    fn keep(&mut self, at: usize) {
        self.kill(at);
        let (now, then) = (self.folder.path().join(format!("m{at}")), self.folder.path().join(format!("then{at}")));
        let copied = Command::new("cp").arg("-r").args([now, then]).status().unwrap();
        assert!(copied.success());
        self.start(at);
    }

    /// Gives a member the data that it had at [`Cluster::keep`], as somebody does who restores an old backup of etcd itself.
    fn set_back(&mut self, at: usize) {
        self.kill(at);
        let (now, then) = (self.folder.path().join(format!("m{at}")), self.folder.path().join(format!("then{at}")));
        std::fs::remove_dir_all(&now).unwrap();
        std::fs::rename(then, now).unwrap();
        self.start(at);
    }

    pub(crate) fn settings(&self, prefix: &str) -> EtcdSettings {
        let endpoints = self.members.iter().map(|member| format!("http://127.0.0.1:{}", member.client)).collect();
        EtcdSettings { endpoints, prefix: prefix.into(), login: None, tls: EtcdTls::default(), compact: None }
    }

    /// Opens a store, as soon as the cluster answers.
    pub(crate) async fn store(&self, prefix: &str, clock: Clock) -> Arc<Etcd> {
        open(&self.settings(prefix), clock).await
    }
}

async fn open(settings: &EtcdSettings, clock: Clock) -> Arc<Etcd> {
    for _ in 0..600 {
        match Etcd::open(settings, clock.clone(), fastrand::Rng::new()).await {
            Ok(store) => return store,
            Err(StoreError::Away(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("etcd does not answer");
}

fn clock() -> Clock {
    Hands::default().clock()
}

async fn write(store: &Etcd, id: &str, n: u64) -> Result<u64, StoreError> {
    store.txn(vec![], vec![put(&route(id), json!({ "n": n }))], "ops".into()).await
}

/// Writes again until it is acknowledged: members that are busy choose their leader slowly.
async fn insist(store: &Etcd, id: &str, n: u64) -> u64 {
    for _ in 0..20 {
        match write(store, id, n).await {
            Ok(revision) => return revision,
            Err(StoreError::Away(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no majority came together");
}

#[tokio::test]
async fn two_writers_share_one_dense_history() {
    let cluster = Cluster::of(1);
    let (one, two) = (cluster.store("/p/", clock()).await, cluster.store("/p/", clock()).await);
    let mut watch = Watch::new(two.clone(), 0);
    let many = |store: Arc<Etcd>, name: &'static str| async move {
        for n in 0..40 {
            write(&store, &format!("{name}{n}"), n).await.unwrap();
        }
    };
    tokio::join!(many(one.clone(), "a"), many(two.clone(), "b"));
    for revision in 1..=80 {
        assert_eq!(watch.next().await.unwrap()[0].revision, revision);
    }
    let (loaded, again) = (one.load().await.unwrap(), two.load().await.unwrap());
    assert_eq!((loaded.0, loaded.1.len()), (80, 80));
    assert_eq!(loaded, again);
    let compare = vec![Compare { key: route("a0"), modified: None }];
    let refused = two.txn(compare, vec![delete(&route("a0"))], "ops".into()).await;
    assert!(matches!(refused, Err(StoreError::Conflict { found: Some(_), expected: None, .. })));
}

/// Anything goes.
struct Lenient;

impl Validator for Lenient {
    fn check(&self, _: &State, _: &[Key]) -> Vec<(Key, Fault)> {
        Vec::new()
    }
}

async fn keeper(store: &Arc<Etcd>) -> Keeper {
    Keeper::start(store.clone(), Arc::new(Lenient), clock()).await.unwrap()
}

/// Waits until it is so; a busy machine may take its time.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1_500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not come");
}

async fn apply(keeper: &Keeper, id: &str, n: u64) -> u64 {
    for _ in 0..20 {
        match keeper.apply(vec![Intent::put(route(id), json!({ "n": n }))], Options::by("ops")).await {
            Ok(applied) => return applied.revision,
            Err(Refused::Store(StoreError::Away(_))) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it was never taken");
}

#[tokio::test]
async fn etcd_that_was_set_back_is_noticed_and_read_anew() {
    let mut cluster = Cluster::of(1);
    let store = cluster.store("/p/", clock()).await;
    let keeper = keeper(&store).await;
    for n in 1..=3 {
        assert_eq!(apply(&keeper, "early", n).await, n);
    }
    cluster.keep(0);
    for n in 4..=6 {
        assert_eq!(apply(&keeper, "late", n).await, n);
    }
    let (before, mut heard) = keeper.subscribe();
    cluster.set_back(0);
    until("the older state", || keeper.state().revision == 3).await;
    let state = keeper.state();
    assert!(state.get(&route("late")).is_none() && state.get(&route("early")).is_some());
    assert!(state.generation > before.generation, "whoever follows sees something new");
    assert_eq!(heard.next().await.keys, None, "anything may be different");
    assert_eq!(apply(&keeper, "after", 1).await, 4);
    assert_eq!(store.load().await.unwrap().1.len(), 2);
}

#[tokio::test]
async fn a_store_that_was_replaced_is_noticed_whatever_its_revision_and_an_empty_one_is_not_believed() {
    let cluster = Cluster::of(1);
    let (store, tool) = (cluster.store("/p/", clock()).await, cluster.store("/p/", clock()).await);
    let keeper = keeper(&store).await;
    apply(&keeper, "first", 1).await;
    let archive = tool.archive().await.unwrap();
    for n in 2..=4 {
        apply(&keeper, "mine", n).await;
    }
    tool.clear().await.unwrap();
    let refused = loop {
        // A write that was on its way may still find the store.
        match keeper.apply(vec![Intent::put(route("no"), json!({}))], Options::by("ops")).await {
            Err(Refused::Store(StoreError::Away(_))) => {}
            other => break other.unwrap_err().to_string(),
        }
    };
    assert!(refused.contains("is empty where revision 4 was"), "{refused}");
    assert!(keeper.state().get(&route("mine")).is_some(), "what was known stays");
    let record = store.record(vec![RecordWrite::Set("k".into(), vec![])], vec![]).await;
    assert!(record.is_err() && tool.records().await.unwrap().is_empty(), "and nothing is put where a backup is being restored");
    // Another history that is as long.
    tool.restore(archive).await.unwrap();
    for n in 2..=4 {
        write(&tool, "theirs", n).await.unwrap();
    }
    until("the other history", || keeper.state().get(&route("theirs")).is_some()).await;
    assert!(keeper.state().get(&route("mine")).is_none());
    until("all of it", || keeper.state().revision == 4).await;
    assert_eq!(apply(&keeper, "after", 1).await, 5);
    assert!(store.record(vec![RecordWrite::Set("k".into(), vec![])], vec![]).await.is_ok());
}

#[tokio::test]
async fn a_store_is_replaced_only_by_what_lies_beside_it_whole_and_only_when_nobody_runs() {
    let cluster = Cluster::of(1);
    let (store, tool) = (cluster.store("/p/", clock()).await, Etcd::look(&cluster.settings("/p/"), clock(), 0).unwrap());
    let large = json!({ "text": "x".repeat(600_000) });
    store.txn(vec![], vec![put(&route("large"), large)], "ops".into()).await.unwrap();
    write(&store, "old", 1).await.unwrap();
    store.compact(1, 0).await.unwrap();
    store.record(vec![RecordWrite::Set("k".into(), b"old".to_vec())], vec![append(Ring::Done, b"one")]).await.unwrap();
    let archive = tool.archive().await.unwrap();
    write(&store, "new", 1).await.unwrap();
    store.record(vec![RecordWrite::Set("k".into(), b"new".to_vec())], vec![append(Ring::Done, b"two")]).await.unwrap();

    assert_eq!(store.hold("replica/one", "one", Duration::from_secs(30)).await.unwrap(), Hold::Ours);
    let refused = tool.nobody_runs().await.unwrap_err().to_string();
    assert!(refused.contains("(one)") && refused.contains("nothing was changed") && refused.contains("--running"), "{refused}");
    store.release("replica/one").await.unwrap();
    tool.nobody_runs().await.unwrap();

    // What etcd cannot take is found out beside the store.
    let whole = tool.archive().await.unwrap();
    let mut records = archive.records.clone();
    records.push(("wide".into(), vec![0; records::MOST_RECORD + 1]));
    assert!(tool.replace(Archive { records, ..archive.clone() }).await.is_err());
    assert_eq!(tool.archive().await.unwrap(), whole);
    tool.replace(archive.clone()).await.unwrap();
    assert_eq!(tool.archive().await.unwrap(), archive);
    assert!(tool.below("/p/restore/", 0).await.unwrap().is_empty(), "nothing is left beside it");

    // It was cut short: no control plane begins, those that run keep what they know, and it can be repeated.
    let mark = super::layout::Head { format: super::layout::RESTORING, revision: 0, token: String::new() };
    let marked = super::client::put("/p/head", super::layout::json(&mark).unwrap());
    assert!(tool.when(vec![], vec![marked]).await.unwrap());
    let told = Etcd::open(&cluster.settings("/p/"), clock(), fastrand::Rng::new()).await.err().unwrap().to_string();
    assert!(told.contains("being restored, or that was cut short"), "{told}");
    assert!(tool.restore(archive.clone()).await.is_err());
    tool.replace(archive.clone()).await.unwrap();
    let other = cluster.store("/p/", clock()).await;
    assert_eq!(other.load().await.unwrap().0, 2);
    assert_eq!(write(&other, "after", 1).await.unwrap(), 3);
}

#[tokio::test]
async fn etcd_forgets_its_own_history_where_that_is_asked_for_and_the_store_misses_nothing() {
    let cluster = Cluster::of(1);
    let store = cluster.store("/p/", clock()).await;
    write(&store, "a", 1).await.unwrap();
    let then = store.forget_before(None).await.unwrap();
    for n in 2..=20 {
        write(&store, "a", n).await.unwrap();
    }
    store.forget_before(Some(then)).await.unwrap();
    let now = store.forget_before(Some(then)).await.unwrap();
    store.forget_before(Some(now)).await.unwrap();
    let mut old = super::client::get("/p/head");
    old.revision = then;
    assert!(matches!(store.client.range(old).await, Err(super::client::Trouble::Compacted)));
    assert_eq!(store.at(1).await.unwrap()[0].value, Some(json!({ "n": 1 })), "our history is not etcd's");
    assert_eq!(cluster.store("/p/", clock()).await.load().await.unwrap().0, 20);
}

#[tokio::test]
async fn who_leads_lets_etcd_forget_every_so_often_and_nobody_else() {
    let cluster = Cluster::of(1);
    let store = cluster.store("/p/", clock()).await;
    write(&store, "a", 1).await.unwrap();
    let then = store.forget_before(None).await.unwrap();
    write(&store, "a", 2).await.unwrap();
    let (completion, drain) = heddle_node::drain::pair();
    let (leads, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let is_leader = {
        let (leads, asked) = (leads.clone(), asked.clone());
        move || {
            asked.fetch_add(1, Ordering::SeqCst);
            leads.load(Ordering::SeqCst)
        }
    };
    let timer = tokio::spawn(store.clone().forget_every(Duration::from_millis(50), is_leader, drain));
    let is_kept = async || {
        let mut old = super::client::get("/p/head");
        old.revision = then;
        !matches!(store.client.range(old).await, Err(super::client::Trouble::Compacted))
    };
    until("the timer to go off several times", || asked.load(Ordering::SeqCst) >= 4).await;
    assert!(is_kept().await, "somebody else leads");
    leads.store(true, Ordering::SeqCst);
    while is_kept().await {
        assert!(asked.load(Ordering::SeqCst) < 1_000, "it is never forgotten");
    }
    assert_eq!(store.at(1).await.unwrap()[0].value, Some(json!({ "n": 1 })), "our history is not etcd's");
    completion.drain(Duration::from_secs(5), Duration::from_secs(1)).await;
    timer.await.unwrap();
}

#[tokio::test]
async fn a_resource_of_a_kind_that_a_newer_heddle_knows_stays_as_it_is() {
    let cluster = Cluster::of(1);
    let store = cluster.store("/p/", clock()).await;
    let keeper = keeper(&store).await;
    assert_eq!(apply(&keeper, "a", 1).await, 1);
    // A newer heddle writes two revisions: one with something that is known here, one without.
    let newer = async |revision: u64, writes: &[&str]| {
        let written = writes.iter().map(|name| json!({ "key": name, "created": revision, "value": { "n": revision } }));
        let token = format!("newer{revision}");
        let entry = json!({ "token": token, "author": "newer", "time_ms": 0, "writes": written.collect::<Vec<_>>() });
        let head = json!({ "format": super::layout::FORMAT, "revision": revision, "token": token });
        let ops = [(store.keys.log(revision), entry), (store.keys.head(), head)];
        let ops = ops.map(|(key, value)| super::client::put(&key, value.to_string().into_bytes()));
        assert!(store.when(vec![], ops.to_vec()).await.unwrap());
    };
    newer(2, &["routes/b", "wonders/w1"]).await;
    newer(3, &["wonders/w2"]).await;
    until("what others wrote", || keeper.state().revision == 3).await;
    assert!(keeper.state().get(&route("b")).is_some());
    assert_eq!(keeper.unknown(), ["wonders/w1", "wonders/w2"]);
    assert_eq!(apply(&keeper, "c", 1).await, 4);
    // Compaction keeps it, and who starts here goes on.
    assert_eq!(store.compact(1, 0).await.unwrap(), 4);
    let base = store.below("/p/base/", 0).await.unwrap();
    let base: String = base.values().map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    assert!(base.contains("wonders/w1") && base.contains("wonders/w2"), "{base}");
    let other = cluster.store("/p/", clock()).await;
    assert_eq!((other.load().await.unwrap().1.len(), other.unknown().len()), (3, 2));
    let told = other.archive().await.unwrap_err().to_string();
    assert!(told.contains("wonders/w") && told.contains("newer heddle"), "{told}");
}

#[tokio::test]
async fn what_is_larger_than_a_request_of_etcd_is_written_whole() {
    let cluster = Cluster::of(1);
    let store = cluster.store("/p/", clock()).await;
    let text = "x".repeat(2_000);
    let writes = (0..2_000).map(|n| put(&route(&format!("r{n}")), json!({ "text": text })));
    assert_eq!(store.txn(vec![], writes.collect(), "ops".into()).await.unwrap(), 1);
    let txn = |n: u64| Txn { upon: None, compare: vec![], writes: vec![put(&route("many"), json!(n))], author: "ops".into() };
    assert_eq!(store.txns((0..200).map(txn).collect()).await.revisions, (2..=201).collect::<Vec<u64>>());
    let other = cluster.store("/p/", clock()).await;
    assert_eq!(other.load().await.unwrap().1.len(), 2_001);
    assert_eq!(other.at(1).await.unwrap().len(), 2_000);
    assert_eq!(store.compact(1, 0).await.unwrap(), 201);
    assert_eq!(cluster.store("/p/", clock()).await.load().await.unwrap().1.len(), 2_001);
    assert!(store.below("/p/part/", 0).await.unwrap().is_empty(), "what nobody can ask for is gone");
}

fn append(ring: Ring, body: &[u8]) -> Append {
    Append { ring, body: body.to_vec(), keep: 3 }
}

#[tokio::test]
async fn records_are_raised_required_and_journalled_across_writers() {
    let cluster = Cluster::of(1);
    let (one, two) = (cluster.store("/p/", clock()).await, cluster.store("/p/", clock()).await);
    let mut news = two.news().unwrap();
    let set = |key: &str, value: &[u8]| RecordWrite::Set(key.into(), value.to_vec());
    one.record(vec![set("token", b"fresh"), RecordWrite::Raise("n".into(), 5)], vec![append(Ring::Done, b"made")]).await.unwrap();
    let take = |value: &[u8]| vec![RecordWrite::Require("token".into(), Some(b"fresh".to_vec())), set("token", value)];
    let taken = tokio::join!(one.record(take(b"one"), vec![]), two.record(take(b"two"), vec![]));
    let refused = |taken: &Result<(), StoreError>| matches!(taken, Err(StoreError::Changed(key)) if key == "token");
    assert!(refused(&taken.0) != refused(&taken.1), "exactly one has it: {taken:?}");
    two.record(vec![RecordWrite::Raise("n".into(), 3)], vec![]).await.unwrap();
    let absent = vec![RecordWrite::Require("token".into(), None)];
    assert!(matches!(two.record(absent, vec![]).await, Err(StoreError::Changed(_))));
    let all = one.records().await.unwrap();
    assert_eq!(all[0], ("n".to_owned(), 5u64.to_be_bytes().to_vec()));
    assert_eq!(all.len(), 2);
    for n in 0..5u8 {
        two.record(vec![], vec![append(Ring::Done, &[n])]).await.unwrap();
        two.record(vec![], vec![append(Ring::Refused, &[n])]).await.unwrap();
    }
    let journal = one.journal(Ring::Done, None, 10).await.unwrap();
    assert_eq!(journal.iter().map(|entry| (entry.number, entry.body[0])).collect::<Vec<_>>(), [(10, 4), (8, 3), (6, 2)]);
    assert_eq!(one.journal(Ring::Done, Some(10), 1).await.unwrap()[0].number, 8);
    let many: Vec<RecordWrite> = (0..5_000).map(|n| set(&format!("many/{n:05}"), b"x")).collect();
    one.record(many, vec![]).await.unwrap();
    assert_eq!(two.records().await.unwrap().len(), 5_002);
    let mut heard = Vec::new();
    while heard.len() < 3 {
        heard.extend(news.recv().await.unwrap().iter().cloned());
    }
    assert!(heard.iter().any(|(key, value)| key == "n" && value.as_deref() == Some(&5u64.to_be_bytes()[..])));
}

#[tokio::test]
async fn a_journal_of_which_an_older_heddle_knows_nothing_does_not_grow() {
    let cluster = Cluster::of(1);
    let (one, two) = (cluster.store("/p/", clock()).await, cluster.store("/p/", clock()).await);
    for n in 0..4u8 {
        one.record(vec![], vec![append(Ring::Reported, &[n])]).await.unwrap();
    }
    // An older one writes the head as it knows it.
    let head = one.keys.record_head();
    let found = one.client.range(super::client::get(&head)).await.unwrap();
    let mut known: serde_json::Value = serde_json::from_slice(&found.kvs[0].value).unwrap();
    assert_eq!(known.as_object_mut().unwrap().remove("reported"), Some(json!(3)));
    let success = vec![super::client::put(&head, serde_json::to_vec(&known).unwrap())];
    one.client.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    for n in 4..6u8 {
        two.record(vec![], vec![append(Ring::Reported, &[n])]).await.unwrap();
    }
    let journal = one.journal(Ring::Reported, None, 10).await.unwrap();
    assert_eq!(journal.iter().map(|entry| entry.body[0]).collect::<Vec<_>>(), [5, 4, 3]);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_found_although_others_have_written_since() {
    let cluster = Cluster::of(1);
    let (one, two) = (cluster.store("/p/", clock()).await, cluster.store("/p/", clock()).await);
    let take = [RecordWrite::Require("right".into(), None), RecordWrite::Set("right".into(), b"one".to_vec())];
    let mine = super::commit::token().unwrap();
    assert!(one.try_group(&take, &[append(Ring::Done, b"taken")], &mine).await.unwrap());
    // Nobody heard the answer; others write, and then it is tried again.
    for n in 0..60u8 {
        two.record(vec![RecordWrite::Set("other".into(), vec![n])], vec![]).await.unwrap();
    }
    assert!(one.try_group(&take, &[append(Ring::Done, b"taken")], &mine).await.unwrap(), "it was carried out");
    assert_eq!(one.journal(Ring::Done, None, 9).await.unwrap().len(), 1, "and is not carried out twice");
    let another = super::commit::token().unwrap();
    assert!(matches!(one.try_group(&take, &[], &another).await, Err(StoreError::Changed(_))));
}

#[tokio::test]
async fn a_right_is_held_by_one_and_passes_on() {
    let cluster = Cluster::of(1);
    let (one, two) = (cluster.store("/p/", clock()).await, cluster.store("/p/", clock()).await);
    let ttl = Duration::from_secs(2);
    assert_eq!(one.hold("leader", "one", ttl).await.unwrap(), Hold::Ours);
    assert_eq!(two.hold("leader", "two", ttl).await.unwrap(), Hold::Others("one".into()));
    assert_eq!(one.hold("leader", "one", ttl).await.unwrap(), Hold::Ours);
    assert_eq!(two.held("lead").await.unwrap(), ["er"]);
    one.release("leader").await.unwrap();
    assert_eq!(two.hold("leader", "two", ttl).await.unwrap(), Hold::Ours);
    // Who is silent loses it.
    while one.hold("leader", "one", ttl).await.unwrap() != Hold::Ours {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn any_member_may_die_and_without_a_majority_writes_are_refused() {
    let mut cluster = Cluster::of(3);
    let store = cluster.store("/p/", clock()).await;
    let mut acknowledged = Vec::new();
    for at in 0..3 {
        cluster.kill(at);
        for n in 0..3 {
            acknowledged.push((insist(&store, "a", n).await, n));
        }
        cluster.start(at);
        // A member that has come back is needed before the next one dies.
        let settings = cluster.settings("/p/");
        open(&EtcdSettings { endpoints: vec![settings.endpoints[at].clone()], ..settings }, clock()).await;
    }
    let before = store.history(None, None, 100).await.unwrap();
    cluster.kill(0);
    cluster.kill(2);
    let refused = write(&store, "b", 0).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Away(why) if why.contains("majority")), "{refused}");
    let started = heddle_node::clock::now();
    assert!(write(&store, "b", 0).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(10), "the next one is refused quickly");
    assert_eq!(store.history(None, None, 100).await.unwrap(), before, "what is known can be read");
    for (revision, n) in &acknowledged {
        assert_eq!(store.at(*revision).await.unwrap()[0].value, Some(json!({"n": n})), "nothing acknowledged is lost");
    }
    cluster.start(0);
    let revision = insist(&store, "c", 1).await;
    let (newest, all) = store.load().await.unwrap();
    assert_eq!(revision, newest);
    assert!(all.iter().any(|version| version.key == route("c")));
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_told() {
    let settings = |endpoint: &str| EtcdSettings {
        endpoints: vec![endpoint.into()],
        prefix: "/p/".into(),
        login: Some(("root".into(), Secret::new("hush".to_owned()))),
        tls: EtcdTls::default(),
        compact: None,
    };
    let told = |settings: EtcdSettings| async move {
        Etcd::open(&settings, clock(), fastrand::Rng::new()).await.err().unwrap().to_string()
    };
    assert!(told(settings("localhost")).await.contains("store.etcd.endpoints"));
    assert!(told(settings("https://127.0.0.1:1")).await.contains("store.etcd.tls.ca"));
    assert!(told(settings("http://127.0.0.1:1")).await.contains("does not answer"));
}

#[tokio::test]
async fn a_backup_is_of_one_moment_while_others_write() {
    let cluster = Cluster::of(1);
    let (one, two) = (cluster.store("/p/", clock()).await, cluster.store("/p/", clock()).await);
    let counted = |n: u64| vec![RecordWrite::Set("written".into(), n.to_be_bytes().to_vec())];
    let writing = tokio::spawn(async move {
        for n in 1..=400 {
            assert_eq!(write(&one, "a", n).await.unwrap(), n);
            one.record(counted(n), vec![append(Ring::Done, &n.to_be_bytes())]).await.unwrap();
            if n % 50 == 0 {
                one.compact(3, 0).await.unwrap();
            }
        }
    });
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    let mut seen = Vec::new();
    while !writing.is_finished() {
        let archive = two.archive().await.unwrap();
        let written = archive.records.first().map_or(0, |(_, value)| number(value));
        assert_eq!(written, archive.done.last().map_or(0, |entry| number(&entry.body)), "both were written at once");
        assert!(written == archive.newest || written + 1 == archive.newest, "{written} {}", archive.newest);
        assert_eq!(archive.versions.last().map_or(0, |version| version.revision), archive.newest);
        let kept = archive.versions.iter().filter(|version| version.revision >= archive.floor).count() as u64;
        assert_eq!(archive.newest + 1, archive.floor.max(1) + kept);
        seen.push(archive.newest);
    }
    writing.await.unwrap();
    assert!(seen.len() > 2, "{seen:?}");
}

#[tokio::test]
async fn a_record_that_etcd_cannot_take_is_refused_in_words() {
    let cluster = Cluster::of(1);
    let store = cluster.store("/p/", clock()).await;
    let record = |name: &str, bytes: usize| RecordWrite::Set(name.into(), vec![7; bytes]);
    store.record(vec![record("most", store.most()), record("more", store.most())], vec![]).await.unwrap();
    let refused = store.record(vec![record("small", 1), record("large", store.most() + 1)], vec![]).await.unwrap_err();
    assert!(
        refused.to_string().contains("the record large has 1044481 bytes, the store on etcd takes 1044480 bytes"),
        "{refused}"
    );
    assert_eq!(store.records().await.unwrap().len(), 2, "nothing of it was written");
    let (writes, names) = fitting(vec![record("small", 1), record("large", store.most() + 1)], store.most());
    assert_eq!((writes, names), (vec![record("small", 1)], vec!["large".to_owned()]));
    let withdraw = |name: &str, bytes: usize| RecordWrite::Withdraw(name.into(), vec![7; bytes]);
    store.record(vec![record("a", 1), record("b", 2), withdraw("a", 2), withdraw("b", 2)], vec![]).await.unwrap();
    store.record(vec![withdraw("most", store.most()), withdraw("more", 1)], vec![]).await.unwrap();
    let left: Vec<String> = store.records().await.unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["a", "more"], "only what is as it was said is withdrawn");
}
