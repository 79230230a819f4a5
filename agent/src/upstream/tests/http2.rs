//! HTTP/2: streams, trailers, resets, saturation, closing connections.

use std::cell::Cell;

use ::h2::server::SendResponse;
use ::h2::{RecvStream, SendStream};

use super::*;
use crate::exchange::Reason;
use crate::http::h2::frame::{self, ErrorCode};

type Request = http::Request<RecvStream>;

/// An HTTP/2 server that runs `script` for each request, which is told the number of its connection.
async fn h2_server<F: Future<Output = ()> + 'static>(
    most_streams: u32,
    script: impl Fn(Request, SendResponse<Bytes>, usize) -> F + Clone + 'static,
) -> SocketAddr {
    server(move |stream, nth| {
        let script = script.clone();
        async move {
            let mut builder = ::h2::server::Builder::new();
            let mut connection = builder.max_concurrent_streams(most_streams).handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::task::spawn_local(script(request, respond, nth));
            }
        }
    })
    .await
}

fn grpc(address: SocketAddr) -> Arc<Edition> {
    cluster(&[address], |upstream| upstream.scheme = Scheme::Grpc)
}

fn call() -> RequestHead {
    let mut head = head(Method::Post, "/pkg.Service/Call");
    head.fields.append("Content-Type", "application/grpc");
    head.fields.append("connection", "close");
    head
}

fn ok() -> http::Response<()> {
    http::Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn status(code: &str) -> http::HeaderMap {
    [(http::HeaderName::from_static("grpc-status"), code.parse().unwrap())].into_iter().collect()
}

async fn echo(request: Request, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    let mut out: SendStream<Bytes> = respond.send_response(ok(), false).unwrap();
    while let Some(Ok(bytes)) = body.data().await {
        body.flow_control().release_capacity(bytes.len()).unwrap();
        out.send_data(bytes, false).unwrap();
    }
    out.send_trailers(status("0")).unwrap();
}

#[test]
fn a_unary_call_brings_body_and_trailers() {
    run(async {
        let address = h2_server(100, |request, respond, _| async {
            assert_eq!(request.headers()["te"], "trailers");
            assert_eq!(request.uri().to_string(), "http://up.example/pkg.Service/Call");
            assert!(!request.headers().contains_key("connection"));
            echo(request, respond).await;
        })
        .await;
        let (cluster, pools) = (grpc(address), Pools::new());
        for nth in 0..3 {
            let mut response = send(&pools, &cluster, &call(), Body::from(Bytes::from_static(b"message"))).await.unwrap();
            assert_eq!((response.head.status, response.reused), (200, nth > 0));
            assert!(matches!(response.body.frame().await, Some(Ok(Frame::Data(bytes))) if bytes == "message"));
            let Some(Ok(Frame::Trailers(trailers))) = response.body.frame().await else { panic!("no trailers") };
            assert_eq!(trailers.get("grpc-status"), Some(&b"0"[..]));
            assert!(response.body.frame().await.is_none());
        }
        let totals = totals(&cluster);
        assert_eq!((totals.connects, totals.active, totals.answered), (1, 0, 3));
    });
}

#[test]
fn streams_flow_both_ways_and_large_ones_within_their_windows() {
    run(async {
        let (cluster, pools) = (grpc(h2_server(100, |request, respond, _| echo(request, respond)).await), Pools::new());
        let (mut tap, body) = pipe(None);
        let mut response = send(&pools, &cluster, &call(), body).await.unwrap();
        for word in ["one", "two"] {
            tap.data(word.as_bytes()).await;
            assert!(matches!(response.body.frame().await, Some(Ok(Frame::Data(bytes))) if bytes == word));
        }
        let feeding = async {
            for _ in 0..64 {
                tap.data(&[7; 100_000]).await;
            }
            tap.finish(None).await;
        };
        let (all, ()) = tokio::join!(response.body.collect(1 << 30), feeding);
        assert_eq!(all.unwrap().len(), 6_400_000);
    });
}

#[test]
fn a_client_that_leaves_resets_the_stream_with_cancel() {
    run(async {
        let reasons = Rc::new(tokio::sync::mpsc::unbounded_channel());
        let told = reasons.0.clone();
        let address = h2_server(100, move |request, mut respond, _| {
            let told = told.clone();
            async move {
                let mut out = respond.send_response(ok(), false).unwrap();
                let reason = std::future::poll_fn(|cx| out.poll_reset(cx)).await;
                told.send(reason.ok()).unwrap();
                drop(request);
            }
        })
        .await;
        let (cluster, pools) = (grpc(address), Pools::new());
        let mut reasons = Rc::into_inner(reasons).unwrap().1;
        let (tap, body) = pipe(None);
        let response = send(&pools, &cluster, &call(), body).await.unwrap();
        drop(response);
        assert_eq!(reasons.recv().await.unwrap(), Some(::h2::Reason::CANCEL));
        drop(tap);

        let (tap, body) = pipe(None);
        let mut response = send(&pools, &cluster, &call(), body).await.unwrap();
        drop(tap);
        let broke = response.body.frame().await;
        assert!(matches!(broke, Some(Err(BodyError::Request(fault))) if *fault == BodyError::Aborted));
        assert_eq!(totals(&cluster).resets, 0, "the client's fault");
        assert_eq!(reasons.recv().await.unwrap(), Some(::h2::Reason::CANCEL));
        assert_eq!((totals(&cluster).active, totals(&cluster).connects), (0, 1), "the connection goes on");
    });
}

#[test]
fn a_reset_by_the_endpoint_breaks_the_body_off() {
    run(async {
        let address = h2_server(100, |_, mut respond, _| async move {
            let mut out = respond.send_response(ok(), false).unwrap();
            out.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            out.send_reset(::h2::Reason::INTERNAL_ERROR);
        })
        .await;
        let (cluster, pools) = (grpc(address), Pools::new());
        let mut response = send(&pools, &cluster, &call(), Body::Empty).await.unwrap();
        assert!(matches!(response.body.frame().await, Some(Ok(Frame::Data(_)))));
        assert!(matches!(response.body.frame().await, Some(Err(BodyError::Aborted))));
        assert_eq!((totals(&cluster).resets, totals(&cluster).active), (1, 0));
    });
}

#[test]
fn a_refused_stream_has_not_been_looked_at() {
    run(async {
        let refuse = Rc::new(Cell::new(::h2::Reason::REFUSED_STREAM));
        let with = refuse.clone();
        let address = h2_server(100, move |_, mut respond, _| {
            respond.send_reset(with.get());
            async {}
        })
        .await;
        let (cluster, pools) = (grpc(address), Pools::new());
        let error = send(&pools, &cluster, &call(), Body::Empty).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::UpstreamReset, Sent::Nothing));
        let (tap, mut body) = pipe(None);
        let error = send_body(&pools, &cluster, &call(), &mut body).await.unwrap_err();
        assert!(error.sent == Sent::Nothing && matches!(body, Body::Stream(_)), "nothing was pulled of it");
        drop(tap);
        let (mut tap, mut body) = pipe(None);
        tap.data(b"gone").await;
        let error = send_body(&pools, &cluster, &call(), &mut body).await.unwrap_err();
        assert!(error.sent == Sent::Partial && body.is_empty());
        refuse.set(::h2::Reason::INTERNAL_ERROR);
        let error = send(&pools, &cluster, &call(), Body::Empty).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::UpstreamReset, Sent::All));
    });
}

#[test]
fn more_connections_are_opened_when_streams_run_out() {
    run(async {
        let used: Rc<std::cell::RefCell<Vec<usize>>> = Rc::default();
        let note = used.clone();
        let address = h2_server(2, move |request, respond, nth| {
            note.borrow_mut().push(nth);
            echo(request, respond)
        })
        .await;
        let (cluster, pools) = (grpc(address), Pools::new());
        // the first call brings the endpoint's settings
        drop(send(&pools, &cluster, &call(), Body::Empty).await.unwrap().body.collect(10).await);
        let mut open = Vec::new();
        for _ in 0..5 {
            let (tap, body) = pipe(None);
            open.push((tap, send(&pools, &cluster, &call(), body).await.unwrap()));
        }
        assert_eq!(*used.borrow(), [0, 0, 0, 1, 1, 2]);
        drop(open);
        assert_eq!(totals(&cluster).active, 0);
    });
}

#[test]
fn requests_that_come_together_share_one_connection() {
    run(async {
        let (cluster, pools) = (grpc(h2_server(100, |request, respond, _| echo(request, respond)).await), Pools::new());
        let head = call();
        let calls = (0..10).map(|_| send(&pools, &cluster, &head, Body::Empty));
        for response in futures_util::future::join_all(calls).await {
            assert_eq!(response.unwrap().head.status, 200);
        }
        assert_eq!(totals(&cluster).connects, 1);
    });
}

#[test]
fn an_old_connection_is_given_no_further_stream_and_brings_those_that_it_has_to_their_end() {
    run(async {
        let address = h2_server(100, |request, respond, _| echo(request, respond)).await;
        let cluster = cluster(&[address], |upstream| {
            upstream.scheme = Scheme::Grpc;
            upstream.keepalive.max_age = Duration::from_nanos(1);
        });
        let pools = Pools::new();
        let (mut tap, body) = pipe(None);
        let first = send(&pools, &cluster, &call(), body).await.unwrap();
        for connects in 2..4 {
            let other = send(&pools, &cluster, &call(), Body::from(Bytes::from_static(b"x"))).await.unwrap();
            assert_eq!((other.body.collect(10).await.unwrap(), totals(&cluster).connects), ("x".into(), connects));
        }
        let feeding = async {
            tap.data(b"to the end").await;
            tap.finish(None).await;
        };
        let (all, ()) = tokio::join!(first.body.collect(100), feeding);
        assert_eq!((all.unwrap(), totals(&cluster).resets), ("to the end".into(), 0));
    });
}

#[test]
fn a_connection_that_goes_away_is_replaced() {
    run(async {
        let address = server(|stream, _| async move {
            let mut connection = ::h2::server::handshake(stream).await.unwrap();
            let (request, respond) = connection.accept().await.unwrap().unwrap();
            connection.graceful_shutdown();
            tokio::task::spawn_local(echo(request, respond));
            while connection.accept().await.is_some() {}
        })
        .await;
        let (cluster, pools) = (grpc(address), Pools::new());
        for _ in 0..3 {
            let response = send(&pools, &cluster, &call(), Body::from(Bytes::from_static(b"x"))).await.unwrap();
            assert_eq!(response.body.collect(10).await.unwrap(), "x");
        }
        assert_eq!((totals(&cluster).connects, totals(&cluster).resets), (3, 0));
    });
}

#[test]
fn a_websocket_is_asked_for_on_another_connection_where_one_is_closing() {
    run(async {
        let address = server(|mut stream, nth| async move {
            if nth == 0 {
                // It is about to go: its settings and its goodbye come in one.
                let mut out = Vec::new();
                frame::write_settings(&mut out, &[(frame::Setting::EnableConnectProtocol, 1)]);
                frame::write_goaway(&mut out, 0, ErrorCode::NO_ERROR, b"");
                stream.write_all(&out).await.unwrap();
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                return;
            }
            let mut builder = ::h2::server::Builder::new();
            let mut connection = builder.enable_connect_protocol().handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut out = respond.send_response(http::Response::new(()), false).unwrap();
                out.send_data(Bytes::from_static(b"hello"), true).unwrap();
            }
        })
        .await;
        let (cluster, pools) = (grpc(address), Pools::new());
        let mut head = head(Method::Get, "/chat");
        head.fields.append("Upgrade", "websocket");
        head.fields.append("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let target = pools.target(&cluster);
        let now = heddle_node::clock::now();
        let picked = target.pick(None, &[], Seen::Never, &mut fastrand::Rng::with_seed(1), now).unwrap();
        let request = OutgoingRequest { head: &head, host: "up.example", upgrade: true, timeouts: Timeouts::default() };
        let response = pools.send(picked, &request, &mut Body::Empty, &Interim::none(), now).await.unwrap();
        assert_eq!((response.head.status, totals(&cluster).connects), (101, 2));
        let mut said = String::new();
        response.upgraded.unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "hello");
    });
}

#[test]
fn silence_runs_into_the_read_timeout_and_a_dead_connection_is_found_by_pings() {
    run_paused(async {
        let silent = h2_server(100, |request, respond, _| async move {
            tokio::time::sleep(Duration::from_secs(600)).await;
            drop((request, respond));
        })
        .await;
        let cluster = cluster(&[silent], |upstream| {
            upstream.scheme = Scheme::Grpc;
            upstream.timeouts.read = Duration::from_secs(3);
        });
        let start = heddle_node::clock::now();
        let error = send(&Pools::new(), &cluster, &call(), Body::Empty).await.unwrap_err();
        assert_eq!((error.reason, (heddle_node::clock::now() - start).as_secs()), (Reason::UpstreamTimeout, 3));
    });
    run_paused(async {
        // speaks just enough to be taken for alive, then never again
        let dead = server(|mut stream, _| async move {
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(3600)).await;
        })
        .await;
        let cluster = cluster(&[dead], |upstream| {
            upstream.scheme = Scheme::Grpc;
            upstream.timeouts.read = Duration::from_secs(3000);
        });
        let error = send(&Pools::new(), &cluster, &call(), Body::Empty).await.unwrap_err();
        assert_eq!(error.reason, Reason::UpstreamReset);
    });
}

/// A server that reads the heads of two requests and then says `words`.
async fn blunt(words: impl Fn(&mut Vec<u8>) + 'static) -> SocketAddr {
    let words = Rc::new(words);
    server(move |mut stream, _| {
        let words = words.clone();
        async move {
            let (mut out, mut read) = (Vec::new(), Vec::new());
            frame::write_settings(&mut out, &[]);
            stream.write_all(&out).await.unwrap();
            // both requests name the same path
            while read.windows(2).filter(|two| two == b"\x01\x05" || two == b"\x01\x04").count() < 2 {
                if stream.read_buf(&mut read).await.unwrap() == 0 {
                    return;
                }
            }
            out.clear();
            words(&mut out);
            stream.write_all(&out).await.unwrap();
            while stream.read_buf(&mut read).await.is_ok_and(|more| more > 0) {}
        }
    })
    .await
}

#[test]
fn requests_beyond_a_goaway_have_not_been_looked_at() {
    run(async {
        let address = blunt(|out| {
            frame::write_goaway(out, 1, ErrorCode::NO_ERROR, b"");
            let block = frame::begin_block(out, 1);
            out.push(0x88);
            block.finish(out, true, 16_384);
        })
        .await;
        let (cluster, pools, head) = (grpc(address), Pools::new(), call());
        let first = send(&pools, &cluster, &head, Body::Empty);
        let second = send(&pools, &cluster, &head, Body::Empty);
        let (first, second) = tokio::join!(first, second);
        assert_eq!(first.unwrap().head.status, 200);
        let error = second.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::UpstreamReset, Sent::Nothing), "{error}");
    });
}

#[test]
fn who_breaks_the_protocol_loses_all_requests() {
    run(async {
        let address = blunt(|out| frame::write_data_header(out, 0, 0, false)).await;
        let (cluster, pools, head) = (grpc(address), Pools::new(), call());
        let both = tokio::join!(send(&pools, &cluster, &head, Body::Empty), send(&pools, &cluster, &head, Body::Empty));
        for error in [both.0.unwrap_err(), both.1.unwrap_err()] {
            assert_eq!((error.reason, error.sent), (Reason::UpstreamProtocol, Sent::All), "{error}");
        }
        assert_eq!(totals(&cluster).connections, 0);
    });
}

#[test]
fn what_is_not_http2_is_a_fault_of_the_endpoint() {
    run(async {
        let cluster = grpc(canned(&["HTTP/1.1 400 Bad Request\r\n\r\n"]).await);
        let error = send(&Pools::new(), &cluster, &call(), Body::Empty).await.unwrap_err();
        assert!(error.reason.is_upstream(), "{error}");
        assert_eq!(totals(&cluster).connections, 0);
    });
}
