//! What the owner of a service makes of the ways to it, in `mesh_services`, as the sidecars of its callers obey it: faults, mirrors, timeouts, breakers and budgets
//! of retries. Each is looked for on the side on which it must act, and on the other one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::app::App;
use heddle_integration::client::{self, Answer};
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// `web` calls `api`, both with a sidecar; an application stands behind that of `api`.
struct Story {
    mesh: Mesh,
    app: App,
    api: Node,
    web: Node,
}

impl Story {
    fn new() -> Story {
        let (mesh, app) = (Mesh::start(""), App::start());
        let api = mesh.sidecar(&Service::http("api", app.address));
        let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
        mesh.until_reached(&web, "/ready");
        Story { mesh, app, api, web }
    }

    /// How clients reach `api` from now on.
    fn is_reached(&self, mut how: Value) {
        // By this the caller's sidecar shows that it has been told.
        how["plugins"]["response-rewrite"] = json!({ "headers": { "set": { "X-Told": "yes" } } });
        self.mesh.control.put("/mesh_services/api", how);
        until("the sidecar to be told", || self.ask("GET", "/ready").field("x-told").map(|_| ()));
    }

    fn ask(&self, method: &str, target: &str) -> Answer {
        client::send(self.web.outbound[0], method, target, &[], b"").unwrap()
    }

    /// Asks beside the story; the answer comes when it comes.
    fn ask_aside(&self, target: &'static str) -> std::thread::JoinHandle<u16> {
        let address = self.web.outbound[0];
        std::thread::spawn(move || client::get(address, target).unwrap().status)
    }
}

impl Story {
    /// What has become of copies at a node.
    fn copies(&self, node: &Node, event: &str) -> u64 {
        let end = format!("event=\"{event}\"}} ");
        let line = |line: &str| {
            line.strip_prefix("heddle_plugin_events_total{plugin=\"proxy-mirror\",")?.split_once(&end)?.1.parse().ok()
        };
        node.metrics().lines().find_map(line).unwrap_or_default()
    }
}

/// How often requests ended for this reason at a node.
fn reason(node: &Node, reason: &str) -> u64 {
    let start = format!("heddle_http_reasons_total{{reason=\"{reason}\"}} ");
    node.metrics().lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or_default()
}

#[test]
fn faults_are_made_and_copies_are_sent_where_a_service_is_called() {
    let (mut story, shadow) = (Story::new(), App::start());
    story.is_reached(json!({ "plugins": {
        "fault-injection": { "abort": { "http_status": 418, "body": "on purpose", "vars": [[["arg_fault", "==", "yes"]]] } },
        "proxy-mirror": { "host": format!("http://{}", shadow.address) },
    } }));
    assert_eq!(story.ask("GET", "/a?fault=yes").status, 418);
    let left = (story.app.count("GET /a?fault=yes"), shadow.count("GET /a?fault=yes"));
    assert_eq!(left, (0, 0), "what is made to fail leaves the caller's side neither to the service nor as a copy");
    assert_eq!(story.ask("GET", "/copied").status, 200);
    until("the copy", || (shadow.count("GET /copied") == 1).then_some(()));
    assert_eq!(story.app.count("GET /copied"), 1, "the service itself gets one");
    // The fault needs no callee at all.
    story.api.process.kill();
    assert_eq!(story.ask("GET", "/b?fault=yes").text(), "on purpose");
}

#[test]
fn copies_go_to_a_service_of_the_mesh_as_its_other_callers_do() {
    let (story, shadow) = (Story::new(), App::start());
    // Strict: nothing reaches it but by mutual TLS.
    let mut copied = story.mesh.sidecar(&Service::http("shadow", shadow.address));
    story.is_reached(json!({ "mirror": { "service": "shadow" } }));
    assert_eq!(story.ask("GET", "/copied").text(), "ok");
    until("the copy", || (shadow.count("GET /copied") == 1).then_some(()));
    assert_eq!(story.app.count("GET /copied"), 1, "the service itself gets one");
    until("it to be counted", || (story.copies(&story.web, "sent") > 0).then_some(()));
    assert!(reason(&story.web, "overflow") == 0 && story.mesh.audit().contains("svc/shadow"));

    // Who gets copies says who may send them, and nobody else notices.
    story.mesh.policy("nobody", json!({ "service": "shadow", "action": "allow" }));
    until("the policy", || {
        assert_eq!(story.ask("GET", "/more").text(), "ok");
        (reason(&copied, "policy") > 0).then_some(())
    });
    let before = shadow.count("GET /refused");
    assert_eq!(story.ask("GET", "/refused").text(), "ok");
    assert_eq!(shadow.count("GET /refused"), before);
    copied.process.kill();
    let failed = story.copies(&story.web, "failed");
    until("copies to be lost", || {
        assert_eq!(story.ask("GET", "/alone").text(), "ok");
        (story.copies(&story.web, "failed") > failed).then_some(())
    });
}

#[test]
fn a_gateway_copies_into_the_mesh_by_an_upstream_that_leads_there() {
    let (story, shadow) = (Story::new(), App::start());
    let _copied = story.mesh.sidecar(&Service::http("shadow", shadow.address));
    let gateway = story.mesh.gateway();
    for service in ["api", "shadow"] {
        story.mesh.control.put(&format!("/upstreams/{service}"), json!({ "discovery_type": "mesh", "service_name": service }));
    }
    let mirror = json!({ "upstream_id": "shadow", "path": "/v2", "path_concat_mode": "prefix" });
    story.mesh.control.put("/routes/all", json!({ "uri": "/*", "plugins": { "proxy-mirror": mirror }, "upstream_id": "api" }));
    story.mesh.control.until_status("/ready", 200);
    let answer = client::send(story.mesh.control.http, "POST", "/paid", &[("X-A", "1")], b"").unwrap();
    assert_eq!(answer.status, 200);
    until("the copy", || (shadow.count("POST /v2/paid") == 1).then_some(()));
    assert_eq!(story.app.count("POST /paid"), 1);
    until("it to be counted", || (story.copies(&gateway, "sent") > 0).then_some(()));
}

#[test]
fn who_is_slow_is_given_up_by_the_caller_and_never_asked_twice() {
    let story = Story::new();
    story.is_reached(json!({ "timeout": { "connect": 5, "send": 5, "read": 0.5 } }));
    assert_eq!(story.ask("GET", "/hold").status, 504);
    let (asked, at_web) = (story.app.count("GET /hold"), reason(&story.web, "upstream_timeout"));
    assert!(at_web > 0, "the caller's sidecar gives up");
    assert_eq!(reason(&story.api, "upstream_timeout"), 0, "the callee's has no such limit");
    assert_eq!(story.ask("GET", "/hold").status, 504);
    assert_eq!(story.app.count("GET /hold"), asked + 1, "once more, and not tried again");
    assert_eq!(reason(&story.web, "upstream_timeout"), at_web + 1);
    // It is the time of an answer, not that of the service: others are served.
    assert_eq!(story.ask("GET", "/quick").status, 200);
}

#[test]
fn a_full_circuit_breaks_at_the_caller_and_closes_again() {
    let story = Story::new();
    story.is_reached(json!({ "circuit_breaker": { "max_requests": 1 } }));
    let mut held = Vec::new();
    until("the breaker", || {
        held.push(story.ask_aside("/hold"));
        let before = story.app.count("GET /over");
        until("the application to be busy", || (story.app.count("GET /hold") > 0).then_some(()));
        let refused = story.ask("GET", "/over").status == 503;
        assert!(!refused || story.app.count("GET /over") == before, "what is refused is not sent");
        refused.then_some(())
    });
    assert!(reason(&story.web, "overflow") > 0, "{}", story.web.metrics());
    assert_eq!(reason(&story.api, "overflow"), 0, "the callee's sidecar has refused nothing");
    story.app.let_go();
    until("room again", || {
        // Requests of before the breaker may still be on their way.
        story.app.let_go();
        (story.ask("GET", "/after").status == 200).then_some(())
    });
    let statuses: Vec<u16> = held.into_iter().map(|asked| asked.join().unwrap()).collect();
    assert!(statuses.contains(&200) && statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
}

#[test]
fn retries_end_with_their_budget_and_a_post_is_sent_once() {
    let story = Story::new();
    let retry = json!({ "attempts": 3, "statuses": [500], "budget_percent": 10, "budget_burst": 5 });
    story.is_reached(json!({ "plugins": { "retry": retry } }));
    let before = story.app.count("GET /fail");
    for _ in 0..60 {
        assert_eq!(story.ask("GET", "/fail").status, 500);
    }
    let tries = story.app.count("GET /fail") - before;
    // Six for sixty requests, and what was left of the burst.
    assert!((61..=60 + 6 + 5).contains(&tries), "{tries} tries of 60 requests");
    for _ in 0..5 {
        assert_eq!(story.ask("POST", "/fail").status, 500);
    }
    assert_eq!(story.app.count("POST /fail"), 5);
}

#[test]
fn an_application_is_told_which_try_it_sees_where_its_owner_wants_that() {
    let mesh = Mesh::start("");
    let app = Nginx::start("location / { return 503 'try <$http_x_envoy_attempt_count>'; }");
    let _api = mesh.sidecar(&Service::http("api", app.address));
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    let forged = [("X-Envoy-Attempt-Count", "99")];
    let ask = |method: &str, fields: &[(&str, &str)]| client::send(web.outbound[0], method, "/", fields, b"").unwrap().text();
    until("the service", || (ask("GET", &[]) == "try <>").then_some(()));
    let retry = json!({ "attempts": 3, "statuses": [503], "attempt_header": "X-Envoy-Attempt-Count" });
    mesh.control.put("/mesh_services/api", json!({ "plugins": { "retry": retry } }));
    until("the last of three tries", || (ask("GET", &[]) == "try <3>").then_some(()));
    assert_eq!(ask("GET", &forged), "try <3>", "whatever a client says");
    assert_eq!(ask("POST", &forged), "try <1>", "which is sent once");
}
