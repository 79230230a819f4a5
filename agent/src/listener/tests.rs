//! Stories of listeners on real sockets: opening, changing, closing, PROXY headers, TLS, limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{EdgeLimits, Listener, ListenerProtocol, ProxyProtocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::admission::Admission;
use super::connection::{self, Newcomer};
use super::harness::{Fake, in_house as story, link, listener, text};
use super::site::Worker;
use super::{Count, Shared};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_CLOSE: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

async fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_ref()).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A connection that breaks off ends what can be read, too.
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_listener_opens_serves_changes_and_closes() {
    story(Fake::echo(), async |mut house| {
        let plain = listener(EdgeLimits::default());
        assert!(house.want(std::slice::from_ref(&plain)).is_empty());
        let address = house.address();
        assert!(ask(address, GET_CLOSE).await.ends_with("GET a/x "));

        let mut kept = TcpStream::connect(address).await.unwrap();
        kept.write_all(GET.as_bytes()).await.unwrap();
        kept.read_u8().await.unwrap();
        let strict = listener(EdgeLimits { max_uri_bytes: 3, ..EdgeLimits::default() });
        house.want(&[strict]);
        assert_eq!(house.address(), address, "a changed listener keeps its socket");
        assert!(ask(address, GET_CLOSE).await.ends_with("GET a/x "));
        assert!(ask(address, GET_CLOSE.replace("/x", "/xxxx")).await.starts_with("HTTP/1.1 414"));

        house.want(&[]);
        assert!(rest(&mut kept).await.ends_with("GET a/x "), "idle connections are closed");
        assert!(TcpStream::connect(address).await.is_err());
        assert_eq!(house.count(Count::Accepted), 4);
    })
    .await;
}

#[tokio::test]
async fn whoever_comes_is_let_in_by_the_newest_configuration_even_before_the_worker_is_woken_for_it() {
    story(Fake::echo(), async |mut house| {
        let plain = listener(EdgeLimits::default());
        house.want(std::slice::from_ref(&plain));
        let address = house.address();
        let long = GET_CLOSE.replace("/x", "/xxxx");
        assert!(ask(address, &long).await.ends_with("GET a/xxxx "));
        let strict = listener(EdgeLimits { max_uri_bytes: 3, ..EdgeLimits::default() });
        house.worker.service.newest.replace(Some(Arc::new(strict.clone())));
        assert!(ask(address, &long).await.starts_with("HTTP/1.1 414"));
        house.want(&[strict]);
        assert!(ask(address, &long).await.starts_with("HTTP/1.1 414"));
        // What is to be at another address says nothing of this one.
        let elsewhere = Listener { address: "127.0.0.2:1".parse().unwrap(), ..plain };
        house.worker.service.newest.replace(Some(Arc::new(elsewhere)));
        assert!(ask(address, &long).await.starts_with("HTTP/1.1 414"));
    })
    .await;
}

#[tokio::test]
async fn an_address_in_use_is_told_and_others_are_not_touched() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    story(Fake::echo(), async |mut house| {
        let good = listener(EdgeLimits::default());
        let bad = Listener { name: "bad".into(), address: taken.local_addr().unwrap(), ..good.clone() };
        let faults = house.want(&[good, bad]);
        assert_eq!((faults.len(), &*faults[0].name), (1, "bad"));
        assert!(ask(house.address(), GET_CLOSE).await.ends_with("GET a/x "));
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_moves_where_it_cannot_listen_goes_on_but_not_in_clear_what_is_for_tls_now() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    story(Fake::echo(), async |mut house| {
        let plain = listener(EdgeLimits::default());
        house.want(std::slice::from_ref(&plain));
        let address = house.address();
        let moved = Listener { address: taken.local_addr().unwrap(), ..plain.clone() };
        assert_eq!(house.want(std::slice::from_ref(&moved)).len(), 1);
        assert!(ask(address, GET_CLOSE).await.ends_with("GET a/x "), "its new address is taken, so it stays");

        let mut kept = TcpStream::connect(address).await.unwrap();
        kept.write_all(GET.as_bytes()).await.unwrap();
        kept.read_u8().await.unwrap();
        let encrypted = Listener { protocol: ListenerProtocol::Https, ..moved };
        assert_eq!(house.want(std::slice::from_ref(&encrypted)).len(), 1);
        assert!(rest(&mut kept).await.ends_with("GET a/x "), "idle connections are closed");
        assert!(TcpStream::connect(address).await.is_err(), "nobody gets in clear what is for TLS");
    })
    .await;
}

#[tokio::test]
async fn a_closing_listener_lets_requests_end() {
    let slow = Fake::new(|_| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        text(200, "done")
    });
    story(slow, async |mut house| {
        house.want(&[listener(EdgeLimits::default())]);
        let mut stream = TcpStream::connect(house.address()).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        house.listeners.drain().await;
        let answer = rest(&mut stream).await;
        assert!(answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
        assert_eq!(house.worker.counters.get(Count::Closed), 1);
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_a_limit_are_closed_at_once() {
    story(Fake::echo(), async |mut house| {
        house.want(&[listener(EdgeLimits { max_connections: 1, ..EdgeLimits::default() })]);
        let address = house.address();
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(GET.as_bytes()).await.unwrap();
        first.read_u8().await.unwrap();
        assert_eq!(ask(address, "").await, "");
        assert_eq!(house.count(Count::RefusedListener), 1);
        house.want(&[listener(EdgeLimits { max_connections_per_ip: 1, ..EdgeLimits::default() })]);
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(GET.as_bytes()).await.unwrap();
        second.read_u8().await.unwrap();
        assert_eq!(ask(address, "").await, "");
        assert_eq!(house.count(Count::RefusedSource), 1);
    })
    .await;
}

#[tokio::test]
async fn a_proxy_header_is_demanded_from_trusted_peers_only() {
    let proxied = |trusted: &str| Listener {
        proxy_protocol: ProxyProtocol::Required(vec![trusted.parse().unwrap()]),
        ..listener(EdgeLimits { handshake_timeout: Duration::from_millis(200), ..EdgeLimits::default() })
    };
    story(Fake::telling(|info| format!("{} {} {}", info.peer, info.local, info.transport_peer.ip())), async |mut house| {
        house.want(&[proxied("127.0.0.0/8")]);
        let address = house.address();
        let header = "PROXY TCP4 192.0.2.9 192.0.2.1 5 6\r\n";
        assert!(ask(address, format!("{header}{GET_CLOSE}")).await.ends_with("192.0.2.9:5 192.0.2.1:6 127.0.0.1"));
        for bad in [GET_CLOSE, "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", "PROXY TCP"] {
            assert_eq!(ask(address, bad).await, "", "{bad}");
        }
        house.want(&[proxied("10.0.0.0/8")]);
        assert_eq!(ask(address, format!("{header}{GET_CLOSE}")).await, "");
        assert_eq!(house.count(Count::ProxyRefused), 4);
    })
    .await;
}

#[tokio::test]
async fn ipv6_is_spoken() {
    story(Fake::echo(), async |mut house| {
        let six = Listener { address: "[::1]:0".parse().unwrap(), ..listener(EdgeLimits::default()) };
        assert!(house.want(&[six]).is_empty());
        assert!(ask(house.address(), GET_CLOSE).await.ends_with("GET a/x "));
    })
    .await;
}

#[tokio::test]
async fn http_2_is_told_from_http_1_however_its_preface_comes() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    in_house_with_proxy(async |address| {
        for cut in [1, 3, 14, 23, 30] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
            stream.write_all(&PREFACE[..cut]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            stream.write_all(&PREFACE[cut..]).await.unwrap();
            let mut start = [0; 9];
            stream.read_exact(&mut start).await.unwrap();
            assert_eq!(start[3], 4, "the server's settings");
        }
        for almost in [
            "PRI * HTTP/2.0\r\n\r\nSX",
            "PRI * HTTP/1.1\r\nHost: a\r\n\r\n",
            "PUT /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        ] {
            let answer = ask(address, format!("PROXY UNKNOWN\r\n{almost}")).await;
            let expected = if almost.starts_with("PUT") { "HTTP/1.1 200" } else { "HTTP/1.1 " };
            assert!(answer.starts_with(expected), "{almost:?} gives {answer:?}");
        }
    })
    .await;
}

async fn in_house_with_proxy(tell: impl AsyncFnOnce(SocketAddr)) {
    story(Fake::echo(), async |mut house| {
        house.want(&[Listener { proxy_protocol: ProxyProtocol::Required(Vec::new()), ..listener(EdgeLimits::default()) }]);
        tell(house.address()).await;
    })
    .await;
}

#[tokio::test]
async fn who_stands_in_the_queue_when_a_listener_closes_is_served() {
    story(Fake::echo(), async |mut house| {
        house.want(&[listener(EdgeLimits::default())]);
        let address = house.address();
        // Connected by the kernel, while this thread lets nobody accept.
        let mut waiting: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        house.want(&[]);
        for stream in &mut waiting {
            std::io::Write::write_all(stream, GET_CLOSE.as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
        }
        for stream in waiting {
            assert!(rest(&mut TcpStream::from_std(stream).unwrap()).await.ends_with("GET a/x "));
        }
    })
    .await;
}

#[tokio::test]
async fn the_task_of_a_connection_stays_small() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
    let seat = Admission::seat(&Arc::default(), 1).unwrap();
    let newcomer = Newcomer { peer: stream.local_addr().unwrap(), stream, site: link(EdgeLimits::default()).site, seat };
    let worker = Rc::new(Worker::new(Fake::echo(), Arc::default()));
    let task = connection::serve(worker, Shared::default(), newcomer);
    // Thousands of connections at rest hold this each: what only a busy one or a handshake needs belongs into a box.
    assert!(size_of_val(&task) <= 1024, "{} bytes", size_of_val(&task));
}
