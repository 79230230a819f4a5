//! What changes requests and responses, on real processes: compression read by curl, streams that are not held back, bodies made anew, mocks and error pages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use heddle_integration::client::{self, Answer, curl};
use heddle_integration::heddle::Heddle;
use heddle_integration::nginx::Nginx;
use heddle_integration::raw::{Raw, read_head};
use serde_json::{Value, json};

/// Puts route `/p/*` with these plugins and waits until it is effective.
fn route(heddle: &Heddle, address: std::net::SocketAddr, plugins: Value) {
    heddle.put("/routes/p", json!({ "uri": "/p/*", "plugins": plugins, "upstream": { "nodes": { address.to_string(): 1 } } }));
    heddle.until_effective();
}

/// An upstream that answers with the request as it came, head and body.
fn mirror() -> Raw {
    Raw::start(|stream| {
        loop {
            let head = read_head(stream);
            if head.is_empty() {
                return;
            }
            let length = client::head(head.trim_end().as_bytes()).field("content-length").and_then(|text| text.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).unwrap();
            say(stream, "200 OK", "text/plain", &[head.as_bytes(), &body].concat());
        }
    })
}

fn say(stream: &mut TcpStream, status: &str, media: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
}

fn ask(heddle: &Heddle, method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    client::send(heddle.http, method, target, fields, body.as_bytes()).unwrap()
}

#[test]
fn real_clients_read_every_coding() {
    let text = (0..40_000).map(|number| format!("line {number} of a long page\n")).collect::<String>();
    let nginx = Nginx::start("location / { root .; types {} default_type text/html; }");
    nginx.write("p/page", &text);
    let heddle = Heddle::run();
    route(&heddle, nginx.address, json!({ "gzip": { "vary": true }, "brotli": {}, "zstd": {} }));
    let url = format!("http://{}/p/page", heddle.http);
    for (accept, coding) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, br, zstd", "zstd"),
        ("gzip, br", "br"),
        ("gzip, br;q=0.5, zstd;q=0.1", "gzip"),
    ] {
        let answer = ask(&heddle, "GET", "/p/page", &[("Accept-Encoding", accept)], "");
        assert_eq!((answer.field("content-encoding"), answer.field("vary")), (Some(coding), Some("Accept-Encoding")), "{accept}");
        assert!(answer.body.len() < text.len() / 3, "{accept}: {}", answer.body.len());
        assert!(answer.field("etag").is_none_or(|etag| etag.starts_with("W/")) && answer.field("accept-ranges").is_none());
        let read = curl(&["--compressed", "-H", &format!("Accept-Encoding: {accept}"), &url]);
        assert!(read == text, "{accept}: curl reads {} of {} bytes", read.len(), text.len());
    }
    let plain = ask(&heddle, "GET", "/p/page", &[("Accept-Encoding", "identity")], "");
    assert_eq!((plain.field("content-encoding"), plain.body.len()), (None, text.len()));
    let part = ask(&heddle, "GET", "/p/page", &[("Accept-Encoding", "gzip"), ("Range", "bytes=0-9")], "");
    assert_eq!((part.status, part.field("content-encoding"), part.body.len()), (206, None, 10));
    assert_eq!(ask(&heddle, "HEAD", "/p/page", &[("Accept-Encoding", "gzip")], "").field("content-encoding"), None);
}

#[test]
fn compressed_events_are_not_held_back() {
    for (plugin, coding) in [("gzip", "gzip"), ("brotli", "br"), ("zstd", "zstd")] {
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let events = Raw::start(move |stream| {
            read_head(stream);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes()).unwrap();
            wait.lock().unwrap().recv().unwrap();
            stream.write_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n").unwrap();
        });
        let heddle = Heddle::run();
        route(&heddle, events.address, json!({ plugin: { "types": ["text/event-stream"] } }));
        let accept = format!("Accept-Encoding: {coding}");
        let url = format!("http://{}/p/events", heddle.http);
        let arguments = ["-sSN", "--max-time", "30", "--compressed", "-H", &accept, &url];
        let mut reader = Command::new("curl").args(arguments).stdout(Stdio::piped()).spawn().expect("curl is installed");
        let mut output = reader.stdout.take().unwrap();
        let mut event = [0; 9];
        output.read_exact(&mut event).unwrap();
        assert_eq!(&event, b"data: 1\n\n", "{plugin}: before the second event is there");
        go.send(()).unwrap();
        output.read_exact(&mut event).unwrap();
        assert_eq!(&event, b"data: 2\n\n", "{plugin}");
        assert!(reader.wait().unwrap().success());
    }
}

#[test]
fn what_is_compressed_is_what_all_others_have_made_of_it() {
    let heddle = Heddle::run();
    let page =
        Raw::saying("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 27\r\n\r\nabcdefghijklmnopqrstuvwxyz\n");
    heddle.put("/global_rules/all", json!({ "plugins": { "gzip": { "types": "*" } } }));
    let rewritten = json!({ "filters": [{ "regex": "abc", "replace": "123" }] });
    route(
        &heddle,
        page.address,
        json!({ "response-rewrite": rewritten, "echo": { "after_body": "end" }, "brotli": { "min_length": 5 } }),
    );
    let url = format!("http://{}/p/x", heddle.http);
    for (accept, coding) in [("gzip", "gzip"), ("gzip, br", "br"), ("gzip, br;q=0.5", "gzip")] {
        let read = curl(&["-i", "--compressed", "-H", &format!("Accept-Encoding: {accept}"), &url]);
        assert!(read.to_ascii_lowercase().contains(&format!("content-encoding: {coding}")), "{accept}: {read}");
        assert!(read.ends_with("123defghijklmnopqrstuvwxyz\nend"), "{accept}: {read}");
    }
}

#[test]
fn bodies_are_made_anew_on_both_sides() {
    let upstream = mirror();
    let heddle = Heddle::run();
    let request = json!({ "template": "<p name=\"{{name}}\">{% for i, tag in ipairs(tags) do %}<t>{{tag}}</t>{% end %}</p>" });
    let response = json!({ "input_format": "plain", "template": "{\"body\": {*_escape_json(_body)*}}" });
    let plugins = json!({ "body-transformer": { "request": request, "response": response, "max_req_body_size": 100 } });
    route(&heddle, upstream.address, plugins);
    let ask = |media: &str, body: &str| ask(&heddle, "POST", "/p/x", &[("Content-Type", media)], body);
    let answer = ask("application/json", "{\"name\": \"a&b\", \"tags\": [1, 2]}");
    let seen = answer.json()["body"].as_str().unwrap().to_owned();
    assert!(
        seen.ends_with("\r\n\r\n<p name=\"a&amp;b\"><t>1</t><t>2</t></p>")
            && seen.to_ascii_lowercase().contains("content-length: 38"),
        "{seen}"
    );
    let (_, from_xml) = ask("text/xml", "<name>x</name>").json()["body"]
        .as_str()
        .unwrap()
        .split_once("\r\n\r\n")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_eq!(from_xml, "<p name=\"x\"></p>");
    assert_eq!(ask("application/json", "{").status, 400);
    assert_eq!(ask("text/xml", "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>").status, 400);
    assert_eq!(ask("application/json", &format!("\"{}\"", "x".repeat(200))).status, 413);
    route(
        &heddle,
        upstream.address,
        json!({ "body-transformer": { "response": { "input_format": "json", "template": "{{a}}" } } }),
    );
    assert_eq!(ask("text/plain", "x").status, 502, "the mirror does not answer with JSON");
}

#[test]
fn plain_requests_become_queries_of_graphql() {
    let upstream = mirror();
    let heddle = Heddle::run();
    let query = "query q($id: ID) { person(id: $id) { name } }";
    route(&heddle, upstream.address, json!({ "degraphql": { "query": query, "variables": ["id"] } }));
    for (method, target, body) in [("GET", "/p/x?id=7", ""), ("POST", "/p/x", "{\"id\": \"7\", \"other\": 1}")] {
        let seen = ask(&heddle, method, target, &[], body).text();
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /p/x") && head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), json!({ "query": query, "variables": { "id": "7" } }));
    }
    assert_eq!(ask(&heddle, "PUT", "/p/x", &[], "").status, 405);
}

#[test]
fn mocks_answer_without_an_upstream() {
    let heddle = Heddle::run();
    let responses = json!({ "200": { "content": { "application/json": { "example": { "name": "Rex" } } } } });
    let document = json!({ "openapi": "3.0.3", "servers": [{ "url": "/api" }], "paths": { "/pets/{id}": { "get": { "responses": responses } } } });
    heddle.put(
        "/routes/m",
        json!({ "uri": "/api/*", "plugins": { "mocking": { "openapi": document.to_string(), "delay": 0.2 } } }),
    );
    heddle.until_effective();
    let begun = std::time::Instant::now();
    let answer = ask(&heddle, "GET", "/api/pets/7", &[], "");
    assert_eq!((answer.status, answer.field("x-mock-by"), answer.json()), (200, Some("Heddle"), json!({ "name": "Rex" })));
    assert!(begun.elapsed() >= std::time::Duration::from_millis(200));
    assert_eq!(
        (ask(&heddle, "DELETE", "/api/pets/7", &[], "").status, ask(&heddle, "GET", "/api/none", &[], "").status),
        (405, 404)
    );
}

#[test]
fn errors_get_pages_of_their_own() {
    let heddle = Heddle::run();
    let pages = Nginx::start("location / { default_type text/html; return 200 '<h1>$request_uri</h1>'; }");
    let failing = Raw::saying("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy");
    heddle.put("/plugin_metadata/error-page", json!({ "enable": true, "error_404": { "body": "<h1>no such page</h1>" } }));
    heddle.put("/global_rules/pages", json!({ "plugins": { "error-page": {} } }));
    heddle.put("/routes/pages", json!({ "uri": "/errors/*", "upstream": { "nodes": { pages.address.to_string(): 1 } } }));
    let asking =
        json!({ "status": ["500-599"], "query": "/errors/{status}?o={originalStatus}", "status_rewrites": { "503": 500 } });
    route(&heddle, failing.address, json!({ "error-page": asking }));
    let nowhere = ask(&heddle, "GET", "/nowhere", &[], "");
    assert_eq!(
        (nowhere.status, nowhere.field("content-type"), nowhere.text().as_str()),
        (404, Some("text/html"), "<h1>no such page</h1>")
    );
    let busy = ask(&heddle, "GET", "/p/x", &[], "");
    assert_eq!((busy.status, busy.text().as_str()), (500, "<h1>/errors/500?o=503</h1>"));
    assert_eq!((busy.field("retry-after"), busy.field("content-type")), (Some("7"), Some("text/html")));
    heddle.admin("DELETE", "/routes/pages", Value::Null);
    heddle.until_effective();
    let busy = ask(&heddle, "GET", "/p/x", &[], "");
    assert_eq!((busy.status, busy.text().as_str()), (503, "busy"), "without a page the error stays as it is");
}

#[test]
fn what_traefik_does_to_heads_and_paths_is_done() {
    let upstream = mirror();
    let heddle = Heddle::run();
    let headers = json!({ "custom_request_headers": { "X-Added": "1", "X-Gone": "" }, "frame_deny": true, "sts_seconds": 60,
        "ssl_proxy_headers": { "X-Tls": "yes" }, "allowed_hosts": ["a.example"] });
    let paths = json!({ "strip_prefixes": ["/p"], "add_prefix": "/inner" });
    route(&heddle, upstream.address, json!({ "headers": headers, "proxy-rewrite": paths }));
    let fields = [("Host", "a.example"), ("X-Gone", "1"), ("X-Tls", "yes")];
    let answer = ask(&heddle, "GET", "/p/x?q", &fields, "");
    let seen = answer.text().to_ascii_lowercase();
    assert!(
        seen.starts_with("get /inner/x?q ") && seen.contains("x-forwarded-prefix: /p\r\n") && seen.contains("x-added: 1"),
        "{seen}"
    );
    assert!(!seen.contains("x-gone"), "{seen}");
    assert_eq!(answer.field("x-frame-options"), Some("DENY"));
    assert_eq!(answer.field("strict-transport-security"), Some("max-age=60"));
    assert_eq!(ask(&heddle, "GET", "/p/x", &[("Host", "b.example")], "").status, 500);
    route(&heddle, upstream.address, json!({ "redirect": { "scheme": "https", "permanent": true } }));
    let sent = ask(&heddle, "POST", "/p/x?q", &[("Host", "a.example:81")], "");
    assert_eq!((sent.status, sent.field("location")), (308, Some("https://a.example/p/x?q")));
}
