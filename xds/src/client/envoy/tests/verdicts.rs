//! What becomes of what a consumer refuses: who answers for it, what stands meanwhile, and when it is tried again.

use tokio::sync::{mpsc, watch};

use super::*;
use crate::client::{Batch, ClientConfig, ClientStatus, Held, Origin, load, run, save};
use crate::link::Connector;
use crate::protocol::NodeInfo;

/// A route that keeps out before the one that lets everything in.
fn guarded(name: &str, cluster: &str) -> Value {
    let mut table = routes(name, cluster);
    let guard = json!({"match": {"prefix": "/admin"}, "direct_response": {"status": 403}});
    table["virtual_hosts"][0]["routes"].as_array_mut().unwrap().insert(0, guard);
    table
}

/// A listener at this port whose routes are those of this table.
fn asking(name: &str, port: u16, table: &str) -> Value {
    let mut door = listener(name, None);
    door["address"]["socket_address"]["port_value"] = port.into();
    door["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["route_config_name"] = table.into();
    door
}

/// The same with a certificate that SDS says.
fn shown(mut door: Value) -> Value {
    let context = json!({"tls_certificate_sds_secret_configs": [{"name": "s", "sds_config": {"ads": {}}}]});
    let tls = any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", json!({"common_tls_context": context}));
    for chain in door["filter_chains"].as_array_mut().unwrap() {
        chain["transport_socket"] = json!({"name": "tls", "typed_config": tls});
    }
    door
}

/// A listener for two server names, each with a table of its own.
fn of_two(name: &str, tables: [&str; 2]) -> Value {
    let mut door = listener(name, None);
    let chains = tables.map(|table| {
        let mut chain = asking(name, 1, table)["filter_chains"][0].take();
        chain["filter_chain_match"] = json!({"server_names": [format!("{table}.example")]});
        chain
    });
    door["filter_chains"] = json!(chains);
    shown(door)
}

/// A client that knows that there are no clusters.
fn begun() -> Talk {
    let mut talk = Talk::new(Dialect::Delta);
    talk.hears(EnvoyKind::Cluster, &[]);
    talk
}

impl Talk {
    /// The control plane says that it has no such secret, which nobody waits for any more.
    fn lacks_the_secret(&mut self, rejected: &[InvalidResource]) -> Outcome {
        self.judged(EnvoyKind::Secret, &[], &["s"], rejected)
    }
}

/// The id of the first route that leads to a cluster.
fn leading_to(outcome: &Outcome, cluster: &str) -> String {
    let sets = outcome.updates.iter().flat_map(|update| &update.set);
    let mut routes = sets.filter_map(|set| if let Resource::Route(route) = &set.resource { Some(route) } else { None });
    let leads = |route: &&crate::model::Route| route.upstream.as_ref().is_some_and(|upstream| *upstream.name == *cluster);
    routes.find(leads).unwrap().id.to_string()
}

fn gone(outcome: &Outcome) -> Vec<String> {
    outcome.updates.iter().flat_map(|update| &update.removed).map(ToString::to_string).collect()
}

#[test]
fn of_several_tables_of_a_listener_the_one_with_the_bad_route_goes_back() {
    let mut talk = begun();
    talk.hears(EnvoyKind::Listener, &[of_two("l", ["t1", "t2"])]);
    talk.lacks_the_secret(&[]);
    let both = talk.hears(EnvoyKind::Routes, &[routes("t1", "one"), routes("t2", "two")]);
    let bad = leading_to(&both, "two");
    let outcome = talk.judged(EnvoyKind::Routes, &[guarded("t2", "two")], &[], &[refused_route(&bad)]);
    let error = outcome.verdict.error.clone().unwrap();
    assert!(error.starts_with(&format!("RouteConfiguration t2: Route {bad}: plugins")), "{error}");
    assert!(talk.follower.world().holds(EnvoyKind::Routes, "t1"));
    assert!(!gone(&outcome).contains(&leading_to(&both, "one")), "requests for the other name go where they went");
    assert_eq!(outcome.updates.last().unwrap().set[0].name.to_string(), bad, "the old one is told again");
}

#[test]
fn the_table_of_what_is_live_is_blamed_and_not_that_of_what_waits() {
    let mut talk = begun();
    talk.hears(EnvoyKind::Listener, &[asking("l", 1, "now")]);
    let live = talk.hears(EnvoyKind::Routes, &[routes("now", "c")]);
    talk.hears(EnvoyKind::Listener, &[asking("l", 1, "later")]);
    let bad = refused_route(&leading_to(&live, "c"));
    let error = talk.judged(EnvoyKind::Routes, &[guarded("now", "c")], &[], &[bad]).verdict.error.unwrap();
    assert!(error.starts_with("RouteConfiguration now: "), "{error}");
}

#[test]
fn a_listener_that_is_refused_late_goes_back_and_leaves_the_table_that_others_use() {
    let mut talk = begun();
    talk.hears(EnvoyKind::Listener, &[asking("a", 1, "t"), asking("b", 2, "t")]);
    talk.hears(EnvoyKind::Routes, &[guarded("t", "c")]);
    let accepted = talk.hears(EnvoyKind::Listener, &[shown(asking("b", 2, "t"))]);
    assert!(accepted.verdict.error.is_none() && opened(&accepted).is_empty(), "it waits for its certificate");
    let bad = refused_route("b/all:open0/0");
    let late = talk.lacks_the_secret(std::slice::from_ref(&bad));
    assert!(late.verdict.error.is_none(), "the secret is well");
    assert!(!gone(&late).iter().any(|name| name.starts_with("a/") || name == "b"), "{:?}", gone(&late));
    let told: Vec<u16> = opened(&late).into_iter().map(|(_, port)| port).collect();
    assert_eq!(told, [2, 2], "the version before is told again");
    assert!(talk.follower.world().holds(EnvoyKind::Routes, "t") && talk.follower.is_synced());

    // The control plane is asked for it again when it is asked for anything anew, and it is tried again with what it names.
    let hello = talk.follower.hello();
    let of = |kind| hello.iter().find(|says| says.kind == Some(kind)).unwrap();
    assert_eq!(of(EnvoyKind::Listener).initial["b"].as_ref(), "");
    assert_eq!(of(EnvoyKind::Routes).subscribe.as_slice(), [Arc::from("t")]);
    let again = talk.judged(EnvoyKind::Routes, &[routes("t", "c")], &[], std::slice::from_ref(&bad));
    assert!(again.verdict.error.as_ref().unwrap().starts_with("RouteConfiguration t: Route b/all:open0/0: plugins"));
    assert!(!gone(&again).contains(&"b".to_owned()), "and the version before stands as it stood");
    // Also where the table goes back for what another listener does with it, and turns out then to be what it was.
    let told = talk.told(EnvoyKind::Routes, &[routes("t", "c")], &[]);
    let open = talk.follower.receive(told, talk.now);
    talk.follower.world().step(talk.now);
    talk.follower.settle(open, &[refused_route("a/all:open0/0")], talk.now);
    let undone = talk.follower.withdraw(&[bad], talk.now);
    assert_eq!(removed(&undone, Kind::Listener), 0, "{undone:?}");
    let mended = talk.hears(EnvoyKind::Routes, &[routes("t", "c")]);
    assert_eq!((&mended.verdict.error, opened(&mended)), (&None, vec![("b".to_owned(), 2)]));
}

#[test]
fn a_new_listener_that_is_refused_late_opens_when_its_table_is_mended() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        let mut talk = Talk::new(dialect);
        talk.hears(EnvoyKind::Listener, &[asking("l", 1, "t")]);
        talk.hears(EnvoyKind::Routes, &[guarded("t", "c")]);
        let late = talk.judged(EnvoyKind::Cluster, &[], &[], &[refused_route("l/all:open0/0")]);
        assert!(late.verdict.error.is_none() && gone(&late).contains(&"l".to_owned()));
        assert!(talk.follower.is_synced() && talk.follower.is_whole(), "nothing of the bootstrap is missing");
        assert_eq!(opened(&talk.hears(EnvoyKind::Routes, &[routes("t", "c")])), [("l".to_owned(), 1)]);
        let (told, removed): (&[Value], &[&str]) = if dialect == Dialect::Delta { (&[], &["l"]) } else { (&[], &[]) };
        assert!(gone(&talk.judged(EnvoyKind::Listener, told, removed, &[])).contains(&"l".to_owned()));
    }
}

#[test]
fn what_waits_goes_on_waiting_when_what_is_live_is_refused() {
    let mut talk = begun();
    talk.hears(EnvoyKind::Listener, &[door("l", 1)]);
    talk.hears(EnvoyKind::Listener, &[shown(door("l", 1))]);
    let late = talk.follower.withdraw(&[refused_route("l/all:open0/0")], talk.now);
    assert_eq!(removed(&late, Kind::Listener), 1);
    assert_eq!(opened(&talk.lacks_the_secret(&[])), [("l".to_owned(), 1)]);
}

#[test]
fn a_mended_listener_opens_when_the_address_is_free_that_another_one_has_taken_meanwhile() {
    for (mends_first, leaves) in [(true, false), (true, true), (false, false)] {
        let mut talk = Talk::new(Dialect::Delta);
        talk.hears(EnvoyKind::Listener, &[asking("x", 1, "t")]);
        talk.hears(EnvoyKind::Routes, &[guarded("t", "c")]);
        let late = talk.judged(EnvoyKind::Cluster, &[], &[], &[refused_route("x/all:open0/0")]);
        assert!(gone(&late).contains(&"x".to_owned()));
        assert_eq!(opened(&talk.hears(EnvoyKind::Listener, &[door("y", 1)])), [("y".to_owned(), 1)]);
        let mend = |talk: &mut Talk| opened(&talk.hears(EnvoyKind::Routes, &[routes("t", "c")]));
        if mends_first {
            assert_eq!(mend(&mut talk), [], "connections would go to either");
        }
        let (moved, removed): (&[Value], &[&str]) = if leaves { (&[door("y", 2)], &[]) } else { (&[], &["y"]) };
        let mut free = opened(&talk.judged(EnvoyKind::Listener, moved, removed, &[]));
        if !mends_first {
            assert_eq!(free, [], "what was refused of it still would be");
            free = mend(&mut talk);
        }
        assert_eq!(free.first(), Some(&("x".to_owned(), 1)));
        assert!(talk.follower.is_synced());
        // What it has then is refused to others.
        let error = talk.hears(EnvoyKind::Listener, &[door("z", 1)]).verdict.error.unwrap();
        assert!(error.contains("is the address of the listener x"), "{error}");
    }
}

#[test]
fn the_version_before_comes_back_when_its_address_is_free_though_another_one_had_come_there() {
    let mut talk = begun();
    talk.hears(EnvoyKind::Listener, &[door("x", 1)]);
    talk.hears(EnvoyKind::Listener, &[asking("x", 2, "t"), door("y", 1)]);
    let late = talk.judged(EnvoyKind::Routes, &[guarded("t", "c")], &[], &[refused_route("x/all:open0/0")]);
    assert_eq!(opened(&late), [("x".to_owned(), 2), ("y".to_owned(), 1)]);
    assert!(late.verdict.error.is_some() && gone(&late).contains(&"x".to_owned()), "y has its address by now");
    let mut waits = listener("y", None);
    waits["address"]["socket_address"]["port_value"] = 3.into();
    assert_eq!(opened(&talk.hears(EnvoyKind::Listener, &[waits])), [], "it has not left yet");
    let left = opened(&talk.hears(EnvoyKind::Routes, &[routes("y-routes", "c")]));
    assert_eq!(left, [("x".to_owned(), 1), ("y".to_owned(), 3)]);
    let mended = opened(&talk.hears(EnvoyKind::Routes, &[routes("t", "c")]));
    assert_eq!(mended, [("x".to_owned(), 2)]);
}

#[test]
fn a_listener_closes_for_its_route_though_something_else_of_it_is_refused_first() {
    let mut talk = begun();
    talk.hears(EnvoyKind::Listener, &[shown(door("l", 1))]);
    assert_eq!(opened(&talk.lacks_the_secret(&[])).len(), 1);
    let certificate = InvalidResource { kind: Kind::Certificate, ..refused_route("listener/l/*") };
    let late = talk.follower.withdraw(&[certificate, refused_route("l/all:open0/0")], talk.now);
    assert_eq!(removed(&late, Kind::Listener), 1);
}

#[test]
fn nobody_is_woken_for_what_cannot_go_on_yet() {
    let now = heddle_node::clock::now();
    let mut door = listener("mine", None);
    door["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["config_source"]["initial_fetch_timeout"] = json!("1s");
    let piece = decode(EnvoyKind::Listener, &door).unwrap();
    let whole = BTreeSet::from([EnvoyKind::Cluster, EnvoyKind::Listener]);
    let mut follower = Follower::new(Dialect::Delta, whole, &[piece], now).map_err(|_| ()).unwrap();
    for passed in [0, 2, 14] {
        follower.world().step(now + Duration::from_secs(passed));
        assert_eq!(follower.world().wake(), Some(now + Duration::from_secs(15)), "without clusters it does not open");
    }
    follower.world().step(now + Duration::from_secs(15));
    assert_eq!(follower.world().wake(), None);

    let mut talk = Talk::new(Dialect::Delta);
    let mut endless = eds_cluster("c");
    endless["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"] = json!("0s");
    talk.hears(EnvoyKind::Cluster, &[endless]);
    talk.hears(EnvoyKind::Listener, &[listener("l", None)]);
    let late = talk.now + Duration::from_secs(16);
    talk.follower.world().step(late);
    assert!(talk.follower.world().wake().is_none_or(|wake| wake > late), "its endpoints are waited for without end");
}

#[test]
fn a_refused_listener_that_goes_while_nobody_listens_is_told_to_be_gone() {
    let mut talk = begun();
    let mut bad = door("l", 1);
    bad["transparent"] = json!(true);
    assert!(talk.hears(EnvoyKind::Listener, &[bad]).verdict.error.is_some());
    assert_eq!(talk.follower.unusable().len(), 1, "what is on disk of it stays");
    talk.follower.lost();
    let hello = talk.follower.hello();
    let listeners = hello.iter().find(|says| says.kind == Some(EnvoyKind::Listener)).unwrap();
    assert_eq!(listeners.initial.get("l").map(|version| &**version), Some(""), "a version that nobody has is not current");
    talk.judged(EnvoyKind::Listener, &[], &["l"], &[]);
    assert!(talk.follower.unusable().is_empty());
}

#[test]
fn what_comes_back_is_live_at_once_though_it_had_waited_in_vain() {
    let mut talk = begun();
    talk.hears(EnvoyKind::Listener, &[listener("l", None)]);
    talk.now += Duration::from_secs(15);
    assert_eq!(talk.follower.world().step(talk.now).len(), 1, "it opens without routes");
    let outcome =
        talk.judged(EnvoyKind::Listener, &[listener("l", Some(guarded("r", "c")))], &[], &[refused_route("l/all:open0/0")]);
    assert!(outcome.verdict.error.is_some());
    assert!(gone(&outcome).contains(&"l/all:open0/1".to_owned()), "nothing is left of what was refused");
    assert!(!gone(&outcome).contains(&"l".to_owned()) && talk.follower.is_synced());
}

#[test]
fn a_listener_is_withdrawn_for_the_table_that_stands_though_the_next_one_cannot_be_read() {
    let told = |rejected: &[InvalidResource]| {
        let mut talk = begun();
        talk.hears(EnvoyKind::Listener, &[of_two("l", ["t1", "t2"])]);
        talk.lacks_the_secret(&[]);
        talk.hears(EnvoyKind::Routes, &[guarded("t1", "one")]);
        let mut unreadable = routes("t1", "one");
        unreadable["virtual_hosts"][0]["routes"][0]["route"] = json!({"cluster_header": "x"});
        talk.judged(EnvoyKind::Routes, &[unreadable, routes("t2", "two")], &[], rejected)
    };
    let live = told(&[]);
    assert!(live.verdict.error.is_some() && opened(&live).len() == 1);
    let outcome = told(&[refused_route(&leading_to(&live, "one"))]);
    assert!(gone(&outcome).contains(&"l".to_owned()), "a part of a table does not stay");
}

#[test]
fn who_waits_for_an_address_gets_it_when_who_had_it_is_withdrawn() {
    let mut talk = Talk::new(Dialect::Delta);
    let both = talk.hears(EnvoyKind::Listener, &[door("a", 1), door("b", 1)]);
    assert!(both.verdict.error.unwrap().starts_with("Listener b: address: "));
    let late = talk.judged(EnvoyKind::Cluster, &[], &[], &[refused_route("a/all:open0/0")]);
    assert!(gone(&late).contains(&"a".to_owned()));
    assert_eq!(opened(&late).last(), Some(&("b".to_owned(), 1)));
    let held = talk.follower.hello().into_iter().find(|says| says.kind == Some(EnvoyKind::Listener)).unwrap();
    assert!(!held.initial["b"].is_empty() && held.initial["a"].is_empty());
}

#[tokio::test]
async fn nothing_is_used_of_what_a_consumer_refuses_a_part_of_until_it_knows_what_instead() {
    let at = |name: &str, port: u16| {
        let mut door = listener(name, Some(guarded("t", "c")));
        door["address"]["socket_address"]["port_value"] = port.into();
        decode(EnvoyKind::Listener, &door).unwrap()
    };
    let statics = Arc::new([at("a", 1), at("b", 2)]);
    let source = EnvoySource { statics, whole: BTreeSet::new(), who: Who::default() };
    let config = ClientConfig::new(NodeInfo::default(), Connector::tcp("127.0.0.1:1").unwrap());
    let (updates, mut batches) = mpsc::channel(1);
    let (status, _watched) = watch::channel(ClientStatus::default());
    tokio::spawn(run(ClientConfig { envoy: Some(source), ..config }, updates, status, fastrand::Rng::with_seed(1)));
    let gone = |updates: &[TypedUpdate]| -> Vec<String> {
        updates
            .iter()
            .filter(|update| update.kind == Kind::Listener)
            .flat_map(|update| &update.removed)
            .map(ToString::to_string)
            .collect()
    };
    let first = batches.recv().await.unwrap();
    assert!(first.whole && gone(&first.views[0]).is_empty());
    first.reject(vec![refused_route("a/all:open0/0")]);
    let second = batches.recv().await.unwrap();
    assert_eq!((second.whole, gone(&second.views[0])), (true, vec!["a".to_owned()]));
    second.reject(vec![refused_route("b/all:open0/0")]);
    let third = batches.recv().await.unwrap();
    assert_eq!((third.whole, gone(&third.views[0])), (true, vec!["b".to_owned()]), "what is undone is judged as well");
    third.reject(vec![InvalidResource { kind: Kind::Certificate, ..refused_route("c") }]);
    let last = batches.recv().await.unwrap();
    assert!(!last.whole && last.views.is_empty(), "what keeps nobody out is left out alone");
    last.accept();
}

/// What an agent has on disk that was told of these listeners.
fn on_disk(doors: &[Value]) -> Holdings {
    let mut talk = begun();
    talk.hears(EnvoyKind::Listener, doors);
    let mut disk = Holdings::default();
    talk.follower.world().take_encoded().into_iter().for_each(|(kind, name, held)| disk.insert(kind, name, held));
    disk
}

/// A listener at this port with a route that keeps out.
fn guard(name: &str, port: u16) -> Value {
    let mut door = listener(name, Some(guarded("t", "c")));
    door["address"]["socket_address"]["port_value"] = port.into();
    door
}

/// An agent that has this on disk, and a control plane that is away.
fn starting(path: &std::path::Path, disk: &Holdings) -> (mpsc::Receiver<Batch>, watch::Receiver<ClientStatus>) {
    starting_with(path, disk, Arc::new([]))
}

/// The same with this in its bootstrap.
fn starting_with(
    path: &std::path::Path,
    disk: &Holdings,
    statics: Arc<[Piece]>,
) -> (mpsc::Receiver<Batch>, watch::Receiver<ClientStatus>) {
    save(path, disk).unwrap();
    let config = ClientConfig::new(NodeInfo::default(), Connector::tcp("127.0.0.1:1").unwrap());
    let envoy = Some(EnvoySource { statics, ..EnvoySource::followed("".into()) });
    let (updates, batches) = mpsc::channel(1);
    let (status, watched) = watch::channel(ClientStatus::default());
    let config = ClientConfig { envoy, last_good: Some(path.to_owned()), ..config };
    tokio::spawn(run(config, updates, status, fastrand::Rng::with_seed(1)));
    (batches, watched)
}

/// The names of what a batch removes of a kind.
fn removes(batch: &Batch, kind: Kind) -> Vec<String> {
    let of = batch.updates().filter(|update| update.kind == kind);
    of.flat_map(|update| &update.removed).map(ToString::to_string).collect()
}

/// The names of what a batch sets of a kind.
fn sets(batch: &Batch, kind: Kind) -> Vec<String> {
    let of = batch.updates().filter(|update| update.kind == kind);
    of.flat_map(|update| &update.set).map(|set| set.name.to_string()).collect()
}

#[tokio::test]
async fn a_listener_from_disk_closes_where_a_route_of_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last-good");
    let disk = on_disk(&[guard("a", 1), guard("b", 2), guard("a/b", 3)]);
    let all: Vec<String> = disk.list(Kind::Route).map(|(name, _)| name.to_string()).collect();
    let (mut batches, mut status) = starting(&path, &disk);
    let first = batches.recv().await.unwrap();
    assert_eq!((first.origin, first.whole), (Origin::LastGood, true), "nothing of it is used before it is judged");
    assert_eq!((sets(&first, Kind::Listener).len(), sets(&first, Kind::Route).len()), (3, all.len()));
    first.reject(vec![refused_route("a/all:open0/0"), InvalidResource { kind: Kind::Upstream, ..refused_route("u") }]);
    let second = batches.recv().await.unwrap();
    assert_eq!((second.origin, second.whole), (Origin::LastGood, false));
    let mut gone: Vec<String> = second.updates().flat_map(|update| &update.removed).map(ToString::to_string).collect();
    gone.sort();
    assert_eq!(gone, ["a", "a/all:open0/1"], "with the route that keeps out goes the one that lets in");
    second.accept();
    status.wait_for(|status| status.failures > 1).await.unwrap();
    assert!(!status.borrow().last_good, "something is missing");
    let kept = load(&path).unwrap().unwrap();
    let names: Vec<&str> = kept.list(Kind::Listener).map(|(name, _)| &**name).collect();
    assert_eq!((names, kept.count(Kind::Route)), (vec!["a/b", "b"], all.len() - 2), "a part of it does not go back to disk");
}

#[tokio::test]
async fn a_listener_from_disk_closes_where_a_part_of_it_cannot_be_read() {
    for (kind, name, open) in [
        (Kind::Route, "a/all:open0/0", vec!["b"]),
        (Kind::Certificate, "listener/b/*", vec!["a"]),
        (Kind::Listener, "a", vec!["b"]),
        (Kind::Upstream, "a", vec!["a", "b"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        let mut disk = on_disk(&[guard("a", 1), guard("b", 2)]);
        disk.insert(kind, name.into(), Held { version: "v".into(), body: vec![0xff].into() });
        let (mut batches, mut status) = starting(&path, &disk);
        let first = batches.recv().await.unwrap();
        assert_eq!(sets(&first, Kind::Listener), open, "{kind:?}");
        assert!(sets(&first, Kind::Route).iter().all(|route| open.contains(&&route[..1])), "{kind:?}");
        first.accept();
        status.wait_for(|status| status.failures > 0).await.unwrap();
        assert_eq!(status.borrow().last_good, open.len() == 2);
        assert!(batches.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_from_disk_has_its_address_again_where_the_one_in_its_place_is_refused() {
    for refused in [refused_route("new/all:open0/0"), InvalidResource { kind: Kind::Listener, ..refused_route("new") }] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        let statics: Arc<[_]> = Arc::new([decode(EnvoyKind::Listener, &guard("new", 1)).unwrap()]);
        let (mut batches, mut status) = starting_with(&path, &on_disk(&[guard("old", 1)]), statics);
        let first = batches.recv().await.unwrap();
        assert_eq!(sets(&first, Kind::Listener), ["old"]);
        first.accept();
        let newcomer = batches.recv().await.unwrap();
        assert_eq!(
            (sets(&newcomer, Kind::Listener), removes(&newcomer, Kind::Listener)),
            (vec!["new".into()], vec!["old".into()])
        );
        newcomer.reject(vec![refused]);
        let undone = batches.recv().await.unwrap();
        assert_eq!((sets(&undone, Kind::Listener), removes(&undone, Kind::Listener)), (vec!["old".into()], vec!["new".into()]));
        assert_eq!(removes(&undone, Kind::Route).len(), 2, "its routes stand as they stood");
        undone.accept();
        status.wait_for(|status| status.failures > 20).await.unwrap();
        assert!(batches.is_empty());
        let kept = load(&path).unwrap().unwrap();
        let names: Vec<&str> = kept.list(Kind::Listener).map(|(name, _)| &**name).collect();
        assert_eq!((names, kept.count(Kind::Route)), (vec!["old"], 2), "and they are on disk");
    }
}
