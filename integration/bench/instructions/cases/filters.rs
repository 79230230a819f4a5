//! What filters cost: none, each of the common ones alone, and ten of them.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use heddle_agent::bench::{self, Filters, ResponseHead};
use heddle_agent::exchange::imagined::Imagined;
use heddle_agent::exchange::{Directory, Exchange};
use heddle_xds::model::{Consumer, Credential, PluginConf, PluginOrigin, Resource};
use serde_json::{Value, json};

use super::Case;
use super::routes::any;
use super::{heads, plugins};
use crate::subject::Subject;

/// Rounds that are counted.
const ROUNDS: usize = 1024;

/// Unix milliseconds of all requests.
const NOW_MS: u64 = 1_700_000_000_000;

struct Filtering {
    filters: Filters,
    /// What the client sends besides.
    fields: &'static [(&'static str, &'static str)],
    ready: Vec<(Exchange, ResponseHead)>,
}

impl Subject for Filtering {
    fn prepare(&mut self, rounds: usize) {
        let request = || {
            let mut x = imagined(self.filters.directory());
            self.fields.iter().for_each(|(name, value)| x.request.fields.append(name, value));
            x
        };
        self.ready = (0..rounds).map(|_| (request(), heads::response())).collect();
    }

    fn run(&mut self, _rounds: usize) {
        for (mut x, mut head) in self.ready.drain(..) {
            let answer = now(self.filters.run(&mut x, &mut head));
            assert!(answer.is_none(), "a filter refuses with {:?}", answer.map(|answer| answer.head.status));
            black_box((&x, &head));
        }
    }
}

/// The result of something that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("no filter here waits"),
    }
}

/// A request as it is after its route was found.
pub fn imagined(directory: Rc<dyn Directory>) -> Exchange {
    let head = heads::request();
    let remote = ([192, 0, 2, 7], 4711).into();
    let local = ([192, 0, 2, 1], 80).into();
    let target = "/api/v1/things/42?limit=10";
    let imagined = Imagined { method: "GET", authority: "www.example.com", target, fields: &[], remote, local };
    let mut x = imagined.exchange(heddle_node::clock::now(), NOW_MS, directory);
    x.request.fields = head.fields;
    x
}

pub fn cases() -> Vec<Case> {
    let case = |name, make| Case { name, rounds: ROUNDS, less: Some("filter/none"), make };
    vec![
        Case { name: "filter/none", rounds: ROUNDS, less: None, make: || filtering(&[]) },
        case("filter/request-id", || filtering(&[REQUEST_ID])),
        case("filter/cors", || filtering(&[CORS])),
        case("filter/proxy-rewrite", || filtering(&[PROXY_REWRITE])),
        case("filter/response-rewrite", || filtering(&[RESPONSE_REWRITE])),
        case("filter/ip-restriction", || filtering(&[IP_RESTRICTION])),
        case("filter/key-auth", || filtering(&[KEY_AUTH])),
        case("filter/limit-count", || filtering(&[LIMIT_COUNT])),
        case("filter/traffic-split", || filtering(&[TRAFFIC_SPLIT])),
        case("filter/prometheus", || filtering(&[PROMETHEUS])),
        case("filter/fault-injection", || filtering(&[FAULT_IF_ASKED])),
        case("filter/redirect", || filtering(&[REDIRECT])),
        case("filter/proxy-rewrite, template", || filtering(&[PROXY_REWRITE_TEMPLATE])),
        case("filter/traffic-split, condition", || filtering(&[CANARY])),
        case("filter/ten", || filtering(&TEN)),
        case("filter/ten, compared", || filtering(&COMPARED)),
    ]
}

/// A plugin and what it is told.
pub type Told = (&'static str, fn() -> Value);

const REQUEST_ID: Told = ("request-id", || json!({}));
const CORS: Told = ("cors", || json!({ "allow_origins": "https://app.example.com", "allow_methods": "GET,POST", "max_age": 60 }));
const PROXY_REWRITE: Told = ("proxy-rewrite", || json!({ "headers": { "set": { "X-Env": "prod" }, "remove": ["X-Debug"] } }));
const RESPONSE_REWRITE: Told =
    ("response-rewrite", || json!({ "headers": { "set": { "X-Frame-Options": "DENY" }, "remove": ["ETag"] } }));
const IP_RESTRICTION: Told = ("ip-restriction", || json!({ "whitelist": ["192.0.2.0/24", "127.0.0.0/8"] }));
const KEY_AUTH: Told = ("key-auth", || json!({ "hide_credentials": true }));
const LIMIT_COUNT: Told = ("limit-count", || json!({ "count": 1_000_000_000, "time_window": 60, "key": "remote_addr" }));
const TRAFFIC_SPLIT: Told =
    ("traffic-split", || json!({ "rules": [{ "weighted_upstreams": [{ "upstream_id": "a", "weight": 1 }, { "weight": 9 }] }] }));
const PROMETHEUS: Told = ("prometheus", || json!({}));
const FAULT_INJECTION: Told = ("fault-injection", || json!({ "abort": { "http_status": 503, "percentage": 0 } }));

const FAULT_IF_ASKED: Told =
    ("fault-injection", || json!({ "abort": { "http_status": 503, "vars": [[["arg_fault", "==", "1"]]] } }));
const REDIRECT: Told = ("redirect", || json!({ "regex_uri": ["^/old/(.*)", "/new/$1"] }));
const PROXY_REWRITE_TEMPLATE: Told = ("proxy-rewrite", || json!({ "headers": { "set": { "X-Client": "$remote_addr" } } }));
const CANARY: Told = ("traffic-split", || {
    let vars = json!([["http_x_canary", "==", "1"]]);
    json!({ "rules": [{ "match": [{ "vars": vars }], "weighted_upstreams": [{ "upstream_id": "a", "weight": 1 }] }] })
});

/// The ten that `integration/bench/compare` loads.
const COMPARED: [Told; 10] = [
    REQUEST_ID,
    FAULT_IF_ASKED,
    ("cors", || json!({})),
    ("ip-restriction", || json!({ "whitelist": ["192.0.2.0/24", "10.0.0.0/8"] })),
    ("key-auth", || json!({})),
    PROXY_REWRITE_TEMPLATE,
    ("limit-count", || json!({ "count": 1_000_000_000, "time_window": 60 })),
    CANARY,
    REDIRECT,
    ("response-rewrite", || json!({ "headers": { "set": { "X-Served-By": "bench" } } })),
];

/// Ten that many routes have.
pub const TEN: [Told; 10] = [
    REQUEST_ID,
    CORS,
    PROXY_REWRITE,
    RESPONSE_REWRITE,
    IP_RESTRICTION,
    KEY_AUTH,
    LIMIT_COUNT,
    TRAFFIC_SPLIT,
    PROMETHEUS,
    FAULT_INJECTION,
];

/// These plugins as they stand on a route.
pub fn configured(plugins: &[Told]) -> Vec<PluginConf> {
    let configured = |(name, told): &Told| PluginConf {
        name: (*name).into(),
        config: Arc::new(told()),
        origin: PluginOrigin("route/any".into()),
    };
    plugins.iter().map(configured).collect()
}

/// A consumer whose key is in every request.
pub fn jack() -> Consumer {
    let config = Arc::new(json!({ "key": "key-of-jack" }));
    Consumer {
        username: "jack".into(),
        group_id: "".into(),
        credentials: vec![Credential { id: "".into(), plugin: "key-auth".into(), config }],
        plugins: Vec::new(),
        labels: [("team".into(), "platform".into())].into(),
    }
}

/// The same consumer with a credential for each plugin that is counted.
fn known_in_many_ways() -> Consumer {
    let mut jack = jack();
    let more = plugins::credentials().map(|(plugin, config)| Credential {
        id: "".into(),
        plugin: plugin.into(),
        config: Arc::new(config),
    });
    jack.credentials.extend(more);
    jack
}

fn filtering(plugins: &[Told]) -> Box<dyn Subject> {
    case_of(plugins, &[])
}

/// Requests with these fields on a route with these plugins.
pub fn case_of(plugins: &[Told], fields: &'static [(&'static str, &'static str)]) -> Box<dyn Subject> {
    let mut route = any();
    route.plugins = configured(plugins);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tables =
        runtime.block_on(async { bench::tables([Resource::Consumer(known_in_many_ways()), Resource::Route(route)]).unwrap() });
    Box::new(Filtering { filters: Filters::of(tables), fields, ready: Vec::new() })
}
