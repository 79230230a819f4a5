//! Whole gRPC calls, HTTP/2 on both sides of the gateway, over real sockets as in `gateway.rs`. Client and endpoint speak prepared bytes and index
//! what they repeat, as their libraries do.

use std::net::SocketAddr;
use std::path::Path;

use heddle_agent::bench::{Gateway, tables};
use heddle_xds::model::{Resource, Scheme, UpstreamRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::Case;
use super::gateway::{LOOPBACK, endpoints, listener, upstream};
use super::routes::any;
use crate::subject::Subject;

/// Rounds that are counted.
const ROUNDS: usize = 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// Opens the window of the connection so far that nobody ever waits for it.
const WIDE: &[u8] = b"\0\0\x04\x08\0\0\0\0\0\x3f\xff\xff\xff";
const ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// One message of 60 bytes behind its five bytes of length.
const MESSAGE: &[u8; 65] = &[b'm'; 65];

/// What a client says of every call: the first time, and then by index.
const FIRST_CALL: &[u8] = b"\x83\x86\x44\x10/echo.Echo/Unary\x41\x0fwww.example.com\x5f\x10application/grpc\x40\x02te\x08trailers\x7a\x0egrpc-go/1.60.0";
const NEXT_CALL: &[u8] = b"\x83\x86\xc2\xc1\xc0\xbf\xbe";
/// What an endpoint answers, head and trailers: the first time, and then by index.
const FIRST_ANSWER: [&[u8]; 2] = [b"\x88\x5f\x10application/grpc", b"\x40\x0bgrpc-status\x010\x40\x0cgrpc-message\x00"];
const NEXT_ANSWER: [&[u8]; 2] = [b"\x88\xc0", b"\xbf\xbe"];

/// One end of a connection that reads frames and knows nothing of what they say.
struct Peer {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Peer {
    /// The stream of the next frame that ends one.
    async fn ended(&mut self) -> Option<u32> {
        loop {
            while let Some([a, b, c, kind, flags, id @ ..]) = self.held.first_chunk::<9>().copied() {
                let len = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
                if self.held.len() < len {
                    break;
                }
                self.held.drain(..len);
                match kind {
                    0 | 1 if flags & END_STREAM != 0 => return Some(u32::from_be_bytes(id)),
                    4 if flags == 0 => self.stream.write_all(ACK).await.unwrap(),
                    _ => {}
                }
            }
            if self.stream.read_buf(&mut self.held).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A client of one connection, and whatever stands behind it, on one thread.
struct Calls {
    runtime: Runtime,
    local: LocalSet,
    client: Peer,
    next: u32,
    out: Vec<u8>,
    _gateway: Option<Gateway>,
}

impl Subject for Calls {
    fn run(&mut self, rounds: usize) {
        let Calls { runtime, local, client, next, out, .. } = self;
        local.block_on(runtime, async {
            for _ in 0..rounds {
                out.clear();
                frame(out, 1, END_HEADERS, *next, if *next == 1 { FIRST_CALL } else { NEXT_CALL });
                frame(out, 0, END_STREAM, *next, MESSAGE);
                client.stream.write_all(out).await.unwrap();
                assert_eq!(client.ended().await, Some(*next));
                *next += 2;
            }
        });
    }
}

/// An endpoint that answers every stream.
async fn endpoint(socket: TcpListener) {
    while let Ok((mut stream, _)) = socket.accept().await {
        tokio::task::spawn_local(async move {
            stream.set_nodelay(true).unwrap();
            stream.read_exact(&mut [0; 24]).await.unwrap();
            stream.write_all(&[SETTINGS, WIDE].concat()).await.unwrap();
            let (mut peer, mut answer, mut out) = (Peer { stream, held: Vec::new() }, FIRST_ANSWER, Vec::new());
            while let Some(id) = peer.ended().await {
                out.clear();
                frame(&mut out, 1, END_HEADERS, id, answer[0]);
                frame(&mut out, 0, 0, id, MESSAGE);
                frame(&mut out, 1, END_HEADERS | END_STREAM, id, answer[1]);
                answer = NEXT_ANSWER;
                if peer.stream.write_all(&out).await.is_err() {
                    return;
                }
            }
        });
    }
}

pub fn cases() -> Vec<Case> {
    vec![
        Case { name: "grpc/client and endpoint", rounds: ROUNDS, less: None, make: || calls(|_| None) },
        Case {
            name: "grpc/unary",
            rounds: ROUNDS,
            less: Some("grpc/client and endpoint"),
            make: || calls(|endpoint| Some(resources(endpoint))),
        },
    ]
}

/// A client of a gateway with the resources that `through` gives, or of the endpoint itself.
fn calls(through: fn(SocketAddr) -> Option<Vec<Resource>>) -> Box<dyn Subject> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let (client, gateway) = local.block_on(&runtime, async {
        let socket = TcpListener::bind(LOOPBACK).await.unwrap();
        let behind = socket.local_addr().unwrap();
        tokio::task::spawn_local(endpoint(socket));
        let gateway = through(behind).map(|all| Gateway::open(tables(all).unwrap(), Path::new("/dev/null")).unwrap());
        let mut stream = TcpStream::connect(gateway.as_ref().map_or(behind, |gateway| gateway.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&[PREFACE, SETTINGS, WIDE].concat()).await.unwrap();
        (Peer { stream, held: Vec::new() }, gateway)
    });
    Box::new(Calls { runtime, local, client, next: 1, out: Vec::new(), _gateway: gateway })
}

fn resources(endpoint: SocketAddr) -> Vec<Resource> {
    let mut route = any();
    route.upstream = Some(UpstreamRef { name: "u".into() });
    let mut upstream = upstream("u");
    upstream.scheme = Scheme::Grpc;
    vec![
        Resource::Listener(listener()),
        Resource::Upstream(upstream),
        Resource::Endpoints(endpoints("u", endpoint)),
        Resource::Route(route),
    ]
}
