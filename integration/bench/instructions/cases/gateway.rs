//! Whole requests, from a client's socket to an endpoint's and back, through listener, pipeline and upstream as they run in the product.
//!
//! The sockets are real ones of the loopback interface, all in one thread: the counter sees what runs in user space alone, so the kernel's work
//! stays out; what the runtime does for a socket (readiness, wakers) is in, which it would not be over a stream in memory; and nothing has to
//! be bent for it. With one thread the order of events is the same in every run. What client and endpoint do for themselves is a case of
//! its own (`request/client and endpoint`), which is taken off.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heddle_agent::bench::{Gateway, tables};
use heddle_xds::model::{
    Balancer, CircuitBreakers, Endpoint, Endpoints, HealthChecks, KeepalivePool, Listener, PassHost, Resource, Scheme, Timeouts,
    Upstream, UpstreamRef, UpstreamTls, ZonePolicy,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::Case;
use super::filters::{TEN, configured, jack};
use super::heads::{REQUEST, RESPONSE};
use super::routes::any;
use crate::subject::Subject;

/// Rounds that are counted.
const ROUNDS: usize = 1024;
/// Where everything listens, at a port that is free.
pub const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
/// Bytes of content of each answer.
const CONTENT: usize = 60;

/// A client of one connection, and whatever stands behind it, on one thread.
struct Requests {
    runtime: Runtime,
    local: LocalSet,
    client: TcpStream,
    /// What the client reads into; made once, since clearing it is as much work as a good part of a request.
    buffer: Box<[u8; 2048]>,
    _gateway: Option<Gateway>,
}

impl Subject for Requests {
    fn run(&mut self, rounds: usize) {
        let Requests { runtime, local, client, buffer, .. } = self;
        local.block_on(runtime, async {
            for _ in 0..rounds {
                client.write_all(REQUEST).await.unwrap();
                answer(client, buffer).await;
            }
        });
    }
}

/// Reads one answer to its end.
async fn answer(client: &mut TcpStream, buffer: &mut [u8; 2048]) {
    let mut held = 0;
    loop {
        let read = client.read(&mut buffer[held..]).await.unwrap();
        assert!(read > 0, "the connection has ended after {:?}", String::from_utf8_lossy(&buffer[..held]));
        held += read;
        // The content holds no line ends, so there is no need to look for the end of the head.
        if buffer[..held.saturating_sub(CONTENT)].ends_with(b"\r\n\r\n") {
            assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&buffer[..held]));
            return;
        }
    }
}

/// An endpoint that answers whatever comes, without looking.
pub async fn endpoint(socket: TcpListener) {
    while let Ok((mut stream, _)) = socket.accept().await {
        tokio::task::spawn_local(async move {
            let mut buffer = [0; 4096];
            let answer = [RESPONSE, &[b'x'; CONTENT]].concat();
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) && stream.write_all(&answer).await.is_ok() {}
        });
    }
}

pub fn cases() -> Vec<Case> {
    let case = |name, make| Case { name, rounds: ROUNDS, less: Some("request/client and endpoint"), make };
    vec![
        Case { name: "request/client and endpoint", rounds: ROUNDS, less: None, make: || requests(|_| None) },
        case("request/http1", || requests(|endpoint| Some(resources(endpoint, false)))),
        case("request/http1, ten filters", || requests(|endpoint| Some(resources(endpoint, true)))),
    ]
}

/// A client of a gateway with the resources that `through` gives, or of the endpoint itself.
fn requests(through: fn(SocketAddr) -> Option<Vec<Resource>>) -> Box<dyn Subject> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let (client, gateway) = local.block_on(&runtime, async {
        let socket = TcpListener::bind(LOOPBACK).await.unwrap();
        let behind = socket.local_addr().unwrap();
        tokio::task::spawn_local(endpoint(socket));
        let gateway = through(behind).map(|all| Gateway::open(tables(all).unwrap(), Path::new("/dev/null")).unwrap());
        let address = gateway.as_ref().map_or(behind, |gateway| gateway.address);
        let client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, gateway)
    });
    Box::new(Requests { runtime, local, client, buffer: Box::new([0; 2048]), _gateway: gateway })
}

fn resources(endpoint: SocketAddr, filters: bool) -> Vec<Resource> {
    let mut route = any();
    route.upstream = Some(UpstreamRef { name: "u".into() });
    if filters {
        route.plugins = configured(&TEN);
    }
    vec![
        Resource::Listener(listener()),
        Resource::Consumer(jack()),
        Resource::Upstream(Arc::new(upstream("u"))),
        Resource::Endpoints(endpoints("u", endpoint)),
        Resource::Upstream(Arc::new(upstream("a"))),
        Resource::Endpoints(endpoints("a", endpoint)),
        Resource::Route(route),
    ]
}

pub fn listener() -> Listener {
    Listener::new("http", LOOPBACK.into())
}

pub fn endpoints(upstream: &str, address: SocketAddr) -> Endpoints {
    let host = Arc::from(address.ip().to_string());
    let endpoint = Endpoint { host, port: address.port(), weight: 1, ..Endpoint::default() };
    Endpoints { upstream: upstream.into(), endpoints: [endpoint].into() }
}

pub fn upstream(name: &str) -> Upstream {
    Upstream {
        name: name.into(),
        label: name.into(),
        balancer: Balancer::RoundRobin,
        scheme: Scheme::Http,
        pass_host: PassHost::Pass,
        retries: None,
        retry_timeout: Duration::ZERO,
        timeouts: Timeouts::default(),
        // A new connection in between would be counted.
        keepalive: KeepalivePool { requests: u32::MAX, ..KeepalivePool::default() },
        tls: UpstreamTls::default(),
        checks: HealthChecks::default(),
        breakers: CircuitBreakers::default(),
        discovery: None,
        slow_start: Duration::ZERO,
        panic_threshold: None,
        mesh: None,
        locality: ZonePolicy::default(),
        fleet_load: false,
        in_clear: false,
        drops: Vec::new(),
    }
}
