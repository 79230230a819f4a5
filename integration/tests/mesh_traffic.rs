//! What applications send through two sidecars besides plain requests, and how a service moves into the mesh while others still call it in clear.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use heddle_integration::client;
use heddle_integration::greeter::{echoes, greeted, greeter, says};
use heddle_integration::load::Load;
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::{PATIENCE, Process, until};
use heddle_integration::python;
use heddle_integration::traffic::Called;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// A sidecar of `web`, which calls this service.
fn caller(mesh: &Mesh, calls: &[&str]) -> Node {
    mesh.sidecar(&Service { calls, ..Service::http("web", mesh.control.place.address()) })
}

fn clear_report(node: &Node) -> Value {
    serde_json::from_slice(&client::get(node.admin, "/mesh/plaintext").unwrap().body).unwrap()
}

#[test]
fn a_service_moves_into_the_mesh_while_others_still_call_it_in_clear() {
    let mesh = Mesh::start("");
    let app = Nginx::start("location / { return 200 'called by <$http_x_forwarded_client_cert>'; }");
    // Its token is good once: it keeps its identity for the restart.
    let kept = "identity: { persist: true }\n";
    let mut api = mesh.sidecar(&Service { inbound: ", mode: permissive", more: kept, ..Service::http("api", app.address) });
    let in_clear = || client::get(api.inbound, "/");
    assert_eq!(in_clear().unwrap().text(), "called by <>");
    let port = app.address.port().to_string();
    assert_eq!(clear_report(&api)[&port]["connections"], 1);
    assert_eq!(clear_report(&api)[&port]["peers"][0]["address"], "127.0.0.1");

    let web = caller(&mesh, &["api"]);
    let seen = mesh.until_reached(&web, "/").text();
    assert!(seen.contains("URI=spiffe://story.example/ns/default/svc/web"), "{seen}");
    assert_eq!(in_clear().unwrap().text(), "called by <>", "both by one port");
    let before = clear_report(&api)[&port]["connections"].clone();
    for _ in 0..20 {
        assert_eq!(client::get(web.outbound[0], "/").unwrap().status, 200);
    }
    assert_eq!(clear_report(&api)[&port]["connections"], before, "who calls through the mesh is not in the report");

    // Before the last one has moved, the owner of a namespace can end it for all who are permissive in it.
    mesh.policy("members", json!({ "action": "allow", "rules": [ { "from": [ { "identities": ["*"] } ] } ] }));
    until("nobody in clear", || in_clear().ok().filter(|answer| answer.status == 403));
    assert_eq!(client::get(web.outbound[0], "/").unwrap().status, 200);
    assert_eq!(mesh.control.admin("DELETE", "/authorization_policies/members", Value::Null).status, 200);
    until("all again", || in_clear().ok().filter(|answer| answer.status == 200));

    let place = &mesh.control.place;
    let strict = std::fs::read_to_string(place.path("api.yaml")).unwrap().replace("mode: permissive", "mode: strict");
    place.write("api.yaml", &strict);
    api.restart();
    mesh.until_reached(&web, "/");
    let answered = client::get(api.inbound, "/").is_ok_and(|answer| answer.status != 0);
    assert!(!answered, "nobody in clear any more");
    assert_eq!(clear_report(&api), json!({}));
}

#[test]
fn one_resource_ends_permissiveness_under_traffic_and_another_one_brings_it_back() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let api = mesh.sidecar(&Service::http("api", app.address));
    let web = caller(&mesh, &["api"]);
    mesh.until_reached(&web, "/");
    let in_clear = || client::get(api.inbound, "/").is_ok_and(|answer| answer.status == 200);
    assert!(!in_clear(), "strict where nobody says anything");

    let say = |id: &str, peers: Value| mesh.control.put(&format!("/peer_authentications/{id}"), peers);
    say("all", json!({ "mode": "permissive" }));
    until("callers in clear", || in_clear().then_some(()));
    let members = Load::start(web.outbound[0], "/", 4);
    let mut stays = client::Conversation::open(api.inbound);
    assert_eq!(stays.ask("GET / HTTP/1.1\r\nHost: api\r\n\r\n").status, 200);
    let port = app.address.port().to_string();
    let counted = format!("heddle_mesh_plaintext_connections_total{{port=\"{port}\"}} 2\n");
    assert!(api.metrics().contains(&counted), "{}", api.metrics());

    say("api", json!({ "service": "api", "mode": "strict" }));
    assert!(stays.ends(), "what stood in clear is closed");
    assert!(!in_clear());
    say("api", json!({ "service": "api", "mode": "strict", "ports": { (port.as_str()): "permissive" } }));
    until("the port alone", || in_clear().then_some(()));
    assert_eq!(mesh.control.admin("DELETE", "/peer_authentications/api", Value::Null).status, 200);
    assert_eq!(mesh.control.admin("DELETE", "/peer_authentications/all", Value::Null).status, 200);
    until("strict again", || (!in_clear()).then_some(()));
    let tally = members.stop();
    assert!(tally.failures.is_empty() && tally.requests > 100, "{:#?}", tally.failures);

    let twice = json!({ "mode": "disable" });
    say("all", twice.clone());
    let refused = mesh.control.admin("PUT", "/peer_authentications/more", twice);
    assert!(refused.status == 400 && refused.text().contains("[all] speaks of namespace default already"), "{}", refused.text());
}

#[test]
fn probes_and_scrapers_in_clear_keep_their_paths_where_all_else_is_for_members() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let api = mesh.sidecar(&Service::http("api", app.address));
    let web = caller(&mesh, &["api"]);
    mesh.until_reached(&web, "/");
    mesh.control.put("/peer_authentications/api", json!({ "service": "api", "mode": "permissive" }));
    until("callers in clear", || client::get(api.inbound, "/").ok().filter(|answer| answer.status == 200));
    let but = |dry_run: bool| {
        let rule = json!({ "from": [ { "not_identities": ["*"] } ], "to": [ { "not_paths": ["/healthz", "/metrics"] } ] });
        mesh.policy("but", json!({ "service": "api", "action": "deny", "dry_run": dry_run, "rules": [rule] }));
    };
    but(true);
    until("what would be refused to be counted", || {
        assert_eq!(client::get(api.inbound, "/").unwrap().status, 200);
        api.metrics().contains("heddle_mesh_policy_would_refuse_total{policy=\"but\"}").then_some(())
    });
    but(false);
    until("strangers to be refused", || client::get(api.inbound, "/").ok().filter(|answer| answer.status == 403));
    for path in ["/healthz", "/metrics"] {
        assert_eq!(client::get(api.inbound, path).unwrap().status, 200, "{path}");
    }
    assert_eq!(client::get(api.inbound, "/metrics/../secret").unwrap().status, 403);
    assert_eq!(client::get(web.outbound[0], "/").unwrap().status, 200, "members are let in everywhere");
}

#[test]
fn a_service_is_called_in_clear_as_long_as_its_owner_says_so_and_no_request_fails_on_the_way_there_and_back() {
    let mesh = Mesh::start("");
    let app = Nginx::start("location / { return 200 'called by <$http_x_forwarded_client_cert>'; }");
    let api = mesh.sidecar(&Service::http("api", app.address));
    let web = caller(&mesh, &["api"]);
    let _gateway = mesh.gateway();
    mesh.control.put("/upstreams/api", json!({ "discovery_type": "mesh", "service_name": "api" }));
    mesh.control.put("/routes/all", json!({ "uri": "/*", "upstream_id": "api" }));
    mesh.until_reached(&web, "/");
    mesh.control.until_status("/", 200);
    let callers = [web.outbound[0], mesh.control.http];
    let say = |mode: &str| mesh.control.put("/peer_authentications/api", json!({ "service": "api", "mode": mode }));
    let strangers = |let_in: bool| {
        until("strangers", || (client::get(api.inbound, "/").is_ok_and(|answer| answer.status == 200) == let_in).then_some(()));
    };
    // As whom each of the callers comes: as itself, or as nobody.
    let come = |as_members: bool| {
        for (at, who) in callers.into_iter().zip(["svc/web>", "svc/gateway>"]) {
            let expected = if as_members { who } else { "<>" };
            until(expected, || {
                client::get(at, "/").ok().filter(|answer| answer.status == 200 && answer.text().ends_with(expected))
            });
        }
    };
    let told =
        |count: &str| web.metrics().contains(&format!("heddle_mesh_called_in_clear{{upstream=\"default/api\"}} {count}\n"));
    come(true);
    let loads = callers.map(|at| Load::start(at, "/", 4));
    for _ in 0..2 {
        say("permissive");
        strangers(true);
        come(true);
        assert!(!told("1"));
        say("disable");
        come(false);
        assert!(told("1"), "{}", web.metrics());
        assert!(web.process.output().contains("called in clear from now on"), "{}", web.process.output());
        say("permissive");
        come(true);
        say("strict");
        strangers(false);
        come(true);
    }
    for load in loads {
        let tally = load.stop();
        assert!(tally.failures.is_empty() && tally.requests > 100, "{} {:#?}", tally.requests, tally.failures);
    }
}

#[test]
fn servers_that_speak_first_are_heard_at_once_and_a_policy_ends_a_running_tunnel() {
    let mesh = Mesh::start("");
    let (mail, post) = (greeter(), greeter());
    let _mail = mesh.sidecar(&Service { protocol: "tcp", ..Service::http("mail", mail) });
    let _post = mesh.sidecar(&Service { protocol: "auto", ..Service::http("post", post) });
    let web = caller(&mesh, &["mail", "post"]);
    let mut auto = greeted(web.outbound[1]);
    echoes(&mut auto, b"EHLO a\r\n");
    let port = web.outbound[1].port();
    let counted = format!("heddle_mesh_outbound_protocol_detected_total{{port=\"{port}\",protocol=\"server_first\"}}");
    assert!(web.metrics().contains(&counted), "{}", web.metrics());
    let mut running = greeted(web.outbound[0]);
    echoes(&mut running, b"QUIT\r\n");

    mesh.policy("nobody", json!({ "service": "mail", "action": "allow" }));
    let ended = running.read(&mut [0; 16]);
    assert!(
        !matches!(ended, Ok(1..)) && !matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        "{ended:?}"
    );
    echoes(&mut auto, b"NOOP\r\n");
}

#[test]
fn what_an_application_speaks_is_found_out_at_each_of_its_ports_whatever_its_callers_speak() {
    let mesh = Mesh::start("");
    let (modern, plain, mail) =
        (Nginx::http2("location / { return 200 'asked in $server_protocol'; }"), Nginx::saying("plain"), greeter());
    let said = format!(
        ", ports: [ {{ port: 9090, address: \"{}\", protocol: auto }}, {{ port: 25, address: \"{mail}\", protocol: auto }} ]",
        plain.address
    );
    let api = mesh.sidecar(&Service { said: &said, protocol: "auto", ..Service::http("api", modern.address) });
    let web = caller(&mesh, &["api", "api, port: 9090", "api, port: 25"]);
    assert_eq!(mesh.until_reached(&web, "/").text(), "asked in HTTP/2.0", "whom HTTP/1 would not reach");
    let posted = client::send(web.outbound[0], "POST", "/", &[], b"once").unwrap();
    assert_eq!(posted.text(), "asked in HTTP/2.0");
    assert_eq!(until("the other port", || client::get(web.outbound[1], "/").ok().filter(|a| a.status == 200)).text(), "plain");
    echoes(&mut greeted(web.outbound[2]), b"EHLO a\r\n");
    for (port, protocol) in [(modern.address.port(), "http2"), (9090, "http1")] {
        let counted = format!("heddle_mesh_protocol_detected_total{{port=\"{port}\",protocol=\"{protocol}\"}} 1\n");
        assert!(api.metrics().contains(&counted), "{}", api.metrics());
    }
}

#[test]
fn each_port_of_a_service_leads_to_its_own_with_its_own_protocol() {
    let mesh = Mesh::in_one("");
    let (shop, office, mail) = (Nginx::saying("shop"), Nginx::saying("office"), greeter());
    let said = format!(
        ", ports: [ {{ port: 9090, address: \"{}\", protocol: http }}, {{ port: 25, address: \"{mail}\", protocol: tcp }} ]",
        office.address
    );
    let _api = mesh.sidecar(&Service { said: &said, ..Service::http("api", shop.address) });
    let web = caller(&mesh, &["api", "api, port: 9090", "api, port: 25"]);
    assert_eq!(mesh.until_reached(&web, "/").text(), "shop");
    let office_says = || client::get(web.outbound[1], "/");
    assert_eq!(until("the other port", || office_says().ok().filter(|answer| answer.status == 200)).text(), "office");
    let mut letter = greeted(web.outbound[2]);
    echoes(&mut letter, b"EHLO a\r\n");

    // A gateway names the port behind the service; who is outside chooses none.
    mesh.control
        .put("/routes/office", json!({ "uri": "/office", "upstream": { "discovery_type": "mesh", "service_name": "api:9090" } }));
    mesh.control.put("/routes/shop", json!({ "uri": "/shop", "upstream": { "discovery_type": "mesh", "service_name": "api" } }));
    let through = |path: &str| {
        let forged = [("X-Heddle-Port", "9090")];
        client::send(mesh.control.http, "GET", path, &forged, b"").ok().filter(|answer| answer.status == 200)
    };
    assert_eq!(until("the gateway", || through("/office")).text(), "office");
    assert_eq!(until("the gateway", || through("/shop")).text(), "shop");
    let bytes = mesh.control.place.address();
    let upstream = json!({ "discovery_type": "mesh", "service_name": "api:25" });
    mesh.control.put("/listeners/mail", json!({ "address": bytes.to_string(), "protocol": "tcp", "upstream": upstream }));
    let mut from_outside = greeted(bytes);
    echoes(&mut from_outside, b"EHLO b\r\n");

    let rule = json!({ "to": [ { "ports": [9090] } ] });
    mesh.policy("office", json!({ "service": "api", "action": "deny", "rules": [rule] }));
    until("the refusal", || office_says().ok().filter(|answer| answer.status == 403));
    assert_eq!(client::get(web.outbound[0], "/").unwrap().text(), "shop");
    echoes(&mut letter, b"QUIT\r\n");
}

#[test]
fn redis_is_reached_through_the_mesh() {
    let mesh = Mesh::start("");
    let place = &mesh.control.place;
    let address = place.address();
    let mut command = Command::new("redis-server");
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    command.args(["--bind", &ip, "--port", &port, "--save", "", "--appendonly", "no"]).current_dir(place.folder.path());
    let _redis = Process::start(command, place.path("redis.log"));
    until("redis", || TcpStream::connect(address).ok());
    let _cache = mesh.sidecar(&Service { protocol: "auto", ..Service::http("cache", address) });
    let web = caller(&mesh, &["cache"]);
    let mut stream = until("an answer of redis", || {
        let mut stream = TcpStream::connect(web.outbound[0]).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(b"PING\r\n").ok()?;
        let mut said = [0; 7];
        stream.read_exact(&mut said).ok()?;
        (&said == b"+PONG\r\n").then_some(stream)
    });
    says(&mut stream, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nvalue\r\n", b"+OK\r\n");
    says(&mut stream, b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"$5\r\nvalue\r\n");
}

#[test]
fn grpc_talks_both_ways_between_sidecars() {
    let mesh = Mesh::start("");
    let address = mesh.control.place.address();
    let mut command = python::script("server.py");
    command.arg(address.to_string());
    let server = Process::start(command, mesh.control.place.path("server.log"));
    until("the server", || server.output().contains("serving").then_some(()));
    let _echo = mesh.sidecar(&Service { protocol: "grpc", ..Service::http("echo", address) });
    let web = caller(&mesh, &["echo"]);
    let call = |kind: &str| {
        let mut command = python::script("client.py");
        let output = command.args([kind, &web.outbound[0].to_string()]).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    };
    until("the service", || (call("unary_error")["length"] == 100_000).then_some(()));
    assert_eq!(call("unary")["trailers"], json!({ "x-trailer": "last", "x-data-bin": "00ff" }));
    assert_eq!(call("talk"), json!({ "heard": 50, "last": "-94", "rest": 0, "code": "OK" }));
    assert_eq!(call("fail")["code"], "FAILED_PRECONDITION");
}

#[test]
fn a_websocket_passes_two_sidecars_and_ends_when_a_policy_forbids_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let mesh = Mesh::start("");
    let _chat = mesh.sidecar(&Service::http("chat", address));
    let web = caller(&mesh, &["chat"]);
    let url = format!("ws://{}/room", web.outbound[0]);
    let connected = until("the service", || runtime.block_on(tokio_tungstenite::connect_async(url.as_str())).ok());
    let mut socket = connected.0;
    runtime.block_on(async {
        for round in 0..50 {
            let message = Message::binary(vec![7; round * 1000]);
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
    });
    mesh.policy("room", json!({ "service": "chat", "action": "deny", "rules": [ { "to": [ { "paths": ["/room"] } ] } ] }));
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, socket.next()).await }).expect("it ends");
    assert!(!matches!(ended, Some(Ok(ref message)) if !message.is_close()), "{ended:?}");
}

#[test]
fn an_application_asks_for_its_identity_as_spiffe_says() {
    let mesh = Mesh::start("");
    let socket = mesh.control.place.path("workload.sock");
    let app = Nginx::saying("yes");
    let more = format!("identity: {{ workload_api: \"{}\" }}\n", socket.display());
    let _api = mesh.sidecar(&Service { more: &more, ..Service::http("api", app.address) });
    let told = until("the identity", || {
        let output = python::script("workload.py").arg(&socket).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).ok()
    });
    assert_eq!(told, json!({ "id": "spiffe://story.example/ns/default/svc/api", "chain": 1, "roots": 1 }));
}

#[test]
fn identities_outlive_an_absence_of_the_control_plane_as_long_as_two_fifths_of_their_life() {
    // Identities of five minutes and an absence of two, each divided by ten.
    let mut mesh = Mesh::start(", svid_ttl: 30s");
    let called = Called::start(&mesh);
    let mut traffic = called.traffic(4, Duration::ZERO);
    mesh.control.process.kill();
    std::thread::sleep(Duration::from_secs(12));
    mesh.control.start_again();
    let renewals = || mesh.audit().matches("svc/web").count();
    let enough = renewals() + 1;
    until("a renewal after its return", || (renewals() >= enough).then_some(()));
    traffic.goes_on(100);
    traffic.nothing_failed();
}

#[test]
fn a_split_by_version_leads_to_the_instances_that_say_so() {
    let mesh = Mesh::start("");
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    let versioned = |id: &str, said: &str, app: &Nginx| {
        let node = mesh.begin_sidecar(id, &Service { said, ..Service::http("api", app.address) });
        node.wait_ready();
        node
    };
    let (_one, _two) = (versioned("api-1", ", version: v1", &one), versioned("api-2", ", version: v2", &two));
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    let split = |weights: [u32; 2]| {
        json!({ "split": [
            { "subset": { "version": "v2" }, "match": [["http_x_canary", "==", "yes"]] },
            { "subset": { "version": "v1" }, "weight": weights[0] }, { "subset": { "version": "v2" }, "weight": weights[1] },
        ] })
    };
    let asked = |fields: &[(&str, &str)]| {
        client::send(web.outbound[0], "GET", "/", fields, b"").map(|answer| answer.text()).unwrap_or_default()
    };
    mesh.control.put("/mesh_services/api", split([1, 0]));
    until("v1 alone", || (0..10).all(|_| asked(&[]) == "one").then_some(()));
    until("the canary", || (asked(&[("X-Canary", "yes")]) == "two").then_some(()));
    mesh.control.put("/mesh_services/api", split([3, 1]));
    until("a quarter for v2", || {
        let told: Vec<String> = (0..40).map(|_| asked(&[])).collect();
        let second = told.iter().filter(|told| *told == "two").count();
        (told.iter().all(|told| told == "one" || told == "two") && (4..=18).contains(&second)).then_some(())
    });
    let shown = client::get(web.admin, "/endpoints").unwrap().text();
    assert!(shown.contains("mesh/default/api#version=v2"), "{shown}");
}
