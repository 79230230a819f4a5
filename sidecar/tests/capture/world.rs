//! Two hosts, `pod` and `peer`, as network namespaces with a cable between them. It knows nothing of capture but where its tools run.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use heddle_sidecar::capture::Tools;

use crate::hands::Hands;

/// Sets worlds of one process apart.
static WORLDS: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Clone, Copy)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn pod(self) -> &'static str {
        match self {
            Family::V4 => "10.77.0.1",
            Family::V6 => "fd77::1",
        }
    }

    pub fn peer(self) -> &'static str {
        match self {
            Family::V4 => "10.77.0.2",
            Family::V6 => "fd77::2",
        }
    }

    pub fn loopback(self) -> &'static str {
        match self {
            Family::V4 => "127.0.0.1",
            Family::V6 => "::1",
        }
    }

    pub fn socket(self, address: &str, port: u16) -> String {
        match self {
            Family::V4 => format!("{address}:{port}"),
            Family::V6 => format!("[{address}]:{port}"),
        }
    }
}

pub struct World {
    pod: String,
    peer: String,
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        let name = format!("heddle-{}-{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        let world = World { pod: format!("{name}-pod"), peer: format!("{name}-peer"), folder: tempfile::tempdir().unwrap() };
        ip(&format!("netns add {}", world.pod));
        ip(&format!("netns add {}", world.peer));
        ip(&format!("link add eth0 netns {} type veth peer name eth0 netns {}", world.pod, world.peer));
        for (namespace, v4, v6) in [(&world.pod, "10.77.0.1", "fd77::1"), (&world.peer, "10.77.0.2", "fd77::2")] {
            for command in ["link set lo up", "link set eth0 up"] {
                ip(&format!("-n {namespace} {command}"));
            }
            ip(&format!("-n {namespace} address add {v4}/24 dev eth0"));
            ip(&format!("-n {namespace} address add {v6}/64 dev eth0 nodad"));
        }
        world
    }

    /// The tools of capture, at work in the pod.
    pub fn tools(&self) -> Tools {
        self.tools_as("")
    }

    /// The same, run by a command in front of them.
    pub fn tools_as(&self, by: &str) -> Tools {
        Tools { nft: self.script(by, "nft"), ip: self.script(by, "ip"), ipv6: true }
    }

    /// The same, where a line of a shell comes before each call of `nft`, with its arguments and in a folder of its own.
    pub fn tools_after(&self, shell: &str) -> Tools {
        let nft = self.folder.path().join("nft-after");
        let whole = format!("cd {}; {shell}\nexec ip netns exec {} nft \"$@\"", self.folder.path().display(), self.pod);
        executable(&nft, &whole);
        Tools { nft, ..self.tools() }
    }

    fn script(&self, by: &str, tool: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{tool}{}", by.len()));
        if !path.exists() {
            executable(&path, &format!("exec ip netns exec {} {by} {tool} \"$@\"", self.pod));
        }
        path
    }

    pub async fn pod_hands(&self) -> Hands {
        self.pod_hands_as("").await
    }

    /// The same, run by a command in front of them.
    pub async fn pod_hands_as(&self, by: &str) -> Hands {
        Hands::start(&self.pod, by).await
    }

    pub async fn peer_hands(&self) -> Hands {
        Hands::start(&self.peer, "").await
    }

    /// What the application in the pod, which is not root, is told by whoever answers at an address; nothing when nobody does.
    pub fn app_asks(&self, protocol: &str, to: &str) -> String {
        asks(&self.pod, protocol, to)
    }

    /// Whether it gets through to anybody at an address, which takes far less than a second.
    pub fn app_reaches(&self, to: &str) -> bool {
        let (host, port) = to.rsplit_once(':').unwrap();
        let text = format!("exec 3<>/dev/tcp/{}/{port}", host.trim_matches(['[', ']']));
        let mut app = Command::new("ip");
        app.args(["netns", "exec", &self.pod, "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        app.args(["timeout", "1", "bash", "-c", &text]).stderr(Stdio::null()).status().unwrap().success()
    }

    /// What somebody on the other host is told.
    pub fn peer_asks(&self, protocol: &str, to: &str) -> String {
        asks(&self.peer, protocol, to)
    }

    /// Gives the pod a way to everywhere, by the other host.
    pub fn open_ways_out(&self) {
        ip(&format!("-n {} route add default via 10.77.0.2", self.pod));
        ip(&format!("-n {} -6 route add default via fd77::2", self.pod));
    }

    /// Does something in the pod by `ip`.
    pub fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.pod));
    }

    /// Switches IPv6 off in the pod, for this interface or `all`.
    pub fn switch_ipv6_off(&self, interface: &str) {
        let shell = format!("echo 1 > /proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        let done = Command::new("ip").args(["netns", "exec", &self.pod, "sh", "-c", &shell]).status().unwrap();
        assert!(done.success(), "{shell}");
    }

    /// The number of the pod's network, by which whoever changes it has his turn.
    pub fn number(&self) -> String {
        let asked = output(Command::new("ip").args(["netns", "exec", &self.pod, "stat", "-L", "-c", "%i", "/proc/self/ns/net"]));
        asked.trim().to_owned()
    }

    /// Takes the cable away.
    pub fn unplug(&self) {
        ip(&format!("-n {} link del eth0", self.pod));
    }

    /// Somebody else's rules in the pod, as a script of nftables.
    pub fn foreign(&self, script: &str) {
        let mut nft =
            Command::new("ip").args(["netns", "exec", &self.pod, "nft", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{script}");
    }

    /// Waits until the firewall of the pod says this.
    pub async fn sees(&self, text: &str) {
        let seen = async {
            while !self.traces().contains(text) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), seen)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {text}"));
    }

    /// The sockets of the pod, but for those that only listen.
    pub fn sockets(&self) -> String {
        output(Command::new("ip").args([
            "netns",
            "exec",
            &self.pod,
            "sh",
            "-c",
            "tail -qn +2 /proc/net/tcp /proc/net/tcp6 | grep -v ' 0A '",
        ]))
    }

    /// All that capture could leave behind in the pod.
    pub fn traces(&self) -> String {
        let ask = |command: &str| output(Command::new("ip").args(["netns", "exec", &self.pod]).args(command.split(' ')));
        let commands =
            ["nft list ruleset", "ip -4 rule", "ip -6 rule", "ip -4 route show table all", "ip -6 route show table all"];
        // The kernel gives a link its own address when it likes to.
        commands.map(ask).concat().lines().filter(|line| !line.contains("fe80:")).map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for namespace in [&self.pod, &self.peer] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
        }
    }
}

fn executable(path: &Path, shell: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{shell}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn asks(namespace: &str, protocol: &str, to: &str) -> String {
    let (host, port) = to.rsplit_once(':').unwrap();
    let host = host.trim_matches(['[', ']']);
    let question = if protocol == "udp" { "echo question >&3; " } else { "" };
    let text = format!("exec 3<>/dev/{protocol}/{host}/{port}; {question}timeout 10 head -n 1 <&3");
    let other = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "timeout", "20", "bash", "-c", &text];
    output(Command::new("ip").args(["netns", "exec", namespace, "setpriv"]).args(other).stderr(Stdio::null())).trim().to_owned()
}

fn output(command: &mut Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("`ip` is missing: install iproute2, nftables and bash, as ./check does");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}these tests make network namespaces and must run as root");
    assert!(
        Path::new("/usr/sbin/nft").exists() || Path::new("/sbin/nft").exists(),
        "`nft` is missing: install nftables, as ./check does"
    );
}
