//! An application and its agent as real processes: who is started, told and ended when, and with which status all of it ends. The agent is one of its own
//! that only keeps a diary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use heddle_node::notify::Notifier;
use heddle_sidecar::capture::{CaptureSettings, Tools};
use heddle_sidecar::wrapper::{ADMIN, Captured, Plan, Times, User, run};

/// How long anything may take before a story fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// How the child below is started.
const CHILD: [&str; 4] = ["--ignored", "--exact", "child", "--nocapture"];

/// Not a story of its own: the wrapper that the stories start, and the agent that the wrapper starts. A line of input makes it the wrapper, the socket of a
/// service manager the agent; without both it ends at once.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Ok(order) = serde_json::from_str(&line) {
        std::process::exit(runtime.block_on(wrap(&order)).into());
    }
    #[expect(clippy::disallowed_methods, reason = "as the agent's own main does it")]
    if let Ok(socket) = std::env::var("NOTIFY_SOCKET") {
        runtime.block_on(agent(&socket));
    }
}

async fn wrap(order: &serde_json::Value) -> u8 {
    let millis = |key: &str| Duration::from_millis(order[key].as_u64().unwrap());
    let agent = std::iter::once(std::env::current_exe().unwrap().into()).chain(CHILD.map(Into::into)).collect();
    let app = order["app"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().into()).collect();
    let settings = CaptureSettings { proxy_uid: Some(0), ..CaptureSettings::default() };
    let plan = Plan {
        agent,
        app,
        user: order["uid"].as_u64().map(|uid| User { uid: uid as u32, gid: uid as u32 }),
        capture: order["capture"].as_bool().unwrap().then(|| Captured { tools: Tools::of_system(), settings }),
        folder: order["folder"].as_str().unwrap().into(),
        times: Times { ready: millis("ready"), drain: millis("drain"), grace: millis("grace") },
        notifier: Notifier::new(order["notify"].as_str().map(str::to_owned)),
        terminal: false,
    };
    run(plan).await.unwrap()
}

/// Says that it is ready, takes a while to close what comes in, serves what goes out until the end; all of it in a diary.
async fn agent(socket: &str) {
    let folder = Path::new(socket).parent().unwrap().to_owned();
    if let Ok(status) = std::fs::read_to_string(folder.join("agent-ends-with")) {
        std::process::exit(status.trim().parse().unwrap());
    }
    let (admin, outbound) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    std::fs::write(folder.join("agent.pid"), std::process::id().to_string()).unwrap();
    std::fs::write(folder.join("outbound.port"), outbound.local_addr().unwrap().port().to_string()).unwrap();
    let address = admin.local_addr().unwrap();
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    note(&folder, "agent up");
    let (diary, slow) = (folder.clone(), folder.join("in-flight"));
    std::thread::spawn(move || {
        for mut asked in admin.incoming().flatten() {
            let mut head = [0; 512];
            let read = asked.read(&mut head).unwrap();
            assert!(head[..read].starts_with(b"POST /drain?inbound HTTP/1.1\r\n"));
            note(&diary, "agent drains");
            wait_until("the request in flight to end", || !slow.exists());
            note(&diary, "agent drained");
            asked.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    std::thread::spawn(move || outbound.incoming().flatten().for_each(|mut asked| asked.write_all(b"outbound works\n").unwrap()));
    if folder.join("doors").exists() {
        open_doors();
    }
    if !folder.join("never-ready").exists() {
        Notifier::new(Some(socket.to_owned())).say(&format!("READY=1\n{ADMIN}{address}"));
    }
    term.recv().await;
    note(&folder, "agent ends");
}

/// Those of captured connections, in and out, and questions: nobody is told that a name is there, with authority.
fn open_doors() {
    let inbound = TcpListener::bind("0.0.0.0:15006").unwrap();
    std::thread::spawn(move || inbound.incoming().for_each(drop));
    for ip in ["127.0.0.1", "[::1]"] {
        for port in [15001, 15053] {
            let door = TcpListener::bind(format!("{ip}:{port}")).unwrap();
            std::thread::spawn(move || door.incoming().for_each(drop));
        }
        let names = UdpSocket::bind(format!("{ip}:15053")).unwrap();
        std::thread::spawn(move || {
            let mut room = [0; 512];
            while let Ok((read, from)) = names.recv_from(&mut room) {
                room[2..4].copy_from_slice(&[0x85, 0x83]);
                let _ = names.send_to(&room[..read], from);
            }
        });
    }
}

fn note(folder: &Path, line: &str) {
    let mut diary = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("diary")).unwrap();
    diary.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = heddle_node::clock::wall();
    while !done() {
        assert!(start.elapsed().unwrap() < PATIENCE, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A wrapper about to be started, with its folder.
struct Story<'a> {
    folder: tempfile::TempDir,
    order: serde_json::Value,
    before: Vec<&'a str>,
}

struct Wrapper {
    process: Child,
    folder: PathBuf,
    _folder: tempfile::TempDir,
}

impl<'a> Story<'a> {
    /// The application is a script of bash, in which `note` writes to the diary.
    fn of(script: &str) -> Story<'a> {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display().to_string();
        let script = format!("cd {at}; note() {{ echo \"$*\" >> diary; }}; {script}");
        let order = serde_json::json!({
            "app": ["bash", "-c", script], "folder": at, "ready": 20_000, "drain": 20_000, "grace": 20_000, "capture": false,
        });
        Story { folder, order, before: Vec::new() }
    }

    fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Story<'a> {
        self.order[key] = value.into();
        self
    }

    fn file(self, name: &str, text: &str) -> Story<'a> {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn start(self) -> Wrapper {
        let exe = std::env::current_exe().unwrap();
        let mut words = self.before.iter().map(|word| (*word).to_owned()).chain([exe.display().to_string()]);
        let mut process = Command::new(words.next().unwrap())
            .args(words)
            .args(CHILD)
            .env("STORY", "told")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        process.stdin.take().unwrap().write_all(format!("{}\n", self.order).as_bytes()).unwrap();
        Wrapper { process, folder: self.folder.path().to_owned(), _folder: self.folder }
    }

    /// Runs it to its end: its status and the diary.
    fn told(self) -> (i32, String) {
        self.start().end()
    }
}

impl Wrapper {
    fn diary(&self) -> String {
        std::fs::read_to_string(self.folder.join("diary")).unwrap_or_default()
    }

    fn wait_for(&self, line: &str) {
        wait_until(line, || self.diary().lines().any(|found| found == line));
    }

    fn signal(&self, name: &str) {
        kill(name, &self.process.id().to_string());
    }

    fn end(mut self) -> (i32, String) {
        let mut status = None;
        wait_until("the wrapper to end", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap().code().expect("it ends by itself"), self.diary())
    }
}

impl Drop for Wrapper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn kill(signal: &str, pid: &str) {
    assert!(Command::new("kill").args([&format!("-{signal}"), pid]).status().unwrap().success());
}

/// Asks what goes out, in bash.
const ASK: &str = "note \"$(cat < /dev/tcp/127.0.0.1/$(cat outbound.port))\"";

#[test]
fn a_job_completes_with_its_status_and_its_agent_ends_with_it() {
    let (status, diary) = Story::of("note app has $STORY; exit 7").told();
    assert_eq!((status, diary.as_str()), (7, "agent up\napp has told\nagent ends\n"));
    assert_eq!(Story::of("kill -KILL $$").told().0, 137, "a signal is told as shells do");
}

#[test]
fn a_stop_finishes_what_came_in_then_stops_the_application_and_what_goes_out_works_to_the_last() {
    let script = format!("trap '{ASK}; note app ends; exit 5' TERM; note app up; while :; do sleep 0.02; done");
    let wrapper = Story::of(&script).file("in-flight", "").start();
    wrapper.wait_for("app up");
    wrapper.signal("TERM");
    wrapper.wait_for("agent drains");
    assert!(!wrapper.diary().contains("app ends"), "a request is in flight");
    std::fs::remove_file(wrapper.folder.join("in-flight")).unwrap();
    let (status, diary) = wrapper.end();
    assert_eq!(status, 5);
    assert_eq!(diary, "agent up\napp up\nagent drains\nagent drained\noutbound works\napp ends\nagent ends\n");
}

#[test]
fn requests_that_do_not_end_are_waited_for_no_longer_than_they_may() {
    let wrapper = Story::of("trap 'exit 4' TERM; note app up; while :; do sleep 0.02; done")
        .file("in-flight", "")
        .with("drain", 200)
        .start();
    wrapper.wait_for("app up");
    wrapper.signal("TERM");
    let (status, diary) = wrapper.end();
    assert_eq!((status, diary.as_str()), (4, "agent up\napp up\nagent drains\nagent ends\n"));
}

#[test]
fn an_agent_that_is_killed_comes_back_while_the_application_lives() {
    let script = "note app up; while [ \"$(grep -c 'agent up' diary)\" -lt 2 ]; do sleep 0.02; done; sleep 0.2; ";
    let wrapper = Story::of(&format!("{script}{ASK}; exit 3")).start();
    wrapper.wait_for("app up");
    kill("KILL", &std::fs::read_to_string(wrapper.folder.join("agent.pid")).unwrap());
    assert_eq!(wrapper.end(), (3, "agent up\napp up\nagent up\noutbound works\nagent ends\n".to_owned()));
}

#[test]
fn who_ignores_a_stop_is_killed_with_all_its_kind() {
    let script = "trap '' TERM; sleep 1000 & echo $! > kind.pid; note app up; while :; do sleep 0.02; done";
    let wrapper = Story::of(script).with("grace", 200).start();
    wrapper.wait_for("app up");
    let kind = std::fs::read_to_string(wrapper.folder.join("kind.pid")).unwrap();
    let status = format!("/proc/{}/status", kind.trim());
    wrapper.signal("TERM");
    assert_eq!(wrapper.end().0, 137);
    wait_until("the process group to be gone", || {
        std::fs::read_to_string(&status).map_or(true, |text| text.contains("State:\tZ"))
    });
}

#[test]
fn a_second_stop_waits_for_nothing() {
    let wrapper = Story::of("trap '' TERM; note app up; while :; do sleep 0.02; done").file("in-flight", "").start();
    wrapper.wait_for("app up");
    wrapper.signal("TERM");
    wrapper.wait_for("agent drains");
    wrapper.signal("TERM");
    let (status, diary) = wrapper.end();
    assert_eq!((status, diary.contains("agent ends")), (137, false), "neither is asked");
}

#[test]
fn other_signals_reach_the_application() {
    let script =
        "trap 'note usr1' USR1; trap 'note usr2' USR2; trap 'note hup; exit 6' HUP; note app up; while :; do sleep 0.02; done";
    let wrapper = Story::of(script).start();
    wrapper.wait_for("app up");
    for (signal, line) in [("USR1", "usr1"), ("USR2", "usr2")] {
        wrapper.signal(signal);
        wrapper.wait_for(line);
    }
    wrapper.signal("HUP");
    assert_eq!(wrapper.end().0, 6);
}

#[test]
fn without_an_agent_that_is_ready_no_application_is_started() {
    let (status, diary) = Story::of("note app up").file("never-ready", "").with("ready", 300).told();
    assert_eq!((status, diary.as_str()), (1, "agent up\nagent ends\n"));
    let (status, diary) = Story::of("note app up").file("agent-ends-with", "2").told();
    assert_eq!((status, diary.as_str()), (2, ""), "its configuration is wrong");
    let (status, _) = Story::of("").with("app", vec!["/nowhere/app"]).told();
    assert_eq!(status, 127);
}

#[test]
fn a_service_manager_is_told_when_the_application_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manager");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let wrapper =
        Story::of("trap 'exit 0' TERM; note app up; while :; do sleep 0.02; done").with("notify", path.to_str().unwrap()).start();
    let heard = || {
        let mut room = [0; 64];
        let read = manager.recv(&mut room).unwrap();
        String::from_utf8_lossy(&room[..read]).into_owned()
    };
    assert_eq!(heard(), "READY=1");
    // It runs; now it also hears.
    wrapper.wait_for("app up");
    wrapper.signal("TERM");
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(wrapper.end().0, 0);
}

#[test]
fn the_first_process_of_a_container_buries_orphans() {
    let script = "(sleep 0.1 &); sleep 0.6; note zombies: $(grep -l '^State:.Z' /proc/[0-9]*/status | wc -l)";
    let mut story = Story::of(script);
    story.before = vec!["unshare", "--pid", "--fork", "--mount-proc"];
    let (status, diary) = story.told();
    assert_eq!((status, diary.as_str()), (0, "agent up\nzombies: 0\nagent ends\n"), "needs root and unshare (util-linux)");
}

/// Runs a story with capture in a network of its own, after what a script makes of that; with what is in the firewall afterwards in the diary.
fn captured(script: &str, network: &str) -> (Option<i32>, String) {
    captured_by(Story::of(script).file("doors", ""), network)
}

fn captured_by(story: Story<'_>, network: &str) -> (Option<i32>, String) {
    let mut story = story.with("capture", true);
    let after =
        format!("ip link set lo up; {network}; \"$@\"; status=$?; echo after: $(nft list tables) >> \"$DIARY\"; exit $status");
    story.before = vec!["unshare", "-n", "sh", "-c", &after, "sh"];
    let diary = story.folder.path().join("diary");
    let exe = std::env::current_exe().unwrap();
    let mut process = Command::new(story.before[0])
        .args(&story.before[1..])
        .arg(exe)
        .args(CHILD)
        .env("DIARY", &diary)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(format!("{}\n", story.order).as_bytes()).unwrap();
    (process.wait().unwrap().code(), std::fs::read_to_string(diary).unwrap())
}

#[test]
fn capture_is_there_while_the_application_runs_and_gone_afterwards() {
    let (status, diary) = captured("note during: $(nft list tables); exit 9", "true");
    assert_eq!(status, Some(9), "needs root and nft (nftables)");
    assert_eq!(diary, "agent up\nduring: table inet heddle\nagent ends\nafter:\n");
}

#[test]
fn no_application_is_started_whose_traffic_is_seen_not_to_be_captured() {
    let theirs = "nft add table inet mine; nft add chain inet mine theirs '{ type filter hook output priority 0; }'; \
                  nft add rule inet mine theirs udp dport 15053 drop";
    let (status, diary) = captured("note app up", theirs);
    assert_eq!((status, diary.as_str()), (Some(1), "agent up\nagent ends\nafter: table inet mine\n"));
}

#[test]
fn no_application_is_started_beside_an_agent_that_takes_no_captured_connections() {
    let (status, diary) = captured_by(Story::of("note app up"), "true");
    assert_eq!((status, diary.as_str()), (Some(1), "agent up\nagent ends\nafter:\n"));
}

#[test]
fn who_is_told_to_stop_while_traffic_is_seen_not_to_be_captured_yet_takes_the_rules_back_and_starts_no_application() {
    // Nobody answers where questions by TCP should arrive, so that it takes seconds to see.
    let theirs = "nft add table inet mine; nft add chain inet mine theirs '{ type filter hook output priority 0; }'; \
                  nft add rule inet mine theirs tcp dport 15053 drop";
    // The agent's parent is the wrapper.
    let stop = "{ for _ in $(seq 1000); do nft list tables | grep -q 'inet heddle' && break; sleep 0.01; done; \
                kill -TERM $(cut -d' ' -f4 /proc/$(cat \"$(dirname \"$DIARY\")/agent.pid\")/stat); } &";
    let (status, diary) = captured("note app up", &format!("{theirs}; {stop} true"));
    assert_eq!((status, diary.as_str()), (Some(143), "agent up\nagent ends\nafter: table inet mine\n"));
}
