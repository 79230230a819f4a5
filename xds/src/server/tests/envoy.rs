//! What Envoy's types ask of the machines besides: endpoints behind every changed cluster, and routes behind both.

use bytes::Bytes;

use super::*;
use crate::model::{Resource, Route, RouteMatch, Upstream};
use crate::protocol::{DeltaRequest, DeltaResponse, SotwRequest, SotwResponse, Types};
use crate::server::{DeltaMachine, SotwMachine};
use crate::snapshot::Versioned;

fn stands(kind: Kind, name: &str) -> Resource {
    let name: Arc<str> = name.into();
    match kind {
        Kind::Upstream => Resource::Upstream(Arc::new(Upstream::new(name))),
        Kind::Route => Resource::Route(Route {
            id: name,
            name: "".into(),
            service_id: "".into(),
            service_name: "".into(),
            matches: RouteMatch::default(),
            priority: 0,
            created: 0,
            plugins: Vec::new(),
            upstream: None,
            timeouts: None,
            enable_websocket: false,
            max_duration: None,
        }),
        kind => resource(kind, &name, "10.0.0.1"),
    }
}

/// Puts something of this content into the snapshot.
pub(super) fn put(store: &SnapshotStore, kind: Kind, name: &str, content: &'static str) {
    store.apply_encoded(vec![Ok(Versioned::encoded(stands(kind, name), Bytes::from_static(content.as_bytes())))]);
}

pub(super) fn world() -> SnapshotStore {
    let store = SnapshotStore::new();
    put(&store, Kind::Upstream, "u", "cluster 1");
    put(&store, Kind::Endpoints, "u", "endpoints");
    put(&store, Kind::Route, "heddle", "routes 1");
    store
}

pub(super) fn delta(kind: Kind, names: &[&str], nonce: &str) -> DeltaRequest {
    let subscribe = names.iter().map(|name| Arc::from(*name)).collect();
    DeltaRequest { subscribe, nonce: nonce.into(), ..DeltaRequest::new(kind) }
}

pub(super) fn sotw(kind: Kind, names: &[&str], (version, nonce): (&str, &str)) -> SotwRequest {
    let names = names.iter().collect();
    SotwRequest { kind, version: version.into(), names, nonce: nonce.into(), error: None }
}

/// Nodes that hold clusters, endpoints and routes, and have said so.
pub(super) fn holding(store: &SnapshotStore) -> (DeltaMachine, SotwMachine) {
    let mut by_delta = DeltaMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    let mut by_sotw = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    for (kind, names) in [(Kind::Upstream, &[][..]), (Kind::Endpoints, &["u"]), (Kind::Route, &["heddle"])] {
        by_delta.request(delta(kind, names, ""), store, at(1)).unwrap();
        for response in drain(&mut by_delta, store) {
            by_delta.request(delta(kind, &[], &response.nonce), store, at(1)).unwrap();
        }
        by_sotw.request(sotw(kind, names, ("", "")), store, at(1)).unwrap();
        for response in drain(&mut by_sotw, store) {
            by_sotw.request(sotw(kind, names, (&response.version, &response.nonce)), store, at(1)).unwrap();
        }
    }
    (by_delta, by_sotw)
}

#[test]
fn what_a_resource_refers_to_is_given_before_the_resource_is_confirmed() {
    let store = world();
    store.apply(vec![listener("http", &[]), set(Kind::Secret, "web", "key")]);
    let mut by_delta = DeltaMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    let mut by_sotw = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    let asked = [
        (Kind::Upstream, &[][..]),
        (Kind::Endpoints, &["u"]),
        (Kind::Listener, &[]),
        (Kind::Route, &["heddle"]),
        (Kind::Secret, &["web"]),
    ];
    for (kind, names) in asked {
        // Nothing was confirmed so far, as Envoy does it.
        by_delta.request(delta(kind, names, ""), &store, at(1)).unwrap();
        let told = drain(&mut by_delta, &store);
        assert_eq!(told.iter().map(|response| (response.kind, response.resources.len())).collect::<Vec<_>>(), [(kind, 1)]);
        by_sotw.request(sotw(kind, names, ("", "")), &store, at(1)).unwrap();
        let told = drain(&mut by_sotw, &store);
        assert_eq!(told.iter().map(|response| (response.kind, response.resources.len())).collect::<Vec<_>>(), [(kind, 1)]);
    }
}

#[test]
fn an_envoy_that_comes_back_without_asking_for_clusters_is_given_its_endpoints() {
    // While clusters warm, Envoy leaves them out when it connects anew (envoy#36951).
    let store = world();
    put(&store, Kind::Upstream, "u", "cluster 2");
    let mut machine = DeltaMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    let held = store.get(Kind::Endpoints, "u", &NodeScope::default()).unwrap();
    let initial = [(held.resource.name().clone(), held.version.clone())].into();
    machine.request(DeltaRequest { initial, ..delta(Kind::Endpoints, &["u"], "") }, &store, at(1)).unwrap();
    assert_eq!(drain(&mut machine, &store).len(), 1, "it says that it has them, but a cluster may wait for them");
    put(&store, Kind::Upstream, "u", "cluster 3");
    machine.changes(since(&store, machine.position()), &store);
    let told: Vec<_> = drain(&mut machine, &store).into_iter().map(|response| response.kind).collect();
    assert_eq!(told, [Kind::Endpoints], "the cluster may have been told on another stream");
}

#[test]
fn a_changed_cluster_is_followed_by_its_endpoints_though_they_are_the_same() {
    let store = world();
    let (mut machine, _) = holding(&store);
    put(&store, Kind::Upstream, "u", "cluster 2");
    machine.changes(since(&store, machine.position()), &store);
    let told: Vec<_> =
        drain(&mut machine, &store).into_iter().map(|response| (response.kind, response.resources.len())).collect();
    assert_eq!(told, [(Kind::Upstream, 1), (Kind::Endpoints, 1)]);
    put(&store, Kind::Endpoints, "u", "other endpoints");
    machine.changes(since(&store, machine.position()), &store);
    let told: Vec<_> = drain(&mut machine, &store).into_iter().map(|response| response.kind).collect();
    assert_eq!(told, [Kind::Endpoints], "endpoints alone are told alone");
}

#[test]
fn a_request_for_endpoints_that_is_said_again_is_answered_once() {
    let store = world();
    let (_, mut machine) = holding(&store);
    let (version, nonce) = {
        put(&store, Kind::Endpoints, "u", "other endpoints");
        machine.changes(since(&store, machine.position()), &store);
        let response = drain(&mut machine, &store).pop().unwrap();
        (response.version, response.nonce)
    };
    let said = || sotw(Kind::Endpoints, &["u"], (&version, &nonce));
    machine.request(said(), &store, at(1)).unwrap();
    assert!(drain(&mut machine, &store).is_empty(), "that was the confirmation");
    machine.request(said(), &store, at(1)).unwrap();
    let again = drain(&mut machine, &store);
    assert_eq!((again.len(), &*again[0].resources[0].body), (1, &b"other endpoints"[..]));
    let confirmed = sotw(Kind::Endpoints, &["u"], (&again[0].version, &again[0].nonce));
    machine.request(confirmed, &store, at(1)).unwrap();
    assert!(drain(&mut machine, &store).is_empty());
}

#[test]
fn an_envoy_that_comes_back_to_a_cluster_that_has_changed_is_given_endpoints_that_it_has() {
    // By delta it says which of both it has, clusters first, and never asks for their endpoints again.
    let store = world();
    let held = |kind: Kind| {
        let found = store.get(kind, "u", &NodeScope::default()).unwrap();
        [(found.resource.name().clone(), found.version.clone())].into()
    };
    let (clusters, endpoints) = (held(Kind::Upstream), held(Kind::Endpoints));
    put(&store, Kind::Upstream, "u", "cluster 2");
    let mut machine = DeltaMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    machine.request(DeltaRequest { initial: clusters, ..delta(Kind::Upstream, &[], "") }, &store, at(1)).unwrap();
    assert_eq!(drain(&mut machine, &store)[0].kind, Kind::Upstream);
    machine.request(DeltaRequest { initial: endpoints, ..delta(Kind::Endpoints, &["u"], "") }, &store, at(1)).unwrap();
    let told: Vec<_> = drain(&mut machine, &store).into_iter().map(|said| (said.kind, said.resources.len())).collect();
    assert_eq!(told, [(Kind::Endpoints, 1)]);
}

#[test]
fn an_envoy_that_comes_back_while_a_cluster_warms_is_given_endpoints_that_it_has() {
    let store = world();
    let (_, before) = holding(&store);
    let versions: Vec<_> = before.held().into_iter().map(|held| (held.kind, held.version)).collect();
    let held = |kind: Kind| versions.iter().find(|(of, _)| *of == kind).unwrap().1.clone();
    let (clusters, endpoints) = (held(Kind::Upstream), held(Kind::Endpoints));
    let mut machine = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    let said = |machine: &mut SotwMachine, request| {
        machine.request(request, &store, at(1)).unwrap();
        let told = drain(machine, &store);
        told.iter().map(|response| (response.kind, response.resources.len())).collect::<Vec<_>>()
    };
    let again = |version: &str| sotw(Kind::Endpoints, &["u"], (version, ""));
    assert!(said(&mut machine, sotw(Kind::Upstream, &[], (&clusters, ""))).is_empty(), "it has the clusters");
    assert_eq!(said(&mut machine, again(&endpoints)), [(Kind::Endpoints, 1)], "one of them may have been warming");
    // Another one comes back to clusters that have changed. It asks for their endpoints at once, and once more when they warm.
    put(&store, Kind::Upstream, "u", "cluster 2");
    let mut machine = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    assert_eq!(said(&mut machine, again(&endpoints)), [(Kind::Endpoints, 1)]);
    assert_eq!(said(&mut machine, sotw(Kind::Upstream, &[], (&clusters, ""))), [(Kind::Upstream, 1)]);
    assert!(said(&mut machine, again(&endpoints)).is_empty(), "the answer that is under way reaches it after it has asked anew");
}

#[test]
fn an_envoy_that_asks_for_fewer_endpoints_is_owed_no_answer() {
    // It does so when a cluster is gone, with the nonce that it has (state of the world).
    let store = world();
    put(&store, Kind::Endpoints, "gone", "endpoints");
    let mut machine = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    machine.request(sotw(Kind::Endpoints, &["gone", "u"], ("", "")), &store, at(1)).unwrap();
    let told = drain(&mut machine, &store).remove(0);
    let answers = |names: &[&str]| sotw(Kind::Endpoints, names, (&told.version, &told.nonce));
    machine.request(answers(&["gone", "u"]), &store, at(1)).unwrap();
    machine.request(answers(&["u"]), &store, at(1)).unwrap();
    assert!(drain(&mut machine, &store).is_empty());
    store.apply(vec![gone(Kind::Endpoints, "gone")]);
    machine.changes(since(&store, machine.position()), &store);
    assert!(drain(&mut machine, &store).is_empty(), "nor does it hear of what it left");
    put(&store, Kind::Endpoints, "u", "other endpoints");
    machine.changes(since(&store, machine.position()), &store);
    assert_eq!(drain(&mut machine, &store)[0].resources.len(), 1);
    let (mut by_delta, _) = holding(&store);
    let leaves = DeltaRequest { unsubscribe: vec!["u".into()], ..DeltaRequest::new(Kind::Endpoints) };
    by_delta.request(leaves, &store, at(1)).unwrap();
    assert!(drain(&mut by_delta, &store).is_empty());
}

#[test]
fn routes_change_once_clusters_and_endpoints_are_confirmed() {
    let store = world();
    let (mut by_delta, mut by_sotw) = holding(&store);
    put(&store, Kind::Upstream, "u", "cluster 2");
    put(&store, Kind::Route, "heddle", "routes 2");
    by_delta.changes(since(&store, by_delta.position()), &store);
    let told = drain(&mut by_delta, &store);
    assert_eq!(told.iter().map(|response| response.kind).collect::<Vec<_>>(), [Kind::Upstream, Kind::Endpoints]);
    by_delta.request(delta(Kind::Upstream, &[], &told[0].nonce), &store, at(1)).unwrap();
    assert!(drain(&mut by_delta, &store).is_empty(), "its endpoints may not have arrived");
    by_delta.request(delta(Kind::Endpoints, &[], &told[1].nonce), &store, at(1)).unwrap();
    assert_eq!(drain(&mut by_delta, &store)[0].kind, Kind::Route);
    by_sotw.changes(since(&store, by_sotw.position()), &store);
    let told = drain(&mut by_sotw, &store);
    assert_eq!(told.iter().map(|response| response.kind).collect::<Vec<_>>(), [Kind::Upstream, Kind::Endpoints]);
    by_sotw.request(sotw(Kind::Upstream, &[], (&told[0].version, &told[0].nonce)), &store, at(1)).unwrap();
    assert!(drain(&mut by_sotw, &store).is_empty());
    by_sotw.request(sotw(Kind::Endpoints, &["u"], (&told[1].version, &told[1].nonce)), &store, at(1)).unwrap();
    assert_eq!(drain(&mut by_sotw, &store)[0].kind, Kind::Route);
}

/// Lets endpoints change all the time, faster than clients answer: what was told is answered only when more was told. Whether by delta and by state of the world
/// something like this is told all the same.
fn told_meanwhile(
    store: &SnapshotStore,
    is_delta: impl Fn(&DeltaResponse) -> bool,
    is_sotw: impl Fn(&SotwResponse) -> bool,
    change: impl FnOnce(),
) -> (bool, bool) {
    // As a stream does it: the next view is looked at when the machine is free, and that is before the client has answered.
    fn look<M: Machine>(machine: &mut M, store: &SnapshotStore) -> Vec<M::Response> {
        if machine.is_free() {
            machine.changes(since(store, machine.position()), store);
        }
        drain(machine, store)
    }
    let (mut by_delta, mut by_sotw) = holding(store);
    let flap = |n: u32| put(store, Kind::Endpoints, "u", if n.is_multiple_of(2) { "some" } else { "others" });
    flap(0);
    let (mut unanswered, mut said) = (look(&mut by_delta, store), look(&mut by_sotw, store));
    change();
    let mut told = (false, false);
    for n in 1..10 {
        flap(n);
        let more = look(&mut by_delta, store);
        for response in std::mem::replace(&mut unanswered, more) {
            by_delta.request(delta(response.kind, &[], &response.nonce), store, at(1)).unwrap();
        }
        unanswered.extend(drain(&mut by_delta, store));
        told.0 |= unanswered.iter().any(&is_delta);
        let more = look(&mut by_sotw, store);
        for response in std::mem::replace(&mut said, more) {
            let names = match response.kind {
                Kind::Route => &["heddle"][..],
                Kind::Endpoints => &["u"],
                _ => &[],
            };
            by_sotw.request(sotw(response.kind, names, (&response.version, &response.nonce)), store, at(1)).unwrap();
        }
        said.extend(drain(&mut by_sotw, store));
        told.1 |= said.iter().any(&is_sotw);
    }
    told
}

#[test]
fn endpoints_that_change_all_the_time_keep_nothing_else_waiting() {
    let store = world();
    let routes = || put(&store, Kind::Route, "heddle", "routes 2");
    let told = told_meanwhile(&store, |by| by.kind == Kind::Route, |by| by.kind == Kind::Route, routes);
    assert_eq!(told, (true, true), "routes");
    put(&store, Kind::Upstream, "v", "cluster 1");
    let removal = || {
        store.apply(vec![gone(Kind::Upstream, "v")]);
    };
    let is_removal = |by: &SotwResponse| by.kind == Kind::Upstream && by.resources.len() == 1;
    let told = told_meanwhile(&store, |by| by.kind == Kind::Upstream && !by.removed.is_empty(), is_removal, removal);
    assert_eq!(told, (true, true), "removals");
}

#[test]
fn while_clusters_warm_other_endpoints_are_told() {
    let store = world();
    put(&store, Kind::Upstream, "v", "cluster 1");
    put(&store, Kind::Endpoints, "v", "endpoints");
    let (mut by_delta, mut by_sotw) = holding(&store);
    put(&store, Kind::Upstream, "v", "cluster 2");
    put(&store, Kind::Route, "heddle", "routes 2");
    by_delta.changes(since(&store, by_delta.position()), &store);
    by_sotw.changes(since(&store, by_sotw.position()), &store);
    assert_eq!((drain(&mut by_delta, &store)[0].kind, drain(&mut by_sotw, &store)[0].kind), (Kind::Upstream, Kind::Upstream));
    // It confirms the cluster when that is warm.
    put(&store, Kind::Endpoints, "u", "other endpoints");
    assert!(by_delta.is_free() && by_sotw.is_free());
    by_delta.changes(since(&store, by_delta.position()), &store);
    by_sotw.changes(since(&store, by_sotw.position()), &store);
    assert_eq!((drain(&mut by_delta, &store)[0].kind, drain(&mut by_sotw, &store)[0].kind), (Kind::Endpoints, Kind::Endpoints));
}

#[test]
fn a_cluster_that_changes_is_given_its_endpoints_by_state_of_the_world_whatever_is_under_way() {
    let store = world();
    put(&store, Kind::Upstream, "v", "cluster 1");
    put(&store, Kind::Endpoints, "v", "endpoints of v");
    let mut machine = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    for (kind, names) in [(Kind::Upstream, &[][..]), (Kind::Endpoints, &["u", "v"])] {
        machine.request(sotw(kind, names, ("", "")), &store, at(1)).unwrap();
        for told in drain(&mut machine, &store) {
            machine.request(sotw(kind, names, (&told.version, &told.nonce)), &store, at(1)).unwrap();
        }
    }
    put(&store, Kind::Endpoints, "u", "other endpoints");
    machine.changes(since(&store, machine.position()), &store);
    let part = drain(&mut machine, &store).remove(0);
    put(&store, Kind::Upstream, "v", "cluster 2");
    machine.changes(since(&store, machine.position()), &store);
    let told = drain(&mut machine, &store);
    assert_eq!(told.iter().map(|response| response.kind).collect::<Vec<_>>(), [Kind::Upstream], "the part is not answered yet");
    let confirmed = sotw(Kind::Endpoints, &["u", "v"], (&part.version, &part.nonce));
    machine.request(confirmed, &store, at(1)).unwrap();
    let told = drain(&mut machine, &store).remove(0);
    assert_eq!((told.kind, told.resources.len(), &*told.resources[0].body), (Kind::Endpoints, 1, &b"endpoints of v"[..]));
}

#[test]
fn what_is_good_of_refused_endpoints_is_told_once_more() {
    let store = world();
    put(&store, Kind::Endpoints, "v", "endpoints");
    let mut machine = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    let names = &["u", "v"][..];
    machine.request(sotw(Kind::Endpoints, names, ("", "")), &store, at(1)).unwrap();
    let first = drain(&mut machine, &store).remove(0);
    machine.request(sotw(Kind::Endpoints, names, (&first.version, &first.nonce)), &store, at(1)).unwrap();
    put(&store, Kind::Endpoints, "u", "good endpoints");
    put(&store, Kind::Endpoints, "v", "bad endpoints");
    machine.changes(since(&store, machine.position()), &store);
    let refuse = |machine: &mut SotwMachine, told: &SotwResponse, why: &str| {
        let nack = SotwRequest { error: Some(why.into()), ..sotw(Kind::Endpoints, names, (&first.version, &told.nonce)) };
        machine.request(nack, &store, at(1)).unwrap();
        drain(machine, &store)
    };
    let both = drain(&mut machine, &store).remove(0);
    assert_eq!(both.resources.len(), 2);
    let good = refuse(&mut machine, &both, "v: malformed address").remove(0);
    assert_eq!((good.resources.len(), &*good.resources[0].body), (1, &b"good endpoints"[..]));
    machine.request(sotw(Kind::Endpoints, names, (&good.version, &good.nonce)), &store, at(1)).unwrap();
    assert!(drain(&mut machine, &store).is_empty());
    put(&store, Kind::Endpoints, "u", "better endpoints");
    put(&store, Kind::Endpoints, "v", "worse endpoints");
    machine.changes(since(&store, machine.position()), &store);
    let both = drain(&mut machine, &store).remove(0);
    assert!(refuse(&mut machine, &both, "something is wrong").is_empty(), "nobody knows what is good");
    put(&store, Kind::Endpoints, "v", "endpoints again");
    machine.changes(since(&store, machine.position()), &store);
    assert_eq!(drain(&mut machine, &store)[0].resources.len(), 2, "with what changes next");
}

#[test]
fn of_many_endpoints_those_that_change_are_told_by_themselves() {
    let store = world();
    put(&store, Kind::Endpoints, "v", "endpoints");
    let mut machine = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    let answers = |told: &SotwResponse| sotw(Kind::Endpoints, &["u", "v"], (&told.version, &told.nonce));
    machine.request(sotw(Kind::Endpoints, &["u", "v"], ("", "")), &store, at(1)).unwrap();
    let first = drain(&mut machine, &store).remove(0);
    assert_eq!(first.resources.len(), 2);
    machine.request(answers(&first), &store, at(1)).unwrap();
    let tell = |machine: &mut SotwMachine, name: &str, content: &'static str| {
        put(&store, Kind::Endpoints, name, content);
        machine.changes(since(&store, machine.position()), &store);
        let mut told = drain(machine, &store);
        assert_eq!(told.len(), 1);
        told.remove(0)
    };
    let refused = tell(&mut machine, "v", "bad endpoints");
    assert_eq!((refused.resources.len(), &*refused.resources[0].body), (1, &b"bad endpoints"[..]));
    let nack = SotwRequest { error: Some("no".into()), ..sotw(Kind::Endpoints, &["u", "v"], (&first.version, &refused.nonce)) };
    machine.request(nack, &store, at(1)).unwrap();
    assert_eq!(machine.nacks().iter().map(|nack| &*nack.name).collect::<Vec<_>>(), ["v"], "it is the only one that it can mean");
    let other = tell(&mut machine, "u", "other endpoints");
    assert_eq!((other.resources.len(), &*other.resources[0].body), (1, &b"other endpoints"[..]));
    machine.request(answers(&other), &store, at(1)).unwrap();
    assert_eq!(machine.nacks().len(), 1, "the refused ones were not in that");
    let mended = tell(&mut machine, "v", "good endpoints");
    machine.request(answers(&mended), &store, at(1)).unwrap();
    assert!(machine.nacks().is_empty());
    // A name more is answered with everything, and what is gone is left out of that.
    store.apply(vec![gone(Kind::Endpoints, "v")]);
    machine.changes(since(&store, machine.position()), &store);
    assert!(drain(&mut machine, &store).is_empty());
    put(&store, Kind::Endpoints, "w", "endpoints");
    machine.request(sotw(Kind::Endpoints, &["u", "v", "w"], (&mended.version, &mended.nonce)), &store, at(1)).unwrap();
    assert_eq!(drain(&mut machine, &store)[0].resources.len(), 2);
}

#[test]
fn who_wants_no_endpoints_any_more_owes_no_answer() {
    let store = world();
    let (_, mut machine) = holding(&store);
    put(&store, Kind::Endpoints, "u", "other endpoints");
    machine.changes(since(&store, machine.position()), &store);
    assert_eq!(drain(&mut machine, &store)[0].kind, Kind::Endpoints);
    // This crosses it, and Envoy does not answer what it has no use for.
    machine.request(sotw(Kind::Endpoints, &[], ("", "2")), &store, at(1)).unwrap();
    put(&store, Kind::Route, "heddle", "routes 2");
    machine.changes(since(&store, machine.position()), &store);
    assert!(machine.is_free());
    assert_eq!(drain(&mut machine, &store)[0].kind, Kind::Route);
}

#[test]
fn who_refuses_endpoints_is_understood_though_they_are_owed_anew() {
    let store = world();
    put(&store, Kind::Upstream, "v", "cluster 1");
    put(&store, Kind::Endpoints, "v", "endpoints");
    let mut machine = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    let names = &["u", "v"][..];
    for (kind, names) in [(Kind::Upstream, &[][..]), (Kind::Endpoints, names)] {
        machine.request(sotw(kind, names, ("", "")), &store, at(1)).unwrap();
        for told in drain(&mut machine, &store) {
            machine.request(sotw(kind, names, (&told.version, &told.nonce)), &store, at(1)).unwrap();
        }
    }
    put(&store, Kind::Endpoints, "u", "good endpoints");
    put(&store, Kind::Endpoints, "v", "bad endpoints");
    machine.changes(since(&store, machine.position()), &store);
    let both = drain(&mut machine, &store).remove(0);
    put(&store, Kind::Upstream, "v", "cluster 2");
    machine.changes(since(&store, machine.position()), &store);
    drain(&mut machine, &store);
    let nack = SotwRequest { error: Some("v: malformed address".into()), ..sotw(Kind::Endpoints, names, ("", &both.nonce)) };
    machine.request(nack, &store, at(1)).unwrap();
    assert_eq!(machine.nacks().iter().map(|nack| &*nack.name).collect::<Vec<_>>(), ["v"]);
}

#[test]
fn types_are_those_that_the_node_speaks() {
    let store = world();
    let (_, mut machine) = holding(&store);
    put(&store, Kind::Upstream, "u", "cluster 2");
    machine.changes(since(&store, machine.position()), &store);
    let told = drain(&mut machine, &store).remove(0);
    assert_eq!(&*told.resources[0].type_url, "type.googleapis.com/envoy.config.cluster.v3.Cluster");
}

#[test]
fn endpoints_on_a_stream_of_their_own_follow_a_cluster_that_changes_elsewhere() {
    let store = world();
    let mut machine = DeltaMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    machine.request(delta(Kind::Endpoints, &["u"], ""), &store, at(1)).unwrap();
    assert_eq!(drain(&mut machine, &store).len(), 1);
    put(&store, Kind::Upstream, "u", "cluster 2");
    put(&store, Kind::Upstream, "other", "cluster 1");
    machine.changes(since(&store, machine.position()), &store);
    let told = drain(&mut machine, &store);
    assert_eq!(told.iter().map(|response| (response.kind, response.resources.len())).collect::<Vec<_>>(), [(Kind::Endpoints, 1)]);
}

#[test]
fn endpoints_on_a_stream_of_their_own_are_told_again_when_the_other_one_has_brought_the_cluster() {
    let store = world();
    let [mut clusters, mut endpoints] = [(); 2].map(|()| DeltaMachine::new(NodeScope::default(), 0).speaking(Types::Envoy));
    let tells = |machine: &mut DeltaMachine| drain(machine, &store).pop().unwrap().nonce;
    let answers = |machine: &mut DeltaMachine, nonce: &str| {
        machine.request(delta(Kind::Upstream, &[], nonce), &store, at(1)).unwrap();
        machine.taken()
    };
    clusters.request(delta(Kind::Upstream, &[], ""), &store, at(1)).unwrap();
    endpoints.request(delta(Kind::Endpoints, &["u"], ""), &store, at(1)).unwrap();
    tells(&mut endpoints);
    let nonce = tells(&mut clusters);
    assert!(answers(&mut clusters, &nonce).is_empty(), "for the endpoints of what is new it asks by itself");
    put(&store, Kind::Upstream, "u", "cluster 2");
    for machine in [&mut clusters, &mut endpoints] {
        machine.changes(since(&store, machine.position()), &store);
    }
    // They may come before the cluster, and then nothing waits for them yet.
    tells(&mut endpoints);
    let nonce = tells(&mut clusters);
    let taken = answers(&mut clusters, &nonce);
    assert_eq!(taken, ["u".into()]);
    assert!(clusters.taken().is_empty() && answers(&mut clusters, &nonce).is_empty(), "once");
    endpoints.warm(taken);
    let told: Vec<_> = drain(&mut endpoints, &store).into_iter().map(|said| (said.kind, said.resources.len())).collect();
    assert_eq!(told, [(Kind::Endpoints, 1)]);
    endpoints.warm(vec!["other".into()]);
    assert!(drain(&mut endpoints, &store).is_empty(), "nobody asked for those");
}

#[test]
fn a_stream_that_is_about_endpoints_too_tells_no_other_one() {
    let store = world();
    let (mut machine, _) = holding(&store);
    put(&store, Kind::Upstream, "u", "cluster 2");
    machine.changes(since(&store, machine.position()), &store);
    for response in drain(&mut machine, &store) {
        machine.request(delta(response.kind, &[], &response.nonce), &store, at(1)).unwrap();
    }
    assert!(machine.taken().is_empty());
}

#[test]
fn a_client_of_grpc_hears_when_another_host_stands_for_its_service() {
    let store = SnapshotStore::new();
    let host = |name: &str, content: &'static str| {
        let Change::Set(standing) = listener(name, &[]) else { panic!("set") };
        store.apply_encoded(vec![Ok(Versioned::encoded(standing, Bytes::from_static(content.as_bytes())))]);
    };
    host("hosts/*", "any");
    let mut machine = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Grpc);
    machine.request(sotw(Kind::Listener, &["shop.example"], ("", "")), &store, at(1)).unwrap();
    let first = drain(&mut machine, &store).remove(0);
    assert!(first.resources[0].body.ends_with(b"any") && first.resources.len() == 1);
    machine.request(sotw(Kind::Listener, &["shop.example"], (&first.version, &first.nonce)), &store, at(1)).unwrap();
    host("hosts/shop.example", "own");
    machine.changes(since(&store, machine.position()), &store);
    let second = drain(&mut machine, &store).remove(0);
    assert!(second.resources[0].body.ends_with(b"own") && second.resources.len() == 1);
    // On a stream on which nothing came it would have failed, and come back later each time.
    let mut again = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Grpc);
    again.request(sotw(Kind::Listener, &["shop.example"], (&second.version, "")), &store, at(1)).unwrap();
    assert_eq!(drain(&mut again, &store).len(), 1, "whoever comes back hears a word, though nothing has changed");
    let mut greedy = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Grpc);
    greedy.request(sotw(Kind::Listener, &[], ("", "")), &store, at(1)).unwrap();
    assert!(drain(&mut greedy, &store).iter().all(|response| response.resources.is_empty()), "nobody is given all");
}
