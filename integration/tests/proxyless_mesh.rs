//! Real grpcio without a proxy in a mesh of agents: its clients and servers prove who they are by identities of our authority, which an agent keeps in files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;

use heddle_integration::mesh::{Mesh, Service};
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_integration::proxyless::{Client, Program, server};
use serde_json::json;

/// A server that follows the control plane by itself.
fn follower(mesh: &Mesh, service: &str) -> (Program, Process, SocketAddr) {
    let address = mesh.control.place.address();
    let instance = json!({ "address": address.ip(), "port": address.port(), "protocol": "grpc" });
    let program = mesh.grpc_program(service, &json!({ "role": "sidecar", "instance": instance }));
    let process = server(&mesh.control.place, address, service, Some((&program.bootstrap, "mtls")));
    (program, process, address)
}

/// Where the control plane is found; all places of a story have one address.
fn named() -> String {
    format!(", names: [\"{}\"]", Place::new().ip)
}

fn until_code(client: &mut Client, code: &str) {
    until(code, || (client.call("Unary")["code"] == code).then_some(()));
}

#[test]
fn a_server_without_a_proxy_is_called_through_an_agent_and_asks_the_policies() {
    let mesh = Mesh::start(&named());
    let (program, _server, address) = follower(&mesh, "echo");
    let service = Service { calls: &["echo"], ..Service::http("web", mesh.control.place.address()) };
    let web = mesh.sidecar(&service);
    let mut through = Client::of(&web.outbound[0].to_string(), &program.bootstrap, "plain");
    through.until_says("Unary", "echo");
    let mut clear = Client::of(&address.to_string(), &program.bootstrap, "plain");
    assert_eq!(clear.call("Unary")["code"], "UNAVAILABLE", "nothing in clear");
    let only = |who: &str| json!({ "service": "echo", "action": "allow", "rules": [ { "from": [ { "identities": [who] } ] } ] });
    mesh.policy("only", only("nobody"));
    until_code(&mut through, "PERMISSION_DENIED");
    mesh.policy("only", only("web"));
    through.until_says("Unary", "echo");
}

#[test]
fn a_client_without_a_proxy_calls_services_by_their_names_in_the_mesh() {
    let mesh = Mesh::start(&format!("{}, svid_ttl: 10s", named()));
    let place = &mesh.control.place;
    let app = place.address();
    let _app = server(place, app, "shop", None);
    let _shop = mesh.sidecar(&Service { protocol: "grpc", ..Service::http("shop", app) });
    let (program, mut echo_server, address) = follower(&mesh, "echo");
    let caller = mesh.grpc_program("cron", &json!({ "role": "sidecar" }));
    let mut shop = Client::of("xds:///shop.default.mesh", &caller.bootstrap, "mtls");
    shop.until_says("Unary", "shop");
    let mut echo = Client::of("xds:///echo.default.mesh", &caller.bootstrap, "mtls");
    echo.until_says("Unary", "echo");
    mesh.policy("none", json!({ "service": "shop", "action": "allow" }));
    until_code(&mut shop, "PERMISSION_DENIED");
    mesh.policy("none", json!({ "service": "shop", "action": "allow", "rules": [ { "from": [ { "identities": ["cron"] } ] } ] }));
    shop.until_says("Unary", "shop");
    let renewals = || ["cron", "echo"].map(|who| mesh.audit().matches(&format!("svc/{who}")).count());
    let enough = renewals().map(|renewed| renewed + 3);
    until("three renewals, by which the first identities have expired", || {
        assert_eq!(echo.call("Unary")["saying"], "echo");
        assert_eq!(shop.call("Unary")["saying"], "shop");
        renewals().iter().zip(enough).all(|(now, enough)| *now >= enough).then_some(())
    });
    // Whoever comes now is shown the identity that the server has now, and who has been there all the time shows its own to a server that begins anew.
    Client::of("xds:///echo.default.mesh", &caller.bootstrap, "mtls").until_says("Unary", "echo");
    echo_server.kill();
    let _server = server(place, address, "echo again", Some((&program.bootstrap, "mtls")));
    echo.until_says("Unary", "echo again");
}
