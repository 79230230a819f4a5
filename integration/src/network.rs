//! Hosts as network namespaces around a router, each with an address of both families. It knows nothing of what runs on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Sets networks of one process apart.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// A router and its hosts; all of it goes with this.
pub struct Network {
    name: String,
    hosts: usize,
}

impl Network {
    /// A router with this many hosts: the router is `10.77.N.1` and `fd77:N::1` to host N, which is `.2` and `::2`.
    pub fn new(hosts: usize) -> Network {
        let network = Network { name: format!("hn{}-{}", std::process::id(), NETWORKS.fetch_add(1, Ordering::Relaxed)), hosts };
        run("ip", &["netns", "add", &network.router()]);
        run("ip", &["-n", &network.router(), "link", "set", "lo", "up"]);
        for key in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            let mut command = network.inside(&network.router(), "sysctl");
            assert!(command.args(["-q", "-w", key]).status().unwrap().success(), "{key}");
        }
        (0..hosts).for_each(|host| network.cable(host));
        network
    }

    /// The namespace of the router.
    pub fn router(&self) -> String {
        format!("{}-router", self.name)
    }

    /// The namespace of a host.
    pub fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// A command in a namespace; it becomes the program, so that its pid is that of the program.
    pub fn inside(&self, namespace: &str, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program.as_ref());
        command
    }

    fn cable(&self, host: usize) {
        let (router, own, link) = (self.router(), self.host(host), format!("host{host}"));
        run("ip", &["netns", "add", &own]);
        run("ip", &["link", "add", &link, "netns", &router, "type", "veth", "peer", "name", "eth0", "netns", &own]);
        run("ip", &["-n", &own, "link", "set", "lo", "up"]);
        for (namespace, device, last) in [(&router, link.as_str(), 1), (&own, "eth0", 2)] {
            run("ip", &["-n", namespace, "address", "add", &format!("10.77.{host}.{last}/24"), "dev", device]);
            run("ip", &["-n", namespace, "address", "add", &format!("fd77:{host}::{last}/64"), "dev", device, "nodad"]);
            run("ip", &["-n", namespace, "link", "set", device, "up"]);
        }
        run("ip", &["-n", &own, "route", "add", "default", "via", &format!("10.77.{host}.1")]);
        run("ip", &["-n", &own, "-6", "route", "add", "default", "via", &format!("fd77:{host}::1")]);
        // Names are asked for at the router, where nobody answers.
        std::fs::create_dir_all(resolver(&own)).unwrap();
        std::fs::write(resolver(&own).join("resolv.conf"), format!("nameserver 10.77.{host}.1\n")).unwrap();
    }
}

/// What `ip netns exec` puts over `/etc` in a namespace.
fn resolver(namespace: &str) -> PathBuf {
    Path::new("/etc/netns").join(namespace)
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in (0..self.hosts).map(|host| self.host(host)).chain([self.router()]) {
            let _ = Command::new("ip").args(["netns", "del", &namespace]).stderr(Stdio::null()).status();
            let _ = std::fs::remove_dir_all(resolver(&namespace));
        }
    }
}
