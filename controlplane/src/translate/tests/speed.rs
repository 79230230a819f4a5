//! The cost of a translation follows the change, not the size of the configuration.

use serde_json::json;

use super::{World, key, names};

const ROUTES: usize = 10_000;

fn large() -> World {
    let mut world = World::new();
    for n in 0..100 {
        world.set(&key(&format!("upstreams/u{n}")), Some(json!({"nodes": {"127.0.0.1:80": 1, "127.0.0.2:80": 1}})));
        world.set(
            &key(&format!("services/s{n}")),
            Some(json!({"upstream_id": format!("u{n}"), "plugins": {"cors": {"allow_origins": "*"}}})),
        );
    }
    for n in 0..ROUTES {
        let route = json!({"uri": format!("/api/{n}/*"), "host": format!("h{}.example.com", n % 50), "methods": ["GET", "POST"],
            "service_id": format!("s{}", n % 100), "plugins": {"limit-count": {"count": n, "time_window": 60, "key": "remote_addr"}}});
        world.set(&key(&format!("routes/r{n}")), Some(route));
    }
    world
}

#[test]
fn ten_thousand_routes() {
    let mut world = large();
    let start = heddle_node::clock::now();
    let changes = world.translator.rebuild(&world.state, &world.directory);
    println!("{ROUTES} routes, 100 services, 100 upstreams: {:?}", start.elapsed());
    assert_eq!(changes.len(), ROUTES + 200);
    // An upstream that every hundredth route uses changes alone; its service brings exactly those routes along.
    let start = heddle_node::clock::now();
    world.set(&key("upstreams/u7"), Some(json!({"nodes": {"127.0.0.3:80": 1}})));
    assert_eq!(
        names(&world.translator.apply(&world.state, &world.directory, &[key("upstreams/u7")], &Default::default())),
        ["Endpoints upstreams/u7"]
    );
    println!("one upstream: {:?}", start.elapsed());
    let start = heddle_node::clock::now();
    world.set(&key("services/s7"), Some(json!({"upstream_id": "u7"})));
    assert_eq!(
        world.translator.apply(&world.state, &world.directory, &[key("services/s7")], &Default::default()).len(),
        ROUTES / 100
    );
    println!("one service of {} routes: {:?}", ROUTES / 100, start.elapsed());
}
