//! Heddle's agent and the real Envoy with the same listeners and clusters, each at addresses of its own.

use std::net::SocketAddr;

use heddle_integration::ads::{Follower, any, manager, socket};
use heddle_integration::envoy::Envoy;
use heddle_integration::place::Place;
use serde_json::{Value, json};

/// What a listener has: filters before the router, by name, and virtual hosts.
pub struct Door {
    pub filters: Vec<(String, Value)>,
    pub hosts: Vec<Value>,
}

/// Both, with the addresses of their listeners in the order of the doors.
pub struct Pair {
    pub ours: Vec<SocketAddr>,
    pub theirs: Vec<SocketAddr>,
    pub runs: (Follower, Envoy),
    _place: Place,
}

fn listener(number: usize, door: &Door, address: SocketAddr) -> Value {
    let one = |(name, config): &(String, Value)| json!({ "name": name, "typed_config": config });
    let mut filters: Vec<Value> = door.filters.iter().map(one).collect();
    let router = any("envoy.extensions.filters.http.router.v3.Router", json!({ "suppress_envoy_headers": true }));
    filters.push(json!({ "name": "router", "typed_config": router }));
    let table = json!({ "name": format!("table-{number}"), "virtual_hosts": door.hosts });
    let manager = manager(json!({ "http_filters": filters, "route_config": table }));
    json!({ "name": format!("door-{number}"), "address": socket(address), "filter_chains": [{ "filters": [manager] }] })
}

fn bootstrap(doors: &[Door], addresses: &[SocketAddr], clusters: &[Value], admin: SocketAddr) -> String {
    let listeners: Vec<Value> =
        doors.iter().zip(addresses).enumerate().map(|(number, (door, address))| listener(number, door, *address)).collect();
    let resources = json!({ "listeners": listeners, "clusters": clusters });
    json!({ "node": { "id": "edge", "cluster": "edge" }, "admin": { "address": socket(admin) }, "static_resources": resources })
        .to_string()
}

impl Pair {
    /// Starts both and waits until they have all that they are given.
    pub fn start(doors: &[Door], clusters: &[Value]) -> Pair {
        let place = Place::new();
        let some = || -> Vec<SocketAddr> { doors.iter().map(|_| place.address()).collect() };
        let (ours, theirs) = (some(), some());
        let agent = Follower::with_bootstrap(|spot| bootstrap(doors, &ours, clusters, spot.admin));
        let envoy = Envoy::start(&bootstrap(doors, &theirs, clusters, "127.0.0.1:0".parse().unwrap()));
        agent.until_ready();
        envoy.until_live();
        Pair { ours, theirs, runs: (agent, envoy), _place: place }
    }

    /// A door at both.
    pub fn both(&self, door: usize) -> [SocketAddr; 2] {
        [self.ours[door], self.theirs[door]]
    }
}

/// A virtual host.
pub fn host(name: &str, domain: &str, routes: Value) -> Value {
    json!({ "name": name, "domains": [domain], "routes": routes })
}

/// A cluster of these endpoints with their weights.
pub fn cluster(name: &str, endpoints: &[(SocketAddr, u32)], more: Value) -> Value {
    let one = |(address, weight): &(SocketAddr, u32)| json!({ "endpoint": { "address": socket(*address) }, "load_balancing_weight": weight });
    let endpoints: Vec<Value> = endpoints.iter().map(one).collect();
    let assignment = json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] });
    let mut cluster = json!({ "name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment });
    cluster.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cluster
}
