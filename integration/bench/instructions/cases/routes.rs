//! Finding the route of a request, among one route and among ten thousand of all shapes.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use heddle_agent::exchange::Exchange;
use heddle_agent::exchange::imagined::{EmptyDirectory, Imagined};
use heddle_agent::route::{CompiledRoute, RouteTable};
use heddle_xds::model::{Route, RouteMatch};
use serde_json::{Value, json};

use super::Case;
use crate::subject::Subject;

/// Routes of the large table.
const MANY: usize = 10_000;
/// Shapes that take turns in it.
const SHAPES: usize = 8;
/// Requests that take turns: one for each route of a shape, since the tables are seeded anew in every run and a few places would show it.
const REQUESTS: usize = MANY / SHAPES;
/// Rounds that are counted.
const ROUNDS: usize = 3 * REQUESTS;

struct Finding {
    table: RouteTable<()>,
    requests: Vec<Exchange>,
    next: usize,
}

impl Subject for Finding {
    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.next = (self.next + 1) % self.requests.len();
            let found = self.table.find(black_box(&self.requests[self.next]));
            assert!(black_box(found).is_some(), "every request has a route");
        }
    }
}

pub fn cases() -> Vec<Case> {
    let case = |name, make| Case { name, rounds: ROUNDS, less: None, make };
    vec![
        case("route/one", || asking(vec![any()], 0, |n| ("GET", www(n), format!("/any/{n}/x")))),
        case("route/exact", || asking(many(), 0, |n| ("GET", www(n), format!("/exact/{n}/index.html")))),
        case("route/prefix", || asking(many(), 1, |n| ("GET", www(n), format!("/prefix/{n}/a/b/c")))),
        case("route/params", || asking(many(), 2, |n| ("GET", www(n), format!("/users-{n}/7/orders/9")))),
        case("route/host", || asking(many(), 3, |n| ("GET", format!("h{n}.example.com"), "/api/v1/things".to_owned()))),
        case("route/wildcard", || asking(many(), 4, |n| ("GET", format!("a.b.w{n}.example.com"), "/api/v1/things".to_owned()))),
        case("route/method", || asking(many(), 5, |n| ("POST", www(n), format!("/method/{n}")))),
        case("route/vars", || asking(many(), 6, |n| ("GET", www(n), format!("/vars/{n}?v=2")))),
        case("route/fallback", || asking(many(), 7, |n| ("GET", www(n), format!("/nowhere/{n}")))),
    ]
}

/// A host that no route names; many, because a single one would show where the seed of a run puts it.
fn www(n: usize) -> String {
    format!("www{n}.example.com")
}

type Asked = (&'static str, String, String);

/// These routes, and a request for each number of a shape.
fn asking(routes: Vec<Route>, shape: usize, request: fn(usize) -> Asked) -> Box<dyn Subject> {
    let asked: Vec<Asked> = (0..REQUESTS).map(|n| request(n * SHAPES + shape)).collect();
    let compiled = routes.iter().map(|route| Arc::new(CompiledRoute::compile(route, ()).unwrap())).collect();
    let requests = asked.iter().map(|(method, authority, target)| {
        let remote = ([192, 0, 2, 7], 4711).into();
        let local = ([192, 0, 2, 1], 80).into();
        let imagined = Imagined { method, authority, target, fields: &[("version", "2")], remote, local };
        imagined.exchange(heddle_node::clock::now(), 1_700_000_000_000, Rc::new(EmptyDirectory))
    });
    Box::new(Finding { table: RouteTable::build(compiled), requests: requests.collect(), next: 0 })
}

/// Ten thousand routes and one that takes what is left.
fn many() -> Vec<Route> {
    (0..MANY).map(shaped).chain([any()]).collect()
}

/// The route that takes every request.
pub fn any() -> Route {
    route("any".to_owned(), RouteMatch { uris: vec!["/*".into()], ..RouteMatch::default() })
}

/// The route of this number; the number decides its shape.
fn shaped(n: usize) -> Route {
    let path = |uri: String| RouteMatch { uris: vec![uri.into()], ..RouteMatch::default() };
    let host = |host: String| RouteMatch { uris: vec!["/api/*".into()], hosts: vec![host.into()], ..RouteMatch::default() };
    let matches = match n % SHAPES {
        0 => path(format!("/exact/{n}/index.html")),
        1 => path(format!("/prefix/{n}/*")),
        2 => path(format!("/users-{n}/:id/orders/:order")),
        3 => host(format!("h{n}.example.com")),
        4 => host(format!("*.w{n}.example.com")),
        5 => RouteMatch { methods: vec!["POST".into(), "PUT".into()], ..path(format!("/method/{n}")) },
        6 => RouteMatch { vars: Some(Arc::new(vars())), ..path(format!("/vars/{n}")) },
        _ => RouteMatch { remote_addrs: vec!["192.0.2.0/24".parse().unwrap()], ..path(format!("/address/{n}/*")) },
    };
    route(format!("r{n}"), matches)
}

fn vars() -> Value {
    json!([["arg_v", "==", "2"], ["http_version", "==", "2"]])
}

pub fn route(id: String, matches: RouteMatch) -> Route {
    Route {
        id: id.into(),
        name: "".into(),
        service_id: "".into(),
        service_name: "".into(),
        matches,
        priority: 0,
        created: 1,
        plugins: Vec::new(),
        upstream: None,
        timeouts: None,
        enable_websocket: false,
        max_duration: None,
    }
}
