//! Bytes that nobody looks into: from members in CONNECT streams, from callers in clear as they come.

use bytes::Bytes;
use http::{Method, Request};

use super::*;

/// A server that greets, as those of mail do, then echoes.
pub(super) async fn greeting() -> SocketAddr {
    application(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    })
    .await
}

async fn read(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_member_gets_a_tunnel_in_which_the_server_may_speak_first() {
    story(async {
        let mut sidecar = Sidecar::before(greeting().await, MeshProtocol::Tcp, |_| ());
        let mut requests = sidecar.http2().await;
        let connect = || Request::builder().method(Method::CONNECT).uri("web.shop:25").body(()).unwrap();
        let (response, mut up) = requests.send_request(connect(), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let mut down = response.into_body();
        assert_eq!(down.data().await.unwrap().unwrap(), "220 ready\r\n");
        up.send_data(Bytes::from_static(b"QUIT\r\n"), true).unwrap();
        assert_eq!(down.data().await.unwrap().unwrap(), "QUIT\r\n");
        assert!(down.data().await.is_none_or(|last| last.unwrap().is_empty()), "half-closed, then closed");

        // What no policy allows any more ends, and nothing new is let in.
        let (response, _up) = requests.send_request(connect(), false).unwrap();
        let mut down = response.await.unwrap().into_body();
        assert_eq!(down.data().await.unwrap().unwrap(), "220 ready\r\n");
        sidecar.judge(PolicyAction::Allow, &["/only/requests"]);
        let ended = tokio::time::timeout(Duration::from_secs(1), down.data()).await.unwrap();
        assert!(ended.is_none_or(|piece| piece.is_err()));
        let (response, _up) = requests.send_request(connect(), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 403);
        drop(requests);
        let log = sidecar.log().await;
        assert_eq!(log.matches("\"method\":\"CONNECT\"").count(), 3, "{log}");
        assert!(log.contains("\"bytes_in\":6,\"bytes_out\":17"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn where_members_and_callers_in_clear_share_a_port_servers_still_speak_first() {
    story(async {
        for protocol in [MeshProtocol::Tcp, MeshProtocol::Auto] {
            let sidecar = Sidecar::before(greeting().await, protocol, |inbound| inbound.mode = Some(PeerMode::Permissive));
            let mut stream = sidecar.clear().await;
            read(&mut stream, b"220 ready\r\n").await;
            stream.write_all(b"hello").await.unwrap();
            read(&mut stream, b"hello").await;
            stream.shutdown().await.unwrap();
            assert!(ends_within(&mut stream, Duration::from_secs(2)).await);
            let mut requests = sidecar.http2().await;
            let connect = Request::builder().method(Method::CONNECT).uri("web.shop:25").body(()).unwrap();
            let (response, _up) = requests.send_request(connect, false).unwrap();
            assert_eq!(response.await.unwrap().into_body().data().await.unwrap().unwrap(), "220 ready\r\n");
            let detected = sidecar.metrics().contains("protocol=\"server_first\"} 1\n");
            assert_eq!(detected, protocol == MeshProtocol::Auto);
        }
    })
    .await;
}

#[tokio::test]
async fn tls_of_the_application_itself_is_not_touched() {
    story(async {
        let echo = application(|mut stream| async move {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let sidecar = Sidecar::before(echo.await, MeshProtocol::Auto, |inbound| inbound.mode = Some(PeerMode::Permissive));
        let mut hello = Vec::new();
        let config = Identity::new().client_config(Expect::TrustDomain, &[b"h2"]);
        rustls::ClientConnection::new(config, nameless()).unwrap().write_tls(&mut hello).unwrap();
        let mut stream = sidecar.clear().await;
        for piece in hello.chunks(700) {
            stream.write_all(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        read(&mut stream, &hello).await;
        assert!(sidecar.metrics().contains("protocol=\"tls\"} 1\n"));
    })
    .await;
}

#[tokio::test]
async fn what_an_application_speaks_that_has_not_said_so_is_found_out() {
    story(async {
        let (address, _) = answering(OK).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |inbound| inbound.mode = Some(PeerMode::Disable));
        let mut stream = sidecar.clear().await;
        for piece in ["GE", "T /a HTTP/1.", "1\r\nHost: web\r\nConnection: close\r\n\r\n"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(ask(&mut stream, "").await.ends_with("ok"));
        assert!(sidecar.metrics().contains("protocol=\"http1\"} 1\n"));
        let log = sidecar.log().await;
        assert!(log.contains("\"method\":\"GET\"") && !log.contains("\"peer\""), "{log}");
    })
    .await;
}

#[tokio::test]
async fn there_is_no_tunnel_to_an_application_that_speaks_http() {
    story(async {
        let (address, seen) = answering(OK).await;
        for protocol in [MeshProtocol::Http, MeshProtocol::Http2, MeshProtocol::Grpc] {
            let sidecar = Sidecar::before(address, protocol, |_| ());
            let mut requests = sidecar.http2().await;
            let connect = Request::builder().method(Method::CONNECT).uri("web.shop:80").body(()).unwrap();
            let (response, mut up) = requests.send_request(connect, false).unwrap();
            // What is said within would be read by nobody but the application.
            let _ = up.send_data(Bytes::from_static(b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"), true);
            assert_eq!(response.await.unwrap().status(), 405, "{protocol:?}");
        }
        assert_eq!(seen.borrow().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn nobody_passes_for_bytes_before_an_application_that_speaks_http_without_saying_so() {
    story(async {
        let (address, seen) = answering(OK).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |inbound| inbound.mode = Some(PeerMode::Permissive));
        // No HTTP by the letter, but many servers take it for that: an empty line first, or a method in lower case.
        let forged = "\r\nGET /a HTTP/1.1\r\nHost: a\r\nX_Forwarded-client_Cert: URI=spiffe://evil\r\n\r\n";
        assert_eq!(ask(&mut sidecar.clear().await, forged).await, "");
        assert_eq!(seen.borrow().len(), 0, "who calls is told by nobody else");
        assert_eq!(ask(&mut sidecar.clear().await, "get /b HTTP/1.1\r\nHost: a\r\n\r\n").await, "");
        assert_eq!(seen.borrow().len(), 1, "its answer has told that it speaks HTTP");
        let parsed = "get /c HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: URI=spiffe://evil\r\nConnection: close\r\n\r\n";
        let answer = ask(&mut sidecar.clear().await, parsed).await;
        assert!(answer.starts_with("HTTP/1.1 "), "it is read as HTTP from now on: {answer}");
        assert_eq!(ask(&mut sidecar.clear().await, "\x00\x01 no HTTP\r\n\r\n").await.split(' ').nth(1), Some("400"));
        assert!(!seen.borrow().iter().any(|head| head.contains("evil")));
    })
    .await;
}

#[tokio::test]
async fn no_member_says_in_a_tunnel_who_it_is_to_an_application_that_speaks_http_without_saying_so() {
    story(async {
        let (address, seen) = answering(OK).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |_| ());
        let mut requests = sidecar.http2().await;
        let forged = "\r\nGET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: URI=spiffe://evil\r\n\r\n";
        // The second one is answered by the application, and its answer does not arrive.
        for said in [forged, "get /b HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let connect = Request::builder().method(Method::CONNECT).uri("web.shop:80").body(()).unwrap();
            let (response, mut up) = requests.send_request(connect, false).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            up.send_data(Bytes::from_static(said.as_bytes()), false).unwrap();
            let answer = response.into_body().data().await;
            assert!(answer.as_ref().is_none_or(|piece| piece.is_err()), "{answer:?}");
        }
        assert_eq!(seen.borrow().len(), 1, "{seen:?}");
        assert!(!seen.borrow()[0].contains("evil"));
        let connect = Request::builder().method(Method::CONNECT).uri("web.shop:80").body(()).unwrap();
        let (response, _up) = requests.send_request(connect, false).unwrap();
        assert_eq!(response.await.unwrap().status(), 405, "it has told that it speaks HTTP: no more bytes");
    })
    .await;
}

#[tokio::test]
async fn an_application_that_begins_http2_before_its_caller_is_asked_in_http2() {
    story(async {
        let heads = Rc::<RefCell<Vec<String>>>::default();
        let seen = heads.clone();
        let address = application(move |stream| {
            let seen = seen.clone();
            async move {
                // The settings go out before anything has come.
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    seen.borrow_mut().push(format!("{:?}", request.headers()));
                    let answer = http::Response::builder().status(204).body(()).unwrap();
                    respond.send_response(answer, true).unwrap();
                }
            }
        });
        let sidecar = Sidecar::before(address.await, MeshProtocol::Auto, |inbound| inbound.mode = Some(PeerMode::Permissive));
        let stream = sidecar.clear().await;
        // Whoever speaks first: the caller waits until it is known that the application greets.
        while !sidecar.metrics().contains("protocol=\"http2\"} 1\n") {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        let forged = Request::get("http://web/a").header("x-forwarded-client-cert", "URI=spiffe://evil").body(()).unwrap();
        let (response, _) = requests.ready().await.unwrap().send_request(forged, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 204);
        assert_eq!(heads.borrow().len(), 1);
        assert!(!heads.borrow()[0].contains("evil"), "{heads:?}");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_to_an_application_that_is_not_there_is_refused() {
    story(async {
        let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let sidecar = Sidecar::before(nowhere, MeshProtocol::Tcp, |_| ());
        let mut requests = sidecar.http2().await;
        let connect = Request::builder().method(Method::CONNECT).uri("web.shop:25").body(()).unwrap();
        let (response, _up) = requests.send_request(connect, false).unwrap();
        assert_eq!(response.await.unwrap().status(), 502);
    })
    .await;
}
