//! `heddle sidecar -- app` with a real agent and control plane: jobs complete, requests in flight are finished, an agent that dies comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use heddle_integration::client;
use heddle_integration::heddle::{Heddle, Setup, binary};
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
