//! Applications that have not said what they speak, and speak HTTP/2 only, or not any more, or at one port of several: what members ask them arrives.

use std::cell::Cell;

use bytes::Bytes;
use http::{Method, Request};

use super::*;

/// What came: version and method, with the length of the body.
pub(super) type Came = Rc<RefCell<Vec<(String, usize)>>>;

/// An application that speaks HTTP/2 only. Whatever is said to it, it begins with its settings, unless it is `shy`.
pub(super) async fn http2_only(shy: bool) -> (SocketAddr, Came) {
    let came = Came::default();
    let seen = came.clone();
    let address = application(move |stream| serve_http2_as(stream, shy, seen.clone()));
    (address.await, came)
}

/// Speaks HTTP/2 only; where it is `shy`, it hangs up on whoever begins with anything else.
async fn serve_http2_as(mut stream: TcpStream, shy: bool, came: Came) {
    if shy {
        let mut beginning = [0; 24];
        while stream.peek(&mut beginning).await.is_ok_and(|got| (1..24).contains(&got)) {
            tokio::task::yield_now().await;
        }
        if &beginning != crate::http::h2::frame::PREFACE {
            let _ = stream.read(&mut [0; 4096]).await;
            return;
        }
    }
    serve_http2(stream, came).await;
}

async fn serve_http2(stream: TcpStream, seen: Came) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let seen = seen.clone();
        spawn_local(async move {
            let (head, mut body) = request.into_parts();
            let mut length = 0;
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                length += piece.len();
            }
            seen.borrow_mut().push((format!("{:?} {}", head.version, head.method), length));
            let mut down = respond.send_response(http::Response::new(()), false).unwrap();
            down.send_data(Bytes::from_static(b"two"), true).unwrap();
        });
    }
}

/// Status and body of what a member gets that sends this much.
async fn asked(requests: &mut h2::client::SendRequest<Bytes>, method: Method, port: Option<u16>, body: usize) -> (u16, Bytes) {
    let request = Request::builder().method(method).uri("https://web.shop/");
    let request = port.into_iter().fold(request, |request, port| request.header("x-heddle-port", port.to_string()));
    let (response, mut up) = requests.send_request(request.body(()).unwrap(), body == 0).unwrap();
    if body > 0 {
        up.send_data(vec![b'x'; body].into(), true).unwrap();
    }
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().data().await.and_then(Result::ok).unwrap_or_default())
}

#[tokio::test]
async fn an_application_that_speaks_http2_only_is_asked_in_it_and_no_request_is_lost_or_sent_twice() {
    story(async {
        for (method, body) in [(Method::GET, 0), (Method::POST, 0), (Method::POST, 20_000)] {
            let (address, came) = http2_only(false).await;
            let sidecar = Sidecar::before(address, MeshProtocol::Auto, |_| ());
            let mut requests = sidecar.http2().await;
            for _ in 0..2 {
                assert_eq!(asked(&mut requests, method.clone(), None, body).await, (200, "two".into()), "{method} {body}");
            }
            assert_eq!(*came.borrow(), vec![(format!("HTTP/2.0 {method}"), body); 2]);
            let found = format!("detected_total{{port=\"{}\",protocol=\"http2\"}} 1\n", address.port());
            assert!(sidecar.metrics().contains(&found), "found out once: {}", sidecar.metrics());
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_is_too_long_to_be_kept_fails_once_and_the_next_one_arrives() {
    story(async {
        let (address, came) = http2_only(false).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |_| ());
        let mut requests = sidecar.http2().await;
        let request = Request::post("https://web.shop/").body(()).unwrap();
        let (response, mut up) = requests.send_request(request, false).unwrap();
        // Nobody says how long it will be.
        up.send_data(vec![b'x'; 30_000].into(), false).unwrap();
        up.send_data(vec![b'x'; 50_000].into(), false).unwrap();
        up.send_data(Bytes::from_static(b"end"), true).unwrap();
        let first = response.await.unwrap().status().as_u16();
        assert_eq!(asked(&mut requests, Method::POST, None, 100).await, (200, "two".into()));
        let came = came.borrow();
        let whole = came.iter().filter(|(_, length)| *length == 80_003).count();
        assert_eq!((came.len(), whole), if first == 200 { (2, 1) } else { (1, 0) }, "{first}: all of it or nothing");
    })
    .await;
}

#[tokio::test]
async fn an_application_that_hangs_up_on_http1_without_a_word_is_asked_in_http2() {
    story(async {
        let (address, came) = http2_only(true).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |_| ());
        let mut requests = sidecar.http2().await;
        assert_eq!(asked(&mut requests, Method::POST, None, 0).await.0, 502, "nobody knows whether it has seen it");
        assert_eq!(asked(&mut requests, Method::POST, None, 0).await, (200, "two".into()));
        assert_eq!(came.borrow().len(), 1);
        let (address, came) = http2_only(true).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |_| ());
        assert_eq!(asked(&mut sidecar.http2().await, Method::GET, None, 0).await, (200, "two".into()));
        assert_eq!(came.borrow().len(), 1);
    })
    .await;
}

/// An application that speaks both versions. In HTTP/1 it hangs up on `/abort`, counted here, and lets WebSockets through.
pub(super) async fn speaking_both(aborted: Rc<Cell<usize>>) -> (SocketAddr, Came) {
    let came = Came::default();
    let seen = came.clone();
    let address = application(move |mut stream| {
        let (seen, aborted) = (seen.clone(), aborted.clone());
        async move {
            let mut beginning = [0; 3];
            while stream.peek(&mut beginning).await.is_ok_and(|got| (1..3).contains(&got)) {
                tokio::task::yield_now().await;
            }
            if &beginning == b"PRI" {
                return serve_http2(stream, seen).await;
            }
            loop {
                let asked = head(&mut stream).await.to_ascii_lowercase();
                if asked.is_empty() {
                    return;
                }
                if asked.contains(" /abort ") {
                    aborted.set(aborted.get() + 1);
                    return;
                }
                let chat = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
                let answer = if asked.contains("upgrade: websocket") { chat.to_owned() } else { closing() };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (address.await, came)
}

/// An answer whose connection takes no other request.
fn closing() -> String {
    OK.replace("X-ODD: 1", "Connection: close")
}

async fn status_of(requests: &mut h2::client::SendRequest<Bytes>, method: Method, path: &str) -> u16 {
    let request = Request::builder().method(method).uri(format!("https://web.shop{path}")).body(()).unwrap();
    requests.send_request(request, true).unwrap().0.await.unwrap().status().as_u16()
}

/// Status of what a member gets that asks for a WebSocket.
async fn chats(requests: &mut h2::client::SendRequest<Bytes>) -> u16 {
    let chat = Request::builder().method(Method::CONNECT).uri("https://web.shop/chat");
    let chat = chat.extension(h2::ext::Protocol::from_static("websocket")).body(()).unwrap();
    let (response, _up) = requests.send_request(chat, false).unwrap();
    response.await.unwrap().status().as_u16()
}

#[tokio::test]
async fn what_becomes_of_one_request_does_not_make_the_version_forgotten() {
    story(async {
        let (lost, kept) = (Rc::new(Cell::new(0)), Came::default());
        let (count, seen) = (lost.clone(), kept.clone());
        let address = application(move |stream| {
            let (lost, seen) = (count.clone(), seen.clone());
            async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    match request.uri().path() {
                        "/fails" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                        "/refused" => respond.send_reset(h2::Reason::REFUSED_STREAM),
                        "/ends" => return lost.set(lost.get() + 1),
                        _ => {
                            seen.borrow_mut().push((format!("{:?}", request.version()), 0));
                            respond.send_response(http::Response::new(()), true).unwrap();
                        }
                    }
                }
            }
        });
        let address = address.await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |_| ());
        let mut requests = sidecar.http2().await;
        assert_eq!(status_of(&mut requests, Method::GET, "/").await, 200);
        for path in ["/fails", "/refused", "/ends"] {
            assert_eq!(status_of(&mut requests, Method::POST, path).await, 502, "{path}");
            assert_eq!(sidecar.door.ports.first.heard().unwrap().version(), Some(crate::http::Version::Http2), "{path}");
            assert_eq!(status_of(&mut requests, Method::POST, "/").await, 200, "{path}");
        }
        assert_eq!((lost.get(), kept.borrow().len()), (1, 4));
        assert!(sidecar.metrics().contains("protocol=\"http2\"} 1\n"), "found out once: {}", sidecar.metrics());
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_hangs_up_once_does_not_change_the_version_of_an_application_that_speaks_both() {
    story(async {
        let aborted = Rc::new(Cell::new(0));
        let (address, came) = speaking_both(aborted.clone()).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |_| ());
        let mut requests = sidecar.http2().await;
        for times in 1..4 {
            assert_eq!(asked(&mut requests, Method::GET, None, 0).await, (200, "ok".into()));
            assert_eq!(status_of(&mut requests, Method::GET, "/abort").await, 502);
            assert_eq!(aborted.get(), times, "sent once");
        }
        assert_eq!(asked(&mut requests, Method::GET, None, 0).await, (200, "ok".into()));
        assert_eq!(came.borrow().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn websockets_go_in_http1_whatever_else_is_asked_in() {
    story(async {
        let aborted = Rc::new(Cell::new(0));
        let (address, came) = speaking_both(aborted.clone()).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |_| ());
        let mut requests = sidecar.http2().await;
        assert_eq!(status_of(&mut requests, Method::POST, "/abort").await, 502, "it may have been acted on");
        assert_eq!((aborted.get(), came.borrow().len()), (1, 0));
        assert_eq!(asked(&mut requests, Method::GET, None, 0).await, (200, "two".into()), "as nothing else was heard of it");
        assert_eq!(chats(&mut requests).await, 200);
        assert_eq!(asked(&mut requests, Method::GET, None, 0).await, (200, "two".into()));
    })
    .await;
}

#[tokio::test]
async fn a_websocket_that_is_answered_like_any_request_does_not_begin() {
    story(async {
        for protocol in [MeshProtocol::Http, MeshProtocol::Auto] {
            let (address, seen) = answering(OK).await;
            let sidecar = Sidecar::before(address, protocol, |_| ());
            let mut requests = sidecar.http2().await;
            assert_eq!(chats(&mut requests).await, 501, "each success would begin one");
            assert!(seen.borrow()[0].to_ascii_lowercase().contains("upgrade: websocket"), "{seen:?}");
            assert_eq!(asked(&mut requests, Method::GET, None, 0).await, (200, "ok".into()));
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_heard_of_an_application_is_counted_by_port_whatever_it_was_asked() {
    story(async {
        let (address, came) = http2_only(false).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |_| ());
        let mut requests = sidecar.http2().await;
        for _ in 0..2 {
            let call = Request::post("https://web.shop/a.B/C").header("content-type", "application/grpc+proto").body(()).unwrap();
            assert_eq!(requests.send_request(call, true).unwrap().0.await.unwrap().status(), 200);
        }
        let counted = |sidecar: &Sidecar, protocol: &str| {
            sidecar
                .metrics()
                .contains(&format!("detected_total{{port=\"{}\",protocol=\"{protocol}\"}} 1\n", sidecar.door.first_port()))
        };
        assert!(counted(&sidecar, "grpc") && !counted(&sidecar, "http2"), "{}", sidecar.metrics());
        assert_eq!(asked(&mut requests, Method::GET, None, 0).await, (200, "two".into()));
        assert!(counted(&sidecar, "grpc") && counted(&sidecar, "http2"), "{}", sidecar.metrics());
        assert_eq!(came.borrow().len(), 3);

        let (address, _) = speaking_both(Rc::default()).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Auto, |_| ());
        assert_eq!(chats(&mut sidecar.http2().await).await, 200);
        assert!(counted(&sidecar, "http1"), "{}", sidecar.metrics());
    })
    .await;
}

#[tokio::test]
async fn what_a_caller_in_clear_asks_in_http2_arrives_in_http1_where_nothing_else_is_spoken() {
    story(async {
        for (method, first) in [(Method::GET, 200), (Method::POST, 502)] {
            let seen = Rc::<RefCell<Vec<String>>>::default();
            let kept = seen.clone();
            let address = application(move |mut stream| {
                let kept = kept.clone();
                async move {
                    let asked = head(&mut stream).await;
                    let is_http1 = asked.contains(" HTTP/1.1\r\n");
                    kept.borrow_mut().push(asked);
                    let refused = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_owned();
                    let _ = stream.write_all(if is_http1 { closing() } else { refused }.as_bytes()).await;
                }
            });
            let sidecar = Sidecar::before(address.await, MeshProtocol::Auto, |inbound| inbound.mode = Some(PeerMode::Permissive));
            let (requests, connection) = h2::client::handshake(sidecar.clear().await).await.unwrap();
            spawn_local(async move { drop(connection.await) });
            let mut requests = requests.ready().await.unwrap();
            assert_eq!(
                status_of(&mut requests, method.clone(), "/a").await,
                first,
                "{method}: nobody knows what has looked at it"
            );
            assert_eq!(status_of(&mut requests, method.clone(), "/b").await, 200, "{method}");
            let asked = |path: &str| seen.borrow().iter().filter(|head| head.starts_with(&format!("{method} {path} "))).count();
            assert_eq!((asked("/a"), asked("/b")), (usize::from(first == 200), 1), "{seen:?}");
        }
    })
    .await;
}

/// Puts an application that speaks HTTP/2 only in the place of one that speaks HTTP/1, or the other way round.
async fn replaced(http1_first: bool, shy: bool) {
    let (is_http1, came) = (Rc::new(Cell::new(http1_first)), Came::default());
    let (http1, seen) = (is_http1.clone(), came.clone());
    let connections = Rc::<RefCell<Vec<tokio::task::AbortHandle>>>::default();
    let kept = connections.clone();
    let address = application(move |mut stream| {
        let (http1, seen) = (http1.clone(), seen.clone());
        let serve = spawn_local(async move {
            if http1.get() {
                while head(&mut stream).await.starts_with("GET") {
                    stream.write_all(closing().as_bytes()).await.unwrap();
                }
                // What it does not speak is answered, too.
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            } else {
                serve_http2_as(stream, shy, seen).await;
            }
        });
        kept.borrow_mut().push(serve.abort_handle());
        async {}
    });
    let sidecar = Sidecar::before(address.await, MeshProtocol::Auto, |_| ());
    let mut requests = sidecar.http2().await;
    let mut until = async |answer: &str| {
        // Two requests at most find out that something has changed.
        for _ in 0..3 {
            if asked(&mut requests, Method::GET, None, 0).await == (200, Bytes::copy_from_slice(answer.as_bytes())) {
                return true;
            }
        }
        false
    };
    let (first, second) = if http1_first { ("ok", "two") } else { ("two", "ok") };
    assert!(until(first).await, "{http1_first} {shy}");
    is_http1.set(!http1_first);
    connections.borrow_mut().drain(..).for_each(|connection| connection.abort());
    assert!(until(second).await && came.borrow().len() == 1, "{http1_first} {shy}");
}

#[tokio::test]
async fn who_takes_the_place_of_an_application_may_speak_another_version() {
    story(async {
        for (http1_first, shy) in [(true, false), (true, true), (false, false), (false, true)] {
            replaced(http1_first, shy).await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_port_is_found_out_by_itself() {
    story(async {
        let (first, second) = (answering(OK).await.0, http2_only(false).await.0);
        let further = [
            Place { port: 9090, address: second, protocol: MeshProtocol::Auto },
            Place { port: 25, address: super::tunnels::greeting().await, protocol: MeshProtocol::Auto },
        ];
        let sidecar = Sidecar::before_all((first, MeshProtocol::Auto), &further, |_| ());
        let mut requests = sidecar.http2().await;
        assert_eq!(asked(&mut requests, Method::GET, Some(9090), 0).await, (200, "two".into()));
        assert_eq!(asked(&mut requests, Method::GET, None, 0).await, (200, "ok".into()));
        for (port, protocol) in [(9090, "http2"), (first.port(), "http1")] {
            assert!(sidecar.metrics().contains(&format!("{{port=\"{port}\",protocol=\"{protocol}\"}} 1\n")));
        }
        let connect = Request::builder().method(Method::CONNECT).uri("web.shop:25").body(()).unwrap();
        let (response, _up) = requests.send_request(connect, false).unwrap();
        assert_eq!(response.await.unwrap().into_body().data().await.unwrap().unwrap(), "220 ready\r\n");
        // The port that begins HTTP/2 of itself lets no bytes through once it was heard.
        let tunnel = || Request::builder().method(Method::CONNECT).uri("web.shop:9090").body(()).unwrap();
        let (response, _up) = requests.send_request(tunnel(), false).unwrap();
        let said = response.await.unwrap().into_body().data().await;
        assert!(said.as_ref().is_none_or(Result::is_err), "{said:?}");
        let (response, _up) = requests.send_request(tunnel(), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 405);
    })
    .await;
}
