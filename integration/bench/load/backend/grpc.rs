//! A unary gRPC echo over cleartext HTTP/2 (RFC 9113) that costs next to nothing: every call is answered alike, so fields are not even decoded.

use std::collections::{HashMap, VecDeque};
use std::io::{Error, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types of frames and their flags (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// `:status: 200` and `content-type: application/grpc`; `grpc-status: 0` (RFC 7541: static table, literals without indexing).
const FIELDS: &[u8] = b"\x88\x0f\x10\x10application/grpc";
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// What a connection may send before it is told that more is welcome; the default of streams is enough for a message.
const WELCOME: u32 = 1 << 30;
/// The window of a connection before its first update.
const WINDOW: i64 = 65_535;

/// One connection: calls that are still being sent, answers that wait for the window of the connection, bytes to write.
struct Connection {
    calls: HashMap<u32, Vec<u8>>,
    waiting: VecDeque<(u32, Vec<u8>)>,
    window: i64,
    received: u32,
    out: Vec<u8>,
}

pub async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        spawn_local(async move {
            if let Err(error) = connection(stream).await {
                eprintln!("gRPC echo: {error}");
            }
        });
    }
}

async fn connection(mut stream: TcpStream) -> std::io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    if preface != PREFACE {
        return Err(Error::new(ErrorKind::InvalidData, "not HTTP/2"));
    }
    let (calls, waiting) = (HashMap::new(), VecDeque::new());
    let mut connection = Connection { calls, waiting, window: WINDOW, received: 0, out: Vec::new() };
    connection.put(SETTINGS, 0, 0, &[]);
    connection.put(WINDOW_UPDATE, 0, 0, &WELCOME.to_be_bytes());
    let mut bytes = Vec::with_capacity(64 * 1024);
    loop {
        stream.write_all(&connection.out).await?;
        connection.out.clear();
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let used = connection.take(&bytes)?;
        bytes.drain(..used);
    }
}

impl Connection {
    /// Takes all whole frames; how many bytes they were.
    fn take(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut rest = bytes;
        while let [a, b, c, kind, flags, s0, s1, s2, s3, payload @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((payload, behind)) = payload.split_at_checked(length) else { break };
            self.frame(*kind, *flags, u32::from_be_bytes([*s0, *s1, *s2, *s3]), payload)?;
            rest = behind;
        }
        Ok(bytes.len() - rest.len())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        match kind {
            HEADERS if flags & END_STREAM == 0 => drop(self.calls.insert(stream, Vec::new())),
            DATA if flags & PADDED != 0 => return Err(Error::new(ErrorKind::InvalidData, "padded data")),
            DATA => self.data(flags, stream, payload),
            WINDOW_UPDATE if stream == 0 => {
                let more =
                    payload.try_into().map(u32::from_be_bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "window"))?;
                self.window += i64::from(more);
                self.answer();
            }
            SETTINGS if flags & ACK == 0 => self.put(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.put(PING, ACK, 0, payload),
            _ => {}
        }
        Ok(())
    }

    fn data(&mut self, flags: u8, stream: u32, payload: &[u8]) {
        self.calls.entry(stream).or_default().extend_from_slice(payload);
        self.received += payload.len() as u32;
        if self.received > WELCOME / 2 {
            self.put(WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
        if flags & END_STREAM != 0 {
            let message = self.calls.remove(&stream).unwrap_or_default();
            self.waiting.push_back((stream, message));
            self.answer();
        }
    }

    /// Answers what the window of the connection allows.
    fn answer(&mut self) {
        while let Some((stream, message)) = self.waiting.pop_front() {
            if self.window < message.len() as i64 {
                return self.waiting.push_front((stream, message));
            }
            self.window -= message.len() as i64;
            self.put(HEADERS, END_HEADERS, stream, FIELDS);
            self.put(DATA, 0, stream, &message);
            self.put(HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS);
        }
    }

    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(payload);
    }
}
