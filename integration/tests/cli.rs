//! The command line against a running control plane: apply, diff, history, rollback, explain, and exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

use heddle_integration::heddle::{Heddle, binary};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command, expects this exit code and gives what it printed.
fn run(heddle: &Heddle, arguments: &[&str], code: i32) -> String {
    let output = heddle.cli(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
    text(&output)
}

/// Runs the binary without a server.
fn alone(heddle: &Heddle, arguments: &[&str], code: i32) -> String {
    let output = Command::new(binary()).args(arguments).current_dir(heddle.place.folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
    text(&output)
}

#[test]
fn files_are_compared_applied_and_rolled_back() {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    let heddle = Heddle::run();
    let file = |node| format!("routes:\n  - {{ id: r, uri: /r, upstream: {{ nodes: {{ \"{node}\": 1 }} }} }}\n");
    heddle.place.write("one.yaml", &file(one.address));
    heddle.place.write("two.yaml", &file(two.address));
    assert!(run(&heddle, &["diff", "-f", "one.yaml"], 3).contains("routes/r"));
    let applied = run(&heddle, &["apply", "-f", "one.yaml"], 0);
    let revision = applied.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(heddle.until_status("/r", 200).text(), "one");
    run(&heddle, &["diff", "-f", "one.yaml"], 0);
    run(&heddle, &["apply", "-f", "two.yaml"], 0);
    until("two", || (heddle.get("/r").text() == "two").then_some(()));
    assert!(run(&heddle, &["history", "routes", "r"], 0).lines().count() >= 2);
    run(&heddle, &["rollback", "--to", &revision], 0);
    until("one again", || (heddle.get("/r").text() == "one").then_some(()));
    assert!(run(&heddle, &["get", "routes", "r", "-o", "json"], 0).contains(&one.address.to_string()));
    run(&heddle, &["delete", "routes", "r"], 0);
    heddle.until_status("/r", 404);
    run(&heddle, &["delete", "routes", "r"], 1);
}

#[test]
fn explain_names_the_route_and_why_others_did_not_match() {
    let (nginx, heddle) = (Nginx::saying("x"), Heddle::run());
    heddle.route("exact", "/shop/cart", nginx.address);
    heddle.put("/routes/posts", serde_json::json!({ "uri": "/shop/*", "methods": ["POST"], "plugins": {} }));
    let told = run(&heddle, &["explain", "GET", "/shop/cart"], 0);
    assert!(told.contains("exact") && told.contains(&nginx.address.to_string()), "{told}");
    let told = run(&heddle, &["explain", "GET", "http://a.example/shop/other"], 0);
    assert!(told.contains("posts") && told.to_lowercase().contains("method"), "{told}");
}

#[test]
fn a_bad_file_changes_nothing_and_says_where() {
    let heddle = Heddle::run();
    heddle.place.write(
        "bad.yaml",
        "routes:\n  - { id: good, uri: /good, plugins: {} }\n  - { id: bad, uri: /bad, upstream_id: nobody }\n",
    );
    let told = run(&heddle, &["apply", "-f", "bad.yaml"], 1);
    assert!(told.contains("nobody"), "{told}");
    assert_eq!(heddle.admin("GET", "/routes/good", serde_json::Value::Null).status, 404);
    heddle.place.write("worse.yaml", "routes: [");
    run(&heddle, &["apply", "-f", "worse.yaml"], 2);
}

#[test]
fn validate_tells_all_mistakes_at_once_without_starting() {
    let heddle = Heddle::run();
    alone(&heddle, &["validate", "-c", "heddle.yaml"], 0);
    heddle.place.write("bad.yaml", "node: { id: 7 }\nagent: { workers: none, colour: red }\nadmin: { address: here }\n");
    let told = alone(&heddle, &["validate", "-c", "bad.yaml"], 2);
    for part in ["bad.yaml:2:", "agent.workers", "agent.colour", "admin.address"] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    alone(&heddle, &["run", "-c", "bad.yaml"], 2);
    heddle.place.write("resources.yaml", "routes:\n  - { id: a, uri: /a, upstream_id: nobody }\n");
    let told = alone(&heddle, &["validate", "-c", "heddle.yaml", "-r", "resources.yaml"], 2);
    assert!(told.contains("resources.yaml:2") && told.contains("nobody"), "{told}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_that_helps() {
    let heddle = Heddle::run();
    let told = alone(&heddle, &["get", "routes", "--server", "http://127.0.0.1:1", "--key", "nothing-here"], 1);
    assert!(told.contains("127.0.0.1:1"), "{told}");
    let output = Command::new(binary())
        .args(["get", "routes", "--server", &format!("http://{}", heddle.xds), "--key", "wrong-key"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}
