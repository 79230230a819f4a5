//! Resources from files: taken over when they change, kept when they break, and never silently.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::heddle::{Heddle, KEY, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use heddle_integration::{client, heddle};
use serde_json::Value;

fn route(id: &str, node: &Nginx) -> String {
    format!("routes:\n  - {{ id: {id}, uri: /{id}, upstream: {{ nodes: {{ \"{}\": 1 }} }} }}\n", node.address)
}

fn status(heddle: &Heddle) -> String {
    heddle.admin("GET", "/status", Value::Null).text()
}

#[test]
fn a_changed_file_is_taken_over_and_a_broken_one_is_not() {
    let nginx = Nginx::saying("x");
    let heddle = Heddle::with_resources(&route("one", &nginx));
    heddle.until_status("/one", 200);
    heddle.place.write("resources.yaml", &route("two", &nginx));
    heddle.until_status("/two", 200);
    heddle.until_status("/one", 404);
    heddle.place.write("resources.yaml", "routes:\n  - { id: three, uri: /three, upstream_id: nobody }\n");
    let told = until("the error in the status", || Some(status(&heddle)).filter(|text| text.contains("nobody")));
    assert!(told.contains("resources.yaml:2"), "{told}");
    assert_eq!(heddle.get("/two").status, 200, "the last good content serves on");
    let metrics = client::send(heddle.admin, "GET", "/apisix/admin/metrics", &[("X-API-KEY", KEY)], b"").unwrap().text();
    assert!(metrics.contains("heddle_provider_broken_sources{provider=\"file\"} 1"), "{metrics}");
    assert!(heddle.process.output().contains("nobody"), "the log tells it too");
    heddle.place.write("resources.yaml", &route("four", &nginx));
    heddle.until_status("/four", 200);
    until("the error to go", || (!status(&heddle).contains("nobody")).then_some(()));
}

#[test]
fn a_symbolic_link_can_be_switched() {
    let nginx = Nginx::saying("x");
    let heddle = Heddle::with_resources(&route("first", &nginx));
    heddle.until_status("/first", 200);
    let (file, link) = (heddle.place.path("resources.yaml"), heddle.place.path("next"));
    let swap = |target: &str| {
        std::os::unix::fs::symlink(heddle.place.path(target), &link).unwrap();
        std::fs::rename(&link, &file).unwrap();
    };
    heddle.place.write("v2/resources.yaml", &route("second", &nginx));
    heddle.place.write("v3/resources.yaml", &route("third", &nginx));
    swap("v2/resources.yaml");
    heddle.until_status("/second", 200);
    swap("v3/resources.yaml");
    heddle.until_status("/third", 200);
    heddle.until_status("/second", 404);
}

#[test]
fn one_broken_file_of_a_directory_does_not_touch_the_others() {
    let nginx = Nginx::saying("x");
    let place = heddle_integration::place::Place::new();
    place.write("r/a.yaml", &route("a", &nginx));
    place.write("r/b.yaml", &route("b", &nginx));
    let more = format!("providers: {{ file: {{ path: \"{}\", watch: true }} }}\n", place.path("r").display());
    let heddle = heddle::Heddle::run_with(Setup { more, ..Setup::default() });
    heddle.until_status("/a", 200);
    place.write("r/a.yaml", "routes: [");
    place.write("r/b.yaml", &route("c", &nginx));
    heddle.until_status("/c", 200);
    assert_eq!(heddle.get("/a").status, 200);
    std::fs::remove_file(place.path("r/a.yaml")).unwrap();
    heddle.until_status("/a", 404);
}

#[test]
fn what_comes_from_a_file_is_not_changed_over_the_api() {
    let nginx = Nginx::saying("x");
    let heddle = Heddle::with_resources(&route("one", &nginx));
    heddle.until_status("/one", 200);
    let answer = heddle.admin("DELETE", "/routes/one@file", Value::Null);
    assert!((400..500).contains(&answer.status), "{} {}", answer.status, answer.text());
    assert_eq!(heddle.get("/one").status, 200);
}
