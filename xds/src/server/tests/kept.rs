//! What is gone stays at an Envoy as long as what it goes on with may lead there: until it has taken the routes and listeners that replace those.

use super::envoy::{delta, holding, put, sotw, world};
use super::*;
use crate::protocol::{DeltaRequest, DeltaResponse, SotwRequest, SotwResponse, Types};
use crate::server::refused::{MAX_KEPT, MAX_WAITING};
use crate::server::{DeltaMachine, SotwMachine};

/// What a node is told next: the kind, how many resources are set, and the names that are removed.
fn told(responses: &[DeltaResponse]) -> Vec<(Kind, usize, Vec<&str>)> {
    let mut all = Vec::new();
    for said in responses {
        all.push((said.kind, said.resources.len(), said.removed.iter().map(|name| &**name).collect()));
    }
    all
}

/// A node answers to something, with a reason where it refuses it, and is told what follows.
fn answers(node: &mut DeltaMachine, store: &SnapshotStore, said: &DeltaResponse, error: Option<&str>) -> Vec<DeltaResponse> {
    let request = DeltaRequest { error: error.map(str::to_owned), ..delta(said.kind, &[], &said.nonce) };
    node.request(request, store, at(1)).unwrap();
    drain(node, store)
}

fn answers_sotw(node: &mut SotwMachine, store: &SnapshotStore, said: &SotwResponse, error: Option<&str>) -> Vec<SotwResponse> {
    let names = if said.kind == Kind::Route { &["heddle"][..] } else { &[] };
    let request = SotwRequest { error: error.map(str::to_owned), ..sotw(said.kind, names, (&said.version, &said.nonce)) };
    node.request(request, store, at(1)).unwrap();
    drain(node, store)
}

/// The route moves from `u` to `v`, and `u` is deleted.
fn moves(store: &SnapshotStore) {
    put(store, Kind::Upstream, "v", "cluster 1");
    put(store, Kind::Route, "heddle", "routes 2");
    store.apply(vec![gone(Kind::Upstream, "u"), gone(Kind::Endpoints, "u")]);
}

fn kept<M: Machine>(node: &M) -> Vec<(Kind, String)> {
    node.kept().iter().map(|(kind, name)| (*kind, name.to_string())).collect()
}

#[test]
fn an_upstream_stays_at_an_envoy_that_refuses_the_routes_which_no_longer_lead_there() {
    let store = world();
    let (mut node, _) = holding(&store);
    moves(&store);
    node.changes(since(&store, node.position()), &store);
    let first = drain(&mut node, &store);
    assert_eq!(told(&first), [(Kind::Upstream, 1, vec![])]);
    let second = answers(&mut node, &store, &first[0], None);
    assert_eq!(told(&second), [(Kind::Route, 1, vec![])], "nothing is taken away before this is confirmed");
    assert!(!node.answered() && node.kept().is_empty());
    assert!(answers(&mut node, &store, &second[0], Some("deprecated field")).is_empty());
    assert_eq!(kept(&node), [(Kind::Upstream, "u".into()), (Kind::Endpoints, "u".into())]);
    assert!(node.answered(), "nobody waits for it any longer");
    assert!(node.held().iter().all(|held| !held.pending));
    // Something else goes on meanwhile, and leaves it alone.
    put(&store, Kind::Upstream, "w", "cluster 1");
    node.changes(since(&store, node.position()), &store);
    let other = drain(&mut node, &store);
    assert_eq!(told(&other), [(Kind::Upstream, 1, vec![])]);
    assert!(answers(&mut node, &store, &other[0], None).is_empty());
    put(&store, Kind::Route, "heddle", "routes 3");
    node.changes(since(&store, node.position()), &store);
    let mended = drain(&mut node, &store);
    assert_eq!(told(&mended), [(Kind::Route, 1, vec![])]);
    let removed = answers(&mut node, &store, &mended[0], None);
    assert_eq!(told(&removed), [(Kind::Endpoints, 0, vec!["u"]), (Kind::Upstream, 0, vec!["u"])]);
    assert!(node.kept().is_empty());
}

#[test]
fn by_state_of_the_world_such_an_upstream_stays_in_the_list() {
    let store = world();
    let (_, mut node) = holding(&store);
    moves(&store);
    node.changes(since(&store, node.position()), &store);
    let bodies = |said: &SotwResponse| said.resources.len();
    let first = drain(&mut node, &store);
    assert_eq!((first[0].kind, bodies(&first[0])), (Kind::Upstream, 2), "the new one beside the old one");
    let second = answers_sotw(&mut node, &store, &first[0], None);
    assert_eq!(second.iter().map(|said| said.kind).collect::<Vec<_>>(), [Kind::Route]);
    assert!(answers_sotw(&mut node, &store, &second[0], Some("deprecated field")).is_empty());
    assert_eq!(kept(&node), [(Kind::Upstream, "u".into())]);
    assert!(node.answered() && node.held().iter().all(|held| !held.pending));
    put(&store, Kind::Upstream, "w", "cluster 1");
    node.changes(since(&store, node.position()), &store);
    let other = drain(&mut node, &store);
    assert_eq!((other[0].kind, bodies(&other[0])), (Kind::Upstream, 3));
    assert!(answers_sotw(&mut node, &store, &other[0], None).is_empty());
    put(&store, Kind::Route, "heddle", "routes 3");
    node.changes(since(&store, node.position()), &store);
    let mended = drain(&mut node, &store);
    let removed = answers_sotw(&mut node, &store, &mended[0], None);
    assert_eq!((removed[0].kind, bodies(&removed[0])), (Kind::Upstream, 2));
    assert!(node.kept().is_empty());
}

/// An Envoy comes to a control plane that has begun anew, holding the upstream `u` and routes that lead there, and asks for everything before it answers.
fn comes_back(before: &SnapshotStore, store: &SnapshotStore) -> (DeltaMachine, Vec<DeltaResponse>) {
    let mut node = DeltaMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    let mut said = Vec::new();
    for (kind, name) in [(Kind::Upstream, "u"), (Kind::Endpoints, "u"), (Kind::Route, "heddle")] {
        let initial = [(name.into(), version(before, kind, name))].into();
        let names = if kind == Kind::Upstream { vec![] } else { vec![name] };
        node.request(DeltaRequest { initial, ..delta(kind, &names, "") }, store, at(1)).unwrap();
        said.extend(drain(&mut node, store));
    }
    (node, said)
}

#[test]
fn an_envoy_that_comes_back_keeps_an_upstream_that_is_gone_until_it_takes_the_routes_that_lead_elsewhere() {
    let (before, store) = (world(), world());
    moves(&store);
    for (answer, expected) in [(Some("deprecated field"), &[][..]), (None, &[Kind::Endpoints, Kind::Upstream])] {
        let (mut node, first) = comes_back(&before, &store);
        assert_eq!(told(&first), [(Kind::Upstream, 1, vec![])], "the control plane knows no `u`, and takes it from nobody yet");
        let second = answers(&mut node, &store, &first[0], None);
        assert_eq!(told(&second), [(Kind::Route, 1, vec![])]);
        let removed = answers(&mut node, &store, &second[0], answer);
        assert_eq!(removed.iter().map(|said| said.kind).collect::<Vec<_>>(), expected);
        assert_eq!(kept(&node).is_empty(), answer.is_none());
    }
}

#[test]
fn an_envoy_that_comes_back_while_the_routes_are_held_keeps_its_own_and_what_they_lead_to() {
    let (before, store) = (world(), world());
    moves(&store);
    store.leave(&[(Kind::Route, "heddle".into())]);
    let (mut node, first) = comes_back(&before, &store);
    assert_eq!(told(&first), [(Kind::Upstream, 1, vec![])]);
    assert!(answers(&mut node, &store, &first[0], None).is_empty(), "neither other routes nor none");
    assert_eq!(kept(&node), [(Kind::Upstream, "u".into()), (Kind::Endpoints, "u".into())]);
    assert!(node.answered());
    put(&store, Kind::Route, "heddle", "routes 3");
    node.changes(since(&store, node.position()), &store);
    let mended = drain(&mut node, &store);
    assert_eq!(told(&mended), [(Kind::Route, 1, vec![])]);
    let removed = answers(&mut node, &store, &mended[0], None);
    assert_eq!(told(&removed), [(Kind::Endpoints, 0, vec!["u"]), (Kind::Upstream, 0, vec!["u"])]);
}

#[test]
fn by_state_of_the_world_nothing_is_said_to_who_comes_back_while_the_routes_are_held() {
    let store = world();
    moves(&store);
    store.leave(&[(Kind::Route, "heddle".into())]);
    let mut node = SotwMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
    for (kind, names) in [(Kind::Upstream, &[][..]), (Kind::Route, &["heddle"])] {
        node.request(sotw(kind, names, ("before", "")), &store, at(1)).unwrap();
    }
    assert!(drain(&mut node, &store).is_empty(), "a list without the clusters that its routes lead to would take them away");
    // What stays as it is keeps nobody waiting, and secrets are told.
    node.changes(Changes { position: node.position(), names: None }, &store);
    put(&store, Kind::Secret, "s", "key");
    node.request(sotw(Kind::Secret, &["s"], ("before", "")), &store, at(1)).unwrap();
    let said = drain(&mut node, &store);
    assert_eq!(said.iter().map(|said| (said.kind, said.resources.len())).collect::<Vec<_>>(), [(Kind::Secret, 1)]);
    answers_sotw(&mut node, &store, &said[0], None);
    assert!(node.answered(), "{node:?}");
    put(&store, Kind::Route, "heddle", "routes 3");
    node.changes(since(&store, node.position()), &store);
    let said: Vec<_> = drain(&mut node, &store).iter().map(|said| (said.kind, said.resources.len())).collect();
    assert_eq!(said, [(Kind::Upstream, 1), (Kind::Route, 1)]);
}

#[test]
fn of_what_is_gone_only_so_much_stays() {
    let store = world();
    let names: Vec<String> = (0..MAX_KEPT + 5).map(|number| format!("x{number:05}")).collect();
    names.iter().for_each(|name| put(&store, Kind::Upstream, name, "cluster"));
    let (mut node, mut by_sotw) = holding(&store);
    put(&store, Kind::Route, "heddle", "routes 2");
    node.changes(since(&store, node.position()), &store);
    by_sotw.changes(since(&store, by_sotw.position()), &store);
    let (table, whole) = (drain(&mut node, &store).remove(0), drain(&mut by_sotw, &store).remove(0));
    answers(&mut node, &store, &table, Some("no"));
    answers_sotw(&mut by_sotw, &store, &whole, Some("no"));
    store.apply(names.iter().map(|name| gone(Kind::Upstream, name)).collect());
    node.changes(since(&store, node.position()), &store);
    by_sotw.changes(since(&store, by_sotw.position()), &store);
    assert_eq!(told(&drain(&mut node, &store))[0].2.len(), 5);
    assert_eq!(drain(&mut by_sotw, &store)[0].resources.len(), MAX_KEPT + 1, "and the one that is there");
    assert_eq!((node.kept().len(), by_sotw.kept().len()), (MAX_KEPT, MAX_KEPT));
}

/// Numbered contents of the routes.
fn routes(number: usize) -> &'static str {
    ["routes 3", "routes 4", "routes 5", "routes 6", "routes 7", "routes 8"][number]
}

#[test]
fn a_removal_waits_for_the_routes_in_its_place_and_not_for_those_that_follow() {
    let store = world();
    let (mut node, _) = holding(&store);
    moves(&store);
    node.changes(since(&store, node.position()), &store);
    let first = drain(&mut node, &store);
    let mut under_way = answers(&mut node, &store, &first[0], None);
    assert_eq!(told(&under_way), [(Kind::Route, 1, vec![])]);
    let mut removed = Vec::new();
    for number in 0..6 {
        // The routes change again before each answer.
        put(&store, Kind::Route, "heddle", routes(number));
        assert!(node.is_free());
        node.changes(since(&store, node.position()), &store);
        let next = drain(&mut node, &store);
        assert!(removed.is_empty() == (number == 0), "what replaces it is confirmed by the first answer");
        for said in std::mem::replace(&mut under_way, next) {
            let more = answers(&mut node, &store, &said, None);
            removed.extend(told(&more).iter().flat_map(|(kind, _, names)| names.iter().map(|name| (*kind, (*name).to_owned()))));
            under_way.extend(more);
        }
    }
    assert_eq!(removed, [(Kind::Endpoints, "u".to_owned()), (Kind::Upstream, "u".to_owned())]);
}

#[test]
fn by_state_of_the_world_too_a_removal_waits_for_the_routes_in_its_place_alone() {
    let store = world();
    let (_, mut node) = holding(&store);
    moves(&store);
    node.changes(since(&store, node.position()), &store);
    let first = drain(&mut node, &store);
    let mut under_way = answers_sotw(&mut node, &store, &first[0], None);
    let (mut clusters, mut lists) = (vec!["cluster 3", "cluster 2"], Vec::new());
    for number in 0..4 {
        // The routes and another cluster change again before each answer.
        put(&store, Kind::Route, "heddle", routes(number));
        if number > 1 {
            put(&store, Kind::Upstream, "v", clusters.pop().unwrap());
        }
        node.changes(since(&store, node.position()), &store);
        let next = drain(&mut node, &store);
        for said in std::mem::replace(&mut under_way, next) {
            let more = answers_sotw(&mut node, &store, &said, None);
            lists.extend(more.iter().filter(|said| said.kind == Kind::Upstream).map(|said| said.resources.len()));
            under_way.extend(more);
        }
    }
    assert_eq!(lists.first(), Some(&1), "without `u`, once the first routes are confirmed: {lists:?}");
}

#[test]
fn what_routes_led_to_goes_after_the_routes_that_are_gone_themselves() {
    let store = world();
    let (mut node, mut by_sotw) = holding(&store);
    store.apply(vec![gone(Kind::Route, "heddle"), gone(Kind::Upstream, "u"), gone(Kind::Endpoints, "u")]);
    node.changes(since(&store, node.position()), &store);
    by_sotw.changes(since(&store, by_sotw.position()), &store);
    let first = drain(&mut node, &store);
    assert_eq!(told(&first), [(Kind::Route, 0, vec!["heddle"])]);
    let second = answers(&mut node, &store, &first[0], None);
    assert_eq!(told(&second), [(Kind::Endpoints, 0, vec!["u"]), (Kind::Upstream, 0, vec!["u"])]);
    let first = drain(&mut by_sotw, &store);
    assert_eq!(first.iter().map(|said| (said.kind, said.resources.len())).collect::<Vec<_>>(), [(Kind::Route, 0)]);
    let second = answers_sotw(&mut by_sotw, &store, &first[0], None);
    assert_eq!(second.iter().map(|said| (said.kind, said.resources.len())).collect::<Vec<_>>(), [(Kind::Upstream, 0)]);
}

#[test]
fn who_never_answers_to_routes_does_not_fill_up_with_what_is_gone() {
    let store = world();
    let names: Vec<String> = (0..=MAX_WAITING).map(|number| format!("x{number:05}")).collect();
    names.iter().for_each(|name| put(&store, Kind::Upstream, name, "cluster"));
    let (mut node, mut by_sotw) = holding(&store);
    put(&store, Kind::Route, "heddle", "routes 2");
    store.apply(names.iter().map(|name| gone(Kind::Upstream, name)).collect());
    node.changes(since(&store, node.position()), &store);
    by_sotw.changes(since(&store, by_sotw.position()), &store);
    let (table, whole) = (drain(&mut node, &store).remove(0), drain(&mut by_sotw, &store).remove(0));
    assert_eq!((table.kind, whole.kind), (Kind::Route, Kind::Route));
    assert!(!node.is_free() && !by_sotw.is_free(), "no further view before it has answered");
    assert_eq!(told(&answers(&mut node, &store, &table, None))[0].2.len(), names.len());
    assert_eq!(answers_sotw(&mut by_sotw, &store, &whole, None)[0].resources.len(), 1);
    assert!(node.is_free() && by_sotw.is_free());
}

/// Two streams of an Envoy that holds the upstream `u` and routes that lead there: one for clusters, one for routes.
fn apart(store: &SnapshotStore) -> [DeltaMachine; 2] {
    let mut streams = [Kind::Upstream, Kind::Route].map(|kind| {
        let mut node = DeltaMachine::new(NodeScope::default(), store.position()).speaking(Types::Envoy);
        node.request(delta(kind, &[], ""), store, at(1)).unwrap();
        for said in drain(&mut node, store) {
            answers(&mut node, store, &said, None);
        }
        node
    });
    tell_each_other(&mut streams);
    streams
}

fn tell_each_other([clusters, routes]: &mut [DeltaMachine; 2]) {
    clusters.beside(routes.stands());
    routes.beside(clusters.stands());
}

#[test]
fn what_is_gone_waits_for_routes_that_come_by_another_stream_of_its_node() {
    for error in [None, Some("deprecated field")] {
        let store = world();
        let mut streams = apart(&store);
        moves(&store);
        // Its clusters are looked at before the routes are.
        streams[0].changes(since(&store, streams[0].position()), &store);
        let clusters = drain(&mut streams[0], &store);
        assert_eq!(told(&clusters), [(Kind::Upstream, 1, vec![])]);
        assert!(answers(&mut streams[0], &store, &clusters[0], None).is_empty(), "they are not through with this view");
        streams[1].changes(since(&store, streams[1].position()), &store);
        assert!(drain(&mut streams[1], &store).is_empty() && streams[1].is_free(), "routes wait for clusters in turn");
        tell_each_other(&mut streams);
        let table = drain(&mut streams[1], &store);
        tell_each_other(&mut streams);
        assert!(drain(&mut streams[0], &store).is_empty() && !streams[0].answered());
        answers(&mut streams[1], &store, &table[0], error);
        tell_each_other(&mut streams);
        let removed = drain(&mut streams[0], &store);
        if error.is_none() {
            assert_eq!(told(&removed), [(Kind::Upstream, 0, vec!["u"])]);
            continue;
        }
        assert!(removed.is_empty());
        assert_eq!(kept(&streams[0]), [(Kind::Upstream, "u".into())]);
        put(&store, Kind::Route, "heddle", "routes 3");
        for node in &mut streams {
            node.changes(since(&store, node.position()), &store);
        }
        assert!(drain(&mut streams[0], &store).is_empty());
        tell_each_other(&mut streams);
        let mended = drain(&mut streams[1], &store);
        answers(&mut streams[1], &store, &mended[0], None);
        tell_each_other(&mut streams);
        assert_eq!(told(&drain(&mut streams[0], &store)), [(Kind::Upstream, 0, vec!["u"])]);
    }
}
