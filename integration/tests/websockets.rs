//! WebSockets to a server that speaks HTTP/2 only, a real one that takes extended CONNECT (RFC 8441) or does not: from clients of either version, by a gateway
//! and through the mesh.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::ext::Protocol;
use heddle_integration::client::Conversation;
use heddle_integration::heddle::Heddle;
use heddle_integration::mesh::{Mesh, Service};
use heddle_integration::process::until;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Role;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Says back what it is told, and first by what it was asked.
async fn answer(request: hyper::Request<Incoming>) -> Result<hyper::Response<String>, Infallible> {
    let said = request.extensions().get::<hyper::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
    let Some(protocol) = said else { return Ok(hyper::Response::new("no WebSocket".into())) };
    if request.uri().path() == "/refused" {
        return Ok(hyper::Response::builder().status(403).body("not you".into()).unwrap());
    }
    let key = request.headers().contains_key("sec-websocket-key");
    let told = format!("{} {protocol} {} {key}", request.method(), request.uri().path());
    tokio::spawn(async move {
        let io = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        let _ = socket.send(Message::text(told)).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                break;
            }
        }
    });
    let offered = hyper::Response::builder().header("sec-websocket-protocol", "chat");
    Ok(offered.body(String::new()).unwrap())
}

/// A server of HTTP/2 in clear, and of nothing else.
fn server(runtime: &Runtime, takes_websockets: bool) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut builder = Builder::new(TokioExecutor::new());
            if takes_websockets {
                builder.enable_connect_protocol();
            }
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer)));
        }
    });
    address
}

fn handshake(address: SocketAddr, path: &str) -> http::Request<()> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
    request
}

/// Talks by HTTP/1.1; what the server has told of the request.
async fn talks(address: SocketAddr) -> String {
    let (mut socket, response) = tokio_tungstenite::connect_async(handshake(address, "/room")).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["sec-websocket-protocol"].as_bytes()), (101, &b"chat"[..]));
    let told = socket.next().await.unwrap().unwrap().into_text().unwrap().to_string();
    for round in 0..50 {
        let message = Message::binary(vec![7; round * 1000]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    told
}

/// Talks by HTTP/2: the first bytes of the stream.
async fn talks_over_http2(address: SocketAddr) -> Vec<u8> {
    let (sender, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    let (connection, mut sender) = (tokio::spawn(connection), sender.ready().await.unwrap());
    // Its settings must have come before it may be asked so.
    let plain = http::Request::get("http://a/").body(()).unwrap();
    sender.send_request(plain, true).unwrap().0.await.unwrap();
    let mut request = http::Request::connect("http://a/room").header("sec-websocket-version", "13").body(()).unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let (response, mut out) = sender.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    // "hi", with a mask of zeros.
    out.send_data(Bytes::from_static(b"\x81\x82\0\0\0\0hi"), false).unwrap();
    let mut body = response.into_body();
    let mut all = Vec::new();
    while !all.ends_with(b"\x81\x02hi") {
        all.extend_from_slice(&body.data().await.unwrap().unwrap());
    }
    connection.abort();
    all
}

const HANDSHAKE: &str = "Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn a_gateway_asks_servers_of_http2_for_websockets_where_they_take_them() {
    let runtime = runtime();
    let (able, unable) = (server(&runtime, true), server(&runtime, false));
    let heddle = Heddle::run();
    for (id, address) in [("able", able), ("unable", unable)] {
        let upstream = json!({ "scheme": "grpc", "nodes": { address.to_string(): 1 } });
        heddle.put(&format!("/routes/{id}"), json!({ "host": id, "uri": "/*", "enable_websocket": true, "upstream": upstream }));
    }
    let asks = |host: &str, path: &str| {
        let handshake = HANDSHAKE.replace("Host: a", &format!("Host: {host}"));
        Conversation::open(heddle.http).ask(&format!("GET {path} HTTP/1.1\r\n{handshake}"))
    };
    let answer = until("the routes", || Some(asks("unable", "/room")).filter(|answer| answer.status != 404));
    assert_eq!(answer.status, 501, "it is said that nobody can: {}", answer.text());
    until("the metric", || heddle.metrics().contains("not_implemented").then_some(()));
    assert_eq!(asks("able", "/refused").status, 403, "the server may say no");

    heddle.put(
        "/routes/all",
        json!({ "uri": "/*", "enable_websocket": true, "upstream":
        { "scheme": "grpc", "nodes": { able.to_string(): 1 } } }),
    );
    until("the route", || (asks("a", "/refused").status == 403).then_some(()));
    runtime.block_on(async {
        assert_eq!(talks(heddle.http).await, "CONNECT websocket /room false");
        let told = talks_over_http2(heddle.http).await;
        assert!(String::from_utf8_lossy(&told).contains("CONNECT websocket /room false"), "{told:?}");
    });
}

#[test]
fn a_websocket_goes_on_to_another_server_where_one_is_not_there_as_any_request_does() {
    let runtime = runtime();
    let able = server(&runtime, true);
    // Nobody listens at an address that is only held.
    let held = TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = held.local_addr().unwrap();
    let heddle = Heddle::run();
    let upstream = json!({ "scheme": "grpc", "nodes": { able.to_string(): 1, gone.to_string(): 1 } });
    heddle.put("/routes/room", json!({ "uri": "/*", "enable_websocket": true, "upstream": upstream.clone() }));
    let retry = json!({ "retry": { "attempts": 3 } });
    heddle.put("/routes/retried", json!({ "uri": "/again/*", "enable_websocket": true, "plugins": retry, "upstream": upstream }));
    let ask = |path: &str| Conversation::open(heddle.http).ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    until("the routes", || ["/room", "/again/room"].iter().all(|path| ask(path).status == 200).then_some(()));
    for path in ["/room", "/again/room"] {
        for _ in 0..6 {
            let opened = runtime.block_on(tokio_tungstenite::connect_async(handshake(heddle.http, path)));
            let told = runtime.block_on(opened.unwrap().0.next()).unwrap().unwrap();
            assert_eq!(told.into_text().unwrap().as_str(), format!("CONNECT websocket {path} false"));
        }
    }
}

#[test]
fn a_websocket_reaches_an_application_that_speaks_http2_only_whether_that_is_said_or_found_out() {
    let runtime = runtime();
    let mesh = Mesh::start("");
    let address = server(&runtime, true);
    let unable = server(&runtime, false);
    let services = [("said", "http2", address), ("found", "auto", address), ("unable", "auto", unable)];
    let _nodes = services.map(|(name, protocol, address)| mesh.sidecar(&Service { protocol, ..Service::http(name, address) }));
    let calls = services.map(|(name, ..)| name);
    let web = mesh.sidecar(&Service { calls: &calls, ..Service::http("web", mesh.control.place.address()) });
    for at in &web.outbound[..2] {
        // The first thing that is asked of it is a WebSocket.
        let ask = || Conversation::open(*at).ask(&format!("GET /refused HTTP/1.1\r\n{HANDSHAKE}"));
        until("the service", || (ask().status == 403).then_some(()));
        assert_eq!(runtime.block_on(talks(*at)), "CONNECT websocket /room false");
        let told = runtime.block_on(talks_over_http2(*at));
        assert!(String::from_utf8_lossy(&told).contains("CONNECT websocket /room false"), "{told:?}");
    }
    let ask = || Conversation::open(web.outbound[2]).ask(&format!("GET /room HTTP/1.1\r\n{HANDSHAKE}"));
    let answer = until("the service", || Some(ask()).filter(|answer| answer.status != 503));
    assert_eq!(answer.status, 501, "{}", answer.text());
}
