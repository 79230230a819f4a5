//! Versions follow content; readers learn exactly what changed, or that they must look again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{EdgeLimits, Listener, ListenerProtocol, PathPolicy, ProxyProtocol, Secret, SecretBody, ServerHeader};

fn secret(name: &str, pem: &str) -> Resource {
    Resource::Secret(Secret { name: name.into(), body: SecretBody::Roots(pem.into()) })
}

fn listener(name: &str, nodes: &[&str]) -> Resource {
    Resource::Listener(Listener {
        name: name.into(),
        address: "127.0.0.1:0".parse().unwrap(),
        protocol: ListenerProtocol::Http,
        proxy_protocol: ProxyProtocol::Off,
        forwarded: Default::default(),
        limits: EdgeLimits::default(),
        paths: PathPolicy::default(),
        server_header: ServerHeader::default(),
        expose_reason: false,
        nodes: nodes.iter().map(|node| Arc::from(*node)).collect(),
        tcp: Vec::new(),
    })
}

fn set(resource: Resource) -> Change {
    Change::Set(resource)
}

fn since(store: &SnapshotStore, position: u64) -> Changes {
    store.changed_between(position, store.position())
}

fn names(changes: Changes) -> Option<Vec<String>> {
    Some(changes.names?.into_iter().map(|(kind, name)| format!("{} {name}", kind.as_str())).collect())
}

#[test]
fn equal_content_keeps_its_version_and_wakes_nobody() {
    let store = SnapshotStore::new();
    assert!(store.apply(vec![set(secret("a", "1"))]));
    let mut watch = store.watch();
    let first = store.get(Kind::Secret, "a", &NodeScope::default()).unwrap();
    assert!(!store.apply(vec![set(secret("a", "1")), Change::Remove(Kind::Secret, "b".into())]));
    assert!(!watch.has_changed().unwrap());
    assert!(Arc::ptr_eq(&first, &store.get(Kind::Secret, "a", &NodeScope::default()).unwrap()));
    assert!(store.apply(vec![set(secret("a", "2"))]));
    assert_eq!(*watch.borrow_and_update(), 2);
    assert_ne!(first.version, store.get(Kind::Secret, "a", &NodeScope::default()).unwrap().version);
}

#[test]
fn versions_are_the_same_in_another_process() {
    let one = Versioned::new(secret("a", "1"));
    assert_eq!(one.version, Versioned::new(secret("a", "1")).version);
    assert_eq!(one.version.len(), 32);
}

#[test]
fn readers_are_told_what_changed() {
    let store = SnapshotStore::new();
    store.apply(vec![set(secret("a", "1")), set(secret("b", "1"))]);
    let at = store.position();
    store.apply(vec![set(secret("a", "2")), Change::Remove(Kind::Secret, "b".into())]);
    assert_eq!(names(since(&store, at)), Some(vec!["Secret a".to_string(), "Secret b".to_string()]));
    assert_eq!(names(since(&store, store.position())), Some(vec![]));
}

#[test]
fn readers_that_lag_look_at_everything() {
    let store = SnapshotStore::with_log(2);
    store.apply((0..5).map(|n| set(secret(&n.to_string(), "x"))).collect());
    assert_eq!(names(since(&store, 2)), None);
    assert_eq!(names(since(&store, 3)).map(|names| names.len()), Some(2));
    assert_eq!(names(since(&store, 9)), None, "a position of the future belongs to another store");
}

#[test]
fn listeners_may_name_their_nodes() {
    let store = SnapshotStore::new();
    store.apply(vec![set(listener("all", &[])), set(listener("one", &["gw-1"]))]);
    let scope = |id: &str| NodeScope { id: id.into(), ..NodeScope::default() };
    assert_eq!(store.list(Kind::Listener, &scope("gw-1")).len(), 2);
    assert_eq!(store.list(Kind::Listener, &scope("gw-2")).len(), 1);
    assert!(store.get(Kind::Listener, "one", &scope("gw-2")).is_none());
}

#[test]
fn what_another_view_leaves_untold_is_untold_where_it_is_taken_over() {
    let (here, there) = (SnapshotStore::new(), SnapshotStore::new());
    here.apply(vec![set(secret("a", "1"))]);
    let names = [(Kind::Secret, Arc::from("a"))];
    there.leave(&names);
    assert!(here.take_over(&names, &there.view(), None));
    assert!(here.get(Kind::Secret, "a", &NodeScope::default()).is_none() && here.is_untold(Kind::Secret, "a"));
    assert!(!here.take_over(&names, &there.view(), None), "the same again is no change");
    there.apply(vec![Change::Remove(Kind::Secret, "a".into())]);
    assert!(here.take_over(&names, &there.view(), None) && !here.is_untold(Kind::Secret, "a"));
}

#[test]
fn replacing_all_removes_the_rest() {
    let store = SnapshotStore::new();
    store.apply(vec![set(secret("a", "1")), set(secret("b", "1"))]);
    let at = store.position();
    assert!(store.replace_all(vec![secret("b", "1"), secret("c", "1")]));
    assert_eq!(names(since(&store, at)), Some(vec!["Secret c".to_string(), "Secret a".to_string()]));
    assert_eq!(store.count(Kind::Secret), 2);
}

proptest! {
    /// A reader that follows the log sees the same as one that lists.
    #[test]
    fn following_changes_equals_listing(steps in proptest::collection::vec((0u8..6, 0u8..4, any::<bool>()), 0..60), log in 1usize..8) {
        let store = SnapshotStore::with_log(log);
        let scope = NodeScope::default();
        let mut seen: std::collections::BTreeMap<Arc<str>, Arc<str>> = Default::default();
        let mut at = 0;
        for (name, content, look) in steps {
            let name: Arc<str> = name.to_string().into();
            store.apply(vec![match content {
                0 => Change::Remove(Kind::Secret, name),
                n => set(secret(&name, &n.to_string())),
            }]);
            if look {
                let changes = since(&store, at);
                at = changes.position;
                match changes.names {
                    Some(names) => for (kind, name) in names {
                        match store.get(kind, &name, &scope) {
                            Some(versioned) => seen.insert(name, versioned.version.clone()),
                            None => seen.remove(&name),
                        };
                    },
                    None => seen = store.list(Kind::Secret, &scope).iter().map(|v| (v.resource.name().clone(), v.version.clone())).collect(),
                }
                let listed = store.list(Kind::Secret, &scope).iter().map(|v| (v.resource.name().clone(), v.version.clone())).collect();
                prop_assert_eq!(&seen, &listed);
            }
        }
    }
}
