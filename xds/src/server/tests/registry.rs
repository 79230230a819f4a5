//! Who is connected: streams come and go.

use super::*;
use crate::model::{Instance, MeshProtocol};
use crate::protocol::{Dialect, NodeInfo};
use crate::server::{InstanceEvent, KindView, NodeRegistry};

fn node(id: &str) -> NodeInfo {
    NodeInfo { scope: NodeScope { id: id.into(), ..NodeScope::default() }, version: "1".into(), instance: None }
}

#[test]
fn nodes_are_remembered_after_they_left() {
    let registry = Arc::new(NodeRegistry::new());
    let presence = registry.enter(node("gw-1"), Dialect::Delta, at(1));
    let held = KindView { kind: Kind::Secret, version: "7".into(), resources: 3, pending: false };
    presence.update(vec![held.clone()], Vec::new(), Some(at(2)));
    let view = registry.nodes().remove(0);
    assert_eq!((view.connected_since, view.last_contact, view.kinds), (Some(at(1)), at(2), vec![held]));
    drop(presence);
    assert_eq!((registry.connected(), registry.nodes()[0].connected_since), (0, None));
    let _again = registry.enter(node("gw-1"), Dialect::Sotw, at(5));
    assert_eq!((registry.nodes().len(), registry.nodes()[0].connected_since), (1, Some(at(5))));
}

#[test]
fn an_old_stream_that_ends_late_does_not_hide_the_new_one() {
    let registry = Arc::new(NodeRegistry::new());
    let old = registry.enter(node("gw-1"), Dialect::Delta, at(1));
    let _new = registry.enter(node("gw-1"), Dialect::Delta, at(2));
    drop(old);
    assert_eq!(registry.nodes().iter().map(|view| view.connected_since).collect::<Vec<_>>(), [Some(at(2))]);
}

#[test]
fn the_memory_of_those_that_left_is_bounded() {
    let registry = Arc::new(NodeRegistry::new());
    for n in 0..1100 {
        drop(registry.enter(node(&format!("gw-{n}")), Dialect::Delta, at(n)));
    }
    assert_eq!(registry.nodes().len(), 1000);
    assert!(registry.nodes().iter().all(|view| view.last_contact >= at(100)), "the oldest are forgotten");
}

#[test]
fn instances_come_say_that_they_drain_and_go() {
    let registry = Arc::new(NodeRegistry::new());
    let instance = |draining| Instance {
        address: "10.0.0.1".into(),
        port: 15006,
        protocol: MeshProtocol::Http,
        version: "".into(),
        labels: Vec::new(),
        draining,
    };
    let with = |id: &str| NodeInfo { instance: Some(instance(false)), ..node(id) };
    let early = registry.enter(with("a"), Dialect::Delta, at(1));
    let _gateway = registry.enter(node("gw"), Dialect::Delta, at(1));
    let mut events = registry.follow_instances();
    let late = registry.enter(with("b"), Dialect::Delta, at(2));
    late.instance(Some(instance(false)));
    late.instance(Some(Instance { address: "".into(), ..instance(true) }));
    drop(early);
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(match event {
            InstanceEvent::Joined { stream, node } => {
                let instance = node.instance.unwrap();
                assert_eq!(&*instance.address, "10.0.0.1");
                format!("{stream} {} {}", node.scope.id, if instance.draining { "drains" } else { "is there" })
            }
            InstanceEvent::Left { stream } => format!("{stream} left"),
        });
    }
    assert_eq!(seen, ["0 a is there", "2 b is there", "2 b drains", "0 left"]);
}
