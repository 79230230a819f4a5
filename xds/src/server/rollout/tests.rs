//! What a canary takes goes to all, what it refuses to nobody else, and nothing waits for one that says nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod again;
mod begins;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use heddle_node::clock;
use heddle_node::drain::{self, DrainWatch};
use tokio::time::sleep;

use super::{GroupName, Place, Rollouts};
use crate::model::{Kind, PluginConf, PluginOrigin, Resource, Route, RouteMatch, Upstream, UpstreamRef};
use crate::protocol::{DeltaRequest, DeltaResponse, Types};
use crate::server::tests::{at, gone, set};
use crate::server::{DeltaMachine, Machine};
use crate::snapshot::{Change, NodeScope, SIDECAR, SnapshotFeed, SnapshotSource, SnapshotStore, View};

const WAIT: Duration = Duration::from_secs(2);
/// As long as everything takes that waits for nobody.
const SOON: Duration = Duration::from_millis(20);

struct World {
    store: Arc<SnapshotStore>,
    rollouts: Rollouts,
    drain: DrainWatch,
    _completion: drain::DrainCompletion,
}

/// A node of a group that answers when it is told to.
struct Node {
    place: Place,
    machine: DeltaMachine,
    view: Arc<View>,
    has: BTreeMap<Arc<str>, String>,
    unanswered: Vec<DeltaResponse>,
}

impl World {
    fn new() -> World {
        let (completion, drain) = drain::pair();
        World { store: Arc::new(SnapshotStore::new()), rollouts: Rollouts::default(), drain, _completion: completion }
    }

    fn node(&self, id: &str) -> Node {
        self.enter(
            NodeScope { id: id.into(), role: "gateway".into(), ..NodeScope::default() },
            &[Kind::Certificate, Kind::Endpoints],
        )
    }

    fn enter(&self, scope: NodeScope, kinds: &[Kind]) -> Node {
        let feed: Arc<dyn SnapshotFeed> = self.store.clone();
        let mut place = self.rollouts.place((Types::Heddle, (&scope, false), true), &feed, WAIT, &self.drain).unwrap();
        let view = place.seat().view();
        let mut machine = DeltaMachine::new(scope, view.position());
        for kind in kinds {
            machine.request(DeltaRequest::new(*kind), &*view, at(0)).unwrap();
            let (all, names) = machine.asked(*kind);
            place.seat().listen(*kind, all, names);
        }
        let mut node = Node { place, machine, view, has: BTreeMap::new(), unanswered: Vec::new() };
        node.hears();
        node.accepts();
        node
    }

    async fn apply(&self, changes: Vec<Change>) {
        self.store.apply(changes);
        sleep(SOON).await;
    }

    fn canaries(&self) -> Vec<String> {
        self.rollouts.view()[0].canaries.iter().map(ToString::to_string).collect()
    }

    fn held(&self) -> Vec<String> {
        let held = self.rollouts.held(&GroupName::of(Types::Heddle, &scope_of("n", "gateway")));
        held.iter().map(|held| format!("{} by {}: {}", held.name, held.node, held.reason)).collect()
    }
}

impl Node {
    /// Looks, and takes what it is sent.
    fn hears(&mut self) {
        while let Some(view) = self.place.next().now_or_never() {
            self.view = view.unwrap().0;
            self.machine.changes(self.place.changes(self.machine.position(), &self.view), &*self.view);
        }
        while let Some(response) = self.machine.response(&*self.view) {
            for raw in &response.resources {
                self.has.insert(raw.name.clone(), raw.version.to_string());
            }
            response.removed.iter().for_each(|name| drop(self.has.remove(name)));
            self.unanswered.push(response);
        }
        self.place.report(&self.machine);
    }

    fn answers(&mut self, error: Option<&str>) {
        for response in std::mem::take(&mut self.unanswered) {
            let error = error.map(str::to_owned);
            let request = DeltaRequest { nonce: response.nonce, error, ..DeltaRequest::new(response.kind) };
            self.machine.request(request, &*self.view, at(7)).unwrap();
        }
        self.place.report(&self.machine);
    }

    fn accepts(&mut self) {
        self.answers(None);
    }

    /// Names with the versions that the store has of them.
    fn has_newest(&mut self, world: &World, name: &str) -> bool {
        self.hears();
        let newest = world.store.view();
        let newest = [Kind::Certificate, Kind::Endpoints].into_iter().find_map(|kind| newest.find(kind, name).cloned());
        self.has.get(name).map(String::as_str) == newest.as_ref().map(|found| &*found.version)
    }
}

fn certificate(name: &str, content: &str) -> Change {
    set(Kind::Certificate, name, content)
}

fn endpoints(name: &str, content: &str) -> Change {
    set(Kind::Endpoints, name, content)
}

#[tokio::test(start_paused = true)]
async fn the_rest_is_given_what_the_canary_has_taken() {
    let world = World::new();
    let (mut canary, mut other) = (world.node("b"), world.node("a"));
    assert_eq!(world.canaries(), ["b"], "who came first");
    world.apply(vec![certificate("c", "1"), certificate("d", "1")]).await;
    assert!(canary.has_newest(&world, "c") && !other.has_newest(&world, "c"));
    assert_eq!(world.rollouts.view()[0].trying, 2);
    canary.accepts();
    sleep(SOON).await;
    assert!(other.has_newest(&world, "c") && other.has_newest(&world, "d"));
    assert_eq!(other.unanswered.len(), 1, "as one step");
    other.accepts();
    world.apply(vec![gone(Kind::Certificate, "c")]).await;
    assert!(canary.has_newest(&world, "c") && !other.has_newest(&world, "c"));
    canary.accepts();
    sleep(SOON).await;
    assert!(other.has_newest(&world, "c"));
    assert_eq!(world.store.view().position(), other.view.position(), "positions mean the same everywhere");
}

#[tokio::test(start_paused = true)]
async fn what_the_canary_refuses_is_held_and_the_good_goes_on() {
    let world = World::new();
    let (mut canary, mut other) = (world.node("a"), world.node("b"));
    world.apply(vec![certificate("c", "1")]).await;
    canary.hears();
    canary.accepts();
    sleep(SOON).await;
    let good = {
        other.hears();
        other.accepts();
        other.has.clone()
    };
    world.apply(vec![certificate("c", "bad"), certificate("d", "1")]).await;
    canary.hears();
    canary.answers(Some("Certificate c: snis: not this one"));
    sleep(SOON).await;
    assert!(other.has_newest(&world, "d") && other.has["c"] == good["c"]);
    assert_eq!(world.held(), ["c by a: not this one"]);
    other.accepts();
    canary.hears();
    assert_eq!(canary.has["c"], good["c"], "it is given the version before again");
    canary.accepts();
    let mut late = world.node("late");
    assert_eq!(late.has["c"], good["c"], "who comes later is not given it either");
    world.apply(vec![certificate("d", "2")]).await;
    canary.hears();
    canary.accepts();
    sleep(SOON).await;
    assert!(other.has_newest(&world, "d") && !other.has_newest(&world, "c") && world.held().len() == 1);
    other.accepts();
    late.hears();
    late.accepts();
    world.apply(vec![certificate("c", "mended")]).await;
    assert!(canary.has_newest(&world, "c") && world.held().is_empty(), "a new version is tried again");
    canary.accepts();
    sleep(SOON).await;
    assert!(other.has_newest(&world, "c") && late.has_newest(&world, "c"));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_goes_on_when_somebody_says_so() {
    let world = World::new();
    let (mut canary, mut other) = (world.node("a"), world.node("b"));
    world.apply(vec![certificate("new", "bad")]).await;
    canary.hears();
    canary.answers(Some("no"));
    sleep(SOON).await;
    other.hears();
    canary.hears();
    assert!(canary.has.is_empty() && other.has.is_empty() && world.held() == ["new by a: no"]);
    canary.accepts();
    assert_eq!(world.rollouts.resume("gateway/envoy"), None);
    assert_eq!(world.rollouts.resume("gateway/heddle"), Some(1));
    sleep(SOON).await;
    assert!(canary.has_newest(&world, "new") && other.has_newest(&world, "new"));
    canary.answers(Some("no"));
    sleep(SOON).await;
    assert!(world.held().is_empty(), "it is not held again");
    world.apply(vec![gone(Kind::Certificate, "new")]).await;
    canary.hears();
    canary.accepts();
    sleep(SOON).await;
    assert!(other.has_newest(&world, "new"));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_a_canary_that_says_nothing_and_the_next_one_takes_its_place() {
    let world = World::new();
    let (mut canary, mut next, mut other) = (world.node("a"), world.node("b"), world.node("c"));
    let start = clock::now();
    world.apply(vec![certificate("c", "1")]).await;
    canary.hears();
    sleep(WAIT - SOON * 3).await;
    assert!(!other.has_newest(&world, "c"), "{:?}", clock::now() - start);
    sleep(SOON * 3).await;
    assert!(other.has_newest(&world, "c"));
    other.accepts();
    next.hears();
    next.accepts();
    world.apply(vec![certificate("c", "2")]).await;
    assert!(next.has_newest(&world, "c") && !other.has_newest(&world, "c"));
    next.accepts();
    sleep(SOON).await;
    assert!(other.has_newest(&world, "c"), "the first one is not waited for again");
}

#[tokio::test(start_paused = true)]
async fn where_a_canary_leaves_the_next_one_judges() {
    let world = World::new();
    let (mut canary, mut next, mut other) = (world.node("a"), world.node("b"), world.node("c"));
    world.apply(vec![certificate("c", "bad")]).await;
    canary.hears();
    drop(canary);
    sleep(SOON).await;
    assert!(next.has_newest(&world, "c") && !other.has_newest(&world, "c"));
    next.answers(Some("no"));
    sleep(SOON).await;
    other.hears();
    assert!(other.has.is_empty() && world.held() == ["c by b: no"]);
    drop((next, other));
    world.apply(vec![certificate("d", "1")]).await;
    let later = world.node("z");
    assert_eq!(
        later.has.keys().map(|name| &**name).collect::<Vec<_>>(),
        ["d"],
        "with nobody there, everything goes on but what is held"
    );
}

#[tokio::test(start_paused = true)]
async fn endpoints_wait_for_no_canary() {
    let world = World::new();
    let (mut canary, mut other) = (world.node("a"), world.node("b"));
    world.apply(vec![endpoints("u", "one"), endpoints("v", "one")]).await;
    assert!(canary.has_newest(&world, "u") && other.has_newest(&world, "u"), "alone they go to all at once");
    canary.accepts();
    other.accepts();
    world.apply(vec![certificate("c", "1"), endpoints("u", "two")]).await;
    assert!(canary.has_newest(&world, "u") && !other.has_newest(&world, "u"), "with a change of something else they go with it");
    world.apply(vec![endpoints("v", "two")]).await;
    assert!(other.has_newest(&world, "v"), "others do not wait for that");
    let start = clock::now();
    world.apply(vec![endpoints("u", "three")]).await;
    while !other.has_newest(&world, "u") {
        sleep(SOON).await;
    }
    assert!(
        clock::now() - start < Duration::from_millis(300),
        "nor do they wait long when they change again: {:?}",
        clock::now() - start
    );
    assert!(!other.has_newest(&world, "c"));
    canary.hears();
    canary.accepts();
    sleep(SOON).await;
    assert!(other.has_newest(&world, "c") && other.has_newest(&world, "u"));
}

#[tokio::test(start_paused = true)]
async fn each_service_has_a_canary_of_its_own() {
    let world = World::new();
    let sidecar = |id: &str, service: &str| NodeScope {
        id: id.into(),
        role: SIDECAR.into(),
        namespace: "shop".into(),
        service: service.into(),
        ..NodeScope::default()
    };
    let kinds = [Kind::PluginMetadata];
    let mut nodes =
        [("web-1", "web"), ("web-2", "web"), ("api-1", "api")].map(|(id, service)| world.enter(sidecar(id, service), &kinds));
    assert_eq!(world.canaries(), ["api-1", "web-1"]);
    world.apply(vec![set(Kind::PluginMetadata, "p", "1")]).await;
    nodes.iter_mut().for_each(Node::hears);
    assert_eq!(nodes.each_ref().map(|node| node.has.len()), [1, 0, 1]);
    nodes[0].accepts();
    sleep(SOON).await;
    nodes[1].hears();
    assert_eq!(nodes[1].has.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_changes_of_one_resource_do_not_starve_the_rest() {
    let world = World::new();
    let (mut canary, mut other) = (world.node("a"), world.node("b"));
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..50 {
        world.store.apply(vec![certificate("c", &round.to_string())]);
        sleep(Duration::from_millis(4)).await;
        canary.hears();
        canary.accepts();
        other.hears();
        other.accepts();
        seen.extend(other.has.get("c").cloned());
    }
    assert!(seen.len() > 10, "{}", seen.len());
}

fn upstream(name: &str) -> Change {
    Change::Set(Resource::Upstream(Arc::new(Upstream::new(name))))
}

/// A route to an upstream, by a plugin that names another one where there is one.
fn route(id: &str, upstream: &str, mirror: Option<&str>) -> Change {
    let plugin = |to: &str| PluginConf {
        name: "proxy-mirror".into(),
        config: Arc::new(serde_json::json!({ "to": [{ "upstream_id": to }] })),
        origin: PluginOrigin("route/r".into()),
    };
    Change::Set(Resource::Route(Route {
        id: id.into(),
        name: "".into(),
        service_id: "".into(),
        service_name: "".into(),
        matches: RouteMatch::default(),
        priority: 0,
        created: 1,
        plugins: mirror.map(plugin).into_iter().collect(),
        upstream: Some(UpstreamRef { name: upstream.into() }),
        timeouts: None,
        enable_websocket: false,
        max_duration: None,
    }))
}

/// Two gateways that hold a route to `old`, which mirrors to `copy`, and the canary of which refuses that it leads to `new`; both upstreams are gone with that.
async fn moved(world: &World) -> (Node, Node) {
    let kinds = [Kind::Upstream, Kind::Endpoints, Kind::Route];
    let gateway = |id: &str| NodeScope { id: id.into(), role: "gateway".into(), ..NodeScope::default() };
    let (mut canary, mut other) = (world.enter(gateway("a"), &kinds), world.enter(gateway("b"), &kinds));
    let old = ["old", "copy", "else"].into_iter().flat_map(|name| [upstream(name), endpoints(name, "1")]);
    world.apply(old.chain([route("r", "old", Some("copy"))]).collect()).await;
    settle(&mut [&mut canary, &mut other]).await;
    let gone = ["old", "copy", "else"].into_iter().flat_map(|name| [gone(Kind::Upstream, name), gone(Kind::Endpoints, name)]);
    world.apply(gone.chain([upstream("new"), endpoints("new", "1"), route("r", "new", None)]).collect()).await;
    canary.hears();
    refuse(&mut canary, Kind::Route);
    settle(&mut [&mut canary, &mut other]).await;
    (canary, other)
}

/// Refuses what it was sent of a kind, and takes the rest.
fn refuse(node: &mut Node, refused: Kind) {
    let (bad, good): (Vec<_>, Vec<_>) = std::mem::take(&mut node.unanswered).into_iter().partition(|said| said.kind == refused);
    node.unanswered = good;
    node.accepts();
    node.unanswered = bad;
    node.answers(Some("Route r: uris: not this one"));
}

async fn settle(nodes: &mut [&mut Node]) {
    for _ in 0..5 {
        sleep(SOON).await;
        nodes.iter_mut().for_each(|node| {
            node.hears();
            node.accepts();
        });
    }
}

fn names(node: &Node) -> Vec<&str> {
    node.has.keys().map(|name| &**name).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_kept_version_refers_to_is_not_taken_away_and_the_rest_is() {
    let world = World::new();
    let (mut canary, mut other) = moved(&world).await;
    for node in [&canary, &other] {
        assert_eq!(names(node), ["copy", "new", "old", "r"], "`else` goes: nothing that is kept leads there");
    }
    assert_eq!(world.held(), ["r by a: not this one"]);
    let kept =
        |world: &World| world.rollouts.view()[0].kept.iter().map(|(kind, name)| (*kind, name.to_string())).collect::<Vec<_>>();
    let all = [Kind::Upstream, Kind::Endpoints].map(|kind| ["copy", "old"].map(|name| (kind, name.to_string()))).concat();
    assert_eq!(kept(&world), all);
    let kinds = [Kind::Upstream, Kind::Endpoints, Kind::Route];
    let late = world.enter(NodeScope { id: "late".into(), role: "gateway".into(), ..NodeScope::default() }, &kinds);
    assert_eq!(names(&late), ["copy", "new", "old", "r"], "who comes later needs it too");
    drop(late);
    world.apply(vec![route("r", "new", Some("new"))]).await;
    settle(&mut [&mut canary, &mut other]).await;
    for node in [&canary, &other] {
        assert_eq!(names(node), ["new", "r"], "with the version that comes next it goes");
    }
    assert!(kept(&world).is_empty() && world.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_goes_when_somebody_says_to_go_on_and_stays_when_it_is_removed_later() {
    let world = World::new();
    let (mut canary, mut other) = moved(&world).await;
    assert_eq!(world.rollouts.resume("gateway/heddle"), Some(1));
    settle(&mut [&mut canary, &mut other]).await;
    assert_eq!((names(&canary), names(&other)), (vec!["new", "r"], vec!["new", "r"]));
    world.apply(vec![upstream("next"), endpoints("next", "1"), route("r", "next", None)]).await;
    canary.hears();
    refuse(&mut canary, Kind::Route);
    settle(&mut [&mut canary, &mut other]).await;
    world.apply(vec![gone(Kind::Upstream, "new"), gone(Kind::Endpoints, "new")]).await;
    settle(&mut [&mut canary, &mut other]).await;
    assert_eq!(names(&other), ["new", "next", "r"], "a later change does not take it away either");
    world.apply(vec![gone(Kind::Route, "r")]).await;
    settle(&mut [&mut canary, &mut other]).await;
    assert_eq!((names(&canary), names(&other)), (vec!["next"], vec!["next"]));
}

fn scope_of(id: &str, role: &str) -> NodeScope {
    NodeScope { id: id.into(), role: role.into(), ..NodeScope::default() }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_nobody_comes_back_to_is_forgotten_with_what_it_held() {
    let world = World::new();
    let (mut canary, other) = (world.node("a"), world.node("b"));
    world.apply(vec![certificate("new", "bad")]).await;
    canary.hears();
    canary.answers(Some("no"));
    sleep(SOON).await;
    drop((canary, other));
    sleep(super::FORGET / 2).await;
    let back = world.node("a");
    assert!(back.has.is_empty() && world.held() == ["new by a: no"], "who starts again finds what was held");
    drop(back);
    sleep(super::FORGET / 2).await;
    assert_eq!(world.rollouts.view().len(), 1);
    sleep(super::FORGET).await;
    assert!(world.rollouts.view().is_empty());
    assert_eq!(world.node("a").has.len(), 1, "a new group begins with all there is");
}

#[tokio::test(start_paused = true)]
async fn who_has_proven_nothing_takes_no_places_from_others() {
    let world = World::new();
    let feed: Arc<dyn SnapshotFeed> = world.store.clone();
    let come = |role: &str, proven: bool| {
        world.rollouts.place((Types::Heddle, (&scope_of("n", role), false), proven), &feed, WAIT, &world.drain)
    };
    let strangers: Vec<_> = (0..100).map(|number| come(&format!("stranger-{number}"), false)).collect();
    assert_eq!(strangers.iter().flatten().count(), super::MAX_UNPROVEN);
    let known: Vec<_> =
        (0..super::MAX_GROUPS - super::MAX_UNPROVEN).map(|number| come(&format!("known-{number}"), true)).collect();
    assert!(known.iter().all(Option::is_some), "{}", known.iter().flatten().count());
    assert!(come("one-more", true).is_none(), "all places are taken by who is there");
    drop(strangers);
    assert!(come("stranger", false).is_some() && come("one-more", true).is_some(), "who has gone makes room");
    assert_eq!(world.rollouts.view().len(), super::MAX_GROUPS);
    assert!(!world.rollouts.is_first(), "it was said that there are too many, and is not said again");
}

#[tokio::test(start_paused = true)]
async fn four_roles_in_each_of_five_zones_have_canaries_without_certificates() {
    let world = World::new();
    let feed: Arc<dyn SnapshotFeed> = world.store.clone();
    let come = |role: usize, zone: usize, types: Types| {
        let scope = NodeScope { zone: format!("zone-{zone}").into(), ..scope_of("n", &format!("role-{role}")) };
        world.rollouts.place((types, (&scope, false), false), &feed, WAIT, &world.drain)
    };
    let places: Vec<_> = (0..4)
        .flat_map(|role| (0..5).map(move |zone| (role, zone)))
        .flat_map(|(role, zone)| [come(role, zone, Types::Envoy), come(role, zone, Types::Grpc)])
        .collect();
    assert!(places.iter().all(Option::is_some));
    assert!(world.rollouts.is_first(), "nothing had to be said");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_makes_room_lets_go_of_what_it_follows_at_once() {
    let world = World::new();
    let feed: Arc<dyn SnapshotFeed> = world.store.clone();
    let come =
        |role: String| world.rollouts.place((Types::Envoy, (&scope_of("n", &role), false), false), &feed, WAIT, &world.drain);
    for number in 0..1_000 {
        assert!(come(format!("stranger-{number}")).is_some());
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.rollouts.view().len(), super::MAX_UNPROVEN);
    assert!(Arc::strong_count(&world.store) < 3 * super::MAX_UNPROVEN, "{}", Arc::strong_count(&world.store));
}

#[test]
fn agents_of_ours_that_ask_for_the_types_of_others_are_a_group_of_their_own() {
    let of = |translates: bool, zone: &str| {
        GroupName::of(Types::Envoy, &NodeScope { translates, zone: zone.into(), ..scope_of("n", "gateway") })
    };
    assert_ne!(of(true, ""), of(false, ""), "what one refuses, the other may take");
    assert_eq!([of(true, ""), of(true, "a")].map(|name| name.to_string()), ["gateway/envoy-dialect", "gateway/envoy-dialect/a"]);
}

#[test]
fn nodes_without_a_place_for_their_zone_are_a_group_of_their_own() {
    let scope = |zone: &str, zoneless: bool| NodeScope { zone: zone.into(), zoneless, ..scope_of("n", "gateway") };
    let of = |zone, zoneless| GroupName::of(Types::Envoy, &scope(zone, zoneless));
    assert_eq!(of("a", true), of("b", true), "they are given the same");
    assert!(
        [of("a", false), of("", false), of("*", false)].iter().all(|other| *other != of("a", true)),
        "the others are given something else"
    );
    assert_eq!(
        [of("a", true), of("a", false), of("", false)].map(|name| name.to_string()),
        ["gateway/envoy/*", "gateway/envoy/a", "gateway/envoy"]
    );
    assert_eq!(GroupName::of(Types::Heddle, &scope("a", true)).to_string(), "gateway/heddle");
}
