//! What of a request arrives at the application, and what of its answer at the caller.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};

use super::*;

fn get(path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let request = Request::builder().method(Method::GET).uri(format!("https://web.shop{path}"));
    fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

#[tokio::test]
async fn the_application_is_told_who_calls_and_nobody_else_can_tell_it() {
    story(async {
        let (address, seen) = answering(OK).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut requests = sidecar.http2().await;
        let spoofed =
            [("x-forwarded-client-cert", "By=evil"), ("x_forwarded_client_cert", "evil"), ("x-forwarded-for", "10.9.9.9")];
        let (response, _) = requests.send_request(get("/a//b?c", &spoofed), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        let seen = seen.borrow()[0].to_ascii_lowercase();
        assert!(seen.starts_with("get /a//b?c http/1.1\r\nhost: web.shop\r\n"), "{seen}");
        assert!(!seen.contains("evil") && seen.contains("x-forwarded-for: 10.9.9.9\r\n"), "{seen}");
        let line = seen.lines().find(|line| line.starts_with("x-forwarded-client-cert: ")).unwrap();
        let parts: Vec<&str> = line["x-forwarded-client-cert: ".len()..].split(';').collect();
        assert_eq!(
            (parts[0], parts[2]),
            ("by=spiffe://mesh.example/ns/shop/svc/web", "uri=spiffe://mesh.example/ns/shop/svc/api")
        );
        assert_eq!(parts[1].len(), "hash=".len() + 64);
        let told = sidecar.identity.refusals().take(clock::unix_ms()).entries;
        let [spoofed] = &told[..] else { panic!("{told:?}") };
        assert_eq!(
            (spoofed.reason, &*spoofed.subject, spoofed.count),
            ("spoofed-client-cert", "spiffe://mesh.example/ns/shop/svc/api", 1)
        );
        drop(requests);
        let log = sidecar.log().await;
        assert!(
            log.contains("\"peer\":\"spiffe://mesh.example/ns/shop/svc/api\"") && log.contains("\"route\":\"mesh/inbound\""),
            "{log}"
        );
    })
    .await;
}

#[tokio::test]
async fn names_keep_their_case_between_members_and_our_field_stays_among_them() {
    story(async {
        let (address, seen) = answering(OK).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut requests = sidecar.http2().await;
        let (response, _) =
            requests.send_request(get("/", &[("accept", "*/*"), ("dnt", "1"), ("x-heddle-case", "t DNT")]), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["x-heddle-case"], "t X-ODD");
        let (response, _) = requests.send_request(get("/", &[("dnt", "1")]), true).unwrap();
        assert!(!response.await.unwrap().headers().contains_key("x-heddle-case"));
        let seen = seen.borrow();
        assert!(seen[0].contains("\r\nAccept: */*\r\nDNT: 1\r\n") && !seen[0].contains("heddle"), "{}", seen[0]);
        assert!(seen[1].contains("\r\ndnt: 1\r\n"), "{}", seen[1]);
    })
    .await;
}

#[tokio::test]
async fn a_websocket_comes_as_an_extended_connect_and_goes_as_an_upgrade() {
    story(async {
        let address = application(|mut stream| async move {
            let asked = head(&mut stream).await.to_ascii_lowercase();
            assert!(asked.starts_with("get /chat http/1.1\r\n") && asked.contains("upgrade: websocket\r\n"), "{asked}");
            let granted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello";
            stream.write_all(granted.as_bytes()).await.unwrap();
            let mut said = [0; 3];
            stream.read_exact(&mut said).await.unwrap();
            stream.write_all(&said).await.unwrap();
        })
        .await;
        let sidecar = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut requests = sidecar.http2().await;
        let request = Request::builder().method(Method::CONNECT).uri("https://web.shop/chat");
        let request = request.extension(h2::ext::Protocol::from_static("websocket")).body(()).unwrap();
        let (response, mut up) = requests.send_request(request, false).unwrap();
        let mut down = response.await.unwrap().into_body();
        up.send_data(Bytes::from_static(b"abc"), false).unwrap();
        let mut got = Vec::new();
        while got.len() < 8 {
            got.extend_from_slice(&down.data().await.unwrap().unwrap());
        }
        assert_eq!(got, b"helloabc");
    })
    .await;
}

#[tokio::test]
async fn what_goes_on_for_long_ends_when_policies_allow_it_no_more() {
    story(async {
        let address = application(|mut stream| async move {
            let asked = head(&mut stream).await.to_ascii_lowercase();
            let answer = match asked.split(' ').nth(1) {
                Some("/chat") => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello",
                Some("/upload") => "",
                _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let mut sidecar = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut requests = sidecar.http2().await;
        let chat = Request::builder().method(Method::CONNECT).uri("https://web.shop/chat");
        let chat = chat.extension(h2::ext::Protocol::from_static("websocket")).body(()).unwrap();
        let (response, _chat_up) = requests.send_request(chat, false).unwrap();
        let mut chat = response.await.unwrap().into_body();
        assert_eq!(chat.data().await.unwrap().unwrap(), "hello");
        let (response, _) = requests.send_request(get("/events", &[]), true).unwrap();
        let mut events = response.await.unwrap().into_body();
        assert_eq!(events.data().await.unwrap().unwrap(), "first");
        let post = |path: &str| Request::builder().method(Method::POST).uri(format!("https://web.shop{path}")).body(()).unwrap();
        let (upload, mut up) = requests.send_request(post("/upload"), false).unwrap();
        up.send_data(Bytes::from_static(b"piece"), false).unwrap();
        let (response, mut stays_up) = requests.send_request(post("/stays"), false).unwrap();
        stays_up.send_data(Bytes::from_static(b"piece"), false).unwrap();
        let mut stays = response.await.unwrap().into_body();
        assert_eq!(stays.data().await.unwrap().unwrap(), "first");

        sidecar.judge(PolicyAction::Deny, &["/chat", "/events", "/upload"]);
        let soon = Duration::from_secs(1);
        let ended = |piece: Option<Result<Bytes, h2::Error>>| piece.is_none_or(|piece| piece.is_err());
        assert!(ended(tokio::time::timeout(soon, chat.data()).await.unwrap()), "a WebSocket");
        assert!(ended(tokio::time::timeout(soon, events.data()).await.unwrap()), "an answer");
        let refused = tokio::time::timeout(soon, upload).await.unwrap();
        assert!(refused.map_or(true, |response| response.status() == 403), "a request");
        assert!(tokio::time::timeout(Duration::from_millis(300), stays.data()).await.is_err(), "what is still allowed goes on");
        drop((requests, stays, stays_up));
        let log = sidecar.log().await;
        assert_eq!(log.matches("\"reason\":\"policy\"").count(), 3, "{log}");
    })
    .await;
}

#[tokio::test]
async fn grpc_streams_both_ways_with_its_trailers() {
    story(async {
        let address = application(|stream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                spawn_local(async move {
                    assert_eq!(request.headers()["te"], "trailers");
                    let mut body = request.into_body();
                    let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                    let mut out = respond.send_response(head, false).unwrap();
                    while let Some(piece) = body.data().await {
                        out.send_data(piece.unwrap(), false).unwrap();
                    }
                    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
                    out.send_trailers(trailers).unwrap();
                });
            }
        })
        .await;
        for protocol in [MeshProtocol::Grpc, MeshProtocol::Auto] {
            let sidecar = Sidecar::before(address, protocol, |_| ());
            let mut requests = sidecar.http2().await;
            let request = Request::builder().method(Method::POST).uri("https://web.shop/svc/Call");
            let request = request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
            let (response, mut up) = requests.send_request(request, false).unwrap();
            let mut down = response.await.unwrap().into_body();
            for piece in [&b"one"[..], b"two"] {
                up.send_data(Bytes::from_static(piece), false).unwrap();
                assert_eq!(down.data().await.unwrap().unwrap(), piece);
            }
            up.send_data(Bytes::new(), true).unwrap();
            assert!(down.data().await.is_none());
            assert_eq!(down.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_of_grpc_is_refused_in_its_own_words_and_logged_as_what_it_is() {
    story(async {
        let (address, seen) = answering(OK).await;
        let mut sidecar = Sidecar::before(address, MeshProtocol::Grpc, |_| ());
        let mut requests = sidecar.http2().await;
        sidecar.judge(PolicyAction::Deny, &["/admin.Users/*"]);
        let request = Request::builder().method(Method::POST).uri("https://web.shop/admin.Users/Delete");
        let request = request.header("content-type", "application/grpc+proto").header("te", "trailers").body(()).unwrap();
        let (response, _up) = requests.send_request(request, false).unwrap();
        let told = response.await.unwrap();
        let said = |name: &str| told.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            (told.status().as_u16(), said("content-type"), said("grpc-status")),
            (200, "application/grpc".into(), "7".into())
        );
        assert_eq!(said("grpc-message"), "403 Forbidden: refused by an authorization policy");
        assert!(told.into_body().is_end_stream() && seen.borrow().is_empty());
        drop(requests);
        let log = sidecar.log().await;
        assert!(log.contains("\"status\":403") && log.contains("\"reason\":\"policy\""), "{log}");
    })
    .await;
}

#[tokio::test]
async fn policies_refuse_single_requests_and_the_log_says_which() {
    story(async {
        let (address, seen) = answering(OK).await;
        let mut sidecar = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut requests = sidecar.http2().await;
        sidecar.judge(PolicyAction::Deny, &["/admin*"]);
        for (path, status) in [("/a", 200), ("/admin/x", 403), ("/a/../admin", 403)] {
            let (response, _) = requests.send_request(get(path, &[]), true).unwrap();
            assert_eq!(response.await.unwrap().status(), status, "{path}");
        }
        assert_eq!(seen.borrow().len(), 1);
        drop(requests);
        let log = sidecar.log().await;
        assert_eq!(log.matches("\"reason\":\"policy\"").count(), 2, "{log}");
        assert_eq!(log.matches("\"policy\":\"p[0]\"").count(), 2, "{log}");
    })
    .await;
}
