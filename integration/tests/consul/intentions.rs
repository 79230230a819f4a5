//! Intentions of Consul, obeyed by sidecars: denied and allowed, the exact before the wildcard, kept while Consul is away.

use heddle_integration::client;
use heddle_integration::consul::Consul;
use heddle_integration::heddle::Setup;
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

fn intend(consul: &Consul, from: &str, to: &str, action: &str) -> String {
    let body = json!({ "SourceName": from, "DestinationName": to, "SourceType": "consul", "Action": action });
    let answer = consul.ask("POST", "/v1/connect/intentions", &body).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["ID"].as_str().unwrap().to_owned()
}

fn forget(consul: &Consul, id: &str) {
    assert_eq!(consul.ask("DELETE", &format!("/v1/connect/intentions/{id}"), &Value::Null).unwrap().status, 200);
}

fn until_answered(web: &Node, status: u16) {
    until(&format!("web to be answered {status}"), || {
        client::get(web.outbound[0], "/").ok().filter(|answer| answer.status == status)
    });
}

#[test]
fn sidecars_obey_intentions_and_keep_them_while_consul_is_away() {
    let mut consul = Consul::start();
    let more = format!("providers: {{ consul: {{ address: \"{}\", intentions: {{}} }} }}\n", consul.uri());
    let mesh = Mesh::with(Setup { more, ..Setup::default() }, "");
    let app = Nginx::saying("yes");
    let _api = mesh.sidecar(&Service::http("api", app.address));
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");

    let denied = intend(&consul, "web", "api", "deny");
    until_answered(&web, 403);
    let shown = mesh.control.admin("GET", "/authorization_policies/api.deny@consul", Value::Null);
    assert_eq!(shown.status, 200, "{}", shown.text());
    forget(&consul, &denied);
    until_answered(&web, 200);

    intend(&consul, "*", "*", "deny");
    until_answered(&web, 403);
    let allowed = intend(&consul, "web", "api", "allow");
    until_answered(&web, 200);
    forget(&consul, &allowed);
    until_answered(&web, 403);
    consul.process.kill();
    until("that Consul is away to be told", || {
        mesh.control.admin("GET", "/status", Value::Null).text().contains("is the agent running").then_some(())
    });
    assert_eq!(client::get(web.outbound[0], "/").unwrap().status, 403, "what was said last stays");
}
