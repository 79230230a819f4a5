//! State of the world: subscriptions, nonces, versions, and what Envoy and gRPC do with them.

use super::*;
use crate::codec::decode_body;
use crate::protocol::{SotwRequest, SotwResponse, Types, WILDCARD, more_follows};
use crate::server::SotwMachine;

fn machine(store: &SnapshotStore) -> SotwMachine {
    SotwMachine::new(NodeScope::default(), store.position())
}

fn asks(kind: Kind, names: &[&str]) -> SotwRequest {
    let names = names.iter().collect();
    SotwRequest { kind, version: "".into(), names, nonce: "".into(), error: None }
}

fn ask(names: &[&str]) -> SotwRequest {
    asks(Kind::Secret, names)
}

fn ack(response: &SotwResponse, names: &[&str]) -> SotwRequest {
    SotwRequest { version: response.version.clone(), nonce: response.nonce.clone(), ..asks(response.kind, names) }
}

fn nack(response: &SotwResponse, previous: &str, names: &[&str], text: &str) -> SotwRequest {
    SotwRequest { version: previous.into(), error: Some(text.to_string()), ..ack(response, names) }
}

fn said(response: &SotwResponse) -> Vec<String> {
    let name = |raw: &crate::protocol::RawResource| decode_body(response.kind, &raw.body).unwrap().name().to_string();
    response.resources.iter().map(name).collect()
}

fn send(machine: &mut SotwMachine, store: &SnapshotStore, request: SotwRequest) -> Vec<SotwResponse> {
    machine.request(request, store, at(1)).unwrap();
    drain(machine, store)
}

fn tell(machine: &mut SotwMachine, store: &SnapshotStore, changes: Vec<Change>) -> Vec<SotwResponse> {
    change(machine, store, changes);
    drain(machine, store)
}

fn one(mut responses: Vec<SotwResponse>) -> SotwResponse {
    assert_eq!(responses.len(), 1, "{responses:?}");
    responses.remove(0)
}

#[test]
fn every_change_sends_the_whole_kind() {
    let store = secrets(&["a", "b"]);
    let mut machine = machine(&store);
    let first = one(send(&mut machine, &store, ask(&[])));
    assert_eq!(said(&first), ["a", "b"]);
    assert!(send(&mut machine, &store, ack(&first, &[])).is_empty());
    let second = one(tell(&mut machine, &store, vec![set(Kind::Secret, "c", "1")]));
    assert_eq!(said(&second), ["a", "b", "c"]);
    assert_ne!((&first.version, &first.nonce), (&second.version, &second.nonce));
}

#[test]
fn all_of_nothing_is_answered_with_nothing() {
    let store = SnapshotStore::new();
    let mut machine = machine(&store);
    assert!(said(&one(send(&mut machine, &store, ask(&[])))).is_empty());
    assert!(drain(&mut machine, &store).is_empty());
}

#[test]
fn clusters_by_name_and_never_all() {
    let store = secrets(&["a", "b"]);
    let mut machine = machine(&store);
    let first = one(send(&mut machine, &store, ask(&["a"])));
    assert_eq!(said(&first), ["a"]);
    send(&mut machine, &store, ack(&first, &["a"]));
    assert!(tell(&mut machine, &store, vec![set(Kind::Secret, "b", "2")]).is_empty(), "not asked for");
    let second = one(send(&mut machine, &store, ack(&first, &["a", "b"])));
    assert_eq!(said(&second), ["a", "b"]);
    send(&mut machine, &store, ack(&second, &["a", "b"]));
    assert!(send(&mut machine, &store, ack(&second, &[])).is_empty(), "no names after names is nothing");
    assert!(tell(&mut machine, &store, vec![set(Kind::Secret, "a", "2")]).is_empty());
}

#[test]
fn a_star_is_all_until_it_is_left_out() {
    let store = secrets(&["a", "b"]);
    let mut machine = machine(&store);
    let first = one(send(&mut machine, &store, ask(&[WILDCARD, "a"])));
    assert_eq!(said(&first), ["a", "b"]);
    assert!(send(&mut machine, &store, ack(&first, &["a"])).is_empty());
    assert!(tell(&mut machine, &store, vec![set(Kind::Secret, "b", "2")]).is_empty());
    let again = one(send(&mut machine, &store, ack(&first, &[WILDCARD])));
    assert_eq!(said(&again), ["a", "b"]);
}

#[test]
fn two_first_requests_without_nonce_and_a_stale_ack() {
    let store = secrets(&["ca", "web"]);
    let mut machine = machine(&store);
    let first = one(send(&mut machine, &store, ask(&["web"])));
    let second = one(send(&mut machine, &store, ask(&["ca", "web"])));
    assert_eq!((said(&first), said(&second)), (vec!["web".to_string()], vec!["ca".to_string(), "web".to_string()]));
    assert!(send(&mut machine, &store, ack(&first, &["ca", "web"])).is_empty(), "stale, not an error");
    assert!(machine.held()[0].pending);
    assert!(send(&mut machine, &store, ack(&second, &["ca", "web"])).is_empty());
    assert_eq!((machine.held()[0].version.clone(), machine.held()[0].pending), (second.version, false));
}

#[test]
fn two_first_requests_before_the_first_answer_get_one() {
    let store = secrets(&["ca", "web"]);
    let mut machine = machine(&store);
    machine.request(ask(&["web"]), &store, at(1)).unwrap();
    machine.request(ask(&["ca", "web"]), &store, at(1)).unwrap();
    assert_eq!(said(&one(drain(&mut machine, &store))), ["ca", "web"]);
}

#[test]
fn a_stale_nack_is_ignored() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    let first = one(send(&mut machine, &store, ask(&["a"])));
    let second = one(send(&mut machine, &store, ask(&["a", "b"])));
    assert!(send(&mut machine, &store, nack(&first, "", &["a"], "Secret a: body: bad")).is_empty());
    assert!(machine.nacks().is_empty());
    send(&mut machine, &store, nack(&second, "", &["a", "b"], "Secret a: body: bad"));
    assert_eq!(machine.nacks().len(), 1);
}

#[test]
fn a_refused_version_is_not_sent_again() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    let first = one(send(&mut machine, &store, ask(&[])));
    assert!(send(&mut machine, &store, nack(&first, "", &[], "Secret a: body: bad")).is_empty());
    assert_eq!((machine.held()[0].version.as_ref(), machine.held()[0].resources, machine.nacks().len()), ("", 0, 1));
    assert!(send(&mut machine, &store, SotwRequest { version: "".into(), ..ack(&first, &[]) }).is_empty());
    assert_eq!(machine.nacks().len(), 1, "the previous version with the same nonce is no ACK");
    let second = one(tell(&mut machine, &store, vec![set(Kind::Secret, "a", "2")]));
    send(&mut machine, &store, ack(&second, &[]));
    assert_eq!((machine.held()[0].version.clone(), machine.nacks().len()), (second.version, 0));
}

#[test]
fn reconnecting_with_the_present_version_sends_nothing() {
    let store = secrets(&["a", "b"]);
    let first = one(send(&mut machine(&store), &store, ask(&[])));
    let known = SotwRequest { version: first.version.clone(), ..ask(&[]) };
    let mut again = machine(&store);
    assert!(send(&mut again, &store, known.clone()).is_empty());
    assert_eq!(again.held()[0].version, first.version);
    assert_eq!(said(&one(tell(&mut again, &store, vec![set(Kind::Secret, "a", "2")]))), ["a", "b"]);
    assert_eq!(said(&one(send(&mut machine(&store), &store, known))), ["a", "b"], "an older version gets everything");
}

#[test]
fn a_nonce_of_another_stream_opens_a_new_one() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    assert_eq!(said(&one(send(&mut machine, &store, SotwRequest { nonce: "9".into(), ..ask(&[]) }))), ["a"]);
}

#[test]
fn shrinking_a_subscription_is_not_answered() {
    let store = secrets(&["a", "b"]);
    let mut machine = machine(&store);
    let first = one(send(&mut machine, &store, ask(&["a", "b"])));
    send(&mut machine, &store, ack(&first, &["a", "b"]));
    assert!(send(&mut machine, &store, ack(&first, &["a"])).is_empty());
    assert!(tell(&mut machine, &store, vec![gone(Kind::Secret, "b")]).is_empty());
}

#[test]
fn names_that_do_not_exist_are_answered_by_absence() {
    let store = SnapshotStore::new();
    let mut machine = machine(&store);
    let first = one(send(&mut machine, &store, ask(&["x"])));
    assert!(said(&first).is_empty());
    send(&mut machine, &store, ack(&first, &["x"]));
    assert_eq!(said(&one(tell(&mut machine, &store, vec![set(Kind::Secret, "x", "1")]))), ["x"]);
}

/// Two kinds of which each loses something and has something else instead.
fn replaced(types: Types) -> (SnapshotStore, SotwMachine) {
    let store = SnapshotStore::new();
    let mut machine = machine(&store).speaking(types);
    for kind in [Kind::Secret, Kind::Certificate] {
        change(&mut machine, &store, vec![set(kind, "old", "1")]);
        let first = one(send(&mut machine, &store, asks(kind, &[])));
        send(&mut machine, &store, ack(&first, &[]));
    }
    let changes = [Kind::Secret, Kind::Certificate].into_iter().flat_map(|kind| [gone(kind, "old"), set(kind, "new", "1")]);
    change(&mut machine, &store, changes.collect());
    (store, machine)
}

fn shown(responses: &[SotwResponse]) -> Vec<(Kind, String)> {
    responses.iter().map(|response| (response.kind, said(response).join(" "))).collect()
}

const GROWN: [(Kind, &str); 2] = [(Kind::Secret, "new old"), (Kind::Certificate, "new old")];
const SHRUNK: [(Kind, &str); 2] = [(Kind::Certificate, "new"), (Kind::Secret, "new")];

#[test]
fn nothing_is_taken_away_before_its_replacement_is_there() {
    let (store, mut machine) = replaced(Types::Envoy);
    let grown = drain(&mut machine, &store);
    assert_eq!(shown(&grown), GROWN.map(|(kind, said)| (kind, said.to_string())));
    grown.iter().for_each(|response| machine.request(ack(response, &[]), &store, at(2)).unwrap());
    let first = one(drain(&mut machine, &store));
    assert_eq!((first.kind, said(&first)), (Kind::Certificate, vec!["new".to_string()]));
    let then = one(send(&mut machine, &store, ack(&first, &[])));
    assert_eq!((then.kind, said(&then)), (Kind::Secret, vec!["new".to_string()]), "nothing leads to the old one any more");
}

#[test]
fn a_listener_that_leaves_goes_with_the_one_that_takes_its_address() {
    for types in [Types::Envoy, Types::Heddle] {
        let store = SnapshotStore::new();
        store.apply(vec![listener("old", &[])]);
        let mut machine = machine(&store).speaking(types);
        let first = one(send(&mut machine, &store, asks(Kind::Listener, &[])));
        send(&mut machine, &store, ack(&first, &[]));
        let second = one(tell(&mut machine, &store, vec![gone(Kind::Listener, "old"), listener("new", &[])]));
        assert_eq!(said(&second), ["new"]);
        send(&mut machine, &store, ack(&second, &[]));
        assert!(said(&one(tell(&mut machine, &store, vec![gone(Kind::Listener, "new")]))).is_empty());
    }
}

#[test]
fn who_takes_views_whole_is_told_one_in_one_go_and_answers_before_the_next() {
    let (store, mut machine) = replaced(Types::Heddle);
    let view = drain(&mut machine, &store);
    let expected = [GROWN, SHRUNK].concat().into_iter().map(|(kind, said)| (kind, said.to_string())).collect::<Vec<_>>();
    assert_eq!(shown(&view), expected, "in an order in which each can be taken by itself, too");
    assert!(!machine.is_free());
    // The last word on each kind is answered, as it was marked.
    for response in &view[2..] {
        let marked = SotwRequest { nonce: more_follows(&response.nonce), ..ack(response, &[]) };
        machine.request(marked, &store, at(2)).unwrap();
    }
    assert!(machine.is_free() && drain(&mut machine, &store).is_empty());
}

#[test]
fn changes_wait_for_the_answer_and_travel_together() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    let first = one(send(&mut machine, &store, ask(&[])));
    for n in 0..100 {
        assert!(tell(&mut machine, &store, vec![set(Kind::Secret, "a", &format!("n{n}"))]).is_empty());
    }
    assert_eq!(said(&one(send(&mut machine, &store, ack(&first, &[])))), ["a"]);
}
