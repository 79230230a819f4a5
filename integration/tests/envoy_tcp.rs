//! Bytes through Heddle's agent and the real Envoy: one bootstrap with `tcp_proxy` in both at once, and one configuration of a control plane of ours for both.
//! The same clients must hear the same from both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use heddle_integration::ads::{Follower, any, socket};
use heddle_integration::certificates::Authority;
use heddle_integration::envoy::{Envoy, Way, everywhere};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::place::Place;
use heddle_integration::process::{PATIENCE, until};
use heddle_integration::raw::Raw;
use heddle_integration::redis::Redis;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

/// What both are given: where they listen, and their endpoints.
struct World {
    authority: Authority,
    echo: Raw,
    talker: Raw,
    tls: Redis,
    redis: Redis,
    closed: SocketAddr,
}

impl World {
    fn new() -> World {
        let authority = Authority::new();
        let tls = Redis::over_tls(&authority.issue(&["own.example"]));
        let echo = Raw::start(|stream| {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all);
            let _ = stream.write_all(&all);
        });
        let talker = Raw::start(|stream| {
            let _ = stream.write_all(b"welcome");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        });
        World { authority, echo, talker, tls, redis: Redis::start(), closed: Place::new().address() }
    }

    /// `plain` passes bytes on, `named` looks at server names, `silent` waits a second, `aged` lasts one, `nobody` leads nowhere.
    fn bootstrap(&self, admin: SocketAddr, [plain, named, silent, nobody, aged]: [SocketAddr; 5]) -> String {
        let proxy = |config: Value| {
            let mut config = config;
            config["stat_prefix"] = json!("bytes");
            json!([{ "name": "proxy", "typed_config": any("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", config) }])
        };
        let pair = self.authority.issue(&["front.example", "x.wide.example"]);
        let inline = |text: &str| json!({ "inline_string": text });
        let context = json!({ "common_tls_context": { "tls_certificates": [{ "certificate_chain": inline(&pair.certificate), "private_key": inline(&pair.key) }] } });
        let ended = json!({ "name": "tls", "typed_config": any("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", context) });
        let inspector = json!([{ "name": "tls", "typed_config": any("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({})) }]);
        let shares = json!({ "clusters": [{ "name": "echo", "weight": 1 }, { "name": "again", "weight": 1 }] });
        let cluster = |name: &str, addresses: &[SocketAddr]| {
            let endpoints: Vec<Value> =
                addresses.iter().map(|address| json!({ "endpoint": { "address": socket(*address) } })).collect();
            json!({ "name": name, "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] } })
        };
        json!({
            "node": { "id": "edge", "cluster": "edge" },
            "admin": { "address": socket(admin) },
            "static_resources": {
                "listeners": [
                    { "name": "plain", "address": socket(plain), "filter_chains": [{ "filters": proxy(json!({ "weighted_clusters": shares, "max_connect_attempts": 4 })) }] },
                    { "name": "named", "address": socket(named), "listener_filters": inspector, "filter_chains": [
                        { "filter_chain_match": { "server_names": ["own.example"] }, "filters": proxy(json!({ "cluster": "tls" })) },
                        { "filter_chain_match": { "server_names": ["front.example", "*.wide.example"] }, "filters": proxy(json!({ "cluster": "redis" })), "transport_socket": ended },
                        { "filter_chain_match": { "transport_protocol": "raw_buffer" }, "filters": proxy(json!({ "cluster": "redis" })) },
                    ] },
                    { "name": "silent", "address": socket(silent), "filter_chains": [{ "filters": proxy(json!({ "cluster": "talker", "idle_timeout": "1s" })) }] },
                    { "name": "aged", "address": socket(aged), "filter_chains": [{ "filters": proxy(json!({ "cluster": "talker", "max_downstream_connection_duration": "1s" })) }] },
                    { "name": "nobody", "address": socket(nobody), "filter_chains": [{ "filters": proxy(json!({ "cluster": "closed" })) }] },
                ],
                "clusters": [
                    cluster("echo", &[self.echo.address]),
                    cluster("again", &[self.closed, self.echo.address]),
                    cluster("talker", &[self.talker.address]),
                    cluster("tls", &[self.tls.address]),
                    cluster("redis", &[self.redis.address]),
                    cluster("closed", &[self.closed]),
                ],
            },
        })
        .to_string()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything that comes after these bytes and the end of them; a connection that breaks off ends it, too.
fn say(address: SocketAddr, bytes: &[u8], ends: bool) -> String {
    let mut stream = match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(stream) => stream,
        // Broken off as soon as it stood.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return String::new(),
        Err(error) => panic!("{address}: {error}"),
    };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    heard(&mut stream)
}

/// What comes while something is said again and again, until the connection ends or long after it should have.
fn talk(address: SocketAddr) -> String {
    let mut stream = connect(address);
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (began, mut all, mut part) = (Instant::now(), Vec::new(), [0; 4096]);
    while began.elapsed() < PATIENCE {
        let _ = stream.write_all(b"x");
        match stream.read(&mut part) {
            Ok(read @ 1..) => all.extend_from_slice(&part[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => {
                return format!(
                    "{} and the end after a second: {}",
                    String::from_utf8_lossy(&all),
                    began.elapsed().as_secs_f32() > 0.9
                );
            }
        }
    }
    "no end".to_owned()
}

fn heard(stream: &mut impl Read) -> String {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut part) {
        all.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// What the Redis of this server name says over TLS; nothing where there is none.
fn over_tls(address: SocketAddr, config: &Arc<ClientConfig>, name: &'static str) -> String {
    let connection = ClientConnection::new(config.clone(), name.try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, connect(address));
    if stream.write_all(b"PING\r\nQUIT\r\n").is_err() {
        return String::new();
    }
    heard(&mut stream)
}

#[test]
fn the_same_clients_hear_the_same_from_both() {
    let world = World::new();
    let place = Place::new();
    let ours: [SocketAddr; 5] = std::array::from_fn(|_| place.address());
    let theirs: [SocketAddr; 5] = std::array::from_fn(|_| place.address());
    let agent = Follower::with_bootstrap(|spot| world.bootstrap(spot.admin, ours));
    let envoy = Envoy::start(&world.bootstrap("127.0.0.1:0".parse().unwrap(), theirs));
    agent.until_ready();
    envoy.until_live();
    let client = world.authority.client();
    let hear = |[plain, named, silent, nobody, aged]: [SocketAddr; 5]| {
        let mut told: Vec<(String, String)> = Vec::new();
        for number in 0..12 {
            told.push((format!("bytes {number}"), say(plain, format!("hello {number}").as_bytes(), true)));
        }
        told.push(("many bytes".to_owned(), say(plain, "0123456789".repeat(50_000).as_bytes(), true)));
        for name in ["own.example", "front.example", "x.wide.example", "other.example"] {
            told.push((name.to_owned(), over_tls(named, &client, name)));
        }
        told.push(("clear".to_owned(), say(named, b"PING\r\nQUIT\r\n", false)));
        told.push(("the server speaks first, and then nobody".to_owned(), say(silent, b"", false)));
        told.push(("talking makes nobody younger".to_owned(), talk(aged)));
        told.push(("nobody is there".to_owned(), say(nobody, b"hello", false)));
        told
    };
    let (ours, theirs) = (hear(ours), hear(theirs));
    for (heddle, envoy) in ours.iter().zip(&theirs) {
        assert_eq!(heddle, envoy);
    }
    let said = |what: &str| theirs.iter().find(|(name, _)| name == what).map(|(_, said)| said.as_str()).unwrap();
    assert_eq!((said("bytes 3"), said("clear"), said("front.example")), ("hello 3", "+PONG\r\n+OK\r\n", "+PONG\r\n+OK\r\n"));
    assert_eq!(said("talking makes nobody younger"), "welcome and the end after a second: true");
    assert_eq!((said("own.example"), said("other.example"), said("nobody is there")), ("+PONG\r\n+OK\r\n", "", ""));
}

/// A listener for bytes at a free address, with what is written of it, once it is open.
fn listen(heddle: &Heddle, name: &str, written: Value) -> SocketAddr {
    let address = write(heddle, name, written);
    until("the listener", || TcpStream::connect(address).ok());
    address
}

fn write(heddle: &Heddle, name: &str, written: Value) -> SocketAddr {
    let address = heddle.place.address();
    let mut whole = json!({ "address": address.to_string(), "protocol": "tcp" });
    whole.as_object_mut().unwrap().extend(written.as_object().unwrap().clone());
    heddle.put(&format!("/listeners/{name}"), whole);
    address
}

fn upstream(heddle: &Heddle, id: &str, nodes: &[SocketAddr], more: Value) {
    let nodes: serde_json::Map<String, Value> = nodes.iter().map(|node| (node.to_string(), json!(1))).collect();
    let mut upstream = json!({ "nodes": nodes });
    upstream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    heddle.put(&format!("/upstreams/{id}"), upstream);
}

const PING: &[u8] = b"PING\r\nQUIT\r\n";
const PONG: &str = "+PONG\r\n+OK\r\n";

#[test]
fn a_control_plane_serves_listeners_for_bytes_to_envoys_as_to_agents() {
    let world = World::new();
    let client = world.authority.client();
    everywhere(|heddle| {
        upstream(heddle, "echo", &[world.echo.address], json!({}));
        upstream(heddle, "again", &[world.closed, world.echo.address], json!({}));
        upstream(heddle, "cache", &[world.redis.address], json!({}));
        upstream(heddle, "tls", &[world.tls.address], json!({}));
        let plain = listen(
            heddle,
            "plain",
            json!({ "routes": [{ "upstreams": [{ "upstream_id": "echo", "weight": 1 }, { "upstream_id": "again", "weight": 1 }] }] }),
        );
        let named = listen(
            heddle,
            "named",
            json!({ "routes": [
            { "server_names": ["own.example"], "upstream_id": "tls" },
            { "server_names": ["front.example", "*.wide.example"], "tls": "terminate", "upstream_id": "cache" },
            { "upstream_id": "cache" },
        ] }),
        );
        let silent = listen(
            heddle,
            "silent",
            json!({ "limits": { "idle_timeout": "1s" }, "upstream": { "nodes": { world.talker.address.to_string(): 1 } } }),
        );
        let aged = listen(
            heddle,
            "aged",
            json!({ "limits": { "max_connection_duration": "1s" }, "upstream": { "nodes": { world.talker.address.to_string(): 1 } } }),
        );
        let nobody = listen(heddle, "nobody", json!({ "upstream": { "nodes": { world.closed.to_string(): 1 } } }));
        let reencrypted = json!({ "nodes": { world.tls.address.to_string(): 1 }, "scheme": "https", "tls": { "verify": true, "ca": world.authority.pem(), "sni": "own.example" } });
        let sealed = listen(heddle, "sealed", json!({ "upstream": reencrypted }));
        until("the server that speaks first", || (say(silent, b"", false) == "welcome").then_some(()));
        until("the end of who keeps talking", || (talk(aged) == "welcome and the end after a second: true").then_some(()));
        for number in 0..12 {
            let text = format!("hello {number}");
            until("bytes by every share", || (say(plain, text.as_bytes(), true) == text).then_some(()));
        }
        let many = "0123456789".repeat(50_000);
        assert_eq!(say(plain, many.as_bytes(), true), many);
        until("TLS to the endpoint", || (say(sealed, PING, false) == PONG).then_some(()));
        assert_eq!(say(nobody, b"hello", false), "");

        until("TLS that passes", || (over_tls(named, &client, "own.example") == PONG).then_some(()));
        assert_eq!(say(named, PING, false), PONG, "who speaks no TLS");
        assert_eq!(over_tls(named, &client, "front.example"), "", "there is no certificate, and no wider route is taken");
        let pair = world.authority.issue(&["front.example", "*.wide.example"]);
        heddle.put(
            "/ssls/front",
            json!({ "snis": ["front.example", "*.wide.example"], "cert": pair.certificate, "key": pair.key }),
        );
        until("TLS that ends", || (over_tls(named, &client, "front.example") == PONG).then_some(()));
        assert_eq!(over_tls(named, &client, "x.wide.example"), PONG);
        assert_eq!(over_tls(named, &client, "own.example"), PONG);
    });
}

#[test]
fn tries_and_keys_of_bytes_are_those_of_the_upstream_at_envoys_too() {
    let closed = Place::new().address();
    let named = ["one", "two", "three"].map(|name| {
        Raw::start(move |stream| {
            let _ = stream.write_all(name.as_bytes());
        })
    });
    let all = named.each_ref().map(|raw| raw.address);
    let picked = Mutex::new(Vec::new());
    everywhere(|heddle| {
        upstream(heddle, "u", &[closed, all[0]], json!({}));
        let tried = listen(heddle, "tried", json!({ "upstream_id": "u" }));
        let says = |what: &str| (say(tried, b"", false) == what).then_some(());
        until("the listener", || says("one"));
        assert!((0..12).all(|_| says("one").is_some()), "the next one is tried");
        upstream(heddle, "u", &[closed, all[0]], json!({ "retries": 0 }));
        until("a connection that is tried once", || says(""));
        heddle.put(
            "/listeners/tried",
            json!({ "address": tried.to_string(), "protocol": "tcp", "routes": [{ "upstream_id": "u", "connect_attempts": 3 }] }),
        );
        until("the listener to try again", || (0..12).all(|_| says("one").is_some()).then_some(()));

        upstream(heddle, "keyed", &all, json!({ "type": "chash", "key": "remote_addr" }));
        let keyed = listen(heddle, "keyed", json!({ "upstream_id": "keyed", "proxy_protocol": "on" }));
        let from = |host: u8| say(keyed, format!("PROXY TCP4 10.1.1.{host} 10.2.2.2 1000 2000\r\n").as_bytes(), false);
        until("the listener of keys", || (!from(1).is_empty()).then_some(()));
        assert_eq!(say(keyed, b"GET / HTTP/1.1\r\n\r\n", false), "", "the header is demanded");
        picked.lock().unwrap().push((0..40).map(from).collect::<Vec<String>>());
    });
    let picked = picked.into_inner().unwrap();
    assert!(picked[0] == picked[1] && picked[0] == picked[2], "each address leads to one endpoint, whoever picks: {picked:?}");
    assert!(named.len() == 3 && ["one", "two", "three"].iter().all(|name| picked[0].iter().any(|said| said == name)));
}

#[test]
fn a_listener_for_bytes_that_envoy_cannot_serve_as_it_is_written_is_named() {
    let heddle = Heddle::control_plane(Setup::default());
    let envoy = Envoy::follow(heddle.xds, "envoy-1", Way::DeltaAds);
    envoy.until_live();
    upstream(&heddle, "u", &["127.0.0.1:9".parse().unwrap()], json!({ "scheme": "https" }));
    write(&heddle, "sealed", json!({ "upstream_id": "u" }));
    write(&heddle, "front", json!({ "tls": "terminate", "upstream": { "nodes": { "127.0.0.1:9": 1 } } }));
    let reasons = || {
        let node = heddle.admin("GET", "/nodes", Value::Null).json()[0].clone();
        let all = node["withheld"].as_array().cloned().unwrap_or_default();
        let reason = |name: &str| all.iter().find(|one| one["resource"] == name).map(|one| one["reason"].to_string());
        Some((reason("sealed")?, reason("front")?))
    };
    let (sealed, front) = until("both to be named", reasons);
    assert!(sealed.contains("upstream u: ") && sealed.contains("tls.sni"), "{sealed}");
    assert!(front.contains("has no certificate yet"), "{front}");
}
