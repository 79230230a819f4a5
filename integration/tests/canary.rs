//! A new version goes to one node of a group first: what that one refuses no other node is given, what is good goes on, and nobody waits long for one that
//! says nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use heddle_integration::client;
use heddle_integration::envoy::{Envoy, Way};
use heddle_integration::heddle::{Heddle, KEY, Setup, binary};
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_node::drain::{self, DrainCompletion};
use heddle_proto::heddle::admin::v1 as api;
use heddle_proto::heddle::admin::v1::admin_client::AdminClient;
use heddle_xds::model::{
    Endpoint, Endpoints, Kind, Listener, PluginConf, PluginOrigin, Resource, Route, RouteMatch, Upstream, UpstreamRef,
};
use heddle_xds::server::{AdsService, NodeRegistry, tuned};
use heddle_xds::snapshot::{Change, SnapshotStore};
use serde_json::{Value, json};

/// A control plane of the test's own, because Heddle's would not send what an agent refuses, and agents that follow it.
struct Fleet {
    snapshot: Arc<SnapshotStore>,
    registry: Arc<NodeRegistry>,
    agents: Vec<(Process, SocketAddr)>,
    _places: Vec<Place>,
    _completion: DrainCompletion,
}

/// A route that answers by itself.
fn route(id: &str, status: i64, body: &str) -> Change {
    let plugin = PluginConf {
        name: "fault-injection".into(),
        config: Arc::new(json!({ "abort": { "http_status": status, "body": body } })),
        origin: PluginOrigin(format!("route/{id}").into()),
    };
    Change::Set(Resource::Route(Route {
        id: id.into(),
        name: "".into(),
        service_id: "".into(),
        service_name: "".into(),
        matches: RouteMatch { uris: vec![format!("/{id}").into()], ..RouteMatch::default() },
        priority: 0,
        created: 1,
        plugins: vec![plugin],
        upstream: None,
        timeouts: None,
        enable_websocket: false,
        max_duration: None,
    }))
}

fn listener(node: &str, address: SocketAddr) -> Change {
    Change::Set(Resource::Listener(Listener { nodes: vec![node.into()], ..Listener::new(node, address) }))
}

impl Fleet {
    /// Three agents; the first one has come first.
    fn start(wait: Duration) -> Fleet {
        let (snapshot, registry) = (Arc::new(SnapshotStore::new()), Arc::new(NodeRegistry::new()));
        let (completion, watch) = drain::pair();
        let socket = std::net::TcpListener::bind((Place::new().ip, 0)).unwrap();
        let xds = socket.local_addr().unwrap();
        socket.set_nonblocking(true).unwrap();
        let served = (snapshot.clone(), registry.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let ads = AdsService::new(served.0, served.1, watch).trying_first(Some(wait)).into_server();
                let incoming = tokio_stream::wrappers::TcpListenerStream::new(tokio::net::TcpListener::from_std(socket).unwrap());
                tuned().add_service(ads).serve_with_incoming(incoming).await.unwrap();
            });
        });
        let mut fleet = Fleet { snapshot, registry, agents: Vec::new(), _places: Vec::new(), _completion: completion };
        for name in ["a", "b", "c"] {
            fleet.join(name, xds);
        }
        fleet
    }

    fn join(&mut self, name: &str, xds: SocketAddr) {
        let place = Place::new();
        let (http, admin, data) = (place.address(), place.address(), place.path("data"));
        self.snapshot.apply(vec![listener(name, http)]);
        let text = format!(
            "node: {{ id: {name}, data_dir: \"{}\" }}\nagent: {{ workers: 1, admin: \"{admin}\" }}\ncontrolplane: {{ address: \"{xds}\" }}\n",
            data.display()
        );
        place.write("agent.yaml", &text);
        let mut command = Command::new(binary());
        command.args(["agent", "-c", "agent.yaml"]).current_dir(place.folder.path());
        self.agents.push((Process::start(command, place.path("agent.log")), http));
        until("the agent", || client::get(http, "/").ok());
        self._places.push(place);
    }

    /// What the agents answer.
    fn say(&self, target: &str) -> Vec<String> {
        self.agents.iter().map(|(_, http)| client::get(*http, target).map(|answer| answer.text()).unwrap_or_default()).collect()
    }

    fn until_all_say(&self, target: &str, text: &str) {
        until(text, || self.say(target).iter().all(|said| said == text).then_some(()));
    }

    fn held(&self) -> Vec<String> {
        let views = self.registry.rollouts().view();
        views.iter().flat_map(|view| &view.held).map(|held| format!("{} by {}", held.name, held.node)).collect()
    }
}

#[test]
fn what_one_agent_refuses_the_others_are_not_given_until_it_changes_or_somebody_says_so() {
    let fleet = Fleet::start(Duration::from_secs(20));
    fleet.snapshot.apply(vec![route("r", 200, "good")]);
    fleet.until_all_say("/r", "good");
    fleet.snapshot.apply(vec![route("r", 42, "bad"), route("new", 200, "new")]);
    fleet.until_all_say("/new", "new");
    assert_eq!(fleet.held(), ["r by a"]);
    assert_eq!(fleet.say("/r"), ["good", "good", "good"]);
    assert_eq!(fleet.registry.refusals(), 1, "nobody else has seen it");
    let nacks = |id: &str| fleet.registry.nodes().into_iter().find(|view| &*view.node.scope.id == id).unwrap().nacks;
    assert!(nacks("a")[0].field.starts_with("plugins.fault-injection") && nacks("b").is_empty(), "{:?}", nacks("a"));
    assert_eq!(fleet.registry.rollouts().resume("gateway/heddle"), Some(1));
    until("the others to refuse it as well", || (fleet.registry.refusals() >= 4).then_some(()));
    assert_eq!(fleet.say("/r"), ["good", "good", "good"], "an agent keeps what it had");
    fleet.snapshot.apply(vec![route("r", 200, "mended")]);
    fleet.until_all_say("/r", "mended");
    assert!(fleet.held().is_empty());
}

/// An upstream with one node.
fn upstream(name: &str, at: SocketAddr) -> [Change; 2] {
    let endpoint = Endpoint { host: at.ip().to_string().into(), port: at.port(), weight: 1, ..Endpoint::default() };
    let endpoints = Endpoints { upstream: name.into(), endpoints: [endpoint].into() };
    [Change::Set(Resource::Upstream(Arc::new(Upstream::new(name)))), Change::Set(Resource::Endpoints(endpoints))]
}

/// The route `r` to an upstream, with plugins that an agent takes, or with one that it does not.
fn leading_to(upstream: &str, good: bool) -> Change {
    let Change::Set(Resource::Route(bad)) = route("r", 42, "bad") else { panic!("it is a route") };
    let plugins = if good { Vec::new() } else { bad.plugins.clone() };
    Change::Set(Resource::Route(Route { plugins, upstream: Some(UpstreamRef { name: upstream.into() }), ..bad }))
}

#[test]
fn what_a_refused_route_led_to_stays_until_the_route_leads_elsewhere() {
    let (old, new) = (Nginx::saying("old"), Nginx::saying("new"));
    let fleet = Fleet::start(Duration::from_secs(20));
    fleet.snapshot.apply(upstream("old", old.address).into_iter().chain([leading_to("old", true)]).collect());
    fleet.until_all_say("/r", "old");
    let gone = [Kind::Upstream, Kind::Endpoints].map(|kind| Change::Remove(kind, "old".into()));
    let moved = upstream("new", new.address).into_iter().chain([leading_to("new", false)]);
    fleet.snapshot.apply(moved.chain(gone).collect());
    until("the hold", || {
        assert_eq!(fleet.say("/r")[1..], ["old", "old"]);
        (fleet.held() == ["r by a"]).then_some(())
    });
    fleet.until_all_say("/r", "old");
    fleet.snapshot.apply(vec![route("other", 200, "other")]);
    fleet.until_all_say("/other", "other");
    assert_eq!(fleet.say("/r"), ["old", "old", "old"], "what comes later does not take it away");
    fleet.snapshot.apply(vec![leading_to("new", true)]);
    fleet.until_all_say("/r", "new");
    until("the old one to go", || fleet.registry.rollouts().view().iter().all(|view| view.kept.is_empty()).then_some(()));
}

#[test]
fn a_canary_that_hangs_is_not_waited_for_twice() {
    let fleet = Fleet::start(Duration::from_secs(2));
    fleet.agents[0].0.signal("STOP");
    fleet.snapshot.apply(vec![route("r", 200, "one")]);
    let others = |text: &str| {
        (fleet.agents[1..].iter()).all(|(_, http)| client::get(*http, "/r").is_ok_and(|answer| answer.text() == text))
    };
    until("the others to go on without it", || others("one").then_some(()));
    // The next in line judges this one, so that it is not given to the third.
    fleet.snapshot.apply(vec![route("r", 42, "bad")]);
    until("the version to be held", || (fleet.held() == ["r by b"]).then_some(()));
    assert_eq!(fleet.registry.refusals(), 1);
    fleet.agents[0].0.signal("CONT");
    fleet.snapshot.apply(vec![route("r", 200, "two")]);
    fleet.until_all_say("/r", "two");
    // Who hung finds that version in its socket when it wakes up, and refuses it too; the third has never seen it.
    assert!(fleet.registry.refusals() <= 2, "{}", fleet.registry.refusals());
}

/// What the command line prints as JSON.
fn told(heddle: &Heddle, arguments: &[&str]) -> Value {
    let output = heddle.cli(arguments);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The state of each node, by id.
fn states(heddle: &Heddle, collection: &str, id: &str) -> Vec<String> {
    let told = told(heddle, &["get", collection, id, "--status", "-o", "json"]);
    told.as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["node"].as_str().unwrap(), one["state"].as_str().unwrap()))
        .collect()
}

#[test]
fn what_one_envoy_refuses_the_other_is_not_given_and_both_go_on() {
    let nginx = Nginx::saying("up");
    for way in [Way::DeltaAds, Way::SotwAds] {
        let heddle = Heddle::control_plane(Setup { xds: ", canary_wait: 30s".into(), ..Setup::default() });
        heddle.route("plain", "/plain", nginx.address);
        let first = Envoy::follow(heddle.xds, "envoy-1", way);
        first.until_live();
        heddle.until_status("/plain", 200);
        let second = Envoy::follow(heddle.xds, "envoy-2", way);
        second.until_live();
        // An address of nobody (RFC 5737).
        heddle.put("/listeners/strange", json!({ "address": "192.0.2.1:8080", "protocol": "http" }));
        let expected = ["envoy-1 refused", "envoy-2 held"];
        until("the hold", || (states(&heddle, "listeners", "strange") == expected).then_some(()));
        let held = told(&heddle, &["rollout", "status", "gateway/envoy", "-o", "json"]);
        assert_eq!((&held[0]["canaries"], &held[0]["held"][0]["refused_by"]), (&json!(["envoy-1"]), &json!("envoy-1")), "{held}");
        assert!(held[0]["held"][0]["reason"].as_str().unwrap().contains("192.0.2.1:8080"), "{held}");
        // What is good goes on to both.
        heddle.route("next", "/next", nginx.address);
        until("the next route", || {
            (states(&heddle, "routes", "next") == ["envoy-1 confirmed", "envoy-2 confirmed"]).then_some(())
        });
        heddle.until_status("/next", 200);
        assert_eq!(second.stat("listener_manager.lds.update_rejected"), 0);
        let table = String::from_utf8(heddle.cli(&["nodes"]).stdout).unwrap();
        assert!(table.contains("! envoy-2 does not get Listener strange as it is now: envoy-1 refuses it: "), "{table}");
        // Until somebody says to go on.
        assert!(heddle.cli(&["rollout", "resume", "gateway/envoy"]).status.success());
        until("the other one to refuse it too", || (second.stat("listener_manager.lds.update_rejected") > 0).then_some(()));
        assert_eq!(heddle.admin("DELETE", "/listeners/strange", Value::Null).status, 200);
        let nothing = || heddle.admin("GET", "/rollouts", Value::Null).json()[0]["held"] == json!([]);
        until("nothing to be held", || nothing().then_some(()));
        heddle.until_status("/plain", 200);
    }
}

#[test]
fn who_watches_hears_what_a_node_refuses() {
    let heddle = Heddle::control_plane(Setup::default());
    let envoy = Envoy::follow(heddle.xds, "envoy-1", Way::DeltaAds);
    envoy.until_live();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let heard = runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", heddle.xds)).unwrap().connect().await.unwrap();
        let mut request = tonic::Request::new(api::WatchRequest { refusals: true, ..Default::default() });
        request.metadata_mut().insert("x-api-key", KEY.parse().unwrap());
        let mut events = AdminClient::new(channel).watch(request).await.unwrap().into_inner();
        heddle.put("/listeners/strange", json!({ "address": "192.0.2.1:8080", "protocol": "http" }));
        loop {
            let event = tokio::time::timeout(Duration::from_secs(30), events.message())
                .await
                .expect("an event in time")
                .unwrap()
                .unwrap();
            if let Some(refusal) = event.refusal {
                break refusal;
            }
        }
    });
    let nack = heard.nack.unwrap();
    assert_eq!((&*heard.node, &*heard.group, &*nack.resource), ("envoy-1", "gateway/envoy", "strange"));
    assert!(nack.reason.contains("192.0.2.1:8080"), "{}", nack.reason);
    assert!(heddle.admin("GET", "/metrics", Value::Null).text().contains("heddle_nodes_refusals_total 1"));
}
