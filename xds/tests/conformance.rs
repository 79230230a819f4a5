//! One suite for both dialects, over TCP and within the process: whatever happens to the snapshot and the stream, the agent ends up with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_node::drain::{DrainCompletion, Drained};
use heddle_xds::client::{Batch, ClientConfig, ClientStatus, Demand, Interest, Interests, Origin, Standing, run};
use heddle_xds::codec::InvalidResource;
use heddle_xds::link::{self, Connector};
use heddle_xds::model::{Kind, PluginMetadata, Resource, Secret, SecretBody};
use heddle_xds::protocol::{Advice, Dialect, NodeInfo};
use heddle_xds::server::{AdsService, NodeRegistry, NodeView, tuned};
use heddle_xds::snapshot::{Change, NodeScope, SnapshotSource, SnapshotStore};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

#[derive(Clone, Copy)]
enum Over {
    Tcp,
    Memory,
}

const ALL: [(Dialect, Over); 4] =
    [(Dialect::Delta, Over::Tcp), (Dialect::Delta, Over::Memory), (Dialect::Sotw, Over::Tcp), (Dialect::Sotw, Over::Memory)];

type Seen = BTreeMap<(Kind, String), Resource>;

struct World {
    store: Arc<SnapshotStore>,
    registry: Arc<NodeRegistry>,
    connector: Connector,
    drain: DrainCompletion,
    /// The socket, for a control plane that comes back.
    socket: Option<std::net::TcpListener>,
}

/// A control plane of two cells.
fn of_cell(cell: Option<&str>) -> Advice {
    match cell {
        Some("eu-1") => Advice::Seeds(vec!["10.0.0.1:7946".to_owned()]),
        _ => Advice::Elsewhere(vec!["eu-1".to_owned()]),
    }
}

impl World {
    async fn start(over: Over, store: Arc<SnapshotStore>) -> World {
        let socket = matches!(over, Over::Tcp).then(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        World::start_on(socket, store).await
    }

    async fn start_on(socket: Option<std::net::TcpListener>, store: Arc<SnapshotStore>) -> World {
        let registry = Arc::new(NodeRegistry::new());
        let (drain, watch) = heddle_node::drain::pair();
        let ads = AdsService::new(store.clone(), registry.clone(), watch.clone());
        let ads = ads.seeding(Arc::new(of_cell)).into_server();
        let router = tuned().add_service(ads);
        let stop = async move { watch.clone().draining().await };
        let connector = match &socket {
            Some(socket) => {
                socket.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(socket.try_clone().unwrap()).unwrap();
                let address = listener.local_addr().unwrap().to_string();
                tokio::spawn(router.serve_with_incoming_shutdown(TcpIncoming::from(listener), stop));
                Connector::tcp(&address).unwrap()
            }
            None => {
                let (connector, incoming) = link::memory();
                tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop));
                connector
            }
        };
        World { store, registry, connector, drain, socket }
    }

    /// The control plane goes; its socket and its store stay.
    async fn stop(self) -> (Option<std::net::TcpListener>, Arc<SnapshotStore>) {
        let drained = self.drain.drain(Duration::from_secs(5), Duration::from_secs(1)).await;
        assert!(matches!(drained, Drained::Clean), "streams end when the drain begins: {drained:?}");
        (self.socket, self.store)
    }

    fn apply(&self, changes: Vec<Change>) {
        assert!(self.store.apply(changes));
    }

    fn content(&self) -> Seen {
        let scope = NodeScope::default();
        let all = Kind::ALL.into_iter().flat_map(|kind| self.store.list(kind, &scope));
        all.map(|v| ((v.resource.kind(), v.resource.name().to_string()), v.resource.clone())).collect()
    }

    async fn node(&self, what: &str, good: impl Fn(&NodeView) -> bool) -> NodeView {
        let registry = self.registry.clone();
        eventually(what, move || registry.nodes().into_iter().find(&good)).await
    }
}

/// An agent that uses everything but what is called `unusable`.
struct Agent {
    seen: Arc<Mutex<Seen>>,
    origins: Arc<Mutex<Vec<Origin>>>,
    versions: Arc<Mutex<BTreeMap<String, String>>>,
    status: watch::Receiver<ClientStatus>,
    seeds: watch::Receiver<Vec<String>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Agent {
    fn start(dialect: Dialect, connector: &Connector, last_good: Option<PathBuf>) -> Agent {
        Agent::asking(dialect, connector, last_good, Interests::default(), &Demand::default())
    }

    fn asking(
        dialect: Dialect,
        connector: &Connector,
        last_good: Option<PathBuf>,
        interests: Interests,
        demand: &Demand,
    ) -> Agent {
        let scope = NodeScope { id: "gw-1".into(), role: "gateway".into(), zone: "eu-1a".into(), ..NodeScope::default() };
        let node = NodeInfo { scope, version: "1.2.3".into(), ..NodeInfo::default() };
        let demand = demand.clone();
        let mut config = ClientConfig { dialect, last_good, interests, demand, ..ClientConfig::new(node, connector.clone()) };
        config.save_after = Duration::from_millis(1);
        let (gossip, seeds) = watch::channel(Vec::new());
        (config.gossip, config.cell) = (Some(gossip), "eu-1".into());
        let (updates, mut batches) = mpsc::channel::<Batch>(1);
        let (status, watched) = watch::channel(ClientStatus::default());
        let (seen, origins) = (Arc::new(Mutex::new(Seen::new())), Arc::new(Mutex::new(Vec::new())));
        let versions = Arc::new(Mutex::new(BTreeMap::new()));
        let (into, from, names) = (seen.clone(), origins.clone(), versions.clone());
        let consumer = tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                from.lock().unwrap().push(batch.origin);
                let rejected = take(&batch, &mut into.lock().unwrap(), &mut names.lock().unwrap());
                batch.reject(rejected);
            }
        });
        let client = tokio::spawn(run(config, updates, status, fastrand::Rng::with_seed(1)));
        Agent { seen, origins, versions, status: watched, seeds, tasks: vec![consumer, client] }
    }

    async fn has(&self, what: &str, content: &Seen) {
        let seen = self.seen.clone();
        let content = content.clone();
        eventually(what, move || (*seen.lock().unwrap() == content).then_some(())).await;
    }

    async fn stop(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

fn take(batch: &Batch, seen: &mut Seen, versions: &mut BTreeMap<String, String>) -> Vec<InvalidResource> {
    let mut rejected = Vec::new();
    for update in batch.updates() {
        for set in &update.set {
            if matches!(&set.resource, Resource::PluginMetadata(m) if m.config["unusable"] == json!(true)) {
                rejected.push(InvalidResource {
                    kind: update.kind,
                    name: set.name.clone(),
                    field: "config.unusable".to_string(),
                    reason: "cannot be used".to_string(),
                });
                continue;
            }
            seen.insert((update.kind, set.name.to_string()), set.resource.clone());
            versions.insert(set.name.to_string(), set.version.to_string());
        }
        for name in &update.removed {
            seen.remove(&(update.kind, name.to_string()));
            versions.remove(&**name);
        }
    }
    rejected
}

async fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(found) = found() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not happen: {what}");
}

fn metadata(name: &str, config: serde_json::Value) -> Change {
    Change::Set(Resource::PluginMetadata(PluginMetadata { plugin: name.into(), config: Arc::new(config) }))
}

fn secret(name: &str, pem: &str) -> Change {
    Change::Set(Resource::Secret(Secret { name: name.into(), body: SecretBody::Roots(pem.into()) }))
}

#[tokio::test]
async fn changes_and_removals_arrive() {
    for (dialect, over) in ALL {
        let world = World::start(over, Arc::default()).await;
        world.apply(vec![secret("a", "1"), secret("b", "1"), metadata("m", json!({"x": 1}))]);
        let agent = Agent::start(dialect, &world.connector, None);
        agent.has("the first state", &world.content()).await;
        world.apply(vec![secret("a", "2"), Change::Remove(Kind::Secret, "b".into()), metadata("n", json!([]))]);
        agent.has("the change", &world.content()).await;
        world.apply(vec![Change::Remove(Kind::PluginMetadata, "m".into())]);
        agent.has("the removal", &world.content()).await;
        let expected: BTreeMap<String, String> = [Kind::Secret, Kind::PluginMetadata]
            .into_iter()
            .flat_map(|kind| world.store.list(kind, &NodeScope::default()))
            .map(|v| (v.resource.name().to_string(), v.version.to_string()))
            .collect();
        assert_eq!(*agent.versions.lock().unwrap(), expected, "both dialects hold the same versions");
        agent.stop().await;
    }
}

fn some(content: &Seen, names: &[&str]) -> Seen {
    content.iter().filter(|((_, name), _)| names.contains(&name.as_str())).map(|(key, one)| (key.clone(), one.clone())).collect()
}

async fn standing(demand: &Demand, name: &str, wanted: Standing) {
    eventually(name, || (demand.standing(Kind::Secret, name) == Some(wanted)).then_some(())).await;
}

#[tokio::test]
async fn what_is_asked_for_by_name_arrives_when_it_is_asked_for_and_is_kept_warm() {
    for (dialect, over) in ALL {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        let interests = Interests::only(&[(Kind::Secret, Interest::Named), (Kind::PluginMetadata, Interest::All)]);
        let world = World::start(over, Arc::default()).await;
        world.apply(vec![secret("a", "1"), secret("b", "1"), secret("c", "1"), metadata("m", json!({}))]);
        let demand = Demand::default();
        let agent = Agent::asking(dialect, &world.connector, Some(path.clone()), interests.clone(), &demand);
        let status = agent.status.clone();
        eventually("synced without a name", || status.borrow().synced.then_some(())).await;
        agent.has("what is not by name", &some(&world.content(), &["m"])).await;
        for name in ["a", "late"] {
            assert_eq!(demand.want(Kind::Secret, name, heddle_node::clock::now()), Standing::Asked);
        }
        agent.has("the first name", &some(&world.content(), &["m", "a"])).await;
        standing(&demand, "a", Standing::Present).await;
        standing(&demand, "late", Standing::Absent).await;
        world.apply(vec![secret("late", "1"), secret("a", "2"), secret("b", "2")]);
        agent.has("what has come to exist", &some(&world.content(), &["m", "a", "late"])).await;
        standing(&demand, "late", Standing::Present).await;
        world.apply(vec![Change::Remove(Kind::Secret, "a".into())]);
        standing(&demand, "a", Standing::Absent).await;
        eventually("it is saved", || heddle_xds::client::load(&path).unwrap().filter(|h| h.count(Kind::Secret) == 1)).await;
        agent.stop().await;
        world.apply(vec![secret("late", "2")]);
        let demand = Demand::default();
        let agent = Agent::asking(dialect, &world.connector, Some(path), interests, &demand);
        agent.has("what was wanted before", &some(&world.content(), &["m", "late"])).await;
        assert_eq!(demand.standing(Kind::Secret, "late"), Some(Standing::Present));
        agent.stop().await;
    }
}

#[tokio::test]
async fn an_empty_snapshot_syncs() {
    for (dialect, over) in ALL {
        let world = World::start(over, Arc::default()).await;
        let agent = Agent::start(dialect, &world.connector, None);
        let status = agent.status.clone();
        eventually("synced", || status.borrow().synced.then_some(())).await;
        assert!(status.borrow().connected && status.borrow().last_contact.is_some());
        let node = world
            .node("everything confirmed", |node| node.kinds.iter().filter(|kind| !kind.pending).count() == Kind::ALL.len())
            .await;
        assert_eq!((&*node.node.scope.id, &*node.node.scope.role, &*node.node.scope.zone), ("gw-1", "gateway", "eu-1a"));
        assert_eq!((&*node.node.version, node.dialect), ("1.2.3", dialect));
        agent.stop().await;
        world.node("gone", |node| node.connected_since.is_none()).await;
    }
}

#[tokio::test]
async fn agents_are_told_with_whom_to_gossip_and_where_the_control_plane_stands() {
    for (dialect, over) in ALL {
        let world = World::start(over, Arc::default()).await;
        world.apply(vec![secret("a", "1")]);
        let agent = Agent::start(dialect, &world.connector, None);
        agent.has("the first state", &world.content()).await;
        let (seeds, status) = (agent.seeds.clone(), agent.status.clone());
        eventually("the seeds", || (*seeds.borrow() == ["10.0.0.1:7946"]).then_some(())).await;
        eventually("the version", || (!status.borrow().version.is_empty()).then_some(())).await;
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_bad_resource_is_refused_singly_and_its_last_good_version_stays() {
    for (dialect, over) in ALL {
        let world = World::start(over, Arc::default()).await;
        world.apply(vec![metadata("m", json!({"x": 1})), metadata("n", json!({"x": 1}))]);
        let agent = Agent::start(dialect, &world.connector, None);
        agent.has("the first state", &world.content()).await;
        let mut expected = world.content();
        world.apply(vec![metadata("m", json!({"unusable": true})), metadata("n", json!({"x": 2}))]);
        expected.extend(world.content().into_iter().filter(|((_, name), _)| name == "n"));
        agent.has("the good half", &expected).await;
        let node = world.node("the NACK", |node| !node.nacks.is_empty()).await;
        let nack = &node.nacks[0];
        assert_eq!((nack.kind, &*nack.name, nack.field.as_str()), (Kind::PluginMetadata, "m", "config.unusable"));
        assert_eq!((nack.reason.as_str(), node.nacks.len()), ("cannot be used", 1));
        assert_eq!(agent.status.borrow().rejected, 1);
        world.apply(vec![metadata("m", json!({"x": 3}))]);
        agent.has("the mended one", &world.content()).await;
        world.node("no NACK", |node| node.nacks.is_empty()).await;
        agent.stop().await;
    }
}

#[tokio::test]
async fn an_agent_catches_up_after_a_lost_control_plane() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let world = World::start(Over::Tcp, Arc::default()).await;
        world.apply(vec![secret("a", "1"), secret("b", "1"), secret("c", "1")]);
        let agent = Agent::start(dialect, &world.connector, None);
        let before = world.content();
        agent.has("the first state", &before).await;
        let (socket, store) = world.stop().await;
        let status = agent.status.clone();
        eventually("the loss is noticed", || (!status.borrow().connected).then_some(())).await;
        agent.has("nothing is taken away", &before).await;
        assert!(store.apply(vec![secret("a", "2"), Change::Remove(Kind::Secret, "b".into()), secret("d", "1")]));
        let world = World::start_on(socket, store).await;
        agent.has("what happened in between", &world.content()).await;
        assert!(status.borrow().connected);
        agent.stop().await;
    }
}

#[tokio::test]
async fn only_the_difference_is_sent_after_a_restart() {
    for (dialect, over) in ALL {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        let world = World::start(over, Arc::default()).await;
        world.apply(vec![secret("a", "1"), secret("b", "1"), secret("c", "1")]);
        let agent = Agent::start(dialect, &world.connector, Some(path.clone()));
        agent.has("the first state", &world.content()).await;
        eventually("it is saved", || heddle_xds::client::load(&path).unwrap().filter(|h| h.count(Kind::Secret) == 3)).await;
        agent.stop().await;
        world.apply(vec![secret("a", "2"), Change::Remove(Kind::Secret, "b".into())]);
        let agent = Agent::start(dialect, &world.connector, Some(path));
        agent.has("the new state", &world.content()).await;
        assert_eq!(agent.origins.lock().unwrap()[0], Origin::LastGood);
        assert!(agent.status.borrow().last_good);
        agent.stop().await;
    }
}

#[tokio::test]
async fn an_agent_starts_without_a_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last-good");
    let world = World::start(Over::Memory, Arc::default()).await;
    world.apply(vec![secret("a", "1")]);
    let agent = Agent::start(Dialect::Delta, &world.connector, Some(path.clone()));
    agent.has("the first state", &world.content()).await;
    let saved = || heddle_xds::client::load(&path).unwrap().filter(|holdings| holdings.count(Kind::Secret) == 1);
    eventually("it is saved", saved).await;
    agent.stop().await;
    let content = world.content();
    let (nowhere, incoming) = link::memory();
    drop(incoming);
    let agent = Agent::start(Dialect::Delta, &nowhere, Some(path));
    agent.has("what was held", &content).await;
    let status = agent.status.clone();
    eventually("failures are counted", || (status.borrow().failures >= 2).then_some(())).await;
    assert!(!status.borrow().connected && !status.borrow().synced && !status.borrow().last_error.is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn ten_thousand_resources_arrive_and_one_change_is_small() {
    for (dialect, over) in ALL {
        let world = World::start(over, Arc::default()).await;
        let filler = "x".repeat(300);
        world.apply((0..10_000).map(|n| secret(&format!("s{n}"), &filler)).collect());
        let agent = Agent::start(dialect, &world.connector, None);
        agent.has("everything", &world.content()).await;
        world.apply(vec![secret("s77", "changed")]);
        agent.has("the change", &world.content()).await;
        agent.stop().await;
    }
}

/// Changes of two kinds that belong together, and something else that makes the view of them long.
fn together(n: u64, fillers: usize) -> Vec<Change> {
    let filler = |at| metadata(&format!("filler-{at}"), json!({ "n": n, "text": "x".repeat(1_100_000) }));
    let change = [secret("pair", &n.to_string())].into_iter().chain((0..fillers).map(filler));
    change.chain([metadata("pair", json!({ "n": n }))]).collect()
}

/// A client that is slow, and stops when it is handed a part of a view.
struct Pair {
    newest: watch::Receiver<Option<u64>>,
    status: watch::Receiver<ClientStatus>,
    consumer: JoinHandle<()>,
}

impl Pair {
    fn follow(dialect: Dialect, connector: &Connector) -> Pair {
        let scope = NodeScope { id: "gw-1".into(), role: "gateway".into(), ..NodeScope::default() };
        let node = NodeInfo { scope, version: "1".into(), ..NodeInfo::default() };
        let (updates, mut batches) = mpsc::channel::<Batch>(1);
        let (status, watched) = watch::channel(ClientStatus::default());
        let config = ClientConfig { dialect, ..ClientConfig::new(node, connector.clone()) };
        tokio::spawn(run(config, updates, status, fastrand::Rng::with_seed(1)));
        let (held, newest) = watch::channel(None);
        let consumer = tokio::spawn(async move {
            let (mut pem, mut config, mut count) = (String::new(), String::new(), 0);
            while let Some(batch) = batches.recv().await {
                for set in batch.updates().flat_map(|update| &update.set).filter(|set| &*set.name == "pair") {
                    match &set.resource {
                        Resource::Secret(Secret { body: SecretBody::Roots(text), .. }) => pem = text.to_string(),
                        Resource::PluginMetadata(metadata) => config = metadata.config["n"].to_string(),
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(pem, config, "after batch {count}");
                count += 1;
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..8))).await;
                batch.accept();
                held.send_replace(pem.parse::<u64>().ok());
            }
        });
        Pair { newest, status: watched, consumer }
    }

    async fn has(&mut self, n: u64) {
        tokio::select! {
            found = self.newest.wait_for(|newest| *newest == Some(n)) => drop(found.unwrap()),
            ended = &mut self.consumer => ended.unwrap(),
            () = tokio::time::sleep(Duration::from_secs(120)) => panic!("{:?}", self.status.borrow()),
        }
        assert_eq!(*self.newest.borrow(), Some(n), "a part of a view was handed over");
        assert_eq!(self.status.borrow().parted, 0);
    }
}

/// Views of several responses each, to a client that is slow, over streams that break: it never has a part of one.
#[tokio::test]
async fn what_changes_together_arrives_together() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let mut world = World::start(Over::Tcp, Arc::new(SnapshotStore::new())).await;
        world.apply(together(0, 4));
        let mut pair = Pair::follow(dialect, &world.connector);
        for n in 1..=30 {
            world.apply(together(n, 4));
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..15))).await;
            if n % 10 == 0 {
                let (socket, store) = world.stop().await;
                store.apply(together(n, 4));
                store.apply(together(n + 1_000, 4));
                world = World::start_on(socket, store).await;
            }
        }
        world.apply(together(5_000, 4));
        pair.has(5_000).await;
    }
}

/// As many responses as a fleet of tens of thousands of routes is told at once.
#[tokio::test]
async fn a_view_of_very_many_responses_arrives_together_too() {
    let world = World::start(Over::Tcp, Arc::new(SnapshotStore::new())).await;
    world.apply(together(0, 80));
    let mut pair = Pair::follow(Dialect::Delta, &world.connector);
    pair.has(0).await;
    for n in 1..=2 {
        world.apply(together(n, 80));
        pair.has(n).await;
    }
}
