//! `heddle sidecar -- app` with a real agent and control plane: jobs complete, requests in flight are finished, an agent that dies comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use heddle_integration::client;
use heddle_integration::heddle::{Heddle, Setup, binary};
use heddle_integration::mesh::{Mesh, Service};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::{PATIENCE, Process, until};

/// A control plane, and `sidecar.yaml` for an agent of it.
fn control() -> Heddle {
    let control = Heddle::control_plane(Setup::default());
    let folder = control.place.folder.path().display();
    let text = format!(
        "node: {{ id: side-1, data_dir: \"{folder}/side\" }}\n\
         agent: {{ workers: 1, admin: \"{}\", drain_timeout: 20s }}\n\
         controlplane: {{ address: \"{}\" }}\n\
         access_log: {{ path: \"{folder}/access.log\" }}\n",
        control.agent, control.xds
    );
    control.place.write("sidecar.yaml", &text);
    control
}

/// Runs a script of bash beside an agent.
fn beside(control: &Heddle, script: &str) -> Process {
    let mut command = Command::new(binary());
    command.args(["sidecar", "-c", "sidecar.yaml", "--", "bash", "-c", script]).current_dir(control.place.folder.path());
    Process::start(command, control.place.path("sidecar.log"))
}

#[test]
fn a_job_completes_with_its_status() {
    let control = control();
    let ask = format!("read -r status < <(curl -s http://{}/ready); echo \"the agent is $status\"; exit 7", control.agent);
    let mut job = beside(&control, &ask);
    assert_eq!(job.wait().code(), Some(7), "{}", job.output());
    assert!(job.output().contains("the agent is ready"), "{}", job.output());
    assert!(client::get(control.agent, "/ready").is_err(), "its agent has gone with it");
}

#[test]
fn a_request_in_flight_is_finished_before_the_application_is_stopped() {
    let nginx =
        Nginx::start("location / { return 200 'ok'; } location /slow { limit_rate 32k; root .; try_files /slow.bin =404; }");
    nginx.write("slow.bin", &"s".repeat(64 * 1024));
    let control = control();
    control.route("slow", "/*", nginx.address);
    let mut app = beside(&control, "trap 'echo stopped; exit 5' TERM; echo up; while :; do sleep 0.02; done");
    control.until_status("/", 200);
    until("the application", || app.output().contains("up\n").then_some(()));
    let mut slow = TcpStream::connect_timeout(&control.http, PATIENCE).unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: test.example\r\n\r\n").unwrap();
    let mut answer = vec![0; 1024];
    let read = slow.read(&mut answer).unwrap();
    answer.truncate(read);
    app.signal("TERM");
    until("new connections to be refused", || client::get(control.http, "/").err());
    assert!(!app.output().contains("stopped"), "{}", app.output());
    let _ = slow.read_to_end(&mut answer);
    assert_eq!(client::parse(&answer).body.len(), 64 * 1024);
    assert_eq!(app.wait().code(), Some(5), "{}", app.output());
}

#[test]
fn an_agent_that_is_killed_comes_back() {
    let nginx = Nginx::saying("up");
    let control = control();
    control.route("all", "/*", nginx.address);
    let mut app = beside(&control, "trap 'exit 0' TERM; while :; do sleep 0.02; done");
    control.until_status("/", 200);
    let found = Command::new("pgrep").args(["-P", &app.pid().to_string(), "-f", "agent -c"]).output().unwrap();
    let agent = String::from_utf8(found.stdout).unwrap();
    assert!(Command::new("kill").args(["-KILL", agent.trim()]).status().unwrap().success());
    until("the agent to be gone", || client::get(control.http, "/").err());
    control.until_status("/", 200);
    assert!(app.is_running());
    app.signal("TERM");
    assert_eq!(app.wait().code(), Some(0), "{}", app.output());
}

/// What its application does when it is told to stop: it says so, waits until it may, and calls another service.
const LAST_CALL: &str = r#"
stop() {
    echo stopping
    read -r < "$1"
    echo "the other one said $(curl -s -m 10 "http://$2/last")"
    exit 4
}
trap 'stop "$0" "$1"' TERM
echo up
while :; do sleep 0.02; done
"#;

#[test]
fn an_application_that_stops_is_called_no_more_and_still_calls_others() {
    let mesh = Mesh::start("");
    let (page, store) = (Nginx::saying("page"), Nginx::saying("saved"));
    let _store = mesh.sidecar(&Service::http("store", store.address));
    let pipe = mesh.control.place.path("may-go-on");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let service = Service { calls: &["store"], ..Service::http("shop", page.address) };
    let mut shop = mesh.wrapped("shop", &service, |outbound| {
        ["bash", "-c", LAST_CALL]
            .map(str::to_owned)
            .into_iter()
            .chain([pipe.display().to_string(), outbound[0].to_string()])
            .collect()
    });
    until("the application", || shop.process.output().contains("up\n").then_some(()));
    let web = mesh.sidecar(&Service { calls: &["shop"], ..Service::http("web", mesh.control.place.address()) });
    assert_eq!(mesh.until_reached(&web, "/").text(), "page");
    assert_eq!(mesh.until_reached(&shop, "/").text(), "saved");

    shop.process.signal("TERM");
    // First nothing comes in any more, then the application is told.
    until("the application to be told", || shop.process.output().contains("stopping\n").then_some(()));
    assert!(TcpStream::connect_timeout(&shop.inbound, PATIENCE).is_err(), "its door is shut before it knows");
    let refused = client::get(web.outbound[0], "/").unwrap();
    assert!(refused.status == 503 || refused.status == 502, "{}", refused.status);
    // What it sends itself still goes, in the mesh, as itself, for as long as it takes to stop.
    assert_eq!(client::get(shop.outbound[0], "/").unwrap().text(), "saved");
    assert!(shop.process.is_running());
    std::fs::write(&pipe, "\n").unwrap();
    assert_eq!(shop.process.wait().code(), Some(4), "{}", shop.process.output());
    assert!(shop.process.output().contains("the other one said saved"), "{}", shop.process.output());
    assert!(client::get(shop.outbound[0], "/").is_err(), "what goes out ends last");
}
