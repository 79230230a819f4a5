//! Sidecars that are stopped, replaced and started again while others call through them: as an upgrade of a mesh goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Read;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use heddle_integration::client::{self, Conversation};
use heddle_integration::greeter::{echoes, greeted, greeter};
use heddle_integration::heddle::binary;
use heddle_integration::load::Load;
use heddle_integration::mesh::{Mesh, Node, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;

/// It keeps its identity: its join token is good once.
const KEPT: &str = "identity: { persist: true }\n";

/// Ends the load, of which at least so many requests were served.
fn nothing_failed(load: Load, caller: &Node, requests: u64) {
    let (tally, metrics) = (load.stop(), caller.metrics());
    let why: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("heddle_http_reasons_total") && !line.ends_with(" 0")).collect();
    assert!(
        tally.failures.is_empty() && tally.requests > requests,
        "{} requests: {:#?} {why:#?}",
        tally.requests,
        tally.failures
    );
}

#[test]
fn a_sidecar_is_replaced_in_place_on_either_side_and_no_request_fails() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let mut api = mesh.sidecar(&Service { more: KEPT, ..Service::http("api", app.address) });
    let mut web = mesh.sidecar(&Service { more: KEPT, calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    let load = Load::start(web.outbound[0], "/", 4);
    for _ in 0..3 {
        for node in [&mut api, &mut web] {
            // The next one opens the same sockets before the one before it lets go of them.
            let next = node.successor(&mesh);
            next.wait_ready();
            let mut before = std::mem::replace(node, next);
            assert_eq!(before.stop().code(), Some(0), "{}", before.process.output());
            let done = load.requests() + 50;
            until("requests through the new one", || (load.requests() > done).then_some(()));
        }
    }
    nothing_failed(load, &web, 300);
}

/// The application beside a sidecar speaks from the same host, and may be made to ask for anything.
#[test]
fn a_sidecar_drains_for_those_who_may_read_its_folder_and_not_for_its_application() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let api = mesh.sidecar(&Service::http("api", app.address));
    let asked = |fields: &[(&str, &str)]| client::send(api.admin, "POST", "/drain?inbound", fields, b"").unwrap();
    for fields in [&[][..], &[("X-Heddle-Token", "")], &[("X-Heddle-Token", &"0".repeat(64))]] {
        let answer = asked(fields);
        assert_eq!(answer.status, 403, "{fields:?}");
        assert!(answer.text().contains("heddle drain --data-dir"), "{}", answer.text());
    }
    api.wait_ready();
    let folder = mesh.control.place.path("api-data");
    let file = folder.join("admin.token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let drain = |data_dir: &std::path::Path| {
        let mut command = std::process::Command::new(binary());
        command.args(["drain", "--inbound", "--agent", &api.admin.to_string(), "--data-dir"]).arg(data_dir).output().unwrap()
    };
    let refused = drain(&mesh.control.place.path("elsewhere"));
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && told.contains("refuses to drain: 403") && told.contains("elsewhere"), "{told}");
    api.wait_ready();

    let drained = drain(&folder);
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    assert_eq!(client::get(api.admin, "/ready").unwrap().status, 503);
    let token = std::fs::read_to_string(&file).unwrap();
    assert_eq!(asked(&[("X-Heddle-Token", token.trim())]).status, 200, "again, by hand");
}

/// As a supervisor does that starts the next process before the one before it has gone.
#[test]
fn a_process_that_goes_takes_nothing_from_the_one_that_has_taken_its_place_under_its_name() {
    let mesh = Mesh::start("");
    let app = Nginx::saying("yes");
    let mut api = mesh.sidecar(&Service { more: KEPT, ..Service::http("api", app.address) });
    let web = mesh.sidecar(&Service { calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    let load = Load::start(web.outbound[0], "/", 4);
    for _ in 0..2 {
        let next = api.twin(&mesh);
        next.wait_ready();
        let mut before = std::mem::replace(&mut api, next);
        assert_eq!(before.stop().code(), Some(0), "{}", before.process.output());
        // Longer than an instance is kept that was lost.
        let (gone, done) = (Instant::now(), load.requests());
        let long_after = || gone.elapsed() > Duration::from_secs(3) && load.requests() > done + 50;
        until("requests long after the old one has gone", || long_after().then_some(()));
    }
    nothing_failed(load, &web, 300);
}

/// As a rolling restart goes: whoever is stopped leaves by itself, and is back at its address with what it has on disk.
#[test]
fn instances_are_stopped_and_started_again_one_by_one_and_no_request_fails() {
    let mesh = Mesh::start("");
    let texts = ["one", "two", "three"];
    let apps = texts.map(Nginx::saying);
    let begin = |(text, app): (&str, &Nginx)| {
        mesh.begin_sidecar(&format!("api-{text}"), &Service { more: KEPT, ..Service::http("api", app.address) })
    };
    let mut instances: Vec<Node> = texts.into_iter().zip(&apps).map(begin).collect();
    instances.iter().for_each(Node::wait_ready);
    let web = mesh.sidecar(&Service { more: KEPT, calls: &["api"], ..Service::http("web", mesh.control.place.address()) });
    mesh.until_reached(&web, "/");
    let loads = [Load::start(web.outbound[0], "/", 4), Load::posting(web.outbound[0], "/", 4)];
    for _ in 0..4 {
        for (instance, text) in instances.iter_mut().zip(texts) {
            assert_eq!(instance.stop().code(), Some(0), "{}", instance.process.output());
            instance.start();
            instance.wait_ready();
            let back = Instant::now();
            until("it to be called again", || client::get(web.outbound[0], "/").ok().filter(|answer| answer.text() == text));
            assert!(back.elapsed() < Duration::from_secs(5), "{text} is called again after {:?}", back.elapsed());
        }
    }
    for load in loads {
        nothing_failed(load, &web, 300);
    }
}

#[test]
fn a_tunnel_has_its_drain_time_and_ends_with_it() {
    let mesh = Mesh::start("");
    let app = greeter();
    let drain = ", drain_timeout: 6s";
    let begin = |id: &str| mesh.begin_sidecar(id, &Service { protocol: "tcp", agent: drain, ..Service::http("mail", app) });
    let mut first = begin("mail-1");
    first.wait_ready();
    let web = mesh.sidecar(&Service { calls: &["mail"], ..Service::http("web", mesh.control.place.address()) });
    let [mut long, mut short] = [(); 2].map(|()| greeted(web.outbound[0]));
    let second = begin("mail-2");
    second.wait_ready();

    let stopped = Instant::now();
    first.process.signal("TERM");
    until("the drain", || client::get(first.admin, "/ready").ok().filter(|answer| answer.status == 503));
    echoes(&mut long, b"more");
    echoes(&mut short, b"last");
    drop(short);
    // Whoever comes once that is known is led to the instance that stays.
    let gone = |page: &client::Answer| !page.text().contains(&first.inbound.to_string());
    until("the caller to know of it", || client::get(web.admin, "/endpoints").ok().filter(gone));
    let mut new = greeted(web.outbound[0]);
    echoes(&mut new, b"new\n");
    let mut rounds = 0;
    while stopped.elapsed() < Duration::from_secs(4) {
        echoes(&mut long, b"stay");
        rounds += 1;
    }
    assert!(rounds > 10 && first.process.is_running(), "it goes on as long as the drain does");
    let ended = long.read(&mut [0; 16]);
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    assert!(stopped.elapsed() >= Duration::from_secs(5), "not before its time: {:?}", stopped.elapsed());
    assert_eq!(first.process.wait().code(), Some(0), "{}", first.process.output());
    echoes(&mut new, b"here");
}

#[test]
fn a_sidecar_that_starts_without_a_control_plane_serves_the_services_that_it_called_and_knows_no_others() {
    let mut mesh = Mesh::start("");
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    let _one = mesh.sidecar(&Service { more: KEPT, ..Service::http("one", one.address) });
    let _two = mesh.sidecar(&Service { more: KEPT, ..Service::http("two", two.address) });
    let mut web =
        mesh.sidecar(&Service { more: KEPT, calls: &["one", "two"], ..Service::http("web", mesh.control.place.address()) });
    assert_eq!(mesh.until_reached(&web, "/").text(), "one");
    let held = |web: &Node| {
        let dump: serde_json::Value = serde_json::from_slice(&client::get(web.admin, "/config_dump").unwrap().body).unwrap();
        let services = dump["mesh_services"].as_array().cloned().unwrap_or_default();
        services.iter().map(|service| service["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(held(&web), ["default/one"], "a service that nobody has called costs nothing");
    mesh.until_kept(&web, &["mesh/default/one"]);
    mesh.control.process.kill();
    web.restart();
    assert_eq!(client::get(web.outbound[0], "/").unwrap().text(), "one");
    assert_eq!(held(&web), ["default/one"]);
    assert_eq!(client::get(web.outbound[1], "/").unwrap().status, 503, "nobody can say where the other one is");
    mesh.control.start_again();
    until("the other one", || client::get(web.outbound[1], "/").ok().filter(|answer| answer.text() == "two"));
}

/// How long a tunnel of the proxy to `host` takes to begin.
fn begins(proxy: SocketAddr, host: &str, port: u16) -> Duration {
    let asked = Instant::now();
    let answer = Conversation::open(proxy).ask(&format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"));
    assert_eq!(answer.status, 200, "{host}: {}", answer.text());
    asked.elapsed()
}

#[test]
fn who_is_no_service_is_reached_without_a_wait_while_there_is_no_control_plane() {
    let mut mesh = Mesh::start("");
    let one = Nginx::saying("one");
    let _one = mesh.sidecar(&Service { more: KEPT, ..Service::http("one", one.address) });
    let (proxy, own) = (mesh.control.place.address(), mesh.control.place.address());
    let outbound = format!(", http_proxy: \"{proxy}\"");
    let mut web = mesh.sidecar(&Service { more: KEPT, calls: &["one", "two"], outbound: &outbound, ..Service::http("web", own) });
    mesh.until_reached(&web, "/");
    mesh.until_kept(&web, &["mesh/default/one"]);
    mesh.control.process.kill();
    web.restart();

    // The name of this host is one label: for all that can be seen, a service may be called so.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_ascii_lowercase();
    let address = (name.as_str(), 0).to_socket_addrs().unwrap().next().expect("this host knows its own name").ip();
    let outside = TcpListener::bind((address, 0)).unwrap();
    let port = outside.local_addr().unwrap().port();
    let first = begins(proxy, &name, port);
    assert!(first < Duration::from_millis(3500), "it waits for the control plane once, not at each step: {first:?}");
    let second = begins(proxy, &name, port);
    assert!(second < Duration::from_secs(1), "nobody waits any more for one that has been away for so long: {second:?}");
    for known in [outside.local_addr().unwrap().ip().to_string().as_str(), "localhost"] {
        let bound = TcpListener::bind((known, 0)).unwrap();
        let took = begins(proxy, known, bound.local_addr().unwrap().port());
        assert!(took < Duration::from_secs(1), "{known} is no name of a service: {took:?}");
    }

    let asked = Instant::now();
    assert_eq!(client::get(web.outbound[1], "/").unwrap().status, 503, "where the other one is cannot be known");
    let took = asked.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(3500), "nor is that waited for twice: {took:?}");
    mesh.control.start_again();
    let two = Nginx::saying("two");
    let _two = mesh.sidecar(&Service::http("two", two.address));
    until("the other one", || client::get(web.outbound[1], "/").ok().filter(|answer| answer.text() == "two"));
}
