//! Client machines: what is held, what is refused, and what is said about it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::codec::encode_body;
use crate::model::{Secret, SecretBody};
use crate::protocol::{DeltaResponse, RawResource, SotwResponse, WILDCARD};
use crate::snapshot::version_of;

fn secret(name: &str, pem: &str) -> Resource {
    Resource::Secret(Secret { name: name.into(), body: SecretBody::Roots(pem.into()) })
}

fn raw(name: &str, pem: &str) -> RawResource {
    let body = encode_body(&secret(name, pem));
    RawResource { name: name.into(), version: version_of(&body), type_url: Kind::Secret.type_url().into(), body }
}

fn broken(name: &str) -> RawResource {
    RawResource { body: Bytes::from_static(b"\xff\xff"), version: "v".into(), ..raw(name, "") }
}

fn delta(nonce: &str, resources: Vec<RawResource>, removed: &[&str]) -> DeltaResponse {
    let removed = removed.iter().map(|name| Arc::from(*name)).collect();
    DeltaResponse { kind: Kind::Secret, version: "1".into(), nonce: nonce.into(), resources, removed }
}

fn sotw(nonce: &str, version: &str, resources: Vec<RawResource>) -> SotwResponse {
    let unnamed = |raw: RawResource| RawResource { name: "".into(), version: "".into(), ..raw };
    let resources = resources.into_iter().map(unnamed).collect();
    SotwResponse { kind: Kind::Secret, version: version.into(), nonce: nonce.into(), resources }
}

fn fault(name: &str) -> InvalidResource {
    InvalidResource { kind: Kind::Secret, name: name.into(), field: "body".to_string(), reason: "is not PEM".to_string() }
}

fn names(update: &TypedUpdate) -> Vec<String> {
    let set = update.set.iter().map(|set| format!("+{}", set.name));
    set.chain(update.removed.iter().map(|name| format!("-{name}"))).collect()
}

fn held<M: ClientMachine>(machine: &M) -> Vec<String> {
    machine.holdings().list(Kind::Secret).map(|(name, _)| name.to_string()).collect()
}

/// Receives a response and settles it at once.
fn exchange<M: ClientMachine>(machine: &mut M, response: M::Response, rejected: &[InvalidResource]) -> (TypedUpdate, M::Request) {
    let (update, open) = machine.receive(response);
    let request = machine.settle(open, rejected);
    (update, request)
}

#[test]
fn delta_opens_with_all_kinds_in_order_and_what_is_held() {
    let mut client = DeltaClient::default();
    exchange(&mut client, delta("1", vec![raw("a", "1")], &[]), &[]);
    let hello = client.hello();
    assert_eq!(hello.iter().map(|request| request.kind).collect::<Vec<_>>(), Kind::ALL);
    assert!(hello.iter().all(|request| *request.subscribe == [Arc::from(WILDCARD)] && request.nonce.is_empty()));
    assert_eq!(hello[0].initial.get("a"), Some(&raw("a", "1").version));
    assert!(hello[1].initial.is_empty());
}

fn some(names: &[&str]) -> std::collections::BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn by_name() -> Asked {
    Asked::new(Interests::only(&[(Kind::Secret, Interest::Named), (Kind::Route, Interest::All)]))
}

fn asks(added: &[&str], dropped: &[&str]) -> Asks {
    Asks { kind: Kind::Secret, added: some(added), dropped: some(dropped) }
}

#[test]
fn delta_asks_by_name_as_names_come_and_go() {
    let mut client = DeltaClient::new(Holdings::default(), by_name());
    assert_eq!(client.hello().iter().map(|request| request.kind).collect::<Vec<_>>(), [Kind::Route], "no name is no request");
    let (request, gone) = client.ask(asks(&["a", "b"], &[]));
    assert_eq!((request.unwrap().subscribe, gone), (vec!["a".into(), "b".into()], vec![]));
    exchange(&mut client, delta("1", vec![raw("a", "1")], &["b"]), &[]);
    let hello = client.hello();
    assert_eq!(hello[0].subscribe, ["a".into(), "b".into()]);
    assert_eq!(hello[0].initial.keys().map(|name| &**name).collect::<Vec<_>>(), ["a"]);
    let (request, gone) = client.ask(asks(&["c"], &["a"]));
    let request = request.unwrap();
    assert_eq!((request.subscribe, request.unsubscribe, gone), (vec!["c".into()], vec!["a".into()], vec!["a".into()]));
    assert!(held(&client).is_empty());
    let other = Asks { kind: Kind::Route, ..asks(&["r"], &[]) };
    assert_eq!(client.ask(other), (None, vec![]));
}

#[test]
fn sotw_says_all_names_each_time_and_finds_out_which_do_not_exist() {
    let mut client = SotwClient::new(Holdings::default(), by_name());
    assert_eq!(client.hello().iter().map(|request| request.kind).collect::<Vec<_>>(), [Kind::Route]);
    let (request, _) = client.ask(asks(&["a", "b"], &[]));
    assert_eq!(request.map(|request| (request.names, request.nonce)), Some((["a", "b"].into_iter().collect(), "".into())));
    let (update, ack) = exchange(&mut client, sotw("n1", "v1", vec![raw("a", "1")]), &[]);
    assert_eq!((names(&update), ack.names.len()), (vec!["+a".to_string(), "-b".to_string()], 2));
    let (update, _) = exchange(&mut client, sotw("n2", "v2", vec![raw("a", "2")]), &[]);
    assert_eq!(names(&update), ["+a"], "what does not exist is said once");
    let (request, gone) = client.ask(asks(&["c"], &["a"]));
    let request = request.unwrap();
    assert_eq!((request.names, &*request.nonce, gone), (["b", "c"].into_iter().collect(), "n2", vec!["a".into()]));
    let (update, _) = exchange(&mut client, sotw("n3", "v3", vec![raw("c", "1")]), &[]);
    assert_eq!(names(&update), ["+c"]);
}

#[test]
fn delta_acks_what_is_good_and_holds_it() {
    let mut client = DeltaClient::default();
    let (update, request) = exchange(&mut client, delta("n1", vec![raw("a", "1"), raw("b", "1")], &[]), &[]);
    assert_eq!(names(&update), ["+a", "+b"]);
    assert_eq!((&*request.nonce, request.error), ("n1", None));
    let (update, _) = exchange(&mut client, delta("n2", vec![raw("a", "2")], &["b"]), &[]);
    assert_eq!((names(&update), held(&client)), (vec!["+a".to_string(), "-b".to_string()], vec!["a".to_string()]));
}

#[test]
fn delta_refuses_singly_by_name() {
    let mut client = DeltaClient::default();
    exchange(&mut client, delta("n1", vec![raw("a", "1")], &[]), &[]);
    let before = client.holdings().get(Kind::Secret, "a").cloned();
    let response = delta("n2", vec![raw("a", "2"), raw("b", "1"), broken("c")], &[]);
    let (update, request) = exchange(&mut client, response, &[fault("a")]);
    assert_eq!((names(&update), update.rejected.len()), (vec!["+a".to_string(), "+b".to_string()], 1));
    let text = request.error.unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines[0], "Secret a: body: is not PEM");
    assert!(lines[1].starts_with("Secret c: : is not a valid protobuf message"), "{text}");
    assert_eq!(held(&client), ["a", "b"]);
    assert_eq!(client.holdings().get(Kind::Secret, "a").cloned(), before, "the last good version is held");
}

#[test]
fn a_consumer_cannot_refuse_what_it_was_not_given() {
    let mut client = DeltaClient::default();
    let (_, request) = exchange(&mut client, delta("n1", vec![raw("a", "1")], &[]), &[fault("z")]);
    assert_eq!((request.error, held(&client)), (None, vec!["a".to_string()]));
}

#[test]
fn a_resource_under_a_wrong_name_or_type_is_refused() {
    let mut client = DeltaClient::default();
    let wrong_name = RawResource { name: "b".into(), ..raw("a", "1") };
    let wrong_type = RawResource { type_url: Kind::Route.type_url().into(), ..raw("c", "1") };
    let (update, _) = exchange(&mut client, delta("n1", vec![wrong_name, wrong_type], &[]), &[]);
    let found: Vec<_> = update.rejected.iter().map(|fault| (&*fault.name, fault.field.as_str())).collect();
    assert_eq!((found, held(&client).len()), (vec![("b", "name"), ("c", "@type")], 0));
}

#[test]
fn delta_responses_about_the_same_resource_are_not_settled_together() {
    let mut client = DeltaClient::default();
    let (_, open) = client.receive(delta("n1", vec![raw("a", "1")], &["b"]));
    let open = [open];
    assert!(client.joins(&open, &delta("n2", vec![raw("c", "1")], &[])));
    assert!(!client.joins(&open, &delta("n2", vec![raw("a", "2")], &[])));
    assert!(!client.joins(&open, &delta("n2", vec![], &["a"])));
    assert!(!client.joins(&open, &delta("n2", vec![raw("b", "1")], &[])));
    let other = DeltaResponse { kind: Kind::Upstream, ..delta("n2", vec![], &["a"]) };
    assert!(client.joins(&open, &other));
}

#[test]
fn sotw_finds_out_what_differs() {
    let mut client = SotwClient::default();
    let (update, request) = exchange(&mut client, sotw("n1", "v1", vec![raw("a", "1"), raw("b", "1")]), &[]);
    assert_eq!((names(&update), &*request.version, request.error), (vec!["+a".to_string(), "+b".to_string()], "v1", None));
    let (update, _) = exchange(&mut client, sotw("n2", "v2", vec![raw("a", "1"), raw("c", "1")]), &[]);
    assert_eq!(names(&update), ["+c", "-b"]);
    assert_eq!(client.hello()[0].version.as_ref(), "v2");
    assert!(client.hello().iter().all(|request| request.nonce.is_empty() && request.names.is_empty()));
    let last = *Kind::ALL.last().unwrap();
    exchange(&mut client, SotwResponse { kind: last, ..sotw("n3", "v3", vec![]) }, &[]);
    assert_eq!(client.hello().last().map(|request| (request.kind, &*request.version)), Some((last, "")), "it is always answered");
}

#[test]
fn sotw_refuses_with_the_previous_version() {
    let mut client = SotwClient::default();
    let (_, request) = exchange(&mut client, sotw("n1", "v1", vec![raw("a", "1")]), &[fault("a")]);
    assert_eq!((&*request.version, request.error.is_some()), ("", true));
    exchange(&mut client, sotw("n2", "v2", vec![raw("a", "2"), raw("b", "1")]), &[]);
    let (update, request) = exchange(&mut client, sotw("n3", "v3", vec![raw("a", "3"), raw("b", "1")]), &[fault("a")]);
    assert_eq!((names(&update), &*request.version, &*request.nonce), (vec!["+a".to_string()], "v2", "n3"));
    assert_eq!(client.holdings().get(Kind::Secret, "a").unwrap().version, raw("a", "2").version);
}

#[test]
fn sotw_asks_for_everything_after_it_took_a_part() {
    let mut client = SotwClient::default();
    exchange(&mut client, sotw("n1", "v1", vec![]), &[]);
    assert_eq!(client.hello()[0].version.as_ref(), "v1");
    let (_, request) = exchange(&mut client, sotw("n2", "v2", vec![raw("a", "1"), raw("b", "1")]), &[fault("b")]);
    assert_eq!((&*request.version, client.hello()[0].version.as_ref()), ("v1", ""), "v1 did not have a");
    exchange(&mut client, sotw("n3", "v3", vec![raw("a", "1")]), &[]);
    assert_eq!(client.hello()[0].version.as_ref(), "v3");
}

#[test]
fn sotw_takes_nothing_away_when_a_bad_resource_does_not_say_its_name() {
    let mut client = SotwClient::default();
    exchange(&mut client, sotw("n1", "v1", vec![raw("a", "1"), raw("b", "1")]), &[]);
    let (update, request) = exchange(&mut client, sotw("n2", "v2", vec![raw("a", "2"), broken("b")]), &[]);
    assert_eq!(names(&update), ["+a"]);
    assert!(request.error.unwrap().starts_with("Secret : : "), "the name is not known");
    assert_eq!(held(&client), ["a", "b"]);
}

#[test]
fn sotw_settles_a_kind_before_the_next_of_it() {
    let mut client = SotwClient::default();
    let (_, open) = client.receive(sotw("n1", "v1", vec![]));
    let open = [open];
    assert!(!client.joins(&open, &sotw("n2", "v2", vec![])));
    assert!(client.joins(&open, &SotwResponse { kind: Kind::Upstream, ..sotw("n2", "v2", vec![]) }));
}

#[test]
fn what_is_held_comes_back_as_updates() {
    let mut client = DeltaClient::default();
    exchange(&mut client, delta("n1", vec![raw("a", "1")], &[]), &[]);
    let mut holdings = client.holdings().clone();
    holdings.insert(Kind::Route, "old".into(), Held { version: "v".into(), body: Bytes::from_static(b"\xff") });
    let updates = holdings.updates();
    assert_eq!(updates.iter().map(|update| update.kind).collect::<Vec<_>>(), [Kind::Secret, Kind::Route]);
    assert_eq!((names(&updates[0]), &*updates[1].rejected[0].name), (vec!["+a".to_string()], "old"));
    holdings.forget(&updates[1].rejected);
    assert_eq!(holdings.count(Kind::Route), 0, "it is asked for again");
}

#[test]
fn nothing_shows_key_material() {
    let shown = format!("{:?} {:?}", raw("a", "SECRET"), Held { version: "v".into(), body: raw("a", "SECRET").body });
    let versioned = crate::snapshot::Versioned::new(secret("a", "SECRET"));
    assert!(!format!("{shown} {versioned:?}").contains("SECRET"));
}
