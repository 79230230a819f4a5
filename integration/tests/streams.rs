//! Long bodies, WebSockets and what else flows: whole, in bounded memory, and only as fast as the slower side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use heddle_integration::client::curl;
use heddle_integration::heddle::Heddle;
use heddle_integration::measure;
use heddle_integration::process::{PATIENCE, until};
use heddle_integration::raw::{Raw, read_head};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

const SIZE: usize = 50 * 1024 * 1024;
/// What may lie in buffers between two sides that do not read: sockets take most of it.
const BUFFERED_MAX: usize = 24 * 1024 * 1024;
/// No byte could be written for so long: the way is full.
const STUCK: Duration = Duration::from_millis(700);
/// A body of this size through a gateway that kept it would show.
const MEMORY_MAX: u64 = 40;

fn in_front_of(upstream: SocketAddr) -> Heddle {
    let heddle = Heddle::run();
    heddle.put(
        "/routes/all",
        json!({ "uri": "/*", "enable_websocket": true, "upstream": { "nodes": { upstream.to_string(): 1 } } }),
    );
    until("the route", || heddle.metrics().contains("heddle_tables_resources{kind=\"Route\"} 1").then_some(()));
    heddle
}

/// Writes until nothing more goes; the bytes that went.
fn fill(stream: &mut TcpStream) -> usize {
    stream.set_write_timeout(Some(STUCK)).unwrap();
    let (piece, mut written) = (vec![0; 64 * 1024], 0);
    while written < SIZE {
        match stream.write(&piece) {
            Ok(count) => written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("after {written} bytes: {error}"),
        }
    }
    written
}

fn drain(stream: &mut TcpStream, mut left: usize) -> usize {
    let (mut piece, mut total) = (vec![0; 64 * 1024], 0);
    while left > 0 {
        let read = stream.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        left = left.saturating_sub(read);
        total += read;
    }
    total
}

/// An upstream that takes a body of [`SIZE`] and answers with one.
fn mirror() -> Raw {
    Raw::start(|stream| {
        while let head = read_head(stream)
            && !head.is_empty()
        {
            if head.starts_with("POST") && drain(stream, SIZE) != SIZE {
                return;
            }
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            let _ = stream.write_all(&vec![b'x'; SIZE]);
        }
    })
}

#[test]
fn fifty_megabytes_go_up_and_down_in_little_memory() {
    let upstream = mirror();
    let heddle = in_front_of(upstream.address);
    let (before, _) = measure::memory(heddle.process.pid());
    let mut client = TcpStream::connect_timeout(&heddle.http, PATIENCE).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").unwrap();
    client.write_all(&vec![b'y'; SIZE]).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200"));
    assert_eq!(drain(&mut client, SIZE), SIZE);
    let (_, peak) = measure::memory(heddle.process.pid());
    assert!(peak < before + MEMORY_MAX, "{before} MiB before, {peak} MiB at most");
}

#[test]
fn a_large_file_goes_both_ways_over_http_2() {
    let upstream = mirror();
    let heddle = in_front_of(upstream.address);
    let (before, _) = measure::memory(heddle.process.pid());
    heddle.place.write("large", &"y".repeat(SIZE));
    let file = format!("@{}", heddle.place.path("large").display());
    let url = format!("http://{}/", heddle.http);
    let told = curl(&[
        "--http2-prior-knowledge",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{http_code} %{size_upload} %{size_download}",
        "-H",
        "Expect:",
        "--data-binary",
        &file,
        &url,
    ]);
    assert_eq!(told, format!("2 200 {SIZE} {SIZE}"));
    let (_, peak) = measure::memory(heddle.process.pid());
    assert!(peak < before + MEMORY_MAX, "{before} MiB before, {peak} MiB at most");
}

#[test]
fn an_upstream_waits_for_a_client_that_does_not_read() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let upstream = Raw::start(move |stream| {
        read_head(stream);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        count.store(fill(stream), Ordering::Relaxed);
        let _ = stream.set_write_timeout(None);
        let _ = stream.write_all(&vec![0; SIZE - count.load(Ordering::Relaxed)]);
    });
    let heddle = in_front_of(upstream.address);
    let mut client = TcpStream::connect_timeout(&heddle.http, PATIENCE).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let stuck = until("the way to be full", || Some(sent.load(Ordering::Relaxed)).filter(|sent| *sent > 0));
    assert!(stuck < BUFFERED_MAX, "{stuck} bytes are on the way");
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200"));
    assert_eq!(drain(&mut client, SIZE), SIZE, "it goes on once the client reads");
}

#[test]
fn a_client_waits_for_an_upstream_that_does_not_read() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let upstream = Raw::start(move |stream| {
        read_head(stream);
        let _ = gone.lock().unwrap().recv_timeout(PATIENCE);
        let total = drain(stream, SIZE);
        let text = total.to_string();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    });
    let heddle = in_front_of(upstream.address);
    let mut client = TcpStream::connect_timeout(&heddle.http, PATIENCE).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n").unwrap();
    let stuck = fill(&mut client);
    assert!(stuck < BUFFERED_MAX, "{stuck} bytes are on the way");
    go.send(()).unwrap();
    client.set_write_timeout(None).unwrap();
    client.write_all(&vec![0; SIZE - stuck]).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(&SIZE.to_string()), "{answer}");
}

fn run(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, story).await.expect("the story ends in time") });
}

/// A WebSocket server that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_websocket_talks_both_ways_and_closes() {
    run(async {
        let address = echo().await;
        let heddle = tokio::task::spawn_blocking(move || in_front_of(address)).await.unwrap();
        let (mut socket, answer) = tokio_tungstenite::connect_async(format!("ws://{}/chat", heddle.http)).await.unwrap();
        assert_eq!(answer.status(), 101);
        for round in 0..100 {
            let message =
                if round % 2 == 0 { Message::text(format!("hello {round}")) } else { Message::binary(vec![7; round * 1000]) };
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.close(None).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            assert!(message.is_close());
        }
    });
}

#[test]
fn a_websocket_outlives_changes_of_its_route() {
    run(async {
        let address = echo().await;
        let heddle = tokio::task::spawn_blocking(move || in_front_of(address)).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/chat", heddle.http)).await.unwrap();
        let heddle = tokio::task::spawn_blocking(move || {
            assert_eq!(heddle.admin("DELETE", "/routes/all", serde_json::Value::Null).status, 200);
            heddle.until_status("/", 404);
            heddle
        })
        .await
        .unwrap();
        socket.send(Message::text("still there?")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still there?"));
        assert!(tokio_tungstenite::connect_async(format!("ws://{}/chat", heddle.http)).await.is_err());
    });
}

#[test]
fn a_websocket_is_refused_where_it_is_not_enabled() {
    run(async {
        let address = echo().await;
        let heddle = tokio::task::spawn_blocking(move || {
            let heddle = in_front_of(address);
            heddle.put(
                "/routes/all",
                json!({ "uri": "/*", "enable_websocket": false, "upstream": { "nodes": { address.to_string(): 1 } } }),
            );
            heddle
        })
        .await
        .unwrap();
        let url = format!("ws://{}/chat", heddle.http);
        while tokio_tungstenite::connect_async(url.as_str()).await.is_ok() {}
    });
}

#[test]
fn who_is_answered_well_over_http2_before_all_is_sent_does_not_wait_for_ever() {
    let heddle = Heddle::run();
    let nobody = json!({ "nodes": { "127.0.0.1:1": 1 } });
    let said = json!({ "mocking": { "response_status": 200, "response_example": "said", "content_type": "text/plain" } });
    heddle.put("/routes/quick", json!({ "uri": "/*", "plugins": said, "upstream": nobody }));
    heddle.until_status("/", 200);
    let body = heddle.place.write("body", &"x".repeat(1_500_000));
    let url = format!("http://{}/upload", heddle.http);
    let asks = ["-sS", "--max-time", "30", "--http2-prior-knowledge", "-X", "PUT", "-o", "/dev/null", "--data-binary"];
    let told = Command::new("curl").args(asks).arg(format!("@{}", body.display())).arg(&url).output().unwrap();
    // It may have heard the answer, or that its stream was reset; it has not run out of time.
    assert_ne!(told.status.code(), Some(28), "{}", String::from_utf8_lossy(&told.stderr));
}

#[test]
fn who_is_refused_over_http2_hears_why_whatever_is_still_to_be_sent() {
    let heddle = Heddle::run();
    let nobody = json!({ "nodes": { "127.0.0.1:1": 1 } });
    heddle.put("/routes/guarded", json!({ "uri": "/*", "plugins": { "key-auth": {} }, "upstream": nobody }));
    heddle.until_status("/", 401);
    for size in [5, 30_000, 1_500_000] {
        let body = heddle.place.write("body", &"x".repeat(size));
        let data = format!("@{}", body.display());
        // Whether the answer or the rest of the request comes first is a matter of luck.
        for _ in 0..10 {
            for (address, path) in [(heddle.http, "upload"), (heddle.admin, "apisix/admin/routes/1")] {
                let url = format!("http://{address}/{path}");
                let asks = [
                    "--http2-prior-knowledge",
                    "-X",
                    "PUT",
                    "--data-binary",
                    &data,
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    &url,
                ];
                assert_eq!(curl(&asks), "401", "{size} bytes to {path}");
            }
        }
    }
}
