//! What an agent cannot use it refuses by name, with the field and the reason, and keeps running on the last good version. The control plane here is the
//! test's own, because Heddle's would not send such a thing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::sync::Arc;

use heddle_integration::client;
use heddle_integration::heddle::binary;
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_node::drain::{self, DrainWatch};
use heddle_xds::model::{
    Endpoint, Endpoints, Kind, Listener, PluginConf, PluginOrigin, Resource, Route, RouteMatch, UpstreamRef,
};
use heddle_xds::server::{AdsService, NodeRegistry, tuned};
use heddle_xds::snapshot::{Change, SnapshotStore};
use serde_json::json;
use std::net::SocketAddr;

/// A route to the upstream `u` whose `limit-count` has this count.
fn route(id: &str, uri: &str, count: i64) -> Resource {
    let plugin = PluginConf {
        name: "limit-count".into(),
        config: Arc::new(json!({ "count": count, "time_window": 60 })),
        origin: PluginOrigin(format!("route/{id}").into()),
    };
    Resource::Route(Route {
        id: id.into(),
        name: "".into(),
        service_id: "".into(),
        service_name: "".into(),
        matches: RouteMatch { uris: vec![uri.into()], ..RouteMatch::default() },
        priority: 0,
        created: 1,
        plugins: vec![plugin],
        upstream: Some(UpstreamRef { name: "u".into() }),
        timeouts: None,
        enable_websocket: false,
        max_duration: None,
    })
}

fn listener(address: SocketAddr) -> Resource {
    Resource::Listener(Listener::new("http", address))
}

fn endpoints(address: SocketAddr) -> Resource {
    let endpoint = Endpoint {
        host: address.ip().to_string().into(),
        port: address.port(),
        weight: 1,
        priority: 0,
        zone: "".into(),
        ..Endpoint::default()
    };
    Resource::Endpoints(Endpoints { upstream: "u".into(), endpoints: [endpoint].into() })
}

/// Serves a snapshot until the test process ends.
fn control_plane(snapshot: &Arc<SnapshotStore>, registry: &Arc<NodeRegistry>, watch: DrainWatch) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Place::new().ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (snapshot, registry) = (snapshot.clone(), registry.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let ads = AdsService::new(snapshot, registry, watch).into_server();
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
            tuned().add_service(ads).serve_with_incoming(incoming).await.unwrap();
        });
    });
    address
}

#[test]
fn a_bad_route_is_refused_by_name_while_the_others_go_live_and_its_last_good_version_stays() {
    let (nginx, place) = (Nginx::saying("here"), Place::new());
    let (http, admin) = (place.address(), place.address());
    let (snapshot, registry) = (Arc::new(SnapshotStore::new()), Arc::new(NodeRegistry::new()));
    let (_completion, watch) = drain::pair();
    let upstream = heddle_xds::model::Upstream { retries: None, ..heddle_xds::model::Upstream::new("u") };
    let start = [Resource::Upstream(Arc::new(upstream)), endpoints(nginx.address), route("good", "/good", 1_000), listener(http)];
    snapshot.apply(start.into_iter().map(Change::Set).collect());
    let xds = control_plane(&snapshot, &registry, watch);
    let folder = place.folder.path().display();
    place.write(
        "agent.yaml",
        &format!("node: {{ id: gw-9, data_dir: \"{folder}/data\" }}\nagent: {{ workers: 1, admin: \"{admin}\" }}\ncontrolplane: {{ address: \"{xds}\" }}\n"),
    );
    let mut command = Command::new(binary());
    command.args(["agent", "-c", "agent.yaml"]).current_dir(place.folder.path());
    let _agent = Process::start(command, place.path("agent.log"));
    let status = |path: &str| client::get(http, path).ok().map(|answer| answer.status);
    until("the good route", || (status("/good") == Some(200)).then_some(()));

    snapshot.apply(vec![Change::Set(route("good", "/good", -5)), Change::Set(route("new", "/new", 1_000))]);
    let nack = until("the refusal", || registry.nodes().iter().flat_map(|node| node.nacks.clone()).next());
    assert_eq!((nack.kind, &*nack.name), (Kind::Route, "good"));
    assert!(nack.field.starts_with("plugins.limit-count"), "{nack:?}");
    assert!(!nack.reason.is_empty());
    until("the route beside it", || (status("/new") == Some(200)).then_some(()));
    assert_eq!(status("/good"), Some(200), "the last good version stays in use");

    snapshot.apply(vec![Change::Set(route("good", "/mended", 1_000))]);
    until("the mended route", || (status("/mended") == Some(200)).then_some(()));
    until("the refusal to be gone", || registry.nodes().iter().all(|node| node.nacks.is_empty()).then_some(()));
}
