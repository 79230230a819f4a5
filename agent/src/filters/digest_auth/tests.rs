//! Tests of `digest-auth`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use heddle_xds::catalog::{Catalog, Place};
use serde_json::{Value, json};

use super::super::testing::{People, answer, faults, filter, header, passes};
use super::super::{Filter, Registry};
use super::digest::Hash;
use crate::exchange::Exchange;
use crate::exchange::testing::NOW_MS;

/// MD5 of `trae:digest:fik`, as `htdigest` writes it.
fn htdigest() -> String {
    Hash::Md5.hex(&["trae", "digest", "fik"])
}

fn ask(target: &str, value: Option<&str>, now_ms: u64) -> Exchange {
    let people = People::default()
        .with("jack", "digest-auth", json!({"username": "jack", "password": "open sesame"}))
        .with("trae", "digest-auth", json!({"username": "trae", "ha1": htdigest().to_uppercase()}))
        .with("ref", "digest-auth", json!({"username": "ref", "password": "$secret://a/b/c/d"}))
        .and("guest");
    let fields: Vec<_> = value.map(|value| ("Authorization", value)).into_iter().collect();
    let mut x = people.ask("GET", target, &fields);
    x.started_ms = now_ms;
    x
}

fn challenges(filter: &Arc<dyn Filter>) -> Vec<String> {
    let refusal = answer(filter.rewrite(&mut ask("/", None, NOW_MS)));
    refusal.head.fields.get_all("www-authenticate").map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

fn nonce(filter: &Arc<dyn Filter>) -> String {
    let challenge = challenges(filter).remove(0);
    challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

/// What a client of RFC 7616 answers.
fn reply(hash: Hash, session: bool, user: (&str, &str), uri: &str, nonce: &str, count: u32) -> String {
    let mut ha1 = hash.hex(&[user.0, "digest", user.1]);
    if session {
        ha1 = hash.hex(&[&ha1, nonce, "c"]);
    }
    let ha2 = hash.hex(&["GET", uri]);
    let response = hash.hex(&[&ha1, nonce, &format!("{count:08x}"), "c", "auth", &ha2]);
    let (name, sess) = (hash.name(), if session { "-sess" } else { "" });
    format!(
        "Digest username=\"{}\", realm=\"digest\", nonce=\"{nonce}\", uri=\"{uri}\", algorithm={name}{sess}, qop=auth, nc={count:08x}, cnonce=\"c\", response=\"{response}\"",
        user.0
    )
}

fn status(filter: &Arc<dyn Filter>, target: &str, value: &str, now_ms: u64) -> (u16, bool) {
    let mut x = ask(target, Some(value), now_ms);
    match filter.rewrite(&mut x) {
        super::super::Flow::Answer(refusal) => {
            let stale = refusal.head.fields.get_str("www-authenticate").unwrap().ends_with(", stale=true");
            (refusal.head.status, stale)
        }
        flow => {
            assert!(passes(flow));
            (200, false)
        }
    }
}

#[test]
fn both_hashes_identify_with_and_without_sessions() {
    let filter = filter("digest-auth", &json!({"hide_credentials": true}));
    let nonce = nonce(&filter);
    let mut count = 0;
    for (hash, session) in [(Hash::Md5, false), (Hash::Sha256, false), (Hash::Md5, true), (Hash::Sha256, true)] {
        count += 1;
        let value = reply(hash, session, ("jack", "open sesame"), "/a?b=1", &nonce, count);
        let mut x = ask("/a?b=1", Some(&value), NOW_MS);
        assert!(passes(filter.rewrite(&mut x)), "{value}");
        assert_eq!((header(&x, "X-Consumer-Username"), header(&x, "Authorization")), (Some("jack"), None));
    }
    assert_eq!(status(&filter, "/", &reply(Hash::Md5, false, ("trae", "fik"), "http://h/", &nonce, 9), NOW_MS), (200, false));
}

/// A URL within the query is no whole URL: an answer for such a target is good for it, and not for the path of the URL in it.
#[test]
fn an_answer_counts_for_its_own_target_alone() {
    let filter = filter("digest-auth", &json!({}));
    let nonce = nonce(&filter);
    let value = |count| reply(Hash::Sha256, false, ("jack", "open sesame"), "/go?to=http://h/admin", &nonce, count);
    assert_eq!(status(&filter, "/admin", &value(1), NOW_MS).0, 401);
    assert_eq!(status(&filter, "/go?to=http://h/admin", &value(2), NOW_MS).0, 200);
}

#[test]
fn challenges_offer_the_hashes_in_order() {
    let two = challenges(&filter("digest-auth", &json!({})));
    assert!(two[0].starts_with("Digest realm=\"digest\", qop=\"auth\", algorithm=SHA-256, nonce=\""), "{two:?}");
    assert!(two[1].contains("algorithm=MD5") && two.len() == 2);
    let one = filter("digest-auth", &json!({"algorithms": ["SHA-256"], "realm": "digest"}));
    let nonce = nonce(&one);
    assert_eq!(challenges(&one).len(), 1);
    assert_eq!(status(&one, "/", &reply(Hash::Md5, false, ("jack", "open sesame"), "/", &nonce, 1), NOW_MS), (401, false));
}

#[test]
fn wrong_answers_are_refused() {
    let filter = filter("digest-auth", &json!({}));
    let nonce = nonce(&filter);
    let right = reply(Hash::Sha256, false, ("jack", "open sesame"), "/a", &nonce, 1);
    for value in [
        reply(Hash::Sha256, false, ("jack", "guess"), "/a", &nonce, 1),
        reply(Hash::Sha256, false, ("nobody", ""), "/a", &nonce, 1),
        reply(Hash::Sha256, false, ("ref", "$secret://a/b/c/d"), "/a", &nonce, 1),
        reply(Hash::Sha256, false, ("ref", ""), "/a", &nonce, 1),
        // Its hash is MD5, so it can say nothing of SHA-256.
        reply(Hash::Sha256, false, ("trae", "fik"), "/a", &nonce, 1),
        reply(Hash::Sha256, false, ("jack", "open sesame"), "/b", &nonce, 1),
        reply(Hash::Sha256, false, ("jack", "open sesame"), "/a?", &nonce, 1),
        right.replace("realm=\"digest\"", "realm=\"other\""),
        right.replace("nc=00000001", "nc=00000002"),
        "Digest".to_owned(),
        "Basic x".to_owned(),
    ] {
        assert_eq!(status(&filter, "/a", &value, NOW_MS), (401, false), "{value}");
    }
    assert_eq!(status(&filter, "/a", &right, NOW_MS), (200, false));
}

#[test]
fn no_answer_counts_twice_and_old_ones_are_stale() {
    let filter = filter("digest-auth", &json!({"nonce_ttl": 10}));
    let nonce = nonce(&filter);
    let with = |nonce: &str, count| reply(Hash::Sha256, false, ("jack", "open sesame"), "/", nonce, count);
    for (count, expected) in [(1, (200, false)), (1, (401, true)), (3, (200, false)), (2, (200, false)), (2, (401, true))] {
        assert_eq!(status(&filter, "/", &with(&nonce, count), NOW_MS), expected, "{count}");
    }
    assert_eq!(status(&filter, "/", &with(&nonce, 4), NOW_MS + 10_000), (401, true));
    assert_eq!(status(&filter, "/", &with("made-up", 1), NOW_MS), (401, true));
}

#[test]
fn those_who_prove_nothing_may_be_somebody() {
    let filter = filter("digest-auth", &json!({"anonymous_consumer": "guest"}));
    for value in [None, Some("Digest x")] {
        let mut x = ask("/", value, NOW_MS);
        assert!(passes(filter.rewrite(&mut x)));
        assert_eq!(header(&x, "X-Consumer-Username"), Some("guest"));
    }
}

#[test]
fn wrong_configurations_are_refused() {
    let config = json!({"algorithms": [], "nonce_ttl": 0, "realm": "\"", "anonymous_consumer": ""});
    assert_eq!(faults("digest-auth", &config), ["algorithms", "nonce_ttl", "realm", "anonymous_consumer"]);
    assert_eq!(faults("digest-auth", &json!({"algorithms": ["SHA-1"]})), ["algorithms[0]"]);
    let paths = |value: Value| {
        let found = Registry::default().check("digest-auth", Place::Consumer, &value).unwrap_err();
        found.into_iter().map(|fault| fault.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(json!({"username": ""})), ["username", ""]);
    assert_eq!(paths(json!({"username": "a", "password": "b", "ha1": "c"})), [""]);
    assert_eq!(paths(json!({"username": "a", "password": ""})), ["password"]);
    assert_eq!(paths(json!({"username": "a", "ha1": "xyz"})), ["ha1"]);
}
