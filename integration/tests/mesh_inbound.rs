//! What the owner of a service lets run between its sidecars and its applications, where who calls is known because it is proven.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use heddle_integration::client::{self, Answer};
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

/// A sidecar of this name, which calls `api`.
fn caller(mesh: &Mesh, name: &str) -> Node {
    let node = mesh.sidecar(&Service { calls: &["api"], ..Service::http(name, mesh.control.place.address()) });
    mesh.until_reached(&node, "/");
    node
}

fn ask(node: &Node, fields: &[(&str, &str)]) -> Answer {
    client::send(node.outbound[0], "GET", "/", fields, b"").unwrap()
}

#[test]
fn callers_are_counted_by_who_they_have_proven_to_be_and_nobody_counts_as_another() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let api = mesh.sidecar(&Service::http("api", app.address));
    let (web, cart) = (caller(&mesh, "web"), caller(&mesh, "cart"));
    let limit = json!({ "count": 3, "time_window": 3600, "key": "mesh_peer", "rejected_code": 429 });
    let answered = json!({ "headers": { "set": { "X-Called-By": "$mesh_peer_service", "X-From": "$mesh_peer_namespace" } } });
    mesh.control.put("/mesh_services/api", json!({ "inbound_plugins": { "limit-count": limit, "response-rewrite": answered } }));
    let last = until("web to have had its share", || Some(ask(&web, &[])).filter(|answer| answer.status == 429));
    assert_eq!((last.field("x-called-by"), last.field("x-from")), (Some("web"), Some("default")));
    let cart_id = "spiffe://story.example/ns/default/svc/cart";
    let forwarded = format!("URI={cart_id}");
    let said: [&[(&str, &str)]; 3] = [
        &[("X-Forwarded-Client-Cert", &forwarded)],
        &[("mesh_peer", cart_id), ("mesh-peer", cart_id)],
        &[("Cookie", "mesh_peer=x")],
    ];
    for fields in said {
        let answer = ask(&web, fields);
        assert_eq!((answer.status, answer.field("x-called-by")), (429, Some("web")), "{fields:?}");
    }
    let shares: Vec<u16> = (0..4).map(|_| ask(&cart, &[]).status).collect();
    assert_eq!(shares, [200, 200, 200, 429], "another caller has a share of its own");
    assert!(
        !client::get(web.admin, "/config_dump").unwrap().text().contains("limit-count"),
        "it is told to the sidecars of api alone"
    );
    assert!(client::get(api.admin, "/config_dump").unwrap().text().contains("limit-count"));
    // An owner who takes it back takes it back at once.
    mesh.control.put("/mesh_services/api", json!({}));
    until("no limit", || Some(ask(&web, &[])).filter(|answer| answer.status == 200 && answer.field("x-called-by").is_none()));
}

#[test]
fn expressions_over_who_calls_decide_and_what_they_do_is_counted_at_the_callee() {
    let mesh = Mesh::start("");
    let (app, shadow) = (Nginx::saying("yes"), Nginx::saying("copy"));
    let api = mesh.sidecar(&Service::http("api", app.address));
    let (web, cart) = (caller(&mesh, "web"), caller(&mesh, "cart"));
    let refused =
        json!([{ "case": [["mesh_peer_service", "!", "in", ["cart", "gateway"]]], "actions": [["return", { "code": 403 }]] }]);
    mesh.control.put(
        "/mesh_services/api",
        json!({ "inbound_plugins": { "workflow": { "rules": refused }, "proxy-mirror": { "host": format!("http://{}", shadow.address) } } }),
    );
    until("web to be refused", || Some(ask(&web, &[])).filter(|answer| answer.status == 403));
    assert_eq!(ask(&web, &[("X-Forwarded-Client-Cert", "URI=spiffe://story.example/ns/default/svc/cart")]).status, 403);
    assert_eq!(ask(&cart, &[]).text(), "yes");
    let line = "heddle_plugin_events_total{plugin=\"proxy-mirror\",origin=\"mesh_service/api\",event=\"sent\"} 1";
    until("the copy to be counted", || api.metrics().contains(line).then_some(()));
    let wrong = json!({ "protocol": "tcp", "inbound_plugins": { "limit-count": { "count": 1, "time_window": 1 }, "failover": { "upstream_id": "u" } } });
    let answer = mesh.control.admin("PUT", "/mesh_services/api", wrong);
    assert!(answer.status == 400 && answer.text().contains("inbound_plugins"), "{}", answer.text());
    let unknown = mesh.control.admin("PUT", "/mesh_services/api", json!({ "inbound_plugins": { "limit-cont": {} } }));
    assert!(
        unknown.text().contains("inbound_plugins.limit-cont") || unknown.text().contains("unknown plugin [limit-cont]"),
        "{}",
        unknown.text()
    );
}

/// An application that tells with what its connections begin, and answers nothing.
fn listening() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, (tell, told)) = (listener.local_addr().unwrap(), channel());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut bytes = vec![0; 16];
                if let Ok(read @ 1..) = stream.read(&mut bytes) {
                    bytes.truncate(read);
                    let _ = tell.send(bytes);
                }
                std::io::copy(&mut stream, &mut std::io::sink())
            });
        }
    });
    (address, told)
}

#[test]
fn bytes_that_nobody_looks_into_get_past_no_plugins() {
    let mesh = Mesh::start("");
    let (app, told) = listening();
    let api = mesh.sidecar(&Service { protocol: "auto", ..Service::http("api", app) });
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    let send = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(web.outbound[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let _open = until("bytes to arrive", || {
        let stream = send(b"\x01first");
        told.recv_timeout(Duration::from_secs(1)).ok().filter(|bytes| bytes == b"\x01first").map(|_| stream)
    });
    mesh.control.put("/mesh_services/api", json!({ "inbound_plugins": { "limit-count": { "count": 1, "time_window": 60 } } }));
    let tables = || serde_json::from_slice::<Value>(&client::get(api.admin, "/config_dump").unwrap().body).unwrap();
    until("the sidecar to be told", || tables()["mesh_inbound"].as_array().filter(|told| !told.is_empty()).map(|_| ()));
    while told.try_recv().is_ok() {}
    let ended = send(b"\x01second").read(&mut [0; 16]);
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    assert!(told.try_recv().is_err(), "nothing of it has reached the application");
}
