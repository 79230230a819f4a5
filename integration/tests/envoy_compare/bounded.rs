//! What a route bounds as a whole: how long an exchange lasts, and how often an endpoint sees a request.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use heddle_integration::client;
use serde_json::{Value, json};

use super::pair::{Door, Pair, cluster, host};

type Counts = Arc<Mutex<HashMap<String, usize>>>;

/// An endpoint that answers `/prime`, drips below `/drip`, is silent below `/hold`, and resets whatever else it has read. It counts.
fn endpoint() -> (SocketAddr, Counts) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, counts) = (listener.local_addr().unwrap(), Counts::default());
    let seen = counts.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let seen = seen.clone();
            std::thread::spawn(move || while serve(&stream, &seen).is_some() {});
        }
    });
    (address, counts)
}

fn serve(mut stream: &TcpStream, seen: &Counts) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let asked: Vec<String> = String::from_utf8_lossy(&head).split(' ').take(2).map(str::to_owned).collect();
    *seen.lock().unwrap().entry(asked.join(" ")).or_default() += 1;
    match asked[1].as_str() {
        path if path.contains("/prime") => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").ok(),
        path if path.contains("/drip") => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").ok()?;
            for _ in 0..12 {
                stream.write_all(b"1\r\n.\r\n").ok()?;
                std::thread::sleep(Duration::from_millis(250));
            }
            stream.write_all(b"0\r\n\r\n").ok()
        }
        path if path.contains("/hold") => {
            std::thread::sleep(Duration::from_secs(3));
            None
        }
        _ => None,
    }
}

fn pair(endpoint: SocketAddr, routes: impl Iterator<Item = (&'static str, Value)>) -> Pair {
    let route = |(name, mut route): (&str, Value)| {
        route["cluster"] = "app".into();
        json!({ "match": { "prefix": format!("/{name}/") }, "route": route })
    };
    let hosts = vec![host("all", "*", routes.map(route).collect())];
    Pair::start(&[Door { filters: Vec::new(), hosts }], &[cluster("app", &[(endpoint, 1)], json!({}))])
}

#[test]
fn an_endpoint_sees_a_request_as_often_as_its_route_says() {
    let (address, counts) = endpoint();
    let policy = |on: &str, retries: u32| json!({ "retry_policy": { "retry_on": on, "num_retries": retries } });
    let cases = [
        ("silent", json!({}), 1),
        ("none", policy("5xx", 0), 1),
        ("unseen", policy("connect-failure,refused-stream,reset-before-request", 3), 1),
        ("conflicts", policy("retriable-4xx", 3), 1),
        ("twice", policy("5xx", 2), 3),
    ];
    let pair = pair(address, cases.iter().map(|(name, route, _)| (*name, route.clone())));
    for (who, address) in ["ours", "theirs"].into_iter().zip(pair.both(0)) {
        for ((name, _, times), method) in cases.iter().flat_map(|case| ["GET", "PUT", "POST"].map(|method| (case, method))) {
            // Each worker has a connection that rests.
            for _ in 0..16 {
                assert_eq!(client::get(address, &format!("/{name}/prime")).unwrap().status, 200);
            }
            let target = format!("/{name}/{who}");
            let status = client::ask(address, method, &target, &[], b"").unwrap().status;
            assert!(matches!((who, status), ("ours", 502) | ("theirs", 503)), "{who}: {status}");
            assert_eq!(counts.lock().unwrap()[&format!("{method} {target}")], *times, "{who}: {method} {name}");
        }
    }
}

#[test]
fn an_exchange_lasts_no_longer_than_its_route_says() {
    let (address, _) = endpoint();
    let of = |limit: Value| json!({ "timeout": "0s", "max_stream_duration": { "max_stream_duration": limit } });
    let both = json!({ "timeout": "0.5s", "max_stream_duration": { "max_stream_duration": "1s" } });
    let pair = pair(address, [("second", of(json!("1s"))), ("both", both), ("ever", of(json!("0s")))].into_iter());
    let call = [("Content-Type", "application/grpc"), ("TE", "trailers")];
    for address in pair.both(0) {
        let asked = |target: &str, fields: &[(&str, &str)]| {
            let began = Instant::now();
            let answer = client::ask(address, "GET", target, fields, b"");
            (answer.map(|answer| (answer.status, answer.field("grpc-status").map(str::to_owned))), began.elapsed().as_millis())
        };
        for name in ["second", "both"] {
            let (held, took) = asked(&format!("/{name}/hold"), &[]);
            assert!(matches!(held, Ok((504, None))) && (900..2_500).contains(&took), "{name}: {held:?} after {took} ms");
            let (told, took) = asked(&format!("/{name}/hold"), &call);
            assert_eq!(told.unwrap(), (200, Some("4".to_owned())), "{name} after {took} ms");
            let (_, took) = asked(&format!("/{name}/drip"), &[]);
            assert!((900..2_500).contains(&took), "{name}: cut after {took} ms");
        }
        let (whole, took) = asked("/ever/drip", &[]);
        assert!(whole.unwrap().0 == 200 && took >= 2_700, "nothing bounds it: {took} ms");
    }
}
