//! Delta: subscriptions, versions, nonces, removals, order and chunks.

use super::*;
use crate::protocol::{DeltaRequest, DeltaResponse, WILDCARD};
use crate::server::DeltaMachine;

fn machine(store: &SnapshotStore) -> DeltaMachine {
    DeltaMachine::new(NodeScope::default(), store.position())
}

fn ask(names: &[&str]) -> DeltaRequest {
    asks(Kind::Secret, names)
}

fn asks(kind: Kind, names: &[&str]) -> DeltaRequest {
    DeltaRequest { subscribe: names.iter().map(|name| Arc::from(*name)).collect(), ..DeltaRequest::new(kind) }
}

fn leave(names: &[&str]) -> DeltaRequest {
    DeltaRequest { unsubscribe: names.iter().map(|name| Arc::from(*name)).collect(), ..DeltaRequest::new(Kind::Secret) }
}

fn having(mut request: DeltaRequest, held: &[(&str, &str)]) -> DeltaRequest {
    request.initial = held.iter().map(|(name, version)| (Arc::from(*name), Arc::from(*version))).collect();
    request
}

fn ack(response: &DeltaResponse) -> DeltaRequest {
    DeltaRequest { nonce: response.nonce.clone(), ..DeltaRequest::new(response.kind) }
}

fn nack(response: &DeltaResponse, text: &str) -> DeltaRequest {
    DeltaRequest { error: Some(text.to_string()), ..ack(response) }
}

/// `+name` for set, `-name` for removed.
fn said(response: &DeltaResponse) -> Vec<String> {
    let set = response.resources.iter().map(|raw| format!("+{}", raw.name));
    set.chain(response.removed.iter().map(|name| format!("-{name}"))).collect()
}

fn all_said(responses: &[DeltaResponse]) -> Vec<Vec<String>> {
    responses.iter().map(said).collect()
}

fn send(machine: &mut DeltaMachine, store: &SnapshotStore, request: DeltaRequest) -> Vec<Vec<String>> {
    machine.request(request, store, at(1)).unwrap();
    all_said(&drain(machine, store))
}

fn tell(machine: &mut DeltaMachine, store: &SnapshotStore, changes: Vec<Change>) -> Vec<Vec<String>> {
    change(machine, store, changes);
    all_said(&drain(machine, store))
}

#[test]
fn no_names_first_means_all() {
    let store = secrets(&["a", "b"]);
    let mut machine = machine(&store);
    assert_eq!(send(&mut machine, &store, ask(&[])), [["+a", "+b"]]);
    assert_eq!(send(&mut machine, &store, ask(&[])), Vec::<Vec<String>>::new(), "only the first time");
    assert_eq!(tell(&mut machine, &store, vec![set(Kind::Secret, "c", "1")]), [["+c"]]);
}

#[test]
fn a_star_means_all() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    assert_eq!(send(&mut machine, &store, ask(&[WILDCARD])), [["+a"]]);
    assert_eq!(tell(&mut machine, &store, vec![set(Kind::Secret, "b", "1")]), [["+b"]]);
    assert_eq!(send(&mut machine, &store, ask(&[WILDCARD])), [["+a", "+b"]], "asking again resends");
}

#[test]
fn all_of_nothing_is_answered_with_nothing() {
    let store = SnapshotStore::new();
    let mut machine = machine(&store);
    assert_eq!(send(&mut machine, &store, ask(&[])), [Vec::<String>::new()]);
    assert!(drain(&mut machine, &store).is_empty(), "once");
}

#[test]
fn names_are_answered_one_by_one_and_unknown_ones_at_once() {
    let store = secrets(&["a", "b"]);
    let mut machine = machine(&store);
    assert_eq!(send(&mut machine, &store, ask(&["a", "x"])), [["+a", "-x"]]);
    assert!(tell(&mut machine, &store, vec![set(Kind::Secret, "b", "2")]).is_empty(), "not asked for");
    assert_eq!(tell(&mut machine, &store, vec![set(Kind::Secret, "x", "1")]), [["+x"]], "it is still asked for");
    assert_eq!(send(&mut machine, &store, ask(&["b"])), [["+b"]]);
    assert_eq!(send(&mut machine, &store, ask(&["a"])), [["+a"]], "asking again resends, the client may have forgotten");
    assert!(send(&mut machine, &store, ask(&[])).is_empty(), "no names later is not all");
}

#[test]
fn unsubscribed_names_are_silent_until_asked_again() {
    let store = secrets(&["a", "b"]);
    let mut machine = machine(&store);
    send(&mut machine, &store, ask(&["a", "b"]));
    assert!(send(&mut machine, &store, leave(&["a", "never"])).is_empty());
    assert_eq!(tell(&mut machine, &store, vec![set(Kind::Secret, "a", "2"), gone(Kind::Secret, "b")]), [["-b"]]);
    assert_eq!(send(&mut machine, &store, ask(&["a"])), [["+a"]]);
}

#[test]
fn leaving_a_name_while_all_are_asked_for_tells_its_state() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    assert_eq!(send(&mut machine, &store, ask(&[WILDCARD, "a", "x"])), [["+a", "-x"]]);
    assert_eq!(send(&mut machine, &store, leave(&["a", "x"])), [["+a", "-x"]]);
    assert_eq!(tell(&mut machine, &store, vec![set(Kind::Secret, "a", "2")]), [["+a"]], "the star still holds");
}

#[test]
fn leaving_the_star_keeps_the_names() {
    let store = secrets(&["a", "b"]);
    let mut machine = machine(&store);
    send(&mut machine, &store, ask(&[WILDCARD, "a"]));
    assert!(send(&mut machine, &store, leave(&[WILDCARD])).is_empty());
    let changes = vec![set(Kind::Secret, "a", "2"), set(Kind::Secret, "b", "2"), set(Kind::Secret, "c", "1")];
    assert_eq!(tell(&mut machine, &store, changes), [["+a"]]);
}

#[test]
fn reconnecting_with_versions_gets_only_the_difference() {
    let store = secrets(&["a", "b", "c"]);
    let mut machine = machine(&store);
    let a = version(&store, Kind::Secret, "a");
    let held = [("a", &*a), ("b", "old"), ("gone", "1")];
    assert_eq!(send(&mut machine, &store, having(ask(&[]), &held)), [vec!["+b", "+c"], vec!["-gone"]]);
}

#[test]
fn reconnecting_with_everything_is_answered_with_nothing() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    let a = version(&store, Kind::Secret, "a");
    assert_eq!(send(&mut machine, &store, having(ask(&[]), &[("a", &a)])), [Vec::<String>::new()]);
}

#[test]
fn reconnecting_by_name_looks_only_at_those_names() {
    let store = secrets(&["a", "b"]);
    let mut machine = machine(&store);
    let (a, b) = (version(&store, Kind::Secret, "a"), version(&store, Kind::Secret, "b"));
    let held = [("a", &*a), ("b", &*b), ("gone", "1"), ("other", "1")];
    assert_eq!(send(&mut machine, &store, having(ask(&["a", "gone", "new"]), &held)), [["-new"], ["-gone"]]);
}

#[test]
fn versions_are_only_believed_at_first() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    send(&mut machine, &store, ask(&["a"]));
    let a = version(&store, Kind::Secret, "a");
    assert_eq!(send(&mut machine, &store, having(ask(&["a"]), &[("a", &a)])), [["+a"]]);
}

#[test]
fn a_nonce_of_another_stream_is_ignored() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    let stale = DeltaRequest { nonce: "77".into(), error: Some("from before".to_string()), ..ask(&["a"]) };
    assert_eq!(send(&mut machine, &store, stale), [["+a"]]);
    assert!(machine.nacks().is_empty());
}

#[test]
fn an_ack_of_an_older_response_is_normal() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    machine.request(ask(&[]), &store, at(1)).unwrap();
    let first = drain(&mut machine, &store).remove(0);
    change(&mut machine, &store, vec![set(Kind::Secret, "a", "2")]);
    let second = drain(&mut machine, &store).remove(0);
    assert_ne!(first.nonce, second.nonce);
    assert!(send(&mut machine, &store, ack(&first)).is_empty());
    let held = |machine: &DeltaMachine| machine.held()[0].clone();
    assert_eq!((held(&machine).version, held(&machine).pending), (first.version.clone(), true));
    assert!(send(&mut machine, &store, ack(&second)).is_empty());
    assert_eq!((held(&machine).version, held(&machine).pending, held(&machine).resources), (second.version.clone(), false, 1));
    assert!(send(&mut machine, &store, ack(&first)).is_empty(), "twice is ignored");
    assert_eq!(held(&machine).version, second.version);
}

#[test]
fn a_refused_version_is_not_sent_again() {
    let store = secrets(&["a", "b"]);
    let mut machine = machine(&store);
    machine.request(ask(&[]), &store, at(1)).unwrap();
    let first = drain(&mut machine, &store).remove(0);
    machine.request(nack(&first, "Secret a: body: is not PEM"), &store, at(5)).unwrap();
    assert!(drain(&mut machine, &store).is_empty());
    let nacks = machine.nacks();
    assert_eq!((nacks.len(), &*nacks[0].name, nacks[0].field.as_str(), nacks[0].time), (1, "a", "body", at(5)));
    assert_eq!(machine.held()[0].resources, 1);
    assert!(tell(&mut machine, &store, vec![set(Kind::Secret, "a", "1")]).is_empty(), "the same again is no change");
    change(&mut machine, &store, vec![set(Kind::Secret, "a", "2")]);
    let second = drain(&mut machine, &store).remove(0);
    assert_eq!(said(&second), ["+a"]);
    assert_eq!(machine.nacks().len(), 1, "until it is accepted");
    machine.request(ack(&second), &store, at(6)).unwrap();
    assert!(machine.nacks().is_empty());
}

#[test]
fn removing_a_refused_resource_clears_it() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    machine.request(ask(&[]), &store, at(1)).unwrap();
    let first = drain(&mut machine, &store).remove(0);
    machine.request(nack(&first, "Secret a: body: is not PEM"), &store, at(5)).unwrap();
    change(&mut machine, &store, vec![gone(Kind::Secret, "a")]);
    let second = drain(&mut machine, &store).remove(0);
    assert_eq!(said(&second), ["-a"]);
    machine.request(ack(&second), &store, at(6)).unwrap();
    assert!(machine.nacks().is_empty());
}

#[test]
fn a_foreign_nack_is_kept_whole_and_blamed_on_what_was_sent() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    machine.request(ask(&[]), &store, at(1)).unwrap();
    let first = drain(&mut machine, &store).remove(0);
    machine.request(nack(&first, "Error adding/updating secret(s) a: bad"), &store, at(5)).unwrap();
    assert_eq!((&*machine.nacks()[0].name, machine.nacks()[0].reason.as_str()), ("a", "Error adding/updating secret(s) a: bad"));
}

#[test]
fn dependencies_come_first_and_removals_last_in_reverse() {
    let store = SnapshotStore::new();
    let mut machine = machine(&store);
    for kind in [Kind::Certificate, Kind::Consumer, Kind::Secret, Kind::Endpoints] {
        send(&mut machine, &store, asks(kind, &[]));
    }
    let names = [Kind::Certificate, Kind::Consumer, Kind::Secret, Kind::Endpoints];
    change(&mut machine, &store, names.iter().map(|kind| set(*kind, "old", "1")).collect());
    let order: Vec<Kind> = drain(&mut machine, &store).iter().map(|response| response.kind).collect();
    assert_eq!(order, [Kind::Secret, Kind::Endpoints, Kind::Consumer, Kind::Certificate]);
    let mut changes: Vec<Change> = names.iter().map(|kind| gone(*kind, "old")).collect();
    changes.extend([set(Kind::Certificate, "new", "1"), set(Kind::Secret, "new", "1")]);
    change(&mut machine, &store, changes);
    let order: Vec<_> = drain(&mut machine, &store).iter().map(|response| (response.kind, said(response).concat())).collect();
    let expected = [
        (Kind::Secret, "+new"),
        (Kind::Certificate, "+new"),
        (Kind::Certificate, "-old"),
        (Kind::Consumer, "-old"),
        (Kind::Endpoints, "-old"),
        (Kind::Secret, "-old"),
    ];
    assert_eq!(order, expected.map(|(kind, said)| (kind, said.to_string())));
}

#[test]
fn a_listener_that_leaves_goes_with_the_one_that_takes_its_address() {
    let store = SnapshotStore::new();
    let mut machine = machine(&store);
    for kind in [Kind::Certificate, Kind::Listener] {
        send(&mut machine, &store, asks(kind, &[]));
    }
    change(&mut machine, &store, vec![set(Kind::Certificate, "old", "1"), listener("old", &[])]);
    drain(&mut machine, &store);
    let left = [Kind::Certificate, Kind::Listener].map(|kind| gone(kind, "old"));
    let came = [set(Kind::Certificate, "new", "1"), listener("new", &[])];
    change(&mut machine, &store, left.into_iter().chain(came).collect());
    assert_eq!(all_said(&drain(&mut machine, &store)), [vec!["+new"], vec!["+new", "-old"], vec!["-old"]]);
    change(&mut machine, &store, vec![gone(Kind::Listener, "new")]);
    assert_eq!(all_said(&drain(&mut machine, &store)), [["-new"]]);
}

#[test]
fn a_name_that_comes_back_before_its_removal_was_sent_is_not_removed() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    send(&mut machine, &store, ask(&[]));
    change(&mut machine, &store, vec![gone(Kind::Secret, "a")]);
    change(&mut machine, &store, vec![set(Kind::Secret, "a", "1")]);
    assert!(drain(&mut machine, &store).is_empty(), "the client has this version");
    change(&mut machine, &store, vec![gone(Kind::Secret, "a")]);
    assert_eq!(all_said(&drain(&mut machine, &store)), [["-a"]]);
}

#[test]
fn a_removal_that_waits_is_checked_again() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    send(&mut machine, &store, ask(&[]));
    send(&mut machine, &store, asks(Kind::Consumer, &[]));
    change(&mut machine, &store, vec![gone(Kind::Secret, "a"), set(Kind::Consumer, "c", "1")]);
    assert_eq!(said(&machine.response(&store).unwrap()), ["+c"]);
    store.apply(vec![set(Kind::Secret, "a", "2")]);
    assert_eq!(
        all_said(&drain(&mut machine, &store)),
        Vec::<Vec<String>>::new(),
        "it is back, the change is still to be noticed"
    );
    assert_eq!(tell(&mut machine, &store, vec![]), [["+a"]]);
}

#[test]
fn much_is_sent_in_chunks() {
    let store = SnapshotStore::new();
    let filler = "x".repeat(1000);
    store.apply((0..5000).map(|n| set(Kind::Secret, &format!("s{n}"), &filler)).collect());
    let mut machine = machine(&store);
    machine.request(ask(&[]), &store, at(1)).unwrap();
    let responses = drain(&mut machine, &store);
    let size = |response: &DeltaResponse| response.resources.iter().map(|raw| raw.body.len()).sum::<usize>();
    assert!(responses.len() >= 5 && responses.iter().all(|response| size(response) < 1_100_000), "{}", responses.len());
    assert_eq!(responses.iter().map(|response| response.resources.len()).sum::<usize>(), 5000);
}

#[test]
fn a_client_that_never_answers_is_not_told_of_more_and_more_views() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    machine.request(ask(&[]), &store, at(1)).unwrap();
    let mut sent = drain(&mut machine, &store);
    for n in 0..500 {
        store.apply(vec![set(Kind::Secret, "a", &n.to_string())]);
        if machine.is_free() {
            change(&mut machine, &store, vec![]);
        }
        sent.extend(drain(&mut machine, &store));
    }
    assert_eq!(sent.len(), 64);
    machine.request(ack(sent.last().unwrap()), &store, at(2)).unwrap();
    assert!(machine.is_free());
    change(&mut machine, &store, vec![]);
    assert_eq!(all_said(&drain(&mut machine, &store)), [["+a"]], "then it gets the newest");
}

#[test]
fn a_client_that_asks_on_and_never_answers_is_left() {
    let store = secrets(&["a"]);
    let mut machine = machine(&store);
    machine.request(ask(&["a"]), &store, at(1)).unwrap();
    let refused = (0..10_000).find_map(|_| {
        drain(&mut machine, &store);
        machine.request(ask(&["a"]), &store, at(1)).err()
    });
    assert_eq!(refused.unwrap().to_string(), "what waits for its answer has 4097 elements or bytes, at most 4096 are accepted");
}

#[test]
fn what_has_begun_is_told_to_its_end_however_long_it_is() {
    let store = SnapshotStore::new();
    let filler = "x".repeat(600_000);
    store.apply(
        (0..150).map(|n| set(Kind::Secret, &format!("s{n}"), &filler)).chain([set(Kind::Certificate, "c", "1")]).collect(),
    );
    let mut machine = machine(&store);
    machine.request(asks(Kind::Secret, &[]), &store, at(1)).unwrap();
    machine.request(asks(Kind::Certificate, &[]), &store, at(1)).unwrap();
    let responses = drain(&mut machine, &store);
    assert!(responses.len() > 70, "{}", responses.len());
    assert_eq!(responses.iter().map(|response| response.resources.len()).sum::<usize>(), 151);
    assert!(!machine.is_free());
}

#[test]
fn a_subscription_cannot_grow_without_end() {
    let store = SnapshotStore::new();
    let mut machine = machine(&store);
    let names = |from: usize| DeltaRequest {
        subscribe: (from..from + 60_000).map(|n| n.to_string().into()).collect(),
        ..DeltaRequest::new(Kind::Secret)
    };
    machine.request(names(0), &store, at(1)).unwrap();
    machine.request(names(0), &store, at(1)).unwrap();
    let refused = machine.request(names(60_000), &store, at(1)).unwrap_err();
    assert_eq!(refused.to_string(), "the subscription has 120000 elements or bytes, at most 100000 are accepted");
}

#[test]
fn listeners_of_other_nodes_are_not_there() {
    let store = SnapshotStore::new();
    let mut machine = DeltaMachine::new(NodeScope { id: "gw-2".into(), ..NodeScope::default() }, 0);
    store.apply(vec![listener("l", &["gw-1"])]);
    assert_eq!(send(&mut machine, &store, asks(Kind::Listener, &[])), [Vec::<String>::new()]);
    assert_eq!(tell(&mut machine, &store, vec![listener("l", &[])]), [["+l"]]);
    assert_eq!(tell(&mut machine, &store, vec![listener("l", &["gw-1"])]), [["-l"]], "out of scope is gone");
}
