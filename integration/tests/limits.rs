//! Limits that gateways share by a Redis, against a real one: exact, with a password, over TLS, and while it is dead or hangs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use heddle_integration::certificates::Authority;
use heddle_integration::client::{self, Answer};
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use heddle_integration::redis::Redis;
use serde_json::{Value, json};

struct Story {
    gateways: Vec<Heddle>,
    upstream: Nginx,
}

impl Story {
    fn of(gateways: usize) -> Story {
        Story { gateways: (0..gateways).map(|_| Heddle::run()).collect(), upstream: Nginx::saying("hello") }
    }

    /// Routes `/p` through these plugins on all gateways, and waits until that is effective.
    fn route(&self, plugins: &Value) {
        let upstream = json!({ "nodes": { self.upstream.address.to_string(): 1 } });
        for heddle in &self.gateways {
            heddle.put("/routes/p", json!({ "uri": "/p", "plugins": plugins, "upstream": upstream }));
            heddle.until_effective();
        }
    }

    fn ask(&self, gateway: usize) -> Answer {
        self.gateways[gateway].get("/p")
    }

    /// The statuses of so many requests to each gateway, all at the same time on a few connections.
    fn storm(&self, each: usize) -> Vec<u16> {
        const AT_ONCE: usize = 8;
        let ask = |address| (0..each / AT_ONCE).map(|_| client::get(address, "/p").unwrap().status).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            let asking: Vec<_> = self
                .gateways
                .iter()
                .flat_map(|heddle| (0..AT_ONCE).map(move |_| heddle.http))
                .map(|address| scope.spawn(move || ask(address)))
                .collect();
            asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }
}

/// A limit with what leads to the Redis.
fn at(redis: &Redis, mut config: Value) -> Value {
    let more = redis.fields();
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|&&other| other == status).count()
}

#[test]
fn two_gateways_share_each_limit_exactly() {
    let (story, redis) = (Story::of(2), Redis::start());
    let limit = |config: Value| at(&redis, config);
    story.route(&json!({ "limit-count": limit(json!({ "count": 100, "time_window": 3600, "rejected_code": 429 })) }));
    let statuses = story.storm(160);
    assert_eq!((count(&statuses, 200), count(&statuses, 429)), (100, 220), "{statuses:?}");
    let refused = story.ask(1);
    assert_eq!(
        (refused.status, refused.field("x-ratelimit-limit"), refused.field("x-ratelimit-remaining")),
        (429, Some("100"), Some("0"))
    );
    let reset: u64 = refused.field("x-ratelimit-reset").unwrap().parse().unwrap();
    assert!((3000..=3600).contains(&reset), "{reset}");
    let keys = redis.say("KEYS *");
    assert!(keys.contains("heddle:limit-count:route/p/"), "{keys}");
    let clients = redis.say("CLIENT LIST").matches(" addr=").count();
    assert!(clients <= 5, "one connection for each of the four workers, and we: {clients}");

    story.route(&json!({ "limit-count": limit(json!({ "count": 40, "time_window": 3600, "window_type": "sliding", "rejected_code": 429 })) }));
    let statuses = story.storm(80);
    assert_eq!((count(&statuses, 200), count(&statuses, 429)), (40, 120), "{statuses:?}");

    let rules = json!({ "rejected_code": 429, "rules": [
        { "count": 1000, "time_window": 3600, "key": "$uri", "header_prefix": "Many" },
        { "count": 5, "time_window": 3600, "key": "$remote_addr", "header_prefix": "Few" },
    ] });
    story.route(&json!({ "limit-count": limit(rules) }));
    let passed = story.ask(0);
    assert_eq!((passed.field("x-many-ratelimit-remaining"), passed.field("x-few-ratelimit-remaining")), (Some("999"), Some("4")));
    assert_eq!(story.ask(1).field("x-few-ratelimit-remaining"), Some("3"));

    let pace = json!({ "rate": 0.001, "burst": 9, "nodelay": true, "key": "remote_addr", "rejected_code": 429 });
    story.route(&json!({ "limit-req": limit(pace) }));
    let statuses = story.storm(24);
    assert_eq!((count(&statuses, 200), count(&statuses, 429)), (10, 38), "{statuses:?}");
    let metrics = story.gateways[0].metrics();
    assert!(
        metrics.contains("heddle_plugin_events_total{plugin=\"limit-req\",origin=\"route/p\",event=\"redis_asked\"} 24"),
        "{metrics}"
    );
}

#[test]
fn requests_under_way_are_counted_on_all_gateways_and_come_back() {
    let (story, redis) = (Story::of(2), Redis::start());
    let config = json!({ "conn": 2, "burst": 0, "default_conn_delay": 0.1, "key": "remote_addr", "rejected_code": 429 });
    let plugins = json!({ "limit-conn": at(&redis, config) });
    story.route(&plugins);
    assert_eq!(story.ask(0).status, 200);
    let held = || {
        redis.say("EVAL \"local n = 0 for _, key in ipairs(redis.call('KEYS', '*')) do n = n + redis.call('ZCARD', key) end return n\" 0")
    };
    until("the place to be given back", || held().starts_with(":0").then_some(()));
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nodes = json!({ "nodes": { silent.local_addr().unwrap().to_string(): 1 } });
    for heddle in &story.gateways {
        heddle.put("/routes/p", json!({ "uri": "/p", "plugins": plugins, "upstream": nodes }));
        heddle.until_effective();
    }
    let addresses = [story.gateways[0].http, story.gateways[1].http];
    let mut waiting: Vec<_> = addresses.iter().map(|address| open(*address)).collect();
    until("two places to be taken", || held().starts_with(":2").then_some(()));
    assert_eq!([story.ask(0).status, story.ask(1).status], [429, 429]);
    waiting.pop();
    until("one place to be given back", || held().starts_with(":1").then_some(()));
    let third = open(addresses[0]);
    until("it to be taken again", || held().starts_with(":2").then_some(()));
    assert_eq!(story.ask(1).status, 429);
    drop((waiting, third));
    until("all places to be given back", || held().starts_with(":0").then_some(()));
}

/// A request whose answer nobody waits for.
fn open(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /p HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    stream
}

#[test]
fn a_password_and_a_certificate_are_asked_for_and_checked() {
    let story = Story::of(1);
    let limit = |redis: &Redis, more: Value| {
        let mut config = at(redis, json!({ "count": 2, "time_window": 3600, "rejected_code": 429 }));
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "limit-count": config })
    };
    let statuses = || [story.ask(0).status, story.ask(0).status, story.ask(0).status];
    let closed = Redis::with(&["--requirepass", "opens"]);
    story.route(&limit(&closed, json!({})));
    assert_eq!(statuses(), [500; 3]);
    story.route(&limit(&closed, json!({ "redis_password": "wrong" })));
    assert_eq!(statuses(), [500; 3]);
    assert!(story.gateways[0].process.output().contains("Redis is away"), "it is said");
    story.route(&limit(&closed, json!({ "redis_password": "opens", "redis_database": 3 })));
    assert_eq!(statuses(), [200, 200, 429]);

    let authority = Authority::new();
    let redis = Redis::over_tls(&authority.issue(&["redis.test", "127.0.0.1"]));
    let tls = |more: Value| {
        let mut config = json!({ "redis_ssl": true });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        limit(&redis, config)
    };
    story.route(&limit(&redis, json!({})));
    assert_eq!(story.ask(0).status, 500, "it speaks TLS alone");
    story.route(&tls(json!({ "redis_ssl_verify": true })));
    assert_eq!(story.ask(0).status, 500, "nobody has vouched for it");
    story.route(&tls(json!({ "redis_ssl_verify": true, "redis_tls": { "ca": Authority::new().pem() } })));
    assert_eq!(story.ask(0).status, 500, "somebody else has");
    story.route(&tls(json!({})));
    assert_eq!(statuses(), [200, 200, 429]);
    let named = Redis::over_tls(&authority.issue(&[&redis.address.ip().to_string()]));
    let mut config =
        limit(&named, json!({ "redis_ssl": true, "redis_ssl_verify": true, "redis_tls": { "ca": authority.pem() } }));
    config["limit-count"]["count"] = json!(1);
    story.route(&config);
    assert_eq!([story.ask(0).status, story.ask(0).status], [200, 429]);
}

#[test]
fn a_dead_redis_closes_or_opens_as_told_and_comes_back() {
    let (story, mut redis) = (Story::of(1), Redis::start());
    let limit = |name: &str, allow: bool, redis: &Redis| {
        let config = match name {
            "limit-count" => json!({ "count": 1000, "time_window": 3600 }),
            "limit-req" => json!({ "rate": 1000, "burst": 1000, "nodelay": true, "key": "remote_addr" }),
            _ => json!({ "conn": 100, "burst": 0, "default_conn_delay": 0.1, "key": "remote_addr" }),
        };
        let mut config = at(redis, config);
        config["allow_degradation"] = json!(allow);
        json!({ name: config })
    };
    for name in ["limit-count", "limit-req", "limit-conn"] {
        story.route(&limit(name, false, &redis));
        assert_eq!(story.ask(0).status, 200, "{name}");
        redis.process.kill();
        let failed = story.ask(0);
        assert_eq!(failed.status, 500, "{name}");
        if name == "limit-count" {
            assert_eq!(failed.json(), json!({ "error_msg": "failed to limit count" }));
        }
        story.route(&limit(name, true, &redis));
        let passed = story.ask(0);
        assert_eq!((passed.status, passed.field("x-ratelimit-remaining")), (200, None), "{name}");
        redis.start_again();
        story.route(&limit(name, false, &redis));
        until("it to be found again", || (0..8).all(|_| story.ask(0).status == 200).then_some(()));
    }
    let log = story.gateways[0].process.output();
    assert!(log.contains("Redis is away") && log.contains("Redis is back"), "{log}");
}

#[test]
fn a_redis_that_hangs_holds_nobody_up_twice() {
    let (story, redis) = (Story::of(1), Redis::start());
    let mut config = at(&redis, json!({ "count": 100_000, "time_window": 3600, "allow_degradation": true }));
    config["redis_timeout"] = json!(2000);
    story.route(&json!({ "limit-count": config }));
    assert_eq!(story.ask(0).field("x-ratelimit-remaining"), Some("99999"));
    redis.process.signal("STOP");
    let began = Instant::now();
    assert!(story.storm(64).iter().all(|status| *status == 200));
    // Each of the two workers waits once; 64 requests on 8 connections one after the other would take 16 s.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(story.storm(256).iter().all(|status| *status == 200));
    assert!(began.elapsed() < Duration::from_millis(1900), "they were answered at once: {:?}", began.elapsed());
    redis.process.signal("CONT");
    until("it to be found again", || (0..8).all(|_| story.ask(0).field("x-ratelimit-remaining").is_some()).then_some(()));
    let metrics = story.gateways[0].metrics();
    assert!(metrics.contains("event=\"redis_failed\"} "), "{metrics}");
}
