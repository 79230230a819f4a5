//! Each plugin once through the real binary, and the rules by which plugins of several places come together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::client::{self, Answer};
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use serde_json::{Value, json};

struct Story {
    heddle: Heddle,
    nginx: Nginx,
}

impl Story {
    /// Route `/p/*` with these plugins to an nginx that tells what it was asked.
    fn with(plugins: Value) -> Story {
        let told =
            "$request_method $request_uri|$http_host|$http_x_request_id|$http_x_consumer_username|$http_apikey|$http_x_added";
        let nginx = Nginx::start(&format!("location / {{ add_header X-Powered-By nginx; return 200 '{told}'; }}"));
        let story = Story { heddle: Heddle::run(), nginx };
        story.route(plugins);
        story.heddle.until_effective();
        story
    }

    fn route(&self, plugins: Value) {
        let upstream = json!({ "nodes": { self.nginx.address.to_string(): 1 } });
        self.heddle.put("/routes/p", json!({ "uri": "/p/*", "plugins": plugins, "upstream": upstream }));
    }

    fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
        client::send(self.heddle.http, method, target, fields, b"").unwrap()
    }
}

#[test]
fn proxy_rewrite_changes_what_the_upstream_is_asked() {
    let story = Story::with(json!({ "proxy-rewrite": {
        "regex_uri": ["^/p/(.*)", "/inner/$1"], "host": "inner.example", "headers": { "set": { "X-Added": "yes" }, "remove": ["apikey"] }
    } }));
    let answer = story.ask("GET", "/p/a?x=1", &[("apikey", "secret")]);
    assert_eq!(answer.text(), "GET /inner/a?x=1|inner.example||||yes");
}

#[test]
fn response_rewrite_changes_what_the_client_gets() {
    let story = Story::with(json!({ "response-rewrite": {
        "status_code": 201, "body": "new", "headers": { "set": { "X-Set": "1" }, "remove": ["X-Powered-By"] }
    } }));
    let answer = story.ask("GET", "/p/a", &[]);
    assert_eq!((answer.status, answer.text().as_str()), (201, "new"));
    assert_eq!((answer.field("x-set"), answer.field("x-powered-by")), (Some("1"), None));
}

#[test]
fn redirect_sends_clients_elsewhere() {
    let story = Story::with(json!({ "redirect": { "uri": "/new$uri", "ret_code": 301, "append_query_string": true } }));
    let answer = story.ask("GET", "/p/a?x=1", &[]);
    assert_eq!((answer.status, answer.field("location")), (301, Some("/new/p/a?x=1")));
}

#[test]
fn cors_answers_preflights_and_marks_answers() {
    let story =
        Story::with(json!({ "cors": { "allow_origins": "https://a.example,https://c.example", "allow_methods": "GET,POST" } }));
    let origin = ("Origin", "https://a.example");
    let preflight = story.ask("OPTIONS", "/p/a", &[origin, ("Access-Control-Request-Method", "POST")]);
    assert_eq!((preflight.status, preflight.field("access-control-allow-methods")), (200, Some("GET,POST")));
    assert_eq!(story.ask("GET", "/p/a", &[origin]).field("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(story.ask("GET", "/p/a", &[("Origin", "https://b.example")]).field("access-control-allow-origin"), None);
}

#[test]
fn request_id_is_made_or_kept_and_told_to_both_sides() {
    let story = Story::with(json!({ "request-id": { "include_in_response": true } }));
    let made = story.ask("GET", "/p/a", &[]);
    let id = made.field("x-request-id").unwrap();
    assert!(id.len() > 10 && made.text().contains(id), "{}", made.text());
    assert_eq!(story.ask("GET", "/p/a", &[("X-Request-Id", "mine")]).field("x-request-id"), Some("mine"));
}

#[test]
fn ip_restriction_lets_in_whom_it_should() {
    let story = Story::with(json!({ "ip-restriction": { "whitelist": ["127.0.0.0/8"] } }));
    assert_eq!(story.ask("GET", "/p/a", &[]).status, 200);
    story.route(json!({ "ip-restriction": { "blacklist": ["127.0.0.1"], "message": "not you" } }));
    story.heddle.until_effective();
    let answer = story.ask("GET", "/p/a", &[]);
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("not you"), "{}", answer.text());
}

#[test]
fn key_auth_knows_consumers_and_their_credentials() {
    let story = Story::with(json!({ "key-auth": { "hide_credentials": true } }));
    story.heddle.put("/consumers/jack", json!({ "username": "jack", "plugins": { "key-auth": { "key": "jacks-key" } } }));
    story.heddle.put("/consumers/jack/credentials/second", json!({ "plugins": { "key-auth": { "key": "second-key" } } }));
    story.heddle.until_effective();
    assert_eq!(story.ask("GET", "/p/a", &[]).status, 401);
    assert_eq!(story.ask("GET", "/p/a", &[("apikey", "wrong")]).status, 401);
    for key in ["jacks-key", "second-key"] {
        let answer = story.ask("GET", "/p/a", &[("apikey", key), ("X-Consumer-Username", "root")]);
        assert!(answer.text().ends_with("|jack||"), "{}", answer.text());
    }
}

#[test]
fn limit_count_refuses_what_is_too_much() {
    let story = Story::with(json!({ "limit-count": {
        "count": 3, "time_window": 60, "rejected_code": 429, "key_type": "var", "key": "http_x_who"
    } }));
    let ask = |who: &str| story.ask("GET", "/p/a", &[("X-Who", who)]);
    let statuses: Vec<u16> = (0..5).map(|_| ask("one").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(ask("two").field("x-ratelimit-remaining"), Some("2"));
    story.route(json!({ "limit-count": {
        "count": 3, "time_window": 60, "rejected_code": 429, "key_type": "var", "key": "http_x_who"
    }, "request-id": {} }));
    story.heddle.until_effective();
    assert_eq!(ask("one").status, 429, "a change of the route beside it forgets nothing");
}

#[test]
fn traffic_split_chooses_by_rule_and_by_weight() {
    let other = Nginx::saying("canary");
    let canary = json!({ "upstream": { "nodes": { other.address.to_string(): 1 } }, "weight": 1 });
    let story = Story::with(json!({ "traffic-split": { "rules": [
        { "match": [{ "vars": [["http_x_canary", "==", "1"]] }], "weighted_upstreams": [canary] },
        { "match": [{ "vars": [["http_x_half", "==", "1"]] }], "weighted_upstreams": [canary, { "weight": 1 }] }
    ] } }));
    assert_eq!(story.ask("GET", "/p/a", &[("X-Canary", "1")]).text(), "canary");
    assert_ne!(story.ask("GET", "/p/a", &[]).text(), "canary");
    let canaries = (0..20).filter(|_| story.ask("GET", "/p/a", &[("X-Half", "1")]).text() == "canary").count();
    assert!((6..=14).contains(&canaries), "{canaries} of 20");
}

#[test]
fn fault_injection_aborts_and_delays() {
    let story =
        Story::with(json!({ "fault-injection": { "abort": { "http_status": 503, "body": "no luck for $remote_addr" } } }));
    let answer = story.ask("GET", "/p/a", &[]);
    assert_eq!((answer.status, answer.text().as_str()), (503, "no luck for 127.0.0.1"));
    story.route(json!({ "fault-injection": { "delay": { "duration": 0.3 } } }));
    story.heddle.until_effective();
    let start = std::time::Instant::now();
    assert_eq!(story.ask("GET", "/p/a", &[]).status, 200);
    assert!(start.elapsed() >= std::time::Duration::from_millis(300));
}

#[test]
fn prometheus_counts_requests_by_route() {
    let story = Story::with(json!({ "prometheus": {} }));
    (0..3).for_each(|_| assert_eq!(story.ask("GET", "/p/a", &[]).status, 200));
    let metrics = story.heddle.metrics();
    let line = metrics.lines().find(|line| line.starts_with("heddle_http_requests_total{route=\"p\""));
    assert!(line.is_some_and(|line| line.contains("code=\"200\"") && line.ends_with(" 3")), "{line:?}");
}

#[test]
fn plugins_of_many_places_come_together_by_apisixs_rules() {
    let story = Story::with(json!({ "key-auth": {} }));
    let set = |name: &str, value: &str| json!({ "response-rewrite": { "headers": { "set": { name: value } } } });
    story.heddle.put("/global_rules/all", json!({ "plugins": { "request-id": {} } }));
    story.heddle.put("/consumer_groups/gold", json!({ "plugins": set("X-From", "group") }));
    story.heddle.put(
        "/consumers/jack",
        json!({ "username": "jack", "group_id": "gold", "plugins": { "key-auth": { "key": "jacks-key" } } }),
    );
    story.heddle.put("/plugin_configs/c", json!({ "plugins": set("X-From", "plugin_config") }));
    let upstream = json!({ "nodes": { story.nginx.address.to_string(): 1 } });
    story.heddle.put("/services/s", json!({ "upstream": upstream, "plugins": set("X-From", "service") }));
    story
        .heddle
        .put("/routes/p", json!({ "uri": "/p/*", "service_id": "s", "plugin_config_id": "c", "plugins": { "key-auth": {} } }));
    story.heddle.put("/routes/open", json!({ "uri": "/open", "service_id": "s", "plugin_config_id": "c" }));
    story.heddle.put("/routes/plain", json!({ "uri": "/plain", "service_id": "s" }));
    story.heddle.until_effective();
    let from = |target: &str| {
        let answer = story.ask("GET", target, &[("apikey", "jacks-key")]);
        assert!(answer.field("x-request-id").is_some(), "the global rule runs everywhere");
        answer.field("x-from").unwrap_or("-").to_owned()
    };
    assert_eq!((from("/p/a"), from("/open"), from("/plain")), ("group".into(), "plugin_config".into(), "service".into()));
}

#[test]
fn meta_switches_filters_and_rewords() {
    let story = Story::with(json!({ "ip-restriction": {
        "blacklist": ["127.0.0.1"], "_meta": { "filter": [["arg_strict", "==", "1"]], "error_response": { "message": "go away" } }
    } }));
    assert_eq!(story.ask("GET", "/p/a", &[]).status, 200);
    let answer = story.ask("GET", "/p/a?strict=1", &[]);
    assert_eq!((answer.status, answer.json()), (403, json!({ "message": "go away" })));
    story.route(json!({ "ip-restriction": { "blacklist": ["127.0.0.1"], "_meta": { "disable": true } } }));
    story.heddle.until_effective();
    assert_eq!(story.ask("GET", "/p/a?strict=1", &[]).status, 200);
}
