//! A gateway of Heddle and the real Envoy lead the same key to the same endpoint: by ring and by Maglev's table, with weights, and when an endpoint is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use heddle_integration::client;
use heddle_integration::envoy::both;
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// Keys that both are asked for.
const KEYS: usize = 300;

/// One upstream for both; says when both use it.
fn upstream(all: &[&Heddle], nodes: &[(SocketAddr, u32)], kind: &str, (hash_on, key): (&str, &str)) {
    let written: serde_json::Map<String, Value> = nodes.iter().map(|(node, weight)| (node.to_string(), json!(weight))).collect();
    let mark = format!("{kind} {hash_on} {key} {nodes:?}");
    for heddle in all {
        heddle.put("/upstreams/u", json!({ "nodes": written, "type": kind, "hash_on": hash_on, "key": key }));
        // Routes come after clusters and endpoints.
        let told = json!({ "headers": { "x-mark": mark } });
        heddle.put("/routes/r", json!({ "uri": "/*", "upstream_id": "u", "plugins": { "response-rewrite": told } }));
        let marked = || client::get(heddle.http, "/").is_ok_and(|answer| answer.field("x-mark") == Some(&*mark));
        until("the upstream", || (0..16).all(|_| marked()).then_some(()));
    }
}

/// Where each key is led.
fn picks(heddle: &Heddle, request: &dyn Fn(usize) -> (String, Vec<(&'static str, String)>)) -> Vec<String> {
    let pick = |nth: usize| {
        let (target, fields) = request(nth);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        client::send(heddle.http, "GET", &target, &fields, b"").expect("an answer").text()
    };
    (0..KEYS).map(pick).collect()
}

fn by_header(nth: usize) -> (String, Vec<(&'static str, String)>) {
    ("/".to_owned(), vec![("x-who", format!("client-{nth}"))])
}

#[test]
fn the_same_key_leads_to_the_same_endpoint() {
    let names = ["one", "two", "three", "four", "five"];
    let all = names.map(Nginx::saying);
    let gateway = Heddle::run();
    both(|followed, _| {
        let pair = [&gateway, followed];
        let agree = |request: &dyn Fn(usize) -> (String, Vec<(&'static str, String)>), endpoints: usize| {
            let (ours, theirs) = (picks(&gateway, request), picks(followed, request));
            let differing = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs).count();
            assert_eq!(differing, 0, "{ours:?}\n{theirs:?}");
            assert_eq!(ours.iter().collect::<BTreeSet<_>>().len(), endpoints, "{ours:?}");
            ours
        };
        for kind in ["chash", "maglev"] {
            let even: Vec<_> = all.iter().map(|nginx| (nginx.address, 1)).collect();
            upstream(&pair, &even, kind, ("header", "x-who"));
            let before = agree(&by_header, 5);
            upstream(&pair, &even[..4], kind, ("header", "x-who"));
            let after = agree(&by_header, 4);
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after && *before != "five").count();
            let most = if kind == "chash" { 0 } else { KEYS / 8 };
            assert!(moved <= most, "{kind}: {moved} keys of others moved when one has left");
            let weights: Vec<_> = all.iter().zip([1, 2, 3, 7, 20]).map(|(nginx, weight)| (nginx.address, weight)).collect();
            upstream(&pair, &weights, kind, ("header", "x-who"));
            let picks = agree(&by_header, 5);
            assert!(picks.iter().filter(|pick| *pick == "five").count() > KEYS / 2, "twenty shares of 33");
        }
    });
}

#[test]
fn keys_are_read_alike_wherever_they_stand() {
    let all = ["one", "two", "three"].map(Nginx::saying);
    let gateway = Heddle::run();
    both(|followed, _| {
        let pair = [&gateway, followed];
        let nodes: Vec<_> = all.iter().map(|nginx| (nginx.address, 1)).collect();
        let agree = |request: &dyn Fn(usize) -> (String, Vec<(&'static str, String)>)| {
            let (ours, theirs) = (picks(&gateway, request), picks(followed, request));
            assert_eq!(ours, theirs);
            ours.iter().collect::<BTreeSet<_>>().len()
        };
        upstream(&pair, &nodes, "chash", ("vars", "arg_who"));
        assert_eq!(agree(&|nth| (format!("/?a=b&who={nth}"), Vec::new())), 3);
        assert_eq!(agree(&|_| ("/".to_owned(), Vec::new())), 1, "without a key the address counts");
        upstream(&pair, &nodes, "maglev", ("cookie", "who"));
        assert_eq!(agree(&|nth| ("/".to_owned(), vec![("cookie", format!("a=b; who={nth}"))])), 3);
        upstream(&pair, &nodes, "chash", ("vars", "remote_addr"));
        assert_eq!(agree(&|_| ("/".to_owned(), Vec::new())), 1);
        upstream(&pair, &nodes, "chash", ("vars", "request_uri"));
        assert_eq!(agree(&|nth| (format!("/{nth}?a"), Vec::new())), 3);
    });
}
