//! Real Envoys and agents of ours in one mesh, in both directions, strict: each proves who it is by an identity of our authority.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_integration::client::{self, Answer, raw};
use heddle_integration::envoy::Way;
use heddle_integration::load::Load;
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// An application that tells who called it, and by which name.
fn telling() -> Nginx {
    Nginx::start("location / { return 200 '$http_x_forwarded_client_cert|$http_host|$http_x_heddle_case'; }")
}

fn caller(mesh: &Mesh, name: &str, calls: &[&str]) -> Node {
    mesh.sidecar(&Service { calls, ..Service::http(name, mesh.control.place.address()) })
}

fn until_ok(what: &str, at: SocketAddr) -> Answer {
    until(what, || client::get(at, "/hello").ok().filter(|answer| answer.status == 200))
}

fn until_status(what: &str, at: SocketAddr, status: u16) {
    until(what, || client::get(at, "/hello").ok().filter(|answer| answer.status == status).map(drop));
}

#[test]
fn an_agent_calls_a_service_beside_which_an_envoy_stands() {
    for way in [Way::DeltaAds, Way::SotwAds] {
        let mesh = Mesh::start("");
        let app = telling();
        let api = mesh.envoy_sidecar(way, "api", Some(app.address), &[]);
        let web = caller(&mesh, "web", &["api"]);
        let seen = until_ok("the service behind the Envoy", web.outbound[0]).text();
        assert!(seen.contains("URI=spiffe://story.example/ns/default/svc/web"), "{seen}");
        assert!(seen.contains("By=spiffe://story.example/ns/default/svc/api") && seen.ends_with('|'), "{seen}");
        let clear = raw(api.inbound, b"GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
        assert_eq!(clear, "", "nothing in clear, and nothing without a certificate");
        let spoofed = [("X-Forwarded-Client-Cert", "URI=spiffe://story.example/ns/default/svc/admin")];
        let seen = client::send(web.outbound[0], "GET", "/", &spoofed, b"").unwrap().text();
        assert!(!seen.contains("svc/admin"), "{seen}");
        let posted = client::send(web.outbound[0], "POST", "/", &[], &[b'x'; 100_000]).unwrap();
        assert_eq!(posted.status, 200);
    }
}

#[test]
fn an_application_beside_an_envoy_calls_a_service_beside_which_an_agent_stands() {
    for way in [Way::DeltaAds, Way::SotwAds] {
        let mesh = Mesh::start("");
        let app = telling();
        let _api = mesh.sidecar(&Service::http("api", app.address));
        let web = mesh.envoy_sidecar(way, "web", None, &["api"]);
        let seen = until_ok("the service behind the agent", web.outbound[0]).text();
        assert!(seen.contains("URI=spiffe://story.example/ns/default/svc/web"), "{seen}");
        assert!(seen.contains("|api.default.mesh|"), "who calls an address means the service: {seen}");
        mesh.control.put("/mesh_services/api", json!({ "protocol": "auto" }));
        until_status("what Envoy cannot carry", web.outbound[0], 503);
        let node = |list: &Value| list.as_array().unwrap().iter().find(|node| node["id"] == "web-envoy").cloned().unwrap();
        let told = node(&mesh.control.admin("GET", "/nodes", Value::Null).json());
        assert_eq!(told["withheld"][0]["resource"], "default/api", "{told}");
        assert_eq!(told["nacks"], json!([]), "{told}");
    }
}

#[test]
fn an_envoy_as_gateway_enters_the_mesh_with_its_own_identity() {
    let mesh = Mesh::start("");
    let (app, other) = (telling(), telling());
    let _api = mesh.sidecar(&Service::http("api", app.address));
    let _cart = mesh.envoy_sidecar(Way::DeltaAds, "cart", Some(other.address), &[]);
    let gateway = mesh.envoy_gateway(Way::DeltaAds);
    for service in ["api", "cart"] {
        mesh.control.put(&format!("/upstreams/{service}"), json!({ "discovery_type": "mesh", "service_name": service }));
        mesh.control.put(&format!("/routes/{service}"), json!({ "uri": format!("/{service}"), "upstream_id": service }));
    }
    gateway.envoy.until_live();
    for service in ["api", "cart"] {
        let seen = mesh.control.until_status(&format!("/{service}"), 200).text();
        assert!(seen.contains("URI=spiffe://story.example/ns/default/svc/gateway"), "{seen}");
    }
    let plain = heddle_integration::envoy::Envoy::follow(mesh.control.xds, "plain", Way::DeltaAds);
    let withheld = until("what it is not given", || {
        let nodes = mesh.control.admin("GET", "/nodes", Value::Null).json();
        let node = nodes.as_array()?.iter().find(|node| node["id"] == "plain")?.clone();
        Some(node["withheld"].clone()).filter(|withheld| withheld.as_array().is_some_and(|list| !list.is_empty()))
    });
    assert!(withheld.to_string().contains("of which this node has no identity"), "{withheld}");
    drop(plain);
}

#[test]
fn a_policy_decides_at_an_envoy_by_the_identity_of_the_caller() {
    let mesh = Mesh::start("");
    let app = telling();
    let _api = mesh.envoy_sidecar(Way::DeltaAds, "api", Some(app.address), &[]);
    let (web, cron) = (caller(&mesh, "web", &["api"]), mesh.envoy_sidecar(Way::DeltaAds, "cron", None, &["api"]));
    for at in [web.outbound[0], cron.outbound[0]] {
        until_ok("the service", at);
    }
    // Connections that are there are judged anew, too.
    let only = |who: &str| json!({ "service": "api", "action": "allow", "rules": [ { "from": [ { "identities": [who] } ] } ] });
    mesh.policy("only", only("web"));
    until_status("the refusal of another", cron.outbound[0], 403);
    assert_eq!(client::get(web.outbound[0], "/").unwrap().status, 200);
    mesh.policy("only", only("cron"));
    until_status("the other way round", web.outbound[0], 403);
    until_ok("the one that is allowed now", cron.outbound[0]);
    let deny = json!({ "service": "api", "action": "deny", "rules": [ { "to": [ { "paths": ["/admin/*"] } ] } ] });
    mesh.policy("paths", deny);
    until("a path that nobody may ask for", || {
        client::get(cron.outbound[0], "/admin/keys").ok().filter(|answer| answer.status == 403)
    });
    for hidden in ["//admin/keys", "/x%2F..%2Fadmin/keys", "/./admin/keys"] {
        assert_eq!(client::get(cron.outbound[0], hidden).unwrap().status, 403, "{hidden}");
    }
    assert_eq!(client::get(cron.outbound[0], "/hello").unwrap().status, 200);
    let tier =
        json!({ "service": "api", "action": "deny", "rules": [ { "to": [ { "headers": { "x-tier": ["gold", "sil*"] } } ] } ] });
    mesh.policy("tiers", tier);
    let told = |tier: &[u8]| {
        let head = [b"GET /hello HTTP/1.1\r\nHost: api\r\nConnection: close\r\nX-Tier: ", tier, b"\r\n\r\n"].concat();
        client::head(raw(cron.outbound[0], &head).as_bytes()).status
    };
    until("a field that nobody may say", || (told(b"gold") == 403).then_some(()));
    for hidden in [&b"\xff,gold"[..], b"a, gold,\xff", b"\xfe,silver"] {
        assert_eq!(told(hidden), 403, "no byte hides what stands beside it: {hidden:?}");
    }
    assert_eq!((told(b"bronze"), told(b"\xff"), told(b"golden")), (200, 200, 200));
}

#[test]
fn whoever_proves_to_be_another_service_gets_no_request() {
    let mesh = Mesh::start("");
    let (app, other) = (telling(), telling());
    let api = mesh.envoy_sidecar(Way::DeltaAds, "api", Some(app.address), &[]);
    let cart = mesh.sidecar(&Service::http("cart", other.address));
    // Both say that their instances are where those of others are.
    for (name, at) in [("ghost", api.inbound), ("spook", cart.inbound)] {
        let instance = json!({ "address": at.ip(), "port": at.port(), "protocol": "http" });
        let metadata = json!({ "role": "sidecar", "instance": instance });
        let liar = mesh.envoy_member(Way::DeltaAds, name, name, metadata, (at, Vec::new()));
        until("its instance", || {
            let told = mesh.control.admin("GET", &format!("/mesh/instances?service={name}"), Value::Null).text();
            told.contains(&at.port().to_string()).then_some(())
        });
        let (web, cron) = (format!("web-{name}"), format!("cron-{name}"));
        let (web, cron) =
            (caller(&mesh, &web, &[name, "api", "cart"]), mesh.envoy_sidecar(Way::DeltaAds, &cron, None, &[name, "api", "cart"]));
        for at in [&web.outbound, &cron.outbound] {
            until_ok("the honest Envoy", at[1]);
            until_ok("the honest agent", at[2]);
            assert!(client::get(at[0], "/hello").unwrap().status >= 502, "nobody proves to be {name}");
        }
        drop(liar);
    }
    let nobody = mesh.envoy_member(
        Way::DeltaAds,
        "thief",
        "thief",
        json!({ "role": "sidecar", "service": "api" }),
        (mesh.control.place.address(), Vec::new()),
    );
    until("the refusal in the audit", || mesh.audit().contains("thief claims to be").then_some(()));
    drop(nobody);
}

#[test]
fn identities_are_renewed_under_load_without_a_failure() {
    let mesh = Mesh::start(", svid_ttl: 10s");
    let (app, other) = (Nginx::saying("yes"), Nginx::saying("yes"));
    let api = mesh.envoy_sidecar(Way::DeltaAds, "api", Some(app.address), &["cart"]);
    let _cart = mesh.sidecar(&Service::http("cart", other.address));
    let web = caller(&mesh, "web", &["api"]);
    until_ok("the service behind the Envoy", web.outbound[0]);
    until_ok("the service behind the agent", api.outbound[0]);
    let loads = [Load::start(web.outbound[0], "/", 4), Load::start(api.outbound[0], "/", 4)];
    let renewals = |name: &str| mesh.audit().matches(name).count();
    let enough = ["svc/api", "svc/cart", "svc/web"].map(|name| (name, renewals(name) + 3));
    until("three renewals of each", || enough.iter().all(|(name, enough)| renewals(name) >= *enough).then_some(()));
    // The control plane still speaks with the Envoy, whose first certificate has expired long ago.
    mesh.policy("none", json!({ "service": "api", "action": "allow", "dry_run": true }));
    let tallies = loads.map(Load::stop);
    for tally in tallies {
        assert!(tally.failures.is_empty() && tally.requests > 100, "{:#?}", tally.failures);
    }
    mesh.policy("none", json!({ "service": "api", "action": "allow" }));
    until_status("a policy that came after the renewals", web.outbound[0], 403);
}
