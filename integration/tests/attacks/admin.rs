//! The Admin API and the agent's own endpoint: who has no key, who was tricked into asking, and who sends too much.

use heddle_integration::attack::raw::Door;
use heddle_integration::client;
use heddle_integration::heddle::{Heddle, KEY};

/// Status of a request as it stands.
fn ask(address: std::net::SocketAddr, request: &str) -> u16 {
    let mut raw = Door::plain(address).open();
    raw.send(request);
    raw.answer(request.starts_with("HEAD")).map_or(0, |answer| answer.status)
}

fn verb(method: &str, path: &str, fields: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n{fields}\r\n")
}

#[test]
fn without_a_key_nothing_is_told_or_done() {
    let heddle = Heddle::run();
    let paths = [
        "/apisix/admin/routes",
        "/admin/routes/1",
        "/apisix/admin/ssls",
        "/admin/status",
        "/admin/history",
        "/admin/nodes",
        "/apisix/admin/secrets/vault/1",
    ];
    for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO", "get"] {
        for path in paths {
            for fields in ["", "X-API-KEY: \r\n", "X-API-KEY: edd1c9f034335f136f87ad84b625c8f1\r\n", "Cookie: x_api_key=\r\n"] {
                let status = ask(heddle.admin, &verb(method, path, fields));
                let told = method == "HEAD" && path == "/apisix/admin" || method == "OPTIONS" && status == 200;
                assert!(matches!(status, 401 | 403 | 404 | 405 | 429) || told, "{method} {path} {fields:?}: {status}");
            }
        }
    }
    for path in [
        "//admin/routes",
        "/apisix//admin/routes",
        "/x/../admin/routes",
        "/apisix/admin/%72outes",
        "/apisix/admin/routes/",
        "/APISIX/admin/routes",
    ] {
        let status = ask(heddle.admin, &verb("GET", path, ""));
        assert!(matches!(status, 401 | 404 | 429), "{path}: {status}");
    }
    let viewer = "X-API-KEY: viewer-key\r\n";
    for method in ["PUT", "POST", "PATCH", "DELETE"] {
        assert!(matches!(ask(heddle.admin, &verb(method, "/apisix/admin/routes/1", viewer)), 401 | 403 | 429), "{method}");
    }
}

#[test]
fn browsers_that_were_tricked_change_nothing() {
    let heddle = Heddle::run();
    let body = "{\"uri\":\"/x\"}";
    let put = |host: &str, fields: &str| {
        let target = format!("/apisix/admin/routes/1?api_key={KEY}");
        ask(
            heddle.admin,
            &format!("PUT {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len()),
        )
    };
    assert_eq!(put("evil.example", ""), 403, "a rebound name");
    assert_eq!(put("127.0.0.1", "Origin: http://evil.example\r\n"), 403, "a foreign page");
    assert_eq!(put("127.0.0.1", "Content-Type: text/plain\r\n"), 415);
    let drain = |host: &str, fields: &str| {
        ask(heddle.agent, &format!("POST /drain HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{fields}\r\n"))
    };
    assert_eq!(drain("evil.example", ""), 403);
    assert_eq!(drain("127.0.0.1", "Origin: http://evil.example\r\n"), 403);
    assert_eq!(drain("127.0.0.1", "Sec-Fetch-Site: cross-site\r\n"), 403);
    for path in ["/ready", "/metrics", "/config_dump"] {
        assert_eq!(ask(heddle.agent, &format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n")), 403, "{path}");
        assert_eq!(ask(heddle.agent, &verb("POST", path, "")), 405, "{path}");
    }
    assert_eq!(ask(heddle.agent, &verb("GET", "/drain", "")), 405);
    assert_eq!(client::get(heddle.agent, "/ready").map(|answer| answer.status).unwrap(), 200);
}

#[test]
fn large_and_deep_bodies_are_refused_and_the_api_goes_on() {
    let heddle = Heddle::run();
    let put = |body: &[u8]| {
        let fields = [("X-API-KEY", KEY), ("Content-Type", "application/json")];
        client::send(heddle.admin, "PUT", "/apisix/admin/routes/1", &fields, body).map_or(0, |answer| answer.status)
    };
    let deep = |open: &str, close: &str| format!("{{\"uri\":\"/x\",\"vars\":{}{}}}", open.repeat(10_000), close.repeat(10_000));
    for (name, body) in [
        ("deep arrays", deep("[", "]").into_bytes()),
        ("deep objects", deep("{\"a\":", "1}").into_bytes()),
        ("a number beyond range", b"{\"uri\":\"/x\",\"priority\":1e400}".to_vec()),
        ("invalid UTF-8", b"{\"uri\":\"/\xff\"}".to_vec()),
        ("half", b"{\"uri\":\"/x\"".to_vec()),
        ("an array", b"[]".to_vec()),
        ("a regex that explodes", br#"{"uri":"/x","vars":[["uri","~~","((a{1000}){1000}){1000}"]]}"#.to_vec()),
    ] {
        assert_eq!(put(&body), 400, "{name}");
    }
    let huge = format!(
        "PUT /apisix/admin/routes/1 HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-KEY: {KEY}\r\nContent-Length: 1000000000\r\n\r\n"
    );
    assert!(matches!(ask(heddle.admin, &huge), 0 | 413), "a gigabyte was announced");
    // One that is announced and never comes holds nobody else up.
    let mut slow = Door::plain(heddle.admin).open();
    slow.send(format!(
        "PUT /apisix/admin/routes/1 HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-KEY: {KEY}\r\nContent-Length: 10\r\n\r\n{{"
    ));
    heddle.put(
        "/routes/2",
        serde_json::json!({ "uri": "/x", "plugins": { "fault-injection": { "abort": { "http_status": 200 } } } }),
    );
    heddle.until_status("/x", 200);
}
