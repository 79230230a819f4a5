//! Tests of the route table, against cases by hand and a naive ordered scan.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_xds::model::{Route, RouteMatch};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::exchange::testing::{get, request};

fn route(id: &str, hosts: &[&str], uris: &[&str]) -> Route {
    Route {
        id: id.into(),
        name: "".into(),
        service_id: "".into(),
        service_name: "".into(),
        matches: RouteMatch {
            uris: uris.iter().map(|uri| (*uri).into()).collect(),
            hosts: hosts.iter().map(|host| (*host).into()).collect(),
            ..RouteMatch::default()
        },
        priority: 0,
        created: 0,
        plugins: Vec::new(),
        upstream: None,
        timeouts: None,
        enable_websocket: false,
        max_duration: None,
    }
}

fn table(routes: &[Route]) -> RouteTable<()> {
    RouteTable::build(routes.iter().map(|route| Arc::new(CompiledRoute::compile(route, ()).unwrap())).collect())
}

fn found(table: &RouteTable<()>, x: &Exchange) -> Option<String> {
    table.find(x).map(|found| found.route.info.id.to_string())
}

fn expect(table: &RouteTable<()>, cases: &[(&str, &str, &str)]) {
    for (host, path, expected) in cases {
        let id = found(table, &get(host, path));
        assert_eq!(id.as_deref().unwrap_or("-"), *expected, "{host}{path}");
    }
}

#[test]
fn the_closer_host_goes_first_and_search_falls_through() {
    let mut plain = route("none", &[], &["/*"]);
    plain.priority = 100;
    let table = table(&[
        plain,
        route("exact", &["a.example.com"], &["/only"]),
        route("near", &["*.example.com"], &["/near/*", "/only"]),
        route("far", &["*.com"], &["/far"]),
        route("odd", &["*ple.org"], &["/*"]),
        route("port", &["h.net:8080"], &["/*"]),
    ]);
    expect(
        &table,
        &[
            ("a.example.com", "/only", "exact"),
            ("A.example.com:8080", "/only", "exact"),
            ("a.example.com.", "/only", "exact"),
            ("a.example.com", "/near/x", "near"),
            ("x.y.example.com", "/only", "near"),
            ("a.example.com", "/far", "far"),
            ("example.com", "/only", "none"),
            ("a.example.com", "/else", "none"),
            ("example.org", "/", "odd"),
            ("ple.org", "/", "odd"),
            ("h.net:8080", "/", "port"),
            ("h.net", "/", "none"),
            ("é.com", "/far", "far"),
            ("", "/x", "none"),
        ],
    );
}

#[test]
fn the_closer_path_goes_before_priority() {
    let mut short = route("short", &[], &["/a/*"]);
    short.priority = 10;
    let mut star = route("star", &[], &["/a/b*"]);
    star.priority = 5;
    let table =
        table(&[short, star, route("long", &[], &["/a/b/*"]), route("exact", &[], &["/a/b/c"]), route("root", &[], &["/"])]);
    expect(
        &table,
        &[
            ("h", "/a/b/c", "exact"),
            ("h", "/a/b/d", "long"),
            ("h", "/a/b", "star"),
            ("h", "/a/bc", "star"),
            ("h", "/a/", "short"),
            ("h", "/a", "-"),
            ("h", "/", "root"),
        ],
    );
}

#[test]
fn among_equals_priority_then_length_then_age() {
    let with = |id: &str, uri: &str, priority, created| Route { priority, created, ..route(id, &[], &[uri]) };
    let table = table(&[
        with("young", "/p/*", 0, 9),
        with("old", "/p/*", 0, 1),
        with("longer", "/p/*/x", 0, 9),
        with("urgent", "/q", 1, 9),
        with("calm", "/q", 0, 1),
        with("first", "/r/:id", 0, 1),
        with("second", "/r/:xy", 0, 2),
    ]);
    expect(&table, &[("h", "/p/1", "old"), ("h", "/p/1/x", "longer"), ("h", "/q", "urgent"), ("h", "/r/1", "first")]);
}

#[test]
fn conditions_that_do_not_hold_are_passed_over() {
    let mut post = route("post", &[], &["/x"]);
    post.matches.methods = vec!["POST".into(), "PURGE".into()];
    let mut near = route("near", &[], &["/x"]);
    near.matches.remote_addrs = vec!["10.0.0.0/8".parse().unwrap()];
    near.priority = 5;
    let mut vars = route("vars", &[], &["/x*"]);
    vars.matches.vars = Some(Arc::new(json!([["arg_v", "==", "2"]])));
    let table = table(&[post, near, vars, route("rest", &[], &["/*"])]);
    assert_eq!(found(&table, &request("POST", "h", "/x", &[])).unwrap(), "post");
    assert_eq!(found(&table, &request("PURGE", "h", "/x", &[])).unwrap(), "post");
    assert_eq!(found(&table, &get("h", "/x?v=2")).unwrap(), "vars");
    assert_eq!(found(&table, &get("h", "/x?v=3")).unwrap(), "rest");
    let mut inside = get("h", "/x");
    inside.remote = "[::ffff:10.1.2.3]:1".parse().unwrap();
    assert_eq!(found(&table, &inside).unwrap(), "near");

    let verdicts = table.explain(&get("h", "/x?v=3"), 10);
    let whys: Vec<_> = verdicts.iter().map(|verdict| (&*verdict.route.id, verdict.why)).collect();
    assert_eq!(whys, [("rest", Why::Taken), ("vars", Why::Vars), ("near", Why::RemoteAddr), ("post", Why::Method)]);
    assert_eq!(table.explain(&get("h", "/x"), 2).len(), 2);
}

#[test]
fn parameters_are_captured() {
    let table = table(&[
        route("user", &[], &["/u/:id"]),
        route("post", &[], &["/u/:id/posts/:post"]),
        route("files", &[], &["/f/:bucket/*rest"]),
        route("mid", &[], &["/m/*/end"]),
        route("colon", &[], &["/v1/a:b"]),
        route("accent", &[], &["/caf%c3%a9/é/*"]),
    ]);
    let params = |path: &str| -> Vec<String> {
        let x = get("h", path);
        let found = table.find(&x).unwrap_or_else(|| panic!("{path}"));
        std::iter::once(found.route.info.id.to_string())
            .chain(found.params.iter().map(|(name, value)| format!("{name}={value}")))
            .collect()
    };
    assert_eq!(params("/u/7"), ["user", "id=7"]);
    assert_eq!(params("/u/7/posts/a%20b"), ["post", "id=7", "post=a%20b"]);
    assert_eq!(params("/f/b/x/y"), ["files", "bucket=b", "rest=x/y"]);
    assert_eq!(params("/f/b/"), ["files", "bucket=b", "rest="]);
    assert_eq!(params("/m/a/end/b/end"), ["mid"]);
    assert_eq!(params("/v1/a:b"), ["colon"]);
    assert_eq!(params("/caf%C3%A9/%C3%A9/x"), ["accent"]);
    for absent in ["/u/", "/u/7/posts/", "/u/7/posts", "/m/a/ends", "/v1/axb"] {
        assert!(table.find(&get("h", absent)).is_none(), "{absent}");
    }
}

#[test]
fn a_route_tells_how_much_of_a_path_it_says() {
    let table = table(&[
        route("open", &[], &["/*"]),
        route("pages", &[], &["/pages/*", "/pages/shop.Orders/*", "/pages/v1/exact", "/pag*", "/:one/a/:two/b*c/*"]),
    ]);
    for (path, said) in [
        ("/x/y", Some(0)),
        ("/pages/x/y", Some(1)),
        ("/pages/shop.Orders/List", Some(2)),
        ("/pages/v1/exact", None),
        ("/paged/x", Some(1)),
        ("/x/a/y/bcc/z", Some(4)),
    ] {
        let found = table.find(&get("h", path)).unwrap();
        assert_eq!(found.route.said(path), said, "{path}");
    }
}

#[test]
fn all_faults_of_a_route_are_reported() {
    let mut bad = route("bad", &["a*b", ""], &["x", "/ok"]);
    bad.matches.vars = Some(Arc::new(json!([["a", "??", 1]])));
    let faults = CompiledRoute::compile(&bad, ()).unwrap_err();
    let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["uris[0]", "hosts[0]", "hosts[1]", "vars[0]"]);
    assert_eq!(CompiledRoute::compile(&route("none", &[], &[]), ()).unwrap_err()[0].path, "uris");
}

#[test]
fn ten_thousand_routes_are_indexed() {
    let routes: Vec<_> =
        (0..10_000).map(|n| route(&format!("r{n}"), &[&format!("h{}.example", n % 100)], &[&format!("/svc/{n}/*")])).collect();
    let table = table(&routes);
    assert_eq!(table.len(), 10_000);
    expect(&table, &[("h42.example", "/svc/142/x", "r142"), ("h42.example", "/svc/143/x", "-")]);
}

/// The order by comparing every route with every other.
fn naive(routes: &[Route], x: &Exchange) -> Option<String> {
    let mut best: Option<(_, String)> = None;
    for route in routes {
        let any = vec!["*".into()];
        for host in if route.matches.hosts.is_empty() { &any } else { &route.matches.hosts } {
            let name = x.request.host();
            let host_rank = match host.strip_prefix('*') {
                Some("") => (0, 0),
                Some(suffix) if name.len() > suffix.len() && name.ends_with(suffix) => (1, suffix.len()),
                None if **host == *name => (2, 0),
                _ => continue,
            };
            for uri in &route.matches.uris {
                let literal = uri.find("/:").map(|at| at + 1).into_iter().chain(uri.find('*')).min();
                let path_rank = literal.map_or((1, 0), |length| (0, length));
                let method_fits =
                    route.matches.methods.is_empty() || route.matches.methods.iter().any(|method| &**method == "GET");
                if !method_fits || !to_regex(uri).is_match(&x.request.path) {
                    continue;
                }
                let by_length = if literal.is_some() { uri.len() } else { 0 };
                let rank = (host_rank, path_rank, route.priority, by_length, std::cmp::Reverse(route.created));
                if best.as_ref().is_none_or(|(old, _)| rank > *old) {
                    best = Some((rank, route.id.to_string()));
                }
            }
        }
    }
    best.map(|(_, id)| id)
}

fn to_regex(uri: &str) -> regex::Regex {
    let segments: Vec<_> = uri
        .split('/')
        .map(|segment| if segment.starts_with(':') { "[^/]+".to_owned() } else { segment.replace('*', ".*") })
        .collect();
    regex::Regex::new(&format!("^{}$", segments.join("/"))).unwrap()
}

fn any_uri() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "ab", ":p", "*", "a*", ""]);
    prop::collection::vec(segment, 1..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn any_route() -> impl Strategy<Value = Route> {
    let host = prop::sample::select(vec!["a.x", "b.a.x", "*.x", "*.a.x", "*"]);
    let hosts = prop::collection::vec(host, 0..3);
    (hosts, prop::collection::vec(any_uri(), 1..3), -1i64..2, prop::sample::select(vec!["", "GET", "POST"])).prop_map(
        |(hosts, uris, priority, method)| {
            let uris: Vec<_> = uris.iter().map(String::as_str).collect();
            let mut route = route("", &hosts, &uris);
            route.priority = priority;
            route.matches.methods = if method.is_empty() { Vec::new() } else { vec![method.into()] };
            route
        },
    )
}

proptest! {
    #[test]
    fn the_index_finds_what_a_scan_finds(
        mut routes in prop::collection::vec(any_route(), 0..12),
        host in prop::sample::select(vec!["a.x", "b.a.x", "c.b.a.x", "x", "y"]),
        path in "(/(a|b|ab|aab|)){1,4}",
    ) {
        for (number, route) in routes.iter_mut().enumerate() {
            route.id = format!("r{number}").into();
            route.created = number as u64;
        }
        let x = get(host, &path);
        prop_assert_eq!(found(&table(&routes), &x), naive(&routes, &x));
    }
}
