//! What a request and its answer look like on both sides of the gateway, with a real nginx behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::net::SocketAddr;

use heddle_integration::client::{self, Conversation, curl};
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use heddle_integration::raw::{Raw, read_head};
use serde_json::json;

fn in_front_of(upstream: SocketAddr) -> Heddle {
    let heddle = Heddle::run();
    heddle.route("all", "/*", upstream);
    until("the route", || (heddle.get("/").status != 404).then_some(()));
    heddle
}

/// An nginx that tells what it was asked.
fn telling(text: &str) -> Nginx {
    Nginx::start(&format!("location / {{ default_type text/plain; return 200 '{text}'; }}"))
}

#[test]
fn the_upstream_learns_who_asked_and_how() {
    let nginx =
        telling("$http_x_forwarded_for|$http_x_real_ip|$http_x_forwarded_proto|$http_x_forwarded_host|$http_host|$request_uri");
    let heddle = in_front_of(nginx.address);
    let answer =
        client::send(heddle.http, "GET", "/a%20b?x=1", &[("Host", "shop.example"), ("X-Forwarded-For", "6.6.6.6")], b"").unwrap();
    assert_eq!(answer.text(), "127.0.0.1|127.0.0.1|http|shop.example|shop.example|/a%20b?x=1");
}

#[test]
fn fields_that_speak_to_one_hop_stay_there() {
    let nginx = telling("$http_connection|$http_keep_alive|$http_te|$http_x_secret|$http_x_kept");
    let heddle = in_front_of(nginx.address);
    let fields = [("Connection", "close, X-Secret"), ("Keep-Alive", "5"), ("TE", "gzip"), ("X-Secret", "s"), ("X-Kept", "k")];
    let answer = client::send(heddle.http, "GET", "/", &fields, b"").unwrap();
    assert!(answer.text().ends_with("||||k") || answer.text().ends_with("|||k"), "{}", answer.text());
}

#[test]
fn what_the_upstream_answers_is_what_the_client_gets() {
    let nginx = Nginx::start("location / { add_header X-One 1 always; add_header X-One 2 always; return 418 'teapot'; }");
    let heddle = in_front_of(nginx.address);
    let answer = heddle.get("/");
    let ones: Vec<&str> =
        answer.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-one")).map(|(_, value)| &**value).collect();
    assert_eq!((answer.status, answer.text().as_str(), ones), (418, "teapot", vec!["1", "2"]));
}

#[test]
fn head_has_the_length_and_no_body() {
    let nginx = Nginx::start("root .;");
    nginx.write("file.txt", "0123456789");
    let heddle = in_front_of(nginx.address);
    let raw = client::raw(heddle.http, b"HEAD /file.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(raw.to_ascii_lowercase().contains("content-length: 10") && raw.ends_with("\r\n\r\n"), "{raw}");
}

#[test]
fn chunks_and_trailers_pass_from_the_upstream() {
    let upstream = Raw::saying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    let heddle = in_front_of(upstream.address);
    let raw = client::raw(heddle.http, b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n");
    assert!(raw.to_ascii_lowercase().contains("x-sum: 42"), "{raw}");
    assert_eq!(client::parse(raw.as_bytes()).text(), "hello world");
}

#[test]
fn a_chunked_request_body_arrives_whole() {
    let upstream = Raw::start(|stream| {
        let head = read_head(stream);
        let mut body = Vec::new();
        let mut one = [0];
        while !body.ends_with(b"0\r\n\r\n") && std::io::Read::read_exact(stream, &mut one).is_ok() {
            body.push(one[0]);
        }
        let text = format!(
            "{}|{}",
            head.to_ascii_lowercase().contains("transfer-encoding: chunked"),
            String::from_utf8_lossy(&body).len()
        );
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    });
    let heddle = Heddle::run();
    heddle.route("all", "/*", upstream.address);
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{body}");
    let answer = until("the answer", || {
        Some(client::parse(client::raw(heddle.http, request.as_bytes()).as_bytes())).filter(|answer| answer.status == 200)
    });
    assert_eq!(answer.text(), format!("true|{}", body.len()));
}

#[test]
fn a_client_that_expects_100_continue_gets_it_and_then_its_answer() {
    let upstream = Raw::start(|stream| {
        while let head = read_head(stream)
            && !head.is_empty()
        {
            let mut body = [0; 4];
            if head.starts_with("POST") && std::io::Read::read_exact(stream, &mut body).is_err() {
                return;
            }
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{}", String::from_utf8_lossy(&body));
        }
    });
    let heddle = in_front_of(upstream.address);
    let mut client = Conversation::open(heddle.http);
    let interim = client.ask("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(interim.status, 100);
    let answer = client.ask("body");
    assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
}

#[test]
fn early_hints_come_before_the_answer() {
    let upstream = Raw::saying(
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let heddle = in_front_of(upstream.address);
    let mut client = Conversation::open(heddle.http);
    let hints = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((hints.status, hints.field("link")), (103, Some("</style.css>; rel=preload")));
    assert_eq!(client.hear().text(), "ok");
}

#[test]
fn many_requests_in_one_write_are_answered_in_order() {
    let nginx = telling("$request_uri");
    let heddle = in_front_of(nginx.address);
    let mut client = Conversation::open(heddle.http);
    let all: String = (0..20).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.say(all.as_bytes());
    (0..20).for_each(|i| assert_eq!(client.hear().text(), format!("/{i}")));
}

#[test]
fn the_address_in_a_proxy_header_is_the_clients() {
    let nginx = telling("$http_x_real_ip");
    let heddle = Heddle::run_with(Setup { listener: ", proxy_protocol: on".into(), ..Setup::default() });
    heddle.route("all", "/*", nginx.address);
    let ask =
        |header: &[u8]| client::raw(heddle.http, &[header, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat());
    until("the route", || ask(b"PROXY TCP4 203.0.113.7 127.0.0.1 4444 80\r\n").ends_with("203.0.113.7").then_some(()));
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x11\x5c\0\x50";
    assert!(ask(v2).ends_with("2001:db8::1"), "{}", ask(v2));
    assert_eq!(ask(b""), "", "a client without the header is cut");
}

#[test]
fn a_listener_can_be_on_ipv6() {
    let nginx = telling("$http_x_real_ip");
    let heddle = in_front_of(nginx.address);
    let Ok(free) = std::net::TcpListener::bind("[::1]:0") else { return };
    let address = free.local_addr().unwrap();
    drop(free);
    heddle.put("/listeners/six", json!({ "name": "six", "address": address.to_string(), "protocol": "http" }));
    let answer = until("the listener", || client::get(address, "/").ok().filter(|answer| answer.status == 200));
    assert_eq!(answer.text(), "::1");
}

#[test]
fn curl_speaks_every_version_in_clear() {
    let nginx = telling("hello");
    let heddle = in_front_of(nginx.address);
    let url = format!("http://{}/", heddle.http);
    for (flag, version) in [("--http1.0", "1.1"), ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let answer = curl(&[flag, "-w", "|%{http_version}|%{http_code}", &url]);
        assert!(answer == format!("hello|{version}|200") || answer == "hello|1.0|200", "{flag}: {answer}");
    }
}

#[test]
fn routes_are_found_by_host_method_and_expression() {
    let (one, two) = (Nginx::saying("one"), Nginx::saying("two"));
    let heddle = Heddle::run();
    let to = |nginx: &Nginx| json!({ "nodes": { nginx.address.to_string(): 1 } });
    heddle.put("/routes/host", json!({ "uri": "/*", "host": "*.shop.example", "upstream": to(&one) }));
    heddle.put(
        "/routes/vars",
        json!({ "uri": "/*", "vars": [["arg_who", "==", "two"]], "methods": ["GET"], "upstream": to(&two) }),
    );
    heddle.until_status("/?who=two", 200);
    let ask = |host: &str, target: &str| client::send(heddle.http, "GET", target, &[("Host", host)], b"").unwrap();
    assert_eq!(ask("a.shop.example", "/").text(), "one");
    assert_eq!(ask("b.example", "/?who=two").text(), "two");
    assert_eq!(ask("b.example", "/?who=three").status, 404);
    assert_eq!(client::send(heddle.http, "POST", "/?who=two", &[], b"").unwrap().status, 404);
}

#[test]
fn nobody_knows_the_way_is_404_in_apisix_words() {
    let heddle = Heddle::run();
    let answer = heddle.get("/nowhere");
    assert_eq!((answer.status, answer.json()), (404, json!({ "error_msg": "404 Route Not Found" })));
}
