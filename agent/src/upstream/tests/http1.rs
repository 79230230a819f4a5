//! HTTP/1: pooling, framing, faults.

use std::cell::RefCell;

use bytes::Bytes;

use super::*;
use crate::exchange::{InterimQueue, Reason};
use crate::http::{BodyError, Fields, Frame};

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

async fn text(response: UpstreamResponse) -> Result<Bytes, BodyError> {
    response.body.collect(1 << 20).await
}

#[test]
fn a_small_answer_comes_whole_and_its_connection_serves_again() {
    run(async {
        let cluster = cluster(&[canned(&[HELLO, HELLO, HELLO]).await], |_| ());
        let pools = Pools::new();
        for nth in 0..3 {
            let response = get(&pools, &cluster).await.unwrap();
            assert!(matches!(&response.body, Body::Full(bytes) if bytes == "hello"));
            assert_eq!((response.head.status, response.reused), (200, nth > 0));
        }
        let totals = totals(&cluster);
        assert_eq!((totals.attempts, totals.answered, totals.connects, totals.reused, totals.active), (3, 3, 1, 2, 0));
    });
}

#[test]
fn a_connection_is_closed_after_its_share_of_requests() {
    run(async {
        let cluster = cluster(&[canned(&[HELLO, HELLO, HELLO]).await], |upstream| upstream.keepalive.requests = 2);
        let pools = Pools::new();
        let mut reused = Vec::new();
        for _ in 0..4 {
            reused.push(get(&pools, &cluster).await.unwrap().reused);
        }
        assert_eq!(reused, [false, true, false, true]);
        assert_eq!(totals(&cluster).connections, 0);
    });
}

#[test]
fn a_connection_that_is_old_serves_no_further_request_and_is_closed() {
    run_paused(async {
        let minute = Duration::from_secs(60);
        let cluster = cluster(&[canned(&[HELLO; 3]).await], |upstream| upstream.keepalive.max_age = minute);
        let pools = Pools::new();
        let mut reused = Vec::new();
        for _ in 0..4 {
            reused.push(get(&pools, &cluster).await.unwrap().reused);
            tokio::time::sleep(Duration::from_secs(25)).await;
        }
        assert_eq!(reused, [false, true, true, false], "of 0, 25, 50 and 75 seconds");
        tokio::task::spawn_local(pools.clone().keep_tidy());
        assert_eq!(totals(&cluster).connections, 1);
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(totals(&cluster).connections, 0, "though it rests for less than it may");
    });
}

#[test]
fn idle_connections_are_closed_in_time() {
    run_paused(async {
        let cluster = cluster(&[canned(&[HELLO, HELLO]).await], |_| ());
        let pools = Pools::new();
        tokio::task::spawn_local(pools.clone().keep_tidy());
        get(&pools, &cluster).await.unwrap();
        tokio::time::sleep(Duration::from_secs(58)).await;
        assert_eq!(totals(&cluster).connections, 1);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(totals(&cluster).connections, 0);
    });
}

/// A server that closes what rests says when; a request that comes just then is lost, and not all may be sent again.
#[test]
fn a_connection_is_used_no_more_when_its_server_is_about_to_close_it() {
    const FIVE: &str = "HTTP/1.1 200 OK\r\nkeep-alive: timeout=5, max=100\r\ncontent-length: 0\r\n\r\n";
    const ONE: &str = "HTTP/1.1 200 OK\r\nKeep-Alive: max=9,Timeout=1\r\ncontent-length: 0\r\n\r\n";
    const WRONG: &str = "HTTP/1.1 200 OK\r\nkeep-alive: timeout=-1, soon\r\ncontent-length: 0\r\n\r\n";
    const CASES: [(&[&str], u64, bool); 6] = [
        (&[FIVE, FIVE], 3_900, true),
        (&[FIVE, FIVE], 4_000, false),
        (&[ONE, ONE], 499, true),
        (&[ONE, ONE], 500, false),
        (&[WRONG, WRONG], 50_000, true),
        (&[HELLO, HELLO], 50_000, true),
    ];
    for (answers, rest, reused) in CASES {
        run_paused(async {
            let cluster = cluster(&[canned(answers).await], |_| ());
            let pools = Pools::new();
            get(&pools, &cluster).await.unwrap();
            tokio::time::sleep(Duration::from_millis(rest)).await;
            assert_eq!(get(&pools, &cluster).await.unwrap().reused, reused, "{answers:?} after {rest} ms");
        });
    }
}

/// Every fault has its reason, and its connection is never used again.
#[test]
fn faults_of_an_answer_have_their_reason_and_cost_the_connection() {
    let cases: &[(&'static [&'static str], Reason)] = &[
        (&["nonsense\r\n\r\n"], Reason::UpstreamProtocol),
        (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"], Reason::UpstreamProtocol),
        (&["HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n"], Reason::UpstreamProtocol),
        (&["HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"], Reason::UpstreamProtocol),
        (&["HTTP/1.1 200 OK\r\ncontent-le"], Reason::UpstreamReset),
        (&[""], Reason::UpstreamReset),
    ];
    for (answers, reason) in cases {
        run(async {
            let cluster = cluster(&[canned(answers).await], |_| ());
            let pools = Pools::new();
            let error = get(&pools, &cluster).await.unwrap_err();
            assert_eq!(error.reason, *reason, "{answers:?}");
            assert_eq!(error.sent, Sent::All);
            assert_eq!(totals(&cluster).connections, 0);
        });
    }
}

#[test]
fn an_endless_head_is_refused() {
    run(async {
        let address = server(|mut stream, _| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while stream.write_all(b"x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").await.is_ok() {}
        })
        .await;
        let error = get(&Pools::new(), &cluster(&[address], |_| ())).await.unwrap_err();
        assert_eq!(error.reason, Reason::UpstreamProtocol);
    });
}

#[test]
fn broken_bodies_are_told_and_cost_the_connection() {
    type Case = (&'static [&'static str], Result<&'static [u8], BodyError>);
    let cases: &[Case] = &[
        (&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"], Err(BodyError::Aborted)),
        (&["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"], Err(BodyError::Aborted)),
        (&["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxx\r\n"], Err(BodyError::Malformed("chunk size"))),
        // bytes behind the end belong to nobody
        (&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n"], Ok(b"hello")),
        (&["HTTP/1.1 200 OK\r\n\r\nhello"], Ok(b"hello")),
        (&["HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"], Ok(b"hello")),
        (&["HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello"], Ok(b"hello")),
    ];
    for (answers, expected) in cases {
        run(async {
            let cluster = cluster(&[canned(answers).await], |_| ());
            let response = get(&Pools::new(), &cluster).await.unwrap();
            let body = text(response).await;
            assert_eq!(body, expected.clone().map(Bytes::from_static), "{answers:?}");
            assert_eq!((totals(&cluster).connections, totals(&cluster).active), (0, 0), "{answers:?}");
        });
    }
}

#[test]
fn chunked_bodies_bring_their_trailers_and_keep_the_connection() {
    run(async {
        const CHUNKED: &str =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=1\r\n wo\r\n0\r\nx-sum: 8\r\n\r\n";
        let cluster = cluster(&[canned(&[CHUNKED, HELLO]).await], |_| ());
        let pools = Pools::new();
        let mut response = get(&pools, &cluster).await.unwrap();
        let (mut all, mut trailers) = (Vec::new(), None);
        while let Some(frame) = response.body.frame().await {
            match frame.unwrap() {
                Frame::Data(bytes) => all.extend_from_slice(&bytes),
                Frame::Trailers(fields) => trailers = Some(*fields),
            }
        }
        assert_eq!(all, b"hello wo");
        assert_eq!(trailers.unwrap().get("x-sum"), Some(&b"8"[..]));
        assert!(get(&pools, &cluster).await.unwrap().reused);
    });
}

#[test]
fn head_and_bodiless_statuses_have_no_body() {
    run(async {
        const NONE: &str = "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n";
        let cluster = cluster(&[canned(&[NONE, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", HELLO]).await], |_| ());
        let pools = Pools::new();
        assert!(get(&pools, &cluster).await.unwrap().body.is_empty());
        let response = send(&pools, &cluster, &head(Method::Head, "/"), Body::Empty).await.unwrap();
        assert!(response.body.is_empty() && response.reused);
        assert_eq!(response.head.fields.get("content-length"), Some(&b"5"[..]));
        assert!(get(&pools, &cluster).await.unwrap().reused);
    });
}

#[test]
fn a_dead_pooled_connection_is_replaced_where_that_is_safe() {
    // the second request of the first connection meets a close without an answer
    async fn closing() -> SocketAddr {
        server(|mut stream, nth| async move {
            for _ in 0..if nth == 0 { 1 } else { 9 } {
                read_head(&mut stream).await;
                let _ = stream.write_all(HELLO.as_bytes()).await;
            }
            read_head(&mut stream).await;
        })
        .await
    }
    run(async {
        let cluster = cluster(&[closing().await], |_| ());
        let pools = Pools::new();
        get(&pools, &cluster).await.unwrap();
        let response = get(&pools, &cluster).await.unwrap();
        assert!(!response.reused);
        assert_eq!(totals(&cluster).resets, 0, "a stale connection is not the endpoint's fault");
    });
    run(async {
        let cluster = cluster(&[closing().await], |_| ());
        let pools = Pools::new();
        get(&pools, &cluster).await.unwrap();
        let error = send(&pools, &cluster, &head(Method::Post, "/"), Body::Empty).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::UpstreamReset, Sent::All), "a POST is never sent twice");
    });
}

/// Envoy sends what an endpoint may have seen again only where a route says so, whatever the method and however old the connection is.
#[test]
fn where_policies_alone_say_what_is_sent_again_a_connection_that_rested_is_no_reason() {
    for method in [Method::Get, Method::Head, Method::Options, Method::Put, Method::Delete, Method::Post] {
        run(async {
            let seen = Rc::new(RefCell::new(0));
            let count = seen.clone();
            let address = server(move |mut stream, _| {
                let count = count.clone();
                async move {
                    let _ = read_head(&mut stream).await;
                    let _ = stream.write_all(HELLO.as_bytes()).await;
                    *count.borrow_mut() += usize::from(!read_head(&mut stream).await.is_empty());
                }
            })
            .await;
            let cluster = cluster(&[address], |upstream| upstream.locality.spread = Some(model::Spread::default()));
            let pools = Pools::new();
            get(&pools, &cluster).await.unwrap();
            let error = send(&pools, &cluster, &head(method.clone(), "/"), Body::Empty).await.unwrap_err();
            assert_eq!((error.reason, error.sent, *seen.borrow()), (Reason::UpstreamReset, Sent::All, 1), "{method:?}");
        });
    }
}

#[test]
fn a_connection_that_was_closed_while_it_rested_is_not_used() {
    run(async {
        let cluster = cluster(&[canned(&[HELLO]).await], |_| ());
        let pools = Pools::new();
        get(&pools, &cluster).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        let response = send(&pools, &cluster, &head(Method::Post, "/"), Body::Empty).await.unwrap();
        assert!(!response.reused);
    });
}

#[test]
fn slow_steps_run_into_their_timeouts() {
    run_paused(async {
        let timeouts = |upstream: &mut model::Upstream| {
            upstream.timeouts =
                Timeouts { connect: Duration::from_secs(1), send: Duration::from_secs(2), read: Duration::from_secs(3) };
        };
        let silent = server(|mut stream, _| async move {
            read_head(&mut stream).await;
            tokio::time::sleep(Duration::from_secs(600)).await;
        })
        .await;
        let start = heddle_node::clock::now();
        let error = get(&Pools::new(), &cluster(&[silent], timeouts)).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::UpstreamTimeout, Sent::All));
        assert_eq!((heddle_node::clock::now() - start).as_secs(), 3);

        let half = server(|mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello").await.unwrap();
            tokio::time::sleep(Duration::from_secs(600)).await;
        })
        .await;
        let response = get(&Pools::new(), &cluster(&[half], timeouts)).await.unwrap();
        assert_eq!(text(response).await, Err(BodyError::Timeout));

        let deaf = server(|stream, _| async move {
            tokio::time::sleep(Duration::from_secs(600)).await;
            drop(stream);
        })
        .await;
        let (start, big) = (heddle_node::clock::now(), Body::from(Bytes::from(vec![0; 32 << 20])));
        let error = send(&Pools::new(), &cluster(&[deaf], timeouts), &head(Method::Put, "/"), big).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::UpstreamTimeout, Sent::Partial));
        assert_eq!((heddle_node::clock::now() - start).as_secs(), 2);
    });
}

#[test]
fn a_refused_connection_has_sent_nothing() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let cluster = cluster(&[address], |_| ());
        let error = send(&Pools::new(), &cluster, &head(Method::Post, "/"), Body::Empty).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::UpstreamConnect, Sent::Nothing));
        assert!(error.may_retry(false, true));
        assert_eq!(totals(&cluster).connect_failures, 1);
    });
}

#[test]
fn bodies_go_out_counted_or_chunked_with_their_trailers() {
    run(async {
        let seen: Rc<RefCell<Vec<u8>>> = Rc::default();
        let into = seen.clone();
        let address = server(move |mut stream, _| {
            let into = into.clone();
            async move {
                let mut buffer = vec![0; 65536];
                while let Ok(read) = stream.read(&mut buffer).await {
                    if read == 0 {
                        break;
                    }
                    into.borrow_mut().extend_from_slice(&buffer[..read]);
                    if into.borrow().ends_with(b"\r\n\r\n") || into.borrow().ends_with(b"!") {
                        stream.write_all(HELLO.as_bytes()).await.unwrap();
                    }
                }
            }
        })
        .await;
        let (cluster, pools) = (cluster(&[address], |_| ()), Pools::new());
        let full = Body::from(Bytes::from_static(b"content!"));
        send(&pools, &cluster, &head(Method::Post, "/a?b"), full).await.unwrap();
        let sent = String::from_utf8(seen.take()).unwrap();
        assert_eq!(sent, "POST /a?b HTTP/1.1\r\nhost: up.example\r\ncontent-length: 8\r\n\r\ncontent!");

        let (mut tap, body) = pipe(None);
        let request = head(Method::Post, "/");
        let sending = send(&pools, &cluster, &request, body);
        let feeding = async {
            tap.data(b"one").await;
            tap.data(&[b'x'; 40_000]).await;
            let mut trailers = Fields::new();
            trailers.append("x-end", "yes");
            tap.finish(Some(trailers)).await;
        };
        let (response, ()) = tokio::join!(sending, feeding);
        assert!(response.unwrap().reused);
        let sent = seen.take();
        let expected = [b"3\r\none\r\n9c40\r\n".to_vec(), vec![b'x'; 40_000], b"\r\n0\r\nx-end: yes\r\n\r\n".to_vec()].concat();
        assert!(sent.starts_with(b"POST / HTTP/1.1\r\nhost: up.example\r\ntransfer-encoding: chunked\r\n\r\n"));
        assert!(sent.ends_with(&expected));

        send(&pools, &cluster, &request, Body::Empty).await.unwrap();
        assert!(String::from_utf8(seen.take()).unwrap().contains("content-length: 0\r\n"));
    });
}

#[test]
fn an_early_answer_ends_the_sending_and_the_connection() {
    run(async {
        let address = server(|mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await.unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
        })
        .await;
        let cluster = cluster(&[address], |_| ());
        let (_tap, body) = pipe(Some(1 << 30));
        let response = send(&Pools::new(), &cluster, &head(Method::Post, "/"), body).await.unwrap();
        assert_eq!(response.head.status, 413);
        assert_eq!(text(response).await.unwrap(), "big");
        assert_eq!(totals(&cluster).connections, 0);
    });
}

#[test]
fn both_directions_stream_at_the_same_time() {
    run(async {
        let echo = server(|mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
            let mut buffer = vec![0; 1024];
            loop {
                let read = stream.read(&mut buffer).await.unwrap();
                stream.write_all(&buffer[..read]).await.unwrap();
                if read == 0 || buffer[..read].ends_with(b"0\r\n\r\n") {
                    break;
                }
            }
        })
        .await;
        let cluster = cluster(&[echo], |_| ());
        let (mut tap, body) = pipe(None);
        let mut response = send(&Pools::new(), &cluster, &head(Method::Post, "/"), body).await.unwrap();
        for word in ["ping", "pong"] {
            tap.data(word.as_bytes()).await;
            assert!(matches!(response.body.frame().await, Some(Ok(Frame::Data(bytes))) if bytes == word));
        }
        tap.finish(None).await;
        assert!(response.body.frame().await.is_none());
        assert_eq!(totals(&cluster).active, 0);
    });
}

#[test]
fn a_client_that_leaves_ends_the_try_and_closes_the_connection() {
    run(async {
        let left = Rc::new(tokio::sync::Notify::new());
        let told = left.clone();
        let address = server(move |mut stream, _| {
            let told = told.clone();
            async move {
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhello").await.unwrap();
                while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
                told.notify_one();
            }
        })
        .await;
        let cluster = cluster(&[address], |_| ());
        let response = get(&Pools::new(), &cluster).await.unwrap();
        drop(response);
        left.notified().await;
        assert_eq!((totals(&cluster).active, totals(&cluster).connections), (0, 0));

        let (tap, body) = pipe(None);
        drop(tap);
        let error = send(&Pools::new(), &cluster, &head(Method::Post, "/"), body).await.unwrap_err();
        assert_eq!(error.reason, Reason::ClientClosed);
        assert_eq!(totals(&cluster).resets, 0);
    });
}

#[test]
fn interim_responses_are_passed_on() {
    run(async {
        const EARLY: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let cluster = cluster(&[canned(&[EARLY]).await], |_| ());
        let (pools, queue) = (Pools::new(), Rc::new(InterimQueue::default()));
        let target = pools.target(&cluster);
        let picked = target.pick(None, &[], Seen::Never, &mut fastrand::Rng::with_seed(1), heddle_node::clock::now()).unwrap();
        let head = head(Method::Get, "/");
        let request = OutgoingRequest { head: &head, host: "a", upgrade: false, timeouts: Timeouts::default() };
        let response =
            pools.send(picked, &request, &mut Body::Empty, &Interim::to(&queue), heddle_node::clock::now()).await.unwrap();
        assert_eq!(response.head.status, 200);
        assert_eq!(queue.take().unwrap().fields.get("link"), Some(&b"</a>"[..]));
        assert!(queue.take().is_none());
    });
}

#[test]
fn an_upgrade_gives_the_raw_connection_with_what_was_read_too_far() {
    run(async {
        let address = server(|mut stream, _| async move {
            assert!(read_head(&mut stream).await.contains("connection: upgrade\r\n"));
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi")
                .await
                .unwrap();
            let mut buffer = [0; 4];
            stream.read_exact(&mut buffer).await.unwrap();
            stream.write_all(&buffer).await.unwrap();
        })
        .await;
        let cluster = cluster(&[address], |_| ());
        let pools = Pools::new();
        let target = pools.target(&cluster);
        let picked = target.pick(None, &[], Seen::Never, &mut fastrand::Rng::with_seed(1), heddle_node::clock::now()).unwrap();
        let mut head = head(Method::Get, "/");
        head.fields.append("upgrade", "websocket");
        let request = OutgoingRequest { head: &head, host: "a", upgrade: true, timeouts: Timeouts::default() };
        let response = pools.send(picked, &request, &mut Body::Empty, &Interim::none(), heddle_node::clock::now()).await.unwrap();
        let mut tunnel = response.upgraded.unwrap();
        tunnel.write_all(b"ping").await.unwrap();
        let mut all = Vec::new();
        tunnel.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"hiping");
        assert_eq!(totals(&cluster).active, 1);
        drop(tunnel);
        assert_eq!((totals(&cluster).active, totals(&cluster).connections), (0, 0));
    });
}

#[test]
fn one_chunk_is_a_whole_body() {
    run(async {
        const ONE: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let cluster = cluster(&[canned(&[ONE, ONE]).await], |_| ());
        let pools = Pools::new();
        for reused in [false, true] {
            let response = get(&pools, &cluster).await.unwrap();
            assert!(matches!(&response.body, Body::Full(bytes) if bytes == "hello"));
            assert_eq!(response.reused, reused);
        }
    });
}

#[test]
fn a_streamed_body_of_which_nothing_was_pulled_comes_back() {
    run(async {
        let address = server(|mut stream, _| async move {
            read_head(&mut stream).await;
        })
        .await;
        let cluster = cluster(&[address], |_| ());
        let pools = Pools::new();
        let (tap, mut body) = pipe(None);
        let error = send_body(&pools, &cluster, &head(Method::Put, "/"), &mut body).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::UpstreamReset, Sent::Partial));
        assert!(matches!(body, Body::Stream(_)));
        drop(tap);
        let (mut tap, mut body) = pipe(None);
        let request = head(Method::Put, "/");
        let (error, ()) = tokio::join!(send_body(&pools, &cluster, &request, &mut body), tap.data(b"gone"));
        assert_ne!(error.unwrap_err().sent, Sent::Nothing, "what was pulled cannot be sent again");
        assert!(body.is_empty());
    });
}
