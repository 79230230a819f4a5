//! Paths: what is matched is what is forwarded, and nothing climbs into a route that it does not match.

use heddle_integration::attack::frames::{END_STREAM, Fate, Frames, request};
use heddle_integration::attack::raw::Door;
use serde_json::json;

use super::ground::{Ground, HOST};

/// What a path becomes; `None` is 400.
const PATHS: &[(&str, Option<&str>)] = &[
    ("/open/a", Some("/open/a")),
    ("/open/../secret/a", Some("/secret/a")),
    ("/open/%2e%2e/secret/a", Some("/secret/a")),
    ("/open/%2E%2e/secret/a", Some("/secret/a")),
    ("/open/.%2e/secret/a", Some("/secret/a")),
    ("/open/./../secret/./a", Some("/secret/a")),
    ("//secret/a", Some("/secret/a")),
    ("/open//..//secret/a", Some("/secret/a")),
    ("/%73ecret/a", Some("/secret/a")),
    ("/secret/a%41", Some("/secret/aA")),
    ("/open/a%c3%a9", Some("/open/a%C3%A9")),
    ("/open/%252e%252e/secret/a", Some("/open/%252e%252e/secret/a")),
    ("/open/..%2fsecret/a", None),
    ("/open/..%2Fsecret/a", None),
    ("/open/..%5csecret/a", None),
    ("/open/..\\secret/a", None),
    ("/open/..;/secret/a", None),
    ("/open/..;x=y/secret/a", None),
    ("/open/..%3b/secret/a", None),
    ("/open/.;/secret/a", None),
    ("/open/a%00", None),
    ("/open/a%0a", None),
    ("/open/a%0d%0aX:y", None),
    ("/open/a%7f", None),
    ("/open/a%", None),
    ("/open/a%4", None),
    ("/open/a%zz", None),
    ("/open/a%u002e", None),
    ("/../secret/a", None),
    ("/open/../../secret/a", None),
    ("/open/%2e%2e/%2e%2e/secret/a", None),
    ("/open/%c0%ae%c0%ae/a", Some("/open/%C0%AE%C0%AE/a")),
    ("/open/a;b=c", Some("/open/a;b=c")),
    ("/open/...", Some("/open/...")),
];

fn ground() -> Ground {
    let ground = Ground::new();
    let blocked = json!({ "fault-injection": { "abort": { "http_status": 403 } } });
    let upstream = json!({ "nodes": { ground.origin.address.to_string(): 1 } });
    ground.heddle.put("/routes/secret", json!({ "uri": "/secret/*", "plugins": blocked, "upstream": upstream }));
    ground.heddle.until_status("/secret/x", 403);
    ground
}

/// 403 for what the secret route holds, 400 for what has no one reading, and else the path that is forwarded.
fn expected(becomes: Option<&str>) -> u16 {
    becomes.map_or(400, |path| if path.starts_with("/secret") { 403 } else { 200 })
}

#[test]
fn a_path_is_matched_as_it_is_forwarded() {
    let ground = ground();
    for (path, becomes) in PATHS {
        for form in [path.to_string(), format!("http://{HOST}{path}")] {
            let before = ground.origin.count();
            let mut raw = Door::plain(ground.heddle.http).open();
            raw.send(format!("GET {form}?q=../%2f HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
            let status = raw.answer(false).map(|answer| answer.status);
            assert_eq!(status, Some(expected(*becomes)), "{form}");
            if status == Some(200) {
                let target = format!("{}?q=../%2f", becomes.unwrap());
                assert_eq!(
                    ground.origin.seen(&target).len(),
                    1 + usize::from(form != *path),
                    "{form} was not forwarded as {target}"
                );
            } else {
                assert_eq!(ground.origin.count(), before, "{form} reached the origin");
            }
        }
    }
    ground.check(Vec::new());
}

#[test]
fn over_http2_a_path_is_read_alike() {
    let ground = ground();
    for (path, becomes) in PATHS.iter().filter(|(path, _)| !path.contains('\\')) {
        let mut frames = Frames::open(&ground.plain);
        frames.headers(END_STREAM, 1, &request("GET", path));
        assert_eq!(frames.fate(1), Fate::Status(expected(*becomes)), "{path}");
    }
    ground.check(Vec::new());
}

#[test]
fn a_certificate_is_demanded_for_the_path_that_is_served() {
    let ground = Ground::new();
    let pair = ground.authority.issue(&[HOST]);
    let client = json!({ "ca": ground.authority.pem(), "depth": 1, "skip_mtls_uri_regex": ["^/open/"] });
    ground.heddle.put("/ssls/main", json!({ "snis": [HOST], "cert": pair.certificate, "key": pair.key, "client": client }));
    let door = Door::tls(ground.heddle.https, ground.authority.client(), HOST);
    let status = |path: &str| {
        let mut raw = door.open();
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        raw.answer(false).map(|answer| answer.status)
    };
    heddle_integration::process::until("TLS to be served", || status("/open/a").filter(|status| *status == 200));
    for path in ["/secret", "/open", "/open/../secret", "/open/%2e%2e/secret", "/x/open/", "//secret?/open/", "/SECRET/open/"] {
        assert_eq!(status(path), Some(400), "{path}");
    }
    assert!(ground.origin.seen("/secret").is_empty());
    ground.check(Vec::new());
}

#[test]
fn a_connection_of_one_name_does_not_serve_another_with_its_own_demands() {
    let ground = Ground::new();
    let (pair, other) = (ground.authority.issue(&[HOST]), ground.authority.issue(&["strict.example"]));
    let client = json!({ "ca": ground.authority.pem() });
    ground.heddle.put(
        "/ssls/strict",
        json!({ "snis": ["strict.example"], "cert": other.certificate, "key": other.key, "client": client }),
    );
    ground.heddle.put("/ssls/main", json!({ "snis": [HOST], "cert": pair.certificate, "key": pair.key }));
    ground.until_tls();
    for host in ["strict.example", "STRICT.example:443", "strict.example."] {
        let mut raw = Door::tls(ground.heddle.https, ground.authority.client(), HOST).open();
        raw.send(format!("GET /strict HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(raw.answer(false).map(|answer| answer.status), Some(421), "{host}");
    }
    assert!(ground.origin.seen("/strict").is_empty());
    ground.check(Vec::new());
}

#[test]
fn a_listener_that_has_been_removed_still_reads_paths_strictly() {
    let ground = ground();
    let door = ground.doors()[2].clone();
    let mut raw = door.open();
    super::ground::follow(&mut raw, "/open").unwrap();
    let answer = ground.heddle.admin("DELETE", "/listeners/proxied", serde_json::Value::Null);
    assert_eq!(answer.status, 200, "{}", answer.text());
    heddle_integration::process::until("the listener to close", || std::net::TcpStream::connect(door.address).err());
    // Connections that are open have a moment left for requests on their way.
    raw.send(format!("GET /open/../secret/a HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(raw.answer(false).map(|answer| answer.status), Some(403));
    assert!(ground.origin.seen("/open/..").is_empty());
    ground.check(Vec::new());
}
