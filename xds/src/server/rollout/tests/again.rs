//! A group that has begun anew, in which one version after the other is refused of something that nodes had before: they go on with what they have, the canary
//! too, and with all that it leads to. By delta and by the state of the world, for routes and for listeners.

use std::collections::BTreeSet;

use super::*;
use crate::protocol::{SotwRequest, SotwResponse};
use crate::server::SotwMachine;
use crate::server::tests::{listener, resource};
use crate::snapshot::Versioned;

/// What an Envoy has, with contents.
type Has = BTreeMap<(Kind, String), String>;

/// What is called so: an upstream, its endpoints, and a secret.
const SUPPORT: [Kind; 3] = [Kind::Upstream, Kind::Endpoints, Kind::Secret];
/// In the order in which an Envoy asks.
const ASKED: [Kind; 5] = [Kind::Upstream, Kind::Endpoints, Kind::Listener, Kind::Route, Kind::Secret];
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "it"];
/// Begins what an Envoy refuses.
const BAD: &str = "bad";

fn names_of(kind: Kind) -> Vec<Arc<str>> {
    let is_list = matches!(kind, Kind::Upstream | Kind::Listener);
    if is_list { Vec::new() } else { NAMES.map(Arc::from).into() }
}

/// A resource with a body of ours: its name, and what it leads to.
fn put(kind: Kind, name: &str, content: &str) -> Result<Versioned, (Kind, Arc<str>)> {
    let change = match kind {
        Kind::Upstream => upstream(name),
        Kind::Route => route(name, "x", None),
        Kind::Listener => listener(name, &[]),
        _ => Change::Set(resource(kind, name, "10.0.0.1")),
    };
    let Change::Set(resource) = change else { panic!("set") };
    Ok(Versioned::encoded(resource, format!("{name}={content}").into_bytes().into()))
}

/// A machine, and an Envoy's side of it.
trait Spoken: Machine + Sized {
    /// How it begins.
    fn begin(scope: NodeScope, position: u64) -> Self;
    /// The first request for a kind.
    fn first(kind: Kind, has: &Has) -> Self::Request;
    /// Takes a response as an Envoy does, and answers.
    fn take(response: Self::Response, has: &mut Has) -> Self::Request;
    /// Names that nodes had before the control plane began anew and that it does not know: by the state of the world a canary loses those.
    const KNOWN_BEFORE: &str;
}

/// Takes what is good; why the rest is refused.
fn taken<'a>(kind: Kind, bodies: impl Iterator<Item = &'a [u8]>, has: &mut Has) -> (BTreeSet<String>, Option<String>) {
    let (mut told, mut error) = (BTreeSet::new(), None);
    for body in bodies {
        let (name, content) = std::str::from_utf8(body).unwrap().split_once('=').unwrap();
        told.insert(name.to_owned());
        match content.starts_with(BAD) {
            true => error = Some(format!("Error adding/updating: {name}: not this one")),
            false => drop(has.insert((kind, name.to_owned()), content.to_owned())),
        }
    }
    (told, error)
}

impl Spoken for DeltaMachine {
    const KNOWN_BEFORE: &str = "a,b";

    fn begin(scope: NodeScope, position: u64) -> Self {
        DeltaMachine::new(scope, position).speaking(Types::Envoy)
    }

    fn first(kind: Kind, has: &Has) -> DeltaRequest {
        let initial = has
            .iter()
            .filter(|((of, _), _)| *of == kind)
            .map(|((_, name), content)| (Arc::from(&**name), put(kind, name, content).unwrap().version));
        DeltaRequest { initial: initial.collect(), subscribe: names_of(kind), ..DeltaRequest::new(kind) }
    }

    fn take(response: DeltaResponse, has: &mut Has) -> DeltaRequest {
        let DeltaResponse { kind, nonce, resources, removed, .. } = response;
        let (_, error) = taken(kind, resources.iter().map(|raw| &*raw.body), has);
        removed.iter().for_each(|name| drop(has.remove(&(kind, name.to_string()))));
        DeltaRequest { nonce, error, ..DeltaRequest::new(kind) }
    }
}

impl Spoken for SotwMachine {
    const KNOWN_BEFORE: &str = "a";

    fn begin(scope: NodeScope, position: u64) -> Self {
        SotwMachine::new(scope, position).speaking(Types::Envoy)
    }

    fn first(kind: Kind, has: &Has) -> SotwRequest {
        let version = if has.keys().any(|(of, _)| *of == kind) { "before" } else { "" };
        SotwRequest { kind, version: version.into(), names: names_of(kind).iter().collect(), nonce: "".into(), error: None }
    }

    fn take(response: SotwResponse, has: &mut Has) -> SotwRequest {
        let SotwResponse { kind, version, nonce, resources } = response;
        let (told, error) = taken(kind, resources.iter().map(|raw| &*raw.body), has);
        if matches!(kind, Kind::Upstream | Kind::Listener) {
            has.retain(|(of, name), _| *of != kind || told.contains(name));
        }
        let version = if error.is_some() { "before".into() } else { version };
        SotwRequest { kind, version, names: names_of(kind).iter().collect(), nonce, error }
    }
}

struct Envoy<M> {
    place: Place,
    machine: M,
    view: Arc<View>,
    has: Has,
    /// Something that it has led to nothing at some time.
    lost: Vec<String>,
}

fn comes(world: &World, id: &str) -> Place {
    let (feed, scope): (Arc<dyn SnapshotFeed>, _) = (world.store.clone(), scope_of(id, "gateway"));
    world.rollouts.place((Types::Envoy, (&scope, true), true), &feed, WAIT, &world.drain).unwrap()
}

impl<M: Spoken> Envoy<M> {
    async fn asks(mut place: Place, id: &str, has: Has) -> Envoy<M> {
        place.begin().await;
        let view = place.seat().view();
        let mut machine = M::begin(scope_of(id, "gateway"), view.position());
        for kind in ASKED {
            machine.request(M::first(kind, &has), &*view, at(0)).unwrap();
        }
        let mut envoy = Envoy { place, machine, view, has, lost: Vec::new() };
        envoy.goes_on();
        envoy
    }

    /// Looks, and answers to everything at once.
    fn goes_on(&mut self) {
        loop {
            self.machine_looks();
            let Some(response) = self.machine.response(&*self.view) else { break };
            let request = M::take(response, &mut self.has);
            self.look_whether_it_serves();
            self.machine.request(request, &*self.view, at(7)).unwrap();
            self.place.report(&self.machine);
        }
        self.place.report(&self.machine);
    }

    fn machine_looks(&mut self) {
        while self.machine.is_free()
            && let Some(view) = self.place.next().now_or_never()
        {
            self.view = view.unwrap().0;
            self.machine.changes(self.place.changes(self.machine.position(), &self.view), &*self.view);
        }
    }

    fn look_whether_it_serves(&mut self) {
        for ((kind, _), content) in self.has.iter().filter(|((kind, _), _)| !SUPPORT.contains(kind)) {
            for name in content.split(',') {
                let is_there = |kind: &Kind| self.has.contains_key(&(*kind, name.to_owned()));
                let missing: Vec<_> = SUPPORT.iter().filter(|kind| !is_there(kind)).collect();
                if !missing.is_empty() {
                    self.lost.push(format!("{kind:?} of {content} without {missing:?} {name}"));
                }
            }
        }
    }

    fn names(&self, kind: Kind) -> Vec<&str> {
        self.has.keys().filter(|(of, _)| *of == kind).map(|(_, name)| &**name).collect()
    }
}

/// The control plane and two Envoys, the first of which is the canary.
struct Story<M> {
    world: World,
    kind: Kind,
    nodes: Vec<Envoy<M>>,
}

impl<M: Spoken> Story<M> {
    /// The control plane was away while `b` was replaced by `c`, and begins with a version that is refused. `count` nodes come back.
    async fn begins(kind: Kind, count: usize) -> Story<M> {
        let world = World::new();
        let support = |name: &'static str| SUPPORT.map(|kind| put(kind, name, ""));
        world.store.apply_encoded(["a", "c"].into_iter().flat_map(support).chain([put(kind, "it", "bad a,c")]).collect());
        let mut has: Has = [((kind, "it".to_owned()), M::KNOWN_BEFORE.to_owned())].into();
        for name in M::KNOWN_BEFORE.split(',') {
            has.extend(SUPPORT.map(|kind| ((kind, name.to_owned()), String::new())));
        }
        let ids = &["one", "two"][..count];
        let places: Vec<Place> = ids.iter().map(|id| comes(&world, id)).collect();
        let mut story = Story { world, kind, nodes: Vec::new() };
        for (place, id) in places.into_iter().zip(ids) {
            story.nodes.push(Envoy::asks(place, id, has.clone()).await);
        }
        story.settle().await;
        story
    }

    async fn settle(&mut self) {
        for _ in 0..10 {
            sleep(SOON).await;
            self.nodes.iter_mut().for_each(Envoy::goes_on);
        }
    }

    /// As one step: names that come and that go, and the next version.
    async fn then(&mut self, come: &[&str], go: &[&str], next: Option<&str>) {
        let come = come.iter().flat_map(|name| SUPPORT.map(|kind| put(kind, name, "")));
        let go = go.iter().flat_map(|name| SUPPORT.map(|kind| Err((kind, Arc::from(*name)))));
        self.world.store.apply_encoded(come.chain(go).chain(next.map(|next| put(self.kind, "it", next))).collect());
        self.settle().await;
    }

    fn held(&self) -> Vec<String> {
        let all = self.world.rollouts.view().into_iter().flat_map(|group| group.held);
        all.map(|held| format!("{} by {}: {}", held.name, held.node, held.version)).collect()
    }

    /// The stream of the first node is lost, and it comes back.
    async fn comes_back(&mut self) {
        let Envoy { place, has, lost, .. } = self.nodes.remove(0);
        drop(place);
        self.settle().await;
        let back = Envoy::asks(comes(&self.world, "one"), "one", has).await;
        self.nodes.insert(0, Envoy { lost, ..back });
        self.settle().await;
    }

    /// Everybody goes on as before, and the newest version is held.
    fn goes_on_as_before(&self, newest: &str, by: &str) {
        let version = put(self.kind, "it", newest).unwrap().version;
        assert_eq!(self.held(), [format!("it by {by}: {version}")]);
        self.goes_on_with_what_it_had(newest);
    }

    fn goes_on_with_what_it_had(&self, newest: &str) {
        for (number, node) in self.nodes.iter().enumerate() {
            let it = node.has.get(&(self.kind, "it".to_owned())).map(String::as_str);
            assert_eq!((it, &*node.lost), (Some(M::KNOWN_BEFORE), &[][..]), "{number}, {newest}: {:?}", node.has.keys());
        }
    }

    fn ends_with(&self, version: &str) {
        for (number, node) in self.nodes.iter().enumerate() {
            assert_eq!(node.has.get(&(self.kind, "it".to_owned())).map(String::as_str), Some(version), "{number}");
            assert_eq!((node.names(Kind::Upstream), &*node.lost), (vec![version], &[][..]), "{number}");
        }
        let group = &self.world.rollouts.view()[0];
        assert!(group.held.is_empty() && group.kept.is_empty() && group.trying == 0, "{group:?}");
    }
}

async fn goes_on_however_many_are_refused<M: Spoken>() {
    for (kind, count) in [(Kind::Route, 1), (Kind::Route, 2), (Kind::Listener, 1), (Kind::Listener, 2)] {
        let mut story = Story::<M>::begins(kind, count).await;
        story.goes_on_as_before("bad a,c", "one");
        story.then(&[], &["a"], Some("bad c")).await;
        story.goes_on_as_before("bad c", "one");
        story.then(&["d"], &[], Some("bad d")).await;
        story.goes_on_as_before("bad d", "one");
        story.then(&["e"], &["c"], None).await;
        story.goes_on_as_before("bad d", "one");
        story.comes_back().await;
        story.then(&[], &["e"], Some("bad d again")).await;
        story.goes_on_as_before("bad d again", if count == 1 { "one" } else { "two" });
        assert!(!story.world.rollouts.view()[0].kept.is_empty());
        story.then(&[], &[], Some("d")).await;
        story.ends_with("d");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_nodes_go_on_by_delta_however_many_versions_are_refused() {
    goes_on_however_many_are_refused::<DeltaMachine>().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_nodes_go_on_by_state_of_the_world_however_many_versions_are_refused() {
    goes_on_however_many_are_refused::<SotwMachine>().await;
}

async fn goes_on_where_the_next_is_there_before_the_first_is_refused<M: Spoken>() {
    for kind in [Kind::Route, Kind::Listener] {
        let world = World::new();
        let support = |name: &'static str| SUPPORT.map(|kind| put(kind, name, ""));
        world.store.apply_encoded(support("a").into_iter().chain([put(kind, "it", "bad a")]).collect());
        let mut has: Has = [((kind, "it".to_owned()), "a".to_owned())].into();
        has.extend(SUPPORT.map(|kind| ((kind, "a".to_owned()), String::new())));
        let place = comes(&world, "one");
        let mut story: Story<M> = Story { world, kind, nodes: Vec::new() };
        let change =
            support("c").into_iter().chain(SUPPORT.map(|kind| Err((kind, Arc::from("a"))))).chain([put(kind, "it", "bad c")]);
        sleep(Duration::from_millis(5)).await;
        story.world.store.apply_encoded(change.collect());
        story.nodes.push(Envoy::asks(place, "one", has).await);
        story.settle().await;
        story.then(&["d"], &[], Some("bad d")).await;
        let it = story.nodes[0].has.get(&(kind, "it".to_owned())).map(String::as_str);
        assert_eq!((it, story.held().len()), (Some("a"), 1));
        let late = Envoy::<M>::asks(comes(&story.world, "late"), "late", story.nodes[0].has.clone()).await;
        story.nodes.push(late);
        story.settle().await;
        assert_eq!(story.nodes[1].has.get(&(kind, "it".to_owned())).map(String::as_str), Some("a"));
        story.then(&[], &["c"], Some("d")).await;
        assert_eq!(story.nodes[1].has.get(&(kind, "it".to_owned())).map(String::as_str), Some("d"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_before_the_first_version_is_refused_is_left_too() {
    goes_on_where_the_next_is_there_before_the_first_is_refused::<DeltaMachine>().await;
    goes_on_where_the_next_is_there_before_the_first_is_refused::<SotwMachine>().await;
}

async fn goes_when_it_is_removed<M: Spoken>() {
    for kind in [Kind::Route, Kind::Listener] {
        let mut story = Story::<M>::begins(kind, 2).await;
        story.then(&[], &["a"], Some("bad c")).await;
        story.world.apply(vec![gone(kind, "it")]).await;
        story.settle().await;
        for node in &story.nodes {
            // By the state of the world routes are taken from nobody, but no longer meant.
            let serves = node.lost.is_empty() || node.has.contains_key(&(Kind::Route, "it".to_owned()));
            assert_eq!((node.names(Kind::Upstream), serves), (vec!["c"], true), "{kind:?}: {:?}", node.lost);
            assert!(node.names(Kind::Listener).is_empty(), "{kind:?}");
        }
        assert!(story.held().is_empty() && story.world.rollouts.view()[0].kept.is_empty());
        let mut story = Story::<M>::begins(kind, 2).await;
        story.then(&["d"], &["a"], Some("bad d")).await;
        assert_eq!(story.world.rollouts.resume("gateway/envoy"), Some(1));
        story.settle().await;
        story.goes_on_with_what_it_had("bad d");
        assert!(story.held().is_empty() && story.world.rollouts.view()[0].kept.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_several_versions_were_refused_of_goes_when_it_is_removed_and_on_when_somebody_says_so() {
    goes_when_it_is_removed::<DeltaMachine>().await;
    goes_when_it_is_removed::<SotwMachine>().await;
}
