//! Rings and tables: both data planes lead the same key to the same of endpoints with weights.

use std::collections::BTreeSet;

use heddle_integration::client;
use heddle_integration::nginx::Nginx;
use serde_json::{Value, json};

use super::pair::{Door, Pair, cluster, host};

/// Keys of each way to lead them.
const KEYS: usize = 150;

#[test]
fn the_same_key_leads_to_the_same_endpoint_by_ring_and_table() {
    let all = ["one", "two", "three", "four", "five"].map(Nginx::saying);
    let even: Vec<_> = all.iter().map(|nginx| (nginx.address, 1)).collect();
    let heavy: Vec<_> = all.iter().zip([1, 2, 3, 7, 20]).map(|(nginx, weight)| (nginx.address, weight)).collect();
    let (ring, table) = (json!({ "lb_policy": "RING_HASH" }), json!({ "lb_policy": "MAGLEV" }));
    let sized =
        json!({ "lb_policy": "RING_HASH", "ring_hash_lb_config": { "minimum_ring_size": 300, "maximum_ring_size": 2000 } });
    let small = json!({ "lb_policy": "MAGLEV", "maglev_lb_config": { "table_size": 1009 } });
    let ways = [
        ("ring", &even, ring.clone()),
        ("heavy-ring", &heavy, ring),
        ("sized-ring", &heavy, sized),
        ("table", &even, table.clone()),
        ("heavy-table", &heavy, table),
        ("small-table", &heavy, small),
    ];
    let clusters: Vec<Value> = ways.iter().map(|(name, endpoints, more)| cluster(name, endpoints, more.clone())).collect();
    let by = |key: &str, way: &str, policies: Value| json!({ "match": { "prefix": format!("/{key}/{way}") }, "route": { "cluster": way, "hash_policy": policies } });
    let address = json!({ "connection_properties": { "source_ip": true } });
    let routes: Vec<Value> = ways
        .iter()
        .flat_map(|(way, ..)| {
            [
                by("field", way, json!([{ "header": { "header_name": "x-who" } }])),
                by("cookie", way, json!([{ "cookie": { "name": "who" }, "terminal": true }, address])),
                by("query", way, json!([{ "query_parameter": { "name": "who" } }])),
            ]
        })
        .collect();
    let door = Door { filters: Vec::new(), hosts: vec![host("all", "*", json!(routes))] };
    let pair = Pair::start(&[door], &clusters);
    for (way, endpoints, _) in &ways {
        for key in ["field", "cookie", "query"] {
            let picks = pair.both(0).map(|at| {
                let pick = |nth: usize| {
                    let (who, cookie) = (format!("client-{nth}"), format!("a=b; who={nth}"));
                    let target = format!("/{key}/{way}?a=b&who=q{nth}");
                    client::send(at, "GET", &target, &[("x-who", &who), ("Cookie", &cookie)], b"").expect("an answer").text()
                };
                (0..KEYS).map(pick).collect::<Vec<_>>()
            });
            let differing = picks[0].iter().zip(&picks[1]).filter(|(ours, theirs)| ours != theirs).count();
            assert_eq!(differing, 0, "{differing} of {KEYS} by {key} in {way}");
            assert!(picks[0].iter().collect::<BTreeSet<_>>().len() >= 4, "{way}: {picks:?}");
            let heaviest = picks[0].iter().filter(|pick| *pick == "five").count();
            assert_eq!(endpoints[4].1 == 20, heaviest > KEYS / 2 - 15, "twenty shares of 33 in {way}: {heaviest}");
        }
    }
}
