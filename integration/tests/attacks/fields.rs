//! Request lines, fields and hosts that servers read differently, and fields that must not pass or must not be believed.

use heddle_integration::attack::origin::Seen;
use heddle_integration::attack::raw::Door;
use serde_json::json;

use super::ground::{Case, Ground, HOST, get, refused, served};

const BAD: &[u16] = &[400];

fn line(name: &'static str, status: &'static [u16], line: &str) -> Case {
    refused(name, status, format!("{line}\r\nHost: {HOST}\r\n\r\nGET {{p}}/smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
}

fn lines() -> Vec<Case> {
    vec![
        line("two blanks before the target", BAD, "GET  {p} HTTP/1.1"),
        line("two blanks before the version", BAD, "GET {p}  HTTP/1.1"),
        line("tab", BAD, "GET\t{p}\tHTTP/1.1"),
        line("blank at the end", BAD, "GET {p} HTTP/1.1 "),
        line("blank at the start", BAD, " GET {p} HTTP/1.1"),
        line("words too many", BAD, "GET {p} x HTTP/1.1"),
        line("HTTP/0.9", BAD, "GET {p}"),
        line("lower-case version", BAD, "GET {p} http/1.1"),
        line("version with blank", BAD, "GET {p} HTTP/1. 1"),
        line("version without minor", BAD, "GET {p} HTTP/1"),
        line("version of two digits", BAD, "GET {p} HTTP/1.10"),
        line("version with zero", BAD, "GET {p} HTTP/01.1"),
        line("no version", BAD, "GET {p} "),
        line("another protocol", BAD, "GET {p} ICAP/1.1"),
        line("HTTP/2.0", &[505], "GET {p} HTTP/2.0"),
        line("HTTP/1.2", &[505], "GET {p} HTTP/1.2"),
        line("HTTP/9.9", &[505], "GET {p} HTTP/9.9"),
        line("method with brackets", BAD, "GE(T {p} HTTP/1.1"),
        line("method with slash", BAD, "GET/x {p} HTTP/1.1"),
        line("method with NUL", BAD, "GE\0T {p} HTTP/1.1"),
        line("no method", BAD, " {p} HTTP/1.1"),
        line("method without end", BAD, "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJ {p} HTTP/1.1"),
        line("fragment", BAD, "GET {p}#x HTTP/1.1"),
        line("NUL in the target", BAD, "GET {p}\0 HTTP/1.1"),
        line("CR in the target", BAD, "GET {p}\rx HTTP/1.1"),
        line("byte beyond ASCII in the target", BAD, "GET {p}\u{e9} HTTP/1.1"),
        line("relative target", BAD, "GET x{p} HTTP/1.1"),
        line("asterisk for GET", BAD, "GET * HTTP/1.1"),
        line("authority form", BAD, "GET test.example:80 HTTP/1.1"),
        line("other scheme", BAD, "GET ftp://test.example{p} HTTP/1.1"),
        line("absolute form of another host", BAD, "GET http://evil.example{p} HTTP/1.1"),
        line("absolute form with user", BAD, "GET http://test.example@evil.example{p} HTTP/1.1"),
        line("absolute form without host", BAD, "GET http://{p} HTTP/1.1"),
        line("plain CONNECT", &[405], "CONNECT test.example:443 HTTP/1.1"),
        refused("a request line that ends with LF", BAD, format!("GET {{p}} HTTP/1.1\nHost: {HOST}\r\n\r\n")),
        refused("a head that ends with LF", BAD, format!("GET {{p}} HTTP/1.1\r\nHost: {HOST}\r\n\n")),
        refused("many blank lines", BAD, format!("\r\n\r\n\r\n\r\nGET {{p}} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
        refused("TLS on a clear port", BAD, "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03"),
        served("a blank line before", &["GET /a"], format!("\r\n{}", get(""))),
        served("absolute form", &["GET /a?q"], format!("GET http://TEST.example{{p}}/a?q HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
        served("a method that nobody knows", &["PURGE /a"], format!("PURGE {{p}}/a HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
    ]
}

fn names_and_values() -> Vec<Case> {
    let bad = |name, field: &str| refused(name, BAD, get(&format!("{field}\r\n")));
    let many: String = (0..101).map(|n| format!("X-{n}: y\r\n")).collect();
    let options: String = (0..60).map(|n| format!("x{n}, ")).collect();
    vec![
        bad("blank before the colon", "X : y"),
        bad("folded", "X: y\r\n z"),
        bad("folded with tab", "X: y\r\n\tz"),
        bad("no colon", "X"),
        bad("no name", ": y"),
        bad("NUL in a value", "X: y\0z"),
        bad("CR in a value", "X: y\rz"),
        bad("LF in a value", "X: y\nz"),
        bad("escape in a value", "X: \x1b[2J"),
        bad("delete in a value", "X: \x7f"),
        bad("blank in a name", "X Y: z"),
        bad("brackets in a name", "X(Y): z"),
        bad("at sign in a name", "X@: z"),
        bad("byte beyond ASCII in a name", "X\u{e9}: z"),
        bad("options of Connection without end", &format!("Connection: {options}x")),
        refused("a fold before the first field", BAD, format!("GET {{p}} HTTP/1.1\r\n Host: {HOST}\r\n\r\n")),
        refused("too many fields", &[431], get(&many)),
        refused("a field too long", &[431], get(&format!("X: {}\r\n", "y".repeat(33 * 1024)))),
        refused(
            "a head too long",
            &[431],
            get(&(0..10).map(|n| format!("X-{n}: {}\r\n", "y".repeat(8 * 1024))).collect::<String>()),
        ),
        refused("a target too long", &[414], format!("GET {{p}}/{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", "a".repeat(17 * 1024))),
        refused("a line without end", &[414], format!("GET /{}", "a".repeat(80 * 1024))),
        refused("an unknown expectation", &[417], get("Expect: something\r\n")),
        refused("two expectations", &[417], get("Expect: 100-continue, x\r\n")),
        served("bytes beyond ASCII in a value", &["GET /a"], get("X: \u{e9}\r\n")),
        served("an expectation without a body", &["GET /a"], get("Expect: 100-continue\r\n")),
        served(
            "an expectation with its body",
            &["GET /a hello"],
            format!("{}hello", get("Expect: 100-continue\r\nContent-Length: 5\r\n")),
        ),
    ]
}

fn hosts() -> Vec<Case> {
    let bad = |name, host: &str| refused(name, BAD, format!("GET {{p}}/a HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    vec![
        bad("empty host", ""),
        bad("list of hosts", "test.example, evil.example"),
        bad("user", "test.example@evil.example"),
        bad("slash", "test.example/x"),
        bad("fragment", "test.example#x"),
        bad("query", "test.example?x"),
        bad("backslash", "test.example\\x"),
        bad("blank", "test.example evil.example"),
        bad("tab", "test.example\tevil.example"),
        bad("empty port", "test.example:"),
        bad("port with letters", "test.example:80x"),
        bad("port with sign", "test.example:+80"),
        bad("port too large", "test.example:65536"),
        bad("two ports", "test.example:80:81"),
        bad("open bracket", "[::1"),
        bad("brackets around a name", "[test.example]"),
        bad("zone", "[fe80::1%25eth0]"),
        bad("percent escape", "test%2eexample"),
        bad("two dots", "test..example"),
        bad("byte beyond ASCII", "t\u{e9}st.example"),
        bad("quote", "\"test.example\""),
        bad("scheme", "http://test.example"),
        refused("no host", BAD, "GET {p}/a HTTP/1.1\r\n\r\n"),
        refused("two hosts", BAD, get("Host: evil.example\r\n")),
        refused("two hosts that agree", BAD, get(&format!("Host: {HOST}\r\n"))),
        refused("a blank before the colon of a host", BAD, "GET {p}/a HTTP/1.1\r\nHost : test.example\r\n\r\n"),
        refused("a folded host", BAD, "GET {p}/a HTTP/1.1\r\nHost: test.example\r\n evil.example\r\n\r\n"),
    ]
}

#[test]
fn heads_are_read_in_one_way() {
    let ground = Ground::new();
    let wrong = [lines(), names_and_values(), hosts()].iter().flat_map(|cases| ground.run(&ground.plain, cases)).collect();
    ground.check(wrong);
}

/// Sends a GET with these fields and gives what the origin saw.
fn sent(ground: &Ground, door: &Door, path: &str, fields: &str) -> Seen {
    let mut raw = door.open();
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n"));
    assert_eq!(raw.answer(false).map(|answer| answer.status), Some(200), "{fields}");
    ground.origin.seen(path).pop().unwrap()
}

#[test]
fn what_speaks_to_one_hop_ends_there() {
    let ground = Ground::new();
    let fields = "Connection: close, X-Hop, Authorization, X-Forwarded-For, Host, Cookie\r\nX-Hop: 1\r\nAuthorization: secret\r\nCookie: a=b\r\n\
                  Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nTE: gzip, trailers;q=1, trailers\r\nTrailer: X\r\nUpgrade: h2c\r\n\
                  HTTP2-Settings: AAMAAABkAAQAAP__\r\nProxy: http://evil.example\r\nX_Real_IP: 6.6.6.6\r\n";
    let seen = sent(&ground, &ground.plain, "/hop", fields);
    let names: Vec<&str> = seen.fields.iter().map(|(name, _)| name.as_str()).collect();
    for gone in
        ["x-hop", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "http2-settings", "proxy", "x_real_ip"]
    {
        assert!(!names.contains(&gone), "{gone} was forwarded");
    }
    // What the gateway says for itself, and what is said of the whole way.
    assert_eq!((seen.field("te"), seen.field("connection"), seen.field("trailer")), (Some("trailers"), Some("te"), Some("X")));
    assert_eq!((seen.field("authorization"), seen.field("cookie")), (Some("secret"), Some("a=b")));
    assert!(seen.field("x-forwarded-for").is_some());
    ground.check(Vec::new());
}

#[test]
fn nobody_names_away_what_the_gateway_sets() {
    let ground = Ground::new();
    let plugins = json!({ "proxy-rewrite": { "headers": { "set": { "X-Gateway": "yes" } } } });
    let upstream = json!({ "nodes": { ground.origin.address.to_string(): 1 } });
    ground.heddle.put("/routes/set", json!({ "uri": "/set", "plugins": plugins, "upstream": upstream }));
    heddle_integration::process::until("the route", || {
        let seen = sent(&ground, &ground.plain, "/set", "");
        seen.field("x-gateway").is_some().then_some(())
    });
    let seen = sent(&ground, &ground.plain, "/set", "Connection: X-Gateway, X-Real-IP, X-Forwarded-Proto\r\nX-Gateway: no\r\n");
    assert_eq!(seen.field("x-gateway"), Some("yes"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert!(seen.field("x-real-ip").is_some());
    ground.check(Vec::new());
}

#[test]
fn strangers_cannot_say_who_they_are() {
    let ground = Ground::new();
    let lies = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\
                X-Forwarded-Port: 443\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Client-Cert: Subject=admin\r\n";
    let doors = ground.doors();
    for (door, client) in [(&doors[0], "127."), (&doors[2], "192.0.2.7"), (&doors[3], "192.0.2.7")] {
        let path = format!("/who-{}", door.name.replace(' ', "-"));
        let seen = sent(&ground, door, &path, lies);
        for name in ["x-forwarded-for", "x-real-ip"] {
            assert!(seen.field(name).unwrap().starts_with(client), "{name} over {}: {:?}", door.name, seen.field(name));
            assert_eq!(seen.fields.iter().filter(|(key, _)| key == name).count(), 1);
        }
        assert_eq!((seen.field("x-forwarded-proto"), seen.field("x-forwarded-host")), (Some("http"), Some(HOST)));
        assert_eq!((seen.field("forwarded"), seen.field("x-forwarded-client-cert")), (None, None));
        assert_ne!(seen.field("x-forwarded-port"), Some("443"));
    }
    ground.check(Vec::new());
}

#[test]
fn a_proxy_header_is_whole_or_the_connection_ends() {
    let ground = Ground::new();
    let proxied = ground.doors()[2].address;
    let request = format!("GET /pp HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes();
    let second = |verb: u8, family: u8, length: u16, rest: &[u8]| {
        [b"\r\n\r\n\0\r\nQUIT\n", &[verb, family][..], &length.to_be_bytes(), rest].concat()
    };
    let bad: [Vec<u8>; 14] = [
        Vec::new(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n".to_vec(),
        b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
        b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n".to_vec(),
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
        b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
        [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat(),
        second(0x31, 0x11, 12, &[0; 12]),
        second(0x21, 0x11, 4, &[0; 4]),
        second(0x21, 0x11, 60_000, &[0; 12]),
    ];
    for hello in bad {
        let mut raw = Door::saying("bad", proxied, hello.clone()).open();
        raw.send(&request);
        assert!(raw.rest().is_empty(), "{:?} was answered", String::from_utf8_lossy(&hello));
    }
    assert!(ground.origin.seen("/pp").is_empty());
    for hello in [b"PROXY UNKNOWN\r\n".to_vec(), second(0x20, 0, 0, &[])] {
        let mut raw = Door::saying("local", proxied, hello).open();
        raw.send(&request);
        assert_eq!(raw.answer(false).unwrap().status, 200);
    }
    ground.check(Vec::new());
}
