//! Every folder of `examples` does what its README says, with the files as they lie there and only addresses exchanged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use heddle_integration::client::{self, Answer, curl, send};
use heddle_integration::consul::Consul;
use heddle_integration::heddle::binary;
use heddle_integration::nginx::Nginx;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use serde_json::{Value, json};

/// Examples keep the ports that users know; all tests of one process share a loopback address, so they take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

struct Example {
    place: Place,
    _turn: std::sync::MutexGuard<'static, ()>,
}

/// Sections that an example leaves at their defaults, which are addresses that all tests would share.
fn defaults(text: &mut String, ip: IpAddr) {
    for (section, key, port) in [("agent", "workers: 1, admin", 15000), ("admin", "address", 9180), ("xds", "address", 18000)] {
        if !text.lines().any(|line| line.starts_with(&format!("{section}:"))) {
            text.push_str(&format!("{section}: {{ {key}: \"{ip}:{port}\" }}\n"));
        }
    }
}

/// The files of a folder, without those of folders in it.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
}

impl Example {
    /// Copies a folder, with services in place of those of the README.
    fn of(name: &str, services: &[(u16, SocketAddr)]) -> Example {
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let place = Place::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        for path in files(&folder) {
            let mut text = std::fs::read_to_string(&path).unwrap();
            for (port, address) in services {
                text = text.replace(&format!("127.0.0.1:{port}"), &address.to_string());
            }
            text = text.replace("127.0.0.1", &place.ip.to_string());
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".yaml") && name != "resources.yaml" {
                defaults(&mut text, place.ip);
            }
            place.write(name, &text);
        }
        Example { place, _turn: turn }
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.place.ip, port)
    }

    fn start(&self, mode: &str, file: &str, variables: &[(&str, String)]) -> Process {
        let mut command = Command::new(binary());
        command.args([mode, "-c", file]).current_dir(self.place.folder.path()).envs(variables.iter().cloned());
        Process::start(command, self.place.path(&format!("{mode}.log")))
    }

    /// `heddle run -c heddle.yaml`, until it is ready.
    fn run(&self, variables: &[(&str, String)]) -> Process {
        let process = self.start("run", "heddle.yaml", variables);
        self.ready();
        process
    }

    fn ready(&self) {
        until("the example to be ready", || client::get(self.at(15000), "/ready").ok().filter(|answer| answer.status == 200));
    }

    /// Whether the agent has its last good configuration on disk.
    fn kept(&self) -> bool {
        let folders = std::fs::read_dir(self.place.folder.path()).unwrap().flatten();
        folders.into_iter().any(|folder| folder.path().join("last-good.xds").exists())
    }

    fn get(&self, target: &str, fields: &[(&str, &str)]) -> Answer {
        send(self.at(9080), "GET", target, fields, b"").expect("the gateway answers")
    }
}

#[test]
fn first_route() {
    let service = Nginx::saying("one");
    let example = Example::of("first-route", &[(8081, service.address)]);
    let _heddle = example.run(&[]);
    assert_eq!(example.get("/hello", &[]).text(), "one");
    let route = json!({"uri": "/again", "upstream_id": "one@file", "plugins": {"proxy-rewrite": {"uri": "/hello"}}}).to_string();
    let key = [("X-API-KEY", "change-me-please")];
    let put = send(example.at(9180), "PUT", "/apisix/admin/routes/again", &key, route.as_bytes()).unwrap();
    assert_eq!(put.status, 201, "{}", put.text());
    until("the second route", || Some(example.get("/again", &[])).filter(|answer| answer.text() == "one"));
    let explain = Command::new(binary())
        .args(["explain", "GET", "/again", "--key", "change-me-please", "--server", &format!("http://{}", example.at(18000))])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&explain.stdout).into_owned();
    assert!(text.starts_with("route again: ") && text.contains("proxy-rewrite"), "{text}");
}

#[test]
fn tls() {
    let service = Nginx::saying("one");
    let example = Example::of("tls", &[(8081, service.address)]);
    let made = rcgen::generate_simple_self_signed(["www.example.test".to_owned()]).unwrap();
    let certificate = example.place.write("cert.pem", &made.cert.pem());
    let variables = [("TLS_CERT", made.cert.pem()), ("TLS_KEY", made.signing_key.serialize_pem())];
    let _heddle = example.run(&variables);
    let answer = curl(&[
        "--cacert",
        certificate.to_str().unwrap(),
        "--resolve",
        &format!("www.example.test:9443:{}", example.place.ip),
        "https://www.example.test:9443/hello",
    ]);
    assert_eq!(answer, "one");
}

#[test]
fn canary() {
    let (old, new) = (Nginx::saying("old"), Nginx::saying("new"));
    let example = Example::of("canary", &[(8081, old.address), (8082, new.address)]);
    let _heddle = example.run(&[]);
    let answers: Vec<String> = (0..10).map(|_| example.get("/hello", &[]).text()).collect();
    assert_eq!(answers.iter().filter(|text| *text == "new").count(), 2, "{answers:?}");
    assert_eq!(example.get("/hello", &[("X-Canary", "yes")]).text(), "new");
}

#[test]
fn api_keys() {
    let service = Nginx::start("location / { return 200 \"$http_x_consumer_username $http_apikey\"; }");
    let example = Example::of("api-keys", &[(8081, service.address)]);
    let _heddle = example.run(&[]);
    assert_eq!(example.get("/hello", &[]).status, 401);
    let jack: Vec<Answer> = (0..4).map(|_| example.get("/hello", &[("apikey", "jack-key")])).collect();
    assert_eq!(jack.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 200, 429]);
    assert_eq!(jack[0].text(), "jack ", "the name goes upstream without its provider, the key does not");
    assert_eq!(example.get("/hello", &[("apikey", "jill-key")]).text(), "jill ");
}

#[test]
fn separate_processes() {
    let service = Nginx::saying("one");
    let example = Example::of("separate-processes", &[(8081, service.address)]);
    let control_plane = example.start("controlplane", "controlplane.yaml", &[]);
    let agent = example.start("agent", "agent.yaml", &[]);
    example.ready();
    assert_eq!(example.get("/hello", &[]).text(), "one");
    // It is written within a second of the change; who is killed before has nothing to start with.
    until("the configuration to be on disk", || example.kept().then_some(()));
    drop((control_plane, agent));
    let _alone = example.start("agent", "agent.yaml", &[]);
    example.ready();
    assert_eq!(example.get("/hello", &[]).text(), "one");
    let metrics = client::get(example.at(15000), "/metrics").unwrap().text();
    assert!(metrics.contains("heddle_xds_connected 0"), "{metrics}");
}

#[test]
fn consul() {
    let (service, consul) = (Nginx::saying("one"), Consul::start());
    let example = Example::of("consul", &[(8500, consul.http)]);
    let heddle = example.run(&[]);
    let passing = || {
        let found = consul.ask("GET", "/v1/health/service/gateway?passing", &Value::Null).ok()?.json();
        found[0]["Service"]["Port"].as_u64()
    };
    assert_eq!(until("the gateway in Consul", passing), 9_080);
    let text = std::fs::read_to_string(example.place.path("service.json")).unwrap();
    let mut written: Value = serde_json::from_str(&text).unwrap();
    (written["Address"], written["Port"]) = (service.address.ip().to_string().into(), service.address.port().into());
    consul.put("/v1/agent/service/register", &written);
    until("the route", || client::get(example.at(9080), "/hello").ok().filter(|answer| answer.text() == "one"));
    heddle.signal("TERM");
    until("the gateway to be taken back", || passing().is_none().then_some(()));
}

/// A script that ends what it has started when it is told to end.
struct Script(Process);

impl Drop for Script {
    fn drop(&mut self) {
        if self.0.is_running() {
            self.0.signal("TERM");
            self.0.wait();
        }
    }
}

#[test]
fn mesh() {
    let example = Example::of("mesh", &[]);
    let mut command = Command::new("bash");
    command.arg(example.place.path("start")).current_dir(example.place.folder.path());
    command.env("HEDDLE", binary()).env("HEDDLE_SERVER", format!("http://{}", example.at(18000)));
    let _script = Script(Process::start(command, example.place.path("start.log")));
    let asked = || client::get(example.at(9080), "/hello").ok();
    let seen = until("the shop to open", || asked().filter(|answer| answer.status == 200)).text();
    for (field, caller) in [("x-seen-by-web", "gateway"), ("x-seen-by-api", "web"), ("x-forwarded-client-cert", "api")] {
        let line = seen.lines().find(|line| line.contains(field)).unwrap_or_else(|| panic!("{seen}"));
        assert!(line.contains(&format!("URI=spiffe://shop.example/ns/default/svc/{caller}")), "{line}");
    }
    let post = send(example.at(9080), "POST", "/hello", &[], b"").unwrap();
    assert_eq!(post.status, 403, "{}", post.text());
}

#[test]
fn mesh_captured() {
    let (place, shop) = (Place::new(), format!("hs{}", std::process::id()));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/mesh");
    for path in files(&folder).chain(files(&folder.join("captured"))) {
        let name = path.strip_prefix(&folder).unwrap().to_str().unwrap();
        place.write(name, &std::fs::read_to_string(&path).unwrap());
    }
    let mut command = Command::new("bash");
    command.arg(place.path("captured/start")).env("HEDDLE", binary()).env("SHOP", &shop);
    let mut script = Script(Process::start(command, place.path("start.log")));
    until("the shop to open", || script.0.output().contains("The shop is open").then_some(()));

    // As the README says it: three hops from outside, one from an application that knows a name and nothing else.
    let asks = |host: &str, arguments: &[&str]| {
        let mut command = Command::new("ip");
        let output = command.args(["netns", "exec", host, "curl", "-s", "-m", "10"]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).to_ascii_lowercase()
    };
    let by = |seen: &str, field: &str, caller: &str| {
        let line = seen.lines().find(|line| line.contains(field)).unwrap_or_else(|| panic!("{seen}"));
        assert!(line.contains(&format!("uri=spiffe://shop.example/ns/default/svc/{caller}")), "{line}");
    };
    let seen = asks(&shop, &["http://127.0.0.1:9080/hello"]);
    for (field, caller) in [("x-seen-by-web", "gateway"), ("x-seen-by-api", "web"), ("x-forwarded-client-cert", "api")] {
        by(&seen, field, caller);
    }
    let web = format!("{shop}-web");
    by(&asks(&web, &["http://api.default.mesh/hello"]), "x-seen-by-api", "web");
    let post = ["-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "http://127.0.0.1:9080/hello"];
    assert_eq!(asks(&shop, &post), "403");
    assert_eq!(asks(&shop, &["http://10.88.2.2:8080/hello"]), "", "in clear, from nobody");

    script.0.signal("INT");
    assert_eq!(script.0.wait().code(), Some(130), "{}", script.0.output());
    for host in ["", "-data", "-api", "-web"] {
        for folder in ["/run/netns", "/etc/netns"] {
            assert!(!Path::new(folder).join(format!("{shop}{host}")).exists(), "{folder} {host}");
        }
    }
}
