//! Who is connected: streams come and go.

use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use heddle_node::clock::{self, Instant};

use super::*;
use crate::model::{Instance, MeshProtocol, Upstream};
use crate::protocol::{DeltaRequest, Dialect, NodeInfo, Types};
use crate::server::registry::Presence;
use crate::server::registry::beside::Word;
use crate::server::registry::inspect::Ask;
use crate::server::{DeltaMachine, InstanceEvent, KindView, Nack, NodeRegistry, Stands};
use crate::snapshot::Versioned;

fn came(second: u64) -> (SystemTime, Instant) {
    (at(second), clock::now())
}

fn node(id: &str) -> NodeInfo {
    NodeInfo { scope: NodeScope { id: id.into(), ..NodeScope::default() }, version: "1".into(), ..NodeInfo::default() }
}

#[test]
fn nodes_are_remembered_after_they_left() {
    let registry = Arc::new(NodeRegistry::new());
    let presence = registry.enter(node("gw-1"), Dialect::Delta, came(1));
    let held = KindView { kind: Kind::Secret, version: "7".into(), resources: 3, pending: false };
    presence.note(vec![held.clone()], Vec::new(), Some(at(2)));
    let view = registry.nodes().remove(0);
    assert_eq!((view.connected_since, view.last_contact, view.kinds), (Some(at(1)), at(2), vec![held]));
    drop(presence);
    assert_eq!((registry.connected(), registry.nodes()[0].connected_since), (0, None));
    let _again = registry.enter(node("gw-1"), Dialect::Sotw, came(5));
    assert_eq!((registry.nodes().len(), registry.nodes()[0].connected_since), (1, Some(at(5))));
}

#[tokio::test]
async fn the_streams_of_a_node_tell_each_other_of_clusters_and_nobody_else() {
    let registry = Arc::new(NodeRegistry::new());
    let of = |id: &str, service: &str| {
        let mut node = node(id);
        node.scope.service = service.into();
        registry.enter(node, Dialect::Delta, came(1))
    };
    let (mut clusters, mut endpoints) = (of("gw-1", "edge"), of("gw-1", "edge"));
    let mut strangers = [of("gw-1", "other"), of("gw-2", "edge"), of("gw-1", "")];
    let store = SnapshotStore::new();
    let mut machine = DeltaMachine::new(NodeScope::default(), 0).speaking(Types::Envoy);
    machine.request(DeltaRequest::new(Kind::Upstream), &store, at(1)).unwrap();
    for version in ["1", "2", "3"] {
        let cluster = |name: &str| Resource::Upstream(Arc::new(Upstream::new(name)));
        store.apply_encoded(["a", "b"].map(|name| Ok(Versioned::encoded(cluster(name), version.into()))).into());
        machine.changes(since(&store, machine.position()), &store);
        for response in drain(&mut machine, &store) {
            let answer = DeltaRequest { nonce: response.nonce, ..DeltaRequest::new(Kind::Upstream) };
            machine.request(answer, &store, at(1)).unwrap();
        }
        clusters.update(&mut machine, 1, None);
    }
    let Some(Ask::Beside(Word { clusters: told, .. })) = endpoints.asked().await else { panic!("clusters") };
    assert_eq!(told, ["a".into(), "b".into()].into(), "each once, however often it changed");
    for stranger in &mut strangers {
        assert!(stranger.asked().now_or_never().is_none());
    }
}

#[test]
fn the_streams_of_a_node_tell_each_other_how_it_stands_to_what_it_was_told() {
    let registry = Arc::new(NodeRegistry::new());
    let [mut clusters, mut routes] = [(); 2].map(|()| registry.enter(node("gw-1"), Dialect::Delta, came(1)));
    let mut stranger = registry.enter(node("gw-2"), Dialect::Delta, came(1));
    let store = secrets(&["a"]);
    let machine = |kind: Kind| {
        let mut machine = DeltaMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
        machine.request(DeltaRequest::new(kind), &store, at(1)).unwrap();
        drain(&mut machine, &store);
        machine
    };
    fn hears(presence: &mut Presence) -> Option<Stands> {
        match presence.asked().now_or_never()? {
            Some(Ask::Beside(Word { stands, .. })) => stands.map(|stands| *stands),
            _ => panic!("how others stand"),
        }
    }
    let (mut by_clusters, mut by_routes) = (machine(Kind::Upstream), machine(Kind::Secret));
    clusters.update(&mut by_clusters, 1, None);
    routes.update(&mut by_routes, 1, None);
    assert_eq!((hears(&mut routes), hears(&mut clusters)), (Some(by_clusters.stands()), Some(by_routes.stands())));
    routes.update(&mut by_routes, 1, None);
    assert_eq!(hears(&mut clusters), None, "nothing is new");
    routes.update(&mut by_routes, 2, None);
    assert_eq!(hears(&mut clusters), Some(Stands::default()), "it looks elsewhere, where positions mean something else");
    // What it refused it goes on with, though the stream has ended, until it comes back for that.
    let nack = DeltaRequest { nonce: "1".into(), error: Some("no".to_owned()), ..DeltaRequest::new(Kind::Secret) };
    by_routes.request(nack, &store, at(1)).unwrap();
    routes.update(&mut by_routes, 1, None);
    assert_eq!(hears(&mut clusters), Some(by_routes.stands()));
    drop(routes);
    assert_eq!(hears(&mut clusters), Some(by_routes.stands().ended()));
    let mut again = registry.enter(node("gw-1"), Dialect::Delta, came(2));
    let mut by_routes = machine(Kind::Secret);
    again.update(&mut by_routes, 1, None);
    assert_eq!(hears(&mut clusters), Some(by_routes.stands()));
    assert_eq!(hears(&mut stranger), None);
}

#[test]
fn a_node_with_a_stream_for_each_type_is_shown_as_one() {
    let registry = Arc::new(NodeRegistry::new());
    let held = |kind, resources| KindView { kind, version: "7".into(), resources, pending: false };
    let nack = |kind: Kind| Nack {
        kind,
        name: "n".into(),
        version: "".into(),
        field: String::new(),
        reason: "no".into(),
        time: at(3),
        parts: Arc::default(),
    };
    let old = registry.enter(node("gw-1"), Dialect::Delta, came(1));
    old.note(vec![held(Kind::Route, 1)], vec![nack(Kind::Route)], Some(at(9)));
    let clusters = registry.enter(node("gw-1"), Dialect::Delta, came(2));
    clusters.note(vec![held(Kind::Upstream, 5)], vec![nack(Kind::Upstream)], Some(at(4)));
    let routes = registry.enter(node("gw-1"), Dialect::Delta, came(3));
    routes.note(vec![held(Kind::Route, 2)], Vec::new(), Some(at(5)));
    let _other_way = registry.enter(node("gw-1"), Dialect::Sotw, came(4));
    let views = registry.nodes();
    let [view, other] = &views[..] else { panic!("{views:?}") };
    assert_eq!((view.streams, view.connected_since, view.last_contact), (3, Some(at(1)), at(9)));
    assert_eq!(view.kinds, [held(Kind::Upstream, 5), held(Kind::Route, 2)], "of routes the later stream says it");
    assert_eq!(view.nacks, [nack(Kind::Upstream)]);
    assert_eq!((other.streams, other.dialect), (1, Dialect::Sotw));
}

#[test]
fn an_old_stream_that_ends_late_does_not_hide_the_new_one() {
    let registry = Arc::new(NodeRegistry::new());
    let old = registry.enter(node("gw-1"), Dialect::Delta, came(1));
    let _new = registry.enter(node("gw-1"), Dialect::Delta, came(2));
    drop(old);
    assert_eq!(registry.nodes().iter().map(|view| view.connected_since).collect::<Vec<_>>(), [Some(at(2))]);
}

#[test]
fn the_memory_of_those_that_left_is_bounded() {
    let registry = Arc::new(NodeRegistry::new());
    for n in 0..1100 {
        drop(registry.enter(node(&format!("gw-{n}")), Dialect::Delta, came(n)));
    }
    assert_eq!(registry.nodes().len(), 1000);
    assert!(registry.nodes().iter().all(|view| view.last_contact >= at(100)), "the oldest are forgotten");
}

fn instance(draining: bool) -> Instance {
    Instance {
        address: "10.0.0.1".into(),
        port: 15006,
        protocol: MeshProtocol::Http,
        ports: Vec::new(),
        version: "".into(),
        labels: Vec::new(),
        draining,
        process: 0,
        application: 0,
        is_seen: false,
    }
}

fn with_instance(id: &str) -> NodeInfo {
    NodeInfo { instance: Some(instance(false)), ..node(id) }
}

#[test]
fn a_member_that_changes_its_mind_a_thousand_times_is_heard_now_and_then_and_with_its_last_word() {
    let registry = Arc::new(NodeRegistry::new());
    let (wall, start) = came(1);
    let mut presence = registry.enter(with_instance("a"), Dialect::Delta, (wall, start));
    let follower = registry.follow_instances();
    let (mut events, mut heard) = (Vec::new(), 0);
    for n in 0..1_000_u16 {
        presence.instance(Some(Instance { port: n + 1, ..instance(false) }), start);
        follower.take(&mut events, 100);
        heard += events.drain(..).count();
    }
    assert!(heard <= 11, "{heard}");
    let due = presence.late_until().unwrap();
    presence.catch_up(due);
    follower.take(&mut events, 100);
    let [InstanceEvent::Joined { node, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((node.instance.as_ref().unwrap().port, presence.late_until()), (1_000, None));

    // Who does not listen for a while hears the newest word only, and nothing of those that came and went.
    events.clear();
    for n in 0..5_u16 {
        presence.instance(Some(Instance { port: n + 1, ..instance(false) }), due + Duration::from_secs(100));
        drop(registry.enter(with_instance("short"), Dialect::Delta, came(2)));
    }
    follower.take(&mut events, 100);
    assert_eq!(events.len(), 1);
    presence.expect_back(true);
    drop(presence);
    follower.take(&mut events, 100);
    assert!(matches!(events[1], InstanceEvent::Left { awaited: true, .. }));
}

#[test]
fn instances_come_say_that_they_drain_and_go() {
    let registry = Arc::new(NodeRegistry::new());
    let early = registry.enter(with_instance("a"), Dialect::Delta, came(1));
    let _gateway = registry.enter(node("gw"), Dialect::Delta, came(1));
    let follower = registry.follow_instances();
    let mut events = Vec::new();
    follower.take(&mut events, 100);
    let mut late = registry.enter(with_instance("b"), Dialect::Delta, came(2));
    late.instance(Some(instance(false)), came(2).1);
    follower.take(&mut events, 100);
    late.instance(Some(Instance { address: "".into(), ..instance(true) }), came(2).1);
    drop(early);
    follower.take(&mut events, 100);
    let mut seen = Vec::new();
    for event in events {
        seen.push(match event {
            InstanceEvent::Joined { stream, node } => {
                let instance = node.instance.unwrap();
                assert_eq!(&*instance.address, "10.0.0.1");
                format!("{stream} {} {}", node.scope.id, if instance.draining { "drains" } else { "is there" })
            }
            InstanceEvent::Left { stream, .. } => format!("{stream} left"),
        });
    }
    assert_eq!(seen, ["0 a is there", "2 b is there", "2 b drains", "0 left"]);
}
