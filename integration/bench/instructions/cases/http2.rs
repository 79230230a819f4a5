//! Whole requests of a client that speaks HTTP/2, many at once on one connection, to an endpoint of HTTP/1, and gRPC calls, HTTP/2 on both sides; over
//! real sockets as in `gateway.rs`. Client and endpoint speak prepared bytes and index what they repeat, as their libraries do.

use std::net::SocketAddr;
use std::path::Path;

use heddle_agent::bench::{Gateway, tables};
use heddle_xds::model::{Resource, Scheme, Upstream, UpstreamRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::Case;
use super::gateway::{self, LOOPBACK, endpoints, listener, upstream};
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

/// What a client asks: the first time, and then by index.
const FIRST_REQUEST: &[u8] =
    b"\x82\x86\x44\x12/api/v1/things/420\x41\x0fwww.example.com\x53\x10application/json\x7a\x0dh2load/1.52.0";
const NEXT_REQUEST: &[u8] = b"\x82\x86\xc1\xc0\xbf\xbe";
/// What a client says of every call: the first time, and then by index.
const FIRST_CALL: &[u8] = b"\x83\x86\x44\x10/echo.Echo/Unary\x41\x0fwww.example.com\x5f\x10application/grpc\x40\x02te\x08trailers\x7a\x0egrpc-go/1.60.0";
const NEXT_CALL: &[u8] = b"\x83\x86\xc2\xc1\xc0\xbf\xbe";
/// What a client sends, and the message with it.
type Asked = (&'static [u8], &'static [u8], &'static [u8]);
const REQUESTS: Asked = (FIRST_REQUEST, NEXT_REQUEST, b"");
const CALLS: Asked = (FIRST_CALL, NEXT_CALL, MESSAGE);
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
    asked: Asked,
    next: u32,
    out: Vec<u8>,
    _gateway: Option<Gateway>,
}

impl Subject for Calls {
    fn run(&mut self, rounds: usize) {
        let Calls { runtime, local, client, asked, next: stream, out, .. } = self;
        let (first, next, message) = *asked;
        out.clear();
        for _ in 0..rounds {
            let head = if *stream == 1 { first } else { next };
            frame(out, 1, END_HEADERS | if message.is_empty() { END_STREAM } else { 0 }, *stream, head);
            if !message.is_empty() {
                frame(out, 0, END_STREAM, *stream, message);
            }
            *stream += 2;
        }
        local.block_on(runtime, async {
            client.stream.write_all(out).await.unwrap();
            for _ in 0..rounds {
                assert!(client.ended().await.is_some());
            }
        });
    }
}

fn answering(socket: TcpListener) {
    tokio::task::spawn_local(endpoint(socket));
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
        Case {
            name: "request/http2",
            rounds: ROUNDS,
            less: None,
            make: || requests(REQUESTS, |socket| drop(tokio::task::spawn_local(gateway::endpoint(socket))), Some(Scheme::Http)),
        },
        Case { name: "grpc/client and endpoint", rounds: ROUNDS, less: None, make: || requests(CALLS, answering, None) },
        Case {
            name: "grpc/unary",
            rounds: ROUNDS,
            less: Some("grpc/client and endpoint"),
            make: || requests(CALLS, answering, Some(Scheme::Grpc)),
        },
    ]
}

/// A client of a gateway before an endpoint that speaks as `scheme` says, or of the endpoint itself.
fn requests(asked: Asked, serve: fn(TcpListener), scheme: Option<Scheme>) -> Box<dyn Subject> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let (client, gateway) = local.block_on(&runtime, async {
        let socket = TcpListener::bind(LOOPBACK).await.unwrap();
        let behind = socket.local_addr().unwrap();
        serve(socket);
        let resources = scheme.map(|scheme| tables(resources(behind, scheme)).unwrap());
        let gateway = resources.map(|tables| Gateway::open(tables, Path::new("/dev/null")).unwrap());
        let mut stream = TcpStream::connect(gateway.as_ref().map_or(behind, |gateway| gateway.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&[PREFACE, SETTINGS, WIDE].concat()).await.unwrap();
        (Peer { stream, held: Vec::new() }, gateway)
    });
    Box::new(Calls { runtime, local, client, asked, next: 1, out: Vec::new(), _gateway: gateway })
}

fn resources(endpoint: SocketAddr, scheme: Scheme) -> Vec<Resource> {
    let mut route = any();
    route.upstream = Some(UpstreamRef { name: "u".into() });
    let upstream = Upstream { scheme, ..upstream("u") };
    vec![
        Resource::Listener(listener()),
        Resource::Upstream(upstream.into()),
        Resource::Endpoints(endpoints("u", endpoint)),
        Resource::Route(route),
    ]
}
