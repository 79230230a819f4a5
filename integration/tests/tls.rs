//! TLS towards clients: certificates by name that come, change and go at run time, client certificates, and real clients of HTTP/2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use heddle_integration::certificates::{Authority, Pair};
use heddle_integration::client::curl;
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::{Value, json};

struct Story {
    heddle: Heddle,
    authority: Authority,
    _nginx: Nginx,
}

impl Story {
    fn new() -> Story {
        let (heddle, authority, nginx) = (Heddle::run(), Authority::new(), Nginx::saying("hello"));
        heddle.route("all", "/*", nginx.address);
        heddle.until_status("/", 200);
        heddle.place.write("ca.pem", &authority.pem());
        Story { heddle, authority, _nginx: nginx }
    }

    fn put(&self, id: &str, names: &[&str]) -> Pair {
        let pair = self.authority.issue(names);
        self.heddle.put(&format!("/ssls/{id}"), json!({ "snis": names, "cert": pair.certificate, "key": pair.key }));
        pair
    }

    /// curl over TLS to this name; standard output, or the exit code.
    fn ask(&self, name: &str, more: &[&str]) -> Result<String, i32> {
        let (port, ip) = (self.heddle.https.port(), self.heddle.https.ip());
        let resolve = format!("{name}:{port}:{ip}");
        let ca = self.heddle.place.path("ca.pem");
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "20", "--resolve", &resolve, "--cacert"])
            .arg(ca)
            .args(more)
            .arg(format!("https://{name}:{port}/"))
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(output.status.code().unwrap_or(-1))
        }
    }

    fn until_ok(&self, name: &str) {
        until(&format!("TLS to {name}"), || self.ask(name, &[]).ok());
    }

    /// The serial number of the certificate that this name gets.
    fn serial(&self, name: &str) -> String {
        let address = self.heddle.https.to_string();
        let shell = format!(
            "openssl s_client -connect {address} -servername {name} </dev/null 2>/dev/null | openssl x509 -noout -serial"
        );
        let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn certificates_are_chosen_by_name_and_come_and_go_at_run_time() {
    let story = Story::new();
    assert!(story.ask("one.example", &[]).is_err(), "no certificate yet");
    story.put("one", &["one.example"]);
    story.put("wild", &["*.two.example"]);
    story.until_ok("one.example");
    story.until_ok("a.two.example");
    assert!(story.ask("a.b.two.example", &[]).is_err(), "a wildcard is one label");
    let before = story.serial("one.example");
    story.put("one", &["one.example"]);
    until("the new certificate", || (story.serial("one.example") != before).then_some(()));
    assert_eq!(story.heddle.admin("DELETE", "/ssls/one", Value::Null).status, 200);
    until("the certificate to go", || story.ask("one.example", &[]).err());
    assert_eq!(story.ask("a.two.example", &[]).as_deref(), Ok("hello"));
}

#[test]
fn curl_negotiates_http_2_and_both_tls_versions() {
    let story = Story::new();
    story.put("one", &["one.example"]);
    story.until_ok("one.example");
    let told = |arguments: &[&str]| story.ask("one.example", &[arguments, &["-w", "|%{http_version}"]].concat());
    assert_eq!(told(&["--http2"]).as_deref(), Ok("hello|2"));
    assert_eq!(told(&["--http1.1"]).as_deref(), Ok("hello|1.1"));
    assert_eq!(told(&["--tls-max", "1.2"]).as_deref(), Ok("hello|2"));
    assert_eq!(told(&["--tlsv1.3"]).as_deref(), Ok("hello|2"));
    assert!(told(&["--tls-max", "1.1"]).is_err());
}

#[test]
fn a_client_certificate_is_demanded_where_the_name_says_so() {
    let story = Story::new();
    let (server, clients) = (story.authority.issue(&["mtls.example"]), Authority::new());
    let client = clients.issue(&["alice.example"]);
    let stranger = Authority::new().issue(&["alice.example"]);
    story.heddle.put(
        "/ssls/mtls",
        json!({ "snis": ["mtls.example"], "cert": server.certificate, "key": server.key, "client": { "ca": clients.pem() } }),
    );
    story.put("open", &["open.example"]);
    story.until_ok("open.example");
    let files = |name: &str, pair: &Pair| {
        let certificate = story.heddle.place.write(&format!("{name}.pem"), &pair.certificate).display().to_string();
        let key = story.heddle.place.write(&format!("{name}.key"), &pair.key).display().to_string();
        ["--cert".to_owned(), certificate, "--key".to_owned(), key]
    };
    let with = |files: &[String; 4]| story.ask("mtls.example", &files.each_ref().map(String::as_str));
    let alice = files("alice", &client);
    until("the mTLS name", || with(&alice).ok());
    assert!(with(&files("stranger", &stranger)).is_err());
    assert!(story.ask("mtls.example", &[]).is_err());
}

#[test]
fn clients_are_limited_by_the_certificate_that_they_have_shown_and_not_by_what_they_say() {
    let story = Story::new();
    let (server, clients) = (story.authority.issue(&["mtls.example"]), Authority::new());
    story.heddle.put(
        "/ssls/mtls",
        json!({ "snis": ["mtls.example"], "cert": server.certificate, "key": server.key, "client": { "ca": clients.pem() } }),
    );
    let files = ["alice", "bob"].map(|name| {
        let pair = clients.issue(&[name]);
        let write = |ending: &str, text: &str| story.heddle.place.write(&format!("{name}.{ending}"), text).display().to_string();
        ["--cert".to_owned(), write("pem", &pair.certificate), "--key".to_owned(), write("key", &pair.key)]
    });
    let [alice, bob] = files.each_ref().map(|files| files.each_ref().map(String::as_str));
    until("the mTLS name", || story.ask("mtls.example", &alice).ok());
    let limit =
        json!({ "count": 2, "time_window": 3600, "key": "ssl_client_s_dn", "rejected_code": 429, "rejected_msg": "enough" });
    let nodes = json!({ story._nginx.address.to_string(): 1 });
    story.heddle.put("/routes/all", json!({ "uri": "/*", "plugins": { "limit-count": limit }, "upstream": { "nodes": nodes } }));
    let enough = |told: Result<String, i32>| told.unwrap().contains("enough");
    until("alice to have had her share", || enough(story.ask("mtls.example", &alice)).then_some(()));
    let says = ["-H", "ssl_client_s_dn: CN=bob", "-H", "X-Forwarded-Client-Cert: Subject=\"CN=bob\""];
    assert!(enough(story.ask("mtls.example", &[&alice[..], &says[..]].concat())));
    let shares = [(); 3].map(|()| enough(story.ask("mtls.example", &bob)));
    assert_eq!(shares, [false, false, true]);
}

#[test]
fn a_keep_alive_connection_survives_the_change_of_its_certificate() {
    use std::io::{Read, Write};
    let story = Story::new();
    story.put("one", &["one.example"]);
    story.until_ok("one.example");
    let name = rustls::pki_types::ServerName::try_from("one.example").unwrap();
    let session = rustls::ClientConnection::new(story.authority.client(), name).unwrap();
    let mut stream = rustls::StreamOwned::new(session, std::net::TcpStream::connect(story.heddle.https).unwrap());
    let mut ask = || {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n").unwrap();
        let (mut bytes, mut one) = (Vec::new(), [0]);
        while !bytes.ends_with(b"hello") {
            stream.read_exact(&mut one).unwrap();
            bytes.push(one[0]);
        }
    };
    ask();
    let before = story.serial("one.example");
    story.put("one", &["one.example"]);
    until("the new certificate", || (story.serial("one.example") != before).then_some(()));
    ask();
}

/// Runs h2load; all requests must succeed.
fn h2load(arguments: &[&str]) {
    let output = Command::new("h2load").args(arguments).output().expect("h2load is installed (nghttp2-client)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("0 failed, 0 errored, 0 timeout") && text.contains("status codes: 2000 2xx"), "{text}");
}

#[test]
fn h2load_sees_no_failed_request() {
    let story = Story::new();
    story.put("one", &["one.example"]);
    story.until_ok("one.example");
    let clear = format!("http://{}/", story.heddle.http);
    h2load(&["-n", "2000", "-c", "8", "-m", "16", &clear]);
    h2load(&["-n", "2000", "-c", "8", "--h1", &clear]);
    let (host, port) = (story.heddle.https.ip().to_string(), story.heddle.https.port());
    let connect = format!("--connect-to={host}:{port}");
    h2load(&["-n", "2000", "-c", "8", "-m", "16", &connect, &format!("https://one.example:{port}/")]);
}

#[test]
fn the_metrics_tell_when_a_certificate_ends() {
    let story = Story::new();
    story.put("one", &["one.example"]);
    until("the metric", || {
        story.heddle.metrics().contains("heddle_certificate_expiry_timestamp_seconds{ssl=\"one\"}").then_some(())
    });
    let answer = curl(&["-H", "Host: one.example", &format!("http://{}/", story.heddle.http)]);
    assert_eq!(answer, "hello");
}
