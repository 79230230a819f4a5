//! Services whose applications know nothing of the mesh: their sidecars find each other, prove who they are, and go on while everything around them changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use heddle_integration::client::{self, raw};
use heddle_integration::load::Load;
use heddle_integration::mesh::{Mesh, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use heddle_integration::traffic::Called;
use serde_json::{Value, json};

/// An application that tells who called it.
fn telling() -> Nginx {
    Nginx::start("location / { return 200 '$http_x_forwarded_client_cert'; }")
}

#[test]
fn what_comes_from_outside_enters_the_mesh_as_the_gateway() {
    let mesh = Mesh::start("");
    let app = telling();
    let _api = mesh.sidecar(&Service::http("api", app.address));
    let _gateway = mesh.gateway();
    mesh.control.put("/upstreams/api", json!({ "discovery_type": "mesh", "service_name": "api" }));
    mesh.control.put("/routes/all", json!({ "uri": "/*", "upstream_id": "api" }));
    let seen = mesh.control.until_status("/hello", 200).text();
    assert!(seen.contains("URI=spiffe://story.example/ns/default/svc/gateway"), "{seen}");
}

#[test]
fn the_gateway_of_everything_in_one_process_enters_the_mesh_too() {
    let mesh = Mesh::in_one(", svid_ttl: 10s");
    let app = telling();
    let api = mesh.sidecar(&Service::http("api", app.address));
    mesh.control.put("/upstreams/api", json!({ "discovery_type": "mesh", "service_name": "api" }));
    mesh.control.put("/routes/all", json!({ "uri": "/*", "upstream_id": "api" }));
    let seen = mesh.control.until_status("/hello", 200).text();
    assert!(seen.contains("URI=spiffe://story.example/ns/default/svc/gateway"), "{seen}");
    mesh.policy(
        "gateway",
        json!({ "service": "api", "action": "deny", "rules": [ { "from": [ { "identities": ["gateway"] } ] } ] }),
    );
    mesh.control.until_status("/hello", 403);
    assert_eq!(mesh.control.admin("DELETE", "/authorization_policies/gateway", Value::Null).status, 200);
    mesh.control.until_status("/hello", 200);
    let issued = || mesh.audit().lines().filter(|line| line.contains("svc/gateway")).count();
    until("a renewal", || Some(issued()).filter(|issued| *issued > 1));
    assert_eq!(mesh.control.get("/hello").status, 200, "with the new certificate too");
    let told = String::from_utf8_lossy(&mesh.control.cli(&["explain", "GET", "/hello"]).stdout).into_owned();
    assert!(told.contains(&api.inbound.to_string()), "explain knows the instances of services:\n{told}");
    let shown = String::from_utf8_lossy(&mesh.control.cli(&["ca", "show"]).stdout).into_owned();
    assert!(shown.contains("gw-1"), "no rotation of the root would wait for it in vain:\n{shown}");
    assert!(mesh.control.metrics().contains("heddle_identity_expiry_timestamp_seconds"));
}

#[test]
fn what_a_gateway_is_told_to_say_of_a_client_arrives_outside_of_the_mesh_and_what_clients_say_nowhere() {
    let mesh = Mesh::start("");
    let (inside, outside) = (telling(), telling());
    let _api = mesh.sidecar(&Service::http("api", inside.address));
    let _gateway = mesh.gateway();
    let says = json!({ "proxy-rewrite": { "headers": { "set": { "X-Forwarded-Client-Cert": "Subject=checked-by-us" } } } });
    let (into, out) =
        (json!({ "discovery_type": "mesh", "service_name": "api" }), json!({ "nodes": { outside.address.to_string(): 1 } }));
    for (id, upstream, plugins) in [("in", &into, &says), ("out", &out, &says), ("plain", &out, &json!({}))] {
        let route = json!({ "uri": format!("/{id}"), "upstream": upstream, "plugins": plugins });
        mesh.control.put(&format!("/routes/{id}"), route);
    }
    mesh.control.until_status("/plain", 200);
    let seen = mesh.control.until_status("/in", 200).text();
    assert!(seen.contains("svc/gateway") && !seen.contains("checked-by-us"), "{seen}");
    assert_eq!(mesh.control.until_status("/out", 200).text(), "Subject=checked-by-us");
    for name in ["X-Forwarded-Client-Cert", "x_forwarded_client_cert", "X_Forwarded-Client-Cert"] {
        let lies = |target: &str| client::send(mesh.control.http, "GET", target, &[(name, "Subject=boss")], b"").unwrap().text();
        assert_eq!((lies("/plain").as_str(), lies("/out").as_str()), ("", "Subject=checked-by-us"), "{name}");
        let seen = lies("/in");
        assert!(seen.contains("svc/gateway") && !seen.contains("boss"), "{name}: {seen}");
    }
    until("the audit", || mesh.audit().contains("spoofed").then_some(()));
}

#[test]
fn a_caller_is_who_it_has_proven_to_be_whatever_it_says() {
    let mesh = Mesh::start("");
    let app = telling();
    let _api = mesh.sidecar(&Service::http("api", app.address));
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    let forged = [("X-Forwarded-Client-Cert", "URI=spiffe://story.example/ns/default/svc/admin")];
    let answer = client::send(web.outbound[0], "GET", "/", &forged, b"").unwrap().text();
    assert!(answer.contains("URI=spiffe://story.example/ns/default/svc/web") && !answer.contains("svc/admin"), "{answer}");
}

#[test]
fn a_strict_sidecar_has_no_answer_in_clear() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("secret");
    let api = mesh.sidecar(&Service::http("api", app.address));
    let answer = raw(api.inbound, b"GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
    assert_eq!(answer, "");
}

#[test]
fn a_policy_decides_at_once_and_says_why() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let api = mesh.sidecar(&Service::http("api", app.address));
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    // What a policy would do is counted before it does it.
    mesh.policy("tried", json!({ "service": "api", "action": "allow", "dry_run": true }));
    until("what would be refused", || {
        assert_eq!(client::get(web.outbound[0], "/").unwrap().status, 200);
        let counted = api
            .metrics()
            .lines()
            .find_map(|line| line.strip_prefix("heddle_mesh_policy_would_refuse_total{policy=\"tried\"} ")?.parse().ok());
        counted.filter(|count: &u64| *count > 0)
    });
    assert_eq!(mesh.control.admin("DELETE", "/authorization_policies/tried", Value::Null).status, 200);
    mesh.policy("none", json!({ "service": "api", "action": "allow" }));
    let refused = until("the default deny", || client::get(web.outbound[0], "/").ok().filter(|answer| answer.status == 403));
    assert_eq!(refused.status, 403);
    assert!(api.metrics().contains("heddle_mesh_policy_refused_total{policy=\"none\"}"));
    mesh.policy("web", json!({ "service": "api", "action": "allow", "rules": [ { "from": [ { "identities": ["web"] } ] } ] }));
    mesh.until_reached(&web, "/");
    assert_eq!(mesh.control.admin("DELETE", "/authorization_policies/web", Value::Null).status, 200);
    until("the default deny again", || client::get(web.outbound[0], "/").ok().filter(|answer| answer.status == 403));
}

#[test]
fn a_join_token_is_good_once_and_for_its_service() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let api = mesh.sidecar(&Service::http("api", app.address));
    let audit = mesh.audit();
    assert!(audit.contains("spiffe://story.example/ns/default/svc/api"), "{audit}");
    // The same token again, on another node.
    let place = &mesh.control.place;
    let text = std::fs::read_to_string(place.path("api.yaml"))
        .unwrap()
        .replace("id: api,", "id: thief,")
        .replace("api-data", "thief-data");
    let text = text
        .replace(&api.admin.to_string(), &place.address().to_string())
        .replace(&api.inbound.to_string(), &place.address().to_string());
    place.write("thief.yaml", &text);
    let mut command = std::process::Command::new(heddle_integration::heddle::binary());
    command.args(["agent", "-c", "thief.yaml"]).current_dir(place.folder.path());
    let _thief = heddle_integration::process::Process::start(command, place.path("thief.log"));
    until("the refusal in the audit", || mesh.audit().contains("used").then_some(()));
}

#[test]
fn short_identities_are_renewed_under_load_without_a_failure() {
    let mesh = Mesh::start(", svid_ttl: 10s");
    let called = Called::start(&mesh);
    let mut traffic = called.traffic(4, Duration::ZERO);
    let renewals = || ["web", "api", "mail"].map(|who| mesh.audit().matches(&format!("svc/{who}")).count());
    let enough = renewals().map(|renewed| renewed + 3);
    until("three renewals of each", || renewals().iter().zip(enough).all(|(now, enough)| *now >= enough).then_some(()));
    traffic.goes_on(100);
    traffic.nothing_failed();
}

#[test]
fn the_mesh_goes_on_without_its_control_plane() {
    let mut mesh = Mesh::start("");
    let called = Called::start(&mesh);
    let mut traffic = called.traffic(4, Duration::ZERO);
    mesh.control.process.kill();
    traffic.goes_on(500);
    mesh.control.start_again();
    traffic.goes_on(500);
    traffic.nothing_failed();
}

#[test]
fn a_sidecar_that_is_killed_costs_no_request_that_may_be_sent_again() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let service = Service::http("api", app.address);
    let (mut one, two) = (mesh.begin_sidecar("api-1", &service), mesh.begin_sidecar("api-2", &service));
    one.wait_ready();
    two.wait_ready();
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    let load = Load::start(web.outbound[0], "/", 8);
    let further = |more: u64| {
        let target = load.requests() + more;
        until("the load to go on", || (load.requests() >= target).then_some(()));
    };
    further(200);
    one.process.kill();
    further(500);
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
}

#[test]
fn a_root_is_replaced_under_load_without_a_failure() {
    let mesh = Mesh::start(", svid_ttl: 10s, ca: { spread: 1s }");
    let called = Called::start(&mesh);
    let roots = || String::from_utf8_lossy(&mesh.control.cli(&["ca", "export"]).stdout).into_owned();
    let before = roots();
    let mut traffic = called.traffic(4, Duration::ZERO);
    let rotated = mesh.control.cli(&["ca", "rotate"]);
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    until("both roots", || (roots().matches("BEGIN CERTIFICATE").count() == 2).then_some(()));
    traffic.goes_on(100);
    until("the new root alone", || {
        let now = roots();
        (now.matches("BEGIN CERTIFICATE").count() == 1 && now != before).then_some(())
    });
    traffic.connects_anew(&called);
    traffic.goes_on(500);
    traffic.nothing_failed();
}
