//! The command line against a running control plane: apply, diff, history, rollback, explain, and exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

use heddle_integration::heddle::{Heddle, binary};
use heddle_integration::mesh::{Mesh, Service};
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
    assert!(run(&heddle, &["get", "route", "r", "-o", "json"], 0).contains(&one.address.to_string()));
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
fn explain_shows_the_whole_chain_and_who_contributed_what() {
    let heddle = Heddle::run();
    let limit = |count| serde_json::json!({ "count": count, "time_window": 60 });
    let filter = serde_json::json!([["arg_a", "==", "1"]]);
    heddle.put("/global_rules/all", serde_json::json!({ "plugins": { "request-id": {} } }));
    heddle.put("/plugin_configs/shared", serde_json::json!({ "plugins": { "cors": {}, "limit-count": limit(9) } }));
    heddle.put("/services/shop", serde_json::json!({ "plugins": { "cors": {}, "ip-restriction": { "blacklist": ["10.0.0.1"], "_meta": { "disable": true } } } }));
    heddle.put("/consumer_groups/gold", serde_json::json!({ "plugins": { "limit-count": limit(5) } }));
    let plugins =
        serde_json::json!({ "key-auth": { "key": "jacks-key" }, "redirect": { "uri": "/new", "_meta": { "filter": filter } } });
    heddle.put("/consumers/jack", serde_json::json!({ "username": "jack", "group_id": "gold", "plugins": plugins }));
    let route = serde_json::json!({
        "uri": "/r", "plugin_config_id": "shared", "service_id": "shop", "plugins": { "key-auth": {}, "proxy-rewrite": { "uri": "/x", "_meta": { "priority": 1 } } }
    });
    heddle.put("/routes/r", route);
    let told = run(&heddle, &["explain", "GET", "/r"], 0);
    let expected = "
  plugin 1. request-id (priority 12015, from global_rule/all)
  plugin 2. cors (priority 4000, from plugin_config/shared)
  plugin 3. key-auth (priority 2500, from route/r)
  plugin 4. limit-count (priority 1002, from plugin_config/shared)
  plugin 5. proxy-rewrite (priority 1, from route/r)
  plugin -. ip-restriction (priority 3000, from service/shop) switched off by _meta.disable
  plugin -. cors (priority 4000, from service/shop) hidden by plugin_config/shared
  note: consumers may bring more plugins";
    assert!(told.contains(expected), "{told}");
    let told = run(&heddle, &["explain", "GET", "/r", "--consumer", "jack"], 0);
    let expected = "
  plugin 3. key-auth (priority 2500, from route/r)
  plugin 4. limit-count (priority 1002, from consumer_group/gold) after authentication
  plugin 5. redirect (priority 900, from consumer/jack) after authentication only if [[\"arg_a\",\"==\",\"1\"]]
  plugin 6. proxy-rewrite (priority 1, from route/r)
";
    assert!(told.contains(expected) && !told.contains("note:") && !told.contains("jacks-key"), "{told}");
    assert!(
        told.contains("limit-count (priority 1002, from plugin_config/shared) hidden by consumer_group/gold after auth"),
        "{told}"
    );
    let told = run(&heddle, &["explain", "GET", "/r", "--consumer", "jack", "-o", "json"], 0);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["plugins"][4]["condition"], &told["plugins"][4]["after_authentication"]), (&filter, &true.into()));
    assert_eq!((&told["plugins"][3]["config"]["count"], &told["silent_plugins"][0]["disabled"]), (&5.into(), &true.into()));
    assert_eq!(told["silent_plugins"][1]["hidden_by"], "consumer_group/gold");
    let told = run(&heddle, &["explain", "GET", "/nowhere"], 0);
    assert!(
        told.contains("no route: ") && told.contains("plugin 1. request-id (priority 12015, from global_rule/all)"),
        "{told}"
    );
    assert!(run(&heddle, &["explain", "GET", "/r", "--consumer", "nobody"], 2).contains("no consumer `nobody`"));
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

#[test]
fn services_of_the_mesh_and_their_instances_are_shown_and_narrowed() {
    let (mesh, app) = (Mesh::start(""), Nginx::saying("x"));
    let said = ", version: v2, labels: { track: canary }";
    let _cart = mesh.sidecar(&Service { said, ..Service::http("cart", app.address) });
    let _web = mesh.sidecar(&Service::http("web", app.address));
    mesh.control.put("/mesh_services/idle", serde_json::json!({ "protocol": "http" }));
    let (at, data) = (mesh.control.admin.to_string(), mesh.control.place.path("data"));
    let told = |arguments: &[&str]| {
        let server = ["--at", &at, "--key", heddle_integration::heddle::KEY, "--data-dir", data.to_str().unwrap()];
        alone(&mesh.control, &[&["mesh"], arguments, &server].concat(), 0)
    };
    let services = until("three services", || Some(told(&["services"])).filter(|told| told.lines().count() == 4));
    for service in ["default/cart", "default/web", "default/idle"] {
        assert!(services.contains(service), "{services}");
    }
    assert!(told(&["services", "--faulty"]).contains("idle") && !told(&["services", "--faulty"]).contains("cart"));
    let instances = told(&["instances", "cart"]);
    assert!(instances.contains("track=canary") && instances.contains(" v2 ") && instances.contains(" live "), "{instances}");
    assert_eq!((instances.lines().count(), told(&["instances", "--state", "draining"]).lines().count()), (2, 1));
    let json: serde_json::Value = serde_json::from_str(&told(&["instances", "default/web", "-o", "json"])).unwrap();
    assert_eq!((json[0]["node"].as_str(), json.as_array().unwrap().len()), (Some("web"), 1));
    let refused = alone(&mesh.control, &["mesh", "services", "--at", &at, "--key", "wrong-key"], 1);
    assert!(refused.contains("--key"), "{refused}");
}
