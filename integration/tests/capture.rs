//! Applications that know nothing of the mesh, on hosts of their own: capture turns what they send to their sidecars, and only what those make of it travels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

use heddle_integration::heddle::{KEY, binary};
use heddle_integration::network::Network;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use heddle_integration::python;
use serde_json::{Value, json};

const WEB: usize = 0;
const API: usize = 1;
const DB: usize = 2;
/// What is said in secret, and what is said where nothing is captured.
const SECRET: &str = "the-secret-of-the-shop";
const OPEN: &str = "what-all-may-hear";

/// Hosts with an application and a sidecar each, and a router with the control plane, which sees all that travels.
struct World {
    network: Network,
    place: Place,
    sidecars: Vec<Option<Process>>,
    others: Vec<Process>,
}

impl World {
    /// A router and hosts on which nothing runs yet; the control plane has these resources.
    fn empty(hosts: usize, resources: &str) -> World {
        let mut world = World { network: Network::new(hosts), place: Place::new(), sidecars: Vec::new(), others: Vec::new() };
        let router = world.network.router();
        let text = format!(
            "node: {{ id: cp-1, data_dir: \"cp\" }}\nxds: {{ address: \"0.0.0.0:18000\", allow_plaintext: true }}\n\
             admin: {{ address: \"127.0.0.1:9180\", keys: [ {{ name: story, key: \"{KEY}\", role: admin }} ] }}\n\
             identity: {{ trust_domain: story.example }}\nproviders: {{ file: {{ path: resources.yaml }} }}\n\
             listeners: [ {{ name: http, address: \"0.0.0.0:9080\", protocol: http }} ]\n"
        );
        world.place.write("cp.yaml", &text);
        world.place.write("resources.yaml", resources);
        world.keep(&router, "cp", &["controlplane", "-c", "cp.yaml"]);
        let exported = until("the roots", || Some(world.cli(&["ca", "export"])).filter(|output| output.status.success()));
        world.place.write("root.pem", &String::from_utf8_lossy(&exported.stdout));
        let mut sniffer = world.network.inside(&router, python::interpreter());
        sniffer.arg(python::path("sniff.py")).arg(world.place.path("wire"));
        world.listening(sniffer, "sniffer");
        world
    }

    /// A web server that calls another one, which calls a database.
    fn start(mode: &str) -> World {
        let resources = "mesh_services: [ { id: api, protocol: http, ports: [8080] },\n\
             { id: db, addresses: [10.99.0.5, \"fd99::5\"], ports: [5432] } ]";
        let mut world = World::empty(3, resources);
        let api = world.network.host(API);
        world.keep(&api, "echo", &["echo", "0.0.0.0:8080", "0.0.0.0:9999"]);
        let mut db = world.network.inside(&world.network.host(DB), python::interpreter());
        db.arg(python::path("greeter.py")).args(["serve", "0.0.0.0", "5432"]);
        world.listening(db, "db");
        let services = [
            (WEB, "web", "name: web"),
            (API, "api", "name: api, address: \"127.0.0.1:8080\", protocol: http"),
            (DB, "db", "name: db, address: \"127.0.0.1:5432\", protocol: tcp"),
        ];
        world.join(&services, mode);
        world
    }

    /// Puts sidecars onto hosts, in their order, and turns to them what goes in and out.
    fn join(&mut self, services: &[(usize, &str, &str)], mode: &str) {
        for (host, name, service) in services {
            self.configure(*host, name, service, mode);
            let sidecar = self.sidecar(*host);
            self.sidecars.push(Some(sidecar));
        }
        for (host, ..) in services {
            self.until_ready(*host);
            self.capture(*host, "apply");
        }
    }

    /// Writes down what a sidecar is told. It runs as the same user as its application: what it sends is known by its mark.
    fn configure(&self, host: usize, name: &str, service: &str, mode: &str) {
        self.token(host, name);
        let text = format!(
            "node: {{ id: {name}-1, data_dir: \"data-{host}\" }}\nrole: sidecar\nservice: {{ {service} }}\n\
             agent: {{ workers: 1, admin: \"127.0.0.1:15000\", drain_timeout: 1s, drain_delay: 0s }}\n\
             controlplane: {{ address: \"https://10.77.{host}.1:18000\", token_file: \"{host}.token\", bundle: root.pem }}\n\
             identity: {{ persist: true }}\noutbound: {{ capture: {mode} }}\n\
             capture: {{ proxy_mark: \"0x48\", exclude_inbound_ports: [22, 9999], exclude_outbound_ports: [9999] }}\n"
        );
        self.place.write(&format!("{host}.yaml"), &text);
    }

    fn token(&self, host: usize, service: &str) {
        let token = self.cli(&["token", "create", "--service", service, "--ttl", "10m"]);
        assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
        self.place.write(&format!("{host}.token"), String::from_utf8_lossy(&token.stdout).trim());
    }

    /// Lets in what comes from outside, on a host of its own where nothing is captured.
    fn gateway(&mut self, host: usize) {
        self.token(host, "gateway");
        let text = format!(
            "node: {{ id: gateway-1, data_dir: \"data-{host}\" }}\nrole: gateway\nservice: {{ name: gateway }}\n\
             agent: {{ workers: 1, admin: \"127.0.0.1:15000\", drain_timeout: 1s, drain_delay: 0s }}\n\
             controlplane: {{ address: \"https://10.77.{host}.1:18000\", token_file: \"{host}.token\", bundle: root.pem }}\n"
        );
        self.place.write(&format!("{host}.yaml"), &text);
        let gateway = self.sidecar(host);
        self.others.push(gateway);
        self.until_ready(host);
    }

    /// An application that does nothing but ask another one, by its name in the mesh, and tell it who has called.
    fn asking(&mut self, host: usize, name: &str, next: &str) {
        // nginx looks its upstream up when it starts, and only then.
        until(next, || self.asks(host, &[&format!("http://{next}.default.mesh:8080/")]));
        let folder = self.place.folder.path().display();
        let text = format!(
            "daemon off; master_process off; pid {folder}/{name}.pid; error_log stderr; events {{}}\n\
             http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n\
             fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; proxy_http_version 1.1;\n\
             server {{ listen 8080; location / {{ proxy_pass http://{next}.default.mesh:8080;\n\
             proxy_set_header Host {next}.default.mesh; proxy_set_header X-Seen-By-{name} $http_x_forwarded_client_cert; }} }} }}\n"
        );
        let file = self.place.write(&format!("{name}.conf"), &text);
        let mut command = self.network.inside(&self.network.host(host), "/usr/sbin/nginx");
        command.arg("-c").arg(file).arg("-p").arg(self.place.folder.path());
        self.others.push(Process::start(command, self.place.path(&format!("{name}-nginx.log"))));
    }

    /// Applications of one service of which none has said what it speaks, with those who call them.
    fn silent(&mut self, callers: &[(usize, &str, &str)]) {
        let at = |port: u16| format!("{{ port: {port}, protocol: auto }}");
        let api = format!(
            "name: api, address: \"127.0.0.1:8080\", protocol: auto, ports: [ {}, {}, {} ]",
            at(9090),
            at(50051),
            at(5432)
        );
        let all: Vec<_> = callers.iter().copied().chain([(API, "api", api.as_str())]).collect();
        self.join(&all, "redirect");
        self.telling(API, &[(8080, ""), (9090, " http2")]);
        let host = self.network.host(API);
        let mut grpc = self.network.inside(&host, python::interpreter());
        grpc.arg(python::path("server.py")).arg("0.0.0.0:50051");
        let grpc = Process::start(grpc, self.place.path("grpc.log"));
        until("gRPC's own server", || grpc.output().contains("serving").then_some(()));
        self.others.push(grpc);
        let mut mail = self.network.inside(&host, python::interpreter());
        mail.arg(python::path("greeter.py")).args(["serve", "0.0.0.0", "5432"]);
        self.listening(mail, "mail");
    }

    /// What gRPC's own client on the host of `web` prints.
    fn calls(&self, kind: &str, target: &str) -> String {
        let mut client = self.network.inside(&self.network.host(WEB), python::interpreter());
        // Names are asked for as by any other program.
        client.env("GRPC_DNS_RESOLVER", "native").arg(python::path("client.py")).args([kind, target]);
        String::from_utf8_lossy(&client.output().unwrap().stdout).into_owned()
    }

    /// An application that says at these ports how it was asked and by whom.
    fn telling(&mut self, host: usize, ports: &[(u16, &str)]) {
        let folder = self.place.folder.path().display();
        let answer = "location / { return 200 'asked in $server_protocol by $http_x_forwarded_client_cert'; }";
        let servers: String = ports.iter().map(|(port, how)| format!("server {{ listen {port}{how}; {answer} }}\n")).collect();
        let text = format!(
            "daemon off; master_process off; pid {folder}/telling.pid; error_log stderr; events {{}}\n             http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n             fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; {servers} }}\n"
        );
        let file = self.place.write("telling.conf", &text);
        let mut command = self.network.inside(&self.network.host(host), "/usr/sbin/nginx");
        command.arg("-c").arg(file).arg("-p").arg(self.place.folder.path());
        self.others.push(Process::start(command, self.place.path("telling.log")));
    }

    /// Heddle in a namespace.
    fn heddle(&self, namespace: &str, arguments: &[&str]) -> Command {
        let mut command = self.network.inside(namespace, binary());
        command.args(arguments).current_dir(self.place.folder.path());
        command
    }

    fn keep(&mut self, namespace: &str, log: &str, arguments: &[&str]) {
        let process = Process::start(self.heddle(namespace, arguments), self.place.path(&format!("{log}.log")));
        self.others.push(process);
    }

    /// Starts what says when it listens.
    fn listening(&mut self, command: Command, log: &str) {
        let process = Process::start(command, self.place.path(&format!("{log}.log")));
        until(log, || process.output().contains("listening").then_some(()));
        self.others.push(process);
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.heddle(&self.network.router(), arguments);
        command.args(["--server", "http://127.0.0.1:18000", "--key", KEY]).output().unwrap()
    }

    /// A command that asks nobody.
    fn cli_free(&self, arguments: &[&str]) -> Output {
        self.heddle(&self.network.router(), arguments).output().unwrap()
    }

    fn sidecar(&self, host: usize) -> Process {
        let command = self.heddle(&self.network.host(host), &["agent", "-c", &format!("{host}.yaml")]);
        Process::start(command, self.place.path(&format!("sidecar-{host}.log")))
    }

    fn until_ready(&self, host: usize) {
        until("the sidecar", || self.asks(host, &["http://127.0.0.1:15000/ready"]));
    }

    fn capture(&self, host: usize, what: &str) {
        let output = self.heddle(&self.network.host(host), &["capture", what, "-c", &format!("{host}.yaml")]).output().unwrap();
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        if what == "apply" {
            seen(&output, true);
        }
    }

    /// What curl is answered on a host; nothing where that is no success.
    fn asks(&self, host: usize, arguments: &[&str]) -> Option<String> {
        self.asks_in(&self.network.host(host), arguments)
    }

    fn asks_in(&self, namespace: &str, arguments: &[&str]) -> Option<String> {
        let mut command = self.network.inside(namespace, "curl");
        let output = command.args(["-s", "-g", "-f", "-m", "10"]).args(arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whatever a request of curl is answered, with its status behind it.
    fn answered(&self, host: usize, arguments: &[&str]) -> String {
        let mut command = self.network.inside(&self.network.host(host), "curl");
        let output = command.args(["-s", "-g", "-m", "10", "-w", " %{http_code}"]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The addresses that a name has for programs on a host.
    fn looks_up(&self, host: usize, family: &str, name: &str) -> Vec<String> {
        let mut command = self.network.inside(&self.network.host(host), "getent");
        let output = command.args([family, name]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut addresses: Vec<String> = told.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
        addresses.dedup();
        addresses
    }

    /// A host that is a pod: names are asked for at the router, as they are in a Kubernetes, where these are known.
    fn kubernetes(&mut self, host: usize, known: &[&str]) {
        let text = format!(
            "nameserver 10.77.{host}.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        );
        std::fs::write(format!("/etc/netns/{}/resolv.conf", self.network.host(host)), text).unwrap();
        let mut names = self.network.inside(&self.network.router(), python::interpreter());
        names.arg(python::path("names.py")).args(known);
        self.listening(names, "names");
    }

    /// What a client of plain TCP on the host of `web` is told.
    fn talks(&self, to: &str) -> Option<String> {
        let mut command = self.network.inside(&self.network.host(WEB), python::interpreter());
        let output = command.arg(python::path("greeter.py")).args(["ask", to, "5432", SECRET]).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Whether it is answered; who is refused is hung up on without a word.
    fn reaches(&self, to: &str) -> bool {
        self.talks(to).is_some_and(|told| told.contains(SECRET))
    }

    /// Whether this has travelled in clear.
    fn travelled(&self, text: &str) -> bool {
        let seen = std::fs::read(self.place.path("wire")).unwrap();
        seen.windows(text.len()).any(|part| part == text.as_bytes())
    }

    fn refused_in_clear(&self) -> u32 {
        let metrics = self.asks(API, &["http://127.0.0.1:15000/metrics"]).unwrap();
        let line = metrics.lines().find(|line| line.starts_with("heddle_mesh_refused_connections_total{reason=\"plaintext\"}"));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.sidecars.clear();
        self.others.clear();
    }
}

/// That all that must be captured was seen to arrive at the agent, or where it will be.
fn seen(output: &Output, is_taken: bool) {
    let told = String::from_utf8_lossy(&output.stdout);
    let (somebody, agent) =
        if is_taken { (", where somebody listens already", ", where somebody answers as an agent does") } else { ("", "") };
    for (family, to, door) in [("IPv4", "192.0.2.72", "127.0.0.1"), ("IPv6", "[2001:db8::72]", "[::1]")] {
        for (what, port, at, by) in [
            ("a connection", 15001, 15001, somebody),
            ("a question for a name (UDP)", 53, 15053, agent),
            ("a question for a name (TCP)", 53, 15053, somebody),
        ] {
            let line = format!("{family}: {what} to {to}:{port} arrived at {door}:{at}{by}\n");
            assert!(told.contains(&line), "{line} is not in: {told}");
        }
    }
}

/// What the application is told of who calls.
const CALLER: &str = "URI=spiffe://story.example/ns/default/svc/web";

fn applications_know_nothing(mode: &str) {
    let mut world = World::start(mode);
    let path = |host: &str| format!("http://{host}/{SECRET}");

    // By the name of the service, by the address of its host in either family with the name in the request, and plain TCP to a server that speaks first.
    let named = path("api.default.mesh:8080");
    let answer = until("the service by its name", || world.asks(WEB, &[&named]));
    assert!(answer.contains(CALLER) && answer.contains(SECRET), "{answer}");
    for host in ["10.77.1.2:8080", "[fd77:1::2]:8080"] {
        let answer = world.asks(WEB, &["-H", "Host: api.default.mesh", &path(host)]).unwrap_or_else(|| panic!("{host}"));
        assert!(answer.contains(CALLER), "{host}: {answer}");
    }
    assert_eq!(world.asks(WEB, &[&path("api.default.mesh:9090")]), None, "it is not called on this port");
    let told = until("the server of plain TCP", || world.talks("db.default.mesh"));
    assert_eq!(told, format!("220 ready\n{SECRET}\n"));
    // By addresses that no host has, as those of services in Kubernetes, of which only the owner of the service has told.
    for address in ["10.99.0.5", "fd99::5"] {
        assert_eq!(world.talks(address).as_deref(), Some(&*format!("220 ready\n{SECRET}\n")), "{address}");
    }
    // By the addresses of single instances, as of those of a headless service: bytes, and HTTP/2 whose host names nobody.
    assert_eq!(world.talks("10.77.2.2").as_deref(), Some(&*format!("220 ready\n{SECRET}\n")), "an instance of bytes");
    let answer = world.asks(WEB, &["--http2-prior-knowledge", &path("10.77.1.2:8080")]);
    assert!(answer.as_ref().is_some_and(|answer| answer.contains(CALLER) && answer.contains("10.77.1.2:8080")), "{answer:?}");
    until("a handshake of TLS on the wire", || world.travelled("\u{16}\u{3}\u{1}").then_some(()));
    assert!(!world.travelled(SECRET), "nothing of it travels in clear");

    // Ports that are left out on both sides are as they were.
    let open = world.asks(WEB, &[&format!("http://10.77.1.2:9999/{OPEN}")]).unwrap();
    assert!(open.contains(OPEN) && !open.to_ascii_lowercase().contains("x-forwarded-client-cert"), "{open}");
    until("what is left out, in clear on the wire", || world.travelled(OPEN).then_some(()));

    // Who is no member gets nothing of what is captured, by either family.
    for (nth, host) in ["10.77.1.2:8080", "[fd77:1::2]:8080"].into_iter().enumerate() {
        assert_eq!(world.asks_in(&world.network.router(), &[&format!("http://{host}/")]), None);
        assert_eq!(world.refused_in_clear(), nth as u32 + 1, "{host}");
    }

    // A sidecar that is away lets nothing slip by, whichever side it is on.
    world.sidecars[API] = None;
    assert_eq!(world.asks(WEB, &[&named]), None);
    world.sidecars[WEB] = None;
    for host in ["10.77.1.2:8080", "[fd77:1::2]:8080"] {
        assert_eq!(world.asks(WEB, &["-H", "Host: api.default.mesh", &path(host)]), None);
        assert_eq!(world.asks_in(&world.network.router(), &[&format!("http://{host}/")]), None);
    }
    assert_eq!(world.talks("10.77.2.2"), None);
    assert!(!world.travelled(SECRET), "nothing of it has left the host");
    for host in [WEB, API] {
        world.sidecars[host] = Some(world.sidecar(host));
        world.until_ready(host);
    }
    let answer = until("the service again", || world.asks(WEB, &[&named]));
    assert!(answer.contains(CALLER), "{answer}");

    // Without capture everything is as it was before.
    [WEB, API, DB].into_iter().for_each(|host| world.capture(host, "remove"));
    let direct = until("the application itself", || world.asks(WEB, &["http://10.77.1.2:8080/direct"]));
    assert!(!direct.contains(CALLER), "{direct}");
}

#[test]
fn where_services_alone_may_be_called_nothing_leaves_in_clear_for_hosts_of_the_mesh() {
    let mut world = World::start("redirect, other: refuse");
    let named = format!("http://api.default.mesh:8080/{SECRET}");
    let answer = until("the service by its name", || world.asks(WEB, &[&named]));
    assert!(answer.contains(CALLER), "{answer}");
    until("an instance by its address", || world.reaches("10.77.2.2").then_some(()));

    // Ports of these hosts that nobody names, by either family, and the family in which nobody has seen an instance come.
    for host in ["10.77.1.2:9090", "[fd77:1::2]:9090", "10.77.2.2:8080"] {
        assert_eq!(world.asks(WEB, &[&format!("http://{host}/{SECRET}")]), None, "{host}");
    }
    assert!(!world.reaches("fd77:2::2"));
    // An instance that has ended, until its next process is known.
    world.sidecars[DB] = None;
    let (key, url) = (format!("X-API-KEY: {KEY}"), "http://127.0.0.1:9180/apisix/admin/mesh/instances?service=default/db");
    let known = || world.asks_in(&world.network.router(), &["-H", &key, url]);
    until("nobody knows of it any more", || known().filter(|instances| !instances.contains("db-1")));
    assert!(!world.reaches("10.77.2.2"));
    until("a handshake of TLS on the wire", || world.travelled("\u{16}\u{3}\u{1}").then_some(()));
    assert!(!world.travelled(SECRET), "nothing of it travels in clear");
    let open = world.asks(WEB, &[&format!("http://10.77.1.2:9999/{OPEN}")]);
    assert!(open.is_some_and(|open| open.contains(OPEN)), "what is not captured goes where it was going");
}

#[test]
fn applications_that_listen_at_the_address_of_their_host_alone_are_reached_there_and_nothing_runs_in_a_circle() {
    let mut world = World::empty(3, "mesh_services: [ { id: db, addresses: [10.99.0.5], ports: [5432] } ]");
    world.keep(&world.network.host(API), "echo", &["echo", "10.77.1.2:8080"]);
    let mut db = world.network.inside(&world.network.host(DB), python::interpreter());
    db.arg(python::path("greeter.py")).args(["serve", "fd77:2::2", "5432"]);
    world.listening(db, "db");
    // As an injected pod says it, which cannot know its family: brackets around either.
    let services = [
        (WEB, "web", "name: web"),
        (API, "api", "name: api, address: \"[10.77.1.2]:8080\", protocol: http"),
        (DB, "db", "name: db, address: \"[fd77:2::2]:5432\", protocol: tcp"),
    ];
    world.join(&services, "redirect");
    let named = format!("http://api.default.mesh:8080/{SECRET}");
    let answer = until("the service by its name", || world.asks(WEB, &[&named]));
    assert!(answer.contains(CALLER), "{answer}");
    assert_eq!(until("the server of plain TCP", || world.talks("db.default.mesh")), format!("220 ready\n{SECRET}\n"));
    assert_eq!(world.asks(API, &["http://127.0.0.1:8080/"]), None, "it listens nowhere else");
    let own = world.asks(API, &["http://10.77.1.2:8080/"]).unwrap();
    assert!(!own.contains("svc/"), "a host reaches itself without its sidecar: {own}");
    assert!(!world.travelled(SECRET), "nothing of it travels in clear");
}

/// The ports of one service, each of whose applications has not said what it speaks.
const SILENT: &str = "mesh_services: [ { id: api, ports: [8080, 9090, 50051, 5432] } ]";

#[test]
fn what_is_captured_reaches_applications_that_have_not_said_what_they_speak() {
    let mut world = World::empty(2, SILENT);
    world.silent(&[(WEB, "web", "name: web")]);

    for (port, version) in [(8080, "HTTP/1.1"), (9090, "HTTP/2.0")] {
        for flag in ["--http2-prior-knowledge", "--http1.1"] {
            let url = format!("http://api.default.mesh:{port}/");
            let told = until("an answer", || world.asks(WEB, &[flag, &url]));
            assert!(told.starts_with(&format!("asked in {version} by ")) && told.contains(CALLER), "{flag} {port}: {told}");
        }
    }
    let calls = |kind: &str| world.calls(kind, "api.default.mesh:50051");
    until("an answer of gRPC", || calls("unary_error").contains("100000").then_some(()));
    assert!(calls("talk").contains("\"heard\": 50"));
    assert_eq!(world.talks("api.default.mesh").as_deref(), Some(&*format!("220 ready\n{SECRET}\n")));
    assert!(!world.travelled(SECRET) && !world.travelled("asked in"), "nothing of it travels in clear");
}

#[test]
fn who_is_no_member_is_reached_by_its_name_of_kubernetes_as_soon_as_that_is_known() {
    let mut world = World::empty(2, "{}");
    let outside = world.network.host(1);
    world.keep(&outside, "echo", &["echo", "0.0.0.0:8080"]);
    world.join(&[(WEB, "web", "name: web")], "redirect");
    let (open, secret) = (format!("http://10.77.1.2:8080/{OPEN}"), format!("http://10.77.1.2:8080/{SECRET}"));
    let host = |name: &str| format!("Host: {name}.monitoring.svc.cluster.local");
    for name in [host("grafana"), host("grafana").replace(".cluster.local", ""), host("grafana") + ":8080"] {
        let answer = until(&name, || world.asks(WEB, &["-H", &name, &open]));
        assert!(answer.contains(OPEN), "{name}: {answer}");
    }
    until("it in clear on the wire", || world.travelled(OPEN).then_some(()));
    let mesh = world.answered(WEB, &["-H", "Host: grafana.monitoring.mesh", &secret]);
    assert!(mesh.ends_with(" 502"), "that is nobody outside: {mesh}");

    // Without a control plane nobody knows whether another one is a member. What is known stays so.
    world.others[0].kill();
    let answer = world.answered(WEB, &["-H", &host("loki"), &secret]);
    assert!(answer.contains("\"service\":\"monitoring/loki\"") && answer.ends_with(" 503"), "{answer}");
    assert!(!world.travelled(SECRET), "what may be for a member is not sent in clear");
    assert!(world.asks(WEB, &["-H", &host("grafana"), &open]).is_some());
    let router = world.network.router();
    world.keep(&router, "cp", &["controlplane", "-c", "cp.yaml"]);
    until("the other one", || world.asks(WEB, &["-H", &host("loki"), &open]));
}

#[test]
fn where_services_alone_may_be_called_a_name_of_kubernetes_leads_to_nobody_else() {
    let mut world = World::empty(2, "{}");
    let outside = world.network.host(1);
    world.keep(&outside, "echo", &["echo", "0.0.0.0:8080"]);
    world.join(&[(WEB, "web", "name: web")], "redirect, other: refuse");
    let url = format!("http://10.77.1.2:8080/{SECRET}");
    let answer = world.answered(WEB, &["-H", "Host: grafana.monitoring.svc.cluster.local", &url]);
    assert!(!answer.contains(SECRET) && !answer.ends_with(" 200"), "{answer}");
    assert!(!world.travelled(SECRET));
}

#[test]
fn whatever_is_spoken_to_a_member_by_its_name_of_kubernetes_crosses_mutual_tls() {
    let mut world = World::empty(3, SILENT);
    let names = ["api.default", "grafana.monitoring", "loki.monitoring", "api-0.api.default"];
    let at = [1, 2, 2, 1].map(|host| format!("10.77.{host}.2"));
    let known: Vec<String> = names.iter().zip(at).map(|(name, at)| format!("{name}.svc.cluster.local={at}")).collect();
    world.kubernetes(WEB, &known.iter().map(String::as_str).collect::<Vec<_>>());
    world.silent(&[(WEB, "web", "name: web")]);

    // By all the names that a pod has for it, in both families.
    let vip = until("the service by its name", || world.looks_up(WEB, "ahostsv4", "api.default.mesh").pop());
    for name in ["api.default.svc.cluster.local", "api.default.svc", "api.default", "api"] {
        assert_eq!(world.looks_up(WEB, "ahostsv4", name), [vip.as_str()], "{name}");
        assert_eq!(world.looks_up(WEB, "ahosts", name), [vip.as_str()], "{name}");
    }
    for (flag, port) in [("--http2-prior-knowledge", 8080), ("--http2-prior-knowledge", 9090), ("--http1.1", 8080)] {
        let told =
            until("an answer", || world.asks(WEB, &[flag, &format!("http://api.default.svc.cluster.local:{port}/{SECRET}")]));
        assert!(told.starts_with("asked in ") && told.contains(CALLER), "{flag} {port}: {told}");
    }
    until("an answer of gRPC", || {
        world.calls("unary_error", "api.default.svc.cluster.local:50051").contains("100000").then_some(())
    });
    assert_eq!(world.talks("api.default.svc.cluster.local").as_deref(), Some(&*format!("220 ready\n{SECRET}\n")));
    assert_eq!(world.talks("api").as_deref(), Some(&*format!("220 ready\n{SECRET}\n")));
    assert_eq!(world.looks_up(WEB, "ahostsv4", "api-0.api.default.svc.cluster.local"), ["10.77.1.2"], "a single pod is itself");
    assert!(!world.travelled(SECRET) && !world.travelled("asked in"), "nothing of it travels in clear");

    // Whoever is no member has the address that it had, whatever is spoken to it.
    world.telling(2, &[(8080, ""), (9090, " http2")]);
    for (flag, port) in [("--http1.1", 8080), ("--http2-prior-knowledge", 9090)] {
        let url = format!("http://grafana.monitoring.svc.cluster.local:{port}/");
        let told = until("who is no member", || world.asks(WEB, &[flag, &url]));
        assert!(told.starts_with("asked in HTTP/") && !told.contains(CALLER), "{flag}: {told}");
    }
    assert_eq!(world.looks_up(WEB, "ahostsv4", "nobody.monitoring.svc.cluster.local"), [""; 0]);

    // While nobody can say who is a member, only what is known already is told.
    world.others[0].kill();
    assert_eq!(world.looks_up(WEB, "ahostsv4", "loki.monitoring.svc.cluster.local"), [""; 0]);
    assert_eq!(world.looks_up(WEB, "ahostsv4", "grafana.monitoring.svc.cluster.local"), ["10.77.2.2"]);
    assert_eq!(world.looks_up(WEB, "ahostsv4", "api.default.svc.cluster.local"), [vip]);
    let router = world.network.router();
    world.keep(&router, "cp", &["controlplane", "-c", "cp.yaml"]);
    let told =
        until("the other one", || Some(world.looks_up(WEB, "ahostsv4", "loki.monitoring")).filter(|told| !told.is_empty()));
    assert_eq!(told, ["10.77.2.2"]);
}

/// Who may call whom; whoever is not named is refused.
const SHOP: &str = "
upstreams: [ { id: web, discovery_type: mesh, service_name: web } ]
routes: [ { id: shop, uri: /*, upstream_id: web } ]
authorization_policies:
  - { id: web, service: web, action: allow, rules: [ { from: [ { identities: [gateway] } ] } ] }
  - { id: api, service: api, action: allow, rules: [ { from: [ { identities: [web] } ] } ] }
  - { id: data, service: data, action: allow, rules: [ { from: [ { identities: [api] } ] } ] }
";

#[test]
fn what_comes_by_the_gateway_crosses_three_hosts_whose_applications_know_nothing() {
    let [gateway, web, api, data] = [0, 1, 2, 3];
    let mut world = World::empty(4, SHOP);
    world.gateway(gateway);
    let service = |name: &str| format!("name: {name}, address: \"127.0.0.1:8080\", protocol: http");
    let services = [(web, "web", service("web")), (api, "api", service("api")), (data, "data", service("data"))];
    world.join(&services.each_ref().map(|(host, name, service)| (*host, *name, service.as_str())), "redirect");
    let last = world.network.host(data);
    world.keep(&last, "echo", &["echo", "0.0.0.0:8080"]);
    world.asking(api, "Api", "data");
    world.asking(web, "Web", "api");

    let url = format!("http://127.0.0.1:9080/{SECRET}");
    let answer = until("an answer of the last one", || world.asks(gateway, &[&url])).to_ascii_lowercase();
    let seen = |by: &str, caller: &str| {
        let line = answer.lines().find(|line| line.contains(by)).unwrap_or_else(|| panic!("{by}: {answer}"));
        assert!(line.contains(&format!("uri=spiffe://story.example/ns/default/svc/{caller}")), "{line}");
    };
    seen("x-seen-by-web", "gateway");
    seen("x-seen-by-api", "web");
    seen("x-forwarded-client-cert", "api");
    assert!(!world.travelled(SECRET), "nothing of it travels in clear");

    // Nobody gets past the one before him: neither from another service nor from outside.
    assert_eq!(world.asks(web, &[&format!("http://data.default.mesh:8080/{SECRET}")]), None);
    assert_eq!(world.asks_in(&world.network.router(), &["http://10.77.3.2:8080/"]), None);
}

#[test]
fn applications_know_nothing_of_a_mesh_that_redirects_them() {
    applications_know_nothing("redirect");
}

#[test]
fn applications_know_nothing_of_a_mesh_that_takes_their_packets_as_they_are() {
    applications_know_nothing("tproxy");
}

/// As the API server has it from the injection.
const POD: &str = r#"{ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "namespace": "shop" },
    "spec": { "containers": [ { "name": "web", "image": "web:1", "ports": [ { "name": "http", "containerPort": 8080 } ] } ] } }"#;

/// What goes before a command so that it has no more rights than a container of an injected pod.
fn rights(container: &Value) -> Vec<String> {
    let context = &container["securityContext"];
    assert_eq!((&context["capabilities"]["drop"][0], &context["allowPrivilegeEscalation"]), (&json!("ALL"), &json!(false)));
    let added = context["capabilities"]["add"].as_array().into_iter().flatten();
    let kept: String = added.map(|name| format!(",+{}", name.as_str().unwrap().to_lowercase())).collect();
    let set = format!("-all{kept}");
    let user = context["runAsUser"].to_string();
    [
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        "--bounding-set",
        &set,
        "--inh-caps",
        &set,
        "--no-new-privs",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn a_pods_first_container_sees_that_its_rules_capture_and_lets_nothing_start_where_they_do_not() {
    let mut world = World::empty(1, "");
    world.place.write("pod.json", POD);
    let injected = world.cli_free(&["inject", "-f", "pod.json"]);
    let pod: Value = serde_json::from_slice(&injected.stdout).unwrap();
    let [capture, sidecar, ..] = &pod["spec"]["initContainers"].as_array().unwrap()[..] else { panic!("{pod}") };
    let host = world.network.host(0);
    let words: Vec<&str> = capture["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let run = || {
        let mut command = world.network.inside(&host, "env");
        command.args(rights(capture)).arg(binary()).args(&words).output().unwrap()
    };
    let nft = |rule: &str| {
        let mut command = world.network.inside(&host, "nft");
        String::from_utf8(command.args(rule.split(' ')).output().unwrap().stdout).unwrap()
    };

    // Somebody else's rule lets the packets of the application by, as one for a local proxy would.
    for rule in [
        "add table ip mine",
        "add chain ip mine theirs { type nat hook output priority -150 ; }",
        "add rule ip mine theirs tcp dport != 53 dnat to 10.77.0.1:3128",
    ] {
        nft(rule);
    }
    let refused = run();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    for part in [
        "IPv4: a connection to 192.0.2.72:15001 should have arrived at 127.0.0.1:15001, but ",
        "`ip mine` chain theirs",
        "the rules were taken away again",
    ] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
    assert!(!told.contains("IPv6: "), "{told}");
    assert_eq!(nft("list tables"), "table ip mine\n");
    nft("delete table ip mine");

    seen(&run(), false);
    // The sidecar starts after it, without any right, and finds its doors free; then the container may run again, as Kubernetes reserves to itself.
    world.token(0, "web");
    let text = "node: { id: web-1, data_dir: \"web\" }\nrole: sidecar\nservice: { name: web, address: \"127.0.0.1:8080\" }\n\
                agent: { workers: 1, admin: \"127.0.0.1:15000\" }\n\
                controlplane: { address: \"https://10.77.0.1:18000\", token_file: \"0.token\", bundle: root.pem }\noutbound: { capture: redirect }\n";
    world.place.write("0.yaml", text);
    let folder = world.place.folder.path();
    std::os::unix::fs::chown(folder, Some(1337), Some(1337)).unwrap();
    let mut agent = world.network.inside(&host, "env");
    agent.args(rights(sidecar)).arg(binary()).args(["agent", "-c", "0.yaml"]).current_dir(folder);
    world.sidecars.push(Some(Process::start(agent, world.place.path("agent.log"))));
    world.until_ready(0);
    seen(&run(), true);
}
