//! Buckets of tokens: both data planes refuse the same requests in the same words, whoever says that they are limited.

use std::net::SocketAddr;

use heddle_integration::ads::any;
use heddle_integration::client;
use heddle_integration::nginx::Nginx;
use serde_json::{Value, json};

use super::pair::{Door, Pair, cluster, host};

const KIND: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// So many requests at once, and hardly more in an hour.
fn limit(tokens: u32, more: Value) -> Value {
    let all = json!({ "default_value": { "numerator": 100 } });
    let bucket = json!({ "max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "3600s" });
    let mut limit = json!({ "stat_prefix": "limit", "token_bucket": bucket, "filter_enabled": all, "filter_enforced": all });
    limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    any(KIND, limit)
}

/// Status, words and fields of answers to these requests, one after the other.
fn told(address: SocketAddr, asked: &[(&str, &str)]) -> Vec<(u16, String, Vec<String>)> {
    let ask = |(host, path): &(&str, &str)| {
        let answer = client::send(address, "GET", path, &[("Host", host)], b"").expect("an answer");
        let line = |(name, value): &(String, String)| format!("{}: {value}", name.to_ascii_lowercase());
        let mut fields: Vec<String> = answer.fields.iter().map(line).filter(|line| !line.starts_with("date:")).collect();
        fields.sort();
        (answer.status, answer.text(), fields)
    };
    asked.iter().map(ask).collect()
}

#[test]
fn the_same_requests_are_too_many_and_are_told_so_in_the_same_words() {
    let upstream = Nginx::saying("let in");
    let route = |prefix: &str, limit: Option<Value>| {
        let mut route = json!({ "match": { "prefix": prefix }, "route": { "cluster": "up" } });
        if let Some(limit) = limit {
            route["typed_per_filter_config"] = json!({ "limit": limit });
        }
        route
    };
    let mut together = host("together", "together.example", json!([route("/a", None), route("/b", None)]));
    together["typed_per_filter_config"] = json!({ "limit": limit(2, json!({})) });
    let own = || Some(limit(1, json!({ "status": { "code": "ServiceUnavailable" } })));
    // Envoy wants a bucket of everybody, also of who limits nothing: nothing is said of whom it is for.
    let bucket = json!({ "max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s" });
    let none = Some(any(KIND, json!({ "stat_prefix": "none", "token_bucket": bucket })));
    let apart = json!([route("/a", own()), route("/b", own()), route("/free", none)]);
    let rest = json!([route("/a", None), route("/", None)]);
    let hosts = vec![together, host("apart", "apart.example", apart), host("rest", "*", rest)];
    let door = Door { filters: vec![("limit".to_owned(), limit(3, json!({})))], hosts };
    let pair = Pair::start(&[door], &[cluster("up", &[(upstream.address, 1)], json!({}))]);
    let of = |host: &'static str, paths: &[&'static str]| paths.iter().map(|path| (host, *path)).collect::<Vec<_>>();
    let asked = [
        of("rest.example", &["/a", "/", "/b", "/a", "/"]),
        of("together.example", &["/a", "/b", "/a", "/b"]),
        of("apart.example", &["/a", "/a", "/b", "/b", "/free", "/free", "/free", "/free"]),
    ]
    .concat();
    let [ours, theirs] = pair.both(0).map(|address| told(address, &asked));
    let statuses: Vec<u16> = theirs.iter().map(|(status, ..)| *status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429, 200, 200, 429, 429, 200, 503, 200, 503, 200, 200, 200, 200]);
    assert_eq!(theirs[3].1, "local_rate_limited");
    for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours, theirs, "request {number}: {:?}", asked[number]);
    }
}
